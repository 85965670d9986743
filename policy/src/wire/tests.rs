//! Both ways without loss, no message that does harm, and messages of other releases.

mod external;
mod recorded;
mod skew;

use std::collections::BTreeMap;

use prost::Message;

use super::*;
use crate::bundle::serde_json_raw::Json;
use crate::bundle::{
    AppVersion, Backend, Cors, Direction, Egress, Endpoint, FieldMatch, FilterAttachment, FilterLimits, FilterMode,
    Grant, GrantedSecret, HeaderModifier, KvGrant, KvScope, MeshSettings, Mirror, ObjectName, OnFailure, PathChange,
    PathMatch, Protocol, Redirect, Revision, Rewrite, Route, RouteAction, RouteKind, RouteMatch, RouteRule, Scheme,
    SecretGrant, ServedWorkload, Service, ServicePort, WorkloadPort,
};
use crate::delta::{Delta, Object};
use crate::identity::TrustDomain;
use crate::scope::{Ask, Ranges};
use crate::secret::{MAX_SECRET_BYTES, SecretBytes};
use crate::statement::SignedStatement;

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

fn rule() -> RouteRule {
    let pair = |name: &str| (name.to_owned(), "value".to_owned());
    let modifier = HeaderModifier { set: vec![pair("a")], add: vec![pair("b")], remove: vec!["c".to_owned()] };
    let matching = |path| RouteMatch {
        path: Some(path),
        method: Some("GET".to_owned()),
        headers: vec![FieldMatch { name: "x".to_owned(), value: "y".to_owned(), regex: false }],
        query: Vec::new(),
    };
    RouteRule {
        name: Some("rule".to_owned()),
        matches: vec![matching(PathMatch::Exact("/a".to_owned())), matching(PathMatch::Prefix("/b".to_owned()))],
        actions: vec![RouteAction::RequestHeaders(modifier.clone()), RouteAction::RequestTimeoutMs(1000)],
        backends: vec![
            Backend {
                service: Some(name("shop/web")),
                outside: false,
                port: 80,
                weight: 9,
                actions: vec![RouteAction::RequestHeaders(modifier)],
            },
            Backend { service: None, outside: false, port: 81, weight: 0, actions: Vec::new() },
        ],
    }
}

fn filter() -> FilterAttachment {
    FilterAttachment {
        name: "shop/limit".to_owned(),
        filter: "ratelimit".to_owned(),
        version: "1.0.0".to_owned(),
        digest: format!("sha256:{}", "ab".repeat(32)),
        signature: "c2ln".to_owned(),
        public_key_pem: "PEM".to_owned(),
        statement: None,
        shipped: false,
        direction: Direction::Outbound,
        order: -5,
        mode: FilterMode::Audit,
        on_failure: OnFailure::Allow,
        authorization: true,
        config: Json("{}".to_owned()),
        capabilities: vec!["token-bucket".to_owned()],
        grants: Vec::new(),
        limits: FilterLimits { memory_bytes: 1 << 20, call_timeout_ms: 5, ..FilterLimits::default() },
        workloads: vec![name("shop/web-1")],
        rules: Vec::new(),
        contract: FILTER_CONTRACT.to_owned(),
    }
}

fn route() -> Route {
    Route {
        name: name("shop/r#1"),
        kind: RouteKind::Http,
        parent: name("shop/web"),
        outside: false,
        parent_port: Some(80),
        consumer_namespace: Some("partner".to_owned()),
        hostnames: Vec::new(),
        created: Revision(7),
        rules: vec![rule()],
    }
}

/// One of everything, no field at its default.
fn everything() -> Vec<Object> {
    let identity = TrustDomain::default().workload("shop", "web").unwrap();
    let path_reading = "encoded-slash=literal, params=cut, slashes=kept".parse().unwrap();
    let (address, ranges) = ("127.0.0.11".parse().unwrap(), None);
    let endpoint = Endpoint {
        workload: name("shop/web-1"),
        identity: Some(identity.clone()),
        address,
        addresses: vec!["fd00::11".parse().unwrap()],
        mesh_address: "127.0.0.11:15008".parse().unwrap(),
        weight: 3,
        labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
    };
    let protocols = [Protocol::Http, Protocol::Grpc, Protocol::Tcp, Protocol::Udp, Protocol::Auto];
    let port = |(index, protocol): (usize, &Protocol)| ServicePort {
        name: Some(format!("p{index}")),
        port: u16::try_from(index).unwrap() + 80,
        target_port: 8080,
        protocol: *protocol,
        app_version: AppVersion::Http1,
        opaque_refused: true,
        other_targets: [(name("shop/web-1"), Some(9090)), (name("shop/web-2"), None)].into(),
    };
    vec![
        Object::Mesh(MeshSettings {
            trust_domain: TrustDomain::default(),
            trust_bundle_pem: "ROOTS".to_owned(),
            access_log: true,
            request_timeout_ms: Some(15_000),
            connect_timeout_ms: 5_000,
            max_retries: 2,
            egress: Egress::RegistryOnly,
            namespaces: ["shop".to_owned()].into(),
            ranges,
        }),
        Object::Workload(ServedWorkload {
            name: name("shop/web-1"),
            identity,
            address,
            addresses: vec!["fd00::11".parse().unwrap()],
            ports: vec![WorkloadPort {
                port: 8080,
                protocol: Protocol::Http,
                app_version: AppVersion::Http2,
                path_reading,
                opaque_refused: true,
            }],
            labels: endpoint.labels.clone(),
            service: Some(name("shop/web")),
            outbound_closed: None,
        }),
        Object::Service(Service {
            name: name("shop/web"),
            ports: protocols.iter().enumerate().map(port).collect(),
            path_reading,
            vip: Some("10.0.0.1".parse().unwrap()),
            traffic: None,
            spread: None,
            endpoints: BTreeMap::from([(name("shop/web-1"), endpoint)]),
        }),
        Object::Route(route()),
        Object::Filter(filter()),
    ]
}

fn asks() -> [Ask; 3] {
    let addresses = ["10.0.0.1", "fd00::1"].map(|text| Ask::address(text.parse().unwrap()));
    let [first, second] = addresses;
    [Ask::Service(name("shop/web")), first, second]
}

#[test]
fn what_is_asked_for_is_a_name_or_an_address() {
    for ask in asks() {
        assert_eq!(Ask::try_from(v1::Ask::from(&ask)), Ok(ask));
    }
    let named = |namespace: &str, name: &str| {
        let name = v1::ObjectName { namespace: namespace.to_owned(), name: name.to_owned() };
        v1::Ask { what: Some(v1::ask::What::Service(name)) }
    };
    let addressed = |text: &str| v1::Ask { what: Some(v1::ask::What::Address(text.to_owned())) };
    let check = |ask: v1::Ask, expect: &str| {
        assert_eq!(Ask::try_from(ask.clone()).unwrap_err().to_string(), expect);
        let refused = Received::try_from(v1::Delta { answered: vec![ask], ..v1::Delta::default() }).unwrap_err();
        assert_eq!(refused, Refused::whole(format!("answered: {expect}")));
    };
    check(v1::Ask::default(), "ask: is of a kind that this version doesn't know");
    check(named("shop", ""), "name: is empty");
    check(named("shop", "a.b"), "ask.service: is no name of a service");
    check(named("Shop", "web"), "ask.service: is no name of a service");
    check(addressed("10.0.0"), "ask.address: \"10.0.0\": invalid IP address syntax");
    assert_eq!(Ask::try_from(addressed("::ffff:10.0.0.1")), Ok(Ask::address("10.0.0.1".parse().unwrap())));
}

/// A proxy that would take what it does not hold for what there is not must not be told of a part.
#[test]
fn the_settings_of_a_part_require_that_the_proxy_asks() {
    let Some(Object::Mesh(mesh)) = everything().into_iter().next() else { panic!("the mesh's settings") };
    let ranges = Some(Ranges::around(["10.0.0.1".parse().unwrap()]));
    let scoped = Object::Mesh(MeshSettings { ranges, ..mesh.clone() });
    assert_eq!(encode(&scoped).requires, [SCOPE]);
    assert!(encode(&Object::Mesh(mesh)).requires.is_empty());
    assert_eq!(receive(vec![encode(&scoped)]).unwrap().delta.upserts, [scoped]);
}

fn through_bytes(delta: &Delta) -> Result<Received, Refused> {
    let bytes = v1::Delta::from(delta).encode_to_vec();
    Received::try_from(v1::Delta::decode(bytes.as_slice()).unwrap())
}

#[test]
fn both_ways_without_loss() {
    let mut removals: Vec<Key> = everything().iter().map(Object::key).collect();
    removals.push(Key::Endpoint { service: name("shop/web"), workload: name("shop/web-1") });
    let delta = Delta {
        revision: Revision(9),
        upserts: everything(),
        removals: removals.clone(),
        full: true,
        answered: asks().into(),
        ..Delta::default()
    };
    let received = through_bytes(&delta).unwrap();
    assert_eq!((&received.delta, received.versions.len(), received.skipped.len()), (&delta, 5, 0));
    let delta = Delta { revision: Revision(9), removals, subtractive: true, ..Delta::default() };
    assert_eq!(through_bytes(&delta).unwrap().delta, delta);
}

/// They are applied without the filters of their revision.
#[test]
fn answers_ahead_are_services_and_routes_and_nothing_else() {
    let ahead =
        |upserts| Delta { revision: Revision(9), upserts, ahead: true, answered: asks().into(), ..Delta::default() };
    let (may, other): (Vec<_>, Vec<_>) =
        everything().into_iter().partition(|object| matches!(object, Object::Service(_) | Object::Route(_)));
    assert_eq!(through_bytes(&ahead(may.clone())).unwrap().delta, ahead(may));
    for object in other {
        let refused = through_bytes(&ahead(vec![object])).unwrap_err();
        assert_eq!(refused.reason, "answers ahead are services and routes");
    }
    for delta in [
        Delta { full: true, ..ahead(vec![]) },
        Delta { removals: vec![Key::Service(name("shop/web"))], ..ahead(vec![]) },
    ] {
        assert_eq!(through_bytes(&delta).unwrap_err().reason, "answers ahead only add");
    }
}

#[test]
fn versions_follow_from_content() {
    let version = |object: &Object| encode(object).version;
    for object in everything() {
        assert_eq!(version(&object), version(&object.clone()));
    }
    let Some(Object::Service(mut service)) = everything().into_iter().nth(2) else { panic!("a service") };
    let before = version(&Object::Service(service.clone()));
    service.endpoints.clear();
    assert_ne!(before, version(&Object::Service(service)));
}

#[test]
fn versions_are_those_of_what_is_held() {
    let mut versions = Versions::new();
    let whole = Delta { upserts: everything(), full: true, ..Delta::default() };
    through_bytes(&whole).unwrap().note(&mut versions);
    assert_eq!(versions.len(), 5);
    assert_eq!(known(&versions).len(), 5);
    let cut = Key::Endpoint { service: name("shop/web"), workload: name("shop/web-1") };
    let cut = Delta { removals: vec![cut, Key::Route(name("shop/r#1"))], ..Delta::default() };
    through_bytes(&cut).unwrap().note(&mut versions);
    let left: Vec<_> = versions.iter().map(|(key, version)| (key.to_string(), *version != 0)).collect();
    let left: Vec<_> = left.iter().map(|(key, numbered)| (key.as_str(), *numbered)).collect();
    // What is held in part is known, so that its removal is told.
    let held =
        [("Mesh", true), ("Workload shop/web-1", true), ("Service shop/web", false), ("Filter shop/limit", true)];
    assert_eq!(left, held);
}

#[test]
fn a_filter_requires_the_contract_of_its_own_component() {
    let of =
        |abi: &str| encode(&Object::Filter(FilterAttachment { contract: crate::bundle::contract_of(abi), ..filter() }));
    assert_eq!(of("weft:filter@0.1.0").requires, ["wit-0.1"]);
    assert_eq!(of("weft:filter@0.1.7").requires, ["wit-0.1"], "a patch changes nothing");
    let second = of("weft:filter@0.2.3");
    assert_eq!(second.requires, ["wit-0.2"]);
    assert!(receive(vec![second]).is_ok(), "this release runs it");
    let newer = of("weft:filter@0.3.0");
    assert_eq!(newer.requires, ["wit-0.3"]);
    let refused = receive(vec![newer.clone()]).unwrap_err();
    assert!(refused.reason.contains("it requires wit-0.3"), "{}", refused.reason);
    let lying = v1::Object { requires: Vec::new(), ..newer };
    assert!(receive(vec![lying]).unwrap_err().reason.starts_with("contract: "));
}

/// The wire alone carries the bytes, to proxies that say they can hand them on; whatever else prints the attachment
/// does not.
#[test]
fn secrets_are_on_the_wire_and_nowhere_else() {
    const PLAIN: &[u8] = b"correct horse battery";
    let granted = |bytes: &[u8]| {
        let value = SecretBytes::new(bytes);
        let values = vec![GrantedSecret { name: "hmac".to_owned(), value }];
        let grants =
            vec![Grant::Secret(SecretGrant { values: values.clone() }), Grant::CryptoKeys(SecretGrant { values })];
        FilterAttachment { grants, contract: FILTER_CONTRACT_0_2.to_owned(), ..filter() }
    };
    let told = encode(&Object::Filter(granted(PLAIN)));
    assert_eq!(told.requires, [FILTER_CONTRACT_0_2, FILTER_SECRETS]);
    let received = receive(vec![told.clone()]).unwrap();
    assert_eq!(received.delta.upserts, [Object::Filter(granted(PLAIN))], "byte for byte");
    assert_ne!(encode(&Object::Filter(granted(b"correct horse batterz"))).version, told.version, "a rotation is told");
    let shown = serde_json::to_string(&granted(PLAIN)).unwrap() + &format!("{:?}", Object::Filter(granted(PLAIN)));
    assert!(shown.contains("redacted (21 bytes)"), "{shown}");
    assert!(!shown.contains("correct") && !shown.contains("Y29ycmVjdCB"), "{shown}");
    // What is shown of it is no value.
    let payload = serde_json::to_vec(&granted(PLAIN)).unwrap().into();
    let refused = receive(vec![v1::Object { payload, ..told }]).unwrap_err();
    assert!(refused.reason.contains("is not the base64 of a value"), "{}", refused.reason);
    let long = encode(&Object::Filter(granted(&[7; MAX_SECRET_BYTES + 1])));
    assert!(receive(vec![long]).unwrap_err().reason.contains("at most 16 secrets of 16384 bytes"));
}

/// A proxy that runs the first contract only may be of a release that knows no grants.
#[test]
fn grants_are_written_for_those_who_know_them() {
    let plain = encode(&Object::Filter(filter()));
    let payload = String::from_utf8(plain.payload.to_vec()).unwrap();
    assert!(!payload.contains("grants") && !payload.contains("body"), "{payload}");
    let kv = Grant::Kv(KvGrant { entries: 1, bytes: 1_024, scope: KvScope::Policy });
    let granted = encode(&Object::Filter(FilterAttachment { grants: vec![kv], ..filter() }));
    let refused = receive(vec![granted]).unwrap_err();
    assert!(refused.reason.starts_with("grants: are for components of a later contract"), "{}", refused.reason);
}

#[test]
fn a_statement_is_told_to_those_who_verify_it() {
    let text = "weft filter statement v1".to_owned();
    let signed =
        FilterAttachment { statement: Some(SignedStatement { text, signature: "c2ln".to_owned() }), ..filter() };
    let told = encode(&Object::Filter(signed.clone()));
    assert_eq!(told.requires, ["wit-0.1", FILTER_STATEMENT]);
    assert_eq!(receive(vec![told]).unwrap().delta.upserts, [Object::Filter(signed.clone())]);
    // An older proxy gets what it knows, which is whole in itself.
    assert_eq!(Object::Filter(signed).without_statement(), Some(Object::Filter(filter())));
    assert_eq!(Object::Filter(filter()).without_statement(), None);
}

#[test]
fn what_ships_is_told_to_those_who_share_it() {
    let shipped = FilterAttachment { shipped: true, ..filter() };
    let told = encode(&Object::Filter(shipped.clone()));
    assert_eq!(told.requires, ["wit-0.1", FILTER_SHIPPED]);
    assert_eq!(receive(vec![told]).unwrap().delta.upserts, [Object::Filter(shipped.clone())]);
    assert_eq!(Object::Filter(shipped).without_origin(), Some(Object::Filter(filter())));
    assert_eq!(Object::Filter(filter()).without_origin(), None);
}

#[test]
fn forms_that_serve_nobody_are_objects_too() {
    let closed: Vec<_> = everything().iter().filter_map(Object::closed).collect();
    assert_eq!(closed.len(), 3);
    for object in &closed {
        let whole = everything().into_iter().find(|it| it.key() == object.key()).unwrap();
        assert_ne!(*object, whole);
        assert!(encode(object).requires.is_empty(), "every release can do it");
    }
    let delta = Delta { upserts: closed, ..Delta::default() };
    assert_eq!(through_bytes(&delta).unwrap().delta, delta);
}

/// One of `everything` with a part of its JSON changed, as it arrives.
fn changed(index: usize, pointer: &str, value: serde_json::Value) -> v1::Object {
    let mut envelope = encode(&everything()[index]);
    let mut inside: serde_json::Value = serde_json::from_slice(&envelope.payload).unwrap();
    *inside.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
    envelope.payload = inside.to_string().into();
    envelope
}

fn receive(upserts: Vec<v1::Object>) -> Result<Received, Refused> {
    Received::try_from(v1::Delta { upserts, ..v1::Delta::default() })
}

/// What 0.1 did not know, in the form in which its proxies refuse it: none reads an expression as a text.
#[test]
fn expressions_and_parameters_arrive() {
    let field = |regex| FieldMatch { name: "q".to_owned(), value: "[0-9]+".to_owned(), regex };
    let matching = RouteMatch {
        path: Some(PathMatch::Regex("/v.*".to_owned())),
        headers: vec![field(true)],
        query: vec![field(true), field(false)],
        method: None,
    };
    let Object::Route(route) = everything().swap_remove(3) else { panic!("not a route") };
    let rules = vec![RouteRule { matches: vec![matching], ..rule() }];
    let sent = Object::Route(Route { rules, ..route });
    let envelope = encode(&sent);
    let inside: serde_json::Value = serde_json::from_slice(&envelope.payload).unwrap();
    let said = &inside["rules"][0]["matches"][0];
    assert!(said["headers"][0]["regex"] == true && said["query"][1].get("regex").is_none(), "{said}");
    assert_eq!(receive(vec![envelope]).unwrap().delta.upserts, [sent]);
}

/// A proxy that knows no such action refuses the route by its key.
#[test]
fn redirects_and_rewrites_arrive() {
    let (host, path) = (Some("in.example".to_owned()), Some(PathChange::Full("/x".to_owned())));
    let prefix = PathChange::Prefix { matched: "/a".to_owned(), to: String::new() };
    let elsewhere =
        Redirect { status: 308, scheme: Some(Scheme::Https), host: host.clone(), port: Some(8443), path: Some(prefix) };
    let backend = Backend { actions: vec![RouteAction::Rewrite(Rewrite { host, path })], ..rule().backends.remove(0) };
    let Object::Route(route) = everything().swap_remove(3) else { panic!("not a route") };
    let rules = vec![
        RouteRule { backends: vec![backend], ..rule() },
        RouteRule { actions: vec![RouteAction::Redirect(elsewhere)], backends: Vec::new(), ..rule() },
    ];
    let sent = Object::Route(Route { rules, ..route });
    let envelope = encode(&sent);
    let inside: serde_json::Value = serde_json::from_slice(&envelope.payload).unwrap();
    let told = serde_json::json!({"redirect": {"status": 308, "scheme": "https", "host": "in.example", "port": 8443,
        "path": {"prefix": {"matched": "/a", "to": ""}}}});
    assert_eq!(inside["rules"][1]["actions"][0], told);
    let told = serde_json::json!({"rewrite": {"host": "in.example", "path": {"full": "/x"}}});
    assert_eq!(inside["rules"][0]["backends"][0]["actions"][0], told);
    assert_eq!(receive(vec![envelope]).unwrap().delta.upserts, [sent]);
}

/// A proxy that knows no such action refuses the route by its key.
#[test]
fn answers_to_other_origins_arrive() {
    let cors = Cors {
        origins: ["https://*.a.example", "http://[::1]:3000"].map(|text| text.parse().unwrap()).into(),
        credentials: true,
        methods: vec!["*".to_owned()],
        headers: vec!["x-a".to_owned()],
        expose: vec!["*".to_owned()],
        max_age_s: 7,
    };
    let Object::Route(route) = everything().swap_remove(3) else { panic!("not a route") };
    let rules = vec![RouteRule { actions: vec![RouteAction::Cors(cors)], ..rule() }];
    let sent = Object::Route(Route { rules, ..route });
    let envelope = encode(&sent);
    let inside: serde_json::Value = serde_json::from_slice(&envelope.payload).unwrap();
    let told = serde_json::json!({"cors": {"origins": ["https://*.a.example", "http://[::1]:3000"], "credentials": true,
        "methods": ["*"], "headers": ["x-a"], "expose": ["*"], "max_age_s": 7}});
    assert_eq!(inside["rules"][0]["actions"][0], told);
    assert_eq!(receive(vec![envelope]).unwrap().delta.upserts, [sent]);
}

/// A preference: a proxy that does not know it has the route without.
#[test]
fn mirrors_arrive_and_are_left_out_for_who_can_not_do_them() {
    let mirror = |service: Option<&str>| {
        let service = service.map(|name| name.parse().unwrap());
        RouteAction::Mirror(Mirror { service, port: 80, numerator: 1, denominator: 3 })
    };
    let backend = Backend { actions: vec![mirror(None)], ..rule().backends.remove(0) };
    let Object::Route(route) = everything().swap_remove(3) else { panic!("not a route") };
    let rules = vec![RouteRule { actions: vec![mirror(Some("shop/copy"))], backends: vec![backend], ..rule() }];
    let sent = Object::Route(Route { rules, ..route.clone() });
    let envelope = encode(&sent);
    assert_eq!(envelope.requires, [REQUEST_MIRROR]);
    let inside: serde_json::Value = serde_json::from_slice(&envelope.payload).unwrap();
    let told = serde_json::json!({"mirror": {"service": {"name": "copy", "namespace": "shop"}, "port": 80, "numerator": 1, "denominator": 3}});
    assert_eq!(inside["rules"][0]["actions"][0], told);
    assert_eq!(receive(vec![envelope]).unwrap().delta.upserts, std::slice::from_ref(&sent));
    let plain = encode(&sent.without_preferences().unwrap());
    assert!(plain.requires.is_empty() && !String::from_utf8_lossy(&plain.payload).contains("mirror"), "{plain:?}");
    assert_eq!(Object::Route(route).without_preferences(), None);
}

#[test]
fn actions_that_no_release_takes_are_refused_by_key() {
    use serde_json::json;
    let check = |action: serde_json::Value, expect: &str| {
        let refused = receive(vec![changed(3, "/rules/0/actions/1", action)]).unwrap_err();
        let expect = format!("rules[0].actions[1]{expect}");
        assert!(refused.key.is_some() && refused.reason.starts_with(&expect), "{} instead of {expect}", refused.reason);
    };
    check(json!({"tee": {}}), ": unknown variant `tee`");
    check(json!({"mirror": {"port": 0, "numerator": 1, "denominator": 1}}), ": 0 is not a port");
    check(json!({"mirror": {"port": 80, "numerator": 2, "denominator": 1}}), ": 2 of 1 is no part of all");
    check(json!({"mirror": {"port": 80, "numerator": 0, "denominator": 0}}), ": 0 of 0 is no part of all");
    check(json!({"mirror": {"port": 80, "percent": 1}}), ".mirror.percent: unknown field `percent`");
    check(json!({"rewrite": {"port": 80}}), ".rewrite.port: unknown field `port`");
    check(json!({"rewrite": {"path": {"regex": "/"}}}), ".rewrite.path: unknown variant `regex`");
    check(json!({"rewrite": {"host": "a b"}}), ": \"a b\" is no host");
    for path in ["", "x", "/a/../b", "/%61", "/a b", "/a?b", "/a%0d"] {
        check(json!({"rewrite": {"path": {"full": path}}}), &format!(": {path:?} is no path in normal form"));
    }
    check(json!({"rewrite": {"path": {"prefix": {"matched": "", "to": "/"}}}}), ": \"\" is no path");
    for path in ["*", "*x"] {
        check(json!({"rewrite": {"path": {"full": path}}}), &format!(": {path:?} is no path in normal form"));
    }
    check(json!({"redirect": {"status": 200}}), ": 200 is no status of a redirect");
    check(json!({"redirect": {"status": 302, "port": 0}}), ": 0 is not a port");
    check(json!({"redirect": {"status": 302, "scheme": "ftp"}}), ".redirect.scheme: unknown variant `ftp`");
    let cors = |field: &str, value: serde_json::Value| {
        let mut cors = json!({"origins": ["*"], "max_age_s": 5});
        cors[field] = value;
        json!({ "cors": cors })
    };
    check(cors("origins", json!(["a"])), ".cors.origins[0]: \"a\" is not an origin");
    check(cors("methods", json!(["GET", "a b"])), ": \"a b\" is no method");
    check(cors("expose", json!(["X"])), ": \"X\" is no field name in lower case");
    check(cors("private", json!(true)), ".cors.private: unknown field `private`");
    let refused = receive(vec![changed(3, "/rules/0/backends/0/actions", json!([{"request_timeout_ms": 5}]))]);
    assert_eq!(refused.unwrap_err().reason, "rules[0].backends[0].actions: a deadline is of a rule, not of a backend");
}

#[test]
fn refusals_name_the_object_and_the_field() {
    use serde_json::json;
    let check = |index: usize, pointer: &str, value: serde_json::Value, expect: &str| {
        let refused = receive(vec![changed(index, pointer, value)]).unwrap_err();
        assert_eq!(refused.key, Some((&everything()[index].key()).into()), "{expect}");
        assert!(refused.reason.starts_with(expect), "{} instead of {expect}", refused.reason);
    };
    check(1, "/identity", json!("spiffe://x"), "identity: a workload's SPIFFE ID ends in /ns/<namespace>/sa/");
    check(1, "/name", json!(null), "name: invalid type: null");
    check(1, "/name/name", json!("other"), "its envelope says Workload shop/web-1, inside is Workload shop/other");
    check(1, "/ports/0/port", json!(70_000), "ports[0].port: invalid value: integer `70000`");
    check(1, "/ports/0/port", json!(0), "ports[0].port: 0 is not a port");
    check(2, "/ports/1/target_port", json!(0), "ports[1].target_port: 0 is not a port");
    check(2, "/ports/1/other_targets/0/1", json!(0), "ports[1].other_targets: shop/web-1: 0 is not a port");
    check(2, "/ports/1/protocol", json!("sctp"), "ports[1].protocol: unknown variant `sctp`");
    check(2, "/vip", json!("x"), "vip: invalid IP address syntax");
    check(2, "/endpoints/0/mesh_address", json!("1"), "endpoints[0].mesh_address: invalid socket address syntax");
    check(3, "/parent_port", json!(0), "parent_port: 0 is not a port");
    check(
        3,
        "/rules/0/actions/0/request_headers/set/0/1",
        json!("a\nb"),
        "rules[0].actions[0]: a: \"a\\nb\" is no field value",
    );
    check(
        3,
        "/rules/0/actions/0/request_headers/remove/0",
        json!("C"),
        "rules[0].actions[0]: \"C\" is no field name in lower",
    );
    let deadline = json!([{"request_timeout_ms": 5}]);
    check(3, "/rules/0/backends/0/actions", deadline, "rules[0].backends[0].actions: a deadline is of a rule");
    let expression = json!({ "Regex": "(" });
    check(3, "/rules/0/matches/1/path", expression, "rules[0].matches[1].path: \"(\" is no regular expression");
    let fields = json!([{"name": "x", "value": "(?=a)", "regex": true}]);
    check(3, "/rules/0/matches/0/headers", fields, "rules[0].matches[0].headers: \"(?=a)\" is no regular");
    let fields = json!([{"name": "q", "value": "a{9999}", "regex": "yes"}]);
    check(3, "/rules/0/matches/0/headers", fields, "rules[0].matches[0].headers[0].regex: invalid type");
    check(3, "/rules/0/matches/0/headers/0/name", json!("X"), "rules[0].matches[0].headers: \"X\" is no field name in");
    check(4, "/digest", json!("sha256:00"), "digest: is not sha256: and 64 hex digits");
    check(4, "/on_failure", json!("Maybe"), "on_failure: unknown variant `Maybe`");
    let whole = |delta: v1::Delta| Received::try_from(delta).unwrap_err();
    let of = |upserts| v1::Delta { upserts, ..v1::Delta::default() };
    assert_eq!(whole(of(vec![v1::Object::default()])), Refused::whole("an object has no key"));
    let nameless = v1::Key { kind: v1::Kind::Service.into(), name: "web".to_owned(), workload: String::new() };
    let odd = v1::Object { key: Some(nameless.clone()), ..v1::Object::default() };
    assert_eq!(whole(of(vec![odd])).key, Some(nameless));
    let twice = || encode(&everything()[0]);
    assert_eq!(whole(of(vec![twice(), twice()])), Refused::whole("Mesh comes twice"));
    let both = v1::Delta { subtractive: true, full: true, ..v1::Delta::default() };
    assert_eq!(whole(both), Refused::whole("a subtractive delta only removes"));
}

/// Every message of the stream, damaged at random: an error or a delta, never a panic.
#[test]
fn damaged_bytes_do_no_harm() {
    let delta = Delta { revision: Revision(9), upserts: everything(), ..Delta::default() };
    let bytes = v1::Delta::from(&delta).encode_to_vec();
    let mut state = 11_u64;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((state >> 33) % bound as u64).unwrap()
    };
    for _ in 0..20_000 {
        let mut damaged = bytes.clone();
        for _ in 0..=below(4) {
            let at = below(damaged.len());
            damaged[at] = u8::try_from(below(256)).unwrap();
        }
        damaged.truncate(damaged.len() - below(3) * below(damaged.len()) / 3);
        if let Ok(message) = v1::Delta::decode(damaged.as_slice()) {
            let _ = Received::try_from(message);
        }
    }
}

//! Objects that are closed: what something that a proxy can't do, or refuses, would have kept back does not pass.

use weft_policy::bundle::{
    Egress, Endpoint, External, FILTER_CONTRACT, FILTER_CONTRACT_0_2, FilterAttachment, FilterMode, Grant,
    GrantedSecret, MeshSettings, OnFailure, Protocol, Route, RouteKind, SecretGrant, ServedWorkload, Service,
    WorkloadPort,
};
use weft_policy::secret::SecretBytes;
use weft_policy::statement::SignedStatement;
use weft_policy::wire::{FILTER_SECRETS, FILTER_SHIPPED, FILTER_STATEMENT, OUTBOUND_CLOSED, TRAFFIC_POLICY};

use super::*;
use crate::view::Versions;

/// A filter that a proxy can't run, and never ran, would have judged who reaches its workload; a route that it can't hold
/// would have taken requests that another route of its service takes now.
#[test]
fn what_something_withheld_would_have_narrowed_is_closed() {
    let route = |route, parent| Route {
        name: name(route),
        kind: RouteKind::Http,
        parent: name(parent),
        outside: false,
        parent_port: None,
        consumer_namespace: None,
        hostnames: Vec::new(),
        created: Revision(1),
        rules: Vec::new(),
    };
    let of = |direction| {
        let objects = [
            Object::Workload(workload("web-1")),
            Object::Workload(workload("web-2")),
            Object::Route(route("a", "web")),
            Object::Route(route("b", "web")),
            Object::Route(route("c", "other")),
            Object::Filter(filter(direction, OnFailure::Deny, FilterMode::Enforce)),
        ];
        objects.into_iter().map(|object| Arc::new(Told::of(object))).collect::<ToldSet>()
    };
    let exposed = |target: &ToldSet, missing: Key, view: &View| {
        let missing = [&target.get(&missing).unwrap().object];
        let exposed = target.iter().filter(|told| is_exposed(&told.object, &missing, view));
        exposed.map(|told| told.key.to_string()).collect::<Vec<_>>()
    };
    let (nothing, guard) = (View::new(Versions::new()), Key::Filter("shop/guard".to_owned()));
    let running = View::new(Versions::from([(guard.clone(), 1)]));
    let inbound = of(Direction::Inbound);
    assert_eq!(exposed(&inbound, guard.clone(), &nothing), ["Workload shop/web-1"]);
    assert!(exposed(&inbound, guard.clone(), &running).is_empty(), "an earlier version of it runs");
    assert!(exposed(&of(Direction::Outbound), guard, &nothing).is_empty());
    assert_eq!(exposed(&inbound, Key::Route(name("a")), &nothing), ["HTTPRoute shop/a", "HTTPRoute shop/b"]);
    // A route of bytes keeps connections from the service itself; routes of requests narrow nothing of it, nor it of them.
    let bytes = |own| Object::Route(Route { kind: RouteKind::Tcp, ..route(own, "web") });
    let mut mixed = inbound.clone();
    for object in [bytes("t#tcp"), bytes("u#tcp"), Object::Service(service("web")), Object::Service(service("other"))] {
        mixed.put(Arc::new(Told::of(object)));
    }
    let closed = ["Service shop/web", "TCPRoute shop/t", "TCPRoute shop/u"];
    assert_eq!(exposed(&mixed, Key::Route(name("t#tcp")), &nothing), closed);
    assert_eq!(exposed(&mixed, Key::Route(name("a")), &nothing), ["HTTPRoute shop/a", "HTTPRoute shop/b"]);
    // A route of an ExternalService narrows what goes out by that, and nothing of a service of the same name.
    let api = External {
        name: name("web"),
        mesh_wide: false,
        created: Revision(1),
        hosts: Vec::new(),
        ports: Vec::new(),
        endpoints: Vec::new(),
        tls: None,
        traffic: None,
    };
    let outside = |own| Object::Route(Route { outside: true, ..route(own, "web") });
    for object in [Object::External(api), outside("o"), outside("p")] {
        mixed.put(Arc::new(Told::of(object)));
    }
    let closed = ["HTTPRoute shop/o", "HTTPRoute shop/p", "ExternalService shop/web"];
    assert_eq!(exposed(&mixed, Key::Route(name("o")), &nothing), closed);
    assert_eq!(exposed(&mixed, Key::Route(name("a")), &nothing), ["HTTPRoute shop/a", "HTTPRoute shop/b"]);
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("shop", name)
}

fn service(service: &str) -> Service {
    let (ports, endpoints) = (Vec::new(), BTreeMap::new());
    let (vip, path_reading) = (None, Default::default());
    Service { name: name(service), ports, vip, path_reading, traffic: None, spread: None, endpoints }
}

fn workload(workload: &str) -> ServedWorkload {
    ServedWorkload {
        name: name(workload),
        identity: "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap(),
        address: "127.0.0.11".parse().unwrap(),
        addresses: Vec::new(),
        ports: vec![WorkloadPort::new(8080, Protocol::Http)],
        labels: Default::default(),
        service: None,
        outbound_closed: None,
    }
}

/// A filter of `web-1`.
fn filter(direction: Direction, on_failure: OnFailure, mode: FilterMode) -> FilterAttachment {
    FilterAttachment {
        name: "shop/guard".to_owned(),
        filter: "guard".to_owned(),
        version: "1.0.0".to_owned(),
        digest: String::new(),
        signature: String::new(),
        public_key_pem: String::new(),
        statement: None,
        shipped: false,
        direction,
        order: 0,
        mode,
        on_failure,
        authorization: false,
        config: Default::default(),
        capabilities: Vec::new(),
        grants: Vec::new(),
        rules: Vec::new(),
        limits: Default::default(),
        workloads: vec![name("web-1")],
        contract: FILTER_CONTRACT.to_owned(),
    }
}

/// Two workloads of a proxy, one of which an outbound filter is for, and the service that the other may call.
fn guarded_by(on_failure: OnFailure, mode: FilterMode) -> BTreeMap<Key, Object> {
    let endpoint = Endpoint {
        workload: name("web-1"),
        identity: None,
        address: "127.0.0.11".parse().unwrap(),
        addresses: Vec::new(),
        mesh_address: "127.0.0.11:15008".parse().unwrap(),
        weight: 1,
        labels: Default::default(),
    };
    let service = Service {
        name: name("web"),
        ports: Vec::new(),
        vip: None,
        path_reading: Default::default(),
        traffic: None,
        spread: None,
        endpoints: [(name("web-1"), endpoint)].into(),
    };
    let objects = [
        Object::Mesh(settings()),
        Object::Workload(workload("web-1")),
        Object::Workload(workload("web-2")),
        Object::Service(service),
        Object::Filter(filter(Direction::Outbound, on_failure, mode)),
    ];
    objects.into_iter().map(|object| (object.key(), object)).collect()
}

fn settings() -> MeshSettings {
    MeshSettings {
        trust_domain: "cluster.local".parse().unwrap(),
        trust_bundle_pem: String::new(),
        access_log: false,
        request_timeout_ms: None,
        connect_timeout_ms: 1,
        max_retries: 0,
        egress: Egress::Allow,
        namespaces: Default::default(),
        ranges: None,
    }
}

/// What a filter of the caller would have refused must not pass a proxy that can't run it and never did.
#[test]
fn an_outbound_filter_that_is_withheld_closes_what_its_apps_send() {
    // The objects that go out otherwise than they are.
    let changed = |objects: &BTreeMap<Key, Object>, capabilities: &[&str], view: &View| {
        let has = capabilities.iter().map(|it| (*it).to_owned()).collect();
        let target: ToldSet = objects.values().map(|object| Arc::new(Told::of(object.clone()))).collect();
        let (fitted, _) = fitting(&Arc::new(target), &has, view);
        let as_it_is = |key: &Key| fitted.get(key).is_none_or(|sent| sent.envelope == encode(&objects[key]));
        let changed = objects.keys().filter(|key| !as_it_is(key)).map(ToString::to_string);
        (changed.collect::<Vec<_>>(), fitted)
    };
    let guarded = guarded_by(OnFailure::Deny, FilterMode::Enforce);
    let nothing = View::new(Versions::new());
    let (silenced, fitted) = changed(&guarded, &[ENVELOPES, OUTBOUND_CLOSED], &nothing);
    assert_eq!(silenced, ["Workload shop/web-1"]);
    let sent = &fitted.get(&Key::Workload(name("web-1"))).unwrap().envelope;
    assert_eq!(sent.requires, [OUTBOUND_CLOSED]);
    let inside = String::from_utf8(sent.payload.to_vec()).unwrap();
    assert!(inside.contains("Filter shop/guard: withheld: it requires wit-0.1"), "{inside}");
    // One that can't keep a single app silent reaches nobody.
    assert_eq!(changed(&guarded, &[ENVELOPES], &nothing).0, ["Mesh", "Service shop/web"]);
    let everything = [ENVELOPES, OUTBOUND_CLOSED, FILTER_CONTRACT];
    assert!(changed(&guarded, &everything, &nothing).0.is_empty());
    let running = View::new(Versions::from([(Key::Filter("shop/guard".to_owned()), 1)]));
    assert!(changed(&guarded, &[ENVELOPES, OUTBOUND_CLOSED], &running).0.is_empty(), "an earlier version runs");
    for (on_failure, mode) in [(OnFailure::Allow, FilterMode::Enforce), (OnFailure::Deny, FilterMode::Audit)] {
        assert!(changed(&guarded_by(on_failure, mode), &[ENVELOPES, OUTBOUND_CLOSED], &nothing).0.is_empty());
    }
}

/// An older proxy verifies the digest as ever: nobody is told that something is kept from it.
#[test]
fn a_statement_is_kept_from_a_proxy_that_reads_none() {
    let signed = SignedStatement { text: "t".to_owned(), signature: "s".to_owned() };
    let unsigned = filter(Direction::Inbound, OnFailure::Deny, FilterMode::Enforce);
    let stated = FilterAttachment { statement: Some(signed.clone()), ..unsigned };
    let target: ToldSet = [Arc::new(Told::of(Object::Filter(stated)))].into_iter().collect();
    let (target, key) = (Arc::new(target), Key::Filter("shop/guard".to_owned()));
    let older = [ENVELOPES, FILTER_CONTRACT, OUTBOUND_CLOSED];
    for (capabilities, expect) in [(older.to_vec(), None), ([&older[..], &[FILTER_STATEMENT]].concat(), Some(signed))] {
        let has = capabilities.into_iter().map(str::to_owned).collect();
        let (fitted, withheld) = fitting(&target, &has, &View::new(Versions::new()));
        assert!(withheld.is_empty(), "{withheld:?}");
        let Object::Filter(sent) = &fitted.get(&key).unwrap().object else { panic!("a filter") };
        assert_eq!(sent.statement, expect);
    }
}

/// It shares fewer instances, and does all that it is told.
#[test]
fn the_word_that_a_filter_ships_is_kept_from_a_proxy_that_reads_none() {
    let filter = filter(Direction::Inbound, OnFailure::Deny, FilterMode::Enforce);
    let shipped = FilterAttachment { shipped: true, ..filter };
    let target: ToldSet = [Arc::new(Told::of(Object::Filter(shipped)))].into_iter().collect();
    let (target, key) = (Arc::new(target), Key::Filter("shop/guard".to_owned()));
    let older = [ENVELOPES, FILTER_CONTRACT, OUTBOUND_CLOSED];
    for (capabilities, expect) in [(older.to_vec(), false), ([&older[..], &[FILTER_SHIPPED]].concat(), true)] {
        let has = capabilities.into_iter().map(str::to_owned).collect();
        let (fitted, withheld) = fitting(&target, &has, &View::new(Versions::new()));
        assert!(withheld.is_empty(), "{withheld:?}");
        let Object::Filter(sent) = &fitted.get(&key).unwrap().object else { panic!("a filter") };
        assert_eq!(sent.shipped, expect);
    }
}

/// Secrets go to who can hand them on, and in no form to anybody else; what their filter would judge is closed there.
#[test]
fn secrets_are_kept_from_a_proxy_that_knows_none() {
    let value = SecretBytes::new(b"correct horse battery");
    let grant = Grant::Secret(SecretGrant { values: vec![GrantedSecret { name: "token".to_owned(), value }] });
    let plain = filter(Direction::Inbound, OnFailure::Deny, FilterMode::Enforce);
    let granted = FilterAttachment { grants: vec![grant], contract: FILTER_CONTRACT_0_2.to_owned(), ..plain };
    let objects = [Object::Workload(workload("web-1")), Object::Filter(granted)];
    let target: Arc<ToldSet> = Arc::new(objects.into_iter().map(|object| Arc::new(Told::of(object))).collect());
    let key = Key::Filter("shop/guard".to_owned());
    let older = [ENVELOPES, FILTER_CONTRACT_0_2, OUTBOUND_CLOSED];
    for (capabilities, is_told) in [(older.to_vec(), false), ([&older[..], &[FILTER_SECRETS]].concat(), true)] {
        let has = capabilities.into_iter().map(str::to_owned).collect();
        let (fitted, withheld) = fitting(&target, &has, &View::new(Versions::new()));
        let payloads = fitted.iter().map(|told| String::from_utf8(told.envelope.payload.to_vec()).unwrap());
        let sent = payloads.collect::<Vec<_>>().concat();
        assert_eq!(sent.contains("Y29ycmVjdCBob3JzZSBiYXR0ZXJ5"), is_told, "{sent}");
        assert_eq!(sent.contains("\"ports\":[]"), !is_told, "the workload is closed: {sent}");
        let why = withheld.get(&key).map(|(_, why)| why.as_str());
        assert_eq!(why, (!is_told).then_some("withheld: it requires filter-secrets, which this proxy can't do"));
    }
}

/// A proxy that starts with nothing and refuses a route must not serve without it: neither that route's requests nor those
/// of another route of its service, which the refused one would have taken.
#[tokio::test]
async fn a_route_that_a_proxy_refuses_at_its_first_start_comes_closed() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let other = route("/other").replace("name: r,", "name: s,");
    let revision = control.apply(&format!("{WEB}---\n{}---\n{other}", route("/good"))).await;
    let svid = control.join("shop/client").await;
    let mut proxy = Proxy::connect(&control, &svid, "client-1", None, Bundle::default()).await;
    let delta = proxy.delta().await;
    let key = Key::Route(ObjectName::new("shop", "r"));
    let reason = "rules[0].mirrors: unknown field".to_owned();
    proxy
        .say(Message::Nack(v1::Nack {
            revision: delta.revision.0,
            key: Some((&key).into()),
            reason,
            ..Default::default()
        }))
        .await;
    proxy.take_until(|bundle| bundle.routes.len() == 2).await;
    let refusing =
        |route: &Route| route.rules.iter().all(|rule| rule.matches.is_empty() && rule.backends[0].service.is_none());
    assert!(proxy.bundle.routes.values().all(refusing), "{:?}", proxy.bundle.routes);
    let (_, states) = state(&control, revision, 10_000).await;
    assert!(states[0].2.contains("HTTPRoute shop/r: closed: rules[0].mirrors"), "{states:?}");
    // As soon as it takes another version, both are as they are.
    control.apply(&route("/better")).await;
    proxy.take_until(|bundle| has_path(bundle, "/better") && has_path(bundle, "/other")).await;
}

/// Copies are a preference: a proxy that can't send them has the route as it is without, and so are the other routes of its
/// service open. What it refuses of that all the same comes closed.
#[tokio::test]
async fn a_proxy_of_an_earlier_release_has_the_route_without_its_mirrors() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let mirrored = "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: m, namespace: shop}, spec: {parentRefs: \
                    [{group: '', kind: Service, name: web}], rules: [{matches: [{path: {value: /copied}}], backendRefs: [{name: web, port: 80}], \
                    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}}}]}]}}\n";
    let revision = control.apply(&format!("{WEB}---\n{mirrored}---\n{}", route("/other"))).await;
    let svid = control.join("shop/client").await;
    let hello = of_another_release("old-1", &["quic", ENVELOPES, FILTER_CONTRACT, OUTBOUND_CLOSED]);
    let mut old = Proxy::connect_with(&control, &svid, hello, Bundle::default()).await;
    let delta = old.delta().await;
    let key = Key::Route(name("m"));
    let (complete, states) = state(&control, revision, 10_000).await;
    let why = &states.iter().find(|(name, ..)| name == "old-1").unwrap().2;
    let told = "HTTPRoute shop/m: as by default: its settings require request-mirror, which this proxy can't do";
    assert!(!complete && why.contains(told), "{states:?}");
    let routes = delta.upserts.iter().filter_map(|object| match object {
        Object::Route(route) => Some(route),
        Object::Mesh(_) | Object::Workload(_) | Object::Service(_) | Object::External(_) | Object::Filter(_) => None,
    });
    let routes: Vec<&Route> = routes.collect();
    let open = |route: &Route| route.rules[0].backends[0].service.is_some() && !route.mirrors();
    assert!(routes.len() == 2 && routes.iter().all(|route| open(route)), "{routes:?}");
    let (object, reason) = (Some((&key).into()), "rules[0]: unknown".to_owned());
    let nack = v1::Nack { revision: delta.revision.0, key: object, reason, ..Default::default() };
    old.say(Message::Nack(nack)).await;
    old.take_until(|bundle| bundle.routes.len() == 2).await;
    assert!(!old.bundle.routes.values().any(open), "{:?}", old.bundle.routes);
    let svid = control.join("shop/client").await;
    let mut new = Proxy::connect(&control, &svid, "new-1", None, Bundle::default()).await;
    new.take_until(|bundle| bundle.routes.get(&name("m")).is_some_and(Route::mirrors)).await;
}

/// One that knows TrafficPolicies, but not all that `limits` may hold: it has the service without any of it.
#[tokio::test]
async fn a_proxy_that_lacks_a_limit_has_the_service_without_its_traffic_policy() {
    const POLICY: &str = "{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: few, namespace: shop}, spec: \
                          {targetRefs: [{kind: Service, name: web}], limits: {maxConnections: 5}}}\n";
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let revision = control.apply(&format!("{WEB}---\n{POLICY}")).await;
    let svid = control.join("shop/client").await;
    let told = ["quic", ENVELOPES, FILTER_CONTRACT, OUTBOUND_CLOSED, TRAFFIC_POLICY];
    let mut old = Proxy::connect_with(&control, &svid, of_another_release("old-1", &told), Bundle::default()).await;
    old.take_until(|bundle| !endpoints(bundle).is_empty()).await;
    assert!(old.bundle.services[&web()].traffic.is_none());
    let (complete, states) = state(&control, revision, 10_000).await;
    let why = &states.iter().find(|(name, ..)| name == "old-1").unwrap().2;
    assert!(!complete && why.contains("as by default: its settings require traffic-limits, which"), "{states:?}");
    let svid = control.join("shop/client").await;
    let mut new = Proxy::connect(&control, &svid, "new-1", None, Bundle::default()).await;
    new.take_until(|bundle| bundle.services.get(&web()).is_some_and(|service| service.traffic.is_some())).await;
    let limits = new.bundle.services[&web()].traffic.as_ref().unwrap().limits.clone().unwrap();
    assert_eq!((limits.active, limits.connections), (0, Some(5)));
}

/// A TrafficPolicy is a preference: a proxy that does not know it has the service as it is without, limits included, and
/// people are told. What they applied is not everywhere, and who waits for that is told so.
#[tokio::test]
async fn a_proxy_of_an_earlier_release_has_the_service_without_its_traffic_policy() {
    const POLICY: &str = "{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: turns, namespace: shop}, spec: \
                          {targetRefs: [{kind: Service, name: web}], loadBalancing: {algorithm: RoundRobin}}}\n";
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let revision = control.apply(&format!("{WEB}---\n{POLICY}")).await;
    let svid = control.join("shop/client").await;
    let hello = of_another_release("old-1", &["quic", ENVELOPES, FILTER_CONTRACT, OUTBOUND_CLOSED]);
    let mut old = Proxy::connect_with(&control, &svid, hello, Bundle::default()).await;
    old.take_until(|bundle| !endpoints(bundle).is_empty()).await;
    let service = &old.bundle.services[&web()];
    assert!(service.traffic.is_none() && service.endpoints.values().all(|it| it.mesh_address.port() != 0));
    let (complete, states) = state(&control, revision, 10_000).await;
    let why = &states.iter().find(|(name, ..)| name == "old-1").unwrap().2;
    let told = "Service shop/web: as by default: its settings require traffic-policy, which this proxy can't do until \
                it is updated";
    assert!(!complete && why.contains(told), "{states:?}");
    let svid = control.join("shop/client").await;
    let mut new = Proxy::connect(&control, &svid, "new-1", None, Bundle::default()).await;
    new.take_until(|bundle| bundle.services.get(&web()).is_some_and(|service| service.traffic.is_some())).await;
    assert_eq!(new.bundle.services[&web()].traffic.as_ref().unwrap().policy, name("turns"));
}

/// Of a policy a proxy has what it knows: how endpoints are picked, and not which come first.
#[tokio::test]
async fn a_proxy_that_knows_no_places_has_the_rest_of_its_policy() {
    const POLICY: &str = "{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: near, namespace: shop}, spec: \
                          {targetRefs: [{kind: Service, name: web}], loadBalancing: {algorithm: RoundRobin, locality: {prefer: \
                          Zone}}}}\n";
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let revision = control.apply(&format!("{WEB}---\n{POLICY}")).await;
    let svid = control.join("shop/client").await;
    let hello = of_another_release("old-1", &["quic", ENVELOPES, FILTER_CONTRACT, OUTBOUND_CLOSED, TRAFFIC_POLICY]);
    let mut old = Proxy::connect_with(&control, &svid, hello, Bundle::default()).await;
    old.take_until(|bundle| !endpoints(bundle).is_empty()).await;
    let service = &old.bundle.services[&web()];
    assert!(service.spread.is_none() && service.traffic.as_ref().is_some_and(|it| it.policy == name("near")));
    assert!(service.endpoints.values().all(|it| it.mesh_address.port() != 0));
    let (complete, states) = state(&control, revision, 10_000).await;
    let why = &states.iter().find(|(name, ..)| name == "old-1").unwrap().2;
    let told = "Service shop/web: as by default: its settings require spread, which this proxy can't do";
    assert!(!complete && why.contains(told), "{states:?}");
    let svid = control.join("shop/client").await;
    let mut new = Proxy::connect(&control, &svid, "new-1", None, Bundle::default()).await;
    new.take_until(|bundle| bundle.services.get(&web()).is_some_and(|service| service.spread.is_some())).await;
}

/// One that knows TrafficPolicies and no health checks has all the rest of them.
#[tokio::test]
async fn a_proxy_that_checks_nobody_has_the_other_settings() {
    const POLICY: &str = "{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: turns, namespace: shop}, spec: \
                          {targetRefs: [{kind: Service, name: web}], loadBalancing: {algorithm: RoundRobin}, healthCheck: {http: {}}}}\n";
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let revision = control.apply(&format!("{WEB}---\n{POLICY}")).await;
    let svid = control.join("shop/client").await;
    let known = ["quic", ENVELOPES, FILTER_CONTRACT, OUTBOUND_CLOSED, "traffic-policy"];
    let mut old = Proxy::connect_with(&control, &svid, of_another_release("old-1", &known), Bundle::default()).await;
    old.take_until(|bundle| !endpoints(bundle).is_empty()).await;
    let traffic = old.bundle.services[&web()].traffic.clone().unwrap();
    assert_eq!((traffic.balancing.algorithm(), traffic.health_check), ("RoundRobin", None));
    let (complete, states) = state(&control, revision, 10_000).await;
    let why = &states.iter().find(|(name, ..)| name == "old-1").unwrap().2;
    let told = "Service shop/web: as by default: its settings require health-checks";
    assert!(!complete && why.contains(told), "{states:?}");
}

/// What a proxy refuses of an ExternalService comes closed: its hosts would be anybody's where everything is let out.
#[tokio::test]
async fn an_external_service_that_is_refused_comes_closed() {
    let outside = |port: u16| {
        format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: ExternalService, metadata: {{name: api, namespace: shop}}, spec: {{hosts: \
             [api.example.com], ports: [{{port: {port}, protocol: tcp}}]}}}}\n"
        )
    };
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let revision = control.apply(&format!("{WEB}---\n{}", outside(5432))).await;
    let svid = control.join("shop/client").await;
    let told = ["quic", ENVELOPES, FILTER_CONTRACT, OUTBOUND_CLOSED, "external-service"];
    let workloads = vec![crate::app::tests::workload("client-1", "shop", "127.0.0.23", None)];
    let hello = v1::Hello { workloads, ..of_another_release("old-1", &told) };
    let mut proxy = Proxy::connect_with(&control, &svid, hello, Bundle::default()).await;
    let delta = proxy.delta().await;
    let (api, key) = (name("api"), Some((&Key::External(name("api"))).into()));
    let nack = v1::Nack { revision: delta.revision.0, key, reason: "ports: odd".to_owned(), ..Default::default() };
    proxy.say(Message::Nack(nack)).await;
    proxy.take_until(|bundle| bundle.externals.contains_key(&api)).await;
    let is_closed = |bundle: &Bundle| {
        let external = &bundle.externals[&api];
        external.ports.iter().all(|port| port.protocol.is_http())
            && external.tls.as_ref().is_some_and(|tls| tls.roots_pem.as_deref() == Some(""))
    };
    assert!(is_closed(&proxy.bundle), "{:?}", proxy.bundle.externals);
    let (_, states) = state(&control, revision, 10_000).await;
    assert!(states[0].2.contains("ExternalService shop/api: closed: ports: odd"), "{states:?}");
    // As soon as it takes another version, that holds.
    control.apply(&outside(5433)).await;
    proxy.take_until(|bundle| !is_closed(bundle)).await;
}

/// An ExternalService only permits: a proxy that does not know it goes without, and people are told.
#[tokio::test]
async fn a_proxy_of_an_earlier_release_has_no_external_services() {
    const OUTSIDE: &str = "{apiVersion: weft.dev/v1alpha1, kind: ExternalService, metadata: {name: api, namespace: \
                           weft-system}, spec: {hosts: [api.example.com], ports: [{port: 443, protocol: tls}], visibility: Mesh}}\n";
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let revision = control.apply(&format!("{WEB}---\n{OUTSIDE}")).await;
    let svid = control.join("shop/client").await;
    let hello = of_another_release("old-1", &["quic", ENVELOPES, FILTER_CONTRACT, OUTBOUND_CLOSED]);
    let mut old = Proxy::connect_with(&control, &svid, hello, Bundle::default()).await;
    old.take_until(|bundle| !endpoints(bundle).is_empty()).await;
    assert!(old.bundle.externals.is_empty());
    let (complete, states) = state(&control, revision, 10_000).await;
    let why = &states.iter().find(|(name, ..)| name == "old-1").unwrap().2;
    let told = "ExternalService weft-system/api: withheld: it requires external-service, which this proxy can't do";
    assert!(!complete && why.contains(told), "{states:?}");
    let svid = control.join("shop/client").await;
    let mut new = Proxy::connect(&control, &svid, "new-1", None, Bundle::default()).await;
    new.take_until(|bundle| bundle.externals.contains_key(&ObjectName::new("weft-system", "api"))).await;
}

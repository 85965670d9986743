//! Both ways without loss, and no message that does harm.

use std::collections::BTreeMap;

use prost::Message;

use super::*;
use crate::bundle::serde_json_raw::Json;
use crate::bundle::{
    AppVersion, Backend, Bundle, Direction, Egress, Endpoint, FilterAttachment, FilterLimits, FilterMode, HeaderMatch,
    HeaderModifier, MeshSettings, ObjectName, OnFailure, PathMatch, Protocol, Revision, Route, RouteMatch, RouteRule,
    ServedWorkload, Service, ServicePort, WorkloadPort,
};
use crate::delta::Delta;
use crate::identity::TrustDomain;

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

fn rule() -> RouteRule {
    let pair = |name: &str| (name.to_owned(), "value".to_owned());
    let modifier = HeaderModifier { set: vec![pair("a")], add: vec![pair("b")], remove: vec!["c".to_owned()] };
    let matching = |path| RouteMatch {
        path: Some(path),
        method: Some("GET".to_owned()),
        headers: vec![HeaderMatch { name: "x".to_owned(), value: "y".to_owned() }],
    };
    RouteRule {
        name: Some("rule".to_owned()),
        matches: vec![matching(PathMatch::Exact("/a".to_owned())), matching(PathMatch::Prefix("/b".to_owned()))],
        request_headers: modifier.clone(),
        backends: vec![
            Backend { service: Some(name("shop/web")), port: 80, weight: 9, request_headers: modifier },
            Backend { service: None, port: 81, weight: 0, request_headers: HeaderModifier::default() },
        ],
        request_timeout_ms: Some(1000),
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
        direction: Direction::Outbound,
        order: -5,
        mode: FilterMode::Audit,
        on_failure: OnFailure::Allow,
        authorization: true,
        config: Json("{}".to_owned()),
        capabilities: vec!["token-bucket".to_owned()],
        limits: FilterLimits { memory_bytes: 1 << 20, call_timeout_ms: 5 },
        workloads: vec![name("shop/web-1")],
    }
}

/// One of everything, no field at its default.
fn everything() -> Vec<Object> {
    let identity = TrustDomain::default().workload("shop", "web").unwrap();
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    let path_reading = "encoded-slash=literal, params=cut, slashes=kept".parse().unwrap();
    let address = "127.0.0.11".parse().unwrap();
    let endpoint = Endpoint {
        workload: name("shop/web-1"),
        identity: Some(identity.clone()),
        address,
        addresses: vec!["fd00::11".parse().unwrap()],
        mesh_address: "127.0.0.11:15008".parse().unwrap(),
        weight: 3,
        labels: labels.clone(),
    };
    let protocols = [Protocol::Http, Protocol::Grpc, Protocol::Tcp, Protocol::Udp, Protocol::Auto];
    let port = |(index, protocol): (usize, &Protocol)| {
        let port = u16::try_from(index).unwrap() + 80;
        ServicePort {
            name: Some(format!("p{index}")),
            port,
            target_port: 8080,
            protocol: *protocol,
            app_version: AppVersion::Http1,
            opaque_refused: true,
        }
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
            labels,
            service: Some(name("shop/web")),
        }),
        Object::Service(Service {
            name: name("shop/web"),
            ports: protocols.iter().enumerate().map(port).collect(),
            path_reading,
            vip: Some("10.0.0.1".parse().unwrap()),
            endpoints: BTreeMap::from([(name("shop/web-1"), endpoint)]),
        }),
        Object::Route(Route {
            name: name("shop/r#1"),
            parent: name("shop/web"),
            parent_port: Some(80),
            consumer_namespace: Some("partner".to_owned()),
            created: Revision(7),
            rules: vec![rule()],
        }),
        Object::Filter(filter()),
    ]
}

fn through_bytes(delta: &Delta) -> Result<Delta, String> {
    let bytes = v1::Delta::from(delta).encode_to_vec();
    let message = v1::Delta::decode(bytes.as_slice()).map_err(|error| error.to_string())?;
    Delta::try_from(message).map_err(|error| error.to_string())
}

#[test]
fn both_ways_without_loss() {
    let mut removals: Vec<Key> = everything().iter().map(Object::key).collect();
    removals.push(Key::Endpoint { service: name("shop/web"), workload: name("shop/web-1") });
    let delta = Delta {
        revision: Revision(9),
        upserts: everything(),
        removals: removals.clone(),
        subtractive: false,
        full: true,
    };
    assert_eq!(through_bytes(&delta), Ok(delta));
    let delta = Delta { revision: Revision(9), removals, subtractive: true, ..Delta::default() };
    assert_eq!(through_bytes(&delta), Ok(delta));
}

#[test]
fn versions_follow_from_content() {
    let mut bundle = Bundle::default();
    everything().into_iter().for_each(|object| bundle.upsert(object));
    let before = versions(&bundle);
    assert_eq!(before, versions(&bundle.clone()));
    bundle.services.get_mut(&name("shop/web")).unwrap().endpoints.clear();
    let differing = before.iter().zip(versions(&bundle)).filter(|(a, b)| *a != b).count();
    assert_eq!((before.len(), differing), (5, 1));
}

#[test]
fn refusals_name_the_field() {
    fn check(change: impl Fn(&mut Vec<v1::object::Object>), expect: &str) {
        let mut objects: Vec<_> = everything().iter().map(|object| v1::Object::from(object).object.unwrap()).collect();
        change(&mut objects);
        let upserts = objects.into_iter().map(|object| v1::Object { object: Some(object) }).collect();
        let delta = v1::Delta { upserts, ..v1::Delta::default() };
        assert_eq!(Delta::try_from(delta).unwrap_err().to_string(), expect);
    }
    use v1::object::Object as Wire;
    /// Changes the one object of this kind.
    macro_rules! change {
        ($kind:ident, $object:ident => $change:expr) => {
            |objects: &mut Vec<Wire>| {
                for object in objects {
                    if let Wire::$kind($object) = object {
                        $change;
                    }
                }
            }
        };
    }
    check(
        change!(Workload, w => w.identity = "spiffe://x".to_owned()),
        "upserts[1].workload.identity: \"spiffe://x\": a workload's SPIFFE ID ends in /ns/<namespace>/sa/<service-account>",
    );
    check(change!(Workload, w => w.name = None), "upserts[1].workload.name: is missing");
    check(change!(Workload, w => w.ports[0].port = 70_000), "upserts[1].workload.ports[0].port: 70000 is not a port");
    check(
        change!(Workload, w => w.ports[0].protocol = 99),
        "upserts[1].workload.ports[0].protocol: 99 is not known to this version",
    );
    check(change!(Service, s => s.ports[1].protocol = 0), "upserts[2].service.ports[1].protocol: is missing");
    check(
        change!(Service, s => s.vip = Some("x".to_owned())),
        "upserts[2].service.vip: \"x\": invalid IP address syntax",
    );
    check(
        change!(Service, s => s.endpoints[0].mesh_address = "1".to_owned()),
        "upserts[2].service.endpoints[0].mesh_address: \"1\": invalid socket address syntax",
    );
    check(change!(Route, r => r.parent_port = Some(0)), "upserts[3].route.parent_port: 0 is not a port");
    check(
        change!(Route, r => r.rules[0].request_headers.as_mut().unwrap().set[0].value = "a\nb".to_owned()),
        "upserts[3].route.rules[0].request_headers: \"a\\nb\": failed to parse header value",
    );
    check(
        change!(Filter, f => f.digest = "sha256:00".to_owned()),
        "upserts[4].filter.digest: is not sha256: and 64 hex digits",
    );
    check(change!(Filter, f => f.on_failure = 0), "upserts[4].filter.on_failure: is missing");
    let empty = v1::Delta { upserts: vec![v1::Object { object: None }], ..v1::Delta::default() };
    assert_eq!(
        Delta::try_from(empty).unwrap_err().to_string(),
        "upserts[0].object: is missing or not known to this version"
    );
    let both = v1::Delta { subtractive: true, full: true, ..v1::Delta::default() };
    assert_eq!(Delta::try_from(both).unwrap_err().to_string(), "subtractive: a subtractive delta only removes");
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
            let _ = Delta::try_from(message);
        }
    }
}

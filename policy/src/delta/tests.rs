//! `apply(diff(a, b))` makes b of a, whatever a and b.

use super::*;
use crate::bundle::{AppVersion, Endpoint, Protocol, ServicePort};
use crate::path::PathReading;

fn service(name: &str, port: u16, endpoints: &[u8]) -> Service {
    let endpoint = |last: &u8| {
        let address = std::net::IpAddr::from([127, 0, 0, *last]);
        let workload = ObjectName::new("ns", format!("w{last}"));
        let mesh_address = std::net::SocketAddr::new(address, 15008);
        let endpoint = Endpoint {
            workload: workload.clone(),
            identity: None,
            address,
            addresses: vec![],
            mesh_address,
            weight: 1,
            labels: BTreeMap::new(),
        };
        (workload, endpoint)
    };
    Service {
        name: ObjectName::new("ns", name),
        ports: vec![ServicePort {
            name: None,
            port,
            target_port: port,
            protocol: Protocol::Auto,
            app_version: AppVersion::AsCaller,
            opaque_refused: false,
            other_targets: BTreeMap::new(),
        }],
        vip: None,
        path_reading: PathReading::default(),
        traffic: None,
        spread: None,
        endpoints: endpoints.iter().map(endpoint).collect(),
    }
}

fn bundle(revision: u64, services: &[Service]) -> Bundle {
    let services = services.iter().map(|service| (service.name.clone(), service.clone())).collect();
    Bundle { revision: Revision(revision), services, ..Bundle::default() }
}

/// Everything that is withdrawn from one bundle to the next, as it goes ahead.
fn removals(old: &Bundle, new: &Bundle) -> Delta {
    let removals = old.services.iter().flat_map(|(name, service)| withdrawn(service, new.services.get(name), |_| true));
    Delta { revision: new.revision, removals: removals.collect(), subtractive: true, ..Delta::default() }
}

#[test]
fn diff_then_apply_is_identity() {
    let worlds: Vec<Bundle> = [
        &[][..],
        &[service("a", 80, &[])],
        &[service("a", 80, &[1, 2])],
        &[service("a", 81, &[2]), service("b", 80, &[1])],
        &[service("b", 80, &[1, 3])],
    ]
    .iter()
    .enumerate()
    .map(|(index, services)| bundle(u64::try_from(index).unwrap(), services))
    .collect();
    for old in &worlds {
        for new in &worlds {
            let mut got = old.clone();
            got.apply(&removals(old, new));
            assert_eq!(got.revision, old.revision, "removals come ahead of the revision");
            let delta = diff(old, new);
            got.apply(&delta);
            assert_eq!(&got, new);
            got.apply(&delta);
            assert_eq!(&got, new, "a delta may come twice");
            let mut full = bundle(9, &[service("stale", 1, &[])]);
            let upserts = new.objects().into_values().collect();
            full.apply(&Delta { revision: new.revision, upserts, full: true, ..Delta::default() });
            assert_eq!(&full, new);
        }
    }
}

#[test]
fn only_what_differs_is_sent() {
    let old = bundle(1, &[service("a", 80, &[1, 2]), service("b", 80, &[1])]);
    let new = bundle(2, &[service("a", 80, &[2]), service("b", 80, &[1])]);
    let keys: Vec<Key> = diff(&old, &new).upserts.iter().map(Object::key).collect();
    assert_eq!(keys, [Key::Service(ObjectName::new("ns", "a"))]);
    let names: Vec<String> = removals(&old, &new).removals.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["Endpoint ns/w1 of Service ns/a"]);
    assert_eq!(removals(&new, &new).removals, []);
}

/// Neither through a proxy nor, where it has none, itself.
#[test]
fn no_endpoint_of_a_closed_service_is_dialled() {
    let mut open = service("a", 80, &[1, 2]);
    let own: crate::identity::SpiffeId = "spiffe://cluster.local/ns/ns/sa/w1".parse().unwrap();
    open.endpoints.get_mut(&ObjectName::new("ns", "w1")).unwrap().identity = Some(own.clone());
    let Some(Object::Service(closed)) = Object::Service(open.clone()).closed() else { panic!("it has such a form") };
    let is_dialled = |endpoint: &Endpoint| endpoint.identity.is_none() || endpoint.mesh_address.port() != 0;
    assert!(open.endpoints.values().all(is_dialled) && !closed.endpoints.values().any(is_dialled), "{closed:?}");
    assert_eq!(closed.endpoints[&ObjectName::new("ns", "w1")].identity, Some(own));
    let addresses = |service: &Service| service.endpoints.values().map(|it| it.address).collect::<Vec<_>>();
    assert_eq!(addresses(&closed), addresses(&open), "what goes to one of them is the service's");
}

/// One that nobody else's port stands for is refused by some of its endpoints, as before it was known which.
#[test]
fn a_service_with_endpoints_without_its_port_has_a_form_with_all_of_them() {
    let plain = service("a", 80, &[1, 2]);
    let with = |targets: &[(&str, Option<u16>)]| {
        let mut with = plain.clone();
        with.ports[0].other_targets =
            targets.iter().map(|(name, port)| (ObjectName::new("ns", *name), *port)).collect();
        Object::Service(with)
    };
    assert_eq!(with(&[("w1", None)]).without_preferences(), Some(Object::Service(plain.clone())));
    assert_eq!(with(&[("w1", None), ("w2", Some(81))]).without_preferences(), None, "it would be sent to another port");
    assert_eq!(Object::Service(plain.clone()).without_preferences(), None);
}

//! Odd registrations are refused by name; whatever is accepted can be loaded, planned and told to proxies.

use proptest::prelude::*;

use super::*;
use crate::bundle::Revision;
use crate::plan::{Entry, Owner, World, bundle_for};
use crate::wire::{self, Received, v1};

fn identity() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()
}

fn good() -> Told {
    Told {
        namespace: "shop".to_owned(),
        name: "web-1".to_owned(),
        address: "10.0.0.1".to_owned(),
        mesh_address: "10.0.0.1:15008".to_owned(),
        ports: vec![(8080, Protocol::Http)],
        labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        port_names: BTreeMap::from([(8080, "http".to_owned())]),
        service: Some("web".to_owned()),
        weight: 1,
    }
}

/// Checks that a good registration with this `change` is refused with exactly these faults.
fn check(change: impl FnOnce(&mut Told), expect: &[&str]) {
    let mut told = good();
    change(&mut told);
    let faults = Registration::new(told.clone(), &identity()).map(drop).unwrap_err();
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(faults, expect, "{told:?}");
}

#[test]
fn odd_registrations_are_refused_with_field_and_reason() {
    let name = "is not a name: lower-case letters, digits, '-' and '.', at most 253";
    check(|told| told.name = "a..b".to_owned(), &[&format!("name: \"a..b\" {name}")]);
    check(|told| told.name = "a.".to_owned(), &[&format!("name: \"a.\" {name}")]);
    let service = "is not the name of a service: lower-case letters, digits and '-', at most 63";
    check(|told| told.service = Some("my.app".to_owned()), &[&format!("service: \"my.app\" {service}")]);
    let long = "a".repeat(64);
    check(|told| told.service = Some(long.clone()), &[&format!("service: {long:?} {service}")]);
    for reserved in ["localhost", "metadata", "kubernetes"] {
        let expect = format!("service: {reserved:?} is reserved: programs look it up for something else");
        check(|told| told.service = Some(reserved.to_owned()), &[&expect]);
    }
    let every = "stands for every address of a machine, so nobody can dial it: give the one that callers reach";
    check(|told| told.mesh_address = "0.0.0.0:15008".to_owned(), &[&format!("mesh_address: 0.0.0.0 {every}")]);
    check(|told| told.mesh_address = "[::]:15008".to_owned(), &[&format!("mesh_address: :: {every}")]);
    check(|told| told.mesh_address = "[::ffff:0.0.0.0]:15008".to_owned(), &[&format!("mesh_address: 0.0.0.0 {every}")]);
    check(|told| told.mesh_address = "10.0.0.1:0".to_owned(), &["mesh_address: port 0 can't be dialled"]);
    check(|told| told.address = "224.0.0.1".to_owned(), &["address: 224.0.0.1 is a group's, no host's"]);
    let link = "is link-local: it means another machine on each link";
    check(|told| told.address = "169.254.169.254".to_owned(), &[&format!("address: 169.254.169.254 {link}")]);
    check(|told| told.address = "fe80::1".to_owned(), &[&format!("address: fe80::1 {link}")]);
    check(|told| told.address = "255.255.255.255".to_owned(), &["address: 255.255.255.255 is reserved, no host's"]);
    let value = "its value is not that of a label: at most 63 letters, digits, '-', '_' and '.'";
    for odd in ["one\ntwo", "grün", &"x".repeat(64), "-x"] {
        let insert = |told: &mut Told| drop(told.labels.insert("app".to_owned(), odd.to_owned()));
        check(insert, &[&format!("labels: \"app\" {value}")]);
    }
    let own = |told: &mut Told| drop(told.labels.insert("weft.dev/service".to_owned(), "victim".to_owned()));
    check(own, &["labels: \"weft.dev/service\" is the control plane's own"]);
    let many = |told: &mut Told| told.labels = (0..65).map(|n| (format!("l{n}"), String::new())).collect();
    check(many, &["labels: 65 labels; at most 64 are taken"]);
    check(|told| told.ports.push((8080, Protocol::Tcp)), &["ports: port 8080 is listed twice"]);
    check(|told| _ = told.port_names.insert(8081, "other".to_owned()), &["ports: 8081 has a name and is not listed"]);
    check(|told| told.ports.push((0, Protocol::Tcp)), &["ports: 0 is not a port: 1 to 65535"]);
    check(|told| told.ports.push((1 << 16, Protocol::Tcp)), &["ports: 65536 is not a port: 1 to 65535"]);
    check(|told| told.ports.push((53, Protocol::Udp)), &["ports: port 53: UDP is not carried yet"]);
    check(|told| told.weight = u32::MAX, &["weight: 4294967295 is more than 100"]);
    assert_eq!(proxy_name("../../etc").unwrap_err().to_string(), format!("proxy_name: \"../../etc\" {name}"));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let mut told = good();
    (told.name, told.address, told.weight) = ("A".to_owned(), "nowhere".to_owned(), 1000);
    let fields: Vec<_> = Registration::new(told, &identity()).unwrap_err().iter().map(|fault| fault.field).collect();
    assert_eq!(fields, [Field::Name, Field::Address, Field::Weight]);
}

/// Texts near those that are taken, and far from them.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z0-9]{1,8}",
        2 => "[a-zA-Z0-9.:/_-]{0,70}",
        1 => any::<String>(),
        1 => proptest::sample::select(vec!["a..b", "my.app", "0.0.0.0", "[::]:15008", "a\nb", "ü", ""]).prop_map(str::to_owned),
    ]
}

fn address() -> impl Strategy<Value = String> {
    prop_oneof![3 => any::<IpAddr>().prop_map(|ip| ip.to_string()), 1 => text()]
}

fn socket() -> impl Strategy<Value = String> {
    prop_oneof![3 => any::<SocketAddr>().prop_map(|socket| socket.to_string()), 1 => text()]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    use Protocol::{Auto, Grpc, Http, Tcp, Udp};
    proptest::sample::select(vec![Http, Http, Tcp, Tcp, Grpc, Auto, Auto, Udp])
}

prop_compose! {
    fn told()(
        name in text(), address in address(), mesh_address in socket(),
        ports in proptest::collection::vec((0_u32..70_000, protocol()), 0..4),
        labels in proptest::collection::btree_map(text(), text(), 0..3),
        service in proptest::option::of(text()), weight in 0_u32..120, names in proptest::collection::vec(text(), 0..3),
    ) -> Told {
        let port_names = ports.iter().zip(names).map(|((port, _), name)| (*port, name)).collect();
        Told { namespace: "shop".to_owned(), name, address, mesh_address, ports, labels, port_names, service, weight }
    }
}

/// Puts a resource into a world, as it comes back from a store, and plans it for `served`.
pub(crate) fn lives(resource: &Resource, served: &[ObjectName]) -> Result<(), TestCaseError> {
    let mut world = World::default();
    world.put(&Owner::Applied, resource.clone(), Revision(1), "uid").unwrap();
    let mut stored = serde_json::to_value(world.get(&resource.key()).unwrap()).unwrap();
    if let Resource::Secret(secret) = resource {
        secret.reveal_into(&mut stored["resource"]["spec"]);
    }
    let stored = stored.to_string();
    let loaded = serde_json::from_str::<Entry>(&stored);
    let loaded = loaded.map_err(|error| TestCaseError::fail(format!("{error}: {stored}")))?;
    prop_assert_eq!(&loaded.resource, resource);
    let read = crate::manifest::from_json(resource.revealed().unwrap());
    prop_assert_eq!(read, Ok(vec![resource.clone()]));
    let _ = crate::lint::check(&world, crate::lint::Scope::Whole);
    for object in bundle_for(&world, served, Revision(1), "").objects().into_values() {
        let told = v1::Delta { upserts: vec![wire::encode(&object)], ..v1::Delta::default() };
        let received = Received::try_from(told).map(|received| received.delta.upserts);
        prop_assert_eq!(received, Ok(vec![object]));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn what_is_accepted_can_be_loaded_planned_and_told(told in told()) {
        let Ok(registration) = Registration::new(told, &identity()) else { return Ok(()) };
        lives(&Resource::Workload(registration.workload().clone()), &[registration.name()])?;
    }
}

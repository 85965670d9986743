//! Knowledge about endpoints that a worker keeps across snapshots.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use weft_flow::{Allowance, Purpose};
use weft_policy::bundle::{
    AppVersion, Bundle, Egress, HashKey, HealthCheck, HealthProbe, Locality, MeshSettings, PlaceShare, Prefer,
    Protocol, REGION, ServedWorkload, SourceKey, Traffic, ZONE,
};
use weft_policy::path::PathReading;

use super::*;
use crate::reply::Flag;

fn name(name: &str) -> ObjectName {
    ObjectName::new("shop", name)
}

/// A snapshot with the service `shop/reviews`: its endpoints by name, last byte of the address, weight.
pub(crate) fn snapshot(endpoints: &[(&str, u8, u32)]) -> Snapshot {
    let identity = "spiffe://cluster.local/ns/shop/sa/reviews".parse::<weft_policy::identity::SpiffeId>().unwrap();
    let endpoint = |(workload, address, weight): &(&str, u8, u32)| Endpoint {
        workload: name(workload),
        identity: Some(identity.clone()),
        address: [10, 0, 0, *address].into(),
        addresses: Vec::new(),
        mesh_address: ([10, 0, 0, *address], 15008).into(),
        weight: *weight,
        labels: BTreeMap::new(),
    };
    let endpoints = endpoints.iter().map(|it| (name(it.0), endpoint(it))).collect();
    let service = Service {
        name: name("reviews"),
        ports: Vec::new(),
        vip: None,
        path_reading: PathReading::default(),
        traffic: None,
        spread: None,
        endpoints,
    };
    let local = ServedWorkload {
        name: name("web"),
        identity: identity.clone(),
        address: [10, 0, 0, 1].into(),
        addresses: Vec::new(),
        ports: Vec::new(),
        labels: BTreeMap::new(),
        service: None,
        outbound_closed: None,
    };
    let mesh = MeshSettings {
        trust_domain: "cluster.local".parse().unwrap(),
        trust_bundle_pem: String::new(),
        access_log: false,
        request_timeout_ms: None,
        connect_timeout_ms: 1,
        max_retries: 2,
        egress: Egress::Allow,
        namespaces: BTreeSet::new(),
        ranges: None,
    };
    let bundle = Bundle {
        mesh: Some(mesh),
        workloads: [("shop/web".to_owned(), local)].into(),
        services: [(name("reviews"), service)].into(),
        ..Bundle::default()
    };
    Snapshot::build(Arc::new(bundle), &HashMap::new()).unwrap()
}

fn finding() -> Finding {
    Finding { reaches: Reaches::default(), start: Instant::now(), checks: HealthChecks::default() }
}

fn limits() -> (Gates, Budgets) {
    (Gates::default(), Budgets::new(Allowance { percent: 20, per_second: 3 }))
}

struct Fixture {
    destinations: Destinations,
    out: Out,
}

impl Fixture {
    fn new() -> Self {
        let out = Out::default();
        Self {
            destinations: Destinations::new(
                WorkerMetrics::new(Arc::default()),
                out.clone(),
                limits(),
                finding(),
                false,
            ),
            out,
        }
    }

    fn service(&self, snapshot: &Snapshot) -> Rc<ServiceState> {
        self.destinations.service(snapshot, snapshot.first(), &snapshot.bundle.services[&name("reviews")], None)
    }
}

/// The same, where `named` is another port at one endpoint and none at another.
fn with_named_port(endpoints: &[(&str, u8, u32)], others: &[(&str, Option<u16>)]) -> Snapshot {
    let mut bundle = Bundle::clone(&snapshot(endpoints).bundle);
    let service = bundle.services.get_mut(&name("reviews")).unwrap();
    service.ports = vec![ServicePort {
        name: None,
        port: 80,
        target_port: 8080,
        protocol: Protocol::Http,
        app_version: AppVersion::AsCaller,
        opaque_refused: false,
        other_targets: others.iter().map(|(workload, port)| (name(workload), *port)).collect(),
    }];
    Snapshot::build(Arc::new(bundle), &HashMap::new()).unwrap()
}

/// The same, balanced as a TrafficPolicy says.
pub(crate) fn balanced(endpoints: &[(&str, u8, u32)], balancing: Balancing) -> Snapshot {
    let mut bundle = Bundle::clone(&snapshot(endpoints).bundle);
    let service = bundle.services.get_mut(&name("reviews")).unwrap();
    service.traffic = Some(Box::new(Traffic {
        policy: name("p"),
        balancing,
        outliers: None,
        health_check: None,
        limits: None,
        request_timeout_ms: None,
        attempt_timeout_ms: None,
        stream_timeout_ms: None,
        retry: None,
        hedge: None,
    }));
    Snapshot::build(Arc::new(bundle), &HashMap::new()).unwrap()
}

fn request(key: Option<u64>) -> Wanted {
    Wanted { purpose: Purpose::Request, key }
}

#[test]
fn a_traffic_policy_says_how_endpoints_are_picked() {
    let fixture = Fixture::new();
    let all = [("a", 2, 1), ("b", 3, 1), ("c", 4, 1)];
    let picked = |snapshot: &Snapshot, key: Option<u64>| {
        let state = fixture.service(snapshot);
        let mut got = BTreeMap::<String, u32>::new();
        for dice in 0..30_u64 {
            let picked = state.pick(Duration::ZERO, dice << 50, request(key), &[]).unwrap();
            *got.entry(picked.endpoint.workload.name.clone()).or_default() += 1;
        }
        got.into_iter().collect::<Vec<_>>()
    };
    let thirds = [("a", 10), ("b", 10), ("c", 10)].map(|(name, count)| (name.to_owned(), count));
    // Another revision of something else changes no turn.
    for _ in 0..3 {
        assert_eq!(picked(&balanced(&all, Balancing::RoundRobin), Some(1)), thirds);
    }
    for balancing in [Balancing::RingHash, Balancing::Maglev] {
        let snapshot = balanced(&all, balancing(HashKey::Source(SourceKey::Address)));
        let home = picked(&snapshot, Some(1));
        assert_eq!((home.len(), home[0].1), (1, 30));
        // Where it is does not hang on the others, nor on what this worker has seen of it.
        let alone = Fixture::new().service(&snapshot).pick(Duration::ZERO, 7, request(Some(1)), &[]).unwrap();
        assert_eq!(alone.endpoint.workload.name, home[0].0);
        assert!(picked(&snapshot, None).len() == 3, "without a key anywhere");
    }
    assert!(picked(&snapshot(&all), Some(1)).len() == 3, "without the policy as before");
}

#[test]
fn who_fails_in_a_row_is_ejected_where_a_policy_says_so() {
    let fixture = Fixture::new();
    let all = [("a", 2, 1), ("b", 3, 1), ("c", 4, 1)];
    let fail = |snapshot: &Snapshot| {
        let state = fixture.service(snapshot);
        let broken = state.direct(&name("a")).unwrap();
        let end = |_: &i32| state.ended(&broken, Duration::ZERO, Duration::from_secs(1), 0, Sign::ServerError);
        (0..10).filter(end).count()
    };
    assert_eq!((fail(&snapshot(&all)), fixture.out.ejected.value()), (0, 0), "without a policy nobody is");
    let mut bundle = Bundle::clone(&balanced(&all, Balancing::default()).bundle);
    let outliers = weft_policy::bundle::Outliers {
        consecutive_5xx: 5,
        consecutive_gateway_errors: 0,
        consecutive_local_failures: 0,
        interval_ms: 10_000,
        ejection_ms: 30_000,
        longest_ms: 30_000,
        most_percent: 50,
        success_rate: None,
    };
    let service = bundle.services.get_mut(&name("reviews")).unwrap();
    service.traffic.as_mut().unwrap().outliers = Some(outliers);
    let ejecting = Snapshot::build(Arc::new(bundle), &HashMap::new()).unwrap();
    assert_eq!((fail(&ejecting), fixture.out.ejected.value()), (1, 1));
    let state = fixture.service(&ejecting);
    let picked = (0..64_u64).map(|dice| state.pick(Duration::from_secs(2), dice << 58, request(None), &[]).unwrap());
    assert!(picked.into_iter().all(|picked| picked.endpoint.workload != name("a")));
    // Another revision keeps it out, and one without the policy lets it in.
    drop(fixture.service(&Snapshot::build(Arc::clone(&ejecting.bundle), &HashMap::new()).unwrap()));
    assert_eq!(fixture.out.ejected.value(), 1);
    drop(fixture.service(&snapshot(&all)));
    assert_eq!(fixture.out.ejected.value(), 0);
}

fn tcp_check() -> HealthCheck {
    HealthCheck { probe: HealthProbe::Tcp, port: None, interval_ms: 1_000, timeout_ms: 1_000, unhealthy: 1, healthy: 1 }
}

/// What one worker's checks find is heeded by each, at the next pick, for as long as the policy asks for checks.
#[test]
fn who_is_unhealthy_is_left_out_where_a_policy_has_endpoints_checked() {
    let checks = HealthChecks::default();
    let worker = || {
        let finding = Finding { checks: checks.clone(), ..finding() };
        Destinations::new(WorkerMetrics::new(Arc::default()), Out::default(), limits(), finding, false)
    };
    let (one, other) = (worker(), worker());
    let all = [("a", 2, 1), ("b", 3, 1), ("c", 4, 1)];
    let mut bundle = Bundle::clone(&balanced(&all, Balancing::default()).bundle);
    let traffic = bundle.services.get_mut(&name("reviews")).unwrap().traffic.as_mut().unwrap();
    traffic.health_check = Some(tcp_check());
    let checked = Snapshot::build(Arc::new(bundle), &HashMap::new()).unwrap();
    let picked = |worker: &Destinations, snapshot: &Snapshot| -> BTreeSet<String> {
        let service = &snapshot.bundle.services[&name("reviews")];
        let state = worker.service(snapshot, snapshot.first(), service, None);
        let pick = |dice: u64| state.pick(Duration::ZERO, dice << 58, request(None), &[]).unwrap();
        (0..64).map(|dice| pick(dice).endpoint.workload.name.clone()).collect()
    };
    assert_eq!(picked(&one, &checked).len(), 3, "until a check failed all are well");
    let findings = checks.of(&name("reviews"));
    assert!(findings.take_use() && picked(&one, &checked).len() == 3 && findings.take_use(), "each pick is a use");
    findings.set(&name("a"), true);
    assert_eq!(picked(&one, &checked), ["b".to_owned(), "c".to_owned()].into());
    assert_eq!(picked(&other, &checked), ["b".to_owned(), "c".to_owned()].into(), "who comes later knows it, too");
    findings.set(&name("a"), false);
    findings.set(&name("b"), true);
    assert_eq!(picked(&one, &checked), ["a".to_owned(), "c".to_owned()].into());
    let unchecked = balanced(&all, Balancing::default());
    assert_eq!(picked(&one, &unchecked).len(), 3, "without checks nobody is out");
}

#[test]
fn near_endpoints_come_first_where_the_service_says_so() {
    let place = |region: &str, zone: &str| {
        BTreeMap::from([(REGION.to_owned(), region.to_owned()), (ZONE.to_owned(), zone.to_owned())])
    };
    let all = [("near", 2, 1), ("far", 3, 1), ("farther", 4, 1)];
    let spread = |spread: Option<Spread>| {
        let mut bundle = Bundle::clone(&snapshot(&all).bundle);
        bundle.workloads.get_mut("shop/web").unwrap().labels = place("eu", "a");
        let service = bundle.services.get_mut(&name("reviews")).unwrap();
        service.spread = spread.map(Box::new);
        for (endpoint, labels) in [("near", place("eu", "a")), ("far", place("eu", "b")), ("farther", place("us", "a"))]
        {
            service.endpoints.get_mut(&name(endpoint)).unwrap().labels = labels;
        }
        Snapshot::build(Arc::new(bundle), &HashMap::new()).unwrap()
    };
    let locality = Some(Locality { prefer: Prefer::Zone, failover: Vec::new(), overprovisioning_percent: 140 });
    let (near, alike) = (spread(Some(Spread { locality, ..Spread::default() })), spread(None));
    let fixture = Fixture::new();
    let picks = |state: &ServiceState| -> Vec<(String, Option<Nearness>)> {
        let pick = |dice: u64| state.pick(Duration::ZERO, dice << 58, request(None), &[]).unwrap();
        let picked: BTreeSet<_> =
            (0..64).map(pick).map(|it| (it.endpoint.workload.name.clone(), it.nearness())).collect();
        picked.into_iter().collect()
    };
    let at = |name: &str, nearness| vec![(name.to_owned(), Some(nearness))];
    let state = fixture.service(&near);
    assert_eq!(picks(&state), at("near", Nearness::Zone));
    for (lost, left) in [("near", at("far", Nearness::Region)), ("far", at("farther", Nearness::Elsewhere))] {
        state.not_reached(&state.direct(&name(lost)).unwrap(), Duration::ZERO, 1);
        assert_eq!(picks(&state), left);
    }
    state.reached(&state.direct(&name("near")).unwrap(), Duration::ZERO);
    assert_eq!(picks(&state), at("near", Nearness::Zone));
    state.reached(&state.direct(&name("far")).unwrap(), Duration::ZERO);
    // Another revision without it has all alike.
    let picked = picks(&fixture.service(&alike));
    assert!(picked.len() == 3 && picked.iter().all(|(_, nearness)| nearness.is_none()), "{picked:?}");
}

/// Each place gets its share, however many endpoints it has; of one that is lost the others have it, and what is in none of
/// them comes after all.
#[test]
fn places_get_their_shares_where_the_service_says_so() {
    let labels =
        |zone: &str| BTreeMap::from([(REGION.to_owned(), "eu".to_owned()), (ZONE.to_owned(), zone.to_owned())]);
    let all = [("a", 2, 1), ("b1", 3, 1), ("b2", 4, 1), ("other", 5, 9)];
    let mut bundle = Bundle::clone(&balanced(&all, Balancing::Random).bundle);
    bundle.workloads.get_mut("shop/web").unwrap().labels = labels("a");
    let service = bundle.services.get_mut(&name("reviews")).unwrap();
    for (endpoint, zone) in [("a", "a"), ("b1", "b"), ("b2", "b"), ("other", "c")] {
        service.endpoints.get_mut(&name(endpoint)).unwrap().labels = labels(zone);
    }
    let share = |place: &str, percent| PlaceShare { place: place.to_owned(), percent };
    let shares = vec![PlaceShares { from: "eu".to_owned(), to: vec![share("eu/a", 75), share("eu/b", 25)] }];
    service.spread = Some(Box::new(Spread { shares, ..Spread::default() }));
    let snapshot = Snapshot::build(Arc::new(bundle), &HashMap::new()).unwrap();
    let state = Fixture::new().service(&snapshot);
    let picks = || {
        let mut picked = BTreeMap::<String, u32>::new();
        for dice in 0..1_000_u64 {
            let dice = weft_flow::hash(&dice.to_be_bytes());
            let it = state.pick(Duration::ZERO, dice, request(None), &[]).unwrap();
            *picked.entry(it.endpoint.workload.name.clone()).or_default() += 1;
        }
        ["a", "b1", "b2", "other"].map(|name| picked.get(name).copied().unwrap_or_default())
    };
    let is_near = |got: [u32; 4], expect: [u32; 4]| {
        // Of a thousand, by dice: five deviations on both sides.
        assert!(got.iter().zip(expect).all(|(got, expect)| got.abs_diff(expect) < 80), "{got:?}, not {expect:?}");
        assert_eq!(got[3], expect[3], "{got:?}");
    };
    is_near(picks(), [750, 125, 125, 0]);
    let lose = |name_of: &str| state.not_reached(&state.direct(&name(name_of)).unwrap(), Duration::ZERO, 1);
    lose("b1");
    is_near(picks(), [857, 0, 143, 0]);
    ["a", "b2"].into_iter().for_each(lose);
    is_near(picks(), [0, 0, 0, 1_000]);
}

#[test]
fn a_service_that_panics_is_counted() {
    let fixture = Fixture::new();
    let all = [("a", 2, 1), ("b", 3, 1), ("c", 4, 1)];
    let mut bundle = Bundle::clone(&balanced(&all, Balancing::default()).bundle);
    let service = bundle.services.get_mut(&name("reviews")).unwrap();
    service.spread = Some(Box::new(Spread { panic_percent: 50, ..Spread::default() }));
    service.traffic.as_mut().unwrap().outliers = Some(weft_policy::bundle::Outliers {
        consecutive_5xx: 1,
        consecutive_gateway_errors: 0,
        consecutive_local_failures: 0,
        interval_ms: 10_000,
        ejection_ms: 30_000,
        longest_ms: 30_000,
        most_percent: 100,
        success_rate: None,
    });
    let state = fixture.service(&Snapshot::build(Arc::new(bundle), &HashMap::new()).unwrap());
    let counted = ["a", "b"].map(|broken| {
        let broken = state.direct(&name(broken)).unwrap();
        assert!(state.ended(&broken, Duration::ZERO, Duration::from_secs(1), 0, Sign::ServerError));
        fixture.out.panicking.value()
    });
    assert_eq!(counted, [0, 1], "one of three is in");
    drop(fixture.service(&snapshot(&all)));
    assert_eq!(fixture.out.panicking.value(), 0);
}

/// Also where checks alone bring it there, and out of it: no request has to end for that.
#[test]
fn a_service_that_panics_since_checks_fail_is_counted() {
    let fixture = Fixture::new();
    let all = [("a", 2, 1), ("b", 3, 1), ("c", 4, 1)];
    let mut bundle = Bundle::clone(&balanced(&all, Balancing::default()).bundle);
    let service = bundle.services.get_mut(&name("reviews")).unwrap();
    service.spread = Some(Box::new(Spread { panic_percent: 50, ..Spread::default() }));
    service.traffic.as_mut().unwrap().health_check = Some(tcp_check());
    let state = fixture.service(&Snapshot::build(Arc::new(bundle), &HashMap::new()).unwrap());
    let findings = fixture.destinations.finding.checks.of(&name("reviews"));
    let counted = [("a", true), ("b", true), ("a", false)].map(|(workload, is_unhealthy)| {
        findings.set(&name(workload), is_unhealthy);
        assert!(state.pick(Duration::ZERO, 0, request(None), &[]).is_some());
        fixture.out.panicking.value()
    });
    assert_eq!(counted, [0, 1, 0]);
}

#[test]
fn an_endpoint_without_a_named_port_is_none_of_that_port() {
    let fixture = Fixture::new();
    let of_port = |snapshot: &Snapshot| {
        let service = &snapshot.bundle.services[&name("reviews")];
        fixture.destinations.service(snapshot, snapshot.first(), service, Some(&service.ports[0]))
    };
    let all = [("a", 2, 1), ("b", 3, 1), ("c", 4, 1)];
    let state = of_port(&with_named_port(&all, &[("b", Some(9090)), ("c", None)]));
    let picks = |state: &ServiceState| -> BTreeSet<String> {
        let pick = |dice| state.pick(Duration::ZERO, dice, request(None), &[]).unwrap().endpoint.workload.name.clone();
        (0..64).map(pick).collect()
    };
    assert_eq!(picks(&state), ["a".to_owned(), "b".to_owned()].into());
    // Also where no other can be reached.
    let (a, b) = (state.direct(&name("a")).unwrap(), state.direct(&name("b")).unwrap());
    state.not_reached(&a, Duration::ZERO, 1);
    state.not_reached(&b, Duration::ZERO, 1);
    assert!(!picks(&state).contains("c") && state.direct(&name("c")).is_none());
    // An update that gives it the port makes it one; the service as a whole had it all the time.
    let updated = of_port(&with_named_port(&all, &[("a", None)]));
    assert!(Rc::ptr_eq(&updated, &state) && Rc::ptr_eq(&b, &state.direct(&name("b")).unwrap()));
    assert!(state.direct(&name("c")).is_some() && state.direct(&name("a")).is_none());
    assert!(fixture.service(&snapshot(&all)).direct(&name("a")).is_some());
}

#[test]
fn an_endpoint_is_the_same_until_its_address_is_another() {
    let fixture = Fixture::new();
    let state = fixture.service(&snapshot(&[("a", 2, 1), ("b", 3, 1)]));
    let a = state.direct(&name("a")).unwrap();
    a.vitals.started();
    state.not_reached(&a, Duration::ZERO, 1);
    assert_eq!(fixture.out.unreachable.value(), 1);
    let picks = |dice| state.pick(Duration::ZERO, dice, request(None), &[]).unwrap().endpoint.workload.name.clone();
    assert!((0..50).all(|dice| picks(dice) == "b"));

    fixture.service(&snapshot(&[("a", 2, 90), ("b", 3, 1), ("c", 4, 0)]));
    assert!(Rc::ptr_eq(&a, &state.direct(&name("a")).unwrap()), "another weight, the same endpoint");
    assert_eq!(fixture.out.unreachable.value(), 1);
    assert!((0..50).all(|dice| picks(dice) == "b"));

    fixture.service(&snapshot(&[("a", 5, 1), ("b", 3, 1)]));
    let moved = state.direct(&name("a")).unwrap();
    assert_eq!((moved.vitals.in_flight(), fixture.out.unreachable.value()), (0, 0), "what moved is reached anew");
    assert!((0..50).any(|dice| picks(dice) == "a"));
    state.probed(&a, Duration::ZERO, 1, Probed::Unreachable);
    state.not_reached(&a, Duration::ZERO, 1);
    assert_eq!(fixture.out.unreachable.value(), 0, "who left is not counted");
}

/// However many endpoints there are, and whatever becomes of them.
#[test]
fn a_session_finds_its_endpoint_and_none_that_left_or_is_another() {
    let fixture = Fixture::new();
    let first = snapshot(&[("a", 2, 1), ("b", 3, 1)]);
    let state = fixture.service(&first);
    let of = |name: &str| state.in_session(weft_flow::hash(format!("session endpoint shop/{name}").as_bytes()));
    let (a, b) = (of("a").unwrap(), of("b").unwrap());
    assert_eq!((&a.endpoint.workload, &b.endpoint.workload), (&name("a"), &name("b")));
    assert!(of("c").is_none());
    let second = snapshot(&[("b", 4, 1), ("c", 5, 1)]);
    fixture.service(&second);
    assert!(of("a").is_none() && of("c").is_some());
    assert!(of("b").is_some_and(|now| !Rc::ptr_eq(&now, &b)), "its address is another");
    let c = of("c").unwrap();
    state.not_reached(&c, Duration::ZERO, 0);
    assert!(of("c").is_none(), "it takes no requests");
}

#[test]
fn an_older_snapshot_brings_nobody_back() {
    let fixture = Fixture::new();
    let (older, newer) = (snapshot(&[("a", 2, 1), ("b", 3, 1)]), snapshot(&[("b", 3, 1)]));
    let state = fixture.service(&newer);
    assert!(Rc::ptr_eq(&state, &fixture.service(&older)), "the same service");
    assert!(Rc::ptr_eq(&state, &fixture.service(&newer)));
    assert!(state.direct(&name("a")).is_none());
    assert!(state.all_among(&[state.direct(&name("b")).unwrap()]), "the one that is left was tried");
    assert!(!state.all_among(&[]));
}

#[test]
fn a_service_that_went_is_forgotten() {
    let fixture = Fixture::new();
    let with = snapshot(&[("a", 2, 1)]);
    let state = fixture.service(&with);
    state.not_reached(&state.direct(&name("a")).unwrap(), Duration::ZERO, 1);
    drop(state);
    let mut without = Bundle::clone(&with.bundle);
    without.services =
        [(name("other"), Service { name: name("other"), ..without.services[&name("reviews")].clone() })].into();
    let without = Snapshot::build(Arc::new(without), &HashMap::new()).unwrap();
    fixture.destinations.service(&without, without.first(), &without.bundle.services[&name("other")], None);
    assert_eq!(fixture.out.unreachable.value(), 0);
}

#[test]
fn swaps_do_not_grow_the_store() {
    let store = Arc::new(crate::telemetry::series::SeriesStore::default());
    let metrics = WorkerMetrics::new(Arc::clone(&store));
    let destinations = Destinations::new(metrics, Out::default(), limits(), finding(), false);
    for swap in 1..=50 {
        let snapshot = snapshot(&[("a", swap, 1)]);
        let state =
            destinations.service(&snapshot, snapshot.first(), &snapshot.bundle.services[&name("reviews")], None);
        let destination = state.direct(&name("a")).expect("the endpoint");
        assert_eq!(destination.endpoint.address, IpAddr::from([10, 0, 0, swap]), "it was made anew");
        destination.metrics.request(crate::telemetry::series::RequestEnd {
            code: 200,
            grpc: false,
            grpc_status: None,
            flag: Flag::None,
            duration: Duration::from_millis(1),
            request_bytes: 0,
            response_bytes: 0,
        });
        destination.metrics.tcp(Flag::None).opened.add(1);
    }
    assert_eq!((store.requests.live(), store.tcp.live()), (1, 1));
    let sums = store.requests.sums(|sum: &mut u64, series| *sum += series.requests.value());
    assert_eq!(sums.into_iter().map(|(_, sum)| sum).collect::<Vec<u64>>(), [50]);
}

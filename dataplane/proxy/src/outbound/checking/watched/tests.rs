//! Who is checked as configurations and results come.

use std::collections::BTreeSet;

use weft_policy::bundle::{AppVersion, HealthProbe, Protocol, ServicePort};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn name(name: &str) -> ObjectName {
    ObjectName::new("shop", name)
}

fn check() -> HealthCheck {
    HealthCheck { probe: HealthProbe::Tcp, port: None, interval_ms: 1_000, timeout_ms: 500, unhealthy: 2, healthy: 1 }
}

/// A service with endpoints by name and the last byte of their addresses; `none` has no port there.
fn service(endpoints: &[(&str, u8)], none: &[&str]) -> Service {
    let endpoint = |workload: &str, last: u8| Endpoint {
        workload: name(workload),
        identity: None,
        address: [10, 0, 0, last].into(),
        addresses: Vec::new(),
        mesh_address: ([10, 0, 0, last], 15008).into(),
        weight: 1,
        labels: BTreeMap::new(),
    };
    Service {
        name: name("web"),
        ports: vec![ServicePort {
            name: None,
            port: 80,
            target_port: 8080,
            protocol: Protocol::Tcp,
            app_version: AppVersion::AsCaller,
            opaque_refused: false,
            other_targets: none.iter().map(|workload| (name(workload), None)).collect(),
        }],
        vip: None,
        path_reading: Default::default(),
        traffic: None,
        spread: None,
        endpoints: endpoints.iter().map(|(workload, last)| (name(workload), endpoint(workload, *last))).collect(),
    }
}

/// One that is watched, by a clock and numbers of the test.
struct Fixture {
    watched: Watched,
    now: Duration,
    generation: u64,
    numbers: u64,
}

impl Fixture {
    fn new() -> Self {
        Self { watched: Watched::new(&check(), Duration::ZERO), now: Duration::ZERO, generation: 0, numbers: 0 }
    }

    fn follow(&mut self, service: &Service, check: &HealthCheck) {
        self.generation += 1;
        let Self { watched, now, generation, numbers } = self;
        let mut number = || {
            *numbers += 1;
            *numbers
        };
        watched.follow(*generation, service, check, (*now, &mut || 0, &mut number));
    }

    /// Lets an interval and a half pass: all checks are due, and are taken.
    fn take(&mut self) -> Vec<Place> {
        self.now += SECOND * 3 / 2;
        let due: Vec<Due> = self.watched.due(&name("web"), self.now).collect();
        let taken = due.into_iter().filter(|due| self.watched.take(&due.place, self.now).is_some());
        taken.map(|due| due.place).collect()
    }

    fn end(&mut self, place: &Place, found: &Found) -> Option<Told> {
        self.watched.ended(place, found, self.now, 0)
    }

    /// A round of checks that fail where the name is listed. Gives who was asked.
    fn round(&mut self, failing: &[&str]) -> BTreeSet<String> {
        let places = self.take();
        for place in &places {
            let fails = failing.contains(&place.workload.name.as_str());
            self.end(place, &if fails { Found::late(SECOND) } else { Found::passed() });
        }
        places.into_iter().map(|place| place.workload.name).collect()
    }

    fn unwell(&self) -> Vec<&'static str> {
        ["a", "b", "c"].into_iter().filter(|workload| self.watched.is_unwell(&name(workload))).collect()
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn each_endpoint_of_the_port_is_asked_once_a_round() {
    let mut fixture = Fixture::new();
    fixture.follow(&service(&[("a", 1), ("b", 2), ("c", 3)], &["c"]), &check());
    let places = fixture.take();
    assert_eq!(places.len(), 2, "c has no such port");
    assert!(fixture.take().is_empty() && fixture.watched.next().is_none(), "two are under way");
    let told = fixture.end(&places[0], &Found::late(SECOND)).unwrap();
    assert_eq!((told.changes_to, fixture.unwell()), (Some(true), vec!["a"]), "the first result decides");
    assert_eq!(fixture.end(&places[1], &Found::passed()), Some(Told::default()));
    assert_eq!(fixture.round(&["b"]), names(&["a", "b"]));
    assert!(fixture.unwell().is_empty(), "one that passes is enough, and one that fails is not");
    fixture.round(&["b"]);
    assert_eq!(fixture.unwell(), ["b"]);
}

#[test]
fn who_left_is_asked_no_more_and_who_came_back_is_another() {
    let mut fixture = Fixture::new();
    fixture.follow(&service(&[("a", 1), ("b", 2)], &[]), &check());
    assert_eq!(fixture.round(&["a", "b"]), names(&["a", "b"]));
    let under_way = fixture.take();
    // One left, and one is at another address.
    fixture.follow(&service(&[("b", 9)], &[]), &check());
    assert!(fixture.unwell().is_empty(), "nothing is held of another");
    assert!(under_way.iter().all(|place| fixture.end(place, &Found::late(SECOND)).is_none()), "of those before");
    assert_eq!(fixture.round(&[]), names(&["b"]));
    fixture.follow(&service(&[("a", 1), ("b", 9)], &[]), &check());
    assert!(fixture.unwell().is_empty() && fixture.round(&["a"]) == names(&["a", "b"]));
    assert_eq!(fixture.unwell(), ["a"]);
    fixture.watched.rest();
    assert!(fixture.unwell().is_empty() && fixture.take().is_empty(), "nobody uses it");
}

#[test]
fn another_question_is_asked_anew_and_other_times_are_not() {
    let mut fixture = Fixture::new();
    let web = service(&[("a", 1), ("b", 2)], &[]);
    fixture.follow(&web, &check());
    fixture.round(&["a"]);
    let slower = HealthCheck { interval_ms: 100_000, unhealthy: 9, ..check() };
    fixture.follow(&web, &slower);
    assert_eq!(fixture.unwell(), ["a"]);
    let next = fixture.watched.next().unwrap();
    assert!(next <= fixture.now + SECOND * 100, "{next:?}");
    let other = HealthCheck { port: Some(80), ..check() };
    fixture.follow(&web, &other);
    assert!(fixture.unwell().is_empty());
    assert_eq!(fixture.round(&["b"]), names(&["a", "b"]));
    assert_eq!(fixture.unwell(), ["b"]);
    // Neither a port that is not there nor one that takes no requests is asked.
    for odd in
        [HealthCheck { port: Some(81), ..check() }, HealthCheck { probe: HealthProbe::Grpc(String::new()), ..check() }]
    {
        fixture.follow(&web, &odd);
        assert!(fixture.unwell().is_empty() && fixture.watched.next().is_none());
    }
}

#[test]
fn a_refusal_says_nothing_of_the_endpoint_and_is_told_once() {
    let mut fixture = Fixture::new();
    fixture.follow(&service(&[("a", 1)], &[]), &check());
    let mut told = |found: &Found| {
        let place = fixture.take().remove(0);
        let told = fixture.end(&place, found).unwrap();
        (told.changes_to, told.is_refused)
    };
    let refused = Found::refused("no");
    assert_eq!([told(&refused), told(&refused)], [(None, true), (None, false)]);
    assert_eq!(told(&Found::late(SECOND)), (Some(true), false), "the first that says anything");
    assert_eq!([told(&refused), told(&Found::given_up())], [(None, true), (None, false)]);
    assert_eq!([told(&refused), told(&Found::passed())], [(None, true), (Some(false), false)]);
}

#[test]
fn no_namespace_keeps_the_checks_of_others_waiting() {
    let due = |namespace: &str, workload: &str, since: u64| {
        let (service, workload) = (ObjectName::new(namespace, "web"), ObjectName::new(namespace, workload));
        Due { since: Duration::from_secs(since), place: Place { service, workload, number: 0 } }
    };
    let order = |due: Vec<Due>, under_way: &[(&str, usize)]| -> Vec<String> {
        let under_way = under_way.iter().map(|(namespace, count)| ((*namespace).to_owned(), *count)).collect();
        in_turn(due, &under_way).into_iter().map(|due| due.place.workload.name).collect()
    };
    // A namespace of many endpoints, all due for longer than the one of another.
    let all = || vec![due("shop", "c", 3), due("shop", "a", 1), due("shop", "b", 2), due("till", "z", 9)];
    assert_eq!(order(all(), &[]), ["a", "z", "b", "c"]);
    assert_eq!(order(all(), &[("shop", 1)]), ["z", "a", "b", "c"]);
    assert_eq!(order(all(), &[("till", 2), ("bank", 9)]), ["a", "b", "c", "z"]);
    assert_eq!(order(vec![due("shop", "b", 2), due("shop", "a", 1)], &[("shop", 7)]), ["a", "b"]);
}

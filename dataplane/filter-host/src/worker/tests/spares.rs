//! Instances that wait, configured, for a worker: when a request has to wait for `configure`, and when not.

use super::*;
use crate::clock::tests::until;

fn host_with_spares() -> Host {
    Host::new(HostConfig { max_instances: 1, ..HostConfig::default() }).expect("a host")
}

/// Traps on every request of the caller `evil`.
fn say(told: &Told<'_>, _: &[u8]) -> Result<Said, Failure> {
    let caller = told.attributes.and_then(|it| it.principal).unwrap_or_default();
    if caller == "evil" { trap() } else { pass() }
}

fn reason(outcome: Outcome) -> String {
    match outcome {
        Outcome::Permitted(_) => "permitted".to_owned(),
        Outcome::Respond(reply) => reply.reason,
        outcome @ (Outcome::Delay { .. } | Outcome::Body { .. } | Outcome::Wait { .. } | Outcome::Reset(_)) => {
            panic!("{outcome:?}")
        }
    }
}

#[test]
fn no_request_waits_for_configure_where_a_spare_instance_does() {
    let host = host_with_spares();
    let (filters, counts) = program(&host, &[spec("a")], &["request-head"], say);
    let (mut worker, chain) = (Worker::new(&host), Chain::new(filters.clone()));
    for stream in 0..40 {
        until("a spare one", || host.spare_instances() == 1);
        let mut evil = Request { principal: "evil", ..Request::new(2 * stream) };
        assert_eq!(reason(evil.start(&mut worker, &chain)), "filter_trapped");
        until("a spare one", || host.spare_instances() == 1);
        assert_eq!(reason(Request::new(2 * stream + 1).start(&mut worker, &chain)), "permitted");
    }
    assert_eq!(filters[0].stats().configured_inline.value(), 0);
    until("a spare one", || host.spare_instances() == 1);
    let counted = *counts.lock().expect("sound");
    assert_eq!(counted[..2], [42, 42], "the first, one for each trap, and the one that is ready");
    drop((worker, chain, filters));
    until("what was ready goes with its program", || host.spare_instances() == 0);
}

#[test]
fn a_flood_of_traps_costs_its_own_requests() {
    let host = host_with_spares();
    let (filters, counts) = program(&host, &[spec("a")], &["request-head"], say);
    let (mut worker, chain) = (Worker::new(&host), Chain::new(filters.clone()));
    for stream in 0..500 {
        let mut evil = Request { principal: "evil", ..Request::new(stream) };
        assert_eq!(reason(evil.start(&mut worker, &chain)), "filter_trapped", "each is tried");
    }
    assert_eq!(reason(Request::new(1_000).start(&mut worker, &chain)), "permitted");
    until("a spare one", || host.spare_instances() == 1);
    assert_eq!(counts.lock().expect("sound")[0], 502, "one for each request, and the one that is ready");
}

#[test]
fn a_configuration_that_comes_later_is_known_to_instances_that_wait() {
    let host = host_with_spares();
    let (filters, _) = program(&host, &[spec("a/one")], &["request-head"], say);
    let mut worker = Worker::new(&host);
    let one = Chain::new(filters.clone());
    assert_eq!(reason(Request::new(1).start(&mut worker, &one)), "permitted");
    let later = join(&host, &filters[0].program, &spec("a/two"), &[hook("request-head")]);
    let two = Chain::new(vec![later.clone()]);
    for stream in 2..6 {
        assert_eq!(reason(Request::new(stream).start(&mut worker, &two)), "permitted");
        assert_eq!(reason(Request::new(stream + 10).start(&mut worker, &one)), "permitted");
    }
    for filter in [&filters[0], &later] {
        assert_eq!(filter.stats().configured_inline.value(), 0, "{}", filter.spec().name);
    }
}

#[test]
fn a_configuration_that_fails_later_keeps_no_other_from_its_spares() {
    let host = host_with_spares();
    let mut refused = spec("a/refused");
    refused.config_json = "refused".to_owned();
    let (filters, counts) = program(&host, &[refused, spec("a/fine")], &["request-head"], say);
    let mut worker = Worker::new(&host);
    let [refused, fine] = [0, 1].map(|place: usize| Chain::new(vec![filters[place].clone()]));
    for stream in 0..10 {
        assert_eq!(reason(Request::new(4 * stream).start(&mut worker, &refused)), "filter_not_instantiated");
        until("a spare one", || host.spare_instances() == 1);
        assert_eq!(reason(Request::new(4 * stream + 1).start(&mut worker, &fine)), "permitted");
        until("a spare one", || host.spare_instances() == 1);
    }
    assert_eq!(filters[0].stats().configured_inline.value(), 10);
    assert_eq!(filters[1].stats().configured_inline.value(), 0);
    // One for the refused alone, two each for the first spare and its successor, and the worker's first.
    assert_eq!(counts.lock().expect("sound")[0], 6, "what refuses one configuration serves the other as before");
}

#[test]
fn without_spares_a_request_waits_for_its_configuration() {
    let host = host();
    let (filters, _) = program(&host, &[spec("a")], &["request-head"], say);
    let (mut worker, chain) = (Worker::new(&host), Chain::new(filters.clone()));
    for stream in 0..3 {
        let mut evil = Request { principal: "evil", ..Request::new(stream) };
        assert_eq!(reason(evil.start(&mut worker, &chain)), "filter_trapped");
    }
    assert_eq!(filters[0].stats().configured_inline.value(), 3);
    assert_eq!(host.spare_instances(), 0);
}

#[test]
fn a_quarter_of_what_waits_is_for_what_ships() {
    let host = Host::new(HostConfig { max_instances: 1, spare_instances: 4, ..HostConfig::default() }).expect("a host");
    (0..3).for_each(|_| host.0.shelf.put(1));
    assert!(!host.0.has_room_for_spares(0, false) && host.0.has_room_for_spares(0, true));
    host.0.shelf.put(1);
    assert!(!host.0.has_room_for_spares(0, true));
}

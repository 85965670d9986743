//! Who goes through a gate, who waits and who is refused.

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;

fn name() -> ObjectName {
    ObjectName::new("shop", "cart")
}

fn limits(active: u32, pending: u32) -> Limits {
    Limits { active, pending, pending_ms: 1_000, ..Limits::default() }
}

#[tokio::test(start_paused = true)]
async fn so_many_are_under_way_so_many_wait_and_others_are_refused() {
    let gates = Gates::default();
    let gate = gates.of(&name(), &limits(2, 2));
    let (first, second) = (gate.enter(Wait::AsSet).await.unwrap(), gate.enter(Wait::AsSet).await.unwrap());
    let (mut third, mut fourth) = (pin!(gate.enter(Wait::AsSet)), pin!(gate.enter(Wait::AsSet)));
    let mut context = Context::from_waker(Waker::noop());
    assert!(third.as_mut().poll(&mut context).is_pending() && fourth.as_mut().poll(&mut context).is_pending());
    for _ in 0..3 {
        assert_eq!(gate.enter(Wait::AsSet).await.unwrap_err(), GateFull::Pending(2), "who is refused changes nothing");
    }
    assert_eq!(gates.waiting.value(), 2);
    drop(first);
    // Who came first goes first, whoever asks first.
    assert!(fourth.as_mut().poll(&mut context).is_pending());
    let Poll::Ready(Ok(third)) = third.as_mut().poll(&mut context) else { panic!("it has a place") };
    assert_eq!(fourth.await.unwrap_err(), GateFull::Late(1_000), "nobody left in time");
    assert_eq!(gates.waiting.value(), 0);
    drop((second, third));
    assert_eq!(gate.places.as_ref().unwrap().available_permits(), 2);
}

#[tokio::test]
async fn without_pending_ones_a_further_request_is_refused_at_once() {
    let gate = Gates::default().of(&name(), &limits(1, 0));
    let place = gate.enter(Wait::AsSet).await.unwrap();
    assert_eq!(gate.enter(Wait::AsSet).await.unwrap_err(), GateFull::Active(1));
    drop(place);
    assert!(gate.enter(Wait::AsSet).await.is_ok());
}

#[tokio::test]
async fn who_gives_up_makes_room() {
    let gate = Gates::default().of(&name(), &limits(1, 1));
    let _place = gate.enter(Wait::AsSet).await.unwrap();
    {
        let mut waits = pin!(gate.enter(Wait::AsSet));
        assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(gate.enter(Wait::AsSet).await.unwrap_err(), GateFull::Pending(1));
    }
    assert_eq!(gate.pending.load(Ordering::Relaxed), 0);
}

#[test]
fn all_workers_have_one_gate_for_a_destination_and_its_limits() {
    let gates = Gates::default();
    let gate = gates.of(&name(), &limits(1, 0));
    assert!(Arc::ptr_eq(&gate, &gates.clone().of(&name(), &limits(1, 0))));
    let other = gates.of(&name(), &limits(2, 0));
    assert!(!Arc::ptr_eq(&gate, &other));
    drop((gate, other));
    let _last = gates.of(&ObjectName::new("shop", "other"), &limits(1, 0));
    assert_eq!(gates.gates.lock().unwrap().len(), 1, "what nobody holds is forgotten");
}

#[tokio::test]
async fn nobody_waits_while_no_endpoint_can_be_reached() {
    let gate = Gates::default().of(&name(), &limits(1, 5));
    let place = gate.enter(Wait::Never).await.unwrap();
    assert_eq!(gate.enter(Wait::Never).await.unwrap_err(), GateFull::Unreachable(1));
    assert_eq!(gate.pending.load(Ordering::Relaxed), 0);
    drop(place);
    assert!(gate.enter(Wait::Never).await.is_ok());
    let none = Gates::default().of(&name(), &limits(1, 0));
    let _place = none.enter(Wait::Never).await.unwrap();
    assert_eq!(none.enter(Wait::Never).await.unwrap_err(), GateFull::Active(1));
}

#[tokio::test]
async fn each_limit_stands_by_itself() {
    let only = Limits { connections: Some(2), pending_ms: 1_000, ..Limits::default() };
    let gate = Gates::default().of(&name(), &only);
    let first = gate.connect().unwrap();
    let _second = gate.connect().unwrap();
    assert_eq!(gate.connect().unwrap_err(), GateFull::Connections(2));
    // Requests and what is sent again are not connections.
    let mut held = None;
    assert!(gate.retry(&mut held) && held.is_none());
    for _ in 0..5 {
        assert!(gate.enter(Wait::AsSet).await.is_ok() && gate.enter_at_once().is_ok());
    }
    drop(first);
    assert!(gate.connect().unwrap().is_some());
    let requests = Gates::default().of(&name(), &limits(1, 0));
    assert!(requests.connect().unwrap().is_none());
}

#[test]
fn a_request_keeps_its_place_among_those_that_are_sent_again() {
    let gate = |most| Gates::default().of(&name(), &Limits { retries: Some(most), pending_ms: 1_000, ..limits(9, 0) });
    let two = gate(2);
    let (mut first, mut second, mut third) = (None, None, None);
    for _ in 0..3 {
        assert!(two.retry(&mut first) && two.retry(&mut second), "each is one of them, however often");
        assert!(!two.retry(&mut third) && third.is_none());
    }
    drop(first);
    assert!(two.retry(&mut third) && third.is_some());
    assert!(!gate(0).retry(&mut None), "none is sent again");
}

#[tokio::test]
async fn no_more_are_under_way_than_latency_allows() {
    let adaptive = Some(AdaptiveLimit { least: 1, most: 2, window_ms: 60_000 });
    let gates = Gates::default();
    let gate = gates.of(&name(), &Limits { adaptive, pending_ms: 1_000, ..Limits::default() });
    assert_eq!(gates.adaptive(), [(name(), 2)]);
    let (mut first, second) = (gate.enter(Wait::AsSet).await.unwrap(), gate.enter_at_once().unwrap());
    assert_eq!(gate.enter(Wait::AsSet).await.unwrap_err(), GateFull::Adaptive(2));
    assert_eq!(gate.enter_at_once().unwrap_err(), GateFull::Adaptive(2));
    // From the head of its answer on it is none of them, were it a stream that never ends.
    first.answered(Instant::now(), true);
    first.answered(Instant::now(), true);
    let third = gate.enter(Wait::AsSet).await.unwrap();
    drop((first, second, third));
    assert_eq!(gate.adaptive.as_ref().unwrap().locked().in_flight(), 0);
    drop(gate);
    assert!(gates.adaptive().is_empty(), "nobody holds it");
}

/// What is refused by its latency gives its place among the active ones back.
#[tokio::test]
async fn both_limits_of_requests_hold() {
    let adaptive = Some(AdaptiveLimit { least: 1, most: 1, window_ms: 60_000 });
    let gate = Gates::default().of(&name(), &Limits { adaptive, ..limits(2, 0) });
    let place = gate.enter(Wait::AsSet).await.unwrap();
    for _ in 0..3 {
        assert_eq!(gate.enter(Wait::AsSet).await.unwrap_err(), GateFull::Adaptive(1));
    }
    drop(place);
    assert!(gate.enter(Wait::AsSet).await.is_ok());
}

/// Else as many WebSockets as may be under way would shut everything else out, and no answer would move the limit.
#[tokio::test]
async fn what_stands_is_none_of_those_that_latency_limits() {
    let adaptive = Some(AdaptiveLimit { least: 1, most: 1, window_ms: 60_000 });
    let gate = Gates::default().of(&name(), &Limits { adaptive, ..limits(2, 0) });
    let mut stands = gate.enter(Wait::AsSet).await.unwrap();
    assert_eq!(gate.enter(Wait::AsSet).await.unwrap_err(), GateFull::Adaptive(1));
    stands.stands();
    stands.answered(Instant::now(), true);
    let place = gate.enter(Wait::AsSet).await.unwrap();
    assert_eq!(gate.enter(Wait::AsSet).await.unwrap_err(), GateFull::Active(2), "it is one of those all the same");
    drop((stands, place));
    assert_eq!(gate.adaptive.as_ref().unwrap().locked().in_flight(), 0);
}

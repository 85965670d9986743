//! A filter that fails harms its own request, by its onFailure, and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode};
use weft_filter_host::{Chain, CustomValue, FilterStats, Host, Outcome, ReplyCause, Summary, TrapKind, Worker};
use weft_policy::bundle::{FilterMode, OnFailure};

use crate::support::{Head, ask, host, hostile, refused, respond};

fn stats(host: &Host) -> Arc<FilterStats> {
    host.stats().pop().expect("one filter").stats
}

fn setup(on_failure: OnFailure) -> (Host, Worker, Chain) {
    let host = host();
    let chain = Chain::new(vec![hostile(&host, |spec| spec.on_failure = on_failure)]);
    (host.clone(), Worker::new(&host), chain)
}

#[test]
fn a_trap_costs_one_request_and_the_instance() {
    let (host, mut worker, chain) = setup(OnFailure::Deny);
    assert_eq!(ask(&mut worker, &chain, 1, Head::told("calls")).expect("fine").header("x-calls"), Some("1"));
    assert_eq!(ask(&mut worker, &chain, 2, Head::told("calls")).expect("fine").header("x-calls"), Some("2"));
    let reply = ask(&mut worker, &chain, 3, Head::told("trap")).expect_err("onFailure Deny");
    assert_eq!(
        (reply.status, reply.cause, &*reply.reason),
        (StatusCode::SERVICE_UNAVAILABLE, ReplyCause::Failed, "filter_trapped")
    );
    assert_eq!((&*reply.filter, &*reply.version), ("hostile", "1.0.0"));
    let fresh = ask(&mut worker, &chain, 4, Head::told("calls")).expect("fine");
    assert_eq!(fresh.header("x-calls"), Some("1"), "a new instance");
    let stats = stats(&host);
    assert_eq!((stats.traps.value(), stats.failed_closed.value(), stats.instances.value()), (1, 1, 1));
    let metrics = stats.custom();
    let seen = metrics.iter().find(|metric| metric.name() == "seen_total").expect("a metric");
    assert_eq!(seen.value(), CustomValue::Counter(4), "metrics outlive instances");
}

#[test]
fn on_failure_allow_lets_the_request_go_on_unchanged() {
    let (host, mut worker, chain) = setup(OnFailure::Allow);
    for (stream, what) in [(1, "trap"), (2, "pseudo"), (3, "loop")] {
        let head = ask(&mut worker, &chain, stream, Head::told(what)).expect("it goes on");
        assert_eq!(head.headers.len(), 1);
    }
    let stats = stats(&host);
    assert_eq!((stats.failed_open.value(), stats.failed_closed.value()), (3, 0));
}

#[test]
fn an_endless_loop_ends_at_its_deadline() {
    let (host, mut worker, chain) = setup(OnFailure::Deny);
    let start = Instant::now();
    assert_eq!(refused(ask(&mut worker, &chain, 1, Head::told("loop"))), "filter_timed_out");
    assert!(start.elapsed() < Duration::from_secs(5), "50 ms and what a busy machine adds");
    assert!(ask(&mut worker, &chain, 2, Head::get("/")).is_ok());
    assert_eq!(stats(&host).timeouts.value(), 1);
}

#[test]
fn a_call_wakes_the_clock_that_ends_it() {
    let (host, mut worker, chain) = setup(OnFailure::Deny);
    assert!(!host.is_idle(), "its instance has just been configured");
    for stream in 1..=2 {
        let start = Instant::now();
        while !host.is_idle() {
            assert!(start.elapsed() < Duration::from_secs(30), "nothing calls, and the clock does not sleep");
            std::thread::sleep(Duration::from_millis(1));
        }
        let start = Instant::now();
        assert_eq!(refused(ask(&mut worker, &chain, stream, Head::told("loop"))), "filter_timed_out");
        assert!((50..5_000).contains(&start.elapsed().as_millis()), "its time, not less: {:?}", start.elapsed());
        assert!(!host.is_idle());
    }
}

#[test]
fn memory_and_stack_end_at_their_limits() {
    let (host, mut worker, chain) = setup(OnFailure::Deny);
    assert_eq!(refused(ask(&mut worker, &chain, 1, Head::told("memory"))), "filter_trapped");
    assert_eq!(refused(ask(&mut worker, &chain, 2, Head::told("stack"))), "filter_trapped");
    assert!(ask(&mut worker, &chain, 3, Head::get("/")).is_ok());
    let stats = stats(&host);
    assert!(stats.memory_limit_hits.value() >= 1);
    assert_eq!((stats.traps.value(), stats.traps_of(TrapKind::Memory)), (2, 1));
    assert!(stats.memory_bytes.value() < 4 << 20, "what the dead instance had is given back");
}

#[test]
fn streams_whose_state_died_with_the_instance_fail_by_on_failure() {
    let (host, mut worker, chain) = setup(OnFailure::Deny);
    let respond = |worker: &mut Worker, stream| {
        let mut headers = HeaderMap::new();
        match respond(worker, &chain, stream, &mut headers) {
            Outcome::Permitted(()) => headers["x-stream"].to_str().expect("text").to_owned(),
            Outcome::Respond(reply) => reply.reason,
            outcome @ (Outcome::Delay { .. } | Outcome::Body { .. } | Outcome::Wait { .. } | Outcome::Reset(_)) => {
                panic!("{outcome:?}")
            }
        }
    };
    ask(&mut worker, &chain, 1, Head::get("/")).expect("fine");
    ask(&mut worker, &chain, 2, Head::get("/")).expect("fine");
    assert_eq!(respond(&mut worker, 1), "known");
    refused(ask(&mut worker, &chain, 3, Head::told("trap")));
    assert_eq!(respond(&mut worker, 2), "filter_state_lost");
    ask(&mut worker, &chain, 4, Head::get("/")).expect("fine");
    assert_eq!(respond(&mut worker, 4), "known");
    for stream in 1..=4 {
        worker.done(&chain, stream, &Summary::default());
    }
    assert_eq!(stats(&host).lost_streams.value(), 1);
    ask(&mut worker, &chain, 2, Head::get("/")).expect("the id is free again");
    assert_eq!(respond(&mut worker, 2), "known");
}

#[test]
fn repeated_traps_cost_their_own_requests_and_no_other() {
    let (host, mut worker, chain) = setup(OnFailure::Deny);
    for stream in 0..20 {
        assert_eq!(refused(ask(&mut worker, &chain, stream, Head::told("trap"))), "filter_trapped");
        ask(&mut worker, &chain, 100 + stream, Head::get("/")).expect("another request, at once");
    }
    let filter = host.stats().pop().expect("one filter");
    assert_eq!((filter.stats.traps.value(), filter.stats.failed_closed.value()), (20, 20));
    assert_eq!(filter.stats.traps_of(TrapKind::Unreachable), 20);
}

#[test]
fn a_filter_that_may_fail_is_spared_for_the_caller_it_fails_on() {
    let (host, mut worker, chain) = setup(OnFailure::Allow);
    for stream in 0..20 {
        ask(&mut worker, &chain, stream, Head::told("trap")).expect("passed by");
        let mut other = Head::told("calls");
        other.principal = None;
        let head = ask(&mut worker, &chain, 100 + stream, other).expect("another caller");
        assert!(head.header("x-calls").is_some(), "its filter is called");
    }
    let stats = stats(&host);
    assert_eq!(stats.traps.value() + stats.backoff_skips.value(), 20);
    assert!(stats.backoffs.value() >= 1 && stats.backoff_skips.value() >= 1);
}

#[test]
fn one_filter_s_trap_leaves_the_others_alone() {
    let host = host();
    let bad = hostile(&host, |spec| spec.name = "bad".to_owned());
    let good = hostile(&host, |spec| spec.name = "good".to_owned());
    let (bad, good) = (Chain::new(vec![bad]), Chain::new(vec![good]));
    let mut worker = Worker::new(&host);
    ask(&mut worker, &good, 1, Head::told("calls")).expect("fine");
    refused(ask(&mut worker, &bad, 2, Head::told("trap")));
    let head = ask(&mut worker, &good, 3, Head::told("calls")).expect("fine");
    assert_eq!(head.header("x-calls"), Some("2"), "the same instance as before");
}

#[test]
fn audit_mode_counts_and_changes_nothing() {
    let host = host();
    let chain = Chain::new(vec![hostile(&host, |spec| spec.mode = FilterMode::Audit)]);
    let mut worker = Worker::new(&host);
    for (stream, what) in [(1, "teapot"), (2, "delay"), (3, "calls"), (4, "trap")] {
        let head = ask(&mut worker, &chain, stream, Head::told(what)).expect("it goes on");
        assert_eq!(head.headers.len(), 1);
    }
    let stats = stats(&host);
    assert_eq!((stats.audited.value(), stats.failed_open.value(), stats.replies.value()), (3, 1, 0));
}

#[test]
fn the_log_is_rate_limited() {
    let (host, mut worker, chain) = setup(OnFailure::Deny);
    ask(&mut worker, &chain, 1, Head::told("log")).expect("fine");
    let dropped = stats(&host).log_lines_dropped.value();
    assert!((900..1_000).contains(&dropped), "{dropped} of 1,000 lines");
}

#[test]
fn a_swapped_filter_serves_until_it_is_dropped() {
    let host = host();
    let old = Chain::new(vec![hostile(&host, |spec| spec.version = "1".to_owned())]);
    let mut worker = Worker::new(&host);
    ask(&mut worker, &old, 1, Head::told("calls")).expect("fine");
    let new = Chain::new(vec![hostile(&host, |spec| spec.version = "2".to_owned())]);
    assert_eq!(ask(&mut worker, &new, 2, Head::told("calls")).expect("fine").header("x-calls"), Some("1"));
    assert_eq!(ask(&mut worker, &old, 3, Head::told("calls")).expect("fine").header("x-calls"), Some("2"));
    assert_eq!(ask(&mut worker, &old, 4, Head::told("teapot")).expect_err("an answer").version.as_ref(), "1");
    assert_eq!(ask(&mut worker, &new, 5, Head::told("teapot")).expect_err("an answer").version.as_ref(), "2");
    assert_eq!(host.stats().pop().expect("one attachment").version, "2", "the newest one");
    let stats = stats(&host);
    assert_eq!(stats.instances.value(), 2);
    drop(old);
    worker.retire();
    assert_eq!(stats.instances.value(), 1, "the old instance is gone");
    assert_eq!(ask(&mut worker, &new, 6, Head::told("calls")).expect("fine").header("x-calls"), Some("3"));
}

#[test]
fn response_heads_are_edited_and_replaced() {
    let (_, mut worker, chain) = setup(OnFailure::Deny);
    let mut respond = |stream, what: &'static str| {
        ask(&mut worker, &chain, stream, Head::get("/")).expect("fine");
        let mut headers =
            HeaderMap::from_iter([(http::HeaderName::from_static("x-do"), HeaderValue::from_static(what))]);
        match respond(&mut worker, &chain, stream, &mut headers) {
            Outcome::Permitted(()) => "permitted".to_owned(),
            Outcome::Respond(reply) => format!("{} {}", reply.status.as_u16(), reply.reason),
            outcome @ (Outcome::Delay { .. } | Outcome::Body { .. } | Outcome::Wait { .. } | Outcome::Reset(_)) => {
                panic!("{outcome:?}")
            }
        }
    };
    assert_eq!(respond(1, "nothing"), "permitted");
    assert_eq!(respond(2, "replace"), "599 replaced");
    assert_eq!(respond(3, "path"), "503 filter_result_invalid", "a response has no path");
    assert_eq!(respond(4, "trap"), "503 filter_trapped");
}

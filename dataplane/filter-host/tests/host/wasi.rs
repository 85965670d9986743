//! WASI under a component: what works with a grant, what is empty or fails for all, and that nothing of it waits.

use std::sync::Arc;

use weft_filter_host::{Chain, FilterStats, Host, PrepareError, Prepared, Worker};

use crate::support::{Head, ask, host, refused, spec, wasm};

fn prepare(host: &Host, mode: &str, is_granted: bool) -> Result<Arc<Prepared>, PrepareError> {
    let wasm = wasm("hostile2");
    let mut spec = spec("hostile2", &wasm, &format!(r#"{{"mode": "{mode}"}}"#));
    spec.capabilities = is_granted.then(|| "wasi".to_owned()).into_iter().collect();
    host.prepare(&spec, &wasm)
}

/// A worker of a filter that does as requests tell it.
fn told(host: &Host, is_granted: bool) -> (Chain, Worker, Arc<FilterStats>) {
    let chain = Chain::new(vec![prepare(host, "told", is_granted).expect("WASI that is not called needs no grant")]);
    (chain, Worker::new(host), host.stats().pop().expect("one filter").stats)
}

const EXPECT: &str = "variables: 0
arguments: 0
folder: None
folders: 0
terminal: false
input: true
room: Some(4096)
output: true
flushed: true
clock: true
year: true
polled: [1]
ready: (true, false)
random: (true, 32)
seed: true
lookup: Some(\"access-denied\")
socket: Some(\"access-denied\")
";

#[test]
fn clocks_randomness_and_output_work_and_all_else_is_empty_or_fails() {
    let host = host();
    let (chain, mut worker, stats) = told(&host, true);
    for stream in 1..=300 {
        let reply = ask(&mut worker, &chain, stream, Head::told("wasi")).expect_err("an answer");
        assert_eq!(String::from_utf8_lossy(&reply.body), EXPECT, "{}", reply.reason);
    }
    assert_eq!((stats.denied_calls.value(), stats.traps.value()), (0, 0), "handles come back");
    let dropped = stats.log_lines_dropped.value();
    ask(&mut worker, &chain, 301, Head::told("wasi-lines")).expect("it goes on");
    let dropped = stats.log_lines_dropped.value() - dropped;
    assert!((900..=1_001).contains(&dropped), "output is the log's, and has its rate: {dropped} of 1,000 lines");
}

#[test]
fn without_a_grant_the_call_ends_and_is_counted() {
    let host = host();
    let (chain, mut worker, stats) = told(&host, false);
    assert_eq!(refused(ask(&mut worker, &chain, 1, Head::told("wasi"))), "filter_trapped");
    assert_eq!(stats.denied_calls.value(), 1);
    ask(&mut worker, &chain, 2, Head::told("wasi-lines")).expect("output needs no grant");
}

#[test]
fn what_has_no_error_traps_and_says_why() {
    let host = host();
    // Holds the compiled component.
    let _kept = prepare(&host, "wasi-quiet", false).expect("nothing of it needs a grant");
    for (mode, is_granted, expect) in [
        ("wasi-clock", false, "the clock of WASI needs the capability \"wasi\""),
        ("wasi-random", false, "randomness of WASI needs the capability \"wasi\""),
        ("wasi-random-much", true, "1048576 random bytes"),
        ("wasi-exit", true, "called exit"),
        ("wasi-block", true, "a filter waits by its verdict"),
        ("wasi-poll", true, "a filter waits by its verdict"),
        ("wasi-hoard", false, "1024 handles"),
    ] {
        let error = prepare(&host, mode, is_granted).expect_err(mode).to_string();
        assert!(error.contains("filter_trapped (other)") && error.contains(expect), "{mode}: {error}");
    }
    for mode in ["wasi-clock", "wasi-random"] {
        prepare(&host, mode, true).unwrap_or_else(|error| panic!("{mode}: {error}"));
    }
}

//! Contract 0.2 end to end: what a component asks for, says and does wrong, and that it costs its own request alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use weft_filter_host::{Chain, FilterSpec, Host, HostConfig, Outcome, PrepareError, Prepared, TrapKind, Worker};

use crate::support::{CALLER, Head, ask, host, refused, respond, spec, wasm};

fn prepare(host: &Host, config: &str, change: impl FnOnce(&mut FilterSpec)) -> Result<Arc<Prepared>, PrepareError> {
    let wasm = wasm("hostile2");
    let mut spec = spec("hostile2", &wasm, config);
    change(&mut spec);
    host.prepare(&spec, &wasm)
}

/// The component with another text in each place of one that is as long: names in a binary have their length before them.
fn renamed(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = wasm("hostile2");
    let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(from.as_bytes())).collect();
    assert!(!places.is_empty(), "{from} is not in it");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

/// The component as one built against a later patch of the contract.
fn of_patch(patch: u8) -> Vec<u8> {
    const START: &[u8] = b"weft:filter/";
    const VERSION: &[u8] = b"@0.2.0";
    let mut bytes = wasm("hostile2");
    let starts: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(START)).collect();
    assert!(!starts.is_empty());
    for start in starts {
        let name = start + START.len();
        let length = bytes[name..].iter().take_while(|byte| byte.is_ascii_lowercase() || **byte == b'-').count();
        let version = name + length;
        if bytes[version..].starts_with(VERSION) {
            bytes[version + VERSION.len() - 1] = patch;
        }
    }
    bytes
}

fn chain(host: &Host, config: &str) -> Chain {
    Chain::new(vec![prepare(host, config, |_| ()).unwrap_or_else(|error| panic!("{config}: {error}"))])
}

const TOLD: &str = r#"{"mode": "told"}"#;

#[test]
fn what_goes_wrong_costs_its_own_request() {
    let host = host();
    let (chain, mut worker) = (chain(&host, TOLD), Worker::new(&host));
    let traps = ["trap-panic", "trap-index", "trap-overflow", "trap-unreachable", "memory", "stack"];
    let results = [
        "pseudo",
        "framing",
        "identity",
        "bad-path",
        "split",
        "attribute-bad",
        "request-status",
        "status",
        "flood",
        "edits-65",
        "edit-other",
        "verdict-other",
        "cookie-large",
        "wait-long",
    ];
    let failing = traps.iter().map(|mode| (*mode, "filter_trapped"));
    let failing = failing.chain(results.iter().map(|mode| (*mode, "filter_result_invalid")));
    for (stream, (mode, reason)) in (1_u64..).zip(failing.chain([("loop", "filter_timed_out")])) {
        assert_eq!(refused(ask(&mut worker, &chain, stream, Head::told(mode))), reason, "{mode}");
        ask(&mut worker, &chain, 100 + stream, Head::get("/"))
            .unwrap_or_else(|reply| panic!("after {mode}: {}", reply.reason));
    }
}

#[test]
fn the_state_of_a_stream_survives_the_trap_of_another() {
    let host = host();
    let (chain, mut worker) = (chain(&host, TOLD), Worker::new(&host));
    ask(&mut worker, &chain, 1, Head::told("remember")).expect("fine");
    ask(&mut worker, &chain, 2, Head::get("/")).expect("fine");
    assert_eq!(refused(ask(&mut worker, &chain, 3, Head::told("trap-panic"))), "filter_trapped");
    for (stream, expect) in [(1, "7"), (2, "0")] {
        let told = (HeaderName::from_static("x-do"), HeaderValue::from_static("count"));
        let mut headers = HeaderMap::from_iter([told]);
        assert!(matches!(respond(&mut worker, &chain, stream, &mut headers), Outcome::Permitted(())), "{stream}");
        assert_eq!(headers["x-chunks"], expect, "stream {stream}");
    }
}

#[test]
fn a_filter_is_told_what_it_asked_for() {
    let host = host();
    let (chain, mut worker) = (chain(&host, TOLD), Worker::new(&host));
    let head = ask(&mut worker, &chain, 1, Head::get("/a?b=c").with("x-do", "shown")).expect("fine");
    let expect = format!(
        r#"Some("GET") Some("/a") Some("b=c") Some("app.test:80") Some("{CALLER}") Some("127.0.0.1") Some("80") Some("inbound")"#
    );
    assert_eq!(head.header("x-shown"), Some(expect.as_str()));
}

#[test]
fn attributes_are_told_to_the_filters_behind() {
    let host = host();
    let named = |name: &str, config: &str| {
        prepare(&host, config, |spec| spec.name = name.to_owned()).unwrap_or_else(|error| panic!("{config}: {error}"))
    };
    let set = named("set", r#"{"mode": "attribute", "value": "by the first"}"#);
    let read = named("read", r#"{"mode": "attribute-read"}"#);
    let mut worker = Worker::new(&host);
    for (stream, filters, expect) in [(1, [set.clone(), read.clone()], "by the first"), (2, [read, set], "none")] {
        let head = ask(&mut worker, &Chain::new(filters.to_vec()), stream, Head::get("/")).expect("fine");
        assert_eq!(head.header("x-attribute"), Some(expect));
    }
}

#[test]
fn what_is_not_granted_says_so_at_each_call() {
    let host = host();
    let filter = prepare(&host, r#"{"mode": "denied"}"#, |spec| spec.capabilities.clear()).expect("it is loaded");
    let reply = ask(&mut Worker::new(&host), &Chain::new(vec![filter]), 1, Head::get("/")).expect_err("an answer");
    let said = String::from_utf8_lossy(&reply.body).into_owned();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 5, "{said}");
    assert!(lines.iter().all(|line| line.contains("does not grant")), "{said}");
}

#[test]
fn what_can_not_be_asked_for_is_refused() {
    let host = host();
    for (config, word) in [
        (r#"{"mode": "ask-unknown"}"#, "request.colour"),
        (r#"{"mode": "ask-many"}"#, "64"),
        (r#"{"mode": "refuse"}"#, "this configuration is refused"),
        (r#"{"mode": "configure-trap"}"#, "failed while it was configured"),
        (r#"{"mode": "configure-loop"}"#, "failed while it was configured"),
        (r#"{"mood": "pass"}"#, "mood"),
    ] {
        let error = prepare(&host, config, |_| ()).expect_err(config).to_string();
        assert!(error.contains(word), "{config}: {error}");
    }
    for config in [r#"{"mode": "ask-optional"}"#, r#"{"mode": "all"}"#, r#"{"mode": "metric-bomb"}"#] {
        let (chain, mut worker) = (chain(&host, config), Worker::new(&host));
        ask(&mut worker, &chain, 1, Head::get("/")).unwrap_or_else(|reply| panic!("{config}: {}", reply.reason));
    }
}

/// The contract grows by patches. What such a component has in common with this release works as ever.
#[test]
fn a_component_of_a_later_patch_runs_where_it_needs_nothing_new() {
    let host = host();
    for patch in [b'1', b'7'] {
        let wasm = of_patch(patch);
        let filter = host.prepare(&spec("hostile2", &wasm, TOLD), &wasm);
        let chain = Chain::new(vec![filter.unwrap_or_else(|error| panic!("0.2.{}: {error}", char::from(patch)))]);
        let mut worker = Worker::new(&host);
        ask(&mut worker, &chain, 1, Head::told("remember")).expect("fine");
        let told = (HeaderName::from_static("x-do"), HeaderValue::from_static("count"));
        let mut headers = HeaderMap::from_iter([told]);
        assert!(matches!(respond(&mut worker, &chain, 1, &mut headers), Outcome::Permitted(())));
        assert_eq!(headers["x-chunks"], "7", "both hooks, and what is kept between them");
        // What a later release adds to a verdict comes as its last case, and is refused by name.
        assert_eq!(refused(ask(&mut worker, &chain, 2, Head::told("verdict-other"))), "filter_result_invalid");
    }
}

/// Where it needs what this release has not, it is refused before it runs, with the name.
#[test]
fn a_component_that_needs_something_new_is_refused_by_name() {
    let host = host();
    for (from, to, word) in [
        ("weft:filter/crypto@", "weft:filter/crypta@", "weft:filter/crypta@0.2.0"),
        ("weft:filter/tick@", "weft:filter/tock@", "weft:filter/tock@0.2.0"),
        ("timeout-ms", "timeout-us", "timeout-"),
    ] {
        let wasm = renamed(from, to);
        let error = host.prepare(&spec("hostile2", &wasm, TOLD), &wasm).expect_err(to);
        assert!(matches!(error, PrepareError::WrongWorld { .. }), "{to}: {error}");
        assert!(error.to_string().contains(word), "{to}: {error}");
    }
}

/// How it trapped is told from the component's call to the counters.
#[test]
fn traps_are_counted_by_their_kind() {
    let host = host();
    let (chain, mut worker) = (chain(&host, TOLD), Worker::new(&host));
    let modes = ["trap-panic", "trap-index", "trap-overflow", "trap-unreachable", "stack", "memory"];
    for (stream, mode) in (1..).zip(modes) {
        assert_eq!(refused(ask(&mut worker, &chain, stream, Head::told(mode))), "filter_trapped", "{mode}");
    }
    let stats = host.stats().pop().expect("one filter").stats;
    let told: Vec<_> = TrapKind::ALL.map(|kind| (kind.as_str(), stats.traps_of(kind))).to_vec();
    let expect = [
        ("unreachable", 4),
        // The stack that the compiler keeps in memory ends before the engine's.
        ("stack_overflow", 0),
        ("out_of_bounds", 1),
        ("memory", 1),
        ("arithmetic", 0),
        ("malformed", 0),
        ("other", 0),
    ];
    assert_eq!(told, expect);
}

/// The code is the control plane's; what it acts for is each policy's own.
#[test]
fn what_ships_is_shared_by_all_namespaces_and_acts_for_each() {
    for shipped in [true, false] {
        let host = host();
        let of = |namespace: &str| {
            let config = format!(r#"{{"mode": "marker", "value": "{namespace}"}}"#);
            let filter = prepare(&host, &config, |spec| {
                (spec.name, spec.scope, spec.shipped) = (format!("{namespace}/p"), namespace.to_owned(), shipped);
            });
            Chain::new(vec![filter.unwrap_or_else(|error| panic!("{namespace}: {error}"))])
        };
        let (chains, mut worker) = (["a", "b"].map(|namespace| (namespace, of(namespace))), Worker::new(&host));
        for (stream, (namespace, chain)) in (1..).zip(chains.iter().cycle().take(6)) {
            let head = ask(&mut worker, chain, stream, Head::get("/")).expect("fine");
            assert_eq!(head.header("x-marker"), Some(*namespace));
        }
        let stats = host.stats();
        let [a, b] = &stats[..] else { panic!("two filters") };
        assert_eq!(Arc::ptr_eq(&a.program, &b.program), shipped);
        assert_eq!((a.stats.calls(), b.stats.calls()), (3, 3), "each counts its own");
    }
}

#[test]
fn what_traps_is_replaced_by_what_waits_and_leaves_nothing() {
    let host = Host::new(HostConfig { max_instances: 4, ..HostConfig::default() }).expect("a host");
    let (chain, mut worker) = (chain(&host, TOLD), Worker::new(&host));
    let spare = || {
        let start = Instant::now();
        while host.spare_instances() == 0 {
            assert!(start.elapsed() < Duration::from_secs(30), "no spare instance");
            std::thread::yield_now();
        }
    };
    for stream in 0..100 {
        spare();
        assert_eq!(refused(ask(&mut worker, &chain, stream, Head::told("trap-unreachable"))), "filter_trapped");
    }
    spare();
    ask(&mut worker, &chain, 100, Head::get("/")).expect("fine");
    spare();
    let filter = host.stats().pop().expect("one filter");
    assert_eq!((filter.stats.traps.value(), filter.stats.configured_inline.value()), (100, 0));
    assert_eq!(filter.program.instances.value(), 2, "the worker's, and the one that waits");
    assert!(filter.program.memory_bytes.value() < 8 << 20, "{} bytes", filter.program.memory_bytes.value());
}

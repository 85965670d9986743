//! Faults: which requests are struck, and with what.

use weft_filters_sdk::Verdict;
use weft_filters_sdk::testing::{Harness, TestRequest, metric};

use super::Fault;

/// `pass`, `after MS`, `abort STATUS`, `abort STATUS after MS`.
fn check(config: &str, request: &TestRequest, expect: &str) {
    let mut fault = Harness::<Fault>::new(config).expect("a sound configuration");
    let found = match fault.request(1, request).verdict {
        Verdict::Continue => "pass".to_owned(),
        Verdict::ContinueAfter(ms) => format!("after {ms}"),
        Verdict::Respond(reply) if reply.after_ms == 0 => format!("abort {}", reply.status),
        Verdict::Respond(reply) => format!("abort {} after {}", reply.status, reply.after_ms),
        Verdict::Wait(_) | Verdict::Reset(_) | Verdict::Close(_) | Verdict::Other(_) => "something else".to_owned(),
    };
    assert_eq!(found, expect, "{config}");
}

fn dice(low: u32, high: u32) -> TestRequest {
    TestRequest::default().dice(u64::from(high) << 32 | u64::from(low))
}

#[test]
fn percentages_are_exact_at_their_edges() {
    let half = 1_u32 << 31;
    let config = r#"{"abort": {"status": 503, "percentage": 50}, "delay": {"ms": 7, "percentage": 50}}"#;
    check(config, &dice(half - 1, half - 1), "abort 503 after 7");
    check(config, &dice(half, half - 1), "abort 503");
    check(config, &dice(half - 1, half), "after 7");
    check(config, &dice(half, half), "pass");
    check(r#"{"abort": {"status": 500}}"#, &dice(0, u32::MAX), "abort 500");
    check(r#"{"abort": {"status": 500, "percentage": 0}}"#, &dice(0, 0), "pass");
}

#[test]
fn headers_choose_the_victims() {
    let config = r#"{"delay": {"ms": 5, "headers": [{"name": "X-Chaos", "exact": "yes"}, {"name": "x-user"}]}}"#;
    let victim = TestRequest::default().header("x-chaos", "no").header("x-chaos", "yes").header("x-user", "");
    check(config, &victim, "after 5");
    check(config, &TestRequest::default().header("x-chaos", "yes"), "pass");
    check(config, &TestRequest::default().header("x-chaos", "maybe").header("x-user", "u"), "pass");
}

#[test]
fn faults_are_counted() {
    let mut fault = Harness::<Fault>::new(r#"{"delay": {"ms": 5}}"#).expect("a sound configuration");
    fault.request(1, &TestRequest::default());
    assert_eq!(metric("faults_delayed_total"), Some(1.0));
    assert_eq!(metric("faults_aborted_total"), Some(0.0));
}

#[test]
fn a_bad_configuration_says_where() {
    for (config, word) in [
        ("{}", "neither"),
        (r#"{"abort": {"status": 100}}"#, "abort.status"),
        (r#"{"abort": {"status": 503, "percentage": 101}}"#, "abort.percentage"),
        (r#"{"delay": {"ms": 300001}}"#, "delay.ms"),
        (r#"{"delay": {"seconds": 1}}"#, "seconds"),
    ] {
        let error = Harness::<Fault>::new(config).expect_err("not a configuration");
        assert!(error.contains(word), "{error}");
    }
}

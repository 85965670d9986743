//! Faults: which requests are struck, and with what.

use weft_filters_sdk::Verdict;
use weft_filters_sdk::testing::{Harness, TestRequest, metric};

use super::Fault;

/// `pass`, `after MS`, `abort STATUS`, `abort STATUS after MS`, `abort grpc CODE`, `reset`, `reset after MS`.
fn found(fault: &mut Harness<Fault>, request: &TestRequest) -> String {
    match fault.request(1, request).verdict {
        Verdict::Continue => "pass".to_owned(),
        Verdict::ContinueAfter(ms) => format!("after {ms}"),
        Verdict::Respond(reply) => {
            let named = reply.headers.iter().find(|field| field.name == "grpc-status");
            let what = named.map_or_else(
                || reply.status.to_string(),
                |field| format!("grpc {} as {}", String::from_utf8_lossy(&field.value), reply.status),
            );
            if reply.after_ms == 0 { format!("abort {what}") } else { format!("abort {what} after {}", reply.after_ms) }
        }
        Verdict::Reset(reason) => format!("reset {reason}"),
        Verdict::Wait(ms) => match fault.tick(1).verdict {
            Verdict::Reset(reason) => format!("reset {reason} after {ms}"),
            Verdict::Continue
            | Verdict::ContinueAfter(_)
            | Verdict::Respond(_)
            | Verdict::Wait(_)
            | Verdict::Close(_)
            | Verdict::Other(_) => "something else".to_owned(),
        },
        Verdict::Close(_) | Verdict::Other(_) => "something else".to_owned(),
    }
}

fn check(config: &str, request: &TestRequest, expect: &str) {
    let mut fault = Harness::<Fault>::new(config).expect("a sound configuration");
    assert_eq!(found(&mut fault, request), expect, "{config}");
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
fn identities_choose_the_victims() {
    let config = r#"{"abort": {"status": 503, "identities": ["spiffe://a/ns/load/*", "spiffe://a/ns/shop/sa/web"]}}"#;
    let from = |principal| TestRequest::default().principal(principal);
    check(config, &from("spiffe://a/ns/load/sa/any"), "abort 503");
    check(config, &from("spiffe://a/ns/shop/sa/web"), "abort 503");
    check(config, &from("spiffe://a/ns/shop/sa/web-2"), "pass");
    check(config, &TestRequest::default(), "pass");
}

#[test]
fn streams_are_reset_at_once_or_behind_a_delay() {
    check(r#"{"abort": {"reset": true}}"#, &TestRequest::default(), "reset fault_abort");
    check(r#"{"abort": {"reset": true}, "delay": {"ms": 9}}"#, &TestRequest::default(), "reset fault_abort after 9");
}

#[test]
fn calls_fail_with_a_status_of_grpc_and_other_requests_do_not() {
    let config = r#"{"abort": {"grpc_status": 14}, "delay": {"ms": 7, "percentage": 0}}"#;
    let of = |kind| TestRequest::default().header("content-type", kind);
    check(config, &of("application/grpc+proto"), "abort grpc 14 as 503");
    check(config, &of("application/json"), "pass");
    check(config, &TestRequest::default(), "pass");
}

#[test]
fn a_request_fares_the_same_at_every_attempt() {
    let config = |seed: &str| {
        let delay = r#"{"exponential": {"mean_ms": 50, "max_ms": 60}, "percentage": 50}"#;
        format!(r#"{{"seed": "{seed}", "delay": {delay}, "abort": {{"status": 503, "percentage": 50}}}}"#)
    };
    let mut fault = Harness::<Fault>::new(&config("a")).expect("a sound configuration");
    let mut other = Harness::<Fault>::new(&config("b")).expect("a sound configuration");
    let (mut seen, mut differing) = (std::collections::BTreeSet::new(), 0);
    for number in 0..64 {
        let request = |dice| TestRequest::default().value("request.id", &format!("id-{number}")).dice(dice);
        let first = found(&mut fault, &request(0));
        assert_eq!(found(&mut fault, &request(u64::MAX)), first, "whatever the dice");
        differing += u32::from(found(&mut other, &request(0)) != first);
        let words = first.split(' ').filter(|word| word.parse::<u32>().is_ok_and(|ms| ms <= 60)).count();
        let word = first.split(' ').next().expect("a word");
        seen.insert(word.to_owned() + if words > 0 { " delayed" } else { "" });
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["abort", "abort delayed", "after delayed", "pass"]);
    assert!(differing > 16, "{differing} of 64");
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
        (r#"{"delay": {}}"#, "delay: exactly one"),
        (r#"{"delay": {"exponential": {"mean_ms": 5, "max_ms": 4}}}"#, "delay.exponential.max_ms"),
        (r#"{"abort": {"grpc_status": 0}}"#, "abort.grpc_status"),
        (r#"{"abort": {"status": 503, "reset": true}}"#, "abort: exactly one"),
        (r#"{"delay": {"seconds": 1}}"#, "seconds"),
    ] {
        let error = Harness::<Fault>::new(config).expect_err("not a configuration");
        assert!(error.contains(word), "{error}");
    }
}

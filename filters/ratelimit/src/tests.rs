//! Limits: which caller pays which, and what the answer says. The host's tests check exactness across workers.

use std::time::Duration;

use weft_filters_sdk::testing::{Grants, Harness, TestRequest, TestResponse, advance};
use weft_filters_sdk::{Edit, Outcome, Verdict};

use super::RateLimit;

fn harness(limits: &str) -> Harness<RateLimit> {
    configured(&format!(r#"{{"limits": [{limits}]}}"#)).expect("a sound configuration")
}

fn configured(config: &str) -> Result<Harness<RateLimit>, String> {
    Harness::granted(config, Grants::default().token_bucket())
}

/// `pass`, or the limit and the seconds to wait.
fn ask(harness: &mut Harness<RateLimit>, request: &TestRequest) -> String {
    match harness.request(1, request).verdict {
        Verdict::Continue => "pass".to_owned(),
        Verdict::ContinueAfter(_) | Verdict::Wait(_) | Verdict::Reset(_) | Verdict::Close(_) | Verdict::Other(_) => {
            "something else".to_owned()
        }
        Verdict::Respond(reply) => {
            assert_eq!((reply.status, reply.reason.as_str()), (429, "rate_limited"));
            let retry = reply.headers.iter().find(|field| field.name == "retry-after").expect("retry-after");
            format!("{} {}", reply.rule.expect("named"), String::from_utf8_lossy(&retry.value))
        }
    }
}

#[test]
fn each_identity_has_its_own_bucket() {
    let mut limits = harness(r#"{"name": "callers", "key": "identity", "requests": 2, "per_seconds": 10}"#);
    let (a, b) = (TestRequest::default().principal("spiffe://a"), TestRequest::default().principal("spiffe://b"));
    assert_eq!([ask(&mut limits, &a), ask(&mut limits, &a)], ["pass", "pass"]);
    assert_eq!(ask(&mut limits, &a), "callers 5");
    assert_eq!(ask(&mut limits, &b), "pass");
    advance(Duration::from_secs(5));
    assert_eq!(ask(&mut limits, &a), "pass");
    assert_eq!(ask(&mut limits, &a), "callers 5");
}

#[test]
fn requests_without_the_header_of_a_limit_share_a_bucket() {
    let mut limits = harness(r#"{"key": "header:X-Key", "requests": 1}"#);
    let key = |value| TestRequest::default().header("x-key", value);
    assert_eq!([ask(&mut limits, &key("1")), ask(&mut limits, &key("2"))], ["pass", "pass"]);
    assert_eq!(ask(&mut limits, &key("1")), "header:x-key 1");
    assert_eq!(ask(&mut limits, &TestRequest::default()), "pass");
    assert_eq!(ask(&mut limits, &TestRequest::default()), "header:x-key 1");
    assert_eq!(ask(&mut limits, &key("")), "header:x-key 1", "an empty value is no further bucket");
}

#[test]
fn parts_of_the_path_have_buckets_and_other_paths_none() {
    let mut limits = harness(r#"{"key": "path:/users/{id}/*", "requests": 1, "per_seconds": 60}, {"requests": 5}"#);
    let get = |path| TestRequest::new("GET", path);
    assert_eq!([ask(&mut limits, &get("/users/7/a")), ask(&mut limits, &get("/users/8"))], ["pass", "pass"]);
    assert_eq!(ask(&mut limits, &get("/users/7/b?x=1")), "path:/users/{id}/* 60");
    assert_eq!(ask(&mut limits, &get("/users/%37")), "path:/users/{id}/* 60", "however it is spelt");
    for _ in 0..3 {
        assert_eq!(ask(&mut limits, &get("/orders/7")), "pass");
    }
    assert_eq!(ask(&mut limits, &get("/orders/7")), "none 1", "the limit for all counts every path");
}

#[test]
fn a_path_that_may_be_read_past_a_limit_is_refused() {
    let mut limits = harness(r#"{"key": "path:/users/{id}/*", "requests": 1, "per_seconds": 60}, {"requests": 5}"#);
    let mut check = |path: &str, readings: &str, is_refused: bool| {
        let request = TestRequest::new("GET", path).value("request.path.readings", readings);
        let verdict = limits.request(1, &request).verdict;
        let reason = if let Verdict::Respond(reply) = &verdict { &reply.reason } else { "" };
        assert_eq!(reason == "ambiguous_path", is_refused, "{path} {verdict:?}");
    };
    check("//users/1/a", "//users/1/a\n/users/1/a", true);
    check("/users/1;x/a", "/users/1;x/a\n/users/1/a", true);
    check("/x/..%2Fusers", "/x/..%2Fusers\n/users", false);
    check("/users/1/a;b", "/users/1/a;b\n/users/1/a", false);
    check("/a", "", true);
    let mut others = harness(r#"{"requests": 9}"#);
    let request = TestRequest::new("GET", "//users").value("request.path.readings", "");
    assert_eq!(ask(&mut others, &request), "pass", "a limit of all requests looks at no path");
}

#[test]
fn a_request_that_is_refused_pays_no_limit() {
    let mut limits = harness(
        r#"{"name": "each", "key": "identity", "requests": 2, "per_seconds": 3600},
           {"name": "all", "requests": 1, "per_seconds": 1}"#,
    );
    let one = TestRequest::default().principal("spiffe://one");
    assert_eq!(ask(&mut limits, &one), "pass");
    for _ in 0..5 {
        assert_eq!(ask(&mut limits, &one), "all 1");
    }
    advance(Duration::from_secs(1));
    assert_eq!(ask(&mut limits, &one), "pass", "the five refused ones took nothing of its two");
    advance(Duration::from_secs(1));
    assert_eq!(ask(&mut limits, &one), "each 1798");
}

#[test]
fn limits_without_names_are_called_by_their_keys() {
    let mut limits =
        harness(r#"{"requests": 9}, {"key": "identity", "requests": 5}, {"key": "identity", "requests": 1}"#);
    let one = TestRequest::default().principal("spiffe://one");
    assert_eq!(ask(&mut limits, &one), "pass");
    assert_eq!(ask(&mut limits, &one), "identity#2 1");
}

#[test]
fn limits_stack_and_burst_differs_from_rate() {
    let mut limits = harness(
        r#"{"name": "each", "key": "identity", "requests": 1, "per_seconds": 60, "burst": 3},
           {"name": "all", "requests": 2, "per_seconds": 1}"#,
    );
    let one = TestRequest::default().principal("spiffe://one");
    assert_eq!([ask(&mut limits, &one), ask(&mut limits, &one)], ["pass", "pass"]);
    assert_eq!(ask(&mut limits, &one), "all 1");
    advance(Duration::from_secs(1));
    assert_eq!([ask(&mut limits, &one), ask(&mut limits, &one)], ["pass", "each 59"]);
}

#[test]
fn answers_say_how_the_tightest_limit_stands() {
    let config = r#"{"headers": true, "limits": [
        {"name": "each", "key": "identity", "requests": 5, "per_seconds": 50},
        {"name": "all", "requests": 3, "per_seconds": 3}]}"#;
    let mut limits = configured(config).expect("a sound configuration");
    let one = TestRequest::default().principal("spiffe://one");
    for expect in ["3 2 1", "3 1 2", "3 0 3"] {
        assert_eq!(ask(&mut limits, &one), "pass");
        assert_eq!(told(&limits.response(1, &TestResponse::new(200))), expect);
    }
    let Verdict::Respond(reply) = limits.request(2, &one).verdict else { panic!("a fourth") };
    let told: Vec<_> = reply.headers.iter().skip(1).map(|field| String::from_utf8_lossy(&field.value)).collect();
    assert_eq!(told, ["1", "3", "0", "1"]);
    let mut silent = harness(r#"{"requests": 1}"#);
    assert_eq!(ask(&mut silent, &one), "pass");
    assert_eq!(silent.hooks(), ["request-head"]);
    assert_eq!(self::told(&silent.response(1, &TestResponse::new(200))), "");
}

/// The values that were set, in order.
fn told(outcome: &Outcome) -> String {
    let value = |edit: &Edit| match edit {
        Edit::Set(field) => String::from_utf8_lossy(&field.value).into_owned(),
        Edit::Add(_) | Edit::Remove(_) | Edit::Path(_) | Edit::Authority(_) | Edit::Status(_) => "another".to_owned(),
        Edit::Body(_) | Edit::Attribute(_) | Edit::Other(_) => "another".to_owned(),
    };
    outcome.edits.iter().map(value).collect::<Vec<_>>().join(" ")
}

#[test]
fn without_the_capability_it_is_refused() {
    let error = Harness::<RateLimit>::new(r#"{"limits": [{"requests": 1}]}"#).expect_err("not granted");
    assert!(error.contains("token-bucket"), "{error}");
}

#[test]
fn a_bad_configuration_says_where() {
    for (config, word) in [
        (r#"{"limits": []}"#, "at least one"),
        (r#"{"limits": [{"requests": 0}]}"#, "limits[0]"),
        (r#"{"limits": [{"requests": 1, "key": "cookie"}]}"#, "cookie"),
        (r#"{"limits": [{"requests": 1, "key": "header:"}]}"#, "header:"),
        (r#"{"limits": [{"requests": 1, "key": "path:/a*"}]}"#, "path: "),
        (r#"{"limits": [{"request": 1}]}"#, "request"),
        (r#"{"limits": [{"requests": 1, "name": "a"}, {"requests": 2, "name": "a"}]}"#, "limits[1].name"),
    ] {
        let error = configured(config).expect_err("not a configuration");
        assert!(error.contains(word), "{error}");
    }
}

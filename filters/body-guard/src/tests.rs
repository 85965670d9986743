//! Bodies: which pass, and what the others are told.

mod schema;

use weft_filters_sdk::testing::{Harness, TestRequest, labelled_metric};
use weft_filters_sdk::{Outcome, Verdict};

use super::{BodyGuard, json};

fn guard(config: &str) -> Harness<BodyGuard> {
    Harness::new(config).expect("a sound configuration")
}

/// `pass`, or status, reason and the answer's words.
fn told(outcome: Outcome) -> String {
    match outcome.verdict {
        Verdict::Continue => "pass".to_owned(),
        Verdict::Respond(reply) => {
            let words = String::from_utf8_lossy(&reply.body).replace("body refused: ", "");
            format!("{} {}: {}", reply.status, reply.reason, words.trim_end())
        }
        Verdict::ContinueAfter(_) | Verdict::Wait(_) | Verdict::Reset(_) | Verdict::Close(_) | Verdict::Other(_) => {
            "something else".to_owned()
        }
    }
}

fn ask(guard: &mut Harness<BodyGuard>, request: &TestRequest, body: &str) -> String {
    guard.request(1, request);
    told(guard.request_body(1, body.as_bytes(), true))
}

fn post() -> TestRequest {
    TestRequest::new("POST", "/").header("content-type", "application/json")
}

#[test]
fn json_is_judged_within_its_bounds() {
    let config = r#"{"json": {"max_depth": 3, "max_keys": 4, "required": ["user.name", "id"]}}"#;
    let mut guard = guard(config);
    for (body, expect) in [
        (r#"{"id": 1, "user": {"name": "ada"}}"#, "pass"),
        (r#"{"id": null, "user": {"name": {"a": []}}}"#, "400 body_refused: more than 3 levels at line 1 column 38"),
        (r#"{"id": 1, "user": {"nam": "ada"}}"#, "400 body_refused: the field user.name is missing"),
        (r#"{"id": 1, "user": [{"name": "ada"}]}"#, "400 body_refused: the field user.name is missing"),
        (r#"{"name": 1, "user": {"id": "ada"}}"#, "400 body_refused: the field user.name is missing"),
        ("[1, 2]", "400 body_refused: the field user.name is missing"),
        ("", "400 body_refused: EOF while parsing a value at line 1 column 0"),
    ] {
        let found = ask(&mut guard, &post(), body);
        let (found, expect) = (found.split(" at line").next(), expect.split(" at line").next());
        assert_eq!(found, expect, "{body}");
    }
    for (body, word) in [
        (r#"{"id": 1, "user": {"name": "a", "b": 1, "c": 2}}"#, "too many keys"),
        (r#"{"id": 1, "id": 2, "user": {"name": "a"}}"#, "twice"),
        (r#"{"id": 1, "user": {"name": "a"}"#, "EOF"),
        (r#"{"id": 1, "user": {"name": "a"}} x"#, "trailing"),
    ] {
        let found = ask(&mut guard, &post(), body);
        assert!(found.starts_with("400 body_refused") && found.contains(word), "{body}: {found}");
    }
    assert_eq!(labelled_metric("bodies_refused_total", &["body_refused"]), Some(10.0));
}

#[test]
fn the_walk_takes_what_is_json_and_nothing_else() {
    let bounds = json::Bounds { depth: 100, duplicates: true, ..json::Bounds::default() };
    for body in [
        "1",
        "-1",
        "1.5e9",
        "18446744073709551616",
        "true",
        "null",
        r#""a""#,
        r#""\u00e9\n""#,
        "[]",
        "{}",
        "[1,]",
        "{,}",
        "01",
        r#"{"a":1,"a":2}"#,
        "nul",
        "[1 2]",
        r#"{"a" 1}"#,
        "\u{feff}1",
        "  [ { } ]  ",
        r#""\ud800""#,
        "'a'",
        "NaN",
    ] {
        assert_eq!(json::judge(body.as_bytes(), &bounds).is_ok(), json::is_json(body.as_bytes()), "{body}");
    }
    let deep = "[".repeat(101) + &"]".repeat(101);
    assert!(json::judge(deep.as_bytes(), &bounds).is_err());
    assert!(json::judge(&deep.as_bytes()[1..201], &bounds).is_ok());
    assert!(json::judge(&[b'"', 0xff, b'"'], &bounds).is_err());
}

#[test]
fn text_may_be_forbidden_and_methods_let_pass() {
    let mut guard = guard(r#"{"forbidden": ["<script", "DROP TABLE"], "methods": ["POST"]}"#);
    assert_eq!(guard.hooks(), ["request-body"]);
    assert_eq!(ask(&mut guard, &post(), "hello <scrip t>"), "pass");
    let refused = "400 body_forbidden: the body has text that is not allowed";
    assert_eq!(ask(&mut guard, &post(), "hello <script>"), refused);
    assert_eq!(ask(&mut guard, &post(), "DROP TABLE"), refused);
    assert_eq!(ask(&mut guard, &TestRequest::new("PUT", "/"), "DROP TABLE"), "pass");
    assert_eq!(ask(&mut guard, &post(), ""), "pass");
}

#[test]
fn the_content_type_may_have_to_say_json() {
    let mut guard = guard(r#"{"json": {"require_content_type": true}}"#);
    let typed = |kind: &str| TestRequest::new("POST", "/").header("content-type", kind);
    for good in ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"] {
        assert_eq!(ask(&mut guard, &typed(good), "{}"), "pass", "{good}");
    }
    for bad in ["text/plain", "application/jsonp", "application/x; a=+json", ""] {
        assert!(ask(&mut guard, &typed(bad), "{}").starts_with("415 body_not_json"), "{bad}");
    }
    let two = typed("application/json").header("content-type", "text/plain");
    assert!(ask(&mut guard, &two, "{}").starts_with("415"));
    assert!(ask(&mut guard, &TestRequest::new("POST", "/"), "{}").starts_with("415"));
    assert_eq!(ask(&mut guard, &TestRequest::default(), ""), "pass", "nothing to judge");
}

#[test]
fn a_bad_configuration_says_where() {
    for (config, word) in [
        ("{}", "neither"),
        (r#"{"json": {}, "max_bytes": 0}"#, "max_bytes"),
        (r#"{"json": {"max_depth": 0}}"#, "json.max_depth"),
        (r#"{"json": {"max_depth": 101}}"#, "json.max_depth"),
        (r#"{"json": {"required": ["a", "b..c"]}}"#, "json.required[1]"),
        (r#"{"forbidden": ["a", ""]}"#, "forbidden[1]"),
        (r#"{"json": {"shema": {}}}"#, "json.shema"),
    ] {
        let error = Harness::<BodyGuard>::new(config).expect_err("not a configuration");
        assert!(error.contains(word), "{config}: {error}");
    }
}

#[test]
fn what_is_encoded_is_not_judged_by_its_encoding() {
    for config in [r#"{"json": {}}"#, r#"{"forbidden": ["drop table"]}"#] {
        let mut guard = guard(config);
        for (coding, expect) in [
            ("gzip", "415 body_encoded: the body must come without a content-encoding"),
            ("identity, br", "415 body_encoded: the body must come without a content-encoding"),
            ("Identity", "pass"),
            ("", "pass"),
        ] {
            let request = post().header("content-encoding", coding);
            assert_eq!(ask(&mut guard, &request, "{}"), expect, "{config} {coding}");
        }
        let twice = post().header("content-encoding", "identity").header("content-encoding", "deflate");
        assert!(ask(&mut guard, &twice, "{}").starts_with("415 body_encoded"));
        assert_eq!(ask(&mut guard, &TestRequest::new("GET", "/").header("content-encoding", "gzip"), ""), "pass");
    }
}

//! The question that a service is asked, and what comes of its answers and of none.

mod grpc;

use weft_filters_sdk::testing::{Grants, Harness, TestRequest, answer, labelled_metric};
use weft_filters_sdk::{Edit, Field, Outcome, Verdict};

use super::ExtAuth;

fn harness(config: &str) -> Harness<ExtAuth> {
    Harness::granted(config, Grants::default().callout("auth")).expect("a sound configuration")
}

/// The edits, or the answer.
fn told(outcome: &Outcome) -> String {
    let line = |edit: &Edit| match edit {
        Edit::Add(field) => format!("{}={}", field.name, String::from_utf8_lossy(&field.value)),
        Edit::Remove(name) => format!("-{name}"),
        Edit::Set(_) | Edit::Path(_) | Edit::Authority(_) | Edit::Status(_) => "another".to_owned(),
        Edit::Body(_) | Edit::Attribute(_) | Edit::Other(_) => "another".to_owned(),
    };
    match &outcome.verdict {
        Verdict::Continue => outcome.edits.iter().map(line).collect::<Vec<_>>().join(" "),
        Verdict::Respond(reply) => {
            let names: Vec<_> = reply.headers.iter().map(|field| field.name.as_str()).collect();
            format!("{} {} [{}]", reply.status, reply.reason, names.join(" "))
        }
        Verdict::Wait(ms) => format!("wait {ms}"),
        Verdict::ContinueAfter(_) | Verdict::Reset(_) | Verdict::Close(_) | Verdict::Other(_) => {
            "something else".to_owned()
        }
    }
}

#[test]
fn the_question_shows_what_was_chosen() {
    let config =
        r#"{"service": "auth", "path_prefix": "/check", "forward": ["cookie"], "identity_header": "x-caller"}"#;
    let mut filter = harness(config);
    let mut request = TestRequest::new("POST", "/orders?all=1").principal("spiffe://a");
    request = request.header("cookie", "a=1").header("cookie", "b=2").header("authorization", "Basic YTpi");
    request.authority = Some("shop.test".to_owned());
    assert_eq!(told(&filter.request(1, &request)), "wait 2000");
    let (_, asked) = &filter.sent()[0];
    let of = (asked.service.as_str(), asked.method.as_str(), asked.path.as_str(), asked.timeout_ms);
    assert_eq!(of, ("auth", "POST", "/check/orders?all=1", 1_000));
    let line = |field: &Field| format!("{}: {}", field.name, String::from_utf8_lossy(&field.value));
    let lines: Vec<_> = asked.headers.iter().map(line).collect();
    let expect = [
        "x-forwarded-method: POST",
        "x-forwarded-uri: /orders?all=1",
        "x-forwarded-host: shop.test",
        "x-caller: spiffe://a",
        "cookie: a=1",
        "cookie: b=2",
    ];
    assert_eq!(lines, expect);
    let mut fixed = harness(r#"{"service": "auth", "method": "GET"}"#);
    fixed.request(1, &TestRequest::new("OPTIONS", "*"));
    assert_eq!((fixed.sent()[0].1.method.as_str(), fixed.sent()[0].1.path.as_str()), ("GET", "/"));
}

#[test]
fn answers_decide_and_their_headers_go_on() {
    let mut filter = harness(r#"{"service": "auth", "allowed_headers": ["x-user", "x-groups"]}"#);
    let mut ask = |status, headers: &[(&str, &str)]| {
        filter.request(1, &TestRequest::default().header("x-user", "forged"));
        let id = filter.sent()[0].0;
        told(&filter.answer(1, id, Ok(answer(status, headers, b"no"))))
    };
    let groups = [("x-groups", "a"), ("X-Groups", "b"), ("x-other", "c")];
    assert_eq!(ask(200, &groups), "-x-user -x-groups x-groups=a x-groups=b", "no x-user but the service's own");
    assert_eq!(ask(204, &[("x-user", "ada")]), "-x-user x-user=ada -x-groups");
    let refusal = [("location", "/login"), ("set-cookie", "a"), ("set-cookie", "b"), ("x-user", "ada")];
    assert_eq!(ask(302, &refusal), "302 extauth_refused [location set-cookie set-cookie]");
    assert_eq!(ask(500, &[]), "500 extauth_refused []");
    assert_eq!(ask(199, &[]), "503 extauth_unavailable [content-type]");
    let counted = |decision| labelled_metric("extauth_decisions_total", &[decision]);
    assert_eq!([counted("allowed"), counted("refused"), counted("unavailable")], [Some(2.0), Some(2.0), Some(1.0)]);
}

/// More than the host takes would be a failure of the filter, which a policy may let pass, the caller's headers and all.
#[test]
fn too_many_headers_let_nothing_pass() {
    let config =
        r#"{"service": "auth", "allowed_headers": ["x-user", "x-groups"], "refused_headers": ["a", "b", "c"]}"#;
    let mut filter = harness(config);
    let mut ask = |status, names: [&str; 3], count: usize| {
        let headers: Vec<(&str, &str)> = names.into_iter().flat_map(|name| vec![(name, "v"); count]).collect();
        filter.request(1, &TestRequest::default().header("x-user", "forged"));
        let id = filter.sent()[0].0;
        filter.answer(1, id, Ok(answer(status, &headers, b"")))
    };
    assert_eq!(ask(200, ["x-user", "x-groups", "x"], 31).edits.len(), 64);
    assert_eq!(told(&ask(200, ["x-user", "x-groups", "x"], 32)), "503 extauth_unavailable [content-type]");
    let Verdict::Respond(reply) = ask(403, ["a", "b", "c"], 32).verdict else { panic!("it is refused") };
    assert_eq!((reply.status, reply.headers.len()), (403, 64));
}

#[test]
fn without_an_answer_nothing_passes() {
    let mut filter = harness(r#"{"service": "auth"}"#);
    filter.request(1, &TestRequest::default());
    let id = filter.sent()[0].0;
    let refused = filter.answer(1, id, Err("no endpoint".to_owned()));
    assert_eq!(told(&refused), "503 extauth_unavailable [content-type]");
    filter.request(2, &TestRequest::default());
    assert_eq!(told(&filter.tick(2)), "503 extauth_unavailable [content-type]");
    let mut denied = Harness::<ExtAuth>::new(r#"{"service": "auth"}"#).expect("a sound configuration");
    assert_eq!(told(&denied.request(1, &TestRequest::default())), "503 extauth_unavailable [content-type]");
}

#[test]
fn a_bad_configuration_says_where() {
    for (config, word) in [
        ("{}", "service"),
        (r#"{"service": ""}"#, "service"),
        (r#"{"service": "a", "path_prefix": "check"}"#, "path_prefix"),
        (r#"{"service": "a", "path_prefix": "/check/"}"#, "path_prefix"),
        (r#"{"service": "a", "method": "GET /"}"#, "method"),
        (r#"{"service": "a", "timeout_ms": 0}"#, "timeout_ms"),
        (r#"{"service": "a", "forward": ["a", "host"]}"#, "forward[1]"),
        (r#"{"service": "a", "forward": ["a", "X-Forwarded_Uri"]}"#, "forward[1]"),
        (r#"{"service": "a", "forward": ["x_caller"], "identity_header": "X-Caller"}"#, "forward[0]"),
        (r#"{"service": "a", "allowed_headers": ["weft-rule"]}"#, "allowed_headers[0]"),
        (r#"{"service": "a", "identity_header": ":path"}"#, "identity_header"),
        (r#"{"service": "a", "protocol": "thrift"}"#, "protocol"),
        (r#"{"service": "a", "protocol": "grpc", "path_prefix": "/a"}"#, "path_prefix"),
        (r#"{"service": "a", "protocol": "grpc", "method": "GET"}"#, "method"),
        (r#"{"service": "a", "protocol": "grpc", "identity_header": "x-a"}"#, "identity_header"),
        (r#"{"service": "a", "protocol": "grpc", "refused_headers": []}"#, "refused_headers"),
    ] {
        let error = Harness::<ExtAuth>::new(config).expect_err("not a configuration");
        assert!(error.contains(word), "{config}: {error}");
    }
    let grpc = r#"{"service": "a", "protocol": "grpc", "forward": ["x-forwarded-uri"]}"#;
    assert!(Harness::<ExtAuth>::new(grpc).is_ok(), "its question says that in no header");
}

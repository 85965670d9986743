//! The wrapping: what is asked for, what is passed on, how a denial reads. The engine's own tests are in `weft-policy`.

use weft_filters_sdk::testing::{Harness, TestRequest};
use weft_filters_sdk::{Outcome, Verdict};

use super::Authz;

const CONFIG: &str = r#"{"policies": [
    {"name": "shop/no-admin", "action": "Deny", "rules": [{"name": "admin", "to": [{"paths": ["/admin/*"]}]}]},
    {"name": "shop/readers", "action": "Allow", "rules": [
        {"name": "get", "from": [{"namespaces": ["web"]}],
         "to": [{"methods": ["GET"], "ports": [80], "headers": [{"name": "x-tenant", "exact": "a"}]}]},
        {"name": "db", "from": [{"namespaces": ["jobs"]}], "to": [{"ports": [5432]}]}]}]}"#;
const WEB: &str = "spiffe://cluster.local/ns/web/sa/front";
const JOBS: &str = "spiffe://cluster.local/ns/jobs/sa/nightly";

/// `allowed`, or the rule that denied.
fn check(outcome: &Outcome, expect: &str) {
    let found = match &outcome.verdict {
        Verdict::Continue => "allowed".to_owned(),
        Verdict::Respond(reply) => {
            assert_eq!(reply.status, 403);
            reply.rule.clone().unwrap_or_else(|| reply.reason.clone())
        }
        Verdict::ContinueAfter(_) | Verdict::Wait(_) | Verdict::Reset(_) | Verdict::Close(_) | Verdict::Other(_) => {
            "something else".to_owned()
        }
    };
    assert_eq!(found, expect);
    assert!(outcome.edits.is_empty());
}

#[test]
fn requests_are_allowed_and_denied_by_name() {
    let mut authz = Harness::<Authz>::new(CONFIG).expect("a sound configuration");
    assert_eq!(authz.hooks(), ["connection", "request-head"]);
    let headers = ["request.header.x-tenant", "request.header.x_tenant"];
    assert_eq!(authz.asked("request-head")[4..], headers, "in each spelling that servers fold");
    let get = |target| TestRequest::new("GET", target).principal(WEB).header("x-tenant", "a");
    check(&authz.request(1, &get("/books?x=1")), "allowed");
    check(&authz.request(2, &get("/admin/users")), "shop/no-admin#admin");
    check(&authz.request(3, &get("/books").port(81)), "shop/readers#no-match");
    check(&authz.request(4, &get("/books").principal(JOBS)), "shop/readers#no-match");
    check(&authz.request(5, &TestRequest::new("GET", "/books").principal(WEB)), "shop/readers#no-match");
    check(
        &authz.request(6, &TestRequest::new("POST", "/").principal(WEB).header("x-tenant", "a")),
        "shop/readers#no-match",
    );
}

#[test]
fn streams_are_judged_on_what_they_have() {
    let rules = r#"{"policies": [{"name": "d/db", "action": "Allow", "rules": [
        {"name": "jobs", "from": [{"namespaces": ["jobs"]}], "to": [{"ports": [5432]}]},
        {"name": "http", "to": [{"methods": ["GET"]}]}]}]}"#;
    let mut authz = Harness::<Authz>::new(rules).expect("a sound configuration");
    let stream = |principal| TestRequest::default().principal(principal).port(5432);
    check(&authz.connection(1, &stream(JOBS)), "allowed");
    check(&authz.connection(2, &stream(WEB)), "d/db#no-match");
}

#[test]
fn addresses_and_hosts_are_asked_for_where_a_rule_looks() {
    let plain = Harness::<Authz>::new(r#"{"policies": []}"#).expect("a sound configuration");
    assert_eq!((plain.asked("connection").len(), plain.asked("request-head").len()), (2, 4));
    let rules = r#"{"policies": [
        {"name": "d/office", "action": "Allow", "rules": [
            {"from": [{"ip_blocks": ["10.0.0.0/8"], "not_ip_blocks": ["10.9.0.0/16"]}]}]},
        {"name": "d/admin", "action": "Deny", "rules": [
            {"from": [{"ip_blocks": ["10.1.0.0/16"]}], "to": [{"hosts": ["admin.example", "*.admin.example"]}]}]}]}"#;
    let mut authz = Harness::<Authz>::new(rules).expect("a sound configuration");
    assert_eq!(authz.asked("connection")[2..], ["source.address"]);
    assert_eq!(authz.asked("request-head")[4..], ["source.address", "request.authority"]);
    let from = |address: &str, authority: Option<&str>| TestRequest {
        source_address: Some(address.to_owned()),
        authority: authority.map(str::to_owned),
        ..TestRequest::new("GET", "/").principal(WEB)
    };
    check(&authz.request(1, &from("10.2.0.1", Some("admin.example"))), "allowed");
    check(&authz.request(2, &from("::ffff:10.2.0.1", Some("admin.example"))), "allowed");
    check(&authz.request(3, &from("10.9.0.1", Some("shop.example"))), "d/office#no-match");
    check(&authz.request(4, &from("fd00::1", Some("shop.example"))), "d/office#no-match");
    check(&authz.request(5, &from("10.1.0.1", Some("shop.example"))), "allowed");
    check(&authz.request(6, &from("10.1.0.1", Some("A.Admin.Example.:8080"))), "d/admin#0");
    // One that names no host may be for any, and an address that is not known may be any.
    check(&authz.request(7, &from("10.1.0.1", None)), "d/admin#0");
    check(&authz.request(8, &from("nowhere", Some("admin.example"))), "d/admin#0");
    check(&authz.request(9, &from("nowhere", Some("shop.example"))), "d/office#no-match");
    check(&authz.connection(10, &from("10.2.0.1", None)), "allowed");
    check(&authz.connection(11, &from("10.1.0.1", None)), "d/admin#0");
    check(&authz.connection(12, &from("nowhere", None)), "d/admin#0");
}

#[test]
fn claims_are_what_the_filter_jwt_tells() {
    let rules = r#"{"policies": [
        {"name": "d/admins", "action": "Allow", "rules": [{"from": [{"claims": [{"name": "roles", "exact": "admin"}]}]}]},
        {"name": "d/banned", "action": "Deny", "rules": [{"from": [{"claims": [{"name": "sub", "exact": "eve"}]}]}]}]}"#;
    let mut authz = Harness::<Authz>::new(rules).expect("a sound configuration");
    assert_eq!(authz.asked("request-head")[4..], ["filter.jwt-list.*"]);
    assert_eq!(authz.asked("connection").len(), 2, "a connection has no token");
    for (roles, sub, expect) in [
        (Some(r#"["admin"]"#), None, "allowed"),
        (None, None, "d/admins#no-match"),
        (Some(r#"["dev","admin"]"#), Some(r#"["ann"]"#), "allowed"),
        (Some(r#"["dev,admin"]"#), None, "d/admins#no-match"),
        (Some("[]"), None, "d/admins#no-match"),
        (Some(r#"["admin"]"#), Some(r#"["ann","eve"]"#), "d/banned#0"),
        (Some(r#"["admin"]"#), Some("eve"), "claim_not_text"),
        (Some(r#""admin""#), None, "claim_not_text"),
    ] {
        let mut request = TestRequest::new("GET", "/").principal(WEB);
        // What tells no claim, and claims that no rule looks at.
        for (name, value) in
            [("jwt.roles", "admin"), ("jwt.sub", "eve"), ("jwt-list.other", "x"), ("jwt-lists.roles", "x")]
        {
            request = request.value(&format!("filter.{name}"), value);
        }
        for (name, value) in [("roles", roles), ("sub", sub)] {
            if let Some(value) = value {
                request = request.value(&format!("filter.jwt-list.{name}"), value);
            }
        }
        check(&authz.request(1, &request), expect);
    }
}

#[test]
fn values_that_are_no_text_are_denied_where_a_rule_looks() {
    let mut authz = Harness::<Authz>::new(CONFIG).expect("a sound configuration");
    let mut request = TestRequest::new("GET", "/").principal(WEB);
    request.headers.push(("x-tenant".to_owned(), vec![b'a', 0xff]));
    check(&authz.request(1, &request), "header_not_text");
    let mut request = TestRequest::new("GET", "/").principal(WEB).header("x-tenant", "a");
    request.headers.push(("x-other".to_owned(), vec![0xff]));
    check(&authz.request(2, &request), "allowed");
}

#[test]
fn rules_may_read_more_headers_than_a_filter_may_name() {
    let headers: Vec<_> = (0..40).map(|number| format!(r#"{{"name": "x-h-{number}", "exact": "evil"}}"#)).collect();
    let rules: Vec<_> = headers.iter().map(|header| format!(r#"{{"to": [{{"headers": [{header}]}}]}}"#)).collect();
    let config = format!(r#"{{"policies": [{{"name": "a/b", "action": "Deny", "rules": [{}]}}]}}"#, rules.join(", "));
    let mut authz = Harness::<Authz>::new(&config).expect("a sound configuration");
    assert_eq!(authz.asked("request-head")[4..], ["request.header.*"]);
    let get = |name, value| TestRequest::new("GET", "/").principal(WEB).header(name, value);
    check(&authz.request(1, &get("x-h-39", "evil")), "a/b#39");
    check(&authz.request(2, &get("x_h-7", "evil")), "a/b#7");
    check(&authz.request(3, &get("x-h-40", "evil")), "allowed");
    let mut unreadable = get("x-other", "");
    unreadable.headers.push(("x-other".to_owned(), vec![0xff]));
    check(&authz.request(4, &unreadable), "allowed");
    unreadable.headers.push(("x-h-0".to_owned(), vec![0xff]));
    check(&authz.request(5, &unreadable), "header_not_text");
}

#[test]
fn a_bad_configuration_says_where() {
    for (config, word) in [
        ("{", "EOF"),
        (r#"{"policies": [], "extra": 1}"#, "extra"),
        (r#"{"policies": [{"name": "a/b", "action": "Permit"}]}"#, "Permit"),
    ] {
        let error = Harness::<Authz>::new(config).expect_err("not a configuration");
        assert!(error.contains(word), "{error}");
    }
}

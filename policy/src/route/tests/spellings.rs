//! Heads that servers read in several ways.

use super::*;
use crate::bundle::Limits;

fn treating(label: &str, matching: RouteMatch) -> RouteRule {
    let actions = vec![RouteAction::RequestTimeoutMs(5)];
    RouteRule { actions, ..rule(label, vec![matching]) }
}

/// The name of the rule that a request meets, or the status of the refusal. Fields that begin with a capital letter are
/// those of another reading.
fn met_as(table: &RouteTable, method: &str, at: &str, fields: &[(&str, &str)]) -> String {
    let to = table.by_host("web.shop", 80, "shop").unwrap();
    let own = |name: &str| fields.iter().find(|field| field.0 == name).map(|field| field.1);
    let other = |name: &str| fields.iter().rev().find(|field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1);
    let others: [Fields<'_>; 1] = [&other];
    let path = path(at);
    match choose(table, &to, "shop", &HeadView { method, path: &path, host: None, headers: &own, others: &others }) {
        Ok(Choice::Direct(_)) => "default".to_owned(),
        Ok(Choice::Rule(met)) => met.rule.name.clone().unwrap(),
        Err(refusal) => refusal.status().to_string(),
    }
}

#[test]
fn a_rule_is_passed_by_no_other_spelling_of_a_field_or_a_method() {
    let rules = vec![
        treating("admin", matching(prefix("/h"), None, &[("x-role", "admin")])),
        treating("delete", matching(prefix("/m"), Some("DELETE"), &[])),
        treating("both", matching(prefix("/b"), Some("PUT"), &[("x-role", "admin")])),
        rule("plain", vec![matching(prefix("/p"), Some("DELETE"), &[("x-role", "admin")])]),
        rule("rest", vec![matching(prefix("/"), None, &[])]),
    ];
    let with = table(vec![service("shop/web", None, &[])], vec![route("shop/r", 1, rules)]);
    let check = |method: &str, at: &str, fields: &[(&str, &str)], expect: &str| {
        assert_eq!(met_as(&with, method, at, fields), expect, "{method} {at} {fields:?}");
    };
    let (admin, also) = (("x-role", "admin"), ("X-ROLE", "admin"));
    check("GET", "/h", &[admin], "admin");
    check("GET", "/h", &[("x-role", "user")], "rest");
    check("GET", "/h", &[("x-role", "user"), also], "400");
    check("GET", "/h", &[also], "400");
    check("GET", "/h", &[admin, ("X-ROLE", "user")], "400");
    check("GET", "/h", &[admin, also], "admin");
    check("GET", "/other", &[("x-role", "user"), also], "rest");
    check("DELETE", "/m", &[], "delete");
    check("delete", "/m", &[], "400");
    check("Delete", "/other", &[], "rest");
    check("purge", "/m", &[], "rest");
    check("put", "/b", &[("x-role", "user"), also], "400");
    check("put", "/b", &[("x-role", "user")], "rest");
    // Rules that treat requests alike.
    check("delete", "/p", &[also], "rest");
    // Together with another reading of the path.
    check("delete", "//m", &[], "400");
}

/// A service whose rules look at neither is not asked again.
#[test]
fn what_no_rule_looks_at_has_one_reading() {
    let rules = vec![
        treating("timed", matching(prefix("/timed"), None, &[])),
        rule("rest", vec![matching(prefix("/"), None, &[])]),
    ];
    let table = table(vec![service("shop/web", None, &[])], vec![route("shop/r", 1, rules)]);
    let to = table.by_host("web.shop", 80, "shop").unwrap();
    let path = path("/");
    let others: [Fields<'_>; 1] = [&|_: &str| None];
    let head = HeadView { method: "delete", path: &path, host: None, headers: &|_| None, others: &others };
    assert!(table.routed(&to).unwrap().head_readings(&head).is_empty());
}

/// What a rule refuses, and what a Service bounds, is not reached by a spelling that meets another rule.
#[test]
fn a_rule_that_refuses_or_leads_to_a_bounded_service_is_passed_by_no_other_spelling() {
    let of = |label: &str, at: &str, backends: Vec<Backend>| RouteRule {
        backends,
        ..rule(label, vec![matching(prefix(at), None, &[])])
    };
    let backend = |service: &str, weight| Backend {
        service: Some(name(service)),
        outside: false,
        port: 80,
        weight,
        actions: vec![],
    };
    let gone = Backend { service: None, ..backend("shop/web", 1) };
    let rules = vec![
        of("none", "/none", vec![]),
        of("zero", "/zero", vec![backend("shop/web", 0)]),
        of("gone", "/gone", vec![gone.clone()]),
        of("half", "/half", vec![gone, backend("shop/web", 1)]),
        of("heavy", "/heavy", vec![backend("shop/heavy", 1)]),
        of("other", "/other", vec![backend("shop/other", 1)]),
        RouteRule { matches: vec![matching(prefix("/"), None, &[("x-role", "admin")])], ..of("field", "/", vec![]) },
        of("rest", "/", vec![backend("shop/web", 1)]),
    ];
    let limits = Limits { active: 1, ..Limits::default() };
    let traffic = Traffic { limits: Some(limits), ..traffic("shop/heavy") };
    let heavy = Service { traffic: Some(Box::new(traffic)), ..service("shop/heavy", None, &[]) };
    let services = vec![service("shop/web", None, &[]), service("shop/other", None, &[]), heavy];
    let table = table(services, vec![route("shop/r", 1, rules)]);
    for label in ["none", "zero", "gone", "half", "heavy"] {
        assert_eq!(met_as(&table, "GET", &format!("/{label}/x"), &[]), label);
        for at in [format!("//{label}/x"), format!("/x/..%2F{label}"), format!("/;a/{label}"), format!("/%5C{label}")] {
            assert_eq!(met_as(&table, "GET", &at, &[]), "400", "{at}");
        }
    }
    assert_eq!(met_as(&table, "GET", "//other/x", &[]), "rest", "another backend alone is no difference");
    assert_eq!(met_as(&table, "GET", "/", &[("x-role", "user"), ("X-ROLE", "admin")]), "400");
}

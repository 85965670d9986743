//! Heads that servers read in several ways.

use super::*;

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

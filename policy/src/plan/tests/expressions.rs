//! Policies of the filter `expr`: what proxies are told, what they are refused for, and what is told of a request.

use super::*;
use crate::cel::{Compiled, Config};
use crate::explain::{Query, explain};

fn policy(rules: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: FilterPolicy\nmetadata: {{name: p, namespace: shop}}\n\
         spec: {{filter: {{name: expr}}, config: {{rules: [{rules}]}}}}\n"
    )
}

#[test]
fn proxies_are_told_what_was_compiled() {
    let world = shop_and(&policy("{name: r, when: 'request.path == \"/x\"', then: {deny: {}}}"));
    let told = filters_for(&world, &[name("shop/web-1")]).remove("shop/p").unwrap();
    let expect = r#"{"rules":[{"name":"r","when":{"f":["equal",[{"v":"request.path"},{"s":"/x"}]]},"#.to_owned()
        + r#""then":{"deny":{"status":403,"body":""}},"on_error":"deny"}],"default":"continue"}"#;
    assert_eq!(told.config.0, expect, "older filters have to read it too");
    serde_json::from_str::<Config<Compiled>>(&told.config.0).unwrap();
}

/// Of a policy that an earlier release took: the filter refuses text, so the policy fails closed.
#[test]
fn what_can_t_be_compiled_goes_as_it_is_and_lint_tells() {
    let world = shop_and(&policy("{name: r, when: 'request.pth == \"/x\"', then: {deny: {}}}"));
    let told = filters_for(&world, &[name("shop/web-1")]).remove("shop/p").unwrap();
    assert!(serde_json::from_str::<Config<Compiled>>(&told.config.0).is_err());
    let findings = lint::check(&world, Scope::Files);
    let found = findings.iter().find(|finding| finding.code == Code::ExpressionUnfit).unwrap();
    assert_eq!(
        (found.severity, found.key.as_str(), found.message.as_str()),
        (
            lint::Severity::Error,
            "spec.config.rules[0].when",
            "1:8: there is no request.pth; did you mean `request.path`?"
        )
    );
}

#[test]
fn explain_tells_what_rules_make_of_a_request() {
    let check = |rules: &str, expect: &str| {
        let query =
            serde_json::json!({"from": "partner/api", "to": "web.shop", "path": "/x", "headers": {"X-Team": "a"}});
        let query: Query = serde_json::from_value(query).unwrap();
        let told = explain(&shop_and(&policy(rules)), &query).unwrap();
        assert_eq!(told.backends[0].endpoints[0].filters, [expect], "{rules}");
        let note = format!("a filter answers it, and the app is not asked: {expect}");
        assert_eq!(told.notes.contains(&note), expect.contains("denied"), "{:?}", told.notes);
    };
    let when = |when: &str, then: &str| format!("{{name: r, when: \"{when}\", then: {{{then}}}}}");
    check(&when("request.headers['x-team'] == 'a'", "deny: {}"), "shop/p (denied by its rule r: 403)");
    check(&when("source.namespace == 'shop'", "deny: {}"), "shop/p (lets it pass)");
    check(&when("true", "set: {x: \"'a'\"}"), "shop/p (lets it pass, with headers changed by r)");
    check(&when("request.headers['x-none'] == ''", "deny: {}"), "shop/p (denied: its rule r can't be evaluated)");
    check(&when("dice % 2u == 0u || time > 0", "deny: {}"), "shop/p (not asked here: it reads dice, time)");
}

//! The wrapping: what is asked for, what comes of a decision, what is counted. The engine's own tests are in
//! `weft-policy`.

use weft_filters_sdk::testing::{Harness, TestRequest, labelled_metric};
use weft_filters_sdk::{Edit, Outcome, Verdict};
use weft_policy::cel::compile_config;

use super::Expressions;

/// The filter under a configuration as it is written.
fn written(config: &str) -> Result<Harness<Expressions>, String> {
    let written = serde_json::from_str(config).expect("JSON");
    let compiled = compile_config(&written, |_| None).unwrap_or_else(|faults| panic!("{config}: {faults:?}"));
    Harness::new(&serde_json::to_string(&compiled).expect("JSON"))
}

fn told(outcome: &Outcome) -> String {
    let edit = |edit: &Edit| match edit {
        Edit::Set(field) => format!("{} = {}", field.name, String::from_utf8_lossy(&field.value)),
        Edit::Add(field) => format!("{} + {}", field.name, String::from_utf8_lossy(&field.value)),
        Edit::Remove(name) => format!("{name} -"),
        Edit::Path(_) | Edit::Authority(_) | Edit::Status(_) | Edit::Body(_) | Edit::Attribute(_) | Edit::Other(_) => {
            "another".to_owned()
        }
    };
    match &outcome.verdict {
        Verdict::Continue => outcome.edits.iter().map(edit).collect::<Vec<_>>().join("; "),
        Verdict::Respond(reply) => {
            let (rule, body) = (reply.rule.as_deref().unwrap_or("none"), String::from_utf8_lossy(&reply.body));
            format!("{} {} by {rule}: {}", reply.status, reply.reason, body.trim_end())
        }
        Verdict::ContinueAfter(_) | Verdict::Wait(_) | Verdict::Reset(_) | Verdict::Close(_) | Verdict::Other(_) => {
            "something else".to_owned()
        }
    }
}

#[test]
fn rules_decide_and_edit() {
    let mut filter = written(
        r#"{"rules": [
            {"name": "admin", "when": "request.path.startsWith('/admin') && !has(source.principal)", "then": {"deny": {}}},
            {"name": "list", "when": "request.headers['x-list'] == 'a,b'", "then": {"respond": {"body": "'both'"}}, "on_error": "skip"},
            {"name": "tell", "when": "destination.port == 80", "then": {"set": {"x-port": "string(destination.port)"}, "remove": ["x-list"]}}]}"#,
    )
    .expect("a sound configuration");
    assert_eq!(filter.hooks(), ["request-head"]);
    let asked = ["destination.port", "request.header.x-list", "request.path", "source.principal"];
    assert_eq!(filter.asked("request-head"), asked);
    let get = |target| TestRequest::new("GET", target);
    let denied = "403 expr_denied by admin: denied by the rule admin";
    assert_eq!(told(&filter.request(1, &get("/admin/x"))), denied);
    assert_eq!(told(&filter.request(2, &get("/admin").principal("spiffe://a"))), "x-list -; x-port = 80");
    let several = get("/").header("x-list", "a").header("x-list", "b");
    assert_eq!(told(&filter.request(3, &several)), "200 expr_answered by list: both", "fields of a name are one");
    assert_eq!(labelled_metric("rules_held_total", &["admin"]), Some(1.0));
    assert_eq!(labelled_metric("rules_failed_total", &["list"]), Some(1.0));
}

#[test]
fn what_can_t_be_evaluated_and_what_no_rule_passes_is_denied() {
    let rule = r#"{"name": "r", "when": "request.headers['x-none'] == 'a'", "then": {"pass": true}}"#;
    let mut filter = written(&format!(r#"{{"rules": [{rule}], "default": "deny"}}"#)).expect("sound");
    let failed = "403 expr_failed by r: denied: the rule r can't be evaluated";
    assert_eq!(told(&filter.request(1, &TestRequest::default())), failed);
    let other = TestRequest::default().header("x-none", "b");
    assert_eq!(told(&filter.request(2, &other)), "403 expr_no_rule_passed by none: denied: no rule lets it pass");
}

#[test]
fn a_configuration_that_was_not_compiled_is_refused() {
    let text = r#"{"rules": [{"name": "r", "when": "true", "then": {"pass": true}}]}"#;
    let error = Harness::<Expressions>::new(text).expect_err("text");
    assert!(error.contains("rules[0].when") && error.contains("has to compile it"), "{error}");
    let error = written(r#"{"rules": [{"name": "r", "when": "true", "then": {"set": {"host": "'a'"}}}]}"#);
    assert!(error.expect_err("not for filters").contains("the header host"));
}

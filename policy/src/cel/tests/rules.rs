//! Configurations with every fault in its place, and what rules make of a request.

use serde_json::json;

use super::super::{Config, End, HeaderEdit, Rules, compile_config};
use super::request;

fn uneditable(name: &str) -> Option<&'static str> {
    (name == "host").then_some("it names the service")
}

fn rules(config: &serde_json::Value) -> Rules {
    let compiled = compile_config(config, uneditable).unwrap_or_else(|faults| panic!("{config}: {faults:?}"));
    let travelled = serde_json::to_string(&compiled).expect("JSON");
    let arrived: Config<_> = serde_json::from_str(&travelled).expect("as it was written");
    assert_eq!(arrived, compiled);
    Rules::new(arrived).expect("within bounds")
}

/// What a decision comes to, in a line.
fn decided(config: &serde_json::Value) -> String {
    let rules = rules(config);
    let decision = rules.decide(&request());
    let end = match &decision.end {
        End::Pass => "pass".to_owned(),
        End::Deny { rule, status, body } => format!("deny {} {status} {body:?}", rule.unwrap_or("by default")),
        End::Respond { rule, status, headers, body } => format!("respond {rule} {status} {headers:?} {body:?}"),
        End::Failed { rule } => format!("failed {rule}"),
    };
    let edit = |edit: &HeaderEdit<'_>| match edit {
        HeaderEdit::Remove(name) => format!("-{name}"),
        HeaderEdit::Set(name, value) => format!("{name}={value}"),
        HeaderEdit::Add(name, value) => format!("{name}+{value}"),
    };
    let edits = decision.edits.iter().map(edit);
    let failed = decision.failed.iter().map(|(rule, error)| format!("{rule}: {error}"));
    [end].into_iter().chain(edits).chain(failed).collect::<Vec<_>>().join("; ")
}

#[test]
fn rules_are_asked_in_order() {
    let tell = json!({"name": "tell", "when": "true", "then": {
        "remove": ["X-Debug"], "set": {"X-Caller": "source.namespace"}, "add": {"via": "'weft'"}}});
    let deny = |when: &str| json!({"name": "no", "when": when, "then": {"deny": {"body": "no"}}});
    let answer = json!({"name": "hello", "when": "request.path == '/a'", "then": {"respond": {
        "headers": {"content-type": "'text/plain'"}, "body": "'port ' + string(destination.port)"}}});
    let pass = json!({"name": "on", "when": "true", "then": {"pass": true}});
    let edits = "-x-debug; x-caller=shop; via+weft";
    for (config, expect) in [
        (json!({"rules": [tell, deny("false")]}), format!("pass; {edits}")),
        (json!({"rules": [tell, deny("request.method == 'GET'")]}), format!("deny no 403 \"no\"; {edits}")),
        (
            json!({"rules": [answer, deny("true")]}),
            r#"respond hello 200 [("content-type", "text/plain")] "port 8080""#.to_owned(),
        ),
        (json!({"rules": [pass, deny("true")], "default": "deny"}), "pass".to_owned()),
        (json!({"rules": [deny("false")], "default": "deny"}), "deny by default 403 \"\"".to_owned()),
    ] {
        assert_eq!(decided(&config), expect, "{config}");
    }
}

#[test]
fn a_rule_without_a_value_fails_closed_unless_it_says_otherwise() {
    let absent = "request.headers['x-none'] is not there";
    let rule = |on_error: &str, then| json!({"name": "r", "when": "true", "then": then, "on_error": on_error});
    let team = json!({"set": {"a": "'1'", "x-team": "request.headers['x-none']"}});
    assert_eq!(decided(&json!({"rules": [rule("deny", team.clone())]})), format!("failed r; r: {absent}"));
    let whole = "of a rule that is passed over nothing stays";
    assert_eq!(decided(&json!({"rules": [rule("skip", team)]})), format!("pass; r: {absent}"), "{whole}");
    let when = json!({"name": "r", "when": "request.headers['x-none'] == 'a'", "then": {"deny": {}}});
    assert_eq!(decided(&json!({"rules": [when]})), format!("failed r; r: {absent}"), "denied where it is not certain");
    let line = json!({"set": {"a": r"'b\r\nc: d'"}});
    assert_eq!(decided(&json!({"rules": [rule("deny", line)]})), "failed r; r: a value can't be a header's");
}

#[test]
fn what_is_asked_of_the_host_follows_from_the_expressions() {
    let rules = rules(&json!({"rules": [
        {"name": "a", "when": "'x-b' in request.headers && [1].exists(x, x < destination.port)", "then": {"deny": {}}},
        {"name": "b", "when": "request.headers['X-B'] == 'c'", "then": {"set": {"d": "filter.jwt.sub"}}}]}));
    assert_eq!(rules.told(), ["destination.port", "filter.jwt.sub", "request.header.x-b"]);
    assert_eq!(rules.headers(), ["d"]);
}

#[test]
fn every_fault_is_told_in_its_place() {
    let rule = |name: &str, when: &str, then| json!({"name": name, "when": when, "then": then});
    let set = json!({"set": {"host": "'a'", "a b": "'a'", "c": "1"}});
    let config = json!({"rules": [
        rule("a", "request.pth == 1", json!({"deny": {}})),
        rule("a", "1", json!({"deny": {}, "pass": true})),
        rule("b c", "true", set)]});
    let faults = compile_config(&config, uneditable).unwrap_err();
    let faults: Vec<_> = faults.iter().map(|fault| format!("{}: {}", fault.at, fault.message)).collect();
    assert_eq!(
        faults,
        [
            "rules[0].when: 1:8: there is no request.pth; did you mean `request.path`?",
            "rules[1].name: another rule is called a",
            "rules[1].when: 1:1: bool is expected, not int",
            "rules[1].then: where a request is answered, its headers are changed for nobody and no rule follows",
            "rules[2].name: \"b c\": a name has 1 to 64 letters, digits, '-', '_' and '.'",
            "rules[2].then.set.a b: \"a b\" is no name of a header",
            "rules[2].then.set.c: 1:1: string is expected, not int",
            "rules[2].then.set.host: the header host is not for rules to change: it names the service",
        ]
    );
    for (config, at, words) in [
        (json!({}), "rules", "is missing"),
        (json!({"rules": [rule("a", "true", json!({}))]}), "rules[0].then", "one of deny, respond"),
        (
            json!({"rules": [rule("a", "true", json!({"deny": {"status": 200}}))]}),
            "rules[0].then.deny.status",
            "200 is less",
        ),
        (json!({"rules": [rule("a", "true", json!({"deni": {}}))]}), "rules[0].then.deni", "did you mean `deny`?"),
        (json!({"rules": [], "default": "pass"}), "rules", "at least 1"),
    ] {
        let faults = compile_config(&config, uneditable).unwrap_err();
        let told = faults.iter().any(|fault| fault.at == at && fault.message.contains(words));
        assert!(told, "{config}: {faults:?}");
    }
    let many: Vec<_> = (0..3).map(|at| rule(&format!("r{at}"), "true", json!({"remove": vec!["a"; 30]}))).collect();
    let faults = compile_config(&json!({"rules": many}), uneditable).unwrap_err();
    assert_eq!(faults[0].message, "rules: 90 edits of headers, at most 64");
}

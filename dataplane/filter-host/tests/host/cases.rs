//! Cases of authors, run on the shipped filters: what holds, and each way in which one does not.

use std::time::Duration;

use serde_json::{Value, json};
use weft_filter_host::run_cases;
use weft_policy::component::cases::Cases;

use crate::support::{host, wasm};

/// What is wrong with each case, by its name.
fn faults(filter: &str, cases: Value) -> Vec<(String, Vec<String>)> {
    let cases: Cases = serde_json::from_value(cases).expect("cases");
    let cases = cases.checked().expect("cases");
    let reports = run_cases(&host(), &wasm(filter), &cases, Duration::from_secs(60)).expect("it runs");
    reports.into_iter().map(|report| (report.name, report.faults)).collect()
}

fn hold(filter: &str, cases: Value) {
    for (name, faults) in faults(filter, cases) {
        assert_eq!(faults, Vec::<String>::new(), "{filter}: {name}");
    }
}

#[test]
fn heads_bodies_and_answers_are_as_expected() {
    hold(
        "header-edit",
        json!({
            "config": {"request": {"set": [{"name": "x-caller", "from": "source.principal"}], "remove": ["x-debug"]},
                       "response": {"add": [{"name": "x-was", "from": "response.status"}]}},
            "cases": [
                {"name": "both ways", "caller": "spiffe://mesh/ns/a/sa/ada",
                 "request": {"path": "/a?b=c", "headers": {"x-debug": "1", "x-keep": ["1", "2"]}, "body": "hello"},
                 "response": {"status": 404, "body": "none"},
                 "expect": {"verdict": "pass",
                    "request": {"path": "/a?b=c", "authority": "app.test", "body": "hello",
                        "headers": {"x-debug": null, "x-keep": ["1", "2"], "x-caller": "spiffe://mesh/ns/a/sa/ada"}},
                    "response": {"status": 404, "headers": {"x-was": "404"}, "body": "none"}}},
                {"name": "refused", "config": {"request": {"remove": ["host"]}},
                 "expect": {"verdict": "refuse", "reason": "request.remove[0]"}}
            ]
        }),
    );
    hold(
        "body-guard",
        json!({"config": {"max_bytes": 10, "json": {}}, "cases": [
            {"name": "in two chunks", "request": {"method": "POST", "body": ["{\"a\"", ": 1}"]},
             "expect": {"verdict": "pass", "request": {"body": "{\"a\": 1}"}}},
            {"name": "no JSON", "request": {"method": "POST", "body": "hello"},
             "expect": {"verdict": "respond", "status": 400, "reason": "body_refused"}},
            {"name": "too long", "request": {"method": "POST", "body": "[1, 2, 3, 4]"},
             "expect": {"verdict": "respond", "status": 413}}
        ]}),
    );
}

#[test]
fn services_chance_and_repetition_are_played() {
    hold(
        "extauth",
        json!({"config": {"service": "auth", "path_prefix": "/check", "allowed_headers": ["x-user"]}, "cases": [
            {"name": "allowed", "request": {"path": "/a"},
             "callouts": [{"service": "auth", "method": "GET", "path": "/check/a", "headers": {"cookie": null},
                "answer": {"headers": {"x-user": "ada"}}}],
             "expect": {"verdict": "pass", "request": {"headers": {"x-user": "ada"}},
                "metrics": {"extauth_decisions_total{allowed}": 1}}},
            {"name": "refused", "callouts": [{"service": "auth", "answer": {"status": 401, "body": "who?"}}],
             "expect": {"verdict": "respond", "status": 401, "body": "who?", "reason": "extauth_refused"}},
            {"name": "gone", "callouts": [{"service": "auth", "error": "connect"}],
             "expect": {"verdict": "respond", "status": 503}},
            {"name": "not granted", "capabilities": ["kv"], "expect": {"verdict": "respond", "status": 503}}
        ]}),
    );
    let vectors: Value = serde_json::from_str(include_str!("../../../../filters/jwt/vectors.json")).expect("JSON");
    let keys = json!({"keys": [vectors["config"]["keys"][3], vectors["config"]["keys"][1]]}).to_string();
    let bearer = format!("Bearer {}", vectors["tokens"]["ES256"].as_str().expect("text"));
    let asked = |answer: Value| json!([{"service": "idp", "method": "GET", "path": "/jwks.json", "answer": answer}]);
    hold(
        "jwt",
        json!({"config": {"providers": [{"issuer": "https://issuer.test", "jwks": {"callout": "idp", "path": "/jwks.json"}}],
                          "claims": [{"claim": "sub", "header": "x-user"}]}, "cases": [
            {"name": "a public key of the answer counts", "request": {"headers": {"authorization": bearer}},
             "callouts": asked(json!({"body": keys})),
             "expect": {"verdict": "pass", "request": {"headers": {"x-user": "ada"}},
                "metrics": {"jwks_fetches_total{ok}": 1, "jwks_keys_skipped_total": 1}}},
            {"name": "no document", "request": {"headers": {"authorization": bearer}},
             "callouts": asked(json!({"status": 404})),
             "expect": {"verdict": "respond", "status": 503, "reason": "jwt_keys_unavailable",
                "metrics": {"jwks_fetches_total{unusable}": 1}}},
            {"name": "nobody is asked for no token", "expect": {"verdict": "respond", "reason": "jwt_missing"}}
        ]}),
    );
    let limit = json!({"limits": [{"requests": 2, "per_seconds": 86_400}]});
    hold(
        "ratelimit",
        json!({"config": limit, "cases": [
            {"name": "the second", "repeat": 2, "expect": {"verdict": "pass"}},
            {"name": "the third", "repeat": 3, "expect": {"verdict": "respond", "status": 429, "reason": "rate_limited"}}
        ]}),
    );
    let half = json!({"abort": {"status": 503, "percentage": 50}, "delay": {"ms": 70}});
    let of = |dice: u64, status: Option<u16>| {
        let verdict = if status.is_some() { "respond" } else { "pass" };
        json!({"name": dice.to_string(), "dice": dice, "expect": {"verdict": verdict, "delay_ms": 70, "status": status}})
    };
    hold("fault", json!({"config": half, "cases": [of(0, Some(503)), of(u64::MAX, None)]}));
}

/// The parts of an answer are one answer to a case, and bounded: cases of strangers run in the control plane.
#[test]
fn an_answer_in_parts_is_played_to_its_end() {
    hold(
        "hostile2",
        json!({"cases": [
            {"name": "joined", "config": {"mode": "parts-wait", "value": "2"},
             "expect": {"verdict": "respond", "status": 200, "body": "part 0\npart 1\npart 2\n"}},
            {"name": "asked", "config": {"mode": "parts-ask", "value": "1"},
             "callouts": [{"service": "quota", "path": "/who", "answer": {"status": 204}}],
             "expect": {"verdict": "respond", "body": "part 0\npart 1 after 204\n"}},
            {"name": "without a body", "config": {"mode": "parts"}, "request": {"method": "HEAD"},
             "expect": {"verdict": "respond", "body": "part 0\n"}},
            {"name": "no part", "config": {"mode": "parts-header"}, "expect": {"verdict": "fail"}}
        ]}),
    );
    let found = faults(
        "hostile2",
        json!({"cases": [
            {"name": "without end", "config": {"mode": "parts-endless"}, "expect": {"verdict": "respond"}},
            {"name": "in crumbs", "config": {"mode": "parts-crumbs"}, "expect": {"verdict": "respond"}}
        ]}),
    );
    for ((name, faults), word) in found.into_iter().zip(["more than 1048576 bytes", "no end after 1000 calls"]) {
        assert!(faults.iter().any(|fault| fault.contains(word)), "{name}: {faults:?}");
    }
}

#[test]
fn what_does_not_hold_is_told_in_a_sentence() {
    let case = |name: &str, expect: Value| {
        json!({"name": name, "request": {"headers": {"x-a": "1"}}, "expect": expect,
            "callouts": [{"service": "auth", "path": "/other", "answer": {"status": 403, "body": "no"}}]})
    };
    let found = faults(
        "extauth",
        json!({"config": {"service": "auth"}, "cases": [
            case("verdict", json!({"verdict": "pass"})),
            case("answer", json!({"verdict": "respond", "status": 401, "headers": {"x-b": "2"}, "contains": "yes"})),
            {"name": "nobody", "expect": {"verdict": "respond"}},
            {"name": "unasked", "config": {"service": ""}, "expect": {"verdict": "pass"}},
            {"name": "bad", "request": {"path": "a"}, "expect": {"verdict": "pass"}}
        ]}),
    );
    let path = "path of the callout to auth: \"/\", not \"/other\"";
    let of = |name: &str| &found.iter().find(|(known, _)| known == name).expect(name).1;
    assert_eq!(of("verdict"), &[path, "verdict: respond (\"extauth_refused\"), not pass"]);
    let answer = [
        path,
        "status: \"403\", not \"401\"",
        "header x-b of the answer: nothing, not \"2\"",
        "body: \"no\", without \"yes\"",
    ];
    assert_eq!(of("answer"), &answer);
    // Without an entry in the case the service is not granted.
    assert_eq!(of("nobody"), &Vec::<String>::new());
    let refused = &of("unasked")[0];
    assert!(refused.starts_with("verdict: refuse (") && refused.contains("service: it is empty"), "{refused}");
    assert!(of("bad")[0].starts_with("request.path: \"a\""), "{:?}", of("bad"));
}

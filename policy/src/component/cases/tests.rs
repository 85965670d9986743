//! What cases may say, and the section that carries them.

use serde_json::json;

use super::*;
use crate::component::{CASES_SECTION, SCHEMA_SECTION, read, with_section};

#[test]
fn cases_stay_what_they_are_in_their_section() {
    let cases: Cases = serde_json::from_value(json!({
        "config": {"refused": ["eve"]},
        "cases": [
            {"name": "eve", "caller": "spiffe://mesh/ns/a/sa/eve", "expect": {"verdict": "respond", "status": 403}},
            {"name": "asks", "capabilities": ["kv", "token-bucket"], "repeat": 3, "time": 7, "kv": {"a": "1"},
             "request": {"headers": {"x-a": ["1", "2"], "x-b": "3"}, "body": ["a", "b"]},
             "callouts": [{"service": "quota", "path": "/left", "answer": {"status": 404}}],
             "expect": {"verdict": "pass", "request": {"headers": {"x-a": null}}, "metrics": {"seen{a}": 2}}},
        ]
    }))
    .expect("sound");
    let text = serde_json::to_string(&cases).expect("JSON");
    let empty = b"\0asm\x0d\0\x01\0".to_vec();
    let wasm = with_section(with_section(empty, SCHEMA_SECTION, b"{}"), CASES_SECTION, text.as_bytes());
    let facts = read(&wasm).expect("a component");
    assert_eq!((facts.schema.as_deref(), facts.cases.as_deref()), (Some("{}"), Some(text.as_str())));
    assert_eq!(Cases::parse(&text), Ok(cases));
    let twice = with_section(wasm, CASES_SECTION, b"{}");
    assert_eq!(read(&twice).expect_err("twice").to_string(), "its section \"weft:cases\" is there twice");
    let long = with_section(b"\0asm\x0d\0\x01\0".to_vec(), CASES_SECTION, &[b' '; 262_145]);
    assert_eq!(read(&long).expect_err("long").to_string(), "its section \"weft:cases\" has more than 256 KiB");
}

#[test]
fn what_can_not_be_run_is_refused() {
    let named = |names: &[&str]| {
        let case = |name: &&str| Case { name: (*name).to_owned(), ..Case::default() };
        Cases { config: Value::Null, cases: names.iter().map(case).collect() }
    };
    let first = |change: fn(&mut Case)| {
        let mut cases = named(&["a"]);
        change(&mut cases.cases[0]);
        cases.checked().map(drop)
    };
    assert_eq!(named(&[]).checked(), Err(CasesError::Count(0)));
    assert_eq!(named(&[""]).checked(), Err(CasesError::Name(0)));
    let twice = CasesError::Twice { position: 1, name: "a".to_owned() };
    assert_eq!(named(&["a", "a"]).checked(), Err(twice));
    assert_eq!(first(|case| case.repeat = Some(0)), Err(CasesError::Repeat { position: 0, repeat: 0 }));
    assert_eq!(first(|case| case.repeat = Some(1_001)), Err(CasesError::Repeat { position: 0, repeat: 1_001 }));
    let both = CaseCallout { answer: Some(CaseResponse::default()), error: Some(String::new()), ..Default::default() };
    let mut cases = named(&["a"]);
    cases.cases[0].callouts.push(both);
    assert_eq!(cases.checked(), Err(CasesError::Both { position: 0, callout: 0 }));
    assert_eq!(first(|_| ()), Ok(()));
    let unknown = Cases::parse(r#"{"cases": [{"name": "a", "expects": {}}]}"#).expect_err("unknown").to_string();
    assert!(unknown.contains("unknown field `expects`"), "{unknown}");
}

//! Schemas and configurations, and what is said of them.

use super::*;

const LIMITS: &str = r#"{
    "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "additionalProperties": false,
    "required": ["limits"], "properties": {
        "mode": {"enum": ["soft", "hard"]}, "version": {"const": 1},
        "limits": {"type": "array", "minItems": 1, "maxItems": 2, "items": {
            "type": "object", "required": ["key"], "properties": {
                "key": {"type": "string", "maxLength": 8},
                "requests": {"type": "integer", "minimum": 1, "maximum": 100},
                "burst": {"type": ["integer", "null"]}}}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}}}}"#;

#[test]
fn a_wrong_configuration_is_told_by_place() {
    let (schema, ignored) = parse(LIMITS).unwrap();
    assert!(ignored.is_empty(), "{ignored:?}");
    for (config, expect) in [
        (r#"{"limits": [{"key": "a", "requests": 1, "burst": null}], "mode": "hard", "version": 1}"#, ""),
        (r#"{"limits": [{"key": "a", "other": true}], "labels": {"a": "b"}}"#, ""),
        ("[]", ": object is expected, not []"),
        ("{}", "limits: is missing"),
        (r#"{"limits": []}"#, "limits: 0 entries; at least 1 are expected"),
        (r#"{"limits": [{"key": "a"}, {"key": "b"}, {"key": "c"}]}"#, "limits: 3 entries; at most 2 are taken"),
        (
            r#"{"limits": [{"requests": 0}, {"key": 7, "requests": 101, "burst": 1.5}]}"#,
            "limits[0].key: is missing; limits[0].requests: 0 is less than 1; limits[1].burst: integer or null is expected, \
             not 1.5; limits[1].key: string is expected, not 7; limits[1].requests: 101 is more than 100",
        ),
        (r#"{"limits": [{"key": "much too long"}]}"#, "limits[0].key: the text has more than 8 characters"),
        (r#"{"limits": [{"key": "a", "requests": 2.0}]}"#, ""),
        (r#"{"limits": [{"key": "a"}], "mode": "lax"}"#, "mode: \"lax\" is not one of \"soft\", \"hard\""),
        (r#"{"limits": [{"key": "a"}], "version": 2}"#, "version: 1 is expected, not 2"),
        (r#"{"limits": [{"key": "a"}], "label": {}}"#, "label: there is no such field; did you mean"),
        (r#"{"limits": [{"key": "a"}], "labels": {"a": 1}}"#, "labels.a: string is expected, not 1"),
    ] {
        let mut faults = check(&schema, &serde_json::from_str(config).unwrap());
        faults.sort();
        let told: Vec<_> = faults.iter().map(|Fault { at, message }| format!("{at}: {message}")).collect();
        let told = told.join("; ");
        assert!(if expect.is_empty() { told.is_empty() } else { told.starts_with(expect) }, "{config}: {told}");
    }
}

#[test]
fn what_is_not_checked_is_named_and_what_is_no_schema_is_refused() {
    let (_, ignored) = parse(r#"{"properties": {"a": {"pattern": "x", "title": "A"}}, "oneOf": []}"#).unwrap();
    assert_eq!(ignored.into_iter().collect::<Vec<_>>(), ["oneOf", "pattern"]);
    let deep = (0..40).fold("true".to_owned(), |inner, _| format!(r#"{{"items": {inner}}}"#));
    for (schema, expect) in [
        ("{", "is not JSON"),
        ("7", "an object, true or false is expected"),
        (r#"{"type": "text"}"#, "wrong at \"/type\""),
        (r#"{"properties": {"a": {"required": "b"}}}"#, "wrong at \"/properties/a/required\""),
        (r#"{"items": 1}"#, "wrong at \"/items\""),
        (r#"{"maximum": "1"}"#, "a number is expected"),
        (deep.as_str(), "nested deeper than 32"),
    ] {
        let error = parse(schema).unwrap_err().to_string();
        assert!(error.contains(expect), "{schema}: {error}");
    }
}

#[test]
fn a_configuration_with_many_faults_is_told_some_of_them() {
    let (schema, _) = parse(r#"{"items": {"type": "string"}}"#).unwrap();
    let config = Value::Array(vec![Value::Null; 1_000]);
    assert_eq!(check(&schema, &config).len(), MAX_FAULTS);
}

//! Every manifest that is accepted can be stored, loaded, planned and told to proxies.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::tree;
use super::*;
use crate::registration::tests::lives;

/// Values that a field of another meaning may meet.
fn odd() -> impl Strategy<Value = Value> {
    let texts = vec![
        "a..b",
        "my.app",
        "A",
        "",
        "-a",
        "a\nb",
        "ü",
        "0.0.0.0",
        "::",
        "[::]:0",
        "10.0.0.1:15008",
        "99999h99999h",
        "99999h",
        "1h60m",
        "0s",
        "None",
        "http",
        "grpc",
        "tcp",
        "udp",
        "Deny",
        "Allow",
        "*",
        "/*",
        "/a",
        "GET",
        "host",
        "x-a",
        "spiffe://cluster.local/ns/a/sa/b",
        "a/b",
        "web",
        "shop",
    ];
    prop_oneof![
        4 => proptest::sample::select(texts).prop_map(|text| json!(text)),
        2 => any::<i64>().prop_map(|number| json!(number)),
        2 => (0_i64..70_000).prop_map(|number| json!(number)),
        1 => any::<String>().prop_map(|text| json!(text)),
        1 => proptest::sample::select(vec![json!(null), json!([]), json!({}), json!(true), json!([""]), json!(0.5)]),
    ]
}

/// Every place of a document, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let each = |key: String, value: &Value, found: &mut Vec<String>| {
        let place = format!("{at}/{key}");
        found.push(place.clone());
        places(value, &place, found);
    };
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| each(key.replace('~', "~0").replace('/', "~1"), value, found));
        }
        Value::Array(items) => items.iter().enumerate().for_each(|(n, value)| each(n.to_string(), value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn documents() -> Vec<Value> {
    tree::parse(ALL_KINDS).unwrap().into_iter().map(|tree| tree.value).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4_000) })]

    #[test]
    fn what_is_accepted_can_be_loaded_planned_and_told(
        document in proptest::sample::select(documents()),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), odd()), 0..3),
    ) {
        let mut document = document;
        for (index, value) in changes {
            let mut found = Vec::new();
            places(&document, "", &mut found);
            if let Some(place) = document.pointer_mut(index.get::<String>(&found)) {
                *place = value;
            }
        }
        for resource in from_json(document).unwrap_or_default() {
            lives(&resource, &[resource.key().object_name()])?;
        }
    }
}

/// How long a list becomes: few, and around the most that an object may have.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![0..40_usize, 1_000..MAX_ENTRIES, MAX_ENTRIES - 20..MAX_ENTRIES + 2]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    /// The same of long lists: what is taken as it is written is taken again as it is printed, where nothing is left out.
    #[test]
    fn what_is_long_and_accepted_can_be_loaded_planned_and_told(
        document in proptest::sample::select(documents()),
        place in any::<proptest::sample::Index>(),
        length in length(),
        bare in any::<bool>(),
    ) {
        let mut document = document;
        let mut found = Vec::new();
        places(&document["spec"], "/spec", &mut found);
        found.retain(|place| document.pointer(place).and_then(Value::as_array).is_some_and(|list| !list.is_empty()));
        if found.is_empty() {
            return Ok(());
        }
        let list = document.pointer_mut(place.get::<String>(&found)).and_then(Value::as_array_mut).unwrap();
        // An entry that says nothing is printed with everything that it means.
        let entry = if bare && list[0].is_object() { json!({}) } else { list[0].clone() };
        list.resize(length, entry);
        for resource in from_json(document).unwrap_or_default() {
            lives(&resource, &[resource.key().object_name()])?;
        }
    }
}

//! The body of a template: a tree in which a whole value may be `${NAME}`. Values are put in as they are, never into a text.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::parameter::is_name;

/// A place at which a parameter stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stand {
    /// Its key inside the body, as `limits.maxActiveRequests`.
    pub(super) at: String,
    pub(super) parameter: String,
}

/// The places of parameters.
pub(super) fn stands(body: &Map<String, Value>) -> Vec<Stand> {
    let mut stands = Vec::new();
    each_text(body, &mut |at, text| {
        if let Some(name) = parameter(text) {
            stands.push(Stand { at: at.to_owned(), parameter: name.to_owned() });
        }
    });
    stands
}

/// Texts that look like parameters and are none; keys are inside the body.
pub(super) fn misread(body: &Map<String, Value>) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    each_text(body, &mut |at, text| {
        if text.contains("${") && parameter(text).is_none() {
            let message = "a parameter is a whole value, \"${NAME}\", and no part of a text";
            wrong.push((at.to_owned(), format!("{:?}: {message}", crate::text::printable(text))));
        }
    });
    wrong
}

/// The tree with these values in the places of their parameters.
pub(super) fn filled(tree: &Value, values: &BTreeMap<&str, &Value>) -> Value {
    match tree {
        Value::String(text) => {
            let value = parameter(text).and_then(|name| values.get(name));
            value.map_or_else(|| tree.clone(), |value| (*value).clone())
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| filled(item, values)).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, value)| (key.clone(), filled(value, values))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => tree.clone(),
    }
}

/// The name in `${NAME}`.
fn parameter(text: &str) -> Option<&str> {
    text.strip_prefix("${")?.strip_suffix('}').filter(|name| is_name(name))
}

fn each_text(body: &Map<String, Value>, take: &mut dyn FnMut(&str, &str)) {
    for (key, value) in body {
        each_inside(key, value, take);
    }
}

fn each_inside(at: &str, value: &Value, take: &mut dyn FnMut(&str, &str)) {
    match value {
        Value::String(text) => take(at, text),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| each_inside(&format!("{at}[{index}]"), item, take));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| each_inside(&format!("{at}.{key}"), value, take));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

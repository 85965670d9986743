//! Checks a filter's configuration against the JSON Schema that its component carries: a small part of the language,
//! which says where a value is wrong. What is beyond that part is passed over and named, never guessed.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Keywords that are checked.
const CHECKED: [&str; 12] = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "enum",
    "const",
    "items",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "maxLength",
];
/// Keywords that restrict nothing.
const DESCRIBING: [&str; 9] =
    ["$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated", "format"];
/// A schema may be nested so deep.
const MAX_DEPTH: usize = 32;
/// So many faults of one configuration are told.
const MAX_FAULTS: usize = 16;

/// Why a text is no schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    #[error("the configuration schema is not JSON: {0}")]
    Json(String),
    #[error("the configuration schema is wrong at {at:?}: {expected} is expected")]
    Form { at: String, expected: &'static str },
    #[error("the configuration schema is nested deeper than {MAX_DEPTH}")]
    Deep,
}

/// A wrong place of a configuration: `limits[0].key`, empty for the whole, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    pub at: String,
    pub message: String,
}

/// Reads a schema and gives the keywords in it that are not checked.
///
/// # Errors
/// It is not a schema.
pub fn parse(text: &str) -> Result<(Value, BTreeSet<String>), SchemaError> {
    let schema: Value = serde_json::from_str(text).map_err(|error| SchemaError::Json(error.to_string()))?;
    let mut ignored = BTreeSet::new();
    examine(&schema, "", MAX_DEPTH, &mut ignored)?;
    Ok((schema, ignored))
}

fn examine(schema: &Value, at: &str, depth: usize, ignored: &mut BTreeSet<String>) -> Result<(), SchemaError> {
    if depth == 0 {
        return Err(SchemaError::Deep);
    }
    let form = |keyword: &str, expected| {
        let at = [at, keyword].join("/");
        Err(SchemaError::Form { at, expected })
    };
    let fields = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(fields) => fields,
        Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(SchemaError::Form { at: at.to_owned(), expected: "an object, true or false" });
        }
    };
    for (keyword, value) in fields {
        match keyword.as_str() {
            "type" if !types(value).is_some_and(|names| names.iter().all(|name| is_type(name))) => {
                return form(keyword, "a type of JSON, or a list of such");
            }
            "properties" => {
                let Value::Object(properties) = value else { return form(keyword, "an object") };
                for (name, property) in properties {
                    examine(property, &format!("{at}/properties/{name}"), depth - 1, ignored)?;
                }
            }
            "additionalProperties" | "items" => examine(value, &format!("{at}/{keyword}"), depth - 1, ignored)?,
            "required" if !value.as_array().is_some_and(|names| names.iter().all(Value::is_string)) => {
                return form(keyword, "a list of names");
            }
            "enum" if !value.is_array() => return form(keyword, "a list"),
            "minItems" | "maxItems" | "maxLength" if !value.is_u64() => return form(keyword, "a number from 0"),
            "minimum" | "maximum" if !value.is_number() => return form(keyword, "a number"),
            known if CHECKED.contains(&known) || DESCRIBING.contains(&known) => {}
            other => _ = ignored.insert(other.to_owned()),
        }
    }
    Ok(())
}

/// The names of the keyword `type`.
fn types(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(name) => Some(vec![name]),
        Value::Array(names) => names.iter().map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

fn is_type(name: &str) -> bool {
    matches!(name, "object" | "array" | "string" | "number" | "integer" | "boolean" | "null")
}

/// Everything that is wrong with a configuration by a schema that was parsed.
#[must_use]
pub fn check(schema: &Value, config: &Value) -> Vec<Fault> {
    let mut faults = Vec::new();
    value(schema, config, "", MAX_DEPTH, &mut faults);
    faults
}

fn value(schema: &Value, config: &Value, at: &str, depth: usize, faults: &mut Vec<Fault>) {
    let mut wrong = |message: String| {
        if faults.len() < MAX_FAULTS {
            faults.push(Fault { at: at.to_owned(), message });
        }
    };
    let fields = match schema {
        Value::Bool(false) => return wrong("nothing is expected here".to_owned()),
        Value::Object(fields) if depth > 0 => fields,
        Value::Bool(true) | Value::Object(_) | Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return;
        }
    };
    if let Some(names) = fields.get("type").and_then(types)
        && !names.iter().any(|name| is_of(name, config))
    {
        return wrong(format!("{} is expected, not {}", names.join(" or "), shown(config)));
    }
    if let Some(Value::Array(allowed)) = fields.get("enum")
        && !allowed.contains(config)
    {
        let allowed: Vec<_> = allowed.iter().map(Value::to_string).collect();
        return wrong(format!("{} is not one of {}", shown(config), allowed.join(", ")));
    }
    if let Some(wanted) = fields.get("const").filter(|wanted| *wanted != config) {
        return wrong(format!("{wanted} is expected, not {}", shown(config)));
    }
    match config {
        Value::Number(number) => bounds(fields, number.as_f64()).into_iter().for_each(wrong),
        Value::String(text) => {
            let most = fields.get("maxLength").and_then(Value::as_u64).unwrap_or(u64::MAX);
            if text.chars().count() as u64 > most {
                wrong(format!("the text has more than {most} characters"));
            }
        }
        Value::Array(items) => {
            let count = items.len() as u64;
            let limit = |keyword: &str| fields.get(keyword).and_then(Value::as_u64);
            if let Some(least) = limit("minItems").filter(|least| count < *least) {
                wrong(format!("{count} entries; at least {least} are expected"));
            }
            if let Some(most) = limit("maxItems").filter(|most| count > *most) {
                wrong(format!("{count} entries; at most {most} are taken"));
            }
            for (index, item) in items.iter().enumerate() {
                if let Some(schema) = fields.get("items") {
                    value(schema, item, &format!("{at}[{index}]"), depth - 1, faults);
                }
            }
        }
        Value::Object(given) => object(fields, given, at, depth, faults),
        Value::Null | Value::Bool(_) => {}
    }
}

fn object(schema: &Map<String, Value>, given: &Map<String, Value>, at: &str, depth: usize, faults: &mut Vec<Fault>) {
    let empty = Map::new();
    let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for name in required.filter(|name| !given.contains_key(*name)) {
        if faults.len() < MAX_FAULTS {
            faults.push(Fault { at: below(at, name), message: "is missing".to_owned() });
        }
    }
    for (name, inner) in given {
        match (known.get(name), schema.get("additionalProperties")) {
            (Some(schema), _) => value(schema, inner, &below(at, name), depth - 1, faults),
            (None, Some(Value::Bool(false))) => {
                if faults.len() < MAX_FAULTS {
                    let meant = crate::text::did_you_mean(name, known.keys().map(String::as_str));
                    faults.push(Fault { at: below(at, name), message: format!("there is no such field{meant}") });
                }
            }
            (None, Some(schema)) => value(schema, inner, &below(at, name), depth - 1, faults),
            (None, None) => {}
        }
    }
}

fn bounds(schema: &Map<String, Value>, number: Option<f64>) -> Option<String> {
    let limit = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
    let number = number?;
    if let Some(least) = limit("minimum").filter(|least| number < *least) {
        return Some(format!("{number} is less than {least}"));
    }
    let most = limit("maximum").filter(|most| number > *most)?;
    Some(format!("{number} is more than {most}"))
}

fn is_of(name: &str, value: &Value) -> bool {
    match value {
        Value::Null => name == "null",
        Value::Bool(_) => name == "boolean",
        Value::Number(number) => {
            let is_whole = number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|it| it.fract() == 0.0);
            name == "number" || (name == "integer" && is_whole)
        }
        Value::String(_) => name == "string",
        Value::Array(_) => name == "array",
        Value::Object(_) => name == "object",
    }
}

/// The place of a field.
fn below(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

/// The beginning of a value.
fn shown(value: &Value) -> String {
    const MOST: usize = 40;
    let text = value.to_string();
    match text.chars().count() > MOST {
        true => text.chars().take(MOST).chain(['…']).collect(),
        false => text,
    }
}

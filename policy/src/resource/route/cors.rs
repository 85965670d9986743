//! The CORS filter of a rule (GEP-1767), as the standard writes it.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::origin::OriginPattern;
use crate::resource::value;

/// Limits of the standard.
const MAX_ENTRIES: usize = 64;
const MAX_METHODS: usize = 16;
/// Seconds that browsers keep a preflight where nothing is said.
const MAX_AGE_S: u32 = 5;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CorsSpec {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_origins: Vec<OriginPattern>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
    #[serde(deserialize_with = "methods", skip_serializing_if = "Vec::is_empty")]
    pub allow_methods: Vec<String>,
    /// `*` has the form of a header's name.
    #[serde(deserialize_with = "value::header_names", skip_serializing_if = "Vec::is_empty")]
    pub allow_headers: Vec<String>,
    #[serde(deserialize_with = "value::header_names", skip_serializing_if = "Vec::is_empty")]
    pub expose_headers: Vec<String>,
    #[serde(rename = "maxAge", deserialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub max_age_s: Option<u32>,
}

impl CorsSpec {
    pub fn max_age_s(&self) -> u32 {
        self.max_age_s.unwrap_or(MAX_AGE_S)
    }

    /// What is wrong about its lists, each with its field.
    pub(super) fn check(&self) -> impl Iterator<Item = (&'static str, String)> {
        let origins: Vec<String> = self.allow_origins.iter().map(ToString::to_string).collect();
        let lists = [
            ("allowOrigins", list(&origins, MAX_ENTRIES)),
            ("allowMethods", list(&self.allow_methods, MAX_METHODS)),
            ("allowHeaders", list(&self.allow_headers, MAX_ENTRIES)),
            ("exposeHeaders", list(&self.expose_headers, MAX_ENTRIES)),
        ];
        lists.into_iter().filter_map(|(field, wrong)| Some((field, wrong?)))
    }
}

fn list(entries: &[String], most: usize) -> Option<String> {
    if entries.len() > most {
        return Some(format!("has {} entries; at most {most} are allowed", entries.len()));
    }
    if entries.len() > 1 && entries.iter().any(|entry| entry == "*") {
        return Some("\"*\" means all of them: it stands alone".to_owned());
    }
    let again = entries.iter().enumerate().find(|(index, entry)| entries[..*index].contains(entry));
    again.map(|(_, entry)| format!("{entry:?} is given twice"))
}

fn methods<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    struct Method(#[serde(deserialize_with = "method")] String);
    Ok(Vec::<Method>::deserialize(deserializer)?.into_iter().map(|method| method.0).collect())
}

fn method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let known = super::METHODS.into_iter().chain(["*"]);
    if known.clone().any(|method| method == text) {
        return Ok(text);
    }
    let meant = crate::text::did_you_mean(&text, super::METHODS);
    Err(D::Error::custom(format_args!("{text:?} is not one of {}{meant}", known.collect::<Vec<_>>().join(", "))))
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let number = i64::deserialize(deserializer)?;
    match i32::try_from(number).ok().and_then(|seconds| u32::try_from(seconds).ok()) {
        Some(seconds) if seconds > 0 => Ok(Some(seconds)),
        Some(_) | None => Err(D::Error::custom(format_args!("{number} is no number of seconds: 1 to {}", i32::MAX))),
    }
}

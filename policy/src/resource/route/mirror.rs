//! The RequestMirror filter of a rule or a backend, as the standard writes it.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Place, Referred, service};
use crate::resource::value;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MirrorSpec {
    pub backend_ref: MirrorRef,
    #[serde(default, deserialize_with = "percent", skip_serializing_if = "Option::is_none")]
    percent: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fraction: Option<Fraction>,
}

/// Where copies are sent: a backend without a weight and without filters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MirrorRef {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    group: String,
    #[serde(default = "service")]
    kind: String,
    #[serde(default, deserialize_with = "value::label_option", skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(deserialize_with = "value::object_name")]
    name: String,
    #[serde(default, deserialize_with = "value::port", skip_serializing_if = "value::is_default")]
    pub port: u16,
}

impl MirrorRef {
    pub(crate) fn referred(&self) -> Referred<'_> {
        Referred {
            group: &self.group,
            kind: &self.kind,
            place: Place::of(&self.group, &self.kind),
            is_mirror: true,
            namespace: self.namespace.as_deref(),
            name: &self.name,
            port: self.port,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fraction {
    #[serde(deserialize_with = "numerator")]
    numerator: u32,
    #[serde(default = "hundred", deserialize_with = "denominator")]
    denominator: u32,
}

fn hundred() -> u32 {
    100
}

impl MirrorSpec {
    /// So many of so many requests; all where nothing is said.
    pub(crate) fn share(&self) -> (u32, u32) {
        match (self.percent, self.fraction) {
            (Some(percent), _) => (percent, 100),
            (None, Some(Fraction { numerator, denominator })) => (numerator, denominator),
            (None, None) => (1, 1),
        }
    }

    /// What is wrong about its share.
    pub(super) fn check(&self) -> Option<String> {
        let above = self.fraction.filter(|fraction| fraction.numerator > fraction.denominator);
        match (self.percent, self.fraction, above) {
            (Some(_), Some(_), _) => Some("percent and fraction exclude each other".to_owned()),
            (_, _, Some(Fraction { numerator, denominator })) => {
                Some(format!("fraction: {numerator} of {denominator} is more than all"))
            }
            (_, _, None) => None,
        }
    }
}

fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    within(deserializer, 0, 100, "a percentage").map(Some)
}

fn numerator<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    within(deserializer, 0, i32::MAX.unsigned_abs(), "a numerator")
}

fn denominator<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    within(deserializer, 1, i32::MAX.unsigned_abs(), "a denominator")
}

fn within<'de, D: Deserializer<'de>>(deserializer: D, least: u32, most: u32, what: &str) -> Result<u32, D::Error> {
    let number = i64::deserialize(deserializer)?;
    let fits = u32::try_from(number).ok().filter(|number| (least..=most).contains(number));
    fits.ok_or_else(|| D::Error::custom(format_args!("{number} is not {what}: {least} to {most}")))
}

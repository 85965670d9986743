//! A parameter of a template: its type, its bounds, and whether a value fits.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::resource::value::parse_duration;
use crate::text::{did_you_mean, printable};

/// Characters of a text, and of a description.
const MAX_TEXT: usize = 256;
const MAX_DESCRIPTION: usize = 1_024;
/// Values that one may be of.
const MAX_VALUES: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParameterSpec {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: ParameterKind,
    /// Of an Enum.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// Absent: a policy that uses the template gives the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Of a Duration, an Integer and a Percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ParameterKind {
    /// As `15s`.
    Duration,
    /// 0 or more.
    Integer,
    /// A whole number from 0 to 100.
    Percent,
    String,
    Boolean,
    Enum,
}

/// `timeout`, `maxActive`: a letter, then letters, digits, '-' and '_'.
pub(super) fn is_name(name: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    name.len() <= 63 && name.starts_with(|first: char| first.is_ascii_alphabetic()) && name.bytes().all(rest)
}

impl ParameterKind {
    /// The number that a value of a type with an order means.
    fn measure(self, value: &Value) -> Option<u64> {
        match self {
            Self::Duration => value.as_str().and_then(parse_duration),
            Self::Integer => value.as_u64(),
            Self::Percent => value.as_u64().filter(|percent| *percent <= 100),
            Self::String | Self::Boolean | Self::Enum => None,
        }
    }

    fn is_measured(self) -> bool {
        match self {
            Self::Duration | Self::Integer | Self::Percent => true,
            Self::String | Self::Boolean | Self::Enum => false,
        }
    }

    /// What a value of it is.
    fn wanted(self) -> &'static str {
        match self {
            Self::Duration => "a duration such as 15s, 250ms or 1m30s",
            Self::Integer => "a whole number, 0 or more",
            Self::Percent => "a percentage: a whole number from 0 to 100",
            Self::String => "a text of 1 to 256 characters",
            Self::Boolean => "true or false",
            Self::Enum => "one of the texts that it may be",
        }
    }
}

impl ParameterSpec {
    /// Why a value is none of this parameter's.
    pub(super) fn misfit(&self, value: &Value) -> Option<String> {
        let unlike = || format!("{} is not {}", given(value), self.kind.wanted());
        match self.kind {
            ParameterKind::Duration | ParameterKind::Integer | ParameterKind::Percent => {
                let Some(measure) = self.kind.measure(value) else { return Some(unlike()) };
                let bound = |bound: &Option<Value>| bound.as_ref().and_then(|bound| self.kind.measure(bound));
                let is_inside = bound(&self.min).is_none_or(|min| min <= measure)
                    && bound(&self.max).is_none_or(|max| measure <= max);
                (!is_inside).then(|| format!("{} is out of range: {}", plain(value), self.range()))
            }
            ParameterKind::String => {
                let is_fit = |text: &str| !text.is_empty() && text.chars().count() <= MAX_TEXT;
                (!value.as_str().is_some_and(is_fit)).then(unlike)
            }
            ParameterKind::Boolean => (!value.is_boolean()).then(unlike),
            ParameterKind::Enum => {
                let Some(text) = value.as_str() else { return Some(unlike()) };
                let meant = || did_you_mean(text, self.values.iter().map(String::as_str));
                let known = self.values.iter().any(|known| known == text);
                (!known).then(|| format!("{} is not one of {}{}", given(value), self.values.join(", "), meant()))
            }
        }
    }

    fn range(&self) -> String {
        match (&self.min, &self.max) {
            (Some(min), Some(max)) => format!("{} to {}", plain(min), plain(max)),
            (Some(min), None) => format!("{} at least", plain(min)),
            (None, Some(max)) => format!("{} at most", plain(max)),
            (None, None) => "any".to_owned(),
        }
    }

    /// Everything that is wrong with it by itself; keys are inside the parameter.
    pub(super) fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        if !is_name(&self.name) {
            let shown = printable(&self.name);
            wrong.push((
                "name",
                format!("{shown:?} is not a name: a letter, then letters, digits, '-' and '_', at most 63"),
            ));
        }
        wrong.extend(self.check_values());
        for (key, bound) in [("min", &self.min), ("max", &self.max)] {
            let Some(bound) = bound else { continue };
            if !self.kind.is_measured() {
                wrong.push((key, format!("{:?} has no order: Duration, Integer and Percent have", self.kind)));
            } else if self.kind.measure(bound).is_none() {
                wrong.push((key, format!("{} is not {}", given(bound), self.kind.wanted())));
            }
        }
        let measured = |bound: &Option<Value>| bound.as_ref().and_then(|bound| self.kind.measure(bound));
        if let (Some(min), Some(max)) = (measured(&self.min), measured(&self.max))
            && min > max
        {
            wrong.push(("max", "is less than min".to_owned()));
        }
        let is_judged = wrong.is_empty();
        let default = self.default.as_ref().filter(|_| is_judged).and_then(|default| self.misfit(default));
        wrong.extend(default.map(|message| ("default", message)));
        if self.description.as_ref().is_some_and(|text| text.chars().count() > MAX_DESCRIPTION) {
            wrong.push(("description", format!("is longer than {MAX_DESCRIPTION} characters")));
        }
        wrong
    }

    fn check_values(&self) -> Option<(&'static str, String)> {
        let Self { kind, values, .. } = self;
        if *kind != ParameterKind::Enum {
            return (!values.is_empty())
                .then(|| ("values", format!("{kind:?} takes any: an Enum is one of some values")));
        }
        let twice = values.iter().enumerate().find(|(index, value)| values[..*index].contains(value));
        match values.len() {
            0 => Some(("values", "is missing: an Enum is one of some values".to_owned())),
            count if count > MAX_VALUES => Some(("values", format!("{count} values are more than {MAX_VALUES}"))),
            _ if values.iter().any(|value| value.is_empty() || value.chars().count() > MAX_TEXT) => {
                Some(("values", format!("a value is a text of 1 to {MAX_TEXT} characters")))
            }
            _ => twice.map(|(_, value)| ("values", format!("{:?} is given twice", printable(value)))),
        }
    }
}

/// A value in the words of errors.
fn given(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("{:?}", printable(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

/// A value with an order, as it was written.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

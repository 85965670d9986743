//! Numbers of a configuration file that don't fit their keys, all of them at once. The parser of a typed file stops at the
//! first, and its words name neither key nor bounds.

use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::text::printable;

/// A number's key, such as `limits.max_tokens` or `capture.exclude_ports[]` (each of a list), and its bounds.
pub type Bounds<'k> = (&'k str, RangeInclusive<u64>);

/// What is left of a file whose numbers don't fit.
#[derive(Debug)]
pub struct Misfits<T> {
    /// A sentence for each, which begins with its key.
    pub faults: Vec<String>,
    /// The file with numbers that fit in their place.
    pub mended: Result<T, String>,
}

impl<T: DeserializeOwned> Misfits<T> {
    /// Looks for them in the text of a file that could not be parsed; `None` where its numbers are not why.
    #[must_use]
    pub fn find<'k>(text: &str, bounds: impl IntoIterator<Item = Bounds<'k>>) -> Option<Self> {
        let mut file: Value = serde_saphyr::from_str(text).ok()?;
        let mut faults = Vec::new();
        for (key, bounds) in bounds {
            mend(&mut file, key, String::new(), &bounds, &mut faults);
        }
        if faults.is_empty() {
            return None;
        }
        Some(Self { faults, mended: serde_json::from_value(file).map_err(|error| error.to_string()) })
    }

    /// All that is wrong: the numbers, then what `others` finds in the rest, but for what it says of the same keys.
    pub fn with(self, others: impl FnOnce(T) -> Vec<String>) -> Vec<String> {
        let others = match self.mended {
            Ok(file) => others(file),
            // Its numbers and booleans may stand for texts, about which this parser is stricter.
            Err(error) => Some(error).filter(|error| error.starts_with("unknown field")).into_iter().collect(),
        };
        let mut faults = self.faults;
        let is_new = |told: &String| !faults.iter().any(|fault| key_of(fault) == key_of(told));
        let others: Vec<_> = others.into_iter().filter(is_new).collect();
        faults.extend(others);
        faults
    }
}

fn key_of(fault: &str) -> &str {
    fault.split(": ").next().unwrap_or_default()
}

/// Puts the least in the place of what doesn't fit.
fn mend(node: &mut Value, key: &str, mut path: String, bounds: &RangeInclusive<u64>, faults: &mut Vec<String>) {
    let (first, rest) = key.split_once('.').unwrap_or((key, ""));
    let (name, is_list) = first.strip_suffix("[]").map_or((first, false), |name| (name, true));
    let Some(value) = node.get_mut(name) else { return };
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
    let values: Vec<(String, &mut Value)> = match (is_list, value.is_array()) {
        (false, _) => vec![(path, value)],
        (true, false) => return,
        (true, true) => {
            let items = value.as_array_mut().into_iter().flatten().enumerate();
            items.map(|(index, item)| (format!("{path}[{index}]"), item)).collect()
        }
    };
    for (path, value) in values {
        match rest {
            "" if !fits(value, bounds) => {
                faults.push(format!("{path}: {} is not from {} to {}", shown(value), bounds.start(), bounds.end()));
                *value = Value::from(*bounds.start());
            }
            "" => {}
            rest => mend(value, rest, path, bounds, faults),
        }
    }
}

/// True for a number within the bounds, and for no value, where the default holds.
fn fits(value: &Value, bounds: &RangeInclusive<u64>) -> bool {
    match value {
        Value::Null => true,
        // Forms that YAML has and JSON has not, such as 0x10.
        Value::String(text) => serde_saphyr::from_str(text).is_ok_and(|number| bounds.contains(&number)),
        Value::Number(number) => number.as_u64().is_some_and(|number| bounds.contains(&number)),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{:?}", printable(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const BOUNDS: [Bounds<'static>; 4] =
        [("ports.api", 0..=65_535), ("ttl", 10..=60), ("skip[]", 0..=65_535), ("served[].port", 1..=65_535)];

    fn check(text: &str, expect: &[&str]) {
        let found = Misfits::<BTreeMap<String, Value>>::find(text, BOUNDS);
        assert_eq!(found.map(|found| found.faults).unwrap_or_default(), expect, "{text}");
    }

    #[test]
    fn each_that_does_not_fit_is_told_by_its_key_with_the_bounds() {
        check(
            "ports: {api: 99999}\nttl: -5\n",
            &["ports.api: 99999 is not from 0 to 65535", "ttl: -5 is not from 10 to 60"],
        );
        check(
            "skip: [1, 99999, 2, x]\n",
            &["skip[1]: 99999 is not from 0 to 65535", "skip[3]: \"x\" is not from 0 to 65535"],
        );
        check("served: [{port: 8080}, {port: 0}]\n", &["served[1].port: 0 is not from 1 to 65535"]);
        check("ttl: soon\n", &["ttl: \"soon\" is not from 10 to 60"]);
        check("ttl: 1.5\n", &["ttl: 1.5 is not from 10 to 60"]);
        check("ttl: [10]\nports: 7\n", &["ttl: a list is not from 10 to 60"]);
        check("ttl: 20\nports: {}\nskip: [0]\nother: -1\n", &[]);
        check("ttl: 0x10\n", &[]);
        check("ttl: [\n", &[]);
    }

    #[test]
    fn the_rest_is_told_with_them() {
        let found = Misfits::<BTreeMap<String, Value>>::find("ttl: 7\n", BOUNDS).unwrap();
        let told = found.with(|file| {
            assert_eq!(file["ttl"], 10);
            vec!["ttl: is odd".to_owned(), "ports: none".to_owned()]
        });
        assert_eq!(told, ["ttl: 7 is not from 10 to 60", "ports: none"]);
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            #[expect(dead_code, reason = "only parsed")]
            ttl: u64,
        }
        let told = Misfits::<File>::find("ttl: 7\ntll: 8\n", BOUNDS).unwrap().with(|_| unreachable!());
        assert_eq!(told, ["ttl: 7 is not from 10 to 60", "unknown field `tll`, expected `ttl`"]);
    }
}

//! `FilterPublisher`: keys whose filters the mesh runs, limited to some names. The keys of the Mesh's
//! `filterPublishers` are limited by none.

use serde::{Deserialize, Serialize};

use crate::statement::KeyId;

/// Keys of one publisher: the one in use, and those that it is replaced by.
const MAX_KEYS: usize = 16;
/// Names and patterns of one publisher.
const MAX_FILTERS: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterPublisherSpec {
    /// PEM public keys.
    pub keys: Vec<String>,
    /// Names of filters, or beginnings of names with `*` behind them.
    pub filters: Vec<String>,
}

impl FilterPublisherSpec {
    /// True where a filter of this name may be signed with this key.
    pub(crate) fn may_publish(&self, key: KeyId, filter: &str) -> bool {
        self.filters.iter().any(|pattern| is_named(pattern, filter))
            && self.keys.iter().any(|own| KeyId::of_pem(own) == Some(key))
    }

    /// Keys are inside `spec`.
    pub(super) fn check(&self) -> Vec<(String, String)> {
        let mut wrong: Vec<_> = unusable(&self.keys, "keys").collect();
        for (key, count, most) in [("keys", self.keys.len(), MAX_KEYS), ("filters", self.filters.len(), MAX_FILTERS)] {
            if !(1..=most).contains(&count) {
                wrong.push((key.to_owned(), format!("has {count} entries; 1 to {most} are allowed")));
            }
        }
        for (index, pattern) in self.filters.iter().enumerate().filter(|(_, pattern)| !is_pattern(pattern)) {
            let message = format!(
                "{pattern:?} is neither the name of a filter (lower-case letters, digits, '-' and '.', at most 253) nor the \
                 beginning of one with '*' behind it"
            );
            wrong.push((format!("filters[{index}]"), message));
        }
        wrong
    }
}

fn is_named(pattern: &str, filter: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => filter.starts_with(beginning),
        None => pattern == filter,
    }
}

fn is_pattern(pattern: &str) -> bool {
    let (beginning, is_whole) = match pattern.strip_suffix('*') {
        Some(beginning) => (beginning, false),
        None => (pattern, true),
    };
    let is_fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    beginning.len() <= 253 && beginning.bytes().all(is_fit) && !(is_whole && beginning.is_empty())
}

/// Keys that nobody could sign with, of the list at `at`.
pub(super) fn unusable(keys: &[String], at: &'static str) -> impl Iterator<Item = (String, String)> {
    let told = move |(index, _): (usize, &String)| {
        let message = "is no public key: PEM as `weft filter keygen` writes it into the .pub file is expected";
        (format!("{at}[{index}]"), message.to_owned())
    };
    keys.iter().enumerate().filter(|(_, key)| KeyId::of_pem(key).is_none()).map(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_beginnings_are_met() {
        let check = |pattern: &str, filter: &str, expect: bool| {
            assert!(is_pattern(pattern), "{pattern}");
            assert_eq!(is_named(pattern, filter), expect, "{pattern} {filter}");
        };
        check("acme-auth", "acme-auth", true);
        check("acme-auth", "acme-authz", false);
        check("acme-*", "acme-auth", true);
        check("acme-*", "acme-", true);
        check("acme-*", "acme", false);
        check("acme-*", "evil-acme-auth", false);
        check("*", "anything", true);
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        for pattern in ["", "a*b", "**", "*-auth", "Acme", "a/b", "a b"] {
            assert!(!is_pattern(pattern), "{pattern}");
        }
        let spec =
            FilterPublisherSpec { keys: vec!["PEM".to_owned()], filters: vec!["ok".to_owned(), "a*b".to_owned()] };
        let keys: Vec<String> = spec.check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["keys[0]", "filters[1]"]);
        let spec = FilterPublisherSpec { keys: Vec::new(), filters: vec!["a".to_owned(); 65] };
        let keys: Vec<String> = spec.check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["keys", "filters"]);
    }
}

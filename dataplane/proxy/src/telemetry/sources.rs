//! Names that callers give themselves, for metric labels: cleaned, and counted per identity, so that one peer can't
//! make as many series as it likes.

use std::collections::HashMap;

/// Longest label that a peer may have, in bytes.
const LONGEST: usize = 128;

/// Stands for what isn't told, or not acceptable.
const UNKNOWN: &str = "unknown";

/// A label told by a peer: of bounded length, of characters that names have; anything else is `unknown`.
#[must_use]
pub fn label(told: &str) -> &str {
    let of_names = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/:+@~".contains(&byte);
    if told.len() <= LONGEST && told.bytes().all(of_names) { told } else { UNKNOWN }
}

/// How many handles each identity has for each source that it named.
#[derive(Debug, Default)]
pub(super) struct Sources(HashMap<String, HashMap<String, usize>>);

impl Sources {
    /// True for a source that is known, or finds room.
    pub(super) fn admits(&self, identity: &str, names: &str, most: usize) -> bool {
        self.0.get(identity).is_none_or(|known| known.contains_key(names) || known.len() < most)
    }

    pub(super) fn enter(&mut self, identity: &str, names: &str) {
        *self.0.entry(identity.to_owned()).or_default().entry(names.to_owned()).or_default() += 1;
    }

    pub(super) fn leave(&mut self, identity: &str, names: &str) {
        let Some(known) = self.0.get_mut(identity) else { return };
        if let Some(handles) = known.get_mut(names) {
            *handles -= 1;
            if *handles == 0 {
                known.remove(names);
            }
        }
        if known.is_empty() {
            self.0.remove(identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_peers_are_names_or_unknown() {
        for good in ["", "reviews-1", "shop/reviews.v2", "v1.2.3+build_7".trim_end_matches("_7"), &"a".repeat(128)] {
            assert_eq!(label(good), good);
        }
        for bad in ["a b", "a\"b", "a\nb", "a{b}", "ü", "\u{1b}[2J", &"a".repeat(129), &"a".repeat(60_000)] {
            assert_eq!(label(bad), UNKNOWN);
        }
    }

    #[test]
    fn sources_are_counted_per_identity() {
        let mut sources = Sources::default();
        for names in ["a;;", "b;;"] {
            assert!(sources.admits("one", names, 2));
            sources.enter("one", names);
        }
        sources.enter("one", "b;;");
        assert!(!sources.admits("one", "c;;", 2), "no room");
        assert!(sources.admits("one", "a;;", 2), "known");
        assert!(sources.admits("other", "c;;", 2), "another identity");
        sources.leave("one", "b;;");
        assert!(!sources.admits("one", "c;;", 2), "still held once");
        sources.leave("one", "b;;");
        assert!(sources.admits("one", "c;;", 2));
        sources.leave("one", "a;;");
        assert!(sources.0.is_empty(), "nothing is kept of who has gone");
    }
}

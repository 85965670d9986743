//! The fields of a request as matches of routes look at them, and the other ways in which servers read them: the last of
//! several values, and `_` for `-` in names. Pure.

use http::{HeaderMap, HeaderValue};
use weft_policy::authz::is_alike;

/// Stands for a value that is no text: it is there, and no match names it.
const NO_TEXT: &str = "\u{fffd}";

/// A value as text.
pub(super) fn text(value: &HeaderValue) -> &str {
    std::str::from_utf8(value.as_bytes()).unwrap_or(NO_TEXT)
}

/// True where a field is there several times, or may be taken for another.
pub(super) fn has_readings(headers: &HeaderMap) -> bool {
    headers.len() != headers.keys_len() || headers.keys().any(|name| name.as_str().contains('_'))
}

/// The first value of a field, in whatever spelling of its name.
pub(super) fn first<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    spelled(headers, name).next()
}

/// The last.
pub(super) fn last<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    spelled(headers, name).last()
}

fn spelled<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    headers.iter().filter(move |(own, _)| is_alike(own.as_str(), name)).map(|(_, value)| text(value))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn what_is_there_twice_or_in_another_spelling_is_read_in_two_ways() {
        fn check(fields: &[(&'static str, &'static str)], expect: (bool, Option<&str>, Option<&str>)) {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            let got = (has_readings(&headers), first(&headers, "x-role"), last(&headers, "x-role"));
            assert_eq!(got, expect, "{fields:?}");
        }
        check(&[], (false, None, None));
        check(&[("x-role", "a"), ("x-other", "b")], (false, Some("a"), Some("a")));
        check(&[("x-role", "a"), ("x-role", "b"), ("x-role", "c")], (true, Some("a"), Some("c")));
        check(&[("x_role", "a")], (true, Some("a"), Some("a")));
        check(&[("x-role", "a"), ("x_role", "b")], (true, Some("a"), Some("b")));
        check(&[("x-role", "caf\u{e9}")], (false, Some("caf\u{e9}"), Some("caf\u{e9}")));
    }

    #[test]
    fn what_is_no_text_is_there_all_the_same() {
        assert_eq!(text(&HeaderValue::from_bytes(b"caf\xe9").unwrap()), NO_TEXT);
    }
}

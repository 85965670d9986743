//! The parameters of a query as rules see them, and the other ways in which servers read them: escapes decoded or not, a plus
//! for a space or not, the first of several values or the last.

use std::borrow::Cow;
use std::collections::BTreeSet;

/// One way to read a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueryReading {
    decoding: Decoding,
    /// Of several parameters with one name the last counts, not the first.
    last: bool,
    /// `;` parts parameters, too.
    semicolons: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decoding {
    /// `application/x-www-form-urlencoded`: escapes, and a plus is a space.
    Form,
    Percent,
    None,
}

impl QueryReading {
    /// The one that decides: of a form, and the first of several values, as the standard says.
    pub(super) const STANDARD: Self = Self { decoding: Decoding::Form, last: false, semicolons: false };

    /// The others that may find another value in this query.
    pub(super) fn others(query: &[u8]) -> Vec<Self> {
        let has = |byte: u8| query.contains(&byte);
        let mut decodings = vec![Decoding::Form];
        if has(b'+') && has(b'%') {
            decodings.push(Decoding::Percent);
        }
        if has(b'+') || has(b'%') {
            decodings.push(Decoding::None);
        }
        let semicolons: &[bool] = if has(b';') { &[false, true] } else { &[false] };
        let mut found = Vec::new();
        for semicolons in semicolons.iter().copied() {
            for decoding in decodings.iter().copied() {
                let reading = Self { decoding, last: false, semicolons };
                let orders: &[bool] = if reading.repeats(query) { &[false, true] } else { &[false] };
                found.extend(orders.iter().map(|last| Self { last: *last, ..reading }));
            }
        }
        found.retain(|reading| *reading != Self::STANDARD);
        found
    }

    /// The value of a parameter. One without `=` has an empty value.
    pub(super) fn value<'q>(self, query: &'q [u8], name: &str) -> Option<Cow<'q, [u8]>> {
        let mut found = self.parameters(query).filter(|(own, _)| **own == *name.as_bytes()).map(|(_, value)| value);
        if self.last { found.last() } else { found.next() }
    }

    fn repeats(self, query: &[u8]) -> bool {
        let mut names = BTreeSet::new();
        !self.parameters(query).all(|(name, _)| names.insert(name))
    }

    fn parameters(self, query: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
        let parts = query.split(move |byte| *byte == b'&' || self.semicolons && *byte == b';');
        parts.filter(|part| !part.is_empty()).map(move |part| {
            let at = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
            (self.decoding.decode(&part[..at]), self.decoding.decode(part.get(at + 1..).unwrap_or_default()))
        })
    }
}

impl Decoding {
    fn decode(self, text: &[u8]) -> Cow<'_, [u8]> {
        let has = |byte: u8| text.contains(&byte);
        match self {
            Self::Form if has(b'%') || has(b'+') => {
                let octet = |(octet, is_escaped): (u8, bool)| if octet == b'+' && !is_escaped { b' ' } else { octet };
                Cow::Owned(crate::path::octets(text).map(octet).collect())
            }
            Self::Percent if has(b'%') => Cow::Owned(crate::path::octets(text).map(|(octet, _)| octet).collect()),
            Self::Form | Self::Percent | Self::None => Cow::Borrowed(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_parameters() {
        let check = |query: &str, name: &str, expect: Option<&str>| {
            let found = QueryReading::STANDARD.value(query.as_bytes(), name);
            assert_eq!(found.as_deref(), expect.map(str::as_bytes), "{query} {name}");
        };
        check("animal=whale", "animal", Some("whale"));
        check("animal=whale", "ANIMAL", None);
        check("a=1&a=2", "a", Some("1"));
        check("&&b&a=", "b", Some(""));
        check("b&a=", "a", Some(""));
        check("a=1=2", "a", Some("1=2"));
        check("%61=%31+%2B", "a", Some("1 +"));
        check("a=%zz%4", "a", Some("%zz%4"));
        check("a=1;b=2", "a", Some("1;b=2"));
        check("a=%C3%A9", "a", Some("\u{e9}"));
    }

    #[test]
    fn what_servers_read_differently_has_other_readings() {
        let check = |query: &str, expect: &[Option<&str>]| {
            let readings = QueryReading::others(query.as_bytes());
            let found: Vec<_> = readings.iter().map(|reading| reading.value(query.as_bytes(), "a")).collect();
            let expect: Vec<_> = expect.iter().map(|value| value.map(|value| value.as_bytes().to_vec())).collect();
            assert_eq!(found.into_iter().map(|it| it.map(Cow::into_owned)).collect::<Vec<_>>(), expect, "{query}");
        };
        check("a=1&b=2", &[]);
        check("", &[]);
        check("a=%31", &[Some("%31")]);
        check("%61=1", &[None]);
        check("a=1+2", &[Some("1+2")]);
        check("a=%31+2", &[Some("1+2"), Some("%31+2")]);
        check("a=1&a=2", &[Some("2")]);
        check("a=1&b=2&b=3", &[Some("1")]);
        check("a=1;a=2", &[Some("1"), Some("2")]);
        // Two that are one after decoding: the last of both, and each alone.
        check("a=1&%61=2", &[Some("2"), Some("1")]);
    }
}

//! Session persistence of a rule (GEP-1619): requests of one session go to one endpoint, as long as that can take them.
//! A preference: a proxy that knows none of it carries the requests all the same.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::traffic::pairs;
use super::{Route, RouteAction};

/// How the requests of a rule say of which session they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Persistence {
    /// Of the cookie, case and all, or of the header field, in lower case.
    pub name: String,
    pub by: SessionToken,
    /// A session ends so long after it began. `None`: never by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute_ms: Option<u64>,
    /// A session ends where none of its requests came for so long. `None`: never by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
}

/// The place of a session's token in requests and answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionToken {
    Cookie {
        /// The paths below which a browser sends it.
        path: String,
        /// A browser keeps it until the session ends, also when it is closed. Only with `absolute_ms`.
        permanent: bool,
    },
    /// A field that the answer has, and that its client sends again.
    Header,
}

impl Route {
    /// True where one of its rules keeps sessions together.
    pub(crate) fn keeps_sessions(&self) -> bool {
        self.actions().any(|action| matches!(action, RouteAction::Persistence(_)))
    }
}

impl Persistence {
    /// The token of a request. `fields`: the values of a header field, in order.
    pub fn find<'r, F: Iterator<Item = &'r [u8]>>(&self, fields: impl FnOnce(&str) -> F) -> Option<&'r [u8]> {
        match &self.by {
            SessionToken::Header => fields(&self.name).next(),
            SessionToken::Cookie { .. } => {
                fields("cookie").flat_map(pairs).find(|pair| pair.0 == self.name.as_bytes()).map(|pair| pair.1)
            }
        }
    }
}

impl fmt::Display for Persistence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.by {
            SessionToken::Cookie { path, permanent } => {
                let kind = if *permanent { "permanent cookie" } else { "cookie" };
                write!(f, "by {kind} {} of {path}", self.name)?;
            }
            SessionToken::Header => write!(f, "by header {}", self.name)?,
        }
        let duration = crate::text::duration_text;
        if let Some(ms) = self.absolute_ms {
            write!(f, ", for {}", duration(ms))?;
        }
        self.idle_ms.map_or(Ok(()), |ms| write!(f, ", until none came for {}", duration(ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_where_its_rule_says() {
        fn check(by: SessionToken, values: &[&str], expect: Option<&str>) {
            let persistence = Persistence { name: "sid".to_owned(), by, absolute_ms: None, idle_ms: Some(60_000) };
            let found = persistence.find(|_| values.iter().map(|value| value.as_bytes()));
            assert_eq!(found, expect.map(str::as_bytes), "{persistence} in {values:?}");
        }
        let cookie = || SessionToken::Cookie { path: "/".to_owned(), permanent: false };
        check(cookie(), &["a=1; sid=x", "sid=y"], Some("x"));
        check(cookie(), &["Sid=x; sids=y"], None);
        check(cookie(), &[], None);
        check(SessionToken::Header, &["x", "y"], Some("x"));
        check(SessionToken::Header, &[], None);
    }
}

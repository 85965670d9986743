//! Origins of web pages, as a rule allows them: `*` for all, or scheme, host and port, where `*` as the host or as its first
//! label stands for whatever is to the left. An origin is compared as a whole; what is no origin meets `*` only.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::identity::is_subdomain;

/// The origins that one entry of a rule allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OriginPattern {
    text: String,
    means: Means,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Means {
    Any,
    Some { is_https: bool, host: Host, port: u16 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Any,
    /// Ends with this, which begins with a dot, and has something before it.
    Below(String),
    Exact(String),
}

/// A text that means no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an origin: *, or http:// or https:// with a host in lower case, which may begin with \"*.\", and a port"
)]
pub struct NotAnOrigin(String);

impl OriginPattern {
    /// True where it allows every origin.
    pub fn is_any(&self) -> bool {
        self.means == Means::Any
    }

    /// True for the value of an `Origin` that it allows.
    pub fn allows(&self, origin: &str) -> bool {
        let (is_https, host, port) = match &self.means {
            Means::Any => return true,
            Means::Some { is_https, host, port } => (*is_https, host, *port),
        };
        let Some(given) = Parts::of(origin) else { return false };
        given.is_https == is_https && given.port == port && host.allows(given.host)
    }
}

impl Host {
    fn allows(&self, given: &str) -> bool {
        let is_label = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        };
        match self {
            Self::Any => is_label(given) || is_address(given),
            Self::Exact(host) => given.eq_ignore_ascii_case(host),
            Self::Below(end) => given
                .len()
                .checked_sub(end.len())
                .and_then(|at| given.split_at_checked(at))
                .is_some_and(|(left, right)| right.eq_ignore_ascii_case(end) && is_label(left)),
        }
    }
}

/// An IPv6 address in brackets.
fn is_address(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    bare.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

/// Scheme, host and port of an origin; without a port it is the scheme's own.
struct Parts<'o> {
    is_https: bool,
    host: &'o str,
    port: u16,
}

impl<'o> Parts<'o> {
    fn of(text: &'o str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (is_https, own) = match scheme {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return None,
        };
        let (host, port) = match rest.rsplit_once(':') {
            // The last colon of an address is inside its brackets.
            Some((host, port)) if !port.ends_with(']') => (host, number(port)?),
            Some(_) | None => (rest, own),
        };
        Some(Self { is_https, host, port })
    }
}

fn number(text: &str) -> Option<u16> {
    let is_written_so = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| is_written_so)
}

impl FromStr for OriginPattern {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NotAnOrigin(text.to_owned());
        if text == "*" {
            return Ok(Self { text: text.to_owned(), means: Means::Any });
        }
        let Parts { is_https, host, port } = Parts::of(text).ok_or_else(wrong)?;
        let host = match host.strip_prefix("*.") {
            _ if host == "*" => Host::Any,
            Some(end) if is_subdomain(end) => Host::Below(format!(".{end}")),
            None if is_subdomain(host) || is_address(host) => Host::Exact(host.to_owned()),
            Some(_) | None => return Err(wrong()),
        };
        Ok(Self { text: text.to_owned(), means: Means::Some { is_https, host, port } })
    }
}

impl TryFrom<String> for OriginPattern {
    type Error = NotAnOrigin;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<OriginPattern> for String {
    fn from(pattern: OriginPattern) -> Self {
        pattern.text
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

//! The place of a store as an operator writes it, `etcd://HOST:PORT,HOST:PORT/PREFIX`, and how to get in there.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Where a store is: members of one etcd, and the prefix of its keys there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Each `HOST:PORT`.
    pub members: Vec<String>,
    /// Without slashes around it.
    pub prefix: String,
}

/// Why a text names no store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    #[error("{0:?} is no etcd://HOST:PORT,HOST:PORT/PREFIX")]
    Scheme(String),
    #[error("{0:?}: {1:?} is no HOST:PORT")]
    Member(String, String),
    #[error("{0:?}: prefix {1:?}: letters, digits, '-', '_', '.' and '/' between them, at most 128")]
    Prefix(String, String),
}

const SCHEME: &str = "etcd://";
const PREFIX: &str = "weft";
const MAX_PREFIX: usize = 128;

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| LocationError::Scheme(text.to_owned()))?;
        let (members, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let parsed: Vec<_> = members.split(',').map(|member| member.trim().to_owned()).collect();
        for member in &parsed {
            let port = member.rsplit_once(':').filter(|(host, _)| is_host(host));
            if port.and_then(|(_, port)| port.parse::<u16>().ok()).is_none_or(|port| port == 0) {
                return Err(LocationError::Member(text.to_owned(), member.clone()));
            }
        }
        let prefix = if prefix.trim_matches('/').is_empty() { PREFIX } else { prefix.trim_matches('/') };
        let is_part = |part: &str| {
            let is_good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && part.chars().all(is_good)
        };
        if prefix.len() > MAX_PREFIX || !prefix.split('/').all(is_part) {
            return Err(LocationError::Prefix(text.to_owned(), prefix.to_owned()));
        }
        Ok(Self { members: parsed, prefix: prefix.to_owned() })
    }
}

/// A name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[') {
        return address.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let is_label = |label: &str| {
        let is_good = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        !label.is_empty() && label.len() <= 63 && label.chars().all(is_good)
    };
    text.len() <= 253 && text.trim_end_matches('.').split('.').all(is_label)
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.members.join(","), self.prefix)
    }
}

/// How a store in etcd is reached.
#[derive(Clone)]
pub struct EtcdOptions {
    pub members: Vec<String>,
    pub prefix: String,
    /// `None`: in clear text.
    pub tls: Option<EtcdTls>,
    /// Name and password, where etcd asks for them.
    pub user: Option<(String, String)>,
}

/// TLS to etcd, all in PEM.
#[derive(Clone)]
pub struct EtcdTls {
    pub ca: String,
    /// Certificate and key that this process shows.
    pub identity: Option<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_mistakes_named() {
        let read = |text: &str| text.parse::<Location>().map(|location| location.to_string());
        assert_eq!(read("etcd://a:2379").unwrap(), "etcd://a:2379/weft");
        assert_eq!(read("etcd://a:1, [::1]:2/x/y-1/").unwrap(), "etcd://a:1,[::1]:2/x/y-1");
        let refused = |text: &str| read(text).unwrap_err().to_string();
        assert_eq!(refused("redis://a:1"), "\"redis://a:1\" is no etcd://HOST:PORT,HOST:PORT/PREFIX");
        assert_eq!(read("etcd://a-1.b_2.:1,10.0.0.1:2").unwrap(), "etcd://a-1.b_2.:1,10.0.0.1:2/weft");
        for wrong in [
            "etcd://",
            "etcd://a",
            "etcd://a:0",
            "etcd://a:70000",
            "etcd://a:1,,b:2",
            "etcd://u@a:1",
            "etcd://http://a:1",
            "etcd://a:b:1",
            "etcd://[::1:1",
            "etcd://[a]:1",
            "etcd://::1:1",
            "etcd://a..b:1",
            "etcd://a?b:1",
        ] {
            assert!(refused(wrong).contains("is no HOST:PORT"), "{wrong}: {}", refused(wrong));
        }
        assert!(refused("etcd://a:1/x//y").contains("prefix \"x//y\""), "{}", refused("etcd://a:1/x//y"));
    }
}

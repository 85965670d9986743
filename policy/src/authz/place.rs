//! Where requests come from and which host they ask for, as rules name it.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::identity::is_subdomain;

/// So many blocks or hosts one list of a rule names at the most: a request may have to be compared with all of them.
pub(super) const MOST: usize = 256;

/// A block of addresses, or a single one.
///
/// # Errors
/// Why it is none.
pub(crate) fn block(text: &str) -> Result<IpNet, String> {
    let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let block = parsed.map_err(|_| format!("{text:?} is not a block of addresses, as in 10.0.0.0/8"))?;
    if block.addr() != block.network() {
        return Err(format!("{text:?} has bits behind its prefix; the block that it lies in is {}", block.trunc()));
    }
    match block {
        IpNet::V6(own) if own.addr().to_ipv4_mapped().is_some() => {
            Err(format!("{text:?} is a block of IPv4 addresses, which are compared as such"))
        }
        IpNet::V4(_) | IpNet::V6(_) => Ok(block),
    }
}

/// A host, as a rule names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Exact(String),
    /// `*.example`: every name below `example`; kept as `.example`.
    Below(String),
}

impl Host {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix("*.");
        if !is_subdomain(name.unwrap_or(text)) {
            return Err(format!("{text:?} is not a host: a name in lower case without a port, or `*.` and a name"));
        }
        Ok(match name {
            Some(name) => Self::Below(format!(".{name}")),
            None => Self::Exact(text.to_owned()),
        })
    }

    pub(super) fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == host,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }

    /// What a host is looked up by; see [`keys_of`].
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Exact(key) | Self::Below(key) => key,
        }
    }
}

/// The keys of all patterns that a host may meet: itself, and each of its ends that begins with a dot.
pub(super) fn keys_of(host: &str) -> impl Iterator<Item = &str> {
    std::iter::once(host).chain(host.match_indices('.').map(move |(at, _)| &host[at..]))
}

/// The host of an authority as rules compare it: in lower case, without the port and without the dot at its end. `None`
/// where it is empty or no plain host.
pub(super) fn host_of(authority: &str) -> Option<Cow<'_, str>> {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        Some(_) | None => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() || host.ends_with('.') || host.contains(['@', '%']) {
        return None;
    }
    Some(match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(host.to_ascii_lowercase()),
        false => Cow::Borrowed(host),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_authorities() {
        fn check(authority: &str, expect: Option<&str>) {
            assert_eq!(host_of(authority).as_deref(), expect, "{authority}");
        }
        check("shop.example", Some("shop.example"));
        check("Shop.Example:8080", Some("shop.example"));
        check("shop.example.", Some("shop.example"));
        check("shop.example.:80", Some("shop.example"));
        check("shop.example..", None);
        check("10.0.0.1:80", Some("10.0.0.1"));
        check("[fd00::1]", Some("[fd00::1]"));
        check("[FD00::1]:80", Some("[fd00::1]"));
        for none in ["", ".", ":80", "user@shop.example", "shop%2eexample"] {
            check(none, None);
        }
    }

    #[test]
    fn keys_find_the_patterns_that_match() {
        let patterns = ["shop.example", "*.example", "*.shop.example", "example", "*.ample"];
        for host in ["shop.example", "a.shop.example", "example", "shop.example.org", "xshop.example", "[::1]"] {
            for pattern in patterns.map(|text| Host::parse(text).unwrap()) {
                let is_found = keys_of(host).any(|key| key == pattern.key());
                assert!(is_found || !pattern.matches(host), "{pattern:?} {host}");
            }
        }
        assert!(Host::parse("*.example").unwrap().matches("a.b.example"));
        assert!(!Host::parse("*.example").unwrap().matches("example"));
    }
}

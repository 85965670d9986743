//! Origin of an application's connection, and the destination it meant.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::Version;
use http::uri::Authority;
use weft_policy::route::Meant;
use weft_transport::http::RequestHead;

use crate::apps::Holder;
use crate::reply::Failure;
use crate::snapshot::{Served, Snapshot};

/// An application's connection.
#[derive(Debug, Clone)]
pub struct Origin {
    pub peer: SocketAddr,
    /// The address by which the served workload is told whose app this is: the one that the app calls from (captured), or
    /// the proxy's that it called.
    pub app: IpAddr,
    /// The destination before redirection, or the target of a CONNECT; `None` on the forward proxy, where each request
    /// names its own.
    pub target: Option<Target>,
}

impl Origin {
    /// Whom its connections out of the mesh are counted for.
    pub(super) fn holder(&self) -> Holder {
        Holder::App(self.peer.ip().to_canonical())
    }

    /// The workload whose app this is.
    ///
    /// # Errors
    /// None of those that this proxy serves, or one whose app may send nothing.
    pub(super) fn workload<'s>(&self, snapshot: &'s Snapshot) -> Result<&'s Served, Failure> {
        let served = snapshot.app_at(self.app).ok_or_else(|| Failure::NotServed(self.app.to_string()))?;
        match &served.workload.outbound_closed {
            None => Ok(served),
            Some(why) => Err(Failure::OutboundClosed(why.clone())),
        }
    }
}

impl Origin {
    /// Gives a request of HTTP/1.0 without Host the one by which its connection meant its destination: the app is asked in
    /// HTTP/1.1, which has it.
    //= rfc9112#section-3.3
    pub(super) fn name_host(&self, head: &mut RequestHead) {
        if head.version == Version::HTTP_10 && head.authority.is_none() {
            head.authority = self.target.as_ref().and_then(Target::authority);
        }
    }
}

/// Destination that a connection meant to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Address(SocketAddr),
    Name { host: String, port: u16 },
}

impl Target {
    /// The target of a CONNECT, which must name a port (RFC 9110 section 9.3.6).
    pub fn of_connect(authority: &Authority) -> Option<Target> {
        let port = authority.port_u16()?;
        Some(Target::of(authority.host(), port))
    }

    /// The target that an authority names; port 80 where it names none.
    pub fn of_authority(authority: &Authority) -> Target {
        Target::of(authority.host(), authority.port_u16().unwrap_or(80))
    }

    fn of(host: &str, port: u16) -> Target {
        match host.trim_matches(['[', ']']).parse() {
            Ok(ip) => Target::Address(SocketAddr::new(ip, port)),
            Err(_) => Target::Name { host: host.to_owned(), port },
        }
    }

    /// How a client that goes there names it, as `Host` has it: port 80 is understood.
    pub(super) fn authority(&self) -> Option<Authority> {
        let named = self.to_string();
        named.strip_suffix(":80").unwrap_or(&named).parse().ok()
    }

    pub(super) fn meant(&self) -> Meant<'_> {
        match self {
            Target::Address(address) => Meant::Address(*address),
            Target::Name { host, port } => Meant::Name { host, port: *port },
        }
    }

    pub fn port(&self) -> u16 {
        match self {
            Target::Address(address) => address.port(),
            Target::Name { port, .. } => *port,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Address(address) => address.fmt(f),
            Target::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;

    #[test]
    fn a_request_without_host_gets_that_of_its_connection() {
        let check = |target: Option<&str>, version: Version, said: Option<&str>, expect: Option<&str>| {
            let target = target.map(|text| Target::of_connect(&text.parse().unwrap()).unwrap());
            let peer = SocketAddr::from(([127, 0, 0, 1], 4_000));
            let origin = Origin { peer, app: peer.ip(), target };
            let mut head = RequestHead {
                method: Method::GET,
                authority: said.map(|text| text.parse().unwrap()),
                path: Some("/".parse().unwrap()),
                protocol: None,
                headers: HeaderMap::new(),
                version,
            };
            origin.name_host(&mut head);
            assert_eq!(head.authority.as_ref().map(Authority::as_str), expect, "{:?}", origin.target);
        };
        let (old, new) = (Version::HTTP_10, Version::HTTP_11);
        check(Some("10.0.0.1:8080"), old, None, Some("10.0.0.1:8080"));
        check(Some("10.0.0.1:80"), old, None, Some("10.0.0.1"));
        check(Some("[fd00::1]:80"), old, None, Some("[fd00::1]"));
        check(Some("web.shop:8080"), old, None, Some("web.shop:8080"));
        check(Some("web.shop:8080"), old, Some("other"), Some("other"));
        check(Some("web.shop:8080"), new, None, None);
        check(None, old, None, None);
    }
}

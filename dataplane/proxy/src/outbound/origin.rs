//! Where an application's connection came from and where it meant to go.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::uri::Authority;
use weft_policy::route::Meant;

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
    /// The workload whose app this is.
    ///
    /// # Errors
    /// None of those that this proxy serves.
    pub(super) fn workload<'s>(&self, snapshot: &'s Snapshot) -> Result<&'s Served, Failure> {
        snapshot.app_at(self.app).ok_or_else(|| Failure::NotServed(self.app.to_string()))
    }
}

/// Where a connection meant to go.
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

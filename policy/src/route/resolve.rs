//! Destination of a request: a service, one of its endpoints, out of the mesh, or nowhere. The law of egress lives
//! here: a name that only the mesh could mean never leaves it.

use std::net::{IpAddr, SocketAddr};

use super::{Resolved, RouteTable};
use crate::bundle::{Egress, MeshSettings};

/// Destination that a connection meant to reach, before any request was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meant<'a> {
    /// To the proxy itself: each request names its destination (forward proxy).
    Nothing,
    /// The address before redirection, or an address in CONNECT.
    Address(SocketAddr),
    /// A name in CONNECT.
    Name { host: &'a str, port: u16 },
}

/// The authority of a request: its target's, or its Host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// A name, or an address (IPv6 with or without its brackets).
    pub host: &'a str,
    /// 80 where it is absent and the connection meant no port.
    pub port: Option<u16>,
}

/// Kind of a destination: in the mesh, outside it, refused or unknown.
#[derive(Debug, Clone, Copy)]
pub enum Resolution<'t> {
    /// A service of the mesh or one of its endpoints.
    Mesh(Resolved<'t>),
    /// Nothing of the mesh, and it may be reached.
    Outside,
    /// Nothing of the mesh, and it may not be reached.
    Refused(EgressRefusal),
    /// This proxy does not know yet; a proxy that holds only what it uses asks for it.
    Unknown,
}

/// Why a request does not leave the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EgressRefusal {
    #[error("the request has no Host or :authority")]
    NoAuthority,
    #[error("no service has this name: it is misspelt, or the service was deleted")]
    NoSuchService,
    #[error("it is no service of the mesh, whose egress is RegistryOnly")]
    RegistryOnly,
}

impl EgressRefusal {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::NoAuthority => 400,
            Self::NoSuchService => 502,
            Self::RegistryOnly => 403,
        }
    }
}

/// Resolves what the applications of one namespace ask for.
#[derive(Clone, Copy)]
pub struct Resolver<'a, 't> {
    pub table: &'t RouteTable,
    pub mesh: &'a MeshSettings,
    /// The namespace of the caller.
    pub from_namespace: &'a str,
    /// True for a name that the machine itself knows (`/etc/hosts`), given in lower case without a dot at its end.
    pub is_local: &'a dyn Fn(&str) -> bool,
}

/// Place to which a name belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Belongs {
    /// Only the mesh could mean it.
    Mesh,
    /// One label: the mesh could mean it, or the search list of the machine.
    Label,
    Outside,
}

impl<'t> Resolver<'_, 't> {
    /// The destination of a request: where its connection meant to go, and where that is nothing of the mesh what its
    /// authority says.
    pub fn resolve(&self, meant: Meant<'_>, authority: Option<Authority<'_>>) -> Resolution<'t> {
        if meant == Meant::Nothing {
            let Some(Authority { host, port }) = authority.filter(|authority| !authority.host.is_empty()) else {
                return Resolution::Refused(EgressRefusal::NoAuthority);
            };
            return self.host(host, port.unwrap_or(80));
        }
        let connection = self.connection(meant);
        if !matches!(connection, Resolution::Outside | Resolution::Refused(EgressRefusal::RegistryOnly)) {
            return connection;
        }
        let port = match meant {
            Meant::Address(address) => address.port(),
            Meant::Name { port, .. } => port,
            Meant::Nothing => 80,
        };
        let Some(host) = authority.map(|authority| authority.host) else { return connection };
        match self.table.by_host(host, port, self.from_namespace) {
            Some(resolved) => Resolution::Mesh(resolved),
            // The connection goes where it meant to; a request for a service that is gone does not go along.
            None if self.belongs(host) == Belongs::Mesh => Resolution::Refused(EgressRefusal::NoSuchService),
            None => connection,
        }
    }

    /// The destination of a connection that is not looked into.
    pub fn connection(&self, meant: Meant<'_>) -> Resolution<'t> {
        match meant {
            Meant::Nothing => Resolution::Refused(EgressRefusal::NoAuthority),
            Meant::Address(address) => match self.table.by_address(address, self.from_namespace) {
                Some(resolved) => Resolution::Mesh(resolved),
                None => self.outside(),
            },
            Meant::Name { host, port } => self.host(host, port),
        }
    }

    fn host(&self, host: &str, port: u16) -> Resolution<'t> {
        if let Some(resolved) = self.table.by_host(host, port, self.from_namespace) {
            return Resolution::Mesh(resolved);
        }
        match self.belongs(host) {
            Belongs::Mesh | Belongs::Label => Resolution::Refused(EgressRefusal::NoSuchService),
            Belongs::Outside => self.outside(),
        }
    }

    fn outside(&self) -> Resolution<'t> {
        match self.mesh.egress {
            Egress::Allow => Resolution::Outside,
            Egress::RegistryOnly => Resolution::Refused(EgressRefusal::RegistryOnly),
        }
    }

    /// Place to which a name belongs if no service has it.
    fn belongs(&self, host: &str) -> Belongs {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if bare.parse::<IpAddr>().is_ok() {
            return Belongs::Outside;
        }
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if name == "localhost" || (self.is_local)(&name) {
            return Belongs::Outside;
        }
        let under = |suffix: &str| name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        if under("svc.cluster.local") || under("mesh.local") {
            return Belongs::Mesh;
        }
        let mut labels = name.splitn(3, '.');
        match (labels.next(), labels.next(), labels.next()) {
            (_, None, _) => Belongs::Label,
            (_, Some(_), Some("svc")) => Belongs::Mesh,
            (_, Some(namespace), None) if self.knows_namespace(namespace) => Belongs::Mesh,
            _ => Belongs::Outside,
        }
    }

    fn knows_namespace(&self, namespace: &str) -> bool {
        self.mesh.namespaces.contains(namespace) || self.table.by_name.contains_key(namespace)
    }
}

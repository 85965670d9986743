//! Destination of a request: a service, one of its endpoints, out of the mesh, or nowhere. The law of egress lives
//! here: a name that only the mesh could mean never leaves it.

use std::net::{IpAddr, SocketAddr};

use super::{Resolved, RouteTable, WayOut};
use crate::bundle::{Egress, MeshSettings, ObjectName};
use crate::host::{bare, is_under, plain};
use crate::identity::is_label;
use crate::scope::Ask;

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
#[derive(Debug, Clone)]
pub enum Resolution<'t> {
    /// A service of the mesh or one of its endpoints.
    Mesh(Resolved<'t>),
    /// Nothing of the mesh, and an ExternalService says how it is reached.
    External(WayOut<'t>),
    /// Nothing of the mesh, and it may be reached.
    Outside,
    /// Nothing of the mesh, and it may not be reached.
    Refused(EgressRefusal),
    /// This proxy does not know yet: it holds only what it uses, and asks for this.
    Unknown(Ask),
}

/// Why a request does not leave the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EgressRefusal {
    #[error("the request has no Host or :authority")]
    NoAuthority,
    #[error("no service has this name: it is misspelt, or the service was deleted")]
    NoSuchService,
    #[error("it is no service of the mesh, whose egress is RegistryOnly, and no ExternalService is for it")]
    RegistryOnly,
    #[error("the connection goes to an ExternalService that is not for the host of the request")]
    OtherHost,
}

impl EgressRefusal {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::NoAuthority => 400,
            Self::NoSuchService => 502,
            Self::RegistryOnly => 403,
            //= rfc9110#section-15.5.20
            Self::OtherHost => 421,
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

/// What the table says of a name or an address.
enum Found<'t> {
    Mesh(Resolved<'t>),
    /// No service has it.
    Nothing,
    Unknown(Ask),
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
        match connection {
            Resolution::External(_) | Resolution::Outside | Resolution::Refused(EgressRefusal::RegistryOnly) => {}
            Resolution::Mesh(_) | Resolution::Unknown(_) | Resolution::Refused(_) => return connection,
        }
        let port = match meant {
            Meant::Address(address) => address.port(),
            Meant::Name { port, .. } => port,
            Meant::Nothing => 80,
        };
        let Some(host) = authority.map(|authority| authority.host) else { return connection };
        match self.find(host, port) {
            Found::Mesh(resolved) => Resolution::Mesh(resolved),
            Found::Unknown(ask) => Resolution::Unknown(ask),
            // The connection goes where it meant to; a request for a service that is gone does not go along.
            Found::Nothing if self.belongs(host) == Belongs::Mesh => Resolution::Refused(EgressRefusal::NoSuchService),
            Found::Nothing => {
                // Who dials an address has looked a name up that says more.
                let is_address = matches!(meant, Meant::Address(_));
                let named = is_address.then(|| self.table.external(host, port, self.from_namespace)).flatten();
                let met = named.map_or(connection, Resolution::External);
                // The server proves the name that was dialled: it is not asked for another behind it.
                let is_of_another = matches!(&met, Resolution::External(way) if !way.is_for(host));
                if is_of_another { Resolution::Refused(EgressRefusal::OtherHost) } else { met }
            }
        }
    }

    /// The destination of a connection that is not looked into.
    pub fn connection(&self, meant: Meant<'_>) -> Resolution<'t> {
        match meant {
            Meant::Nothing => Resolution::Refused(EgressRefusal::NoAuthority),
            Meant::Address(address) => match self.at(address) {
                Found::Mesh(resolved) => Resolution::Mesh(resolved),
                Found::Unknown(ask) => Resolution::Unknown(ask),
                Found::Nothing => self.outside(self.table.external_at(address, self.from_namespace)),
            },
            Meant::Name { host, port } => self.host(host, port),
        }
    }

    fn host(&self, host: &str, port: u16) -> Resolution<'t> {
        match self.find(host, port) {
            Found::Mesh(resolved) => Resolution::Mesh(resolved),
            Found::Unknown(ask) => Resolution::Unknown(ask),
            Found::Nothing => match self.belongs(host) {
                Belongs::Mesh | Belongs::Label => Resolution::Refused(EgressRefusal::NoSuchService),
                Belongs::Outside => self.outside(self.table.external(host, port, self.from_namespace)),
            },
        }
    }

    /// By a name or an address.
    fn find(&self, host: &str, port: u16) -> Found<'t> {
        if let Ok(address) = bare(host).parse() {
            return self.at(SocketAddr::new(address, port));
        }
        // This name is the machine's own in every mesh.
        if host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case(LOCALHOST) {
            return Found::Nothing;
        }
        match self.table.by_host(host, port, self.from_namespace) {
            Some(resolved) => Found::Mesh(resolved),
            None => self.meant_service(host).map_or(Found::Nothing, Found::Unknown),
        }
    }

    /// By an address.
    fn at(&self, address: SocketAddr) -> Found<'t> {
        if let Some(resolved) = self.table.by_vip(address) {
            return Found::Mesh(resolved);
        }
        // An endpoint's own address may belong to a service that is not held, beside one that is.
        if self.mesh.ranges.as_ref().is_some_and(|ranges| ranges.contains(address.ip())) {
            let ask = Ask::address(address.ip());
            if !self.table.is_answered(&ask) {
                return Found::Unknown(ask);
            }
        }
        self.table.by_endpoint(address, self.from_namespace).map_or(Found::Nothing, Found::Mesh)
    }

    /// The service that a name would mean and that was not asked for, where this proxy holds only what it uses. `None`: no
    /// service can have this name, or none has, or it is this machine's own.
    fn meant_service(&self, host: &str) -> Option<Ask> {
        self.mesh.ranges.as_ref()?;
        let host = plain(host);
        // This machine says what it means, whether or not the control plane can be asked.
        if (self.is_local)(&host) {
            return None;
        }
        let (name, namespace) = RouteTable::service_labels(&host, self.from_namespace)?;
        if !is_label(name) || !self.knows_namespace(namespace) {
            return None;
        }
        let ask = Ask::Service(ObjectName::new(namespace, name));
        (!self.table.is_answered(&ask)).then_some(ask)
    }

    fn outside(&self, by: Option<WayOut<'t>>) -> Resolution<'t> {
        match (by, self.mesh.egress) {
            (Some(way), _) => Resolution::External(way),
            (None, Egress::Allow) => Resolution::Outside,
            (None, Egress::RegistryOnly) => Resolution::Refused(EgressRefusal::RegistryOnly),
        }
    }

    /// Place to which a name belongs if no service has it.
    fn belongs(&self, host: &str) -> Belongs {
        if bare(host).parse::<IpAddr>().is_ok() {
            return Belongs::Outside;
        }
        let name = plain(host);
        if name == LOCALHOST || (self.is_local)(&name) {
            return Belongs::Outside;
        }
        // NAME.NS.svc, and the members of a service under it.
        let is_member = name.strip_suffix(".svc").is_some_and(|rest| rest.contains('.'));
        if is_under(&name, "svc.cluster.local") || is_under(&name, "mesh.local") || is_member {
            return Belongs::Mesh;
        }
        let mut labels = name.splitn(3, '.');
        match (labels.next(), labels.next(), labels.next()) {
            (_, None, _) => Belongs::Label,
            (_, Some(namespace), None) if self.knows_namespace(namespace) => Belongs::Mesh,
            _ => Belongs::Outside,
        }
    }

    fn knows_namespace(&self, namespace: &str) -> bool {
        self.mesh.namespaces.contains(namespace) || self.table.by_name.contains_key(namespace)
    }
}

const LOCALHOST: &str = "localhost";

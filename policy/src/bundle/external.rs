//! An ExternalService as its callers' proxies are told of it: names outside the mesh, how they are dialled, and for whom.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ObjectName, Protocol, Revision, Traffic, is_default};

/// Only to a proxy with the capability `external-service`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    pub name: ObjectName,
    /// It is there for callers of every namespace, not of its own alone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mesh_wide: bool,
    /// The older one holds where two claim the same.
    pub created: Revision,
    /// In lower case; `*.` at the beginning stands for one or more labels.
    pub hosts: Vec<String>,
    pub ports: Vec<ExternalPort>,
    /// Where it is dialled. Empty: at the name that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<ExternalEndpoint>,
    /// The caller's proxy begins TLS on ports of HTTP, and on those of TCP where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ExternalTls>,
    /// What TrafficPolicies set of timeouts, retries and limits; only to a proxy with the capability `external-routes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Box<Traffic>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalPort {
    pub port: u16,
    /// The one that is dialled.
    pub target_port: u16,
    pub protocol: ExternalProtocol,
}

/// What flows to a port outside the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExternalProtocol {
    Http,
    Grpc,
    /// The app's own TLS, which is carried as it is.
    Tls,
    Tcp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalEndpoint {
    /// An address, or a name that is looked up.
    pub address: String,
    /// In the place of the port's own target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalTls {
    /// The name that the server has to prove. Absent: the one that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Whom is believed, PEM. Absent: the roots of the proxy's machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots_pem: Option<String>,
    /// It is begun under the bytes of ports of TCP as well. This field and those below it come only to a proxy with the
    /// capability `external-tls`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub under_tcp: bool,
    /// TLS 1.2 is spoken with a server that has no later one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub takes_tls12: bool,
    /// The certificate by which the proxy proves who it is, by its name in that proxy's own configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

impl ExternalTls {
    /// True where it says more than a name and roots: only a proxy with the capability `external-tls` can do that.
    #[must_use]
    pub fn is_beyond_name_and_roots(&self) -> bool {
        self.under_tcp || self.takes_tls12 || self.certificate.is_some()
    }
}

impl ExternalProtocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }

    /// True where requests flow, so that a proxy can begin TLS under them.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Grpc)
    }

    /// As a port of a service would declare it.
    pub fn declared(self) -> Protocol {
        match self {
            Self::Http => Protocol::Http,
            Self::Grpc => Protocol::Grpc,
            Self::Tls | Self::Tcp => Protocol::Tcp,
        }
    }
}

impl fmt::Display for ExternalProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl External {
    /// The port of this number.
    pub fn port(&self, port: u16) -> Option<&ExternalPort> {
        self.ports.iter().find(|known| known.port == port)
    }

    /// True for callers of this namespace.
    pub fn is_seen_in(&self, namespace: &str) -> bool {
        self.mesh_wide || self.name.namespace == namespace
    }

    /// The first of its names that is one, and no pattern.
    pub fn exact_host(&self) -> Option<&str> {
        self.hosts.iter().map(String::as_str).find(|host| !host.starts_with('*'))
    }
}

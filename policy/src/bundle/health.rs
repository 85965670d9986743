//! How callers check the endpoints of a service beside their traffic, inside the service's settings. A preference: a proxy
//! that knows none of it sends to every endpoint that it can reach.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Protocol, ServicePort};
use crate::text::duration_text;

/// A check, how often it is made, and what a row of results means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    pub probe: HealthProbe,
    /// The port of the service that is asked. `None`: the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// From the end of a check to the next, more or less.
    pub interval_ms: u64,
    /// Nobody is waited for any longer.
    pub timeout_ms: u64,
    /// So many checks in a row that fail put an endpoint out, and so many that pass bring it back.
    pub unhealthy: u32,
    pub healthy: u32,
}

/// What an endpoint is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthProbe {
    Http(HttpProbe),
    /// `grpc.health.v1.Health/Check` of this service; empty: of the server as a whole.
    Grpc(String),
    /// Whether a connection can be opened.
    Tcp,
}

/// A GET, and the statuses of answers that are well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpProbe {
    /// Path and query.
    pub path: String,
    /// `None`: the name of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    pub statuses: Vec<StatusRange>,
}

/// Statuses, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusRange {
    pub from: u16,
    pub to: u16,
}

impl HealthCheck {
    /// The port of a service that is asked. `None`: there is none such.
    #[must_use]
    pub fn port_of<'p>(&self, ports: &'p [ServicePort]) -> Option<&'p ServicePort> {
        match self.port {
            Some(number) => ports.iter().find(|port| port.port == number),
            None => ports.first(),
        }
    }

    /// The name of a protocol whose ports can't be asked so: a request goes to none that is declared tcp, and a connection
    /// whose bytes nobody looks into to none that is declared to carry requests.
    #[must_use]
    pub fn misfit(&self, protocol: Protocol) -> Option<&'static str> {
        let is_request = match self.probe {
            HealthProbe::Http(_) | HealthProbe::Grpc(_) => true,
            HealthProbe::Tcp => false,
        };
        match protocol {
            Protocol::Tcp if is_request => Some("tcp"),
            Protocol::Http if !is_request => Some("http"),
            Protocol::Grpc if !is_request => Some("grpc"),
            Protocol::Udp => Some("udp"),
            Protocol::Tcp | Protocol::Http | Protocol::Grpc | Protocol::Auto => None,
        }
    }
}

impl HttpProbe {
    #[must_use]
    pub fn expects(&self, status: u16) -> bool {
        self.statuses.iter().any(|range| (range.from..=range.to).contains(&status))
    }
}

impl fmt::Display for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { probe, port, interval_ms, timeout_ms, unhealthy, healthy } = self;
        write!(f, "{probe}")?;
        if let Some(port) = port {
            write!(f, " at port {port}")?;
        }
        let (interval, timeout) = (duration_text(*interval_ms), duration_text(*timeout_ms));
        write!(f, " every {interval}, each within {timeout}, out after {unhealthy}, back after {healthy}")
    }
}

impl fmt::Display for HealthProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(HttpProbe { path, host, statuses }) => {
                write!(f, "GET {path}")?;
                if let Some(host) = host {
                    write!(f, " of {host}")?;
                }
                let statuses: Vec<_> = statuses.iter().map(ToString::to_string).collect();
                write!(f, " for {}", statuses.join(" or "))
            }
            Self::Grpc(service) if service.is_empty() => f.write_str("gRPC health"),
            Self::Grpc(service) => write!(f, "gRPC health of {service}"),
            Self::Tcp => f.write_str("a connection"),
        }
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { from, to } if from == to => write!(f, "{from}"),
            Self { from, to } => write!(f, "{from}-{to}"),
        }
    }
}

//! `Mesh` (settings of the whole) and `Workload` (one instance of an app).

use std::net::{IpAddr, SocketAddr};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::value;
use crate::bundle::{Egress, Protocol};
use crate::identity::TrustDomain;
use crate::text::did_you_mean;

/// Port at which a proxy takes mesh traffic.
pub const MESH_PORT: u16 = 15008;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshSpec {
    #[serde(default)]
    pub trust_domain: TrustDomain,
    #[serde(default)]
    pub mtls: Mtls,
    #[serde(default)]
    pub telemetry: Telemetry,
    #[serde(default)]
    pub defaults: Defaults,
    /// Rule on whether applications may reach destinations outside the mesh.
    #[serde(default, deserialize_with = "egress")]
    pub egress: Egress,
    /// PEM public keys whose filters are accepted; empty = whoever may publish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter_publishers: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mtls {
    #[serde(default)]
    pub mode: MtlsMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum MtlsMode {
    #[default]
    Strict,
}

impl<'de> Deserialize<'de> for MtlsMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "Strict" => Ok(Self::Strict),
            known @ ("Permissive" | "Disabled") => {
                Err(D::Error::custom(format_args!("mTLS mode {known} is not supported yet")))
            }
            other => {
                let meant = did_you_mean(other, ["Strict"]);
                Err(D::Error::custom(format_args!("{other:?} is not an mTLS mode: Strict{meant}")))
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Telemetry {
    #[serde(default)]
    pub access_log: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Defaults {
    /// `0s` = none, the default: a download or a stream may take as long as it takes.
    #[serde(
        rename = "requestTimeout",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration"
    )]
    pub request_timeout_ms: Option<u64>,
    #[serde(
        rename = "connectTimeout",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration"
    )]
    pub connect_timeout_ms: Option<u64>,
    /// Attempts after the first, of what was provably not processed.
    pub max_retries: u32,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { request_timeout_ms: Some(0), connect_timeout_ms: Some(5_000), max_retries: 2 }
    }
}

fn egress<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Egress, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "Allow" => Ok(Egress::Allow),
        "RegistryOnly" => Ok(Egress::RegistryOnly),
        other => {
            let meant = did_you_mean(other, ["Allow", "RegistryOnly"]);
            Err(D::Error::custom(format_args!("{other:?} is not one of Allow, RegistryOnly{meant}")))
        }
    }
}

/// An instance of an app. Services select it by `metadata.labels`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSpec {
    #[serde(deserialize_with = "value::address")]
    pub address: IpAddr,
    /// Its further addresses, of either family.
    #[serde(default, deserialize_with = "value::addresses", skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<WorkloadPortSpec>,
    #[serde(default = "default_account")]
    pub service_account: String,
    #[serde(default = "one")]
    pub weight: u32,
    /// `address:15008` where absent.
    #[serde(default, deserialize_with = "value::socket_option", skip_serializing_if = "Option::is_none")]
    pub mesh_address: Option<SocketAddr>,
}

impl WorkloadSpec {
    /// All that it is addressed by.
    pub(crate) fn all_addresses(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(self.address).chain(self.addresses.iter().copied())
    }

    pub fn mesh_address(&self) -> SocketAddr {
        self.mesh_address.unwrap_or(SocketAddr::new(self.address, MESH_PORT))
    }
}

fn default_account() -> String {
    "default".to_owned()
}

fn one() -> u32 {
    1
}

/// A port that the app listens on; callers may reach no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadPortSpec {
    #[serde(deserialize_with = "value::port")]
    pub port: u16,
    #[serde(default = "auto", deserialize_with = "protocol")]
    pub protocol: Protocol,
    #[serde(default, deserialize_with = "value::label_option", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

fn auto() -> Protocol {
    Protocol::Auto
}

fn protocol<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Protocol, D::Error> {
    match String::deserialize(deserializer)?.to_ascii_lowercase().as_str() {
        "http" => Ok(Protocol::Http),
        "grpc" => Ok(Protocol::Grpc),
        "tcp" => Ok(Protocol::Tcp),
        "auto" => Ok(Protocol::Auto),
        "udp" => Err(D::Error::custom("protocol udp is not supported yet")),
        other => {
            let meant = did_you_mean(other, ["http", "grpc", "tcp", "auto"]);
            Err(D::Error::custom(format_args!("{other:?} is not one of http, grpc, tcp, auto{meant}")))
        }
    }
}

//! Core Kubernetes kinds: `Namespace` and `Service`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::Object;
use super::value::{self, NotYet};
use crate::bundle::{AppVersion, Protocol};
use crate::path::{PathReading, PathReadingError};

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamespaceSpec {}

/// `spec` of a Service: the workloads of its namespace whose labels have all of `selector`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// Empty: no workload.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
    #[serde(default)]
    pub ports: Vec<PortSpec>,
    /// The virtual address; absent for `None` as well.
    #[serde(default, rename = "clusterIP", deserialize_with = "cluster_ip", skip_serializing_if = "Option::is_none")]
    pub cluster_ip: Option<IpAddr>,
    #[serde(default, rename = "type", skip_serializing_if = "ServiceType::is_default")]
    pub service_type: ServiceType,
    #[serde(default, skip_serializing)]
    pub external_name: NotYet,
    #[serde(default, skip_serializing, rename = "externalIPs")]
    pub external_ips: NotYet,
    #[serde(default, skip_serializing, rename = "clusterIPs")]
    pub cluster_ips: NotYet,
    #[serde(default, skip_serializing)]
    pub session_affinity: NotYet,
    #[serde(default, skip_serializing)]
    pub internal_traffic_policy: NotYet,
    #[serde(default, skip_serializing)]
    pub traffic_distribution: NotYet,
}

impl ServiceSpec {
    pub(crate) fn check(&self) -> Result<(), (String, String)> {
        for (i, port) in self.ports.iter().enumerate() {
            if self.ports[..i].iter().any(|other| other.port == port.port) {
                return Err((format!("ports[{i}].port"), format!("{} is given twice", port.port)));
            }
            if self.ports.len() > 1 && port.name.is_none() {
                return Err((format!("ports[{i}].name"), "is missing: with several ports each has a name".to_owned()));
            }
        }
        Ok(())
    }
}

/// The annotation by which a Service declares how its apps read paths.
pub const PATH_READING: &str = "weft.dev/path-reading";

/// The annotation by which a Service names the accounts whose workloads may stand behind it, apart by commas.
pub const ACCOUNTS: &str = "weft.dev/accounts";

/// The annotation of a registered Workload that names its proxy.
pub const REGISTERED_BY: &str = "weft.dev/registered-by";
/// The annotation of a registered Workload with the services that its account was granted, apart by commas.
pub const GRANTED_SERVICES: &str = "weft.dev/granted-services";

impl Object<ServiceSpec> {
    /// The accounts that its annotation lists.
    pub fn accounts(&self) -> impl Iterator<Item = &str> {
        let listed = self.metadata.annotations.get(ACCOUNTS).map(|text| text.split(',')).into_iter().flatten();
        listed.map(str::trim).filter(|account| !account.is_empty())
    }

    /// How the apps behind it say they read paths; nothing where they don't.
    pub fn path_reading(&self) -> Result<PathReading, PathReadingError> {
        self.metadata.annotations.get(PATH_READING).map_or(Ok(PathReading::default()), |text| text.parse())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum ServiceType {
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
}

impl ServiceType {
    fn is_default(&self) -> bool {
        *self == Self::ClusterIp
    }
}

impl<'de> Deserialize<'de> for ServiceType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "ClusterIP" => Ok(Self::ClusterIp),
            known @ ("NodePort" | "LoadBalancer" | "ExternalName") => {
                Err(D::Error::custom(format_args!("Service type {known} is not supported yet")))
            }
            other => Err(D::Error::custom(format_args!("{other:?} is not a type of Service"))),
        }
    }
}

fn cluster_ip<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "None" || text.is_empty() {
        return Ok(None);
    }
    value::address(serde::de::value::StringDeserializer::new(text)).map(Some)
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortSpec {
    #[serde(default, deserialize_with = "value::label_option", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(deserialize_with = "value::port")]
    pub port: u16,
    /// The app's port; the same as `port` where absent.
    #[serde(default, deserialize_with = "target_port", skip_serializing_if = "Option::is_none")]
    pub target_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Transport::is_tcp")]
    pub protocol: Transport,
    /// `http`, `kubernetes.io/h2c`, `kubernetes.io/ws`, `kubernetes.io/wss`, `grpc`, `tcp`; found out from the first bytes where absent.
    #[serde(default, deserialize_with = "app_protocol", skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    #[serde(default, skip_serializing)]
    pub node_port: NotYet,
}

impl PortSpec {
    pub fn target(&self) -> u16 {
        self.target_port.unwrap_or(self.port)
    }

    pub fn protocol(&self) -> Protocol {
        match self.app_protocol.as_deref() {
            Some("http" | "kubernetes.io/h2c" | "kubernetes.io/ws") => Protocol::Http,
            Some("grpc") => Protocol::Grpc,
            // WebSocket in the app's own TLS: nobody on the way can read it.
            Some("tcp" | "kubernetes.io/wss") => Protocol::Tcp,
            _ => Protocol::Auto,
        }
    }

    pub fn app_version(&self) -> AppVersion {
        match self.app_protocol.as_deref() {
            Some("grpc" | "kubernetes.io/h2c") => AppVersion::Http2,
            Some("kubernetes.io/ws") => AppVersion::Http1,
            _ => AppVersion::AsCaller,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum Transport {
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
}

impl Transport {
    fn is_tcp(&self) -> bool {
        *self == Self::Tcp
    }
}

impl<'de> Deserialize<'de> for Transport {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "TCP" => Ok(Self::Tcp),
            known @ ("UDP" | "SCTP") => Err(D::Error::custom(format_args!("protocol {known} is not supported yet"))),
            other => Err(D::Error::custom(format_args!("{other:?} is not a protocol: TCP"))),
        }
    }
}

fn target_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Target {
        Number(i64),
        Name(serde::de::IgnoredAny),
    }
    match Target::deserialize(deserializer)? {
        Target::Number(number) => value::port_option(serde::de::value::I64Deserializer::new(number)),
        Target::Name(_) => Err(D::Error::custom("a targetPort by name is not supported yet; give its number")),
    }
}

fn app_protocol<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "http" | "grpc" | "tcp" | "kubernetes.io/h2c" | "kubernetes.io/ws" | "kubernetes.io/wss" => Ok(Some(text)),
        "https" | "tls" | "udp" => Err(D::Error::custom(format_args!("appProtocol {text} is not supported yet"))),
        _ => Err(D::Error::custom(format_args!(
            "{text:?} is not one of http, kubernetes.io/h2c, kubernetes.io/ws, kubernetes.io/wss, grpc, tcp"
        ))),
    }
}

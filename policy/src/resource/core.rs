//! Core Kubernetes kinds: `Namespace` and `Service`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::value::{self, Filled, is_default};
use super::{Object, Unserved, WorkloadSpec};
use crate::bundle::{AppVersion, Protocol};
use crate::identity::is_label;
use crate::path::{PathReading, PathReadingError};

/// `finalizers` are the cluster's own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamespaceSpec {
    #[serde(default, skip_serializing)]
    pub finalizers: Filled,
}

/// `spec` of a Service: the workloads of its namespace whose labels have all of `selector`. Fields that a cluster fills in
/// and that change nothing here are read past; others that nothing here acts on are kept, and [`ServiceSpec::unserved`]
/// tells of them.
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
    #[serde(default, rename = "type", skip_serializing_if = "is_default")]
    pub service_type: ServiceType,
    /// The virtual addresses of both families; the first is `clusterIP`.
    #[serde(default, rename = "clusterIPs", skip_serializing_if = "is_one")]
    pub cluster_ips: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub session_affinity: SessionAffinity,
    #[serde(default, skip_serializing_if = "is_default")]
    pub internal_traffic_policy: TrafficPolicy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_distribution: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "externalIPs")]
    pub external_ips: Vec<String>,
    #[serde(default, skip_serializing)]
    pub allocate_load_balancer_node_ports: Filled,
    #[serde(default, skip_serializing)]
    pub external_traffic_policy: Filled,
    #[serde(default, skip_serializing)]
    pub health_check_node_port: Filled,
    #[serde(default, skip_serializing)]
    pub ip_families: Filled,
    #[serde(default, skip_serializing)]
    pub ip_family_policy: Filled,
    #[serde(default, skip_serializing)]
    pub load_balancer_class: Filled,
    #[serde(default, skip_serializing, rename = "loadBalancerIP")]
    pub load_balancer_ip: Filled,
    #[serde(default, skip_serializing)]
    pub load_balancer_source_ranges: Filled,
    #[serde(default, skip_serializing)]
    pub publish_not_ready_addresses: Filled,
    #[serde(default, skip_serializing)]
    pub session_affinity_config: Filled,
}

fn is_one(addresses: &[String]) -> bool {
    addresses.len() < 2
}

impl ServiceSpec {
    /// The ports that the mesh serves; those of UDP and SCTP are kept for later.
    pub fn served_ports(&self) -> impl Iterator<Item = &PortSpec> {
        self.ports.iter().filter(|port| port.is_served())
    }

    /// The served port of this number.
    pub fn port(&self, number: u16) -> Option<&PortSpec> {
        self.served_ports().find(|port| port.port == number)
    }

    /// True where it asks for endpoints of the caller's zone first.
    pub(crate) fn prefers_zone(&self) -> bool {
        matches!(self.traffic_distribution.as_deref(), Some("PreferClose" | "PreferSameZone"))
    }

    pub(crate) fn check(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        for (i, port) in self.ports.iter().enumerate() {
            let is_same = |other: &PortSpec| other.port == port.port && other.protocol == port.protocol;
            if self.ports[..i].iter().any(is_same) {
                wrong.push((format!("ports[{i}].port"), format!("{} is given twice", port.port)));
            }
            let names_it = |other: &PortSpec| port.name.is_some() && other.name == port.name;
            if self.ports[..i].iter().any(names_it) {
                let name = port.name.as_deref().unwrap_or_default();
                wrong.push((format!("ports[{i}].name"), format!("{name:?} is given twice")));
            }
            if self.ports.len() > 1 && port.name.is_none() {
                wrong.push((format!("ports[{i}].name"), "is missing: with several ports each has a name".to_owned()));
            }
        }
        wrong
    }

    /// Everything that was taken and that nothing here acts on, by key inside `spec`.
    pub fn unserved(&self) -> Vec<Unserved> {
        let mut found = Vec::new();
        let mut tell = |key: &str, message: String| found.push(Unserved { key: key.to_owned(), message });
        match self.service_type {
            ServiceType::ClusterIp => {}
            outside @ (ServiceType::NodePort | ServiceType::LoadBalancer) => {
                let message = format!("{outside:?} serves callers of the mesh only: nothing is opened to the outside");
                tell("type", message);
            }
            ServiceType::ExternalName => {
                tell("type", "ExternalName leads nowhere: the service has no endpoints in the mesh".to_owned());
            }
        }
        if let Some(further) = self.cluster_ips.get(1) {
            tell("clusterIPs", format!("{further} is no virtual address in the mesh: clusterIP is the only one"));
        }
        if self.session_affinity == SessionAffinity::ClientIp {
            tell("sessionAffinity", "ClientIP has no effect: each request goes to any endpoint".to_owned());
        }
        if self.internal_traffic_policy == TrafficPolicy::Local {
            let message = "Local has no effect: endpoints of other machines are used too".to_owned();
            tell("internalTrafficPolicy", message);
        }
        if let Some(distribution) = self.traffic_distribution.as_deref().filter(|_| !self.prefers_zone()) {
            let message = format!("{distribution:?} has no effect: PreferClose and PreferSameZone have one");
            tell("trafficDistribution", message);
        }
        if !self.external_ips.is_empty() {
            tell("externalIPs", "no traffic is taken at these addresses".to_owned());
        }
        for (i, port) in self.ports.iter().enumerate() {
            if !port.is_served() {
                let message = format!("{} is not carried yet: port {} is not served", port.protocol, port.port);
                tell(&format!("ports[{i}].protocol"), message);
            }
            if let Some(unknown) = port.app_protocol.as_deref().filter(|name| app_protocol(name).is_none()) {
                let meant = crate::text::did_you_mean(unknown, APP_PROTOCOLS.iter().map(|(name, ..)| *name));
                let message =
                    format!("{unknown:?} is not known: the protocol is found out from the first bytes{meant}");
                tell(&format!("ports[{i}].appProtocol"), message);
            }
        }
        found
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
/// The annotation of a registered Workload whose proxy has no configuration in force yet: it is no endpoint of anything.
pub const STARTING: &str = "weft.dev/starting";
/// Annotation of a Service that the control plane made: the workload that asked for it first.
pub const MADE_FOR: &str = "weft.dev/made-for";

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ServiceType {
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SessionAffinity {
    #[default]
    None,
    #[serde(rename = "ClientIP")]
    ClientIp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TrafficPolicy {
    #[default]
    Cluster,
    Local,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<TargetPort>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Transport,
    /// Found out from the first bytes where it is absent or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    #[serde(default, skip_serializing)]
    pub node_port: Filled,
}

impl PortSpec {
    /// False for what is kept for later.
    pub(crate) fn is_served(&self) -> bool {
        self.protocol == Transport::Tcp
    }

    /// The port where it is served at a workload. `None`: the workload declares no such port, and is no endpoint of it: its proxy
    /// would refuse what comes.
    pub fn served_at(&self, workload: &WorkloadSpec) -> Option<u16> {
        self.target_at(workload).filter(|target| workload.ports.iter().any(|port| port.port == *target))
    }

    /// The port that it means at a workload. `None`: the workload declares no port of that name.
    pub fn target_at(&self, workload: &WorkloadSpec) -> Option<u16> {
        match &self.target_port {
            None => Some(self.port),
            Some(TargetPort::Number(number)) => Some(*number),
            Some(TargetPort::Name(name)) => {
                workload.ports.iter().find(|port| port.name.as_ref() == Some(name)).map(|port| port.port)
            }
        }
    }

    pub fn protocol(&self) -> Protocol {
        self.app_protocol.as_deref().and_then(app_protocol).map_or(Protocol::Auto, |(protocol, _)| protocol)
    }

    pub fn app_version(&self) -> AppVersion {
        self.app_protocol.as_deref().and_then(app_protocol).map_or(AppVersion::AsCaller, |(_, version)| version)
    }
}

/// The values of `appProtocol` that mean something here. The app's own TLS is carried as it is: nobody on the way can read
/// it.
const APP_PROTOCOLS: [(&str, Protocol, AppVersion); 9] = [
    ("http", Protocol::Http, AppVersion::AsCaller),
    ("http2", Protocol::Http, AppVersion::Http2),
    ("kubernetes.io/h2c", Protocol::Http, AppVersion::Http2),
    ("kubernetes.io/ws", Protocol::Http, AppVersion::Http1),
    ("grpc", Protocol::Grpc, AppVersion::Http2),
    ("tcp", Protocol::Tcp, AppVersion::AsCaller),
    ("https", Protocol::Tcp, AppVersion::AsCaller),
    ("tls", Protocol::Tcp, AppVersion::AsCaller),
    ("kubernetes.io/wss", Protocol::Tcp, AppVersion::AsCaller),
];

fn app_protocol(name: &str) -> Option<(Protocol, AppVersion)> {
    let known = APP_PROTOCOLS.iter().find(|(known, ..)| *known == name);
    known.map(|(_, protocol, version)| (*protocol, *version))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Transport {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// A port of the app: its number, or the name that each workload declares it by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum TargetPort {
    Number(u16),
    Name(String),
}

impl<'de> Deserialize<'de> for TargetPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Target;

        impl de::Visitor<'_> for Target {
            type Value = TargetPort;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port: its number or its name")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<TargetPort, E> {
                value::port_number(number).map(TargetPort::Number).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<TargetPort, E> {
                self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<TargetPort, E> {
                match is_port_name(name) {
                    true => Ok(TargetPort::Name(name.to_owned())),
                    false => Err(E::custom(format_args!(
                        "{name:?} is not the name of a port: lower-case letters, digits and '-', at most 15, with a letter"
                    ))),
                }
            }
        }

        deserializer.deserialize_any(Target)
    }
}

//= rfc6335#section-5.1
pub(crate) fn is_port_name(name: &str) -> bool {
    is_label(name) && name.len() <= 15 && name.bytes().any(|byte| byte.is_ascii_lowercase())
}

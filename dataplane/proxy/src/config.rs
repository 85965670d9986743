//! The one configuration file of weft-proxy: what a person writes, with defaults, parsed once and then trusted.
//! Units are in the type; an unknown key is an error with its line.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weft_policy::bundle::Protocol;
use weft_policy::identity::{TrustDomain, is_label};
use weft_policy::numbers::{self, Misfits};
use weft_policy::registration::{self, Fault, Field, Registration, Told};
use weft_policy::resource::used_service;
use weft_policy::scope::Ask;

mod addresses;
mod limits;

pub use addresses::Addresses;
pub use limits::Limits;

/// Why a configuration file is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Parse { path: PathBuf, message: String },
    /// Values that make no sense, or that the control plane would refuse; a line for each, which begins with its key.
    #[error("{}", .wrong.iter().map(|it| format!("{}: {it}", path.display())).collect::<Vec<_>>().join("\n"))]
    Values { path: PathBuf, wrong: Vec<String> },
}

/// Bounds of `drain_timeout_s`.
const DRAIN_S: (u64, u64) = (1, 24 * 3_600);

/// Bounds of `workers`.
const WORKERS: (u64, u64) = (1, 256);

/// Everything a proxy is told on its own machine. The rest comes from the control plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of this proxy, unique in the mesh; also the default workload name.
    pub name: String,
    /// Identity, last good bundle and filter cache (made 0700).
    pub state_dir: PathBuf,
    pub control: Control,
    pub workload: Workload,
    pub listen: Listen,
    /// Data-plane threads, at most 256. Default: the cores that the cgroup grants.
    #[serde(default)]
    pub workers: Option<usize>,
    #[serde(default)]
    pub capture: Option<Capture>,
    /// How long in-flight requests may take after SIGTERM. Default 30 s, at most a day.
    #[serde(default = "default_drain_timeout_s")]
    pub drain_timeout_s: u64,
    #[serde(default)]
    pub limits: Limits,
    /// Of what this proxy sends to peers. Default CUBIC.
    #[serde(default)]
    pub congestion_control: CongestionControl,
    /// File of the access log. Default: standard output. A file is opened again at SIGHUP and SIGUSR1.
    #[serde(default)]
    pub access_log_file: Option<PathBuf>,
    /// Tests only: requests to peers go in plain text. Logged at start.
    #[serde(default)]
    pub danger_plaintext_tunnel: bool,
    /// What it holds of the mesh. Default `used`.
    #[serde(default)]
    pub holds: Holds,
    /// Certificates for servers outside the mesh, by the names under which ExternalServices ask for them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outside_certificates: BTreeMap<String, OutsideCertificate>,
    /// Log filter (`info`, `weft_proxy=debug`). Default `info`; `WEFT_LOG` overrides.
    #[serde(default = "default_log")]
    pub log: String,
}

/// A certificate that servers outside the mesh ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutsideCertificate {
    /// PEM, the leaf first.
    pub certificate_file: PathBuf,
    /// Its private key, PEM.
    pub key_file: PathBuf,
    /// Whose ExternalServices may ask for it.
    pub namespaces: Vec<String>,
}

impl OutsideCertificate {
    /// Everything that makes no sense of one with this name, each with its key.
    fn faults(&self, name: &str) -> Vec<String> {
        let (key, mut wrong) = (format!("outside_certificates.{name}"), Vec::new());
        if !is_label(name) {
            wrong.push(format!("{key}: its name is no label: lower-case letters, digits and '-', at most 63"));
        }
        if self.namespaces.is_empty() {
            wrong.push(format!("{key}.namespaces: is empty, so that nobody may ask for it"));
        }
        let others = self.namespaces.iter().enumerate().filter(|(_, namespace)| !is_label(namespace));
        wrong.extend(others.map(|(index, it)| format!("{key}.namespaces[{index}]: {it:?} is no namespace")));
        wrong
    }
}

/// How fast this proxy sends on paths that lose packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CongestionControl {
    #[default]
    Cubic,
    Bbr,
}

/// How much of the mesh a proxy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Holds {
    /// Its own workloads and the services that their apps use: the first call of a name asks for it.
    #[default]
    Used,
    /// All services.
    Everything,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// `https://HOST:15012`, or a list with one for each replica.
    pub address: Addresses,
    /// PEM of the CA that signs the control plane's certificate.
    pub ca_file: PathBuf,
    /// Join token; needed at the first start only.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default = "default_namespace")]
    pub namespace: String,
    pub service_account: String,
    pub address: IpAddr,
    /// Empty: a pure client.
    #[serde(default)]
    pub ports: Vec<WorkloadPort>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Register as an endpoint of this service; made with port 80 -> the first port where it does not exist.
    #[serde(default)]
    pub service: Option<String>,
    /// Services that the app uses, NAME or NAME.NAMESPACE: they are held before anybody asks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<String>,
    /// An app that does not listen at `address` may listen on loopback, at the same port.
    #[serde(default = "yes")]
    pub app_on_loopback: bool,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadPort {
    pub port: u16,
    #[serde(default = "default_protocol")]
    pub protocol: Protocol,
    /// By which the targetPort of a Service may mean it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Addresses of the proxy's listeners. CONTRACT fixes the port numbers; tests and single machines change the addresses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// HTTP forward proxy and CONNECT for apps (15080).
    #[serde(default)]
    pub explicit: Option<SocketAddr>,
    /// Redirected outbound connections (15001).
    #[serde(default)]
    pub outbound: Option<SocketAddr>,
    /// Redirected inbound plain text (15006).
    #[serde(default)]
    pub inbound: Option<SocketAddr>,
    /// Mesh traffic from peers, UDP (15008).
    pub mesh: SocketAddr,
    /// Loopback only (15000).
    #[serde(default = "default_admin")]
    pub admin: SocketAddr,
    #[serde(default = "default_metrics")]
    pub metrics: SocketAddr,
    #[serde(default = "default_health")]
    pub health: SocketAddr,
}

impl Listen {
    /// Pairs of TCP listeners that can't both be bound.
    fn collisions(&self) -> Vec<String> {
        let listeners = [
            ("listen.explicit", self.explicit),
            ("listen.outbound", self.outbound),
            ("listen.inbound", self.inbound),
            ("listen.admin", Some(self.admin)),
            ("listen.metrics", Some(self.metrics)),
            ("listen.health", Some(self.health)),
        ];
        let listeners: Vec<_> = listeners.into_iter().filter_map(|(key, at)| Some((key, at?))).collect();
        let overlap = |a: SocketAddr, b: SocketAddr| {
            let everywhere = a.ip().is_unspecified() || b.ip().is_unspecified();
            a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || everywhere)
        };
        let mut wrong = Vec::new();
        for (index, (key, at)) in listeners.iter().enumerate() {
            let others = listeners[..index].iter().filter(|(_, other)| overlap(*at, *other));
            wrong.extend(others.map(|(other, there)| format!("{key}: {at} collides with {other}, {there}")));
        }
        wrong
    }
}

/// Transparent capture by nftables. Needs CAP_NET_ADMIN.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    #[serde(default)]
    pub exclude_ports: Vec<u16>,
    #[serde(default)]
    pub exclude_cidrs: Vec<ipnet::IpNet>,
    #[serde(default)]
    pub exclude_uids: Vec<u32>,
    /// The rules stay when the proxy ends cleanly, too: captured traffic is refused until it is back, or until
    /// `weft-proxy --capture-remove`.
    #[serde(default)]
    pub keep_on_stop: bool,
}

impl Config {
    /// Reads and parses `path`.
    ///
    /// # Errors
    /// The file cannot be read, is not YAML of this shape, or a value makes no sense; the error names file and key.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Config::parse(path, &text)
    }

    /// Parses `text`; `path` is for error messages.
    ///
    /// # Errors
    /// As of [`Config::load`]; all values that make no sense at once.
    pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        let parsed = serde_saphyr::with_deserializer_from_str(text, |file| {
            // The parser's own words name the place, but not the key.
            serde_path_to_error::deserialize(file).map_err(|error| {
                let key = error.path().to_string();
                keyed(&key, error.into_inner())
            })
        });
        let config: Config = parsed.map_err(|error| match Misfits::<Config>::find(text, Self::bounds()) {
            Some(found) => ConfigError::Values { path: path.to_owned(), wrong: found.with(|rest| rest.faults()) },
            None => ConfigError::Parse { path: path.to_owned(), message: error.to_string() },
        })?;
        let wrong = config.faults();
        if wrong.is_empty() { Ok(config) } else { Err(ConfigError::Values { path: path.to_owned(), wrong }) }
    }

    /// The bounds of every number.
    fn bounds() -> Vec<numbers::Bounds<'static>> {
        let mut bounds = vec![
            ("workload.ports[].port", 1..=65_535),
            ("capture.exclude_ports[]", 0..=65_535),
            ("capture.exclude_uids[]", 0..=u32::MAX.into()),
            ("drain_timeout_s", DRAIN_S.0..=DRAIN_S.1),
            ("workers", WORKERS.0..=WORKERS.1),
        ];
        bounds.extend(Limits::bounds());
        bounds
    }

    /// Everything that makes no sense, each with its key.
    fn faults(&self) -> Vec<String> {
        let mut wrong = self.registration_faults();
        wrong.extend(self.limits.faults());
        wrong.extend(limits::fault("drain_timeout_s", self.drain_timeout_s, DRAIN_S.0, DRAIN_S.1));
        let workers = self.workers.unwrap_or(1);
        wrong.extend(limits::fault("workers", workers as u64, WORKERS.0, WORKERS.1));
        wrong.extend(crate::telemetry::check_log_filter(&self.log).err().map(|it| format!("log: {it}")));
        if !self.listen.admin.ip().is_loopback() {
            wrong.push(format!("listen.admin: {} is not a loopback address", self.listen.admin));
        }
        wrong.extend(self.listen.collisions());
        for (index, text) in self.workload.uses.iter().enumerate() {
            if used_service(text, &self.workload.namespace).is_none() {
                wrong.push(format!("workload.uses[{index}]: {text:?} is no service: NAME or NAME.NAMESPACE"));
            }
        }
        wrong.extend(self.outside_certificates.iter().flat_map(|(name, it)| it.faults(name)));
        wrong.extend(self.control.address.faults().map(|fault| format!("control.address: {fault}")));
        if self.capture.is_some() && self.listen.outbound.is_none() {
            wrong.push("capture: needs listen.outbound".to_owned());
        }
        if self.capture.is_some() && self.listen.inbound.is_none() && !self.workload.ports.is_empty() {
            let what = "capture: needs listen.inbound: what comes to workload.ports would pass by the proxy";
            wrong.push(what.to_owned());
        }
        wrong
    }

    /// The workload as the control plane will be told of it.
    pub fn told(&self) -> Told {
        let (workload, mut mesh) = (&self.workload, self.listen.mesh);
        if mesh.ip().is_unspecified() {
            // Peers dial the workload's own address where we listen on all.
            mesh.set_ip(workload.address);
        }
        Told {
            namespace: workload.namespace.clone(),
            name: self.workload_name().to_owned(),
            address: workload.address.to_string(),
            mesh_address: mesh.to_string(),
            ports: workload.ports.iter().map(|port| (u32::from(port.port), port.protocol)).collect(),
            port_names: workload
                .ports
                .iter()
                .filter_map(|port| Some((u32::from(port.port), port.name.clone()?)))
                .collect(),
            labels: workload.labels.clone(),
            service: workload.service.clone(),
            weight: 1,
        }
    }

    /// The services that the app says it uses.
    pub fn uses(&self) -> impl Iterator<Item = Ask> {
        let own = &self.workload.namespace;
        self.workload.uses.iter().filter_map(move |text| used_service(text, own)).map(Ask::Service)
    }

    /// What the control plane would refuse.
    fn registration_faults(&self) -> Vec<String> {
        // The trust domain is known once joined; nothing of a registration depends on it.
        let (namespace, account) = (&self.workload.namespace, &self.workload.service_account);
        let mut wrong: Vec<_> = registration::proxy_name(&self.name).err().iter().map(told_here).collect();
        match TrustDomain::default().workload(namespace, account) {
            Ok(identity) => {
                let faults = Registration::new(self.told(), &identity).err().unwrap_or_default();
                wrong.extend(faults.iter().map(told_here));
            }
            Err(error) => wrong.push(format!("workload: {error}")),
        }
        wrong
    }

    /// The workload's name: its own or the proxy's.
    pub fn workload_name(&self) -> &str {
        self.workload.name.as_deref().unwrap_or(&self.name)
    }

    /// Data-plane threads.
    pub fn worker_count(&self) -> usize {
        self.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).min(256)
    }

    pub fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout_s)
    }
}

/// The parser's error with the key of the value that it is about.
fn keyed(key: &str, error: serde_saphyr::Error) -> serde_saphyr::Error {
    match key {
        "." => error,
        key => <serde_saphyr::Error as serde::de::Error>::custom(format!("{key}: {error}")),
    }
}

/// A fault of the registration under the key of this file that it comes from.
fn told_here(fault: &Fault) -> String {
    let key = match fault.field {
        Field::ProxyName => "name",
        Field::Namespace => "workload.namespace",
        Field::Name => "workload.name",
        Field::Address => "workload.address",
        Field::MeshAddress => "listen.mesh",
        Field::Ports => "workload.ports",
        Field::Labels => "workload.labels",
        Field::Service => "workload.service",
        Field::Weight => "workload",
    };
    format!("{key}: {}", fault.reason)
}

fn default_drain_timeout_s() -> u64 {
    30
}

fn default_log() -> String {
    "info".to_owned()
}

fn default_namespace() -> String {
    "default".to_owned()
}

fn default_protocol() -> Protocol {
    Protocol::Auto
}

fn default_admin() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 15_000))
}

fn default_metrics() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 15_020))
}

fn default_health() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 15_021))
}

#[cfg(test)]
mod tests;

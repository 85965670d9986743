//! The one configuration file of weft-proxy: what a person writes, with defaults, parsed once and then trusted.
//! Units are in the type; an unknown key is an error with its line.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weft_policy::bundle::Protocol;
use weft_transport::http::HttpLimits;

/// Why a configuration file is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Parse { path: PathBuf, message: String },
    #[error("{path}: {key}: {message}")]
    Value { path: PathBuf, key: &'static str, message: String },
}

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
    /// Data-plane threads. Default: the cores that the cgroup grants.
    #[serde(default)]
    pub workers: Option<usize>,
    #[serde(default)]
    pub capture: Option<Capture>,
    /// How long in-flight requests may take after SIGTERM. Default 30 s.
    #[serde(default = "default_drain_timeout_s")]
    pub drain_timeout_s: u64,
    #[serde(default)]
    pub limits: Limits,
    /// Where the access log goes. Default: standard output. A file is opened again at SIGHUP and SIGUSR1.
    #[serde(default)]
    pub access_log_file: Option<PathBuf>,
    /// Tests only: requests to peers go in plain text. Logged at start.
    #[serde(default)]
    pub danger_plaintext_tunnel: bool,
    /// Log filter (`info`, `weft_proxy=debug`). Default `info`; `WEFT_LOG` overrides.
    #[serde(default = "default_log")]
    pub log: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// `https://HOST:15012`
    pub address: String,
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
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadPort {
    pub port: u16,
    #[serde(default = "default_protocol")]
    pub protocol: Protocol,
}

/// Where the proxy listens. CONTRACT fixes the port numbers; tests and single machines change the addresses.
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
}

/// Bounds of one proxy; each has a metric that says when it is hit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Application connections per worker. Above: refused and counted.
    pub max_connections: usize,
    /// Idle connections kept to the app, per worker and socket.
    pub app_idle_connections: usize,
    /// How long an idle connection to the app is kept.
    pub app_idle_timeout_s: u64,
    /// HTTP/2 connections to the app, per worker and socket. A further one is opened where the app's streams are used up.
    pub app_h2_connections: usize,
    /// How long a request waits for a stream to the app once all connections are open and full.
    pub app_stream_wait_ms: u64,
    /// How long the first bytes of an undeclared protocol may take before it is taken as server-first TCP.
    pub detect_timeout_ms: u64,
    /// How long a connection may take until its first bytes tell the version of HTTP.
    pub first_bytes_timeout_s: u64,
    /// Bytes of a message head on each leg, the request line included; more is answered 431.
    pub http_head_bytes: usize,
    /// Fields of a head and of a trailer section, at most 128; more is answered 431.
    pub http_fields: usize,
    /// Bytes of a request target; more is answered 414.
    pub http_target_bytes: usize,
    /// Bytes of a trailer section.
    pub http_trailer_bytes: usize,
    /// From a head's first byte to its last; later is answered 408.
    pub http_head_timeout_ms: u64,
    /// How long an application's connection may stay without a request.
    pub http_idle_timeout_s: u64,
    /// An idle TCP tunnel is closed after this.
    pub tunnel_idle_timeout_s: u64,
    /// A request body goes on after its answer is complete for as long as it moves at least this often.
    pub late_upload_idle_timeout_s: u64,
    /// Bytes of a request body that are kept until its answer comes, so that what nobody processed can be sent again.
    pub replay_buffer_bytes: usize,
    /// Concurrent requests of one peer connection.
    pub max_streams_per_connection: u32,
    /// Connections of peers, per worker. Above: refused and counted.
    pub max_peer_connections: usize,
    /// Connections of peers from one address, per worker.
    pub max_peer_connections_per_source: usize,
    /// Connections of peers with one identity, per worker.
    pub max_peer_connections_per_identity: usize,
    /// Mesh handshakes under way, per worker; an eighth of them for callers that have not proved their address.
    pub max_handshakes: usize,
    /// Requests on one connection to a peer before another is dialled.
    pub peer_streams_per_connection: usize,
    /// Connections to one peer, per worker; beyond them requests wait for a stream.
    pub peer_connections: usize,
    /// An unused connection to a peer is closed after this.
    pub peer_idle_timeout_s: u64,
    /// Metric series of a pair of workloads that nothing refers to any more are kept this long; 0 = for ever.
    pub metric_series_idle_s: u64,
    /// Metric series of one worker; what comes after is counted under `overflow`.
    pub metric_series_per_worker: usize,
    /// Source workloads told apart for one calling identity on one worker; further ones are `unknown`.
    pub metric_sources_per_identity: usize,
    /// Lines of the access log that may wait to be written; more are dropped and counted.
    pub access_log_queue_lines: usize,
    /// Bytes of them.
    pub access_log_queue_bytes: usize,
    /// Open connections to the admin, metrics and health ports, each; the oldest is closed for a further one.
    pub side_connections: usize,
    /// How long the head of a request to one of these ports may take.
    pub side_head_timeout_ms: u64,
}

/// More fields than this fit no head.
const MAX_HTTP_FIELDS: usize = 128;

impl Limits {
    /// What each HTTP codec keeps to.
    pub fn http(&self) -> HttpLimits {
        HttpLimits {
            head_bytes: self.http_head_bytes,
            fields: self.http_fields,
            target_bytes: self.http_target_bytes,
            trailer_bytes: self.http_trailer_bytes,
            head_timeout: Duration::from_millis(self.http_head_timeout_ms),
            idle_timeout: Duration::from_secs(self.http_idle_timeout_s),
            ..HttpLimits::default()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
            app_idle_connections: 256,
            app_idle_timeout_s: 55,
            app_h2_connections: 16,
            app_stream_wait_ms: 5_000,
            detect_timeout_ms: 200,
            first_bytes_timeout_s: 60,
            http_head_bytes: 64 * 1_024,
            http_fields: MAX_HTTP_FIELDS,
            http_target_bytes: 16 * 1_024,
            http_trailer_bytes: 64 * 1_024,
            http_head_timeout_ms: 10_000,
            http_idle_timeout_s: 3_600,
            tunnel_idle_timeout_s: 3_600,
            late_upload_idle_timeout_s: 60,
            replay_buffer_bytes: 64 * 1_024,
            max_streams_per_connection: 1_024,
            max_peer_connections: 8_192,
            max_peer_connections_per_source: 512,
            max_peer_connections_per_identity: 2_048,
            max_handshakes: 1_024,
            peer_streams_per_connection: 256,
            peer_connections: 4,
            peer_idle_timeout_s: 60,
            metric_series_idle_s: 3_600,
            metric_series_per_worker: 10_000,
            metric_sources_per_identity: 64,
            access_log_queue_lines: 8_192,
            access_log_queue_bytes: 16 << 20,
            side_connections: 64,
            side_head_timeout_ms: 5_000,
        }
    }
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
    pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        let config: Config = serde_saphyr::from_str(text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), message: error.to_string() })?;
        let refuse = |key, message: String| Err(ConfigError::Value { path: path.to_owned(), key, message });
        for (key, name) in [("name", config.name.as_str()), ("workload.name", config.workload_name())] {
            if !is_name(name) {
                return refuse(key, format!("'{name}' is no name: a-z, 0-9, '-' and '.', 1 to 253 of them"));
            }
        }
        if let Err(wrong) = crate::telemetry::check_log_filter(&config.log) {
            return refuse("log", wrong);
        }
        if config.limits.http_fields > MAX_HTTP_FIELDS {
            return refuse("limits.http_fields", format!("must be at most {MAX_HTTP_FIELDS}"));
        }
        for (key, limit) in [
            ("limits.http_head_bytes", config.limits.http_head_bytes as u64),
            ("limits.http_fields", config.limits.http_fields as u64),
            ("limits.http_target_bytes", config.limits.http_target_bytes as u64),
            ("limits.http_head_timeout_ms", config.limits.http_head_timeout_ms),
            ("limits.http_idle_timeout_s", config.limits.http_idle_timeout_s),
            ("limits.max_connections", config.limits.max_connections as u64),
            ("limits.app_h2_connections", config.limits.app_h2_connections as u64),
            ("limits.max_streams_per_connection", u64::from(config.limits.max_streams_per_connection)),
            ("limits.max_peer_connections", config.limits.max_peer_connections as u64),
            ("limits.max_peer_connections_per_source", config.limits.max_peer_connections_per_source as u64),
            ("limits.max_peer_connections_per_identity", config.limits.max_peer_connections_per_identity as u64),
            ("limits.max_handshakes", config.limits.max_handshakes as u64),
            ("limits.peer_streams_per_connection", config.limits.peer_streams_per_connection as u64),
            ("limits.peer_connections", config.limits.peer_connections as u64),
            ("limits.peer_idle_timeout_s", config.limits.peer_idle_timeout_s),
            ("limits.metric_series_per_worker", config.limits.metric_series_per_worker as u64),
            ("limits.access_log_queue_lines", config.limits.access_log_queue_lines as u64),
            ("limits.side_connections", config.limits.side_connections as u64),
            ("limits.side_head_timeout_ms", config.limits.side_head_timeout_ms),
        ] {
            if limit == 0 {
                return refuse(key, "must be at least 1".to_owned());
            }
        }
        if let Some(port) = config.workload.ports.iter().find(|port| port.protocol == Protocol::Udp) {
            return refuse("workload.ports", format!("port {}: UDP is not carried yet", port.port));
        }
        if !config.listen.admin.ip().is_loopback() {
            return refuse("listen.admin", format!("{} is not a loopback address", config.listen.admin));
        }
        if !config.control.address.starts_with("https://") {
            return refuse("control.address", format!("'{}' must start with https://", config.control.address));
        }
        if config.workers == Some(0) {
            return refuse("workers", "must be at least 1".to_owned());
        }
        if config.capture.is_some() && config.listen.outbound.is_none() {
            return refuse("capture", "needs listen.outbound".to_owned());
        }
        let mut ports: Vec<u16> = config.workload.ports.iter().map(|port| port.port).collect();
        ports.sort_unstable();
        if let Some(pair) = ports.windows(2).find(|pair| pair[0] == pair[1]) {
            return refuse("workload.ports", format!("port {} is listed twice", pair[0]));
        }
        Ok(config)
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

/// As the control plane takes names (RFC 1123 section 2.1).
fn is_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    let outer = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = name.as_bytes();
    bytes.len() <= 253 && outer(bytes.first()) && outer(bytes.last()) && bytes.iter().all(|byte| inner(*byte))
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
mod tests {
    use super::*;

    const GOOD: &str = "
name: reviews-1
state_dir: /tmp/x
control: {address: 'https://127.0.0.1:15012', ca_file: /tmp/ca.pem}
workload: {namespace: shop, service_account: reviews, address: 127.0.0.11, ports: [{port: 8080, protocol: http}]}
listen: {explicit: '127.0.0.11:15080', mesh: '127.0.0.11:15008', admin: '127.0.0.11:15000'}
";

    fn refused(change: (&str, &str), expect: &str) {
        let text = GOOD.replace(change.0, change.1);
        let error = Config::parse(Path::new("proxy.yaml"), &text).expect_err(change.1).to_string();
        assert!(error.contains(expect), "{error}");
        assert!(error.contains("proxy.yaml"), "{error}");
    }

    #[test]
    fn a_good_file_has_its_defaults() {
        let config = Config::parse(Path::new("proxy.yaml"), GOOD).unwrap();
        assert_eq!(config.workload_name(), "reviews-1");
        assert_eq!(config.drain_timeout(), Duration::from_secs(30));
        assert_eq!(config.limits, Limits::default());
        assert!(!config.danger_plaintext_tunnel);
    }

    #[test]
    fn bad_files_are_refused_by_name() {
        refused(("name: reviews-1", "name: ''"), "name");
        refused(("name: reviews-1", "name: 'Bad Name'"), "'Bad Name' is no name");
        refused(("name: reviews-1", "log: inof\nname: reviews-1"), "'inof' is no level");
        refused(("name: reviews-1", "limits: {max_connections: 0}\nname: reviews-1"), "limits.max_connections");
        refused(("protocol: http", "protocol: udp"), "UDP is not carried yet");
        refused(("127.0.0.11:15000", "10.0.0.1:15000"), "not a loopback");
        refused(("https://127", "http://127"), "must start with https://");
        refused(("state_dir", "state_dirr"), "state_dirr");
        refused(("[{port: 8080, protocol: http}]", "[{port: 1}, {port: 1}]"), "listed twice");
        refused(("protocol: http", "protocol: smtp"), "smtp");
        refused(("listen:", "capture: {}\nlisten:"), "needs listen.outbound");
    }
}

//! The one configuration file of weft-proxy: what a person writes, with defaults, parsed once and then trusted.
//! Units are in the type; an unknown key is an error with its line.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weft_policy::bundle::Protocol;
use weft_policy::identity::TrustDomain;
use weft_policy::registration::{self, Fault, Field, Registration, Told};
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
    /// The control plane would refuse what it is told; a line for each reason.
    #[error("{path}: {wrong}")]
    Registration { path: PathBuf, wrong: String },
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
    /// File of the access log. Default: standard output. A file is opened again at SIGHUP and SIGUSR1.
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
    /// Bytes that the process may hold for streams whose receivers take nothing, both directions and all protocols. Above:
    /// those that have stalled longest are reset and counted.
    pub stalled_bytes: u64,
    /// A stream that waits for its receiver for less has not stalled.
    pub stalled_after_ms: u64,
    /// HTTP/2 with apps: bytes of one stream that may come before any are read.
    pub h2_stream_window_bytes: u32,
    /// The same for a whole connection with few streams; it grows with their number.
    pub h2_connection_window_bytes: u32,
    /// HTTP/2 with apps: bytes of one stream that may wait to be written.
    pub h2_send_buffer_bytes: usize,
    /// Mesh: bytes of one stream that a peer may send before any are read.
    pub quic_stream_window_bytes: u32,
    /// The same for peers that are far away, on connections of their own.
    pub quic_far_stream_window_bytes: u32,
    /// The round trip from which on a peer is far away.
    pub quic_far_from_ms: u64,
    /// Mesh: bytes of one connection over all its streams. A connection gets no more requests than may all stall in it.
    pub quic_connection_window_bytes: u32,
    /// Mesh: bytes of one connection that are kept until its peer has acknowledged them.
    pub quic_send_window_bytes: u32,
    /// Times that a request is sent again to an app that refused it unprocessed.
    pub app_resends: u32,
    /// Endpoints that one request tries.
    pub endpoints_tried: usize,
    /// Addresses of one name outside the mesh that are tried.
    pub outside_addresses: usize,
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
    /// How long a dial to a peer may take.
    pub peer_dial_timeout_ms: u64,
    /// How long a peer's handshake may take.
    pub peer_handshake_timeout_ms: u64,
    /// A connection to a peer that owes an answer for this long is suspect: new requests go to another one.
    pub peer_suspect_after_ms: u64,
    /// How long a request that may go to another endpoint waits for a new connection to a peer that fell silent.
    pub peer_elsewhere_after_ms: u64,
    /// How long a silent connection, and what waits on it, is kept.
    pub peer_silence_s: u64,
    /// A suspect connection is closed when a younger one to the same peer has lived for this long.
    pub peer_forgotten_after_ms: u64,
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

/// A window below one frame of HTTP/2 or a few datagrams of QUIC only costs round trips.
const LEAST_WINDOW: u64 = 16 * 1_024;

/// The most that HTTP/2 can say.
//= rfc9113#section-6.9.1
const MAX_H2_WINDOW: u64 = (1 << 31) - 1;

impl Limits {
    /// Limits that each HTTP codec keeps to.
    pub fn http(&self) -> HttpLimits {
        HttpLimits {
            head_bytes: self.http_head_bytes,
            fields: self.http_fields,
            target_bytes: self.http_target_bytes,
            trailer_bytes: self.http_trailer_bytes,
            head_timeout: Duration::from_millis(self.http_head_timeout_ms),
            idle_timeout: Duration::from_secs(self.http_idle_timeout_s),
            h2_stream_window: self.h2_stream_window_bytes,
            h2_connection_window: self.h2_connection_window_bytes,
            h2_send_buffer: self.h2_send_buffer_bytes,
            ..HttpLimits::default()
        }
    }
}

impl Limits {
    /// # Errors
    /// A number is out of its bounds, or fits another one badly: the key, and what is wrong.
    fn check(&self) -> Result<(), (&'static str, String)> {
        for (key, value, least, most) in self.bounds() {
            if value < least {
                return Err((key, format!("must be at least {least}")));
            }
            if value > most {
                return Err((key, format!("must be at most {most}")));
            }
        }
        for (key, larger, smaller_key, smaller) in [
            (
                "limits.quic_far_stream_window_bytes",
                self.quic_far_stream_window_bytes,
                "limits.quic_stream_window_bytes",
                self.quic_stream_window_bytes,
            ),
            (
                "limits.quic_connection_window_bytes",
                self.quic_connection_window_bytes,
                "limits.quic_far_stream_window_bytes",
                self.quic_far_stream_window_bytes,
            ),
        ] {
            if larger < smaller {
                return Err((key, format!("must be at least {smaller_key}, which is {smaller}")));
            }
        }
        Ok(())
    }

    /// Key, value, least and most of each number that has bounds.
    fn bounds(&self) -> [(&'static str, u64, u64, u64); 38] {
        const ANY: u64 = u64::MAX;
        /// More than a year, in milliseconds: what is longer is a mistake, and may be more than a clock holds.
        const LONG: u64 = 400 * 24 * 3_600 * 1_000;
        [
            ("limits.http_head_bytes", self.http_head_bytes as u64, 1, ANY),
            ("limits.http_fields", self.http_fields as u64, 1, MAX_HTTP_FIELDS as u64),
            ("limits.http_target_bytes", self.http_target_bytes as u64, 1, ANY),
            ("limits.http_head_timeout_ms", self.http_head_timeout_ms, 1, LONG),
            ("limits.http_idle_timeout_s", self.http_idle_timeout_s, 1, LONG / 1_000),
            ("limits.max_connections", self.max_connections as u64, 1, ANY),
            ("limits.app_h2_connections", self.app_h2_connections as u64, 1, ANY),
            ("limits.stalled_bytes", self.stalled_bytes, 1 << 20, ANY),
            ("limits.stalled_after_ms", self.stalled_after_ms, 1, LONG),
            ("limits.h2_stream_window_bytes", self.h2_stream_window_bytes.into(), LEAST_WINDOW, MAX_H2_WINDOW),
            ("limits.h2_connection_window_bytes", self.h2_connection_window_bytes.into(), 65_535, MAX_H2_WINDOW),
            ("limits.h2_send_buffer_bytes", self.h2_send_buffer_bytes as u64, LEAST_WINDOW, MAX_H2_WINDOW),
            ("limits.quic_stream_window_bytes", self.quic_stream_window_bytes.into(), LEAST_WINDOW, ANY),
            ("limits.quic_far_stream_window_bytes", self.quic_far_stream_window_bytes.into(), LEAST_WINDOW, ANY),
            ("limits.quic_connection_window_bytes", self.quic_connection_window_bytes.into(), LEAST_WINDOW, ANY),
            ("limits.quic_send_window_bytes", self.quic_send_window_bytes.into(), LEAST_WINDOW, ANY),
            ("limits.quic_far_from_ms", self.quic_far_from_ms, 0, LONG),
            ("limits.endpoints_tried", self.endpoints_tried as u64, 1, 1_024),
            ("limits.app_resends", self.app_resends.into(), 0, 1_024),
            ("limits.outside_addresses", self.outside_addresses as u64, 1, 1_024),
            ("limits.max_streams_per_connection", self.max_streams_per_connection.into(), 1, ANY),
            ("limits.max_peer_connections", self.max_peer_connections as u64, 1, ANY),
            ("limits.max_peer_connections_per_source", self.max_peer_connections_per_source as u64, 1, ANY),
            ("limits.max_peer_connections_per_identity", self.max_peer_connections_per_identity as u64, 1, ANY),
            ("limits.max_handshakes", self.max_handshakes as u64, 1, ANY),
            ("limits.peer_streams_per_connection", self.peer_streams_per_connection as u64, 1, ANY),
            ("limits.peer_connections", self.peer_connections as u64, 1, ANY),
            ("limits.peer_idle_timeout_s", self.peer_idle_timeout_s, 1, LONG / 1_000),
            ("limits.peer_dial_timeout_ms", self.peer_dial_timeout_ms, 1, LONG),
            ("limits.peer_handshake_timeout_ms", self.peer_handshake_timeout_ms, 1, LONG),
            ("limits.peer_suspect_after_ms", self.peer_suspect_after_ms, 10, LONG),
            ("limits.peer_elsewhere_after_ms", self.peer_elsewhere_after_ms, 1, LONG),
            // QUIC tells the idle timeout in milliseconds, of which the transport takes 32 bits.
            ("limits.peer_silence_s", self.peer_silence_s, 4, u64::from(u32::MAX) / 1_000),
            ("limits.peer_forgotten_after_ms", self.peer_forgotten_after_ms, 1, LONG),
            ("limits.metric_series_per_worker", self.metric_series_per_worker as u64, 1, ANY),
            ("limits.access_log_queue_lines", self.access_log_queue_lines as u64, 1, ANY),
            ("limits.side_connections", self.side_connections as u64, 1, ANY),
            ("limits.side_head_timeout_ms", self.side_head_timeout_ms, 1, LONG),
        ]
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
            stalled_bytes: 256 << 20,
            stalled_after_ms: 1_000,
            h2_stream_window_bytes: 128 * 1_024,
            h2_connection_window_bytes: 1 << 20,
            h2_send_buffer_bytes: 64 * 1_024,
            quic_stream_window_bytes: 256 * 1_024,
            quic_far_stream_window_bytes: 4 << 20,
            quic_far_from_ms: 8,
            quic_connection_window_bytes: 256 << 20,
            quic_send_window_bytes: 8 << 20,
            app_resends: 16,
            endpoints_tried: 16,
            outside_addresses: 8,
            max_streams_per_connection: 1_024,
            max_peer_connections: 8_192,
            max_peer_connections_per_source: 512,
            max_peer_connections_per_identity: 2_048,
            max_handshakes: 1_024,
            peer_streams_per_connection: 256,
            peer_connections: 4,
            peer_idle_timeout_s: 60,
            peer_dial_timeout_ms: 2_000,
            peer_handshake_timeout_ms: 5_000,
            peer_suspect_after_ms: 750,
            peer_elsewhere_after_ms: 600,
            peer_silence_s: 60,
            peer_forgotten_after_ms: 5_000,
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
        config.check_registration(path)?;
        if let Err(wrong) = crate::telemetry::check_log_filter(&config.log) {
            return refuse("log", wrong);
        }
        config.limits.check().map_err(|(key, message)| ConfigError::Value { path: path.to_owned(), key, message })?;
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
        Ok(config)
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

    /// Judges it as the control plane will.
    fn check_registration(&self, path: &Path) -> Result<(), ConfigError> {
        // The trust domain is known once joined; nothing of a registration depends on it.
        let (namespace, account) = (&self.workload.namespace, &self.workload.service_account);
        let identity = TrustDomain::default().workload(namespace, account);
        let refuse = |wrong: Vec<String>| {
            Err(ConfigError::Registration {
                path: path.to_owned(),
                wrong: wrong.join(&format!("\n{}: ", path.display())),
            })
        };
        let mut wrong: Vec<_> = registration::proxy_name(&self.name).err().iter().map(told_here).collect();
        match identity {
            Ok(identity) => match Registration::new(self.told(), &identity) {
                Ok(_) => {}
                Err(faults) => wrong.extend(faults.iter().map(told_here)),
            },
            Err(error) => wrong.push(format!("workload: {error}")),
        }
        if wrong.is_empty() { Ok(()) } else { refuse(wrong) }
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
    fn who_listens_on_all_addresses_is_reached_at_the_workloads() {
        let config =
            Config::parse(Path::new("proxy.yaml"), &GOOD.replace("mesh: '127.0.0.11", "mesh: '0.0.0.0")).unwrap();
        assert_eq!(config.told().mesh_address, "127.0.0.11:15008");
    }

    #[test]
    fn bad_files_are_refused_by_name() {
        refused(("name: reviews-1", "name: ''"), "name: \"\" is not a name");
        refused(("name: reviews-1", "name: 'Bad Name'"), "name: \"Bad Name\" is not a name");
        refused(("address: 127.0.0.11", "service: my.app, address: 127.0.0.11"), "workload.service: \"my.app\" is not");
        refused(("address: 127.0.0.11", "name: a..b, address: 127.0.0.11"), "workload.name: \"a..b\" is not a name");
        refused(
            ("address: 127.0.0.11", "labels: {a: \"x\\ny\"}, address: 127.0.0.11"),
            "workload.labels: \"a\" its value",
        );
        refused(("mesh: '127.0.0.11", "mesh: '224.0.0.1"), "listen.mesh: 224.0.0.1");
        refused(("mesh: '127.0.0.11:15008", "mesh: '127.0.0.11:0"), "listen.mesh: port 0");
        refused(("name: reviews-1", "log: inof\nname: reviews-1"), "'inof' is no level");
        refused(("name: reviews-1", "limits: {max_connections: 0}\nname: reviews-1"), "limits.max_connections");
        refused(("name: reviews-1", "limits: {http_fields: 129}\nname: reviews-1"), "http_fields: must be at most 128");
        refused(("name: reviews-1", "limits: {stalled_bytes: 10}\nname: reviews-1"), "stalled_bytes: must be at least");
        refused(
            ("name: reviews-1", "limits: {quic_far_stream_window_bytes: 65536}\nname: reviews-1"),
            "must be at least limits.quic_stream_window_bytes, which is 262144",
        );
        refused(("protocol: http", "protocol: udp"), "UDP is not carried yet");
        refused(("127.0.0.11:15000", "10.0.0.1:15000"), "not a loopback");
        refused(("https://127", "http://127"), "must start with https://");
        refused(("state_dir", "state_dirr"), "state_dirr");
        refused(("[{port: 8080, protocol: http}]", "[{port: 1}, {port: 1}]"), "listed twice");
        refused(("protocol: http", "protocol: smtp"), "smtp");
        refused(("listen:", "capture: {}\nlisten:"), "needs listen.outbound");
    }
}

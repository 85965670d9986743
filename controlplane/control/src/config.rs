//! Everything that `weft-control` can be told: one YAML file, overridden by the flags. Units are in the names, unknown
//! fields are errors, every limit has a default here.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls_pki_types::ServerName;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use weft_policy::identity::TrustDomain;
use weft_policy::numbers::Misfits;
use weft_policy::text::{mistyped_level, no_level};
use weft_store::{EtcdOptions, EtcdTls, Location, LocationError, MAX_VALUE};

use crate::ca::{AuthorityError, Keys};

/// The embedded store, as `store` names it.
const REDB: &str = "redb";

/// The configuration file. Every field has a default; an absent file means all defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address of all three listeners. Default 127.0.0.1.
    pub bind: IpAddr,
    /// Folder of the store, the CA and the first operator token. Default `/var/lib/weft/control`.
    pub state: PathBuf,
    /// The store: `redb` (default), a file in the state folder for one weft-control, or `etcd://HOST:PORT,HOST:PORT/PREFIX`
    /// for several.
    pub store: String,
    /// How a store in etcd is reached.
    pub etcd: EtcdAccess,
    /// `HOST:PORT` of the proxies' port by which the other control planes of the store reach this one. Default: where it is
    /// bound; with `bind` 0.0.0.0 or `::` the first of `advertise`.
    pub replica_address: Option<String>,
    /// How long another control plane of the store may take to say what it knows, milliseconds.
    pub replica_timeout_ms: u64,
    pub ports: Ports,
    /// Fixed at the first start; a later change is refused.
    pub trust_domain: String,
    /// Life of a proxy's certificate, seconds. Default 24 h; proxies renew before half of it is over.
    pub svid_ttl_seconds: u64,
    /// How long after its end a certificate may still be renewed, seconds; 0 = not at all. Default 7 days. Only the last one
    /// that was issued in its line, never one of a banned identity.
    pub identity_grace_seconds: u64,
    /// Further DNS names and addresses for the server certificate.
    pub advertise: Vec<String>,
    /// File with the secret that the authority's keys are encrypted with at rest: a key of random bytes or a passphrase.
    /// Keys that lie in plain text are encrypted at the first start with it.
    pub ca_secret_file: Option<PathBuf>,
    /// Folder with the shipped filters; default `filters` beside the executable.
    pub builtin_filters: Option<PathBuf>,
    /// Try each filter with its configuration here before a FilterPolicy or a filter is taken. Default true; it takes a
    /// machine for which filters can be compiled.
    pub try_filters: bool,
    /// How long the endpoints of a proxy that vanished without a word stay in discovery whatever peers say, milliseconds.
    pub disconnect_grace_ms: u64,
    /// The same where no peer says that it can't reach them, milliseconds.
    pub unheard_grace_ms: u64,
    /// Endpoints of one service that may leave at once because they fell silent, percent; never the last.
    pub endpoint_loss_percent: usize,
    /// How long after a start endpoints known from the store stay until their proxies come back, milliseconds.
    pub restart_grace_ms: u64,
    /// How long the name of a workload that left stays its account's, seconds. Default one day.
    pub name_grace_seconds: u64,
    /// A change is published after this much quiet, milliseconds ...
    pub coalesce_quiet_ms: u64,
    /// ... and at the latest after this, milliseconds.
    pub coalesce_max_ms: u64,
    /// Log filter in `tracing` syntax.
    pub log: String,
    pub limits: Limits,
}

/// Files and names for a store in etcd. Without a CA it is spoken to in clear text.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EtcdAccess {
    /// Certificates, PEM, one of which signed those of etcd's members.
    pub ca_file: Option<PathBuf>,
    /// Certificate that this server shows, PEM.
    pub cert_file: Option<PathBuf>,
    /// The key of that.
    pub key_file: Option<PathBuf>,
    /// Name of etcd's user.
    pub user: Option<String>,
    /// File with the password of that.
    pub password_file: Option<PathBuf>,
}

/// The store that `store` means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreKind {
    Redb,
    Etcd(Location),
}

/// Ports of the listeners; 0 = any free one.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ports {
    pub grpc: u16,
    pub api: u16,
    pub metrics: u16,
}

/// Bounds on the use of memory and disk.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open connections for each TLS listener.
    pub max_connections: usize,
    /// Those of them that come from one address, and those that show certificates of one account, each.
    pub max_connections_of_one: usize,
    /// Open connections to the port of metrics and health.
    pub max_metrics_connections: usize,
    /// How long a connection may be open on which nothing is asked, milliseconds.
    pub idle_connection_ms: u64,
    /// Deadline of a TLS handshake, milliseconds.
    pub handshake_timeout_ms: u64,
    /// One filter binary, bytes.
    pub max_filter_bytes: usize,
    /// One request body of the operator API but for filters, bytes.
    pub max_body_bytes: usize,
    /// Memory that the bodies of all calls under way may take, bytes; one token has half of it at the most.
    pub max_open_body_bytes: usize,
    /// How long such a body may take to arrive, milliseconds.
    pub body_timeout_ms: u64,
    /// Documents in one apply.
    pub max_documents: usize,
    /// Calls of the operator API with one token in a minute.
    pub max_api_calls_per_minute: u32,
    /// Calls of the operator API with one token that are under way at a time.
    pub max_open_calls_per_token: usize,
    /// Dry runs and explanations that are computed at a time, and searches of the audit log; further ones wait.
    pub max_concurrent_plans: usize,
    /// Tokens that are good at a time; a namespace has a tenth of them, and who makes them a fifth.
    pub max_tokens: usize,
    /// Entries kept in the audit log, in the room of as many of 2 KiB.
    pub max_audit_entries: u64,
    /// Workloads that one proxy may register.
    pub max_workloads_per_proxy: usize,
    /// Certificates that one identity may renew in a minute.
    pub max_renewals_per_minute: u32,
    /// Intermediates, and words for new roots, that are signed for other control planes of the store in a minute.
    pub max_signings_per_minute: u32,
    /// Control streams that may be open with one certificate.
    pub max_streams_per_certificate: usize,
    /// Control streams that one certificate may open in a minute.
    pub max_hellos_per_minute: u32,
    /// Control streams that the proxies of one account may open in a minute.
    pub max_account_hellos_per_minute: u32,
    /// Changes of what they register that the proxies of one account may make in a minute.
    pub max_registrations_per_minute: u32,
    /// Joins that may be tried from one address (of IPv6 from one network of 64 bits) in a minute.
    pub max_joins_per_minute: u32,
    /// Messages that a proxy may send in a minute on its control stream.
    pub max_messages_per_minute: u32,
    /// Names and addresses that a proxy may ask for and be told of though they are not there. More stays unanswered.
    pub max_absent_asks_per_proxy: usize,
    /// Of the same by all proxies of one account.
    pub max_absent_asks_per_account: usize,
    /// Messages with questions of a proxy that are answered at once in a minute. More are answered with the next change.
    pub max_questions_per_minute: u32,
    /// A request that is no control stream (a join, a renewal), bytes.
    pub max_request_bytes: usize,
    /// How long such a request may take to arrive and be answered, a connection until its first byte, and one to the port of
    /// metrics and health in all, milliseconds.
    pub request_timeout_ms: u64,
    /// How long a connection whose peer shows no client certificate and no operator's token may last, milliseconds: joining
    /// takes no longer.
    pub anonymous_connection_ms: u64,
    /// A snapshot of the control plane, bytes.
    pub max_snapshot_bytes: usize,
    /// The registration of one workload, bytes.
    pub max_registration_bytes: usize,
    /// One message of a proxy on the control stream, bytes.
    pub max_message_bytes: usize,
    /// One object, bytes as the store has it.
    pub max_object_bytes: usize,
    /// The applied objects of one namespace, and the values of Secrets as often as its policies grant them, bytes: every proxy
    /// of the mesh may be told of them.
    pub max_namespace_bytes: usize,
    /// The workloads that the proxies of one account register, bytes.
    pub max_account_bytes: usize,
    /// Control streams that the proxies of one account may have open.
    pub max_streams_per_account: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            state: PathBuf::from("/var/lib/weft/control"),
            store: REDB.to_owned(),
            etcd: EtcdAccess::default(),
            replica_address: None,
            replica_timeout_ms: 1_000,
            ports: Ports::default(),
            trust_domain: "cluster.local".to_owned(),
            svid_ttl_seconds: 24 * 3600,
            identity_grace_seconds: 7 * 24 * 3600,
            advertise: Vec::new(),
            ca_secret_file: None,
            builtin_filters: None,
            disconnect_grace_ms: 30_000,
            unheard_grace_ms: 3_600_000,
            try_filters: true,
            endpoint_loss_percent: 50,
            restart_grace_ms: 30_000,
            name_grace_seconds: 24 * 3600,
            coalesce_quiet_ms: 20,
            coalesce_max_ms: 200,
            log: "info".to_owned(),
            limits: Limits::default(),
        }
    }
}

impl Ports {
    /// Free ones, whichever.
    pub const ANY: Self = Self { grpc: 0, api: 0, metrics: 0 };
}

impl Default for Ports {
    fn default() -> Self {
        Self { grpc: 15012, api: 15013, metrics: 15014 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
            max_metrics_connections: 64,
            max_connections_of_one: 4_096,
            idle_connection_ms: 120_000,
            handshake_timeout_ms: 10_000,
            max_filter_bytes: 16 << 20,
            max_body_bytes: 16 << 20,
            max_open_body_bytes: 512 << 20,
            body_timeout_ms: 60_000,
            max_documents: 10_000,
            max_api_calls_per_minute: 12_000,
            max_open_calls_per_token: 128,
            max_concurrent_plans: 2,
            max_tokens: 20_000,
            max_audit_entries: 100_000,
            max_workloads_per_proxy: 1_024,
            max_renewals_per_minute: 60,
            max_signings_per_minute: 12,
            max_streams_per_certificate: 16,
            max_hellos_per_minute: 120,
            max_account_hellos_per_minute: 2_400,
            max_registrations_per_minute: 1_200,
            max_joins_per_minute: 6_000,
            max_messages_per_minute: 6_000,
            max_absent_asks_per_proxy: 16_384,
            max_absent_asks_per_account: 131_072,
            max_questions_per_minute: 1_800,
            max_request_bytes: 64 << 10,
            request_timeout_ms: 10_000,
            anonymous_connection_ms: 30_000,
            max_snapshot_bytes: 1 << 30,
            max_registration_bytes: 16 << 10,
            max_message_bytes: 8 << 20,
            max_object_bytes: 512 << 10,
            max_namespace_bytes: 16 << 20,
            max_account_bytes: 4 << 20,
            max_streams_per_account: 4_096,
        }
    }
}

impl EtcdAccess {
    /// Files that are named, with their keys.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [
            ("etcd.ca_file", &self.ca_file),
            ("etcd.cert_file", &self.cert_file),
            ("etcd.key_file", &self.key_file),
            ("etcd.password_file", &self.password_file),
        ];
        files.into_iter().filter_map(|(key, file)| Some((key, file.as_deref()?)))
    }

    /// Keys that mean nothing without another: each with whether it is given, the other, and whether that is.
    fn pairs(&self) -> [(&'static str, bool, &'static str, bool); 5] {
        let given = |file: &Option<PathBuf>| file.is_some();
        let (ca, cert, key) = (given(&self.ca_file), given(&self.cert_file), given(&self.key_file));
        let (user, password) = (self.user.is_some(), given(&self.password_file));
        [
            ("etcd.cert_file", cert, "etcd.key_file", key),
            ("etcd.key_file", key, "etcd.cert_file", cert),
            ("etcd.cert_file", cert, "etcd.ca_file", ca),
            ("etcd.user", user, "etcd.password_file", password),
            ("etcd.password_file", password, "etcd.user", user),
        ]
    }
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("configuration file {path}: {reason}")]
    Read { path: PathBuf, reason: String },
    #[error("configuration file {path}: {reason}")]
    Parse { path: PathBuf, reason: String },
    #[error("{}", .0.join("\n"))]
    Values(Vec<String>),
}

impl Config {
    /// Reads `path`, or gives the defaults where there is none.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let read = |e: std::io::Error| ConfigError::Read { path: path.to_owned(), reason: e.to_string() };
        let text = std::fs::read_to_string(path).map_err(read)?;
        let parse = |e: serde_saphyr::Error| ConfigError::Parse { path: path.to_owned(), reason: e.to_string() };
        serde_saphyr::from_str(&text).map_err(|error| {
            // The parser stops at the first number that its type can't hold.
            let bounds = Self::default().numbers().map(|(key, _, bounds)| (key, bounds));
            match Misfits::<Self>::find(&text, bounds) {
                Some(found) => ConfigError::Values(found.with(|rest| rest.faults())),
                None => parse(error),
            }
        })
    }

    /// Refuses values that can't work, all of them at once.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let wrong = self.faults();
        if wrong.is_empty() { Ok(()) } else { Err(ConfigError::Values(wrong)) }
    }

    /// Values that can't work, each with its key.
    fn faults(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut refuse = |key: &str, reason: String| wrong.push(format!("{key}: {reason}"));
        for (key, value, bounds) in self.numbers() {
            if !bounds.contains(&value) {
                refuse(key, format!("{value} is not from {} to {}", bounds.start(), bounds.end()));
            }
        }
        if self.coalesce_max_ms < self.coalesce_quiet_ms {
            refuse("coalesce_max_ms", "must be at least coalesce_quiet_ms".to_owned());
        }
        if let Err(error) = self.trust_domain.parse::<TrustDomain>() {
            refuse("trust_domain", error.to_string());
        }
        for (index, name) in self.advertise.iter().enumerate() {
            if ServerName::try_from(name.as_str()).is_err() {
                refuse(&format!("advertise[{index}]"), format!("{name:?} is no DNS name and no address"));
            }
        }
        if let Some(told) = self.replica_address.as_ref().filter(|told| !is_host_and_port(told)) {
            refuse("replica_address", format!("{told:?} is no HOST:PORT"));
        }
        match self.store_kind() {
            Err(reason) => refuse("store", reason),
            Ok(StoreKind::Redb) => {}
            Ok(StoreKind::Etcd(_)) if self.limits.max_object_bytes > MAX_VALUE => {
                refuse("limits.max_object_bytes", format!("a store in etcd takes at most {MAX_VALUE} bytes"));
            }
            Ok(StoreKind::Etcd(_)) => {}
        }
        for (key, given, needs, also) in self.etcd.pairs() {
            if given && !also {
                refuse(key, format!("needs {needs} as well"));
            }
        }
        if let Some(folder) = self.builtin_filters.as_ref().filter(|folder| !folder.is_dir()) {
            refuse("builtin_filters", format!("{} is no folder", folder.display()));
        }
        if let Err(reason) = log_filter(&self.log) {
            refuse("log", reason);
        }
        for (key, reason) in self.collisions() {
            refuse(key, reason);
        }
        wrong.extend(self.keys().err().map(|error| error.to_string()));
        wrong
    }

    /// Listeners whose port is another's, with what to say of them.
    pub(crate) fn collisions(&self) -> Vec<(&'static str, String)> {
        let listeners = self.listeners();
        let others = |index: usize, at: SocketAddr| {
            let same = listeners[..index].iter().find(|(_, other)| at.port() != 0 && *other == at);
            same.map(|(other, _)| format!("{at} collides with {other}"))
        };
        let told = listeners.iter().enumerate();
        told.filter_map(|(index, (key, at))| Some((*key, others(index, *at)?))).collect()
    }

    /// How the authority's keys lie on disk.
    pub fn keys(&self) -> Result<Keys, AuthorityError> {
        self.ca_secret_file.as_deref().map_or(Ok(Keys::default()), Keys::sealed_by)
    }

    /// The store that is meant, or why that is none.
    pub fn store_kind(&self) -> Result<StoreKind, String> {
        match self.store.as_str() {
            REDB => Ok(StoreKind::Redb),
            other => {
                other.parse().map(StoreKind::Etcd).map_err(|error: LocationError| format!("{error}, nor {REDB:?}"))
            }
        }
    }

    /// How the store at `location` is reached: reads the files that are named.
    pub fn etcd_options(&self, location: Location) -> Result<EtcdOptions, ConfigError> {
        let read = |path: &PathBuf| {
            let failed = |error: std::io::Error| ConfigError::Read { path: path.clone(), reason: error.to_string() };
            std::fs::read_to_string(path).map_err(failed)
        };
        let access = &self.etcd;
        let both = |a: &Option<PathBuf>, b: &Option<PathBuf>| a.clone().zip(b.clone());
        let identity = match both(&access.cert_file, &access.key_file) {
            Some((certificate, key)) => Some((read(&certificate)?, read(&key)?)),
            None => None,
        };
        let tls = match &access.ca_file {
            Some(ca) => Some(EtcdTls { ca: read(ca)?, identity }),
            None => None,
        };
        let user = match access.user.clone().zip(access.password_file.as_ref()) {
            Some((name, file)) => Some((name, read(file)?.trim_end_matches(['\n', '\r']).to_owned())),
            None => None,
        };
        Ok(EtcdOptions { members: location.members, prefix: location.prefix, tls, user })
    }

    /// Every number with its bounds.
    fn numbers(&self) -> [(&'static str, u64, RangeInclusive<u64>); 50] {
        const DAY: u64 = 24 * 3600;
        let limits = &self.limits;
        let size = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let shortest_life = if cfg!(test) { 0 } else { 10 };
        [
            ("ports.grpc", self.ports.grpc.into(), 0..=65_535),
            ("ports.api", self.ports.api.into(), 0..=65_535),
            ("ports.metrics", self.ports.metrics.into(), 0..=65_535),
            ("svid_ttl_seconds", self.svid_ttl_seconds, shortest_life..=365 * DAY),
            ("identity_grace_seconds", self.identity_grace_seconds, 0..=3_650 * DAY),
            ("disconnect_grace_ms", self.disconnect_grace_ms, 0..=DAY * 1_000),
            ("unheard_grace_ms", self.unheard_grace_ms, 0..=30 * DAY * 1_000),
            ("endpoint_loss_percent", size(self.endpoint_loss_percent), 0..=100),
            ("restart_grace_ms", self.restart_grace_ms, 0..=DAY * 1_000),
            ("name_grace_seconds", self.name_grace_seconds, 0..=3_650 * DAY),
            ("replica_timeout_ms", self.replica_timeout_ms, 10..=60_000),
            ("coalesce_quiet_ms", self.coalesce_quiet_ms, 0..=60_000),
            ("coalesce_max_ms", self.coalesce_max_ms, 0..=600_000),
            ("limits.max_connections", size(limits.max_connections), 1..=1_000_000),
            ("limits.max_metrics_connections", size(limits.max_metrics_connections), 1..=65_536),
            ("limits.max_connections_of_one", size(limits.max_connections_of_one), 1..=1_000_000),
            ("limits.idle_connection_ms", limits.idle_connection_ms, 1..=DAY * 1_000),
            ("limits.handshake_timeout_ms", limits.handshake_timeout_ms, 1..=600_000),
            ("limits.max_filter_bytes", size(limits.max_filter_bytes), 1..=1 << 30),
            ("limits.max_body_bytes", size(limits.max_body_bytes), 1..=1 << 30),
            ("limits.max_open_body_bytes", size(limits.max_open_body_bytes), 1..=1 << 40),
            ("limits.body_timeout_ms", limits.body_timeout_ms, 1..=3_600_000),
            ("limits.max_documents", size(limits.max_documents), 1..=1_000_000),
            ("limits.max_api_calls_per_minute", limits.max_api_calls_per_minute.into(), 1..=1_000_000_000),
            ("limits.max_open_calls_per_token", size(limits.max_open_calls_per_token), 1..=100_000),
            ("limits.max_concurrent_plans", size(limits.max_concurrent_plans), 1..=1_024),
            ("limits.max_tokens", size(limits.max_tokens), 1..=1_000_000),
            ("limits.max_audit_entries", limits.max_audit_entries, 1..=100_000_000),
            ("limits.max_workloads_per_proxy", size(limits.max_workloads_per_proxy), 1..=65_536),
            ("limits.max_renewals_per_minute", limits.max_renewals_per_minute.into(), 1..=1_000_000),
            ("limits.max_signings_per_minute", limits.max_signings_per_minute.into(), 1..=1_000_000),
            ("limits.max_streams_per_certificate", size(limits.max_streams_per_certificate), 1..=65_536),
            ("limits.max_hellos_per_minute", limits.max_hellos_per_minute.into(), 1..=1_000_000),
            ("limits.max_account_hellos_per_minute", limits.max_account_hellos_per_minute.into(), 1..=1_000_000),
            ("limits.max_registrations_per_minute", limits.max_registrations_per_minute.into(), 1..=1_000_000),
            ("limits.max_joins_per_minute", limits.max_joins_per_minute.into(), 1..=1_000_000),
            ("limits.max_messages_per_minute", limits.max_messages_per_minute.into(), 1..=1_000_000_000),
            ("limits.max_absent_asks_per_proxy", size(limits.max_absent_asks_per_proxy), 1..=1_000_000),
            ("limits.max_absent_asks_per_account", size(limits.max_absent_asks_per_account), 1..=1_000_000_000),
            ("limits.max_questions_per_minute", limits.max_questions_per_minute.into(), 1..=1_000_000),
            ("limits.max_request_bytes", size(limits.max_request_bytes), 1..=16 << 20),
            ("limits.request_timeout_ms", limits.request_timeout_ms, 1..=600_000),
            ("limits.anonymous_connection_ms", limits.anonymous_connection_ms, 1..=600_000),
            ("limits.max_snapshot_bytes", size(limits.max_snapshot_bytes), 1..=1 << 40),
            ("limits.max_registration_bytes", size(limits.max_registration_bytes), 1..=16 << 20),
            ("limits.max_message_bytes", size(limits.max_message_bytes), 1..=1 << 30),
            ("limits.max_object_bytes", size(limits.max_object_bytes), 1..=16 << 20),
            ("limits.max_namespace_bytes", size(limits.max_namespace_bytes), 1..=1 << 30),
            ("limits.max_account_bytes", size(limits.max_account_bytes), 1..=1 << 30),
            ("limits.max_streams_per_account", size(limits.max_streams_per_account), 1..=1_000_000),
        ]
    }

    /// The listeners with their keys.
    pub(crate) fn listeners(&self) -> [(&'static str, SocketAddr); 3] {
        [
            ("ports.grpc", self.grpc_address()),
            ("ports.api", self.api_address()),
            ("ports.metrics", self.metrics_address()),
        ]
    }

    pub fn grpc_address(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.ports.grpc)
    }

    /// Where the other control planes of the store reach this one; none where it can't know that.
    pub fn replica_address(&self) -> Option<String> {
        let port = self.ports.grpc;
        let advertised = |name: &String| match name.parse() {
            Ok(address) => SocketAddr::new(address, port).to_string(),
            Err(_) => format!("{name}:{port}"),
        };
        match &self.replica_address {
            Some(told) => Some(told.clone()),
            None if self.bind.is_unspecified() => self.advertise.first().map(advertised),
            None => Some(self.grpc_address().to_string()),
        }
    }

    pub fn replica_timeout(&self) -> Duration {
        Duration::from_millis(self.replica_timeout_ms)
    }

    pub fn api_address(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.ports.api)
    }

    pub fn metrics_address(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.ports.metrics)
    }

    pub fn svid_ttl(&self) -> Duration {
        Duration::from_secs(self.svid_ttl_seconds)
    }

    pub fn identity_grace(&self) -> Duration {
        Duration::from_secs(self.identity_grace_seconds)
    }

    pub fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.limits.handshake_timeout_ms)
    }

    pub fn disconnect_grace(&self) -> Duration {
        Duration::from_millis(self.disconnect_grace_ms)
    }

    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.limits.request_timeout_ms)
    }

    pub fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.limits.body_timeout_ms)
    }

    pub fn anonymous_connection(&self) -> Duration {
        Duration::from_millis(self.limits.anonymous_connection_ms)
    }

    pub fn idle_connection(&self) -> Duration {
        Duration::from_millis(self.limits.idle_connection_ms)
    }

    pub fn unheard_grace(&self) -> Duration {
        Duration::from_millis(self.unheard_grace_ms)
    }

    pub fn restart_grace(&self) -> Duration {
        Duration::from_millis(self.restart_grace_ms)
    }

    pub fn coalesce(&self) -> Coalesce {
        let ms = Duration::from_millis;
        Coalesce { quiet: ms(self.coalesce_quiet_ms), at_most: ms(self.coalesce_max_ms) }
    }
}

/// The filter of the log.
///
/// # Errors
/// It can't be parsed, or a word alone in it is no level.
pub fn log_filter(text: &str) -> Result<EnvFilter, String> {
    if let Some(word) = mistyped_level(text) {
        return Err(no_level(word));
    }
    EnvFilter::try_new(text).map_err(|error| format!("{text:?}: {error}"))
}

fn is_host_and_port(text: &str) -> bool {
    let parsed = text.parse::<http::uri::Authority>();
    parsed.is_ok_and(|it| {
        !it.as_str().contains('@') && !it.host().is_empty() && it.port_u16().is_some_and(|port| port > 0)
    })
}

/// How changes are gathered before they are sent: after `quiet` without another one, `at_most` after the first.
#[derive(Debug, Clone, Copy)]
pub struct Coalesce {
    pub quiet: Duration,
    pub at_most: Duration,
}

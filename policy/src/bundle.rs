//! Bundle of one proxy: the part of the world that concerns it, already resolved. The control plane plans it, the wire
//! carries it as deltas, the proxy turns it into its `Snapshot`. Plain data, compared and serialised as it is: fields and
//! variants that a reader does not know are refused, since passing them over could widen what is meant.

mod action;
mod attached;
mod cors;
mod external;
mod grant;
mod health;
mod mirror;
mod retry;
mod route_kind;
mod session;
mod spread;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::authz;
use crate::identity::{SpiffeId, TrustDomain};
use crate::path::PathReading;
use crate::scope::{Ask, Ranges};
use crate::statement::SignedStatement;
pub use action::{HeaderModifier, PathChange, Redirect, Rewrite, RouteAction, Scheme};
pub use attached::AttachedRule;
pub use cors::Cors;
pub use external::{External, ExternalEndpoint, ExternalPort, ExternalProtocol, ExternalTls};
pub use grant::{
    CalloutGrant, CalloutService, FilterLimits, Grant, GrantedSecret, KvGrant, KvScope, MAX_BODY_BYTES,
    MAX_CALLOUT_SERVICES, MAX_FILTER_MEMORY_BYTES, MAX_KV_BYTES, MAX_KV_ENTRIES, MAX_SECRETS, OverBody, SecretGrant,
    needs_every_import,
};
pub use health::{HealthCheck, HealthProbe, HttpProbe, StatusRange};
pub use mirror::Mirror;
pub use retry::{GRPC_CODES, Hedge, Retry, is_idempotent};
pub use route_kind::{RouteKind, RouteName};
pub use session::{Persistence, SessionToken};
pub use spread::{
    Failover, Locality, Nearness, Place, PlaceShare, PlaceShares, Prefer, REGION, SUBZONE, SlowStart, Spread, ZONE,
};
pub use traffic::{AdaptiveLimit, Balancing, HashKey, Limits, Outliers, SourceKey, SuccessRate, Traffic};

/// The version of the whole world, assigned by the store. Ordered; 0 = nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// `namespace/name` of any namespaced object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectName {
    pub namespace: String,
    pub name: String,
}

impl ObjectName {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Not `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not namespace/name")]
pub struct ObjectNameError(String);

impl FromStr for ObjectName {
    type Err = ObjectNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::new(namespace, name))
            }
            _ => Err(ObjectNameError(text.to_owned())),
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Everything that one proxy needs. Maps are keyed as deltas address their entries.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bundle {
    pub revision: Revision,
    pub mesh: Option<MeshSettings>,
    /// The workloads this proxy serves (one for a sidecar), by `namespace/name`.
    pub workloads: BTreeMap<String, ServedWorkload>,
    pub services: BTreeMap<ObjectName, Service>,
    /// Routes attached to services by GAMMA parentRefs.
    pub routes: BTreeMap<ObjectName, Route>,
    /// Names outside the mesh that its workloads may reach.
    pub externals: BTreeMap<ObjectName, External>,
    /// Filters attached to this proxy, by attachment name.
    pub filters: BTreeMap<String, FilterAttachment>,
    /// What a proxy that holds only what it uses asked for and was answered: whatever of it is not here does not exist.
    pub answered: BTreeSet<Ask>,
}

/// What is as by default is not written: a release that does not know it yet can read the rest.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Mesh-wide settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshSettings {
    pub trust_domain: TrustDomain,
    /// Roots of the trust domain, PEM.
    pub trust_bundle_pem: String,
    pub access_log: bool,
    /// Default per-request deadline towards the destination; `None` = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_timeout_ms: Option<u64>,
    /// Deadline for a connection to a peer or an app.
    pub connect_timeout_ms: u64,
    /// Attempts after the first, only for requests provably not processed.
    pub max_retries: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub egress: Egress,
    /// Every namespace of the mesh, those without services too: a name in one of them means the mesh.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub namespaces: BTreeSet<String>,
    /// The addresses that may be the mesh's, for a proxy that holds only what it uses and has the capability `scope`. Absent:
    /// it holds everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<Ranges>,
}

/// Rule on whether applications may reach destinations outside the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Egress {
    #[default]
    Allow,
    /// Services of the mesh only.
    RegistryOnly,
}

/// The application protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Http,
    Grpc,
    Tcp,
    Udp,
    /// Found out from the first bytes.
    Auto,
}

/// A workload that this proxy serves: where its app listens and who it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServedWorkload {
    pub name: ObjectName,
    pub identity: SpiffeId,
    pub address: IpAddr,
    /// Its further addresses, of either family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// App ports that callers may reach through the mesh. Anything else is refused (confused deputy).
    pub ports: Vec<WorkloadPort>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The service that metrics name as destination; the first by name that selects this workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ObjectName>,
    /// Why its app may send nothing: a filter that would judge what it sends is kept from its proxy, which can't run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound_closed: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadPort {
    pub port: u16,
    pub protocol: Protocol,
    #[serde(default, skip_serializing_if = "is_default")]
    pub app_version: AppVersion,
    #[serde(default, skip_serializing_if = "is_default")]
    pub path_reading: PathReading,
    /// An `auto` port to which something is attached that holds for HTTP only: a stream that is not HTTP is refused, so
    /// that nobody passes it by not looking like HTTP.
    #[serde(default, skip_serializing_if = "is_default")]
    pub opaque_refused: bool,
}

/// The version of HTTP that an app is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum AppVersion {
    /// The one that its caller's app spoke.
    #[default]
    AsCaller,
    /// HTTP/1.1 (`kubernetes.io/ws`).
    Http1,
    /// HTTP/2 with prior knowledge (`kubernetes.io/h2c`, `grpc`).
    Http2,
}

impl WorkloadPort {
    /// A port of which nothing else is declared.
    pub fn new(port: u16, protocol: Protocol) -> Self {
        let (app_version, path_reading) = (AppVersion::default(), PathReading::default());
        Self { port, protocol, app_version, path_reading, opaque_refused: false }
    }

    /// Says whether a byte tunnel may lead to this port. A declared protocol is law: its bytes come through the codec
    /// of that protocol and the whole chain.
    pub fn takes_tunnels(&self) -> Result<(), TunnelRefusal> {
        let port = self.port;
        match self.protocol {
            Protocol::Http => Err(TunnelRefusal::Declared { port, protocol: "http" }),
            Protocol::Grpc => Err(TunnelRefusal::Declared { port, protocol: "grpc" }),
            Protocol::Auto if self.opaque_refused => Err(TunnelRefusal::HttpOnly { port }),
            Protocol::Tcp | Protocol::Udp | Protocol::Auto => Ok(()),
        }
    }
}

/// A port that is declared tcp or udp takes no requests: conditions on paths and headers judge a byte stream otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("port {port} is declared {protocol}: it takes no HTTP requests")]
pub struct RequestRefusal {
    port: u16,
    protocol: &'static str,
}

impl Protocol {
    /// Says whether HTTP requests may be sent to a port of this protocol.
    ///
    /// # Errors
    /// The port is declared tcp or udp: it carries no HTTP.
    pub fn takes_requests(self, port: u16) -> Result<(), RequestRefusal> {
        match self {
            Protocol::Tcp => Err(RequestRefusal { port, protocol: "tcp" }),
            Protocol::Udp => Err(RequestRefusal { port, protocol: "udp" }),
            Protocol::Http | Protocol::Grpc | Protocol::Auto => Ok(()),
        }
    }
}

/// Why a port takes no byte tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TunnelRefusal {
    #[error("port {port} is declared {protocol}: it takes no byte tunnel")]
    Declared { port: u16, protocol: &'static str },
    #[error("port {port} takes HTTP only: what is attached to it holds for nothing else")]
    HttpOnly { port: u16 },
    #[error("port {port} takes TLS to the hosts of its ExternalService, and the connection begins with something else")]
    OtherHello { port: u16 },
    #[error(
        "port {port} is not declared, and a request in this connection says who its caller is, or may say it unseen (HTTP/2, \
         TLS): declare the port http, or tcp if its app believes no header that the mesh sets"
    )]
    Request { port: u16 },
    #[error(
        "a request came after an upgrade and says who its caller is, or may say it unseen (HTTP/2, TLS): nobody judged it"
    )]
    Upgraded,
}

impl ServedWorkload {
    /// True where the address is one of this workload's.
    pub fn is_at(&self, address: IpAddr) -> bool {
        is_one_of(address, self.address, &self.addresses)
    }

    /// The port that callers may reach, with what it is declared to speak. `None`: it is not served.
    pub fn port(&self, port: u16) -> Option<&WorkloadPort> {
        self.ports.iter().find(|known| known.port == port)
    }
}

/// Addresses are compared as what they are: an IPv4 address mapped into IPv6 is that IPv4 address.
fn is_one_of(address: IpAddr, first: IpAddr, further: &[IpAddr]) -> bool {
    let address = address.to_canonical();
    std::iter::once(&first).chain(further).any(|own| own.to_canonical() == address)
}

/// A service as callers see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    pub name: ObjectName,
    pub ports: Vec<ServicePort>,
    /// Virtual address for DNS and transparent capture, if it has one (`spec.clusterIP`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<IpAddr>,
    /// How its apps declare to read paths.
    #[serde(default, skip_serializing_if = "is_default")]
    pub path_reading: PathReading,
    /// What a TrafficPolicy sets; only to a proxy with the capability `traffic-policy`. Boxed: most services have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Box<Traffic>>,
    /// Which endpoints come first; only to a proxy with the capability `spread`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Box<Spread>>,
    /// By workload name; removals arrive ahead of everything else.
    #[serde(with = "by_workload")]
    pub endpoints: BTreeMap<ObjectName, Endpoint>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicePort {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub port: u16,
    pub target_port: u16,
    pub protocol: Protocol,
    #[serde(default, skip_serializing_if = "is_default")]
    pub app_version: AppVersion,
    /// As [`WorkloadPort::opaque_refused`], with the routes of the service.
    #[serde(default, skip_serializing_if = "is_default")]
    pub opaque_refused: bool,
    /// Endpoints whose own target port is another; `None`: they have none, and are no endpoints of this port. Only to a proxy
    /// with the capability `endpoint-ports`.
    #[serde(default, with = "pairs", skip_serializing_if = "BTreeMap::is_empty")]
    pub other_targets: BTreeMap<ObjectName, Option<u16>>,
}

impl ServicePort {
    /// True where some endpoints of the service are none of this port.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.other_targets.values().any(Option::is_none)
    }

    /// The port of the app at one endpoint. `None`: it is no endpoint of this port.
    #[must_use]
    pub fn target_of(&self, workload: &ObjectName) -> Option<u16> {
        match self.other_targets.is_empty() {
            true => Some(self.target_port),
            false => self.other_targets.get(workload).copied().unwrap_or(Some(self.target_port)),
        }
    }
}

/// One instance behind a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    pub workload: ObjectName,
    /// The only identity this endpoint's proxy may show. `None`: not in the mesh, reached in plain text
    /// and only where the mesh mode allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<SpiffeId>,
    pub address: IpAddr,
    /// Its further addresses, of either family: what goes to one of them goes to this endpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Address at which its proxy takes mesh traffic (UDP, QUIC).
    pub mesh_address: SocketAddr,
    /// Relative weight inside its service, default 1.
    pub weight: u32,
    /// Labels of the workload, for metrics.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Endpoint {
    /// True where the address is one of this endpoint's.
    pub fn is_at(&self, address: IpAddr) -> bool {
        is_one_of(address, self.address, &self.addresses)
    }

    /// True where both are reached in the same place and show the same identity.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        (self.address, self.mesh_address, &self.identity) == (other.address, other.mesh_address, &other.identity)
    }
}

/// Endpoints as a list: each says its own name.
mod by_workload {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{Endpoint, ObjectName};

    pub(super) fn serialize<S: Serializer>(
        endpoints: &BTreeMap<ObjectName, Endpoint>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(endpoints.values())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<ObjectName, Endpoint>, D::Error> {
        let endpoints = Vec::<Endpoint>::deserialize(deserializer)?;
        Ok(endpoints.into_iter().map(|endpoint| (endpoint.workload.clone(), endpoint)).collect())
    }
}

/// A map by names as a list of pairs: JSON's own maps have strings as keys.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::ObjectName;

    type Map = BTreeMap<ObjectName, Option<u16>>;

    pub(super) fn serialize<S: Serializer>(map: &Map, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map, D::Error> {
        Ok(Vec::<(ObjectName, Option<u16>)>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// A route attached to one service or ExternalService (one with several parentRefs is several of these).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// As [`RouteName`] reads it.
    pub name: ObjectName,
    /// Another than an HTTPRoute only to a proxy with its capability: `grpc-route`, `tls-route`, `tcp-route`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub kind: RouteKind,
    pub parent: ObjectName,
    /// The parent is an ExternalService; only to a proxy with the capability `external-routes`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub outside: bool,
    /// `parentRef.port`: the route holds for this service port only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_port: Option<u16>,
    /// A consumer route (route namespace != service namespace) holds for callers of this namespace only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer_namespace: Option<String>,
    /// Of a TLSRoute: the server names that it is for, in lower case; `*.a.b` for all below `a.b`. None: it is for every
    /// ClientHello.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Creation order: older routes win ties. A store revision.
    pub created: Revision,
    pub rules: Vec<RouteRule>,
}

impl Route {
    /// Those of its rules, each with those of its backends.
    pub(crate) fn actions(&self) -> impl Iterator<Item = &RouteAction> {
        self.rules.iter().flat_map(|rule| {
            let of_backends = rule.backends.iter().flat_map(|backend| &backend.actions);
            rule.actions.iter().chain(of_backends)
        })
    }

    /// True where one of its rules says what is sent again, or how long an attempt may take.
    pub(crate) fn repeats(&self) -> bool {
        self.actions().any(|action| matches!(action, RouteAction::AttemptTimeoutMs(_) | RouteAction::Retry(_)))
    }

    /// True where a rule or a backend asks for something that a proxy may leave out.
    pub(crate) fn has_preferences(&self) -> bool {
        self.actions().any(RouteAction::is_preference)
    }

    /// The same without that.
    pub(crate) fn without_preferences(&self) -> Self {
        let mut plain = self.clone();
        for rule in &mut plain.rules {
            let of_backends = rule.backends.iter_mut().map(|backend| &mut backend.actions);
            std::iter::once(&mut rule.actions).chain(of_backends).for_each(|actions| {
                actions.retain(|action| !action.is_preference());
            });
        }
        plain
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteRule {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Any of these; empty = every request.
    pub matches: Vec<RouteMatch>,
    /// In the order in which they are taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<RouteAction>,
    pub backends: Vec<Backend>,
}

impl RouteRule {
    /// A rule that holds for every request and leads nowhere.
    pub(crate) fn refusing() -> Self {
        let mut rule = Self { name: None, matches: Vec::new(), actions: Vec::new(), backends: Vec::new() };
        rule.lead_nowhere();
        rule
    }

    /// Whatever it holds for is answered 500 from now on.
    pub(crate) fn lead_nowhere(&mut self) {
        self.actions.retain(|action| match action {
            RouteAction::Redirect(_) | RouteAction::Cors(_) | RouteAction::Mirror(_) => false,
            RouteAction::RequestHeaders(_)
            | RouteAction::ResponseHeaders(_)
            | RouteAction::Rewrite(_)
            | RouteAction::RequestTimeoutMs(_)
            | RouteAction::AttemptTimeoutMs(_)
            | RouteAction::Retry(_)
            | RouteAction::Persistence(_) => true,
        });
        self.backends = vec![Backend { service: None, outside: false, port: 0, weight: 1, actions: Vec::new() }];
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteMatch {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// All of these; names in lower case.
    pub headers: Vec<FieldMatch>,
    /// All of these; names as they are written, case and all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<FieldMatch>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum PathMatch {
    Exact(String),
    /// By path element: `/v2` matches `/v2` and `/v2/x`, not `/v2x`.
    Prefix(String),
    /// A regular expression that the whole decoded path meets.
    Regex(String),
    /// The path of a gRPC call, `/service/method`.
    Rpc(RpcMatch),
}

/// The two elements that a path has of; one that is absent may be any.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RpcMatch {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Both are regular expressions that the whole element meets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub regex: bool,
}

/// A header field or a parameter of the query, and what its value has to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldMatch {
    pub name: String,
    pub value: String,
    /// `value` is a regular expression that the whole value meets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub regex: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// `None`: the reference does not resolve; its share of the weight is answered 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ObjectName>,
    /// It is an ExternalService; only to a proxy with the capability `external-routes`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub outside: bool,
    pub port: u16,
    pub weight: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<RouteAction>,
}

/// The side of the request a filter works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Direction {
    Inbound,
    Outbound,
}

/// Handling of a request when its filter fails (trap, deadline, not loaded).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OnFailure {
    Deny,
    Allow,
}

/// Enforce = verdicts hold; Audit = verdicts are counted and logged only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FilterMode {
    Enforce,
    Audit,
}

/// A filter binary attached to this proxy. Attachments run by (`direction`, `order`, name); the one with
/// `authorization: true` is pinned last in its inbound chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterAttachment {
    pub name: String,
    /// Filter name and version as published, for metrics and logs.
    pub filter: String,
    pub version: String,
    /// sha256 of the binary, `sha256:` + 64 hex digits.
    pub digest: String,
    /// Raw ed25519 signature over the 32 digest bytes, base64; and the PEM public key it verifies with.
    pub signature: String,
    pub public_key_pem: String,
    /// What its publisher has signed of it. `None`: the signature over the digest is all that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<SignedStatement>,
    /// True for code that ships with the control plane. It alone says so, by what it has published itself: no policy does. Only
    /// to a proxy with the capability `filter-shipped`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shipped: bool,
    pub direction: Direction,
    pub order: i32,
    pub mode: FilterMode,
    pub on_failure: OnFailure,
    /// True for the one that mints the Permit. Its config is an `authz::Config`.
    pub authorization: bool,
    /// JSON handed to the filter at configuration.
    pub config: serde_json_raw::Json,
    /// Capabilities granted without parameters: `token-bucket`, ... (`log` and `metrics` always).
    pub capabilities: Vec<String>,
    /// Those with parameters; none for a component of the first contract, which could not use them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Grant>,
    pub limits: FilterLimits,
    /// Served workloads it holds for; empty = all of this proxy's.
    pub workloads: Vec<ObjectName>,
    /// Outbound: it runs for requests that take one of these, once they do; empty = for every request. Only to a proxy with the
    /// capability `filter-rules`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<AttachedRule>,
    /// The contract of its component, as a proxy says that it can run it.
    #[serde(default = "first_contract", skip_serializing_if = "is_first_contract")]
    pub contract: String,
}

/// The first contract of filters: that of an attachment which names none.
pub const FILTER_CONTRACT: &str = "wit-0.1";
/// The contract of which each hook is an export that a component may lack, and each value is asked for by name.
pub const FILTER_CONTRACT_0_2: &str = "wit-0.2";

/// Contracts that this release runs.
pub const FILTER_CONTRACTS: [&str; 2] = [FILTER_CONTRACT, FILTER_CONTRACT_0_2];

/// Names the contract of a component whose world is of package `abi`, as in `weft:filter@0.1.0`: patches change nothing.
#[must_use]
pub fn contract_of(abi: &str) -> String {
    let version = abi.rsplit('@').next().unwrap_or_default();
    let numbers: Vec<&str> = version.splitn(3, '.').take(2).collect();
    format!("wit-{}", numbers.join("."))
}

fn first_contract() -> String {
    FILTER_CONTRACT.to_owned()
}

fn is_first_contract(contract: &String) -> bool {
    contract == FILTER_CONTRACT
}

/// JSON kept as text, so that the bundle compares by bytes and needs no JSON library.
pub mod serde_json_raw {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
    #[serde(transparent)]
    pub struct Json(pub String);
}

/// The authorization policies that concern a workload, as the authz filter's configuration.
pub type AuthzConfig = authz::Config;

//! What one proxy holds: the part of the world that concerns it, already resolved. The control plane plans it, the wire
//! carries it as deltas, the proxy turns it into its `Snapshot`. Plain data, compared and serialised as it is.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::authz;
use crate::identity::{SpiffeId, TrustDomain};

/// The version of the whole world, assigned by the store. Ordered; 0 = nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// `namespace/name` of any namespaced object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Bundle {
    pub revision: Revision,
    pub mesh: Option<MeshSettings>,
    /// The workloads this proxy serves (one for a sidecar), by `namespace/name`.
    pub workloads: BTreeMap<String, ServedWorkload>,
    pub services: BTreeMap<ObjectName, Service>,
    /// Routes attached to services by GAMMA parentRefs.
    pub routes: BTreeMap<ObjectName, Route>,
    /// Filters attached to this proxy, by attachment name.
    pub filters: BTreeMap<String, FilterAttachment>,
}

/// Mesh-wide settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeshSettings {
    pub trust_domain: TrustDomain,
    /// Roots of the trust domain, PEM.
    pub trust_bundle_pem: String,
    pub access_log: bool,
    /// Default per-request deadline towards the destination; `None` = none.
    pub request_timeout_ms: Option<u64>,
    /// Deadline for a connection to a peer or an app.
    pub connect_timeout_ms: u64,
    /// Attempts after the first, only for requests provably not processed.
    pub max_retries: u32,
}

/// The application protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
pub struct ServedWorkload {
    pub name: ObjectName,
    pub identity: SpiffeId,
    pub address: IpAddr,
    /// App ports that callers may reach through the mesh. Anything else is refused (confused deputy).
    pub ports: Vec<WorkloadPort>,
    pub labels: BTreeMap<String, String>,
    /// The service that metrics name as destination; the first by name that selects this workload.
    pub service: Option<ObjectName>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkloadPort {
    pub port: u16,
    pub protocol: Protocol,
}

/// A service as callers see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub name: ObjectName,
    pub ports: Vec<ServicePort>,
    /// Virtual address for DNS and transparent capture, if it has one (`spec.clusterIP`).
    pub vip: Option<IpAddr>,
    /// By workload name; removals arrive ahead of everything else.
    pub endpoints: BTreeMap<ObjectName, Endpoint>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServicePort {
    pub name: Option<String>,
    pub port: u16,
    pub target_port: u16,
    pub protocol: Protocol,
}

/// One instance behind a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    pub workload: ObjectName,
    /// The only identity this endpoint's proxy may show. `None`: not in the mesh, reached in plain text
    /// and only where the mesh mode allows it.
    pub identity: Option<SpiffeId>,
    pub address: IpAddr,
    /// Where its proxy takes mesh traffic (UDP, QUIC).
    pub mesh_address: SocketAddr,
    /// Relative weight inside its service, default 1.
    pub weight: u32,
    /// Labels of the workload, for metrics.
    pub labels: BTreeMap<String, String>,
}

/// An HTTPRoute attached to one service (a route with several parentRefs is several of these, name suffixed `#n`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    pub name: ObjectName,
    pub parent: ObjectName,
    /// `parentRef.port`: the route holds for this service port only.
    pub parent_port: Option<u16>,
    /// A consumer route (route namespace != service namespace) holds for callers of this namespace only.
    pub consumer_namespace: Option<String>,
    /// Creation order: older routes win ties. A store revision.
    pub created: Revision,
    pub rules: Vec<RouteRule>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteRule {
    pub name: Option<String>,
    /// Any of these; empty = every request.
    pub matches: Vec<RouteMatch>,
    pub request_headers: HeaderModifier,
    pub backends: Vec<Backend>,
    /// `timeouts.request`; overrides the mesh's.
    pub request_timeout_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RouteMatch {
    pub path: Option<PathMatch>,
    pub method: Option<String>,
    /// All of these; names in lower case.
    pub headers: Vec<HeaderMatch>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum PathMatch {
    Exact(String),
    /// By path element: `/v2` matches `/v2` and `/v2/x`, not `/v2x`.
    Prefix(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeaderMatch {
    pub name: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct HeaderModifier {
    pub set: Vec<(String, String)>,
    pub add: Vec<(String, String)>,
    pub remove: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// `None`: the reference does not resolve; its share of the weight is answered 500.
    pub service: Option<ObjectName>,
    pub port: u16,
    pub weight: u32,
    pub request_headers: HeaderModifier,
}

/// The side of the request a filter works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Direction {
    Inbound,
    Outbound,
}

/// What happens to a request when its filter fails (trap, deadline, not loaded).
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
    pub direction: Direction,
    pub order: i32,
    pub mode: FilterMode,
    pub on_failure: OnFailure,
    /// True for the one that mints the Permit. Its config is an `authz::Config`.
    pub authorization: bool,
    /// JSON handed to the filter at configuration.
    pub config: serde_json_raw::Json,
    /// Capabilities granted: `token-bucket`, ... (`log` and `metrics` always).
    pub capabilities: Vec<String>,
    pub limits: FilterLimits,
    /// Served workloads it holds for; empty = all of this proxy's.
    pub workloads: Vec<ObjectName>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilterLimits {
    /// Linear memory of one instance, bytes. Default 16 MiB.
    pub memory_bytes: u64,
    /// Deadline of one call, milliseconds of wall time. Default 10.
    pub call_timeout_ms: u64,
}

impl Default for FilterLimits {
    fn default() -> Self {
        Self { memory_bytes: 16 << 20, call_timeout_ms: 10 }
    }
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

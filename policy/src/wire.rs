//! The messages between proxy and control plane, and the only way in and out: what arrives is parsed into the inner
//! types once, and refused with the name of the field that is wrong.

mod check;
mod from_wire;
mod object;
mod parts;
mod received;
#[cfg(test)]
mod tests;
mod to_wire;

use prost::Message;

use crate::delta::{Key, Versions};

pub use self::object::encode;
pub use self::parts::{Parts, split};
pub use self::received::{Received, Refused};

/// The current version of the messages.
pub use v1 as pb;

/// Messages, client and server, generated from `proto/weft/control/v1/control.proto`.
#[allow(clippy::all, clippy::pedantic, clippy::allow_attributes_without_reason, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("weft.control.v1");
}

/// The capability to read objects in envelopes. A control plane leads nobody without it.
pub const ENVELOPES: &str = "envelopes";
/// The capabilities to run filters of these contracts.
pub use crate::bundle::{FILTER_CONTRACT, FILTER_CONTRACT_0_2};
/// The capability to keep a workload's app from sending anything (`ServedWorkload::outbound_closed`).
pub const OUTBOUND_CLOSED: &str = "outbound-closed";
/// The capability of a proxy that reports which peers it reaches.
pub const PEER_WORD: &str = "peer-word";

/// The capability to take a delta in several messages.
pub const PARTS: &str = "parts";

/// The capability to reach endpoints of one service at target ports of their own (`ServicePort::other_targets`).
pub const ENDPOINT_PORTS: &str = "endpoint-ports";

/// The capability to reach names outside the mesh as an ExternalService says (`Bundle::externals`). Where it lacks, they are not
/// there: under `RegistryOnly` they stay refused.
pub const EXTERNAL_SERVICE: &str = "external-service";

/// The capability to hold only what is used and to ask for the rest. A proxy without it is told everything.
pub const SCOPE: &str = "scope";

/// The capability to take answers while a delta is being prepared.
pub const ANSWERS_AHEAD: &str = "answers-ahead";

/// The capability to spread requests as a TrafficPolicy says (`Service::traffic`). Where it lacks, the service comes without.
pub const TRAFFIC_POLICY: &str = "traffic-policy";

/// The capability to limit more than requests (`Limits::is_beyond_requests`). Where it lacks, the service comes without what a
/// TrafficPolicy sets.
pub const TRAFFIC_LIMITS: &str = "traffic-limits";
/// The capability to use near endpoints first, to start new ones slowly and to have a panic threshold (`Service::spread`). Where it
/// lacks, the service comes without.
pub const SPREAD: &str = "spread";

/// The capability to send so much to each place (`Spread::shares`). Where it lacks, the service comes without.
pub const PLACE_SHARES: &str = "place-shares";

/// The capability to send again, and to give up attempts, as a rule says. Where it lacks, the route comes without.
pub const ROUTE_RETRIES: &str = "route-retries";

/// The capability to keep sessions at one endpoint (`RouteAction::Persistence`). Where it lacks, the route comes
/// without.
pub const SESSION_PERSISTENCE: &str = "session-persistence";

/// The capability to make another attempt beside one that is slow (`Traffic::hedge`). Where it lacks, the service comes
/// without.
pub const HEDGING: &str = "hedging";

/// The capability to end streams by a time of their own, and by no other that only the operator set
/// (`Traffic::stream_timeout_ms`). Where it lacks, the service comes without.
pub const STREAM_TIMEOUT: &str = "stream-timeout";

/// The capability to route by GRPCRoutes (`Route::kind`).
pub const GRPC_ROUTE: &str = "grpc-route";

/// The capabilities to send connections on by TLSRoutes and by TCPRoutes (`Route::kind`). Where one lacks, nobody reaches the
/// service that such a route is attached to.
pub const TLS_ROUTE: &str = "tls-route";
pub const TCP_ROUTE: &str = "tcp-route";

/// The capability to send copies of requests to other services (`RouteAction::Mirror`). Where it lacks, the route comes without.
pub const REQUEST_MIRROR: &str = "request-mirror";

/// The capability to check the health of endpoints, and to eject by success rates (`Traffic::checks_health`). Where it lacks,
/// the service comes without.
pub const HEALTH_CHECKS: &str = "health-checks";

/// The capability to verify what a publisher has signed of a filter (`FilterAttachment::statement`). Where it lacks, the filter
/// comes without: its digest and the signature over that are verified as ever.
pub const FILTER_STATEMENT: &str = "filter-statement";
/// The capability to route what goes to ExternalServices, to lead requests to them (`Route::outside`,
/// `Backend::outside`) and to keep what TrafficPolicies set for them (`External::traffic`). Where it lacks, an
/// ExternalService with a route is closed, and so is a route that leads to one.
pub const EXTERNAL_ROUTES: &str = "external-routes";

/// The capability to begin TLS under TCP, to speak TLS 1.2 and to show a certificate outside the mesh
/// (`ExternalTls::is_beyond_name_and_roots`). Where it lacks, the ExternalService is closed.
pub const EXTERNAL_TLS: &str = "external-tls";

/// The capability to lead connections to ExternalServices (`Backend::outside` of a TLSRoute or TCPRoute). Where it lacks, nobody
/// reaches the service that such a route is attached to.
pub const EXTERNAL_STREAMS: &str = "external-streams";

/// The capability to answer as a backend's redirect or CORS says. Where it lacks, the route is closed.
pub const BACKEND_ANSWERS: &str = "backend-answers";

/// The capability to match the host of a request (`RouteMatch::headers`). Where it lacks, the route is closed.
pub const HOST_MATCH: &str = "host-match";

/// The capability to run a filter for the rules of routes alone (`FilterAttachment::rules`). Where it lacks, the filter is withheld
/// as one that the proxy can't run.
pub const FILTER_RULES: &str = "filter-rules";

/// The capability to share instances of filters that ship with the control plane (`FilterAttachment::shipped`) across namespaces.
/// Where it lacks, the filter comes without that word, and does all the same.
pub const FILTER_SHIPPED: &str = "filter-shipped";

/// The capability to hand secrets to filters (`Grant::Secret`, `Grant::CryptoKeys`). Where it lacks, the filter is
/// withheld as one that the proxy can't run, and its secrets with it.
pub const FILTER_SECRETS: &str = "filter-secrets";

/// Capabilities of every proxy of this version, as its Hello says them; [`SCOPE`] comes with them where it is wanted.
pub const CAPABILITIES: [&str; 32] = [
    "quic",
    ENVELOPES,
    FILTER_CONTRACT,
    FILTER_CONTRACT_0_2,
    PEER_WORD,
    PARTS,
    OUTBOUND_CLOSED,
    ENDPOINT_PORTS,
    EXTERNAL_SERVICE,
    ANSWERS_AHEAD,
    TRAFFIC_POLICY,
    TRAFFIC_LIMITS,
    SPREAD,
    PLACE_SHARES,
    ROUTE_RETRIES,
    GRPC_ROUTE,
    TLS_ROUTE,
    TCP_ROUTE,
    REQUEST_MIRROR,
    HEALTH_CHECKS,
    SESSION_PERSISTENCE,
    HEDGING,
    FILTER_STATEMENT,
    EXTERNAL_ROUTES,
    EXTERNAL_TLS,
    EXTERNAL_STREAMS,
    BACKEND_ANSWERS,
    HOST_MATCH,
    FILTER_RULES,
    FILTER_SHIPPED,
    FILTER_SECRETS,
    STREAM_TIMEOUT,
];

/// A message that can't be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct WireError {
    pub field: String,
    pub message: String,
}

/// Bytes of what a proxy says of one workload.
pub fn size(registration: &v1::WorkloadRegistration) -> usize {
    registration.encoded_len()
}

/// The versions that a proxy holds, as its Hello lists them.
pub fn known(versions: &Versions) -> Vec<v1::ObjectVersion> {
    let entry = |(key, version): (&Key, &u64)| v1::ObjectVersion { key: Some(key.into()), version: *version };
    versions.iter().map(entry).collect()
}

//! Proxies: who is connected, how far a change has come, who is kept out.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::words::words;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Proxies {
    pub proxies: Vec<Proxy>,
    /// Control planes of the same store that did not say what they know; their proxies are `elsewhere`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<SilentReplica>,
}

/// A control plane of the same store that did not answer in time, or can't be asked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct SilentReplica {
    /// The address that it tells.
    pub replica: String,
    pub reason: String,
    /// The proxies that it holds, as far as the caller may know of them.
    pub proxies: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Proxy {
    pub name: String,
    /// SPIFFE ID.
    pub identity: String,
    /// The address that its control stream comes from; empty where it is not known.
    pub address: String,
    /// Addresses at which its workloads take mesh traffic.
    pub mesh_addresses: Vec<String>,
    /// Time since it last said anything.
    pub heard_ms: u64,
    pub version: String,
    pub state: SyncState,
    /// Why it is not in step; empty where it is.
    pub reason: String,
    /// The revision that it runs.
    pub revision: u64,
    /// The newest revision.
    pub current_revision: u64,
    /// How long it has not been in step.
    pub staleness_ms: u64,
    pub filters: Vec<LoadedFilter>,
    /// RFC 3339.
    pub certificate_not_after: Option<String>,
    /// `quic` or `tcp`.
    pub transport: String,
    /// RFC 3339.
    pub connected_since: Option<String>,
}

words! {
    /// `degraded`: in step, but for filters that it runs without.
    SyncState {
        Synced = "synced", Degraded = "degraded", Behind = "behind", Refused = "refused", Disconnected = "disconnected",
        Elsewhere = "elsewhere"
    }
}

/// A filter as a proxy has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct LoadedFilter {
    pub name: String,
    pub version: String,
    pub digest: String,
    /// `loaded`, `compiling` (what ran before goes on), `skipped: why` (requests pass it by) or `failed: why`.
    pub state: String,
}

impl LoadedFilter {
    /// True where the proxy runs without it, or without what it was told of it.
    #[must_use]
    pub fn is_out(&self) -> bool {
        matches!(self.state.split([':', ' ']).next(), Some("skipped" | "failed"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StatusQuery {
    /// Wait up to this long; default 0, at most 300000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct RevisionStatus {
    pub revision: u64,
    /// Every proxy concerned has it.
    pub complete: bool,
    /// The proxies concerned, at whichever control plane they are.
    pub proxies: Vec<ProxyRevision>,
    /// Proxies that went without a word and are not waited for: they get it when they are back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub away: Vec<ProxyRevision>,
    /// Control planes of the same store that did not say what they know; their proxies are `elsewhere`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<SilentReplica>,
}

/// How far a proxy is with a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProxyRevision {
    pub name: String,
    /// SPIFFE ID.
    pub identity: String,
    pub state: SyncState,
    /// The revision that it runs.
    pub revision: u64,
    pub reason: String,
    /// Time since it last said anything.
    #[serde(default)]
    pub heard_ms: u64,
    /// Refusals, of whatever revision, because of which it does without an object.
    pub held: Vec<String>,
    /// Filters that it runs without, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Bans {
    pub bans: Vec<Ban>,
}

/// An identity that is kept out of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Ban {
    /// SPIFFE ID.
    pub identity: String,
    pub reason: String,
    pub since_unix: i64,
    /// Who banned it.
    pub by: String,
    /// The name of the token that he had; empty where that has ended.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by_name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BanRequest {
    /// A proxy's name, whose identity is meant; `namespace/service-account`; or a SPIFFE ID.
    pub proxy: String,
    #[serde(default)]
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Banned {
    pub ban: Ban,
    /// Names of the proxies that have the identity.
    pub proxies: Vec<String>,
    /// False where the ban holds but could not be written yet: it ends with the control plane's process, unless its disk
    /// takes it before.
    #[serde(default = "durable")]
    pub durable: bool,
}

/// As a server answers that writes before it does anything.
fn durable() -> bool {
    true
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Unbanned {
    /// SPIFFE ID.
    pub identity: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct GrantList {
    pub grants: Vec<AccountGrants>,
}

/// Rights that join tokens gave to an account, beside those that its name and the annotations of Services give.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct AccountGrants {
    /// SPIFFE ID.
    pub identity: String,
    /// Services of its namespace that its workloads may stand behind.
    pub services: Vec<String>,
    /// Labels, `KEY=VALUE`, by which services may select its workloads.
    pub labels: Vec<String>,
    /// Ranges that its workloads may be in.
    pub addresses: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WithdrawRequest {
    /// A proxy's name, whose identity is meant; `namespace/service-account`; or a SPIFFE ID.
    pub proxy: String,
    /// Everything that was granted; then nothing else is named.
    #[serde(default)]
    pub all: bool,
    #[serde(default)]
    pub services: Vec<String>,
    #[serde(default)]
    pub labels: Vec<String>,
    #[serde(default)]
    pub addresses: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Withdrawn {
    pub withdrawn: AccountGrants,
    /// Workloads that left, and why.
    pub left: Vec<LeftWorkload>,
    /// Tokens, as they are called, that would grant some of it again.
    pub tokens: Vec<String>,
}

/// A workload that left with a grant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct LeftWorkload {
    /// `namespace/name`.
    pub workload: String,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Evicted {
    /// Name and identity of each proxy.
    pub evicted: Vec<String>,
    /// Control planes of the same store that did not hear of it: the proxies there keep their connections with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<SilentReplica>,
}

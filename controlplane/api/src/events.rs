//! The audit log.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// Only entries with a lower number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// Only entries with a higher number: the oldest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// At most this many; default 100, at most 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Part of an actor's id or of its token's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Part of an action's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Part of what it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Not older than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_unix_ms: Option<i64>,
    /// True: only refused attempts; false: none of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<bool>,
    /// Wait up to this long for an entry; default 0, at most 300000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Events {
    /// The newest first.
    pub entries: Vec<Event>,
}

/// Who did what to which object, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Event {
    pub number: u64,
    pub time_unix_ms: i64,
    /// `operator:<token id>`, `proxy:<identity>/<name>`, `system` or `unknown`.
    pub actor: String,
    /// The name of the actor's token.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub role: String,
    /// The address that it came from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    pub action: String,
    pub object: String,
    /// The revision it made, 0 where it made none.
    pub revision: u64,
    pub detail: String,
    /// What it changed, as a difference of manifests.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub diff: String,
    /// The namespaces that it is about; absent where it is about the whole mesh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Status and code of the answer that refused it; absent where it was done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub refused: String,
}

//! The server's version, its store, and snapshots of it.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::is_off;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Name of the program.
    pub name: String,
    pub version: String,
    /// Version of the API.
    pub api: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Store {
    /// The store's id.
    pub store: String,
    pub epoch: u64,
    /// Stores whose place this one takes.
    pub supersedes: Vec<String>,
    pub revision: u64,
    /// It is in etcd, where other control planes may use it too.
    #[serde(default)]
    pub in_etcd: bool,
    /// Why it leads nobody; null where it leads.
    pub doubt: Option<String>,
    /// Proxies that it may not lead, though it leads others; left out where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<Ahead>,
}

/// Connected proxies that have a later state of the store than it has, or follow another store: they keep what they have.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Ahead {
    pub proxies: u64,
    /// Names of the first ten.
    pub names: Vec<String>,
    /// Why the first of them takes nothing, with the cure.
    pub reason: String,
}

/// The store that leads from now on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Leads {
    pub store: String,
    pub epoch: u64,
    pub supersedes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RestoreQuery {
    /// Also where it is of another authority than this one.
    #[serde(default, skip_serializing_if = "is_off")]
    pub replace_authority: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Restored {
    pub restored: SnapshotAbout,
    pub store: String,
    pub epoch: u64,
    /// The control plane starts again now.
    pub restarts: bool,
}

/// What a snapshot says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct SnapshotAbout {
    /// Release of the weft-control that made it.
    pub version: String,
    pub trust_domain: String,
    pub store: String,
    pub epoch: u64,
    pub revision: u64,
    /// Fingerprint of the root's key.
    pub root: String,
    pub created_unix: i64,
}

//! Published filters.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::is_off;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PublishQuery {
    /// The filter's name.
    pub name: String,
    /// MAJOR.MINOR.PATCH
    pub version: String,
    /// The key may differ from the filter's first; admins only.
    #[serde(default, skip_serializing_if = "is_off")]
    pub accept_new_key: bool,
    /// As `channel=stable`.
    #[serde(default, skip_serializing_if = "is_off")]
    pub make_current: bool,
    /// The channel that stands for it from now on; none where it is absent, but that a filter's first version is in `stable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Everything is checked and nothing is made.
    #[serde(default, skip_serializing_if = "is_off")]
    pub dry_run: bool,
}

/// Of a version that a channel is to stand for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PromoteQuery {
    pub version: String,
    /// Default `stable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RollbackQuery {
    /// Default `stable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The older version that it goes back to; the one before where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct YankQuery {
    pub version: String,
    /// It may be taken up again.
    #[serde(default, skip_serializing_if = "is_off")]
    pub undo: bool,
}

/// Of a version that is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VersionQuery {
    pub version: String,
}

/// A channel that stands for another version now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct FilterMoved {
    pub name: String,
    pub channel: String,
    /// Absent where there was no such channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    pub to: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct FilterVersion {
    pub name: String,
    pub version: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// ed25519 over the digest, base64.
    pub signature: String,
    pub public_key_pem: String,
    pub abi: String,
    pub capabilities: Vec<String>,
    pub size_bytes: u64,
    pub published_unix: i64,
    pub published_by: String,
    /// The channel `stable` stands for it.
    pub current: bool,
    /// The channels that stand for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
    /// Only policies that name this very version run it.
    #[serde(default, skip_serializing_if = "is_off")]
    pub yanked: bool,
    /// What its publisher has signed, as text. Absent: it is from before that was asked, or ships with the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    /// It was published before statements were asked for: its key answers for the binary, and for no name and version.
    #[serde(default, skip_serializing_if = "is_off")]
    pub legacy: bool,
    /// The FilterPolicies that run it, `NAMESPACE/NAME`, as far as the reader may see them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Filters {
    pub filters: Vec<FilterVersion>,
}

/// Every version of one filter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct FilterVersions {
    pub name: String,
    pub versions: Vec<FilterVersion>,
}

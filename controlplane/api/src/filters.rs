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
    /// Policies without a version run it, also where a newer one was published.
    #[serde(default, skip_serializing_if = "is_off")]
    pub make_current: bool,
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
    /// Policies without a version run it.
    pub current: bool,
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

//! The authority: the roots that the mesh trusts, and their replacement.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::is_off;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Authority {
    /// The root that signs.
    pub root: Root,
    /// The one before, while it is trusted too.
    pub previous: Option<Root>,
    /// End of the intermediate, RFC 3339.
    pub intermediate_not_after: String,
    /// What still needs the root before; null where none is being replaced.
    pub left: Option<RotationLeft>,
    /// Why what still needs it is not known, while the store is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_unknown: Option<String>,
    /// The control planes of the store that live, the one that is asked first; none where it is the only one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<AuthorityReplica>,
}

/// A control plane and the root that it issues below.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct AuthorityReplica {
    /// Where others reach it.
    pub replica: String,
    /// The fingerprint of the root that vouches for what it issues; empty where none that is trusted does.
    pub root: String,
    /// The key of the root that signs lies in its state folder.
    pub has_key: bool,
    /// Why it has no intermediate of the root that signs; empty where it has.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Root {
    /// SHA-256 of its public key, hexadecimal.
    pub fingerprint: String,
    /// RFC 3339.
    pub not_after: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct RotationLeft {
    /// Proxies that may not trust the new root yet: they are away, behind or refuse it. Those that the token may see.
    pub waiting: Vec<String>,
    /// How many there are, whoever may see them.
    pub waiting_count: u64,
    /// Certificates that only the old root vouches for and that may be in use, or be renewed within the grace.
    pub certificates: u64,
    /// When the last of them is over, RFC 3339.
    pub until: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Signer {
    #[default]
    Root,
    Intermediate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    /// What is replaced.
    pub signer: Signer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishRequest {
    /// Also where something needs the old root: it is cut off.
    #[serde(default, skip_serializing_if = "is_off")]
    pub force: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct SigningRequest {
    /// PKCS #10, PEM.
    pub csr_pem: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstallRequest {
    /// The intermediate's certificate, those between it and the root, and the root's, PEM.
    pub chain_pem: String,
}

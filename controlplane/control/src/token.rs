//! Secrets that open doors: join tokens (a proxy's first certificate) and operator tokens (the API). Invariant: only
//! their sha256 is ever stored; the text is shown once.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use weft_policy::identity::SpiffeId;

use crate::claims::Grants;

/// Rights of the holder of an operator token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything but secrets, asks `explain` and `diff`.
    Viewer,
    /// Also changes resources and makes join tokens.
    Operator,
    /// Reads, and publishes filters.
    Publisher,
    /// Everything, operator tokens included.
    Admin,
}

/// Purpose of a token: to let a workload join, or to give an operator a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub enum Grant {
    Join {
        identity: SpiffeId,
        uses_left: u32,
        /// Claims that its proxies may make beside those that every proxy of the account may make.
        grants: Grants,
    },
    Operator {
        role: Role,
        /// The namespaces that it is for; empty: the whole mesh.
        namespaces: BTreeSet<String>,
        /// Addresses that its objects may take, where it is for namespaces.
        addresses: BTreeSet<IpNet>,
    },
}

/// A grant as it is stored. One for namespaces is a kind of its own: a release that knows of none can't read it, where it
/// would take a missing field for the whole mesh.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Stored {
    Join {
        identity: SpiffeId,
        uses_left: u32,
        #[serde(default, skip_serializing_if = "Grants::is_empty")]
        grants: Grants,
    },
    Operator {
        role: Role,
    },
    Bound {
        role: Role,
        namespaces: BTreeSet<String>,
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        addresses: BTreeSet<IpNet>,
    },
}

impl From<Stored> for Grant {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Join { identity, uses_left, grants } => Self::Join { identity, uses_left, grants },
            Stored::Operator { role } => Self::operator(role),
            Stored::Bound { role, namespaces, addresses } => Self::Operator { role, namespaces, addresses },
        }
    }
}

impl From<Grant> for Stored {
    fn from(grant: Grant) -> Self {
        match grant {
            Grant::Join { identity, uses_left, grants } => Self::Join { identity, uses_left, grants },
            Grant::Operator { role, namespaces, .. } if namespaces.is_empty() => Self::Operator { role },
            Grant::Operator { role, namespaces, addresses } => Self::Bound { role, namespaces, addresses },
        }
    }
}

/// A token as it is stored, under its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Short public name for logs and audit: the first characters of the hash.
    pub id: String,
    /// The name that people gave it; tokens without one are called by their id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub grant: Grant,
    pub created_unix: i64,
    pub created_by: String,
    /// `None`: never.
    pub expires_unix: Option<i64>,
}

/// A token's text. Not `Display`: printing one is always on purpose.
pub struct TokenText(String);

/// sha256 of a token's text, hex: the key under which it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenHash(String);

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Publisher => "publisher",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "operator" => Ok(Self::Operator),
            "publisher" => Ok(Self::Publisher),
            "admin" => Ok(Self::Admin),
            other => Err(format!("{other:?} is not a role: viewer, operator, publisher or admin")),
        }
    }
}

impl Grant {
    /// A person's, for the whole mesh.
    pub fn operator(role: Role) -> Self {
        Self::Operator { role, namespaces: BTreeSet::new(), addresses: BTreeSet::new() }
    }

    /// The namespaces that it is about; none where it is for the whole mesh.
    pub(crate) fn namespaces(&self) -> BTreeSet<String> {
        match self {
            Self::Join { identity, .. } => [identity.namespace().to_owned()].into(),
            Self::Operator { namespaces, .. } => namespaces.clone(),
        }
    }

    /// The namespaces of a person's token, for people.
    pub(crate) fn reach(&self) -> String {
        let names: Vec<_> = self.namespaces().into_iter().collect();
        if names.is_empty() { String::new() } else { format!(" for {}", names.join(", ")) }
    }
}

impl TokenText {
    /// 256 unpredictable bits behind a prefix that tells scanners and people what it is.
    pub fn generate(grant: &Grant) -> Self {
        let secret: [u8; 32] = rand::random();
        let prefix = match grant {
            Grant::Join { .. } => "weft_join_",
            Grant::Operator { .. } => "weft_op_",
        };
        Self(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(secret)))
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }
}

impl TokenHash {
    pub fn of(text: &str) -> Self {
        Self(hex(&Sha256::digest(text.trim().as_bytes())))
    }

    /// A hash as the store has it.
    pub(crate) fn stored(hash: String) -> Self {
        Self(hash)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn id(&self) -> String {
        self.0[..12].to_owned()
    }
}

impl TokenRecord {
    /// Its name, or its id if it has none.
    pub fn called(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }

    pub fn is_expired(&self, now_unix: i64) -> bool {
        self.expires_unix.is_some_and(|at| now_unix >= at)
    }
}

/// Lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_new_and_its_hash_says_nothing() {
        let grant = Grant::operator(Role::Admin);
        let (a, b) = (TokenText::generate(&grant), TokenText::generate(&grant));
        assert_ne!(a.reveal(), b.reveal());
        assert!(a.reveal().starts_with("weft_op_"));
        assert_eq!(a.hash(), TokenHash::of(&format!("{}\n", a.reveal())));
        assert!(!a.reveal().contains(&a.hash().id()));
    }

    #[test]
    fn roles_have_names() {
        for role in [Role::Viewer, Role::Operator, Role::Publisher, Role::Admin] {
            assert_eq!(role.as_str().parse::<Role>().unwrap(), role);
        }
        assert!("root".parse::<Role>().is_err());
    }
}

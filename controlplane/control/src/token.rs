//! Secrets that open doors: join tokens (a proxy's first certificate) and operator tokens (the API). Invariant: only
//! their sha256 is ever stored; the text is shown once.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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

/// Right that a call of the API needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    Read,
    Change,
    CreateJoinToken,
    PublishFilter,
    CreateOperatorToken,
}

/// Purpose of a token: to let a workload join, or to give an operator a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Grant {
    Join {
        identity: SpiffeId,
        uses_left: u32,
        /// Claims that its proxies may make beside those that every proxy of the account may make.
        #[serde(default, skip_serializing_if = "Grants::is_empty")]
        grants: Grants,
    },
    Operator {
        role: Role,
    },
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
    pub fn allows(self, permission: Permission) -> bool {
        match permission {
            Permission::Read => true,
            Permission::Change | Permission::CreateJoinToken => matches!(self, Self::Operator | Self::Admin),
            Permission::PublishFilter => matches!(self, Self::Publisher | Self::Admin),
            Permission::CreateOperatorToken => self == Self::Admin,
        }
    }

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

impl Permission {
    /// The weakest roles that have it, for error texts.
    pub fn needs(self) -> &'static str {
        match self {
            Self::Read => "viewer",
            Self::Change | Self::CreateJoinToken => "operator or admin",
            Self::PublishFilter => "publisher or admin",
            Self::CreateOperatorToken => "admin",
        }
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
        let grant = Grant::Operator { role: Role::Admin };
        let (a, b) = (TokenText::generate(&grant), TokenText::generate(&grant));
        assert_ne!(a.reveal(), b.reveal());
        assert!(a.reveal().starts_with("weft_op_"));
        assert_eq!(a.hash(), TokenHash::of(&format!("{}\n", a.reveal())));
        assert!(!a.reveal().contains(&a.hash().id()));
    }

    #[test]
    fn roles_hold_what_they_say() {
        let table = [
            (Role::Viewer, [true, false, false, false, false]),
            (Role::Operator, [true, true, true, false, false]),
            (Role::Publisher, [true, false, false, true, false]),
            (Role::Admin, [true; 5]),
        ];
        let permissions = [
            Permission::Read,
            Permission::Change,
            Permission::CreateJoinToken,
            Permission::PublishFilter,
            Permission::CreateOperatorToken,
        ];
        for (role, expect) in table {
            for (permission, allowed) in permissions.into_iter().zip(expect) {
                assert_eq!(role.allows(permission), allowed, "{role} {permission:?}");
            }
            assert_eq!(role.as_str().parse::<Role>().unwrap(), role);
        }
        assert!("root".parse::<Role>().is_err());
    }
}

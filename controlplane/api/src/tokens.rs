//! Tokens of proxies and people.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Rights of the holder of a person's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything but secrets, asks `explain` and `diff`.
    Viewer,
    /// Also changes resources and makes join tokens.
    Operator,
    /// Reads, and publishes filters.
    Publisher,
    /// Everything, people's tokens included.
    Admin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// Lets proxies join.
    Join,
    /// Of a person or a program.
    Operator,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    pub kind: TokenKind,
    /// The token's name in lists; its id where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For join tokens: `namespace/service-account`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// For operator tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// For operator tokens: what they are for; the whole mesh where none is named.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub namespaces: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// For join tokens: how many proxies may join by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// For join tokens: services of the account's namespace that its workloads may stand behind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// For join tokens: labels, `KEY=VALUE`, that put its workloads behind what selects by them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// For join tokens: ranges that its workloads may be in. For operator tokens of namespaces: ranges that the addresses of
    /// their objects may be in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

impl CreateToken {
    /// A token of a kind, without anything that is not said.
    #[must_use]
    pub fn new(kind: TokenKind) -> Self {
        Self {
            kind,
            name: None,
            service_account: None,
            role: None,
            namespaces: BTreeSet::new(),
            ttl_seconds: None,
            uses: None,
            services: Vec::new(),
            labels: Vec::new(),
            addresses: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    /// The text, which is shown this once.
    pub token: String,
    pub id: String,
    pub name: String,
    /// Null: never.
    pub expires_unix: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    pub tokens: Vec<Token>,
}

/// A token that is good for something, without its text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Token {
    pub name: String,
    pub id: String,
    /// A later release may have more.
    #[schema(value_type = TokenKind)]
    pub kind: String,
    /// Of a join token: the SPIFFE ID that its proxies get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Of a join token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    /// Of a join token: services that its workloads may stand behind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// Of a join token: labels, `KEY=VALUE`, that put its workloads behind what selects by them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Ranges of a join token's workloads, or of the objects of an operator token for namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Of an operator token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Role>)]
    pub role: Option<String>,
    /// Of an operator token: what it is for; absent where that is the whole mesh.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub namespaces: BTreeSet<String>,
    pub created_unix: i64,
    pub created_by: String,
    /// The name of the token by which it was made; empty where that has ended.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by_name: String,
    /// Null: never.
    pub expires_unix: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Revoked {
    /// The ids of the tokens that ended.
    pub revoked: Vec<String>,
}

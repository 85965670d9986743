//! What a rule says of requests that come from web pages of other origins, inside the route's object.

use serde::{Deserialize, Serialize};

use crate::origin::OriginPattern;

/// `*` among methods or headers means any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    pub origins: Vec<OriginPattern>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub credentials: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Of requests; in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Of answers; in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<String>,
    /// How long a browser keeps the answer to a preflight.
    pub max_age_s: u32,
}

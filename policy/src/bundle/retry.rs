//! Which requests are sent again although somebody may have acted on them, or twice at once: a rule or a service has to
//! ask for it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The names of gRPC's statuses, each at its number (`doc/statuscodes.md` of gRPC).
pub const GRPC_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// What is sent again: answers of these statuses, and what was not answered or not in time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// HTTP statuses, 400 to 599.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<u16>,
    /// Statuses of gRPC, 1 to 16. Who lists one asks for it whatever the method, which is POST always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grpc_codes: Vec<u16>,
    /// Further attempts. `None`: as many as the mesh's `maxRetries`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// The least wait before each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_ms: Option<u64>,
    /// Of requests with any method, not only the idempotent ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_method: bool,
}

impl Retry {
    /// True where requests with this method may be sent again after somebody may have acted on them.
    pub fn takes(&self, method: &str) -> bool {
        self.any_method || is_idempotent(method)
    }
}

/// Another attempt beside one whose answer is slow; the first good answer is passed on, and the other attempt given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hedge {
    /// So long the first attempt has for itself.
    pub after_ms: u64,
    /// Of requests with any method, not only the idempotent ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_method: bool,
}

impl Hedge {
    /// True where requests with this method may be at two endpoints at once.
    pub fn takes(&self, method: &str) -> bool {
        self.any_method || is_idempotent(method)
    }
}

impl fmt::Display for Hedge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods = if self.any_method { "whatever the method" } else { "of idempotent methods" };
        write!(f, "another attempt beside it after {}, {methods}", crate::text::duration_text(self.after_ms))
    }
}

/// True where sending a request twice means the same as once.
//= rfc9110#section-9.2.2
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attempts {
            Some(attempts) => write!(f, "{attempts} more after ")?,
            None => f.write_str("maxRetries of the Mesh more after ")?,
        }
        for code in &self.codes {
            write!(f, "{code}, ")?;
        }
        for code in &self.grpc_codes {
            let name = GRPC_CODES.get(usize::from(*code)).copied().unwrap_or("an unknown status");
            write!(f, "{name} of gRPC, ")?;
        }
        f.write_str("no answer")?;
        if let Some(ms) = self.backoff_ms {
            write!(f, ", at least {} later", crate::text::duration_text(ms))?;
        }
        f.write_str(if self.any_method { ", whatever the method" } else { ", of idempotent methods" })
    }
}

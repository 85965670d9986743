//! Functions that a filter may call: the log and metrics always, the others where the FilterPolicy grants them. On other
//! targets than wasm32 the test harness answers.

mod buckets;
pub mod callouts;
pub mod crypto;
pub mod kv;
pub mod log;
mod metrics;
pub mod secrets;

pub use buckets::{Taken, TokenBuckets};
pub use metrics::{Counter, Gauge, Histogram};

use crate::bindings::weft::filter::types::Error;

/// Why a capability did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// The FilterPolicy does not grant this capability, or not with this parameter.
    Denied(&'static str),
    /// A limit is reached.
    Full(String),
    /// It was asked for nonsense.
    Invalid(String),
    /// It was found, but not as expected.
    Changed,
    /// What later releases name.
    Other(String),
}

impl CallError {
    fn of(capability: &'static str) -> impl FnOnce(Error) -> Self {
        move |error| match error {
            Error::Denied => Self::Denied(capability),
            Error::Full(limit) => Self::Full(limit),
            Error::Invalid(what) => Self::Invalid(what),
            Error::Changed => Self::Changed,
            Error::Other(name) => Self::Other(name),
        }
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Denied(capability) => {
                write!(f, "the FilterPolicy does not grant the capability {capability} for this")
            }
            Self::Full(limit) => write!(f, "full: {limit}"),
            Self::Invalid(what) => f.write_str(what),
            Self::Changed => f.write_str("it has changed"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

impl std::error::Error for CallError {}

/// So that `?` works in `configure`.
impl From<CallError> for String {
    fn from(error: CallError) -> Self {
        error.to_string()
    }
}

//! What an attached filter may do: capabilities with their parameters, and limits of its instances.

use serde::{Deserialize, Serialize};

use super::{FILTER_CONTRACT, FilterAttachment, contract_of, is_default};
use crate::secret::SecretBytes;

/// Entries of one store of values at the most.
pub const MAX_KV_ENTRIES: u64 = 1_000_000;
/// Bytes of one store of values at the most.
pub const MAX_KV_BYTES: u64 = 64 << 20;
/// Services that one policy may name for callouts.
pub const MAX_CALLOUT_SERVICES: usize = 16;
/// Values that one policy may name as secrets, and as many as keys.
pub const MAX_SECRETS: usize = 16;
/// The longest body that a filter may ask to be gathered, bytes.
pub const MAX_BODY_BYTES: u64 = 16 << 20;
/// The most linear memory that an instance of a filter may have, bytes. Policies may ask for no more, and proxies give no more.
pub const MAX_FILTER_MEMORY_BYTES: u64 = 64 << 20;
const DEFAULT_BODY_BYTES: u64 = 1 << 20;

/// A capability that is granted with parameters. Only components of contract 0.2 and later can use one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grant {
    Kv(KvGrant),
    Callout(CalloutGrant),
    /// Values that the filter reads; only to a proxy with the capability `filter-secrets`.
    Secret(SecretGrant),
    /// Keys that it uses by their names and never sees; only to such a proxy, too.
    CryptoKeys(SecretGrant),
}

impl Grant {
    /// The secrets that come with it.
    #[must_use]
    pub fn secrets(&self) -> &[GrantedSecret] {
        match self {
            Self::Kv(_) | Self::Callout(_) => &[],
            Self::Secret(granted) | Self::CryptoKeys(granted) => &granted.values,
        }
    }
}

impl FilterAttachment {
    /// True where its component may know capabilities with parameters and hooks on bodies.
    #[must_use]
    pub fn takes_grants(&self) -> bool {
        self.contract != FILTER_CONTRACT
    }
}

/// True for a component that is linked with what is granted and nothing else; later ones can import everything, and
/// what is not granted answers `denied`. `abi` as in `weft:filter@0.1.0`.
#[must_use]
pub fn needs_every_import(abi: &str) -> bool {
    contract_of(abi) == FILTER_CONTRACT
}

/// Values that a filter may keep in its proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KvGrant {
    pub entries: u64,
    /// Of keys and values, with 128 bytes for each entry.
    pub bytes: u64,
    pub scope: KvScope,
}

/// Whose values a filter sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum KvScope {
    /// Those of its own policy.
    #[default]
    Policy,
    /// Those of all policies of the namespace that run a filter of the same name.
    Filter,
}

/// Services that a filter may send requests to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalloutGrant {
    pub services: Vec<CalloutService>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalloutService {
    /// The name that the filter calls it by.
    pub name: String,
    /// `host:port`, as an app would name it. `None`: there is no such service or port; callouts to it are errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

/// Values of Secrets. What is not there is not granted: its policy is closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretGrant {
    pub values: Vec<GrantedSecret>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantedSecret {
    /// The name that the filter knows it by.
    pub name: String,
    /// Serialised it is redacted; the wire alone puts the bytes there.
    pub value: SecretBytes,
}

/// What becomes of a stream whose body is longer than a filter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum OverBody {
    /// A request is answered 413, an answer becomes 502.
    #[default]
    Refuse,
    /// It goes on without having been judged by the body hook.
    Pass,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterLimits {
    /// Linear memory of one instance, bytes. Default 16 MiB.
    pub memory_bytes: u64,
    /// Deadline of one call, milliseconds of wall time. Default 10.
    pub call_timeout_ms: u64,
    /// The longest body that is gathered for it, bytes. Default 1 MiB.
    #[serde(default = "default_body_bytes", skip_serializing_if = "is_default_body_bytes")]
    pub body_bytes: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub over_body: OverBody,
}

impl Default for FilterLimits {
    fn default() -> Self {
        let (body_bytes, over_body) = (DEFAULT_BODY_BYTES, OverBody::default());
        Self { memory_bytes: 16 << 20, call_timeout_ms: 10, body_bytes, over_body }
    }
}

fn default_body_bytes() -> u64 {
    DEFAULT_BODY_BYTES
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_default_body_bytes(bytes: &u64) -> bool {
    *bytes == DEFAULT_BODY_BYTES
}

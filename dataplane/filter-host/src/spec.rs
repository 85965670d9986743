//! The control plane's description of one attached filter, parsed once.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use weft_policy::bundle::{Direction, FilterAttachment, FilterMode, Grant, OnFailure, OverBody};
use weft_policy::statement::SignedStatement;

/// sha256 of a filter binary, written `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits alone: a file name.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl FromStr for Digest {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let invalid = || SpecError::Digest(text.chars().take(80).collect());
        let hex = text.strip_prefix("sha256:").ok_or_else(invalid)?.as_bytes();
        let mut digest = [0; 32];
        if hex.len() != 64 {
            return Err(invalid());
        }
        for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
            let nibble = |c: u8| match c {
                b'0'..=b'9' => Ok(c - b'0'),
                b'a'..=b'f' => Ok(c - b'a' + 10),
                _ => Err(invalid()),
            };
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(digest))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One attached filter: which binary, with which configuration, under which limits.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterSpec {
    /// The attachment's name: it labels metrics, logs and replies, and owns the filter's counters and token buckets.
    pub name: String,
    /// Filter name and version as published.
    pub filter: String,
    pub version: String,
    pub digest: Digest,
    /// Raw ed25519 signature over the digest's 32 bytes.
    pub signature: Vec<u8>,
    pub public_key_pem: String,
    /// What the publisher has signed of it; where there is none, the signature over the digest counts.
    pub statement: Option<SignedStatement>,
    pub direction: Direction,
    /// JSON handed to the filter.
    pub config_json: String,
    pub on_failure: OnFailure,
    pub mode: FilterMode,
    /// True for the one that mints the `Permit`; its `on_failure` is Deny whatever it says.
    pub authorization: bool,
    /// Capabilities granted without parameters: `token-bucket`, `crypto`, `wasi`.
    pub capabilities: Vec<String>,
    /// Those with parameters.
    pub grants: Vec<Grant>,
    /// Filters share instances within it: the namespace of the policy that attaches it.
    pub scope: String,
    /// Its code is the control plane's own, by the control plane's word: filters share instances across namespaces.
    pub shipped: bool,
    /// Linear memory of one instance, bytes.
    pub memory_bytes: u64,
    /// Deadline of one call: it is ended when it has used the processor for this long.
    pub call_timeout: Duration,
    /// The longest body that is gathered for it, bytes.
    pub body_bytes: u64,
    /// What becomes of a longer one; an authorization filter refuses it whatever it says.
    pub over_body: OverBody,
}

impl FilterSpec {
    /// Handling of a request when this filter fails; for an authorization filter it is always a denial.
    pub fn effective_on_failure(&self) -> OnFailure {
        if self.authorization { OnFailure::Deny } else { self.on_failure }
    }
}

impl TryFrom<&FilterAttachment> for FilterSpec {
    type Error = SpecError;

    fn try_from(attachment: &FilterAttachment) -> Result<Self, SpecError> {
        let signature = base64::engine::general_purpose::STANDARD
            .decode(&attachment.signature)
            .map_err(|_| SpecError::Signature(attachment.name.clone()))?;
        Ok(Self {
            name: attachment.name.clone(),
            filter: attachment.filter.clone(),
            version: attachment.version.clone(),
            digest: attachment.digest.parse()?,
            signature,
            public_key_pem: attachment.public_key_pem.clone(),
            statement: attachment.statement.clone(),
            direction: attachment.direction,
            config_json: attachment.config.0.clone(),
            on_failure: attachment.on_failure,
            mode: attachment.mode,
            authorization: attachment.authorization,
            capabilities: attachment.capabilities.clone(),
            grants: attachment.grants.clone(),
            scope: attachment.name.split_once('/').map_or("", |(namespace, _)| namespace).to_owned(),
            shipped: attachment.shipped,
            memory_bytes: attachment.limits.memory_bytes,
            call_timeout: Duration::from_millis(attachment.limits.call_timeout_ms),
            body_bytes: attachment.limits.body_bytes,
            over_body: attachment.limits.over_body,
        })
    }
}

/// Why an attachment can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("{0:?} is not a digest: sha256: and 64 lower-case hex digits are wanted")]
    Digest(String),
    #[error("the signature of filter attachment {0:?} is not base64")]
    Signature(String),
}

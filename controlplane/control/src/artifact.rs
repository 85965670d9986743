//! A filter binary on its way in: digest, signature, shape. Invariant: an `Artifact` exists only verified: its digest
//! is computed here, its signature holds, and it is a filter by the check that proxies make as well.

#[cfg(test)]
pub(crate) mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePublicKey as _, EncodePublicKey as _};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};
use weft_policy::component::cases::{Cases, CasesError};
use weft_policy::component::{self, ComponentFault};
use weft_policy::schema::{self, SchemaError};
use weft_policy::statement::{KeyId, SignedStatement, Statement, StatementError, signed_bytes};

use crate::token::hex;

/// A verified filter binary.
#[derive(Debug, Clone)]
pub struct Artifact {
    pub bytes: Vec<u8>,
    /// `sha256:` + 64 hex digits.
    pub digest: String,
    /// Base64 of the raw ed25519 signature over the 32 digest bytes.
    pub signature: String,
    pub public_key_pem: String,
    pub shape: Shape,
}

/// What a binary says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// `weft:filter@MAJOR.MINOR.PATCH`
    pub abi: String,
    /// The capabilities that it asks for.
    pub capabilities: Vec<String>,
    /// JSON Schema of its configuration, and the digest of its text.
    pub schema: Option<(serde_json::Value, String)>,
    /// What its author says that it does.
    pub cases: Option<Cases>,
}

/// Why a binary was refused. Always the publisher's fault.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("the binary is empty")]
    Empty,
    #[error("signature is not base64 of 64 bytes")]
    SignatureEncoding,
    #[error("public key is not an ed25519 key in PEM, DER or 32 raw bytes, base64")]
    KeyEncoding,
    #[error(
        "signature does not hold for this binary ({digest}) and this key: it is made over the 32 bytes of its sha256"
    )]
    Signature { digest: String },
    #[error("the binary is no filter: {0}")]
    NoFilter(ComponentFault),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Cases(#[from] CasesError),
    #[error(transparent)]
    Statement(#[from] StatementError),
    #[error("the statement's signature does not hold: it is made over DSSE's pre-authentication encoding of its text")]
    StatementSignature,
}

impl Artifact {
    /// Checks `bytes` against a signature and a key as the headers of a publication carry them.
    pub fn verify(bytes: Vec<u8>, signature_base64: &str, key_text: &str) -> Result<Self, ArtifactError> {
        if bytes.is_empty() {
            return Err(ArtifactError::Empty);
        }
        let hash = Sha256::digest(&bytes);
        let digest = format!("sha256:{}", hex(&hash));
        let key = parse_key(key_text).ok_or(ArtifactError::KeyEncoding)?;
        let (signature, raw) = parse_signature(signature_base64)?;
        if key.verify_strict(&hash, &signature).is_err() {
            return Err(ArtifactError::Signature { digest });
        }
        let shape = inspect(&bytes)?;
        let public_key_pem = key.to_public_key_pem(LineEnding::LF).map_err(|_| ArtifactError::KeyEncoding)?;
        Ok(Self { bytes, digest, signature: STANDARD.encode(raw), public_key_pem, shape })
    }

    /// The statement that its publisher makes of it under a name and a version.
    pub fn statement(&self, name: &str, version: &str) -> Result<Statement, ArtifactError> {
        Ok(Statement {
            name: name.to_owned(),
            version: version.to_owned(),
            abi: self.shape.abi.clone(),
            digest: self.digest.clone(),
            schema: self.shape.schema.as_ref().map(|(_, digest)| digest.clone()),
            publisher: KeyId::of_pem(&self.public_key_pem).ok_or(ArtifactError::KeyEncoding)?,
        })
    }

    /// Refuses a signed statement that is not its publisher's, or about anything else than this binary under this name
    /// and version.
    pub fn is_stated(&self, name: &str, version: &str, signed: &SignedStatement) -> Result<(), ArtifactError> {
        let key = parse_key(&self.public_key_pem).ok_or(ArtifactError::KeyEncoding)?;
        let (signature, _) = parse_signature(&signed.signature)?;
        if key.verify_strict(&signed_bytes(&signed.text), &signature).is_err() {
            return Err(ArtifactError::StatementSignature);
        }
        Ok(signed.text.parse::<Statement>()?.is_about(&self.statement(name, version)?)?)
    }
}

fn parse_signature(text: &str) -> Result<(Signature, Vec<u8>), ArtifactError> {
    let raw = STANDARD.decode(text.trim()).map_err(|_| ArtifactError::SignatureEncoding)?;
    let signature = Signature::from_slice(&raw).map_err(|_| ArtifactError::SignatureEncoding)?;
    Ok((signature, raw))
}

/// An ed25519 key: PEM as it is, or base64 of PEM, DER (SPKI) or 32 raw bytes.
fn parse_key(text: &str) -> Option<VerifyingKey> {
    let text = text.trim();
    if text.starts_with("-----BEGIN") {
        return VerifyingKey::from_public_key_pem(text).ok();
    }
    let bytes = STANDARD.decode(text).ok()?;
    if bytes.starts_with(b"-----BEGIN") {
        return VerifyingKey::from_public_key_pem(std::str::from_utf8(&bytes).ok()?.trim()).ok();
    }
    if let Ok(raw) = <[u8; 32]>::try_from(bytes.as_slice()) {
        return VerifyingKey::from_bytes(&raw).ok();
    }
    VerifyingKey::from_public_key_der(&bytes).ok()
}

fn inspect(bytes: &[u8]) -> Result<Shape, ArtifactError> {
    let (facts, component::Shape { abi, capabilities, .. }) =
        component::inspect(bytes).map_err(ArtifactError::NoFilter)?;
    let schema = match facts.schema {
        None => None,
        Some(text) => {
            let (schema, ignored) = schema::parse(&text)?;
            if !ignored.is_empty() {
                tracing::info!(?ignored, "keywords of a configuration schema that are not checked");
            }
            Some((schema, format!("sha256:{}", hex(&Sha256::digest(text.as_bytes())))))
        }
    };
    let cases = facts.cases.as_deref().map(Cases::parse).transpose()?;
    Ok(Shape { abi, capabilities, schema, cases })
}

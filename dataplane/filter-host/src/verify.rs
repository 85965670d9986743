//! Is this binary the one that was published? Digest first, then what the publisher has signed: the statement about it,
//! or, of what was published before there were statements and of what ships with the control plane, the digest.

#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::DecodePublicKey as _;
use ed25519_dalek::{Signature, VerifyingKey};
use weft_policy::statement::{KeyId, SignedStatement, Statement, StatementError, signed_bytes};

use crate::spec::{Digest, FilterSpec};

/// Why a binary is not what its spec says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("the binary's digest is {found}, wanted {wanted}")]
    Digest { wanted: Digest, found: Digest },
    #[error("the publisher's key is not an ed25519 public key in PEM")]
    Key,
    #[error("the signature is not 64 bytes long")]
    SignatureLength,
    #[error("the signature does not verify with the publisher's key")]
    Signature,
    #[error("its statement can't be believed")]
    Statement(#[from] StatementError),
}

pub(crate) fn verify(spec: &FilterSpec, wasm: &[u8]) -> Result<(), VerifyError> {
    let found = Digest::of(wasm);
    if found != spec.digest {
        return Err(VerifyError::Digest { wanted: spec.digest, found });
    }
    let key = VerifyingKey::from_public_key_pem(&spec.public_key_pem).map_err(|_| VerifyError::Key)?;
    if let Some(signed) = &spec.statement {
        return stated(spec, signed, &key);
    }
    let signature = Signature::from_slice(&spec.signature).map_err(|_| VerifyError::SignatureLength)?;
    key.verify_strict(spec.digest.as_bytes(), &signature).map_err(|_| VerifyError::Signature)
}

/// A statement is believed where its publisher has signed it and it is about this name, version and binary.
fn stated(spec: &FilterSpec, signed: &SignedStatement, key: &VerifyingKey) -> Result<(), VerifyError> {
    let signature = STANDARD.decode(&signed.signature).map_err(|_| VerifyError::SignatureLength)?;
    let signature = Signature::from_slice(&signature).map_err(|_| VerifyError::SignatureLength)?;
    key.verify_strict(&signed_bytes(&signed.text), &signature).map_err(|_| VerifyError::Signature)?;
    let statement: Statement = signed.text.parse()?;
    let found = Statement {
        name: spec.filter.clone(),
        version: spec.version.clone(),
        digest: spec.digest.to_string(),
        publisher: KeyId::of(key.as_bytes()),
        // World and schema follow from the binary, which the digest tells.
        abi: statement.abi.clone(),
        schema: statement.schema.clone(),
    };
    Ok(statement.is_about(&found)?)
}

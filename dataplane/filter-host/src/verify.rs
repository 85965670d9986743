//! Is this binary the one that was published? Digest first, then the publisher's signature over the digest.

use ed25519_dalek::pkcs8::DecodePublicKey as _;
use ed25519_dalek::{Signature, VerifyingKey};

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
}

pub(crate) fn verify(spec: &FilterSpec, wasm: &[u8]) -> Result<(), VerifyError> {
    let found = Digest::of(wasm);
    if found != spec.digest {
        return Err(VerifyError::Digest { wanted: spec.digest, found });
    }
    let key = VerifyingKey::from_public_key_pem(&spec.public_key_pem).map_err(|_| VerifyError::Key)?;
    let signature = Signature::from_slice(&spec.signature).map_err(|_| VerifyError::SignatureLength)?;
    key.verify_strict(spec.digest.as_bytes(), &signature).map_err(|_| VerifyError::Signature)
}

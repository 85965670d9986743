//! Cryptography at native speed. Needs the capability `crypto`.

#[cfg(target_arch = "wasm32")]
use crate::bindings::weft::filter::crypto as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::simulated::crypto as host;

use super::CallError;
pub use crate::bindings::weft::filter::crypto::Algorithm;

pub fn sha256(data: &[u8]) -> Result<Vec<u8>, CallError> {
    host::sha256(data).map_err(CallError::of("crypto"))
}

/// `key`: the secret of HS256, a public key as DER (SPKI) else. A signature of ES256 is `r` and `s`, 32 bytes each.
pub fn verify(algorithm: Algorithm, key: &[u8], message: &[u8], signature: &[u8]) -> Result<bool, CallError> {
    host::verify(algorithm, key, message, signature).map_err(CallError::of("crypto"))
}

/// The same with a key that the FilterPolicy gives this name (`crypto: {keys: [..]}`), and that is told to nobody.
pub fn verify_with(algorithm: Algorithm, key: &str, message: &[u8], signature: &[u8]) -> Result<bool, CallError> {
    host::verify_with(algorithm, key, message, signature).map_err(CallError::of("crypto"))
}

/// HS256 with a key that the FilterPolicy gives this name, and that is told to nobody.
pub fn sign_with(key: &str, message: &[u8]) -> Result<Vec<u8>, CallError> {
    host::sign_with(key, message).map_err(CallError::of("crypto"))
}

/// HS256.
pub fn sign(key: &[u8], message: &[u8]) -> Result<Vec<u8>, CallError> {
    host::sign(key, message).map_err(CallError::of("crypto"))
}

/// At most 1,024 bytes that nobody can foresee.
pub fn random(bytes: u32) -> Result<Vec<u8>, CallError> {
    host::random(bytes).map_err(CallError::of("crypto"))
}

//! Hashes, signatures and randomness for filters, at native speed. Inputs are bounded: a call into the host is not ended
//! by the clock that ends calls into filters.

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use aws_lc_rs::{digest, hmac, rand};

/// Bytes of what is hashed, signed or verified: a millisecond of work.
const MAX_MESSAGE: usize = 1 << 20;
const MAX_KEY: usize = 16 << 10;
const MAX_SIGNATURE: usize = 2 << 10;
const MAX_RANDOM: usize = 1_024;

/// How a signature is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Hs256,
    Rs256,
    Es256,
    Ed25519,
}

/// What was asked for can't be done, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CryptoFault(pub(crate) String);

type Bytes = Result<Vec<u8>, CryptoFault>;

fn bounded(what: &str, bytes: &[u8], most: usize) -> Result<(), CryptoFault> {
    match bytes.len() <= most {
        true => Ok(()),
        false => Err(CryptoFault(format!("{what} of {} bytes; at most {most} are possible", bytes.len()))),
    }
}

pub(crate) fn sha256(data: &[u8]) -> Bytes {
    bounded("data", data, MAX_MESSAGE)?;
    Ok(digest::digest(&digest::SHA256, data).as_ref().to_vec())
}

/// HMAC-SHA256.
pub(crate) fn sign(key: &[u8], message: &[u8]) -> Bytes {
    let key = secret(key)?;
    bounded("a message", message, MAX_MESSAGE)?;
    Ok(hmac::sign(&key, message).as_ref().to_vec())
}

/// True where the signature holds. A key that is none of the algorithm's is an error.
pub(crate) fn verify(algorithm: Algorithm, key: &[u8], message: &[u8], signature: &[u8]) -> Result<bool, CryptoFault> {
    bounded("a message", message, MAX_MESSAGE)?;
    bounded("a signature", signature, MAX_SIGNATURE)?;
    let public: &'static dyn VerificationAlgorithm = match algorithm {
        Algorithm::Hs256 => return Ok(hmac::verify(&secret(key)?, message, signature).is_ok()),
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        // As JWS has it: both numbers with their full length, one after the other.
        //= rfc7518#section-3.4
        Algorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::Ed25519 => &signature::ED25519,
    };
    bounded("a key", key, MAX_KEY)?;
    let key = ParsedPublicKey::new(public, spki(key)?);
    let key = key.map_err(|rejected| CryptoFault(format!("the key is none of this algorithm: {rejected}")))?;
    Ok(key.verify_sig(message, signature).is_ok())
}

pub(crate) fn random(bytes: u32) -> Bytes {
    let count = usize::try_from(bytes).ok().filter(|count| (1..=MAX_RANDOM).contains(count));
    let count = count.ok_or_else(|| CryptoFault(format!("{bytes} random bytes: 1 to {MAX_RANDOM} are possible")))?;
    let mut random = vec![0; count];
    rand::fill(&mut random).map_err(|_| CryptoFault("there is no randomness".to_owned()))?;
    Ok(random)
}

/// An empty secret is one that somebody forgot.
fn secret(key: &[u8]) -> Result<hmac::Key, CryptoFault> {
    if key.is_empty() {
        return Err(CryptoFault("the key is empty".to_owned()));
    }
    bounded("a key", key, MAX_KEY)?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, key))
}

/// The shortest key of a SubjectPublicKeyInfo is Ed25519's, of 44 bytes. Raw keys, which are shorter or begin
/// otherwise, are none: there is one form for all algorithms.
fn spki(key: &[u8]) -> Result<&[u8], CryptoFault> {
    match key {
        [0x30, ..] if key.len() >= 44 => Ok(key),
        _ => Err(CryptoFault("the key is no public key as DER (SubjectPublicKeyInfo)".to_owned())),
    }
}

#[cfg(test)]
mod tests;

//! As the interface `crypto`. Hashes and HS256 are real; a signature by a public key holds where the test has said so,
//! and random bytes are a sequence that a test can foresee.

use sha2::{Digest as _, Sha256};

use super::HOST;
use crate::bindings::weft::filter::crypto::Algorithm;
use crate::bindings::weft::filter::types::Error;

const RANDOM: u32 = 1_024;

#[derive(Default)]
pub(super) struct Crypto {
    holding: Vec<Signed>,
    drawn: u64,
}

/// A signature that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) algorithm: Algorithm,
    pub(crate) key: Vec<u8>,
    pub(crate) message: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

pub(crate) fn hold(signed: Signed) {
    HOST.with_borrow_mut(|host| host.crypto.holding.push(signed));
}

fn granted() -> Result<(), Error> {
    if HOST.with_borrow(|host| host.grants.crypto) { Ok(()) } else { Err(Error::Denied) }
}

pub(crate) fn sha256(data: &[u8]) -> Result<Vec<u8>, Error> {
    granted()?;
    Ok(Sha256::digest(data).to_vec())
}

pub(crate) fn verify(algorithm: Algorithm, key: &[u8], message: &[u8], signature: &[u8]) -> Result<bool, Error> {
    granted()?;
    match algorithm {
        Algorithm::Hs256 => Ok(hmac(key, message) == signature),
        Algorithm::Rs256 | Algorithm::Es256 | Algorithm::Ed25519 => Ok(HOST.with_borrow(|host| {
            host.crypto.holding.iter().any(|signed| {
                signed.algorithm == algorithm
                    && signed.key == key
                    && signed.message == message
                    && signed.signature == signature
            })
        })),
    }
}

pub(crate) fn sign(key: &[u8], message: &[u8]) -> Result<Vec<u8>, Error> {
    granted()?;
    Ok(hmac(key, message))
}

pub(crate) fn verify_with(algorithm: Algorithm, key: &str, message: &[u8], signature: &[u8]) -> Result<bool, Error> {
    granted()?;
    verify(algorithm, &key_of(key)?, message, signature)
}

pub(crate) fn sign_with(key: &str, message: &[u8]) -> Result<Vec<u8>, Error> {
    granted()?;
    sign(&key_of(key)?, message)
}

fn key_of(name: &str) -> Result<Vec<u8>, Error> {
    HOST.with_borrow(|host| host.grants.keys.get(name).cloned().ok_or(Error::Denied))
}

pub(crate) fn random(bytes: u32) -> Result<Vec<u8>, Error> {
    granted()?;
    if !(1..=RANDOM).contains(&bytes) {
        return Err(Error::Invalid(format!("{bytes} random bytes, 1 to {RANDOM}")));
    }
    let drawn = HOST.with_borrow_mut(|host| {
        host.crypto.drawn += 1;
        host.crypto.drawn
    });
    let blocks = (0_u64..).flat_map(|block| Sha256::digest([drawn.to_le_bytes(), block.to_le_bytes()].concat()));
    Ok(blocks.take(bytes as usize).collect())
}

//= rfc2104#section-2
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    //= rfc4231#section-4.3
    #[test]
    fn hmac_is_the_standard_s() {
        let expect = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let found: String =
            hmac(b"Jefe", b"what do ya want for nothing?").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, expect);
    }
}

//! Keys of a JWKS as the host's crypto takes them: a secret, or a public key as DER. A key has one algorithm, and a token
//! that names another is no token of it.

use serde::Deserialize;
use weft_filters_sdk::crypto::Algorithm;

use crate::base64url;

/// A JSON Web Key; members that are not read here are let pass.
//= rfc7517#section-4
#[derive(Debug, Deserialize)]
pub(crate) struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    #[serde(rename = "key_ops")]
    operations: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
    /// A private key in a configuration is a mistake.
    d: Option<serde_json::Value>,
}

/// A key that tokens are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    pub(crate) algorithm: Algorithm,
    /// A secret for HS256, else DER (SPKI).
    pub(crate) bytes: Vec<u8>,
}

/// A secret of HS256 has as many bytes as its hash, at least.
//= rfc7518#section-3.2
const SECRET: usize = 32;
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// An algorithm by its name in tokens and keys.
pub(crate) fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Hs256 => "HS256",
        Algorithm::Rs256 => "RS256",
        Algorithm::Es256 => "ES256",
        Algorithm::Ed25519 => "EdDSA",
    }
}

impl Jwk {
    /// An error begins with the member that is wrong.
    pub(crate) fn key(self) -> Result<Key, String> {
        if self.d.is_some() {
            return Err("d: this is a private key; give its public part alone".to_owned());
        }
        if let Some(purpose) = self.purpose.as_deref().filter(|purpose| *purpose != "sig") {
            return Err(format!("use: a key for {purpose:?} signs nothing"));
        }
        //= rfc7517#section-4.3
        if self.operations.as_ref().is_some_and(|all| all.iter().all(|operation| operation != "verify")) {
            return Err("key_ops: it is not for \"verify\"".to_owned());
        }
        let (algorithm, bytes) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("oct", None) => (Algorithm::Hs256, self.secret()?),
            ("RSA", None) => (Algorithm::Rs256, self.rsa()?),
            ("EC", Some("P-256")) => (Algorithm::Es256, self.p256()?),
            ("OKP", Some("Ed25519")) => (Algorithm::Ed25519, self.ed25519()?),
            (kty, None) => return Err(format!("kty: {kty:?} is not oct, RSA, EC with P-256 or OKP with Ed25519")),
            (kty, Some(crv)) => {
                return Err(format!("crv: {crv:?} with {kty:?} is not EC with P-256 or OKP with Ed25519"));
            }
        };
        if let Some(alg) = self.alg.as_deref().filter(|alg| *alg != name(algorithm)) {
            return Err(format!("alg: {alg:?} is not {}, which this key is taken for", name(algorithm)));
        }
        Ok(Key { id: self.kid, algorithm, bytes })
    }

    fn secret(&self) -> Result<Vec<u8>, String> {
        let secret = member("k", self.k.as_deref())?;
        if secret.len() < SECRET {
            return Err(format!("k: {} bytes, at least {SECRET}", secret.len()));
        }
        Ok(secret)
    }

    fn rsa(&self) -> Result<Vec<u8>, String> {
        let (modulus, exponent) = (member("n", self.n.as_deref())?, member("e", self.e.as_deref())?);
        let modulus = without_zeros(&modulus);
        let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(format!("n: {bits} bits, {} to {}", RSA_BITS.start(), RSA_BITS.end()));
        }
        let key = der(0x30, &[integer(modulus), integer(without_zeros(&exponent))].concat());
        Ok(der(0x30, &[RSA.to_vec(), der(0x03, &[&[0_u8][..], key.as_slice()].concat())].concat()))
    }

    fn p256(&self) -> Result<Vec<u8>, String> {
        let (x, y) = (coordinate("x", self.x.as_deref())?, coordinate("y", self.y.as_deref())?);
        Ok([P256, &x, &y].concat())
    }

    fn ed25519(&self) -> Result<Vec<u8>, String> {
        let x = coordinate("x", self.x.as_deref())?;
        Ok([ED25519, &x].concat())
    }
}

/// rsaEncryption, without parameters.
//= rfc3279#section-2.3.1
const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
/// What stands before the two coordinates of a point of P-256.
//= rfc5480#section-2
const P256: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04";
/// What stands before a key of Ed25519.
//= rfc8410#section-4
const ED25519: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

fn member(name: &str, text: Option<&str>) -> Result<Vec<u8>, String> {
    let text = text.ok_or_else(|| format!("{name}: it is missing"))?;
    base64url::decode(text).ok_or_else(|| format!("{name}: it is not base64url without padding"))
}

fn coordinate(name: &str, text: Option<&str>) -> Result<Vec<u8>, String> {
    let bytes = member(name, text)?;
    if bytes.len() != 32 {
        return Err(format!("{name}: {} bytes, not 32", bytes.len()));
    }
    Ok(bytes)
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// An unsigned number without leading zeros.
fn integer(number: &[u8]) -> Vec<u8> {
    let sign: &[u8] = if number.first().is_none_or(|byte| *byte >= 0x80) { &[0] } else { &[] };
    der(0x02, &[sign, number].concat())
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = without_zeros(&length);
    let mut out = vec![tag];
    match (content.len(), u8::try_from(length.len())) {
        (0..0x80, _) => out.push(length.first().copied().unwrap_or_default()),
        (_, Ok(bytes)) => {
            out.push(0x80 | bytes);
            out.extend_from_slice(length);
        }
        // A length has eight bytes at the most.
        (_, Err(_)) => {}
    }
    out.extend_from_slice(content);
    out
}

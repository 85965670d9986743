//! A snapshot at rest: AES-256-GCM over pieces, each with its number and whether it is the last, under a key from a
//! passphrase (PBKDF2-HMAC-SHA256) or a key file (HKDF-SHA256). Invariant: nothing is given out of a file that is not
//! whole, and a wrong key tells nothing but that it is wrong.

use std::num::NonZeroU32;

use anyhow::{Context as _, anyhow, bail};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, pbkdf2};
use serde::{Deserialize, Serialize};

/// The beginning of a file, before its form:
/// ```text
/// weft sealed snapshot 1\n
/// {"kdf":"pbkdf2-hmac-sha256","iterations":600000,"salt":"<32 hex digits>"}\n
/// pieces of 65,536 bytes and a tag of 16; the last one may be shorter
/// ```
/// The nonce is the piece's number (11 bytes, big endian) and 1 for the last piece, else 0; both lines are authenticated
/// with every piece.
const MAGIC: &str = "weft sealed snapshot ";
const FORM: &str = "1";
const PIECE: usize = 64 << 10;
const TAG: usize = 16;
/// As OWASP recommends for PBKDF2-HMAC-SHA256.
const ITERATIONS: u32 = 600_000;
/// A file that asks for more work than this is not of Weft.
const MAX_ITERATIONS: u32 = 10_000_000;
const MIN_PASSPHRASE: usize = 12;
const MIN_KEY: usize = 32;
/// Bytes of the line that says how the key is made.
const MAX_HEADER: usize = 1_024;

/// The secret that a file is sealed with.
pub(super) enum Secret {
    Passphrase(String),
    Key(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kdf", deny_unknown_fields)]
enum Derivation {
    #[serde(rename = "pbkdf2-hmac-sha256")]
    Passphrase { iterations: u32, salt: String },
    #[serde(rename = "hkdf-sha256")]
    Key { salt: String },
}

impl Secret {
    /// Refuses a secret that could be guessed.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        match self {
            Self::Passphrase(text) if text.chars().count() < MIN_PASSPHRASE => {
                bail!("the passphrase has fewer than {MIN_PASSPHRASE} characters")
            }
            Self::Key(bytes) if bytes.len() < MIN_KEY => {
                bail!("the key file has fewer than {MIN_KEY} bytes: head -c 32 /dev/urandom makes one")
            }
            Self::Passphrase(_) | Self::Key(_) => Ok(()),
        }
    }

    fn derivation(&self) -> anyhow::Result<Derivation> {
        let mut salt = [0; 16];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| anyhow!("no randomness"))?;
        let salt = salt.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(match self {
            Self::Passphrase(_) => Derivation::Passphrase { iterations: ITERATIONS, salt },
            Self::Key(_) => Derivation::Key { salt },
        })
    }

    fn key(&self, derivation: &Derivation) -> anyhow::Result<LessSafeKey> {
        let mut key = [0; 32];
        match (self, derivation) {
            (Self::Passphrase(text), Derivation::Passphrase { iterations, salt }) => {
                let iterations = NonZeroU32::new(*iterations).filter(|count| count.get() <= MAX_ITERATIONS);
                let iterations = iterations.context("the file is damaged: it asks for an unlikely amount of work")?;
                pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt.as_bytes(), text.as_bytes(), &mut key);
            }
            (Self::Key(bytes), Derivation::Key { salt }) => {
                let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, salt.as_bytes()).extract(bytes);
                let filled = derived.expand(&[MAGIC.as_bytes()], hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut key));
                filled.map_err(|_| anyhow!("no key could be made"))?;
            }
            (Self::Key(_), Derivation::Passphrase { .. }) => {
                bail!("the file is sealed with a passphrase, not a key file")
            }
            (Self::Passphrase(_), Derivation::Key { .. }) => {
                bail!("the file is sealed with a key file, not a passphrase")
            }
        }
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| anyhow!("no key could be made"))?;
        Ok(LessSafeKey::new(key))
    }
}

fn nonce(number: u64, is_last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[3..11].copy_from_slice(&number.to_be_bytes());
    bytes[11] = u8::from(is_last);
    Nonce::assume_unique_for_key(bytes)
}

pub(super) fn seal(content: &[u8], secret: &Secret) -> anyhow::Result<Vec<u8>> {
    secret.check()?;
    let derivation = secret.derivation()?;
    let key = secret.key(&derivation)?;
    let header = format!("{MAGIC}{FORM}\n{}\n", serde_json::to_string(&derivation)?);
    let mut sealed = header.clone().into_bytes();
    sealed.reserve(content.len() + (content.len() / PIECE + 1) * TAG);
    // Also of nothing there is a last piece.
    let pieces: Vec<&[u8]> = if content.is_empty() { vec![content] } else { content.chunks(PIECE).collect() };
    for (number, piece) in (0_u64..).zip(&pieces) {
        let mut piece = piece.to_vec();
        let is_last = number + 1 == pieces.len() as u64;
        let done = key.seal_in_place_append_tag(nonce(number, is_last), Aad::from(header.as_bytes()), &mut piece);
        done.map_err(|_| anyhow!("the snapshot could not be sealed"))?;
        sealed.extend(piece);
    }
    Ok(sealed)
}

pub(super) fn open(sealed: &[u8], secret: &Secret) -> anyhow::Result<Vec<u8>> {
    let foreign = || anyhow!("this is no sealed snapshot of Weft");
    let body = sealed.strip_prefix(MAGIC.as_bytes()).ok_or_else(foreign)?;
    let mut lines = body[..body.len().min(MAX_HEADER)].splitn(3, |byte| *byte == b'\n');
    let (Some(form), Some(line), Some(_)) = (lines.next(), lines.next(), lines.next()) else { return Err(foreign()) };
    if form != FORM.as_bytes() {
        let form = String::from_utf8_lossy(form).into_owned();
        bail!(
            "the file is of form {form:?}, and this weft reads form {FORM} only: restore it with the release that made it"
        );
    }
    let derivation: Derivation =
        serde_json::from_slice(line).context("the file is damaged: it does not say how its key is made")?;
    let key = secret.key(&derivation)?;
    let (header, pieces) = sealed.split_at(MAGIC.len() + form.len() + line.len() + 2);
    let mut content = Vec::with_capacity(pieces.len());
    let pieces: Vec<&[u8]> = pieces.chunks(PIECE + TAG).collect();
    if pieces.is_empty() {
        bail!("the file was cut: it holds nothing");
    }
    for (number, piece) in (0_u64..).zip(&pieces) {
        let mut piece = piece.to_vec();
        let is_last = number + 1 == pieces.len() as u64;
        let opened = key.open_in_place(nonce(number, is_last), Aad::from(header), &mut piece);
        let wrong = || match number {
            0 => anyhow!("the passphrase or key is wrong, or the file is damaged or was cut"),
            _ => anyhow!("the file is damaged or was cut: piece {} of {} can't be opened", number + 1, pieces.len()),
        };
        content.extend_from_slice(opened.map_err(|_| wrong())?);
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Secret {
        Secret::Key(vec![byte; 32])
    }

    #[test]
    fn what_is_sealed_is_opened_by_its_secret_only() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
            let content: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let sealed = seal(&content, &key(1)).unwrap();
            assert_eq!(open(&sealed, &key(1)).unwrap(), content, "{length}");
            let error = open(&sealed, &key(2)).unwrap_err().to_string();
            assert!(error.contains("is wrong"), "{error}");
            assert_ne!(sealed, seal(&content, &key(1)).unwrap(), "each file has a key of its own");
        }
        let passphrase = Secret::Passphrase("correct horse battery".to_owned());
        let sealed = seal(b"secret", &passphrase).unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(open(&sealed, &passphrase).unwrap(), b"secret");
        assert!(open(&sealed, &key(1)).unwrap_err().to_string().contains("with a passphrase"));
        assert!(seal(b"", &Secret::Passphrase("short".to_owned())).unwrap_err().to_string().contains("12 characters"));
        assert!(seal(b"", &Secret::Key(vec![1; 31])).unwrap_err().to_string().contains("32 bytes"));
    }

    #[test]
    fn every_cut_damage_and_exchange_is_noticed() {
        let content = vec![7; 2 * PIECE + 100];
        let sealed = seal(&content, &key(1)).unwrap();
        let start = sealed.len() - (content.len() + 3 * TAG);
        for length in [0, 5, start - 1, start, start + 10, start + PIECE + TAG, sealed.len() - 1] {
            open(&sealed[..length], &key(1)).unwrap_err();
        }
        for position in (0..start + 40).chain([start + PIECE + 3, sealed.len() - 1]) {
            let mut damaged = sealed.clone();
            damaged[position] ^= 1;
            open(&damaged, &key(1)).unwrap_err();
        }
        let mut exchanged = sealed.clone();
        let (first, second) = (start..start + PIECE + TAG, start + PIECE + TAG..start + 2 * (PIECE + TAG));
        exchanged[first.clone()].copy_from_slice(&sealed[second.clone()]);
        exchanged[second].copy_from_slice(&sealed[first]);
        open(&exchanged, &key(1)).unwrap_err();
        let older = String::from_utf8_lossy(&sealed[..start]).replace("snapshot 1", "snapshot 0");
        let error = open(older.as_bytes(), &key(1)).unwrap_err().to_string();
        assert!(error.contains("form \"0\""), "{error}");
        assert!(open(b"redb", &key(1)).unwrap_err().to_string().contains("no sealed snapshot"));
    }
}

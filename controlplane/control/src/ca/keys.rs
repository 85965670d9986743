//! The authority's private keys as they lie on disk: PKCS#8 in PEM, encrypted (PBES2: PBKDF2-HMAC-SHA256, AES-256-CBC)
//! where a secret is configured.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pkcs8::pkcs5::pbes2::Parameters;
use pkcs8::{EncryptedPrivateKeyInfo, LineEnding, PrivateKeyInfo, SecretDocument};
use rcgen::KeyPair;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{AuthorityError, files};
use crate::seal::{ROUNDS, Seal};

const LABEL: &str = "ENCRYPTED PRIVATE KEY";
const BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const END: &str = "-----END ENCRYPTED PRIVATE KEY-----";
/// A shorter secret could be guessed.
const LEAST: usize = 12;
/// A longer file is no secret.
const MOST: usize = 4_096;

/// How keys are written and read.
#[derive(Clone, Default)]
pub struct Keys {
    secret: Option<Arc<[u8]>>,
}

impl Keys {
    /// With the secret in a file: a key of random bytes, or a passphrase in its only line.
    ///
    /// # Errors
    /// It can't be read, could be guessed, or everybody may read it.
    pub fn sealed_by(path: &Path) -> Result<Self, AuthorityError> {
        let refused = |reason: &str| AuthorityError::Secret { path: path.to_owned(), reason: reason.to_owned() };
        let read = || Ok::<_, std::io::Error>((std::fs::read(path)?, path.metadata()?.permissions().mode()));
        let (content, mode) = read().map_err(|error| refused(&error.to_string()))?;
        if mode & 0o007 != 0 {
            return Err(refused("everybody may read or write it: chmod o= it"));
        }
        let secret = content.strip_suffix(b"\n").unwrap_or(&content);
        match secret.len() {
            ..LEAST => Err(refused("it has fewer than 12 bytes: head -c 32 /dev/urandom makes a key")),
            LEAST..=MOST => Ok(Self { secret: Some(secret.into()) }),
            _ => Err(refused("it has more than 4,096 bytes")),
        }
    }

    /// What seals the values of Secrets in a store with this salt. `None`: no secret is configured.
    pub(crate) fn seal_of(&self, salt: &str) -> Option<Seal> {
        self.secret.as_ref().map(|secret| Seal::new(secret, salt))
    }

    /// True where a secret is configured.
    pub(crate) fn has_secret(&self) -> bool {
        self.secret.is_some()
    }

    /// The PEM text of a key.
    pub(super) fn pem(&self, key: &KeyPair) -> Result<String, AuthorityError> {
        let Some(secret) = &self.secret else { return Ok(key.serialize_pem()) };
        let failed = |error: &dyn std::fmt::Display| AuthorityError::Encrypt(error.to_string());
        let der = key.serialize_der();
        let info = PrivateKeyInfo::try_from(der.as_slice()).map_err(|error| failed(&error))?;
        let (salt, iv): ([u8; 16], [u8; 16]) = (rand::random(), rand::random());
        let how = Parameters::pbkdf2_sha256_aes256cbc(ROUNDS.get(), &salt, &iv).map_err(|error| failed(&error))?;
        let sealed = info.encrypt_with_params(how, secret).map_err(|error| failed(&error))?;
        Ok(sealed.to_pem(LABEL, LineEnding::LF).map_err(|error| failed(&error))?.to_string())
    }

    /// The keys in a PEM text, in their order.
    pub(super) fn all_of(&self, path: &Path, pem: &str) -> Result<Vec<KeyPair>, AuthorityError> {
        let malformed = |reason: String| AuthorityError::Malformed { path: path.to_owned(), reason };
        let plain: Result<Vec<_>, _> = PrivateKeyDer::pem_slice_iter(pem.as_bytes()).collect();
        let mut keys = Vec::new();
        for key in plain.map_err(|error| malformed(error.to_string()))? {
            keys.push(KeyPair::try_from(&key).map_err(|error| malformed(error.to_string()))?);
        }
        for sealed in pem.split(BEGIN).skip(1) {
            let Some(secret) = &self.secret else { return Err(AuthorityError::Sealed(path.to_owned())) };
            let (body, _) = sealed.split_once(END).ok_or_else(|| malformed("a key in it has no end".to_owned()))?;
            let (_, document) = SecretDocument::from_pem(&format!("{BEGIN}{body}{END}\n"))
                .map_err(|error| malformed(error.to_string()))?;
            let info = EncryptedPrivateKeyInfo::try_from(document.as_bytes());
            let opened = info.map_err(|error| malformed(error.to_string()))?.decrypt(secret);
            let opened = opened.map_err(|_| AuthorityError::OtherSecret(path.to_owned()))?;
            let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(opened.as_bytes()));
            keys.push(KeyPair::try_from(&der).map_err(|_| AuthorityError::OtherSecret(path.to_owned()))?);
        }
        Ok(keys)
    }

    /// The first key of a PEM text.
    pub(super) fn first_of(&self, path: &Path, pem: &str) -> Result<KeyPair, AuthorityError> {
        let none = || AuthorityError::Malformed { path: path.to_owned(), reason: "it holds no key".to_owned() };
        self.all_of(path, pem)?.into_iter().next().ok_or_else(none)
    }

    /// Encrypts what lies in plain text in a file, where a secret is configured. What else is in it stays.
    pub(super) fn seal(&self, path: PathBuf) -> Result<(), AuthorityError> {
        const PLAIN: (&str, &str) = ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----\n");
        let Some(pem) = files::read(&path)?.filter(|pem| self.secret.is_some() && pem.contains(PLAIN.0)) else {
            return Ok(());
        };
        let mut sealed = String::new();
        let mut left = pem.as_str();
        while let Some(at) = left.find(PLAIN.0) {
            let end = left[at..].find(PLAIN.1).map_or(left.len(), |end| at + end + PLAIN.1.len());
            sealed.push_str(&left[..at]);
            sealed.push_str(&self.pem(&self.first_of(&path, &left[at..end])?)?);
            left = &left[end..];
        }
        sealed.push_str(left);
        files::write_private(&path, sealed.as_bytes())?;
        tracing::info!(path = %path.display(), "the key in it is encrypted from now on");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::ca::Authority;

    fn secret(dir: &Path, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn keys_at_rest_open_with_their_secret_only() {
        let (dir, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let now = OffsetDateTime::now_utc();
        let open = |keys: Keys| Authority::open_with(dir.path(), keys, "cluster.local", now);
        // Made in plain text, and encrypted by the first start that has a secret.
        let before = open(Keys::default()).unwrap().fingerprint();
        let path = secret(own.path(), "secret", b"correct horse battery\n", 0o600);
        let keys = Keys::sealed_by(&path).unwrap();
        let authority = open(keys.clone()).unwrap();
        assert_eq!(authority.fingerprint(), before);
        authority.rotate(now).unwrap();
        for file in ["root.key", "intermediate.pem"] {
            let text = std::fs::read_to_string(dir.path().join("ca").join(file)).unwrap();
            assert!(text.contains(BEGIN) && !text.contains("BEGIN PRIVATE KEY"), "{file}");
        }
        let after = open(keys.clone()).unwrap().fingerprint();
        assert_ne!(after, before);
        Authority::require_with(dir.path(), &keys, &after).unwrap();
        let text = open(Keys::default()).err().unwrap().to_string();
        assert!(text.contains("root.key is encrypted") && text.contains("ca_secret_file"), "{text}");
        let other = Keys::sealed_by(&secret(own.path(), "other", &[7; 32], 0o640)).unwrap();
        let text = open(other).err().unwrap().to_string();
        assert!(text.contains("is encrypted with another secret"), "{text}");
        assert_eq!(open(keys).unwrap().fingerprint(), after, "nothing was changed");
    }

    #[test]
    fn a_secret_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refuse = |path: &Path| Keys::sealed_by(path).err().unwrap().to_string();
        assert!(refuse(&dir.path().join("none")).contains("No such file"));
        for (content, mode, reason) in [
            (&b"short\n"[..], 0o600, "fewer than 12 bytes"),
            (&[1; 5_000], 0o600, "more than 4,096"),
            (&[1; 32], 0o604, "everybody may read"),
        ] {
            let text = refuse(&secret(dir.path(), "secret", content, mode));
            assert!(text.contains(reason) && text.contains("ca_secret_file"), "{text}");
        }
    }
}

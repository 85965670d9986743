//! Publisher keys and signatures: ed25519 over the sha256 of the binary, and over the statement about it. The private key is
//! written once, for its owner alone, and never printed.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey};
use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};
use weft_policy::statement::KeyId;

/// Makes a key pair: PKCS #8 PEM at `path`, the public half beside it.
pub(super) fn generate(path: &Path) -> anyhow::Result<PathBuf> {
    let mut seed = [0_u8; 32];
    rand::RngCore::fill_bytes(&mut rand::rng(), &mut seed);
    let key = SigningKey::from_bytes(&seed);
    let private = key.to_pkcs8_pem(LineEnding::LF).map_err(|error| anyhow!("cannot encode the key: {error}"))?;
    create(path, private.as_bytes(), 0o600)?;
    let mut public_path = path.as_os_str().to_owned();
    public_path.push(".pub");
    let public_path = PathBuf::from(public_path);
    create(&public_path, public_pem(&key)?.as_bytes(), 0o644)?;
    Ok(public_path)
}

pub(super) fn read(path: &Path) -> anyhow::Result<SigningKey> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the key {}", path.display()))?;
    if text.contains("-----BEGIN PUBLIC KEY-----") {
        return Err(anyhow!("{} is the public key: signing takes the private one beside it", path.display()));
    }
    SigningKey::from_pkcs8_pem(&text)
        .map_err(|error| anyhow!("{} is not an ed25519 private key in PKCS #8 PEM: {error}", path.display()))
}

pub(super) fn public_pem(key: &SigningKey) -> anyhow::Result<String> {
    key.verifying_key()
        .to_public_key_pem(LineEnding::LF)
        .map_err(|error| anyhow!("cannot encode the public key: {error}"))
}

pub(super) fn digest(wasm: &[u8]) -> [u8; 32] {
    Sha256::digest(wasm).into()
}

pub(super) fn sign(key: &SigningKey, bytes: &[u8]) -> [u8; 64] {
    key.sign(bytes).to_bytes()
}

pub(super) fn id(key: &SigningKey) -> KeyId {
    KeyId::of(key.verifying_key().as_bytes())
}

/// `sha256:` and 64 hex digits, as manifests write it.
pub(super) fn digest_text(digest: &[u8; 32]) -> String {
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn create(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    file.write_all(bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use ed25519_dalek::pkcs8::DecodePublicKey;
    use ed25519_dalek::{Signature, Verifier, VerifyingKey};

    use super::*;

    #[test]
    fn a_signature_verifies_by_the_published_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("publisher.key");
        let public = generate(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(read(&public).unwrap_err().to_string().contains("is the public key"));
        let digest = digest(b"wasm");
        let signature = sign(&read(&path).unwrap(), &digest);
        let verifying = VerifyingKey::from_public_key_pem(&std::fs::read_to_string(public).unwrap()).unwrap();
        verifying.verify(&digest, &Signature::from_bytes(&signature)).unwrap();
    }

    #[test]
    fn an_existing_key_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("publisher.key");
        std::fs::write(&path, "precious").unwrap();
        assert!(generate(&path).unwrap_err().to_string().contains("publisher.key"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        assert!(read(&path).unwrap_err().to_string().contains("not an ed25519 private key"));
    }

    #[test]
    fn digests_are_written_as_manifests_write_them() {
        let text = digest_text(&digest(b""));
        assert_eq!(text, "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}

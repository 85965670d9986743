//! The filters that ship with Weft, published at the first start from files beside the executable. Later versions are
//! published like everybody else's: a restart never changes what a filter is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::EncodePublicKey as _;
use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256};

use crate::artifact::Artifact;
use crate::ca::write_private;
use crate::hub::{Hub, Publication};

const NAMES: [&str; 3] = ["authz", "fault", "ratelimit"];
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Publishes those of the shipped filters that were never published here.
pub async fn publish(hub: &Arc<Hub>) -> anyhow::Result<()> {
    let known = hub.filter_versions().await?;
    let missing: Vec<_> = NAMES.into_iter().filter(|name| !known.iter().any(|version| version.name == *name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let configured = hub.config().builtin_filters.clone();
    let folder = configured.clone().or_else(beside_executable);
    for name in missing {
        let path = folder.as_ref().map(|folder| folder.join(format!("{name}.wasm"))).filter(|path| path.exists());
        let Some(path) = path else {
            anyhow::ensure!(configured.is_none(), "builtin_filters: {name}.wasm is not in {configured:?}");
            tracing::warn!(
                filter = name,
                "shipped filter not found beside the executable; publish it with weft filter"
            );
            continue;
        };
        let artifact = load(hub, &path)?;
        let publication =
            Publication { name: name.to_owned(), version: VERSION.to_owned(), artifact, accept_new_key: false };
        hub.publish_filter("system", publication).await.with_context(|| format!("shipped filter {name}"))?;
    }
    Ok(())
}

fn beside_executable() -> Option<PathBuf> {
    let executable = std::env::current_exe().ok()?;
    let folder = executable.parent()?.join("filters");
    folder.is_dir().then_some(folder)
}

/// Verifies a shipped binary with the signature and key that lie beside it (`NAME.sig`, `NAME.pub`). Where they don't, the
/// files are as trustworthy as the executable next to them, and this control plane signs with a key of its own.
fn load(hub: &Hub, path: &Path) -> anyhow::Result<Artifact> {
    let read = |path: &Path| std::fs::read(path).with_context(|| path.display().to_string());
    let bytes = read(path)?;
    let signature_path = path.with_extension("sig");
    let key_path = path.with_extension("pub");
    let (signature, key) = if signature_path.exists() && key_path.exists() {
        (text_or_base64(&read(&signature_path)?), text_or_base64(&read(&key_path)?))
    } else {
        let signing_key = own_key(hub)?;
        let der = signing_key.verifying_key().to_public_key_der().context("own signing key")?;
        let signature = signing_key.sign(&Sha256::digest(&bytes));
        (STANDARD.encode(signature.to_bytes()), STANDARD.encode(der.as_bytes()))
    };
    Artifact::verify(bytes, &signature, &key).with_context(|| path.display().to_string())
}

/// Files hold base64 or PEM text, or raw bytes, which are never all printable.
fn text_or_base64(bytes: &[u8]) -> String {
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.iter().all(is_text) => text.trim().to_owned(),
        Ok(_) | Err(_) => STANDARD.encode(bytes),
    }
}

fn own_key(hub: &Hub) -> anyhow::Result<SigningKey> {
    let path = hub.config().state.join("ca").join("filters.key");
    if path.exists() {
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let seed = <[u8; 32]>::try_from(bytes.as_slice()).ok().context("ca/filters.key must have 32 bytes")?;
        return Ok(SigningKey::from_bytes(&seed));
    }
    let seed: [u8; 32] = rand::random();
    write_private(&path, &seed)?;
    Ok(SigningKey::from_bytes(&seed))
}

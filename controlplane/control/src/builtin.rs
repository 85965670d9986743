//! The filters that ship with Weft, published from files beside the executable: each release brings its own versions, which
//! `stable` stands for from then on, unless an operator has put another version there. Only `authz` is the control plane's own:
//! nobody else publishes it, and what of it is lost or damaged is put right again. Those that proxies of earlier releases
//! can't run are kept in an earlier contract as well: `session::older` hands them out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::EncodePublicKey as _;
use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256};
use weft_policy::bundle::{FILTER_CONTRACT, ObjectName, contract_of};
use weft_policy::resource::ROOT_NAMESPACE;
use weft_policy::resource::filter::STABLE;

use crate::artifact::Artifact;
use crate::ca::write_private;
use crate::hub::{AUTHZ, ApplyError, FilterVersion, Hub, Publication, PublishError, SYSTEM};

const NAMES: [&str; 8] = ["authz", "body-guard", "expr", "extauth", "fault", "header-edit", "jwt", "ratelimit"];
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Components of contract 0.1, as they were released.
const OF_CONTRACT_0_1: [(&str, &[u8]); 3] = [
    ("authz", include_bytes!("../builtin/0.1/authz.wasm")),
    ("fault", include_bytes!("../builtin/0.1/fault.wasm")),
    ("ratelimit", include_bytes!("../builtin/0.1/ratelimit.wasm")),
];
/// Their version where no earlier release has published one. It is before every release, and no range includes it.
const VERSION_0_1: &str = "0.1.0-contract.0.1";

/// Publishes the shipped filters in the versions of this release, as far as they are not published here yet.
pub async fn publish(hub: &Arc<Hub>) -> anyhow::Result<()> {
    let known = hub.filter_records().await?;
    for name in NAMES {
        let of_name: Vec<_> = known.iter().filter(|record| record.name == name).collect();
        if let Some(own) = of_name.iter().find(|record| record.version == VERSION) {
            // A control plane of an earlier release may have put its own back meanwhile.
            if name == AUTHZ
                && takes_over(hub, name, &of_name)
                && let Some(artifact) = whole(hub, own).await?
            {
                publish_one(hub, name, artifact, true).await?;
            }
            continue;
        }
        if name != AUTHZ && is_of_others(&of_name) {
            tracing::warn!(filter = name, "a filter of this name was published here: the shipped one is left out");
            continue;
        }
        let Some(path) = shipped(hub, name) else {
            let configured = &hub.config().builtin_filters;
            anyhow::ensure!(configured.is_none(), "builtin_filters: {name}.wasm is not in {configured:?}");
            tracing::warn!(
                filter = name,
                "shipped filter not found beside the executable; publish it with weft filter"
            );
            continue;
        };
        let (artifact, into_stable) = (load(hub, &path)?, takes_over(hub, name, &of_name));
        let is_of_0_1 = contract_of(&artifact.shape.abi) == FILTER_CONTRACT;
        // What earlier proxies can run is there before something else takes its place. Where nothing is replaced it
        // comes second: the first version of a filter would be in `stable`.
        let replaces = hub.published().world.filter(&ObjectName::new(ROOT_NAMESPACE, name)).is_some();
        if !is_of_0_1 && replaces {
            keep_earlier(hub, name, &of_name).await?;
        }
        publish_one(hub, name, artifact, into_stable).await.with_context(|| shown(&path))?;
        if !is_of_0_1 && !replaces {
            keep_earlier(hub, name, &of_name).await?;
        }
    }
    keep_authz(hub).await
}

/// True for a filter of which all that there is was published by others.
fn is_of_others(known: &[&FilterVersion]) -> bool {
    let mut live = known.iter().filter(|record| !record.deleted).peekable();
    live.peek().is_some() && live.all(|record| record.published_by != SYSTEM)
}

/// True where a filter could not be published since others are being tried: it can be a moment later.
pub fn is_busy(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<PublishError>(), Some(PublishError::Unsound(ApplyError::Trying)))
}

fn shown(path: &Path) -> String {
    format!("shipped filter {}", path.display())
}

/// Publishes the component of contract 0.1 of a filter, unless there is one that shipped, or this very one was deleted.
async fn keep_earlier(hub: &Arc<Hub>, name: &str, known: &[&FilterVersion]) -> anyhow::Result<()> {
    let Some(artifact) = earlier(hub, name, known)? else { return Ok(()) };
    let publication = shipped_publication(name, VERSION_0_1, artifact, false);
    Box::pin(hub.publish_filter(SYSTEM, publication)).await.with_context(|| format!("{name} {VERSION_0_1}")).map(drop)
}

fn earlier(hub: &Hub, name: &str, known: &[&FilterVersion]) -> anyhow::Result<Option<Artifact>> {
    let is_one = |record: &&FilterVersion| {
        let is_kept = !record.deleted && record.published_by == SYSTEM && contract_of(&record.abi) == FILTER_CONTRACT;
        is_kept || record.version == VERSION_0_1
    };
    let Some((_, bytes)) = OF_CONTRACT_0_1.iter().find(|(of, _)| *of == name) else { return Ok(None) };
    if known.iter().any(is_one) {
        return Ok(None);
    }
    let (signature, key) = signed(hub, bytes)?;
    Artifact::verify(bytes.to_vec(), &signature, &key).context("a component of contract 0.1").map(Some)
}

/// Whether `stable` is to stand for the version of this release: it stands for an older one that shipped as well. What an
/// operator has published there stays, and so does what a newer control plane has brought.
fn takes_over(hub: &Hub, name: &str, known: &[&FilterVersion]) -> bool {
    let filter = ObjectName::new(ROOT_NAMESPACE, name);
    let Some(current) = hub.published().world.filter(&filter).map(|filter| filter.spec.version.clone()) else {
        return true;
    };
    let number = |text: &str| semver::Version::parse(text).ok();
    let is_shipped = known.iter().any(|record| record.version == current && record.published_by == SYSTEM);
    is_shipped && number(&current) < number(VERSION)
}

async fn publish_one(hub: &Arc<Hub>, name: &str, artifact: Artifact, into_stable: bool) -> anyhow::Result<()> {
    let publication = shipped_publication(name, VERSION, artifact.clone(), into_stable);
    let mut published = Box::pin(hub.publish_filter(SYSTEM, publication)).await;
    // An upgrade does not fail for what a policy says; the version that takes it goes on.
    if let Err(PublishError::Unsound(ApplyError::Unsound(_))) = &published {
        let reason = published.as_ref().err().map(ToString::to_string);
        tracing::error!(
            filter = name,
            version = VERSION,
            reason,
            "policies can't run the shipped version: it is not in stable"
        );
        published = Box::pin(hub.publish_filter(SYSTEM, shipped_publication(name, VERSION, artifact, false))).await;
    }
    Ok(published.map(drop)?)
}

fn shipped_publication(name: &str, version: &str, artifact: Artifact, into_stable: bool) -> Publication {
    let (name, version) = (name.to_owned(), version.to_owned());
    let channel = into_stable.then(|| STABLE.to_owned());
    // Each control plane signs what comes without a signature with a key of its own, and so may the next release.
    Publication { name, version, artifact, statement: None, accept_new_key: true, channel, dry_run: false }
}

/// Puts `authz` right where its object, a record or its binary is lost or damaged: from the newest version that is
/// whole, else from the file that ships with this release.
pub async fn keep_authz(hub: &Arc<Hub>) -> anyhow::Result<()> {
    let current = hub.published().world.filter(&authz()).map(|filter| filter.spec.clone());
    let versions: Vec<_> = hub.filter_versions().await?.into_iter().filter(|version| version.name == AUTHZ).collect();
    let is_current = |version: &&FilterVersion| {
        current.as_ref().is_some_and(|spec| (&spec.version, &spec.digest) == (&version.version, &version.digest))
    };
    // The current version is looked at first, the newest then.
    let mut wanted: Vec<_> = versions.iter().filter(is_current).collect();
    wanted.extend(versions.iter().rev().filter(|version| !is_current(version)));
    for version in wanted {
        let Some(artifact) = whole(hub, version).await? else { continue };
        if is_current(&version) && is_in_order(hub) {
            return Ok(());
        }
        tracing::error!(version = version.version, "the filter authz was lost or damaged: it is put right");
        let publication = shipped_publication(AUTHZ, &version.version, artifact, true);
        Box::pin(hub.publish_filter(SYSTEM, publication)).await.context("authz")?;
        return Ok(());
    }
    match shipped(hub, AUTHZ) {
        Some(path) => {
            tracing::error!("the filter authz was lost or damaged: the one of this release takes its place");
            publish_one(hub, AUTHZ, load(hub, &path)?, true).await.with_context(|| shown(&path))
        }
        // `publish` has told of it.
        None => Ok(()),
    }
}

/// True if the world has `authz` as it was published, as far as can be seen without the disk.
pub fn is_in_order(hub: &Hub) -> bool {
    let world = hub.published().world.clone();
    let filter = world.filter(&authz());
    filter.is_some_and(|filter| world.published_version(&authz(), &filter.spec.version) == Some(&filter.spec))
}

fn authz() -> ObjectName {
    ObjectName::new(ROOT_NAMESPACE, AUTHZ)
}

/// The binary of a version, if it is what was published.
async fn whole(hub: &Arc<Hub>, version: &FilterVersion) -> anyhow::Result<Option<Artifact>> {
    let Some(bytes) = hub.artifact(version.digest.clone()).await? else { return Ok(None) };
    let verified = Artifact::verify(bytes.to_vec(), &version.signature, &version.public_key_pem);
    Ok(verified.ok().filter(|artifact| artifact.digest == version.digest))
}

fn shipped(hub: &Hub, name: &str) -> Option<PathBuf> {
    let folder = hub.config().builtin_filters.clone().or_else(beside_executable)?;
    Some(folder.join(format!("{name}.wasm"))).filter(|path| path.exists())
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
        signed(hub, &bytes)?
    };
    Artifact::verify(bytes, &signature, &key).with_context(|| path.display().to_string())
}

/// Signature and key of this control plane for a binary.
fn signed(hub: &Hub, bytes: &[u8]) -> anyhow::Result<(String, String)> {
    let signing_key = own_key(hub)?;
    let der = signing_key.verifying_key().to_public_key_der().context("own signing key")?;
    let signature = signing_key.sign(&Sha256::digest(bytes));
    Ok((STANDARD.encode(signature.to_bytes()), STANDARD.encode(der.as_bytes())))
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

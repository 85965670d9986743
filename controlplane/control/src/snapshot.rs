//! A snapshot: the store, the authority's keys and the first operator's token in one archive, and the way back. What is
//! restored is made ready beside what is there, checked as a start would check it, and takes its place at the next start
//! by renames; until then nothing of the old state has changed, and afterwards it lies beside the new one.

pub mod archive;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use weft_policy::bundle::Revision;
use weft_policy::lineage::Lineage;

use self::archive::{ArchiveError, Entries, Writer};
use crate::ca::{Authority, AuthorityError, Keys, make_private_folder, write_private, write_public};
use crate::config::Config;
use crate::store::{AuditEntry, Store, StoreError};

/// Everything of the state folder that a snapshot holds, but for the store.
const TOKEN: &str = "operator.token";
const ROOT: &str = "ca.pem";
const AUTHORITY: &str = "ca";
const STORE: &str = "weft.redb";
/// What takes the place of the state at the next start; complete as soon as it has this name.
const READY: &str = "restore";
/// The same in the making.
const MAKING: &str = "restore.new";
/// The name of the folder for what was there before, inside of `READY`.
const ASIDE: &str = "aside";

/// What a snapshot says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Release of the weft-control that made it.
    pub version: String,
    pub trust_domain: String,
    pub store: String,
    pub epoch: u64,
    pub revision: u64,
    /// Fingerprint of the root's key.
    pub root: String,
    pub created_unix: i64,
}

/// Why a snapshot could not be made or is not restored. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("the snapshot holds no {0}")]
    Missing(&'static str),
    #[error("the snapshot is of trust domain {found}, this control plane is of {own}")]
    TrustDomain { found: String, own: String },
    #[error(
        "the snapshot is of another authority (root {found}, here it is {own}): proxies that joined here could not \
         come back. Say --replace-authority where that is wanted, as for a control plane that was lost"
    )]
    OtherAuthority { found: String, own: String },
    #[error("the snapshot has a file {0:?}, which is no part of a state folder")]
    Strange(String),
    #[error("{path}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("the snapshot's authority can't be used")]
    Authority(#[from] AuthorityError),
    #[error("the snapshot's store can't be used")]
    Store(#[from] StoreError),
    #[error("the control plane would not start with the snapshot: {0}")]
    WouldNotStart(String),
    #[error(
        "the store is in etcd, which several control planes may use: it is restored by etcd's own snapshot \
         (docs/operations.md), not by this one"
    )]
    Shared,
    #[error(
        "the key of the newest root is not in this control plane's state folder, so what is saved here could not be restored: {}",
        with_key(.holder)
    )]
    KeyElsewhere {
        /// The control plane that has it, where one says so.
        holder: Option<String>,
    },
    #[error("the roots were replaced again and again while they were read: try again")]
    Changing,
    #[error("a snapshot is being restored already: the control plane starts again")]
    Underway,
}

fn with_key(holder: &Option<String>) -> String {
    match holder {
        Some(holder) => format!("save at {holder}, which has it"),
        None => "no control plane that is there says that it has it. Start the one that has, and save there".to_owned(),
    }
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::File { path: path.clone(), source }
}

/// How often the authority is read again that was replaced meanwhile.
const TRIES: usize = 10;

/// The archive of a state folder and its open store. `key_holder` tells which other control plane has the root's key.
///
/// # Errors
/// Something can't be read, or the root's key is with another control plane.
pub fn save(
    store: &Store,
    config: &Config,
    authority: &Authority,
    key_holder: impl Fn() -> Option<String>,
) -> Result<Vec<u8>, SnapshotError> {
    let (state, most) = (&config.state, config.limits.max_snapshot_bytes);
    let files = || authority.files(&AUTHORITY_FILES).map_err(at(&state.join(AUTHORITY)));
    let mut held = files()?;
    let mut read = None;
    for _ in 0..TRIES {
        let rows = store.export(most)?;
        let now = files()?;
        if authority.wants_signer() {
            return Err(SnapshotError::KeyElsewhere { holder: key_holder() });
        }
        // A root that is replaced meanwhile is in the files and in the rows, which are of one moment only where neither side
        // has changed; of one that another control plane makes the rows may know first.
        if now == held && is_of(store, &rows, &now.0) {
            read = Some(rows);
            break;
        }
        held = now;
    }
    let rows = read.ok_or(SnapshotError::Changing)?;
    let (root, files) = held;
    // Told of the rows themselves: they are of one moment.
    let meta = |key: &str| meta_in(&rows, key);
    let about = About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        trust_domain: config.trust_domain.clone(),
        store: meta("store_id"),
        epoch: meta("epoch").parse().unwrap_or_default(),
        revision: meta("revision").parse().unwrap_or_default(),
        root,
        created_unix: crate::now_unix(),
    };
    let mut writer = Writer::new(most);
    let text = serde_json::to_vec(&about).map_err(StoreError::Encode)?;
    writer.add("about", &text)?;
    // Files of the authority; those that were set aside or are being written are left out by `files`.
    for (file, content) in files {
        writer.add(&format!("file/{}", file.display()), &content)?;
    }
    let token = state.join(TOKEN);
    match std::fs::read(&token) {
        Ok(content) => writer.add(&format!("file/{TOKEN}"), &content)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(at(&token)(error)),
    }
    for (name, content) in rows {
        writer.add(&format!("row/{name}"), &content)?;
    }
    Ok(writer.finish())
}

fn meta_in(rows: &[(String, Vec<u8>)], key: &str) -> String {
    let row = rows.iter().find(|(name, _)| name.strip_prefix("meta/") == Some(key));
    row.map(|(_, content)| String::from_utf8_lossy(content).into_owned()).unwrap_or_default()
}

/// False where the rows name a root that another control plane has made and that is not followed here yet.
fn is_of(store: &Store, rows: &[(String, Vec<u8>)], root: &str) -> bool {
    !store.is_shared() || meta_in(rows, "root_sha256") == root
}

/// Files of the authority; the root's key must be there.
const AUTHORITY_FILES: [&str; 6] =
    ["root.key", "intermediate.pem", "next.pem", "previous.pem", "external", FILTERS_KEY];
const FILTERS_KEY: &str = "filters.key";
const FILTERS_KEY_BYTES: usize = 32;

/// The state that a snapshot is to take the place of.
pub struct Present<'a> {
    pub state: &'a Path,
    pub trust_domain: &'a str,
    pub root: &'a str,
    /// How keys lie on disk here; a snapshot's are as they were where it was saved.
    pub keys: Keys,
    /// Lineages that proxies follow or followed: the restored store leads them all.
    pub followed: Vec<Lineage>,
    pub replace_authority: bool,
    pub max_audit_entries: u64,
    pub now_unix: i64,
    /// Notes in a state folder which store it works with and how far that is.
    pub remember: fn(&Path, &Lineage, Revision),
    /// Loads a store as a start of this trust domain would; gives the number of records that can't be read, or why it would
    /// not start.
    pub load: fn(&Store, &str) -> Result<usize, String>,
}

/// Checks an archive and makes ready what it holds; the next start puts it in place. Gives what the snapshot says of
/// itself and the lineage that the restored store has.
pub fn stage(bytes: &[u8], present: &Present<'_>, audit: AuditEntry) -> Result<(About, Lineage), SnapshotError> {
    let entries = archive::read(bytes)?;
    let about = entries.iter().find(|(name, _)| *name == "about").ok_or(SnapshotError::Missing("description"))?;
    let about: About = serde_json::from_slice(about.1).map_err(|_| ArchiveError::Damaged("its description"))?;
    if about.trust_domain != present.trust_domain {
        let (found, own) = (about.trust_domain, present.trust_domain.to_owned());
        return Err(SnapshotError::TrustDomain { found, own });
    }
    if about.root != present.root && !present.replace_authority {
        return Err(SnapshotError::OtherAuthority { found: about.root, own: present.root.to_owned() });
    }
    let making = present.state.join(MAKING);
    let staged = fill(&making, &entries, &about, present, audit);
    if staged.is_err() {
        let _ = std::fs::remove_dir_all(&making);
    }
    let lineage = staged?;
    let ready = present.state.join(READY);
    std::fs::rename(&making, &ready).map_err(at(&ready))?;
    if let Err(error) = sync_folder(present.state) {
        // The caller is told that nothing was changed, so the next start must not find a state that is ready.
        if std::fs::rename(&ready, &making).is_ok() {
            let _ = std::fs::remove_dir_all(&making);
            return Err(error);
        }
    }
    Ok((about, lineage))
}

fn fill(
    making: &Path,
    entries: &Entries<'_>,
    about: &About,
    present: &Present<'_>,
    audit: AuditEntry,
) -> Result<Lineage, SnapshotError> {
    match std::fs::remove_dir_all(making) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(at(making)(error)),
        Ok(()) | Err(_) => {}
    }
    make_private_folder(&making.join(AUTHORITY))?;
    for (name, content) in entries {
        let Some(file) = name.strip_prefix("file/") else { continue };
        let is_key = file.strip_prefix("ca/").is_some_and(|name| AUTHORITY_FILES.contains(&name));
        match file {
            ROOT => write_public(&making.join(ROOT), content)?,
            TOKEN => write_private(&making.join(TOKEN), content)?,
            file if is_key => write_private(&making.join(file), content)?,
            strange => return Err(SnapshotError::Strange(strange.to_owned())),
        }
    }
    // The same that a start asks for.
    Authority::require_with(making, &present.keys, &about.root)?;
    if !making.join(ROOT).exists() {
        return Err(SnapshotError::Missing("ca.pem"));
    }
    Authority::open_with(making, present.keys.clone(), present.trust_domain, OffsetDateTime::now_utc())?;
    small_files(making)?;
    let store = Store::open(&making.join(STORE), present.max_audit_entries)?;
    let rows = entries.iter().filter_map(|(name, content)| Some((name.strip_prefix("row/")?, *content)));
    if !store.import(rows)? {
        return Err(ArchiveError::Damaged("a record is of no table that this release has").into());
    }
    // The same check as at a start; while a root is being replaced the store may name either.
    let named = store.root()?.ok_or(SnapshotError::Missing("store of its authority"))?;
    Authority::require_with(making, &present.keys, &named)?;
    let unreadable = (present.load)(&store, present.trust_domain).map_err(SnapshotError::WouldNotStart)?;
    if unreadable > 0 {
        tracing::warn!(
            unreadable,
            "records of the snapshot can't be read; they are left aside as they were where it was saved"
        );
    }
    let lineage = store.accept(&present.followed, present.now_unix, audit)?;
    let revision = store.revision()?;
    (present.remember)(making, &lineage, revision);
    let aside = (1..).map(|number| format!("before-restore-{number}"));
    let aside = aside.map(|name| (present.state.join(&name), name)).find(|(path, _)| !path.exists());
    write_private(&making.join(ASIDE), aside.map(|(_, name)| name).unwrap_or_default().as_bytes())?;
    sync_folder(&making.join(AUTHORITY))?;
    sync_folder(making)?;
    Ok(lineage)
}

/// The files that a start reads beside the authority's own.
fn small_files(making: &Path) -> Result<(), SnapshotError> {
    let read = |path: PathBuf| match std::fs::read(&path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(&path)(error)),
    };
    let refuse = |reason: &str| Err(SnapshotError::WouldNotStart(reason.to_owned()));
    if read(making.join(AUTHORITY).join(FILTERS_KEY))?.is_some_and(|key| key.len() != FILTERS_KEY_BYTES) {
        return refuse("ca/filters.key must have 32 bytes");
    }
    if read(making.join(TOKEN))?.is_some_and(|token| std::str::from_utf8(&token).is_err()) {
        return refuse("operator.token is no text");
    }
    Ok(())
}

/// At the start: puts what was made ready in place. It goes on where an earlier start was cut off.
pub fn finish(state: &Path) -> Result<(), SnapshotError> {
    let ready = state.join(READY);
    let _ = std::fs::remove_dir_all(state.join(MAKING));
    if !ready.exists() {
        return Ok(());
    }
    let name = std::fs::read_to_string(ready.join(ASIDE)).map_err(at(&ready.join(ASIDE)))?;
    let aside = state.join(name.trim());
    make_private_folder(&aside)?;
    for part in [STORE, ROOT, AUTHORITY, TOKEN] {
        let (new, here, old) = (ready.join(part), state.join(part), aside.join(part));
        if !new.exists() {
            continue;
        }
        if here.exists() && !old.exists() {
            std::fs::rename(&here, &old).map_err(at(&here))?;
        }
        std::fs::rename(&new, &here).map_err(at(&here))?;
    }
    sync_folder(state)?;
    // Out of the way at once: a start that finds it half removed would not know what it was.
    let done = state.join(MAKING);
    std::fs::rename(&ready, &done).map_err(at(&ready))?;
    sync_folder(state)?;
    let _ = std::fs::remove_dir_all(&done);
    tracing::warn!(before = %aside.display(), "a snapshot was restored; what was there before is kept");
    Ok(())
}

fn sync_folder(path: &Path) -> Result<(), SnapshotError> {
    std::fs::File::open(path).and_then(|folder| folder.sync_all()).map_err(at(path))
}

//! Files that let a proxy start and serve without the control plane: its key and certificate, the last good bundle,
//! filter binaries. They are replaced whole (written aside, synced, renamed) and readable by us only.

#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use weft_policy::bundle::Bundle;
use weft_policy::delta::{Key, Object, Versions};
use weft_policy::lineage::Lineage;
use weft_policy::wire::{Received, encode, v1};

use crate::private;

/// Why something of the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("{path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
}

/// The state directory of one proxy.
#[derive(Debug, Clone)]
pub struct State {
    dir: PathBuf,
    /// An identity that the disk did not take yet; clones share it.
    unwritten: Arc<Mutex<Option<Kept>>>,
}

/// A bundle as it was told: its objects with the numbers that the control plane gave them, and the store that it came from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KeptBundle {
    pub bundle: Bundle,
    pub versions: Versions,
    pub lineage: Option<Lineage>,
}

impl KeptBundle {
    /// Applies what was told, to the objects and to their versions.
    pub fn take(&mut self, received: &Received) {
        self.bundle.apply(&received.delta);
        received.note(&mut self.versions);
    }
}

/// Files that keep an identity, each of them whole: damage to one costs nothing.
const IDENTITY: [&str; 2] = ["identity.pem", "identity.copy"];

/// The file with the key of a join that is under way; its first line names the token.
const JOINING: &str = "joining.pem";

/// Files that keep who is kept out, both the same.
const DENIED: [&str; 2] = ["denied", "denied.copy"];

fn sum(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text behind a first line that is its checksum.
fn summed(bytes: &[u8]) -> Option<&str> {
    let (first, text) = std::str::from_utf8(bytes).ok()?.split_once('\n')?;
    (first == sum(text)).then_some(text)
}

/// A certificate as it is kept: PEM chain, PEM key, PEM roots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub chain_pem: String,
    pub key_pem: String,
    pub trust_pem: String,
}

impl State {
    /// Opens `dir`, making it 0700.
    pub fn open(dir: &Path) -> Result<State, StateError> {
        let failed = |source| StateError::Io { path: dir.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        let state = State { dir: dir.to_owned(), unwritten: Arc::default() };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(state.path("filters")).map_err(failed)?;
        Ok(state)
    }

    /// Folder in which compiled filters are kept.
    pub fn compiled_dir(&self) -> PathBuf {
        self.path("compiled")
    }

    /// Identities that an earlier start kept, best first. Each may be damaged, which only its reader can tell.
    pub fn identities(&self) -> Result<Vec<Kept>, StateError> {
        let trust_pem = self.read_lossy("trust.pem")?;
        let mut found = Vec::new();
        for name in IDENTITY {
            let whole = self.read_lossy(name)?;
            if whole.contains("PRIVATE KEY") {
                found.push(Kept { chain_pem: whole.clone(), key_pem: whole, trust_pem: trust_pem.clone() });
            } else if !whole.is_empty() {
                // As releases before this one kept it: the key in a file of its own.
                found.push(Kept {
                    chain_pem: whole,
                    key_pem: self.read_lossy("identity.key")?,
                    trust_pem: trust_pem.clone(),
                });
            }
        }
        Ok(found)
    }

    /// When the kept identity was obtained, in Unix seconds.
    pub fn identity_obtained(&self) -> Option<u64> {
        let changed = fs::metadata(self.path("identity.pem")).and_then(|file| file.modified()).ok()?;
        changed.duration_since(std::time::UNIX_EPOCH).ok().map(|age| age.as_secs())
    }

    /// Keeps a new identity: certificate and key in one file, so that no crash leaves two that do not match, and a copy.
    /// If the disk does not take them, they stay in memory for [`State::keep_again`].
    pub fn keep_identity(&self, kept: &Kept) -> Result<(), StateError> {
        let written = self.write_identity(kept);
        let unwritten = written.is_err().then(|| kept.clone());
        *self.unwritten.lock().unwrap_or_else(PoisonError::into_inner) = unwritten;
        written
    }

    /// Tries again to keep an identity that the disk did not take. `None`: there is none.
    pub fn keep_again(&self) -> Option<Result<(), StateError>> {
        let kept = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(self.keep_identity(&kept))
    }

    fn write_identity(&self, kept: &Kept) -> Result<(), StateError> {
        // Of what was read from such a file each part is the whole.
        let is_whole = kept.chain_pem.contains("PRIVATE KEY");
        let whole = if is_whole { kept.chain_pem.clone() } else { format!("{}{}", kept.chain_pem, kept.key_pem) };
        self.write("trust.pem", kept.trust_pem.as_bytes())?;
        for name in IDENTITY {
            self.write(name, whole.as_bytes())?;
        }
        Ok(())
    }

    /// Finds out whether an identity could be kept, before a token is spent on it.
    pub fn has_room(&self) -> Result<(), StateError> {
        const AS_MUCH: usize = 16 << 10;
        self.write("room", &[0; AS_MUCH])?;
        let path = self.path("room");
        fs::remove_file(&path).map_err(|source| StateError::Io { path, source })
    }

    /// The key that a join by this token was begun with: if its answer was lost, the same key gets it again.
    pub fn joining(&self, token: &str) -> Result<Option<String>, StateError> {
        let kept = self.read_lossy(JOINING)?;
        let key = kept.split_once('\n').filter(|(of, _)| *of == sum(token)).map(|(_, key)| key.to_owned());
        Ok(key)
    }

    /// Keeps that key, before the token is shown to anybody.
    pub fn keep_joining(&self, token: &str, key_pem: &str) -> Result<(), StateError> {
        self.write(JOINING, format!("{}\n{key_pem}", sum(token)).as_bytes())
    }

    /// The join is answered and what came is kept.
    pub fn has_joined(&self) {
        let _ = fs::remove_file(self.path(JOINING));
    }

    /// Identities that were kept out of the mesh when the control plane was last heard; `None` where it never was. Of two
    /// copies one that is whole is enough.
    pub fn denied(&self) -> Result<Option<Vec<String>>, StateError> {
        let mut damaged = None;
        for name in DENIED {
            let bytes = match self.read(name) {
                Ok(None) => continue,
                Ok(Some(bytes)) => bytes,
                Err(error) => {
                    damaged = damaged.or(Some(error));
                    continue;
                }
            };
            match summed(&bytes) {
                Some(text) => return Ok(Some(text.lines().map(str::to_owned).collect())),
                None => damaged = damaged.or_else(|| Some(self.damaged(name))),
            }
        }
        damaged.map_or(Ok(None), Err)
    }

    fn damaged(&self, name: &str) -> StateError {
        StateError::Damaged { path: self.path(name), reason: "checksum does not match".to_owned() }
    }

    pub fn keep_denied(&self, identities: &[String]) -> Result<(), StateError> {
        let text = identities.join("\n");
        let text = format!("{}\n{text}", sum(&text));
        DENIED.iter().try_for_each(|name| self.write(name, text.as_bytes()))
    }

    /// The last good bundle, if there is one.
    pub fn bundle(&self) -> Result<Option<KeptBundle>, StateError> {
        let path = self.path("bundle.pb");
        let damaged = |reason: String| StateError::Damaged { path: path.clone(), reason };
        let Some(bytes) = self.read("bundle.pb")? else { return Ok(None) };
        let (sum, body) = bytes.split_at_checked(32).ok_or_else(|| damaged("too short".to_owned()))?;
        if Sha256::digest(body).as_slice() != sum {
            return Err(damaged("checksum does not match".to_owned()));
        }
        let mut message = v1::Delta::decode(body).map_err(|error| damaged(error.to_string()))?;
        let lineage = message.lineage.take().map(Lineage::from);
        let received = Received::try_from(message).map_err(|refused| damaged(refused.reason))?;
        let mut kept = KeptBundle { lineage, ..KeptBundle::default() };
        kept.take(&received);
        // That something is not there is true of its moment only.
        let answered = std::mem::take(&mut kept.bundle.answered);
        kept.bundle.answered = answered.into_iter().filter(|ask| kept.bundle.has(ask)).collect();
        Ok(Some(kept))
    }

    /// Keeps a bundle as the last good one.
    pub fn keep_bundle(&self, kept: &KeptBundle) -> Result<(), StateError> {
        let envelope = |(key, object): (Key, Object)| v1::Object {
            version: kept.versions.get(&key).copied().unwrap_or_default(),
            ..encode(&object)
        };
        let body = v1::Delta {
            revision: kept.bundle.revision.0,
            upserts: kept.bundle.objects().into_iter().map(envelope).collect(),
            full: true,
            lineage: kept.lineage.as_ref().map(v1::Lineage::from),
            answered: kept.bundle.answered.iter().map(Into::into).collect(),
            ..v1::Delta::default()
        };
        let body = body.encode_to_vec();
        let mut bytes = Sha256::digest(&body).to_vec();
        bytes.extend_from_slice(&body);
        self.write("bundle.pb", &bytes)
    }

    /// The filter binary with this digest (`sha256:` and hex), if it is here. Whether it is what it says is checked
    /// where it is used.
    pub fn filter(&self, digest: &str) -> Result<Option<Vec<u8>>, StateError> {
        self.read(&filter_file(digest))
    }

    /// True where some binary is kept for this digest.
    pub fn has_filter(&self, digest: &str) -> bool {
        self.path(&filter_file(digest)).is_file()
    }

    pub fn keep_filter(&self, digest: &str, wasm: &[u8]) -> Result<(), StateError> {
        self.write(&filter_file(digest), wasm)
    }

    /// Removes filter binaries that `keep` does not want.
    pub fn sweep_filters(&self, keep: impl Fn(&str) -> bool) {
        let Ok(entries) = fs::read_dir(self.path("filters")) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let digest = name.strip_suffix(".wasm").map(|hex| format!("sha256:{hex}"));
            if !digest.is_some_and(|digest| keep(&digest)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// A secret of this proxy, made at its first use (stateless reset keys outlive a restart).
    pub fn secret(&self) -> Result<Vec<u8>, StateError> {
        match self.read("secret")? {
            Some(secret) if secret.len() == 32 => Ok(secret),
            _ => {
                let secret: [u8; 32] = rand::random();
                self.write("secret", &secret)?;
                Ok(secret.to_vec())
            }
        }
    }

    /// A number that grows with each start: of two proxies with one name and identity the later start wins. `now_ms` is
    /// the time of this start; the kept number keeps it growing where the clock goes back.
    pub fn next_incarnation(&self, now_ms: u64) -> Result<u64, StateError> {
        let kept = self.read_text("incarnation")?.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
        let next = now_ms.max(kept.saturating_add(1));
        self.write("incarnation", format!("{next}\n").as_bytes())?;
        Ok(next)
    }

    /// Secret that a caller must know to change anything by the admin port: made at first use, for this user to read. One that
    /// others may have read, or written, is made anew.
    pub fn admin_token(&self) -> Result<String, StateError> {
        let is_own = fs::metadata(self.path("admin.token")).is_ok_and(|file| private::look(&file).is_ok());
        match self.read_lossy("admin.token")?.trim() {
            // One that is damaged is made anew: it is no use to anybody.
            token if is_own && token.len() >= 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Ok(token.to_owned())
            }
            _ => {
                let token: [u8; 32] = rand::random();
                let text: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
                self.write("admin.token", format!("{text}\n").as_bytes())?;
                Ok(text)
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Io { path, source }),
        }
    }

    /// A file's text, empty where there is none; what is no text is shown as such to whoever parses it.
    fn read_lossy(&self, name: &str) -> Result<String, StateError> {
        Ok(self.read(name)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default())
    }

    fn read_text(&self, name: &str) -> Result<Option<String>, StateError> {
        let damaged = |_| StateError::Damaged { path: self.path(name), reason: "not UTF-8".to_owned() };
        self.read(name)?.map(|bytes| String::from_utf8(bytes).map_err(damaged)).transpose()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.path(name);
        let aside = path.with_extension("new");
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&aside, &path)?;
            File::open(path.parent().unwrap_or(&self.dir))?.sync_all()
        })();
        written.map_err(|source| StateError::Io { path, source })
    }
}

fn filter_file(digest: &str) -> String {
    let hex: String = digest.trim_start_matches("sha256:").chars().filter(char::is_ascii_hexdigit).collect();
    format!("filters/{hex}.wasm")
}

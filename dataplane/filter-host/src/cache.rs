//! Compiled filters on disk, by digest of the binary and hash of the engine. Invariant: machine code is loaded only from
//! a file that this process' user alone could write and whose own checksum holds; anything else is compiled again.

use std::fs;
use std::hash::{Hash as _, Hasher};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::spec::Digest;

const MAGIC: &[u8; 8] = b"WEFTCWA1";
const HEADER: usize = MAGIC.len() + 32;

/// One directory of compiled filters.
#[derive(Debug)]
pub(crate) struct Cache {
    directory: PathBuf,
    engine: String,
    owner: u32,
}

impl Cache {
    /// Creates the directory (0700) where it is missing; refuses one that others may write to.
    pub(crate) fn open(directory: &Path, engine: &Engine) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let metadata = fs::metadata(directory)?;
        let refused = |message| Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        if metadata.mode() & 0o022 != 0 {
            return refused(format!("{} may be written to by others; its mode must be 0700", directory.display()));
        }
        // Machine code is loaded from there: it is to be ours, whoever made the directory.
        let own = fs::metadata("/proc/self")?.uid();
        if metadata.uid() != own {
            let theirs = metadata.uid();
            return refused(format!("{} belongs to user {theirs}, this process runs as {own}", directory.display()));
        }
        let mut hasher = Sha256Hasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let engine = format!("{:016x}", hasher.finish());
        Ok(Self { directory: directory.to_owned(), engine, owner: metadata.uid() })
    }

    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// The compiled filter, if a sound copy is there.
    pub(crate) fn load(&self, digest: &Digest, engine: &Engine) -> Option<Component> {
        let path = self.path(digest);
        let metadata = fs::symlink_metadata(&path).ok()?;
        if !metadata.is_file() || metadata.mode() & 0o022 != 0 || metadata.uid() != self.owner {
            tracing::warn!(path = %path.display(), "compiled filter ignored: others may have written it");
            return None;
        }
        let bytes = fs::read(&path).ok()?;
        let Some(code) = sound(&bytes) else {
            tracing::warn!(path = %path.display(), "compiled filter ignored: it is damaged");
            return None;
        };
        match deserialize(engine, code) {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "compiled filter ignored: it does not load");
                None
            }
        }
    }

    /// Keeps a compiled filter; a failure is logged only, the next start compiles again.
    pub(crate) fn store(&self, digest: &Digest, component: &Component) {
        let path = self.path(digest);
        let stored = component
            .serialize()
            .map_err(|error| io::Error::other(format!("{error:#}")))
            .and_then(|code| self.write(&path, &code));
        if let Err(error) = stored {
            tracing::warn!(path = %path.display(), %error, "compiled filter not kept on disk");
        }
    }

    fn write(&self, path: &Path, code: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let _ = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(MAGIC)?;
        file.write_all(&Sha256::digest(code))?;
        file.write_all(code)?;
        drop(file);
        fs::rename(&temporary, path)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(format!("{}-{}.cwasm", digest.hex(), self.engine))
    }
}

/// The machine code of a file whose checksum holds.
fn sound(bytes: &[u8]) -> Option<&[u8]> {
    let (header, code) = bytes.split_at_checked(HEADER)?;
    let checksum = header.strip_prefix(MAGIC)?;
    (Sha256::digest(code).as_slice() == checksum).then_some(code)
}

#[expect(unsafe_code, reason = "loading machine code that this process' user wrote, checksum verified")]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `code` is what `Component::serialize` gave: it comes from a file in a directory that only our own user can
    // write to, is owned by that user and by nobody else writable, and carries the sha256 of its content, so it is neither
    // foreign, torn nor rotten. wasmtime itself refuses code of another version or configuration.
    unsafe { Component::deserialize(engine, code) }
}

/// std's `Hash` into sha256: the same on every machine, unlike std's own hasher.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        u64::from_be_bytes(*digest.first_chunk().expect("sha256 is longer than 8 bytes"))
    }
}

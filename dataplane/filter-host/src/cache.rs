//! Compiled filters on disk, by digest of the binary and hash of the engine. Invariant: machine code is loaded only from a file
//! that this process' user alone could write and whose checksum holds; anything else is removed and compiled again. It is mapped
//! where the folder's mount lets files be run, else copied. What is mapped and never called takes no memory; the rest may be dropped
//! and read again, as pages of a program are. Of all that is kept, what was used least lately goes first.

use std::fs;
use std::hash::{Hash as _, Hasher};
use std::io::{self, Read, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::spec::Digest;

/// First bytes of what stands behind the machine code; its sha256 follows. A mapping has to begin with the code.
const MAGIC: &[u8; 8] = b"WEFTCWA2";
const TRAILER: usize = MAGIC.len() + 32;
/// End of the names of files of machine code.
const SUFFIX: &str = ".mapped";
/// The same in earlier releases, which had the checksum before the code.
const EARLIER_SUFFIX: &str = ".cwasm";

/// Leftovers are removed once nobody has used them for so long: an upgrade may be taken back.
const LEFTOVER: Duration = Duration::from_secs(24 * 3_600);
/// A file that was begun is given up after this.
const UNFINISHED: Duration = Duration::from_secs(3_600);

/// Bounds of what is kept on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Bytes of all files together. Default 512 MiB.
    pub bytes: u64,
    /// Files. Default 256.
    pub entries: usize,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { bytes: 512 << 20, entries: 256 }
    }
}

/// What is kept, and what became of the questions for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    pub bytes: u64,
    pub entries: u64,
    pub hits: u64,
    pub misses: u64,
    /// Found, and not fit to be loaded.
    pub damaged: u64,
    /// Removed to make room, or as leftovers.
    pub evicted: u64,
}

#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicU64,
    entries: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    damaged: AtomicU64,
    evicted: AtomicU64,
}

/// One directory of compiled filters.
#[derive(Debug)]
pub(crate) struct Cache {
    directory: PathBuf,
    engine: String,
    owner: u32,
    limits: CacheLimits,
    counts: Counts,
}

/// A file of the directory.
struct Entry {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl Cache {
    /// Creates the directory (0700) where it is missing; refuses one that others may write to.
    pub(crate) fn open(directory: &Path, engine: &Engine, limits: CacheLimits) -> io::Result<Self> {
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
        let (directory, owner) = (directory.to_owned(), metadata.uid());
        let cache = Self { directory, engine, owner, limits, counts: Counts::default() };
        cache.tidy(None, SystemTime::now());
        Ok(cache)
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let Counts { bytes, entries, hits, misses, damaged, evicted } = &self.counts;
        let value = |count: &AtomicU64| count.load(Relaxed);
        CacheStats {
            bytes: value(bytes),
            entries: value(entries),
            hits: value(hits),
            misses: value(misses),
            damaged: value(damaged),
            evicted: value(evicted),
        }
    }

    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// The compiled filter, if a sound copy is there. What is not sound is removed.
    pub(crate) fn load(&self, digest: &Digest, engine: &Engine) -> Option<Component> {
        let path = self.path(digest);
        match self.read(&path, engine) {
            Ok(Some(component)) => {
                self.counts.hits.fetch_add(1, Relaxed);
                Some(component)
            }
            Ok(None) => {
                self.counts.misses.fetch_add(1, Relaxed);
                None
            }
            Err(reason) => {
                self.counts.damaged.fetch_add(1, Relaxed);
                tracing::warn!(path = %path.display(), reason, "compiled filter removed; it is compiled again");
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!(path = %path.display(), %error, "it can't be removed");
                }
                None
            }
        }
    }

    fn read(&self, path: &Path, engine: &Engine) -> Result<Option<Component>, String> {
        // A pipe in its place must not make us wait.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let opened = fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
        let mut file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|error| error.to_string())?,
        };
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        if !metadata.is_file() || metadata.mode() & 0o022 != 0 || metadata.uid() != self.owner {
            return Err("others may have written it".to_owned());
        }
        if !is_sound(&mut file, metadata.len()).map_err(|error| error.to_string())? {
            return Err("it is damaged".to_owned());
        }
        let component = mapped(engine, &file).or_else(|error| {
            let copy = copied(engine, &mut file, metadata.len())?;
            tracing::warn!(path = %path.display(), %error, "a compiled filter can't be mapped to be run; it is copied to memory");
            Ok::<_, wasmtime::Error>(copy)
        });
        let component = component.map_err(|error| format!("it does not load: {error:#}"))?;
        // It was used now, which keeps it longer than others.
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(component))
    }

    /// Keeps machine code, and gives the component of what is kept. A failure is logged only: the next start compiles again.
    pub(crate) fn store(&self, digest: &Digest, code: &[u8], engine: &Engine) -> Option<Component> {
        let path = self.path(digest);
        let kept = self.write(&path, code).map_err(|error| error.to_string());
        let kept = kept.and_then(|()| self.read(&path, engine));
        if let Err(reason) = &kept {
            tracing::warn!(path = %path.display(), reason, "compiled filter not kept on disk");
            let _ = fs::remove_file(&path);
        }
        self.tidy(Some(&path), SystemTime::now());
        kept.ok().flatten()
    }

    /// Removes what nobody will load any more, and then what was used least lately until the rest is within its bounds.
    /// `newest` stays, whatever its size.
    fn tidy(&self, newest: Option<&Path>, now: SystemTime) {
        let mut entries = Vec::new();
        for entry in self.entries() {
            let unused = now.duration_since(entry.used).unwrap_or_default();
            let is_over = match self.is_own(&entry.path) {
                Some(true) => false,
                Some(false) => unused >= LEFTOVER,
                None => unused >= UNFINISHED,
            };
            match is_over {
                true => self.evict(&entry),
                false => entries.push(entry),
            }
        }
        entries.sort_by_key(|entry| (newest == Some(&*entry.path), entry.used));
        let mut bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
        let mut count = entries.len();
        for entry in &entries {
            let is_within = bytes <= self.limits.bytes && count <= self.limits.entries;
            if is_within || newest == Some(&*entry.path) {
                break;
            }
            self.evict(entry);
            bytes -= entry.bytes;
            count -= 1;
        }
        self.counts.bytes.store(bytes, Relaxed);
        self.counts.entries.store(count as u64, Relaxed);
    }

    /// Files of the directory, whoever made them.
    fn entries(&self) -> Vec<Entry> {
        let Ok(listed) = fs::read_dir(&self.directory) else { return Vec::new() };
        let entry = |entry: fs::DirEntry| {
            let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            Some(Entry { path: entry.path(), bytes: metadata.len(), used })
        };
        listed.flatten().filter_map(entry).collect()
    }

    /// True for compiled code of this engine, false for that of another one; `None`: it is no compiled code.
    fn is_own(&self, path: &Path) -> Option<bool> {
        let name = path.file_name()?.to_str()?;
        if name.ends_with(EARLIER_SUFFIX) {
            return Some(false);
        }
        let (_, engine) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        Some(engine == self.engine)
    }

    fn evict(&self, entry: &Entry) {
        match fs::remove_file(&entry.path) {
            Ok(()) => {
                self.counts.evicted.fetch_add(1, Relaxed);
                tracing::debug!(path = %entry.path.display(), bytes = entry.bytes, "compiled filter removed");
            }
            Err(error) => tracing::warn!(path = %entry.path.display(), %error, "compiled filter can't be removed"),
        }
    }

    fn write(&self, path: &Path, code: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let _ = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(code)?;
        file.write_all(MAGIC)?;
        file.write_all(&Sha256::digest(code))?;
        // What is mapped may be read again later: it is to be there by then.
        file.sync_data()?;
        drop(file);
        fs::rename(&temporary, path)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(format!("{}-{}{SUFFIX}", digest.hex(), self.engine))
    }
}

/// True where the checksum of a file with so many bytes holds.
fn is_sound(file: &mut fs::File, bytes: u64) -> io::Result<bool> {
    let Some(code) = bytes.checked_sub(TRAILER as u64) else { return Ok(false) };
    let mut hasher = Sha256::new();
    io::copy(&mut Read::take(&mut *file, code), &mut hasher)?;
    let mut trailer = [0; TRAILER];
    file.read_exact(&mut trailer)?;
    Ok(trailer.strip_prefix(MAGIC).is_some_and(|checksum| checksum == hasher.finalize().as_slice()))
}

/// A component of machine code that was just made, or whose checksum was just found to hold: of no other.
#[expect(unsafe_code, reason = "loading machine code that this process or its own child made, whole")]
pub(crate) fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `code` is what wasmtime's compiler gave. Either it was made just now, by this process or by its own child, which
    // runs the same program and said how long it is; or it comes from a file of the cache, as of `mapped`. So it is neither
    // foreign, torn nor rotten. wasmtime itself refuses code of another version or configuration.
    unsafe { Component::deserialize(engine, code) }
}

/// A component of a file of the cache, whose checksum holds: its machine code, and what its memories begin with.
#[expect(unsafe_code, reason = "loading machine code that this process made and kept, whole")]
fn mapped(engine: &Engine, file: &fs::File) -> wasmtime::Result<Component> {
    // The file that was looked at, whatever its name leads to by now.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: the file holds what wasmtime's compiler gave: it lies in a directory that only our own user can write to, is owned
    // by that user and by nobody else writable, was on disk before it had its name, and carried the sha256 of its content a moment
    // ago. Nothing changes it while it is mapped: files of the cache are made under another name, and replaced or removed by name.
    // A disk that rots later under a running process is believed, as it is for the pages of our own program. wasmtime itself
    // refuses code of another version or configuration.
    unsafe { Component::deserialize_file(engine, path) }
}

/// The same for where nothing can be mapped to be run: a mount with `noexec`, or rules of the machine.
fn copied(engine: &Engine, file: &mut fs::File, bytes: u64) -> wasmtime::Result<Component> {
    file.rewind()?;
    let mut code = Vec::new();
    file.read_to_end(&mut code)?;
    let end = usize::try_from(bytes)?.saturating_sub(TRAILER).min(code.len());
    deserialize(engine, &code[..end])
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

#[cfg(test)]
mod tests;

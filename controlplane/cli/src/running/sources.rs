//! Looks for changes of files by their times and sizes. What builds make is left out, so that a build is no change.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, ensure};

/// Files that are looked at, in folders so deep. More can't be a filter's sources.
const MOST: usize = 4_096;
const DEEPEST: usize = 16;

const MADE_FOLDERS: [&str; 3] = ["target", "node_modules", "__pycache__"];
const MADE_FILES: [&str; 2] = ["Cargo.lock", "package-lock.json"];

type Seen = BTreeMap<PathBuf, (SystemTime, u64)>;

/// Files, and all files of folders.
pub(super) struct Sources {
    roots: Vec<PathBuf>,
    /// As they were when a change was last told, and at the last look.
    told: Seen,
    last: Seen,
}

impl Sources {
    pub(super) fn new(roots: Vec<PathBuf>) -> anyhow::Result<Self> {
        let told = look(&roots)?;
        Ok(Self { roots, last: told.clone(), told })
    }

    /// True once for each change, when two looks in a row have seen the same.
    pub(super) fn changed(&mut self) -> anyhow::Result<bool> {
        let now = look(&self.roots)?;
        let is_settled = now == self.last;
        self.last = now;
        if !is_settled || self.last == self.told {
            return Ok(false);
        }
        self.told = self.last.clone();
        Ok(true)
    }
}

fn look(roots: &[PathBuf]) -> anyhow::Result<Seen> {
    let mut seen = Seen::new();
    for root in roots {
        match root.metadata() {
            Ok(metadata) if metadata.is_dir() => enter(root, 0, &mut seen)?,
            Ok(metadata) => note(root, &metadata, &mut seen)?,
            // An editor may be about to put another one there.
            Err(_) => {}
        }
    }
    Ok(seen)
}

fn enter(folder: &Path, depth: usize, seen: &mut Seen) -> anyhow::Result<()> {
    ensure!(depth <= DEEPEST, "{} lies more than {DEEPEST} folders deep", folder.display());
    let unread = || format!("cannot read {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(unread)? {
        let entry = entry.with_context(unread)?;
        // Gone since the folder was read.
        let Ok(metadata) = entry.metadata() else { continue };
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        if metadata.is_dir() && !MADE_FOLDERS.contains(&&*name) {
            enter(&path, depth + 1, seen)?;
        } else if metadata.is_file() && !MADE_FILES.contains(&&*name) && !name.ends_with(".wasm") {
            note(&path, &metadata, seen)?;
        }
    }
    Ok(())
}

fn note(path: &Path, metadata: &Metadata, seen: &mut Seen) -> anyhow::Result<()> {
    ensure!(seen.len() < MOST, "there are more than {MOST} files: is this a filter's folder?");
    let changed = metadata.modified().with_context(|| format!("{} has no time", path.display()))?;
    seen.insert(path.to_owned(), (changed, metadata.len()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_when_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("src/filter.c", "one");
        let single = tempfile::tempdir().unwrap();
        let component = single.path().join("it.wasm");
        let mut sources = Sources::new(vec![folder.path().to_owned(), component.clone()]).unwrap();
        assert!(!sources.changed().unwrap());
        write("src/filter.c", "another");
        assert!(!sources.changed().unwrap(), "it may still be written");
        assert!(sources.changed().unwrap());
        assert!(!sources.changed().unwrap());
        // What is named by itself is looked at whatever its name.
        std::fs::write(&component, "wasm").unwrap();
        assert!(!sources.changed().unwrap() && sources.changed().unwrap());
        for made in ["target/a", "node_modules/b/c", "mine.wasm", "Cargo.lock", ".git/index", "src/__pycache__/d"] {
            write(made, "made");
        }
        assert!(!sources.changed().unwrap() && !sources.changed().unwrap(), "what is built is no change");
        std::fs::remove_file(folder.path().join("src/filter.c")).unwrap();
        assert!(!sources.changed().unwrap() && sources.changed().unwrap());
    }
}

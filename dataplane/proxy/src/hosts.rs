//! The names that this machine's own file knows (/etc/hosts): one that no service has is outside the mesh, whatever else it
//! looks like. Read beside the traffic and again when the file changes.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

/// How often the file is looked at.
const EVERY: Duration = Duration::from_secs(5);
/// A larger file is cut here: nobody writes such a file by hand.
const MAX_BYTES: usize = 4 << 20;

/// The names of one hosts file.
#[derive(Debug)]
pub struct Hosts {
    path: PathBuf,
    names: ArcSwap<HashSet<String>>,
}

impl Hosts {
    /// The names of `path` now; none where it can't be read.
    pub fn read(path: &Path) -> Self {
        Self { path: path.to_owned(), names: ArcSwap::from_pointee(names(path)) }
    }

    /// True for a name of the file, in any case.
    pub fn contains(&self, name: &str) -> bool {
        let names = self.names.load();
        if names.is_empty() {
            return false;
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        names.contains(name) || names.contains(&name.to_ascii_lowercase())
    }

    /// Follows the file for as long as the process lives.
    pub async fn follow(self: Arc<Self>) {
        let mut known = self.modified();
        let mut look = tokio::time::interval(EVERY);
        loop {
            look.tick().await;
            let now = self.modified();
            if now != known {
                known = now;
                self.names.store(Arc::new(names(&self.path)));
            }
        }
    }

    fn modified(&self) -> Option<SystemTime> {
        std::fs::metadata(&self.path).and_then(|file| file.modified()).ok()
    }
}

fn names(path: &Path) -> HashSet<String> {
    let mut text = std::fs::read(path).unwrap_or_default();
    text.truncate(MAX_BYTES);
    String::from_utf8_lossy(&text).lines().flat_map(names_of_line).map(str::to_ascii_lowercase).collect()
}

/// The names behind the address of one line (hosts(5)).
fn names_of_line(line: &str) -> impl Iterator<Item = &str> {
    line.split('#').next().unwrap_or_default().split_ascii_whitespace().skip(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        std::fs::write(&path, "127.0.0.1 localhost box.Example # comment here\n#1.2.3.4 off\n::1\tip6\n").unwrap();
        let hosts = Hosts::read(&path);
        for name in ["localhost", "BOX.example", "box.example.", "ip6"] {
            assert!(hosts.contains(name), "{name}");
        }
        for name in ["127.0.0.1", "off", "comment", "here", ""] {
            assert!(!hosts.contains(name), "{name}");
        }
        assert!(!Hosts::read(&folder.path().join("nothing")).contains("localhost"));
    }
}

//! The folder of one sidecar: its configuration, token, log and state. Readable by its owner alone; made for the run and
//! removed after it, or chosen by the person and kept.

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

pub(super) struct Home {
    path: PathBuf,
    was_used: bool,
    _temporary: Option<tempfile::TempDir>,
}

impl Home {
    pub(super) fn make(chosen: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = chosen else {
            let folder =
                tempfile::Builder::new().prefix("weft-run-").tempdir().context("cannot make a state folder")?;
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700))?;
            return Ok(Self { path: folder.path().to_owned(), was_used: false, _temporary: Some(folder) });
        };
        let path = std::path::absolute(path).with_context(|| format!("cannot resolve {}", path.display()))?;
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make --state-dir {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))
            .with_context(|| format!("cannot make --state-dir {} private", path.display()))?;
        let was_used = path.join("state").is_dir();
        Ok(Self { path, was_used, _temporary: None })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// True where an earlier run left its state here.
    pub(super) fn was_used(&self) -> bool {
        self.was_used
    }

    /// Writes a file that only its owner reads.
    pub(super) fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        use std::io::Write;
        let path = self.path.join(name);
        let context = || format!("cannot write {}", path.display());
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .with_context(context)?;
        file.write_all(text.as_bytes()).with_context(context)?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_home_is_private_and_goes_with_the_run() {
        let home = Home::make(None).unwrap();
        let file = home.write("join.token", "secret").unwrap();
        assert_eq!((mode(home.path()), mode(&file)), (0o700, 0o600));
        let path = home.path().to_owned();
        drop(home);
        assert!(!path.exists());
    }

    #[test]
    fn a_chosen_home_is_kept_and_knows_earlier_use() {
        let folder = tempfile::tempdir().unwrap();
        let chosen = folder.path().join("a/b");
        let home = Home::make(Some(&chosen)).unwrap();
        assert!(!home.was_used());
        std::fs::create_dir(chosen.join("state")).unwrap();
        drop(home);
        assert!(Home::make(Some(&chosen)).unwrap().was_used());
        assert_eq!(mode(&chosen), 0o700);
    }
}

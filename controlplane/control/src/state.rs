//! The state folder: the store and the keys of the mesh lie in it, so that nobody else may write there.

use std::fs::{DirBuilder, Metadata};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use rustix::fs::{Access, access};

/// Makes the folder, for its owner only, where it is not there; refuses one that can't be used.
pub(crate) fn open(folder: &Path) -> anyhow::Result<()> {
    let built = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    built.with_context(|| format!("state folder {}", folder.display()))?;
    if let Some(fault) = fault(folder) {
        bail!(fault);
    }
    Ok(())
}

/// Why the folder can't be used, with the cure; one that is not there yet can.
pub(crate) fn fault(folder: &Path) -> Option<String> {
    let found = match folder.metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => return Some(format!("state folder {}: {error}", folder.display())),
    };
    if !found.is_dir() {
        return Some(format!("state folder {} is no folder", folder.display()));
    }
    if is_open_to_all(&found) {
        let (mode, folder) = (found.mode() & 0o7777, folder.display());
        return Some(format!(
            "state folder {folder} can be written by everybody (mode {mode:o}): what lies in it is the mesh's keys; look \
             that nobody has put something there, then chmod o-w {folder}"
        ));
    }
    let error = access(folder, Access::WRITE_OK | Access::EXEC_OK).err()?;
    Some(format!("state folder {} can't be written: {}", folder.display(), std::io::Error::from(error)))
}

fn is_open_to_all(found: &Metadata) -> bool {
    found.mode() & 0o002 != 0
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_that_is_not_ours_alone_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("control").join("state");
        assert_eq!(fault(&state), None, "not there yet");
        open(&state).unwrap();
        assert_eq!(state.metadata().unwrap().mode() & 0o777, 0o700);
        std::fs::set_permissions(&state, Permissions::from_mode(0o777)).unwrap();
        let refused = open(&state).unwrap_err().to_string();
        assert!(refused.contains("(mode 777)") && refused.contains("chmod o-w"), "{refused}");
        assert_eq!(fault(&state), Some(refused));
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(fault(&file).unwrap().ends_with("is no folder"));
    }
}

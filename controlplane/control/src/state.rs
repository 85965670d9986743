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

/// Files in the folder that nobody but its owner may read.
const SECRET: [&str; 4] = ["weft.redb", "operator.token", "ca/root.key", "ca/intermediate.pem"];

/// Why the folder can't be used, with the cure; one that is not there yet can where it can be made.
pub(crate) fn fault(folder: &Path) -> Option<String> {
    let found = match folder.metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return unmakeable(folder),
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

/// Why a folder that is not there can't be made.
fn unmakeable(folder: &Path) -> Option<String> {
    let mut above = folder.ancestors().skip(1).map(|it| if it.as_os_str().is_empty() { Path::new(".") } else { it });
    let nearest = above.find(|it| it.symlink_metadata().is_ok())?;
    let reason = match nearest.metadata() {
        Ok(found) if !found.is_dir() => format!("{} is no folder", nearest.display()),
        Ok(_) => {
            let error = access(nearest, Access::WRITE_OK | Access::EXEC_OK).err()?;
            format!("{} can't be written: {}", nearest.display(), std::io::Error::from(error))
        }
        Err(error) => format!("{}: {error}", nearest.display()),
    };
    Some(format!("state folder {} is not there and can't be made: {reason}", folder.display()))
}

/// Secrets in the folder that everybody may read or write, with the cure.
pub(crate) fn exposed(folder: &Path) -> Vec<String> {
    let exposed = |path: &std::path::PathBuf| path.metadata().ok().filter(|found| found.mode() & 0o006 != 0);
    let told = |path: std::path::PathBuf| {
        let mode = exposed(&path)?.mode() & 0o7777;
        let path = path.display();
        Some(format!("{path} can be read by everybody (mode {mode:o}), and is a secret: chmod o= {path}"))
    };
    SECRET.iter().filter_map(|file| told(folder.join(file))).collect()
}

/// Worth knowing of a folder that can be used.
pub(crate) fn remark(folder: &Path) -> Option<String> {
    let path = folder.display();
    let Ok(found) = folder.metadata() else {
        return Some(format!(
            "state folder {path} is not there: the first start makes it, with a new store and authority"
        ));
    };
    let mode = found.mode() & 0o7777;
    let is_seen = found.is_dir() && mode & 0o005 != 0;
    is_seen.then(|| format!("state folder {path} can be looked into by everybody (mode {mode:o}): chmod o= {path}"))
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
        let below = file.join("state").join("deep");
        let told = fault(&below).unwrap();
        assert!(told.contains("can't be") || told.contains("Not a directory"), "{told}");
        std::fs::set_permissions(&state, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(fault(&state), None);
        assert!(remark(&state).unwrap().contains("(mode 755): chmod o= "), "{:?}", remark(&state));
        assert_eq!(exposed(&state), [""; 0]);
        let key = state.join("operator.token");
        std::fs::write(&key, "").unwrap();
        std::fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
        assert!(exposed(&state)[0].contains("operator.token can be read by everybody (mode 644)"));
    }
}

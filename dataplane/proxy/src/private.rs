//! Files that hold a secret, and who else may read or change them, as their owner and mode say.

use std::fs::{Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Why a file is not this user's alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Exposed {
    #[error("everybody may change it: chmod o-w")]
    Writable,
    #[error("it belongs to user {0}")]
    Foreign(u32),
    #[error("others may read it: chmod go-rwx")]
    Readable,
}

/// Finds out whether others can get at a file; the worst is told.
///
/// # Errors
/// They can, and how.
pub(crate) fn look(file: &Metadata) -> Result<(), Exposed> {
    let own = rustix::process::geteuid().as_raw();
    match (file.mode(), file.uid()) {
        (mode, _) if mode & 0o002 != 0 => Err(Exposed::Writable),
        (_, owner) if owner != own && owner != 0 => Err(Exposed::Foreign(owner)),
        (mode, _) if mode & 0o077 != 0 => Err(Exposed::Readable),
        _ => Ok(()),
    }
}

/// The token in a file that somebody else put there, without white space around it. What everybody may change is nobody's
/// word; that others may read it is their business who wrote it, and is told (a mounted secret often is).
///
/// # Errors
/// The file can't be read, is no file (a pipe would keep who reads it waiting), everybody may change it, or it holds no token.
pub(crate) fn token(path: &Path) -> io::Result<(String, Result<(), Exposed>)> {
    let (text, found) = text(path)?;
    let reason = match text.trim() {
        "" => "it is empty",
        token if token.bytes().all(|byte| byte.is_ascii_graphic()) => return Ok((token.to_owned(), found)),
        _ => "it holds no token, which is one word of printable characters",
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, reason))
}

/// The whole text of a file that is to be this proxy's alone, and what is wrong about who may read it.
///
/// # Errors
/// The file can't be read, is no file, or everybody may change it.
pub(crate) fn text(path: &Path) -> io::Result<(String, Result<(), Exposed>)> {
    // What is looked at is what is read.
    let without_waiting = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(without_waiting).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    let found = look(&metadata);
    if found == Err(Exposed::Writable) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, Exposed::Writable));
    }
    Ok((io::read_to_string(file)?, found))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_everybody_may_change_is_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, " abc\n").unwrap();
        let read = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            token(&path).map_err(|error| error.to_string())
        };
        assert_eq!(read(0o600), Ok(("abc".to_owned(), Ok(()))));
        assert_eq!(read(0o644), Ok(("abc".to_owned(), Err(Exposed::Readable))));
        assert_eq!(read(0o666), Err(Exposed::Writable.to_string()));
        assert_eq!(read(0o602), Err(Exposed::Writable.to_string()));
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(token(&pipe).unwrap_err().to_string(), "it is no file", "and nobody waits for a writer");
    }
}

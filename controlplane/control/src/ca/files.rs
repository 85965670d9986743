//! The authority's files: written whole (temporary file, fsync, rename), keys readable by the owner only.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::AuthorityError;

/// A folder of mode 0700, made with its parents where missing.
pub(crate) fn make_private_folder(path: &Path) -> Result<(), AuthorityError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))
}

/// The text of a file, where there is one.
pub(super) fn read(path: &Path) -> Result<Option<String>, AuthorityError> {
    match fs::read(path) {
        // A file that is no text is no PEM either, and the parser says so.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AuthorityError::File { path: path.to_owned(), source }),
    }
}

/// A PEM text of DER bytes.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Removes a file, where it is there; durable when this returns.
pub(super) fn remove(path: &Path) -> Result<(), AuthorityError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        removed => removed.map_err(at(path))?,
    }
    let folder = path.parent().map_or_else(|| PathBuf::from("."), Path::to_owned);
    fs::File::open(&folder).and_then(|folder| folder.sync_all()).map_err(at(&folder))
}

/// Moves a file that can't be used out of the way, under a name that no other has.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf, AuthorityError> {
    let name = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        PathBuf::from(name)
    };
    let aside = (1..).map(name).find(|aside| !aside.exists()).unwrap_or_else(|| name(0));
    fs::rename(path, &aside).map_err(at(path))?;
    Ok(aside)
}

pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), AuthorityError> {
    write(path, content, 0o600)
}

pub(crate) fn write_public(path: &Path, content: &[u8]) -> Result<(), AuthorityError> {
    write(path, content, 0o644)
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let temporary = path.with_extension("new");
    let result = (|| {
        let _ = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        let folder = path.parent().map_or_else(|| PathBuf::from("."), Path::to_owned);
        fs::File::open(folder)?.sync_all()
    })();
    result.map_err(at(path))
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> AuthorityError {
    let path = path.to_owned();
    move |source| AuthorityError::File { path: path.clone(), source }
}

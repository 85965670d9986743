//! The authority's files: written whole (temporary file, fsync, rename), keys readable by the owner only.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

use super::AuthorityError;

/// A folder of mode 0700, made with its parents where missing.
pub(crate) fn make_private_folder(path: &Path) -> Result<(), AuthorityError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))
}

/// Certificate and key where both are there, nothing where the certificate is missing (a key alone is what a crash
/// leaves before anything was issued).
pub(super) fn load(certificate: &Path, key: &Path) -> Result<Option<(String, KeyPair)>, AuthorityError> {
    let pem = match fs::read_to_string(certificate) {
        Ok(pem) => pem,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(AuthorityError::File { path: certificate.to_owned(), source }),
    };
    let key_pem = match fs::read_to_string(key) {
        Ok(pem) => pem,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(AuthorityError::Incomplete { path: certificate.to_owned(), missing: key.to_owned() });
        }
        Err(source) => return Err(AuthorityError::File { path: key.to_owned(), source }),
    };
    let malformed = |reason: String| AuthorityError::Malformed { path: key.to_owned(), reason };
    let der = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|e| malformed(e.to_string()))?;
    let key_pair = KeyPair::try_from(&der).map_err(|e| malformed(e.to_string()))?;
    Ok(Some((pem, key_pair)))
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

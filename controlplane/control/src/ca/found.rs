//! The authority's files as they are found. Nothing is made or mended here.

use std::path::Path;

use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::{Anchor, AuthorityError, Intermediate, Keys, external, files, rotation};

/// The root of a state folder.
pub(super) enum Found {
    /// No authority was made yet.
    Nothing,
    /// Its key lies elsewhere.
    Elsewhere(Anchor),
    Key(KeyPair, Vouched),
}

/// The certificate of a root whose key is here.
pub(super) enum Vouched {
    By(String),
    /// It is missing, and can be made again of the key.
    ByNothing,
    /// As well.
    Unreadable,
}

pub(super) fn root(state: &Path, keys: &Keys) -> Result<Found, AuthorityError> {
    let folder = state.join("ca");
    let (certificate, key) = (state.join("ca.pem"), folder.join("root.key"));
    let (pem, key_pem) = (files::read(&certificate)?, files::read(&key)?);
    let Some(key_pem) = key_pem else {
        if let Some(anchor) = rotation::elsewhere(state)? {
            return Ok(Found::Elsewhere(anchor));
        }
        let left = [certificate, folder.join("intermediate.pem")].into_iter().find(|path| path.exists());
        return match left {
            Some(path) => Err(AuthorityError::Incomplete { path, missing: key }),
            None => Ok(Found::Nothing),
        };
    };
    let root_key = keys.first_of(&key, &key_pem)?;
    let Some(pem) = pem else { return Ok(Found::Key(root_key, Vouched::ByNothing)) };
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else {
        return Ok(Found::Key(root_key, Vouched::Unreadable));
    };
    let (_, parsed) = x509_parser::parse_x509_certificate(&der)
        .map_err(|error| AuthorityError::Malformed { path: certificate.clone(), reason: error.to_string() })?;
    if parsed.public_key().raw != root_key.subject_public_key_info() {
        return Err(AuthorityError::Mismatch { certificate, key });
    }
    Ok(Found::Key(root_key, Vouched::By(pem)))
}

/// What a start can't do without, or make again by the root's key.
fn intermediate(state: &Path, keys: &Keys, root: &Found) -> Result<(), AuthorityError> {
    let path = state.join("ca").join("intermediate.pem");
    let pem = files::read(&path)?;
    let found = pem.map(|pem| Intermediate::parse(&path, &pem, keys.first_of(&path, &pem)?)).transpose();
    match (root, found) {
        (_, Err(error @ (AuthorityError::Sealed(_) | AuthorityError::OtherSecret(_)))) => Err(error),
        (Found::Elsewhere(_), Err(error)) => Err(error),
        (Found::Elsewhere(_), Ok(None)) => match rotation::is_followed(state)? {
            true => Err(AuthorityError::WithAnother),
            false => Err(AuthorityError::RootElsewhere),
        },
        (Found::Elsewhere(_), Ok(Some(_))) | (Found::Nothing | Found::Key(..), _) => Ok(()),
    }
}

/// True where an authority was made in the state folder, whatever is left of it.
pub(crate) fn is_there(state: &Path) -> bool {
    let files = ["ca.pem", "ca/root.key", "ca/intermediate.pem"];
    files.iter().any(|file| state.join(file).exists())
}

/// Everything for which a start would end.
pub(crate) fn faults(state: &Path, keys: &Keys) -> Vec<AuthorityError> {
    let folder = state.join("ca");
    let readable = |name: &str| files::read(&folder.join(name)).map(drop);
    let root = root(state, keys);
    let intermediate = match &root {
        // What is about to take over takes its place.
        Ok(root) if !folder.join(rotation::NEXT).exists() => intermediate(state, keys, root),
        Ok(_) | Err(_) => readable("intermediate.pem"),
    };
    let found = [
        root.map(drop),
        intermediate,
        readable(external::REQUESTED),
        rotation::previous(&folder).map(drop),
        rotation::next(state, keys),
    ];
    found.into_iter().filter_map(Result::err).collect()
}

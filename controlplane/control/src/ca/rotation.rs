//! Replacing what signs. A new root takes over at once and vouches for nothing that the mesh could not check before: its
//! intermediate is signed by the old root too, and both are trusted until the old one is dropped. A crash between two
//! writes is gone on from at the next start.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, PoisonError};

use rcgen::{Issuer, KeyPair};
use time::OffsetDateTime;

use super::{
    Anchor, Authority, AuthorityError, Intermediate, Keys, Root, Signers, files, fingerprint, intermediate_params,
    make_intermediate, root_params,
};

/// Root and intermediate that are about to take over, with their keys, and the root that they take the place of: one file, so
/// that all of it is there or nothing.
pub(super) const NEXT: &str = "next.pem";
/// The certificate of the root before.
const PREVIOUS: &str = "previous.pem";
/// Says that the key of the root lies elsewhere.
const EXTERNAL: &str = "external";

/// The authorities in force, as they are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorities {
    /// Fingerprint and end of the root that signs.
    pub root: (String, OffsetDateTime),
    /// The same of the one before, while it is trusted.
    pub previous: Option<(String, OffsetDateTime)>,
    pub intermediate_not_after: OffsetDateTime,
}

/// Why nothing is rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error("a root is being replaced already: the one before is still trusted (weft ca show)")]
    Underway,
    #[error("no root is being replaced")]
    NotUnderway,
    #[error(
        "the root's key is not here: it can vouch for no other root. Not built: one external root in place of another"
    )]
    RootElsewhere,
    #[error("the chain is not taken: {0}")]
    Chain(String),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl Authority {
    pub fn authorities(&self) -> Authorities {
        let signers = self.signers.load();
        let told = |anchor: &Anchor| (anchor.fingerprint.clone(), anchor.not_after);
        Authorities {
            root: told(&signers.root.anchor),
            previous: signers.previous.as_deref().map(told),
            intermediate_not_after: signers.intermediate.not_after,
        }
    }

    /// Replaces the intermediate now. Who trusts the root notices nothing.
    pub fn renew_intermediate(&self, now: OffsetDateTime) -> Result<(), AuthorityError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let signers = self.signers.load();
        let next = make_intermediate(&self.state.join("ca"), &self.keys, &self.trust_domain, &signers.root, now)?;
        self.signers.store(Arc::new(Signers { intermediate: Arc::new(next), ..Signers::clone(&signers) }));
        Ok(())
    }

    /// Replaces the root by a new one. The old one is trusted on and signs the new intermediate too; its key is no more.
    pub fn rotate(&self, now: OffsetDateTime) -> Result<(), RotateError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.signers.load();
        if old.previous.is_some() {
            return Err(RotateError::Underway);
        }
        let path = self.state.join("ca").join(NEXT);
        let next = match files::read(&path)? {
            // The disk did not take all of it.
            Some(begun) => begun,
            None => {
                let next = self.next(&old.root, now)?;
                files::write_private(&path, next.as_bytes())?;
                next
            }
        };
        self.signers.store(Arc::new(take_over(&self.state, &self.keys, &next)?));
        Ok(())
    }

    /// Trusts the root before no more.
    pub fn finish_rotation(&self) -> Result<(), RotateError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let signers = self.signers.load();
        if signers.previous.is_none() {
            return Err(RotateError::NotUnderway);
        }
        files::write_public(&self.state.join("ca.pem"), signers.root.anchor.pem.as_bytes())?;
        files::remove(&self.state.join("ca").join(PREVIOUS))?;
        self.signers.store(Arc::new(Signers { previous: None, ..Signers::clone(&signers) }));
        Ok(())
    }

    /// The text of `NEXT`: what takes over.
    fn next(&self, old: &Root, now: OffsetDateTime) -> Result<String, AuthorityError> {
        let old_issuer = old.issuer.as_ref().ok_or(AuthorityError::RootElsewhere)?;
        let (root_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
        let root = root_params(&self.trust_domain, now).self_signed(&root_key)?;
        let issuer = Issuer::from_ca_cert_der(root.der(), &root_key)?;
        let params = intermediate_params(&self.trust_domain, now);
        let intermediate = params.signed_by(&key, &issuer)?;
        let mut cross = params;
        cross.not_after = cross.not_after.min(old.anchor.not_after);
        let cross = cross.signed_by(&key, old_issuer)?;
        let keys = [self.keys.pem(&root_key)?, self.keys.pem(&key)?].concat();
        Ok([root.pem(), intermediate.pem(), cross.pem(), old.anchor.pem.clone(), keys].concat())
    }
}

/// Goes on with a rotation that was cut off.
pub(super) fn go_on(state: &Path, keys: &Keys) -> Result<(), AuthorityError> {
    match files::read(&state.join("ca").join(NEXT))? {
        Some(next) => take_over(state, keys, &next).map(drop),
        None => Ok(()),
    }
}

/// Puts in place what `NEXT` holds; each step may have been done before.
pub(super) fn take_over(state: &Path, keys: &Keys, next: &str) -> Result<Signers, AuthorityError> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    let folder = state.join("ca");
    let path = folder.join(NEXT);
    let malformed = |reason: String| AuthorityError::Malformed { path: path.clone(), reason };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(next.as_bytes()).collect();
    let certificates = certificates.map_err(|e| malformed(e.to_string()))?;
    let mut both = keys.all_of(&path, next)?;
    // The intermediate's key comes last; the root's may lie elsewhere.
    let (key, root_key) = (both.pop(), both.pop());
    let ([root, intermediate, cross, previous, upper @ ..], Some(key)) = (certificates.as_slice(), key) else {
        return Err(malformed("it does not hold what takes over".to_owned()));
    };
    let text = |der: &CertificateDer<'_>| files::pem("CERTIFICATE", der);
    let key_pem = keys.pem(&key)?;
    let root_key_pem = root_key.as_ref().map(|key| keys.pem(key)).transpose()?;

    let previous = Anchor::parse(&path, &text(previous))?;
    let root = match root_key {
        Some(root_key) => Root::new(&path, &text(root), root_key)?,
        None => Root { issuer: None, anchor: Anchor::parse(&path, &text(root))? },
    };
    let chain = [text(intermediate), upper.iter().map(text).collect(), text(cross)].concat();
    let intermediate = Intermediate::parse(&path, &chain, key)?.signed_by(&path, &root, Some(&previous))?;
    files::write_public(&folder.join(PREVIOUS), previous.pem.as_bytes())?;
    files::write_private(&folder.join("intermediate.pem"), (chain + &key_pem).as_bytes())?;
    files::write_public(&state.join("ca.pem"), [root.anchor.pem.as_str(), &previous.pem].concat().as_bytes())?;
    match root_key_pem {
        Some(pem) => files::write_private(&folder.join("root.key"), pem.as_bytes())?,
        None => {
            files::write_public(&folder.join(EXTERNAL), b"the root's key is not here\n")?;
            files::remove(&folder.join("root.key"))?;
        }
    }
    files::remove(&path)?;
    Ok(Signers { root: Arc::new(root), previous: Some(Arc::new(previous)), intermediate: Arc::new(intermediate) })
}

/// The root before, where it is trusted.
pub(super) fn previous(folder: &Path) -> Result<Option<Anchor>, AuthorityError> {
    let path = folder.join(PREVIOUS);
    files::read(&path)?.map(|pem| Anchor::parse(&path, &pem)).transpose()
}

/// The root whose key lies elsewhere, where it is so.
pub(super) fn external(state: &Path) -> Result<Option<Anchor>, AuthorityError> {
    if files::read(&state.join("ca").join(EXTERNAL))?.is_none() {
        return Ok(None);
    }
    let path = state.join("ca.pem");
    files::read(&path)?.map(|pem| Anchor::parse(&path, &pem)).transpose()
}

/// True where the root with this fingerprint is the one before, or is about to be.
pub(super) fn took_the_place_of(state: &Path, wanted: &str) -> Result<bool, AuthorityError> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    let folder = state.join("ca");
    if previous(&folder)?.is_some_and(|previous| previous.fingerprint == wanted) {
        return Ok(true);
    }
    let Some(next) = files::read(&folder.join(NEXT))? else { return Ok(false) };
    let is_it = |der: CertificateDer<'_>| {
        x509_parser::parse_x509_certificate(&der)
            .is_ok_and(|(_, parsed)| fingerprint(parsed.public_key().raw) == wanted)
    };
    Ok(CertificateDer::pem_slice_iter(next.as_bytes()).filter_map(Result::ok).any(is_it))
}

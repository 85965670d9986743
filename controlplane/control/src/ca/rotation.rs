//! Replacing what signs. A new root takes over at once. Its intermediate is signed by the old root too, so that whoever
//! trusts either root believes each certificate; both are trusted until the old one is dropped. A crash or a full disk
//! between two writes is gone on from, by this process and at the next start.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, PoisonError};

use rcgen::{Issuer, KeyPair};
use time::OffsetDateTime;

use super::{
    Anchor, Authority, AuthorityError, Intermediate, Keys, Root, Signers, files, fingerprint, intermediate_params,
    make_intermediate, own_key, root_params, sign_intermediate,
};

/// Root and intermediate that are about to take over, with their keys, and the root that they take the place of: one file, so
/// that all of it is there or nothing.
pub(super) const NEXT: &str = "next.pem";
/// The certificate of the root before.
pub(super) const PREVIOUS: &str = "previous.pem";
/// Says that the key of the root lies elsewhere.
pub(super) const EXTERNAL: &str = "external";
/// Says that the key of the root lies with another control plane of the store.
pub(super) const FOLLOWED: &str = "followed";

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

    /// Replaces the intermediate now. Who trusts the root notices nothing. While a root is replaced its key stays: the one
    /// before vouches for no other.
    pub fn renew_intermediate(&self, now: OffsetDateTime) -> Result<(), AuthorityError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.place_next()?;
        let signers = self.signers.load();
        if signers.root.is_followed {
            return Err(AuthorityError::WithAnother);
        }
        let (folder, domain, root) = (self.state.join("ca"), &self.trust_domain, &signers.root);
        let next = match signers.previous {
            None => make_intermediate(&folder, &self.keys, domain, root, now)?,
            Some(_) => {
                let key = KeyPair::from_pem(&signers.intermediate.issuer.key().serialize_pem())?;
                let cross = signers.intermediate.cross.as_ref();
                sign_intermediate(&folder, &self.keys, domain, root, key, cross, now)?
            }
        };
        self.signers.store(Arc::new(Signers { intermediate: Arc::new(next), ..Signers::clone(&signers) }));
        Ok(())
    }

    /// Replaces the root by a new one. The old one is trusted on and signs the new intermediate too; its key is no more.
    pub fn rotate(&self, now: OffsetDateTime) -> Result<(), RotateError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.place_next()?;
        let old = self.signers.load();
        if old.previous.is_some() {
            return Err(RotateError::Underway);
        }
        let next = self.next(&old.root, now)?;
        files::write_private(&self.state.join("ca").join(NEXT), next.as_bytes())?;
        Ok(self.take_over(&next)?)
    }

    /// From here on what `NEXT` holds is in force, whatever the disk takes of the rest.
    pub(super) fn take_over(&self, next: &str) -> Result<(), AuthorityError> {
        let next = Next::parse(&self.state, &self.keys, next)?;
        self.signers.store(Arc::new(next.signers.clone()));
        if let Err(error) = next.place(&self.state) {
            tracing::error!(error = %crate::chain(&error), "{NOT_YET}");
        }
        Ok(())
    }

    /// Writes what took over and could not be written then.
    pub(super) fn write_next(&self) -> Result<(), AuthorityError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.place_next()?;
        self.write_followed()
    }

    /// The same for who holds the turn. Where the disk failed after it had the file, that takes over now.
    pub(super) fn place_next(&self) -> Result<(), AuthorityError> {
        let Some(next) = files::read(&self.state.join("ca").join(NEXT))? else { return Ok(()) };
        let next = Next::parse(&self.state, &self.keys, &next)?;
        self.signers.store(Arc::new(next.signers.clone()));
        next.place(&self.state)?;
        tracing::info!("the new root is written whole");
        Ok(())
    }

    /// Trusts the root before no more.
    pub fn finish_rotation(&self) -> Result<(), RotateError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.place_next()?;
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

const NOT_YET: &str = "the new root is in force and could not be written whole yet; it is tried again";

/// Goes on with a rotation that was cut off. Where the disk does not take it, what took over is in force all the same.
pub(super) fn go_on(state: &Path, keys: &Keys) -> Result<Option<Signers>, AuthorityError> {
    let Some(next) = files::read(&state.join("ca").join(NEXT))? else { return Ok(None) };
    let next = Next::parse(state, keys, &next)?;
    match next.place(state) {
        Ok(()) => Ok(None),
        Err(error) => {
            tracing::error!(error = %crate::chain(&error), "{NOT_YET}");
            Ok(Some(next.signers))
        }
    }
}

/// Reads what is about to take over, where there is something.
pub(super) fn next(state: &Path, keys: &Keys) -> Result<(), AuthorityError> {
    match files::read(&state.join("ca").join(NEXT))? {
        Some(next) => Next::parse(state, keys, &next).map(drop),
        None => Ok(()),
    }
}

/// What `NEXT` holds.
struct Next {
    signers: Signers,
    /// Chain and key of the intermediate, and the root's key, as they are written.
    intermediate_pem: String,
    root_key_pem: Option<String>,
    previous_pem: String,
}

impl Next {
    fn parse(state: &Path, keys: &Keys, text: &str) -> Result<Self, AuthorityError> {
        use rustls_pki_types::CertificateDer;
        use rustls_pki_types::pem::PemObject as _;

        let path = state.join("ca").join(NEXT);
        let malformed = |reason: String| AuthorityError::Malformed { path: path.clone(), reason };
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let certificates = certificates.map_err(|e| malformed(e.to_string()))?;
        let mut both = keys.all_of(&path, text)?;
        // The intermediate's key comes last; the root's may lie elsewhere.
        let (key, root_key) = (both.pop(), both.pop());
        let ([root, intermediate, cross, previous, upper @ ..], Some(key)) = (certificates.as_slice(), key) else {
            return Err(malformed("it does not hold what takes over".to_owned()));
        };
        let pem = |der: &CertificateDer<'_>| files::pem("CERTIFICATE", der);
        let key_pem = keys.pem(&key)?;
        let root_key_pem = root_key.as_ref().map(|key| keys.pem(key)).transpose()?;
        let mut previous = Anchor::parse(&path, &pem(previous))?;
        let root = match root_key {
            Some(root_key) => Root::new(&path, &pem(root), root_key)?,
            None => Root { issuer: None, is_followed: false, anchor: Anchor::parse(&path, &pem(root))? },
        };
        // The root before vouches for the root, or for the intermediate alone.
        let is_of_root = own_key(cross) == own_key(&root.anchor.der);
        previous.successor = is_of_root.then(|| cross.clone());
        let cross = if is_of_root { String::new() } else { pem(cross) };
        let chain = [pem(intermediate), upper.iter().map(pem).collect(), cross].concat();
        let intermediate = Intermediate::parse(&path, &chain, key)?.signed_by(&path, &root, Some(&previous))?;
        let previous_pem = previous.pem.clone() + &previous.successor.as_ref().map(pem).unwrap_or_default();
        let (root, previous, intermediate) = (Arc::new(root), Some(Arc::new(previous)), Arc::new(intermediate));
        let signers = Signers { root, previous, intermediate };
        Ok(Self { signers, intermediate_pem: chain + &key_pem, root_key_pem, previous_pem })
    }

    /// Puts it in place; each step may have been done before.
    fn place(&self, state: &Path) -> Result<(), AuthorityError> {
        let folder = state.join("ca");
        let roots: String = self.signers.anchors().map(|anchor| anchor.pem.as_str()).collect();
        files::write_public(&folder.join(PREVIOUS), self.previous_pem.as_bytes())?;
        files::write_private(&folder.join("intermediate.pem"), self.intermediate_pem.as_bytes())?;
        files::write_public(&state.join("ca.pem"), roots.as_bytes())?;
        match &self.root_key_pem {
            Some(pem) => files::write_private(&folder.join("root.key"), pem.as_bytes())?,
            None => {
                files::write_public(&folder.join(EXTERNAL), b"the root's key is not here\n")?;
                files::remove(&folder.join("root.key"))?;
            }
        }
        files::remove(&folder.join(NEXT))
    }
}

/// The root before, where it is trusted.
pub(super) fn previous(folder: &Path) -> Result<Option<Anchor>, AuthorityError> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    let path = folder.join(PREVIOUS);
    let Some(pem) = files::read(&path)? else { return Ok(None) };
    let successor = CertificateDer::pem_slice_iter(pem.as_bytes()).nth(1).and_then(Result::ok);
    Ok(Some(Anchor { successor, ..Anchor::parse(&path, &pem)? }))
}

/// True where another control plane of the store has the root's key.
pub(super) fn is_followed(state: &Path) -> Result<bool, AuthorityError> {
    Ok(files::read(&state.join("ca").join(FOLLOWED))?.is_some())
}

/// The root whose key lies elsewhere, where it is so.
pub(super) fn elsewhere(state: &Path) -> Result<Option<Anchor>, AuthorityError> {
    if files::read(&state.join("ca").join(EXTERNAL))?.is_none() && !is_followed(state)? {
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

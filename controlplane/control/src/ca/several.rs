//! A root whose key one of several control planes has: that one makes it, vouches for it by the root before, and signs an
//! intermediate for each of the others, whose key never leaves its own folder. Invariant: nothing is issued below a root that
//! is not trusted any more, and no root is followed for which the one before does not vouch.

#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use rcgen::{Issuer, KeyPair, SanType};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use time::{Duration, OffsetDateTime};

use super::external::{believed, is_believed, is_intermediate};
use super::line::{Line, LineError, is_vouched};
use super::params::{intermediate_params, leaf_params, root_params};
use super::rotation::{EXTERNAL, FOLLOWED, NEXT, PREVIOUS};
use super::{
    Anchor, Authority, AuthorityError, Intermediate, IssueError, Root, RotateError, ServerNames, Signers, files,
    key_of, verified_key,
};

/// What takes over once the store names it: as `NEXT`.
const OFFERED: &str = "offered.pem";
/// So long an intermediate of a root that nothing needed any more is believed where it asks for the next.
const PROVES_FOR: Duration = Duration::days(90);
/// How long what shows that for is good.
const PROOF_LIFE: Duration = Duration::hours(1);

/// A root that waits for the store to name it, or for the word of the one before.
pub(crate) enum Offer {
    Ready(Vouched),
    /// Whoever has the key of the root before has to sign this request.
    Wanted(Wanted),
}

/// A new root, for which the one before vouches.
pub(crate) struct Vouched {
    root: Anchor,
    cross: CertificateDer<'static>,
    before: String,
}

pub(crate) struct Wanted {
    key: KeyPair,
    root: String,
    pub(crate) csr_der: Vec<u8>,
}

/// The key of an intermediate that is asked for.
pub(crate) struct Asked {
    key: KeyPair,
    pub(crate) csr_der: Vec<u8>,
}

/// What following came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    Nothing,
    /// Another root is trusted, or one no more.
    Roots,
}

/// Why what the store says of the roots is not followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    #[error(transparent)]
    Line(#[from] LineError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// Why another control plane gets nothing signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    #[error("this control plane does not have the root's key")]
    NotHere,
    #[error("a root is being replaced already")]
    Underway,
    #[error(transparent)]
    Request(#[from] IssueError),
}

impl Vouched {
    pub(crate) fn fingerprint(&self) -> &str {
        &self.root.fingerprint
    }

    /// The line with it at its end; `None` where another root is the newest by now, or being replaced.
    pub(crate) fn behind(&self, line: &Line) -> Option<Line> {
        (line.newest() == self.before && !line.is_underway()).then(|| line.with(self.root.clone(), &self.cross))
    }
}

impl Authority {
    /// The line of a store that names none yet.
    pub(crate) fn first_line(&self) -> Line {
        Line::first(&self.signers.load().root.anchor)
    }

    /// True where the key of the newest root is here.
    pub(crate) fn has_root_key(&self) -> bool {
        self.signers.load().root.issuer.is_some()
    }

    /// True where a root that is trusted vouches for what is issued here.
    pub(crate) fn is_vouched(&self) -> bool {
        self.signers.load().is_vouched()
    }

    /// The fingerprint of the root that vouches for what is issued here; empty where none that is known does.
    pub(crate) fn issues_below(&self) -> String {
        self.signers.load().intermediate.root.clone()
    }

    pub(crate) fn trusts(&self, fingerprint: &str) -> bool {
        self.signers.load().anchors().any(|anchor| anchor.fingerprint == fingerprint)
    }

    /// True where another control plane has the root's key.
    pub(crate) fn wants_signer(&self) -> bool {
        self.signers.load().root.is_followed
    }

    /// True where another control plane has to sign an intermediate for this one.
    pub(crate) fn wants_intermediate(&self, now: OffsetDateTime) -> bool {
        let signers = self.signers.load();
        let is_old = signers.intermediate.root != signers.root.anchor.fingerprint;
        signers.root.is_followed && (is_old || signers.is_due(now))
    }

    /// A root that can take over, made here: the one that was offered before, where it still can.
    pub(crate) fn offer(&self, now: OffsetDateTime) -> Result<Offer, RotateError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.place_next()?;
        let old = self.signers.load();
        if old.previous.is_some() {
            return Err(RotateError::Underway);
        }
        if old.root.issuer.is_none() && !old.root.is_followed {
            return Err(RotateError::RootElsewhere);
        }
        if let Some(kept) = self.offered()?.filter(|kept| kept.before == old.root.anchor.fingerprint) {
            return Ok(Offer::Ready(kept));
        }
        let key = KeyPair::generate().map_err(AuthorityError::Sign)?;
        let root = root_params(&self.trust_domain, now).self_signed(&key).map_err(AuthorityError::Sign)?;
        let wanted = Wanted { csr_der: request(root_params(&self.trust_domain, now), &key)?, root: root.pem(), key };
        if old.root.issuer.is_none() {
            return Ok(Offer::Wanted(wanted));
        }
        let cross = vouch(&old, &self.trust_domain, &wanted.csr_der, now);
        let cross = cross.map_err(|error| RotateError::Chain(error.to_string()))?;
        Ok(Offer::Ready(self.keep(wanted, &cross, &old, now)?))
    }

    /// Takes the word of the root before for one that was made here.
    pub(crate) fn keep_offer(&self, wanted: Wanted, cross: &[u8], now: OffsetDateTime) -> Result<Vouched, RotateError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.signers.load();
        self.keep(wanted, &CertificateDer::from(cross), &old, now)
    }

    fn keep(
        &self,
        wanted: Wanted,
        cross: &CertificateDer<'_>,
        old: &Signers,
        now: OffsetDateTime,
    ) -> Result<Vouched, RotateError> {
        let Wanted { key: root_key, root: root_pem, .. } = wanted;
        let path = self.state.join("ca").join(OFFERED);
        let (root, cross) = (Anchor::parse(&path, &root_pem)?, cross.clone().into_owned());
        if !is_vouched(&cross, &root, &old.root.anchor) {
            return Err(RotateError::Chain(
                "what vouches for the new root is not of its key, or not signed by the old".into(),
            ));
        }
        let key = KeyPair::generate().map_err(AuthorityError::Sign)?;
        let pem = || -> Result<String, AuthorityError> {
            let issuer = Issuer::from_ca_cert_der(&root.der, &root_key)?;
            let intermediate = intermediate_params(&self.trust_domain, now).signed_by(&key, &issuer)?.pem();
            let (cross, before) = (files::pem("CERTIFICATE", &cross), old.root.anchor.pem.clone());
            Ok([root.pem.clone(), intermediate, cross, before, self.keys.pem(&root_key)?, self.keys.pem(&key)?]
                .concat())
        };
        files::write_private(&path, pem()?.as_bytes())?;
        Ok(Vouched { root, cross, before: old.root.anchor.fingerprint.clone() })
    }

    /// The root that was made here and did not take over yet.
    fn offered(&self) -> Result<Option<Vouched>, AuthorityError> {
        let path = self.state.join("ca").join(OFFERED);
        let Some(text) = files::read(&path)? else { return Ok(None) };
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes()).filter_map(Result::ok).collect();
        let [root, _, cross, before, ..] = certificates.as_slice() else {
            return Err(AuthorityError::Malformed { path, reason: "it does not hold what takes over".to_owned() });
        };
        let anchor = |der: &CertificateDer<'_>| Anchor::parse(&path, &files::pem("CERTIFICATE", der));
        Ok(Some(Vouched { root: anchor(root)?, cross: cross.clone(), before: anchor(before)?.fingerprint }))
    }

    /// Signs an intermediate for another control plane; or for its new root the word that it takes this one's place.
    pub(crate) fn sign_for_another(
        &self,
        csr_der: &[u8],
        is_root: bool,
        now: OffsetDateTime,
    ) -> Result<CertificateDer<'static>, SignError> {
        let signers = self.signers.load();
        if is_root {
            return vouch(&signers, &self.trust_domain, csr_der, now);
        }
        let issuer = signers.root.issuer.as_ref().ok_or(SignError::NotHere)?;
        let key = verified_key(csr_der)?;
        let mut params = intermediate_params(&self.trust_domain, now);
        params.not_after = params.not_after.min(signers.root.anchor.not_after);
        Ok(params.signed_by(&key, issuer).map_err(IssueError::Sign)?.der().clone())
    }

    /// Follows what the store says of the roots: a new one is trusted beside the one before, whose key is no more, and signs
    /// from now on where its key is here; one that was dropped is trusted no more.
    pub(crate) fn follow(&self, line: &Line) -> Result<Taken, FollowError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.place_next()?;
        let known = self.signers.load_full();
        let previous = line.previous();
        let next = if known.root.anchor.fingerprint == line.newest() {
            let of = |anchor: &Option<&Anchor>| anchor.map(|anchor| anchor.fingerprint.clone());
            match (of(&known.previous.as_deref()), of(&previous.as_ref())) {
                (known, wanted) if known == wanted => return Ok(Taken::Nothing),
                (_, None) => Signers { previous: None, ..Signers::clone(&known) },
                (_, Some(beside)) => return Err(LineError::Beside(beside).into()),
            }
        } else {
            line.leads_from(&known.root.anchor.fingerprint)?;
            if self.take_offered(line.newest())? {
                return Ok(Taken::Roots);
            }
            let root = Root { issuer: None, is_followed: true, anchor: line.root().clone() };
            let intermediate = known.intermediate.clone();
            Signers { root: Arc::new(root), previous: previous.map(Arc::new), intermediate }
        };
        self.signers.store(Arc::new(next));
        self.is_unwritten.store(true, Ordering::Release);
        if let Err(error) = self.write_followed() {
            tracing::error!(error = %crate::chain(&error), "the roots in force could not be written yet; it is tried again");
        }
        Ok(Taken::Roots)
    }

    /// Puts the root in force that was made here, where it is this one.
    fn take_offered(&self, fingerprint: &str) -> Result<bool, AuthorityError> {
        if self.offered()?.is_none_or(|offered| offered.root.fingerprint != fingerprint) {
            return Ok(false);
        }
        let offered = self.state.join("ca").join(OFFERED);
        let Some(text) = files::read(&offered)? else { return Ok(false) };
        files::write_private(&self.state.join("ca").join(NEXT), text.as_bytes())?;
        self.take_over(&text)?;
        files::remove(&self.state.join("ca").join(FOLLOWED))?;
        files::remove(&offered)?;
        Ok(true)
    }

    /// Writes what is followed, for who holds the turn; each step may have been done before.
    pub(super) fn write_followed(&self) -> Result<(), AuthorityError> {
        if !self.is_unwritten.load(Ordering::Acquire) {
            return Ok(());
        }
        let (folder, signers) = (self.state.join("ca"), self.signers.load());
        let roots: String = signers.anchors().map(|anchor| anchor.pem.as_str()).collect();
        if let Some(previous) = &signers.previous {
            let successor = previous.successor.as_ref().map(|der| files::pem("CERTIFICATE", der));
            files::write_public(
                &folder.join(PREVIOUS),
                (previous.pem.clone() + &successor.unwrap_or_default()).as_bytes(),
            )?;
        }
        if signers.root.is_followed {
            files::write_public(
                &folder.join(FOLLOWED),
                b"the root's key lies with another control plane of the store\n",
            )?;
            files::remove(&folder.join(EXTERNAL))?;
            files::remove(&folder.join("root.key"))?;
        }
        files::write_public(&self.state.join("ca.pem"), roots.as_bytes())?;
        if signers.previous.is_none() {
            files::remove(&folder.join(PREVIOUS))?;
        }
        self.is_unwritten.store(false, Ordering::Release);
        Ok(())
    }

    /// A key for the next intermediate, with the request that another control plane signs.
    pub(crate) fn ask(&self) -> Result<Asked, AuthorityError> {
        let key = KeyPair::generate()?;
        Ok(Asked { csr_der: request(intermediate_params(&self.trust_domain, OffsetDateTime::now_utc()), &key)?, key })
    }

    /// Takes what was signed of a key that was asked for, once certificates that it issues are believed by the newest root alone.
    pub(crate) fn take(
        &self,
        asked: Asked,
        certificate: &[u8],
        names: &ServerNames,
        now: OffsetDateTime,
    ) -> Result<(), RotateError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (signers, path) = (self.signers.load(), self.state.join("ca").join("intermediate.pem"));
        let (own, root) = (CertificateDer::from(certificate), &signers.root);
        is_intermediate(&own, &asked.key, &self.trust_domain, now).map_err(RotateError::Chain)?;
        let pem = files::pem("CERTIFICATE", &own);
        let parsed = |key: &KeyPair| -> Result<Intermediate, AuthorityError> {
            let intermediate = Intermediate::parse(&path, &pem, KeyPair::from_pem(&key.serialize_pem())?)?;
            Ok(Intermediate { root: root.anchor.fingerprint.clone(), ..intermediate })
        };
        believed(parsed(&asked.key)?, root.anchor.clone(), &self.trust_domain, names, now)
            .map_err(RotateError::Chain)?;
        let intermediate = Arc::new(parsed(&asked.key)?);
        files::write_private(&path, (pem.clone() + &self.keys.pem(&asked.key)?).as_bytes())?;
        self.signers.store(Arc::new(Signers { intermediate, ..Signers::clone(&signers) }));
        Ok(())
    }

    /// Shows by this control plane's intermediate, of whatever root, that the key of a request is a control plane's.
    pub(crate) fn prove(&self, csr_der: &[u8], now: OffsetDateTime) -> Result<Vec<Vec<u8>>, IssueError> {
        let (signers, key) = (self.signers.load(), verified_key(csr_der)?);
        let name = SanType::URI(self.replica_name().as_str().try_into().map_err(IssueError::Sign)?);
        let mut params = leaf_params(now, now + PROOF_LIFE, vec![name]);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(&key, &signers.intermediate.issuer).map_err(IssueError::Sign)?;
        Ok(vec![leaf.der().to_vec(), signers.intermediate.der.to_vec()])
    }

    /// Checks what shows that of a control plane that was away while its root was dropped. Its name is not looked at here.
    pub(crate) fn check_proof(
        &self,
        line: &Line,
        csr_der: &[u8],
        chain: &[CertificateDer<'static>],
        now: OffsetDateTime,
    ) -> Result<(), String> {
        let leaf = chain.first().ok_or("it is empty")?;
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|error| error.to_string())?;
        let of = super::fingerprint(parsed.public_key().raw);
        if of != key_of(csr_der).map_err(|error| error.to_string())? {
            return Err("it is of another key than the request".to_owned());
        }
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.unix_timestamp().unsigned_abs()));
        let mut outlived = line.outlived((now - PROVES_FOR).unix_timestamp());
        match outlived.any(|root| is_believed(chain, &root.der, at).is_ok()) {
            true => Ok(()),
            false => Err("it is of no root that was dropped of late because nothing needed it".to_owned()),
        }
    }
}

/// A root's word for the key of another that takes its place.
fn vouch(
    signers: &Signers,
    trust_domain: &str,
    csr_der: &[u8],
    now: OffsetDateTime,
) -> Result<CertificateDer<'static>, SignError> {
    let issuer = signers.root.issuer.as_ref().ok_or(SignError::NotHere)?;
    if signers.previous.is_some() {
        return Err(SignError::Underway);
    }
    let key = verified_key(csr_der)?;
    let mut params = root_params(trust_domain, now);
    params.not_after = params.not_after.min(signers.root.anchor.not_after);
    Ok(params.signed_by(&key, issuer).map_err(IssueError::Sign)?.der().clone())
}

fn request(mut params: rcgen::CertificateParams, key: &KeyPair) -> Result<Vec<u8>, AuthorityError> {
    // Serial number and authority key identifier are the signer's to choose.
    (params.serial_number, params.use_authority_key_identifier_extension) = (None, false);
    Ok(params.serialize_request(key)?.der().to_vec())
}

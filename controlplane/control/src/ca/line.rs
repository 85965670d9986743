//! The roots of a mesh whose control planes share a store, one after the other, as the store keeps them: certificates, no
//! key. Invariant: a root is believed because the one before vouches for it, never because the store names it.

use rustls::crypto::aws_lc_rs;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use super::{Anchor, files, own_key};

/// So many roots are remembered. Who was away for longer has to be given the authority again.
const KEPT: usize = 32;

/// One root as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Link {
    /// Its certificate, PEM.
    root: String,
    /// What the root before signed of the same key, PEM; none of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cross: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dropped: Option<Dropped>,
}

/// Since when a root is not trusted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dropped {
    pub(crate) unix: i64,
    /// By an operator's word, whatever needed it: its key may have been stolen.
    pub(crate) by_force: bool,
}

#[derive(Serialize, Deserialize)]
struct Links {
    roots: Vec<Link>,
}

/// The roots, the newest last. At most two are trusted.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Links", into = "Links")]
pub(crate) struct Line {
    before: Vec<(Link, Anchor)>,
    newest: (Link, Anchor),
}

/// Why a root is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineError {
    #[error("the store does not know the root {0}")]
    Unknown(String),
    #[error("the store names the root {0}, for which the one before does not vouch")]
    NotVouched(String),
    #[error("the store trusts the root {0} beside the newest, and here it is not known")]
    Beside(String),
}

impl TryFrom<Links> for Line {
    type Error = String;

    fn try_from(links: Links) -> Result<Self, String> {
        let mut all = Vec::new();
        for link in links.roots {
            let anchor = Anchor::parse("the store's roots".as_ref(), &link.root).map_err(|error| error.to_string())?;
            all.push((link, anchor));
        }
        let newest = all.pop().ok_or("it names no root")?;
        Ok(Self { before: all, newest })
    }
}

impl From<Line> for Links {
    fn from(line: Line) -> Self {
        let roots = line.before.into_iter().chain([line.newest]).map(|(link, _)| link).collect();
        Self { roots }
    }
}

impl Line {
    /// Of a root that took no other's place.
    pub(super) fn first(anchor: &Anchor) -> Self {
        let link = Link { root: anchor.pem.clone(), cross: None, dropped: None };
        Self { before: Vec::new(), newest: (link, anchor.clone()) }
    }

    /// The newest one's fingerprint.
    pub(crate) fn newest(&self) -> &str {
        &self.newest.1.fingerprint
    }

    pub(super) fn root(&self) -> &Anchor {
        &self.newest.1
    }

    /// The one that is trusted beside the newest, with what it signed of that one's key.
    pub(super) fn previous(&self) -> Option<Anchor> {
        let (_, anchor) = self.before.last().filter(|(link, _)| link.dropped.is_none())?;
        let successor = self.newest.0.cross.as_deref().and_then(certificate);
        Some(Anchor { successor, ..anchor.clone() })
    }

    pub(crate) fn is_underway(&self) -> bool {
        self.previous().is_some()
    }

    /// The same with a root that takes the newest one's place.
    pub(super) fn with(&self, root: Anchor, cross: &CertificateDer<'_>) -> Self {
        let link = Link { root: root.pem.clone(), cross: Some(files::pem("CERTIFICATE", cross)), dropped: None };
        let mut before = self.before.clone();
        before.push(self.newest.clone());
        before.drain(..before.len().saturating_sub(KEPT));
        Self { before, newest: (link, root) }
    }

    /// The same where all but the newest are trusted no more.
    pub(crate) fn without_previous(&self, dropped: Dropped) -> Self {
        let mut line = self.clone();
        for (link, _) in &mut line.before {
            link.dropped.get_or_insert(dropped);
        }
        line
    }

    /// True where the newest is the only one that is trusted, by force.
    pub(crate) fn was_forced(&self) -> bool {
        self.before.last().and_then(|(link, _)| link.dropped).is_some_and(|dropped| dropped.by_force)
    }

    /// The roots that were dropped because nothing needed them, since this time.
    pub(super) fn outlived(&self, since_unix: i64) -> impl Iterator<Item = &Anchor> {
        let is_it = move |dropped: Dropped| !dropped.by_force && dropped.unix >= since_unix;
        self.before.iter().filter(move |(link, _)| link.dropped.is_some_and(is_it)).map(|(_, anchor)| anchor)
    }

    /// The fingerprints of all that are remembered.
    pub(crate) fn fingerprints(&self) -> impl Iterator<Item = &str> {
        self.before.iter().chain([&self.newest]).map(|(_, anchor)| anchor.fingerprint.as_str())
    }

    /// Checks that who believes one root can believe the newest: each vouches for the next.
    pub(super) fn leads_from(&self, fingerprint: &str) -> Result<(), LineError> {
        let behind =
            self.before.iter().chain([&self.newest]).skip_while(|(_, anchor)| anchor.fingerprint != fingerprint);
        let behind: Vec<_> = behind.collect();
        if behind.is_empty() {
            return Err(LineError::Unknown(fingerprint.to_owned()));
        }
        for pair in behind.windows(2) {
            let [(_, before), (link, root)] = pair else { continue };
            let cross = link.cross.as_deref().and_then(certificate);
            if !cross.is_some_and(|cross| is_vouched(&cross, root, before)) {
                return Err(LineError::NotVouched(root.fingerprint.clone()));
            }
        }
        Ok(())
    }
}

fn certificate(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

/// True where `cross` is of the root's key and signed by the one before, and the root's own certificate by itself.
pub(super) fn is_vouched(cross: &CertificateDer<'_>, root: &Anchor, before: &Anchor) -> bool {
    let key = |der: &CertificateDer<'_>| {
        let parsed = x509_parser::parse_x509_certificate(der).ok()?.1;
        Some(parsed.public_key().raw.to_vec())
    };
    let is_of_root = key(cross).is_some_and(|of| Some(of) == key(&root.der)) && own_key(cross) == own_key(&root.der);
    is_of_root && is_signed_by(cross, &before.der) && is_signed_by(&root.der, &root.der)
}

/// True where the key of `issuer` signed `certificate`.
fn is_signed_by(certificate: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    let parsed = x509_parser::parse_x509_certificate(certificate)
        .and_then(|(_, certificate)| Ok((certificate, x509_parser::parse_x509_certificate(issuer)?.1)));
    let Ok((certificate, issuer)) = parsed else { return false };
    let (message, signature) = (certificate.tbs_certificate.as_ref(), &certificate.signature_value.data);
    let key = &issuer.public_key().subject_public_key.data;
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    algorithms.iter().any(|algorithm| algorithm.verify_signature(key, message, signature).is_ok())
}

//! Whom we believe: the roots of each trust domain. A root vouches only for workloads of its own trust domain.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor};

/// Roots by trust domain; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    domains: Arc<BTreeMap<String, Vec<TrustAnchor<'static>>>>,
}

impl Trust {
    /// Trust in one domain, from its bundle: one or more PEM certificates.
    pub fn from_pem(trust_domain: &str, bundle: &str) -> Result<Trust, TrustError> {
        Trust::default().with_domain(trust_domain, bundle)
    }

    /// Adds (or replaces) the roots of one domain.
    pub fn with_domain(&self, trust_domain: &str, bundle: &str) -> Result<Trust, TrustError> {
        let mut domains = BTreeMap::clone(&self.domains);
        domains.insert(trust_domain.to_owned(), anchors_from_pem(bundle)?);
        Ok(Trust { domains: Arc::new(domains) })
    }

    /// The roots of `trust_domain`; none when the domain is unknown.
    pub(crate) fn anchors(&self, trust_domain: &str) -> &[TrustAnchor<'static>] {
        self.domains.get(trust_domain).map_or(&[], Vec::as_slice)
    }

    /// Every root of every domain: only to say why a certificate without a usable name is refused.
    pub(crate) fn all_anchors(&self) -> Vec<TrustAnchor<'static>> {
        self.domains.values().flatten().cloned().collect()
    }
}

/// Reads every certificate of a PEM text as a trust anchor.
pub(crate) fn anchors_from_pem(bundle: &str) -> Result<Vec<TrustAnchor<'static>>, TrustError> {
    let mut anchors = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        let certificate = certificate.map_err(TrustError::Pem)?;
        let anchor = webpki::anchor_from_trusted_cert(&certificate).map_err(TrustError::Certificate)?;
        anchors.push(anchor.to_owned());
    }
    if anchors.is_empty() {
        return Err(TrustError::Empty);
    }
    Ok(anchors)
}

/// Why a trust bundle could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("the trust bundle is not PEM")]
    Pem(#[source] rustls_pki_types::pem::Error),
    #[error("the trust bundle holds an unusable root")]
    Certificate(#[source] webpki::Error),
    #[error("the trust bundle holds no certificate")]
    Empty,
}

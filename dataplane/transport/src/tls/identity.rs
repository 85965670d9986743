//! Certificates as identities: this workload's own SVID with its key, and the SPIFFE ID that a verified peer presented.
//! A certificate has an identity only if it carries exactly one URI SAN and that one is a SPIFFE ID.

use std::fmt;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use weft_policy::identity::SpiffeId;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::failure::{HandshakeFailure, Refusal};

/// An X.509-SVID with its private key: parsed, key and certificate matched.
#[derive(Clone)]
pub struct WorkloadIdentity {
    id: SpiffeId,
    key: Arc<CertifiedKey>,
    not_before: UnixTime,
    not_after: UnixTime,
}

impl WorkloadIdentity {
    /// Takes a chain (leaf first, without the root) and the leaf's key.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, IdentityError> {
        let leaf = chain.first().ok_or(IdentityError::NoCertificate)?;
        let PeerIdentity { id, not_before, not_after } =
            PeerIdentity::of(leaf).map_err(|refusal| IdentityError::NotAnSvid(refusal.detail))?;
        let key = CertifiedKey::from_der(chain, key, super::provider()).map_err(IdentityError::Key)?;
        Ok(WorkloadIdentity { id, key: Arc::new(key), not_before, not_after })
    }

    /// As `new`, from PEM: the chain's certificates, and a PKCS#8, SEC1 or PKCS#1 key.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, IdentityError> {
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(IdentityError::Pem)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(IdentityError::Pem)?;
        WorkloadIdentity::new(chain, key)
    }

    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    pub fn not_before(&self) -> UnixTime {
        self.not_before
    }

    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    pub(crate) fn is_same_certificate(&self, other: &WorkloadIdentity) -> bool {
        Arc::ptr_eq(&self.key, &other.key)
    }

    pub(crate) fn certified_key(&self) -> Arc<CertifiedKey> {
        self.key.clone()
    }
}

impl fmt::Debug for WorkloadIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadIdentity")
            .field("id", &self.id)
            .field("not_before", &self.not_before.as_secs())
            .field("not_after", &self.not_after.as_secs())
            .finish_non_exhaustive()
    }
}

/// Why a chain and a key are not an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("the chain holds no certificate")]
    NoCertificate,
    #[error("the certificate is not an X.509-SVID: {0}")]
    NotAnSvid(String),
    #[error("unusable PEM")]
    Pem(#[source] rustls_pki_types::pem::Error),
    #[error("the private key is unusable or not the certificate's")]
    Key(#[source] rustls::Error),
}

/// Identity of a certificate's holder, as the certificate says. Says nothing about trust: that is the handshake's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    pub id: SpiffeId,
    pub not_before: UnixTime,
    pub not_after: UnixTime,
}

impl PeerIdentity {
    /// Identity of the holder of a verified chain (leaf first), whatever transport carried it.
    pub fn of_chain(chain: &[CertificateDer<'_>]) -> Option<PeerIdentity> {
        PeerIdentity::of(chain.first()?).ok()
    }

    pub(crate) fn of(leaf: &CertificateDer<'_>) -> Result<PeerIdentity, Refusal> {
        let malformed =
            |what: &str| Refusal::new(HandshakeFailure::Other, format!("certificate does not parse: {what}"));
        let (rest, certificate) = X509Certificate::from_der(leaf).map_err(|error| malformed(&error.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("bytes after its end"));
        }
        let id = spiffe_id(&certificate)?;
        let time =
            |seconds: i64| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds.max(0).unsigned_abs()));
        Ok(PeerIdentity {
            id,
            not_before: time(certificate.validity().not_before.timestamp()),
            not_after: time(certificate.validity().not_after.timestamp()),
        })
    }
}

fn spiffe_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, Refusal> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| Refusal::new(HandshakeFailure::Other, format!("subject alternative names: {error}")))?;
    let mut uris = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
    let Some(uri) = uris.next() else {
        return Err(Refusal::new(HandshakeFailure::NoUriSan, "the certificate has no URI SAN"));
    };
    let further = uris.count();
    if further > 0 {
        let detail = format!("the certificate has {} URI SANs, an X.509-SVID has exactly one", further + 1);
        return Err(Refusal::new(HandshakeFailure::SeveralUriSans, detail));
    }
    uri.parse().map_err(|_| {
        let shown: String = uri.chars().filter(|c| !c.is_control()).take(128).collect();
        Refusal::new(HandshakeFailure::BadSpiffeId, format!("URI SAN {shown:?} is not a SPIFFE ID of a workload"))
    })
}

/// The identity that the peer of an established connection proved in its handshake.
pub fn peer_identity(connection: &quinn::Connection) -> Option<PeerIdentity> {
    PeerIdentity::of_chain(&peer_chain(connection)?)
}

pub(crate) fn peer_chain(connection: &quinn::Connection) -> Option<Vec<CertificateDer<'static>>> {
    connection.peer_identity()?.downcast().ok().map(|chain| *chain)
}

//! The verifier of both sides: chain to the roots of the peer's own trust domain, exactly one URI SAN, a SPIFFE ID, and
//! for callers the one they meant to reach. Names of hosts play no part. Never accepts what it could not read.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::KeyUsage;
use weft_policy::identity::SpiffeId;

use super::failure::{HandshakeError, HandshakeFailure, Refusal, RefusedBy};
use super::handle::{Credentials, IdentityHandle};
use super::identity::{PeerIdentity, peer_chain};
use super::served::Choice;
use super::trust::Trust;

/// Our verifier's refusal in one handshake, if any; filled once, read by whoever waits for the handshake.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict(Arc<OnceLock<Refusal>>);

impl Verdict {
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.0.get().cloned()
    }
}

/// Whose trust a handshake goes by.
#[derive(Debug)]
pub(crate) enum Believes {
    Handle(IdentityHandle),
    /// That of the workload that the connection turns out to be for.
    Chosen(Choice),
}

impl Believes {
    fn credentials(&self) -> Option<Arc<Credentials>> {
        match self {
            Believes::Handle(handle) => Some(handle.current()),
            Believes::Chosen(choice) => choice.made().map(|(handle, _)| handle.current()),
        }
    }
}

/// Verifies peers against the trust in force at the moment of the handshake.
#[derive(Debug)]
pub(crate) struct PeerVerifier {
    pub(crate) believes: Believes,
    /// Identity that must answer; `None`: anybody of a trusted domain (authorization decides later).
    pub(crate) expected: Option<SpiffeId>,
    pub(crate) verdict: Verdict,
    pub(crate) client_auth_mandatory: bool,
}

impl PeerVerifier {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), rustls::Error> {
        // The certificate of a served workload is chosen before that of its caller is looked at.
        let Some(credentials) = self.believes.credentials() else {
            return Err(rustls::Error::General("no workload was chosen".to_owned()));
        };
        let verified = verify_svid(leaf, intermediates, &credentials.trust, now, usage);
        let admitted = verified.and_then(|peer| not_denied(peer, &credentials));
        let verdict = admitted.and_then(|peer| match &self.expected {
            Some(expected) if *expected != peer.id => {
                let detail = format!("the peer is {}, {expected} was called", peer.id);
                Err(Refusal::new(HandshakeFailure::WrongIdentity, detail))
            }
            _ => Ok(()),
        });
        verdict.map_err(|refusal| {
            let error = as_certificate_error(&refusal);
            // A second verdict in one handshake cannot be: one leaf, one call.
            let _ = self.verdict.0.set(refusal);
            rustls::Error::InvalidCertificate(error)
        })
    }
}

/// The alert that a foreign peer understands; the text names the reason where alerts have no word for it.
fn as_certificate_error(refusal: &Refusal) -> CertificateError {
    if refusal.failure == HandshakeFailure::Untrusted {
        return CertificateError::UnknownIssuer;
    }
    if refusal.failure == HandshakeFailure::Expired {
        return CertificateError::Expired;
    }
    CertificateError::Other(OtherError(Arc::new(refusal.clone())))
}

fn verify_svid(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    trust: &Trust,
    now: UnixTime,
    usage: KeyUsage,
) -> Result<PeerIdentity, Refusal> {
    let identity = PeerIdentity::of(leaf);
    match &identity {
        Ok(peer) => verify_chain(leaf, intermediates, trust.anchors(peer.id.trust_domain()), now, usage)?,
        // An outsider's certificate is untrusted first, whatever else is wrong with it.
        Err(_) => verify_chain(leaf, intermediates, &trust.all_anchors(), now, usage)?,
    }
    identity
}

fn verify_chain(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors: &[rustls_pki_types::TrustAnchor<'_>],
    now: UnixTime,
    usage: KeyUsage,
) -> Result<(), Refusal> {
    let algorithms = super::provider().signature_verification_algorithms.all;
    webpki::EndEntityCert::try_from(leaf)
        .and_then(|leaf| leaf.verify_for_usage(algorithms, anchors, intermediates, now, usage, None, None).map(|_| ()))
        .map_err(|error| {
            let failure = if matches!(error, webpki::Error::CertExpired { .. } | webpki::Error::InvalidCertValidity) {
                HandshakeFailure::Expired
            } else if matches!(error, webpki::Error::CertNotValidYet { .. }) {
                HandshakeFailure::NotYetValid
            } else {
                HandshakeFailure::Untrusted
            };
            Refusal::new(failure, format!("chain: {error}"))
        })
}

fn not_denied(peer: PeerIdentity, credentials: &Credentials) -> Result<PeerIdentity, Refusal> {
    if credentials.denied.contains(&peer.id) {
        return Err(Refusal::new(HandshakeFailure::Banned, format!("{} is kept out of the mesh", peer.id)));
    }
    Ok(peer)
}

/// Judges the peer of a standing connection by today's trust. A certificate that merely ran out is not a reason to cut
/// a connection that it opened in time; a root that is no longer trusted is.
pub fn recheck(connection: &quinn::Connection, credentials: &Credentials) -> Result<(), HandshakeError> {
    let refused = |refusal: Refusal| HandshakeError::new(refusal.failure, RefusedBy::Us, refusal.detail);
    let chain = peer_chain(connection)
        .ok_or_else(|| refused(Refusal::new(HandshakeFailure::NoCertificate, "the peer has no certificate")))?;
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(refused(Refusal::new(HandshakeFailure::NoCertificate, "the peer has no certificate")));
    };
    let usage = match connection.side() {
        quinn::Side::Client => KeyUsage::server_auth(),
        quinn::Side::Server => KeyUsage::client_auth(),
    };
    let now = UnixTime::now();
    let when = PeerIdentity::of(leaf).map_or(now, |peer| now.min(peer.not_after));
    let verified = verify_svid(leaf, intermediates, &credentials.trust, when, usage);
    verified.and_then(|peer| not_denied(peer, credentials)).map(|_| ()).map_err(refused)
}

/// The number of the last eviction of the peer's certificate, where it was evicted. One that a connection did not begin with
/// ends it.
pub(crate) fn evicted(connection: &quinn::Connection, credentials: &Credentials) -> Option<u64> {
    if credentials.evicted.is_empty() {
        return None;
    }
    let chain = peer_chain(connection)?;
    let (_, leaf) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
    credentials.evicted.get(&leaf.serial.to_str_radix(16)).copied()
}

/// When a connection ends that began with these two certificates, if nothing replaced it before.
pub(crate) fn ends_at(connection: &quinn::Connection, own: &Credentials) -> Option<UnixTime> {
    let peer = super::identity::peer_identity(connection)?;
    Some(peer.not_after.min(own.identity.not_after()))
}

/// When a connection should give way to one with newer certificates: three quarters into the shorter of their lives. None
/// where that is past already: another one would be no newer.
pub(crate) fn gives_way_at(connection: &quinn::Connection, own: &Credentials, now: UnixTime) -> Option<UnixTime> {
    let peer = super::identity::peer_identity(connection)?;
    let late = |from: UnixTime, to: UnixTime| {
        let life = to.as_secs().saturating_sub(from.as_secs());
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(from.as_secs() + life / 4 * 3))
    };
    let own = &own.identity;
    let at = late(peer.not_before, peer.not_after).min(late(own.not_before(), own.not_after()));
    (now < at).then_some(at)
}

fn tls13_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let algorithms = &super::provider().signature_verification_algorithms;
    rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
}

fn tls12_refused() -> rustls::Error {
    rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered)
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates, now, KeyUsage::server_auth()).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(tls12_refused())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        super::provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.client_auth_mandatory
    }

    /// Empty: which roots we trust is nobody's business before authentication.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates, now, KeyUsage::client_auth()).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(tls12_refused())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        super::provider().signature_verification_algorithms.supported_schemes()
    }
}

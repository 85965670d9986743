//! Peers that are not Weft: plain quinn and rustls, with whatever certificate, protocol or TLS version a test wants.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::task::JoinHandle;

use super::LOOPBACK;
use super::tls12::OldClient;
use crate::tls::testing::Chain;
use crate::tls::{HandshakeError, provider};

/// Certificates that a peer shows, if any.
pub(super) enum Offer {
    Nothing,
    Chain(Chain),
}

/// Believes everybody.
#[derive(Debug)]
struct Gullible;

/// Connects with `offer` and tells why it was refused.
pub(super) async fn attacking_client(offer: Offer, address: SocketAddr, protocols: &[&[u8]]) -> HandshakeError {
    let config = Arc::new(QuicClientConfig::try_from(client_tls(offer, protocols)).unwrap());
    refusal_of(quinn::ClientConfig::new(config), address).await
}

/// As a TLS 1.2 client would begin, were there one for QUIC: a ClientHello that offers TLS 1.2 only.
pub(super) async fn tls12_client(address: SocketAddr) -> HandshakeError {
    let honest = Arc::new(QuicClientConfig::try_from(client_tls(Offer::Nothing, &[b"h3"])).unwrap());
    refusal_of(quinn::ClientConfig::new(Arc::new(OldClient(honest))), address).await
}

async fn refusal_of(config: quinn::ClientConfig, address: SocketAddr) -> HandshakeError {
    let endpoint = quinn::Endpoint::client(SocketAddr::new(LOOPBACK, 0)).unwrap();
    let error = match endpoint.connect_with(config, address, "mesh.example").unwrap().await {
        Ok(connection) => connection.closed().await,
        Err(error) => error,
    };
    HandshakeError::from_quic(&error, None)
}

pub(super) fn client_tls(offer: Offer, protocols: &[&[u8]]) -> rustls::ClientConfig {
    let builder = rustls::ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut tls = match offer {
        Offer::Nothing => builder.with_no_client_auth(),
        Offer::Chain((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
    };
    tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    tls
}

/// Answers one caller with `offer` and tells why it was refused.
pub(super) fn attacking_server(offer: Offer, protocols: &[&[u8]]) -> (SocketAddr, JoinHandle<HandshakeError>) {
    let Offer::Chain((chain, key)) = offer else { panic!("a TLS 1.3 server has a certificate") };
    let mut tls = rustls::ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(Gullible))
        .with_single_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::server(config, SocketAddr::new(LOOPBACK, 0)).unwrap();
    let address = endpoint.local_addr().unwrap();
    let refused = tokio::task::spawn_local(async move {
        let error = match endpoint.accept().await.unwrap().await {
            Ok(connection) => connection.closed().await,
            Err(error) => error,
        };
        HandshakeError::from_quic(&error, None)
    });
    (address, refused)
}

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Gullible {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

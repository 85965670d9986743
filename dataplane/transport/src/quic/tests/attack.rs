//! Peers that are not Weft: plain quinn and rustls, with whatever certificate, protocol or TLS version a test wants.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::crypto::{ClientConfig, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::task::JoinHandle;

use super::LOOPBACK;
use crate::tls::testing::Chain;
use crate::tls::{HandshakeError, provider};

/// What a peer shows of itself.
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

fn client_tls(offer: Offer, protocols: &[&[u8]]) -> rustls::ClientConfig {
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

/// rustls speaks no TLS 1.2 over QUIC; this rewrites the version in what it writes.
struct OldClient(Arc<QuicClientConfig>);

impl ClientConfig for OldClient {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        Ok(Box::new(OldSession(self.0.clone().start_session(version, server_name, params)?)))
    }
}

struct OldSession(Box<dyn Session>);

/// The supported_versions extension of a ClientHello with TLS 1.3 alone, and the same with TLS 1.2.
const ONLY_TLS13: [u8; 7] = [0x00, 0x2b, 0x00, 0x03, 0x02, 0x03, 0x04];
const ONLY_TLS12: [u8; 7] = [0x00, 0x2b, 0x00, 0x03, 0x02, 0x03, 0x03];

impl Session for OldSession {
    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let keys = self.0.write_handshake(buf);
        if let Some(at) = buf.windows(ONLY_TLS13.len()).position(|bytes| bytes == ONLY_TLS13) {
            buf[at..at + ONLY_TLS12.len()].copy_from_slice(&ONLY_TLS12);
        }
        keys
    }

    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.0.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.0.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.0.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.0.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.0.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.0.read_handshake(buf)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.0.transport_parameters()
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.0.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.0.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.0.export_keying_material(output, label, context)
    }
}

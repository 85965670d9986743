//! A peer that plays by no rules but the ones a test gives it: QUIC with any certificate, HTTP/3 with any head. It signs its
//! certificates with the mesh's own intermediate, as somebody could who had stolen it, or with an authority of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use quinn::crypto::rustls::QuicClientConfig;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use weft_tests::Mesh;
use weft_transport::h3;
use weft_transport::http::RequestHead;

use super::tls12::OldClient;

/// A chain with its key.
pub(super) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

/// When a certificate holds, in days from now.
pub(super) type Days = std::ops::Range<i64>;

pub(super) const VALID: Days = -1..1;

/// A certificate with these names, signed by the mesh's intermediate.
pub(super) fn stolen(mesh: &Mesh, names: &[SanType], days: Days) -> Identity {
    let file = mesh.folder().join("control/ca/intermediate.pem");
    let pem = std::fs::read_to_string(file).expect("the intermediate lies in the state folder");
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("with its key");
    let key = KeyPair::try_from(&key).expect("of a known kind");
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("and its certificate");
    sign(&Issuer::from_ca_cert_der(&der, key).expect("an authority"), vec![der.clone()], names, days)
}

/// The same names, signed by somebody else.
pub(super) fn forged(names: &[SanType]) -> Identity {
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "cluster.local");
    let key = KeyPair::generate().expect("a key");
    let der = params.self_signed(&key).expect("an authority").der().clone();
    sign(&Issuer::from_ca_cert_der(&der, key).expect("an authority"), vec![der.clone()], names, VALID)
}

fn sign(issuer: &Issuer<'_, KeyPair>, above: Vec<CertificateDer<'static>>, names: &[SanType], days: Days) -> Identity {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.to_vec();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let now = std::time::SystemTime::now();
    let at = |days: i64| {
        let seconds = Duration::from_secs(days.unsigned_abs() * 86_400);
        if days < 0 { now - seconds } else { now + seconds }
    };
    params.not_before = at(days.start).into();
    params.not_after = at(days.end).into();
    let key = KeyPair::generate().expect("a key");
    let leaf = params.signed_by(&key, issuer).expect("a certificate").der().clone();
    Identity { chain: std::iter::once(leaf).chain(above).collect(), key: key.serialize_der() }
}

pub(super) fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().expect("ASCII"))
}

/// Accepts every server: the rogue wants to be refused, not to refuse.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS version, certificate and protocol that a caller offers.
pub(super) enum Hello {
    /// TLS 1.3 with this certificate, or none, and this protocol.
    Tls13(Option<Identity>, &'static str),
    /// The same as every Weft, but for the version.
    Tls12(Identity),
}

/// A QUIC connection to a mesh port. The server's word on the client's certificate comes only afterwards.
pub(super) async fn dial(identity: Option<&Identity>, to: SocketAddr, alpn: &str) -> Result<quinn::Connection, String> {
    connect(quinn::ClientConfig::new(Arc::new(tls13(identity, alpn))), to).await
}

pub(super) async fn greet(hello: &Hello, to: SocketAddr) -> Result<quinn::Connection, String> {
    match hello {
        Hello::Tls13(identity, alpn) => dial(identity.as_ref(), to, alpn).await,
        Hello::Tls12(identity) => {
            let old = OldClient(Arc::new(tls13(Some(identity), "h3")));
            connect(quinn::ClientConfig::new(Arc::new(old)), to).await
        }
    }
}

fn tls13(identity: Option<&Identity>, alpn: &str) -> QuicClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
    let mut tls = match identity {
        Some(Identity { chain, key }) => {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.clone()));
            builder.with_client_auth_cert(chain.clone(), key).expect("a usable identity")
        }
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    QuicClientConfig::try_from(tls).expect("a QUIC configuration")
}

async fn connect(config: quinn::ClientConfig, to: SocketAddr) -> Result<quinn::Connection, String> {
    let mut endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a socket");
    endpoint.set_default_client_config(config);
    let connecting = endpoint.connect(to, "peer.invalid").expect("a good address");
    connecting.await.map_err(|error| error.to_string())
}

/// HTTP/3 on a connection.
pub(super) struct Peer {
    client: h3::Client,
}

impl Peer {
    pub(super) fn new(connection: quinn::Connection) -> Self {
        let (client, driver) = h3::connect(connection, h3::Limits::default());
        tokio::spawn(driver);
        Self { client }
    }

    /// One request without a body; the status and the head that came back, or why none did.
    pub(super) async fn ask(
        &self,
        method: Method,
        authority: &str,
        path: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Result<(u16, HeaderMap), String> {
        let tunnel = method == Method::CONNECT;
        let head = head(method, authority, path, headers);
        let (mut send, mut receive) = self.client.send(&head, !tunnel).await.map_err(|error| error.to_string())?;
        if tunnel {
            _ = send.data(Bytes::from_static(b"weft-marker")).await;
        }
        let answer = receive.response_head().await.map_err(|error| error.to_string())?;
        Ok((answer.status.as_u16(), answer.headers))
    }

    /// Opens a request to `destination` and gives it up at once.
    pub(super) async fn open(&self, destination: &str) -> Result<(), String> {
        let head = head(Method::POST, "victim", Some("/"), &[("weft-dst", destination)]);
        match self.client.send(&head, false).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.client.quic().closed().await.to_string() + &error.to_string()),
        }
    }
}

fn head(method: Method, authority: &str, path: Option<&str>, headers: &[(&str, &str)]) -> RequestHead {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        map.append(name, HeaderValue::from_str(value).expect("a header value"));
    }
    RequestHead {
        method,
        authority: Some(authority.parse().expect("an authority")),
        path: path.map(|path| path.parse().expect("a path")),
        protocol: None,
        headers: map,
        version: Version::HTTP_3,
    }
}

//! The rustls configurations, all from one provider: TLS 1.3, AES-GCM or ChaCha20, X25519MLKEM768 before X25519.
//! No tickets and no stored sessions anywhere, so that no certificate is ever taken over unverified.

use std::sync::{Arc, LazyLock};

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use weft_policy::identity::SpiffeId;

use super::handle::IdentityHandle;
use super::served::{Choice, Served};
use super::trust::{TrustError, anchors_from_pem};
use super::verify::{Believes, PeerVerifier, Verdict};
use super::{ALPN_H2, ALPN_H3};

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519],
        ..aws_lc_rs::default_provider()
    })
});

/// The one cryptography of the mesh.
pub fn provider() -> &'static Arc<CryptoProvider> {
    &PROVIDER
}

/// Presents whatever certificate is current when a handshake asks.
#[derive(Debug)]
struct CurrentCertificate(IdentityHandle);

impl rustls::client::ResolvesClientCert for CurrentCertificate {
    fn resolve(&self, _root_hint_subjects: &[&[u8]], _sigschemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current().identity.certified_key())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A mesh server: demands a client certificate of a trusted domain. ALPN `h3`; follows the handle.
pub fn server_config(handle: &IdentityHandle) -> Arc<ServerConfig> {
    Arc::new(server_config_with(&Choice::new(Served::from(handle), None), Verdict::default()))
}

/// As `server_config`, with the certificate of the workload that `choice` makes of the connection.
pub(crate) fn server_config_with(choice: &Choice, verdict: Verdict) -> ServerConfig {
    let believes = Believes::Chosen(choice.clone());
    let verifier = PeerVerifier { believes, expected: None, verdict, client_auth_mandatory: true };
    let mut config = ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3 suites and groups")
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(choice.clone()));
    config.alpn_protocols = vec![ALPN_H3.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    config
}

/// A mesh client that accepts `expected` and nobody else. ALPN `h3`; follows the handle.
pub fn client_config(handle: &IdentityHandle, expected: &SpiffeId) -> ClientConfig {
    client_config_with(handle, expected, Verdict::default())
}

pub(crate) fn client_config_with(handle: &IdentityHandle, expected: &SpiffeId, verdict: Verdict) -> ClientConfig {
    let expected = Some(expected.clone());
    let believes = Believes::Handle(handle.clone());
    let verifier = PeerVerifier { believes, expected, verdict, client_auth_mandatory: true };
    let mut config = client_config_verified_by(Arc::new(verifier), Some(handle));
    config.alpn_protocols = vec![ALPN_H3.to_vec()];
    config
}

/// A client of the control plane: the server is verified by its DNS name or IP address against `roots_pem`. With a
/// handle it presents the workload's current certificate, and takes the roots too that the mesh trusts now, which may have
/// taken the place of those; without one (to join) it presents none. ALPN `h2`.
pub fn control_client_config(roots_pem: &str, handle: Option<&IdentityHandle>) -> Result<ClientConfig, TrustError> {
    let mut roots = anchors_from_pem(roots_pem)?;
    if let Some(credentials) = handle.map(IdentityHandle::current) {
        roots.extend_from_slice(credentials.trust.anchors(credentials.identity.id().trust_domain()));
    }
    let roots = RootCertStore { roots };
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider().clone())
        .build()
        .expect("roots are not empty and no CRL is given");
    let mut config = client_config_verified_by(verifier, handle);
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(config)
}

fn client_config_verified_by(verifier: Arc<dyn ServerCertVerifier>, handle: Option<&IdentityHandle>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3 suites and groups")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match handle {
        Some(handle) => builder.with_client_cert_resolver(Arc::new(CurrentCertificate(handle.clone()))),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config
}

//! TLS of the server's ports: TLS 1.3 only, no resumption, one certificate that is replaced while connections go on.
//! On the proxies' port a client certificate is optional here; the calls that need one ask for it themselves.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;

use crate::ca::{Authority, ServerIdentity, ServerNames};
use crate::config::Config;

/// The server's certificate, shared by its TLS ports.
pub struct ServerCertificate {
    authority: Arc<Authority>,
    names: ServerNames,
    current: ArcSwap<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    identity: ServerIdentity,
    /// The roots that were trusted when it was made: with others it is made again.
    roots: Vec<CertificateDer<'static>>,
    /// The root that vouched for it then.
    below: String,
}

/// Why no server certificate or configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("server certificate could not be made: an entry of `advertise` is no DNS name or address")]
    Issue(#[from] rcgen::Error),
    #[error("TLS configuration was refused")]
    Rustls(#[from] rustls::Error),
    #[error("client verifier was refused")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

impl ServerCertificate {
    pub fn new(authority: Arc<Authority>, config: &Config, now: OffsetDateTime) -> Result<Self, TlsError> {
        let names = server_names(config);
        let current = make(&authority, &names, now)?;
        Ok(Self { authority, names, current: ArcSwap::from_pointee(current) })
    }

    /// Replaces the certificate when two thirds of its life are over, and when the roots have changed. True when it did.
    pub fn maintain(&self, now: OffsetDateTime) -> Result<bool, TlsError> {
        let current = self.current.load();
        let is_of_now = current.roots == self.authority.roots_der() && current.below == self.authority.issues_below();
        if !current.identity.is_due(now) && is_of_now {
            return Ok(false);
        }
        self.current.store(Arc::new(make(&self.authority, &self.names, now)?));
        Ok(true)
    }

    /// The fingerprint of the root that vouches for it.
    pub(crate) fn below(&self) -> String {
        self.current.load().below.clone()
    }

    pub fn not_after(&self) -> OffsetDateTime {
        self.current.load().identity.not_after
    }

    /// For the proxies' port: client certificates are verified where one is shown.
    pub fn grpc_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        let verifier = Arc::new(WhateverTheTime::new(self.authority.clone())?);
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier);
        Ok(finish(builder.with_cert_resolver(self.clone()), &[b"h2"]))
    }

    /// For the operator API: bearer tokens, no client certificates.
    pub fn api_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth();
        Ok(finish(builder.with_cert_resolver(self.clone()), &[b"h2", b"http/1.1"]))
    }
}

/// Verifies a client certificate as of a moment within its life. Whether that is now is looked at by each call: an expired
/// one may still be renewed, and is told what to do where it may not, for which there are no words in TLS.
struct WhateverTheTime {
    authority: Arc<Authority>,
    current: ArcSwap<OfRoots>,
}

/// A verifier, and the roots that it goes by.
struct OfRoots {
    roots: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl WhateverTheTime {
    fn new(authority: Arc<Authority>) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(OfRoots::new(authority.roots_der())?);
        Ok(Self { authority, current })
    }

    /// By the roots of this moment.
    fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        let roots = self.authority.roots_der();
        if self.current.load().roots != roots {
            match OfRoots::new(roots) {
                Ok(next) => self.current.store(Arc::new(next)),
                Err(error) => {
                    tracing::error!(error = %crate::chain(&error), "certificates are verified by the roots before")
                }
            }
        }
        self.current.load().verifier.clone()
    }
}

impl OfRoots {
    fn new(roots: Vec<CertificateDer<'static>>) -> Result<Self, TlsError> {
        let mut anchors = RootCertStore::empty();
        for root in &roots {
            anchors.add(root.clone())?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), provider());
        Ok(Self { roots, verifier: verifier.allow_unauthenticated().build()? })
    }
}

impl std::fmt::Debug for WhateverTheTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WhateverTheTime")
    }
}

impl ClientCertVerifier for WhateverTheTime {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: the roots change while connections are made.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verifier().verify_client_cert(end_entity, intermediates, within_life(end_entity, now))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier().supported_verify_schemes()
    }
}

fn within_life(certificate: &CertificateDer<'_>, now: UnixTime) -> UnixTime {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return now };
    let validity = parsed.validity();
    let time = |seconds: i64| UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    now.min(time(validity.not_after.timestamp())).max(time(validity.not_before.timestamp()))
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().key.clone())
    }
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerCertificate").field("names", &self.names).finish_non_exhaustive()
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The names by which proxies and operators reach this server.
pub(crate) fn server_names(config: &Config) -> ServerNames {
    let mut dns = vec!["weft-control".to_owned(), "localhost".to_owned()];
    let mut addresses = vec![IpAddr::from([127, 0, 0, 1])];
    if !addresses.contains(&config.bind) && !config.bind.is_unspecified() {
        addresses.push(config.bind);
    }
    for name in &config.advertise {
        match name.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => dns.push(name.clone()),
        }
    }
    ServerNames { dns, addresses }
}

fn make(authority: &Authority, names: &ServerNames, now: OffsetDateTime) -> Result<Current, TlsError> {
    let (roots, below) = (authority.roots_der(), authority.issues_below());
    let identity = authority.issue_server(names, now)?;
    let signing_key = aws_lc_rs::sign::any_supported_type(&identity.key)?;
    let key = Arc::new(CertifiedKey::new(identity.chain.clone(), signing_key));
    Ok(Current { key, identity, roots, below })
}

fn finish(mut config: ServerConfig, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Arc::new(config)
}

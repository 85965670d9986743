//! TLS to servers outside the mesh, which this side begins: a server is verified by the name that was asked for, against roots
//! that somebody named. TLS 1.3, or 1.2 where that is asked for; no resumption: a certificate is verified at each handshake.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, TrustAnchor};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::IdentityError;
use super::trust::{TrustError, anchors_from_pem};

#[cfg(test)]
mod tests;

/// ALPN of HTTP/1.1.
pub const ALPN_H1: &[u8] = b"http/1.1";

/// Why nobody outside can be verified.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error("the roots can't be used")]
    Told(#[from] TrustError),
    #[error("this machine has no roots: {0}")]
    None(String),
}

/// Terms of a client of servers outside.
#[derive(Debug, Clone, Default)]
pub struct OutsideTerms<'a> {
    /// Roots that it believes, PEM. `None`: those of this machine.
    pub roots_pem: Option<&'a str>,
    /// The one protocol that it offers. `None`: what is below speaks for itself.
    pub alpn: Option<&'a [u8]>,
    /// Servers that have no later version are spoken to in TLS 1.2.
    pub takes_tls12: bool,
    /// Its own certificate, for servers that ask for one. `None`: it has none.
    pub certificate: Option<Arc<CertifiedKey>>,
}

static TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
static TLS13_OR_TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// The configuration of a client on these terms.
///
/// # Errors
/// There is no root that can be used.
pub fn outside_client_config(terms: OutsideTerms<'_>) -> Result<ClientConfig, RootsError> {
    let OutsideTerms { roots_pem, alpn, takes_tls12, certificate } = terms;
    let roots = match roots_pem {
        Some(pem) => anchors_from_pem(pem)?,
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(if takes_tls12 { TLS13_OR_TLS12 } else { TLS13 })
        .expect("the provider has suites and groups of both versions")
        .with_root_certificates(RootCertStore { roots });
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
    };
    // Extended master secret: without it a session of TLS 1.2 can be passed off as another (triple handshake).
    config.require_ems = true;
    config.alpn_protocols = alpn.into_iter().map(<[u8]>::to_vec).collect();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// A client certificate of any issuer with its key; both are PEM, in the chain the leaf is first.
///
/// # Errors
/// One of them can't be used, or they don't belong together.
pub fn outside_certificate(chain: &str, key: &str) -> Result<Arc<CertifiedKey>, IdentityError> {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(IdentityError::Pem)?;
    if chain.is_empty() {
        return Err(IdentityError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(IdentityError::Pem)?;
    CertifiedKey::from_der(chain, key, super::provider()).map(Arc::new).map_err(IdentityError::Key)
}

/// The roots of this machine, read when somebody first needs them. Those that can't be used are passed over.
fn system_roots() -> Result<Vec<TrustAnchor<'static>>, RootsError> {
    static FOUND: LazyLock<Result<Vec<TrustAnchor<'static>>, String>> = LazyLock::new(|| {
        let found = rustls_native_certs::load_native_certs();
        let usable = found.certs.iter().filter_map(|der| webpki::anchor_from_trusted_cert(der).ok());
        let anchors: Vec<_> = usable.map(|anchor| anchor.to_owned()).collect();
        match (anchors.is_empty(), found.errors.first()) {
            (false, _) => Ok(anchors),
            (true, Some(error)) => Err(error.to_string()),
            (true, None) => Err("none was found".to_owned()),
        }
    });
    FOUND.clone().map_err(RootsError::None)
}

/// Begins TLS on a connection, to a server that has to be `name`.
///
/// # Errors
/// The connection failed, or the server is not that one.
pub async fn begin(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    stream: TcpStream,
) -> io::Result<OutsideStream> {
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    Ok(OutsideStream::Tls(Box::new(stream)))
}

/// A connection to an app or to somebody outside the mesh.
#[derive(Debug)]
pub enum OutsideStream {
    Plain(TcpStream),
    /// This side began TLS on it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl OutsideStream {
    /// # Errors
    /// The connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(stream) => stream.peer_addr(),
            Self::Tls(stream) => stream.get_ref().0.peer_addr(),
        }
    }
}

impl AsyncRead for OutsideStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for OutsideStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

//! TLS to servers outside the mesh, which this side begins: a server is verified by the name that was asked for, against roots
//! that somebody named. TLS 1.3 only, no resumption: a certificate is verified at each handshake.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{ServerName, TrustAnchor};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::trust::{TrustError, anchors_from_pem};

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

/// A client that believes the roots of `roots_pem`, or those of this machine, and offers one protocol.
///
/// # Errors
/// There is no root that can be used.
pub fn outside_client_config(roots_pem: Option<&str>, alpn: &[u8]) -> Result<ClientConfig, RootsError> {
    let roots = match roots_pem {
        Some(pem) => anchors_from_pem(pem)?,
        None => system_roots()?,
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3 suites and groups")
        .with_root_certificates(RootCertStore { roots })
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
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

//! Accepting TLS connections: handshakes run side by side and have a deadline, so that a slow peer holds up nobody; the
//! number of connections is bounded, for each address and each account by a share, and one that asks nothing ends.

mod uses;

mod plain;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo, TlsConnectInfo};

use x509_parser::extensions::GeneralName;

pub use self::plain::PlainListener;
pub use self::uses::{InUse, Use, Uses};
use crate::metrics::Metrics;
use crate::rate::{Place, Places, Rates};

/// Refused connections that are logged in a minute.
const REFUSALS_TOLD: u32 = 10;

/// A connection whose handshake is done. It counts against the listener's limit until it is dropped.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    /// When it ends unless a byte came.
    first: Option<Pin<Box<Sleep>>>,
    /// When it ends whatever comes, unless its peer has proved who it is.
    last: Option<Pin<Box<Sleep>>>,
    proof: Proof,
    uses: Uses,
    /// How long nothing may be asked, and when that is looked at next.
    idle: (Duration, Pin<Box<Sleep>>),
    _permit: OwnedSemaphorePermit,
    _of_address: Place<One>,
    _of_account: Option<Place<One>>,
}

/// A peer whose connections are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum One {
    Address(IpAddr),
    /// The name in the client certificate.
    Account(String),
}

/// Whether the peer of a connection proved by what it sent who it is; clones are of the same connection.
#[derive(Debug, Clone, Default)]
pub struct Proof(Arc<AtomicBool>);

impl Proof {
    pub fn give(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_given(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Connection {
    /// To be given by whoever learns who the peer is.
    pub fn proof(&self) -> Proof {
        self.proof.clone()
    }

    /// To be told of each request.
    pub fn uses(&self) -> Uses {
        self.uses.clone()
    }

    /// Whether nothing was asked for too long. The task is woken when that is to be looked at again.
    fn is_idle(&mut self, cx: &mut Context<'_>) -> bool {
        let (most, next) = &mut self.idle;
        while next.as_mut().poll(cx).is_ready() {
            let idle = self.uses.idle(Instant::now());
            if idle.is_some_and(|idle| idle >= *most) {
                return true;
            }
            let left = most.saturating_sub(idle.unwrap_or_default()).max(Duration::from_millis(1));
            next.as_mut().reset(tokio::time::Instant::now() + left);
        }
        false
    }
}

/// The caller of a request on the proxies' port, as its connection tells.
#[derive(Debug, Clone)]
pub struct Caller {
    pub tls: TlsConnectInfo<TcpConnectInfo>,
    pub uses: Uses,
}

/// Settings of a TLS listener.
pub struct ListenerOptions {
    pub tls: Arc<ServerConfig>,
    pub max_connections: usize,
    /// Connections that one address may have, and one account.
    pub max_of_one: usize,
    /// How long a connection may be open on which nothing is asked.
    pub idle: Duration,
    pub handshake_timeout: Duration,
    /// From the handshake to the first byte.
    pub first_byte_timeout: Duration,
    /// The life of a connection whose peer has no client certificate and gives no other proof of who it is.
    pub anonymous_life: Duration,
    pub metrics: Arc<Metrics>,
}

/// The receiving end of an accept loop; hands connections to axum or tonic.
pub struct Connections {
    receiver: mpsc::Receiver<(Connection, SocketAddr)>,
    local_address: SocketAddr,
}

/// Starts accepting on `listener` until `stop`; the loop is a task of `tasks`.
pub fn accept(
    listener: TcpListener,
    options: ListenerOptions,
    stop: CancellationToken,
    tasks: &mut JoinSet<()>,
) -> io::Result<Connections> {
    let local_address = listener.local_addr()?;
    let (sender, receiver) = mpsc::channel(64);
    tasks.spawn(accept_loop(listener, options, stop, sender));
    Ok(Connections { receiver, local_address })
}

async fn accept_loop(
    listener: TcpListener,
    options: ListenerOptions,
    stop: CancellationToken,
    sender: mpsc::Sender<(Connection, SocketAddr)>,
) {
    let permits = Arc::new(Semaphore::new(options.max_connections));
    let acceptor = Arc::new(Acceptor {
        tls: TlsAcceptor::from(options.tls.clone()),
        places: Places::new(options.max_of_one),
        told: Rates::per_minute(REFUSALS_TOLD),
        options,
        sender,
    });
    let mut handshakes = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = handshakes.join_next() => continue,
            () = stop.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors or a connection reset before it was taken: others go on.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let of_address = acceptor.places.take(&One::Address(peer.ip().to_canonical()));
        let (Ok(permit), Some(of_address)) = (permits.clone().try_acquire_owned(), of_address) else {
            acceptor.refused(peer);
            continue;
        };
        let acceptor = acceptor.clone();
        handshakes.spawn(async move { Box::pin(acceptor.greet(stream, peer, permit, of_address)).await });
    }
}

/// The handshakes of one listener.
struct Acceptor {
    tls: TlsAcceptor,
    places: Places<One>,
    /// Refusals that are logged: a flood of them must not fill the disk, and the metric counts all.
    told: Rates<()>,
    options: ListenerOptions,
    sender: mpsc::Sender<(Connection, SocketAddr)>,
}

impl Acceptor {
    fn refused(&self, peer: SocketAddr) {
        self.options.metrics.connection_refused();
        if self.told.take(&(), Instant::now()).is_ok() {
            let (limit, of_one) = (self.options.max_connections, self.options.max_of_one);
            tracing::warn!(%peer, limit, of_one, "connection refused: limit reached, of all, of one address or of one account");
        }
    }

    async fn greet(&self, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit, of_address: Place<One>) {
        let _ = stream.set_nodelay(true);
        let options = &self.options;
        let stream = match tokio::time::timeout(options.handshake_timeout, self.tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                options.metrics.handshake_failed();
                return tracing::info!(%peer, %error, "TLS handshake failed");
            }
            Err(_) => {
                options.metrics.handshake_failed();
                return tracing::info!(%peer, "TLS handshake timed out");
            }
        };
        let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let is_anonymous = leaf.is_none();
        let of_account = match leaf.and_then(account_of).map(|account| self.places.take(&One::Account(account))) {
            Some(None) => return self.refused(peer),
            Some(place) => place,
            None => None,
        };
        let connection = Connection {
            stream,
            first: Some(Box::pin(sleep(options.first_byte_timeout))),
            last: is_anonymous.then(|| Box::pin(sleep(options.anonymous_life))),
            proof: Proof::default(),
            uses: Uses::new(Instant::now()),
            idle: (options.idle, Box::pin(sleep(options.idle))),
            _permit: permit,
            _of_address: of_address,
            _of_account: of_account,
        };
        let _ = self.sender.send((connection, peer)).await;
    }
}

/// The name in a client certificate, which is verified already.
fn account_of(leaf: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| {
        let GeneralName::URI(uri) = name else { return None };
        Some((*uri).to_owned())
    })
}

impl axum::serve::Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.receiver.recv().await {
            Some(accepted) => accepted,
            // The loop has stopped: the server ends by its own signal.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local_address)
    }
}

impl futures_util::Stream for Connections {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(cx).map(|next| next.map(|(connection, _)| Ok(connection)))
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        Caller { tls: self.stream.connect_info(), uses: self.uses() }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let is_over = |deadline: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>| {
            deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready())
        };
        if self.proof.is_given() {
            self.last = None;
        }
        if is_over(&mut self.first, cx) || is_over(&mut self.last, cx) || self.is_idle(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.first = None;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

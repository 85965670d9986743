//! Accepting TLS connections: handshakes run side by side and have a deadline, so that a slow peer holds up nobody; the
//! number of connections is bounded.

mod plain;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo, TlsConnectInfo};

pub use self::plain::PlainListener;
use crate::metrics::Metrics;

/// A connection whose handshake is done. It counts against the listener's limit until it is dropped.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    /// When it ends unless a byte came.
    first: Option<Pin<Box<Sleep>>>,
    /// When it ends whatever comes, unless its peer has proved who it is.
    last: Option<Pin<Box<Sleep>>>,
    proof: Proof,
    _permit: OwnedSemaphorePermit,
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
}

/// Settings of a TLS listener.
pub struct ListenerOptions {
    pub tls: Arc<ServerConfig>,
    pub max_connections: usize,
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
    let acceptor = TlsAcceptor::from(options.tls);
    let permits = Arc::new(Semaphore::new(options.max_connections));
    let (first_byte_timeout, anonymous_life) = (options.first_byte_timeout, options.anonymous_life);
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
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            options.metrics.connection_refused();
            tracing::warn!(%peer, limit = options.max_connections, "connection refused: limit reached");
            continue;
        };
        let (acceptor, sender, metrics) = (acceptor.clone(), sender.clone(), options.metrics.clone());
        handshakes.spawn(async move {
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(options.handshake_timeout, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let is_anonymous = stream.get_ref().1.peer_certificates().is_none();
                    let last = is_anonymous.then(|| Box::pin(sleep(anonymous_life)));
                    let first = Some(Box::pin(sleep(first_byte_timeout)));
                    let proof = Proof::default();
                    let _ = sender.send((Connection { stream, first, last, proof, _permit: permit }, peer)).await;
                }
                Ok(Err(error)) => {
                    metrics.handshake_failed();
                    tracing::info!(%peer, %error, "TLS handshake failed");
                }
                Err(_) => {
                    metrics.handshake_failed();
                    tracing::info!(%peer, "TLS handshake timed out");
                }
            }
        });
    }
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
    type ConnectInfo = TlsConnectInfo<TcpConnectInfo>;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
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
        if is_over(&mut self.first, cx) || is_over(&mut self.last, cx) {
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

//! A port without TLS, for scrapers and probes: so many connections at a time, a quarter of them from one address, each with
//! an end whatever its peer does.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

use crate::metrics::Metrics;
use crate::rate::{Place, Places, source_of};

/// Accepts connections and bounds them.
pub struct PlainListener {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    of_address: Places<IpAddr>,
    life: Duration,
    metrics: Arc<Metrics>,
}

/// A connection that counts against the limit until it is dropped.
pub struct PlainConnection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
    _of_address: Place<IpAddr>,
}

impl PlainListener {
    pub fn new(listener: TcpListener, max_connections: usize, life: Duration, metrics: Arc<Metrics>) -> Self {
        let of_address = Places::new(max_connections.div_ceil(4));
        Self { listener, permits: Arc::new(Semaphore::new(max_connections)), of_address, life, metrics }
    }
}

impl axum::serve::Listener for PlainListener {
    type Io = PlainConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (PlainConnection, SocketAddr) {
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let of_address = self.of_address.take(&source_of(peer.ip()));
            let (Ok(permit), Some(of_address)) = (self.permits.clone().try_acquire_owned(), of_address) else {
                self.metrics.connection_refused();
                tracing::debug!(%peer, "connection to the port of metrics refused: limit reached, of all or of one address");
                continue;
            };
            let end = Box::pin(sleep(self.life));
            return (PlainConnection { stream, end, _permit: permit, _of_address: of_address }, peer);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl PlainConnection {
    /// Wakes its task at the end of its life.
    fn poll_alive(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for PlainConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_alive(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for PlainConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_alive(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Whatever comes until the end, be it an orderly one or not.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut all = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut all)).await.expect("an end");
        String::from_utf8_lossy(&all).into_owned()
    }

    #[tokio::test]
    async fn connections_are_so_many_and_each_has_an_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, metrics) = (listener.local_addr().unwrap(), Arc::new(Metrics::new()));
        let listener = PlainListener::new(listener, 8, Duration::from_millis(300), metrics.clone());
        let router = axum::Router::new().route("/", get(async || "here"));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await });
        let ask = async |from: [u8; 4]| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((from, 0).into()).unwrap();
            let mut stream = socket.connect(address).await.unwrap();
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
            rest(&mut stream).await
        };
        // One says nothing, one says something now and then.
        let (mut silent, mut slow) =
            (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        slow.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let (own, other) = ([127, 0, 0, 1], [127, 0, 0, 2]);
        assert!(!ask(own).await.contains("here"), "there is no room for more of this address");
        assert!(metrics.render().contains("weft_control_connections_refused_total 1"));
        assert!(ask(other).await.contains("here"), "another finds room");
        assert_eq!(rest(&mut silent).await, "");
        assert!(!rest(&mut slow).await.contains("here"));
        assert!(ask(own).await.contains("here"), "their places are free again");
        serving.abort();
    }
}

//! The server behind each side door: HTTP/1.1 for few and small callers. A connection has little time and the oldest makes
//! room for the newest, so that callers that say nothing take neither a probe's place nor the data plane's descriptors.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tracing::warn;

use crate::telemetry::throttle;

/// Limits on the callers of a door.
#[derive(Debug, Clone, Copy)]
pub struct SideLimits {
    /// Open connections; the oldest is closed for a further one.
    pub connections: usize,
    /// From the connection, or the last answer, to the end of a request's head.
    pub head_timeout: Duration,
    /// Life of a connection, however it is used.
    pub lifetime: Duration,
}

/// Counters of one door.
#[derive(Debug, Default)]
pub struct Side {
    open: AtomicU64,
    evicted: AtomicU64,
}

impl Side {
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Serves for as long as the process lives; `admit` says whose connections are taken.
    pub async fn serve<F, Fut>(
        self: Arc<Self>,
        listener: TcpListener,
        limits: SideLimits,
        admit: fn(SocketAddr) -> bool,
        respond: F,
    ) where
        F: Fn(Request<Incoming>, SocketAddr) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let mut connections: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if throttle::ACCEPT.first() {
                        warn!(%error, "cannot accept a connection to a side door");
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            if !admit(from) {
                continue;
            }
            connections.retain(|connection| !connection.is_finished());
            if connections.len() >= limits.connections.max(1)
                && let Some(oldest) = connections.pop_front()
            {
                self.evicted.fetch_add(1, Ordering::Relaxed);
                oldest.abort();
            }
            let life = Arc::clone(&self).connection(stream, from, limits, respond.clone());
            connections.push_back(tokio::spawn(life).abort_handle());
        }
    }

    async fn connection<F, Fut>(self: Arc<Self>, stream: TcpStream, from: SocketAddr, limits: SideLimits, respond: F)
    where
        F: Fn(Request<Incoming>, SocketAddr) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let _open = Open::enter(&self);
        let service = hyper::service::service_fn(move |request| {
            let answer = respond(request, from);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout).max_buf_size(16 << 10);
        let served = builder.serve_connection(TokioIo::new(stream), service);
        // Errors are the caller's: it has gone, was too slow, or speaks no HTTP.
        let _ = tokio::time::timeout(limits.lifetime, served).await;
    }
}

struct Open<'s>(&'s Side);

impl<'s> Open<'s> {
    fn enter(side: &'s Side) -> Self {
        side.open.fetch_add(1, Ordering::Relaxed);
        Self(side)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const LIMITS: SideLimits =
        SideLimits { connections: 8, head_timeout: Duration::from_secs(30), lifetime: Duration::from_secs(60) };

    async fn start(limits: SideLimits) -> (Arc<Side>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let side = Arc::<Side>::default();
        let respond = |_, _| async { Response::new(Full::new(Bytes::from_static(b"here"))) };
        tokio::spawn(Arc::clone(&side).serve(listener, limits, |_| true, respond));
        (side, address)
    }

    async fn ask(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn half_requests_take_nobodys_place() {
        let (side, address) = start(LIMITS).await;
        let mut silent = Vec::new();
        for _ in 0..200 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /healthz/ready HTTP/1.1\r\nhost: ").await.unwrap();
            silent.push(stream);
        }
        let began = Instant::now();
        assert!(ask(address).await.ends_with("here"));
        assert!(began.elapsed() < Duration::from_secs(5), "a probe doesn't wait for them");
        assert!(side.open() <= 9, "{} are open", side.open());
        assert!(side.evicted() >= 190, "{} made room", side.evicted());
    }

    #[tokio::test]
    async fn a_head_that_never_ends_is_given_up() {
        let (_, address) = start(SideLimits { head_timeout: Duration::from_millis(50), ..LIMITS }).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HT").await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "the connection is closed");
    }

    #[tokio::test]
    async fn a_connection_has_one_life() {
        let (_, address) = start(SideLimits { lifetime: Duration::from_millis(50), ..LIMITS }).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut byte = [0];
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut byte)).await;
        assert_eq!(ended.unwrap().unwrap_or(0), 0);
    }
}

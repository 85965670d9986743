//! HTTP/3 straight on quinn streams (RFC 9114, 9204 static table, 9220): frames, field sections, the life of a connection.
//! Nothing that a peer sends panics; every buffer and count has a number in [`Limits`].

mod code;

use std::sync::Arc;

pub use code::Code;

use bytes::Bytes;
use http::HeaderMap;

use crate::http::{Frame, RequestHead, ResponseHead, SendError, StreamError};

/// Bounds on what a peer may make us hold or do.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Size of a field section as RFC 9114 section 4.2.2 counts it (name + value + 32 per field), announced to the peer.
    pub header_bytes: usize,
    /// Fields in one section.
    pub header_fields: usize,
    /// Bytes of `:path`.
    pub path_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { header_bytes: 64 * 1024, header_fields: 128, path_bytes: 16 * 1024 }
    }
}

/// Takes over an established connection as its client. The future drives control streams and ends with the connection.
pub fn connect(conn: quinn::Connection, limits: Limits) -> (Client, impl Future<Output = ()> + Send + 'static) {
    let _ = limits;
    (Client { conn: Arc::new(conn) }, async {})
}

/// Takes over an established connection as its server. The future drives control streams and ends with the connection.
pub fn accept(conn: quinn::Connection, limits: Limits) -> (Server, impl Future<Output = ()> + Send + 'static) {
    let _ = limits;
    (Server { conn }, async {})
}

/// The sending side of a connection's requests; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    conn: Arc<quinn::Connection>,
}

#[expect(clippy::unused_async, reason = "being written")]
impl Client {
    /// Sends a request head, waiting for stream credit. `end`: the request has no body.
    pub async fn send(&self, head: &RequestHead, end: bool) -> Result<(SendStream, RecvStream), SendError> {
        let _ = (head, end);
        Err(SendError { error: StreamError::Protocol("being written"), unprocessed: true })
    }

    /// True once no new request should be sent here: GOAWAY received, or the connection is gone.
    pub fn is_draining(&self) -> bool {
        self.conn.close_reason().is_some()
    }

    /// Requests whose streams are still held.
    pub fn open_streams(&self) -> usize {
        0
    }
}

/// The accepting side of a connection.
#[derive(Debug)]
pub struct Server {
    conn: quinn::Connection,
}

#[expect(clippy::unused_async, reason = "being written")]
impl Server {
    /// The next request stream; `None` when no more will come (GOAWAY sent, connection gone). Cancel safe.
    pub async fn accept(&self) -> Option<Incoming> {
        None
    }

    /// Sends GOAWAY with the id of the first stream that will not be processed. Requests in flight go on.
    pub fn goaway(&self) {
        let _ = &self.conn;
    }

    /// Resolves when, after `goaway`, every request has been answered and delivered, or the connection is gone.
    pub async fn drained(&self) {}

    /// Requests whose streams are still held.
    pub fn open_streams(&self) -> usize {
        0
    }
}

/// A request stream whose head has not been read yet.
#[derive(Debug)]
pub struct Incoming {
    _private: (),
}

#[expect(clippy::unused_async, reason = "being written")]
impl Incoming {
    /// Reads the request head, so that a slow one holds up nobody else. A malformed request is answered here.
    pub async fn head(self) -> Result<(RequestHead, RecvStream, SendStream), StreamError> {
        Err(StreamError::Protocol("being written"))
    }
}

/// The sending half of a request stream. Dropped before `finish`, it resets the stream.
#[derive(Debug)]
pub struct SendStream {
    _private: (),
}

#[expect(clippy::unused_async, reason = "being written")]
impl SendStream {
    /// Sends an interim response.
    pub async fn interim(&mut self, head: &ResponseHead) -> Result<(), StreamError> {
        let _ = head;
        Ok(())
    }

    /// Sends the final response head; `end`: and ends the stream.
    pub async fn response(&mut self, head: &ResponseHead, end: bool) -> Result<(), StreamError> {
        let _ = (head, end);
        Ok(())
    }

    /// Sends body bytes, waiting for room.
    pub async fn data(&mut self, data: Bytes) -> Result<(), StreamError> {
        drop(data);
        Ok(())
    }

    /// Ends the message.
    pub async fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), StreamError> {
        drop(trailers);
        Ok(())
    }

    /// Ends the message as failed.
    pub fn reset(&mut self, code: u64) {
        let _ = code;
    }
}

/// The receiving half of a request stream.
#[derive(Debug)]
pub struct RecvStream {
    _private: (),
}

#[expect(clippy::unused_async, reason = "being written")]
impl RecvStream {
    /// The next head of a response. Cancel safe.
    pub async fn response_head(&mut self) -> Result<ResponseHead, SendError> {
        Err(SendError { error: StreamError::Protocol("being written"), unprocessed: false })
    }

    /// The next frame of the body; `None` at its clean end. Cancel safe.
    pub async fn frame(&mut self) -> Result<Option<Frame>, StreamError> {
        Ok(None)
    }

    /// True when no frame will come and that is known without waiting.
    pub fn is_end(&self) -> bool {
        true
    }

    /// Tells the peer to stop sending.
    pub fn stop(&mut self, code: u64) {
        let _ = code;
    }
}

//! The one shape in which HTTP messages cross the proxy, whatever version carried them: heads by value, bodies as a
//! stream of frames borrowed from the connection that owns the socket. No rule of routing or policy lives here.

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, StatusCode, Version};

use crate::{h1, h2, h3, tcp};

/// A request line and its header fields, as every codec gives and takes them.
///
/// `Host` (HTTP/1) and `:authority` (HTTP/2, HTTP/3) both live in `authority`; `headers` never holds `host`,
/// a hop-by-hop field, `content-length` disagreement or `transfer-encoding`: codecs settle framing at their edge.
#[derive(Debug, Clone)]
pub struct RequestHead {
    pub method: Method,
    /// Host or `:authority`, if the request had one.
    pub authority: Option<Authority>,
    /// Origin-form target (`/a?b`), or `*`. `None` only for CONNECT without `:path`.
    pub path: Option<PathAndQuery>,
    /// True when the message was HTTP/1 with an absolute-form target (a forward-proxy request).
    pub absolute_form: bool,
    /// The authority of an absolute-form target when it differs from `Host` (travels as `weft-target`).
    pub target_authority: Option<Authority>,
    /// `:protocol` of an extended CONNECT, or the token of an accepted HTTP/1 Upgrade (e.g. `websocket`).
    pub protocol: Option<Bytes>,
    /// End-to-end header fields. `te` survives only as `trailers`.
    pub headers: HeaderMap,
    /// The version the sender spoke on this hop.
    pub version: Version,
}

/// A status line and its header fields. Interim (1xx) responses use it too.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub headers: HeaderMap,
}

/// One piece of a message body. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub enum Frame {
    Data(Bytes),
    /// Always the last frame.
    Trailers(HeaderMap),
}

/// Why a stream ended early. `retry is safe` is a question about the request, answered by `SendError::unprocessed`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StreamError {
    /// The other side reset the stream; the code is HTTP/3's (RFC 9114 section 8.1), mapped for HTTP/2.
    #[error("stream reset by the peer, code {0:#x}")]
    Reset(u64),
    /// The connection under the stream is gone.
    #[error("connection lost: {0}")]
    ConnectionLost(String),
    /// The peer broke the protocol.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// A configured limit was hit.
    #[error("limit exceeded: {0}")]
    Limit(&'static str),
    /// The stream ended before its message was complete.
    #[error("message ended early")]
    Truncated,
}

/// Why a request could not be sent or answered, and whether the peer provably did not process it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub struct SendError {
    #[source]
    pub error: StreamError,
    /// True only when the peer provably did not process the request: never sent, refused, above the GOAWAY id.
    pub unprocessed: bool,
}

/// The receiving half of a message body, borrowed from the connection that carries it.
#[derive(Debug)]
pub enum RecvBody<'a> {
    Empty,
    H1(h1::Body<'a>),
    H2(&'a mut h2::RecvStream),
    H3(&'a mut h3::RecvStream),
    Tcp(&'a mut tcp::Reader),
}

impl RecvBody<'_> {
    /// The next frame; `None` at the clean end. Cancel safe: no byte is lost when the future is dropped.
    pub async fn frame(&mut self) -> Result<Option<Frame>, StreamError> {
        match self {
            RecvBody::Empty => Ok(None),
            RecvBody::H1(body) => body.frame().await,
            RecvBody::H2(stream) => stream.frame().await,
            RecvBody::H3(stream) => stream.frame().await,
            RecvBody::Tcp(reader) => reader.frame().await,
        }
    }

    /// True when no frame will come and that is known without waiting.
    pub fn is_end(&self) -> bool {
        match self {
            RecvBody::Empty => true,
            RecvBody::H1(body) => body.is_end(),
            RecvBody::H2(stream) => stream.is_end(),
            RecvBody::H3(stream) => stream.is_end(),
            RecvBody::Tcp(_) => false,
        }
    }

    /// Tells the sender to stop (STOP_SENDING, RST_STREAM); on HTTP/1 the connection will not be reused.
    pub fn stop(&mut self, code: u64) {
        match self {
            RecvBody::Empty => {}
            RecvBody::H1(body) => body.stop(),
            RecvBody::H2(stream) => stream.stop(code),
            RecvBody::H3(stream) => stream.stop(code),
            RecvBody::Tcp(reader) => reader.stop(),
        }
    }
}

/// The sending half of a message body, borrowed from the connection that carries it.
#[derive(Debug)]
pub enum SendBody<'a> {
    H1(h1::Sink<'a>),
    H2(&'a mut h2::SendStream),
    H3(&'a mut h3::SendStream),
    Tcp(&'a mut tcp::Writer),
}

impl SendBody<'_> {
    /// Sends body bytes, waiting for room: this is where back-pressure comes from. May hold bytes until `flush`.
    pub async fn data(&mut self, data: Bytes) -> Result<(), StreamError> {
        match self {
            SendBody::H1(sink) => sink.data(data).await,
            SendBody::H2(stream) => stream.data(data).await,
            SendBody::H3(stream) => stream.data(data).await,
            SendBody::Tcp(writer) => writer.data(data).await,
        }
    }

    /// Hands everything held back to the socket; call it before waiting for the next frame of a slow body.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        match self {
            SendBody::H1(sink) => sink.flush().await,
            SendBody::H2(_) => Ok(()),
            SendBody::H3(stream) => stream.flush().await,
            SendBody::Tcp(writer) => writer.flush().await,
        }
    }

    /// Ends the message, with trailers where there are any, and flushes. On TCP this is the FIN.
    pub async fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), StreamError> {
        match self {
            SendBody::H1(sink) => sink.finish(trailers).await,
            SendBody::H2(stream) => stream.finish(trailers).await,
            SendBody::H3(stream) => stream.finish(trailers).await,
            SendBody::Tcp(writer) => writer.finish().await,
        }
    }

    /// Resolves when whoever reads the message has gone: reset its stream, or its connection is lost. Cancel safe. A TCP
    /// or HTTP/1 connection tells at the next write.
    pub async fn gone(&mut self) {
        match self {
            SendBody::H1(_) | SendBody::Tcp(_) => std::future::pending().await,
            SendBody::H2(stream) => stream.gone().await,
            SendBody::H3(stream) => stream.gone().await,
        }
    }

    /// Ends the message as failed, behind what was given before.
    #[expect(
        clippy::unused_async,
        reason = "the seam is asynchronous for codecs that wait until what came before is sent"
    )]
    pub async fn abort(&mut self, code: u64) {
        self.reset(code);
    }

    /// Ends the message as failed: RESET_STREAM with an HTTP/3 code, RST_STREAM, or an aborted connection.
    pub fn reset(&mut self, code: u64) {
        match self {
            SendBody::H1(sink) => sink.reset(),
            SendBody::H2(stream) => stream.reset(code),
            SendBody::H3(stream) => stream.reset(code),
            SendBody::Tcp(writer) => writer.reset(),
        }
    }
}

/// Where the answer to one request goes.
#[derive(Debug)]
pub enum Responder<'a> {
    H1(h1::Responder<'a>),
    H2(&'a mut h2::SendStream),
    H3(&'a mut h3::SendStream),
}

impl<'a> Responder<'a> {
    /// Sends an interim response (1xx other than 101). Dropped silently towards HTTP/1.0.
    pub async fn interim(&mut self, head: &ResponseHead) -> Result<(), StreamError> {
        match self {
            Responder::H1(responder) => responder.interim(head).await,
            Responder::H2(stream) => stream.interim(head).await,
            Responder::H3(stream) => stream.interim(head).await,
        }
    }

    /// Resolves when whoever waits for the answer has gone: reset its stream, or closed its connection. Cancel safe.
    pub async fn gone(&mut self) {
        match self {
            Responder::H1(responder) => responder.gone().await,
            Responder::H2(stream) => stream.gone().await,
            Responder::H3(stream) => stream.gone().await,
        }
    }

    /// Sends the final head. `end`: no body follows (the codec ends the message, the sink is spent).
    /// A 2xx to CONNECT turns the sink and the request body into a raw byte tunnel.
    pub async fn head(self, head: &ResponseHead, end: bool) -> Result<SendBody<'a>, StreamError> {
        match self {
            Responder::H1(responder) => responder.head(head, end).await.map(SendBody::H1),
            Responder::H2(stream) => {
                stream.response(head, end).await?;
                Ok(SendBody::H2(stream))
            }
            Responder::H3(stream) => {
                stream.response(head, end).await?;
                Ok(SendBody::H3(stream))
            }
        }
    }
}

/// The answer to a request that was sent: heads first (any number of interim ones, then the final one), then the body.
#[derive(Debug)]
pub enum ResponseRecv<'a> {
    H1(h1::ResponseReader<'a>),
    H2(&'a mut h2::RecvStream),
    H3(&'a mut h3::RecvStream),
}

impl<'a> ResponseRecv<'a> {
    /// The next head; interim ones (1xx) come before the final one. Cancel safe.
    pub async fn head(&mut self) -> Result<ResponseHead, SendError> {
        match self {
            ResponseRecv::H1(reader) => reader.head().await,
            ResponseRecv::H2(stream) => stream.response_head().await,
            ResponseRecv::H3(stream) => stream.response_head().await,
        }
    }

    /// The body that follows the final head.
    pub fn into_body(self) -> RecvBody<'a> {
        match self {
            ResponseRecv::H1(reader) => RecvBody::H1(reader.into_body()),
            ResponseRecv::H2(stream) => RecvBody::H2(stream),
            ResponseRecv::H3(stream) => RecvBody::H3(stream),
        }
    }
}

/// True for `host` or `host:port` with a port that exists: no user information, nothing that only some parsers take.
pub(crate) fn is_plain(authority: &Authority) -> bool {
    let host = authority.host();
    let rest = authority.as_str().strip_prefix(host);
    let port_exists = match rest.map(|rest| rest.strip_prefix(':')) {
        Some(None) => rest == Some(""),
        Some(Some(port)) => {
            port.is_empty() || (port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok())
        }
        None => false,
    };
    port_exists && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~[]:!$&'()*+,;=%".contains(&b))
}

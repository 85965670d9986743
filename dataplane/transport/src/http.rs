//! The one shape in which HTTP messages cross the proxy, whatever version carried them: heads by value, bodies as a
//! stream of frames borrowed from the connection that owns the socket. No rule of routing or policy lives here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, MAX_FORWARDS};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

use crate::{h1, h2, h3, tcp};

mod refusal;
mod target;

pub use refusal::{Refusal, Refused};
pub use target::{Target, TargetError};

pub use crate::upgrade::UpgradeToken;

/// Limits of one HTTP connection on what its peer may send, the same numbers whatever the version: what one leg takes,
/// the next takes. The limits of every codec are made from one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of a message head, the request line included. Default 64 KiB.
    pub head_bytes: usize,
    /// Fields of a head, and of a trailer section. Default and at most 128.
    pub fields: usize,
    /// Bytes of a request target. Default 16 KiB.
    pub target_bytes: usize,
    /// Bytes of a trailer section. Default 64 KiB.
    pub trailer_bytes: usize,
    /// Bytes of chunk extensions in one message. Default 16 KiB.
    pub chunk_extension_bytes: usize,
    /// Interim responses before a final one. Default 32.
    pub interim_responses: u32,
    /// HTTP/2: bytes that may be in flight on one stream before they are consumed. Default 128 KiB.
    pub h2_stream_window: u32,
    /// HTTP/2: the same for a connection with few streams; it grows with them. Default 1 MiB.
    pub h2_connection_window: u32,
    /// HTTP/2: small DATA frames of one connection that wait to be read. Default 262,144.
    pub h2_unread_frames: u32,
    /// HTTP/2: bytes of one stream that wait to be written. Default 64 KiB.
    pub h2_send_buffer: usize,
    /// HTTP/2: requests of one connection at once. Default 256.
    pub h2_concurrent_streams: u32,
    /// From a head's first byte to its last. Default 10 s.
    pub head_timeout: Duration,
    /// How long a client's connection may stay without a request. Default 1 h.
    pub idle_timeout: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            head_bytes: 64 * 1024,
            fields: MAX_FIELDS,
            target_bytes: 16 * 1024,
            trailer_bytes: 64 * 1024,
            chunk_extension_bytes: 16 * 1024,
            interim_responses: 32,
            h2_stream_window: 128 * 1024,
            h2_connection_window: 1024 * 1024,
            h2_unread_frames: 256 * 1024,
            h2_send_buffer: 64 * 1024,
            h2_concurrent_streams: 256,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(3600),
        }
    }
}

impl HttpLimits {
    /// The same for the leg between two proxies, where heads carry what the sending proxy adds: what an application was
    /// allowed to say still passes there.
    pub fn between_proxies(&self) -> Self {
        Self { head_bytes: self.head_bytes + 8 * 1024, fields: self.fields + 16, ..self.clone() }
    }

    /// As HTTP/1 keeps them.
    pub fn h1(&self) -> h1::Limits {
        h1::Limits::from(self.clone())
    }

    /// As HTTP/2 keeps them.
    pub fn h2(&self) -> h2::Limits {
        h2::Limits {
            header_list_bytes: u32::try_from(self.head_bytes).unwrap_or(u32::MAX),
            fields: self.fields,
            target_bytes: self.target_bytes,
            interim_responses: self.interim_responses,
            idle: self.idle_timeout,
            stream_window: self.h2_stream_window,
            connection_window: self.h2_connection_window,
            unread_frames: self.h2_unread_frames,
            send_buffer: self.h2_send_buffer,
            concurrent_streams: self.h2_concurrent_streams,
            ..h2::Limits::default()
        }
    }

    /// As HTTP/3 keeps them; what concerns the connection stays at its default.
    pub fn h3(&self) -> h3::Limits {
        h3::Limits {
            header_bytes: self.head_bytes,
            header_fields: self.fields,
            path_bytes: self.target_bytes,
            interim_responses: self.interim_responses,
            head_timeout: self.head_timeout,
            ..h3::Limits::default()
        }
    }
}

/// A word to all connections of clients that shares it: no further request is wanted. Told once, from any thread.
#[derive(Debug, Clone, Default)]
pub struct Leaving(Arc<AtomicBool>);

impl Leaving {
    pub fn tell(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The most header fields that any configuration allows in one head.
pub const MAX_FIELDS: usize = 128;

/// A response's own reason phrase, which only HTTP/1 can say: a field where a response passes through another version.
pub const WEFT_REASON: HeaderName = HeaderName::from_static("weft-reason");
/// The `Upgrade` field of a 426, which only HTTP/1 can say.
pub const WEFT_OFFERS: HeaderName = HeaderName::from_static("weft-offers");

/// True for the fields in which codecs tell each other what only HTTP/1 says. No app can set them, and none is sent them
/// where HTTP/1 is spoken.
pub(crate) fn is_internal(name: &HeaderName) -> bool {
    *name == WEFT_REASON || *name == WEFT_OFFERS
}

/// A request line and its header fields, as every codec gives and takes them.
///
/// `Host` (HTTP/1) and `:authority` (HTTP/2, HTTP/3) both live in `authority`; `headers` never holds `host`,
/// a hop-by-hop field, `content-length` disagreement or `transfer-encoding`: codecs settle framing at their edge.
#[derive(Debug, Clone)]
pub struct RequestHead {
    pub method: Method,
    /// Host or `:authority`, if the request had one; the authority of an absolute-form target, which replaces Host.
    pub authority: Option<Authority>,
    /// Origin-form target (`/a?b`), or `*`. `None` only for CONNECT.
    pub path: Option<Target>,
    /// The protocol that the client asks to change to (e.g. `websocket`): the answer 101 turns the exchange into a byte
    /// stream. Travels as `Upgrade` in HTTP/1.1 and as the `:protocol` of an extended CONNECT in HTTP/2 and HTTP/3, whose
    /// method here is the one that HTTP/1 asks by: GET, or what another of our proxies says that it was.
    pub protocol: Option<UpgradeToken>,
    /// End-to-end header fields. `te` survives only as `trailers`.
    pub headers: HeaderMap,
    /// The version the sender spoke on this hop.
    pub version: Version,
}

/// Additions of one hop to a request as it leaves, beside its head: a head sent again is still the one that came.
#[derive(Debug, Default, Clone, Copy)]
pub struct Added<'a> {
    /// Stands in for the authority that a head lacks.
    pub authority: Option<&'a Authority>,
    pub fields: &'a [(HeaderName, HeaderValue)],
}

/// The content that a message may have by its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// There may be some, as the fields say.
    Framed,
    /// None may be sent; whoever receives it still reads what the fields say (205).
    Empty,
    /// The message ends with its head, whatever the fields say (1xx, 204, 304).
    Never,
}

impl Content {
    //= rfc9110#section-6.4.1
    //= rfc9110#section-15.3.6
    //= rfc9112#section-6.3
    pub fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => Self::Never,
            _ if status.is_informational() => Self::Never,
            StatusCode::RESET_CONTENT => Self::Empty,
            _ => Self::Framed,
        }
    }
}

/// Decision by `Max-Forwards` on whether a request may be sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwards {
    Allowed,
    /// The client wants this hop to answer, whoever it is.
    Exhausted,
}

impl RequestHead {
    /// True where the client may wait for a 100 before it sends its content.
    //= rfc9110#section-10.1.1
    pub fn expects_continue(&self) -> bool {
        let expect = self.headers.get(http::header::EXPECT);
        expect.is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    }

    /// Counts `Max-Forwards` of TRACE and OPTIONS down by this hop. A value that is no number is none.
    //= rfc9110#section-7.6.2
    pub fn count_forward(&mut self) -> Forwards {
        if self.method != Method::TRACE && self.method != Method::OPTIONS {
            return Forwards::Allowed;
        }
        let Some(value) = self.headers.get(MAX_FORWARDS) else { return Forwards::Allowed };
        let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let Some(left) = digits.and_then(|text| text.parse::<u64>().ok()) else { return Forwards::Allowed };
        let Some(left) = left.checked_sub(1) else { return Forwards::Exhausted };
        self.headers.insert(MAX_FORWARDS, left.into());
        Forwards::Allowed
    }
}

/// A status line and its header fields. Interim (1xx) responses use it too.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub headers: HeaderMap,
}

impl ResponseHead {
    /// The head of an answer whose content is dropped though its length was promised; `None` where it needs no change.
    pub(crate) fn emptied(&self, to_head: bool) -> Option<Self> {
        let promised = !to_head && Content::of(self.status) == Content::Empty;
        let mut head = (promised && self.headers.contains_key(CONTENT_LENGTH)).then(|| self.clone())?;
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        Some(head)
    }
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
    /// The peer allows so many streams at once, and none of them came free.
    #[error("no stream of its connection came free within {} ms", .0.as_millis())]
    Busy(Duration),
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

    /// Reads what has come while nobody asks for the next frame, where a codec keeps more for a frame than its bytes. The
    /// sender gets no credit for it, so no more than the stream's window is read.
    pub fn read_ahead(&mut self, cx: &mut Context<'_>) {
        match self {
            RecvBody::H2(stream) => stream.read_ahead(cx),
            RecvBody::Empty | RecvBody::H1(_) | RecvBody::H3(_) | RecvBody::Tcp(_) => {}
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

    /// Bytes that this process holds of the body, or may be made to hold, while nobody reads: what came already on TCP, what
    /// is left of the stream's window on HTTP/2 and HTTP/3.
    pub fn held(&self) -> usize {
        match self {
            RecvBody::Empty => 0,
            RecvBody::H1(body) => body.held(),
            RecvBody::H2(stream) => stream.held(),
            RecvBody::H3(stream) => stream.held(),
            RecvBody::Tcp(reader) => reader.held(),
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

    /// Bytes that were given and have not left this process. QUIC's own are not among them: it takes no more than its peer
    /// has room for.
    pub fn held(&self) -> usize {
        match self {
            SendBody::H1(sink) => sink.held(),
            SendBody::H2(stream) => stream.held(),
            SendBody::H3(stream) => stream.held(),
            SendBody::Tcp(writer) => writer.held(),
        }
    }

    /// Resolves when nothing is held any more of a message that was finished. Cancel safe.
    pub async fn written(&mut self) {
        match self {
            SendBody::H2(stream) => stream.written().await,
            // They finish no sooner.
            SendBody::H1(_) | SendBody::H3(_) | SendBody::Tcp(_) => {}
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

    /// Ends the message as failed: RESET_STREAM with an HTTP/3 code, RST_STREAM, or an aborted connection. What was given
    /// before may be lost; `abort` keeps it.
    pub fn reset(&mut self, code: u64) {
        match self {
            SendBody::H1(sink) => sink.reset(),
            SendBody::H2(stream) => stream.reset(code),
            SendBody::H3(stream) => stream.reset(code),
            SendBody::Tcp(writer) => writer.reset(),
        }
    }

    /// Ends the message as failed, after everything that was given has been delivered as far as the receiver takes it.
    /// Takes time (bounded by the codec) where the receiver is slow. Dropping the future resets.
    pub async fn abort(&mut self, code: u64) {
        match self {
            SendBody::H1(sink) => sink.abort().await,
            SendBody::H2(stream) => stream.abort(code).await,
            SendBody::H3(stream) => stream.abort(code).await,
            SendBody::Tcp(writer) => writer.abort().await,
        }
    }

    /// Resolves when whoever receives the body has gone: stopped its stream, or closed or reset its connection. A half-close
    /// is not a departure. Cancel safe; costs nothing while the connection is quiet.
    pub async fn gone(&mut self) {
        match self {
            SendBody::H1(sink) => sink.gone().await,
            SendBody::H2(stream) => stream.gone().await,
            SendBody::H3(stream) => stream.gone().await,
            SendBody::Tcp(writer) => writer.gone().await,
        }
    }
}

/// Sender of the answer to one request.
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

    /// Resets the stream in place of an answer, with an HTTP/3 code; gives the responder back on HTTP/1, which has no streams.
    pub fn reset(self, code: u64) -> Option<Self> {
        match self {
            Responder::H1(responder) => return Some(Responder::H1(responder)),
            Responder::H2(stream) => stream.reset(code),
            Responder::H3(stream) => stream.reset(code),
        }
        None
    }

    /// Sends the final head. `end`: no body follows (the codec ends the message, the sink is spent).
    /// A 2xx to CONNECT, and 101 to a request with `protocol`, turn the sink and the request body into a raw byte tunnel.
    /// An answer that may have no body (to HEAD; 204, 205, 304) takes one and drops it.
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
    /// The next head; interim ones (1xx) come before the final one. 101 is final: it comes only when the request asked for
    /// an upgrade, and the body is then a raw byte stream. Cancel safe.
    pub async fn head(&mut self) -> Result<ResponseHead, SendError> {
        match self {
            ResponseRecv::H1(reader) => reader.head().await,
            ResponseRecv::H2(stream) => stream.response_head().await,
            ResponseRecv::H3(stream) => stream.response_head().await,
        }
    }

    /// The final head of an answer that is no 101. Cancel safe.
    pub async fn final_head(&mut self) -> Result<ResponseHead, SendError> {
        loop {
            let head = self.head().await?;
            if !head.status.is_informational() {
                return Ok(head);
            }
        }
    }

    /// As [`RecvBody::held`].
    pub fn held(&self) -> usize {
        match self {
            ResponseRecv::H1(reader) => reader.held(),
            ResponseRecv::H2(stream) => stream.held(),
            ResponseRecv::H3(stream) => stream.held(),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(method: Method, field: Option<&str>) -> (Forwards, Option<String>) {
        let mut headers = HeaderMap::new();
        if let Some(field) = field {
            headers.insert(MAX_FORWARDS, field.parse().unwrap());
        }
        let mut head = RequestHead {
            method,
            authority: None,
            path: Some(Target::from_static("*")),
            protocol: None,
            headers,
            version: Version::HTTP_11,
        };
        let forwards = head.count_forward();
        (forwards, head.headers.get(MAX_FORWARDS).map(|value| value.to_str().unwrap().to_owned()))
    }

    #[test]
    fn max_forwards_is_counted_down_to_the_hop_that_answers() {
        let left = |text: &str| Some(text.to_owned());
        assert_eq!(counted(Method::OPTIONS, Some("2")), (Forwards::Allowed, left("1")));
        assert_eq!(counted(Method::TRACE, Some("1")), (Forwards::Allowed, left("0")));
        assert_eq!(counted(Method::TRACE, Some("0")), (Forwards::Exhausted, left("0")));
        assert_eq!(counted(Method::GET, Some("0")), (Forwards::Allowed, left("0")));
        assert_eq!(counted(Method::OPTIONS, Some("-1")), (Forwards::Allowed, left("-1")));
        assert_eq!(counted(Method::OPTIONS, None), (Forwards::Allowed, None));
    }

    #[test]
    fn a_status_says_whether_there_is_content() {
        let of = |status: u16| Content::of(StatusCode::from_u16(status).unwrap());
        assert!([100, 101, 103, 204, 304].into_iter().all(|status| of(status) == Content::Never));
        assert_eq!(of(205), Content::Empty);
        assert!([200, 206, 303, 403, 500].into_iter().all(|status| of(status) == Content::Framed));
        let head = |status: u16| {
            let headers = [(CONTENT_LENGTH, HeaderValue::from_static("5"))].into_iter().collect();
            ResponseHead { status: StatusCode::from_u16(status).unwrap(), headers }
        };
        assert_eq!(head(205).emptied(false).unwrap().headers[CONTENT_LENGTH], "0");
        assert!(head(205).emptied(true).is_none() && head(200).emptied(false).is_none());
    }

    #[test]
    fn what_one_leg_takes_the_next_takes() {
        let limits = HttpLimits::default();
        let inner = limits.between_proxies();
        assert!(inner.fields > limits.fields && inner.head_bytes > limits.head_bytes);
        let (h1, h2, h3) = (limits.h1(), limits.h2(), inner.h3());
        assert_eq!((h1.http.fields, h1.http.head_bytes), (h2.fields, usize::try_from(h2.header_list_bytes).unwrap()));
        assert!(h3.header_fields > h1.http.fields && h3.header_bytes > h1.http.head_bytes);
        assert_eq!((h3.path_bytes, h2.target_bytes), (h1.http.target_bytes, h1.http.target_bytes));
        assert_eq!((h2.interim_responses, h2.idle), (h3.interim_responses, limits.idle_timeout));
        assert!(h3.header_bytes >= h1.http.trailer_bytes);
    }
}

//! The server role of HTTP/2: requests as they come, on any number of streams. A malformed request costs its stream, a
//! breach or a flood the connection; after that there is nothing more to accept, so no caller can loop on an error.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;
use h2::server::{Connection, SendResponse};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Request, Response, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use super::chunk::Chunk;
use super::flood::{Counted, Patience};
use super::stream::Answering;
use super::window::ConnectionWindow;
use super::{Limits, RecvStream, SendStream, fields};
use crate::http::{Refusal, Refused, RequestHead, Target, is_plain};
use crate::tcp::prefixed::Prefixed;
use crate::upgrade::{self, UpgradeToken};

/// A request, its body, and where its answer goes.
#[derive(Debug)]
pub struct Exchange {
    pub head: RequestHead,
    pub body: RecvStream,
    pub answer: SendStream,
}

/// Why a connection is over.
#[derive(Debug, Clone, thiserror::Error)]
#[error("HTTP/2 connection over: {detail}")]
pub struct ConnectionError {
    detail: String,
    breach: bool,
    overrun: bool,
}

impl ConnectionError {
    /// True where the client broke the protocol or one of our limits; false where the connection was lost.
    #[must_use]
    pub fn is_breach(&self) -> bool {
        self.breach
    }

    /// True where the client left more small frames unread than [`Limits::unread_frames`] allows.
    #[must_use]
    pub fn is_overrun(&self) -> bool {
        self.overrun
    }
}

impl From<h2::Error> for ConnectionError {
    fn from(error: h2::Error) -> Self {
        Self { breach: error.is_library(), overrun: super::is_overrun(&error), detail: error.to_string() }
    }
}

/// A connection from a client. It makes progress only while `accept` is polled, also for streams already accepted.
#[derive(Debug)]
pub struct ServerConn<T> {
    /// Gone once it has ended.
    connection: Option<Connection<Counted<Prefixed<T>>, Chunk>>,
    patience: Rc<Patience>,
    /// It was told to go: what is open goes on, and nothing new comes.
    leaving: bool,
    /// It was told to end, for a flood.
    flooded: bool,
    /// Runs once it was told so for a flood or because it is idle: its client may not take the GOAWAY.
    last_words: Option<Pin<Box<Sleep>>>,
    window: ConnectionWindow,
    /// When to look whether the connection is idle.
    idle: Pin<Box<Sleep>>,
    on_refusal: OnRefusal,
    limits: Limits,
}

/// Called for each request that nobody else sees.
struct OnRefusal(Box<dyn FnMut(Refused)>);

impl fmt::Debug for OnRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnRefusal")
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> ServerConn<T> {
    /// Exchanges the connection prefaces; `prefix` is what was already read from the stream. Gives up on a client that
    /// doesn't finish its own within `Limits::preface`.
    pub async fn new(io: T, prefix: Bytes, limits: &Limits) -> Result<Self, ConnectionError> {
        let patience = Patience::new(limits);
        let io = Counted::new(Prefixed::new(prefix, io), Rc::clone(&patience));
        let handshake = h2::server::Builder::new()
            .initial_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_concurrent_streams(limits.concurrent_streams)
            // What is above the limit but not absurd is answered here, where it can be told.
            .max_header_list_size(limits.header_list_bytes.saturating_mul(2))
            .max_send_buffer_size(limits.send_buffer)
            .data_frame_budget(limits.frame_budget())
            .max_pending_accept_reset_streams(limits.pending_resets)
            .enable_connect_protocol()
            .handshake(io);
        match tokio::time::timeout(limits.preface, handshake).await {
            Ok(connection) => {
                let (connection, idle) = (Some(connection?), Box::pin(tokio::time::sleep(limits.idle)));
                let (window, limits) = (ConnectionWindow::new(limits), limits.clone());
                let (leaving, flooded, last_words) = (false, false, None);
                let on_refusal = OnRefusal(Box::new(|_| {}));
                Ok(Self { connection, patience, leaving, flooded, last_words, window, idle, on_refusal, limits })
            }
            Err(_) => {
                let detail = "the preface was not finished in time".into();
                Err(ConnectionError { detail, breach: true, overrun: false })
            }
        }
    }

    /// Has `told` called for each request that the codec refuses.
    pub fn on_refusal(&mut self, told: impl FnMut(Refused) + 'static) {
        self.on_refusal = OnRefusal(Box::new(told));
    }

    /// True while all requests that the client may have open at once are.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.patience.open() == self.limits.concurrent_streams as usize
    }

    /// The next request; `None` once the connection has ended and every stream with it. After an error it has ended too.
    /// Cancel safe. Malformed requests are reset or answered here and never seen, but by [`ServerConn::on_refusal`].
    pub async fn accept(&mut self) -> Result<Option<Exchange>, ConnectionError> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Exchange>, ConnectionError>> {
        loop {
            let Some(connection) = &mut self.connection else { return Poll::Ready(Ok(None)) };
            if !self.flooded && self.patience.is_spent(cx) {
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                self.flooded = true;
                self.last_words = Some(Box::pin(tokio::time::sleep(self.limits.last_words)));
            }
            if let Some(window) = self.window.fit(self.patience.open()) {
                connection.set_target_window_size(window);
            }
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.patience.request_begun();
                    if let Some(exchange) = self.exchange(request, respond) {
                        return Poll::Ready(Ok(Some(exchange)));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.over(error.into()))),
                Poll::Ready(None) => return Poll::Ready(self.ended()),
                Poll::Pending => {
                    self.tell_missing();
                    if self.is_due(cx) {
                        return Poll::Ready(self.ended());
                    }
                    let flooded = !self.flooded && self.patience.is_spent(cx);
                    if !flooded && (self.last_words.is_some() || !self.is_idle(cx)) {
                        return Poll::Pending;
                    }
                    if !flooded {
                        self.graceful_shutdown();
                        self.last_words = Some(Box::pin(tokio::time::sleep(self.limits.last_words)));
                    }
                }
            }
        }
    }

    /// Tells of the requests that the crate refused by itself: it has given all that it has.
    fn tell_missing(&mut self) {
        let missing = self.patience.missing();
        // After a GOAWAY it passes over what comes late, which its client knows.
        if self.leaving || self.flooded {
            return;
        }
        for _ in 0..missing {
            (self.on_refusal.0)(Refused::reset(Refusal::Stream, "malformed head, too large, or a stream too many"));
        }
    }

    /// True once a client that was told to go has had its time. What is open when it was told in peace has more.
    fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(last_words) = &mut self.last_words else { return false };
        while last_words.as_mut().poll(cx).is_ready() {
            if self.flooded || self.patience.open() == 0 {
                return true;
            }
            last_words.as_mut().reset(Instant::now() + self.limits.last_words);
        }
        false
    }

    /// True once no request has been open for [`Limits::idle`]. The clock is set anew only when it fires.
    fn is_idle(&mut self, cx: &mut Context<'_>) -> bool {
        while self.idle.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let due = self.patience.quiet_since().map_or(now + self.limits.idle, |since| since + self.limits.idle);
            if due <= now {
                return true;
            }
            self.idle.as_mut().reset(due);
        }
        false
    }

    fn ended(&mut self) -> Result<Option<Exchange>, ConnectionError> {
        self.connection = None;
        if self.flooded { Err(flood()) } else { Ok(None) }
    }

    fn over(&mut self, error: ConnectionError) -> ConnectionError {
        self.connection = None;
        error
    }

    fn exchange(&mut self, request: Request<h2::RecvStream>, mut respond: SendResponse<Chunk>) -> Option<Exchange> {
        let (parts, body) = request.into_parts();
        match request_head(parts, &self.limits) {
            Ok(head) => {
                let kind = match head.method {
                    _ if head.protocol.is_some() => Answering::Upgrade,
                    Method::HEAD => Answering::Bodiless,
                    _ => Answering::Request,
                };
                let body = RecvStream::request(body, &self.limits, head.protocol.is_some());
                let answer = SendStream::response_to(respond, kind, &self.patience, self.limits.abort);
                Some(Exchange { head, body, answer })
            }
            Err(refused) => {
                match refused.status {
                    None => respond.send_reset(Reason::PROTOCOL_ERROR),
                    Some(status) => {
                        let mut response = Response::new(());
                        *response.status_mut() = status;
                        // Fails only where the client has gone already.
                        let _ = respond.send_response(response, true);
                    }
                }
                self.patience.request_over(refused.status.is_some());
                (self.on_refusal.0)(refused);
                None
            }
        }
    }

    /// Sends GOAWAY; streams that the client has opened until it sees it still complete, then `accept` gives `None`.
    pub fn graceful_shutdown(&mut self) {
        if self.leaving || self.flooded {
            return;
        }
        if let Some(connection) = &mut self.connection {
            connection.graceful_shutdown();
            self.leaving = true;
        }
    }
}

fn flood() -> ConnectionError {
    ConnectionError {
        detail: "too many frames or cancelled requests that cost us work for nothing".into(),
        breach: true,
        overrun: false,
    }
}

//= rfc9113#section-8.3.1
fn request_head(parts: http::request::Parts, limits: &Limits) -> Result<RequestHead, Refused> {
    let malformed = |reason| Refused::reset(Refusal::Malformed, reason);
    let host_refused = |reason| Refused::reset(Refusal::Host, reason);
    if list_bytes(&parts) > limits.header_list_bytes as usize {
        return Err(Refused::answered(Refusal::HeadTooLarge, "request head too large"));
    }
    let mut headers = parts.headers;
    if !fields::are_exact(&headers) {
        return Err(malformed("malformed field"));
    }
    fields::join_cookies(&mut headers).ok_or_else(|| malformed("malformed cookie"))?;
    if headers.len() > limits.fields {
        return Err(Refused::answered(Refusal::TooManyFields, "too many header fields"));
    }
    let uri = parts.uri.into_parts();
    match uri.path_and_query.as_ref().map(PathAndQuery::as_str) {
        Some(path) if path.len() > limits.target_bytes => {
            return Err(Refused::answered(Refusal::TargetTooLong, "request target too long"));
        }
        Some("*") if parts.method != Method::OPTIONS => return Err(malformed("* is for OPTIONS only")),
        Some(_) | None => {}
    }
    if uri.scheme.is_some_and(|scheme| scheme != http::uri::Scheme::HTTP && scheme != http::uri::Scheme::HTTPS) {
        return Err(malformed("unknown :scheme"));
    }
    let named_authority = uri.authority.is_some();
    let host = fields::take_host(&mut headers).ok_or_else(|| host_refused("malformed host field"))?;
    let authority = match (uri.authority, host) {
        (Some(authority), Some(host)) if authority != host => {
            return Err(host_refused(":authority and host differ"));
        }
        (Some(authority), _) => Some(authority),
        (None, host) => host,
    };
    if authority.as_ref().is_some_and(|authority| !is_plain(authority)) {
        return Err(host_refused("malformed authority"));
    }
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    let plain_connect = parts.method == Method::CONNECT && protocol.is_none();
    if plain_connect && authority.as_ref().and_then(Authority::port_u16).is_none_or(|port| port == 0) {
        return Err(host_refused("CONNECT without a port"));
    }
    let (method, protocol) = match protocol {
        None => (parts.method, None),
        //= rfc8441#section-4
        Some(_) if !named_authority => return Err(host_refused("extended CONNECT without an authority")),
        Some(protocol) => asked_for(protocol, &mut headers).map(|(method, token)| (method, Some(token)))?,
    };
    Ok(RequestHead {
        method,
        authority,
        path: uri.path_and_query.filter(|_| !plain_connect).map(Target::from),
        protocol,
        headers,
        version: Version::HTTP_2,
    })
}

/// Bytes of a head as SETTINGS_MAX_HEADER_LIST_SIZE counts them.
//= rfc9113#section-6.5.2
fn list_bytes(parts: &http::request::Parts) -> usize {
    let field = |name: &str, value: usize| name.len() + value + 32;
    let authority = parts.uri.authority().map_or(0, |it| field(":authority", it.as_str().len()));
    let path = parts.uri.path_and_query().map_or(0, |it| field(":path", it.as_str().len()));
    let scheme = parts.uri.scheme_str().map_or(0, |it| field(":scheme", it.len()));
    let fields = parts.headers.iter().map(|(name, value)| field(name.as_str(), value.len()));
    field(":method", parts.method.as_str().len()) + scheme + authority + path + fields.sum::<usize>()
}

/// The protocol that an extended CONNECT asks for, with what HTTP/1 says beside it.
//= rfc8441#section-5
fn asked_for(protocol: &h2::ext::Protocol, headers: &mut HeaderMap) -> Result<(Method, UpgradeToken), Refused> {
    let asked = upgrade::from_wire(protocol.as_ref(), headers, false);
    let asked = asked.ok_or(Refused::answered(Refusal::UnknownProtocol, "unknown :protocol"))?;
    upgrade::add_key(headers);
    Ok(asked)
}

//! The server role of HTTP/2: requests as they come, on any number of streams. A malformed request costs its stream, a
//! breach or a flood the connection; after that there is nothing more to accept, so no caller can loop on an error.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;
use h2::server::{Connection, SendResponse};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use super::chunk::Chunk;
use super::flood::{Counted, Patience};
use super::stream::Answering;
use super::window::ConnectionWindow;
use super::{Limits, RecvStream, SendStream, fields};
use crate::http::{RequestHead, Target, is_plain};
use crate::tcp::prefixed::Prefixed;
use crate::upgrade;

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
}

impl ConnectionError {
    /// True where the client broke the protocol or one of our limits; false where the connection was lost.
    #[must_use]
    pub fn is_breach(&self) -> bool {
        self.breach
    }
}

impl From<h2::Error> for ConnectionError {
    fn from(error: h2::Error) -> Self {
        Self { breach: error.is_library(), detail: error.to_string() }
    }
}

/// A connection from a client. It makes progress only while `accept` is polled, also for streams already accepted.
#[derive(Debug)]
pub struct ServerConn<T> {
    /// Gone once it has ended.
    connection: Option<Connection<Counted<Prefixed<T>>, Chunk>>,
    patience: Rc<Patience>,
    /// Runs once the connection was told to end for a flood: its client may not take the GOAWAY.
    ending: Option<Pin<Box<Sleep>>>,
    window: ConnectionWindow,
    /// When to look whether the connection is idle.
    idle: Pin<Box<Sleep>>,
    /// It is told to end for that, which is no breach.
    was_idle: bool,
    limits: Limits,
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
            .max_header_list_size(limits.header_list_bytes)
            .max_send_buffer_size(limits.send_buffer)
            .max_pending_accept_reset_streams(limits.pending_resets)
            .enable_connect_protocol()
            .handshake(io);
        match tokio::time::timeout(limits.preface, handshake).await {
            Ok(connection) => {
                let (connection, idle) = (Some(connection?), Box::pin(tokio::time::sleep(limits.idle)));
                let (window, limits) = (ConnectionWindow::new(limits), limits.clone());
                Ok(Self { connection, patience, ending: None, window, idle, was_idle: false, limits })
            }
            Err(_) => Err(ConnectionError { detail: "the preface was not finished in time".into(), breach: true }),
        }
    }

    /// The next request; `None` once the connection has ended and every stream with it. After an error it has ended too.
    /// Cancel safe. Malformed requests are reset or answered here and never seen.
    pub async fn accept(&mut self) -> Result<Option<Exchange>, ConnectionError> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Exchange>, ConnectionError>> {
        loop {
            let Some(connection) = &mut self.connection else { return Poll::Ready(Ok(None)) };
            if self.ending.is_none() && self.patience.is_spent(cx) {
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                self.ending = Some(Box::pin(tokio::time::sleep(self.limits.last_words)));
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
                Poll::Ready(None) if self.ending.is_some() => return Poll::Ready(self.ended()),
                Poll::Ready(None) => {
                    self.connection = None;
                    return Poll::Ready(Ok(None));
                }
                Poll::Pending if self.is_due(cx) => return Poll::Ready(self.ended()),
                Poll::Pending if self.ending.is_none() && self.patience.is_spent(cx) => {}
                Poll::Pending if self.ending.is_none() && self.is_idle(cx) => {
                    self.was_idle = true;
                    if let Some(connection) = &mut self.connection {
                        connection.abrupt_shutdown(Reason::NO_ERROR);
                    }
                    self.ending = Some(Box::pin(tokio::time::sleep(self.limits.last_words)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// True once a client that was told to go has had its time.
    fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        self.ending.as_mut().is_some_and(|ending| ending.as_mut().poll(cx).is_ready())
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

    /// The end of a connection that was told to go.
    fn ended(&mut self) -> Result<Option<Exchange>, ConnectionError> {
        let flood = self.over(flood());
        if self.was_idle { Ok(None) } else { Err(flood) }
    }

    fn over(&mut self, error: ConnectionError) -> ConnectionError {
        self.connection = None;
        error
    }

    fn exchange(&self, request: Request<h2::RecvStream>, mut respond: SendResponse<Chunk>) -> Option<Exchange> {
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
            Err(Refusal::Reset) => {
                respond.send_reset(Reason::PROTOCOL_ERROR);
                self.patience.request_over(false);
                None
            }
            Err(Refusal::Answer(status)) => {
                let mut response = Response::new(());
                *response.status_mut() = status;
                // Fails only where the client has gone already.
                let _ = respond.send_response(response, true);
                self.patience.request_over(true);
                None
            }
        }
    }

    /// Sends GOAWAY; streams that the client has opened until it sees it still complete, then `accept` gives `None`.
    pub fn graceful_shutdown(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.graceful_shutdown();
        }
    }
}

fn flood() -> ConnectionError {
    ConnectionError {
        detail: "too many frames or cancelled requests that cost us work for nothing".into(),
        breach: true,
    }
}

/// Refusal of a request that nobody but the codec sees.
enum Refusal {
    Reset,
    Answer(StatusCode),
}

//= rfc9113#section-8.3.1
fn request_head(parts: http::request::Parts, limits: &Limits) -> Result<RequestHead, Refusal> {
    let mut headers = parts.headers;
    if !fields::are_exact(&headers) {
        return Err(Refusal::Reset);
    }
    fields::join_cookies(&mut headers).ok_or(Refusal::Reset)?;
    if headers.len() > limits.fields {
        return Err(Refusal::Answer(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
    let uri = parts.uri.into_parts();
    match uri.path_and_query.as_ref().map(PathAndQuery::as_str) {
        Some(path) if path.len() > limits.target_bytes => return Err(Refusal::Answer(StatusCode::URI_TOO_LONG)),
        Some("*") if parts.method != Method::OPTIONS => return Err(Refusal::Reset),
        Some(_) | None => {}
    }
    if uri.scheme.is_some_and(|scheme| scheme != http::uri::Scheme::HTTP && scheme != http::uri::Scheme::HTTPS) {
        return Err(Refusal::Reset);
    }
    let named_authority = uri.authority.is_some();
    let host = fields::take_host(&mut headers).ok_or(Refusal::Reset)?;
    let authority = match (uri.authority, host) {
        (Some(authority), Some(host)) if authority != host => return Err(Refusal::Reset),
        (Some(authority), _) => Some(authority),
        (None, host) => host,
    };
    if authority.as_ref().is_some_and(|authority| !is_plain(authority)) {
        return Err(Refusal::Reset);
    }
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    let plain_connect = parts.method == Method::CONNECT && protocol.is_none();
    if plain_connect && authority.as_ref().and_then(Authority::port_u16).is_none_or(|port| port == 0) {
        return Err(Refusal::Reset);
    }
    let (method, protocol) = match protocol {
        None => (parts.method, None),
        //= rfc8441#section-4
        Some(_) if !named_authority => return Err(Refusal::Reset),
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

/// The protocol that an extended CONNECT asks for, with what HTTP/1 says beside it.
//= rfc8441#section-5
fn asked_for(protocol: &h2::ext::Protocol, headers: &mut HeaderMap) -> Result<(Method, Bytes), Refusal> {
    let asked = upgrade::from_wire(protocol.as_ref(), headers, false);
    let asked = asked.ok_or(Refusal::Answer(StatusCode::NOT_IMPLEMENTED))?;
    upgrade::add_key(headers);
    Ok(asked)
}

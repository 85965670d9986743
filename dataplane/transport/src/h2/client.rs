//! The client role of HTTP/2: one connection, shared by clones, with its driver as a local task. A request takes a slot
//! among the streams that the server allows; nothing waits inside for one, so that whoever holds several connections
//! can open another.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use h2::client::SendRequest;
use http::uri::{self, Uri};
use http::{Method, Request, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::chunk::Chunk;
use super::deaf::{Deaf, Greeting};
use super::fields::end_to_end;
use super::stream::Asked;
use super::window::ConnectionWindow;
use super::{Limits, RecvStream, SendStream, stream_error};
use crate::http::{RequestHead, SendError, StreamError, Target};
use crate::upgrade::{self, ExtendedConnect};

/// Tells that a slot may have become free on one of the connections that were made with it, or that a server allows
/// another number of them.
#[derive(Debug, Clone, Default)]
pub struct Room(Rc<Changes>);

#[derive(Debug, Default)]
struct Changes {
    of_slots: Notify,
    of_limits: Notify,
}

impl Room {
    /// Resolves at the next change after the call. Cancel safe: a wake-up that is not used goes to the next in line.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.of_slots.notified()
    }

    /// Resolves when one of the servers has allowed another number of streams after the call. Cancel safe.
    pub fn limit_changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.of_limits.notified()
    }

    /// Wakes who has waited longest.
    pub fn wake_one(&self) {
        self.0.of_slots.notify_one();
    }

    /// Wakes all who wait: there may be more than one slot.
    fn wake_all(&self) {
        self.0.of_slots.notify_waiters();
    }
}

/// A connection to a server; clones share it. It ends when the last clone and the last stream are gone.
#[derive(Debug, Clone)]
pub struct ClientConn {
    requests: SendRequest<Chunk>,
    streams: Rc<Streams>,
    limits: Rc<Limits>,
}

/// State of a connection's streams, shared by its clones, streams and driver.
#[derive(Debug)]
struct Streams {
    closed: Cell<bool>,
    /// It ended by [`Limits::unread_frames`].
    overrun: Cell<bool>,
    open: Cell<usize>,
    /// When the last of them ended, or the connection began.
    quiet_since: Cell<Instant>,
    /// Number of streams that the server allows; `None` before its SETTINGS.
    allowed: Cell<Option<usize>>,
    greeting: Greeting,
    room: Room,
    settled: Notify,
}

/// The place of one stream, given back when both its halves are gone.
#[derive(Debug)]
pub(super) struct OpenStream(Rc<Streams>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        if self.0.open.get() == 0 {
            self.0.quiet_since.set(Instant::now());
        }
        self.0.room.wake_one();
    }
}

/// Streams that may be opened before the server's SETTINGS are there.
const UNSETTLED: usize = 0;

impl ClientConn {
    /// Sends our preface and spawns the connection's driver on the current `LocalSet`; the driver ends with the connection.
    pub async fn connect<T>(io: T, limits: &Limits) -> Result<Self, StreamError>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        Self::connect_with(io, limits, Room::default()).await
    }

    /// The same, telling `room` of its slots.
    pub async fn connect_with<T>(io: T, limits: &Limits, room: Room) -> Result<Self, StreamError>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let io = Deaf::new(io);
        let greeting = io.greeting();
        let (requests, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_max_send_streams(UNSETTLED)
            .initial_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_header_list_size(limits.header_list_bytes)
            .max_send_buffer_size(limits.send_buffer)
            .data_frame_budget(limits.frame_budget())
            .handshake(io)
            .await
            .map_err(|error| stream_error(&error))?;
        let streams = Rc::new(Streams {
            closed: Cell::new(false),
            overrun: Cell::new(false),
            open: Cell::new(0),
            quiet_since: Cell::new(Instant::now()),
            allowed: Cell::new(None),
            greeting,
            room,
            settled: Notify::new(),
        });
        let window = ConnectionWindow::new(limits);
        tokio::task::spawn_local(drive(connection, Rc::clone(&streams), window));
        Ok(Self { requests, streams, limits: Rc::new(limits.clone()) })
    }

    /// Waits for the server's SETTINGS, no longer than `Limits::preface`: only then is it known how many streams it takes.
    pub async fn settled(&self) -> Result<(), StreamError> {
        let settled = async {
            loop {
                let mut changed = pin!(self.streams.settled.notified());
                changed.as_mut().enable();
                if self.is_closed() {
                    return Err(match self.streams.greeting.has_begun() {
                        true => StreamError::Protocol("it speaks no HTTP/2"),
                        false => StreamError::ConnectionLost("it closed before it said anything".into()),
                    });
                }
                if self.streams.allowed.get().is_some() {
                    return Ok(());
                }
                changed.await;
            }
        };
        let late = Err(StreamError::Limit("no SETTINGS in time"));
        tokio::time::timeout(self.limits.preface, settled).await.unwrap_or(late)
    }

    /// A slot for one request, where the server's limit and ours leave one now.
    #[must_use]
    pub fn slot(&self) -> Option<Slot> {
        self.has_room().then(|| {
            self.streams.open.set(self.streams.open.get() + 1);
            let open = Some(Rc::new(OpenStream(Rc::clone(&self.streams))));
            Slot { conn: self.clone(), open, scheme: uri::Scheme::HTTP }
        })
    }

    /// True where a request could be sent now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.streams.open.get() < self.allowed() && !self.is_closed()
    }

    /// Requests that may be under way at once, by the server's limit and ours; 0 before its SETTINGS.
    #[must_use]
    pub fn allowed(&self) -> usize {
        self.streams.allowed.get().unwrap_or(0).min(self.limits.concurrent_streams as usize)
    }

    /// Requests under way.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.streams.open.get()
    }

    /// Since when no request has been under way; `None` while one is.
    #[must_use]
    pub fn quiet_since(&self) -> Option<Instant> {
        (self.streams.open.get() == 0).then(|| self.streams.quiet_since.get())
    }

    /// Sends a request head if there is a slot; where there is none, the error says `unprocessed`.
    pub async fn send(&self, head: &RequestHead, end: bool) -> Result<(SendStream, RecvStream), SendError> {
        self.settled().await.map_err(unsent)?;
        match self.slot() {
            Some(mut slot) => slot.send(head, end).await,
            None if self.is_closed() => Err(unsent(StreamError::ConnectionLost("going away".into()))),
            None => Err(unsent(StreamError::Limit("the server's concurrent streams"))),
        }
    }

    /// True where the server takes requests to change protocols (RFC 8441). Known once `settled`.
    #[must_use]
    pub fn takes_upgrades(&self) -> bool {
        self.requests.is_extended_connect_protocol_enabled()
    }

    /// True once the connection has ended because more small frames came than [`Limits::unread_frames`] allows.
    #[must_use]
    pub fn was_overrun(&self) -> bool {
        self.streams.overrun.get()
    }

    /// True once the connection takes no further request: closed, failed or going away. Streams under way may go on.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let going_away = || {
            let ready = self.requests.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
            matches!(ready, Poll::Ready(Err(_)))
        };
        self.streams.closed.get() || going_away()
    }
}

/// Drives a connection to its end and notes what its server allows.
async fn drive<T>(mut connection: h2::client::Connection<T, Chunk>, streams: Rc<Streams>, mut window: ConnectionWindow)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let end = poll_fn(|cx| {
        if let Some(window) = window.fit(streams.open.get()) {
            connection.set_target_window_size(window);
        }
        let end = std::pin::Pin::new(&mut connection).poll(cx);
        // A server may also allow none for a while, from the first.
        let allowed = streams.greeting.is_whole().then(|| connection.max_concurrent_send_streams());
        if streams.allowed.replace(allowed) != allowed {
            streams.settled.notify_waiters();
            streams.room.0.of_limits.notify_waiters();
            streams.room.wake_all();
        }
        end
    });
    if let Err(error) = end.await {
        streams.overrun.set(super::is_overrun(&error));
        tracing::debug!(%error, "HTTP/2 connection ended");
    }
    streams.closed.set(true);
    streams.settled.notify_waiters();
    streams.room.wake_all();
}

/// Room for one request on a connection.
#[derive(Debug)]
pub struct Slot {
    conn: ClientConn,
    /// Gone once it was used.
    open: Option<Rc<OpenStream>>,
    scheme: uri::Scheme,
}

impl Slot {
    /// The request is one of `https`: there is TLS below.
    //= rfc9113#section-8.3.1
    pub fn secured(&mut self) {
        self.scheme = uri::Scheme::HTTPS;
    }

    /// Sends the one request that the slot is for. After a GOAWAY the error says `unprocessed`.
    #[expect(clippy::unused_async, reason = "the seam is asynchronous for codecs that write here")]
    pub async fn send(&mut self, head: &RequestHead, end: bool) -> Result<(SendStream, RecvStream), SendError> {
        let open = self.open.take().ok_or(unsent(StreamError::Limit("one request for a slot")))?;
        let ClientConn { requests, limits, .. } = &mut self.conn;
        if head.protocol.is_some() && !requests.is_extended_connect_protocol_enabled() {
            return Err(unsent(StreamError::Protocol("the server has no extended CONNECT")));
        }
        let (request, asked) = request(head, &self.scheme).map_err(unsent)?;
        // A failure here means that the request was not sent.
        let sent = requests.send_request(request, end).map_err(|error| unsent(stream_error(&error)));
        let (response, body) = sent?;
        let send = SendStream::request(body, end, Rc::clone(&open), limits.abort);
        Ok((send, RecvStream::response(response, limits, asked, open)))
    }

    /// As [`ClientConn::takes_upgrades`].
    #[must_use]
    pub fn takes_upgrades(&self) -> bool {
        self.conn.takes_upgrades()
    }
}

fn unsent(error: StreamError) -> SendError {
    SendError { error, unprocessed: true }
}

fn request(head: &RequestHead, scheme: &uri::Scheme) -> Result<(Request<()>, Asked), StreamError> {
    let mut parts = uri::Parts::default();
    parts.authority = head.authority.clone();
    let mut version = Version::HTTP_2;
    if head.method != Method::CONNECT {
        let path = head.path.as_ref().map(Target::to_uri).transpose();
        parts.path_and_query = path.map_err(|_| StreamError::Limit("request target"))?;
        match parts.authority {
            Some(_) => parts.scheme = Some(scheme.clone()),
            // The crate takes a request without an authority only as one that came by HTTP/1.
            None => version = Version::HTTP_11,
        }
    }
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| StreamError::Protocol("request without a target"))?;
    *request.method_mut() = head.method.clone();
    *request.version_mut() = version;
    *request.headers_mut() = end_to_end(&head.headers);
    let asked = match &head.protocol {
        Some(token) => ask(&mut request, &upgrade::to_wire(&head.method, token))?,
        None => Asked::Request,
    };
    Ok((request, asked))
}

/// Makes an extended CONNECT of a request to change protocols.
//= rfc8441#section-5
fn ask(request: &mut Request<()>, wanted: &ExtendedConnect) -> Result<Asked, StreamError> {
    if !wanted.fields.is_empty() {
        return Err(StreamError::Protocol("HTTP/2 has no name for this protocol, or it is not asked for by GET"));
    }
    let protocol = std::str::from_utf8(wanted.protocol).map_err(|_| StreamError::Protocol("protocol"))?;
    request.extensions_mut().insert(h2::ext::Protocol::from(protocol));
    *request.method_mut() = Method::CONNECT;
    Ok(Asked::Upgrade(upgrade::take_key(request.headers_mut())))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    /// A strict server refuses what comes by TLS and says something else.
    #[test]
    fn a_request_by_tls_says_https() {
        let head = RequestHead {
            method: Method::POST,
            authority: Some("api.example.com".parse().unwrap()),
            path: Some("/a.A/B".parse().unwrap()),
            protocol: None,
            headers: HeaderMap::new(),
            version: Version::HTTP_2,
        };
        for scheme in [uri::Scheme::HTTP, uri::Scheme::HTTPS] {
            let (request, _) = request(&head, &scheme).unwrap();
            assert_eq!(request.uri().scheme(), Some(&scheme));
        }
    }
}

//! The server role: one request at a time, in order; what can't be served is answered here with the status that HTTP
//! gives it, and the connection closes in a way that lets the client read that answer.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut};
use http::{Method, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, timeout, timeout_at};

use super::decode::Decoder;
use super::encode::{self, Answering, Outgoing};
use super::parse::{self, Asked, ParsedRequest, Rejection};
use super::socket::{WriteIo, halves};
use super::stream::{Body, Link, ReadSide, Sink, Tunnel, WriteSide};
use super::{Limits, MAX_EMPTY_LINES, Refusal};
use crate::http::{RecvBody, Refused, RequestHead, Responder as AnyResponder, ResponseHead, StreamError};
use crate::tcp;

/// Why no further request comes from this connection.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ServerError {
    /// The request was refused; the answer has been sent and the connection closed.
    #[error("request refused with {}: {reason}", refusal.status())]
    Refused { refusal: Refusal, reason: &'static str },
    /// The connection failed, or ended inside a message.
    #[error("connection failed")]
    Connection(#[source] StreamError),
}

impl ServerError {
    /// The status that was answered, if one was.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            ServerError::Refused { refusal, .. } => Some(refusal.status()),
            ServerError::Connection(_) => None,
        }
    }

    /// The request that the codec refused, if it did.
    pub fn refused(&self) -> Option<Refused> {
        match self {
            ServerError::Refused { refusal, reason } => Some(Refused::answered(*refusal, reason)),
            ServerError::Connection(_) => None,
        }
    }
}

/// A connection from a client.
#[derive(Debug)]
pub struct ServerConn {
    io: TcpStream,
    read: ReadSide,
    write: WriteSide,
    link: Link,
    limits: Limits,
    /// The current (or last) request was answered completely, or none has come yet.
    keep_alive: bool,
    /// The current (or last) request was HEAD.
    to_head: bool,
    leading_crlf: usize,
    /// Started at the first byte of an incomplete head.
    head_started: Option<Instant>,
    idle: IdleTimer,
}

/// One request and the way to its answer.
#[derive(Debug)]
pub struct Exchange<'a> {
    pub head: RequestHead,
    pub body: RecvBody<'a>,
    pub responder: AnyResponder<'a>,
}

impl ServerConn {
    /// `prefix` is what was already read from the stream.
    pub fn new(io: TcpStream, prefix: &[u8], limits: Limits) -> Self {
        Self {
            io,
            read: ReadSide::new(prefix),
            write: WriteSide::new(),
            link: Link::new(limits.leaving.clone()),
            idle: IdleTimer { sleep: None, allowed: limits.http.idle_timeout, since: Instant::now() },
            limits,
            keep_alive: true,
            to_head: false,
            leading_crlf: 0,
            head_started: None,
        }
    }

    /// The next request; `None` when the connection has ended cleanly. An exchange that was dropped without a complete
    /// answer ends the connection; one whose body was malformed is answered first, where it has no answer yet. Cancel safe
    /// while it waits for a request.
    pub async fn next(&mut self) -> Result<Option<Exchange<'_>>, ServerError> {
        if self.write.outgoing == Outgoing::Unanswered
            && !self.write.broken
            && let Some(rejection) = self.read.rejection
        {
            return Err(Box::pin(self.reject(rejection)).await);
        }
        if !self.settle().await {
            return Ok(None);
        }
        let Some(parsed) = self.next_head().await? else { return Ok(None) };
        self.read.buffer.bytes.advance(parsed.consumed);
        Ok(Some(self.exchange(parsed)))
    }

    /// True between requests, with nothing of the next one read.
    pub fn is_idle(&self) -> bool {
        self.answered() && self.read.decoder.is_done() && self.read.buffer.bytes.is_empty()
    }

    /// True when nothing of an answer is left to be sent.
    fn answered(&self) -> bool {
        matches!(self.write.outgoing, Outgoing::Done | Outgoing::Dropped) && self.write.buffer.is_empty()
    }

    /// Makes the answer to the current or next request the last one (`connection: close`).
    pub fn close_after_current(&mut self) {
        self.link.close.set(true);
    }

    /// The socket, for its addresses.
    pub fn stream(&self) -> &TcpStream {
        &self.io
    }

    /// The raw stream after a CONNECT that was answered with 2xx; bytes already read come first.
    pub fn into_tunnel(self) -> (tcp::Reader, tcp::Writer) {
        tcp::split(self.io, &self.read.buffer.bytes)
    }

    /// The socket and what was read from it but not consumed, e.g. to detect the payload inside an accepted CONNECT.
    pub fn into_parts(self) -> (TcpStream, bytes::Bytes) {
        (self.io, self.read.buffer.bytes.freeze())
    }

    /// Closes so that the client can still read what was sent: FIN, then reads on for a moment.
    pub async fn close(mut self) {
        self.linger().await;
    }

    fn exchange(&mut self, parsed: ParsedRequest) -> Exchange<'_> {
        self.link.awaits_continue.set(parsed.expects_continue);
        self.link.sent.set(false);
        self.head_started = None;
        self.leading_crlf = 0;
        self.keep_alive = parsed.keep_alive;
        self.to_head = parsed.head.method == Method::HEAD;
        self.read.decoder = parsed.body;
        // Until a head is written, the exchange owes an answer.
        self.write.outgoing = Outgoing::Unanswered;
        self.link.tunnel.set(Tunnel::Closed);
        let asked = Asked::from(&parsed.head);
        let http10 = parsed.head.version == http::Version::HTTP_10;
        let (read_io, write_io) = halves(&mut self.io);
        let body = if self.read.decoder.is_done() {
            RecvBody::Empty
        } else {
            RecvBody::H1(Body { io: read_io, side: &mut self.read, link: &self.link, limits: &self.limits })
        };
        let responder = AnyResponder::H1(Responder {
            io: write_io,
            side: &mut self.write,
            link: &self.link,
            keep_alive: &mut self.keep_alive,
            asked,
            http10,
        });
        Exchange { head: parsed.head, body, responder }
    }

    /// Brings the connection to where a request may start; false when it has to end.
    async fn settle(&mut self) -> bool {
        self.idle.since = Instant::now();
        let complete = self.answered();
        let refused_tunnel = matches!(self.read.decoder, Decoder::Tunnel) && self.link.tunnel.get() == Tunnel::Refused;
        if refused_tunnel {
            self.read.decoder = Decoder::Empty;
            // Bytes that came ahead belong to a stream that there will not be: they are no requests.
            self.keep_alive &= self.read.buffer.bytes.is_empty();
        }
        let goes_on = complete && self.keep_alive && !self.write.broken && !self.read.broken;
        if goes_on && (self.read.decoder.is_done() || Box::pin(self.drain_body()).await) {
            self.read.buffer.shrink();
            return true;
        }
        if matches!(self.write.outgoing, Outgoing::UntilClose | Outgoing::Tunnel) && !self.write.broken {
            // The writer was stopped early, and a clean end of the connection would pass for the end of its message.
            let (_, io) = halves(&mut self.io);
            Box::pin(Sink { io, side: &mut self.write, link: &self.link }.abort()).await;
            return false;
        }
        if (complete && !self.write.broken) || self.link.linger.get() {
            Box::pin(self.linger()).await;
        }
        false
    }

    async fn next_head(&mut self) -> Result<Option<ParsedRequest>, ServerError> {
        let mut fresh = true;
        loop {
            match self.parse(fresh) {
                Ok(Some(parsed)) => return Ok(Some(parsed)),
                Ok(None) => {}
                Err(rejection) => return Err(Box::pin(self.reject(rejection)).await),
            }
            let searched = self.read.buffer.bytes.len();
            let read = if searched == 0 { self.fill_idle().await } else { Box::pin(self.fill_head()).await };
            match read {
                Ok(Some(0)) if self.read.buffer.bytes.is_empty() => return Ok(None),
                Ok(Some(0)) => return Err(ServerError::Connection(StreamError::Truncated)),
                Ok(Some(_)) => fresh = self.read.buffer.bytes[searched..].contains(&b'\n') || searched == 0,
                Ok(None) if searched == 0 => return Ok(None),
                Ok(None) => {
                    let rejection = Rejection { refusal: Refusal::HeadTimeout, reason: "request head too slow" };
                    return Err(Box::pin(self.reject(rejection)).await);
                }
                Err(_) if self.read.buffer.bytes.is_empty() => return Ok(None),
                Err(error) => return Err(ServerError::Connection(error)),
            }
        }
    }

    /// `line_ended`: the new bytes can have completed a line; otherwise only sizes are judged, so that bytes that trickle
    /// in cost linear time.
    fn parse(&mut self, line_ended: bool) -> Result<Option<ParsedRequest>, Rejection> {
        while self.read.buffer.bytes.starts_with(b"\r\n") {
            self.leading_crlf += 1;
            if self.leading_crlf > MAX_EMPTY_LINES {
                return Err("empty lines instead of a request".into());
            }
            self.read.buffer.bytes.advance(2);
            self.head_started = None;
        }
        // Half an empty line may become a whole one.
        if self.read.buffer.bytes.is_empty() || &self.read.buffer.bytes[..] == b"\r" {
            return Ok(None);
        }
        self.to_head = self.read.buffer.bytes.starts_with(b"HEAD ");
        let (bytes, http) = (&self.read.buffer.bytes, &self.limits.http);
        // A target can only be too long while its line has not ended.
        let most = if bytes.contains(&b'\n') { http.head_bytes } else { http.target_bytes };
        if !line_ended && bytes.len() <= most {
            return Ok(None);
        }
        parse::request(&self.read.buffer.bytes, &self.limits.http)
    }

    /// Waits for the first bytes of a request; `None` when the connection was idle for too long.
    async fn fill_idle(&mut self) -> Result<Option<usize>, StreamError> {
        let (mut io, _) = halves(&mut self.io);
        poll_fn(|cx| {
            if let Poll::Ready(read) = self.read.poll_fill(cx, &mut io) {
                return Poll::Ready(read.map(Some));
            }
            self.idle.poll_expired(cx).map(|()| Ok(None))
        })
        .await
    }

    /// Waits for more bytes of a head that has begun; `None` when it takes too long.
    async fn fill_head(&mut self) -> Result<Option<usize>, StreamError> {
        let started = *self.head_started.get_or_insert_with(Instant::now);
        let (mut io, _) = halves(&mut self.io);
        let fill = poll_fn(|cx| self.read.poll_fill(cx, &mut io));
        timeout_at(started + self.limits.http.head_timeout, fill).await.ok().transpose()
    }

    /// Reads over what is left of a request body; false when it is too much or too slow.
    async fn drain_body(&mut self) -> bool {
        let mut left = self.limits.drain_bytes;
        let (io, _) = halves(&mut self.io);
        let mut body = Body { io, side: &mut self.read, link: &self.link, limits: &self.limits };
        let drained = timeout(self.limits.linger_idle, async {
            loop {
                match body.frame().await {
                    Ok(Some(crate::http::Frame::Data(data))) => match left.checked_sub(data.len() as u64) {
                        Some(rest) => left = rest,
                        None => return false,
                    },
                    Ok(Some(crate::http::Frame::Trailers(_))) => {}
                    Ok(None) => return true,
                    Err(_) => return false,
                }
            }
        });
        drained.await.unwrap_or(false)
    }

    /// Answers what can't be served, and closes.
    async fn reject(&mut self, rejection: Rejection) -> ServerError {
        let Rejection { refusal, reason } = rejection;
        let status = refusal.status();
        let out = &mut self.write.buffer.head;
        out.put_slice(b"HTTP/1.1 ");
        out.put_slice(status.as_str().as_bytes());
        out.put_u8(b' ');
        out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
        out.put_slice(b"\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: ");
        out.put_slice(itoa::Buffer::new().format(reason.len() + 1).as_bytes());
        out.put_slice(b"\r\n\r\n");
        //= rfc9110#section-9.3.2
        if !self.to_head {
            out.put_slice(reason.as_bytes());
            out.put_u8(b'\n');
        }
        self.linger().await;
        ServerError::Refused { refusal, reason }
    }

    /// Delayed close: an RST for unread bytes would take the answer away from the client.
    //= rfc9112#section-9.6
    async fn linger(&mut self) {
        self.write.broken = true;
        let (mut read_io, mut write_io) = halves(&mut self.io);
        let closing = async {
            let drained = poll_fn(|cx| self.write.buffer.poll_drain(cx, &mut write_io)).await;
            if drained.is_err() || write_io.shutdown().await.is_err() {
                return;
            }
            while !self.read.buffer.eof {
                self.read.buffer.bytes.clear();
                let read = poll_fn(|cx| self.read.poll_fill(cx, &mut read_io));
                if !matches!(timeout(self.limits.linger_idle, read).await, Ok(Ok(_))) {
                    return;
                }
            }
        };
        // The time is up: the client had its chance.
        let _ = timeout(self.limits.linger, closing).await;
    }
}

/// Fires when nothing has happened for a while. Re-armed only when it fires, so that a request costs no timer operation.
#[derive(Debug)]
struct IdleTimer {
    sleep: Option<Pin<Box<Sleep>>>,
    allowed: Duration,
    since: Instant,
}

impl IdleTimer {
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.since + self.allowed;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

/// Sender of the answer to one request.
#[derive(Debug)]
pub struct Responder<'a> {
    io: WriteIo<'a>,
    side: &'a mut WriteSide,
    link: &'a Link,
    keep_alive: &'a mut bool,
    asked: Asked,
    http10: bool,
}

impl<'a> Responder<'a> {
    /// Sends an interim response. Dropped towards HTTP/1.0, and so is 101.
    //= rfc9110#section-15.2
    pub async fn interim(&mut self, head: &ResponseHead) -> Result<(), StreamError> {
        if self.http10 || !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        if head.status == StatusCode::CONTINUE {
            self.link.awaits_continue.set(false);
        }
        encode::interim(&mut self.side.buffer.head, head);
        poll_fn(|cx| self.side.poll_drain(cx, &mut self.io, self.link)).await
    }

    /// Writes the final head; it leaves with the first body bytes, at `flush`, or at the end of the message.
    pub async fn head(self, head: &ResponseHead, end: bool) -> Result<Sink<'a>, StreamError> {
        //= rfc9110#section-10.1.1
        let body_will_not_come = self.link.awaits_continue.get();
        // Bytes that the client of a refused CONNECT sends ahead may still arrive, and they are no request.
        let refused = self.asked == Asked::Connect && !head.status.is_success();
        let keep_alive = *self.keep_alive && !self.link.is_last() && !body_will_not_come && !refused;
        let answering = Answering { asked: self.asked, http10: self.http10, keep_alive };
        let (framing, keep_alive) = encode::response(&mut self.side.buffer.head, head, end, &answering)?;
        self.side.outgoing = framing;
        *self.keep_alive = keep_alive && framing != Outgoing::Tunnel;
        let mut sink = Sink { io: self.io, side: self.side, link: self.link };
        if framing == Outgoing::Tunnel {
            sink.flush().await?;
            sink.link.set_tunnel(Tunnel::Open);
            return Ok(sink);
        }
        sink.link.set_tunnel(Tunnel::Refused);
        if end {
            sink.finish(None).await?;
        }
        Ok(sink)
    }

    /// Makes this answer the last one on its connection.
    pub fn close_after(&mut self) {
        self.link.close.set(true);
    }

    /// Resolves when the client has closed or reset the connection; a half-close is none. Cancel safe.
    pub async fn gone(&self) {
        self.io.gone().await;
    }
}

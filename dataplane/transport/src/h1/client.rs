//! The client role: one request at a time on a connection that is reused only when both messages ended where their framing
//! said, and not one byte came after.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use tokio::net::TcpStream;

use super::Limits;
use super::decode::Decoder;
use super::encode::{self, Outgoing};
use super::parse::{self, Asked};
use super::socket::{ReadIo, Socket};
use super::stream::{Body, Link, ReadSide, Sink, Tunnel, WriteSide};
use crate::http::{RecvBody, RequestHead, ResponseHead, ResponseRecv, SendBody, SendError, StreamError};
use crate::tls::OutsideStream;

/// A connection to a server.
#[derive(Debug)]
pub struct ClientConn {
    io: Socket,
    read: ReadSide,
    write: WriteSide,
    link: Link,
    limits: Limits,
    progress: Progress,
}

/// How far the current response has come.
#[derive(Debug, Default)]
struct Progress {
    /// The final head was read, or no request was sent yet.
    answered: bool,
    /// The server will keep the connection open.
    keep_alive: bool,
    /// For how long, as far as it says.
    keep_alive_timeout: Option<Duration>,
    interim: u32,
    /// Bytes already searched for a line end.
    searched: usize,
}

impl ClientConn {
    pub fn new(io: TcpStream, limits: Limits) -> Self {
        Self::over(OutsideStream::Plain(io), limits)
    }

    /// The same on a connection on which this side may have begun TLS.
    pub fn over(io: OutsideStream, limits: Limits) -> Self {
        let progress = Progress { answered: true, keep_alive: true, ..Progress::default() };
        let (read, write) = (ReadSide::new(b""), WriteSide::new());
        Self { io: io.into(), read, write, link: Link::default(), limits, progress }
    }

    /// A connection that carries bytes from its beginning, and no message.
    pub fn of_bytes(io: OutsideStream, limits: Limits) -> Self {
        let mut conn = Self::over(io, limits);
        conn.read.decoder = Decoder::Tunnel;
        conn.write.outgoing = Outgoing::Tunnel;
        conn.link.set_tunnel(Tunnel::Open);
        conn
    }

    /// Both directions of one that carries bytes.
    pub fn halves(&mut self) -> (RecvBody<'_>, SendBody<'_>) {
        let (read, write) = self.io.halves();
        let body = Body { io: read, side: &mut self.read, link: &self.link, limits: &self.limits };
        let sink = Sink { io: write, side: &mut self.write, link: &self.link };
        (RecvBody::H1(body), SendBody::H1(sink))
    }

    /// Starts a request. With `end` it is written at once; otherwise the head leaves with the first body bytes, at `flush`
    /// or at `finish`. Both halves may be used at the same time: a server may answer early. A request with `protocol` asks
    /// for an upgrade: body bytes then wait for the 101, whatever `end` says. CONNECT is refused.
    pub async fn send(&mut self, head: &RequestHead, end: bool) -> Result<(SendBody<'_>, ResponseRecv<'_>), SendError> {
        if !self.reusable() {
            return Err(unprocessed(StreamError::Protocol("the connection still carries another message")));
        }
        self.write.buffer.head.clear();
        self.write.outgoing = match encode::request(&mut self.write.buffer.head, head, end) {
            Ok(outgoing) => outgoing,
            Err(error) => {
                self.write.buffer.head.clear();
                return Err(unprocessed(error));
            }
        };
        self.link.sent.set(false);
        self.link.tunnel.set(Tunnel::Closed);
        self.progress = Progress::default();
        let (read_io, write_io) = self.io.halves();
        let mut sink = Sink { io: write_io, side: &mut self.write, link: &self.link };
        if end || head.protocol.is_some() {
            // An incomplete head can't have been acted on.
            sink.flush().await.map_err(unprocessed)?;
        }
        let reader = ResponseReader {
            io: read_io,
            side: &mut self.read,
            link: &self.link,
            limits: &self.limits,
            progress: &mut self.progress,
            asked: Asked::from(head),
        };
        Ok((SendBody::H1(sink), ResponseRecv::H1(reader)))
    }

    /// True when another request may be sent: the last exchange ended cleanly on both sides.
    pub fn reusable(&self) -> bool {
        self.progress.answered
            && self.progress.keep_alive
            && !self.read.broken
            && !self.write.broken
            && self.read.decoder.is_done()
            && (self.write.outgoing == Outgoing::Done || self.upgrade_was_refused())
            && self.write.buffer.is_empty()
            && self.read.buffer.bytes.is_empty()
            && !self.read.buffer.eof
    }

    fn upgrade_was_refused(&self) -> bool {
        self.write.outgoing == Outgoing::Held && self.link.tunnel.get() == Tunnel::Refused
    }

    /// How long the server keeps this connection without a request, as its last answer said (`Keep-Alive: timeout=5`).
    pub fn keep_alive_timeout(&self) -> Option<Duration> {
        self.progress.keep_alive_timeout
    }

    /// True when an idle connection has been closed, or has sent what nobody asked for. Costs no system call while the
    /// socket is quiet.
    pub fn is_stale(&mut self) -> bool {
        let is_stale = self.io.has_something();
        self.read.broken |= is_stale;
        is_stale
    }

    /// The socket, for its addresses.
    #[cfg(test)]
    pub(crate) fn stream(&self) -> &TcpStream {
        let Socket::Plain(stream) = &self.io else { panic!("tests without TLS ask for it") };
        stream
    }
}

/// A byte stream that nobody has ended ends as broken: a FIN would say that its sender was done.
impl Drop for ClientConn {
    fn drop(&mut self) {
        if self.write.outgoing == Outgoing::Tunnel {
            self.io.linger_zero();
        }
    }
}

/// The answer to a request: any number of interim heads, the final one, then the body.
#[derive(Debug)]
pub struct ResponseReader<'a> {
    io: ReadIo<'a>,
    side: &'a mut ReadSide,
    link: &'a Link,
    limits: &'a Limits,
    progress: &'a mut Progress,
    asked: Asked,
}

impl<'a> ResponseReader<'a> {
    /// The next head. Cancel safe. A failure is `unprocessed` only while nothing of the request has reached the socket.
    pub async fn head(&mut self) -> Result<ResponseHead, SendError> {
        match poll_fn(|cx| self.poll_head(cx)).await {
            Ok(head) => Ok(head),
            Err(error) => {
                self.side.broken = true;
                self.link.set_tunnel(Tunnel::Refused);
                Err(SendError { error, unprocessed: !self.link.sent.get() })
            }
        }
    }

    /// Bytes that were read and not yet handed on.
    pub fn held(&self) -> usize {
        self.side.buffer.bytes.len()
    }

    /// The body after the final head.
    pub fn into_body(self) -> Body<'a> {
        if !self.progress.answered {
            self.side.broken = true;
        }
        Body { io: self.io, side: self.side, link: self.link, limits: self.limits }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, StreamError>> {
        if self.progress.answered || self.side.broken {
            return Poll::Ready(Err(StreamError::Protocol("no further head belongs to this response")));
        }
        loop {
            if let Some(head) = self.parse()? {
                return Poll::Ready(Ok(head));
            }
            let silent = self.side.buffer.bytes.is_empty() && self.progress.interim == 0;
            match ready!(self.side.poll_fill(cx, &mut self.io)) {
                Ok(0) if silent => {
                    return Poll::Ready(Err(StreamError::ConnectionLost("closed before the response".into())));
                }
                // Only a connection that said nothing of an answer counts as lost before it.
                Ok(0) | Err(StreamError::ConnectionLost(_)) if !silent => {
                    return Poll::Ready(Err(StreamError::Truncated));
                }
                filled => filled?,
            };
        }
    }

    fn parse(&mut self) -> Result<Option<ResponseHead>, StreamError> {
        let bytes = &mut self.side.buffer.bytes;
        let new = &bytes[self.progress.searched.min(bytes.len())..];
        if !new.contains(&b'\n') && bytes.len() <= self.limits.http.head_bytes {
            self.progress.searched = bytes.len();
            return Ok(None);
        }
        self.progress.searched = bytes.len();
        let parsed = parse::response(bytes, &self.asked, &self.limits.http).map_err(StreamError::Protocol)?;
        let Some(parsed) = parsed else { return Ok(None) };
        bytes.advance(parsed.consumed);
        self.progress.searched = 0;
        let accepted = matches!(parsed.body, Decoder::Tunnel);
        if parsed.head.status.is_informational() && !accepted {
            self.progress.interim += 1;
            if self.progress.interim > self.limits.http.interim_responses {
                return Err(StreamError::Limit("interim responses"));
            }
            return Ok(Some(parsed.head));
        }
        self.progress.answered = true;
        self.progress.keep_alive = parsed.keep_alive;
        self.progress.keep_alive_timeout = parsed.keep_alive_timeout;
        self.link.set_tunnel(if accepted { Tunnel::Open } else { Tunnel::Refused });
        self.side.decoder = parsed.body;
        Ok(Some(parsed.head))
    }
}

fn unprocessed(error: StreamError) -> SendError {
    SendError { error, unprocessed: true }
}

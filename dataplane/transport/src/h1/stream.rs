//! The two halves of one message on an HTTP/1 connection: what is being read and what is being written, borrowed from the
//! connection so that both can run at once.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::AsyncWrite;
use tokio::time::timeout;

use super::decode::{Decoded, Decoder};
use super::encode::{self, Outgoing};
use super::parse::Rejection;
use super::socket::{ReadIo, WriteIo};
use super::{Limits, Refusal};
use crate::http::{Frame, Leaving, StreamError};
use crate::tcp::buffer::{ReadBuffer, WriteBuffer};
use crate::tcp::{self, CONNECT_ERROR};

/// The receiving side of a connection.
#[derive(Debug)]
pub(super) struct ReadSide {
    pub(super) buffer: ReadBuffer,
    /// The body of the current message.
    pub(super) decoder: Decoder,
    /// An error or `stop` made the rest of the stream unusable.
    pub(super) broken: bool,
    /// Fault of a body that broke off because it was malformed.
    pub(super) rejection: Option<Rejection>,
}

/// The sending side of a connection.
#[derive(Debug)]
pub(super) struct WriteSide {
    pub(super) buffer: WriteBuffer,
    /// Part of the current message that is still owed.
    pub(super) outgoing: Outgoing,
    pub(super) broken: bool,
}

/// State of an exchange that both its halves share.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) tunnel: Cell<Tunnel>,
    tunnel_waker: RefCell<Option<Waker>>,
    /// The client waits for 100 before it sends the body, and has neither got it nor started.
    pub(super) awaits_continue: Cell<bool>,
    /// Bytes of the current message have reached the socket.
    pub(super) sent: Cell<bool>,
    /// The connection is to close after the current message.
    pub(super) close: Cell<bool>,
    /// Server: set where no further request is wanted on any connection.
    pub(super) leaving: Leaving,
    /// An answer broke off, and what was sent of it is to reach the client.
    pub(super) linger: Cell<bool>,
    /// Writing failed. The kernel tells an RST once, so the reader would then see a clean end that is none.
    write_failed: Cell<bool>,
}

impl Link {
    pub(super) fn new(leaving: Leaving) -> Self {
        Self { leaving, ..Self::default() }
    }

    /// True where the current message is the last one on its connection.
    pub(super) fn is_last(&self) -> bool {
        self.close.get() || self.leaving.is_told()
    }
}

/// How far a CONNECT or an upgrade has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tunnel {
    /// Not asked for, or not answered yet: raw bytes wait.
    #[default]
    Closed,
    /// Raw bytes flow.
    Open,
    /// Answered otherwise: the connection goes on with messages.
    Refused,
}

impl Link {
    /// Tells the half that waits for the answer to a CONNECT or an upgrade.
    pub(super) fn set_tunnel(&self, tunnel: Tunnel) {
        self.tunnel.set(tunnel);
        if let Some(waker) = self.tunnel_waker.take() {
            waker.wake();
        }
    }

    fn poll_tunnel(&self, cx: &Context<'_>) -> Poll<Tunnel> {
        match self.tunnel.get() {
            Tunnel::Closed => {
                self.tunnel_waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
            answered @ (Tunnel::Open | Tunnel::Refused) => Poll::Ready(answered),
        }
    }
}

impl ReadSide {
    pub(super) fn new(prefix: &[u8]) -> Self {
        Self { buffer: ReadBuffer::new(prefix), decoder: Decoder::Empty, broken: false, rejection: None }
    }

    /// Reads more bytes; 0 at the end of the stream.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, io: &mut ReadIo<'_>) -> Poll<Result<usize, StreamError>> {
        match ready!(self.buffer.poll_fill(cx, io)) {
            Ok(count) => Poll::Ready(Ok(count)),
            Err(error) => {
                self.broken = true;
                Poll::Ready(Err(lost(&error)))
            }
        }
    }

    fn poll_decode(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut ReadIo<'_>,
        limits: &Limits,
        link: &Link,
    ) -> Poll<Result<Decoded, StreamError>> {
        loop {
            let decoded = match self.decoder.decode(&mut self.buffer, &limits.http) {
                Ok(decoded) => decoded,
                Err(rejection) => {
                    self.rejection = Some(rejection);
                    return Poll::Ready(Err(rejection.into()));
                }
            };
            if self.decoder.is_done() {
                self.buffer.shrink();
            }
            match decoded {
                Decoded::NeedMore => {}
                decoded @ (Decoded::Data(_) | Decoded::Trailers(_) | Decoded::End) => return Poll::Ready(Ok(decoded)),
            }
            if self.buffer.eof || ready!(self.poll_fill(cx, io))? == 0 {
                if link.write_failed.get() {
                    return Poll::Ready(Err(StreamError::ConnectionLost("connection reset".into())));
                }
                if self.decoder.ends_with_connection() {
                    self.decoder = Decoder::Empty;
                    return Poll::Ready(Ok(Decoded::End));
                }
                return Poll::Ready(Err(StreamError::Truncated));
            }
        }
    }
}

impl WriteSide {
    pub(super) fn new() -> Self {
        Self { buffer: WriteBuffer::default(), outgoing: Outgoing::Done, broken: false }
    }

    pub(super) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut WriteIo<'_>,
        link: &Link,
    ) -> Poll<Result<(), StreamError>> {
        let queued = self.buffer.len();
        let result = self.buffer.poll_drain(cx, io);
        self.note_sent(queued, link);
        ready!(self.judge(result, link))?;
        let flushed = std::pin::Pin::new(io).poll_flush(cx);
        self.judge(flushed, link)
    }

    fn note_sent(&self, queued: usize, link: &Link) {
        if self.buffer.len() < queued {
            link.sent.set(true);
        }
    }

    fn judge(&mut self, result: Poll<io::Result<()>>, link: &Link) -> Poll<Result<(), StreamError>> {
        result.map_err(|error| {
            self.broken = true;
            link.write_failed.set(true);
            lost(&error)
        })
    }
}

/// The body of a message that is being received.
#[derive(Debug)]
pub struct Body<'a> {
    pub(super) io: ReadIo<'a>,
    pub(super) side: &'a mut ReadSide,
    pub(super) link: &'a Link,
    pub(super) limits: &'a Limits,
}

impl Body<'_> {
    /// The next frame; `None` at the clean end. Cancel safe. After CONNECT or a request to upgrade it waits for the answer.
    pub async fn frame(&mut self) -> Result<Option<Frame>, StreamError> {
        poll_fn(|cx| self.poll_frame(cx)).await
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, StreamError>> {
        if self.side.broken {
            return Poll::Ready(Err(StreamError::Truncated));
        }
        //= rfc9110#section-9.3.6
        let tunnel = matches!(self.side.decoder, Decoder::Tunnel);
        if tunnel && ready!(self.link.poll_tunnel(cx)) == Tunnel::Refused {
            return Poll::Ready(Ok(None));
        }
        match ready!(self.side.poll_decode(cx, &mut self.io, self.limits, self.link)) {
            Ok(Decoded::Data(data)) => {
                self.link.awaits_continue.set(false);
                Poll::Ready(Ok(Some(Frame::Data(data))))
            }
            Ok(Decoded::Trailers(trailers)) => Poll::Ready(Ok(Some(Frame::Trailers(trailers)))),
            Ok(Decoded::End | Decoded::NeedMore) => Poll::Ready(Ok(None)),
            Err(error) => {
                self.side.broken = true;
                Poll::Ready(Err(if tunnel { StreamError::Reset(CONNECT_ERROR) } else { error }))
            }
        }
    }

    /// True when no frame will come.
    pub fn is_end(&self) -> bool {
        self.side.decoder.is_done()
    }

    /// Bytes that were read and not yet handed on.
    pub fn held(&self) -> usize {
        self.side.buffer.bytes.len()
    }

    /// Gives up on the rest: the connection will not be reused.
    pub fn stop(&mut self) {
        if !self.side.decoder.is_done() {
            self.side.broken = true;
            self.link.close.set(true);
        }
    }
}

/// The body of a message that is being sent.
#[derive(Debug)]
pub struct Sink<'a> {
    pub(super) io: WriteIo<'a>,
    pub(super) side: &'a mut WriteSide,
    pub(super) link: &'a Link,
}

impl Sink<'_> {
    /// Takes body bytes; small pieces are gathered until `flush` or `finish`. Cancel safe: what was taken stays queued.
    pub async fn data(&mut self, data: Bytes) -> Result<(), StreamError> {
        if data.is_empty() {
            return self.usable();
        }
        self.usable()?;
        self.answered().await?;
        if self.side.buffer.has_large() {
            self.flush().await?;
        }
        let tail: &'static [u8] = match self.side.outgoing {
            Outgoing::Done | Outgoing::Unanswered | Outgoing::Held => {
                return Err(StreamError::Protocol("data after the end of the message"));
            }
            //= rfc9110#section-9.3.2
            Outgoing::Dropped => return Ok(()),
            Outgoing::Length(left) => {
                let left = left.checked_sub(data.len() as u64);
                let Some(left) = left else { return Err(self.fail("more data than content-length")) };
                self.side.outgoing = if left == 0 { Outgoing::Done } else { Outgoing::Length(left) };
                b""
            }
            Outgoing::Chunked => {
                encode::chunk_size(&mut self.side.buffer.head, data.len());
                b"\r\n"
            }
            Outgoing::UntilClose | Outgoing::Tunnel => b"",
        };
        let mut data = Some(data);
        poll_fn(|cx| {
            let queued = self.side.buffer.len() + data.as_ref().map_or(0, Bytes::len);
            let result = self.side.buffer.poll_send(cx, &mut self.io, &mut data, tail);
            self.side.note_sent(queued, self.link);
            self.side.judge(result, self.link)
        })
        .await
    }

    /// Bytes that wait to be written.
    pub fn held(&self) -> usize {
        self.side.buffer.len()
    }

    /// Writes everything gathered so far.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        self.usable()?;
        poll_fn(|cx| self.side.poll_drain(cx, &mut self.io, self.link)).await
    }

    /// Ends the message and writes it out. Trailers need chunks: on any other framing they are dropped.
    pub async fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), StreamError> {
        self.usable()?;
        self.answered().await?;
        let shutdown = match self.side.outgoing {
            Outgoing::Done | Outgoing::Dropped | Outgoing::Unanswered | Outgoing::Held => {
                self.side.outgoing = Outgoing::Done;
                false
            }
            Outgoing::Length(_) => return Err(self.fail("less data than content-length")),
            Outgoing::Chunked => {
                encode::last_chunk(&mut self.side.buffer.head, trailers.as_ref());
                self.side.outgoing = Outgoing::Done;
                false
            }
            Outgoing::UntilClose | Outgoing::Tunnel => true,
        };
        poll_fn(|cx| {
            ready!(self.side.poll_drain(cx, &mut self.io, self.link))?;
            if shutdown {
                let result = std::pin::Pin::new(&mut self.io).poll_shutdown(cx);
                ready!(self.side.judge(result, self.link))?;
                self.side.outgoing = Outgoing::Done;
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Waits for the answer to a request to upgrade: no byte may leave before it.
    async fn answered(&mut self) -> Result<(), StreamError> {
        if self.side.outgoing == Outgoing::Held {
            self.flush().await?;
            self.side.outgoing = match poll_fn(|cx| self.link.poll_tunnel(cx)).await {
                Tunnel::Open => Outgoing::Tunnel,
                Tunnel::Refused | Tunnel::Closed => Outgoing::Done,
            };
        }
        Ok(())
    }

    /// Ends the message as failed: the connection closes without the message's end; where only the connection's end would
    /// mark it, by RST, and what the client has not read may be lost.
    pub fn reset(&mut self) {
        if self.ends_with_connection() {
            self.io.linger_zero();
        }
        self.side.broken = true;
    }

    /// Ends the message as failed once everything taken so far was delivered, or can't be.
    pub async fn abort(&mut self) {
        let flushed = timeout(tcp::DELIVERY, self.flush()).await;
        if self.ends_with_connection() {
            if matches!(flushed, Ok(Ok(()))) {
                self.io.delivered().await;
            }
        } else {
            self.link.linger.set(true);
        }
        self.reset();
    }

    /// Resolves when the receiver has closed or reset the connection; a half-close is none. Cancel safe.
    pub async fn gone(&mut self) {
        self.io.gone().await;
    }

    fn ends_with_connection(&self) -> bool {
        matches!(self.side.outgoing, Outgoing::UntilClose | Outgoing::Tunnel)
    }

    fn usable(&self) -> Result<(), StreamError> {
        if self.side.broken { Err(StreamError::ConnectionLost("the connection failed before".into())) } else { Ok(()) }
    }

    fn fail(&mut self, reason: &'static str) -> StreamError {
        self.side.broken = true;
        StreamError::Protocol(reason)
    }
}

pub(super) fn lost(error: &io::Error) -> StreamError {
    StreamError::ConnectionLost(error.to_string())
}

impl From<Rejection> for StreamError {
    fn from(rejection: Rejection) -> Self {
        let limits = [Refusal::HeadTooLarge, Refusal::TooManyFields, Refusal::ContentTooLarge];
        if limits.contains(&rejection.refusal) {
            StreamError::Limit(rejection.reason)
        } else {
            StreamError::Protocol(rejection.reason)
        }
    }
}

//! Raw TCP behind the seam of `http`: the two halves of a stream, with the bytes that detection already read in front.
//! FIN and RST stay apart in both directions.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncWriteExt, Interest, Ready};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep, timeout};

use crate::http::{Frame, StreamError};

pub(crate) mod buffer;
mod diag;
pub(crate) mod prefixed;
#[cfg(test)]
mod tests;

use buffer::{ReadBuffer, WriteBuffer};

/// H3_CONNECT_ERROR: the TCP connection behind a tunnel was reset or closed abnormally.
//= rfc9114#section-4.4
pub const CONNECT_ERROR: u64 = 0x10f;

/// Splits a stream into halves; `prefix` is what was already read from it.
pub fn split(io: TcpStream, prefix: &[u8]) -> (Reader, Writer) {
    let (read, write) = io.into_split();
    let writing = Arc::new(Writing::default());
    let reader = Reader { io: read, buffer: ReadBuffer::new(prefix), writing: Arc::clone(&writing) };
    (reader, Writer { io: Some(write), buffer: WriteBuffer::default(), writing })
}

/// What the reading half has to know of the writing one.
#[derive(Debug, Default)]
struct Writing {
    failed: AtomicBool,
    /// The FIN is on its way, behind bytes that the kernel may still hold.
    finished: AtomicBool,
}

/// The receiving half. Holds at most 64 KiB beyond the frame it handed out.
#[derive(Debug)]
pub struct Reader {
    io: OwnedReadHalf,
    buffer: ReadBuffer,
    writing: Arc<Writing>,
}

impl Reader {
    /// The next bytes; `None` after a FIN, `Reset(H3_CONNECT_ERROR)` after an RST. Cancel safe.
    pub async fn frame(&mut self) -> Result<Option<Frame>, StreamError> {
        poll_fn(|cx| self.poll_frame(cx)).await
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, StreamError>> {
        if self.buffer.bytes.is_empty() && !self.buffer.eof {
            self.buffer.shrink();
            ready!(self.buffer.poll_fill(cx, &mut self.io)).map_err(tunnel_error)?;
        }
        let count = self.buffer.bytes.len();
        // The kernel tells an RST once. When the writer was told, the end that is read here is not a FIN.
        if count == 0 && self.writing.failed.load(Ordering::Relaxed) {
            return Poll::Ready(Err(StreamError::Reset(CONNECT_ERROR)));
        }
        Poll::Ready(Ok((count > 0).then(|| Frame::Data(self.buffer.take(count)))))
    }

    /// Bytes that were read and not yet handed on.
    pub fn held(&self) -> usize {
        self.buffer.bytes.len()
    }

    /// Stops reading: the sender gets an RST once the writing half is dropped too. Where everything was written, the kernel
    /// delivers it first, and answers what the sender sends behind that.
    pub fn stop(&mut self) {
        if !self.writing.finished.load(Ordering::Relaxed) {
            linger_zero(self.io.as_ref());
        }
    }

    /// The socket, for its addresses.
    pub fn stream(&self) -> &TcpStream {
        self.io.as_ref()
    }
}

/// The sending half. Dropping it without `finish` sends a FIN as well, unless `reset` was called.
#[derive(Debug)]
pub struct Writer {
    /// `None` after `reset`.
    io: Option<OwnedWriteHalf>,
    buffer: WriteBuffer,
    writing: Arc<Writing>,
}

impl Writer {
    /// Takes bytes; small ones are gathered until `flush`. Cancel safe: what was taken stays queued.
    pub async fn data(&mut self, data: Bytes) -> Result<(), StreamError> {
        let io = self.io.as_mut().ok_or(StreamError::Reset(CONNECT_ERROR))?;
        let mut data = Some(data);
        poll_fn(|cx| {
            if self.buffer.has_large() {
                ready!(self.buffer.poll_drain(cx, io))?;
            }
            self.buffer.poll_send(cx, io, &mut data, b"")
        })
        .await
        .map_err(|error| failed(&self.writing, error))
    }

    /// Bytes that wait to be written.
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    /// Writes everything taken so far.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        let io = self.io.as_mut().ok_or(StreamError::Reset(CONNECT_ERROR))?;
        poll_fn(|cx| self.buffer.poll_drain(cx, io)).await.map_err(|error| failed(&self.writing, error))
    }

    /// Writes everything and sends a FIN; the other direction stays open.
    pub async fn finish(&mut self) -> Result<(), StreamError> {
        self.flush().await?;
        if let Some(io) = self.io.as_mut().filter(|_| !self.writing.finished.load(Ordering::Relaxed)) {
            self.writing.finished.store(true, Ordering::Relaxed);
            io.shutdown().await.map_err(tunnel_error)?;
        }
        Ok(())
    }

    /// Ends the connection abnormally: an RST goes out as the reading half is dropped too.
    pub fn reset(&mut self) {
        if let Some(io) = self.io.take() {
            linger_zero(io.as_ref());
            // Dropping it would send a FIN first.
            io.forget();
        }
    }

    /// Ends the connection abnormally once everything taken so far was delivered, or can't be.
    pub async fn abort(&mut self) {
        if let Ok(Ok(())) = timeout(DELIVERY, self.flush()).await
            && let Some(io) = &self.io
        {
            delivered(io.as_ref()).await;
        }
        self.reset();
    }

    /// Resolves when the other side has closed or reset the connection; a half-close is none. Cancel safe.
    pub async fn gone(&mut self) {
        if let Some(io) = &self.io {
            gone(io.as_ref()).await;
        }
    }
}

/// How long a receiver may take nothing of what an aborted message still owes it.
pub(crate) const DELIVERY: Duration = Duration::from_secs(5);
/// How long it may take in all.
const DELIVERY_TOTAL: Duration = Duration::from_secs(60);

/// Waits until the peer's kernel has taken everything that was written: an RST that follows then destroys nothing.
pub(crate) async fn delivered(stream: &TcpStream) {
    let end = Instant::now() + DELIVERY_TOTAL;
    let (mut stalled_at, mut before) = (Instant::now() + DELIVERY, u32::MAX);
    let mut pause = Duration::from_millis(1);
    while let Some(left) = diag::unacknowledged(stream).filter(|left| *left > 0) {
        let now = Instant::now();
        if left < before {
            (stalled_at, before) = (now + DELIVERY, left);
        }
        if now >= stalled_at.min(end) {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// How soon unread bytes are looked behind for a close.
const LOOK_BEHIND: Duration = Duration::from_millis(50);
/// How soon a half-closed peer is looked after the first time.
const LOOK_AFTER: Duration = Duration::from_millis(20);

/// How soon it is looked after again. Who lives in this namespace is missed within 100 ms, however long ago it half-closed; a
/// look takes the kernel some microseconds. Elsewhere a look tells nothing: the probes do.
fn next_look(pause: Duration, found: diag::Owner) -> Duration {
    let longest = match found {
        diag::Owner::Present => Duration::from_millis(80),
        diag::Owner::Gone | diag::Owner::Absent | diag::Owner::Unknown => Duration::from_millis(500),
    };
    (pause * 2).min(longest)
}

/// Resolves when the peer has closed or reset the connection. A FIN alone says only that it sends no more: it has gone when
/// no process holds its socket. Where that can't be known, keep-alive probes find out. Cancel safe.
pub(crate) async fn gone(stream: &TcpStream) {
    loop {
        // The waker's own place for reading: cheaper than a place in the list of all who wait for this socket.
        let _ = poll_fn(|cx| stream.poll_read_ready(cx)).await;
        let Some(ready) = readiness(stream).await else { return };
        if ready.is_read_closed() {
            break;
        }
        // Bytes that nobody has read yet hide a later close.
        let _ = timeout(LOOK_BEHIND, stream.ready(Interest::ERROR)).await;
    }
    let mut pause = LOOK_AFTER;
    let (mut before, mut probed) = (diag::Owner::Unknown, false);
    loop {
        let owner = diag::peer(stream);
        if owner.has_left(before) {
            return;
        }
        if owner != diag::Owner::Present && !std::mem::replace(&mut probed, true) {
            probe(stream);
        }
        before = owner;
        let _ = timeout(pause, stream.ready(Interest::ERROR)).await;
        if readiness(stream).await.is_none() {
            return;
        }
        pause = next_look(pause, owner);
    }
}

/// Resolves when the peer of a connection that nobody reads yet has left: nobody is waited for on its behalf. A peer that
/// wrote and closed may count on what it wrote (`has_written`: some of that was read already), so that it is given
/// `patience`; one that reset the connection may not. Cancel safe.
pub async fn left(stream: &TcpStream, has_written: bool, patience: Duration) {
    gone(stream).await;
    let is_reset = !matches!(stream.take_error(), Ok(None));
    let mut first = [MaybeUninit::uninit()];
    let has_unread = matches!(SockRef::from(stream).peek(&mut first), Ok(1..));
    if !is_reset && (has_written || has_unread) {
        sleep(patience).await;
    }
}

/// Readiness of the socket, once it is ready for anything; `None` when it was reset.
async fn readiness(stream: &TcpStream) -> Option<Ready> {
    let ready = stream.ready(Interest::READABLE | Interest::WRITABLE | Interest::ERROR).await.ok()?;
    (!ready.is_error() && !ready.is_write_closed()).then_some(ready)
}

/// Asks the peer's kernel every few seconds whether it still knows the connection.
fn probe(stream: &TcpStream) {
    const EVERY: Duration = Duration::from_secs(5);
    let keepalive = TcpKeepalive::new().with_time(EVERY).with_interval(EVERY).with_retries(3);
    // Fails only on a socket that is gone.
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

pub(crate) fn linger_zero(stream: &TcpStream) {
    // Fails only on a socket that is gone, and then there is nothing left to reset.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn failed(writing: &Writing, error: io::Error) -> StreamError {
    writing.failed.store(true, Ordering::Relaxed);
    tunnel_error(error)
}

fn tunnel_error(error: io::Error) -> StreamError {
    if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) {
        StreamError::Reset(CONNECT_ERROR)
    } else {
        StreamError::ConnectionLost(error.to_string())
    }
}

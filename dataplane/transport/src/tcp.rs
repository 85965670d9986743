//! Raw TCP behind the seam of `http`: the two halves of a stream, with the bytes that detection already read in front.
//! FIN and RST stay apart in both directions.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::http::{Frame, StreamError};

pub(crate) mod buffer;
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
    let reader = Reader { io: read, buffer: ReadBuffer::new(prefix) };
    (reader, Writer { io: Some(write), buffer: WriteBuffer::default(), finished: false })
}

/// The receiving half. Holds at most 64 KiB beyond the frame it handed out.
#[derive(Debug)]
pub struct Reader {
    io: OwnedReadHalf,
    buffer: ReadBuffer,
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
        Poll::Ready(Ok((count > 0).then(|| Frame::Data(self.buffer.take(count)))))
    }

    /// Stops reading: the sender gets an RST once the writing half is dropped too.
    pub fn stop(&mut self) {
        linger_zero(self.io.as_ref());
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
    finished: bool,
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
        .map_err(tunnel_error)
    }

    /// Writes everything taken so far.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        let io = self.io.as_mut().ok_or(StreamError::Reset(CONNECT_ERROR))?;
        poll_fn(|cx| self.buffer.poll_drain(cx, io)).await.map_err(tunnel_error)
    }

    /// Writes everything and sends a FIN; the other direction stays open.
    pub async fn finish(&mut self) -> Result<(), StreamError> {
        self.flush().await?;
        if let Some(io) = self.io.as_mut().filter(|_| !self.finished) {
            self.finished = true;
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
}

pub(crate) fn linger_zero(stream: &TcpStream) {
    // Fails only on a socket that is gone, and then there is nothing left to reset.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn tunnel_error(error: io::Error) -> StreamError {
    if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) {
        StreamError::Reset(CONNECT_ERROR)
    } else {
        StreamError::ConnectionLost(error.to_string())
    }
}

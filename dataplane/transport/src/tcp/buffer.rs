//! Byte buffers between a socket and a codec. Reads go through one scratch buffer per thread, so that an idle connection
//! holds no memory; writes are gathered, so that a message usually costs one system call. Neither loses a byte when
//! the future that drives it is dropped.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::block;

/// Bytes of one read through the thread's scratch buffer.
const SCRATCH: usize = 16 * 1024;
/// Bytes of one read when a body flows in bulk; also the most that a reader holds beyond what it handed out.
pub(crate) const BULK: usize = 64 * 1024;
/// Up to here body bytes are copied out, so that a small piece never keeps a large buffer alive.
const COPY_OUT: usize = 2 * 1024;
/// Up to here outgoing bytes are gathered before they are written.
const HOLD: usize = 16 * 1024;
/// A buffer above this is given back when its message is over.
const KEEP_IDLE: usize = 8 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Bytes that were read and not yet consumed.
#[derive(Debug, Default)]
pub(crate) struct ReadBuffer {
    pub(crate) bytes: BytesMut,
    pub(crate) eof: bool,
    bulk: bool,
}

impl ReadBuffer {
    pub(crate) fn new(prefix: &[u8]) -> Self {
        Self { bytes: BytesMut::from(prefix), eof: false, bulk: false }
    }

    /// Reads once; 0 is the end of the stream. The caller bounds `bytes` by consuming before it fills again.
    pub(crate) fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut R,
    ) -> Poll<io::Result<usize>> {
        let read = if self.bulk { ready!(self.poll_bulk(cx, io))? } else { ready!(self.poll_scratch(cx, io))? };
        self.eof |= read == 0;
        Poll::Ready(Ok(read))
    }

    fn poll_scratch<R: AsyncRead + Unpin>(&mut self, cx: &mut Context<'_>, io: &mut R) -> Poll<io::Result<usize>> {
        SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            let mut into = ReadBuf::new(scratch);
            ready!(Pin::new(io).poll_read(cx, &mut into))?;
            let filled = into.filled();
            self.bytes.extend_from_slice(filled);
            self.bulk = filled.len() == SCRATCH;
            Poll::Ready(Ok(filled.len()))
        })
    }

    fn poll_bulk<R: AsyncRead + Unpin>(&mut self, cx: &mut Context<'_>, io: &mut R) -> Poll<io::Result<usize>> {
        if self.bytes.capacity() - self.bytes.len() < SCRATCH {
            self.bytes.reserve(BULK.saturating_sub(self.bytes.len()).max(SCRATCH));
        }
        let read = ready!(tokio_util::io::poll_read_buf(Pin::new(io), cx, &mut self.bytes))?;
        self.bulk = read >= SCRATCH / 2;
        Poll::Ready(Ok(read))
    }

    /// The first `count` bytes: copied when they are few, shared with the buffer when they fill much of it.
    pub(crate) fn take(&mut self, count: usize) -> Bytes {
        if count <= COPY_OUT || count < self.bytes.capacity() / 4 {
            let taken = block::copy(&self.bytes[..count]);
            self.bytes.advance(count);
            taken
        } else {
            self.bytes.split_to(count).freeze()
        }
    }

    /// Gives large memory back between messages.
    pub(crate) fn shrink(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() > KEEP_IDLE {
            self.bytes = BytesMut::new();
            self.bulk = false;
        }
    }
}

/// Bytes to be written that have not left yet: small pieces together, then at most one large piece and its tail.
#[derive(Debug, Default)]
pub(crate) struct WriteBuffer {
    /// Small pieces, in order.
    pub(crate) head: BytesMut,
    /// One large piece, written after `head` without being copied.
    body: Bytes,
    /// Written after `body`.
    tail: &'static [u8],
}

impl WriteBuffer {
    /// Takes `data` (and then `tail`): gathers it when it is small, otherwise writes everything out.
    pub(crate) fn poll_send<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut W,
        data: &mut Option<Bytes>,
        tail: &'static [u8],
    ) -> Poll<io::Result<()>> {
        if let Some(piece) = data.take() {
            if self.body.is_empty() && self.tail.is_empty() && self.head.len() + piece.len() <= HOLD {
                self.head.extend_from_slice(&piece);
                self.head.extend_from_slice(tail);
                return Poll::Ready(Ok(()));
            }
            debug_assert!(self.body.is_empty(), "room is made before a second large piece is taken");
            self.body = piece;
            self.tail = tail;
        }
        self.poll_drain(cx, io)
    }

    pub(crate) fn has_large(&self) -> bool {
        !self.body.is_empty() || !self.tail.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_empty() && !self.has_large()
    }

    /// Bytes that wait to be written.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.len() + self.tail.len()
    }

    /// Writes until nothing is left.
    pub(crate) fn poll_drain<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut W,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = if self.has_large() {
                let slices = [IoSlice::new(&self.head), IoSlice::new(&self.body), IoSlice::new(self.tail)];
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices))?
            } else {
                ready!(Pin::new(&mut *io).poll_write(cx, &self.head))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        if self.head.capacity() > KEEP_IDLE {
            self.head = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, written: usize) {
        let from_head = written.min(self.head.len());
        if from_head == self.head.len() {
            self.head.clear();
        } else {
            self.head.advance(from_head);
        }
        let from_body = (written - from_head).min(self.body.len());
        self.body.advance(from_body);
        if self.body.is_empty() {
            self.body = Bytes::new();
        }
        self.tail = &self.tail[written - from_head - from_body..];
    }
}

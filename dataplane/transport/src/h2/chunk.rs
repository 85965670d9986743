//! Body bytes on their way into an HTTP/2 connection, which tell when the last of them has been written.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};

/// The part of one stream that has not been written yet.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    pieces: Cell<usize>,
    bytes: Cell<usize>,
    waiting: RefCell<Option<Waker>>,
}

impl Unwritten {
    /// Bytes of the pieces that are not written whole.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Resolves when every piece has been written, or thrown away with its stream.
    pub(super) fn poll_none(&self, cx: &Context<'_>) -> Poll<()> {
        if self.pieces.get() == 0 {
            return Poll::Ready(());
        }
        *self.waiting.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// One piece of a body. The connection drops it when it has been written.
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: Bytes,
    size: usize,
    of: Option<Rc<Unwritten>>,
}

impl Chunk {
    pub(super) fn new(bytes: Bytes, of: &Rc<Unwritten>) -> Self {
        let size = bytes.len();
        of.pieces.set(of.pieces.get() + 1);
        of.bytes.set(of.bytes.get() + size);
        Self { bytes, size, of: Some(Rc::clone(of)) }
    }

    /// Nothing: it only carries the end of its stream.
    pub(super) fn empty() -> Self {
        Self { bytes: Bytes::new(), size: 0, of: None }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let Some(of) = &self.of else { return };
        of.pieces.set(of.pieces.get() - 1);
        of.bytes.set(of.bytes.get() - self.size);
        if of.pieces.get() == 0
            && let Some(waker) = of.waiting.borrow_mut().take()
        {
            waker.wake();
        }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.bytes.copy_to_bytes(length)
    }
}

//! A stream that goes on reading after it can't be written any more. What the peer said last, such as a GOAWAY that
//! names the requests it never looked at, was often sent just before it closed.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose failed writes are forgotten: its reading side tells the end.
#[derive(Debug)]
pub(super) struct Deaf<T> {
    io: T,
    broken: bool,
    greeting: Greeting,
}

/// How much of the peer's first frame has come, which is its SETTINGS. Clones tell of the same connection.
//= rfc9113#section-3.4
#[derive(Debug, Clone, Default)]
pub(super) struct Greeting(Rc<First>);

#[derive(Debug, Default)]
struct First {
    seen: Cell<usize>,
    /// The three octets with which a frame begins.
    length: Cell<usize>,
}

impl Greeting {
    const HEADER: usize = 9;

    /// True once anything came.
    pub(super) fn has_begun(&self) -> bool {
        self.0.seen.get() > 0
    }

    /// True once all of it was read: what the peer said last is in force, also where it is what holds without a word.
    pub(super) fn is_whole(&self) -> bool {
        self.0.seen.get() >= Self::HEADER + self.0.length.get()
    }

    fn read(&self, bytes: &[u8]) {
        if self.is_whole() {
            return;
        }
        let First { seen, length } = &*self.0;
        for byte in bytes.iter().take(3_usize.saturating_sub(seen.get())) {
            length.set(length.get() << 8 | usize::from(*byte));
        }
        seen.set(seen.get().saturating_add(bytes.len()));
    }
}

impl<T> Deaf<T> {
    pub(super) fn new(io: T) -> Self {
        Self { io, broken: false, greeting: Greeting::default() }
    }

    pub(super) fn greeting(&self) -> Greeting {
        self.greeting.clone()
    }

    fn forgive<R>(&mut self, result: Poll<io::Result<R>>, instead: R) -> Poll<io::Result<R>> {
        if let Poll::Ready(Err(_)) = result {
            self.broken = true;
            return Poll::Ready(Ok(instead));
        }
        result
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Deaf<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, into);
        self.greeting.read(&into.filled()[before..]);
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Deaf<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.broken {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.forgive(written, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = slices.iter().map(|slice| slice.len()).sum();
        if self.broken {
            return Poll::Ready(Ok(all));
        }
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.forgive(written, all)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.forgive(flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken {
            return Poll::Ready(Ok(()));
        }
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.forgive(shut, ())
    }
}

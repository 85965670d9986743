//! The socket under a connection of HTTP/1: plain, or with TLS that this side began. Both halves of a message borrow it at
//! once.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio_rustls::client::TlsStream;

use crate::tcp;
use crate::tls::OutsideStream;

type Tls = TlsStream<TcpStream>;

#[derive(Debug)]
pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<RefCell<Tls>>),
}

/// The reading half.
#[derive(Debug)]
pub(super) enum ReadIo<'a> {
    Plain(ReadHalf<'a>),
    Tls(&'a RefCell<Tls>),
}

/// The writing half.
#[derive(Debug)]
pub(super) enum WriteIo<'a> {
    Plain(WriteHalf<'a>),
    Tls(&'a RefCell<Tls>),
}

/// The halves of a plain socket.
pub(super) fn halves(io: &mut TcpStream) -> (ReadIo<'_>, WriteIo<'_>) {
    let (read, write) = io.split();
    (ReadIo::Plain(read), WriteIo::Plain(write))
}

impl From<OutsideStream> for Socket {
    fn from(stream: OutsideStream) -> Self {
        match stream {
            OutsideStream::Plain(stream) => Self::Plain(stream),
            OutsideStream::Tls(stream) => Self::Tls(Box::new(RefCell::new(*stream))),
        }
    }
}

impl Socket {
    pub(super) fn halves(&mut self) -> (ReadIo<'_>, WriteIo<'_>) {
        match self {
            Self::Plain(stream) => halves(stream),
            Self::Tls(stream) => (ReadIo::Tls(stream), WriteIo::Tls(stream)),
        }
    }

    /// True where there is something to read, be it the end. What TLS says for itself is nothing.
    pub(super) fn has_something(&mut self) -> bool {
        let mut byte = [0u8; 1];
        match self {
            Self::Plain(stream) => {
                !matches!(stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Tls(stream) => {
                let mut cx = Context::from_waker(Waker::noop());
                Pin::new(stream.get_mut()).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_ready()
            }
        }
    }

    /// Its end will be an RST.
    pub(super) fn linger_zero(&self) {
        match self {
            Self::Plain(stream) => tcp::linger_zero(stream),
            Self::Tls(stream) => tcp::linger_zero(stream.borrow().get_ref().0),
        }
    }
}

impl WriteIo<'_> {
    /// Its end will be an RST.
    pub(super) fn linger_zero(&self) {
        match self {
            Self::Plain(half) => tcp::linger_zero(half.as_ref()),
            Self::Tls(stream) => tcp::linger_zero(stream.borrow().get_ref().0),
        }
    }

    /// Waits until the other side's kernel has taken everything that was written, as far as that can be seen.
    pub(super) async fn delivered(&self) {
        match self {
            Self::Plain(half) => tcp::delivered(half.as_ref()).await,
            Self::Tls(_) => {}
        }
    }

    /// Resolves when the other side has closed or reset the connection. With TLS only who reads is told.
    pub(super) async fn gone(&self) {
        match self {
            Self::Plain(half) => tcp::gone(half.as_ref()).await,
            Self::Tls(_) => std::future::pending().await,
        }
    }
}

impl AsyncRead for ReadIo<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(half) => Pin::new(half).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for WriteIo<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(half) => Pin::new(half).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(half) => Pin::new(half).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(half) => half.is_write_vectored(),
            Self::Tls(stream) => stream.borrow().is_write_vectored(),
        }
    }

    /// TLS may hold records that the socket did not take.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(half) => Pin::new(half).poll_flush(cx),
            Self::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(half) => Pin::new(half).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_shutdown(cx),
        }
    }
}

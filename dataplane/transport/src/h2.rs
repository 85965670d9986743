//! HTTP/2 behind the seam of `http`, on the crate `h2`: prior-knowledge h2c at the application's side, and the
//! fallback between proxies. Flow-control credit goes back only as bytes are consumed.

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::http::{Frame, RequestHead, ResponseHead, SendError, StreamError};

/// What one HTTP/2 connection accepts.
#[derive(Debug, Clone, Default)]
pub struct Limits {}

pub struct ServerConn<T> {
    io: T,
}
impl<T: AsyncRead + AsyncWrite + Unpin> ServerConn<T> {
    pub async fn new(_io: T, _prefix: Bytes, _limits: &Limits) -> Result<Self, StreamError> {
        todo!()
    }
    pub async fn accept(&mut self) -> Option<Result<(RequestHead, RecvStream, SendStream), StreamError>> {
        todo!()
    }
    pub fn graceful_shutdown(&mut self) {
        todo!()
    }
}
#[derive(Debug, Clone)]
pub struct ClientConn {}
impl ClientConn {
    pub async fn connect<T>(_io: T, _limits: &Limits) -> Result<Self, StreamError>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        todo!()
    }
    pub async fn send(&self, _head: &RequestHead, _end: bool) -> Result<(SendStream, RecvStream), SendError> {
        todo!()
    }
    pub fn is_closed(&self) -> bool {
        todo!()
    }
}
#[derive(Debug)]
pub struct RecvStream {}
impl RecvStream {
    pub async fn frame(&mut self) -> Result<Option<Frame>, StreamError> {
        todo!()
    }
    pub fn is_end(&self) -> bool {
        todo!()
    }
    pub fn stop(&mut self, _code: u64) {
        todo!()
    }
    pub async fn response_head(&mut self) -> Result<ResponseHead, SendError> {
        todo!()
    }
}
#[derive(Debug)]
pub struct SendStream {}
impl SendStream {
    pub async fn data(&mut self, _data: Bytes) -> Result<(), StreamError> {
        todo!()
    }
    pub async fn finish(&mut self, _trailers: Option<HeaderMap>) -> Result<(), StreamError> {
        todo!()
    }
    pub fn reset(&mut self, _code: u64) {
        todo!()
    }
    pub async fn interim(&mut self, _head: &ResponseHead) -> Result<(), StreamError> {
        todo!()
    }
    pub async fn response(&mut self, _head: &ResponseHead, _end: bool) -> Result<(), StreamError> {
        todo!()
    }
}

//! The two halves of one HTTP/2 stream, for both roles.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use http::{HeaderMap, Response};

use super::{is_unprocessed, reason_from_code, stream_error};
use crate::http::{Frame, ResponseHead, SendError, StreamError};

/// The receiving half: for a client first the response heads, then the body.
#[derive(Debug)]
pub struct RecvStream {
    state: Receiving,
    /// Bytes handed out whose credit goes back as the next frame is asked for.
    owed: usize,
    fields: usize,
}

#[derive(Debug)]
enum Receiving {
    Head(ResponseFuture),
    Body(h2::RecvStream),
    Ended,
    Stopped,
}

impl RecvStream {
    pub(super) fn request(body: h2::RecvStream, fields: usize) -> Self {
        let state = if body.is_end_stream() { Receiving::Ended } else { Receiving::Body(body) };
        Self { state, owed: 0, fields }
    }

    pub(super) fn response(head: ResponseFuture, fields: usize) -> Self {
        Self { state: Receiving::Head(head), owed: 0, fields }
    }

    /// The next response head; interim ones come first. Cancel safe.
    pub async fn response_head(&mut self) -> Result<ResponseHead, SendError> {
        match poll_fn(|cx| self.poll_head(cx)).await {
            Ok(head) if head.headers.len() <= self.fields => Ok(head),
            Ok(_) => {
                self.state = Receiving::Stopped;
                Err(SendError { error: StreamError::Limit("response header fields"), unprocessed: false })
            }
            Err(error) => {
                self.state = Receiving::Stopped;
                Err(error)
            }
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, SendError>> {
        let Receiving::Head(future) = &mut self.state else {
            let error = StreamError::Protocol("no further head belongs to this response");
            return Poll::Ready(Err(SendError { error, unprocessed: false }));
        };
        if let Poll::Ready(Some(Ok(interim))) = future.poll_informational(cx) {
            return Poll::Ready(Ok(response_head(interim).0));
        }
        match ready!(Pin::new(future).poll(cx)) {
            Ok(response) => {
                let (head, body) = response_head(response);
                self.state = if body.is_end_stream() { Receiving::Ended } else { Receiving::Body(body) };
                Poll::Ready(Ok(head))
            }
            Err(error) => {
                Poll::Ready(Err(SendError { error: stream_error(&error), unprocessed: is_unprocessed(&error) }))
            }
        }
    }

    /// The next frame; `None` at the clean end. Cancel safe. Credit for the frame before goes back to the sender here.
    pub async fn frame(&mut self) -> Result<Option<Frame>, StreamError> {
        poll_fn(|cx| self.poll_frame(cx)).await
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, StreamError>> {
        let body = match &mut self.state {
            Receiving::Body(body) => body,
            Receiving::Ended => return Poll::Ready(Ok(None)),
            Receiving::Head(_) => return Poll::Ready(Err(StreamError::Protocol("body asked for before the head"))),
            Receiving::Stopped => return Poll::Ready(Err(StreamError::Truncated)),
        };
        if self.owed > 0 {
            // Fails only on a stream that is gone, whose credit the connection has taken back already.
            let _ = body.flow_control().release_capacity(std::mem::take(&mut self.owed));
        }
        while let Some(data) = ready!(body.poll_data(cx)) {
            match data {
                // An empty frame that only carries the end.
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    self.owed = data.len();
                    return Poll::Ready(Ok(Some(Frame::Data(data))));
                }
                Err(error) => {
                    self.state = Receiving::Stopped;
                    return Poll::Ready(Err(stream_error(&error)));
                }
            }
        }
        let trailers = ready!(body.poll_trailers(cx));
        self.state = Receiving::Ended;
        match trailers {
            Ok(trailers) => Poll::Ready(Ok(trailers.map(Frame::Trailers))),
            Err(error) => {
                self.state = Receiving::Stopped;
                Poll::Ready(Err(stream_error(&error)))
            }
        }
    }

    /// True when no frame will come.
    pub fn is_end(&self) -> bool {
        match &self.state {
            Receiving::Ended => true,
            Receiving::Body(body) => body.is_end_stream(),
            Receiving::Head(_) | Receiving::Stopped => false,
        }
    }

    /// Gives up on the rest: what still comes is thrown away. HTTP/2 can't stop one direction alone, so RST_STREAM leaves
    /// when the sending half is done or dropped.
    pub fn stop(&mut self, _code: u64) {
        if !self.is_end() {
            self.state = Receiving::Stopped;
        }
    }
}

fn response_head<B>(response: Response<B>) -> (ResponseHead, B) {
    let (parts, body) = response.into_parts();
    (ResponseHead { status: parts.status, headers: parts.headers }, body)
}

/// The sending half: for a server first the response heads, then the body.
#[derive(Debug)]
pub struct SendStream {
    state: Sending,
}

#[derive(Debug)]
enum Sending {
    Head(SendResponse<Bytes>),
    Body(h2::SendStream<Bytes>),
    Finished,
}

impl SendStream {
    pub(super) fn response_to(respond: SendResponse<Bytes>) -> Self {
        Self { state: Sending::Head(respond) }
    }

    pub(super) fn request(body: h2::SendStream<Bytes>, end: bool) -> Self {
        Self { state: if end { Sending::Finished } else { Sending::Body(body) } }
    }

    /// Sends an interim response. 101 does not exist in HTTP/2 and is dropped.
    #[expect(clippy::unused_async, reason = "the seam is asynchronous for codecs that write here")]
    pub async fn interim(&mut self, head: &ResponseHead) -> Result<(), StreamError> {
        let Sending::Head(respond) = &mut self.state else {
            return Err(StreamError::Protocol("interim response after the final one"));
        };
        if !head.status.is_informational() || head.status == http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        respond.send_informational(response(head)).map_err(|error| stream_error(&error))
    }

    /// Sends the final head.
    #[expect(clippy::unused_async, reason = "the seam is asynchronous for codecs that write here")]
    pub async fn response(&mut self, head: &ResponseHead, end: bool) -> Result<(), StreamError> {
        let Sending::Head(respond) = &mut self.state else {
            return Err(StreamError::Protocol("a second final response"));
        };
        let body = respond.send_response(response(head), end).map_err(|error| stream_error(&error))?;
        self.state = if end { Sending::Finished } else { Sending::Body(body) };
        Ok(())
    }

    /// Sends body bytes as the peer's windows allow. Cancelling may have sent a part.
    pub async fn data(&mut self, mut data: Bytes) -> Result<(), StreamError> {
        let Sending::Body(body) = &mut self.state else {
            return Err(StreamError::Protocol("data outside of the body"));
        };
        while !data.is_empty() {
            body.reserve_capacity(data.len());
            let room = match body.capacity() {
                0 => poll_fn(|cx| body.poll_capacity(cx)).await,
                room => Some(Ok(room)),
            };
            let room = match room {
                Some(room) => room.map_err(|error| stream_error(&error))?,
                None => return Err(reset_reason(body).await),
            };
            let piece = data.split_to(room.min(data.len()));
            body.send_data(piece, false).map_err(|error| stream_error(&error))?;
        }
        Ok(())
    }

    /// Ends the message.
    #[expect(clippy::unused_async, reason = "the seam is asynchronous for codecs that write here")]
    pub async fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), StreamError> {
        match &mut self.state {
            Sending::Finished => return Ok(()),
            Sending::Head(_) => return Err(StreamError::Protocol("end of a message without a head")),
            Sending::Body(body) => match trailers {
                Some(trailers) => body.send_trailers(trailers),
                None => body.send_data(Bytes::new(), true),
            },
        }
        .map_err(|error| stream_error(&error))?;
        self.state = Sending::Finished;
        Ok(())
    }

    /// Ends the stream as failed.
    pub fn reset(&mut self, code: u64) {
        match &mut self.state {
            Sending::Head(respond) => respond.send_reset(reason_from_code(code)),
            Sending::Body(body) => body.send_reset(reason_from_code(code)),
            Sending::Finished => {}
        }
        self.state = Sending::Finished;
    }

    /// Resolves when the peer has reset the stream or its connection is lost; never for a finished one.
    pub async fn gone(&mut self) {
        poll_fn(|cx| match &mut self.state {
            Sending::Head(respond) => respond.poll_reset(cx).map(|_| ()),
            Sending::Body(body) => body.poll_reset(cx).map(|_| ()),
            Sending::Finished => Poll::Pending,
        })
        .await;
    }
}

/// Why a stream has no room any more.
async fn reset_reason(body: &mut h2::SendStream<Bytes>) -> StreamError {
    let reason = poll_fn(|cx| match body.poll_reset(cx) {
        Poll::Ready(reason) => Poll::Ready(Some(reason)),
        Poll::Pending => Poll::Ready(None),
    });
    match reason.await {
        Some(Ok(reason)) => StreamError::Reset(super::code_from_reason(reason)),
        Some(Err(error)) => stream_error(&error),
        None => StreamError::ConnectionLost("the stream is closed".into()),
    }
}

fn response(head: &ResponseHead) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    *response.headers_mut() = end_to_end(&head.headers);
    response
}

/// HTTP/2 has no connection-specific fields; `te: trailers` is the exception.
//= rfc9113#section-8.2.2
pub(super) fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        headers.remove(name);
    }
    headers
}

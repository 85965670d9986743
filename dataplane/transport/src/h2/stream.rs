//! The two halves of one HTTP/2 stream, for both roles.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::ahead::Ahead;
use super::chunk::{Chunk, Unwritten};
use super::client::OpenStream;
use super::fields::{end_to_end, take_internal, trim};
use super::flood::Patience;
use super::{Limits, is_unprocessed, reason_from_code, stream_error};
use crate::http::{Content, Frame, ResponseHead, SendError, StreamError};
use crate::upgrade;

/// The receiving half: for a client first the response heads, then the body.
#[derive(Debug)]
pub struct RecvStream {
    state: Receiving,
    /// The part of the body that was read before it was asked for.
    ahead: Ahead,
    /// Bytes handed out whose credit goes back as the next frame is asked for.
    owed: usize,
    /// Bytes that the peer may send before any are read.
    window: usize,
    fields: usize,
    /// Client: what the answer is to.
    asked: Asked,
    /// Client: interim responses that may still come.
    interims: u32,
    /// Bytes both ways, once a request to change protocols was accepted.
    tunnel: bool,
    /// Client: the place among the connection's streams.
    _open: Option<Rc<OpenStream>>,
}

/// Kind of the request, which decides how its response is read.
#[derive(Debug)]
pub(super) enum Asked {
    Request,
    /// To change protocols; with the `sec-websocket-accept` that the asker waits for.
    Upgrade(Option<HeaderValue>),
}

#[derive(Debug)]
enum Receiving {
    Head(ResponseFuture),
    Body(h2::RecvStream),
    Ended,
    Stopped,
}

impl RecvStream {
    pub(super) fn request(body: h2::RecvStream, limits: &Limits, tunnel: bool) -> Self {
        let state = if body.is_end_stream() { Receiving::Ended } else { Receiving::Body(body) };
        let (window, fields) = (limits.stream_window as usize, limits.fields);
        let (ahead, asked) = (Ahead::default(), Asked::Request);
        Self { state, ahead, owed: 0, window, fields, asked, interims: 0, tunnel, _open: None }
    }

    pub(super) fn response(head: ResponseFuture, limits: &Limits, asked: Asked, open: Rc<OpenStream>) -> Self {
        let (window, fields, interims) = (limits.stream_window as usize, limits.fields, limits.interim_responses);
        let (state, ahead) = (Receiving::Head(head), Ahead::default());
        Self { state, ahead, owed: 0, window, fields, asked, interims, tunnel: false, _open: Some(open) }
    }

    /// The next response head; interim ones come first. To a request for another protocol 101 is a final one. Cancel safe.
    pub async fn response_head(&mut self) -> Result<ResponseHead, SendError> {
        match poll_fn(|cx| self.poll_head(cx)).await {
            //= rfc9113#section-8.6
            Ok(head) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                Err(self.refused(StreamError::Protocol("101 in HTTP/2")))
            }
            Ok(head) if head.headers.len() > self.fields => {
                Err(self.refused(StreamError::Limit("response header fields")))
            }
            Ok(head) => Ok(self.understood(head)),
            Err(error) => {
                self.state = Receiving::Stopped;
                Err(error)
            }
        }
    }

    fn refused(&mut self, error: StreamError) -> SendError {
        self.state = Receiving::Stopped;
        SendError { error, unprocessed: false }
    }

    fn understood(&mut self, mut head: ResponseHead) -> ResponseHead {
        trim(&mut head.headers);
        take_internal(&mut head.headers);
        if let Asked::Upgrade(accept) = &mut self.asked
            && !head.status.is_informational()
        {
            head.status = upgrade::answer_from_wire(head.status, &mut head.headers, false);
            self.tunnel = head.status == StatusCode::SWITCHING_PROTOCOLS;
            if let Some(accept) = accept.take().filter(|_| head.status == StatusCode::SWITCHING_PROTOCOLS) {
                upgrade::add_accept(&mut head.headers, accept);
            }
        }
        head
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, SendError>> {
        let Receiving::Head(future) = &mut self.state else {
            let error = StreamError::Protocol("no further head belongs to this response");
            return Poll::Ready(Err(SendError { error, unprocessed: false }));
        };
        if let Poll::Ready(Some(Ok(interim))) = future.poll_informational(cx) {
            let Some(left) = self.interims.checked_sub(1) else {
                let error = StreamError::Limit("interim responses");
                return Poll::Ready(Err(SendError { error, unprocessed: false }));
            };
            self.interims = left;
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
        let all_read = if self.ahead.is_empty() { self.ahead.read(body, cx) } else { Poll::Pending };
        if let Some(data) = self.ahead.take() {
            let data = data.inspect_err(|_| self.state = Receiving::Stopped)?;
            self.owed = data.len();
            return Poll::Ready(Ok(Some(Frame::Data(data))));
        }
        ready!(all_read);
        let trailers = ready!(body.poll_trailers(cx));
        self.state = Receiving::Ended;
        match trailers {
            //= rfc9113#section-8.5
            // They would go on as HEADERS in a tunnel of HTTP/3, which ends the whole connection there.
            Ok(Some(_)) if self.tunnel => {
                self.state = Receiving::Stopped;
                Poll::Ready(Err(StreamError::Protocol("trailers in a tunnel")))
            }
            Ok(trailers) => Poll::Ready(Ok(trailers.map(|mut trailers| {
                trim(&mut trailers);
                Frame::Trailers(trailers)
            }))),
            Err(error) => {
                self.state = Receiving::Stopped;
                Poll::Ready(Err(stream_error(&error)))
            }
        }
    }

    /// Reads what has come while nobody asks for it: the crate counts each small frame that it holds against the whole
    /// connection. No credit goes back for it, so that it is never more than the stream's window.
    pub fn read_ahead(&mut self, cx: &mut Context<'_>) {
        if let Receiving::Body(body) = &mut self.state {
            // It is known by the next frame whether that is all.
            let _ = self.ahead.read(body, cx);
        }
    }

    /// True when no frame will come.
    pub fn is_end(&self) -> bool {
        match &self.state {
            Receiving::Ended => true,
            Receiving::Body(body) => self.ahead.is_empty() && body.is_end_stream(),
            Receiving::Head(_) | Receiving::Stopped => false,
        }
    }

    /// Bytes that are here or that the peer may still send before anything is read.
    pub fn held(&self) -> usize {
        match &self.state {
            Receiving::Head(_) | Receiving::Body(_) => self.window,
            Receiving::Ended | Receiving::Stopped => 0,
        }
    }

    /// Gives up on the rest: what still comes is thrown away. HTTP/2 can't stop one direction alone, so RST_STREAM leaves
    /// when the sending half is done or dropped.
    pub fn stop(&mut self, _code: u64) {
        if !self.is_end() {
            self.state = Receiving::Stopped;
            self.ahead = Ahead::default();
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
    role: Role,
    unwritten: Rc<Unwritten>,
    /// How long `abort` waits for what was given before.
    abort: Duration,
}

#[derive(Debug)]
enum Sending {
    Head(SendResponse<Chunk>),
    Body(h2::SendStream<Chunk>),
    /// The end of the message was given, and may still be taken back by a reset.
    Ended(h2::SendStream<Chunk>),
    Finished,
}

#[derive(Debug)]
enum Role {
    Client { _open: Rc<OpenStream> },
    Server { answering: Answering, answered: bool, patience: Rc<Patience> },
}

/// Kind of answer that a server's stream gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answering {
    Request,
    /// An answer without a body, as to HEAD.
    Bodiless,
    Upgrade,
}

impl SendStream {
    pub(super) fn response_to(
        respond: SendResponse<Chunk>,
        answering: Answering,
        patience: &Rc<Patience>,
        abort: Duration,
    ) -> Self {
        let role = Role::Server { answering, answered: false, patience: Rc::clone(patience) };
        Self { state: Sending::Head(respond), role, unwritten: Rc::default(), abort }
    }

    pub(super) fn request(body: h2::SendStream<Chunk>, end: bool, open: Rc<OpenStream>, abort: Duration) -> Self {
        let state = if end { Sending::Finished } else { Sending::Body(body) };
        Self { state, role: Role::Client { _open: open }, unwritten: Rc::default(), abort }
    }

    /// Sends an interim response. 101 does not exist in HTTP/2 and is dropped.
    #[expect(clippy::unused_async, reason = "the seam is asynchronous for codecs that write here")]
    pub async fn interim(&mut self, head: &ResponseHead) -> Result<(), StreamError> {
        let Sending::Head(respond) = &mut self.state else {
            return Err(StreamError::Protocol("interim response after the final one"));
        };
        if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        respond.send_informational(response(head)).map_err(|error| stream_error(&error))
    }

    /// Sends the final head; 101 accepts a request to change protocols.
    #[expect(clippy::unused_async, reason = "the seam is asynchronous for codecs that write here")]
    pub async fn response(&mut self, head: &ResponseHead, end: bool) -> Result<(), StreamError> {
        let (Sending::Head(respond), Role::Server { answering, answered, .. }) = (&mut self.state, &mut self.role)
        else {
            return Err(StreamError::Protocol("a second final response"));
        };
        let emptied = head.emptied(*answering == Answering::Bodiless);
        let mut response = response(emptied.as_ref().unwrap_or(head));
        match answering {
            Answering::Upgrade => {
                *response.status_mut() = upgrade::answer_to_wire(head.status, false).0;
                upgrade::take_accept(response.headers_mut());
            }
            Answering::Request | Answering::Bodiless if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                return Err(StreamError::Protocol("101 to a request that asked for no other protocol"));
            }
            Answering::Request if Content::of(head.status) != Content::Framed => *answering = Answering::Bodiless,
            Answering::Request | Answering::Bodiless => {}
        }
        let body = respond.send_response(response, end).map_err(|error| stream_error(&error))?;
        *answered = true;
        self.state = if end { Sending::Finished } else { Sending::Body(body) };
        Ok(())
    }

    fn is_bodiless(&self) -> bool {
        matches!(self.role, Role::Server { answering: Answering::Bodiless, .. })
    }

    /// Sends body bytes as the peer's windows allow. Cancelling may have sent a part. Drops what an answer that may have
    /// no body is given.
    pub async fn data(&mut self, mut data: Bytes) -> Result<(), StreamError> {
        if self.is_bodiless() && !matches!(self.state, Sending::Head(_)) {
            return Ok(());
        }
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
            // It also wakes when there is no room after all, and an empty frame is one that peers count.
            if room == 0 {
                continue;
            }
            let piece = Chunk::new(data.split_to(room.min(data.len())), &self.unwritten);
            body.send_data(piece, false).map_err(|error| stream_error(&error))?;
        }
        Ok(())
    }

    /// Ends the message.
    #[expect(clippy::unused_async, reason = "the seam is asynchronous for codecs that write here")]
    pub async fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), StreamError> {
        let trailers = trailers.filter(|trailers| !trailers.is_empty() && !self.is_bodiless());
        match std::mem::replace(&mut self.state, Sending::Finished) {
            Sending::Body(mut body) => {
                let ended = match trailers {
                    Some(trailers) => body.send_trailers(end_to_end(&trailers)),
                    None => body.send_data(Chunk::empty(), true),
                };
                self.state = if ended.is_ok() { Sending::Ended(body) } else { Sending::Body(body) };
                ended.map_err(|error| stream_error(&error))
            }
            head @ Sending::Head(_) => {
                self.state = head;
                Err(StreamError::Protocol("end of a message without a head"))
            }
            over @ (Sending::Ended(_) | Sending::Finished) => {
                self.state = over;
                Ok(())
            }
        }
    }

    /// Bytes that were given and not yet written.
    pub fn held(&self) -> usize {
        self.unwritten.bytes()
    }

    /// Resolves when everything that was given has been written, or thrown away with the stream. Cancel safe.
    pub async fn written(&mut self) {
        poll_fn(|cx| self.unwritten.poll_none(cx)).await;
    }

    /// Ends the stream as failed, at once: what was not written yet is lost.
    pub fn reset(&mut self, code: u64) {
        match &mut self.state {
            Sending::Head(respond) => respond.send_reset(reason_from_code(code)),
            Sending::Body(body) => body.send_reset(reason_from_code(code)),
            Sending::Ended(body) if self.unwritten.bytes() > 0 => body.send_reset(reason_from_code(code)),
            Sending::Ended(_) | Sending::Finished => {}
        }
        self.state = Sending::Finished;
    }

    /// Ends the stream as failed once all that was given before has been written, which a peer that doesn't read can
    /// delay no longer than `Limits::abort`.
    pub async fn abort(&mut self, code: u64) {
        if let Sending::Body(body) = &mut self.state {
            let unwritten = &self.unwritten;
            let written = poll_fn(|cx| match unwritten.poll_none(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => body.poll_reset(cx).map(|_| ()),
            });
            // Late: the peer doesn't read.
            let _ = tokio::time::timeout(self.abort, written).await;
        }
        self.reset(code);
    }

    /// Resolves when the peer has reset the stream or its connection is lost; never for a finished one. Cancel safe.
    pub async fn gone(&mut self) {
        poll_fn(|cx| match &mut self.state {
            Sending::Head(respond) => respond.poll_reset(cx).map(|_| ()),
            Sending::Body(body) => body.poll_reset(cx).map(|_| ()),
            Sending::Ended(_) | Sending::Finished => Poll::Pending,
        })
        .await;
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if let Role::Server { answered, patience, .. } = &self.role {
            patience.request_over(*answered);
        }
    }
}

/// Why a stream has no room any more.
async fn reset_reason(body: &mut h2::SendStream<Chunk>) -> StreamError {
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

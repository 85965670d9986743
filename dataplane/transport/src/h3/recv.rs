//! The receiving half of a request stream: frames in, heads and body out, with the order of frames and the promised
//! content-length checked on the way. DATA is handed on as the slices that QUIC delivered.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, Method, StatusCode};

use super::connection::{Connection, lost, varint};
use super::frame::{Decoder, Event, Place, Violation};
use super::{Code, message};
use crate::http::{Content, Frame, RequestHead, ResponseHead, SendError, StreamError};
use crate::qpack;
use crate::upgrade;

/// The receiving half of a request stream. Dropped before its end, it tells the peer to stop.
#[derive(Debug)]
pub struct RecvStream {
    stream: quinn::RecvStream,
    connection: Arc<Connection>,
    id: u64,
    decoder: Decoder,
    /// Chunks read ahead, to be decoded in order.
    ahead: VecDeque<Bytes>,
    /// QUIC has nothing more: the end, or why.
    ending: Option<Result<(), StreamError>>,
    phase: Phase,
    /// Bytes of the content-length that are still to come.
    left: Option<u64>,
    request: RequestKind,
    interims: u32,
    stop_code: u64,
}

#[derive(Debug, Clone)]
enum Phase {
    Head,
    Body,
    /// After CONNECT: DATA only.
    Tunnel,
    /// Trailers were read, and are handed on when nothing but the end has come after them.
    Trailed(HeaderMap),
    Done,
    Failed(StreamError),
}

/// Kind of the request, which decides how its response is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestKind {
    Head,
    Connect,
    /// To change protocols.
    Upgrade,
    Other,
}

impl From<&RequestHead> for RequestKind {
    fn from(head: &RequestHead) -> Self {
        match head.method {
            _ if head.protocol.is_some() => RequestKind::Upgrade,
            Method::HEAD => RequestKind::Head,
            Method::CONNECT => RequestKind::Connect,
            _ => RequestKind::Other,
        }
    }
}

/// Why a head was not taken.
#[derive(Debug)]
pub(super) enum HeadError {
    /// Nothing can be said to the peer any more, or all has been said.
    Over(StreamError),
    /// A limit was hit; a server may still answer.
    TooLarge(&'static str),
    /// A protocol that is not known here was asked for; a server may still answer.
    Protocol,
}

/// Chunks taken from QUIC at one lock.
const BATCH: usize = 16;

impl RecvStream {
    pub(super) fn new(
        stream: quinn::RecvStream,
        connection: Arc<Connection>,
        request: RequestKind,
        stop_code: u64,
    ) -> Self {
        RecvStream {
            id: u64::from(stream.id()),
            stream,
            decoder: Decoder::new(connection.role, Place::Request, connection.limits.bounds()),
            connection,
            ahead: VecDeque::new(),
            ending: None,
            phase: Phase::Head,
            left: None,
            request,
            interims: 0,
            stop_code,
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn connection(&self) -> Arc<Connection> {
        self.connection.clone()
    }

    pub(super) fn set_stop_code(&mut self, code: u64) {
        self.stop_code = code;
    }

    /// Server: what the request decides about its answer, once its head was read.
    pub(super) fn kind(&self) -> RequestKind {
        self.request
    }

    /// Server: reads the head of the request.
    pub(super) async fn request_head(&mut self) -> Result<RequestHead, HeadError> {
        let section = loop {
            if let Some(section) = self.buffered_head()? {
                break section;
            }
            self.fill().await;
        };
        let decoded = message::decode_request(&section, &self.connection.limits);
        let decoded = decoded.map_err(|error| self.refuse(error))?;
        self.request = RequestKind::from(&decoded.head);
        if matches!(self.request, RequestKind::Connect | RequestKind::Upgrade) {
            self.phase = Phase::Tunnel;
        } else {
            self.phase = Phase::Body;
            self.left = decoded.content_length;
        }
        self.look_ahead();
        Ok(decoded.head)
    }

    /// Client: the next head of the response; interim ones come before the final one. Cancel safe.
    pub async fn response_head(&mut self) -> Result<ResponseHead, SendError> {
        let section = loop {
            match self.buffered_head() {
                Ok(Some(section)) => break section,
                Ok(None) => {}
                Err(error) => return Err(self.send_error(error)),
            }
            let connection = self.connection.clone();
            let changed = connection.changed.notified();
            //= rfc9114#section-5.2
            if connection.is_refused(self.id) {
                self.stop(Code::REQUEST_CANCELLED);
                return Err(SendError { error: StreamError::Reset(Code::REQUEST_REJECTED), unprocessed: true });
            }
            tokio::select! {
                biased;
                () = self.fill() => {}
                () = changed => {}
            }
        };
        let decoded = message::decode_response(&section, &self.connection.limits);
        let decoded = decoded.map_err(|error| self.refuse(error)).map_err(|error| self.send_error(error))?;
        if decoded.head.status.is_informational() {
            self.interims += 1;
            if self.interims > self.connection.limits.interim_responses {
                let error = self.abandon(Code::EXCESSIVE_LOAD, StreamError::Limit("interim responses"));
                return Err(self.send_error(HeadError::Over(error)));
            }
            return Ok(decoded.head);
        }
        let mut head = decoded.head;
        if self.request == RequestKind::Upgrade {
            head.status = upgrade::answer_from_wire(head.status, &mut head.headers, true);
        }
        self.begin_body(head.status, decoded.content_length);
        self.look_ahead();
        Ok(head)
    }

    fn begin_body(&mut self, status: StatusCode, content_length: Option<u64>) {
        self.phase = Phase::Body;
        self.left = content_length;
        //= rfc9114#section-4.1.2
        // These have no content whatever their content-length says.
        let empty = self.request == RequestKind::Head || Content::of(status) == Content::Never;
        let accepted = match self.request {
            RequestKind::Connect => status.is_success(),
            RequestKind::Upgrade => status == StatusCode::SWITCHING_PROTOCOLS,
            RequestKind::Head | RequestKind::Other => false,
        };
        if accepted {
            self.phase = Phase::Tunnel;
            self.left = None;
        } else if empty {
            self.left = Some(0);
        }
    }

    /// The next frame of the body; `None` at its clean end. Cancel safe.
    pub async fn frame(&mut self) -> Result<Option<Frame>, StreamError> {
        loop {
            match &self.phase {
                Phase::Done => return Ok(None),
                Phase::Failed(error) => return Err(error.clone()),
                Phase::Head => return Err(StreamError::Protocol("body read before its head")),
                Phase::Body | Phase::Tunnel | Phase::Trailed(_) => {}
            }
            if let Some(event) = self.buffered_event()? {
                match self.body_event(event)? {
                    Some(frame) => return Ok(Some(frame)),
                    None => continue,
                }
            }
            if let Some(ending) = self.ending.clone() {
                return self.complete(ending);
            }
            self.fill().await;
        }
    }

    /// True when no frame will come and that is known without waiting.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Bytes that are here or that the peer may still send before anything is read: its window, as far as the message needs
    /// it. QUIC doesn't tell how much of it has come.
    #[must_use]
    pub fn held(&self) -> usize {
        let ahead = self.ahead.iter().map(Bytes::len).sum::<usize>();
        if self.ending.is_some() {
            return ahead;
        }
        let left = self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        left.min(ahead + self.connection.limits.stream_window)
    }

    /// Tells the peer to stop sending; what has not been read is dropped.
    pub fn stop(&mut self, code: u64) {
        if self.ending.is_none() {
            // Fails only where the stream is already over.
            let _ = self.stream.stop(varint(code));
            self.ending = Some(Err(StreamError::Truncated));
        }
        if !matches!(self.phase, Phase::Done | Phase::Failed(_)) {
            self.phase = Phase::Failed(StreamError::Truncated);
        }
    }

    /// Takes in what came; `None`: it is nothing to hand on now.
    fn body_event(&mut self, event: Event) -> Result<Option<Frame>, StreamError> {
        match (event, &self.phase) {
            (Event::Data(data), Phase::Body | Phase::Tunnel) => {
                if let Some(left) = &mut self.left {
                    match left.checked_sub(data.len() as u64) {
                        Some(rest) => *left = rest,
                        None => return Err(self.malformed("more content than content-length")),
                    }
                }
                self.look_ahead();
                Ok(Some(Frame::Data(data)))
            }
            (Event::Headers(section), Phase::Body) => {
                if !self.length_is_met() {
                    return Err(self.malformed("less content than content-length"));
                }
                let trailers = message::decode_trailers(&section, &self.connection.limits);
                let trailers = trailers.map_err(|error| match self.refuse(error) {
                    HeadError::Over(error) => error,
                    HeadError::TooLarge(what) => self.abandon(Code::EXCESSIVE_LOAD, StreamError::Limit(what)),
                    HeadError::Protocol => self.malformed("pseudo-header field in trailers"),
                })?;
                self.phase = Phase::Trailed(trailers);
                Ok(None)
            }
            // All that the sender had is here; it did not get to a good end.
            (Event::Abort(code), Phase::Body | Phase::Tunnel) => Err(self.aborted(code)),
            (Event::Oversize, Phase::Body) => {
                Err(self.abandon(Code::EXCESSIVE_LOAD, StreamError::Limit("header bytes")))
            }
            //= rfc9114#section-4.1
            //= rfc9114#section-4.4
            _ => Err(self.violated(Violation::new(Code::FRAME_UNEXPECTED, "frame out of order"))),
        }
    }

    /// The section of the next HEADERS frame, if all of it is here. Only before the body.
    fn buffered_head(&mut self) -> Result<Option<Bytes>, HeadError> {
        if let Phase::Failed(error) = &self.phase {
            return Err(HeadError::Over(error.clone()));
        }
        if !matches!(self.phase, Phase::Head) {
            return Err(HeadError::Over(StreamError::Protocol("head already read")));
        }
        match self.buffered_event().map_err(HeadError::Over)? {
            Some(Event::Headers(section)) => return Ok(Some(section)),
            Some(Event::Oversize) => return Err(HeadError::TooLarge("header bytes")),
            Some(Event::Abort(code)) => return Err(HeadError::Over(self.aborted(code))),
            Some(_) => {
                let violation = Violation::new(Code::FRAME_UNEXPECTED, "DATA before HEADERS");
                return Err(HeadError::Over(self.violated(violation)));
            }
            None => {}
        }
        match self.ending.clone() {
            None => Ok(None),
            Some(Err(error)) => Err(HeadError::Over(self.fail(error))),
            //= rfc9114#section-4.1
            Some(Ok(())) => Err(HeadError::Over(self.fail(StreamError::Truncated))),
        }
    }

    /// The next event that the bytes at hand make.
    fn buffered_event(&mut self) -> Result<Option<Event>, StreamError> {
        loop {
            match self.decoder.next() {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) => {}
                Err(violation) => return Err(self.violated(violation)),
            }
            match self.ahead.pop_front() {
                Some(chunk) => self.decoder.push(chunk),
                None => break,
            }
        }
        if let Some(Ok(())) = self.ending
            && let Err(violation) = self.decoder.finish()
        {
            return Err(self.violated(violation));
        }
        Ok(None)
    }

    /// Waits for bytes or the end. Cancel safe. Only when the bytes at hand have been decoded.
    async fn fill(&mut self) {
        match self.stream.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => self.decoder.push(chunk.bytes),
            Ok(None) => self.ending = Some(Ok(())),
            Err(error) => self.ending = Some(Err(read_error(&error))),
        }
    }

    /// Takes what QUIC has without waiting: the end is then known early, and bulk data costs one lock per batch.
    fn look_ahead(&mut self) {
        if !self.decoder.is_drained() || !self.ahead.is_empty() {
            return;
        }
        if self.ending.is_none() {
            let mut chunks = [const { Bytes::new() }; BATCH];
            match self.stream.read_chunks(&mut chunks).now_or_never() {
                Some(Ok(Some(count))) => {
                    let mut chunks = chunks.into_iter().take(count);
                    // The usual one: no queue is made for it.
                    chunks.next().into_iter().for_each(|first| self.decoder.push(first));
                    self.ahead.extend(chunks);
                }
                Some(Ok(None)) => self.ending = Some(Ok(())),
                Some(Err(error)) => self.ending = Some(Err(read_error(&error))),
                None => {}
            }
        }
        let clean = matches!(self.ending, Some(Ok(()))) && self.ahead.is_empty() && self.decoder.is_between_frames();
        if clean && self.length_is_met() && matches!(self.phase, Phase::Body | Phase::Tunnel) {
            self.phase = Phase::Done;
        }
    }

    /// The stream has ended: hands on the trailers, where there were some.
    fn complete(&mut self, ending: Result<(), StreamError>) -> Result<Option<Frame>, StreamError> {
        match ending {
            Err(error) => Err(self.fail(error)),
            //= rfc9114#section-4.1.2
            Ok(()) if !self.length_is_met() => Err(self.malformed("less content than content-length")),
            Ok(()) => match std::mem::replace(&mut self.phase, Phase::Done) {
                Phase::Trailed(trailers) => Ok(Some(Frame::Trailers(trailers))),
                Phase::Head | Phase::Body | Phase::Tunnel | Phase::Done | Phase::Failed(_) => Ok(None),
            },
        }
    }

    /// The sender ended its message as failed, behind its last byte.
    fn aborted(&mut self, code: u64) -> StreamError {
        self.ending = Some(Err(StreamError::Reset(code)));
        self.fail(StreamError::Reset(code))
    }

    fn length_is_met(&self) -> bool {
        self.left.is_none_or(|left| left == 0)
    }

    fn refuse(&mut self, error: qpack::Error) -> HeadError {
        match error {
            qpack::Error::Malformed(reason) => {
                //= rfc9204#section-2.2
                HeadError::Over(self.violated(Violation::new(Code::QPACK_DECOMPRESSION_FAILED, reason)))
            }
            qpack::Error::Limit(what) => HeadError::TooLarge(what),
            qpack::Error::Field(reason) => HeadError::Over(self.malformed(reason)),
            qpack::Error::Protocol => HeadError::Protocol,
        }
    }

    //= rfc9114#section-4.1.2
    fn malformed(&mut self, reason: &'static str) -> StreamError {
        self.abandon(Code::MESSAGE_ERROR, StreamError::Protocol(reason))
    }

    fn violated(&mut self, violation: Violation) -> StreamError {
        let error = self.connection.fail(violation);
        self.fail(error)
    }

    /// Stops the stream with `code`; every later call gives `error`.
    fn abandon(&mut self, code: u64, error: StreamError) -> StreamError {
        self.stop(code);
        self.fail(error)
    }

    fn fail(&mut self, error: StreamError) -> StreamError {
        self.phase = Phase::Failed(error.clone());
        error
    }

    fn send_error(&mut self, error: HeadError) -> SendError {
        let error = match error {
            HeadError::Over(error) => error,
            HeadError::TooLarge(what) => self.abandon(Code::EXCESSIVE_LOAD, StreamError::Limit(what)),
            HeadError::Protocol => self.malformed("protocol in a response"),
        };
        //= rfc9114#section-4.1.1
        let rejected = matches!(error, StreamError::Reset(Code::REQUEST_REJECTED)) && self.interims == 0;
        SendError { unprocessed: rejected || self.connection.is_refused(self.id), error }
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.stop(self.stop_code);
        self.connection.released();
    }
}

fn read_error(error: &quinn::ReadError) -> StreamError {
    match error {
        quinn::ReadError::Reset(code) => StreamError::Reset(code.into_inner()),
        quinn::ReadError::ConnectionLost(error) => lost(error),
        quinn::ReadError::ClosedStream | quinn::ReadError::IllegalOrderedRead => StreamError::Truncated,
        quinn::ReadError::ZeroRttRejected => StreamError::ConnectionLost("0-RTT rejected".to_owned()),
    }
}

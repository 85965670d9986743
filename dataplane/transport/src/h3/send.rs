//! The sending half of a request stream. What is written is always whole frames: a dropped future leaves its rest to the
//! next call, a half dropped before `finish` resets the stream, so a cut message never looks complete.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use smallvec::SmallVec;

use super::connection::{Connection, lost, varint};
use super::frame;
use super::message;
use super::recv::RequestKind;
use crate::block::assemble;
use crate::http::{Content, ResponseHead, StreamError};
use crate::upgrade;

/// The sending half of a request stream. Dropped before `finish`, it resets the stream.
#[derive(Debug)]
pub struct SendStream {
    stream: quinn::SendStream,
    connection: Arc<Connection>,
    /// Accepted but not yet taken by QUIC: a HEADERS frame, a DATA frame's header, its payload.
    pending: SmallVec<[Bytes; 3]>,
    ended: bool,
    /// Server: the final head of the response has been accepted.
    answered: bool,
    /// Server: the request asks to change protocols.
    upgrade: bool,
    /// Server: the answer may have no body; what is given for one is dropped.
    bodiless: bool,
    /// The code of the reset when this half is dropped unfinished.
    abandon_code: u64,
}

impl SendStream {
    pub(super) fn new(stream: quinn::SendStream, connection: Arc<Connection>, abandon_code: u64) -> Self {
        let pending = SmallVec::new();
        let (ended, answered, upgrade, bodiless) = (false, false, false, false);
        SendStream { stream, connection, pending, ended, answered, upgrade, bodiless, abandon_code }
    }

    pub(super) fn set_request(&mut self, kind: RequestKind) {
        self.upgrade = kind == RequestKind::Upgrade;
        self.bodiless = kind == RequestKind::Head;
    }

    /// How long a client may take for what it is told before anybody serves it.
    pub(super) fn patience(&self) -> Duration {
        self.connection.limits.head_timeout
    }

    pub(super) fn set_abandon_code(&mut self, code: u64) {
        self.abandon_code = code;
    }

    /// Sends an interim response. 101 does not exist in HTTP/3 and is dropped.
    pub async fn interim(&mut self, head: &ResponseHead) -> Result<(), StreamError> {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        self.response_head(head, false).await?;
        self.flush().await
    }

    /// Takes the final response head, which leaves with the first body bytes, at `flush` or at the end of the message;
    /// `end`: and ends the message. 101 accepts a request to change protocols.
    pub async fn response(&mut self, head: &ResponseHead, end: bool) -> Result<(), StreamError> {
        if self.upgrade {
            let (status, field) = upgrade::answer_to_wire(head.status, true);
            let mut head = ResponseHead { status, headers: head.headers.clone() };
            head.headers.extend(field);
            self.response_head(&head, end).await?;
        } else if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(StreamError::Protocol("101 to a request that asked for no other protocol"));
        } else {
            let emptied = head.emptied(self.bodiless);
            self.response_head(emptied.as_ref().unwrap_or(head), end).await?;
        }
        self.bodiless |= !head.status.is_informational() && Content::of(head.status) != Content::Framed;
        self.answered |= !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS;
        Ok(())
    }

    async fn response_head(&mut self, head: &ResponseHead, end: bool) -> Result<(), StreamError> {
        let huffman = self.connection.limits.huffman;
        let (headers, size) =
            assemble(|out| frame::write_headers(out, |out| message::encode_response(out, head, huffman)));
        self.headers(headers, size, end).await
    }

    /// Takes an assembled HEADERS frame; `end`: and sends it as the last.
    pub(super) async fn headers(&mut self, headers: Bytes, size: usize, end: bool) -> Result<(), StreamError> {
        fits(&self.connection, size)?;
        self.flush().await?;
        self.pending.push(headers);
        if end { self.end().await } else { Ok(()) }
    }

    /// Sends body bytes, waiting for room. A dropped future may or may not have accepted `data`; what it accepted goes out
    /// with the next call, so frames stay whole.
    pub async fn data(&mut self, data: Bytes) -> Result<(), StreamError> {
        if data.is_empty() || self.bodiless {
            return Ok(());
        }
        if self.pending.len() > 1 {
            self.flush().await?;
        }
        let (header, ()) = assemble(|out| frame::write_data_header(out, data.len()));
        self.pending.extend([header, data]);
        self.flush().await
    }

    /// Ends the message, with trailers where there are any.
    pub async fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), StreamError> {
        let Some(trailers) = trailers.filter(|trailers| !trailers.is_empty() && !self.bodiless) else {
            return self.end().await;
        };
        let huffman = self.connection.limits.huffman;
        let (headers, size) =
            assemble(|out| frame::write_headers(out, |out| message::encode_trailers(out, &trailers, huffman)));
        self.headers(headers, size, true).await
    }

    /// Ends the message as failed: RESET_STREAM with `code`. Nothing happens once the message has ended.
    pub fn reset(&mut self, code: u64) {
        if !self.ended {
            self.ended = true;
            // Fails only where the stream is already over.
            let _ = self.stream.reset(varint(code));
        }
    }

    /// Ends the message as failed once everything that was given has left, which a peer that doesn't read can delay no
    /// longer than `Limits::abort`. A peer that agreed is told behind the last byte; RESET_STREAM would overtake it.
    pub async fn abort(&mut self, code: u64) {
        if !self.ended {
            // Late, or gone: the reset tells.
            let _ = tokio::time::timeout(self.connection.limits.abort, self.abort_in_order(code)).await;
        }
        self.reset(code);
    }

    async fn abort_in_order(&mut self, code: u64) -> Result<(), StreamError> {
        self.flush().await?;
        if !self.connection.peer_takes_aborts() {
            // QUIC doesn't tell what has arrived: a few round trips are the best guess.
            tokio::time::sleep(self.connection.linger()).await;
            return Ok(());
        }
        let (abort, ()) = assemble(|out| frame::write_abort(out, code));
        self.pending.push(abort);
        self.end().await
    }

    /// Resolves when the peer has stopped the stream or its connection is lost; never for a message that was ended.
    /// Cancel safe.
    pub async fn gone(&mut self) {
        if self.ended {
            return std::future::pending().await;
        }
        let _ = self.stream.stopped().await;
    }

    async fn end(&mut self) -> Result<(), StreamError> {
        self.flush().await?;
        if self.ended {
            return Ok(());
        }
        self.ended = true;
        self.stream.finish().map_err(|_| StreamError::Truncated)
    }

    /// Bytes that QUIC has not taken yet.
    #[must_use]
    pub fn held(&self) -> usize {
        self.pending.iter().map(Bytes::len).sum()
    }

    /// Hands what was taken to QUIC; what is left when the future is dropped stays for the next call.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        while self.pending.iter().any(|bytes| !bytes.is_empty()) {
            self.stream.write_chunks(&mut self.pending).await.map_err(|error| write_error(&error))?;
        }
        self.pending.clear();
        Ok(())
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        self.reset(self.abandon_code);
        self.connection.released();
        if !self.answered && self.connection.role == frame::Role::Server {
            self.connection.cancelled();
        }
    }
}

fn write_error(error: &quinn::WriteError) -> StreamError {
    match error {
        quinn::WriteError::Stopped(code) => StreamError::Reset(code.into_inner()),
        quinn::WriteError::ConnectionLost(error) => lost(error),
        quinn::WriteError::ClosedStream => StreamError::Truncated,
        quinn::WriteError::ZeroRttRejected => StreamError::ConnectionLost("0-RTT rejected".to_owned()),
    }
}

//= rfc9114#section-4.2.2
// A section above what the peer announced is not sent.
pub(super) fn fits(connection: &Connection, size: usize) -> Result<(), StreamError> {
    match connection.peer.get().and_then(|peer| peer.max_field_section_size) {
        Some(limit) if size as u64 > limit => Err(StreamError::Limit("peer's header bytes")),
        _ => Ok(()),
    }
}

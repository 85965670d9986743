//! The part of a body that was read before anybody asked for it. Small frames are put together: the memory that each
//! takes beside its bytes is bounded by no window.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use super::stream_error;
use crate::http::StreamError;

/// Larger frames are kept as they came.
const SMALL: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Ahead {
    pieces: VecDeque<Bytes>,
    /// Small frames behind them.
    tail: BytesMut,
    /// The error behind all of it.
    failed: Option<StreamError>,
}

impl Ahead {
    /// Reads all that has come of a body; ready where nothing but trailers can follow.
    pub(super) fn read(&mut self, body: &mut h2::RecvStream, cx: &mut Context<'_>) -> Poll<()> {
        while self.failed.is_none() {
            match body.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => self.add(data),
                Poll::Ready(Some(Err(error))) => self.failed = Some(stream_error(&error)),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    fn add(&mut self, data: Bytes) {
        if data.is_empty() {
            // It only carries the end.
            return;
        }
        // One that is alone is not copied.
        if data.len() < SMALL && !self.is_empty() {
            self.tail.extend_from_slice(&data);
            return;
        }
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
        self.pieces.push_back(data);
    }

    /// The next piece, or the error behind the last.
    pub(super) fn take(&mut self) -> Option<Result<Bytes, StreamError>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Some(Ok(piece));
        }
        if !self.tail.is_empty() {
            return Some(Ok(std::mem::take(&mut self.tail).freeze()));
        }
        self.failed.take().map(Err)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.tail.is_empty() && self.failed.is_none()
    }
}

//! Messages of gRPC in a body that comes in chunks: five bytes of framing (a flag and the length), then the message.
//! Chunks go in as they come, whole messages come out: parts of the chunk where they lie in one. Invariant: what is held is
//! never more than the limit and one frame's head.

use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::ledger::{Holding, Ledger, Part};

/// Bytes of framing before each message.
const HEAD: usize = 5;

/// One direction of one stream.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// The start of a message that did not come in one chunk.
    held: BytesMut,
    /// What was not looked at yet.
    rest: Bytes,
    /// What is held between chunks, of all that the process may keep for filters.
    part: Part,
}

/// One whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// With its framing, as it came.
    framed: Bytes,
}

/// A message is longer than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Frames {
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if self.rest.is_empty() {
            self.rest = bytes;
        } else {
            self.rest = [&self.rest[..], &bytes[..]].concat().into();
        }
    }

    /// The next whole message, if it is there.
    ///
    /// # Errors
    /// It will be longer than `most` bytes.
    pub(crate) fn next(&mut self, most: usize) -> Result<Option<Message>, TooLong> {
        if self.held.is_empty() {
            let Some(length) = framed_length(&self.rest, most)?.filter(|length| *length <= self.rest.len()) else {
                self.hold(usize::MAX);
                return Ok(None);
            };
            return Ok(Some(Message { framed: self.rest.split_to(length) }));
        }
        self.hold(HEAD);
        let Some(length) = framed_length(&self.held, most)? else { return Ok(None) };
        self.hold(length);
        let is_whole = self.held.len() == length;
        Ok(is_whole.then(|| Message { framed: self.held.split().freeze() }))
    }

    /// Holds as much of what came as makes so many bytes.
    fn hold(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.held.len()).min(self.rest.len());
        self.held.extend_from_slice(&self.rest.split_to(more));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.rest.is_empty()
    }

    /// Counts what is held until the next chunk. False: the process may not hold so much.
    pub(crate) fn keep(&mut self, ledger: &Arc<Ledger>) -> bool {
        self.part.set(ledger, Holding::Messages, (self.held.len() + self.rest.len()) as u64)
    }

    /// Gives up what is held, as it came.
    pub(crate) fn take(&mut self) -> Bytes {
        let rest = std::mem::take(&mut self.rest);
        if self.held.is_empty() {
            return rest;
        }
        self.held.extend_from_slice(&rest);
        std::mem::take(&mut self.held).freeze()
    }
}

/// Length of the first message with its framing; `None` before its head has come.
fn framed_length(bytes: &[u8], most: usize) -> Result<Option<usize>, TooLong> {
    let Some(head) = bytes.first_chunk::<HEAD>() else { return Ok(None) };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > most { Err(TooLong) } else { Ok(Some(HEAD + length)) }
}

impl Message {
    /// Without its framing; compressed where it came so.
    pub(crate) fn body(&self) -> Bytes {
        let mut body = self.framed.clone();
        body.advance(HEAD);
        body
    }

    /// As it came.
    pub(crate) fn framed(&self) -> &[u8] {
        &self.framed
    }
}

/// What a chunk becomes: its own bytes, without a copy, as long as no message in it changes.
#[derive(Debug)]
pub(crate) struct Output {
    chunk: Bytes,
    /// Bytes at its start that go on as they came.
    same: usize,
    changed: Option<BytesMut>,
}

impl Output {
    /// `is_start`: the chunk begins with a message.
    pub(crate) fn of(chunk: Bytes, is_start: bool) -> Self {
        Self { chunk, same: 0, changed: (!is_start).then(BytesMut::new) }
    }

    /// A message goes on as it came.
    pub(crate) fn same(&mut self, framed: &[u8]) {
        match &mut self.changed {
            None => self.same += framed.len(),
            Some(changed) => changed.extend_from_slice(framed),
        }
    }

    /// Takes what is written in the place of a message.
    pub(crate) fn other(&mut self) -> &mut BytesMut {
        let Self { chunk, same, changed } = self;
        changed.get_or_insert_with(|| BytesMut::from(&chunk[..*same]))
    }

    pub(crate) fn finish(self) -> Bytes {
        match self.changed {
            None => self.chunk.slice(..self.same),
            Some(changed) => changed.freeze(),
        }
    }
}

/// A new message, uncompressed, with its framing.
pub(crate) fn frame(body: &[u8], into: &mut BytesMut) {
    into.reserve(HEAD + body.len());
    into.put_u8(0);
    // Bodies are bounded far below 4 GiB.
    into.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    into.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_however_they_came_in() {
        let mut stream = BytesMut::new();
        for body in [&b"one"[..], b"", b"three"] {
            frame(body, &mut stream);
        }
        stream.extend_from_slice(&[1, 0, 0, 0, 2, b'z', b'z', 0, 0]);
        for size in 1..=stream.len() {
            let (ledger, mut frames) = (Arc::new(Ledger::new(10)), Frames::default());
            let (mut bodies, mut framed) = (Vec::new(), Vec::new());
            for chunk in stream.chunks(size) {
                frames.push(Bytes::copy_from_slice(chunk));
                while let Some(message) = frames.next(5).expect("short enough") {
                    bodies.push(message.body());
                    framed.extend_from_slice(message.framed());
                }
                assert!(frames.keep(&ledger) && ledger.used() < 10, "part of one message");
            }
            assert_eq!(bodies, [&b"one"[..], b"", b"three", b"zz"], "chunks of {size}");
            assert_eq!(ledger.used(), 2);
            framed.extend_from_slice(&frames.take());
            assert_eq!(framed[..], stream[..], "not a byte is lost");
            assert!(frames.is_empty());
            drop(frames);
            assert_eq!(ledger.used(), 0);
        }
    }

    #[test]
    fn a_long_message_is_refused_before_it_is_held() {
        let mut frames = Frames::default();
        frames.push(Bytes::from_static(&[0, 0, 0, 0, 6]));
        assert_eq!(frames.next(5), Err(TooLong));
        assert_eq!(frames.take(), Bytes::from_static(&[0, 0, 0, 0, 6]));
    }

    #[test]
    fn what_does_not_change_is_not_copied() {
        let chunk = Bytes::from_static(&[0, 0, 0, 0, 1, b'a', 0, 0, 0, 0, 1, b'b', 0, 0]);
        let mut frames = Frames::default();
        let mut out = Output::of(chunk.clone(), frames.is_empty());
        frames.push(chunk.clone());
        while let Some(message) = frames.next(5).expect("short enough") {
            out.same(message.framed());
        }
        let out = out.finish();
        assert_eq!((out.as_ptr(), &out[..]), (chunk.as_ptr(), &chunk[..12]));
        let mut out = Output::of(chunk.clone(), true);
        out.same(&chunk[..6]);
        frame(b"c", out.other());
        out.same(&chunk[6..12]);
        assert_eq!(out.finish()[..], [&chunk[..6], &[0, 0, 0, 0, 1, b'c'], &chunk[6..12]].concat());
    }
}

//! Messages of gRPC in a body that comes in chunks: five bytes of framing (a flag and the length), then the message.
//! Chunks go in as they come, whole messages come out. Invariant: what is held is never more than the limit and one
//! frame's head.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Bytes of framing before each message.
const HEAD: usize = 5;

/// One direction of one stream.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    held: BytesMut,
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
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next whole message, if it is there.
    ///
    /// # Errors
    /// It will be longer than `most` bytes.
    pub(crate) fn next(&mut self, most: usize) -> Result<Option<Message>, TooLong> {
        let Some(head) = self.held.first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > most {
            return Err(TooLong);
        }
        if self.held.len() < HEAD + length {
            return Ok(None);
        }
        Ok(Some(Message { framed: self.held.split_to(HEAD + length).freeze() }))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Gives up what is held, as it came.
    pub(crate) fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze()
    }
}

impl Message {
    /// Without its framing; compressed where it came so.
    pub(crate) fn body(&self) -> Bytes {
        let mut body = self.framed.clone();
        body.advance(HEAD);
        body
    }

    /// As it came.
    pub(crate) fn into_framed(self) -> Bytes {
        self.framed
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
            let mut frames = Frames::default();
            let (mut bodies, mut framed) = (Vec::new(), Vec::new());
            for chunk in stream.chunks(size) {
                frames.push(chunk);
                while let Some(message) = frames.next(5).expect("short enough") {
                    bodies.push(message.body());
                    framed.extend_from_slice(&message.into_framed());
                }
            }
            assert_eq!(bodies, [&b"one"[..], b"", b"three", b"zz"], "chunks of {size}");
            framed.extend_from_slice(&frames.take());
            assert_eq!(framed[..], stream[..], "not a byte is lost");
            assert!(frames.is_empty());
        }
    }

    #[test]
    fn a_long_message_is_refused_before_it_is_held() {
        let mut frames = Frames::default();
        frames.push(&[0, 0, 0, 0, 6]);
        assert_eq!(frames.next(5), Err(TooLong));
        assert_eq!(frames.take(), Bytes::from_static(&[0, 0, 0, 0, 6]));
    }
}

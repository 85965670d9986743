//! Small pieces of a body, put together before they are handed on. A sender chooses how small its pieces are; each costs
//! the next codec a frame of its own, and QUIC a segment that it looks through with every packet.

use bytes::{Bytes, BytesMut};

/// Larger pieces are handed on as they are.
const SMALL: usize = 1_024;
/// The most bytes that are put together.
const FULL: usize = 16 * 1_024;

/// Pieces that wait for more, in the order in which they came. The first is shared, so that one alone is never copied.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    first: Bytes,
    rest: BytesMut,
}

impl Gathered {
    /// True where `data` is small, and there is room for it.
    pub(super) fn takes(&self, data: &Bytes) -> bool {
        data.len() < SMALL && self.len() + data.len() <= FULL
    }

    pub(super) fn add(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.first = data;
            return;
        }
        if self.rest.is_empty() {
            self.rest.reserve(FULL);
            self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.rest.extend_from_slice(&data);
    }

    /// All of it as one piece; empty where there is none.
    pub(super) fn take(&mut self) -> Bytes {
        if self.rest.is_empty() { std::mem::take(&mut self.first) } else { self.rest.split().freeze() }
    }

    fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }
}

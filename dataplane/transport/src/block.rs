//! Small immutable byte strings, cut one after the other from blocks of this thread: one allocation serves many. A block
//! lives as long as the last string cut from it, so only what is short and short-lived belongs here.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

/// Bytes of a block.
const BLOCK: usize = 4096;
/// A block with less room than this is given up for a new one.
const LITTLE: usize = 512;

/// Writes at the end of the block and takes what was written as one `Bytes`.
pub(crate) fn assemble<R>(write: impl FnOnce(&mut BytesMut) -> R) -> (Bytes, R) {
    thread_local! {
        static CURRENT: RefCell<BytesMut> = RefCell::new(BytesMut::with_capacity(BLOCK));
    }
    CURRENT.with_borrow_mut(|block| {
        if block.capacity() < LITTLE {
            block.reserve(BLOCK);
        }
        let result = write(block);
        (block.split().freeze(), result)
    })
}

/// A copy of `bytes`: cut from the block where they are few, in an allocation of its own where they are many.
pub(crate) fn copy(bytes: &[u8]) -> Bytes {
    if bytes.len() > LITTLE {
        return Bytes::copy_from_slice(bytes);
    }
    assemble(|block| block.extend_from_slice(bytes)).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_what_was_written_whatever_their_length() {
        let long = vec![b'x'; 3 * BLOCK];
        let texts = (0..=255u8).map(|length| vec![length; usize::from(length) * 3]).chain([long]);
        let kept: Vec<_> = texts.map(|text| (copy(&text), text)).collect();
        assert!(kept.iter().all(|(copied, text)| copied == text));
        let (whole, written) = assemble(|out| {
            out.extend_from_slice(&[7; 2 * BLOCK]);
            out.len()
        });
        assert_eq!((whole.len(), written), (2 * BLOCK, 2 * BLOCK), "more than a block may be written");
    }
}

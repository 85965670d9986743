//! Memory that exchanges take turns in. The future of one is larger than what an allocator keeps at hand, and each request has
//! one: a block that is kept spares looking for it.

use std::cell::RefCell;

use bumpalo::Bump;
use bumpalo::boxed::Box;

thread_local! {
    /// Those that nobody uses.
    static FREE: RefCell<Vec<Bump>> = const { RefCell::new(Vec::new()) };
}

/// Rooms that a thread keeps, at the most. Not in the configuration: 256 KiB.
const KEPT_ROOMS: usize = 64;
/// What the future of an exchange takes, about. A larger one makes its room grow to twice as much.
const BYTES: usize = 4 * 1_024 - 64;
/// A room that has grown beyond this is not kept.
const MOST_BYTES: usize = 8 * 1_024;

/// A room in use. It is free for another exchange once this is dropped.
#[derive(Debug)]
pub(crate) struct Room(Bump);

impl Room {
    /// A free room, or a new one.
    pub(crate) fn take() -> Self {
        let free = FREE.with_borrow_mut(Vec::pop);
        Self(free.unwrap_or_else(|| Bump::with_capacity(BYTES)))
    }

    /// Runs a future in the room. It is dropped before the room is free.
    pub(crate) async fn run<F: Future>(self, make: impl FnOnce() -> F) -> F::Output {
        Box::pin_in(make(), &self.0).await
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut room = std::mem::take(&mut self.0);
        room.reset();
        // At the end of its thread there is no list any more.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT_ROOMS && room.chunk_capacity() <= MOST_BYTES {
                free.push(room);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn what_it_runs_is_dropped_and_its_memory_kept() {
        let counted = Rc::new(());
        let mut cx = Context::from_waker(Waker::noop());
        FREE.take();
        let mine = Rc::clone(&counted);
        let mut future = pin!(Some(Room::take().run(|| async move {
            std::future::pending::<()>().await;
            drop(mine);
        })));
        assert!(future.as_mut().as_pin_mut().unwrap().poll(&mut cx).is_pending());
        assert_eq!((Rc::strong_count(&counted), FREE.with_borrow(Vec::len)), (2, 0));
        future.set(None);
        assert_eq!((Rc::strong_count(&counted), FREE.with_borrow(Vec::len)), (1, 1));
    }

    #[test]
    fn few_are_kept_and_none_that_has_grown_large() {
        FREE.take();
        drop((0..KEPT_ROOMS + 3).map(|_| Room::take()).collect::<Vec<_>>());
        assert_eq!(FREE.with_borrow(Vec::len), KEPT_ROOMS);
        for (bytes, kept) in [(8, true), (BYTES + 8, true), (2 * MOST_BYTES, false)] {
            FREE.take();
            let room = Room::take();
            room.0.alloc_slice_fill_copy(bytes, 0_u8);
            drop(room);
            assert_eq!(FREE.with_borrow(Vec::len), usize::from(kept), "{bytes} bytes");
        }
    }
}

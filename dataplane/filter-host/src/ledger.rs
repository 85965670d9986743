//! Bytes that filters have the process keep between calls: values of `kv`, token buckets, the beginnings of messages. Each
//! kind is bounded for one policy or stream elsewhere; this is the bound for all of them together. Invariant: holders that
//! keep much leave a quarter to those that keep little, so that no crowd of one policy's callers empties what the policies
//! of others keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::stats::Counter;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holding {
    Values,
    Buckets,
    Messages,
}

impl Holding {
    const ALL: [Holding; 3] = [Holding::Values, Holding::Buckets, Holding::Messages];

    const fn name(self) -> &'static str {
        match self {
            Holding::Values => "kv",
            Holding::Buckets => "token_bucket",
            Holding::Messages => "message",
        }
    }

    const fn index(self) -> usize {
        self as usize
    }

    /// True for what policies keep. Messages have no part of what is set aside: each stream is a holder, and a caller opens as
    /// many streams as it likes.
    const fn is_of_policy(self) -> bool {
        match self {
            Holding::Values | Holding::Buckets => true,
            Holding::Messages => false,
        }
    }
}

/// One part in so many is what a store of values, or a limit's buckets, may have where others keep as much as they may: 256 KiB
/// of 256 MiB. A ledger of fewer bytes than this sets nothing aside.
const LITTLE: u64 = 1_024;
/// So many of these parts are set aside.
const SET_ASIDE: u64 = 256;

/// One per host.
#[derive(Debug)]
pub(crate) struct Ledger {
    most: u64,
    /// What one holder of a policy may have of what is set aside.
    little: u64,
    used: AtomicU64,
    refused: [Counter; Holding::ALL.len()],
}

/// Without a bound.
impl Default for Ledger {
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl Ledger {
    pub(crate) fn new(most: u64) -> Self {
        Self { most, little: most / LITTLE, used: AtomicU64::new(0), refused: Default::default() }
    }

    /// Takes so many bytes for a holder that has `held` already. False: there is no room, and nothing was taken; counted.
    pub(crate) fn take(&self, what: Holding, held: u64, bytes: u64) -> bool {
        let is_taken = self.try_take(what, held, bytes);
        if !is_taken {
            self.refused[what.index()].add(1);
        }
        is_taken
    }

    /// The same for a holder that tries again after it gave some back: its refusal is counted already.
    pub(crate) fn try_take(&self, what: Holding, held: u64, bytes: u64) -> bool {
        let has_little = what.is_of_policy() && held.saturating_add(bytes) <= self.little;
        let most = if has_little { self.most } else { self.most - self.little * SET_ASIDE };
        let sum = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= most);
        self.used.fetch_update(Relaxed, Relaxed, sum).is_ok()
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Times that something could not be kept, or others had to go for it, by what it was.
    pub(crate) fn refusals(&self) -> [(&'static str, u64); Holding::ALL.len()] {
        Holding::ALL.map(|what| (what.name(), self.refused[what.index()].value()))
    }
}

/// What one holder has of a ledger; given back with it.
#[derive(Debug, Default)]
pub(crate) struct Part {
    ledger: Option<Arc<Ledger>>,
    bytes: u64,
}

impl Part {
    /// Has so many bytes from now on. False: they are not there, and it has what it had.
    pub(crate) fn set(&mut self, ledger: &Arc<Ledger>, what: Holding, bytes: u64) -> bool {
        if bytes > self.bytes && !ledger.take(what, self.bytes, bytes - self.bytes) {
            return false;
        }
        if bytes < self.bytes {
            ledger.give_back(self.bytes - bytes);
        }
        self.bytes = bytes;
        if self.ledger.is_none() {
            self.ledger = Some(ledger.clone());
        }
        true
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(ledger) = &self.ledger {
            ledger.give_back(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let ledger = Arc::new(Ledger::new(10));
        assert!(ledger.take(Holding::Values, 0, 6) && !ledger.take(Holding::Buckets, 0, 5));
        assert!(ledger.take(Holding::Buckets, 0, 4) && !ledger.try_take(Holding::Values, 6, 1));
        ledger.give_back(10);
        assert_eq!((ledger.used(), ledger.refusals()), (0, [("kv", 0), ("token_bucket", 1), ("message", 0)]));
        assert!(Ledger::default().take(Holding::Values, 0, u64::MAX / 2));
    }

    #[test]
    fn who_keeps_much_leaves_a_quarter_to_those_that_keep_little() {
        let ledger = Ledger::new(4_096);
        assert!(ledger.take(Holding::Messages, 0, 3_000) && ledger.take(Holding::Values, 0, 72));
        assert!(!ledger.take(Holding::Messages, 0, 1), "a stream has none of that");
        assert!(!ledger.take(Holding::Buckets, 4, 1) && !ledger.take(Holding::Values, 0, 5), "too much");
        assert!((0..1_024 / 4).all(|_| ledger.take(Holding::Values, 0, 4)));
        assert!(!ledger.take(Holding::Buckets, 0, 1), "there is no more at all");
        assert_eq!(ledger.used(), 4_096);
    }

    #[test]
    fn a_part_ends_with_its_holder() {
        let ledger = Arc::new(Ledger::new(10));
        let (mut one, mut other) = (Part::default(), Part::default());
        assert!(one.set(&ledger, Holding::Messages, 8) && other.set(&ledger, Holding::Messages, 2));
        assert!(!other.set(&ledger, Holding::Messages, 3));
        assert!(one.set(&ledger, Holding::Messages, 7) && other.set(&ledger, Holding::Messages, 3));
        drop(one);
        assert_eq!(ledger.used(), 3);
        drop(other);
        assert_eq!(ledger.used(), 0);
    }
}

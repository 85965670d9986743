//! How long the calls of one filter for one request may take together. Pure: times are arguments. A single call is
//! ended by its own deadline; this ends a filter that is called again and again.

use std::time::Duration;

/// All calls of a filter for one request together may take so many times what one may.
pub(crate) const CALLS: u32 = 10;
/// A chunk adds this part of a call's time for its call, and as much again for each so many bytes.
const OF_A_CHUNK: u32 = 100;
const CHUNK_BYTES: u64 = 1_600;

/// Time that a filter has used for one request, and what bodies have added to what it may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Budget {
    used: Duration,
    added: Duration,
}

impl Budget {
    /// True once nothing is left. `one`: what a single call may take.
    pub(crate) fn is_spent(&self, one: Duration) -> bool {
        self.used >= self.limit(one)
    }

    /// True where time must be measured on the processor from now on. Wall time is cheap to measure and always at least
    /// as long, but counts time in which the machine ran something else.
    pub(crate) fn is_tight(&self, one: Duration) -> bool {
        self.used >= self.limit(one) / 2
    }

    /// A body goes on by `bytes`: the longer it is, the more may be spent on it.
    pub(crate) fn add(&mut self, one: Duration, bytes: usize) {
        let share = one / OF_A_CHUNK;
        let shares = u32::try_from(bytes as u64 / CHUNK_BYTES).unwrap_or(u32::MAX).saturating_add(1);
        self.added = self.added.saturating_add(share.saturating_mul(shares));
    }

    pub(crate) fn spend(&mut self, time: Duration) {
        self.used = self.used.saturating_add(time);
    }

    fn limit(&self, one: Duration) -> Duration {
        // The first call is made whatever a call may take.
        one.saturating_mul(CALLS).saturating_add(self.added).max(Duration::from_nanos(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_ends_calls_without_end_and_lets_long_bodies_pass() {
        let one = MS * 10;
        let mut budget = Budget::default();
        for call in 0..10 {
            assert!(!budget.is_spent(one), "call {call}");
            assert_eq!(budget.is_tight(one), call >= 5);
            budget.spend(one);
        }
        assert!(budget.is_spent(one));
        let mut upload = Budget::default();
        for _ in 0..100_000 {
            upload.add(one, 16 << 10);
            upload.spend(MS);
            assert!(!upload.is_spent(one), "a millisecond for 16 KiB");
        }
        let mut crumbs = Budget::default();
        let spent = (0..100_000).position(|_| {
            crumbs.add(one, 1);
            crumbs.spend(MS);
            crumbs.is_spent(one)
        });
        assert_eq!(spent, Some(111), "a millisecond for each byte");
    }
}

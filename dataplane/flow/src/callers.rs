//! What callers have sent again already: tiers that each retry a share of what reaches them multiply, and the last one has the
//! worst of it. So each is told which part of its requests stands for retries, those of its callers and of theirs, and spares as
//! much. Parts are of ten thousand, [`WHOLE`]: a retry is all of them, a first attempt as many as its sender was told of.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// All parts of a request.
pub const WHOLE: u64 = 10_000;
/// Requests by which the part of retries among them is told.
const SAMPLE: u64 = 20;
/// What was told longer ago says nothing.
const OF_LATE: Duration = Duration::from_secs(10);
/// Bits of what was told that are the parts; the others are when, in milliseconds.
const PARTS: u32 = 16;

/// The requests that come in, and how many of them stand for retries.
#[derive(Debug, Default)]
pub struct CallersRetries {
    requests: AtomicU64,
    parts: AtomicU64,
    /// Parts of the current sample.
    sample: AtomicU64,
    told: AtomicU64,
}

impl CallersRetries {
    /// Counts a request that stands for so many parts of a retry.
    pub fn arrived(&self, now: Duration, parts: u64) {
        let requests = self.requests.fetch_add(1, Relaxed) + 1;
        if parts > 0 {
            self.parts.fetch_add(parts, Relaxed);
            self.sample.fetch_add(parts, Relaxed);
        }
        if requests.is_multiple_of(SAMPLE) {
            let share = (self.sample.swap(0, Relaxed) / SAMPLE).min(WHOLE);
            // Most are told of none, again and again.
            if share > 0 || self.told.load(Relaxed) & ((1 << PARTS) - 1) > 0 {
                self.told.store(millis(now) << PARTS | share, Relaxed);
            }
        }
    }

    /// Parts of a request of late, and of all that have come.
    pub fn heard(&self, now: Duration) -> Heard {
        let told = self.told.load(Relaxed);
        let is_of_late = millis(now).saturating_sub(told >> PARTS) <= millis(OF_LATE);
        Heard { share: if is_of_late { told & ((1 << PARTS) - 1) } else { 0 }, parts: self.parts.load(Relaxed) }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX) & (u64::MAX >> PARTS)
}

/// What a budget is told of retries that were made before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heard {
    /// Parts of a request of late.
    pub share: u64,
    /// Parts of all that have come in so far.
    pub parts: u64,
}

/// Parts that a caller may have in hand at the most.
const IN_HAND: u64 = 10 * WHOLE;

/// What one caller says of its requests counts no further than a share of them could be retries: by its claims nobody takes the
/// retries of others.
#[derive(Debug, Clone, Copy, Default)]
pub struct Claims {
    credit: u64,
}

impl Claims {
    /// The parts that count of those that are said of the next request. `percent`: of requests that may be retries.
    pub fn granted(&mut self, said: u64, percent: u64) -> u64 {
        self.credit = self.credit.saturating_add(percent.min(100).saturating_mul(WHOLE / 100)).min(IN_HAND);
        let granted = said.min(WHOLE).min(self.credit);
        self.credit -= granted;
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_those_of_late() {
        let (callers, at) = (CallersRetries::default(), Duration::from_secs);
        let arrive = |now, parts: u64, times| (0..times).for_each(|_| callers.arrived(now, parts));
        arrive(at(60), WHOLE, 5);
        arrive(at(60), 0, 14);
        assert_eq!(callers.heard(at(60)), Heard { share: 0, parts: 5 * WHOLE }, "too few to tell");
        arrive(at(61), 0, 1);
        assert_eq!(callers.heard(at(61)).share, WHOLE / 4, "five of twenty");
        assert_eq!(callers.heard(at(71)).share, WHOLE / 4, "as long as it is of late");
        assert_eq!(callers.heard(at(72)).share, 0, "nothing came since");
        arrive(at(72), 2_000, 20);
        assert_eq!(callers.heard(at(72)).share, 2_000, "of first attempts that stand for retries");
        arrive(at(72), 0, 20);
        assert_eq!(callers.heard(at(72)).share, 0);
        arrive(Duration::MAX, u64::MAX / 100, 20);
        assert_eq!(callers.heard(Duration::MAX).share, WHOLE, "no more than there are");
    }

    #[test]
    fn claims_count_as_far_as_a_share_could_be_retries() {
        let (mut fair, mut liar, mut calm) = (Claims::default(), Claims::default(), Claims::default());
        let counted: u64 = (0..600).map(|request| fair.granted(if request % 6 == 5 { WHOLE } else { 0 }, 20)).sum();
        assert_eq!(counted, 100 * WHOLE, "a fifth of the others");
        let counted: u64 = (0..100).map(|_| liar.granted(u64::MAX, 20)).sum();
        assert_eq!(counted, 20 * WHOLE, "none for nothing");
        (0..100_000).for_each(|_| _ = calm.granted(0, 20));
        let counted: u64 = (0..100).map(|_| calm.granted(WHOLE, 20)).sum();
        assert!(counted <= 30 * WHOLE, "little is saved up: {counted}");
    }
}

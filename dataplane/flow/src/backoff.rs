//! How long to wait before the next try: doubling from the first to the longest, with full jitter so that those who
//! failed together do not come back together.

use std::time::Duration;

/// The waits of one row of failures.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The wait after one more failure: between half of the doubled wait and all of it. `dice` has 64 random bits.
    pub fn next(&mut self, dice: u64) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = (self.failures + 1).min(31);
        let whole = doubled.min(self.longest);
        #[expect(clippy::cast_precision_loss, reason = "jitter needs no more than 53 bits")]
        let share = (dice >> 11) as f64 / (1_u64 << 53) as f64;
        whole / 2 + (whole / 2).mul_f64(share)
    }

    /// A success ends the row.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_longest_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<u128> = (0..6).map(|_| backoff.next(u64::MAX).as_micros().div_ceil(1_000)).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.next(0).as_millis(), 500);
        backoff.reset();
        assert_eq!(backoff.next(0).as_millis(), 50);
        (0..100).for_each(|_| {
            backoff.next(0);
        });
        assert_eq!(backoff.next(0).as_millis(), 500);
    }
}

//! A token bucket that is exact: no rounding adds up, whatever the rate.

use std::time::Duration;

/// Lets `burst` pass at once and `amount` per `period` in the long run (the generic cell rate algorithm).
#[derive(Debug, Clone)]
pub struct TokenBucket {
    amount: u128,
    /// Nanoseconds of one period: the cost of one token in units of 1/`amount` ns.
    period: u128,
    /// How far ahead of now `full_at` may be, in the same units.
    tolerance: u128,
    /// When the bucket is full again, in the same units.
    full_at: u128,
}

impl TokenBucket {
    /// A full bucket. An `amount` or `burst` of 0 counts as 1, an empty period as one nanosecond.
    pub fn new(amount: u32, period: Duration, burst: u32) -> Self {
        let period = period.as_nanos().max(1);
        Self { amount: amount.max(1).into(), period, tolerance: period * u128::from(burst.max(1)), full_at: 0 }
    }

    /// Takes a token, or tells how long to wait for one.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let now = now.as_nanos().saturating_mul(self.amount);
        let full_at = self.full_at.max(now) + self.period;
        let wait = full_at.saturating_sub(now).saturating_sub(self.tolerance);
        if wait > 0 {
            let nanos = wait.div_ceil(self.amount);
            return Err(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
        }
        self.full_at = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a flood of requests, one each `step`, pass within `span`.
    fn passed(amount: u32, period: Duration, burst: u32, step: Duration, span: Duration) -> u32 {
        let mut bucket = TokenBucket::new(amount, period, burst);
        let (mut now, mut passed) = (Duration::ZERO, 0);
        while now < span {
            passed += u32::from(bucket.take(now).is_ok());
            now += step;
        }
        passed
    }

    #[test]
    fn exact_in_the_long_run() {
        fn check(amount: u32, burst: u32, seconds: u64, expect: u32) {
            let span = Duration::from_secs(seconds);
            let got = passed(amount, Duration::from_secs(1), burst, Duration::from_millis(1), span);
            assert_eq!(got, expect, "{amount}/s, burst {burst}, {seconds} s");
        }
        check(10, 1, 10, 100);
        check(10, 5, 10, 104);
        check(3, 3, 100, 302);
        check(7, 1, 100, 700);
        check(1, 1, 60, 60);
    }

    #[test]
    fn says_when_to_come_again() {
        let mut bucket = TokenBucket::new(2, Duration::from_secs(1), 1);
        let start = Duration::from_secs(100);
        assert_eq!(bucket.take(start), Ok(()));
        assert_eq!(bucket.take(start), Err(Duration::from_millis(500)));
        assert_eq!(bucket.take(start + Duration::from_millis(200)), Err(Duration::from_millis(300)));
        assert_eq!(bucket.take(start + Duration::from_millis(500)), Ok(()));
    }

    #[test]
    fn odd_numbers_do_no_harm() {
        let mut bucket = TokenBucket::new(0, Duration::ZERO, 0);
        assert_eq!(bucket.take(Duration::MAX), Ok(()));
        let mut bucket = TokenBucket::new(u32::MAX, Duration::MAX, u32::MAX);
        assert!(bucket.take(Duration::MAX).is_ok());
    }
}

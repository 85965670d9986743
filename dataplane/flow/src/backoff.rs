//! Waiting longer after each failure, spread by dice so that a crowd doesn't come back at once.

use std::time::Duration;

use crate::below;

/// Doubles from `base` to `max`; each wait is drawn between a half and the whole.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, next: base.min(max) }
    }

    /// How long to wait now; the next wait is twice as long.
    pub fn wait(&mut self, dice: u64) -> Duration {
        let whole = self.next;
        self.next = whole.saturating_mul(2).min(self.max);
        let half = whole / 2;
        let spread = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        whole - Duration::from_nanos(below(dice, spread))
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.next = self.base.min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_most() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<u128> = (0..6).map(|_| backoff.wait(0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        let least = backoff.wait(u64::MAX);
        assert!(least >= Duration::from_millis(50) && least < Duration::from_millis(51), "{least:?}");
    }

    #[test]
    fn the_longest_times_do_no_harm() {
        let mut backoff = Backoff::new(Duration::MAX, Duration::MAX);
        assert!(backoff.wait(u64::MAX) <= Duration::MAX);
        assert!(backoff.wait(1) > Duration::ZERO);
    }
}

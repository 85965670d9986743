//! Stops calling a filter that keeps failing, and tries it again later. Shared by all workers; `now` is an argument.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// So many failures within the window open the breaker.
const FAILURES: u32 = 5;
const WINDOW: Duration = Duration::from_secs(10);
/// How long an open breaker keeps the filter from being called; then one failure opens it again.
const OPEN: Duration = Duration::from_secs(5);

/// Times are milliseconds since the host's start, plus one; 0 = never.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    open_until: AtomicU64,
    window_start: AtomicU64,
    failures: AtomicU32,
}

impl Breaker {
    /// True once anything has failed: the cheap question of the hot path.
    pub(crate) fn is_troubled(&self) -> bool {
        self.open_until.load(Relaxed) != 0
    }

    pub(crate) fn is_open(&self, now: Duration) -> bool {
        self.open_until.load(Relaxed) > millis(now)
    }

    /// Counts a failure; true when it opened the breaker.
    pub(crate) fn failed(&self, now: Duration) -> bool {
        let now = millis(now);
        let half_open = self.is_troubled();
        let window = u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX);
        if now.saturating_sub(self.window_start.load(Relaxed)) > window {
            self.window_start.store(now, Relaxed);
            self.failures.store(0, Relaxed);
        }
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        if !half_open && failures < FAILURES {
            return false;
        }
        let open = u64::try_from(OPEN.as_millis()).unwrap_or(u64::MAX);
        self.open_until.swap(now + open, Relaxed) <= now
    }

    /// A call after the pause went well: closed again.
    pub(crate) fn recovered(&self) {
        self.open_until.store(0, Relaxed);
        self.failures.store(0, Relaxed);
    }
}

fn millis(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX - 1).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn opens_after_repeated_failures_and_tries_again() {
        let breaker = Breaker::default();
        for _ in 1..FAILURES {
            assert!(!breaker.failed(SECOND));
        }
        assert!(breaker.failed(SECOND), "the last one opens it");
        assert!(breaker.is_open(SECOND * 2));
        assert!(!breaker.is_open(SECOND + OPEN));
        assert!(breaker.failed(SECOND + OPEN), "one more failure is enough");
        assert!(breaker.is_open(SECOND * 8));
        breaker.recovered();
        assert!(!breaker.is_open(SECOND * 8) && !breaker.is_troubled());
    }

    #[test]
    fn rare_failures_do_not_open_it() {
        let breaker = Breaker::default();
        for round in 0..50 {
            assert!(!breaker.failed(round * (WINDOW + SECOND)));
        }
    }
}

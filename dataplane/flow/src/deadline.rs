//! The end of a request's time.

use std::time::Duration;

/// A moment on the caller's clock, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(Option<Duration>);

impl Deadline {
    pub const NEVER: Self = Self(None);

    /// At a moment, which may have passed.
    pub fn at(moment: Duration) -> Self {
        Self(Some(moment))
    }

    /// Time left, zero once it has passed; `None` = no end.
    pub fn remaining(self, now: Duration) -> Option<Duration> {
        self.0.map(|at| at.saturating_sub(now))
    }

    pub fn is_over(self, now: Duration) -> bool {
        self.remaining(now).is_some_and(|left| left.is_zero())
    }

    /// The earlier of both.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Self(Some(a.min(b))),
            (a, b) => Self(a.or(b)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_down() {
        fn check(at: Option<u64>, now: u64, remaining: Option<u64>, over: bool) {
            let deadline = at.map_or(Deadline::NEVER, |at| Deadline::at(Duration::from_secs(at)));
            let now = Duration::from_secs(now);
            assert_eq!(deadline.remaining(now), remaining.map(Duration::from_secs));
            assert_eq!(deadline.is_over(now), over);
        }
        check(Some(15), 10, Some(5), false);
        check(Some(15), 14, Some(1), false);
        check(Some(15), 15, Some(0), true);
        check(Some(15), 99, Some(0), true);
        check(Some(0), 0, Some(0), true);
        check(None, 99, None, false);
    }

    #[test]
    fn the_earlier_counts() {
        let at = |secs| Deadline::at(Duration::from_secs(secs));
        assert_eq!(at(3).min(at(2)), at(2));
        assert_eq!(Deadline::NEVER.min(at(2)), at(2));
        assert_eq!(at(3).min(Deadline::NEVER), at(3));
        assert_eq!(Deadline::NEVER.min(Deadline::NEVER), Deadline::NEVER);
    }
}

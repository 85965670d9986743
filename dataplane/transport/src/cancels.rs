//! Requests that a peer gives up before they are answered, by reset, by stop or by breaking its own message: cheap for it,
//! work for us (rapid reset, CVE-2023-44487; MadeYouReset, CVE-2025-8671). Each takes from a budget that time and answered
//! requests fill up again. Touched by such requests only.

use std::time::{Duration, Instant};

/// The budget of one connection: how far ahead of its rate the peer is, as time.
#[derive(Debug)]
pub(crate) struct Cancels {
    paid_until: Option<Instant>,
    total: u64,
    answered: u64,
}

impl Cancels {
    pub(crate) const NONE: Cancels = Cancels { paid_until: None, total: 0, answered: 0 };

    /// Takes one more from a budget of `burst`, filled by `per_second`. `finished`: requests of this connection that are over,
    /// this one included; those that were answered have each earned another. False when the budget is spent.
    pub(crate) fn spend(&mut self, now: Instant, finished: u64, burst: u32, per_second: u32) -> bool {
        let cost = Duration::from_secs(1) / per_second.max(1);
        self.total += 1;
        let answered = finished.saturating_sub(self.total).max(self.answered);
        let earned = u32::try_from(answered - self.answered).unwrap_or(u32::MAX);
        self.answered = answered;
        let paid_until = self.paid_until.unwrap_or(now);
        let paid_until = paid_until.checked_sub(cost.saturating_mul(earned)).unwrap_or(now).max(now) + cost;
        self.paid_until = Some(paid_until);
        paid_until - now <= cost.saturating_mul(burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: u32 = 1_000;
    const RATE: u32 = 100;

    /// How many of `count` cancels, spread over `time`, are admitted; `good` requests are answered beside each.
    fn check(count: u64, time: Duration, good: u64, expect: Option<u64>) {
        let (mut cancels, start) = (Cancels::NONE, Instant::now());
        let refused = (0..count).find(|nth| {
            let now = start
                + time.mul_f64(f64::from(u32::try_from(*nth).unwrap()) / f64::from(u32::try_from(count).unwrap()));
            !cancels.spend(now, (nth + 1) * (good + 1), BURST, RATE)
        });
        assert_eq!(refused, expect, "{count} cancels in {time:?} beside {good} answers each");
    }

    #[test]
    fn the_budget_is_a_burst_and_a_rate() {
        check(1_000, Duration::ZERO, 0, None);
        check(1_001, Duration::ZERO, 0, Some(1_000));
        check(5_000, Duration::from_secs(50), 0, None);
        check(10_000, Duration::from_secs(50), 0, Some(1_999));
    }

    #[test]
    fn answers_earn_cancels() {
        check(100_000, Duration::from_secs(1), 1, None);
        check(100_000, Duration::from_secs(1), 20, None);
    }

    #[test]
    fn what_was_earned_is_not_hoarded() {
        let (mut cancels, now) = (Cancels::NONE, Instant::now());
        assert!(cancels.spend(now, 1_000_000, BURST, RATE), "a million were answered");
        let more = (1..).take_while(|nth| cancels.spend(now, 1_000_000 + nth, BURST, RATE)).count();
        assert_eq!(more, 999, "the burst is the most there ever is");
    }

    #[test]
    fn the_smallest_and_the_largest_numbers_do_no_harm() {
        let (mut cancels, now) = (Cancels::NONE, Instant::now());
        assert!(!cancels.spend(now, 0, 0, 0), "no budget at all");
        assert!(cancels.spend(now + Duration::from_secs(3), u64::MAX, u32::MAX, u32::MAX));
    }
}

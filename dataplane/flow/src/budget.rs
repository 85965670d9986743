//! The retry budget: retries are a share of requests, so that a failing service is not buried under them. What callers have
//! retried counts as well, or each tier in front of it would add its own share. Invariant: what is not used is not saved up,
//! neither the share of requests that are over nor the time in which nobody retried.

#[cfg(test)]
mod models;

use std::time::Duration;

use crate::callers::{Heard, WHOLE};

/// Parts of a percent of a request.
const PERCENT: u64 = WHOLE / 100;
/// Requests to one destination that are made because of one retry of a caller, at the most: whoever sends much of its own accord
/// loses little of it to few callers.
const FAN_OUT: u64 = 4;
/// Retries of callers that are remembered until requests follow them, at the most.
const SAVED: u64 = 20;
/// Nanoseconds of a second: what one retry takes of the reserve, in the unit of `full_at`.
const SECOND: u128 = 1_000_000_000;

/// What a budget grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Retries per hundred requests.
    pub percent: u64,
    /// Retries per second where the share comes to less, and so many at once.
    pub per_second: u64,
}

/// Of the requests 20 % may be retries, and 3 a second where that is more. A retry is granted where either has one left
/// and takes one of both: the reserve is a least rate, lends to the share of a busy service, and adds nothing to it. Of a
/// share as much is kept as comes of the requests that are under way, and one retry; owed is as much at the most, or what the
/// reserve gives in a second. A request that is itself sent because a caller retried takes one of both too, and adds nothing.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    allowance: Allowance,
    /// Requests that had come when it was last asked.
    seen: u64,
    /// When that was, the parts of callers' retries that it had heard of by then, and the parts that those may still take.
    asked_at: Duration,
    heard: u64,
    for_callers: u128,
    /// Parts that are left of their share. What the reserve gave and callers' retries took beyond it is owed.
    share: i128,
    /// When the reserve is whole again, in nanoseconds times the retries of a second.
    full_at: u128,
}

impl RetryBudget {
    pub fn new(allowance: Allowance) -> Self {
        Self { allowance, seen: 0, asked_at: Duration::ZERO, heard: 0, for_callers: 0, share: 0, full_at: 0 }
    }

    /// Takes one retry; false: there is none left, the failure stands. `requests`: that have come so far; `under_way`:
    /// of those; `heard`: how much of what made them come was sent again before.
    pub fn withdraw(&mut self, now: Duration, requests: u64, under_way: u64, heard: Heard) -> bool {
        let Allowance { percent, per_second } = self.allowance;
        let elapsed = now.saturating_sub(self.asked_at).as_nanos();
        let (parts, before) = self.come(requests, heard);
        self.asked_at = self.asked_at.max(now);
        let kept = i128::from(under_way.saturating_mul(percent.saturating_mul(PERCENT)).max(WHOLE));
        let owed = kept.max(per_second.saturating_mul(WHOLE).into());
        let come = (parts - before).saturating_mul(percent.into()) / 100 - before;
        self.share = self.share.saturating_add(come).clamp(-owed, kept);
        let now = now.as_nanos().saturating_mul(per_second.into());
        let whole = SECOND * u128::from(per_second);
        // What was taken longer than a second ago has come back since.
        let taken = before.unsigned_abs().saturating_mul(SECOND / u128::from(WHOLE)).saturating_mul(SECOND);
        let taken = taken / elapsed.max(SECOND);
        self.full_at = self.full_at.max(now.saturating_add(self.used(now).saturating_add(taken).min(whole)));
        let used = self.used(now).saturating_add(SECOND);
        let granted = self.share >= WHOLE.into() || used <= whole;
        if granted {
            self.share = (self.share - i128::from(WHOLE)).max(-owed);
            self.full_at = self.full_at.max(now.saturating_add(used.min(whole)));
        }
        granted
    }

    /// Parts of the requests that have come since it was last asked: all, and those that callers had sent before.
    fn come(&mut self, requests: u64, heard: Heard) -> (i128, i128) {
        let new = u128::from(requests.saturating_sub(self.seen));
        let more = u128::from(heard.parts.saturating_sub(self.heard)) * u128::from(FAN_OUT);
        (self.seen, self.heard) = (self.seen.max(requests), self.heard.max(heard.parts));
        let due = new * u128::from(heard.share.min(WHOLE));
        let may_take = self.for_callers + more;
        let taken = due.min(may_take);
        self.for_callers = (may_take - taken).min(u128::from(FAN_OUT * SAVED * WHOLE));
        let signed = |parts: u128| i128::try_from(parts).unwrap_or(i128::MAX);
        (signed(new * u128::from(WHOLE)), signed(taken))
    }

    /// Of the reserve.
    fn used(&self, now: u128) -> u128 {
        self.full_at.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Allowance = Allowance { percent: 20, per_second: 3 };

    /// Takes all that is left.
    fn drain(budget: &mut RetryBudget, now: Duration, requests: u64, under_way: u64) -> u64 {
        (0..).take_while(|_| budget.withdraw(now, requests, under_way, Heard::default())).count().try_into().unwrap()
    }

    #[test]
    fn a_share_of_those_under_way_or_the_reserve() {
        fn check(percent: u64, per_second: u64, under_way: u64, expect: u64) {
            let mut budget = RetryBudget::new(Allowance { percent, per_second });
            let got = drain(&mut budget, Duration::from_secs(5), 1_000, under_way);
            assert_eq!(got, expect, "{percent} % and {per_second}/s with {under_way} under way");
        }
        check(20, 3, 0, 3);
        check(20, 3, 10, 3);
        check(20, 3, 100, 20);
        check(20, 0, 4, 1);
        check(20, 0, 10, 2);
        check(0, 3, 1_000, 3);
        check(0, 0, 1_000, 0);
        check(1_000, 0, 1, 10);
    }

    #[test]
    fn nothing_is_saved_up_and_the_reserve_is_a_rate() {
        let mut budget = RetryBudget::new(DEFAULT);
        let at = Duration::from_millis;
        assert_eq!(drain(&mut budget, at(3_600_000), 1_000_000, 1), 3, "an hour without a failure");
        assert_eq!(drain(&mut budget, at(3_600_333), 1_000_000, 1), 0);
        assert_eq!(drain(&mut budget, at(3_600_334), 1_000_000, 1), 1, "three a second");
        assert_eq!(drain(&mut budget, at(3_600_334), 1_000_019, 1), 0, "three that the reserve gave are owed");
        assert_eq!(drain(&mut budget, at(3_600_334), 1_000_020, 1), 1, "one for five requests");
        assert_eq!(drain(&mut budget, at(3_600_500), 1_000_000, 1), 0, "fewer requests than before are none");
        assert_eq!(drain(&mut budget, at(3_000_000), 1_000_020, 1), 0, "time may run backwards");
        assert_eq!(drain(&mut budget, at(3_601_000), 1_000_020, 1), 1, "what was taken of one is taken of the other");
    }

    #[test]
    fn odd_numbers_do_no_harm() {
        let most = Allowance { percent: u64::MAX, per_second: u64::MAX };
        let (none, all) = (Heard::default(), Heard { share: u64::MAX, parts: u64::MAX });
        assert!(RetryBudget::new(most).withdraw(Duration::MAX, u64::MAX, u64::MAX, none));
        assert!(RetryBudget::new(most).withdraw(Duration::ZERO, 0, 0, none));
        assert!(!RetryBudget::new(DEFAULT).withdraw(Duration::from_millis(900), 1_000, u64::MAX, all));
    }

    /// All requests fail, and each asks for three more attempts: what reaches the service is at most a fifth more,
    /// however short the storm is and whatever was before it.
    #[test]
    fn a_storm_is_amplified_by_the_share() {
        for (rate, millis) in [(20, 1_000), (50, 2_000), (100, 10_000), (2_000, 500), (2_000, 5_000)] {
            let mut budget = RetryBudget::new(DEFAULT);
            let calm = 60 * rate;
            let (mut retries, requests) = (0, rate * millis / 1_000);
            for request in 1..=requests {
                let now = Duration::from_secs(60) + Duration::from_secs(request) / u32::try_from(rate).unwrap();
                retries += (0..3).filter(|_| budget.withdraw(now, calm + request, 4, Heard::default())).count();
            }
            // What was kept of the calm, and what is owed at the end where the reserve alone gives more than the share.
            let most = usize::try_from(requests / 5 + 1).unwrap().max(usize::try_from(3 * millis / 1_000 + 3).unwrap());
            assert!(retries <= most, "{retries} retries of {requests} requests, {rate} a second");
            assert!(retries + 4 >= usize::try_from(requests / 5).unwrap(), "{retries} of {requests}");
        }
    }
}

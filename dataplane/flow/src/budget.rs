//! The retry budget: retries are a share of requests, so that a failing service is not buried under them.

use std::collections::VecDeque;
use std::time::Duration;

/// Retries allowed per hundred requests of the window.
const PERCENT: u64 = 20;
/// Retries allowed in each window even without requests, so that quiet services can retry at all.
const RESERVE: u64 = 30;
/// Seconds that are counted; each expires as a whole.
const WINDOW: u64 = 10;

/// Per worker and service: of the last 10 s, 20 % of the requests and 30 more may be retries.
#[derive(Debug)]
pub struct RetryBudget {
    percent: u64,
    reserve: u64,
    slots: VecDeque<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    second: u64,
    requests: u64,
    retries: u64,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new(PERCENT, RESERVE)
    }
}

impl RetryBudget {
    pub fn new(percent: u64, reserve: u64) -> Self {
        Self { percent, reserve, slots: VecDeque::new() }
    }

    /// Counts a request (its first attempt).
    pub fn deposit(&mut self, now: Duration) {
        self.slot(now).requests += 1;
    }

    /// Takes one retry; false: there is none left, the failure stands.
    pub fn withdraw(&mut self, now: Duration) -> bool {
        self.slot(now);
        let requests: u64 = self.slots.iter().map(|slot| slot.requests).sum();
        let retries: u64 = self.slots.iter().map(|slot| slot.retries).sum();
        let granted = retries < self.reserve.saturating_add(requests.saturating_mul(self.percent) / 100);
        if granted {
            self.slot(now).retries += 1;
        }
        granted
    }

    /// The slot of `now`, expired ones dropped. Time that runs backwards counts into the newest slot.
    fn slot(&mut self, now: Duration) -> &mut Slot {
        let second = now.as_secs();
        if self.slots.back().is_none_or(|newest| newest.second < second) {
            self.slots.push_back(Slot { second, ..Slot::default() });
        }
        while self.slots.front().is_some_and(|oldest| oldest.second.saturating_add(WINDOW) <= second) {
            self.slots.pop_front();
        }
        self.slots.back_mut().expect("the newest slot is not older than now")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all that is left.
    fn drain(budget: &mut RetryBudget, now: Duration) -> u64 {
        (0..).take_while(|_| budget.withdraw(now)).count().try_into().unwrap()
    }

    #[test]
    fn a_share_and_a_reserve() {
        fn check(percent: u64, reserve: u64, requests: u64, expect: u64) {
            let mut budget = RetryBudget::new(percent, reserve);
            for _ in 0..requests {
                budget.deposit(Duration::from_secs(5));
            }
            assert_eq!(drain(&mut budget, Duration::from_secs(5)), expect, "{percent} % of {requests} and {reserve}");
        }
        check(20, 30, 0, 30);
        check(20, 0, 4, 0);
        check(20, 0, 5, 1);
        check(20, 30, 1000, 230);
        check(0, 0, 1000, 0);
    }

    #[test]
    fn the_window_slides() {
        let mut budget = RetryBudget::new(50, 0);
        for _ in 0..10 {
            budget.deposit(Duration::from_secs(1));
        }
        assert_eq!(drain(&mut budget, Duration::from_secs(2)), 5);
        assert_eq!(drain(&mut budget, Duration::from_secs(10)), 0, "still the same window");
        assert_eq!(drain(&mut budget, Duration::from_secs(11)), 0, "requests have expired");
        for _ in 0..4 {
            budget.deposit(Duration::from_secs(30));
        }
        assert_eq!(drain(&mut budget, Duration::from_secs(29)), 2, "time may run backwards");
    }
}

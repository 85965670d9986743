//! How much may be sent again: a share of the recent requests plus a floor, so that retries never multiply a failure
//! (GEP-3388: percentage and minimum rate over a window).

use std::time::Duration;

/// The window over which requests and retries are weighed.
const WINDOW: Duration = Duration::from_secs(10);
/// Retries per hundred requests.
const PERCENT: u64 = 20;
/// Retries per second that are always there.
const MINIMUM_PER_SECOND: u64 = 10;

/// Counts in hundredths of a retry, in ten slots of a second each.
#[derive(Debug, Default)]
pub struct RetryBudget {
    slots: [Slot; 10],
}

#[derive(Debug, Default, Clone, Copy)]
struct Slot {
    second: u64,
    requests: u64,
    retries: u64,
}

impl RetryBudget {
    /// A request was sent for the first time.
    pub fn deposit(&mut self, now: Duration) {
        self.slot(now).requests += 1;
    }

    /// Takes one retry, if there is one to take.
    pub fn withdraw(&mut self, now: Duration) -> bool {
        let oldest = now.as_secs().saturating_sub(WINDOW.as_secs() - 1);
        let recent = self.slots.iter().filter(|slot| slot.second >= oldest);
        let (requests, retries) = recent.fold((0, 0), |sum, slot| (sum.0 + slot.requests, sum.1 + slot.retries));
        let allowed = requests * PERCENT / 100 + MINIMUM_PER_SECOND * WINDOW.as_secs();
        if retries >= allowed {
            return false;
        }
        self.slot(now).retries += 1;
        true
    }

    fn slot(&mut self, now: Duration) -> &mut Slot {
        let second = now.as_secs();
        let index = usize::try_from(second % 10).expect("below ten");
        let slot = &mut self.slots[index];
        if slot.second != second {
            *slot = Slot { second, ..Slot::default() };
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(requests: u32, wanted: u32, at: Duration) -> u32 {
        let mut budget = RetryBudget::default();
        (0..requests).for_each(|_| budget.deposit(at));
        (0..wanted).map(|_| u32::from(budget.withdraw(at))).sum()
    }

    #[test]
    fn a_share_of_the_requests_and_a_floor() {
        let now = Duration::from_secs(100);
        assert_eq!(granted(0, 1_000, now), 100);
        assert_eq!(granted(1_000, 1_000, now), 300);
    }

    #[test]
    fn the_window_moves_on() {
        let mut budget = RetryBudget::default();
        let start = Duration::from_secs(50);
        while budget.withdraw(start) {}
        assert!(!budget.withdraw(start + Duration::from_secs(9)));
        assert!(budget.withdraw(start + Duration::from_secs(10)));
    }
}

//! The budget beside a plain reference that counts in fractions of fractions: an account of the share and one of the
//! reserve, both brought up to date by every event, where the budget only looks when it is asked.

use super::*;
use crate::next_dice;

/// Accounts in nanoseconds of hundredths, so that nothing is rounded.
struct Reference {
    allowance: Allowance,
    share: u64,
    reserve: u128,
    at: Duration,
    under_way: u64,
}

const ONE: u128 = 1_000_000_000;

impl Reference {
    fn new(allowance: Allowance) -> Self {
        let reserve = u128::from(allowance.per_second) * ONE;
        Self { allowance, share: 0, reserve, at: Duration::ZERO, under_way: 0 }
    }

    fn pass(&mut self, time: Duration) {
        self.at += time;
        let filled = self.reserve + time.as_nanos() * u128::from(self.allowance.per_second);
        self.reserve = filled.min(u128::from(self.allowance.per_second) * ONE);
    }

    fn begin(&mut self) {
        self.under_way += 1;
        self.share += self.allowance.percent;
    }

    fn withdraw(&mut self) -> bool {
        let kept = (self.allowance.per_second * 100).max(self.under_way * self.allowance.percent);
        self.share = self.share.min(kept);
        if self.share < 100 && self.reserve < ONE {
            return false;
        }
        self.share = self.share.saturating_sub(100);
        self.reserve = self.reserve.saturating_sub(ONE);
        true
    }
}

#[test]
fn agrees_with_a_plain_reference() {
    for seed in 0..1_000_u64 {
        let mut dice = seed;
        let percent = [0, 1, 20, 35, 100, 250][usize::try_from(next_dice(&mut dice) % 6).unwrap()];
        let per_second = [0, 1, 3, 7, 100][usize::try_from(next_dice(&mut dice) % 5).unwrap()];
        let allowance = Allowance { percent, per_second };
        let (mut budget, mut model) = (RetryBudget::new(allowance), Reference::new(allowance));
        let (mut requests, mut granted) = (0, 0);
        // Requests come by turns in crowds and rarely.
        let crowd = 1 + next_dice(&mut dice) % 40;
        for step in 0..400 {
            match next_dice(&mut dice) % 8 {
                0 => model.pass(Duration::from_nanos(next_dice(&mut dice) % 900_000_000)),
                1 => model.pass(Duration::from_micros(next_dice(&mut dice) % 3_000)),
                2 if model.under_way > 0 => model.under_way -= 1,
                3 => (0..crowd).for_each(|_| {
                    model.begin();
                    requests += 1;
                }),
                4 => {
                    model.begin();
                    requests += 1;
                }
                _ => {
                    let expect = model.withdraw();
                    let got = budget.withdraw(model.at, requests, model.under_way);
                    assert_eq!(got, expect, "seed {seed} step {step} {allowance:?}");
                    granted += u128::from(got);
                }
            }
        }
        // Whatever came, in whatever order: the share of all requests and what the reserve came to, and no more.
        let share = u128::from(requests * percent / 100);
        let reserve = u128::from(per_second) * (ONE + model.at.as_nanos()) / ONE;
        assert!(granted <= share + reserve, "seed {seed}: {granted} of {share} and {reserve}");
    }
}

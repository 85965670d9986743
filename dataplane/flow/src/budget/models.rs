//! The budget beside a plain reference that counts in fractions of fractions: an account of the share and one of the
//! reserve, both brought up to date by every event, where the budget only looks when it is asked.

use super::*;
use crate::callers::CallersRetries;
use crate::next_dice;

/// Accounts in parts of a percent of a percent, so that nothing is rounded.
struct Reference {
    allowance: Allowance,
    share: i128,
    reserve: u128,
    at: Duration,
    under_way: u64,
    /// Requests whose share was not added yet: it depends on how many of them callers have sent again. And since when.
    fresh: u64,
    waited: Duration,
    heard: u64,
    for_callers: u64,
}

const ONE: u128 = 1_000_000_000;

impl Reference {
    fn new(allowance: Allowance) -> Self {
        let reserve = u128::from(allowance.per_second) * ONE;
        Self {
            allowance,
            share: 0,
            reserve,
            at: Duration::ZERO,
            under_way: 0,
            fresh: 0,
            waited: Duration::ZERO,
            heard: 0,
            for_callers: 0,
        }
    }

    fn pass(&mut self, time: Duration) {
        self.at += time;
        self.waited += time;
        let filled = self.reserve + time.as_nanos() * u128::from(self.allowance.per_second);
        self.reserve = filled.min(u128::from(self.allowance.per_second) * ONE);
    }

    fn begin(&mut self) {
        self.under_way += 1;
        self.fresh += 1;
    }

    fn withdraw(&mut self, heard: Heard) -> bool {
        let (fresh, waited) = (std::mem::take(&mut self.fresh), std::mem::take(&mut self.waited));
        let may = self.for_callers + (heard.parts - self.heard) * 4;
        let before = (fresh * heard.share).min(may);
        (self.heard, self.for_callers) = (heard.parts, (may - before).min(800_000));
        self.share += i128::from((fresh * 10_000 - before) * self.allowance.percent / 100) - i128::from(before);
        let taken = u128::from(before) * (ONE / 10_000) * ONE / waited.as_nanos().max(ONE);
        self.reserve = self.reserve.saturating_sub(taken);
        let kept = i128::from((self.under_way * self.allowance.percent * 100).max(10_000));
        let owed = kept.max(i128::from(self.allowance.per_second * 10_000));
        self.share = self.share.clamp(-owed, kept);
        if self.share < 10_000 && self.reserve < ONE {
            return false;
        }
        self.share = (self.share - 10_000).max(-owed);
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
                    let share = [0, 0, 500, 1_700, 10_000][usize::try_from(next_dice(&mut dice) % 5).unwrap()];
                    let heard = Heard { share, parts: model.heard + next_dice(&mut dice) % 3 * 10_000 };
                    let expect = model.withdraw(heard);
                    let got = budget.withdraw(model.at, requests, model.under_way, heard);
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

/// Tiers in a row: each sends what reaches it to the next, `fan_out` times, the last fails always, and every tier asks for three
/// more attempts of each that failed. Gives what reached each tier.
fn storm(tiers: usize, rate: u64, (seconds, fan_out): (u64, usize), counts_callers: bool) -> Vec<u64> {
    const DEFAULT: Allowance = Allowance { percent: 20, per_second: 3 };
    let mut budgets = vec![RetryBudget::new(DEFAULT); tiers];
    let callers: Vec<_> = (0..tiers).map(|_| CallersRetries::default()).collect();
    let (mut reached, mut asked) = (vec![0; tiers + 1], vec![0; tiers]);
    for request in 0..rate * seconds {
        let now = Duration::from_secs(60) + Duration::from_secs(request) / u32::try_from(rate).unwrap();
        let mut sent = vec![0];
        for tier in 0..tiers {
            let mut on = Vec::new();
            for parts in sent {
                reached[tier] += 1;
                callers[tier].arrived(now, parts);
                let heard = if counts_callers { callers[tier].heard(now) } else { Heard::default() };
                for _ in 0..if tier == 0 { fan_out } else { 1 } {
                    asked[tier] += 1;
                    on.push(heard.share);
                    on.extend((0..3).filter(|_| budgets[tier].withdraw(now, asked[tier], 4, heard)).map(|_| WHOLE));
                }
            }
            sent = on;
        }
        reached[tiers] += sent.len() as u64;
    }
    reached
}

#[test]
fn a_storm_through_tiers_is_amplified_once() {
    for (tiers, rate, fan_out) in
        [(1, 100, 1), (2, 30, 1), (2, 100, 1), (2, 2_000, 1), (3, 100, 1), (4, 500, 1), (3, 100, 3)]
    {
        let (once, each) = (storm(tiers, rate, (10, fan_out), true), storm(tiers, rate, (10, fan_out), false));
        // The first requests of each tier tell the next of the retries among them, and its reserve of a second goes meanwhile.
        let first = once[0] * u64::try_from(fan_out).unwrap();
        let most = first * 6 / 5 + u64::try_from(tiers).unwrap() * 4;
        assert!(once[tiers] <= most, "{tiers} tiers, {rate} a second, each {fan_out} times: {once:?}");
        assert!(once[1] >= first * 119 / 100, "the first tier has all of its share: {once:?}");
        assert!(tiers == 1 || rate < 100 || each[tiers] > most, "each would add its own: {each:?}");
    }
}

/// Whoever sends a thousand requests a second of its own accord loses little of its share to a caller that sends three.
#[test]
fn few_callers_take_few_retries() {
    let mut budget = RetryBudget::new(Allowance { percent: 20, per_second: 3 });
    let callers = CallersRetries::default();
    let (mut granted, mut now) = (0, Duration::from_secs(60));
    for request in 1..=10_000 {
        now += Duration::from_millis(1);
        if request % 333 == 0 {
            callers.arrived(now, WHOLE / 5);
        }
        granted += u64::from(budget.withdraw(now, request, 4, callers.heard(now)));
    }
    assert!(granted > 1_900, "{granted} of 2,000");
}

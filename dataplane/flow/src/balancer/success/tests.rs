//! Rates by a table, and rounds of judgement beside a plain reference that keeps every request and counts by fractions.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::balancer::Algorithm;
use crate::balancer::tests::Named;
use crate::below;

const RATES: SuccessRate = SuccessRate { minimum_hosts: 3, request_volume: 5, stdev_thousandths: 1_000 };

const OUTLIERS: Outliers = Outliers {
    server_errors: 0,
    gateway_errors: 0,
    local_failures: 0,
    interval: seconds(10),
    ejection: seconds(30),
    longest: seconds(100),
    most_percent: 50,
    success_rate: Some(RATES),
};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn judging(outliers: Outliers) -> Named {
    let mut named = Named::by(Algorithm::PeakEwma);
    named.settings.outliers = Some(outliers);
    named.update(NAMES.map(|name| (name, 1)));
    named
}

/// Ends so many requests well and so many badly.
fn end(named: &mut Named, name: &str, now: u64, good: u32, bad: u32) {
    let signs = (0..good).map(|_| Sign::Good).chain((0..bad).map(|_| Sign::ServerError));
    signs.for_each(|sign| assert_eq!(named.rated(name, seconds(now), 0, sign), [""; 0]));
}

#[test]
fn the_least_rate_is_the_mean_less_some_deviations() {
    let least = |rates: &[u64], thousandths| least_rate(rates.iter().copied(), thousandths);
    assert_eq!(least(&[ALL; 5], 1_900), ALL, "equals are never below");
    assert_eq!(least(&[500_000, 900_000], 0), 700_000);
    assert_eq!(least(&[500_000, 900_000], 1_000), 500_000);
    // The numbers of Envoy's own test: a mean of 90 % and a deviation of 20 %.
    assert_eq!(least(&[ALL, ALL, ALL, ALL, 500_000], 1_900), 520_000);
    assert_eq!(least(&[0, ALL], 5_000), 0, "nobody is below nothing");
    assert_eq!(least(&[], 1_000), 0);
    assert_eq!(least(&[u64::from(u32::MAX) % ALL; 3], u32::MAX), u64::from(u32::MAX) % ALL);
}

#[test]
fn who_is_far_below_the_others_is_ejected_at_the_end_of_an_interval() {
    let mut named = judging(OUTLIERS);
    for name in &NAMES[1..] {
        end(&mut named, name, 1, 10, 0);
    }
    end(&mut named, "a", 1, 5, 5);
    end(&mut named, "b", 10, 1, 0);
    assert_eq!(named.ejected(), 0, "the interval goes on");
    assert_eq!(named.rated("b", seconds(11), 0, Sign::Good), ["a"]);
    assert_eq!(named.ejected(), 1);
    let picked =
        |named: &Named, now: u64| (0..100).any(|dice: u64| named.pick(seconds(now), dice << 57, &[]) == Some("a"));
    assert!(!picked(&named, 25) && picked(&named, 41), "out for 15 s to 30 s, then tried");
    assert!(!named.ended("a", seconds(41), seconds(42), 0, Sign::Good));
    assert_eq!(named.ejected(), 0);
}

#[test]
fn who_had_few_requests_is_not_judged_nor_are_few_endpoints() {
    fn ejected(change: fn(&mut Named)) -> usize {
        let mut named = judging(OUTLIERS);
        for name in &NAMES[1..] {
            end(&mut named, name, 1, 10, 0);
        }
        change(&mut named);
        named.rated("b", seconds(11), 0, Sign::Good).len()
    }
    assert_eq!(ejected(|named| end(named, "a", 2, 0, 5)), 1);
    assert_eq!(ejected(|named| end(named, "a", 2, 0, 4)), 0, "of four requests nothing is said");
    let two_left = |named: &mut Named| {
        end(named, "a", 2, 0, 5);
        named.update([("a", 1), ("b", 1)]);
    };
    assert_eq!(ejected(two_left), 0, "two are fewer than three");
    let drained = |named: &mut Named| {
        end(named, "a", 2, 0, 5);
        named.update(NAMES.map(|name| (name, u32::from(name != "a"))));
    };
    assert_eq!(ejected(drained), 0, "who takes nothing is not ejected");
    let nothing = |named: &mut Named| {
        end(named, "a", 2, 5, 0);
        (0..9).for_each(|_| _ = named.rated("a", seconds(2), 0, Sign::Nothing));
    };
    assert_eq!(ejected(nothing), 0, "what says nothing is not counted");
    let other = |named: &mut Named| {
        end(named, "a", 2, 0, 5);
        let rates = SuccessRate { stdev_thousandths: 900, ..RATES };
        named.settings.outliers = Some(Outliers { success_rate: Some(rates), ..OUTLIERS });
        named.update(NAMES.map(|name| (name, 1)));
    };
    assert_eq!(ejected(other), 0, "under another policy it begins anew");
    let mut late = judging(OUTLIERS);
    NAMES[1..].iter().for_each(|name| end(&mut late, name, 1, 10, 0));
    end(&mut late, "a", 1, 0, 10);
    assert_eq!(late.rated("b", seconds(21), 0, Sign::Good), [""; 0], "what is long over is old");
}

/// Everything that ended since the interval began, and who is out since when.
#[derive(Debug, Default)]
struct Plain {
    begun: Option<u64>,
    ended: Vec<(&'static str, bool)>,
    out: BTreeMap<&'static str, u64>,
}

impl Plain {
    /// Those who should be ejected now, and whether one is too near to what decides for fractions to tell.
    fn judged(&self) -> (Vec<&'static str>, bool) {
        let rate = |name: &&'static str| {
            let of_it: Vec<_> = self.ended.iter().filter(|(one, _)| one == name).collect();
            let good = of_it.iter().filter(|(_, good)| *good).count();
            (of_it.len() >= 5 && !self.out.contains_key(name)).then(|| (*name, good as f64 / of_it.len() as f64))
        };
        let mut rates: Vec<_> = NAMES.iter().filter_map(rate).collect();
        if rates.len() < 3 {
            return (Vec::new(), false);
        }
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / rates.len() as f64;
        let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / rates.len() as f64;
        let least = mean - variance.sqrt();
        let is_near = rates.iter().any(|(_, rate)| (rate - least).abs() < 0.000_01);
        rates.sort_by(|(_, one), (_, other)| one.total_cmp(other));
        let low = rates.into_iter().filter(|(_, rate)| *rate < least).map(|(name, _)| name);
        // One always may be out, and two of five.
        (low.take(2 - self.out.len().min(2)).collect(), is_near)
    }

    fn end(&mut self, name: &'static str, now: u64, good: bool, real: &[&'static str], seed: u64) {
        let elapsed = self.begun.map(|begun| now - begun);
        if elapsed.is_none_or(|elapsed| elapsed >= 10) {
            let (judged, is_near) = if elapsed.is_some_and(|it| it < 20) { self.judged() } else { (Vec::new(), false) };
            assert!(is_near || judged == real, "seed {seed} at {now}: {judged:?}, not {real:?}, of {self:?}");
            self.out.extend(real.iter().map(|name| (*name, now)));
            (self.begun, self.ended) = (Some(now), Vec::new());
        } else {
            assert_eq!(real, [""; 0], "seed {seed} at {now}");
        }
        self.ended.push((name, good));
    }
}

#[test]
fn agrees_with_a_plain_reference() {
    let mut ejections = 0;
    for seed in 0..1_000 {
        let (mut dice, mut now) = (seed, 0);
        let mut roll = |bound: u64| below(next_dice(&mut dice), bound);
        let mut named = judging(OUTLIERS);
        let mut plain = Plain::default();
        // How many of ten requests each serves.
        let serves: BTreeMap<_, _> = NAMES.into_iter().map(|name| (name, 4 + roll(7))).collect();
        for _ in 0..400 {
            now += [0, 0, 0, 0, 0, 0, 0, 1, 1, 14][usize::try_from(roll(10)).unwrap()] * u64::from(roll(3) == 0);
            let name = NAMES[usize::try_from(roll(5)).unwrap()];
            if roll(20) == 0 && plain.out.get(name).is_some_and(|since| *since < now) {
                named.ended(name, seconds(now), seconds(now), 0, Sign::Good);
                plain.out.remove(name);
            }
            let good = roll(10) < serves[name];
            let sign = if good { Sign::Good } else { Sign::GatewayError };
            let real = named.rated(name, seconds(now), 0, sign);
            ejections += real.len();
            plain.end(name, now, good, &real, seed);
            assert_eq!(named.ejected(), plain.out.len(), "seed {seed} at {now}");
        }
    }
    assert!(ejections > 500, "only {ejections}: the steps say little");
}

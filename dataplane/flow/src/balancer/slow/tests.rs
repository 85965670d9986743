//! Slow start beside a reference that gives each endpoint tickets by its age.

use std::collections::BTreeMap;

use super::super::tests::Named;
use super::super::{Algorithm, Outliers, Settings, Sign};
use super::*;
use crate::next_dice;

const SLOW: SlowStart = SlowStart { window: Duration::from_secs(10), least_percent: 10 };
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn balancer(algorithm: Algorithm, slow: SlowStart) -> Named {
    Named::with(Settings { algorithm, slow_start: Some(slow), ..Settings::default() })
}

#[test]
fn weight_grows_in_proportion_to_time() {
    fn check(slow: SlowStart, ms: u64, expect: u64) {
        assert_eq!(slow.grown(Duration::from_millis(ms)), expect, "{slow:?} after {ms} ms");
    }
    check(SLOW, 0, 100);
    check(SLOW, 999, 100);
    check(SLOW, 1_500, 150);
    check(SLOW, 5_000, 500);
    check(SLOW, 9_999, 999);
    check(SLOW, 10_000, 1_000);
    check(SLOW, u64::MAX, 1_000);
    check(SlowStart { least_percent: 100, ..SLOW }, 0, 1_000);
    check(SlowStart { least_percent: 0, ..SLOW }, 0, 1);
    check(SlowStart { window: Duration::ZERO, ..SLOW }, 0, 100);
    check(SlowStart { window: Duration::MAX, ..SLOW }, 5_000, 100);
}

/// An endpoint in the reference. `since`: `None` for one that was there from the start.
#[derive(Debug, Clone, Copy)]
struct Known {
    weight: u32,
    since: Option<Duration>,
    is_new: bool,
    is_lost: bool,
}

/// As many tickets as the weight and the age of each endpoint say; the dice draw one.
#[test]
fn what_is_drawn_is_one_of_as_many_tickets() {
    for seed in 0..1_000 {
        let (mut dice, mut now) = (seed, Duration::ZERO);
        let mut roll = |bound| below(next_dice(&mut dice), bound);
        let mut named = balancer(Algorithm::Random, SLOW);
        let mut model = BTreeMap::<&'static str, Known>::new();
        for _ in 0..20 {
            now += Duration::from_millis(roll(3_000));
            let name = NAMES[usize::try_from(roll(6)).unwrap()];
            match roll(5) {
                0 | 1 => {
                    let (weight, is_new) = (1 + u32::try_from(roll(3)).unwrap(), !model.is_empty());
                    let new = Known { weight, since: None, is_new, is_lost: false };
                    model.entry(name).or_insert(new).weight = weight;
                    named.update(model.iter().map(|(name, known)| (*name, known.weight)));
                }
                2 if roll(3) == 0 => {
                    model.remove(name);
                    named.update(model.iter().map(|(name, known)| (*name, known.weight)));
                }
                2 => {
                    named.not_reached(name, now, roll(u64::MAX));
                    model.entry(name).and_modify(|known| known.is_lost = true);
                }
                _ => {
                    named.reached(name, now);
                    if let Some(known) = model.get_mut(name).filter(|known| known.is_lost) {
                        (known.since, known.is_new, known.is_lost) = (Some(now), false, false);
                    }
                }
            }
            if roll(2) == 0 {
                continue;
            }
            // Their time begins with the first pick.
            for known in model.values_mut().filter(|known| known.is_new) {
                (known.since, known.is_new) = (Some(now), false);
            }
            let all_lost = model.values().all(|known| known.is_lost);
            let mut tickets = Vec::new();
            for (name, known) in model.iter().filter(|(_, known)| all_lost || !known.is_lost) {
                let age = known.since.map_or(SLOW.window, |since| now - since).as_nanos();
                let part = (age * 1_000 / SLOW.window.as_nanos()).clamp(100, 1_000);
                tickets.extend((0..u128::from(known.weight) * part).map(|_| *name));
            }
            for _ in 0..5 {
                let thrown = roll(u64::MAX);
                let ticket = below(next_dice(&mut { thrown }), tickets.len() as u64);
                let expected = tickets.get(usize::try_from(ticket).unwrap()).copied();
                assert_eq!(named.pick(now, thrown, &[]), expected, "seed {seed}: {model:?} at {now:?}");
            }
        }
    }
}

/// How many of so many picks, at one time, an endpoint has.
fn count(named: &Named, name: &str, now: Duration, picks: u64) -> u64 {
    let picked = (0..picks).map(|number| named.pick(now, crate::hash(&number.to_be_bytes()), &[]));
    picked.filter(|picked| *picked == Some(name)).count() as u64
}

#[test]
fn turns_come_more_rarely_at_first() {
    let mut named = balancer(Algorithm::RoundRobin, SLOW);
    let start = Duration::from_secs(100);
    named.update([("a", 1), ("b", 1)]);
    assert_eq!(count(&named, "a", start, 20), 10, "the first endpoints are not new");
    named.update([("a", 1), ("b", 1), ("c", 1)]);
    let first = count(&named, "c", start, 42);
    assert!((1..=3).contains(&first), "{first} of 42, a tenth of what the others have");
    // A turn that is far off stays so; then each second round is its.
    count(&named, "c", start + SLOW.window / 2, 30);
    let half = count(&named, "c", start + SLOW.window / 2, 50);
    assert!((9..=11).contains(&half), "{half} of 50, half of what the others have");
    count(&named, "c", start + SLOW.window, 6);
    let whole = count(&named, "c", start + SLOW.window, 30);
    assert!((9..=11).contains(&whole), "{whole} of 30, as many as the others");
}

#[test]
fn a_new_one_that_is_idle_takes_no_more_than_it_is_drawn() {
    for algorithm in [Algorithm::LeastRequest, Algorithm::PeakEwma] {
        let mut named = balancer(algorithm, SLOW);
        let start = Duration::from_secs(100);
        named.update([("a", 1)]);
        named.update([("a", 1), ("b", 1)]);
        (0..5).for_each(|_| named.started("a"));
        // Of two draws one is it in 17 of a hundred, and it wins.
        let first = count(&named, "b", start, 10_000);
        assert!((1_500..1_950).contains(&first), "{algorithm:?}: {first} of 10,000");
        let later = count(&named, "b", start + SLOW.window, 1_000);
        // But for a sample of the other.
        assert!(later >= 999, "{algorithm:?}: {later} of 1,000, two are always compared, and it is idle");
    }
}

#[test]
fn who_is_well_again_begins_anew() {
    let mut named = balancer(Algorithm::Random, SLOW);
    let second = Duration::from_secs(1);
    named.update([("a", 1), ("b", 1)]);
    let share = |named: &Named, now| count(named, "a", now, 10_000);
    named.heed(&["a"]);
    assert_eq!(share(&named, second * 100), 0);
    named.heed(&[]);
    let (first, last) = (share(&named, second * 200), share(&named, second * 200 + SLOW.window));
    assert!((800..1_020).contains(&first) && (4_800..5_200).contains(&last), "{first}, then {last} of 10,000");
}

#[test]
fn who_comes_back_from_an_ejection_begins_anew() {
    let mut named = balancer(Algorithm::Random, SLOW);
    let second = Duration::from_secs(1);
    named.settings.outliers = Some(Outliers {
        server_errors: 1,
        gateway_errors: 0,
        local_failures: 0,
        interval: second,
        ejection: second,
        longest: second,
        most_percent: 50,
        success_rate: None,
    });
    named.update([("a", 1), ("b", 1)]);
    let mut now = second * 100;
    assert!(named.ended("a", now, now, 0, Sign::ServerError));
    now += second * 2;
    assert_eq!(named.pick(now, 1, &[]), Some("a"), "its trial");
    named.ended("a", now, now + second, 0, Sign::Good);
    let share = |now| count(&named, "a", now, 10_000);
    let (first, last) = (share(now + second), share(now + second + SLOW.window));
    // One part in eleven, then one in two.
    assert!((800..1_020).contains(&first) && (4_800..5_200).contains(&last), "{first}, then {last} of 10,000");
}

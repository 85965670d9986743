//! Thresholds by a table and beside a reference that keeps every result, and the spread of checks over time.

use super::*;
use crate::next_dice;

const THRESHOLDS: Thresholds = Thresholds { unhealthy: 3, healthy: 2 };

/// Results, each a letter: `p`assed, `f`ailed, `n`othing. What is held after each: `w`ell or `u`nwell.
#[test]
fn a_row_of_results_decides_and_the_first_alone() {
    fn check(results: &str, expect: &str) {
        let mut health = Health::default();
        let mut held = String::new();
        for result in results.chars() {
            let before = health.is_unwell();
            let changed = health.note(THRESHOLDS, of(result));
            assert_eq!(changed, before != health.is_unwell(), "{results}");
            held.push(if health.is_unwell() { 'u' } else { 'w' });
        }
        assert_eq!(held, expect, "{results}");
    }
    fn of(letter: char) -> Checked {
        match letter {
            'p' => Checked::Passed,
            'f' => Checked::Failed,
            _ => Checked::Nothing,
        }
    }
    check("", "");
    check("f", "u");
    check("p", "w");
    check("nnf", "wwu");
    check("pfff", "wwwu");
    check("pffpfff", "wwwwwwu");
    check("pfnfnf", "wwwwwu");
    check("fp", "uu");
    check("fpp", "uuw");
    check("fpfpp", "uuuuw");
    check("fpnp", "uuuw");
    check("fppff", "uuwww");
    check("fppfff", "uuwwwu");
}

/// The reference looks at all results each time: the newest row decides, if it is long enough.
#[test]
fn agrees_with_a_plain_reference() {
    for seed in 0..1_000 {
        let mut dice = seed;
        let mut roll = |bound: u64| below(next_dice(&mut dice), bound);
        let number = |rolled: u64| u32::try_from(rolled).unwrap() + 1;
        let thresholds = Thresholds { unhealthy: number(roll(5)), healthy: number(roll(5)) };
        let (mut health, mut told, mut held) = (Health::default(), Vec::<bool>::new(), false);
        for _ in 0..100 {
            match roll(5) {
                0 => _ = health.note(thresholds, Checked::Nothing),
                rolled => {
                    let fails = rolled < 3;
                    told.push(fails);
                    let row = told.iter().rev().take_while(|one| **one == fails).count();
                    let needed = if fails { thresholds.unhealthy } else { thresholds.healthy };
                    if told.len() == 1 || row >= needed as usize {
                        held = fails;
                    }
                    health.note(thresholds, if fails { Checked::Failed } else { Checked::Passed });
                }
            }
            assert_eq!(health.is_unwell(), held, "seed {seed}: {thresholds:?} after {told:?}");
        }
    }
}

#[test]
fn checks_are_spread_and_never_two_at_a_time() {
    let (now, interval) = (Duration::from_secs(100), Duration::from_secs(10));
    let mut dice = 3;
    let mut firsts: Vec<_> = (0..1_000)
        .map(|_| Rounds::begin(now, interval, next_dice(&mut dice)).due().expect("none is under way") - now)
        .collect();
    firsts.sort_unstable();
    // Uniform over the interval: each tenth of them comes in about a tenth of it.
    for (tenth, first) in (1_u32..).zip(firsts.chunks(100).map(|chunk| chunk[99])) {
        assert!(first.abs_diff(Duration::from_secs(tenth.into())) < Duration::from_secs(1), "{tenth}: {first:?}");
    }
    let mut rounds = Rounds::begin(now, interval, u64::MAX / 2);
    let due = rounds.due().unwrap();
    assert!(!rounds.take(due - Duration::from_millis(1)) && rounds.take(due));
    assert!(!rounds.take(due + interval) && rounds.due().is_none(), "it is under way");
    for dice in [0, u64::MAX / 2, u64::MAX] {
        rounds.ended(now, interval, dice);
        let wait = rounds.due().unwrap() - now;
        assert!((Duration::from_secs(9)..=Duration::from_secs(11)).contains(&wait), "{wait:?}");
    }
    let mut longest = Rounds::begin(Duration::MAX, Duration::MAX, u64::MAX);
    longest.ended(Duration::MAX, Duration::MAX, u64::MAX);
    assert_eq!(longest.due(), Some(Duration::MAX));
}

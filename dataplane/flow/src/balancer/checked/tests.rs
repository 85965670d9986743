//! Who is unwell is not picked while another can be, whatever else keeps endpoints out.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::balancer::tests::{ALGORITHMS, Named};
use crate::balancer::{Algorithm, Outliers, Sign};
use crate::{below, next_dice};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

const OUTLIERS: Outliers = Outliers {
    server_errors: 1,
    gateway_errors: 0,
    local_failures: 0,
    interval: Duration::from_secs(10),
    ejection: Duration::from_secs(1_000),
    longest: Duration::from_secs(1_000),
    most_percent: 50,
    success_rate: None,
};

fn named(algorithm: Algorithm) -> Named {
    let mut named = Named::by(algorithm);
    named.settings.outliers = Some(OUTLIERS);
    named.update(NAMES.map(|name| (name, 1)));
    named
}

fn picked(named: &Named, now: u64) -> BTreeSet<&'static str> {
    let pick =
        |dice: u64| named.pick_for(Some(crate::hash(&dice.to_be_bytes())), Duration::from_secs(now), dice << 57, &[]);
    (0..100).filter_map(pick).collect()
}

#[test]
fn who_is_unwell_takes_nothing_while_another_can() {
    for algorithm in ALGORITHMS {
        let check = |unwell: &[&str], expect: &[&'static str]| {
            let mut named = named(algorithm);
            named.heed(unwell);
            assert_eq!(picked(&named, 1), expect.iter().copied().collect(), "{algorithm:?}, {unwell:?}");
            named.heed(&[]);
            assert_eq!(picked(&named, 1).len(), 4, "{algorithm:?}: all are well again");
        };
        check(&["a"], &["b", "c", "d"]);
        // No share of them bounds it.
        check(&["a", "b", "c"], &["d"]);
        check(&NAMES, &NAMES);
    }
}

/// An ejection of one that is unwell goes on, and its trial waits until it is well.
#[test]
fn who_is_unwell_takes_no_trial() {
    let mut named = named(Algorithm::PeakEwma);
    assert!(named.ended("a", Duration::from_secs(1), Duration::from_secs(1), 0, Sign::ServerError));
    named.heed(&["a"]);
    assert!(!picked(&named, 2_000).contains("a"));
    named.heed(&[]);
    assert_eq!(named.ejected(), 1);
    let first = named.pick(Duration::from_secs(2_000), 1, &[]);
    assert_eq!(first, Some("a"), "its trial, which is due");
}

/// Those who are unwell count among those who are out where an ejection is judged.
#[test]
fn who_is_unwell_counts_as_out() {
    let mut named = named(Algorithm::PeakEwma);
    named.heed(&["a", "b"]);
    assert!(!named.ended("c", Duration::from_secs(1), Duration::from_secs(1), 0, Sign::ServerError));
    named.heed(&[]);
    assert!(named.ended("c", Duration::from_secs(2), Duration::from_secs(2), 0, Sign::ServerError));
}

/// What is picked is in the first of these sets that is not empty: neither unwell, ejected nor lost; not lost; all.
#[test]
fn agrees_with_a_plain_reference() {
    for seed in 0..1_000 {
        let mut dice = seed;
        let mut roll = |bound: u64| below(next_dice(&mut dice), bound);
        let mut named = named(if seed % 2 == 0 { Algorithm::PeakEwma } else { Algorithm::RoundRobin });
        let (mut unwell, mut lost, mut ejected) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for now in 1..60 {
            let (at, name) = (Duration::from_secs(now), NAMES[usize::try_from(roll(4)).unwrap()]);
            match roll(6) {
                0 | 1 => {
                    unwell = NAMES.into_iter().filter(|_| roll(3) == 0).collect();
                    named.heed(&unwell.iter().copied().collect::<Vec<_>>());
                }
                2 => {
                    lost.insert(name);
                    named.not_reached(name, at, 1);
                }
                3 => {
                    lost.remove(name);
                    named.reached(name, at);
                }
                _ => {
                    let out = NAMES
                        .iter()
                        .filter(|one| unwell.contains(*one) || lost.contains(*one) || ejected.contains(*one));
                    let out = out.count();
                    let may =
                        !lost.contains(name) && !ejected.contains(name) && (out == 0 || (out + 1) * 2 <= NAMES.len());
                    assert_eq!(named.ended(name, at, at, 0, Sign::ServerError), may, "seed {seed} at {now}");
                    if may {
                        ejected.insert(name);
                    }
                }
            }
            let is_in = |name: &&str| !unwell.contains(name) && !lost.contains(name) && !ejected.contains(name);
            let sets: [BTreeSet<&str>; 3] = [
                NAMES.into_iter().filter(|name| is_in(name)).collect(),
                NAMES.into_iter().filter(|name| !lost.contains(name)).collect(),
                NAMES.into(),
            ];
            let first = sets.iter().find(|set| !set.is_empty()).unwrap();
            let picked = named.pick(at, roll(u64::MAX), &[]).unwrap();
            assert!(first.contains(picked), "seed {seed} at {now}: {picked}, not of {first:?}");
        }
    }
}

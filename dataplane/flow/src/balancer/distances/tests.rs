//! Load by distance: tables of shares, a reference that pours requests into endpoints, and random steps beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::tests::{ALGORITHMS, Named};
use super::super::{Algorithm, Outliers, Purpose, Settings, Sign, Wanted};
use super::*;
use crate::hash;

const NOW: Duration = Duration::from_secs(1);
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

#[test]
fn load_overflows_gradually() {
    // Weights at each distance, all and those that may be picked; the shares in millionths.
    fn check(percent: u32, weights: &[(u64, u64)], expect: &[u64]) {
        let weights: Vec<_> =
            weights.iter().map(|(all, admitted)| Weights { all: *all, admitted: *admitted }).collect();
        assert_eq!(loads(&weights, Overprovisioning(percent)), expect, "{weights:?} at {percent} %");
    }
    check(140, &[], &[]);
    check(140, &[(10, 10)], &[1_000_000]);
    check(140, &[(10, 1)], &[1_000_000]);
    check(140, &[(10, 10), (10, 10)], &[1_000_000, 0]);
    check(140, &[(10, 8), (10, 10)], &[1_000_000, 0]);
    check(140, &[(10, 7), (10, 10)], &[980_000, 20_000]);
    check(140, &[(10, 5), (10, 10)], &[700_000, 300_000]);
    check(140, &[(10, 1), (10, 10)], &[140_000, 860_000]);
    check(140, &[(10, 0), (10, 10)], &[0, 1_000_000]);
    check(140, &[(10, 2), (10, 5), (10, 10)], &[280_000, 700_000, 20_000]);
    check(140, &[(10, 0), (10, 0), (10, 10)], &[0, 0, 1_000_000]);
    // They can't take everything between them: each takes more than it should, alike.
    check(140, &[(10, 2), (10, 2)], &[500_000, 500_000]);
    check(140, &[(10, 4), (10, 1)], &[800_000, 200_000]);
    check(140, &[(10, 5), (10, 0)], &[1_000_000, 0]);
    check(140, &[(10, 0), (10, 0)], &[0, 0]);
    check(100, &[(10, 9), (10, 10)], &[900_000, 100_000]);
    check(200, &[(10, 5), (10, 10)], &[1_000_000, 0]);
    check(100, &[(3, 1), (3, 1), (3, 1)], &[333_334, 333_333, 333_333]);
    check(140, &[(4_000_000_000, 1), (1, 1)], &[1, 999_999]);
    check(140, &[(u64::MAX, u64::MAX), (1, 1)], &[1_000_000, 0]);
}

/// Requests are poured in, near first; who is full lets the rest run on, and what nobody has room for is spread alike.
fn poured(weights: &[(u64, u64)], percent: u32) -> Vec<f64> {
    let room: Vec<f64> = weights
        .iter()
        .map(|(all, admitted)| (*admitted as f64 / *all as f64 * f64::from(percent) / 100.0).min(1.0))
        .collect();
    let together: f64 = room.iter().sum();
    let scale = if together > 0.0 && together < 1.0 { 1.0 / together } else { 1.0 };
    let mut left = 1.0_f64;
    let pour = |room: &f64| {
        let taken = (room * scale).min(left);
        left -= taken;
        taken
    };
    room.iter().map(pour).collect()
}

#[test]
fn loads_are_what_is_poured() {
    for seed in 0..1_000 {
        let mut dice = seed;
        let mut roll = |bound| below(next_dice(&mut dice), bound);
        let percent = 100 + u32::try_from(roll(200)).unwrap();
        let weights: Vec<(u64, u64)> = (0..=roll(5))
            .map(|_| {
                let all = 1 + roll(50);
                (all, roll(all + 1))
            })
            .collect();
        let as_weights: Vec<_> =
            weights.iter().map(|(all, admitted)| Weights { all: *all, admitted: *admitted }).collect();
        let got = loads(&as_weights, Overprovisioning(percent));
        for (got, expect) in got.iter().zip(poured(&weights, percent)) {
            let got = *got as f64 / ALL as f64;
            assert!((got - expect).abs() < 0.000_1, "{weights:?} at {percent} %: {got}, not {expect}");
        }
        let is_nobody = weights.iter().all(|(_, admitted)| *admitted == 0);
        assert_eq!(got.iter().sum::<u64>(), if is_nobody { 0 } else { ALL }, "{weights:?}");
    }
}

/// Ejected by the first answer that is bad, for longer than any test takes.
fn settings(algorithm: Algorithm, panic_percent: u32) -> Settings {
    let out = Duration::from_secs(10_000);
    let outliers = Outliers {
        server_errors: 1,
        gateway_errors: 0,
        local_failures: 0,
        interval: out,
        ejection: out,
        longest: out,
        most_percent: 100,
        success_rate: None,
    };
    Settings { algorithm, outliers: Some(outliers), panic_percent, ..Settings::default() }
}

fn balancer(algorithm: Algorithm, at: &[(&'static str, u32, u8)]) -> Named {
    let mut named = Named::with(settings(algorithm, 0));
    named.place(at.iter().map(|(name, weight, distance)| (*name, Preference { weight: *weight, distance: *distance })));
    named
}

/// What random steps know of an endpoint.
#[derive(Debug, Clone, Copy)]
struct Known {
    preference: Preference,
    is_lost: bool,
    is_ejected: bool,
}

/// Those that may be picked, and whether few enough are in for a panic.
fn admitted(model: &BTreeMap<&'static str, Known>, panic_percent: usize) -> (BTreeSet<&'static str>, bool) {
    let those = |is_one: fn(&Known) -> bool| -> BTreeSet<&'static str> {
        model.iter().filter(|(_, known)| is_one(known)).map(|(name, _)| *name).collect()
    };
    let (within, reachable) = (those(|it| !it.is_lost && !it.is_ejected), those(|it| !it.is_lost));
    let few = within.len() < reachable.len() && within.len() * 100 < model.len() * panic_percent;
    let panics = few && !takes_over(model, &within);
    let usual = if panics { reachable.clone() } else { within };
    ([usual, reachable].into_iter().find(|it| !it.is_empty()).unwrap_or_else(|| those(|_| true)), panics)
}

/// Whether those that are in at all of several distances have room for everything between them.
fn takes_over(model: &BTreeMap<&'static str, Known>, within: &BTreeSet<&'static str>) -> bool {
    let mut weights = BTreeMap::<u8, (u64, u64)>::new();
    for (name, Known { preference: Preference { weight, distance }, .. }) in model {
        let (all, own) = weights.entry(*distance).or_default();
        *all += u64::from(*weight);
        *own += if within.contains(name) { u64::from(*weight) } else { 0 };
    }
    let room: f64 = weights.values().map(|(all, own)| (*own as f64 / *all as f64 * 1.4).min(1.0)).sum();
    weights.len() > 1 && room > 1.0 - 1e-6
}

/// The share of each distance.
fn poured_at(model: &BTreeMap<&'static str, Known>, may_be: &BTreeSet<&'static str>) -> BTreeMap<u8, f64> {
    let mut weights = BTreeMap::<u8, (u64, u64)>::new();
    for (name, known) in model {
        let weight = u64::from(known.preference.weight);
        let (all, admitted) = weights.entry(known.preference.distance).or_default();
        *all += weight;
        *admitted += if may_be.contains(name) { weight } else { 0 };
    }
    let shares = poured(&weights.values().copied().collect::<Vec<_>>(), 140);
    weights.into_keys().zip(shares).collect()
}

/// Endpoints come, go, move, are lost, found and ejected: each pick is one that may be picked, at a distance that has a share,
/// and over all steps the nearest get what the reference pours into them.
#[test]
fn picks_go_where_the_reference_pours_them() {
    let (mut expected, mut got, mut picks) = (0.0_f64, 0.0_f64, 0.0_f64);
    for seed in 0..1_000_u64 {
        let mut dice = seed;
        let mut roll = |bound| below(next_dice(&mut dice), bound);
        // Tables take their time.
        let algorithm = if seed % 50 == 0 { Algorithm::Maglev } else { ALGORITHMS[usize::try_from(seed % 5).unwrap()] };
        let panic_percent = [0, 0, 30, 60][usize::try_from(roll(4)).unwrap()];
        let mut named = Named::with(settings(algorithm, panic_percent));
        let mut model = BTreeMap::<&'static str, Known>::new();
        for _ in 0..20 {
            let name = NAMES[usize::try_from(roll(8)).unwrap()];
            match roll(8) {
                0..=3 => {
                    let (weight, distance) = (1 + u32::try_from(roll(3)).unwrap(), u8::try_from(roll(3)).unwrap());
                    let preference = Preference { weight, distance };
                    model.entry(name).or_insert(Known { preference, is_lost: false, is_ejected: false }).preference =
                        preference;
                    named.place(model.iter().map(|(name, known)| (*name, known.preference)));
                }
                4 if roll(2) == 0 => {
                    model.remove(name);
                    named.place(model.iter().map(|(name, known)| (*name, known.preference)));
                }
                4 => {
                    named.reached(name, NOW);
                    model.entry(name).and_modify(|known| known.is_lost = false);
                }
                5 => {
                    named.not_reached(name, NOW, roll(u64::MAX));
                    model.entry(name).and_modify(|known| known.is_lost = true);
                }
                _ => {
                    if model.contains_key(name) && named.ended(name, NOW, NOW, roll(u64::MAX), Sign::ServerError) {
                        model.entry(name).and_modify(|known| known.is_ejected = true);
                    }
                }
            }
            let (may_be, panics) = admitted(&model, panic_percent as usize);
            assert_eq!(named.is_panicking(), panics, "{model:?} at {panic_percent} %");
            let shares = poured_at(&model, &may_be);
            for _ in 0..4 {
                let key = (roll(4) > 0).then(|| roll(u64::MAX));
                let picked = named.pick_for(key, NOW, roll(u64::MAX), &[]);
                assert_eq!(picked.is_some(), !model.is_empty(), "seed {seed}");
                let Some(picked) = picked else { continue };
                let distance = model[picked].preference.distance;
                assert!(may_be.contains(picked), "{picked} of {model:?}, seed {seed}");
                assert!(shares[&distance] > 0.0, "{picked} of {model:?}, seed {seed}: {shares:?}");
                expected += *shares.values().next().unwrap();
                got += f64::from(u8::from(shares.keys().next() == Some(&distance)));
                picks += 1.0;
            }
        }
    }
    let off: f64 = (got - expected) / picks;
    assert!(off.abs() < 0.01, "the nearest have {got} of {picks}, not {expected}");
}

/// Parts of 20,000 requests, in hundredths.
fn shares(named: &Named) -> BTreeMap<&'static str, u64> {
    let mut got = BTreeMap::new();
    for number in 0..20_000_u64 {
        let mut dice = number;
        let key = next_dice(&mut dice);
        *got.entry(named.pick_for(Some(key), NOW, next_dice(&mut dice), &[]).unwrap()).or_insert(0) += 1;
    }
    got.into_iter().map(|(name, count)| (name, (count + 100) / 200)).collect()
}

#[test]
fn every_algorithm_takes_the_near_ones_and_keeps_weights_there() {
    let all = [("a", 1, 0), ("b", 3, 0), ("c", 1, 1), ("d", 1, 1), ("e", 1, 2)];
    for algorithm in ALGORITHMS {
        let check = |named: &Named, expect: &[(&str, u64)]| {
            let got = shares(named);
            assert_eq!(got.len(), expect.len(), "{algorithm:?}: {got:?}");
            for (name, share) in expect {
                // A ring has few points.
                assert!(got[name].abs_diff(*share) <= 6, "{algorithm:?}: {got:?}, not {expect:?}");
            }
        };
        let mut named = balancer(algorithm, &all);
        check(&named, &[("a", 25), ("b", 75)]);
        named.not_reached("b", NOW, 1);
        // A quarter of the weight is in: it takes 35 of a hundred.
        check(&named, &[("a", 35), ("c", 32), ("d", 33)]);
        named.not_reached("a", NOW, 1);
        check(&named, &[("c", 50), ("d", 50)]);
        named.not_reached("c", NOW, 1);
        check(&named, &[("d", 70), ("e", 30)]);
        named.not_reached("d", NOW, 1);
        check(&named, &[("e", 100)]);
        named.not_reached("e", NOW, 1);
        check(&named, &[("a", 25), ("b", 75)]);
        ["a", "b"].into_iter().for_each(|name| named.reached(name, NOW));
        check(&named, &[("a", 25), ("b", 75)]);
        // A drained one is no near endpoint.
        check(&balancer(algorithm, &[("a", 0, 0), ("b", 1, 1)]), &[("b", 100)]);
        check(&balancer(algorithm, &[("a", 0, 0), ("b", 0, 1)]), &[("a", 100)]);
    }
}

#[test]
fn another_attempt_goes_on_to_farther_ones() {
    for algorithm in ALGORITHMS {
        let named = balancer(algorithm, &[("a", 1, 0), ("b", 1, 0), ("c", 1, 1), ("d", 1, 2)]);
        for key in (0..50).map(|number: u64| hash(&number.to_be_bytes())) {
            let pick = |avoid: &[&'static str]| named.pick_for(Some(key), NOW, key, avoid).unwrap();
            assert!(["a", "b"].contains(&pick(&[])), "{algorithm:?}");
            assert_eq!(pick(&["a"]), "b", "{algorithm:?}");
            assert_eq!(pick(&["b", "a"]), "c", "{algorithm:?}");
            assert_eq!(pick(&["a", "b", "c"]), "d", "{algorithm:?}");
            assert!(["a", "b"].contains(&pick(&["a", "b", "c", "d"])), "{algorithm:?}: all were tried");
        }
    }
}

#[test]
fn keys_move_with_the_load_and_come_back() {
    for algorithm in [Algorithm::RingHash, Algorithm::Maglev] {
        let mut named = balancer(algorithm, &[("a", 1, 0), ("b", 1, 0), ("c", 1, 1), ("d", 1, 1)]);
        let homes = |named: &Named| -> Vec<&'static str> {
            let key = |number: u64| hash(&number.to_be_bytes());
            (0..2_000).map(|number| named.pick_for(Some(key(number)), NOW, number << 40, &[]).unwrap()).collect()
        };
        let before = homes(&named);
        assert!(before.iter().all(|home| ["a", "b"].contains(home)));
        named.not_reached("a", NOW, 1);
        let after = homes(&named);
        let far = after.iter().filter(|home| **home != "b").count();
        assert!((520..=680).contains(&far), "{algorithm:?}: {far} of 2,000, where 600 move on");
        named.reached("a", NOW);
        assert_eq!(homes(&named), before, "{algorithm:?}");
    }
}

/// The only near endpoint may be ejected where there are farther ones, and comes back by a trial whatever the algorithm is.
#[test]
fn the_only_near_one_is_ejected_and_comes_back() {
    let wanted = Wanted { purpose: Purpose::Request, key: Some(hash(b"user")) };
    for algorithm in ALGORITHMS {
        let mut named = balancer(algorithm, &[("near", 1, 0), ("far", 1, 1), ("farther", 1, 2)]);
        let pick = |named: &Named, now| named.pick_wanted(wanted, now, 7, &[]).unwrap();
        assert_eq!(pick(&named, NOW), "near");
        assert!(named.ended("near", NOW, NOW, 0, Sign::ServerError));
        assert!((0..20).all(|_| pick(&named, NOW) == "far"), "{algorithm:?}");
        let later = NOW + Duration::from_secs(10_001);
        assert_eq!(pick(&named, later), "near", "{algorithm:?}: its trial is due");
        assert_eq!(pick(&named, later), "far", "{algorithm:?}: one at a time");
        named.ended("near", later, later + NOW, 0, Sign::Good);
        assert_eq!(pick(&named, later + NOW), "near", "{algorithm:?}");
    }
}

#[test]
fn where_few_are_in_the_ejected_take_their_shares() {
    for algorithm in ALGORITHMS {
        let mut named = Named::with(settings(algorithm, 50));
        named.update(NAMES[..4].iter().map(|name| (*name, 1)));
        let mut eject = |name: &'static str| {
            assert!(named.ended(name, NOW, NOW, 0, Sign::ServerError));
            (named.is_panicking(), shares(&named).len())
        };
        assert_eq!([eject("a"), eject("b")], [(false, 3), (false, 2)], "{algorithm:?}");
        assert_eq!(eject("c"), (true, 4), "{algorithm:?}");
        named.not_reached("a", NOW, 1);
        assert_eq!((named.is_panicking(), shares(&named).len()), (true, 3), "{algorithm:?}: not who can't be reached");
    }
}

//! Each algorithm beside a plain reference that is slow and obvious, driven by the same random steps, and what people
//! choose an algorithm for: exact shares, keys that stay, keys that move when they must.

use std::collections::BTreeMap;

use super::hashed::{SLOTS, claimed};
use super::tests::Named;
use super::*;
use crate::hash;

const NOW: Duration = Duration::from_secs(1);
const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

fn balancer(algorithm: Algorithm, weights: impl IntoIterator<Item = (&'static str, u32)>) -> Named {
    let mut balancer = Named::by(algorithm);
    balancer.update(weights);
    balancer
}

fn equal(count: usize) -> impl Iterator<Item = (&'static str, u32)> {
    NAMES[..count].iter().map(|name| (*name, 1))
}

/// What random steps know of an endpoint.
#[derive(Debug, Clone, Copy)]
struct Known {
    weight: u32,
    is_lost: bool,
}

/// Endpoints that come, go, are lost and found, `seeds` times from the start; after each step `check` compares.
fn walk(
    algorithm: Algorithm,
    seeds: u64,
    mut check: impl FnMut(&Named, &BTreeMap<&'static str, Known>, &mut dyn FnMut(u64) -> u64),
) {
    for seed in 0..seeds {
        let mut dice = seed;
        let mut roll = |bound| below(next_dice(&mut dice), bound);
        let (mut named, mut model) = (Named::by(algorithm), BTreeMap::new());
        for _ in 0..10 {
            let name = NAMES[usize::try_from(roll(10)).unwrap()];
            match roll(4) {
                0 | 1 => {
                    let weight = u32::try_from(roll(4)).unwrap();
                    model.entry(name).or_insert(Known { weight, is_lost: false }).weight = weight;
                    named.update(model.iter().map(|(name, known): (&&str, &Known)| (*name, known.weight)));
                }
                2 if model.contains_key(name) && roll(2) == 0 => {
                    model.remove(name);
                    named.update(model.iter().map(|(name, known): (&&str, &Known)| (*name, known.weight)));
                }
                2 => {
                    named.reached(name, NOW);
                    model.entry(name).and_modify(|known| known.is_lost = false);
                }
                _ => {
                    named.not_reached(name, NOW, roll(u64::MAX));
                    model.entry(name).and_modify(|known| known.is_lost = true);
                }
            }
            check(&named, &model, &mut roll);
        }
    }
}

/// Those that may be picked, each with its weight.
fn usable(model: &BTreeMap<&'static str, Known>, avoid: &[&'static str]) -> Vec<(&'static str, u64)> {
    let all_zero = model.values().all(|known| known.weight == 0);
    let weighed = |known: &Known| if all_zero { 1 } else { u64::from(known.weight) };
    let with_weight: Vec<_> =
        model.iter().map(|(name, known)| (*name, weighed(known))).filter(|(_, weight)| *weight > 0).collect();
    let found: Vec<_> = with_weight.iter().copied().filter(|(name, _)| !model[name].is_lost).collect();
    let found = if found.is_empty() { with_weight } else { found };
    let left: Vec<_> = found.iter().copied().filter(|(name, _)| !avoid.contains(name)).collect();
    if left.is_empty() { found } else { left }
}

/// Of all points of all that may be used the one that follows the key, found by looking at each.
#[test]
fn the_ring_gives_a_key_to_the_next_point_of_one_that_may_be_used() {
    fn reference(usable: &[(&'static str, u64)], key: u64) -> Option<&'static str> {
        let points = usable.iter().flat_map(|(name, weight)| {
            let mut place = hash(name.as_bytes());
            (0..256 * weight).map(move |_| (next_dice(&mut place).wrapping_sub(key), *name))
        });
        points.min().map(|(_, name)| name)
    }
    walk(Algorithm::RingHash, 1_000, |named, model, roll| {
        let avoid = NAMES[usize::try_from(roll(10)).unwrap()];
        // A key that is a point belongs to it.
        let key = if roll(4) == 0 { next_dice(&mut hash(avoid.as_bytes())) } else { roll(u64::MAX) };
        for avoid in [&[][..], &[avoid]] {
            let expected = reference(&usable(model, avoid), key);
            assert_eq!(named.pick_for(Some(key), NOW, 1, avoid), expected, "{model:?} avoiding {avoid:?}");
        }
    });
}

/// The table as the paper writes it down: every endpoint's whole permutation first, then turn by turn.
#[test]
fn a_maglev_table_is_that_of_the_paper() {
    const PRIME: usize = 251;
    fn reference(endpoints: &[Placed]) -> Vec<usize> {
        let permutation = |placed: &Placed| -> Vec<usize> {
            let mut dice = placed.place;
            let offset = usize::try_from(next_dice(&mut dice) % 251).unwrap();
            let skip = usize::try_from(next_dice(&mut dice) % 250).unwrap() + 1;
            (0..PRIME).map(|turn| (offset + turn * skip) % PRIME).collect()
        };
        let mut wanted: Vec<_> = endpoints.iter().map(|it| permutation(it).into_iter()).collect();
        let heaviest = endpoints.iter().map(|it| it.weight).max().unwrap();
        let mut table = BTreeMap::new();
        for turn in 0.. {
            for (number, endpoint) in endpoints.iter().enumerate() {
                let claims = |turns: u64| turns * endpoint.weight / heaviest;
                if claims(turn + 1) > claims(turn)
                    && let Some(slot) = wanted[number].find(|slot| !table.contains_key(slot))
                {
                    table.insert(slot, number);
                }
                if table.len() == PRIME {
                    return table.into_values().collect();
                }
            }
        }
        unreachable!("turns have no end")
    }
    for seed in 0..1_000 {
        let mut dice = seed;
        let count = below(next_dice(&mut dice), 12) + 1;
        let placed =
            |_| Placed { place: next_dice(&mut dice), weight: [1, 1, 2, 7][usize::try_from(dice % 4).unwrap()] };
        let endpoints: Vec<Placed> = (0..count).map(placed).collect();
        let (order, expected) = (HashOrder::maglev(&endpoints, PRIME), reference(&endpoints));
        assert_eq!(order.of(0).collect::<Vec<_>>(), expected, "seed {seed}");
        let (before, from) = expected.split_at(usize::try_from(seed).unwrap() % PRIME);
        assert!(order.of(seed).eq(from.iter().chain(before).copied()), "seed {seed}");
    }
    assert_eq!(HashOrder::maglev(&[], PRIME).of(7).next(), None);
    assert_eq!(HashOrder::ring(&[]).of(7).next(), None);
}

/// Whatever it is that came, went or was lost: of two endpoints the one with more in flight gets nothing.
#[test]
fn least_request_is_never_the_one_with_most_in_flight() {
    walk(Algorithm::LeastRequest, 1_000, |named, model, roll| {
        let usable = usable(model, &[]);
        for (name, _) in &usable {
            (0..roll(3)).for_each(|_| named.started(name));
        }
        let load = |name: &str| named.in_flight(name);
        let most = usable.iter().map(|(name, _)| load(name)).max();
        let is_even = usable.iter().all(|(_, weight)| *weight == usable[0].1);
        let picked = named.pick(NOW, roll(u64::MAX), &[]);
        assert_eq!(picked.is_some(), !usable.is_empty());
        let Some(picked) = picked else { return };
        let is_only_one = usable.iter().filter(|(name, _)| Some(load(name)) == most).count() == 1;
        assert!(
            usable.len() == 1 || !is_even || !is_only_one || Some(load(picked)) < most,
            "{picked} of {usable:?} has most in flight"
        );
    });
}

/// Of as many turns as the weights add up to, each endpoint has as many as its weight says, from any turn on.
#[test]
fn turns_are_exact() {
    walk(Algorithm::RoundRobin, 1_000, |named, model, roll| {
        let usable = usable(model, &[]);
        let round: u64 = usable.iter().map(|(_, weight)| weight).sum();
        for _ in 0..roll(5) {
            named.pick(NOW, roll(u64::MAX), &[]);
        }
        let mut got = BTreeMap::new();
        for _ in 0..round {
            let avoid = usable.first().map(|(name, _)| *name);
            *got.entry(named.pick(NOW, roll(u64::MAX), &[]).unwrap()).or_insert(0) += 1;
            // Another attempt takes no turn.
            let again = named.pick(NOW, roll(u64::MAX), avoid.as_slice());
            assert!(usable.len() < 2 || again != avoid);
        }
        assert_eq!(got.into_iter().collect::<Vec<_>>(), usable, "{model:?}");
    });
}

/// A look at whether one can be reached is followed by the request that it was for: it finds the endpoint that this gets,
/// where that is known, and changes nothing of what requests get.
#[test]
fn who_only_reaches_takes_no_turn() {
    let wanted = |purpose, key| Wanted { purpose, key };
    let weighted = [("a", 1), ("b", 1), ("c", 2)];
    let (mut looking, mut alone) =
        (balancer(Algorithm::RoundRobin, weighted), balancer(Algorithm::RoundRobin, weighted));
    for round in 0..40_u64 {
        let dice = 7 ^ round << 40;
        let reached = looking.pick_wanted(wanted(Purpose::Reach, None), NOW, dice, &[]);
        let picked = looking.pick(NOW, dice, &[]);
        assert_eq!((reached, picked), (picked, alone.pick(NOW, dice, &[])), "in round {round}");
    }
    for algorithm in [Algorithm::RingHash, Algorithm::Maglev] {
        let named = balancer(algorithm, weighted);
        for key in (0..50).map(|number: u64| Some(hash(&number.to_be_bytes()))) {
            let reached = named.pick_wanted(wanted(Purpose::Reach, key), NOW, 1, &[]);
            assert_eq!(reached, named.pick_for(key, NOW, 2, &[]));
        }
    }
    // Nor does it count as a request that an endpoint had: of two equal ones the other is not favoured for it.
    (looking, alone) = (balancer(Algorithm::PeakEwma, equal(2)), balancer(Algorithm::PeakEwma, equal(2)));
    for dice in (0..200_u64).map(|number| hash(&number.to_be_bytes())) {
        (0..3).for_each(|more| _ = looking.pick_wanted(wanted(Purpose::Reach, None), NOW, dice ^ more, &[]));
        assert_eq!(looking.pick(NOW, dice, &[]), alone.pick(NOW, dice, &[]));
    }
}

#[test]
fn turns_go_on_where_something_else_changes() {
    let mut named = balancer(Algorithm::RoundRobin, equal(3));
    let mut dice = 5;
    let mut got = BTreeMap::new();
    for _ in 0..30 {
        named.update(equal(3));
        *got.entry(named.pick(NOW, next_dice(&mut dice), &[]).unwrap()).or_insert(0) += 1;
    }
    assert_eq!(got, BTreeMap::from([("a", 10), ("b", 10), ("c", 10)]));
    let starts = (0..200).map(|dice| balancer(Algorithm::RoundRobin, equal(3)).pick(NOW, dice << 32, &[]));
    let at_a = starts.filter(|first| *first == Some("a")).count();
    assert!((30..110).contains(&at_a), "callers begin anywhere: {at_a} of 200 at a");
}

/// Shares of 20,000 requests, in thousandths.
fn shares(named: &Named, key: impl Fn(u64) -> Option<u64>) -> BTreeMap<&'static str, u64> {
    let mut got = BTreeMap::new();
    for number in 0..20_000_u64 {
        let mut dice = number;
        let key = key(next_dice(&mut dice));
        *got.entry(named.pick_for(key, NOW, next_dice(&mut dice), &[]).unwrap()).or_insert(0) += 1;
    }
    got.into_iter().map(|(name, count)| (name, count / 20)).collect()
}

#[test]
fn weights_are_kept_by_every_algorithm() {
    // How far off, in thousandths: a ring has few points.
    let all = [
        (Algorithm::LeastRequest, 20),
        (Algorithm::RoundRobin, 1),
        (Algorithm::Random, 20),
        (Algorithm::RingHash, 60),
        (Algorithm::Maglev, 20),
    ];
    for (algorithm, off) in all {
        let named = balancer(algorithm, [("a", 1), ("b", 3), ("c", 0), ("d", 6)]);
        for key in [Some as fn(u64) -> Option<u64>, |_| None] {
            let got = shares(&named, key);
            for (name, expected) in [("a", 100), ("b", 300), ("c", 0), ("d", 600)] {
                let share = got.get(name).copied().unwrap_or_default();
                assert!(share.abs_diff(expected) <= off, "{algorithm:?}: {name} has {share}, not {expected}");
            }
        }
    }
}

/// The endpoint of each of 10,000 keys.
fn homes(named: &Named) -> Vec<&'static str> {
    let key = |number: u64| hash(format!("user-{number}").as_bytes());
    (0..10_000).map(|number| named.pick_for(Some(key(number)), NOW, number << 40, &[]).unwrap()).collect()
}

#[test]
fn only_the_keys_of_an_endpoint_that_goes_move() {
    // Keys of others that may move, of 10,000: claims of Maglev shift a little.
    for (algorithm, stray) in [(Algorithm::RingHash, 0), (Algorithm::Maglev, 200)] {
        for count in [2, 3, 10] {
            let mut named = balancer(algorithm, equal(count));
            let before = homes(&named);
            assert_eq!(homes(&balancer(algorithm, equal(count))), before, "every caller agrees");
            let gone = before.iter().filter(|name| **name == "a").count();
            assert!(gone * count < 12_500, "{algorithm:?}: {gone} of 10,000 at one of {count}");
            named.update(equal(count).skip(1));
            let after = homes(&named);
            let moved = |from: &dyn Fn(&str) -> bool| {
                before.iter().zip(&after).filter(|(was, now)| was != now && from(was)).count()
            };
            assert_eq!(moved(&|was| was == "a"), gone);
            let strays = moved(&|was| was != "a");
            assert!(strays <= stray, "{algorithm:?}: {strays} keys of others moved, of {count} endpoints");
            named.update(equal(count));
            assert_eq!(homes(&named), before, "who comes back has its keys again");
        }
    }
}

#[test]
fn the_keys_of_one_that_is_lost_are_shared_by_the_others_and_come_back() {
    for algorithm in [Algorithm::RingHash, Algorithm::Maglev] {
        let mut named = balancer(algorithm, equal(5));
        let before = homes(&named);
        named.not_reached("a", NOW, 1);
        let after = homes(&named);
        let mut heirs = BTreeMap::new();
        for (was, now) in before.iter().zip(&after) {
            assert!(was == now || *was == "a", "{algorithm:?}: nobody else's key moves");
            if *was == "a" {
                *heirs.entry(*now).or_insert(0) += 1;
            }
        }
        let gone: u32 = heirs.values().sum();
        assert!(heirs.len() == 4 && heirs.values().all(|got| got * 2 < gone), "{algorithm:?}: {heirs:?}");
        named.reached("a", NOW);
        assert_eq!(homes(&named), before);
        for name in NAMES[..5].iter() {
            named.not_reached(name, NOW, 1);
        }
        assert_eq!(homes(&named), before, "where nobody can be reached all are tried");
    }
}

#[test]
fn another_attempt_goes_to_the_next_in_order() {
    for algorithm in [Algorithm::RingHash, Algorithm::Maglev] {
        let mut named = balancer(algorithm, equal(3));
        for key in (0..100).map(|number: u64| Some(hash(&number.to_be_bytes()))) {
            let mut tried: Vec<&'static str> = Vec::new();
            for dice in 0..3 {
                let next = named.pick_for(key, NOW, dice, &tried).unwrap();
                assert!(!tried.contains(&next), "{algorithm:?}");
                tried.push(next);
            }
            assert_eq!(named.pick_for(key, NOW, 1, &tried), Some(tried[0]), "all were tried");
            named.not_reached(tried[0], NOW, 1);
            assert_eq!(named.pick_for(key, NOW, 1, &[]), Some(tried[1]), "the same that a second attempt takes");
            named.reached(tried[0], NOW);
        }
    }
}

/// Many endpoints and large weights: a ring stays as large as it may be, and odd weights do no harm.
#[test]
fn a_ring_is_bounded() {
    let placed = |weight: u64| move |number: u64| Placed { place: hash(&number.to_be_bytes()), weight };
    for (count, weight) in [(3, 1), (3, u64::from(u32::MAX)), (2_000, 1), (2_000, 1_000), (70_000, 1_000)] {
        let endpoints: Vec<Placed> = (0..count).map(placed(weight)).collect();
        let all: Vec<usize> = HashOrder::ring(&endpoints).of(1 << 63).collect();
        let most = (1 << 16).max(count);
        assert!((count..=most).contains(&(all.len() as u64)), "{} of {count} endpoints", all.len());
        assert!(endpoints.len() > 3 || (0..3).all(|number| all.contains(&number)));
    }
}

/// Whatever the weights are, a table costs what its slots do, and shares are what the weights say.
#[test]
fn a_table_costs_the_same_whatever_the_weights() {
    let number = |count: usize| (0..count as u64).map(|number| hash(&number.to_be_bytes()));
    let some = |weights: &[u64]| -> Vec<Placed> {
        number(weights.len()).zip(weights).map(|(place, weight)| Placed { place, weight: *weight }).collect()
    };
    let one_of = |weight: u64, others: usize| [&[weight][..], &vec![1; others]].concat();
    let mut dice = 1;
    let random: Vec<u64> = (0..300).map(|_| 1_u64 << below(next_dice(&mut dice), 32)).collect();
    for weights in [
        vec![1; 3],
        vec![1; 201],
        vec![1; 20_000],
        one_of(1_000, 200),
        one_of(u64::from(u32::MAX), 200),
        [&[1][..], &vec![u64::from(u32::MAX); 200]].concat(),
        random,
    ] {
        let (endpoints, mut steps) = (some(&weights), 0_usize);
        let order = claimed(&endpoints, SLOTS, || steps += 1);
        // As many as all slots take when they are looked for by chance: n times ln n.
        let most = SLOTS * 14;
        assert!(steps <= most, "{steps} steps for {} of up to {:?}", weights.len(), weights.iter().max());
        let total: u64 = weights.iter().sum();
        let mut slots = vec![0_u64; weights.len()];
        order.iter().for_each(|number| slots[*number as usize] += 1);
        for (got, weight) in slots.iter().zip(&weights) {
            let due = u64::try_from(u128::from(*weight) * SLOTS as u128 / u128::from(total)).unwrap();
            // To a slot; those that the last turn leaves go to the heaviest.
            assert!(got.abs_diff(due) <= 1 + due / 100, "{got} slots, not {due}, of weight {weight} in {total}");
        }
    }
}

/// One that has no slot, since its weight is nothing beside another's, serves all the same where it is the only one left.
#[test]
fn who_has_no_slot_is_used_where_nobody_else_can_be() {
    let mut named = balancer(Algorithm::Maglev, [("heavy", u32::MAX), ("light", 1)]);
    let keys = || (0..100_u64).map(|number| Some(hash(&number.to_be_bytes())));
    assert!(keys().all(|key| named.pick_for(key, NOW, 1, &[]) == Some("heavy")));
    assert!(keys().all(|key| named.pick_for(key, NOW, 1, &["heavy"]) == Some("light")));
    named.not_reached("heavy", NOW, 1);
    assert!(keys().all(|key| named.pick_for(key, NOW, 1, &[]) == Some("light")));
}

/// What the documentation says of shares. A ring's vary by the chance of its points; a table's are a slot apart.
#[test]
fn shares_of_keys_are_as_documented() {
    let placed =
        |seed: u64| move |number: u64| Placed { place: hash(format!("{seed}/{number}").as_bytes()), weight: 1 };
    let (mut squares, mut count) = (0.0, 0.0);
    let mut far = 0.0;
    for seed in 0..20 {
        for endpoints in [3, 10, 50, 200] {
            let endpoints: Vec<Placed> = (0..endpoints).map(placed(seed)).collect();
            for share in HashOrder::ring(&endpoints).shares(endpoints.len()) {
                let off: f64 = share * endpoints.len() as f64 - 1.0;
                squares += off * off;
                count += 1.0;
                far += f64::from(u8::from(off.abs() > 0.15));
            }
        }
    }
    let typical = f64::sqrt(squares / count);
    assert!((0.05..0.07).contains(&typical), "a ring's shares differ by {typical}");
    assert!(far / count < 0.03, "{far} of {count} by more than 15 %");
    for endpoints in [2, 3, 10, 100, 400, 655] {
        let endpoints: Vec<Placed> = (0..endpoints).map(placed(7)).collect();
        let shares = HashOrder::maglev(&endpoints, SLOTS).shares(endpoints.len());
        let (least, most) = shares.iter().fold((f64::MAX, 0.0), |(least, most), it| (it.min(least), it.max(most)));
        assert!(most <= least * 1.0101, "{} endpoints: {least} to {most}", endpoints.len());
    }
}

#[test]
fn keys_are_hashed_alike_for_ever() {
    assert_eq!(hash(b""), 0xc381_7c01_6ba4_ff30);
    assert_eq!(hash(b"shop/cart-1"), 0xcba7_7311_34dd_8940);
}

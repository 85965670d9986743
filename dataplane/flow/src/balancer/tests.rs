//! Balancing: weights, costs, and a small model run beside the balancer by the same seeded steps.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn balancer(weights: &[(&'static str, u32)]) -> Balancer<&'static str> {
    let mut balancer = Balancer::new();
    balancer.update(weights.iter().copied());
    balancer
}

/// Shares of 10,000 picks in percent, nothing in flight.
fn shares(weights: &[(&'static str, u32)], avoid: &[&'static str]) -> BTreeMap<&'static str, u32> {
    let mut balancer = balancer(weights);
    let (mut dice, mut counts) = (7, BTreeMap::new());
    for _ in 0..10_000 {
        let picked = balancer.pick(SECOND, next_dice(&mut dice), avoid).unwrap();
        *counts.entry(picked).or_insert(0) += 1;
    }
    counts.into_iter().map(|(key, count)| (key, (count + 50) / 100)).collect()
}

#[test]
fn nothing_to_pick() {
    assert_eq!(balancer(&[]).pick(SECOND, 1, &[]), None);
}

#[test]
fn weights_are_kept() {
    fn check(weights: &[(&'static str, u32)], avoid: &[&'static str], expect: &[(&'static str, u32)]) {
        let got = shares(weights, avoid);
        for (key, share) in expect {
            let got = got.get(key).copied().unwrap_or(0);
            assert!(got.abs_diff(*share) <= 3, "{weights:?} avoiding {avoid:?}: {key} has {got} %, not {share}");
        }
    }
    check(&[("a", 1)], &[], &[("a", 100)]);
    check(&[("a", 1), ("b", 1)], &[], &[("a", 50), ("b", 50)]);
    check(&[("a", 90), ("b", 10)], &[], &[("a", 90), ("b", 10)]);
    check(&[("a", 0), ("b", 1)], &[], &[("a", 0), ("b", 100)]);
    check(&[("a", 0), ("b", 0)], &[], &[("a", 50), ("b", 50)]);
    check(&[("a", 1), ("b", 1)], &["a"], &[("a", 0), ("b", 100)]);
    check(&[("a", 1), ("b", 1)], &["a", "b"], &[("a", 50), ("b", 50)]);
    check(&[("a", 1)], &["a"], &[("a", 100)]);
    check(&[("a", 1), ("b", 0)], &["a"], &[("a", 100), ("b", 0)]);
}

#[test]
fn the_slow_one_gets_less() {
    let mut balancer = balancer(&[("fast", 1), ("slow", 1)]);
    for (key, ms) in [("fast", 5), ("slow", 200)] {
        balancer.started(&key, SECOND);
        balancer.finished(&key, SECOND, Duration::from_millis(ms), Outcome::Success);
    }
    let mut dice = 3;
    let slow = (0..100).filter(|_| balancer.pick(SECOND, next_dice(&mut dice), &[]) == Some("slow")).count();
    assert_eq!(slow, 0, "two endpoints are always compared");
    for _ in 0..60 {
        balancer.started(&"fast", SECOND);
    }
    assert_eq!(balancer.pick(SECOND, 1, &[]), Some("slow"), "60 in flight at 5 ms outweigh 200 ms");
}

#[test]
fn fast_failures_attract_no_load() {
    let mut balancer = balancer(&[("broken", 1), ("healthy", 1)]);
    balancer.started(&"healthy", SECOND);
    balancer.finished(&"healthy", SECOND, Duration::from_millis(50), Outcome::Success);
    balancer.started(&"broken", SECOND);
    balancer.finished(&"broken", SECOND, Duration::from_micros(100), Outcome::Failure);
    let mut dice = 5;
    assert!((0..100).all(|_| balancer.pick(SECOND, next_dice(&mut dice), &[]) == Some("healthy")));
    let later = Duration::from_secs(90);
    balancer.finished(&"healthy", later, Duration::from_millis(50), Outcome::Success);
    assert_eq!(balancer.pick(later, 1, &[]), Some("broken"), "after a minute and a half it is tried again");
}

#[test]
fn cancelled_requests_are_measured_if_they_were_slow() {
    let mut balancer = balancer(&[("a", 1), ("b", 1)]);
    for key in ["a", "b"] {
        balancer.finished(&key, SECOND, Duration::from_millis(10), Outcome::Success);
    }
    balancer.finished(&"a", SECOND, Duration::from_millis(1), Outcome::Cancelled);
    let cost = balancer.cost(0, SECOND);
    assert!((cost - 0.010).abs() < 1e-9, "a quick cancellation says nothing: {cost}");
    balancer.finished(&"a", SECOND, Duration::from_secs(3), Outcome::Cancelled);
    assert_eq!(balancer.pick(SECOND, 1, &[]), Some("b"));
}

#[test]
fn updates_keep_what_is_known() {
    let mut balancer = balancer(&[("a", 1), ("b", 1)]);
    balancer.started(&"a", SECOND);
    balancer.update([("c", 1), ("a", 2)]);
    assert_eq!((balancer.len(), balancer.in_flight(&"a"), balancer.in_flight(&"c")), (2, 1, 0));
    balancer.finished(&"b", SECOND, SECOND, Outcome::Success);
    balancer.finished(&"a", SECOND, SECOND, Outcome::Success);
    assert_eq!(balancer.in_flight(&"a"), 0);
}

/// Random endpoints, requests and ends: what is in flight is what a plain map counts, and every pick is an endpoint that
/// takes requests.
#[test]
fn agrees_with_a_plain_map() {
    const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    for seed in 0..200 {
        let (mut dice, mut now) = (seed, Duration::ZERO);
        let mut roll = |bound| below(next_dice(&mut dice), bound);
        let mut balancer = Balancer::new();
        let mut model: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        for _ in 0..200 {
            now += Duration::from_millis(roll(100));
            let key = KEYS[usize::try_from(roll(6)).unwrap()];
            match roll(10) {
                0 => {
                    let mut weights = BTreeMap::new();
                    for key in KEYS {
                        if roll(3) > 0 {
                            weights.insert(key, u32::try_from(roll(4)).unwrap());
                        }
                    }
                    balancer.update(weights.clone());
                    let kept = |k: &str| model.get(k).map_or(0, |known| known.1);
                    model = weights.into_iter().map(|(k, weight)| (k, (weight, kept(k)))).collect();
                }
                1..=3 => {
                    let outcome =
                        [Outcome::Success, Outcome::Failure, Outcome::Cancelled][usize::try_from(roll(3)).unwrap()];
                    balancer.finished(&key, now, Duration::from_millis(roll(5000)), outcome);
                    if let Some(known) = model.get_mut(key) {
                        known.1 = known.1.saturating_sub(1);
                    }
                }
                _ => {
                    let picked = balancer.pick(now, roll(u64::MAX), &[]);
                    assert_eq!(picked.is_some(), !model.is_empty(), "seed {seed}");
                    let Some(picked) = picked else { continue };
                    let all_zero = model.values().all(|known| known.0 == 0);
                    let known = model.get_mut(picked).unwrap();
                    assert!(known.0 > 0 || all_zero, "seed {seed}: weight 0 was picked");
                    known.1 += 1;
                    balancer.started(&picked, now);
                }
            }
            for (key, (_, in_flight)) in &model {
                assert_eq!(balancer.in_flight(key), *in_flight, "seed {seed}");
            }
        }
    }
}

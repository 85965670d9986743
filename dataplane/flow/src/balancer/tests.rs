//! Balancing: weights, costs, and a small model run beside the balancer by the same seeded steps.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

pub(super) const ALGORITHMS: [Algorithm; 6] = [
    Algorithm::PeakEwma,
    Algorithm::LeastRequest,
    Algorithm::RoundRobin,
    Algorithm::Random,
    Algorithm::RingHash,
    Algorithm::Maglev,
];

/// A balancer over endpoints with names; who stays in an update is the same as before.
#[derive(Default)]
pub(super) struct Named {
    balancer: Balancer<Endpoint>,
    pub(super) settings: Settings,
    endpoints: BTreeMap<&'static str, Rc<Endpoint>>,
    /// Those that requests under way may still hold.
    left: BTreeMap<&'static str, Rc<Endpoint>>,
}

pub(super) struct Endpoint {
    name: &'static str,
    vitals: Vitals,
}

impl AsRef<Vitals> for Endpoint {
    fn as_ref(&self) -> &Vitals {
        &self.vitals
    }
}

impl Named {
    pub(super) fn by(algorithm: Algorithm) -> Self {
        Self { settings: Settings { algorithm, ..Settings::default() }, ..Self::default() }
    }

    pub(super) fn with(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    pub(super) fn update(&mut self, weights: impl IntoIterator<Item = (&'static str, u32)>) {
        self.place(weights.into_iter().map(|(name, weight)| (name, weight.into())));
    }

    pub(super) fn place(&mut self, preferences: impl IntoIterator<Item = (&'static str, Preference)>) {
        let mut known = std::mem::take(&mut self.endpoints);
        let preferences: BTreeMap<_, _> = preferences.into_iter().collect();
        for name in preferences.keys() {
            let new = || Rc::new(Endpoint { name, vitals: Vitals::of(name) });
            self.endpoints.insert(name, known.remove(name).unwrap_or_else(new));
        }
        self.left.extend(known);
        self.balancer.update(self.settings, self.endpoints.values().map(Rc::clone).zip(preferences.into_values()));
    }

    pub(super) fn pick(&self, now: Duration, dice: u64, avoid: &[&'static str]) -> Option<&'static str> {
        self.pick_for(None, now, dice, avoid)
    }

    pub(super) fn pick_for(
        &self,
        key: Option<u64>,
        now: Duration,
        dice: u64,
        avoid: &[&'static str],
    ) -> Option<&'static str> {
        self.pick_wanted(Wanted { purpose: Purpose::Request, key }, now, dice, avoid)
    }

    pub(super) fn pick_wanted(
        &self,
        wanted: Wanted,
        now: Duration,
        dice: u64,
        avoid: &[&'static str],
    ) -> Option<&'static str> {
        let avoid: Vec<_> = avoid.iter().filter_map(|name| self.endpoints.get(name)).map(Rc::clone).collect();
        Some(self.balancer.pick(now, dice, wanted, &avoid)?.name)
    }

    /// One of now or before; what happens to one that never was happens to nobody.
    pub(super) fn endpoint(&self, name: &str) -> Rc<Endpoint> {
        let known = self.endpoints.get(name).or_else(|| self.left.get(name));
        known.map_or_else(|| Rc::new(Endpoint { name: "nobody", vitals: Vitals::default() }), Rc::clone)
    }

    pub(super) fn started(&self, name: &str) {
        self.endpoint(name).vitals.started();
    }

    pub(super) fn finished(&self, name: &str, now: Duration, latency: Duration, outcome: Outcome) {
        self.endpoint(name).vitals.finished(now, latency, outcome);
    }

    pub(super) fn reached(&mut self, name: &str, now: Duration) {
        self.balancer.reached(&self.endpoint(name), now);
    }

    pub(super) fn not_reached(&mut self, name: &str, now: Duration, dice: u64) {
        self.balancer.not_reached(&self.endpoint(name), now, dice);
    }

    pub(super) fn ended(&mut self, name: &str, picked: Duration, now: Duration, dice: u64, sign: Sign) -> bool {
        self.balancer.ended(&self.endpoint(name), picked, now, dice, sign)
    }

    pub(super) fn rated(&mut self, name: &str, now: Duration, dice: u64, sign: Sign) -> Vec<&'static str> {
        let ejected = self.balancer.rated(&self.endpoint(name), now, dice, sign);
        ejected.iter().map(|endpoint| endpoint.name).collect()
    }

    pub(super) fn heed(&mut self, unwell: &[&str]) {
        self.balancer.heed(|endpoint| unwell.contains(&endpoint.name));
    }

    pub(super) fn ejected(&self) -> usize {
        self.balancer.ejected()
    }

    pub(super) fn is_panicking(&self) -> bool {
        self.balancer.is_panicking()
    }

    pub(super) fn unreachable(&self) -> usize {
        self.balancer.unreachable()
    }

    pub(super) fn take_probe(&self, now: Duration) -> Option<&'static str> {
        Some(self.balancer.take_probe(now)?.name)
    }

    pub(super) fn probed(&mut self, name: &str, now: Duration, dice: u64, probed: Probed) {
        self.balancer.probed(&self.endpoint(name), now, dice, probed);
    }

    pub(super) fn in_flight(&self, name: &str) -> u32 {
        self.endpoint(name).vitals.in_flight()
    }
}

fn balancer(weights: &[(&'static str, u32)]) -> Named {
    let mut balancer = Named::default();
    balancer.update(weights.iter().copied());
    balancer
}

/// Shares of 10,000 picks in percent, nothing in flight.
fn shares(weights: &[(&'static str, u32)], avoid: &[&'static str]) -> BTreeMap<&'static str, u32> {
    let balancer = balancer(weights);
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
    let balancer = balancer(&[("fast", 1), ("slow", 1)]);
    for (key, ms) in [("fast", 5), ("slow", 200)] {
        balancer.started(key);
        balancer.finished(key, SECOND, Duration::from_millis(ms), Outcome::Success);
    }
    let mut dice = 3;
    let slow = (0..100).filter(|_| balancer.pick(SECOND, next_dice(&mut dice), &[]) == Some("slow")).count();
    assert_eq!(slow, 0, "two endpoints are always compared");
    for _ in 0..60 {
        balancer.started("fast");
    }
    assert_eq!(balancer.pick(SECOND, 1, &[]), Some("slow"), "60 in flight at 5 ms outweigh 200 ms");
}

#[test]
fn weights_hold_whoever_is_faster() {
    for (light, heavy) in [(5, 50), (50, 5)] {
        let balancer = balancer(&[("heavy", 9), ("light", 1)]);
        for (key, ms) in [("light", light), ("heavy", heavy)] {
            balancer.started(key);
            balancer.finished(key, SECOND, Duration::from_millis(ms), Outcome::Success);
        }
        let mut dice = 3;
        let picks = (0..10_000).map(|_| balancer.pick(SECOND, next_dice(&mut dice), &[]));
        let share = picks.filter(|picked| *picked == Some("heavy")).count() / 100;
        assert!((79..=99).contains(&share), "of 9 to 1 {share} %, light {light} ms, heavy {heavy} ms");
    }
}

#[test]
fn fast_failures_attract_no_load() {
    let balancer = balancer(&[("broken", 1), ("healthy", 1)]);
    balancer.started("healthy");
    balancer.finished("healthy", SECOND, Duration::from_millis(50), Outcome::Success);
    balancer.started("broken");
    balancer.finished("broken", SECOND, Duration::from_micros(100), Outcome::Failure);
    let mut dice = 5;
    assert!((0..100).all(|_| balancer.pick(SECOND, next_dice(&mut dice), &[]) == Some("healthy")));
    let later = Duration::from_secs(90);
    balancer.finished("healthy", later, Duration::from_millis(50), Outcome::Success);
    assert_eq!(balancer.pick(later, 1, &[]), Some("broken"), "after a minute and a half it is tried again");
}

#[test]
fn cancelled_requests_are_measured_if_they_were_slow() {
    let balancer = balancer(&[("a", 1), ("b", 1)]);
    for key in ["a", "b"] {
        balancer.finished(key, SECOND, Duration::from_millis(10), Outcome::Success);
    }
    balancer.finished("a", SECOND, Duration::from_millis(1), Outcome::Cancelled);
    let typical = balancer.endpoint("a").vitals.typical_latency();
    assert!((typical - 0.010).abs() < 1e-9, "a quick cancellation says nothing: {typical}");
    balancer.finished("a", SECOND * 2, Duration::from_secs(3), Outcome::Cancelled);
    assert_eq!(balancer.pick(SECOND * 2, 1, &[]), Some("b"));
}

#[test]
fn updates_keep_what_is_known() {
    let mut balancer = balancer(&[("a", 1), ("b", 1)]);
    balancer.started("a");
    balancer.update([("c", 1), ("a", 2)]);
    assert_eq!((balancer.balancer.len(), balancer.in_flight("a"), balancer.in_flight("c")), (2, 1, 0));
    balancer.finished("b", SECOND, SECOND, Outcome::Success);
    balancer.finished("a", SECOND, SECOND, Outcome::Success);
    assert_eq!(balancer.in_flight("a"), 0);
}

#[test]
fn answers_take_nobody_out() {
    let balancer = balancer(&[("a", 1), ("b", 1)]);
    for _ in 0..100 {
        balancer.started("a");
        balancer.finished("a", SECOND, SECOND, Outcome::Failure);
    }
    assert_eq!((balancer.unreachable(), balancer.take_probe(SECOND * 100)), (0, None));
    assert_eq!(balancer.pick(SECOND, 1, &["b"]), Some("a"));
}

#[test]
fn the_unreachable_are_nobodys_second_choice() {
    fn check(weights: &[(&'static str, u32)], unreachable: &[&'static str], avoid: &[&'static str], expect: &[&str]) {
        let mut balancer = balancer(weights);
        for key in unreachable {
            balancer.not_reached(key, SECOND, 1);
        }
        let mut dice = 3;
        let picked: BTreeSet<_> = (0..200).filter_map(|_| balancer.pick(SECOND, next_dice(&mut dice), avoid)).collect();
        assert_eq!(picked, expect.iter().copied().collect(), "{weights:?} without {unreachable:?}, avoiding {avoid:?}");
    }
    let equal: &[_] = &[("a", 1), ("b", 1), ("c", 1)];
    check(equal, &[], &[], &["a", "b", "c"]);
    check(equal, &["a"], &[], &["b", "c"]);
    check(equal, &["a", "b"], &[], &["c"]);
    check(equal, &["a", "b", "c"], &[], &["a", "b", "c"]);
    check(equal, &["a"], &["a"], &["b", "c"]);
    check(equal, &["a", "b", "c"], &["a", "b"], &["c"]);
    // One that refused just now may take the request next time, one without a connection will not.
    check(equal, &["a", "b"], &["c"], &["c"]);
    // A drained endpoint is no refuge: one with weight is picked even if it can't be reached.
    check(&[("a", 1), ("b", 0)], &["a"], &[], &["a"]);
    check(&[("a", 0), ("b", 0)], &["a"], &[], &["b"]);
}

#[test]
fn probes_are_due_one_at_a_time() {
    let mut balancer = balancer(&[("a", 1), ("b", 1)]);
    balancer.not_reached("a", SECOND, 0);
    balancer.not_reached("a", SECOND * 2, 0);
    let take = |balancer: &Named, ms| balancer.take_probe(Duration::from_millis(ms));
    assert_eq!((take(&balancer, 1_999), take(&balancer, 2_000)), (None, Some("a")), "after 1 s");
    assert_eq!(take(&balancer, 90_000), None, "while one is under way there is no other");
    balancer.probed("a", SECOND * 90, 0, Probed::Cancelled);
    assert_eq!(take(&balancer, 90_000), Some("a"), "without a result it is due again");
    balancer.probed("a", SECOND * 90, 0, Probed::Unreachable);
    assert_eq!((take(&balancer, 91_999), take(&balancer, 92_000)), (None, Some("a")), "then after 2 s");
    balancer.probed("a", SECOND * 92, 0, Probed::Reached);
    assert_eq!((balancer.unreachable(), take(&balancer, 200_000)), (0, None));
    assert!((0..100).any(|dice| balancer.pick(SECOND * 92, dice, &["b"]) == Some("a")));
}

#[test]
fn updates_keep_who_is_unreachable_and_forget_who_left() {
    let mut balancer = balancer(&[("a", 1), ("b", 1)]);
    balancer.not_reached("a", SECOND, 0);
    balancer.update([("a", 5), ("b", 1), ("c", 1)]);
    assert_eq!(balancer.unreachable(), 1);
    assert_eq!(balancer.take_probe(SECOND * 2), Some("a"));
    balancer.update([("b", 1)]);
    balancer.probed("a", SECOND * 3, 0, Probed::Unreachable);
    balancer.not_reached("a", SECOND * 3, 0);
    assert_eq!(balancer.unreachable(), 0, "who has left is not counted");
    balancer.update([("a", 1)]);
    assert_eq!((balancer.unreachable(), balancer.pick(SECOND * 3, 1, &[])), (0, Some("a")));
    balancer.not_reached("a", SECOND * 3, 0);
    assert_eq!(balancer.pick(SECOND * 3, 1, &[]), Some("a"), "there is nobody else");
}

#[test]
fn what_was_measured_before_it_vanished_is_forgotten() {
    let mut balancer = balancer(&[("a", 1), ("b", 1)]);
    for (key, outcome) in [("a", Outcome::Failure), ("b", Outcome::Success)] {
        balancer.finished(key, SECOND, Duration::from_millis(5), outcome);
    }
    balancer.not_reached("a", SECOND, 0);
    assert_eq!(balancer.pick(SECOND, 1, &[]), Some("b"));
    balancer.reached("a", SECOND * 2);
    assert_eq!(balancer.pick(SECOND * 2, 1, &[]), Some("a"));
}

/// State of an endpoint in the model.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    weight: u32,
    in_flight: u32,
    unreachable: bool,
}

#[test]
fn agrees_with_a_plain_map() {
    let algorithms = [
        (Algorithm::PeakEwma, 200),
        (Algorithm::LeastRequest, 200),
        (Algorithm::RoundRobin, 200),
        (Algorithm::Random, 200),
        (Algorithm::RingHash, 190),
        // Tables take their time.
        (Algorithm::Maglev, 10),
    ];
    let seeds = algorithms.into_iter().flat_map(|(algorithm, seeds)| (0..seeds).map(move |seed| (algorithm, seed)));
    seeds.for_each(|(algorithm, seed)| agree(algorithm, seed));
}

/// Random endpoints, requests and ends: what is in flight is what a plain map counts, and every pick is an endpoint that
/// takes requests, and can be reached where one can.
fn agree(algorithm: Algorithm, seed: u64) {
    const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let (mut dice, mut now) = (seed, Duration::ZERO);
    let mut roll = |bound| below(next_dice(&mut dice), bound);
    let mut balancer = Named::by(algorithm);
    let mut model: BTreeMap<&str, Known> = BTreeMap::new();
    for _ in 0..300 {
        now += Duration::from_millis(roll(100));
        let key = KEYS[usize::try_from(roll(6)).unwrap()];
        match roll(14) {
            0 => {
                let mut weights = BTreeMap::new();
                for key in KEYS {
                    if roll(3) > 0 {
                        weights.insert(key, u32::try_from(roll(4)).unwrap());
                    }
                }
                balancer.update(weights.clone());
                let kept = |k: &str| model.get(k).copied().unwrap_or_default();
                model = weights.into_iter().map(|(k, weight)| (k, Known { weight, ..kept(k) })).collect();
            }
            1..=3 => {
                let outcome =
                    [Outcome::Success, Outcome::Failure, Outcome::Cancelled][usize::try_from(roll(3)).unwrap()];
                balancer.finished(key, now, Duration::from_millis(roll(5000)), outcome);
                model.entry(key).and_modify(|known| known.in_flight = known.in_flight.saturating_sub(1));
            }
            4..=5 => {
                balancer.not_reached(key, now, roll(u64::MAX));
                model.entry(key).and_modify(|known| known.unreachable = true);
            }
            6 => {
                balancer.reached(key, now);
                model.entry(key).and_modify(|known| known.unreachable = false);
            }
            7..=8 => {
                let Some(key) = balancer.take_probe(now) else { continue };
                assert!(model[key].unreachable, "seed {seed}");
                let probed =
                    [Probed::Reached, Probed::Unreachable, Probed::Cancelled][usize::try_from(roll(3)).unwrap()];
                balancer.probed(key, now, roll(u64::MAX), probed);
                model.entry(key).and_modify(|known| known.unreachable = probed != Probed::Reached);
            }
            _ => {
                let key = (roll(4) > 0).then(|| roll(u64::MAX));
                let picked = balancer.pick_for(key, now, roll(u64::MAX), &[]);
                assert_eq!(picked.is_some(), !model.is_empty(), "seed {seed}");
                let Some(picked) = picked else { continue };
                let all_zero = model.values().all(|known| known.weight == 0);
                let weighted = |known: &Known| known.weight > 0 || all_zero;
                let any = model.values().any(|known| weighted(known) && !known.unreachable);
                let known = model.get_mut(picked).unwrap();
                assert!(weighted(known), "seed {seed}: weight 0 was picked");
                assert!(!known.unreachable || !any, "seed {seed}: one that cannot be reached was picked");
                known.in_flight += 1;
                balancer.started(picked);
            }
        }
        assert_eq!(balancer.unreachable(), model.values().filter(|known| known.unreachable).count(), "seed {seed}");
        for (key, known) in &model {
            assert_eq!(balancer.in_flight(key), known.in_flight, "seed {seed}");
        }
    }
}

//! Power of two choices over a peak-sensitive moving average of latency: two endpoints are drawn by weight, the one with
//! the lower cost (latency x requests outstanding) is taken. A peak counts at once and fades; a fast failure counts as a
//! slow answer, so that a broken endpoint does not attract load.

use std::collections::BTreeMap;
use std::time::Duration;

/// Time in which an old latency loses about 63 % of its say.
const DECAY: Duration = Duration::from_secs(10);
/// What an endpoint that has not answered yet is taken for.
const UNKNOWN: Duration = Duration::from_millis(1);
/// The latency that a failure counts for, at least.
const FAILURE_PENALTY: Duration = Duration::from_secs(1);

/// How a request to an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure,
    /// The caller went away first: says only that it took at least this long.
    Cancelled,
}

/// Chooses among endpoints `K` of one service, for one worker.
#[derive(Debug)]
pub struct Balancer<K> {
    endpoints: BTreeMap<K, Endpoint>,
    /// Keys with the running sum of their weights, in key order; rebuilt by `update`.
    cumulative: Vec<(K, u64)>,
    total_weight: u64,
}

#[derive(Debug, Clone, Copy)]
struct Endpoint {
    weight: u32,
    outstanding: u32,
    /// Seconds.
    latency: f64,
    measured: Option<Duration>,
}

impl<K: Ord + Clone> Default for Balancer<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Clone> Balancer<K> {
    pub fn new() -> Self {
        Self { endpoints: BTreeMap::new(), cumulative: Vec::new(), total_weight: 0 }
    }

    /// Replaces the set of endpoints; what is known of those that stay is kept. Weight 0 takes no new requests.
    pub fn update(&mut self, endpoints: impl IntoIterator<Item = (K, u32)>) {
        let mut old = std::mem::take(&mut self.endpoints);
        self.cumulative.clear();
        self.total_weight = 0;
        for (key, weight) in endpoints {
            let known = old.remove(&key);
            let fresh = Endpoint { weight, outstanding: 0, latency: UNKNOWN.as_secs_f64(), measured: None };
            self.endpoints.insert(key, Endpoint { weight, ..known.unwrap_or(fresh) });
        }
        for (key, endpoint) in &self.endpoints {
            self.total_weight += u64::from(endpoint.weight);
            if endpoint.weight > 0 {
                self.cumulative.push((key.clone(), self.total_weight));
            }
        }
    }

    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// The endpoint for the next request. `avoid`: those that just refused it; they are taken only where nothing else is.
    pub fn pick(&self, now: Duration, dice: u64, avoid: &[K]) -> Option<K> {
        match self.cumulative.as_slice() {
            [] => return None,
            [(only, _)] => return Some(only.clone()),
            _ => {}
        }
        if !avoid.is_empty() {
            let left = self.cumulative.iter().map(|(key, _)| key).filter(|key| !avoid.contains(key));
            let best = left.min_by(|a, b| self.cost(a, now).total_cmp(&self.cost(b, now)));
            if let Some(best) = best {
                return Some(best.clone());
            }
        }
        let first = self.draw(dice & 0xffff_ffff);
        let mut second = self.draw(dice >> 32);
        if second == first {
            second = (first + 1) % self.cumulative.len();
        }
        let (first, second) = (&self.cumulative[first].0, &self.cumulative[second].0);
        let first_is_better = self.cost(first, now) <= self.cost(second, now);
        Some(if first_is_better { first } else { second }.clone())
    }

    /// A request was sent to `key`.
    pub fn started(&mut self, key: &K) {
        if let Some(endpoint) = self.endpoints.get_mut(key) {
            endpoint.outstanding += 1;
        }
    }

    /// A request to `key` ended after `latency`.
    pub fn finished(&mut self, key: &K, now: Duration, latency: Duration, outcome: Outcome) {
        let Some(endpoint) = self.endpoints.get_mut(key) else { return };
        endpoint.outstanding = endpoint.outstanding.saturating_sub(1);
        let sample = match outcome {
            Outcome::Success => latency,
            Outcome::Failure => latency.max(FAILURE_PENALTY),
            // Less than what is known tells nothing: the answer may still have been far away.
            Outcome::Cancelled if latency.as_secs_f64() <= endpoint.latency_at(now) => return,
            Outcome::Cancelled => latency,
        };
        endpoint.observe(now, sample.as_secs_f64());
    }

    /// Index into `cumulative` by weight; `dice` has 32 random bits.
    fn draw(&self, dice: u64) -> usize {
        let point = (dice * self.total_weight) >> 32;
        self.cumulative.partition_point(|(_, sum)| *sum <= point).min(self.cumulative.len() - 1)
    }

    fn cost(&self, key: &K, now: Duration) -> f64 {
        self.endpoints.get(key).map_or(f64::INFINITY, |endpoint| {
            endpoint.latency_at(now) * f64::from(endpoint.outstanding + 1) / f64::from(endpoint.weight.max(1))
        })
    }
}

impl Endpoint {
    /// The average as it has faded by `now`.
    fn latency_at(&self, now: Duration) -> f64 {
        let Some(measured) = self.measured else { return self.latency };
        let age = now.saturating_sub(measured).as_secs_f64();
        // It fades to nothing: one that has not been asked for long is asked again.
        self.latency * (-age / DECAY.as_secs_f64()).exp()
    }

    fn observe(&mut self, now: Duration, sample: f64) {
        let Some(measured) = self.measured else {
            self.latency = sample;
            self.measured = Some(now);
            return;
        };
        let current = self.latency_at(now);
        // A peak counts at once; a recovery earns trust over time.
        let age = now.saturating_sub(measured).as_secs_f64().max(0.001);
        let keep = (-age / DECAY.as_secs_f64()).exp();
        self.latency = if sample >= current { sample } else { current * keep + sample * (1.0 - keep) };
        self.measured = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// splitmix64: reproducible dice.
    fn dice(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Simulates `requests` one after the other; gives the share of each endpoint in percent.
    fn shares(endpoints: &[(&'static str, u32, Duration, Outcome)], requests: u32) -> Vec<u32> {
        let mut balancer = Balancer::new();
        balancer.update(endpoints.iter().map(|(key, weight, ..)| (*key, *weight)));
        let (mut state, mut now) = (7, Duration::ZERO);
        let mut counts = vec![0; endpoints.len()];
        for _ in 0..requests {
            let key = balancer.pick(now, dice(&mut state), &[]).expect("there are endpoints");
            let index = endpoints.iter().position(|(known, ..)| *known == key).expect("a known endpoint");
            counts[index] += 1;
            balancer.started(&key);
            now += MS;
            balancer.finished(&key, now, endpoints[index].2, endpoints[index].3);
        }
        counts.iter().map(|count| count * 100 / requests).collect()
    }

    #[test]
    fn equals_share_equally() {
        let shares = shares(
            &[("a", 1, MS, Outcome::Success), ("b", 1, MS, Outcome::Success), ("c", 1, MS, Outcome::Success)],
            9_000,
        );
        assert!(shares.iter().all(|share| (25..=42).contains(share)), "{shares:?}");
    }

    #[test]
    fn the_slow_get_less_and_the_broken_get_least() {
        let shares = shares(
            &[
                ("good", 1, MS, Outcome::Success),
                ("slow", 1, 50 * MS, Outcome::Success),
                ("broken", 1, Duration::ZERO, Outcome::Failure),
            ],
            9_000,
        );
        assert!(shares[0] > 60, "{shares:?}");
        assert!(shares[2] < 10, "a fast failure must not attract load: {shares:?}");
    }

    #[test]
    fn weights_decide_among_equals_and_zero_takes_nothing() {
        let shares = shares(
            &[("a", 3, MS, Outcome::Success), ("b", 1, MS, Outcome::Success), ("off", 0, MS, Outcome::Success)],
            9_000,
        );
        assert!(shares[0] > shares[1], "{shares:?}");
        assert_eq!(shares[2], 0);
    }

    #[test]
    fn an_endpoint_that_recovers_is_found_again() {
        let mut balancer = Balancer::new();
        balancer.update([("a", 1), ("b", 1)]);
        balancer.started(&"a");
        balancer.finished(&"a", MS, MS, Outcome::Failure);
        assert_eq!(balancer.pick(2 * MS, 0, &[]), Some("b"));
        let later = Duration::from_secs(120);
        let mut state = 1;
        let picks: Vec<_> = (0..100).filter_map(|_| balancer.pick(later, dice(&mut state), &[])).collect();
        assert!(picks.contains(&"a"), "a failure fades");
    }

    #[test]
    fn the_avoided_are_taken_last() {
        let mut balancer = Balancer::new();
        assert_eq!(balancer.pick(MS, 0, &["a"]), None);
        balancer.update([("a", 1), ("b", 1), ("c", 1)]);
        for state in 0..100_u64 {
            let mut state = state;
            assert_eq!(balancer.pick(MS, dice(&mut state), &["a", "c"]), Some("b"));
        }
        assert!(balancer.pick(MS, 3, &["a", "b", "c"]).is_some());
    }

    #[test]
    fn cancellation_counts_only_when_it_says_something() {
        let mut balancer = Balancer::new();
        balancer.update([("a", 1), ("b", 1)]);
        for key in ["a", "b"] {
            balancer.started(&key);
            balancer.finished(&key, MS, 10 * MS, Outcome::Success);
        }
        balancer.started(&"a");
        balancer.finished(&"a", 2 * MS, MS, Outcome::Cancelled);
        let before = balancer.cost(&"a", 2 * MS);
        balancer.started(&"a");
        balancer.finished(&"a", 3 * MS, 500 * MS, Outcome::Cancelled);
        assert!(balancer.cost(&"a", 3 * MS) > before * 10.0);
    }

    #[test]
    fn outstanding_never_goes_below_zero_and_strangers_are_ignored() {
        let mut balancer = Balancer::new();
        balancer.update([("a", 1)]);
        balancer.finished(&"a", MS, MS, Outcome::Success);
        balancer.started(&"gone");
        balancer.finished(&"gone", MS, MS, Outcome::Success);
        assert_eq!(balancer.pick(MS, 9, &[]), Some("a"));
        balancer.update([]);
        assert!(balancer.is_empty());
        assert_eq!(balancer.pick(MS, 9, &[]), None);
    }
}

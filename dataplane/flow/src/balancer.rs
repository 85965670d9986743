//! Power of two choices by peak EWMA: two endpoints are drawn in proportion to their weights, the one with the lower cost
//! takes the request. Cost is a latency that rises at once and decays slowly, times the requests in flight.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{below, next_dice};

/// Time in which an old latency loses all but 1/e of its say.
const DECAY: Duration = Duration::from_secs(10);
/// What an endpoint without any measurement is taken to need; small, so that new ones are tried.
const UNMEASURED: Duration = Duration::from_millis(1);
/// Added by each failure: a broken endpoint answers fastest, and must not attract load by it.
const FAILURE_PENALTY: Duration = Duration::from_secs(1);
/// No estimate grows beyond this, so that a recovered endpoint is back within a minute.
const MAX_ESTIMATE: Duration = Duration::from_secs(10);

/// How a request ended, as seen from the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Success,
    /// Not reached, reset, or a server error.
    Failure,
    /// The caller went away: the latency so far is a lower bound.
    Cancelled,
}

/// Endpoints of one service as one worker sees them.
#[derive(Debug)]
pub struct Balancer<K> {
    /// In the order of their keys.
    endpoints: Vec<Endpoint<K>>,
    index: BTreeMap<K, usize>,
}

#[derive(Debug)]
struct Endpoint<K> {
    key: K,
    /// Sum of the weights up to and including this one.
    up_to: u64,
    load: Load,
}

#[derive(Debug, Clone, Default)]
struct Load {
    in_flight: u32,
    /// Latency in seconds and when it was brought up to date; `None`: never measured.
    estimate: Option<(f64, Duration)>,
}

impl<K> Default for Balancer<K> {
    fn default() -> Self {
        Self { endpoints: Vec::new(), index: BTreeMap::new() }
    }
}

impl<K: Clone + Ord> Balancer<K> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the set. What is known of those that stay, stays. Weight 0 takes nothing, unless all have it: then all
    /// are equal (a drained service still answers better than none).
    pub fn update(&mut self, endpoints: impl IntoIterator<Item = (K, u32)>) {
        let wanted: BTreeMap<K, u32> = endpoints.into_iter().collect();
        let all_zero = wanted.values().all(|weight| *weight == 0);
        let mut known: BTreeMap<K, Load> =
            std::mem::take(&mut self.endpoints).into_iter().map(|e| (e.key, e.load)).collect();
        let mut up_to = 0;
        for (key, weight) in wanted {
            up_to += if all_zero { 1 } else { u64::from(weight) };
            let load = known.remove(&key).unwrap_or_default();
            self.endpoints.push(Endpoint { key, up_to, load });
        }
        self.index = self.endpoints.iter().enumerate().map(|(index, endpoint)| (endpoint.key.clone(), index)).collect();
    }

    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// An endpoint for one request; `dice` is uniform. Those in `avoid` are taken only where there is nothing else.
    pub fn pick(&mut self, now: Duration, dice: u64, avoid: &[K]) -> Option<K> {
        let total = self.endpoints.last()?.up_to;
        let mut dice = dice;
        let first = self.draw(next_dice(&mut dice), total, avoid)?;
        let second = self.draw(next_dice(&mut dice), total, avoid)?;
        let picked = if first == second { self.other(first, next_dice(&mut dice), avoid) } else { Some(second) };
        let chosen = match picked {
            Some(second) if self.cost(second, now) < self.cost(first, now) => second,
            _ => first,
        };
        Some(self.endpoints[chosen].key.clone())
    }

    /// A request was sent.
    pub fn started(&mut self, key: &K, _now: Duration) {
        if let Some(endpoint) = self.load(key) {
            endpoint.in_flight = endpoint.in_flight.saturating_add(1);
        }
    }

    /// A request ended; each that started ends once. An endpoint that has left meanwhile is ignored.
    pub fn finished(&mut self, key: &K, now: Duration, latency: Duration, outcome: Outcome) {
        if let Some(load) = self.load(key) {
            load.in_flight = load.in_flight.saturating_sub(1);
            load.record(now, latency, outcome);
        }
    }

    /// Requests in flight to an endpoint, for metrics.
    pub fn in_flight(&self, key: &K) -> u32 {
        self.index.get(key).map_or(0, |index| self.endpoints[*index].load.in_flight)
    }

    fn load(&mut self, key: &K) -> Option<&mut Load> {
        let index = *self.index.get(key)?;
        Some(&mut self.endpoints[index].load)
    }

    /// By weight. Where what is drawn is to be avoided, the next one after it that isn't; it itself if there is none.
    fn draw(&self, dice: u64, total: u64, avoid: &[K]) -> Option<usize> {
        let at = below(dice, total);
        let drawn = self.endpoints.partition_point(|endpoint| endpoint.up_to <= at);
        self.from(drawn, avoid).or((drawn < self.endpoints.len()).then_some(drawn))
    }

    /// One other than `first`, so that two are compared wherever there are two.
    fn other(&self, first: usize, dice: u64, avoid: &[K]) -> Option<usize> {
        let count = u64::try_from(self.endpoints.len()).ok()?;
        let skip = usize::try_from(below(dice, count.checked_sub(1)?)).ok()?;
        let other = self.from((first + 1 + skip) % self.endpoints.len(), avoid)?;
        (other != first).then_some(other)
    }

    /// The first from `start` on, round the end, that takes requests and is not to be avoided.
    fn from(&self, start: usize, avoid: &[K]) -> Option<usize> {
        let count = self.endpoints.len();
        let weighted = |index: usize| {
            let before = if index == 0 { 0 } else { self.endpoints[index - 1].up_to };
            self.endpoints[index].up_to > before
        };
        let mut around = (0..count).map(|step| (start + step) % count);
        around.find(|index| weighted(*index) && !avoid.contains(&self.endpoints[*index].key))
    }

    fn cost(&self, index: usize, now: Duration) -> f64 {
        let load = &self.endpoints[index].load;
        load.latency(now) * f64::from(load.in_flight.saturating_add(1))
    }
}

impl Load {
    /// The estimate, decayed towards nothing: an endpoint that was not asked for long is asked again.
    fn latency(&self, now: Duration) -> f64 {
        match self.estimate {
            Some((seconds, at)) => seconds * remaining(now.saturating_sub(at)),
            None => UNMEASURED.as_secs_f64(),
        }
    }

    fn record(&mut self, now: Duration, latency: Duration, outcome: Outcome) {
        let seconds = latency.as_secs_f64();
        let old = self.estimate.map_or(0.0, |_| self.latency(now));
        let new = match (outcome, self.estimate) {
            (Outcome::Failure, _) => old.max(seconds) + FAILURE_PENALTY.as_secs_f64(),
            (Outcome::Cancelled, _) if seconds <= old => return,
            // A peak counts at once, so does the first measurement.
            (Outcome::Success | Outcome::Cancelled, None) => seconds,
            (Outcome::Success | Outcome::Cancelled, Some(_)) if seconds >= old => seconds,
            (Outcome::Success | Outcome::Cancelled, Some((before, at))) => {
                let keep = remaining(now.saturating_sub(at));
                before * keep + seconds * (1.0 - keep)
            }
        };
        self.estimate = Some((new.min(MAX_ESTIMATE.as_secs_f64()), now));
    }
}

fn remaining(elapsed: Duration) -> f64 {
    (-elapsed.as_secs_f64() / DECAY.as_secs_f64()).exp()
}

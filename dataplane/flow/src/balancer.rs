//! Power of two choices by peak EWMA: two endpoints are drawn in proportion to their weights, the one with the lower cost
//! takes the request. Cost is a latency that rises at once and decays slowly, times the requests in flight. Who cannot be
//! reached is not drawn while another can, and is probed now and then, one probe at a time.

mod reach;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{below, next_dice};
use reach::Reach;

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

/// What became of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Probed {
    Reached,
    Unreachable,
    /// Given up before it could tell.
    Cancelled,
}

/// Endpoints of one service as one worker sees them.
#[derive(Debug)]
pub struct Balancer<K> {
    /// In the order of their keys.
    endpoints: Vec<Endpoint<K>>,
    index: BTreeMap<K, usize>,
    /// Who may be picked. Made anew when an endpoint comes or goes, is lost or found.
    drawn: Vec<Drawn>,
    /// Indexes of those that cannot be reached.
    unreachable: Vec<usize>,
}

#[derive(Debug)]
struct Endpoint<K> {
    key: K,
    weight: u64,
    load: Load,
    reach: Reach,
}

#[derive(Debug)]
struct Drawn {
    index: usize,
    /// Sum of the weights up to and including this one.
    up_to: u64,
}

#[derive(Debug, Clone, Default)]
struct Load {
    in_flight: u32,
    /// Latency in seconds and when it was brought up to date; `None`: never measured.
    estimate: Option<(f64, Duration)>,
}

impl<K> Default for Balancer<K> {
    fn default() -> Self {
        Self { endpoints: Vec::new(), index: BTreeMap::new(), drawn: Vec::new(), unreachable: Vec::new() }
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
        let mut known: BTreeMap<K, (Load, Reach)> =
            std::mem::take(&mut self.endpoints).into_iter().map(|e| (e.key, (e.load, e.reach))).collect();
        for (key, weight) in wanted {
            let (load, reach) = known.remove(&key).unwrap_or_default();
            let weight = if all_zero { 1 } else { weight.into() };
            self.endpoints.push(Endpoint { key, weight, load, reach });
        }
        self.index = self.endpoints.iter().enumerate().map(|(index, endpoint)| (endpoint.key.clone(), index)).collect();
        self.redraw();
    }

    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// How many of them cannot be reached.
    pub fn unreachable(&self) -> usize {
        self.unreachable.len()
    }

    /// An endpoint for one request; `dice` is uniform. Those in `avoid` are taken only where there is nothing else.
    pub fn pick(&self, now: Duration, dice: u64, avoid: &[K]) -> Option<K> {
        let mut dice = dice;
        let first = self.draw(next_dice(&mut dice), avoid)?;
        let second = self.draw(next_dice(&mut dice), avoid)?;
        let picked = if first == second { self.other(first, next_dice(&mut dice), avoid) } else { Some(second) };
        let chosen = match picked {
            Some(second) if self.cost(second, now) < self.cost(first, now) => second,
            _ => first,
        };
        Some(self.endpoint(chosen).key.clone())
    }

    /// A request was sent.
    pub fn started(&mut self, key: &K, _now: Duration) {
        if let Some(endpoint) = self.known(key) {
            endpoint.load.in_flight = endpoint.load.in_flight.saturating_add(1);
        }
    }

    /// A request ended; each that started ends once. An endpoint that has left meanwhile is ignored, here and below.
    pub fn finished(&mut self, key: &K, now: Duration, latency: Duration, outcome: Outcome) {
        if let Some(Endpoint { load, .. }) = self.known(key) {
            load.in_flight = load.in_flight.saturating_sub(1);
            load.record(now, latency, outcome);
        }
    }

    /// There is a connection to it. If it was taken to be unreachable it is drawn again, as if it were new: what was
    /// measured is from before it vanished.
    pub fn reached(&mut self, key: &K, now: Duration) {
        if self.unreachable.is_empty() {
            return;
        }
        let first = !self.drawn.iter().any(|drawn| self.endpoints[drawn.index].reach.is_reachable());
        let Some(endpoint) = self.known(key) else { return };
        if !endpoint.reach.found() {
            return;
        }
        endpoint.load.estimate = None;
        if first {
            // Whatever kept all away is over: this one shall not carry alone what the others could share.
            self.endpoints.iter_mut().for_each(|other| other.reach.hurry(now));
        }
        self.redraw();
    }

    /// No connection could be made to it: while another can be reached, it is not drawn. An answer of whatever status is
    /// none of this.
    pub fn not_reached(&mut self, key: &K, now: Duration, dice: u64) {
        if self.known(key).is_some_and(|endpoint| endpoint.reach.lost(now, dice)) {
            self.redraw();
        }
    }

    /// An endpoint to probe, where one is due: whoever takes it tries to connect, and says once what came of it.
    pub fn take_probe(&mut self, now: Duration) -> Option<K> {
        let due = self.unreachable.iter().find(|index| self.endpoints[**index].reach.take_probe(now));
        due.map(|index| self.endpoints[*index].key.clone())
    }

    /// What came of a probe.
    pub fn probed(&mut self, key: &K, now: Duration, dice: u64, probed: Probed) {
        let in_vain = match probed {
            Probed::Reached => return self.reached(key, now),
            Probed::Unreachable => Some(dice),
            Probed::Cancelled => None,
        };
        if let Some(endpoint) = self.known(key) {
            endpoint.reach.end_probe(now, in_vain);
        }
    }

    /// Requests in flight to an endpoint, for metrics.
    pub fn in_flight(&self, key: &K) -> u32 {
        self.index.get(key).map_or(0, |index| self.endpoints[*index].load.in_flight)
    }

    fn known(&mut self, key: &K) -> Option<&mut Endpoint<K>> {
        let index = *self.index.get(key)?;
        Some(&mut self.endpoints[index])
    }

    /// Decides who may be picked: those with weight that can be reached; if none can, all with weight.
    fn redraw(&mut self) {
        let reachable = |endpoint: &Endpoint<K>| endpoint.weight > 0 && endpoint.reach.is_reachable();
        let any = self.endpoints.iter().any(reachable);
        self.drawn.clear();
        let mut up_to = 0;
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            if endpoint.weight > 0 && (!any || reachable(endpoint)) {
                up_to += endpoint.weight;
                self.drawn.push(Drawn { index, up_to });
            }
        }
        let unreachable = self.endpoints.iter().enumerate().filter(|(_, endpoint)| !endpoint.reach.is_reachable());
        self.unreachable = unreachable.map(|(index, _)| index).collect();
    }

    /// By weight. Where what is drawn is to be avoided, the next one after it that isn't; it itself if there is none.
    fn draw(&self, dice: u64, avoid: &[K]) -> Option<usize> {
        let at = below(dice, self.drawn.last()?.up_to);
        let drawn = self.drawn.partition_point(|drawn| drawn.up_to <= at);
        self.from(drawn, avoid).or(Some(drawn))
    }

    /// One other than `first`, so that two are compared wherever there are two.
    fn other(&self, first: usize, dice: u64, avoid: &[K]) -> Option<usize> {
        let count = u64::try_from(self.drawn.len()).ok()?;
        let skip = usize::try_from(below(dice, count.checked_sub(1)?)).ok()?;
        let other = self.from((first + 1 + skip) % self.drawn.len(), avoid)?;
        (other != first).then_some(other)
    }

    /// The first from `start` on, round the end, that is not to be avoided.
    fn from(&self, start: usize, avoid: &[K]) -> Option<usize> {
        let count = self.drawn.len();
        let mut around = (0..count).map(|step| (start + step) % count);
        around.find(|at| !avoid.contains(&self.endpoint(*at).key))
    }

    fn endpoint(&self, drawn: usize) -> &Endpoint<K> {
        &self.endpoints[self.drawn[drawn].index]
    }

    fn cost(&self, drawn: usize, now: Duration) -> f64 {
        let load = &self.endpoint(drawn).load;
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

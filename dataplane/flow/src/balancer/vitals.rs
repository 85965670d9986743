//! What one worker knows of one endpoint: its load and whether it can be reached. In cells: whoever holds the endpoint
//! notes what happens to it, with nothing to look up, and of one that has left nobody asks any more.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::Outcome;
use super::reach::Reach;

/// Time in which an old latency loses all but 1/e of its say.
const DECAY: Duration = Duration::from_secs(10);
/// What an endpoint without any measurement is taken to need; small, so that new ones are tried.
const UNMEASURED: Duration = Duration::from_millis(1);
/// Added by each failure: a broken endpoint answers fastest, and must not attract load by it.
const FAILURE_PENALTY: Duration = Duration::from_secs(1);
/// No estimate grows beyond this, so that a recovered endpoint is back within a minute.
const MAX_ESTIMATE: Duration = Duration::from_secs(10);

/// To be kept with an endpoint for as long as it stays; a [`super::Balancer`] compares by it.
#[derive(Debug, Default)]
pub struct Vitals {
    in_flight: Cell<u32>,
    /// Latency in seconds and when it was brought up to date; `None`: never measured.
    estimate: Cell<Option<(f64, Duration)>>,
    pub(super) reach: RefCell<Reach>,
}

impl Vitals {
    /// A request was sent.
    pub fn started(&self) {
        self.in_flight.set(self.in_flight.get().saturating_add(1));
    }

    /// A request ended; each that started ends once.
    pub fn finished(&self, now: Duration, latency: Duration, outcome: Outcome) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        self.record(now, latency.as_secs_f64(), outcome);
    }

    /// Requests in flight, for metrics.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// False while no connection can be made.
    pub fn is_reachable(&self) -> bool {
        self.reach.borrow().is_reachable()
    }

    pub(super) fn forget_latency(&self) {
        self.estimate.set(None);
    }

    pub(super) fn cost(&self, now: Duration) -> f64 {
        // Decayed towards nothing: an endpoint that was not asked for long is asked again.
        let latency = match self.estimate.get() {
            Some((seconds, at)) => seconds * remaining(now.saturating_sub(at)),
            None => UNMEASURED.as_secs_f64(),
        };
        latency * f64::from(self.in_flight.get().saturating_add(1))
    }

    fn record(&self, now: Duration, seconds: f64, outcome: Outcome) {
        let (before, keep) = match self.estimate.get() {
            Some((before, at)) => (before, remaining(now.saturating_sub(at))),
            None => (0.0, 0.0),
        };
        let old = before * keep;
        let new = match outcome {
            Outcome::Failure => old.max(seconds) + FAILURE_PENALTY.as_secs_f64(),
            Outcome::Cancelled if seconds <= old => return,
            // A peak counts at once, so does the first measurement.
            Outcome::Success | Outcome::Cancelled if seconds >= old => seconds,
            Outcome::Success | Outcome::Cancelled => old + seconds * (1.0 - keep),
        };
        self.estimate.set(Some((new.min(MAX_ESTIMATE.as_secs_f64()), now)));
    }
}

/// exp(-elapsed / DECAY); between the requests of a busy endpoint by its first terms, which are off by less than 1e-6.
fn remaining(elapsed: Duration) -> f64 {
    let x = elapsed.as_secs_f64() / DECAY.as_secs_f64();
    if x < 0.01 { 1.0 - x + x * x / 2.0 } else { (-x).exp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_decays_as_the_long_one() {
        for ms in [0, 1, 10, 50, 99, 100, 101, 1_000, 100_000] {
            let elapsed = Duration::from_millis(ms);
            let exact = (-elapsed.as_secs_f64() / DECAY.as_secs_f64()).exp();
            assert!((remaining(elapsed) - exact).abs() < 1e-6, "{ms} ms");
        }
    }
}

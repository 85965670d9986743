//! State of one endpoint as one worker knows it: load, speed and whether it can be reached. Kept in cells: whoever
//! holds the endpoint notes what happens to it without a look-up, and nobody asks for one that has left.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::Outcome;
use super::slow::Since;
use super::standing::Standing;
use super::success::Tally;

/// The latest sample counts at least this much, and the more the longer ago the one before it was.
const LEAST_SAY: f64 = 0.1;
/// Time in which what is known loses all but 1/e of its say to the next sample.
const MEMORY: Duration = Duration::from_millis(200);
/// How long picks are remembered, so that one that got less than its share makes up for it.
const PICKS_MEMORY: Duration = Duration::from_secs(5);
/// A failure counts as an answer that took this long: a broken endpoint answers fastest, and must not attract load by it.
const FAILURE: Duration = Duration::from_secs(1);
/// Samples are held to these bounds, so that none outweighs all that follow.
const QUICKEST: Duration = Duration::from_micros(10);
const SLOWEST: Duration = Duration::from_secs(10);
/// An endpoint that has had a request for so many times as long as its answers take, and for this long at the least,
/// hangs, whatever time the caller chose. One that never answered: after [`FAILURE`].
const HANGS: f64 = 5.0;
const HANGS_FROM: Duration = Duration::from_millis(100);
/// The part of what is known of its answers that the latest replaces.
const ANSWER_SAY: f64 = 0.125;
/// Endpoints are equally fast as long as neither takes this many times as long as the other: two equal ones differ by
/// that much over a few samples.
const EQUAL: f64 = 2.0;
/// A slower endpoint is sampled when it was passed over for this long and this often; the time doubles with each sample,
/// from the first to the last value, and begins higher after a failure.
const FIRST_REST: Duration = Duration::from_millis(100);
const REST_AFTER_FAILURE: Duration = Duration::from_millis(500);
const LONGEST_REST: Duration = Duration::from_secs(10);
const PASSED_OVER: u32 = 4;

/// To be kept with an endpoint for as long as it stays; a [`super::Balancer`] compares by it.
#[derive(Debug, Default)]
pub struct Vitals {
    /// The hash of its name, by which keys find it.
    place: u64,
    in_flight: Cell<u32>,
    /// `None`: never measured.
    speed: Cell<Option<Speed>>,
    /// Seconds that its good answers take, which no request that was given up changes. `None`: it gave none.
    answers: Cell<Option<f64>>,
    picks: Cell<Picks>,
    rest: Cell<Rest>,
    pub(super) standing: RefCell<Standing>,
    /// For services that let endpoints start slowly.
    pub(super) since: Cell<Since>,
    /// For a service that judges by success rates.
    pub(super) tally: Cell<Tally>,
}

/// The typical latency. A mean of logarithms: one sample that is 500 times as long as the others weighs as much as ten
/// that are half again as long, so that it is soon outvoted.
#[derive(Debug, Clone, Copy)]
struct Speed {
    ln_seconds: f64,
    at: Duration,
}

/// How often it was picked of late: a pick from `PICKS_MEMORY` ago counts 1/e.
#[derive(Debug, Clone, Copy, Default)]
struct Picks {
    recent: f64,
    /// Of the last.
    at: Duration,
}

impl Picks {
    fn recent(self, now: Duration) -> f64 {
        self.recent * remaining(now.saturating_sub(self.at), PICKS_MEMORY)
    }
}

/// How an endpoint that loses every comparison waits to be sampled.
#[derive(Debug, Clone, Copy)]
struct Rest {
    length: Duration,
    passed_over: u32,
}

impl Default for Rest {
    fn default() -> Self {
        Rest { length: FIRST_REST, passed_over: 0 }
    }
}

impl Vitals {
    /// Of an endpoint of this name: what all callers call it, so that all place it alike.
    pub fn of(name: &str) -> Self {
        Self { place: crate::hash(name.as_bytes()), ..Self::default() }
    }

    pub(super) fn place(&self) -> u64 {
        self.place
    }

    /// A request was sent.
    pub fn started(&self) {
        self.in_flight.set(self.in_flight.get().saturating_add(1));
    }

    /// A request ended; each that started ends once. `latency`: from the moment when a connection was there to the head of
    /// the answer; neither dialling nor a long body says how fast an endpoint is.
    pub fn finished(&self, now: Duration, latency: Duration, outcome: Outcome) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        self.record(now, latency, outcome);
    }

    /// Requests in flight, for metrics.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// True where an endpoint that has had a request for so long and not answered it hangs, rather than that its caller
    /// waits for less than it takes.
    pub fn hangs_after(&self, had: Duration) -> bool {
        let long = self.answers.get().map_or(FAILURE, |seconds| Duration::from_secs_f64(seconds * HANGS));
        had >= long.max(HANGS_FROM)
    }

    /// False while no connection can be made.
    pub fn is_reachable(&self) -> bool {
        self.standing.borrow().is_reachable()
    }

    /// True while it is ejected and could be reached.
    pub(super) fn is_ejected(&self) -> bool {
        let standing = self.standing.borrow();
        standing.is_ejected() && standing.is_reachable()
    }

    /// True while it takes requests like any other.
    pub fn is_in(&self) -> bool {
        self.standing.borrow().is_in()
    }

    pub(super) fn forget_latency(&self) {
        self.speed.set(None);
        self.rest.set(Rest::default());
    }

    /// True where a request should rather go here than to `other`. Of two that are about equally fast the one with fewer
    /// requests in flight takes it, then the one that `tie` names; otherwise the one where all in flight end sooner.
    pub(super) fn is_better_than(&self, other: &Vitals, tie: bool) -> bool {
        let (ours, theirs) = (self.in_flight.get(), other.in_flight.get());
        match (self.speed.get(), other.speed.get()) {
            (Some(us), Some(them)) if (us.ln_seconds - them.ln_seconds).abs() >= EQUAL.ln() => {
                let cost = |speed: Speed, load: u32| speed.ln_seconds + (f64::from(load) + 1.0).ln();
                cost(us, ours) < cost(them, theirs)
            }
            // An endpoint without a measurement may be as fast as any, so the requests in flight decide.
            _ => ours < theirs || ours == theirs && tie,
        }
    }

    /// True where fewer requests are in flight than at `other`; as many: where `tie` says so.
    pub(super) fn has_less_than(&self, other: &Vitals, tie: bool) -> bool {
        let (ours, theirs) = (self.in_flight.get(), other.in_flight.get());
        ours < theirs || ours == theirs && tie
    }

    /// True where it was picked less often than `other` of late.
    pub(super) fn had_less_than(&self, other: &Vitals, now: Duration) -> bool {
        self.picks.get().recent(now) < other.picks.get().recent(now)
    }

    pub(super) fn picked(&self, now: Duration) {
        let recent = self.picks.get().recent(now) + 1.0;
        self.picks.set(Picks { recent, at: now });
        self.rest.set(Rest { passed_over: 0, ..self.rest.get() });
    }

    /// It lost a comparison. True where it shall have the request all the same, so that it is measured again.
    pub(super) fn is_due_for_a_sample(&self, now: Duration) -> bool {
        let Rest { length, passed_over } = self.rest.get();
        let heard_at = self.speed.get().map_or(Duration::ZERO, |speed| speed.at);
        let idle = now.saturating_sub(self.picks.get().at.max(heard_at));
        if idle < length || passed_over < PASSED_OVER {
            self.rest.set(Rest { length, passed_over: passed_over.saturating_add(1) });
            return false;
        }
        self.rest.set(Rest { length: (length * 2).min(LONGEST_REST), passed_over: 0 });
        true
    }

    /// It won a comparison: should it fall behind again, it is sampled soon.
    pub(super) fn won(&self) {
        self.rest.set(Rest::default());
    }

    fn record(&self, now: Duration, latency: Duration, outcome: Outcome) {
        let latency = match outcome {
            Outcome::Success | Outcome::Cancelled => latency,
            Outcome::Failure => {
                let rest = self.rest.get();
                self.rest.set(Rest { length: rest.length.max(REST_AFTER_FAILURE), ..rest });
                latency.max(FAILURE)
            }
        };
        let sample = latency.clamp(QUICKEST, SLOWEST).as_secs_f64();
        if outcome == Outcome::Success {
            let known = self.answers.get().unwrap_or(sample);
            self.answers.set(Some(known + (sample - known) * ANSWER_SAY));
        }
        let sample = sample.ln();
        let ln_seconds = match self.speed.get() {
            // Somebody left before the answer: that says something only where it took longer than usual.
            Some(known) if outcome == Outcome::Cancelled && sample <= known.ln_seconds => return,
            None if outcome == Outcome::Cancelled && latency < FAILURE => return,
            Some(known) => {
                let say = (1.0 - remaining(now.saturating_sub(known.at), MEMORY)).max(LEAST_SAY);
                known.ln_seconds + (sample - known.ln_seconds) * say
            }
            None => sample,
        };
        self.speed.set(Some(Speed { ln_seconds, at: now }));
    }

    #[cfg(test)]
    pub(super) fn typical_latency(&self) -> f64 {
        self.speed.get().map_or(0.0, |speed| speed.ln_seconds.exp())
    }
}

/// Share of a value that is left after `elapsed`, if the value loses all but 1/e in `memory`.
fn remaining(elapsed: Duration, memory: Duration) -> f64 {
    (-elapsed.as_secs_f64() / memory.as_secs_f64()).exp()
}

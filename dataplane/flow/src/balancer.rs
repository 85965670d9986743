//! Power of two choices: two endpoints are drawn in proportion to their weights, the faster one with regard to its load
//! takes the request, and equals take it in turn. A slower one is sampled now and then. An endpoint that cannot be reached
//! is not drawn while another can, and is probed now and then, one probe at a time.

mod reach;
#[cfg(test)]
mod shares;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod vitals;

use std::rc::Rc;
use std::time::Duration;

use crate::{below, next_dice};
use reach::Reach;
pub use vitals::Vitals;

/// How a request ended, as seen from the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Success,
    /// Not reached, reset, or a server error.
    Failure,
    /// The caller went away: the latency so far is a lower bound.
    Cancelled,
}

/// Result of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Probed {
    Reached,
    Unreachable,
    /// Given up before it could tell.
    Cancelled,
}

/// Endpoints of one service as one worker sees them. An endpoint is the same as long as its `Rc` is.
#[derive(Debug)]
pub struct Balancer<E> {
    endpoints: Vec<Weighted<E>>,
    /// Endpoints that may be picked. Made anew when an endpoint comes or goes, is lost or found.
    drawn: Vec<Drawn<E>>,
    /// Those drawn have one weight.
    uniform: bool,
    unreachable: Vec<Rc<E>>,
}

#[derive(Debug)]
struct Weighted<E> {
    endpoint: Rc<E>,
    weight: u64,
}

#[derive(Debug)]
struct Drawn<E> {
    endpoint: Rc<E>,
    /// Sum of the weights up to and including this one.
    up_to: u64,
}

impl<E> Default for Balancer<E> {
    fn default() -> Self {
        Self { endpoints: Vec::new(), drawn: Vec::new(), uniform: true, unreachable: Vec::new() }
    }
}

impl<E: AsRef<Vitals>> Balancer<E> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the set. Weight 0 takes nothing, unless all have it: then all are equal (a drained service still answers
    /// better than none).
    pub fn update(&mut self, endpoints: impl IntoIterator<Item = (Rc<E>, u32)>) {
        let weighted = |(endpoint, weight): (Rc<E>, u32)| Weighted { endpoint, weight: weight.into() };
        self.endpoints = endpoints.into_iter().map(weighted).collect();
        if self.endpoints.iter().all(|it| it.weight == 0) {
            self.endpoints.iter_mut().for_each(|it| it.weight = 1);
        }
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
    pub fn pick(&self, now: Duration, dice: u64, avoid: &[Rc<E>]) -> Option<&Rc<E>> {
        let mut dice = dice;
        let first = self.draw(next_dice(&mut dice), avoid)?;
        let second = self.draw(next_dice(&mut dice), avoid)?;
        // With unequal weights a double draw wins outright; otherwise two endpoints would always get equal shares.
        let again = first == second && self.uniform;
        let second = if again { self.other(first, next_dice(&mut dice), avoid) } else { Some(second) };
        let chosen = match second {
            Some(second) if second != first => self.compare(first, second, now, next_dice(&mut dice)),
            _ => first,
        };
        self.vitals(chosen).picked(now);
        Some(&self.drawn[chosen].endpoint)
    }

    /// Which of two takes the request: the better one, unless the other has not been measured for long.
    fn compare(&self, first: usize, second: usize, now: Duration, dice: u64) -> usize {
        let (one, other) = (self.vitals(first), self.vitals(second));
        // Of equals with equal weights the one that had less of late takes it three times in four: shares differ less than
        // by chance alone, and requests that alternate between two kinds are not sorted by kind.
        let favour = if self.uniform { below(dice, 4) < 3 } else { below(dice, 2) == 0 };
        let tie = if self.uniform { one.had_less_than(other, now) == favour } else { favour };
        let (winner, loser) = if one.is_better_than(other, tie) { (first, second) } else { (second, first) };
        if self.vitals(loser).is_due_for_a_sample(now) {
            return loser;
        }
        self.vitals(winner).won();
        winner
    }

    /// There is a connection to it. If it was taken to be unreachable it is drawn again, as if it were new: what was
    /// measured is from before it vanished.
    pub fn reached(&mut self, endpoint: &E, now: Duration) {
        let vitals = endpoint.as_ref();
        if vitals.is_reachable() {
            return;
        }
        let first = !self.drawn.iter().any(|drawn| vitals_of(&drawn.endpoint).is_reachable());
        vitals.reach.replace(Reach::Reachable);
        vitals.forget_latency();
        if first {
            // The fault that kept all endpoints away is over: the others are probed now, or this one would carry alone
            // what they could share.
            self.unreachable.iter().for_each(|other| vitals_of(other).reach.borrow_mut().hurry(now));
        }
        self.redraw();
    }

    /// No connection could be made to it: while another can be reached, it is not drawn. An answer of whatever status is
    /// none of this.
    pub fn not_reached(&mut self, endpoint: &E, now: Duration, dice: u64) {
        if endpoint.as_ref().reach.borrow_mut().lost(now, dice) {
            self.redraw();
        }
    }

    /// An endpoint to probe, where one is due: whoever takes it tries to connect, and says once what came of it.
    pub fn take_probe(&self, now: Duration) -> Option<Rc<E>> {
        let due = |endpoint: &&Rc<E>| vitals_of(endpoint).reach.borrow_mut().take_probe(now);
        self.unreachable.iter().find(due).map(Rc::clone)
    }

    /// Notes the result of a probe.
    pub fn probed(&mut self, endpoint: &E, now: Duration, dice: u64, probed: Probed) {
        let in_vain = match probed {
            Probed::Reached => return self.reached(endpoint, now),
            Probed::Unreachable => Some(dice),
            Probed::Cancelled => None,
        };
        endpoint.as_ref().reach.borrow_mut().end_probe(now, in_vain);
    }

    /// Decides who may be picked: those with weight that can be reached; if none can, all with weight.
    fn redraw(&mut self) {
        let reachable = |it: &Weighted<E>| vitals_of(&it.endpoint).is_reachable();
        let any = self.endpoints.iter().any(|it| it.weight > 0 && reachable(it));
        self.drawn.clear();
        self.uniform = true;
        let mut up_to = 0;
        for it in self.endpoints.iter().filter(|it| it.weight > 0 && (!any || reachable(it))) {
            up_to += it.weight;
            self.uniform &= up_to == it.weight * (self.drawn.len() as u64 + 1);
            self.drawn.push(Drawn { endpoint: Rc::clone(&it.endpoint), up_to });
        }
        let unreachable = self.endpoints.iter().filter(|it| !reachable(it));
        self.unreachable = unreachable.map(|it| Rc::clone(&it.endpoint)).collect();
    }

    /// By weight. Where what is drawn is to be avoided, the next one after it that isn't; it itself if there is none.
    fn draw(&self, dice: u64, avoid: &[Rc<E>]) -> Option<usize> {
        let at = below(dice, self.drawn.last()?.up_to);
        let drawn = self.drawn.partition_point(|drawn| drawn.up_to <= at);
        self.from(drawn, avoid).or(Some(drawn))
    }

    /// One other than `first`, so that two are compared wherever there are two.
    fn other(&self, first: usize, dice: u64, avoid: &[Rc<E>]) -> Option<usize> {
        let count = u64::try_from(self.drawn.len()).ok()?;
        let skip = usize::try_from(below(dice, count.checked_sub(1)?)).ok()?;
        let other = self.from((first + 1 + skip) % self.drawn.len(), avoid)?;
        (other != first).then_some(other)
    }

    /// The first from `start` on, round the end, that is not to be avoided.
    fn from(&self, start: usize, avoid: &[Rc<E>]) -> Option<usize> {
        let avoided = |at: usize| avoid.iter().any(|endpoint| Rc::ptr_eq(endpoint, &self.drawn[at].endpoint));
        (start..self.drawn.len()).chain(0..start).find(|at| !avoided(*at))
    }

    fn vitals(&self, drawn: usize) -> &Vitals {
        vitals_of(&self.drawn[drawn].endpoint)
    }
}

fn vitals_of<E: AsRef<Vitals>>(endpoint: &Rc<E>) -> &Vitals {
    E::as_ref(endpoint)
}

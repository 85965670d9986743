//! Picks an endpoint for each request: by default by the power of two choices, the faster one of two that are drawn with regard
//! to its load; equals take it in turn, a slower one is sampled now and then. Whatever the algorithm, who cannot be reached, or
//! is ejected since it failed in a row, or is unwell by checks, is not picked while another can; the first two are tried again by
//! one probe or request at a time.

mod checked;
#[cfg(test)]
mod ejections;
mod hashed;
#[cfg(test)]
mod models;
mod outliers;
#[cfg(test)]
mod shares;
#[cfg(test)]
mod simulation;
mod standing;
mod success;
#[cfg(test)]
mod tests;
mod turns;
mod vitals;

use std::rc::Rc;
use std::time::Duration;

use crate::{below, next_dice};
use hashed::{HashOrder, Placed};
pub use outliers::{Outliers, Sign, SuccessRate};
use standing::Told;
use turns::Turns;
pub use vitals::Vitals;

/// How the requests of a service are spread over its endpoints; all keep weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// Of two drawn the faster one with regard to its load.
    #[default]
    PeakEwma,
    /// Of two drawn the one with fewer requests in flight.
    LeastRequest,
    /// In turn.
    RoundRobin,
    Random,
    /// Requests of one key go to one endpoint, by points on a ring.
    RingHash,
    /// The same by a table: more even, and more memory.
    Maglev,
}

impl Algorithm {
    /// True where a request's key decides.
    pub fn is_by_key(self) -> bool {
        matches!(self, Algorithm::RingHash | Algorithm::Maglev)
    }
}

/// What a service says of its balancing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Settings {
    pub algorithm: Algorithm,
    /// `None`: nobody is ejected.
    pub outliers: Option<Outliers>,
}

/// What an endpoint is picked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    Request,
    /// A connection whose bytes nobody looks into.
    Connection,
    /// To know whether one can be connected to: requests follow, and it takes nothing of theirs, no turn and no trial.
    Reach,
}

/// What is to be sent to an endpoint. `key`: the hash of what keeps it together with others, for algorithms that go by it;
/// without one it goes anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wanted {
    pub purpose: Purpose,
    pub key: Option<u64>,
}

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
    /// Which of all they are.
    tier: Tier,
    unreachable: Vec<Rc<E>>,
    /// With weight: the others take no trial either.
    ejected: Vec<Rc<E>>,
    settings: Settings,
    /// For a service that judges by success rates.
    round: success::Round,
    way: Way,
}

/// What an algorithm keeps.
#[derive(Debug, Default)]
enum Way {
    #[default]
    PeakEwma,
    LeastRequest,
    /// Over those drawn: made anew with them.
    RoundRobin(Turns),
    Random,
    /// Over all endpoints with weight, whether they can be reached or not.
    Hashed(HashOrder),
}

#[derive(Debug)]
struct Weighted<E> {
    endpoint: Rc<E>,
    weight: u64,
}

impl<E> PartialEq for Weighted<E> {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.endpoint, &other.endpoint) && self.weight == other.weight
    }
}

#[derive(Debug)]
struct Drawn<E> {
    endpoint: Rc<E>,
    /// Sum of the weights up to and including this one.
    up_to: u64,
}

impl<E> Default for Balancer<E> {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            drawn: Vec::new(),
            uniform: true,
            tier: Tier::In,
            unreachable: Vec::new(),
            ejected: Vec::new(),
            settings: Settings::default(),
            round: success::Round::default(),
            way: Way::default(),
        }
    }
}

impl<E: AsRef<Vitals>> Balancer<E> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the settings and the set. Weight 0 takes nothing, unless all have it: then all are equal (a drained
    /// service still answers better than none).
    pub fn update(&mut self, settings: Settings, endpoints: impl IntoIterator<Item = (Rc<E>, u32)>) {
        let weighted = |(endpoint, weight): (Rc<E>, u32)| Weighted { endpoint, weight: weight.into() };
        let mut endpoints: Vec<_> = endpoints.into_iter().map(weighted).collect();
        if endpoints.iter().all(|it| it.weight == 0) {
            endpoints.iter_mut().for_each(|it| it.weight = 1);
        }
        // Who takes nothing stands behind all others, so that the numbers of a hash order are places here.
        endpoints.sort_by_key(|it| it.weight == 0);
        // What changed is something else: turns go on, and no table is made again.
        if settings == self.settings && endpoints == self.endpoints {
            return;
        }
        let judges_anew = settings.outliers != self.settings.outliers;
        (self.settings, self.endpoints) = (settings, endpoints);
        if judges_anew {
            self.endpoints.iter().for_each(|it| vitals_of(&it.endpoint).standing.borrow_mut().pardon());
        }
        let placed = || -> Vec<Placed> {
            let with_weight = self.endpoints.iter().filter(|it| it.weight > 0);
            with_weight.map(|it| Placed { place: vitals_of(&it.endpoint).place(), weight: it.weight }).collect()
        };
        self.way = match settings.algorithm {
            Algorithm::PeakEwma => Way::PeakEwma,
            Algorithm::LeastRequest => Way::LeastRequest,
            Algorithm::RoundRobin => Way::RoundRobin(Turns::default()),
            Algorithm::Random => Way::Random,
            Algorithm::RingHash => Way::Hashed(HashOrder::ring(&placed())),
            Algorithm::Maglev => Way::Hashed(HashOrder::maglev(&placed(), hashed::SLOTS)),
        };
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

    /// How many of them are ejected.
    pub fn ejected(&self) -> usize {
        self.ejected.len()
    }

    /// An endpoint for what is wanted; `dice` is uniform. Endpoints in `avoid` are taken only where there is nothing else.
    pub fn pick(&self, now: Duration, dice: u64, wanted: Wanted, avoid: &[Rc<E>]) -> Option<&Rc<E>> {
        let Wanted { purpose, key } = wanted;
        let mut dice = dice;
        let is_by_key = matches!((&self.way, key), (Way::Hashed(_), Some(_)));
        // A key goes to no trial elsewhere, and who was refused once shall not be the one to try.
        if !is_by_key && !self.ejected.is_empty() && avoid.is_empty() {
            let due = |endpoint: &&Rc<E>| vitals_of(endpoint).standing.borrow_mut().take_trial(now, purpose);
            if let Some(trial) = self.ejected.iter().find(due) {
                return Some(trial);
            }
        }
        let mut drawn = || self.draw(next_dice(&mut dice), avoid).map(|drawn| &self.drawn[drawn].endpoint);
        match (&self.way, key) {
            // A second attempt takes no turn: it would be that of the endpoint after a broken one.
            (Way::RoundRobin(turns), _) if avoid.is_empty() => {
                let dice = next_dice(&mut dice);
                let turn = if purpose == Purpose::Reach { turns.next(dice) } else { turns.take(dice) };
                turn.map(|drawn| &self.drawn[drawn].endpoint)
            }
            (Way::Hashed(order), Some(key)) => self.first_of(order, key, now, purpose, avoid).or_else(drawn),
            // Comparisons are remembered, as of a request.
            (Way::PeakEwma | Way::LeastRequest, _) if purpose == Purpose::Reach => drawn(),
            (Way::PeakEwma, _) => self.compared(now, dice, avoid, |one, other, tie| one.is_better_than(other, tie)),
            (Way::LeastRequest, _) => self.compared(now, dice, avoid, |one, other, tie| one.has_less_than(other, tie)),
            (Way::RoundRobin(_) | Way::Random | Way::Hashed(..), _) => drawn(),
        }
    }

    /// Of two drawn the one that is better.
    fn compared(
        &self,
        now: Duration,
        mut dice: u64,
        avoid: &[Rc<E>],
        is_better: impl Fn(&Vitals, &Vitals, bool) -> bool,
    ) -> Option<&Rc<E>> {
        let first = self.draw(next_dice(&mut dice), avoid)?;
        let second = self.draw(next_dice(&mut dice), avoid)?;
        // With unequal weights a double draw wins outright; otherwise two endpoints would always get equal shares.
        let again = first == second && self.uniform;
        let second = if again { self.other(first, next_dice(&mut dice), avoid) } else { Some(second) };
        let chosen = match second {
            Some(second) if second != first => self.compare((first, second), now, next_dice(&mut dice), is_better),
            _ => first,
        };
        self.vitals(chosen).picked(now);
        Some(&self.drawn[chosen].endpoint)
    }

    /// The first in a key's order that can be reached and is not to be avoided.
    fn first_of(
        &self,
        order: &HashOrder,
        key: u64,
        now: Duration,
        purpose: Purpose,
        avoid: &[Rc<E>],
    ) -> Option<&Rc<E>> {
        let is_avoided = |endpoint: &Rc<E>| avoid.iter().any(|avoided| Rc::ptr_eq(avoided, endpoint));
        let all_avoided = !avoid.is_empty() && self.drawn.iter().all(|drawn| is_avoided(&drawn.endpoint));
        let may_be_used = |endpoint: &&Rc<E>| {
            let vitals = vitals_of(endpoint);
            (all_avoided || !is_avoided(endpoint))
                && (self.tier.admits(vitals)
                    || avoid.is_empty() && vitals.standing.borrow_mut().take_trial(now, purpose))
        };
        order.of(key).map(|number| &self.endpoints[number].endpoint).find(may_be_used)
    }

    /// Which of two takes the request: the better one, unless the other has not been measured for long.
    fn compare(
        &self,
        (first, second): (usize, usize),
        now: Duration,
        dice: u64,
        is_better: impl Fn(&Vitals, &Vitals, bool) -> bool,
    ) -> usize {
        let (one, other) = (self.vitals(first), self.vitals(second));
        // Of equals with equal weights the one that had less of late takes it three times in four: shares differ less than
        // by chance alone, and requests that alternate between two kinds are not sorted by kind.
        let favour = if self.uniform { below(dice, 4) < 3 } else { below(dice, 2) == 0 };
        let tie = if self.uniform { one.had_less_than(other, now) == favour } else { favour };
        let (winner, loser) = if is_better(one, other, tie) { (first, second) } else { (second, first) };
        // Only one that lost by its speed may have become faster.
        if matches!(self.way, Way::PeakEwma) {
            if self.vitals(loser).is_due_for_a_sample(now) {
                return loser;
            }
            self.vitals(winner).won();
        }
        winner
    }

    /// There is a connection to it. If it was taken to be unreachable it is drawn again, unless it is ejected: what was
    /// measured is from before it vanished, and an ejection goes on.
    pub fn reached(&mut self, endpoint: &E, now: Duration) {
        let vitals = endpoint.as_ref();
        if vitals.is_reachable() {
            return;
        }
        let first = !self.drawn.iter().any(|drawn| vitals_of(&drawn.endpoint).is_reachable());
        vitals.standing.borrow_mut().found(now);
        vitals.forget_latency();
        if first {
            // The fault that kept all endpoints away is over: the others are probed now, or this one would carry alone
            // what they could share.
            self.unreachable.iter().for_each(|other| vitals_of(other).standing.borrow_mut().hurry(now));
        }
        self.redraw();
    }

    /// No connection could be made to it: while another can be reached, it is not drawn. An answer of whatever status is
    /// none of this.
    pub fn not_reached(&mut self, endpoint: &E, now: Duration, dice: u64) {
        if endpoint.as_ref().standing.borrow_mut().lost(now, dice) {
            self.redraw();
        }
    }

    /// An endpoint to probe, where one is due: whoever takes it tries to connect, and says once what came of it.
    pub fn take_probe(&self, now: Duration) -> Option<Rc<E>> {
        let due = |endpoint: &&Rc<E>| vitals_of(endpoint).standing.borrow_mut().take_probe(now);
        self.unreachable.iter().find(due).map(Rc::clone)
    }

    /// Notes the result of a probe.
    pub fn probed(&mut self, endpoint: &E, now: Duration, dice: u64, probed: Probed) {
        let in_vain = match probed {
            Probed::Reached => return self.reached(endpoint, now),
            Probed::Unreachable => Some(dice),
            Probed::Cancelled => None,
        };
        endpoint.as_ref().standing.borrow_mut().end_probe(now, in_vain);
    }

    /// A request that was given its endpoint at `picked` ended so. True where the endpoint is ejected by that.
    pub fn ended(&mut self, endpoint: &E, picked: Duration, now: Duration, dice: u64, sign: Sign) -> bool {
        let Some(outliers) = self.settings.outliers else { return false };
        let vitals = endpoint.as_ref();
        let told = vitals.standing.borrow_mut().note(&outliers, picked, now, sign);
        match told {
            Told::Nothing => return false,
            Told::RowIsOver if !self.may_eject(endpoint, &outliers) => return false,
            Told::RowIsOver | Told::TrialFailed => vitals.standing.borrow_mut().eject(&outliers, now, dice, sign),
            Told::IsWell => {
                vitals.standing.borrow_mut().let_in(now);
                vitals.forget_latency();
            }
        }
        if told != Told::TrialFailed {
            self.redraw();
        }
        told == Told::RowIsOver
    }

    /// One more may be ejected: never the only one that there is, nor one that has left.
    fn may_eject(&self, endpoint: &E, outliers: &Outliers) -> bool {
        if !self.endpoints.iter().any(|it| std::ptr::eq(Rc::as_ptr(&it.endpoint), endpoint)) {
            return false;
        }
        let of_weight = |it: &&Weighted<E>| it.weight > 0;
        let all = self.endpoints.iter().filter(of_weight).count();
        let out = self.endpoints.iter().filter(of_weight).filter(|it| !vitals_of(&it.endpoint).is_in()).count();
        all > 1 && (out == 0 || (out + 1).saturating_mul(100) <= all.saturating_mul(outliers.most_percent as usize))
    }

    /// Those with weight who may be picked: those who are in; if nobody is, those who can be reached; if none can, all.
    fn tier(&self) -> Tier {
        let any = |tier: &Tier| self.endpoints.iter().any(|it| it.weight > 0 && tier.admits(vitals_of(&it.endpoint)));
        [Tier::In, Tier::Reachable].into_iter().find(any).unwrap_or(Tier::All)
    }

    /// Makes what is drawn from anew.
    fn redraw(&mut self) {
        let tier = self.tier();
        self.tier = tier;
        self.drawn.clear();
        self.uniform = true;
        let mut up_to = 0;
        for it in self.endpoints.iter().filter(|it| it.weight > 0 && tier.admits(vitals_of(&it.endpoint))) {
            up_to += it.weight;
            self.uniform &= up_to == it.weight * (self.drawn.len() as u64 + 1);
            self.drawn.push(Drawn { endpoint: Rc::clone(&it.endpoint), up_to });
        }
        let those = |is_one: fn(&Vitals, u64) -> bool| {
            let of_them = self.endpoints.iter().filter(move |it| is_one(vitals_of(&it.endpoint), it.weight));
            of_them.map(|it| Rc::clone(&it.endpoint)).collect()
        };
        self.unreachable = those(|it, _| !it.is_reachable());
        self.ejected = those(|it, weight| it.is_ejected() && weight > 0);
        if let Way::RoundRobin(turns) = &mut self.way {
            let mut before = 0;
            let weights = self.drawn.iter().map(|drawn| drawn.up_to - std::mem::replace(&mut before, drawn.up_to));
            *turns = Turns::new(weights);
        }
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

/// Endpoints that may be picked, the first tier in which there is one.
#[derive(Debug, Clone, Copy)]
enum Tier {
    In,
    Reachable,
    All,
}

impl Tier {
    fn admits(self, vitals: &Vitals) -> bool {
        match self {
            Tier::In => vitals.is_in(),
            Tier::Reachable => vitals.is_reachable(),
            Tier::All => true,
        }
    }
}

fn vitals_of<E: AsRef<Vitals>>(endpoint: &Rc<E>) -> &Vitals {
    E::as_ref(endpoint)
}

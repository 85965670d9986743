//! Picks an endpoint for each request: by default by the power of two choices, the faster one of two that are drawn with regard
//! to its load; equals take it in turn, a slower one is sampled now and then. Whatever the algorithm, who cannot be reached, or
//! is ejected since it failed in a row, or is unwell by checks, is not picked while another can; the first two are tried again by
//! one probe or request at a time.

mod checked;
mod distances;
#[cfg(test)]
mod ejections;
mod hashed;
#[cfg(test)]
mod models;
mod outliers;
mod panicking;
#[cfg(test)]
mod shares;
#[cfg(test)]
mod simulation;
mod slow;
mod standing;
mod success;
#[cfg(test)]
mod tests;
mod turns;
mod vitals;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use crate::{below, next_dice};
use distances::Part;
pub use distances::{Overprovisioning, Preference};
use hashed::{HashOrder, Placed};
pub use outliers::{Outliers, Sign, SuccessRate};
use panicking::Counts;
pub use slow::SlowStart;
use slow::{Since, Warming};
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
    /// For endpoints at several distances.
    pub overprovisioning: Overprovisioning,
    /// `None`: a new endpoint has its whole weight at once. Not for algorithms by key.
    pub slow_start: Option<SlowStart>,
    /// Where fewer than so many of a hundred are in, those that are out although they can be reached are used as well.
    pub panic_percent: u32,
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
    /// Those drawn by how near they are; one part where all are as near.
    parts: Vec<Part>,
    /// Which of all they are.
    tier: Tier,
    /// So few are in that those who are out are used as well.
    panics: bool,
    warming: Warming,
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
    /// Over those drawn, of each part: made anew with them.
    RoundRobin(Vec<Turns>),
    Random,
    /// Over all endpoints with weight, whether they can be reached or not.
    Hashed(HashOrder),
}

#[derive(Debug)]
struct Weighted<E> {
    endpoint: Rc<E>,
    weight: u64,
    distance: u8,
}

impl<E> PartialEq for Weighted<E> {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.endpoint, &other.endpoint) && (self.weight, self.distance) == (other.weight, other.distance)
    }
}

#[derive(Debug)]
struct Drawn<E> {
    endpoint: Rc<E>,
    weight: u64,
    /// Sum of the weights of its part up to and including this one.
    up_to: u64,
}

impl<E> Default for Balancer<E> {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            drawn: Vec::new(),
            parts: Vec::new(),
            tier: Tier::In,
            panics: false,
            warming: Warming::default(),
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
    pub fn update<P: Into<Preference>>(&mut self, settings: Settings, endpoints: impl IntoIterator<Item = (Rc<E>, P)>) {
        let weighted = |(endpoint, preference): (Rc<E>, P)| {
            let Preference { weight, distance } = preference.into();
            Weighted { endpoint, weight: weight.into(), distance }
        };
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
        if settings.slow_start.is_some() {
            self.note_new(&endpoints);
        }
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
            Algorithm::RoundRobin => Way::RoundRobin(Vec::new()),
            Algorithm::Random => Way::Random,
            Algorithm::RingHash => Way::Hashed(HashOrder::ring(&placed())),
            Algorithm::Maglev => Way::Hashed(HashOrder::maglev(&placed(), hashed::SLOTS)),
        };
        self.redraw();
    }

    /// Notes who of these was not here before; the first of all are not new.
    fn note_new(&self, endpoints: &[Weighted<E>]) {
        let known: BTreeSet<*const E> = self.endpoints.iter().map(|it| Rc::as_ptr(&it.endpoint)).collect();
        for it in endpoints.iter().filter(|it| !known.is_empty() && !known.contains(&Rc::as_ptr(&it.endpoint))) {
            vitals_of(&it.endpoint).since.set(Since::New);
            self.warming.begin();
        }
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

    /// True while those that are out are used as well, since so few are in.
    pub fn is_panicking(&self) -> bool {
        self.panics
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
        let number = self.part(key.filter(|_| is_by_key), &mut dice, avoid)?;
        let part = self.parts.get(number)?;
        let mut drawn = || self.draw(part, now, next_dice(&mut dice), avoid).map(|drawn| &self.drawn[drawn].endpoint);
        match (&self.way, key) {
            // A second attempt takes no turn: it would be that of the endpoint after a broken one.
            (Way::RoundRobin(turns), _) if avoid.is_empty() => {
                let (turns, dice) = (turns.get(number)?, next_dice(&mut dice));
                let turn = match self.warming(now) {
                    _ if purpose == Purpose::Reach => turns.next(dice),
                    None => turns.take(dice),
                    Some(slow) => {
                        let part_of = |place: usize| self.vitals(part.from + place).grown(slow, now);
                        turns.take_slowly(dice, slow::WHOLE, part_of)
                    }
                };
                turn.map(|drawn| &self.drawn[part.from + drawn].endpoint)
            }
            (Way::Hashed(order), Some(key)) => self.first_of(order, key, part, (now, purpose), avoid).or_else(drawn),
            // Comparisons are remembered, as of a request.
            (Way::PeakEwma | Way::LeastRequest, _) if purpose == Purpose::Reach => drawn(),
            (Way::PeakEwma, _) => {
                self.compared(part, now, dice, avoid, |one, other, tie| one.is_better_than(other, tie))
            }
            (Way::LeastRequest, _) => {
                self.compared(part, now, dice, avoid, |one, other, tie| one.has_less_than(other, tie))
            }
            (Way::RoundRobin(_) | Way::Random | Way::Hashed(..), _) => drawn(),
        }
    }

    /// Of two drawn the one that is better.
    fn compared(
        &self,
        part: &Part,
        now: Duration,
        mut dice: u64,
        avoid: &[Rc<E>],
        is_better: impl Fn(&Vitals, &Vitals, bool) -> bool,
    ) -> Option<&Rc<E>> {
        let first = self.draw(part, now, next_dice(&mut dice), avoid)?;
        let second = self.draw(part, now, next_dice(&mut dice), avoid)?;
        // With unequal weights a double draw wins outright; otherwise two endpoints would always get equal shares.
        let uniform = part.uniform && self.warming(now).is_none();
        let again = first == second && uniform;
        let second = if again { self.other(part, first, next_dice(&mut dice), avoid) } else { Some(second) };
        let chosen = match second {
            Some(second) if second != first => {
                self.compare((first, second), uniform, now, next_dice(&mut dice), is_better)
            }
            _ => first,
        };
        self.vitals(chosen).picked(now);
        Some(&self.drawn[chosen].endpoint)
    }

    /// The first in a key's order, of those in this part, that can be reached and is not to be avoided.
    fn first_of(
        &self,
        order: &HashOrder,
        key: u64,
        part: &Part,
        (now, purpose): (Duration, Purpose),
        avoid: &[Rc<E>],
    ) -> Option<&Rc<E>> {
        let is_avoided = |endpoint: &Rc<E>| avoid.iter().any(|avoided| Rc::ptr_eq(avoided, endpoint));
        let those = &self.drawn[part.from..part.to];
        let all_avoided = !avoid.is_empty() && those.iter().all(|drawn| is_avoided(&drawn.endpoint));
        let may_be_used = |it: &&Weighted<E>| {
            let vitals = vitals_of(&it.endpoint);
            (all_avoided || !is_avoided(&it.endpoint))
                && it.distance == part.distance
                && (self.tier.admits(vitals)
                    || avoid.is_empty() && vitals.standing.borrow_mut().take_trial(now, purpose))
        };
        if avoid.is_empty()
            && let Some(nearer) = self.nearer_trial(part.distance, now, purpose)
        {
            return Some(nearer);
        }
        order.choices(key).map(|number| &self.endpoints[number]).find(may_be_used).map(|it| &it.endpoint)
    }

    /// Which of two takes the request: the better one, unless the other has not been measured for long.
    fn compare(
        &self,
        (first, second): (usize, usize),
        uniform: bool,
        now: Duration,
        dice: u64,
        is_better: impl Fn(&Vitals, &Vitals, bool) -> bool,
    ) -> usize {
        let (one, other) = (self.vitals(first), self.vitals(second));
        // Of equals with equal weights the one that had less of late takes it three times in four: shares differ less than
        // by chance alone, and requests that alternate between two kinds are not sorted by kind.
        let favour = if uniform { below(dice, 4) < 3 } else { below(dice, 2) == 0 };
        let tie = if uniform { one.had_less_than(other, now) == favour } else { favour };
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
        self.came_back(vitals, now);
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
                self.came_back(vitals, now);
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

    /// Those with weight who may be picked: those who are in; if nobody is, or they panic, those who can be reached; if none can,
    /// all.
    fn tier(&self) -> Tier {
        let any = |tier: &Tier| self.endpoints.iter().any(|it| it.weight > 0 && tier.admits(vitals_of(&it.endpoint)));
        let usual = if self.panics { Tier::Reachable } else { Tier::In };
        [usual, Tier::Reachable].into_iter().find(any).unwrap_or(Tier::All)
    }

    fn counts(&self) -> Counts {
        let of_weight = self.endpoints.iter().filter(|it| it.weight > 0).map(|it| vitals_of(&it.endpoint));
        let count = |is_one: fn(&Vitals) -> bool| of_weight.clone().filter(|it| is_one(it)).count();
        Counts { all: of_weight.clone().count(), reachable: count(Vitals::is_reachable), within: count(Vitals::is_in) }
    }

    /// Makes what is drawn from anew.
    fn redraw(&mut self) {
        let percent = self.settings.panic_percent;
        self.panics = percent > 0 && self.counts().are_below(percent) && !self.takes_over(Vitals::is_in);
        let tier = self.tier();
        self.tier = tier;
        self.drawn.clear();
        self.parts.clear();
        let mut load_up_to = 0;
        for (distance, load) in self.loads(|vitals| tier.admits(vitals)) {
            let (from, mut uniform, mut up_to) = (self.drawn.len(), true, 0);
            let near = self.endpoints.iter().filter(|it| it.distance == distance && it.weight > 0);
            for it in near.filter(|it| tier.admits(vitals_of(&it.endpoint))) {
                up_to += it.weight;
                uniform &= up_to == it.weight * ((self.drawn.len() - from) as u64 + 1);
                self.drawn.push(Drawn { endpoint: Rc::clone(&it.endpoint), weight: it.weight, up_to });
            }
            load_up_to += load;
            let to = self.drawn.len();
            if to > from {
                self.parts.push(Part { from, to, distance, uniform, load_up_to });
            }
        }
        let those = |is_one: fn(&Vitals, u64) -> bool| {
            let of_them = self.endpoints.iter().filter(move |it| is_one(vitals_of(&it.endpoint), it.weight));
            of_them.map(|it| Rc::clone(&it.endpoint)).collect()
        };
        self.unreachable = those(|it, _| !it.is_reachable());
        self.ejected = those(|it, weight| it.is_ejected() && weight > 0);
        if let Way::RoundRobin(turns) = &mut self.way {
            let of_part = |part: &Part| Turns::new(self.drawn[part.from..part.to].iter().map(|drawn| drawn.weight));
            *turns = self.parts.iter().map(of_part).collect();
        }
    }

    /// By weight. Where what is drawn is to be avoided, the next one after it that isn't; it itself if there is none.
    fn draw(&self, part: &Part, now: Duration, dice: u64, avoid: &[Rc<E>]) -> Option<usize> {
        let among = &self.drawn[part.from..part.to];
        let drawn = match self.warming(now) {
            None => {
                let at = below(dice, among.last()?.up_to);
                among.partition_point(|drawn| drawn.up_to <= at)
            }
            Some(slow) => Self::draw_warming(among, slow, now, dice)?,
        };
        let drawn = part.from + drawn;
        self.from(part, drawn, avoid).or(Some(drawn))
    }

    /// One other than `first`, so that two are compared wherever there are two.
    fn other(&self, part: &Part, first: usize, dice: u64, avoid: &[Rc<E>]) -> Option<usize> {
        let all = part.to - part.from;
        let count = u64::try_from(all).ok()?;
        let skip = usize::try_from(below(dice, count.checked_sub(1)?)).ok()?;
        let other = self.from(part, part.from + (first - part.from + 1 + skip) % all, avoid)?;
        (other != first).then_some(other)
    }

    /// The first of the part from `start` on, round its end, that is not to be avoided.
    fn from(&self, part: &Part, start: usize, avoid: &[Rc<E>]) -> Option<usize> {
        let avoided = |at: usize| avoid.iter().any(|endpoint| Rc::ptr_eq(endpoint, &self.drawn[at].endpoint));
        (start..part.to).chain(part.from..start).find(|at| !avoided(*at))
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

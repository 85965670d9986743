//! Endpoints by how near they are to the caller: the nearest take what they can, and the rest goes on to those behind them.
//! As near ones fail, load moves on gradually, by what those that are left can take.

#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::time::Duration;

use super::{Balancer, Purpose, Vitals, Weighted, vitals_of};
use crate::{below, next_dice};

/// What is wanted of an endpoint in its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Preference {
    /// Relative to endpoints that are as near.
    pub weight: u32,
    /// How far it is, in steps that only their order means something of: those at less come first.
    pub distance: u8,
}

impl From<u32> for Preference {
    /// As near as any other.
    fn from(weight: u32) -> Self {
        Self { weight, distance: 0 }
    }
}

/// What the endpoints at one distance are taken to carry, in percent of their part that is in: at 140 they take everything
/// until less than 71 % of their weight is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Overprovisioning(pub u32);

impl Default for Overprovisioning {
    fn default() -> Self {
        Self(140)
    }
}

/// All requests, in the parts that loads are told in.
pub(super) const ALL: u64 = 1_000_000;

/// Weights of the endpoints at one distance.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weights {
    pub(super) all: u64,
    /// Of those that may be picked.
    pub(super) admitted: u64,
}

/// The load of each distance, near to far, of [`ALL`]: each takes of what is left as much as it can. Where all together can't
/// take everything, each takes more in proportion. All zero where nobody may be picked.
pub(super) fn loads(weights: &[Weights], overprovisioning: Overprovisioning) -> Vec<u64> {
    let can: Vec<u64> = weights.iter().map(|weights| can(*weights, overprovisioning)).collect();
    let together = sum(&can);
    if together == 0 {
        return can;
    }
    let mut left = ALL;
    let mut loads: Vec<u64> = can.iter().map(|can| take(&mut left, can * ALL / together)).collect();
    // What rounding left goes to the nearest that takes something.
    if let Some(first) = loads.iter_mut().find(|load| **load > 0) {
        *first += left;
    }
    loads
}

/// What the endpoints at one distance can take, of [`ALL`].
fn can(Weights { all, admitted }: Weights, Overprovisioning(percent): Overprovisioning) -> u64 {
    let most = u128::from(ALL);
    let can = most * u128::from(admitted) * u128::from(percent) / (100 * u128::from(all).max(1));
    // Who has a little takes a little: rounded down to nothing, the only one left would be passed over.
    u64::try_from(can.clamp(u128::from(admitted > 0), most)).unwrap_or(ALL)
}

fn sum(can: &[u64]) -> u64 {
    can.iter().fold(0, |sum: u64, can| sum.saturating_add(*can)).min(ALL)
}

fn take(left: &mut u64, wanted: u64) -> u64 {
    let taken = wanted.min(*left);
    *left -= taken;
    taken
}

/// The endpoints at one distance among those drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// Their places among those drawn.
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) distance: u8,
    /// They have one weight.
    pub(super) uniform: bool,
    /// Sum of the loads up to and including theirs, of [`ALL`].
    pub(super) load_up_to: u64,
}

impl<E: AsRef<Vitals>> Balancer<E> {
    /// How far endpoints with weight are, near to far, with the load of each distance.
    pub(super) fn loads(&self, admits: impl Fn(&Vitals) -> bool) -> Vec<(u8, u64)> {
        let (distances, weights): (Vec<u8>, Vec<Weights>) = self.distances(admits).into_iter().unzip();
        distances.into_iter().zip(loads(&weights, self.settings.overprovisioning)).collect()
    }

    /// True where endpoints at some distance take over all that those at others can't any more.
    pub(super) fn takes_over(&self, admits: impl Fn(&Vitals) -> bool) -> bool {
        let distances = self.distances(admits);
        let can: Vec<u64> =
            distances.iter().map(|(_, weights)| can(*weights, self.settings.overprovisioning)).collect();
        can.len() > 1 && sum(&can) == ALL
    }

    /// How far endpoints with weight are, near to far, with their weights.
    fn distances(&self, admits: impl Fn(&Vitals) -> bool) -> Vec<(u8, Weights)> {
        let mut distances: Vec<(u8, Weights)> = Vec::new();
        for it in self.endpoints.iter().filter(|it| it.weight > 0) {
            let at = distances.binary_search_by_key(&it.distance, |(distance, _)| *distance);
            let at = at.unwrap_or_else(|at| {
                distances.insert(at, (it.distance, Weights::default()));
                at
            });
            let weights = &mut distances[at].1;
            weights.all += it.weight;
            weights.admitted += if admits(vitals_of(&it.endpoint)) { it.weight } else { 0 };
        }
        distances
    }

    /// The part whose endpoints take a request, by its number: by the dice, or by the hash of its key, so that a key moves
    /// only with the load. Another attempt goes on to the next part where all of this one are to be avoided.
    pub(super) fn part(&self, key: Option<u64>, dice: &mut u64, avoid: &[Rc<E>]) -> Option<usize> {
        if self.parts.len() < 2 {
            return self.parts.first().map(|_| 0);
        }
        // Its place among endpoints follows from the key, too, and shall have nothing to do with this.
        let at = below(key.map_or_else(|| next_dice(dice), |mut key| next_dice(&mut key)), ALL);
        let chosen = self.parts.partition_point(|part| part.load_up_to <= at).min(self.parts.len() - 1);
        if avoid.is_empty() {
            return Some(chosen);
        }
        let is_avoided = |endpoint: &Rc<E>| avoid.iter().any(|avoided| Rc::ptr_eq(avoided, endpoint));
        let has_other = |part: &usize| {
            let Part { from, to, .. } = self.parts[*part];
            self.drawn[from..to].iter().any(|drawn| !is_avoided(&drawn.endpoint))
        };
        (chosen..self.parts.len()).chain((0..chosen).rev()).find(has_other).or(Some(chosen))
    }

    /// A nearer endpoint that is out and whose trial is due. What goes on to farther ones since it is out may be that: its own
    /// keys never come to it otherwise.
    pub(super) fn nearer_trial(&self, distance: u8, now: Duration, purpose: Purpose) -> Option<&Rc<E>> {
        // Each endpoint is looked at once at the most, and none where nobody is ejected: requests come by here.
        if self.ejected.is_empty() {
            return None;
        }
        let due = |it: &&Weighted<E>| vitals_of(&it.endpoint).standing.borrow_mut().take_trial(now, purpose);
        let mut nearer = self.endpoints.iter().filter(|it| it.distance < distance && it.weight > 0);
        nearer.find(due).map(|it| &it.endpoint)
    }
}

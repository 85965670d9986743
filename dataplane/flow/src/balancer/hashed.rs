//! Consistent hashing: each key has an order of endpoints, which follows from their names alone, and takes the first that
//! may be used. All callers have the same order, and an endpoint that comes or goes moves its own share of the keys.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::next_dice;

/// Points on the ring of an endpoint of weight 1.
const POINTS: u64 = 256;
/// Points of a ring. Where weights ask for more, each endpoint has fewer in proportion.
const MOST_POINTS: u64 = 1 << 16;
/// Slots of a Maglev table, a prime: shares of up to 655 equal endpoints differ by one slot in a hundred.
pub(super) const SLOTS: usize = 65_537;

/// Slots of a table at which a key looks before it goes on from its own.
const ELSEWHERE: usize = 64;

/// An endpoint as it is placed: the hash of its name, and its weight, which is not 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub(super) place: u64,
    pub(super) weight: u64,
}

/// Endpoints by their numbers among those placed.
#[derive(Debug, Default)]
pub(super) struct HashOrder {
    /// In the order in which they follow one another.
    order: Vec<u32>,
    /// Of the ring: the hash up to which a key belongs to each entry. Empty for a table, in which keys are spread evenly.
    up_to: Vec<u64>,
}

impl HashOrder {
    /// Each endpoint at many points of a ring: a key belongs to the first at or after its hash.
    pub(super) fn ring(endpoints: &[Placed]) -> Self {
        let wanted = |shift: u32| endpoints.iter().fold(0, |sum: u64, it| sum.saturating_add(points(*it, shift)));
        let shift = (0..u64::BITS).find(|shift| wanted(*shift) <= MOST_POINTS).unwrap_or(u64::BITS - 1);
        let mut all = Vec::new();
        for (number, endpoint) in (0..).zip(endpoints) {
            let mut dice = endpoint.place;
            all.extend((0..points(*endpoint, shift)).map(|_| (next_dice(&mut dice), number)));
        }
        all.sort_unstable();
        let (up_to, order) = all.into_iter().unzip();
        Self { order, up_to }
    }

    /// Maglev (Eisenbud et al., NSDI 2016, section 3.4): endpoints claim the slots of a table in turn, each in an order of
    /// its own; one of half the weight claims half as often. `slots` is a prime.
    pub(super) fn maglev(endpoints: &[Placed], slots: usize) -> Self {
        Self { order: claimed(endpoints, slots, || {}), up_to: Vec::new() }
    }

    /// Endpoints in the order that a key has, many of them more than once.
    pub(super) fn of(&self, key: u64) -> impl Iterator<Item = usize> {
        let start = if self.up_to.is_empty() {
            usize::try_from(key % (self.order.len() as u64).max(1)).unwrap_or_default()
        } else {
            self.up_to.partition_point(|up_to| *up_to < key)
        };
        let (before, from) = self.order.split_at(start.min(self.order.len()));
        from.iter().chain(before).map(|number| *number as usize)
    }

    /// The same for one of whom the first may be out. Claims of a table go in steps, so that the slots behind those of one
    /// endpoint are mostly the same other's: a key looks at slots of its own first, and all who are in share what is out.
    pub(super) fn choices(&self, key: u64) -> impl Iterator<Item = usize> {
        let slots = if self.up_to.is_empty() { self.order.len() } else { 0 };
        // Not the numbers by which it is chosen how far a key goes.
        let mut dice = !key.rotate_left(32);
        let mut another = move || usize::try_from(next_dice(&mut dice) % slots as u64).unwrap_or_default();
        let elsewhere = if slots == 0 { 0 } else { ELSEWHERE };
        let elsewhere = (0..elsewhere).map(move |_| self.order[another()] as usize);
        self.of(key).take(1).chain(elsewhere).chain(self.of(key))
    }

    /// Parts of all keys, by endpoint.
    #[cfg(test)]
    pub(super) fn shares(&self, endpoints: usize) -> Vec<f64> {
        let mut shares = vec![0.0; endpoints];
        for (at, number) in self.order.iter().enumerate() {
            let part = match self.up_to.get(at) {
                None => 1.0 / self.order.len() as f64,
                // What comes behind the last point is the first's.
                Some(up_to) => {
                    let before = self.up_to[(at + self.up_to.len() - 1) % self.up_to.len()];
                    up_to.wrapping_sub(before) as f64 / 2_f64.powi(64)
                }
            };
            shares[*number as usize] += part;
        }
        shares
    }
}

fn points(endpoint: Placed, shift: u32) -> u64 {
    (endpoint.weight.saturating_mul(POINTS) >> shift).max(1)
}

/// The endpoint of each slot. Whoever is next to claim is known without asking those who are not, so that the work is that of
/// the slots whatever the weights are; `step` is called for each slot that is looked at.
pub(super) fn claimed(endpoints: &[Placed], slots: usize, mut step: impl FnMut()) -> Vec<u32> {
    let Some(heaviest) = endpoints.iter().map(|it| it.weight).max() else { return Vec::new() };
    let mut claims: Vec<Claims> = endpoints.iter().map(|it| Claims::new(*it, heaviest, slots)).collect();
    let mut due: BinaryHeap<_> = (0..).zip(&claims).map(|(number, claims)| Reverse((claims.due(), number))).collect();
    let mut order = vec![u32::MAX; slots];
    for _ in 0..slots {
        let Some(mut first) = due.peek_mut() else { break };
        let Reverse((turn, number)) = &mut *first;
        let claims = &mut claims[*number as usize];
        let slot = claims.next_free(&order, &mut step);
        order[slot] = *number;
        *turn = claims.due();
    }
    order
}

/// The slots that an endpoint would have, in the order in which it would have them.
struct Claims {
    next: usize,
    skip: usize,
    made: u64,
    weight: u64,
    heaviest: u64,
}

impl Claims {
    fn new(endpoint: Placed, heaviest: u64, slots: usize) -> Self {
        let Placed { place: mut dice, weight } = endpoint;
        let mut below = |bound: usize| usize::try_from(next_dice(&mut dice) % bound as u64).unwrap_or_default();
        Self { next: below(slots), skip: below(slots - 1) + 1, made: 0, weight, heaviest }
    }

    /// The turn of the next claim: that in which its turns so far make up for those of the heaviest.
    fn due(&self) -> u64 {
        (self.made + 1).saturating_mul(self.heaviest).div_ceil(self.weight)
    }

    /// Claims the first that nobody has. A prime number of slots: every skip leads to each of them.
    fn next_free(&mut self, order: &[u32], step: &mut impl FnMut()) -> usize {
        self.made += 1;
        loop {
            step();
            let slot = self.next;
            self.next = (self.next + self.skip) % order.len();
            if order[slot] == u32::MAX {
                return slot;
            }
        }
    }
}

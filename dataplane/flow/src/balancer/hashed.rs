//! Consistent hashing: each key has an order of endpoints, which follows from their names alone, and takes the first that
//! may be used. All callers have the same order, and an endpoint that comes or goes moves its own share of the keys.

use crate::next_dice;

/// Points on the ring of an endpoint of weight 1.
const POINTS: u64 = 256;
/// Points of a ring. Where weights ask for more, each endpoint has fewer in proportion.
const MOST_POINTS: u64 = 1 << 16;
/// Slots of a Maglev table, a prime: shares are even to 1 % up to 655 endpoints.
pub(super) const SLOTS: usize = 65_537;

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
    /// its own; one of half the weight claims half as often.
    /// `slots` is a prime.
    pub(super) fn maglev(endpoints: &[Placed], slots: usize) -> Self {
        let Some(heaviest) = endpoints.iter().map(|it| it.weight).max() else { return Self::default() };
        let mut claims: Vec<Claims> = endpoints.iter().map(|it| Claims::new(it.place, slots)).collect();
        let mut order = vec![u32::MAX; slots];
        let mut free = slots;
        while free > 0 {
            for ((number, endpoint), claims) in (0..).zip(endpoints).zip(&mut claims) {
                claims.credit += endpoint.weight;
                if claims.credit < heaviest || free == 0 {
                    continue;
                }
                claims.credit -= heaviest;
                let slot = claims.next_free(&order);
                order[slot] = number;
                free -= 1;
            }
        }
        Self { order, up_to: Vec::new() }
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
}

fn points(endpoint: Placed, shift: u32) -> u64 {
    (endpoint.weight.saturating_mul(POINTS) >> shift).max(1)
}

/// The slots that an endpoint would have, in the order in which it would have them.
struct Claims {
    next: usize,
    skip: usize,
    credit: u64,
}

impl Claims {
    fn new(place: u64, slots: usize) -> Self {
        let mut dice = place;
        let mut below = |bound: usize| usize::try_from(next_dice(&mut dice) % bound as u64).unwrap_or_default();
        Self { next: below(slots), skip: below(slots - 1) + 1, credit: 0 }
    }

    /// The first that nobody has. A prime number of slots: every skip leads to each of them.
    fn next_free(&mut self, order: &[u32]) -> usize {
        loop {
            let slot = self.next;
            self.next = (self.next + self.skip) % order.len();
            if order[slot] == u32::MAX {
                return slot;
            }
        }
    }
}

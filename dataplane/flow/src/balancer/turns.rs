//! Round robin by weight: each endpoint is due once every 1/weight, the one that is due first takes its turn. Of as many
//! turns as the weights add up to, each endpoint has as many as its weight says.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::{below, next_dice};

/// Time between the turns of an endpoint of weight 1. Large, so that dividing it by a weight loses nothing that counts.
const ROUND: u64 = 1 << 48;

/// When an endpoint is due next, and its place among those drawn.
type Due = Reverse<(u128, usize)>;

/// The turns of a set of endpoints that stays as it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    due: RefCell<BinaryHeap<Due>>,
    /// Time between two turns, of each endpoint.
    steps: Vec<u64>,
    /// The first turns are drawn: many callers that learn of a set at once don't begin at the same endpoint.
    begun: Cell<bool>,
}

impl Turns {
    /// Weights are not 0.
    pub(super) fn new(weights: impl Iterator<Item = u64>) -> Self {
        let steps: Vec<u64> = weights.map(|weight| (ROUND / weight.max(1)).max(1)).collect();
        let due = (0..steps.len()).map(|place| Reverse((0, place))).collect();
        Self { due: RefCell::new(due), steps, begun: Cell::new(false) }
    }

    /// The endpoint whose turn it is. `None`: there is none.
    pub(super) fn take(&self, dice: u64) -> Option<usize> {
        self.begin(dice);
        let mut due = self.due.borrow_mut();
        let mut first = due.peek_mut()?;
        let Reverse((at, place)) = &mut *first;
        *at += u128::from(self.steps[*place]);
        Some(*place)
    }

    /// The same, where an endpoint has only the part of its weight that `part_of` tells of its place, of `whole`: its next turn
    /// comes later in proportion.
    pub(super) fn take_slowly(&self, dice: u64, whole: u64, part_of: impl Fn(usize) -> u64) -> Option<usize> {
        self.begin(dice);
        let mut due = self.due.borrow_mut();
        let mut first = due.peek_mut()?;
        let Reverse((at, place)) = &mut *first;
        *at += u128::from(self.steps[*place]) * u128::from(whole) / u128::from(part_of(*place).max(1));
        Some(*place)
    }

    /// The same, and it stays its turn.
    pub(super) fn next(&self, dice: u64) -> Option<usize> {
        self.begin(dice);
        self.due.borrow().peek().map(|Reverse((_, place))| *place)
    }

    fn begin(&self, mut dice: u64) {
        if self.begun.replace(true) {
            return;
        }
        let mut due = self.due.borrow_mut();
        let mut all = std::mem::take(&mut *due).into_vec();
        for Reverse((at, place)) in &mut all {
            *at = below(next_dice(&mut dice), self.steps[*place]).into();
        }
        *due = all.into();
    }
}

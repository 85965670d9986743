//! What the control plane said is not there, which this proxy is told of once it is: so much and no more of it, and of more
//! what was used least lately goes.

use std::collections::{BTreeMap, BTreeSet};

use weft_policy::bundle::Bundle;
use weft_policy::scope::Ask;

/// The order in which such answers came, or were used last.
#[derive(Debug)]
pub(super) struct Absent {
    most: usize,
    order: BTreeMap<Ask, u64>,
    next: u64,
}

impl Absent {
    pub(super) fn new(most: usize) -> Self {
        Self { most, order: BTreeMap::new(), next: 0 }
    }

    /// These answers were used since this was said last.
    pub(super) fn used<'a>(&mut self, answers: impl Iterator<Item = &'a Ask>) {
        for ask in answers {
            if let Some(order) = self.order.get_mut(ask) {
                *order = self.next;
            }
        }
        self.next += 1;
    }

    /// Answers of a bundle to be forgotten, those used least lately first: nothing is there for them, and they are too many.
    pub(super) fn surplus(&mut self, bundle: &Bundle) -> BTreeSet<Ask> {
        for ask in &bundle.answered {
            if !self.order.contains_key(ask) {
                self.order.insert(ask.clone(), self.next);
                self.next += 1;
            }
        }
        self.order.retain(|ask, _| bundle.answered.contains(ask));
        if bundle.answered.len() <= self.most {
            return BTreeSet::new();
        }
        let mut absent: Vec<_> = self.order.iter().filter(|(ask, _)| !bundle.has(ask)).collect();
        if absent.len() <= self.most {
            return BTreeSet::new();
        }
        absent.sort_by_key(|(_, order)| **order);
        // Some more than must go: the next answers find room.
        let surplus = absent.len() - self.most + self.most / 8;
        absent.into_iter().take(surplus).map(|(ask, _)| ask.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use weft_policy::bundle::ObjectName;

    use super::*;

    #[test]
    fn the_answers_used_least_lately_are_forgotten_when_they_are_too_many() {
        let ask = |name: String| Ask::Service(ObjectName::new("shop", name));
        let mut absent = Absent::new(16);
        let mut bundle = Bundle::default();
        for number in (0..16).rev() {
            bundle.answered.insert(ask(format!("n{number}")));
            assert_eq!(absent.surplus(&bundle), BTreeSet::new());
        }
        absent.used([&ask("n14".to_owned()), &ask("unknown".to_owned())].into_iter());
        bundle.answered.insert(ask("one-more".to_owned()));
        let surplus = absent.surplus(&bundle);
        assert_eq!(surplus, ["n15", "n13", "n12"].map(|name| ask(name.to_owned())).into());
        bundle.answered.retain(|ask| !surplus.contains(ask));
        assert_eq!(absent.surplus(&bundle), BTreeSet::new());
    }
}

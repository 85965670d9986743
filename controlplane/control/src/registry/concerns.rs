//! Which of the newest changes a proxy was told of. Invariant: of what is not known it may have been told.

use std::collections::VecDeque;

use weft_policy::bundle::Revision;

/// So many changes of a proxy's own are known, each with those right behind it.
const OWN_CHANGES: usize = 32;

/// Changes that a proxy is told of, since its stream began.
#[derive(Debug, Default)]
pub(super) struct Concerns {
    /// Up to this revision nothing is known.
    from: Revision,
    /// Up to this one all are.
    to: Revision,
    /// Those that it is told of: each behind one revision, up to another.
    own: VecDeque<(Revision, Revision)>,
}

impl Concerns {
    pub(super) fn note(&mut self, revision: Revision, concerns: bool) {
        if revision < self.to {
            // The store was set back: its revisions count anew.
            *self = Self { from: revision, to: revision, own: VecDeque::new() };
            return;
        }
        let before = std::mem::replace(&mut self.to, revision);
        match self.own.back_mut().filter(|(_, last)| *last == before) {
            _ if !concerns => {}
            Some((_, last)) => *last = revision,
            None => {
                if self.own.len() == OWN_CHANGES {
                    self.from = self.own.pop_front().map_or(self.from, |(_, last)| last);
                }
                self.own.push_back((before, revision));
            }
        }
    }

    /// False for a change of which it is known that the proxy is told nothing.
    pub(super) fn may_have(&self, revision: Revision) -> bool {
        let is_own = |(behind, last): &(Revision, Revision)| *behind < revision && revision <= *last;
        revision <= self.from || self.to < revision || self.own.iter().any(is_own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_the_proxys_own_or_it_is_known_not_to_be() {
        let mut concerns = Concerns::default();
        let own = |concerns: &Concerns| -> Vec<u64> { (1..20).filter(|it| concerns.may_have(Revision(*it))).collect() };
        concerns.note(Revision(3), true);
        concerns.note(Revision(4), false);
        concerns.note(Revision(6), true);
        concerns.note(Revision(7), true);
        concerns.note(Revision(17), false);
        assert_eq!(own(&concerns), [1, 2, 3, 5, 6, 7, 18, 19]);
        for revision in (100..).step_by(2).take(OWN_CHANGES - 1) {
            concerns.note(Revision(revision), true);
            concerns.note(Revision(revision + 1), false);
        }
        assert_eq!(concerns.own.len(), OWN_CHANGES);
        assert!(concerns.may_have(Revision(3)) && !concerns.may_have(Revision(4)), "the first is known no longer");
        // A store that was set back counts anew.
        concerns.note(Revision(90), true);
        concerns.note(Revision(91), true);
        concerns.note(Revision(92), false);
        let may_have: Vec<_> = (89..94).filter(|it| concerns.may_have(Revision(*it))).collect();
        assert_eq!(may_have, [89, 90, 91, 93]);
    }
}

//! What a proxy asked for that holds only what it uses. Invariant: it is told that something is answered only together with
//! every object of it, or where there is none; what it has an older part of stays unanswered.

use std::collections::BTreeSet;
use std::sync::Arc;

use weft_policy::bundle::ObjectName;
use weft_policy::delta::Key;
use weft_policy::identity::SpiffeId;
use weft_policy::scope::Ask;
use weft_policy::wire::v1;

use crate::rate::Part;
use crate::told::{Shared, Told};
use crate::view::View;

/// How much of what is not there a proxy may ask for, and what its account has of that.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) most: usize,
    pub(super) of_account: Part<SpiffeId>,
}

#[derive(Debug)]
pub(super) struct Scope {
    asked: BTreeSet<Ask>,
    /// What there was not of it when that was looked at last.
    absent: BTreeSet<Ask>,
    places: Places,
    answered: BTreeSet<Ask>,
    /// With the delta that was sent last.
    in_flight: BTreeSet<Ask>,
    /// That one has nothing but answers.
    is_empty: bool,
    /// The services that follow, by the world that was looked at last.
    services: Arc<BTreeSet<ObjectName>>,
    /// Counts what was asked for.
    number: u64,
    sent_number: u64,
    /// Answered ahead of the delta in flight, up to this number.
    ahead_number: u64,
    /// Something was asked for since that world was looked at.
    is_changed: bool,
    /// Answers alone were refused: nothing is answered until something else is told, or for a while.
    is_paused: bool,
}

impl Scope {
    /// Of a proxy that asked for this before.
    pub(super) fn new(asked: impl IntoIterator<Item = v1::Ask>, told: &Shared, places: Places) -> (Self, usize) {
        let mut scope = Self {
            asked: BTreeSet::new(),
            absent: BTreeSet::new(),
            places,
            answered: BTreeSet::new(),
            in_flight: BTreeSet::new(),
            is_empty: false,
            services: Arc::default(),
            number: 0,
            sent_number: 0,
            ahead_number: 0,
            is_changed: false,
            is_paused: false,
        };
        let left = scope.take((asked, []), told);
        (scope, left)
    }

    /// Takes what the proxy wants and what it no longer wants. What this version does not know stays unanswered, and so does
    /// what there is not where the proxy or its account has no place for it: nobody holds memory for names that he makes up,
    /// and no proxy is told of an absence that it would not hear the end of. Gives the number of the latter.
    pub(super) fn take(
        &mut self,
        (wanted, forgotten): (impl IntoIterator<Item = v1::Ask>, impl IntoIterator<Item = v1::Ask>),
        told: &Shared,
    ) -> usize {
        for ask in forgotten.into_iter().filter_map(|ask| Ask::try_from(ask).ok()) {
            self.asked.remove(&ask);
            self.answered.remove(&ask);
            self.in_flight.remove(&ask);
            if self.absent.remove(&ask) {
                self.places.of_account.settle(self.absent.len());
            }
        }
        let mut left = 0;
        for ask in wanted.into_iter().filter_map(|ask| Ask::try_from(ask).ok()) {
            if !self.asked.contains(&ask) && told.meant(&ask).is_empty() {
                if self.absent.len() >= self.places.most || self.places.of_account.grow(1).is_err() {
                    left += 1;
                    continue;
                }
                self.absent.insert(ask.clone());
            }
            // A proxy that asks again does not know that it is answered.
            self.answered.remove(&ask);
            self.asked.insert(ask);
        }
        self.number += 1;
        self.is_changed = true;
        left
    }

    /// True where something waits for the answer to the delta in flight.
    pub(super) fn waits_for_flight(&self) -> bool {
        let is_news = self.number > self.sent_number || !self.in_flight.is_empty();
        is_news && self.number > self.ahead_number && !self.is_paused
    }

    /// What was asked for by now was answered ahead of the delta in flight, as far as it could be.
    pub(super) fn went_ahead(&mut self) {
        self.ahead_number = self.number;
    }

    /// True where something was asked for since a world was looked at.
    pub(super) fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// The number of the delta that was sent last.
    pub(super) fn sent_number(&self) -> u64 {
        self.sent_number
    }

    /// Which of several views of one revision this is.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// False where the world `told` holds nothing for this proxy that the world `before` did not.
    pub(super) fn is_concerned(&self, told: &Shared, before: Option<&Shared>, served: &[ObjectName]) -> bool {
        let concerns = |before| told.concerns(before, served, &self.asked, &self.services);
        self.is_changed || before.is_none_or(concerns)
    }

    /// Everything that the proxy is to hold.
    pub(super) fn look_at(&mut self, told: &Shared, served: &[ObjectName]) -> Vec<Arc<Told>> {
        self.services = Arc::new(told.scope(served, &self.asked));
        // What was there may be gone by now, and the other way round.
        self.absent = self.asked.iter().filter(|ask| told.meant(ask).is_empty()).cloned().collect();
        self.places.of_account.settle(self.absent.len());
        self.is_changed = false;
        told.of_scope(served, &self.services)
    }

    /// So many names and addresses the proxy is told of.
    pub(super) fn subscriptions(&self) -> usize {
        self.asked.len()
    }

    pub(super) fn services(&self) -> &Arc<BTreeSet<ObjectName>> {
        &self.services
    }

    /// True where something waits for an answer that could be given now.
    pub(super) fn has_questions(&self) -> bool {
        !self.is_paused && self.asked.iter().any(|ask| !self.answered.contains(ask))
    }

    /// What the next delta answers. `is_certain`: what is not there is known not to be.
    pub(super) fn answers(&self, told: &Shared, view: &View, is_certain: bool) -> BTreeSet<Ask> {
        if self.is_paused {
            return BTreeSet::new();
        }
        let is_whole = |ask: &&Ask| {
            let meant = told.meant(ask);
            (is_certain || !meant.is_empty())
                && meant.into_iter().all(|service| !view.held().contains_key(&Key::Service(service)))
        };
        self.asked.difference(&self.answered).filter(is_whole).cloned().collect()
    }

    pub(super) fn sent(&mut self, answers: BTreeSet<Ask>, is_empty: bool) {
        self.in_flight = answers;
        self.is_empty = is_empty;
        self.sent_number = self.number;
    }

    /// The proxy took the delta with these answers, or it did not.
    pub(super) fn handle_answer(&mut self, is_taken: bool) {
        let answers = std::mem::take(&mut self.in_flight);
        // An object that was refused is held back and can't spoil the answers again.
        self.is_paused = !is_taken && self.is_empty && !answers.is_empty();
        if is_taken {
            // What was forgotten meanwhile is no longer told of.
            self.answered.extend(answers);
        }
    }

    /// What was refused is tried again.
    pub(super) fn resume(&mut self) {
        self.is_paused = false;
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused
    }
}

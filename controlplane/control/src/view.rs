//! What one proxy holds, what it was sent, what it refused: decides what to send next. Sans-IO: objects are known here by
//! name and version (a digest of their content) only. Invariants: one delta is in flight at a time; what a proxy refused
//! is not sent to it again until it changes, while everything else goes on.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use weft_policy::bundle::Revision;

/// An object on the wire, by kind and name.
pub type ObjectId = (String, String);
/// A digest of an object's content.
pub type Version = String;
/// A whole bundle by names and versions.
pub type Versions = BTreeMap<ObjectId, Version>;

/// A delta to send, by names; the caller adds the contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub revision: Revision,
    pub upserts: Vec<ObjectId>,
    pub removals: Vec<ObjectId>,
}

/// An object that the proxy refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The refused version; `None`: its removal was refused.
    pub version: Option<Version>,
    pub revision: Revision,
    pub reason: String,
}

/// What an answer of the proxy did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It belongs to the delta in flight.
    Taken,
    /// It answers nothing that is in flight: late or invented, and ignored.
    Stray,
}

/// The state of one proxy's stream.
#[derive(Debug, Default)]
pub struct View {
    /// What the proxy is known to hold.
    holds: Versions,
    held: BTreeMap<ObjectId, Held>,
    in_flight: Option<InFlight>,
    /// The newest revision whose every object, but for held ones, the proxy holds.
    synced: Revision,
    greeted: bool,
}

#[derive(Debug)]
struct InFlight {
    revision: Revision,
    /// New version of each object in the delta; `None` = removed.
    changes: BTreeMap<ObjectId, Option<Version>>,
}

impl View {
    /// Starts from what a proxy says it holds; `revision` only names it.
    pub fn new(known: Versions) -> Self {
        Self { holds: known, ..Self::default() }
    }

    /// The delta that leads to `target`, if there is one to send now. The first is given even if empty, so that a proxy
    /// learns that it is up to date.
    pub fn poll_delta(&mut self, revision: Revision, target: &Versions) -> Option<Plan> {
        if self.in_flight.is_some() {
            return None;
        }
        self.held.retain(|id, held| target.get(id) == held.version.as_ref());
        let is_new = |(id, version): &(&ObjectId, &Version)| {
            self.holds.get(*id) != Some(*version) && !self.held.contains_key(*id)
        };
        let upserts: Vec<_> = target.iter().filter(is_new).map(|(id, _)| id.clone()).collect();
        let is_gone = |id: &&ObjectId| !target.contains_key(*id) && !self.held.contains_key(*id);
        let removals: Vec<_> = self.holds.keys().filter(is_gone).cloned().collect();
        if upserts.is_empty() && removals.is_empty() && self.greeted {
            self.synced = self.synced.max(revision);
            return None;
        }
        self.greeted = true;
        let sent = upserts.iter().map(|id| (id.clone(), target.get(id).cloned()));
        let changes = sent.chain(removals.iter().map(|id| (id.clone(), None))).collect();
        self.in_flight = Some(InFlight { revision, changes });
        Some(Plan { revision, upserts, removals })
    }

    pub fn handle_ack(&mut self, revision: Revision) -> Answer {
        let Some(sent) = self.in_flight.take_if(|sent| sent.revision == revision) else { return Answer::Stray };
        for (id, version) in sent.changes {
            match version {
                Some(version) => self.holds.insert(id, version),
                None => self.holds.remove(&id),
            };
        }
        self.synced = self.synced.max(revision);
        Answer::Taken
    }

    /// The proxy keeps what it had. The object at fault is held back; where it names none of the delta's, all of the
    /// delta are.
    pub fn handle_nack(&mut self, revision: Revision, object: &ObjectId, reason: &str) -> Answer {
        let Some(sent) = self.in_flight.take_if(|sent| sent.revision == revision) else { return Answer::Stray };
        let named = sent.changes.contains_key(object);
        for (id, version) in sent.changes {
            if !named || id == *object {
                self.held.insert(id, Held { version, revision, reason: reason.to_owned() });
            }
        }
        Answer::Taken
    }

    /// Parts of these objects were taken away by a subtractive delta: whatever the proxy holds of them now, it is no
    /// version known here, so the next delta brings them whole.
    pub fn handle_subtraction(&mut self, objects: &BTreeSet<ObjectId>) {
        for id in objects {
            if let Some(version) = self.holds.get_mut(id) {
                version.clear();
            }
            if let Some(Some(version)) = self.in_flight.as_mut().and_then(|sent| sent.changes.get_mut(id)) {
                version.clear();
            }
        }
    }

    /// The newest revision that this proxy is in step with.
    pub fn synced(&self) -> Revision {
        self.synced
    }

    pub fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    pub fn held(&self) -> &BTreeMap<ObjectId, Held> {
        &self.held
    }
}

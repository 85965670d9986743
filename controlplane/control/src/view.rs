//! State of one proxy: the objects that it holds, was sent and refused; decides what to send next. Sans-IO: objects are
//! known by name and version. One delta is in flight at a time. What a proxy refused is not sent again until it changes or
//! is released, what it can't do is withheld and stays as it has it, and everything else goes on; but a proxy that holds
//! nothing never gets a world without a filter: it would serve unprotected.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use weft_policy::bundle::Revision;
use weft_policy::delta::Key;
pub use weft_policy::delta::Versions;

/// A hash of an object's content.
pub type Version = u64;

/// What a proxy is to hold.
pub trait Wanted {
    fn version(&self, key: &Key) -> Option<Version>;
    fn each(&self) -> impl Iterator<Item = (&Key, Version)>;
}

impl Wanted for Versions {
    fn version(&self, key: &Key) -> Option<Version> {
        self.get(key).copied()
    }

    fn each(&self) -> impl Iterator<Item = (&Key, Version)> {
        self.iter().map(|(key, version)| (key, *version))
    }
}

/// A delta to send, by names; the caller adds the contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub revision: Revision,
    pub upserts: Vec<Key>,
    pub removals: Vec<Key>,
}

/// An object that the proxy refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The refused version; `None`: its removal was refused.
    pub version: Option<Version>,
    pub revision: Revision,
    pub reason: String,
}

/// Effect of a proxy's answer.
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
    /// Objects that the proxy holds; `None`: it holds only some of the object, after parts were cut away.
    holds: BTreeMap<Key, Option<Version>>,
    /// Objects that were sent ahead of a delta in flight, which no proxy answers: it may have them or not.
    ahead: BTreeSet<Key>,
    held: BTreeMap<Key, Held>,
    /// Objects that the proxy lacks a capability for.
    withheld: BTreeMap<Key, Held>,
    /// Routes that the proxy refused while it had none of their rules, and ExternalServices that it refused: it gets
    /// them closed.
    unread: BTreeMap<Key, Unread>,
    /// Versions of their closed forms, where that was asked.
    closed: BTreeMap<Key, Version>,
    /// The first world, as it was refused by a proxy that has none.
    refused_start: Option<Versions>,
    in_flight: Option<InFlight>,
    /// Filters that the proxy took and is still making ready, with their versions and the revisions that brought them: what it
    /// had in their place goes on.
    pending: BTreeMap<Key, (Version, Revision)>,
    /// The newest revision whose every object, but for held ones, the proxy holds.
    synced: Revision,
    /// The same where pending ones are left out.
    reached: Revision,
    greeted: bool,
}

/// A route or an ExternalService that a proxy can't read.
#[derive(Debug)]
struct Unread {
    version: Version,
    reason: String,
    /// It is sent as it is once more.
    trying: bool,
}

#[derive(Debug)]
struct InFlight {
    revision: Revision,
    changes: BTreeMap<Key, Change>,
}

#[derive(Debug)]
struct Change {
    /// `None` = removed.
    version: Option<Version>,
    /// A subtractive delta or an answer overtook it: what the proxy will hold isn't quite this version.
    cut: bool,
    /// An answer brought it, after this was sent.
    ahead: bool,
}

impl View {
    /// Starts from what a proxy says it holds; `revision` only names it.
    pub fn new(known: Versions) -> Self {
        let holds = known.into_iter().map(|(key, version)| (key, Some(version))).collect();
        Self { holds, ..Self::default() }
    }

    /// The delta that leads to `target`, if there is one to send now. The first is given even if empty, so that a proxy
    /// learns that it is up to date.
    pub fn poll_delta(&mut self, revision: Revision, target: &impl Wanted) -> Option<Plan> {
        if self.in_flight.is_some() {
            return None;
        }
        let is_that = |start: &Versions| start.iter().map(|(key, version)| (key, *version)).eq(target.each());
        if self.refused_start.as_ref().is_some_and(is_that) {
            return None;
        }
        if self.waits() {
            return None;
        }
        if self.refused_start.take().is_some() {
            self.held.clear();
        }
        self.held.retain(|key, held| target.version(key) == held.version);
        self.unread.retain(|key, _| target.version(key).is_some() || self.withheld.contains_key(key));
        let has = |key: &Key, version: Version| match self.pending.get(key) {
            Some((pending, _)) => *pending == version,
            None => self.has(key, version),
        };
        let is_new = |(key, version): &(&Key, Version)| {
            !has(key, *version) && !self.held.contains_key(*key) && self.unread(key, *version).is_none()
        };
        let upserts: Vec<_> = target.each().filter(is_new).map(|(key, _)| key.clone()).collect();
        let is_gone = |key: &&Key| {
            target.version(key).is_none() && !self.held.contains_key(*key) && !self.withheld.contains_key(*key)
        };
        let all: BTreeSet<_> = self.holds.keys().chain(&self.ahead).chain(self.pending.keys()).collect();
        let removals: Vec<_> = all.into_iter().filter(is_gone).cloned().collect();
        if upserts.is_empty() && removals.is_empty() && self.greeted {
            self.reach(revision);
            return None;
        }
        self.greeted = true;
        let change = |key: &Key| (key.clone(), Change { version: target.version(key), cut: false, ahead: false });
        let changes = upserts.iter().chain(&removals).map(change).collect();
        self.in_flight = Some(InFlight { revision, changes });
        Some(Plan { revision, upserts, removals })
    }

    /// A delta without changes, which is in flight as any other.
    pub fn poll_empty(&mut self, revision: Revision) -> Option<Plan> {
        if self.in_flight.is_some() || self.waits() {
            return None;
        }
        self.in_flight = Some(InFlight { revision, changes: BTreeMap::new() });
        Some(Plan { revision, upserts: Vec::new(), removals: Vec::new() })
    }

    /// Names the objects that the proxy can't do, in place of the earlier ones, by version and why. What it has of them
    /// stays; a target may hold others under their names.
    pub fn withhold(&mut self, revision: Revision, withheld: BTreeMap<Key, (Version, String)>) {
        let mut before = std::mem::take(&mut self.withheld);
        for (key, (version, reason)) in withheld {
            let same = before.remove(&key).filter(|held| held.version == Some(version));
            let held = same.unwrap_or(Held { version: Some(version), revision, reason });
            self.withheld.insert(key, held);
        }
    }

    /// True where a proxy that has nothing is told nothing, since what would protect it can't be told.
    pub fn waits(&self) -> bool {
        self.holds.is_empty() && self.withheld.keys().any(protects)
    }

    /// True where the proxy has no version at all of an object.
    pub fn is_without(&self, key: &Key) -> bool {
        !self.holds.contains_key(key)
    }

    /// The closed form of a route or an ExternalService has this version.
    pub fn note_closed(&mut self, key: Key, version: Version) {
        self.closed.insert(key, version);
    }

    /// Why the proxy could not read this version of a route, of which it has nothing but its closed form.
    pub fn unread(&self, key: &Key, version: Version) -> Option<&str> {
        let unread = self.unread.get(key).filter(|unread| unread.version == version && !unread.trying);
        unread.map(|unread| unread.reason.as_str())
    }

    /// True where something is to be tried again.
    pub fn holds_back(&self) -> bool {
        !self.held.is_empty() || !self.unread.is_empty()
    }

    /// The proxy has everything of this revision, but for what is pending.
    fn reach(&mut self, revision: Revision) {
        self.reached = self.reached.max(revision);
        if self.pending.is_empty() {
            self.synced = self.synced.max(self.reached);
        }
    }

    /// The proxy applied the delta, but for the objects that it `skipped` because it does not know their kind.
    pub fn handle_ack(&mut self, revision: Revision, skipped: &[Key]) -> Answer {
        self.handle_stage(revision, skipped, &BTreeSet::new())
    }

    /// The same where it is still making some filters ready, which [`View::handle_settled`] ends.
    pub fn handle_stage(&mut self, revision: Revision, skipped: &[Key], pending: &BTreeSet<Key>) -> Answer {
        let Some(mut sent) = self.in_flight.take_if(|sent| sent.revision == revision) else { return Answer::Stray };
        for key in skipped {
            if let Some(Change { version, .. }) = sent.changes.remove(key) {
                let reason = "skipped: this proxy does not know its kind".to_owned();
                self.held.insert(key.clone(), Held { version, revision, reason });
            }
        }
        for (key, change) in sent.changes {
            if change.version.is_none() || change.version != self.closed.get(&key).copied() {
                self.unread.remove(&key);
            }
            if !change.ahead {
                self.ahead.remove(&key);
            }
            self.pending.remove(&key);
            match change.version {
                Some(version) if matches!(key, Key::Filter(_)) && pending.contains(&key) => {
                    self.pending.insert(key, (version, revision));
                }
                Some(version) => {
                    self.holds.insert(key, (!change.cut).then_some(version));
                }
                None => {
                    self.holds.remove(&key);
                }
            }
        }
        self.reach(revision);
        Answer::Taken
    }

    /// A pending filter came into force, or the proxy can't use it and says why. Of another version than is pending nothing
    /// is believed.
    pub fn handle_settled(&mut self, key: &Key, version: Version, refused: Option<&str>) -> Answer {
        let Some(&(_, revision)) = self.pending.get(key).filter(|(pending, _)| *pending == version) else {
            return Answer::Stray;
        };
        self.pending.remove(key);
        // What it has of one that it can't use is no version known here: what is told next of it is sent, whatever it is.
        self.holds.insert(key.clone(), refused.is_none().then_some(version));
        if let Some(reason) = refused {
            let held = Held { version: Some(version), revision, reason: reason.to_owned() };
            self.held.insert(key.clone(), held);
        }
        self.reach(self.reached);
        Answer::Taken
    }

    /// Filters that the proxy is still making ready.
    pub fn pending(&self) -> impl Iterator<Item = &Key> {
        self.pending.keys()
    }

    /// The proxy keeps what it had. The object at fault is held back; where it names none of the delta's, all of the
    /// delta are.
    pub fn handle_nack(&mut self, revision: Revision, object: Option<&Key>, reason: &str) -> Answer {
        let Some(sent) = self.in_flight.take_if(|sent| sent.revision == revision) else { return Answer::Stray };
        let named = object.filter(|key| sent.changes.contains_key(key));
        if self.holds.is_empty() && named.is_none_or(protects) {
            let held = self.held.iter().map(|(key, held)| (key.clone(), held.version));
            let all = sent.changes.iter().map(|(key, change)| (key.clone(), change.version)).chain(held);
            self.refused_start = Some(all.filter_map(|(key, version)| Some((key, version?))).collect());
        }
        let unread = named.filter(|key| self.is_closed_when_refused(key)).cloned();
        for (key, change) in sent.changes {
            // Its closed form refused as well is held back as any other object.
            let is_closed = change.version.is_some() && change.version == self.closed.get(&key).copied();
            if let Some(version) = change.version
                && unread.as_ref() == Some(&key)
                && !is_closed
            {
                self.unread.insert(key, Unread { version, reason: reason.to_owned(), trying: false });
            } else if named.is_none_or(|named| *named == key) {
                self.held.insert(key, Held { version: change.version, revision, reason: reason.to_owned() });
            }
        }
        Answer::Taken
    }

    /// True for what a proxy that refuses it gets closed: a route of which it has no rules, and an ExternalService,
    /// whose hosts are otherwise anybody's where everything is let out.
    fn is_closed_when_refused(&self, key: &Key) -> bool {
        match key {
            Key::Route(_) => self.has_no_rules(key),
            Key::External(_) => true,
            Key::Mesh | Key::Workload(_) | Key::Service(_) | Key::Filter(_) | Key::Endpoint { .. } => false,
        }
    }

    /// True where the proxy has nothing of a route, or its closed form.
    fn has_no_rules(&self, key: &Key) -> bool {
        match self.holds.get(key) {
            None => true,
            Some(version) => version.is_some() && *version == self.closed.get(key).copied(),
        }
    }

    /// Holds nothing back any longer: what was refused is tried again, since the reason may have gone.
    pub fn release_held(&mut self) {
        self.held.clear();
        self.unread.values_mut().for_each(|unread| unread.trying = true);
        self.refused_start = None;
    }

    /// Parts of these objects were taken away by a subtractive delta: whatever the proxy holds of them now, it is no
    /// version known here, so the next delta brings them whole.
    pub fn handle_subtraction(&mut self, objects: &BTreeSet<Key>) {
        for key in objects {
            if let Some(version) = self.holds.get_mut(key) {
                *version = None;
            }
            if let Some(change) = self.in_flight.as_mut().and_then(|sent| sent.changes.get_mut(key)) {
                change.cut = true;
            }
        }
    }

    /// These objects were sent ahead of the delta in flight. Nobody says whether the proxy took them: the next delta brings
    /// them again, or takes them away.
    pub fn handle_ahead(&mut self, objects: impl IntoIterator<Item = Key>) {
        for key in objects {
            if let Some(version) = self.holds.get_mut(&key) {
                *version = None;
            }
            if let Some(change) = self.in_flight.as_mut().and_then(|sent| sent.changes.get_mut(&key)) {
                (change.cut, change.ahead) = (true, true);
            }
            self.ahead.insert(key);
        }
    }

    /// True where the proxy has this version of an object.
    pub fn has(&self, key: &Key, version: Version) -> bool {
        self.holds.get(key) == Some(&Some(version))
    }

    /// True while a delta is in flight that brings a filter, to a proxy that serves already: it takes its time.
    pub fn is_preparing(&self) -> bool {
        let brings = |sent: &InFlight| {
            sent.changes.iter().any(|(key, change)| matches!(key, Key::Filter(_)) && change.version.is_some())
        };
        !self.holds.is_empty() && self.in_flight.as_ref().is_some_and(brings)
    }

    /// The newest revision that this proxy is in step with.
    pub fn synced(&self) -> Revision {
        self.synced
    }

    /// The proxy has everything that it was to have, refused nothing, and nothing is kept from it.
    pub fn is_at_rest(&self) -> bool {
        let refused =
            self.refused_start.is_some() || self.waits() || !self.held.is_empty() || !self.withheld.is_empty();
        self.greeted && self.in_flight.is_none() && self.pending.is_empty() && !refused
    }

    /// There is a newer world in which nothing of it is different.
    pub fn pass_by(&mut self, revision: Revision) {
        self.reach(revision);
    }

    /// Revisions count anew from here on, as those of a store that was set back do: what the proxy was in step with before says
    /// nothing of them.
    pub fn begin_anew(&mut self) {
        (self.synced, self.reached) = (Revision::default(), Revision::default());
    }

    pub fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    pub fn held(&self) -> &BTreeMap<Key, Held> {
        &self.held
    }

    pub fn withheld(&self) -> &BTreeMap<Key, Held> {
        &self.withheld
    }
}

/// Objects without which a proxy would let more through than is meant.
fn protects(key: &Key) -> bool {
    match key {
        Key::Mesh | Key::Filter(_) => true,
        Key::Workload(_) | Key::Service(_) | Key::Route(_) | Key::External(_) | Key::Endpoint { .. } => false,
    }
}

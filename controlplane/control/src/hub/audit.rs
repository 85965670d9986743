//! The audit log: who did what, from where, what it changed, and what was refused. Invariant: what operators did is in a
//! table of its own, which no proxy, no refused attempt and no stranger can push an entry out of; attempts cost a
//! bounded number of writes however many there are.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::sync::Notify;
use weft_policy::plan::{Action, Change};
use weft_policy::resource::ObjectKey;

use super::{Draft, Hub, now_unix_ms};
use crate::access::{Rights, Verb};
use crate::rate::Rates;
use crate::store::{AuditEntry, AuditLog, AuditQuery, StoreError, Write};
use crate::token::Role;

/// Bytes of a change's difference that are kept.
const MAX_DIFF: usize = 32 << 10;
/// Bytes of every other text of an entry.
const MAX_TEXT: usize = 4 << 10;
/// Refused attempts that one token, or one stranger's address, gets an entry for in a minute; others are counted.
const ATTEMPTS_PER_MINUTE: u32 = 30;
/// The same for all strangers together.
const STRANGERS_PER_MINUTE: u32 = 120;
/// Attempts that wait to be written; others are counted.
const MAX_WAITING: usize = 512;
/// The longest that an attempt waits for others, with which it is written.
const GATHER: Duration = Duration::from_millis(100);

/// Whoever does something.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actor {
    /// `operator:<token id>`, `proxy:<identity>/<name>`, `system`, or `unknown` for one who shows no valid token.
    pub id: String,
    /// The name of the token.
    pub name: String,
    pub role: Option<Role>,
    pub from: Option<IpAddr>,
    /// The addresses that its objects may take; `None`: any.
    pub addresses: Option<BTreeSet<IpNet>>,
    /// The rights of a token for some namespaces; `None`: everything may be told to it.
    pub bound: Option<Rights>,
}

impl Actor {
    /// True where it may read an object.
    pub(crate) fn sees(&self, key: &ObjectKey) -> bool {
        self.bound.as_ref().is_none_or(|rights| rights.may_object(Verb::Read, key).is_ok())
    }
}

impl From<&str> for Actor {
    fn from(id: &str) -> Self {
        Self { id: id.to_owned(), ..Self::default() }
    }
}

impl From<String> for Actor {
    fn from(id: String) -> Self {
        Self { id, ..Self::default() }
    }
}

impl From<&Self> for Actor {
    fn from(actor: &Self) -> Self {
        actor.clone()
    }
}

impl AuditEntry {
    pub(crate) fn new(actor: impl Into<Actor>, action: &str, object: String, detail: String) -> Self {
        let Actor { id, name, role, from, addresses: _, bound: _ } = actor.into();
        Self {
            time_unix_ms: now_unix_ms(),
            actor: id,
            name,
            role: role.map(|role| role.as_str().to_owned()).unwrap_or_default(),
            from: from.map(|from| from.to_string()).unwrap_or_default(),
            action: action.to_owned(),
            object: cut(object, MAX_TEXT),
            revision: 0,
            detail: cut(detail, MAX_TEXT),
            diff: String::new(),
            namespaces: Vec::new(),
            refused: String::new(),
        }
    }

    /// Names the namespaces that it is about: whose token is for them may read it.
    pub(crate) fn within(&mut self, namespaces: impl IntoIterator<Item = String>) -> &mut Self {
        self.namespaces.extend(namespaces);
        self.namespaces.sort();
        self.namespaces.dedup();
        self
    }

    /// Marks it as an attempt that came to nothing.
    pub(crate) fn refused(&mut self, why: &str) -> &mut Self {
        why.clone_into(&mut self.refused);
        self
    }

    /// Adds what a change changed.
    pub(crate) fn showing(&mut self, changes: &[Change]) -> &mut Self {
        let mut diff = String::new();
        for change in changes.iter().filter(|change| change.action != Action::Unchanged) {
            if diff.len() <= MAX_DIFF {
                diff.push_str(&format!("{}\n{}", change.object, change.diff));
            }
        }
        self.diff = cut(diff, MAX_DIFF);
        self.within(changes.iter().map(|change| change.object.namespace.clone()))
    }
}

/// The beginning of a text, with a word that there was more.
fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let whole = text.len();
        text.truncate(text.floor_char_boundary(most));
        text.push_str(&format!("\n... cut, {whole} bytes in all"));
    }
    text
}

impl Draft {
    /// Adds an entry to the audit log with the change.
    pub(crate) fn audit(
        &mut self,
        actor: impl Into<Actor>,
        action: &str,
        object: String,
        detail: String,
    ) -> &mut AuditEntry {
        let revision = if self.changed { self.revision.0 } else { 0 };
        let entry = AuditEntry { revision, ..AuditEntry::new(actor, action, object, detail) };
        self.writes.push(Write::Audit(Box::new(entry)));
        let Some(Write::Audit(entry)) = self.writes.last_mut() else { unreachable!("it was pushed just now") };
        entry
    }
}

/// Refused attempts on their way to the store.
pub(super) struct Attempts {
    waiting: Mutex<Vec<AuditEntry>>,
    /// Attempts without an entry, by whoever made them, since the last one that got an entry.
    uncounted: Mutex<BTreeMap<String, u64>>,
    of_each: Rates<String>,
    of_strangers: Rates<()>,
    more: Notify,
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            uncounted: Mutex::default(),
            of_each: Rates::per_minute(ATTEMPTS_PER_MINUTE),
            of_strangers: Rates::per_minute(STRANGERS_PER_MINUTE),
            more: Notify::new(),
        }
    }
}

/// Sources of attempts that are counted apart.
const MAX_SOURCES: usize = 4_096;
/// Stands for all sources beyond.
const OTHERS: &str = "others";

impl Attempts {
    /// Takes an attempt, or counts it where its maker or all strangers have made too many.
    fn take(&self, mut entry: AuditEntry, now: Instant) {
        let is_stranger = entry.actor == AuditEntry::UNKNOWN;
        let source = if is_stranger { entry.from.clone() } else { entry.actor.clone() };
        let mut uncounted = self.uncounted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_too_many = waiting.len() >= MAX_WAITING
            || self.of_each.take(&source, now).is_err()
            || (is_stranger && self.of_strangers.take(&(), now).is_err());
        if is_too_many {
            let is_known = uncounted.contains_key(&source) || uncounted.len() < MAX_SOURCES;
            *uncounted.entry(if is_known { source } else { OTHERS.to_owned() }).or_default() += 1;
            return;
        }
        let counted = [uncounted.remove(&source), uncounted.remove(OTHERS)];
        let counted: u64 = counted.into_iter().flatten().sum();
        if counted > 0 {
            entry.detail.push_str(&format!("; {counted} more attempts before it have no entry"));
        }
        waiting.push(entry);
        self.more.notify_one();
    }
}

impl Hub {
    /// Notes that something was refused. It never waits: a flood of attempts holds up nobody.
    pub(crate) fn note_refused(&self, entry: AuditEntry) {
        self.attempts.take(entry, Instant::now());
    }

    /// Writes refused attempts as they come, several at a time.
    pub(super) fn tend_attempts(self: &Arc<Self>) {
        // Without the hub, which ends when its holders let it go.
        let (hub, attempts, stop) = (Arc::downgrade(self), self.attempts.clone(), self.stop.clone());
        self.spawn(async move {
            let mut goes_on = true;
            while goes_on {
                goes_on = tokio::select! {
                    () = attempts.more.notified() => {
                        tokio::time::sleep(GATHER).await;
                        true
                    }
                    () = stop.cancelled() => false,
                };
                let Some(hub) = hub.upgrade() else { return };
                hub.write_attempts().await;
            }
        });
    }

    async fn write_attempts(&self) {
        let waiting = std::mem::take(&mut *self.attempts.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if waiting.is_empty() {
            return;
        }
        let writes = waiting.into_iter().map(|entry| Write::Audit(Box::new(entry))).collect();
        match self.blocking(move |store| store.commit(None, writes)).await {
            Ok(()) => self.told.send_modify(|number| *number += 1),
            Err(error) => tracing::warn!(error = %crate::chain(&error), "refused attempts could not be noted"),
        }
    }

    /// The newest entries first.
    pub async fn audit(&self, before: Option<u64>, limit: usize) -> Result<Vec<(u64, AuditEntry)>, StoreError> {
        self.events(AuditQuery { before, limit, ..AuditQuery::default() }).await
    }

    /// Entries that a query asks for.
    pub async fn events(&self, query: AuditQuery) -> Result<AuditLog, StoreError> {
        self.blocking(move |store| store.audit(&query)).await
    }

    /// Wakes when entries were written.
    pub(crate) fn watch_events(&self) -> tokio::sync::watch::Receiver<u64> {
        self.told.subscribe()
    }
}

//! When the conditions of objects changed their status, which is told with each. Invariant: a time changes with the status
//! alone; it is kept in the store, so that no restart changes it, and written some seconds late at the most.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use weft_policy::bundle::Revision;
use weft_policy::plan::Entry;
use weft_policy::resource::ObjectKey;

use super::{Hub, apply};
use crate::store::{Store, StoreError, Table, Write, write_record};

/// The conditions of one object: each one's status and since when it has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Another object of the same name begins anew.
    uid: String,
    conditions: BTreeMap<String, (String, i64)>,
}

/// All that is known of conditions.
#[derive(Debug, Default)]
pub(crate) struct Transitions(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    records: BTreeMap<String, Record>,
    /// Keys of those that differ from what the store has.
    changed: BTreeSet<String>,
    /// The revision at which objects that are gone were looked for last.
    looked_at: Option<Revision>,
}

impl Transitions {
    pub(super) fn load(store: &Store) -> Result<Self, StoreError> {
        let records = store.table::<Record>(Table::Conditions)?.read.into_iter().collect();
        Ok(Self(Mutex::new(Known { records, ..Known::default() })))
    }

    /// Since when a condition has its status; `now` where it has changed or is not known.
    pub(crate) fn note(&self, key: &ObjectKey, entry: &Entry, condition: &str, status: &str, now: i64) -> i64 {
        let (mut known, key) = (self.lock(), apply::store_key(key));
        let Known { records, changed, .. } = &mut *known;
        let new = || Record { uid: entry.uid.clone(), conditions: BTreeMap::new() };
        let record = records.entry(key.clone()).or_insert_with(new);
        if record.uid != entry.uid {
            *record = new();
        }
        match record.conditions.get(condition) {
            Some((known, since)) if known == status => *since,
            Some(_) | None => {
                record.conditions.insert(condition.to_owned(), (status.to_owned(), now));
                changed.insert(key);
                now
            }
        }
    }

    /// The same without a word to others: somebody who sees only a part sees another status.
    pub(crate) fn since(&self, key: &ObjectKey, entry: &Entry, condition: &str) -> Option<i64> {
        let known = self.lock();
        let record = known.records.get(&apply::store_key(key)).filter(|record| record.uid == entry.uid)?;
        record.conditions.get(condition).map(|(_, since)| *since)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    pub(crate) fn transitions(&self) -> &Transitions {
        &self.transitions
    }

    /// Writes what has changed, and forgets objects that are gone.
    pub(crate) async fn keep_transitions(&self) -> Result<(), StoreError> {
        if self.store.fault().is_some() {
            return Ok(());
        }
        let (mut writes, changed) = (Vec::new(), {
            let mut known = self.transitions.lock();
            // Looked at under the lock: what is noted meanwhile is of an object that is there.
            let published = self.published();
            // Only a new world, or one that was noted since, has an object that is gone.
            let is_new = known.looked_at.replace(published.revision) != Some(published.revision);
            if is_new || !known.changed.is_empty() {
                let there: BTreeSet<String> = published.world.iter().map(|(key, _)| apply::store_key(key)).collect();
                let gone: Vec<_> = known.records.keys().filter(|key| !there.contains(*key)).cloned().collect();
                for key in gone {
                    known.records.remove(&key);
                    known.changed.insert(key);
                }
            }
            std::mem::take(&mut known.changed)
        });
        for key in &changed {
            let record = self.transitions.lock().records.get(key).cloned();
            writes.push(match record {
                Some(record) => Write::PutRow(Table::Conditions, key.clone(), write_record(&record)?),
                None => Write::DeleteRow(Table::Conditions, key.clone()),
            });
        }
        if writes.is_empty() {
            return Ok(());
        }
        let written = self.blocking(move |store| store.commit(None, writes)).await;
        if written.is_err() {
            // The next one tries it again.
            self.transitions.lock().changed.extend(changed);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use weft_policy::resource::Kind;

    use super::*;
    use crate::hub::How;
    use crate::hub::tests::{SHOP, hub_in, resources};

    #[tokio::test]
    async fn a_time_changes_with_the_status_alone_and_outlives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let web = ObjectKey::new(Kind::Service, "shop", "web");
        let note = |hub: &Hub, status: &str, now: i64| {
            let published = hub.published();
            let entry = published.world.get(&web).unwrap();
            hub.transitions().note(&web, entry, "Served", status, now)
        };
        let hub = hub_in(dir.path(), |_| {});
        hub.apply("me", resources(SHOP), How::Safely).await.unwrap();
        assert_eq!([note(&hub, "True", 5), note(&hub, "True", 6)], [5, 5]);
        hub.keep_transitions().await.unwrap();
        drop(hub);
        let hub = hub_in(dir.path(), |_| {});
        assert_eq!([note(&hub, "True", 7), note(&hub, "False", 8), note(&hub, "False", 9)], [5, 8, 8]);
        // Another object of the same name has a history of its own.
        hub.delete("me", web.clone(), How::Forced).await.unwrap();
        hub.apply("me", resources(SHOP), How::Safely).await.unwrap();
        assert_eq!(note(&hub, "False", 10), 10);
        hub.delete("me", web.clone(), How::Forced).await.unwrap();
        hub.keep_transitions().await.unwrap();
        assert!(hub.store.table::<Record>(Table::Conditions).unwrap().read.is_empty(), "and nothing stays");
    }
}

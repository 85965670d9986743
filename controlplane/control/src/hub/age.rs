//! The age of the store: seconds for which control planes have run with it. What is kept for a while is kept by it, so that
//! no step of the wall clock ends or prolongs that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::Hub;
use crate::store::{Store, StoreError, Write};

const KEY: &str = "age";

/// Seconds after which the age is written down again: a restart makes the store so much younger at the most.
const KEPT_EVERY: u64 = 600;

pub(super) struct Age {
    /// As it was at the start.
    before: u64,
    started: Instant,
    kept: AtomicU64,
}

impl Age {
    pub(super) fn load(store: &Store) -> Result<Self, StoreError> {
        let before = store.meta(KEY)?.and_then(|text| text.parse().ok()).unwrap_or_default();
        Ok(Self { before, started: Instant::now(), kept: before.into() })
    }

    fn at(&self, now: Instant) -> u64 {
        self.before.saturating_add(now.duration_since(self.started).as_secs())
    }
}

impl Hub {
    /// The age of the store now.
    pub(crate) fn age(&self) -> u64 {
        self.age.at(Instant::now())
    }

    /// Writes the age down where that was long ago.
    pub(crate) async fn keep_age(self: &Arc<Self>) -> Result<(), StoreError> {
        let age = self.age();
        if age < self.age.kept.load(Ordering::Relaxed).saturating_add(KEPT_EVERY) {
            return Ok(());
        }
        self.blocking(move |store| store.commit(None, vec![Write::Meta(KEY, age.to_string())])).await?;
        self.age.kept.store(age, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_store_gets_older_while_it_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("weft.redb"), 10).unwrap();
        let age = Age::load(&store).unwrap();
        assert_eq!(age.at(age.started + Duration::from_secs(90)), 90);
        store.commit(None, vec![Write::Meta(KEY, "90".to_owned())]).unwrap();
        let age = Age::load(&store).unwrap();
        assert_eq!(age.at(age.started + Duration::from_secs(10)), 100);
    }
}

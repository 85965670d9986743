//! Values that filters keep in their proxy: the same to all workers, bounded, and gone with the last attachment that
//! may see them. One lock guards all values of a store, so that each operation is exact; nothing under it takes longer
//! for large values than for small ones. `now` is an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use weft_policy::bundle::{KvGrant, KvScope};

use crate::ledger::{Holding, Ledger};

const MAX_KEY: usize = 256;
const MAX_VALUE: usize = 64 << 10;
/// What an entry costs beside its key and value.
pub(crate) const OVERHEAD: usize = 128;

/// How much there may be after a write; each writer's own grant says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KvLimits {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

impl From<KvGrant> for KvLimits {
    fn from(grant: KvGrant) -> Self {
        let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Self { entries: whole(grant.entries), bytes: whole(grant.bytes) }
    }
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KvError {
    /// It is larger than all that may be kept.
    Full(String),
    Invalid(String),
    /// It is not as expected.
    Changed,
}

/// When a write happens, how long it holds, and how much there may be after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Write {
    pub(crate) now: Duration,
    /// 0: until it is removed, or others need its place.
    pub(crate) ttl_ms: u64,
    pub(crate) limits: KvLimits,
}

impl Write {
    fn end(&self) -> Option<Duration> {
        (self.ttl_ms > 0).then(|| self.now.saturating_add(Duration::from_millis(self.ttl_ms)))
    }
}

/// The values of one scope.
#[derive(Debug, Default)]
pub(crate) struct KvStore(Mutex<Entries>);

#[derive(Debug)]
struct Entry {
    value: Arc<[u8]>,
    /// Its place in the order of writes.
    written: u64,
    ends: Option<Duration>,
}

impl Entry {
    fn is_alive(&self, now: Duration) -> bool {
        self.ends.is_none_or(|end| now < end)
    }
}

/// Invariant: each entry has its key in `written`, and in `ending` where it ends; `bytes` is what all cost, and is taken
/// from the ledger.
#[derive(Debug, Default)]
struct Entries {
    ledger: Arc<Ledger>,
    by_key: HashMap<Arc<[u8]>, Entry>,
    /// The oldest write first.
    written: BTreeMap<u64, Arc<[u8]>>,
    /// The first to end first, by the number of its write.
    ending: BTreeSet<(Duration, u64)>,
    writes: u64,
    bytes: usize,
}

impl KvStore {
    fn of(ledger: &Arc<Ledger>) -> Self {
        let store = Self::default();
        store.lock().ledger = ledger.clone();
        store
    }

    pub(crate) fn get(&self, key: &[u8], now: Duration) -> Result<Option<Arc<[u8]>>, KvError> {
        checked_key(key)?;
        Ok(self.lock().living(key, now).map(|entry| entry.value.clone()))
    }

    /// How many others had to go for it.
    pub(crate) fn set(&self, key: &[u8], value: &[u8], write: Write) -> Result<u64, KvError> {
        let value = checked(key, value)?;
        self.lock().put(key, value, write.end(), write)
    }

    /// Adds to a number and returns it, with how many others had to go. It keeps the time at which it ends.
    pub(crate) fn add(&self, key: &[u8], delta: i64, write: Write) -> Result<(i64, u64), KvError> {
        checked_key(key)?;
        let mut entries = self.lock();
        let (number, ends) = match entries.living(key, write.now) {
            None => (0, write.end()),
            Some(entry) => {
                let text = std::str::from_utf8(&entry.value).ok();
                let number = text.and_then(|text| text.parse::<i64>().ok());
                (number.ok_or_else(|| KvError::Invalid("the value is no number".to_owned()))?, entry.ends)
            }
        };
        let sum = number.checked_add(delta).ok_or_else(|| KvError::Invalid("the sum is out of range".to_owned()))?;
        let evicted = entries.put(key, sum.to_string().into_bytes().into(), ends, write)?;
        Ok((sum, evicted))
    }

    /// Sets a value where it is as expected, `None` = absent. How many others had to go for it.
    pub(crate) fn compare_and_swap(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        value: &[u8],
        write: Write,
    ) -> Result<u64, KvError> {
        let value = checked(key, value)?;
        let mut entries = self.lock();
        if entries.living(key, write.now).map(|entry| &*entry.value) != expected {
            return Err(KvError::Changed);
        }
        entries.put(key, value, write.end(), write)
    }

    pub(crate) fn remove(&self, key: &[u8]) -> Result<(), KvError> {
        checked_key(key)?;
        self.lock().remove(key);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        self.ledger.give_back(self.bytes as u64);
    }
}

impl Entries {
    fn living(&self, key: &[u8], now: Duration) -> Option<&Entry> {
        self.by_key.get(key).filter(|entry| entry.is_alive(now))
    }

    /// Puts a value in the place of what the key had. Room is made for it first: by what has ended, then by the oldest; also
    /// where the process keeps as much for all filters as it may.
    fn put(&mut self, key: &[u8], value: Arc<[u8]>, ends: Option<Duration>, write: Write) -> Result<u64, KvError> {
        let Write { now, limits, .. } = write;
        let bytes = cost(key, &value);
        if bytes > limits.bytes || limits.entries == 0 {
            return Err(KvError::Full(format!("{bytes} bytes are more than may be kept in all: {}", limits.bytes)));
        }
        self.remove(key);
        let mut evicted = 0;
        while self.by_key.len() >= limits.entries || self.bytes > limits.bytes - bytes {
            let Some(was_alive) = self.remove_one(now) else { break };
            evicted += u64::from(was_alive);
        }
        let mut is_taken = self.ledger.take(Holding::Values, self.bytes as u64, bytes as u64);
        while !is_taken {
            let Some(was_alive) = self.remove_one(now) else {
                return Err(KvError::Full("the proxy keeps as much for filters as it may".to_owned()));
            };
            evicted += u64::from(was_alive);
            is_taken = self.ledger.try_take(Holding::Values, self.bytes as u64, bytes as u64);
        }
        let (written, key) = (self.writes, Arc::<[u8]>::from(key));
        self.writes += 1;
        self.bytes += bytes;
        self.ending.extend(ends.map(|end| (end, written)));
        self.written.insert(written, key.clone());
        self.by_key.insert(key, Entry { value, written, ends });
        Ok(evicted)
    }

    /// Removes what has ended, else what was written longest ago; true where it was alive. `None`: there is nothing.
    fn remove_one(&mut self, now: Duration) -> Option<bool> {
        let ended = self.ending.first().filter(|(end, _)| *end <= now).map(|(_, written)| *written);
        let oldest = ended.or_else(|| self.written.keys().next().copied())?;
        let gone = self.written.get(&oldest)?.clone();
        self.remove(&gone);
        Some(ended.is_none())
    }

    fn remove(&mut self, key: &[u8]) {
        let Some(entry) = self.by_key.remove(key) else { return };
        let bytes = cost(key, &entry.value);
        self.bytes -= bytes;
        self.ledger.give_back(bytes as u64);
        self.written.remove(&entry.written);
        if let Some(end) = entry.ends {
            self.ending.remove(&(end, entry.written));
        }
    }
}

fn cost(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + OVERHEAD
}

fn checked_key(key: &[u8]) -> Result<(), KvError> {
    match key.len() {
        1..=MAX_KEY => Ok(()),
        length => Err(KvError::Invalid(format!("a key has 1 to {MAX_KEY} bytes, not {length}"))),
    }
}

/// The value as it is kept, made before anybody has to wait for it.
fn checked(key: &[u8], value: &[u8]) -> Result<Arc<[u8]>, KvError> {
    checked_key(key)?;
    if value.len() > MAX_VALUE {
        return Err(KvError::Invalid(format!("a value has at most {MAX_VALUE} bytes, not {}", value.len())));
    }
    Ok(value.into())
}

/// The stores of every scope of a host, as long as somebody holds them.
#[derive(Debug, Default)]
pub(crate) struct KvRegistry {
    stores: Mutex<HashMap<(KvScope, String), Weak<KvStore>>>,
    ledger: Arc<Ledger>,
}

impl KvRegistry {
    /// Its stores take what they keep from `ledger`.
    pub(crate) fn new(ledger: &Arc<Ledger>) -> Self {
        Self { stores: Mutex::default(), ledger: ledger.clone() }
    }

    /// The store of an attachment, `namespace/name` of its policy, that runs this filter: the one that is there, or a
    /// new one.
    pub(crate) fn open(&self, scope: KvScope, attachment: &str, filter: &str) -> Arc<KvStore> {
        let name = match scope {
            KvScope::Policy => attachment.to_owned(),
            // No namespace sees the values of another, though both run the same filter.
            KvScope::Filter => format!("{}/{filter}", attachment.split('/').next().unwrap_or_default()),
        };
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.retain(|_, store| store.strong_count() > 0);
        let known = stores.entry((scope, name)).or_default();
        known.upgrade().unwrap_or_else(|| {
            let store = Arc::new(KvStore::of(&self.ledger));
            *known = Arc::downgrade(&store);
            store
        })
    }
}

#[cfg(test)]
mod tests;

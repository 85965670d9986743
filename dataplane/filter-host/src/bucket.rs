//! Token buckets that all workers share: exact under any interleaving, bounded in number. A bucket is one number, the
//! time at which it will be full again (GCRA); times are scaled by the token count, so that no division ever rounds.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dashmap::{DashMap, Entry};

use crate::ledger::{Holding, Ledger};
use crate::stats::FilterStats;

/// A limit as a filter defines it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Limit {
    pub(crate) name: String,
    pub(crate) tokens: u32,
    pub(crate) period_ms: u64,
    pub(crate) burst: u32,
}

/// Bounds on what filters may keep in buckets.
#[derive(Debug, Clone, Copy)]
pub struct BucketLimits {
    /// Buckets of one limit. Keys beyond it share one bucket until others have run full and are forgotten. Default 65,536.
    pub keys: usize,
    /// Bytes of a key. Default 1,024.
    pub key_bytes: usize,
    /// Limits of one filter. Default 32.
    pub limits: usize,
}

impl Default for BucketLimits {
    fn default() -> Self {
        Self { keys: 65_536, key_bytes: 1_024, limits: 32 }
    }
}

/// Time in nanoseconds times tokens a period.
type Scaled = u128;

/// What is left in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level {
    /// Whole tokens.
    pub(crate) remaining: u32,
    /// Until it is full again.
    pub(crate) reset: Duration,
}

/// The buckets of one limit.
#[derive(Debug)]
pub(crate) struct Buckets {
    limit: Limit,
    /// Scaled time that one token takes to flow in.
    interval: Scaled,
    max_keys: usize,
    ledger: Arc<Ledger>,
    /// Bytes that it has of the ledger.
    bytes: AtomicU64,
    /// Milliseconds of the last search for full buckets: a flood of new keys must not search each time.
    searched: AtomicU64,
    /// When each bucket is full again. A key that is missing has a full bucket.
    full_at: DashMap<Box<[u8]>, Scaled>,
}

const SEARCH_MILLIS: u64 = 100;
/// What a bucket costs beside its key.
const OVERHEAD: u64 = 96;

/// The key that all others share when there are too many.
const OVERFLOW: &[u8] = b"\0overflow";

impl Buckets {
    pub(crate) fn new(limit: Limit, max_keys: usize, ledger: &Arc<Ledger>) -> Result<Self, String> {
        if limit.tokens == 0 || limit.burst == 0 || limit.period_ms == 0 {
            return Err("tokens, period and burst of a limit must be at least 1".to_owned());
        }
        let interval = u128::from(limit.period_ms) * 1_000_000;
        let (ledger, bytes, searched) = (ledger.clone(), AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { limit, interval, max_keys, ledger, bytes, searched, full_at: DashMap::new() })
    }

    pub(crate) fn is_of(&self, limit: &Limit) -> bool {
        self.limit == *limit
    }

    /// Takes `tokens` out of the bucket of `key` and says what it left there, or how long until they are there.
    pub(crate) fn take(&self, key: &[u8], tokens: u32, now: Duration, stats: &FilterStats) -> Result<Level, Duration> {
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let now = now.as_nanos() * u128::from(self.limit.tokens);
        if let Some(mut full_at) = self.full_at.get_mut(key) {
            return self.charge(&mut full_at, tokens, now);
        }
        let has_room = self.full_at.len() < self.max_keys || self.forget_full(now, millis);
        if has_room && (self.hold(key) || self.forget_full(now, millis) && self.hold(key)) {
            let mut full_at = match self.full_at.entry(key.into()) {
                Entry::Vacant(place) => place.insert(0),
                // Another thread was first, and has paid for it.
                Entry::Occupied(place) => {
                    self.release(cost(key));
                    place.into_ref()
                }
            };
            return self.charge(&mut full_at, tokens, now);
        }
        stats.bucket_overflows.add(1);
        self.charge(&mut self.full_at.entry(OVERFLOW.into()).or_insert(0), tokens, now)
    }

    /// Takes from the ledger what a new bucket costs. False: the process keeps as much for filters as it may.
    fn hold(&self, key: &[u8]) -> bool {
        let is_taken = self.ledger.take(Holding::Buckets, self.bytes.load(Relaxed), cost(key));
        if is_taken {
            self.bytes.fetch_add(cost(key), Relaxed);
        }
        is_taken
    }

    fn release(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Relaxed);
        self.ledger.give_back(bytes);
    }

    /// Puts tokens back. A key whose bucket is shared by many gives back to the shared one.
    pub(crate) fn give_back(&self, key: &[u8], tokens: u32) {
        let bucket = self.full_at.get_mut(key).or_else(|| self.full_at.get_mut(OVERFLOW));
        if let Some(mut full_at) = bucket {
            *full_at = full_at.saturating_sub(self.interval * u128::from(tokens));
        }
    }

    /// Starts with the tokens that each bucket of the same limit lacked under other numbers, at most all of its own.
    fn inherit(&self, old: &Self, now: Duration) {
        let (old_now, own_now) =
            (now.as_nanos() * u128::from(old.limit.tokens), now.as_nanos() * u128::from(self.limit.tokens));
        let capacity = self.interval * u128::from(self.limit.burst);
        for bucket in &old.full_at {
            let lacking = bucket.value().saturating_sub(old_now);
            if lacking > 0 {
                // Scaled times are tokens times their interval: another interval, the same tokens.
                let lacking = lacking.saturating_mul(self.interval) / old.interval;
                let full_at = own_now + lacking.min(capacity);
                let is_kept = self.full_at.contains_key(bucket.key()) || self.hold(bucket.key());
                let key = if is_kept { bucket.key().clone() } else { OVERFLOW.into() };
                let mut own = self.full_at.entry(key).or_insert(0);
                *own = full_at.max(*own);
            }
        }
    }

    fn charge(&self, full_at: &mut Scaled, tokens: u32, now: Scaled) -> Result<Level, Duration> {
        let next = (*full_at).max(now) + self.interval * u128::from(tokens);
        let capacity = self.interval * u128::from(self.limit.burst);
        if next > now + capacity {
            return Err(self.time(next - now - capacity));
        }
        *full_at = next;
        let lacking = next - now;
        let remaining = u32::try_from((capacity - lacking) / self.interval).unwrap_or(u32::MAX);
        Ok(Level { remaining, reset: self.time(lacking) })
    }

    fn time(&self, scaled: Scaled) -> Duration {
        let nanos = scaled.div_ceil(u128::from(self.limit.tokens));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Drops buckets that are full, which says the same as having none; true when there is room now.
    fn forget_full(&self, now: Scaled, millis: u64) -> bool {
        if millis.saturating_sub(self.searched.swap(millis, Relaxed)) < SEARCH_MILLIS {
            return false;
        }
        let mut forgotten = 0;
        self.full_at.retain(|key, full_at| {
            let lives = *full_at > now;
            forgotten += if lives { 0 } else { cost(key) };
            lives
        });
        self.release(forgotten);
        self.full_at.len() < self.max_keys
    }
}

impl Drop for Buckets {
    fn drop(&mut self) {
        self.ledger.give_back(*self.bytes.get_mut());
    }
}

/// Bytes of a bucket. The one that keys share is nobody's, and each limit has one at the most.
fn cost(key: &[u8]) -> u64 {
    if key == OVERFLOW { 0 } else { key.len() as u64 + OVERHEAD }
}

/// The buckets of every filter of a host, so that a new configuration finds the buckets of its limits as they were, and a
/// changed limit does not start full.
#[derive(Debug, Default)]
pub(crate) struct BucketRegistry {
    ledger: Arc<Ledger>,
    limits: DashMap<(Arc<str>, Limit), Weak<Buckets>>,
}

impl BucketRegistry {
    /// What its buckets cost is taken from `ledger`.
    pub(crate) fn new(ledger: &Arc<Ledger>) -> Self {
        Self { ledger: ledger.clone(), limits: DashMap::new() }
    }

    pub(crate) fn define(
        &self,
        filter: &Arc<str>,
        limit: Limit,
        max_keys: usize,
        now: Duration,
    ) -> Result<Arc<Buckets>, String> {
        let fresh = Arc::new(Buckets::new(limit.clone(), max_keys, &self.ledger)?);
        let is_same = |entry: &dashmap::mapref::multiple::RefMulti<'_, (Arc<str>, Limit), Weak<Buckets>>| {
            let (of, known) = entry.key();
            of == filter && known.name == limit.name && *known != limit
        };
        // The map is not held while one of its entries is: an order that could block itself.
        let before: Vec<_> = self.limits.iter().filter(is_same).filter_map(|entry| entry.value().upgrade()).collect();
        let mut entry = self.limits.entry((filter.clone(), limit.clone())).or_default();
        if let Some(known) = entry.upgrade() {
            return Ok(known);
        }
        before.iter().for_each(|before| fresh.inherit(before, now));
        *entry = Arc::downgrade(&fresh);
        Ok(fresh)
    }

    /// Forgets limits that no instance holds any more.
    pub(crate) fn sweep(&self) {
        self.limits.retain(|_, buckets| buckets.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests;

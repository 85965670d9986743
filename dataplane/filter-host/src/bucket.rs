//! Token buckets that all workers share: exact under any interleaving, bounded in number. A bucket is one number, the
//! time at which it will be full again (GCRA); times are scaled by the token count, so that no division ever rounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use dashmap::DashMap;

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

/// The buckets of one limit.
#[derive(Debug)]
pub(crate) struct Buckets {
    limit: Limit,
    /// Scaled time that one token takes to flow in.
    interval: Scaled,
    max_keys: usize,
    /// Milliseconds of the last search for full buckets: a flood of new keys must not search each time.
    searched: AtomicU64,
    /// When each bucket is full again. A key that is missing has a full bucket.
    full_at: DashMap<Box<[u8]>, Scaled>,
}

const SEARCH_MILLIS: u64 = 100;

/// The key that all others share when there are too many.
const OVERFLOW: &[u8] = b"\0overflow";

impl Buckets {
    pub(crate) fn new(limit: Limit, max_keys: usize) -> Result<Self, String> {
        if limit.tokens == 0 || limit.burst == 0 || limit.period_ms == 0 {
            return Err("tokens, period and burst of a limit must be at least 1".to_owned());
        }
        let interval = u128::from(limit.period_ms) * 1_000_000;
        Ok(Self { limit, interval, max_keys, searched: AtomicU64::new(0), full_at: DashMap::new() })
    }

    /// Takes `tokens` out of the bucket of `key`, or says how long until they are there.
    pub(crate) fn take(&self, key: &[u8], tokens: u32, now: Duration, stats: &FilterStats) -> Result<(), Duration> {
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let now = now.as_nanos() * u128::from(self.limit.tokens);
        if let Some(mut full_at) = self.full_at.get_mut(key) {
            return self.charge(&mut full_at, tokens, now);
        }
        let key = if self.full_at.len() < self.max_keys || self.forget_full(now, millis) {
            key
        } else {
            stats.bucket_overflows.add(1);
            OVERFLOW
        };
        self.charge(&mut self.full_at.entry(key.into()).or_insert(0), tokens, now)
    }

    fn charge(&self, full_at: &mut Scaled, tokens: u32, now: Scaled) -> Result<(), Duration> {
        let next = (*full_at).max(now) + self.interval * u128::from(tokens);
        let capacity = self.interval * u128::from(self.limit.burst);
        if next <= now + capacity {
            *full_at = next;
            return Ok(());
        }
        let wait = (next - now - capacity).div_ceil(u128::from(self.limit.tokens));
        Err(Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)))
    }

    /// Drops buckets that are full, which says the same as having none; true when there is room now.
    fn forget_full(&self, now: Scaled, millis: u64) -> bool {
        if millis.saturating_sub(self.searched.swap(millis, Relaxed)) < SEARCH_MILLIS {
            return false;
        }
        self.full_at.retain(|_, full_at| *full_at > now);
        self.full_at.len() < self.max_keys
    }
}

/// The buckets of every filter of a host, so that a new configuration with the same limit finds its buckets as they were.
#[derive(Debug, Default)]
pub(crate) struct BucketRegistry {
    limits: DashMap<(Arc<str>, Limit), std::sync::Weak<Buckets>>,
}

impl BucketRegistry {
    pub(crate) fn define(&self, filter: &Arc<str>, limit: Limit, max_keys: usize) -> Result<Arc<Buckets>, String> {
        let fresh = Arc::new(Buckets::new(limit.clone(), max_keys)?);
        let mut entry = self.limits.entry((filter.clone(), limit)).or_default();
        if let Some(known) = entry.upgrade() {
            return Ok(known);
        }
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

//! Costs and actions of filters, as plain atomics that all workers bump and anybody may read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::metrics::{CustomMetric, CustomMetrics};
use crate::spec::Digest;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, delta: u64) {
        self.0.fetch_add(delta, Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) fn add(&self, delta: u64) {
        self.0.fetch_add(delta, Relaxed);
    }

    pub(crate) fn subtract(&self, delta: u64) {
        self.0.fetch_sub(delta, Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of a [`Timing`]'s buckets, seconds.
const BOUNDS: [f64; 9] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 180.0];

/// Durations of seconds and minutes, counted by how long they were.
#[derive(Debug, Default)]
pub struct Timing {
    /// By upper bound; the last has none.
    buckets: [Counter; BOUNDS.len() + 1],
    millis: Counter,
}

impl Timing {
    pub(crate) fn note(&self, took: Duration) {
        let bucket = BOUNDS.iter().take_while(|bound| took.as_secs_f64() > **bound).count();
        self.buckets[bucket].add(1);
        self.millis.add(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    }

    /// How many there were that lasted no longer than each bound, in seconds.
    pub fn cumulative(&self) -> [(f64, u64); BOUNDS.len()] {
        let mut count = 0;
        std::array::from_fn(|at| {
            count += self.buckets[at].value();
            (BOUNDS[at], count)
        })
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::value).sum()
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        Duration::from_millis(self.millis.value())
    }
}

/// Counters of one attachment; they outlive its configurations.
#[derive(Debug, Default)]
pub struct FilterStats {
    /// Calls into the sandbox.
    pub calls: Counter,
    /// Answers given by the filter that were sent.
    pub replies: Counter,
    /// Answers and delays that audit mode kept from happening.
    pub audited: Counter,
    pub delays: Counter,
    /// Changes made to heads.
    pub edits: Counter,
    /// Failures by kind; together they are all failures.
    pub traps: Counter,
    pub timeouts: Counter,
    /// Verdicts or edits that the contract forbids.
    pub invalid_results: Counter,
    /// Instances that could not be made: the pool is full, or the configuration was refused the second time.
    pub instantiation_failures: Counter,
    /// Hooks of streams whose state went with a trapped instance.
    pub lost_streams: Counter,
    /// Calls not made because the breaker was open.
    pub breaker_rejections: Counter,
    /// Failures that let the request go on (`onFailure: Allow`, or audit mode).
    pub failed_open: Counter,
    /// Failures that ended the request (`onFailure: Deny`).
    pub failed_closed: Counter,
    pub breaker_openings: Counter,
    /// Times that linear memory was refused to grow.
    pub memory_limit_hits: Counter,
    pub log_lines_dropped: Counter,
    /// Takes from the bucket that keys beyond the bound share.
    pub bucket_overflows: Counter,
    /// Live instances and the bytes of their linear memories.
    pub instances: Gauge,
    pub memory_bytes: Gauge,
    pub(crate) custom: CustomMetrics,
}

impl FilterStats {
    pub fn custom(&self) -> Vec<Arc<CustomMetric>> {
        self.custom.all()
    }
}

/// One prepared filter that is alive, with its attachment's counters.
#[derive(Debug, Clone)]
pub struct HostStats {
    pub name: String,
    pub filter: String,
    pub version: String,
    pub digest: Digest,
    /// False while the breaker keeps it from being called.
    pub serving: bool,
    pub stats: Arc<FilterStats>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_by_their_bounds() {
        let timing = Timing::default();
        [0, 100, 101, 60_000, 1_000_000].map(Duration::from_millis).into_iter().for_each(|took| timing.note(took));
        let counts = timing.cumulative().map(|(_, count)| count);
        assert_eq!(counts, [2, 3, 3, 3, 3, 3, 3, 4, 4]);
        assert_eq!((timing.count(), timing.sum()), (5, Duration::from_millis(1_060_201)));
    }
}

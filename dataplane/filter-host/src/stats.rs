//! Costs and actions of filters, as plain atomics that all workers bump and anybody may read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
    /// Calls of capabilities that the filter is not granted.
    pub denied_calls: Counter,
    /// Values that had to go for others before they ended.
    pub kv_evictions: Counter,
    /// Values of its own metrics that came beyond the bound of label sets, and those that could not be taken: of a
    /// metric or of labels that are none, or no number.
    pub metric_overflows: Counter,
    pub metric_misuses: Counter,
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

//! State of one filter instance in the host: its limits, and the imports it may call. Each import is bounded.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;
use wasmtime::component::{HasSelf, Linker};

use crate::bindings::weft::filter::{log, metrics, token_bucket, types};
use crate::bucket::{BucketLimits, BucketRegistry, Buckets, Limit};
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::host::CONFIGURE_TIMEOUT;
use crate::metrics::CustomMetric;
use crate::stats::FilterStats;

/// Log lines of one filter per second, and at once.
const LOG_LINES_PER_SECOND: u64 = 10;
const LOG_BURST: u64 = 50;
const LOG_LINE_BYTES: usize = 1_024;
const TABLE_ELEMENTS: usize = 10_000;

/// State that all instances of one prepared filter share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: Arc<str>,
    pub(crate) version: Arc<str>,
    pub(crate) stats: Arc<FilterStats>,
    pub(crate) buckets: Arc<BucketRegistry>,
    pub(crate) bucket_limits: BucketLimits,
    pub(crate) memory_bytes: usize,
    pub(crate) started: Instant,
    pub(crate) clock: Arc<Clock>,
    pub(crate) log: LogGate,
    /// Every limit that an instance defined: buckets outlive the instances that use them.
    pub(crate) limits: Mutex<Vec<Arc<Buckets>>>,
}

impl Shared {
    /// True when one more line may be logged about or by this filter.
    pub(crate) fn log_admits(&self) -> bool {
        let admitted = self.log.admit(self.started.elapsed());
        if !admitted {
            self.stats.log_lines_dropped.add(1);
        }
        admitted
    }

    fn keep(&self, buckets: &Arc<Buckets>) {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if !limits.iter().any(|known| Arc::ptr_eq(known, buckets)) {
            limits.push(buckets.clone());
        }
    }
}

/// The data of one instance's store.
pub(crate) struct Guest {
    pub(crate) shared: Arc<Shared>,
    metrics: Vec<Arc<CustomMetric>>,
    limits: Vec<Arc<Buckets>>,
    memory: u64,
    pub(crate) deadline: Deadline,
}

impl Guest {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        shared.stats.instances.add(1);
        Self { shared, metrics: Vec::new(), limits: Vec::new(), memory: 0, deadline: Deadline::new(CONFIGURE_TIMEOUT) }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.shared.stats.instances.subtract(1);
        self.shared.stats.memory_bytes.subtract(self.memory);
    }
}

/// The imports of the world, and the capability that each needs.
pub(crate) const IMPORTS: [(&str, Option<&str>); 4] = [
    ("weft:filter/types@0.1.0", None),
    ("weft:filter/log@0.1.0", None),
    ("weft:filter/metrics@0.1.0", None),
    ("weft:filter/token-bucket@0.1.0", Some("token-bucket")),
];

/// A linker that offers what was granted and nothing else.
pub(crate) fn link(linker: &mut Linker<Guest>, granted: &[String]) -> wasmtime::Result<()> {
    types::add_to_linker::<_, HasSelf<_>>(linker, |guest| guest)?;
    log::add_to_linker::<_, HasSelf<_>>(linker, |guest| guest)?;
    metrics::add_to_linker::<_, HasSelf<_>>(linker, |guest| guest)?;
    if granted.iter().any(|capability| capability == "token-bucket") {
        token_bucket::add_to_linker::<_, HasSelf<_>>(linker, |guest| guest)?;
    }
    Ok(())
}

impl types::Host for Guest {}

impl log::Host for Guest {
    fn write(&mut self, level: log::Level, mut message: String) {
        if !self.shared.log_admits() {
            return;
        }
        let end = message.floor_char_boundary(LOG_LINE_BYTES);
        message.truncate(end);
        let filter = &*self.shared.name;
        match level {
            log::Level::Debug => tracing::debug!(filter, "{}", message.escape_debug()),
            log::Level::Info => tracing::info!(filter, "{}", message.escape_debug()),
            log::Level::Warn => tracing::warn!(filter, "{}", message.escape_debug()),
            log::Level::Error => tracing::error!(filter, "{}", message.escape_debug()),
        }
    }
}

impl metrics::Host for Guest {
    fn define(&mut self, kind: metrics::Kind, name: String) -> Result<u32, String> {
        let metric = self.shared.stats.custom.define(kind, &name)?;
        let known = self.metrics.iter().position(|known| Arc::ptr_eq(known, &metric));
        let index = known.unwrap_or_else(|| {
            self.metrics.push(metric);
            self.metrics.len() - 1
        });
        u32::try_from(index).map_err(|_| "too many metrics".to_owned())
    }

    fn add(&mut self, metric: u32, delta: u64) {
        if let Some(metric) = self.metrics.get(metric as usize) {
            metric.add(delta);
        }
    }

    fn set(&mut self, metric: u32, value: f64) {
        if let Some(metric) = self.metrics.get(metric as usize) {
            metric.set(value);
        }
    }

    fn observe(&mut self, metric: u32, value: f64) {
        if let Some(metric) = self.metrics.get(metric as usize) {
            metric.observe(value);
        }
    }
}

impl token_bucket::Host for Guest {
    fn define(&mut self, limit: token_bucket::Limit) -> Result<u32, String> {
        let bounds = self.shared.bucket_limits;
        if self.limits.len() == bounds.limits {
            return Err(format!("a filter has at most {} limits", bounds.limits));
        }
        if limit.name.len() > bounds.key_bytes {
            return Err(format!("a limit's name has at most {} bytes", bounds.key_bytes));
        }
        let token_bucket::Limit { name, tokens, period_ms, burst } = limit;
        let limit = Limit { name, tokens, period_ms, burst };
        let now = self.shared.started.elapsed();
        let buckets = self.shared.buckets.define(&self.shared.name, limit, bounds.keys, now)?;
        self.shared.keep(&buckets);
        self.limits.push(buckets);
        u32::try_from(self.limits.len() - 1).map_err(|_| "too many limits".to_owned())
    }

    fn take(&mut self, limit: u32, mut key: Vec<u8>, tokens: u32) -> Result<(), u64> {
        let Some(buckets) = self.limits.get(limit as usize) else {
            return Err(u64::MAX);
        };
        key.truncate(self.shared.bucket_limits.key_bytes);
        let wait = buckets.take(&key, tokens, self.shared.started.elapsed(), &self.shared.stats);
        wait.map_err(|wait| u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }

    fn give_back(&mut self, limit: u32, mut key: Vec<u8>, tokens: u32) {
        if let Some(buckets) = self.limits.get(limit as usize) {
            key.truncate(self.shared.bucket_limits.key_bytes);
            buckets.give_back(&key, tokens);
        }
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > self.shared.memory_bytes {
            self.shared.stats.memory_limit_hits.add(1);
            return Ok(false);
        }
        let delta = (desired - current) as u64;
        self.memory += delta;
        self.shared.stats.memory_bytes.add(delta);
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        16
    }

    fn tables(&self) -> usize {
        16
    }

    fn memories(&self) -> usize {
        1
    }
}

/// Lets so many log lines through: the time at which the gate's bucket is full again, in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct LogGate(AtomicU64);

impl LogGate {
    fn admit(&self, now: Duration) -> bool {
        const INTERVAL: u64 = 1_000_000_000 / LOG_LINES_PER_SECOND;
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2);
        let admit = |full_at: u64| {
            let next = full_at.max(now) + INTERVAL;
            (next <= now + LOG_BURST * INTERVAL).then_some(next)
        };
        self.0.fetch_update(Relaxed, Relaxed, admit).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_gate_lets_the_burst_and_then_the_rate_through() {
        let gate = LogGate::default();
        let admitted = |now| (0..100).filter(|_| gate.admit(now)).count() as u64;
        assert_eq!(admitted(Duration::ZERO), LOG_BURST);
        assert_eq!(admitted(Duration::from_secs(1)), LOG_LINES_PER_SECOND);
        assert_eq!(admitted(Duration::from_secs(100)), LOG_BURST);
    }
}

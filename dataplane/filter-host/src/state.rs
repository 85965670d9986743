//! The data of one instance's store: its limits, what it has defined, and the configuration that its imports act for.
//! Invariant: an import acts for the configuration of the call that is under way, and has what that one is granted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;
use weft_policy::component;

use crate::bucket::{BucketLimits, BucketRegistry, Buckets, Limit};
use crate::chain::Callout;
use crate::clock::Clock;
use crate::deadline::{CONFIGURE_TIMEOUT, Deadline};
use crate::grants::{GrantError, Grants};
use crate::kv::{KvRegistry, KvStore};
use crate::metrics::CustomMetric;
use crate::spec::FilterSpec;
use crate::stats::FilterStats;
use crate::wasi::Wasi;

/// Log lines of one filter per second, and at once.
const LOG_LINES_PER_SECOND: u64 = 10;
const LOG_BURST: u64 = 50;
/// Elements of all tables of an instance together, 8 bytes each; compilers make one of each function that is pointed to.
pub(crate) const TABLE_ELEMENTS: usize = 32_768;
/// Callouts that one call may ask for.
pub(crate) const MAX_CALLOUTS: usize = 4;

/// State that all instances of one program share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) memory_bytes: usize,
    pub(crate) started: Instant,
    pub(crate) clock: Arc<Clock>,
    /// Counters of the instances and of their memory.
    pub(crate) stats: Arc<FilterStats>,
    /// Numbers of callouts: instances are replaced while answers are on their way.
    callouts: AtomicU32,
}

impl Shared {
    /// `started`: of the host, as everything that imports keep counts from there.
    pub(crate) fn of(memory_bytes: usize, started: Instant, clock: Arc<Clock>, stats: Arc<FilterStats>) -> Self {
        Self { memory_bytes, started, clock, stats, callouts: AtomicU32::new(1) }
    }
}

/// What a host keeps for longer than any configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept<'h> {
    pub(crate) kv: &'h KvRegistry,
    pub(crate) buckets: &'h Arc<BucketRegistry>,
    pub(crate) bucket_limits: BucketLimits,
    pub(crate) started: Instant,
}

/// State that one configuration of a program has in all instances.
#[derive(Debug)]
pub(crate) struct ConfigShared {
    /// The attachment's.
    pub(crate) name: Arc<str>,
    pub(crate) stats: Arc<FilterStats>,
    pub(crate) grants: Grants,
    /// Where its values are kept, if any are granted.
    pub(crate) kv: Option<Arc<KvStore>>,
    pub(crate) buckets: Arc<BucketRegistry>,
    pub(crate) bucket_limits: BucketLimits,
    pub(crate) log: LogGate,
    started: Instant,
    /// Every limit that an instance defined: buckets outlive the instances that use them.
    limits: Mutex<Vec<Arc<Buckets>>>,
}

impl ConfigShared {
    /// # Errors
    /// It is granted what does not exist, or more than there may be.
    pub(crate) fn of(spec: &FilterSpec, stats: Arc<FilterStats>, kept: Kept<'_>) -> Result<Self, GrantError> {
        let grants = Grants::new(&spec.capabilities, &spec.grants)?;
        let kv = grants.kv.map(|kv| kept.kv.open(kv.scope, &spec.name, &spec.filter));
        Ok(Self {
            name: spec.name.as_str().into(),
            stats,
            grants,
            kv,
            buckets: kept.buckets.clone(),
            bucket_limits: kept.bucket_limits,
            log: LogGate::default(),
            started: kept.started,
            limits: Mutex::default(),
        })
    }

    /// True when one more line may be logged about or by this filter.
    pub(crate) fn log_admits(&self) -> bool {
        let admitted = self.log.admit(self.started.elapsed());
        if !admitted {
            self.stats.log_lines_dropped.add(1);
        }
        admitted
    }

    /// Notes a call of what is not granted, and says so in the log.
    pub(crate) fn note_denial(&self, capability: &'static str) {
        self.stats.denied_calls.add(1);
        if self.log_admits() {
            let filter = &*self.name;
            tracing::warn!(filter, capability, "the filter calls what its FilterPolicy does not grant");
        }
    }

    /// True where there may be this limit: it is there, or fewer are than may be. What its instances define, one after
    /// another, is all its own.
    pub(crate) fn takes_limit(&self, limit: &Limit) -> bool {
        let limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits.len() < self.bucket_limits.limits || limits.iter().any(|known| known.is_of(limit))
    }

    /// Keeps buckets for as long as this configuration lives.
    pub(crate) fn keep(&self, buckets: &Arc<Buckets>) {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if !limits.iter().any(|known| Arc::ptr_eq(known, buckets)) {
            limits.push(buckets.clone());
        }
    }
}

/// A configuration, as the handles that it defined know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner(usize);

impl Owner {
    fn of(config: &ConfigShared) -> Self {
        Self(std::ptr::from_ref(config).addr())
    }
}

/// What configurations of one instance have defined, by handle. A handle is never given twice, so that one which
/// outlived its configuration means nothing.
#[derive(Debug)]
pub(crate) struct Handles<T> {
    next: u32,
    held: BTreeMap<u32, (Owner, Arc<T>)>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self { next: 0, held: BTreeMap::new() }
    }
}

impl<T> Handles<T> {
    /// The handle of something, the same one where this configuration has it already. `None`: it has `most` others.
    pub(crate) fn of(&mut self, config: &ConfigShared, thing: &Arc<T>, most: usize) -> Option<u32> {
        let owner = Owner::of(config);
        let mut count = 0;
        for (handle, (_, known)) in self.held.iter().filter(|(_, (other, _))| *other == owner) {
            if Arc::ptr_eq(known, thing) {
                return Some(*handle);
            }
            count += 1;
        }
        if count >= most {
            return None;
        }
        let handle = self.next;
        self.next = handle.checked_add(1)?;
        self.held.insert(handle, (owner, thing.clone()));
        Some(handle)
    }

    pub(crate) fn get(&self, handle: u32) -> Option<&Arc<T>> {
        self.held.get(&handle).map(|(_, thing)| thing)
    }

    fn forget(&mut self, config: &ConfigShared) {
        let owner = Owner::of(config);
        self.held.retain(|_, (other, _)| *other != owner);
    }
}

/// The data of one instance's store.
pub(crate) struct State {
    pub(crate) shared: Arc<Shared>,
    pub(crate) deadline: Deadline,
    /// Whom the call under way is for. Absent until the first.
    config: Option<Arc<ConfigShared>>,
    pub(crate) metrics: Handles<CustomMetric>,
    pub(crate) limits: Handles<Buckets>,
    callouts: Vec<Callout>,
    pub(crate) wasi: Wasi,
    /// Bytes of all its memories, and elements of all its tables.
    memory: u64,
    table_elements: usize,
}

impl State {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        shared.stats.instances.add(1);
        Self {
            shared,
            deadline: Deadline::new(CONFIGURE_TIMEOUT, Instant::now()),
            config: None,
            metrics: Handles::default(),
            limits: Handles::default(),
            callouts: Vec::new(),
            wasi: Wasi::default(),
            memory: 0,
            table_elements: 0,
        }
    }

    /// Says whom the next call is for, and forgets what the last one left. Before anything of the guest runs, its start
    /// included.
    pub(crate) fn enter(&mut self, config: &Arc<ConfigShared>) {
        self.callouts.clear();
        self.end_lines();
        if !self.config.as_ref().is_some_and(|known| Arc::ptr_eq(known, config)) {
            self.config = Some(config.clone());
        }
    }

    /// The callouts that the last call asked for, in order.
    pub(crate) fn take_callouts(&mut self) -> Vec<Callout> {
        std::mem::take(&mut self.callouts)
    }

    /// Lets go of everything that a configuration has here. Its handles mean nothing from now on.
    pub(crate) fn forget(&mut self, config: &Arc<ConfigShared>) {
        self.metrics.forget(config);
        self.limits.forget(config);
        self.end_lines();
        if self.config.as_ref().is_some_and(|known| Arc::ptr_eq(known, config)) {
            self.config = None;
        }
    }

    /// Whom the imports act for.
    pub(crate) fn config(&self) -> Option<&Arc<ConfigShared>> {
        self.config.as_ref()
    }

    /// Time since the host started, which all that imports keep counts in.
    pub(crate) fn now(&self) -> Duration {
        self.shared.started.elapsed()
    }

    /// Bytes of its linear memories.
    pub(crate) fn memory(&self) -> u64 {
        self.memory
    }

    /// False where the call under way has asked for as many callouts as it may.
    pub(crate) fn takes_callout(&self) -> bool {
        self.callouts.len() < MAX_CALLOUTS
    }

    /// The number of the next callout of any instance of the program.
    pub(crate) fn callout_id(&self) -> u32 {
        self.shared.callouts.fetch_add(1, Relaxed)
    }

    pub(crate) fn push_callout(&mut self, callout: Callout) {
        self.callouts.push(callout);
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.end_lines();
        self.shared.stats.instances.subtract(1);
        self.shared.stats.memory_bytes.subtract(self.memory);
    }
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // Beyond its own maximum it would not grow, and must not be counted.
        if maximum.is_some_and(|most| desired > most) {
            return Ok(false);
        }
        let delta = desired.saturating_sub(current) as u64;
        if self.memory.saturating_add(delta) > self.shared.memory_bytes as u64 {
            self.shared.stats.memory_limit_hits.add(1);
            return Ok(false);
        }
        self.memory += delta;
        self.shared.stats.memory_bytes.add(delta);
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let elements = self.table_elements.saturating_add(desired.saturating_sub(current));
        let fits = elements <= TABLE_ELEMENTS && maximum.is_none_or(|most| desired <= most);
        if fits {
            self.table_elements = elements;
        }
        Ok(fits)
    }

    fn instances(&self) -> usize {
        component::MAX_CORE_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        component::MAX_TABLES as usize
    }

    fn memories(&self) -> usize {
        component::MAX_MEMORIES as usize
    }
}

/// Lets so many log lines through: the time at which the gate's bucket is full again, in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct LogGate(AtomicU64);

impl LogGate {
    pub(crate) fn admit(&self, now: Duration) -> bool {
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

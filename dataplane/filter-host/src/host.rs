//! The host: one engine with its pool, clock and caches per process. Everything slow happens here, off the data path.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use dashmap::DashMap;
use wasmtime::component::Component;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::bucket::{BucketLimits, BucketRegistry};
use crate::cache::Cache;
use crate::clock::Clock;
use crate::failure::FRAMES;
use crate::grants::GrantError;
use crate::kv::KvRegistry;
use crate::prepare::{PrepareError, Prepared, Programs};
use crate::spec::{Digest, FilterSpec};
use crate::state::{ConfigShared, Kept, Shared};
use crate::stats::{FilterStats, HostStats};

const STACK_BYTES: usize = 512 << 10;
/// Most core instances that one component may consist of: its own module and the shims around it.
const CORE_INSTANCES: u32 = 8;
const TABLES: u32 = 4;

/// Bounds and places of a host.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Folder in which compiled filters are kept; `None` = they are not kept.
    pub cache_dir: Option<PathBuf>,
    /// Instances of all filters on all workers. Default 512; each reserves address space, not memory.
    pub max_instances: u32,
    /// Linear memory that any filter may be granted, bytes. Default 64 MiB.
    pub max_memory_bytes: usize,
    /// Instances made ready with each filter, so that no worker has to make its first. Default 1.
    pub workers: usize,
    pub buckets: BucketLimits,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            cache_dir: None,
            max_instances: 512,
            max_memory_bytes: 64 << 20,
            workers: 1,
            buckets: BucketLimits::default(),
        }
    }
}

/// Why there is no host.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("the filter engine does not start: {0}")]
    Engine(String),
    #[error("the cache of compiled filters can't be used")]
    Cache(#[source] std::io::Error),
    #[error("the filter engine's clock does not start")]
    Clock(#[source] std::io::Error),
}

/// One per process; clones share it.
#[derive(Debug, Clone)]
pub struct Host(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) engine: Engine,
    pub(crate) config: HostConfig,
    pub(crate) started: Instant,
    pub(crate) buckets: Arc<BucketRegistry>,
    pub(crate) kv: KvRegistry,
    cache: Option<Cache>,
    /// Compiled filters that a prepared one holds.
    components: Mutex<HashMap<Digest, Weak<Component>>>,
    stats: DashMap<String, Weak<FilterStats>>,
    prepared: Mutex<Vec<Weak<Prepared>>>,
    pub(crate) programs: Programs,
    slots: Mutex<Slots>,
    pub(crate) clock: Arc<Clock>,
}

/// Indexes into workers' tables of instances: small, unique among the living, used again after death.
#[derive(Debug, Default)]
struct Slots {
    next: usize,
    free: Vec<usize>,
    ids: u64,
}

impl Host {
    pub fn new(config: HostConfig) -> Result<Self, HostError> {
        let engine = engine(&config).map_err(|error| HostError::Engine(format!("{error:#}")))?;
        let cache = match &config.cache_dir {
            Some(directory) => Some(Cache::open(directory, &engine).map_err(HostError::Cache)?),
            None => None,
        };
        let ticking = engine.clone();
        let clock = Clock::start(move || ticking.increment_epoch()).map_err(HostError::Clock)?;
        Ok(Self(Arc::new(Inner {
            engine,
            config,
            started: Instant::now(),
            buckets: Arc::default(),
            kv: KvRegistry::default(),
            cache,
            components: Mutex::default(),
            stats: DashMap::new(),
            prepared: Mutex::default(),
            programs: Programs::default(),
            slots: Mutex::default(),
            clock,
        })))
    }

    /// True when preparing a filter of this digest will not compile.
    pub fn is_cached(&self, digest: &Digest) -> bool {
        let living = lock(&self.0.components).get(digest).is_some_and(|component| component.strong_count() > 0);
        living || self.0.cache.as_ref().is_some_and(|cache| cache.contains(digest))
    }

    /// Verifies, compiles (or finds compiled), links with what is granted, and configures a filter. Blocks, for seconds
    /// where it compiles: never on a data-plane thread.
    pub fn prepare(&self, spec: &FilterSpec, wasm: &[u8]) -> Result<Arc<Prepared>, PrepareError> {
        let prepared = Arc::new(Prepared::new(&self.0, spec, wasm)?);
        let mut known = lock(&self.0.prepared);
        known.retain(|prepared| prepared.strong_count() > 0);
        known.push(Arc::downgrade(&prepared));
        drop(known);
        Ok(prepared)
    }

    /// True while the clock that ends calls sleeps because none has come for a while.
    pub fn is_idle(&self) -> bool {
        self.0.clock.is_parked()
    }

    /// Each attachment that is alive, in its newest configuration, by name.
    pub fn stats(&self) -> Vec<HostStats> {
        let mut prepared = lock(&self.0.prepared);
        prepared.retain(|prepared| prepared.strong_count() > 0);
        let mut newest = std::collections::BTreeMap::new();
        for prepared in prepared.iter().filter_map(Weak::upgrade) {
            newest.insert(prepared.spec().name.clone(), prepared.host_stats());
        }
        newest.into_values().collect()
    }
}

impl Inner {
    /// The compiled filter: from memory, from disk, or compiled now.
    pub(crate) fn component(&self, digest: &Digest, wasm: &[u8]) -> wasmtime::Result<Arc<Component>> {
        if let Some(component) = lock(&self.components).get(digest).and_then(Weak::upgrade) {
            return Ok(component);
        }
        let cached = self.cache.as_ref().and_then(|cache| cache.load(digest, &self.engine));
        let component = match cached {
            Some(component) => component,
            None => {
                let component = Component::from_binary(&self.engine, wasm)?;
                if let Some(cache) = &self.cache {
                    cache.store(digest, &component);
                }
                component
            }
        };
        let component = Arc::new(component);
        let mut components = lock(&self.components);
        components.retain(|_, component| component.strong_count() > 0);
        components.insert(*digest, Arc::downgrade(&component));
        Ok(component)
    }

    /// The counters of an attachment, as long as one of its configurations lives.
    pub(crate) fn filter_stats(&self, name: &str) -> Arc<FilterStats> {
        self.stats.retain(|_, stats| stats.strong_count() > 0);
        let mut entry = self.stats.entry(name.to_owned()).or_default();
        entry.upgrade().unwrap_or_else(|| {
            let stats = Arc::new(FilterStats::default());
            *entry = Arc::downgrade(&stats);
            stats
        })
    }

    /// A place in every worker's table, and an id that is never given again.
    pub(crate) fn take_slot(&self) -> (usize, u64) {
        let mut slots = lock(&self.slots);
        slots.ids += 1;
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.next += 1;
            slots.next - 1
        });
        (slot, slots.ids)
    }

    /// An id that is never given again, without a place.
    pub(crate) fn take_id(&self) -> u64 {
        let mut slots = lock(&self.slots);
        slots.ids += 1;
        slots.ids
    }

    pub(crate) fn return_slot(&self, slot: usize) {
        lock(&self.slots).free.push(slot);
    }
}

impl Shared {
    pub(crate) fn new(host: &Inner, memory_bytes: usize, stats: Arc<FilterStats>) -> Self {
        Self::of(memory_bytes, host.started, host.clock.clone(), stats)
    }
}

impl ConfigShared {
    /// # Errors
    /// It is granted what does not exist, or more than there may be.
    pub(crate) fn new(host: &Inner, spec: &FilterSpec) -> Result<Self, GrantError> {
        let Inner { kv, buckets, started, .. } = host;
        let kept = Kept { kv, buckets, bucket_limits: host.config.buckets, started: *started };
        Self::of(spec, host.filter_stats(&spec.name), kept)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.clock.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn engine(config: &HostConfig) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(config.max_instances)
        .total_core_instances(config.max_instances.saturating_mul(CORE_INSTANCES))
        .total_memories(config.max_instances)
        .total_tables(config.max_instances.saturating_mul(TABLES))
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(1)
        .max_tables_per_component(TABLES)
        .max_memory_size(config.max_memory_bytes)
        .table_elements(10_000)
        .linear_memory_keep_resident(1 << 20)
        .pagemap_scan(Enabled::Auto);
    let mut engine = Config::new();
    engine
        .wasm_component_model(true)
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        .wasm_backtrace_max_frames(NonZeroUsize::new(FRAMES))
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&engine)
}

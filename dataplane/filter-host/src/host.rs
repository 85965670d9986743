//! The host: one engine with its pool, clock and caches per process. Everything slow happens here, off the data path.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use dashmap::DashMap;
use wasmtime::component::Component;
use wasmtime::{Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};
use weft_policy::bundle::MAX_FILTER_MEMORY_BYTES;
use weft_policy::component;

use crate::bucket::{BucketLimits, BucketRegistry};
use crate::cache::{Cache, CacheLimits, CacheStats, deserialize};
use crate::clock::Clock;
use crate::compile::{self, CompileError, CompileLimits, Compiler, Refusals};
use crate::grants::GrantError;
use crate::kv::KvRegistry;
use crate::ledger::Ledger;
use crate::prepare::{PrepareError, Prepared, Programs};
use crate::refill::{Refiller, Shelf};
use crate::spec::{Digest, FilterSpec};
use crate::state::{ConfigShared, Kept, Shared, TABLE_ELEMENTS};
use crate::stats::{FilterStats, HostStats, Timing};

/// Tables that the pool has places for, by instance on average. Most filters have two.
const TABLES: u32 = 4;
/// Bytes that the host keeps of one component besides memories and tables: an interpreter's libraries refer to each
/// other's functions and variables by the thousand.
const COMPONENT_BYTES: usize = 2 << 20;
/// Places of dropped instances that are kept for a next instance of the same filter, each with up to 1 MiB of memory. An
/// instance that is replaced again and again uses the same places, and dropped ones cost 8 MiB at the most beyond what lived
/// at once.
const WARM_SLOTS: u32 = 8;

/// Bounds and places of a host.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Folder in which compiled filters are kept; `None` = they are not kept.
    pub cache_dir: Option<PathBuf>,
    pub cache: CacheLimits,
    pub compiler: Compiler,
    pub compile: CompileLimits,
    /// Instances of all filters on all workers. Default 512; each reserves address space, not memory.
    pub max_instances: u32,
    /// Linear memory that any filter may be granted, bytes. Default: the most that a policy may ask for.
    pub max_memory_bytes: usize,
    /// Instances made ready with each filter, so that no worker has to make its first. Default 1.
    pub workers: usize,
    /// Instances of each program that are kept ready to replace others, for all workers together. Default 1; with 0 a
    /// replacement is made when it is needed.
    pub spares: usize,
    /// Instances of all programs that are made ahead, and bytes of their linear memory. Default 128 and 64 MiB. Above: they
    /// are made when they are needed.
    pub spare_instances: u64,
    pub spare_bytes: u64,
    pub buckets: BucketLimits,
    /// Bytes that the process keeps for all filters between calls: values of `kv`, token buckets, parts of messages. Default
    /// 256 MiB. Above: values make room for each other, new keys share a bucket, streams fail.
    pub kept_bytes: u64,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            cache_dir: None,
            cache: CacheLimits::default(),
            compiler: Compiler::default(),
            compile: CompileLimits::default(),
            max_instances: 512,
            max_memory_bytes: usize::try_from(MAX_FILTER_MEMORY_BYTES).unwrap_or(usize::MAX),
            workers: 1,
            spares: 1,
            spare_instances: 128,
            spare_bytes: 64 << 20,
            buckets: BucketLimits::default(),
            kept_bytes: 256 << 20,
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
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) buckets: Arc<BucketRegistry>,
    pub(crate) kv: KvRegistry,
    cache: Option<Cache>,
    /// Compiled filters that a prepared one holds.
    components: Mutex<HashMap<Digest, Weak<Component>>>,
    /// Whoever makes a component holds its turn: nobody compiles what another one is compiling.
    turns: Mutex<HashMap<Digest, Arc<Mutex<()>>>>,
    refusals: Mutex<Refusals>,
    compiles: Compiles,
    stats: DashMap<String, Weak<FilterStats>>,
    prepared: Mutex<Vec<Weak<Prepared>>>,
    pub(crate) programs: Programs,
    /// What makes spare instances, and what they take.
    pub(crate) refiller: Refiller,
    pub(crate) shelf: Shelf,
    slots: Mutex<Slots>,
    workers: AtomicUsize,
    pub(crate) clock: Arc<Clock>,
}

/// What was compiled, and what could not be.
#[derive(Debug, Default)]
struct Compiles {
    done: Timing,
    refused: Timing,
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
            Some(directory) => Some(Cache::open(directory, &engine, config.cache).map_err(HostError::Cache)?),
            None => None,
        };
        let ticking = engine.clone();
        let clock = Clock::start(move || ticking.increment_epoch()).map_err(HostError::Clock)?;
        let ledger = Arc::new(Ledger::new(config.kept_bytes));
        Ok(Self(Arc::new(Inner {
            engine,
            config,
            started: Instant::now(),
            buckets: Arc::new(BucketRegistry::new(&ledger)),
            kv: KvRegistry::new(&ledger),
            ledger,
            cache,
            components: Mutex::default(),
            turns: Mutex::default(),
            refusals: Mutex::default(),
            compiles: Compiles::default(),
            stats: DashMap::new(),
            prepared: Mutex::default(),
            programs: Programs::default(),
            refiller: Refiller::default(),
            shelf: Shelf::default(),
            slots: Mutex::default(),
            workers: AtomicUsize::new(0),
            clock,
        })))
    }

    /// True when preparing a filter of this digest will not compile.
    pub fn is_cached(&self, digest: &Digest) -> bool {
        let living = lock(&self.0.components).get(digest).is_some_and(|component| component.strong_count() > 0);
        living || self.0.cache.as_ref().is_some_and(|cache| cache.contains(digest))
    }

    /// True when preparing a filter of this digest will take no time, whatever comes of it: it is compiled already, or known not
    /// to compile.
    pub fn is_decided(&self, digest: &Digest) -> bool {
        self.is_cached(digest) || lock(&self.0.refusals).of(digest, Instant::now()).is_some()
    }

    /// How compiled filters are kept; `None` where they are not.
    pub fn cache_stats(&self) -> Option<CacheStats> {
        self.0.cache.as_ref().map(Cache::stats)
    }

    /// Times that compiling took: where it succeeded, and where it did not.
    pub fn compile_times(&self) -> [(&'static str, &Timing); 2] {
        [("compiled", &self.0.compiles.done), ("refused", &self.0.compiles.refused)]
    }

    /// Verifies, compiles (or finds compiled), links with what is granted, and configures a filter. Blocks, for seconds
    /// where it compiles: never on a data-plane thread.
    pub fn prepare(&self, spec: &FilterSpec, wasm: &[u8]) -> Result<Arc<Prepared>, PrepareError> {
        let (prepared, made) = Prepared::new(&self.0, spec, wasm)?;
        let prepared = Arc::new(prepared);
        prepared.program.welcome(&prepared, made);
        let mut known = lock(&self.0.prepared);
        known.retain(|prepared| prepared.strong_count() > 0);
        known.push(Arc::downgrade(&prepared));
        drop(known);
        Ok(prepared)
    }

    /// Bytes that are kept for filters between calls.
    pub fn kept_bytes(&self) -> u64 {
        self.0.ledger.used()
    }

    /// Times that something could not be kept so, by what it was.
    pub fn kept_refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.ledger.refusals().into_iter()
    }

    /// Filter instances that wait to be called.
    pub fn spare_instances(&self) -> u64 {
        self.0.shelf.instances()
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
    pub(crate) fn component(&self, digest: &Digest, wasm: &[u8]) -> Result<Arc<Component>, CompileError> {
        if let Some(component) = self.living(digest) {
            return Ok(component);
        }
        let turn = lock(&self.turns).entry(*digest).or_default().clone();
        let made = self.make(&turn, digest, wasm);
        drop(turn);
        lock(&self.turns).retain(|_, turn| Arc::strong_count(turn) > 1);
        made
    }

    fn make(&self, turn: &Mutex<()>, digest: &Digest, wasm: &[u8]) -> Result<Arc<Component>, CompileError> {
        let _turn = lock(turn);
        if let Some(component) = self.living(digest) {
            return Ok(component);
        }
        let cached = self.cache.as_ref().and_then(|cache| cache.load(digest, &self.engine));
        let component = match cached {
            Some(component) => component,
            None => self.compile(digest, wasm)?,
        };
        let component = Arc::new(component);
        let mut components = lock(&self.components);
        components.retain(|_, component| component.strong_count() > 0);
        components.insert(*digest, Arc::downgrade(&component));
        Ok(component)
    }

    fn living(&self, digest: &Digest) -> Option<Arc<Component>> {
        lock(&self.components).get(digest).and_then(Weak::upgrade)
    }

    /// Compiles a filter and keeps it, unless it was found lately that it can't be compiled.
    fn compile(&self, digest: &Digest, wasm: &[u8]) -> Result<Component, CompileError> {
        let began = Instant::now();
        if let Some(error) = lock(&self.refusals).of(digest, began) {
            return Err(error);
        }
        let compiled = compile::compile(&self.engine, (&self.config.compiler, &self.config.compile), wasm);
        let component = compiled.and_then(|code| {
            let kept = self.cache.as_ref().and_then(|cache| cache.store(digest, &code, &self.engine));
            let component = kept.map_or_else(|| deserialize(&self.engine, &code), Ok);
            component.map_err(|error| CompileError::Refused(format!("{error:#}")))
        });
        match &component {
            Ok(_) => self.compiles.done.note(began.elapsed()),
            Err(error) => {
                self.compiles.refused.note(began.elapsed());
                lock(&self.refusals).note(*digest, error, Instant::now());
            }
        }
        component
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

    /// True where one more instance may be made ahead, beside some that were made and do not wait yet. A quarter is for what
    /// ships, which every namespace runs: nobody's own filters leave it without.
    pub(crate) fn has_room_for_spares(&self, made: usize, is_shipped: bool) -> bool {
        let part = |all: u64| if is_shipped { all } else { all - all / 4 };
        self.shelf.has_room(made, part(self.config.spare_instances), part(self.config.spare_bytes))
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

    /// A number for one more worker.
    pub(crate) fn take_worker(&self) -> usize {
        self.workers.fetch_add(1, Relaxed)
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

/// Most filters have one memory; where many have several, fewer of them find a place. A place is 4 GiB of address space,
/// of which a process has 128 TiB: 512 instances reserve 3 TiB, and 512 MiB for tables. Core instances cost nothing ahead.
fn memories(instances: u32) -> u32 {
    instances.saturating_add(instances / 2).max(component::MAX_MEMORIES)
}

fn engine(config: &HostConfig) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(config.max_instances)
        .total_core_instances(config.max_instances.saturating_mul(component::MAX_CORE_INSTANCES))
        .total_memories(memories(config.max_instances))
        .total_tables(config.max_instances.saturating_mul(TABLES).max(component::MAX_TABLES))
        .max_core_instances_per_component(component::MAX_CORE_INSTANCES)
        .max_memories_per_component(component::MAX_MEMORIES)
        .max_tables_per_component(component::MAX_TABLES)
        .max_component_instance_size(COMPONENT_BYTES)
        .max_memory_size(config.max_memory_bytes)
        .table_elements(TABLE_ELEMENTS)
        .linear_memory_keep_resident(1 << 20)
        .max_unused_warm_slots(WARM_SLOTS)
        .pagemap_scan(Enabled::Auto);
    let mut settings = compile::settings();
    settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&settings)
}

//! One data-plane thread: its own runtime, listeners, QUIC endpoint, pools and filter instances. Nothing here is shared
//! with another worker but the snapshot and the counters.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use weft_transport::quic::Pool;

use crate::apps::AppPool;
use crate::destination::{Destinations, local_peer};
use crate::reply::{Side, Verdict};
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::series::{PairLabels, PairMetrics, Peer, WorkerMetrics};

/// The state of one worker, reached by everything that runs on its thread.
pub struct Worker {
    pub index: usize,
    pub shared: Arc<Shared>,
    pub pool: Pool,
    pub apps: AppPool,
    pub filters: RefCell<weft_filter_host::Worker>,
    pub destinations: Destinations,
    pub metrics: WorkerMetrics,
    pub access_log: AccessLog,
    start: Instant,
    dice: Cell<u64>,
    streams: Cell<u64>,
    unknown: RefCell<Option<(u64, [Rc<PairMetrics>; 2])>>,
    current: RefCell<Option<Current>>,
    pub in_flight: InFlight,
}

/// A snapshot as one worker holds it.
pub type Current = Rc<Arc<Snapshot>>;

impl Worker {
    pub fn new(index: usize, shared: Arc<Shared>, pool: Pool, apps: AppPool) -> Self {
        let metrics = WorkerMetrics::new(Arc::clone(&shared.series));
        let in_flight = InFlight::default();
        shared.in_flight.watch(&in_flight);
        Self {
            index,
            pool,
            apps,
            filters: RefCell::new(weft_filter_host::Worker::new(&shared.filter_host)),
            destinations: Destinations::new(metrics.clone(), shared.unreachable.clone()),
            metrics,
            access_log: shared.access_log.clone(),
            start: Instant::now(),
            dice: Cell::new(rand::random::<u64>() | 1),
            streams: Cell::new(0),
            unknown: RefCell::default(),
            current: RefCell::default(),
            in_flight,
            shared,
        }
    }

    /// The current snapshot; a request takes it once. Counted on this thread: workers share no reference count.
    pub fn snapshot(&self) -> Option<Current> {
        let mut current = self.current.borrow_mut();
        let latest = self.shared.generation();
        if current.as_ref().is_none_or(|known| known.generation != latest) {
            *current = self.shared.snapshot.load_full().map(Rc::new);
        }
        current.clone()
    }

    /// Whether the access log is on now.
    pub fn access_log_on(&self) -> bool {
        self.snapshot().is_some_and(|snapshot| snapshot.mesh.access_log)
    }

    /// Monotonic time since the worker started, the clock of the pure crates.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Random bits that need not be secret (xorshift64*).
    pub fn dice(&self) -> u64 {
        let mut state = self.dice.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.dice.set(state);
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// An id for one request in its filters; never 0, unique on this worker.
    pub fn next_stream(&self) -> u64 {
        self.streams.set(self.streams.get() + 1);
        self.streams.get()
    }

    /// Counts an answer that the proxy made itself.
    pub fn local_reply(&self, side: Side, verdict: &Verdict) {
        self.shared.local_reply(side, verdict.stage, verdict.reason);
    }

    /// The series of requests that never found a destination.
    pub fn unknown_pair(&self, side: Side) -> Rc<PairMetrics> {
        let snapshot = self.snapshot();
        let generation = snapshot.as_ref().map_or(0, |snapshot| snapshot.generation);
        let index = usize::from(side == Side::Inbound);
        if let Some((known, pairs)) = &*self.unknown.borrow()
            && *known == generation
        {
            return Rc::clone(&pairs[index]);
        }
        let local = snapshot.as_ref().map(|snapshot| local_peer(snapshot.local())).unwrap_or_default();
        let pairs = [
            PairLabels { reporter: "source", source: local.clone(), ..PairLabels::default() },
            PairLabels {
                reporter: "destination",
                destination: local,
                source: Peer::default(),
                ..PairLabels::default()
            },
        ]
        .map(|labels| self.metrics.pair(&labels));
        let pair = Rc::clone(&pairs[index]);
        *self.unknown.borrow_mut() = Some((generation, pairs));
        pair
    }
}

/// What is in flight on one worker; that worker alone writes it.
#[derive(Debug, Default, Clone)]
pub struct InFlight(Arc<AtomicU64>);

impl InFlight {
    pub fn enter(&self) -> InFlightGuard<'_> {
        self.0.store(self.count() + 1, Ordering::Relaxed);
        InFlightGuard(self)
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One request or tunnel under way.
#[derive(Debug)]
pub struct InFlightGuard<'w>(&'w InFlight);

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.0.0.store(self.0.count() - 1, Ordering::Relaxed);
    }
}

/// What is in flight on all workers, so that a drain knows when it is done.
#[derive(Debug, Default)]
pub struct AllInFlight(Mutex<Vec<InFlight>>);

impl AllInFlight {
    fn watch(&self, worker: &InFlight) {
        self.0.lock().expect("no holder panics").push(worker.clone());
    }

    pub fn count(&self) -> u64 {
        self.0.lock().expect("no holder panics").iter().map(InFlight::count).sum()
    }
}

//! One data-plane thread: its own runtime, listeners, QUIC endpoint, pools and filter instances. Nothing here is shared
//! with another worker but the snapshot and the counters.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use weft_transport::quic::Pool;

use crate::alarms::Alarms;
use crate::app_leg::AppLeg;
use crate::apps::AppPool;
use crate::copying::Copies;
use crate::destination::{Destinations, Finding};
use crate::filtering::{Bodies, Filters};
use crate::gauges::InFlight;
use crate::ledger::Ledger;
use crate::names::Names;
use crate::relay::Idle;
use crate::shared::Shared;
use crate::snapshot::{Current, Local};
use crate::stalls::Stalls;
use crate::usage::WorkerUses;

/// The state of one worker, reached by everything that runs on its thread.
pub struct Worker {
    pub index: usize,
    pub shared: Arc<Shared>,
    pub pool: Pool,
    pub apps: AppPool,
    /// Of what is outside the mesh.
    pub names: Names,
    pub filters: Filters,
    pub destinations: Destinations,
    pub uses: WorkerUses,
    pub ledger: Ledger,
    pub in_flight: InFlight,
    pub alarms: Alarms,
    pub stalls: Stalls,
    pub copies: Copies,
    /// Notified of each swap to a snapshot that admits otherwise. Standing requests wait on this one of their own worker, so that
    /// workers share no list of waiters.
    pub admits_otherwise: Notify,
    /// Cancelled once draining.
    pub draining: CancellationToken,
    start: Instant,
    dice: Cell<u64>,
    current: RefCell<Option<Current>>,
}

impl Worker {
    pub fn new(index: usize, shared: Arc<Shared>, pool: Pool, apps: AppPool) -> Self {
        let ledger = Ledger::new(Arc::clone(&shared.series), shared.access_log.clone(), shared.counters.clone());
        let in_flight = InFlight::default();
        shared.in_flight.watch(&in_flight);
        let start = shared.start;
        let bodies = Bodies {
            budget: Arc::clone(&shared.filter_bodies),
            wait: Duration::from_millis(shared.config.limits.filter_body_timeout_ms),
        };
        Self {
            index,
            pool,
            apps,
            names: Names::new((&shared.config.limits).into()),
            filters: Filters::new(&shared.filter_host, bodies),
            destinations: Destinations::new(
                ledger.metrics.clone(),
                shared.out.clone(),
                (shared.gates.clone(), shared.budgets.clone()),
                Finding { reaches: shared.reaches.clone(), start, checks: shared.checks.clone() },
                shared.config.danger_plaintext_tunnel,
            ),
            uses: WorkerUses::new(shared.uses.clone()),
            ledger,
            in_flight,
            alarms: Alarms::default(),
            stalls: Stalls::of(&shared.stalls),
            copies: Copies::new(shared.config.limits.mirrors, shared.copies.clone()),
            admits_otherwise: Notify::new(),
            draining: shared.drain.of_worker(),
            start,
            dice: Cell::new(rand::random::<u64>() | 1),
            current: RefCell::default(),
            shared,
        }
    }

    /// The leg to apps and to addresses outside the mesh.
    pub fn app_leg(&self, connect_timeout: Duration) -> AppLeg<'_> {
        AppLeg {
            apps: &self.apps,
            counters: &self.ledger.counters,
            budget: &self.shared.app_budget,
            start: self.start,
            connect_timeout,
            resends: self.shared.config.limits.app_resends,
            idle: self.idle(),
        }
    }

    /// How long nothing may move.
    pub fn idle(&self) -> Idle<'_> {
        let limits = &self.shared.config.limits;
        Idle {
            tunnel: Duration::from_secs(limits.tunnel_idle_timeout_s),
            late_upload: Duration::from_secs(limits.late_upload_idle_timeout_s),
            own_answer: Duration::from_secs(limits.own_answer_timeout_s),
            alarms: &self.alarms,
            stalls: &self.stalls,
        }
    }

    /// The current snapshot; a request decides by one, and lets go of it once it knows where it goes. Counted on this thread:
    /// workers share no reference count.
    pub fn snapshot(&self) -> Option<Current> {
        let mut current = self.current.borrow_mut();
        let latest = self.shared.generation();
        if current.as_ref().is_none_or(|known| known.generation != latest) {
            *current = self.shared.snapshot.load_full().map(|snapshot| Rc::new(Local::new(snapshot)));
        }
        current.clone()
    }

    /// Monotonic time since the process started, the clock of the pure crates. All workers have the same.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The same for a moment that has passed.
    pub fn time_of(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.start)
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
}

//! State that workers and the control side share: the snapshot, the counters, the drain. Nothing here is locked on the
//! request path, but for a moment where a filter asks a service.

use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use weft_filter_host::Host;
use weft_flow::Allowance;
use weft_transport::http::Leaving;
use weft_transport::quic::{AdmissionStats, PoolStats};

use crate::apps::AppPoolStats;
use crate::asking::Asking;
use crate::budget::{Budget, Budgets};
use crate::config::Config;
use crate::gate::Gates;
use crate::gauges::{AllInFlight, OpenCount, Out};
use crate::health::HealthChecks;
use crate::hosts::Hosts;
use crate::outside_certificates::OutsideCertificates;
use crate::quota::DividedQuota;
use crate::reach::Reaches;
use crate::snapshot::Snapshot;
use crate::sockets::Guard;
use crate::stalls::StallBudget;
use crate::telemetry::access_log::{self, AccessLog};
use crate::telemetry::counters::Counters;
use crate::telemetry::line_writer::Room;
use crate::telemetry::series::{SeriesLimits, SeriesStore};
use crate::usage::Uses;
use crate::via::Via;

/// Shared state of the process.
pub struct Shared {
    pub config: Config,
    /// The start of the clock of all workers.
    pub start: Instant,
    pub snapshot: ArcSwapOption<Snapshot>,
    generation: AtomicU64,
    admits: AtomicU64,
    /// Bumped with each swap: workers wake to evict what left.
    pub swapped: watch::Sender<u64>,
    pub filter_host: Host,
    pub series: Arc<SeriesStore>,
    pub access_log: AccessLog,
    pub counters: Counters,
    /// Guard of the addresses that nobody may reach through this proxy.
    pub guard: Guard,
    /// How this proxy names itself in `Via` of what it forwards outside the mesh, so that a loop is noticed.
    pub via: Via,
    /// Names that mean what this machine says.
    pub hosts: Arc<Hosts>,
    /// By which servers outside the mesh know this proxy.
    pub outside_certificates: OutsideCertificates,
    pub in_flight: AllInFlight,
    /// The budget for streams that stall, and the memory that they hold.
    pub stalls: Arc<StallBudget>,
    pub drain: Drain,
    pub app_connections: OpenCount,
    pub peer_connections: OpenCount,
    /// Endpoints that take no requests, as each worker finds.
    pub out: Out,
    /// Destinations that take so many requests of this proxy.
    pub gates: Gates,
    /// How much of what is sent to them may be sent again, and of what is sent to apps and outside the mesh.
    pub budgets: Budgets,
    pub app_budget: Budget,
    /// What this proxy's checks find of endpoints.
    pub checks: HealthChecks,
    /// Copies of requests under way.
    pub copies: OpenCount,
    /// Bodies that are gathered for filters, and what filters ask of services.
    pub filter_bodies: Arc<DividedQuota>,
    pub filter_callouts: DividedQuota,
    /// The workers' findings about their peers.
    pub reaches: Reaches,
    pub contact: Contact,
    /// What workers need and this proxy does not hold, and what they use of what it holds.
    pub asking: Asking,
    pub uses: Uses,
    /// The peer pools of all workers, for their counters.
    pub pools: Mutex<Vec<Arc<PoolStats>>>,
    /// The mesh ports of all workers, for their counters.
    pub admissions: Mutex<Vec<Arc<AdmissionStats>>>,
    /// The app pools of all workers, for their counters.
    pub app_pools: Mutex<Vec<AppPoolStats>>,
}

impl Shared {
    pub fn new(config: Config, filter_host: Host) -> std::io::Result<Self> {
        let allowance = Allowance {
            percent: config.limits.retry_budget_percent,
            per_second: config.limits.retry_budget_per_second,
        };
        let certificates = OutsideCertificates::read(&config.outside_certificates);
        Ok(Self {
            outside_certificates: certificates.map_err(|wrong| std::io::Error::other(wrong.join("; ")))?,
            start: Instant::now(),
            guard: Guard::new(&config.listen, config.workload.app_on_loopback),
            via: Via::new(rand::random()),
            hosts: Arc::new(Hosts::read(Path::new("/etc/hosts"))),
            filter_host,
            snapshot: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            admits: AtomicU64::new(0),
            swapped: watch::Sender::new(0),
            access_log: access_log::start(
                config.access_log_file.clone(),
                Room { lines: config.limits.access_log_queue_lines, bytes: config.limits.access_log_queue_bytes },
            )?,
            series: Arc::new(SeriesStore::new(SeriesLimits {
                per_worker: config.limits.metric_series_per_worker,
                sources_per_identity: config.limits.metric_sources_per_identity,
            })),
            counters: Counters::register(),
            in_flight: AllInFlight::default(),
            stalls: Arc::new(StallBudget::new(
                config.limits.stalled_bytes,
                Duration::from_millis(config.limits.stalled_after_ms),
            )),
            drain: Drain::default(),
            app_connections: OpenCount::default(),
            peer_connections: OpenCount::default(),
            out: Out::default(),
            gates: Gates::default(),
            budgets: Budgets::new(allowance),
            app_budget: Budget::new(allowance),
            checks: HealthChecks::default(),
            copies: OpenCount::default(),
            filter_bodies: Arc::new(DividedQuota::new(config.limits.filter_bodies)),
            filter_callouts: DividedQuota::new(config.limits.filter_callouts),
            reaches: Reaches::default(),
            contact: Contact::default(),
            asking: Asking::new(config.limits.names_asked, Duration::from_millis(config.limits.first_call_wait_ms)),
            uses: Uses::default(),
            pools: Mutex::default(),
            admissions: Mutex::default(),
            app_pools: Mutex::default(),
            config,
        })
    }

    /// Makes `snapshot` current.
    pub fn swap(&self, mut snapshot: Snapshot) {
        if let Some(before) = &*self.snapshot.load() {
            snapshot.follow(before);
        }
        let (generation, admits) = (snapshot.generation, snapshot.admits);
        self.snapshot.store(Some(Arc::new(snapshot)));
        self.generation.store(generation, Ordering::Release);
        self.admits.store(admits, Ordering::Release);
        self.swapped.send_replace(generation);
    }

    /// The generation of the current snapshot; 0 while there is none.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// `Snapshot::admits` of the current snapshot; 0 while there is none.
    pub fn admits(&self) -> u64 {
        self.admits.load(Ordering::Acquire)
    }
}

/// The wish to end: set once, by SIGTERM or `/drain`; `quit` ends the wait for what is in flight.
#[derive(Debug, Default, Clone)]
pub struct Drain {
    started: CancellationToken,
    quit: CancellationToken,
    leaving: Leaving,
}

impl Drain {
    pub fn start(&self) {
        self.leaving.tell();
        self.started.cancel();
    }

    pub fn is_draining(&self) -> bool {
        self.leaving.is_told()
    }

    /// Told once draining: what looks at it for each request takes no lock.
    pub fn leaving(&self) -> Leaving {
        self.leaving.clone()
    }

    /// Cancelled once draining. For one worker, so that no other waits for its lock.
    pub fn of_worker(&self) -> CancellationToken {
        self.started.child_token()
    }

    /// Resolves once draining.
    pub fn draining(&self) -> WaitForCancellationFuture<'_> {
        self.started.cancelled()
    }

    /// Ends at once.
    pub fn quit(&self) {
        self.start();
        self.quit.cancel();
    }

    /// Resolves when nothing more shall be waited for.
    pub fn quitting(&self) -> WaitForCancellationFuture<'_> {
        self.quit.cancelled()
    }
}

/// When the control plane was last heard; 0 while connected.
#[derive(Debug, Default)]
pub struct Contact {
    lost_at_unix_ms: AtomicI64,
    connected: AtomicU64,
    /// Why what the control plane offers is not taken.
    not_followed: Mutex<Option<String>>,
    /// Why the control plane serves this proxy no stream, where it was reached and said no.
    refused: Mutex<Option<String>>,
    /// Why the certificate could not be renewed when that was last tried.
    not_renewed: Mutex<Option<String>>,
    /// How long certificates that are issued now live, seconds; 0 where that was not told.
    svid_ttl_s: AtomicU64,
}

impl Contact {
    pub fn set_svid_ttl(&self, seconds: u64) {
        self.svid_ttl_s.store(seconds, Ordering::Relaxed);
    }

    pub fn svid_ttl(&self) -> u64 {
        self.svid_ttl_s.load(Ordering::Relaxed)
    }

    pub fn connected(&self) {
        self.connected.store(1, Ordering::Relaxed);
        self.lost_at_unix_ms.store(0, Ordering::Relaxed);
    }

    pub fn lost(&self) {
        if self.connected.swap(0, Ordering::Relaxed) == 1 || self.lost_at_unix_ms.load(Ordering::Relaxed) == 0 {
            self.lost_at_unix_ms.store(unix_ms(), Ordering::Relaxed);
        }
    }

    /// Notes why the control plane is not followed, or that it is. True where that is news.
    pub fn set_not_followed(&self, reason: Option<String>) -> bool {
        replaced(&self.not_followed, reason)
    }

    pub fn not_followed(&self) -> Option<String> {
        self.not_followed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes why the control plane serves no stream, or that it does.
    pub fn set_refused(&self, reason: Option<String>) {
        replaced(&self.refused, reason);
    }

    pub fn refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes why the certificate could not be renewed, or that it was. True where that is news.
    pub fn set_not_renewed(&self, reason: Option<String>) -> bool {
        replaced(&self.not_renewed, reason)
    }

    pub fn not_renewed(&self) -> Option<String> {
        self.not_renewed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed) == 1
    }

    /// Milliseconds since the stream was lost; 0 while it is up.
    pub fn staleness_ms(&self) -> u64 {
        match self.lost_at_unix_ms.load(Ordering::Relaxed) {
            0 => 0,
            lost => u64::try_from(unix_ms() - lost).unwrap_or(0),
        }
    }
}

fn replaced(held: &Mutex<Option<String>>, new: Option<String>) -> bool {
    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
    let is_news = *held != new;
    *held = new;
    is_news
}

fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

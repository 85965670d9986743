//! What workers and the control side share: the snapshot, the counters, the drain. Nothing here is locked on the
//! request path.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use weft_filter_host::Host;
use weft_transport::detect::Detected;
use weft_transport::h3::{Code, Violation};
use weft_transport::quic::PoolStats;
use weft_transport::tls::HandshakeFailure;

use crate::apps::AppPoolStats;
use crate::config::Config;
use crate::reply::Side;
use crate::snapshot::Snapshot;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::names::Metric;
use crate::telemetry::series::SeriesStore;
use crate::worker::AllInFlight;

/// Shared state of the process.
pub struct Shared {
    pub config: Config,
    pub snapshot: ArcSwapOption<Snapshot>,
    generation: AtomicU64,
    /// Bumped with each swap: workers wake to evict what left.
    pub swapped: watch::Sender<u64>,
    pub filter_host: Host,
    pub series: Arc<SeriesStore>,
    pub access_log: AccessLog,
    pub counters: Counters,
    pub in_flight: AllInFlight,
    pub drain: Drain,
    pub app_connections: OpenCount,
    pub peer_connections: OpenCount,
    /// Endpoints that cannot be reached, as each worker finds.
    pub unreachable: OpenCount,
    pub contact: Contact,
    /// The peer pools of all workers, for their counters.
    pub pools: Mutex<Vec<Arc<PoolStats>>>,
    /// The app pools of all workers, for their counters.
    pub app_pools: Mutex<Vec<AppPoolStats>>,
}

impl Shared {
    pub fn new(config: Config, filter_host: Host) -> std::io::Result<Self> {
        Ok(Self {
            config,
            filter_host,
            snapshot: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            swapped: watch::Sender::new(0),
            series: Arc::default(),
            access_log: AccessLog::start()?,
            counters: Counters::register(),
            in_flight: AllInFlight::default(),
            drain: Drain::default(),
            app_connections: OpenCount::default(),
            peer_connections: OpenCount::default(),
            unreachable: OpenCount::default(),
            contact: Contact::default(),
            pools: Mutex::default(),
            app_pools: Mutex::default(),
        })
    }

    /// Makes `snapshot` current.
    pub fn swap(&self, snapshot: Snapshot) {
        let generation = snapshot.generation;
        self.snapshot.store(Some(Arc::new(snapshot)));
        self.generation.store(generation, Ordering::Release);
        self.swapped.send_replace(generation);
    }

    /// The generation of the current snapshot; 0 while there is none.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// True for the address of one of our own listeners: carrying something there would be a loop.
    pub fn is_own_listener(&self, address: SocketAddr) -> bool {
        let listen = &self.config.listen;
        let ours = [
            listen.explicit,
            listen.outbound,
            listen.inbound,
            Some(listen.mesh),
            Some(listen.admin),
            Some(listen.metrics),
            Some(listen.health),
        ];
        let local = |ip: std::net::IpAddr| ip.is_loopback() || ip == self.config.workload.address;
        ours.into_iter().flatten().any(|own| {
            own.port() == address.port()
                && (own.ip() == address.ip() || own.ip().is_unspecified() && local(address.ip()))
        })
    }

    /// Counts an answer that the proxy made itself.
    pub fn local_reply(&self, side: Side, stage: &'static str, reason: &'static str) {
        metrics::counter!(Metric::LocalReplies.name(), "side" => side.as_str(), "stage" => stage, "reason" => reason)
            .increment(1);
    }

    /// Counts a mesh connection that was closed for its peer's breach.
    pub fn violation(&self, violation: &Violation) {
        let code = Code::name(violation.code);
        metrics::counter!(Metric::PeerViolations.name(), "code" => code, "reason" => violation.reason).increment(1);
    }

    /// Counts a mesh handshake. `reason`: why it failed.
    pub fn handshake(&self, side: Side, reason: Option<&'static str>) {
        match reason {
            None => metrics::counter!(Metric::Handshakes.name(), "side" => side.as_str()).increment(1),
            Some(reason) => {
                metrics::counter!(Metric::HandshakeFailures.name(), "side" => side.as_str(), "reason" => reason)
                    .increment(1);
            }
        }
    }
}

/// Counters of rare events, resolved once.
pub struct Counters {
    pub malformed: metrics::Counter,
    pub misdirected: metrics::Counter,
    pub plaintext_refused: metrics::Counter,
    pub passthrough: metrics::Counter,
    pub retries: metrics::Counter,
    pub retries_refused: metrics::Counter,
    pub connections_refused: metrics::Counter,
    detected: [metrics::Counter; 5],
}

const DETECTED: [&str; 5] = ["none", "http1", "http2", "tls", "opaque"];

impl Counters {
    /// Registers them, so that they are there at 0 from the first scrape.
    pub fn register() -> Self {
        let counter = |metric: Metric| {
            let counter = metrics::counter!(metric.name());
            counter.absolute(0);
            counter
        };
        let _ = counter(Metric::ConfigRefused);
        for (side, failure) in
            [Side::Inbound, Side::Outbound].iter().flat_map(|side| HandshakeFailure::ALL.map(|it| (side, it)))
        {
            let labels = [("side", side.as_str()), ("reason", failure.as_str())];
            metrics::counter!(Metric::HandshakeFailures.name(), &labels).absolute(0);
        }
        for result in ["renewed", "failed"] {
            metrics::counter!(Metric::CertificateRenewals.name(), "result" => result).absolute(0);
        }
        Self {
            malformed: counter(Metric::Malformed),
            misdirected: counter(Metric::MisdirectedRefused),
            plaintext_refused: counter(Metric::PlaintextRefused),
            passthrough: counter(Metric::Passthrough),
            retries: counter(Metric::Retries),
            retries_refused: counter(Metric::RetriesRefused),
            connections_refused: counter(Metric::AppConnectionsRefused),
            detected: DETECTED.map(|protocol| metrics::counter!(Metric::Detected.name(), "protocol" => protocol)),
        }
    }

    pub fn detected(&self, detected: &Detected) -> &metrics::Counter {
        &self.detected[match detected {
            Detected::NeedMore => 0,
            Detected::Http1 => 1,
            Detected::Http2 => 2,
            Detected::Tls { .. } => 3,
            Detected::Opaque => 4,
        }]
    }
}

/// How many of something are open.
#[derive(Debug, Default, Clone)]
pub struct OpenCount(Arc<AtomicU64>);

impl OpenCount {
    pub fn enter(&self) -> OpenGuard {
        self.0.fetch_add(1, Ordering::Relaxed);
        OpenGuard(Arc::clone(&self.0))
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One open thing.
#[derive(Debug)]
pub struct OpenGuard(Arc<AtomicU64>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The wish to end: set once, by SIGTERM or `/drain`; `quit` ends the wait for what is in flight.
#[derive(Debug, Default, Clone)]
pub struct Drain {
    started: CancellationToken,
    quit: CancellationToken,
}

impl Drain {
    pub fn start(&self) {
        self.started.cancel();
    }

    pub fn is_draining(&self) -> bool {
        self.started.is_cancelled()
    }

    /// Resolves once draining.
    pub fn draining(&self) -> WaitForCancellationFuture<'_> {
        self.started.cancelled()
    }

    /// Ends at once.
    pub fn quit(&self) {
        self.started.cancel();
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
}

impl Contact {
    pub fn connected(&self) {
        self.connected.store(1, Ordering::Relaxed);
        self.lost_at_unix_ms.store(0, Ordering::Relaxed);
    }

    pub fn lost(&self) {
        if self.connected.swap(0, Ordering::Relaxed) == 1 || self.lost_at_unix_ms.load(Ordering::Relaxed) == 0 {
            self.lost_at_unix_ms.store(unix_ms(), Ordering::Relaxed);
        }
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

fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

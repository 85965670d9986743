//! Request and connection series of one worker. A handle is resolved once per pair of workloads; counting a request is
//! then a short scan and a few plain stores. Written by one thread only, read by any.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::reply::Flag;

/// Upper bounds of Istio's histograms (milliseconds and bytes alike).
pub const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Distinct label sets that one worker keeps; what comes after is counted under `overflow`.
pub const MAX_SERIES_PER_WORKER: usize = 10_000;

/// A counter with one writer: a plain load and store, no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A histogram over [`BOUNDS`] with one writer. The sum is kept in thousandths.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BOUNDS.len() + 1],
    sum_thousandths: Counter,
}

impl Histogram {
    /// Counts `thousandths`/1000.
    fn record(&self, thousandths: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a bucket boundary does not need 53 bits")]
        let value = thousandths as f64 / 1_000.0;
        let bucket = BOUNDS.iter().position(|bound| value <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].add(1);
        self.sum_thousandths.add(thousandths);
    }

    /// Counts per bucket (not cumulative; the last is +Inf) and the sum in thousandths.
    pub fn read(&self) -> ([u64; BOUNDS.len() + 1], u64) {
        let mut counts = [0; BOUNDS.len() + 1];
        for (count, bucket) in counts.iter_mut().zip(&self.buckets) {
            *count = bucket.value();
        }
        (counts, self.sum_thousandths.value())
    }
}

/// What distinguishes series within a pair of workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RequestKey {
    code: u16,
    /// `None`: not gRPC, or no status seen.
    grpc_status: Option<u16>,
    grpc: bool,
    flag: Flag,
}

/// Counters of requests with equal labels.
#[derive(Debug)]
pub struct RequestSeries {
    pub labels: String,
    pub requests: Counter,
    pub duration: Histogram,
    pub request_bytes: Histogram,
    pub response_bytes: Histogram,
}

/// Counters of TCP connections with equal labels.
#[derive(Debug, Default)]
pub struct TcpSeries {
    pub labels: String,
    pub opened: Counter,
    pub closed: Counter,
    pub sent: Arc<Counter>,
    pub received: Arc<Counter>,
}

/// How a request ended, as the metrics see it.
#[derive(Debug, Clone, Copy)]
pub struct RequestEnd {
    pub code: u16,
    pub grpc: bool,
    pub grpc_status: Option<u16>,
    pub flag: Flag,
    pub duration: Duration,
    pub request_bytes: u64,
    pub response_bytes: u64,
}

/// Who talks to whom, for the labels of Istio's standard metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PairLabels {
    /// `source` = the caller's proxy reports, `destination` = the callee's.
    pub reporter: &'static str,
    pub source: Peer,
    pub destination: Peer,
    pub destination_service: String,
    pub destination_service_name: String,
    pub destination_service_namespace: String,
    pub mutual_tls: bool,
}

/// One end of a pair.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Peer {
    pub workload: String,
    pub namespace: String,
    pub principal: String,
    pub app: String,
    pub version: String,
}

impl PairLabels {
    /// The labels that all series of the pair share, in exposition format without braces.
    fn render(&self) -> String {
        let mut text = String::with_capacity(768);
        push_label(&mut text, "reporter", self.reporter);
        for (side, peer) in [("source", &self.source), ("destination", &self.destination)] {
            for (name, value) in [
                ("workload", &peer.workload),
                ("workload_namespace", &peer.namespace),
                ("principal", &peer.principal),
                ("app", &peer.app),
                ("version", &peer.version),
                ("canonical_service", &peer.app),
                ("canonical_revision", &peer.version),
            ] {
                push_label(&mut text, &format!("{side}_{name}"), unknown_if_empty(value));
            }
            push_label(&mut text, &format!("{side}_cluster"), "unknown");
        }
        push_label(&mut text, "destination_service", unknown_if_empty(&self.destination_service));
        push_label(&mut text, "destination_service_name", unknown_if_empty(&self.destination_service_name));
        push_label(&mut text, "destination_service_namespace", unknown_if_empty(&self.destination_service_namespace));
        push_label(&mut text, "connection_security_policy", self.security());
        text
    }

    /// `mutual_tls` is said by the side that verified it: the source cannot know what the destination enforced.
    fn security(&self) -> &'static str {
        match (self.reporter, self.mutual_tls) {
            ("source", _) => "unknown",
            (_, true) => "mutual_tls",
            (_, false) => "none",
        }
    }
}

fn unknown_if_empty(value: &str) -> &str {
    if value.is_empty() { "unknown" } else { value }
}

/// Appends `name="value",` with the escapes of the exposition format.
pub fn push_label(text: &mut String, name: &str, value: &str) {
    text.push_str(name);
    text.push_str("=\"");
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
    text.push_str("\",");
}

/// All series of all workers: written by nobody here, read by a scrape.
#[derive(Debug, Default)]
pub struct SeriesStore {
    pub requests: Mutex<Vec<Arc<RequestSeries>>>,
    pub tcp: Mutex<Vec<Arc<TcpSeries>>>,
    pub dropped: AtomicU64,
}

/// The metrics of one worker thread.
#[derive(Debug, Clone)]
pub struct WorkerMetrics {
    store: Arc<SeriesStore>,
    made: Rc<std::cell::Cell<usize>>,
}

impl WorkerMetrics {
    pub fn new(store: Arc<SeriesStore>) -> Self {
        Self { store, made: Rc::default() }
    }

    /// The handle for a pair of workloads; keep it for the life of the route or connection.
    pub fn pair(&self, labels: &PairLabels) -> Rc<PairMetrics> {
        Rc::new(PairMetrics {
            labels: labels.render(),
            worker: self.clone(),
            requests: RefCell::default(),
            tcp: RefCell::default(),
        })
    }

    /// True while there is room for one more series.
    fn admit(&self) -> bool {
        if self.made.get() >= MAX_SERIES_PER_WORKER {
            self.store.dropped.fetch_add(1, Relaxed);
            return false;
        }
        self.made.set(self.made.get() + 1);
        true
    }
}

/// The series of one pair of workloads on one worker.
#[derive(Debug)]
pub struct PairMetrics {
    labels: String,
    worker: WorkerMetrics,
    requests: RefCell<Vec<(RequestKey, Arc<RequestSeries>)>>,
    tcp: RefCell<Vec<(Flag, Arc<TcpSeries>)>>,
}

impl PairMetrics {
    /// Counts a finished request.
    pub fn request(&self, end: RequestEnd) {
        let key = RequestKey { code: end.code, grpc_status: end.grpc_status, grpc: end.grpc, flag: end.flag };
        let found = self.requests.borrow().iter().find(|(k, _)| *k == key).map(|(_, series)| Arc::clone(series));
        let series = found.unwrap_or_else(|| self.open_request_series(key));
        series.requests.add(1);
        series.duration.record(u64::try_from(end.duration.as_micros()).unwrap_or(u64::MAX));
        series.request_bytes.record(end.request_bytes.saturating_mul(1_000));
        series.response_bytes.record(end.response_bytes.saturating_mul(1_000));
    }

    /// The series for TCP connections that end (or begin) with `flag`.
    pub fn tcp(&self, flag: Flag) -> Arc<TcpSeries> {
        if let Some((_, series)) = self.tcp.borrow().iter().find(|(f, _)| *f == flag) {
            return Arc::clone(series);
        }
        let mut labels = self.shared_labels();
        push_label(&mut labels, "request_protocol", "tcp");
        push_label(&mut labels, "response_flags", flag.letters());
        labels.pop();
        let series = Arc::new(TcpSeries { labels, ..TcpSeries::default() });
        self.worker.store.tcp.lock().expect("no holder panics").push(Arc::clone(&series));
        self.tcp.borrow_mut().push((flag, Arc::clone(&series)));
        series
    }

    fn open_request_series(&self, key: RequestKey) -> Arc<RequestSeries> {
        let mut labels = self.shared_labels();
        push_label(&mut labels, "request_protocol", if key.grpc { "grpc" } else { "http" });
        let _ = write!(labels, "response_code=\"{}\",", key.code);
        match key.grpc_status {
            Some(status) => {
                let _ = write!(labels, "grpc_response_status=\"{status}\",");
            }
            None => push_label(&mut labels, "grpc_response_status", ""),
        }
        push_label(&mut labels, "response_flags", key.flag.letters());
        labels.pop();
        let series = Arc::new(RequestSeries {
            labels,
            requests: Counter::default(),
            duration: Histogram::default(),
            request_bytes: Histogram::default(),
            response_bytes: Histogram::default(),
        });
        self.worker.store.requests.lock().expect("no holder panics").push(Arc::clone(&series));
        self.requests.borrow_mut().push((key, Arc::clone(&series)));
        series
    }

    fn shared_labels(&self) -> String {
        if self.worker.admit() { self.labels.clone() } else { "overflow=\"true\",".to_owned() }
    }
}

//! Request and connection series of one worker. A handle is resolved once per pair of workloads; counting a request is
//! then a short scan and a few plain stores. Written by one thread only, read by any. Invariant: equal labels, one handle,
//! for as long as anybody holds it.

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::sources::Sources;
use super::store::{Opened, Series};
pub use super::store::{SeriesLimits, SeriesStore};
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

/// Codes and flags told apart under `overflow`; what comes after shares one series.
const MAX_OVERFLOW_SERIES: usize = 256;
const OVERFLOW: &str = "overflow=\"true\",";

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

    fn absorb(&self, other: &Self) {
        for (into, from) in self.buckets.iter().zip(&other.buckets) {
            into.add(from.value());
        }
        self.sum_thousandths.add(other.sum_thousandths.value());
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

/// Key that tells the series of one pair of workloads apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RequestKey {
    code: u16,
    /// `None`: not gRPC, or no status seen.
    grpc_status: Option<u16>,
    grpc: bool,
    flag: Flag,
}

impl RequestKey {
    /// Stands for every other one where there are too many.
    const REST: RequestKey = RequestKey { code: 0, grpc_status: None, grpc: false, flag: Flag::None };

    fn labels(self, shared: &str) -> String {
        let mut labels = shared.to_owned();
        push_label(&mut labels, "request_protocol", if self.grpc { "grpc" } else { "http" });
        let _ = write!(labels, "response_code=\"{}\",", self.code);
        match self.grpc_status {
            Some(status) => {
                let _ = write!(labels, "grpc_response_status=\"{status}\",");
            }
            None => push_label(&mut labels, "grpc_response_status", ""),
        }
        push_label(&mut labels, "response_flags", self.flag.letters());
        labels.pop();
        labels
    }
}

fn tcp_labels(shared: &str, flag: Flag) -> String {
    let mut labels = shared.to_owned();
    push_label(&mut labels, "request_protocol", "tcp");
    push_label(&mut labels, "response_flags", flag.letters());
    labels.pop();
    labels
}

/// Counters of requests with equal labels.
#[derive(Debug, Default)]
pub struct RequestSeries {
    pub requests: Counter,
    pub duration: Histogram,
    pub request_bytes: Histogram,
    pub response_bytes: Histogram,
}

impl RequestSeries {
    fn count(&self, end: &RequestEnd) {
        self.requests.add(1);
        self.duration.record(u64::try_from(end.duration.as_micros()).unwrap_or(u64::MAX));
        self.request_bytes.record(end.request_bytes.saturating_mul(1_000));
        self.response_bytes.record(end.response_bytes.saturating_mul(1_000));
    }
}

impl Series for RequestSeries {
    fn absorb(&self, closed: &Self) {
        self.requests.add(closed.requests.value());
        self.duration.absorb(&closed.duration);
        self.request_bytes.absorb(&closed.request_bytes);
        self.response_bytes.absorb(&closed.response_bytes);
    }
}

/// Counters of TCP connections with equal labels.
#[derive(Debug, Default)]
pub struct TcpSeries {
    pub opened: Counter,
    pub closed: Counter,
    pub sent: Arc<Counter>,
    pub received: Arc<Counter>,
}

impl TcpSeries {
    /// True while a connection may still count here.
    fn is_held(series: &Arc<Self>) -> bool {
        // The store and the pair have one each.
        Arc::strong_count(series) > 2 || Arc::strong_count(&series.sent) > 1 || Arc::strong_count(&series.received) > 1
    }
}

impl Series for TcpSeries {
    fn absorb(&self, closed: &Self) {
        self.opened.add(closed.opened.value());
        self.closed.add(closed.closed.value());
        self.sent.add(closed.sent.value());
        self.received.add(closed.received.value());
    }
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

/// Caller and callee, for the labels of Istio's standard metrics.
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

/// The metrics of one worker thread.
#[derive(Debug, Clone)]
pub struct WorkerMetrics {
    room: Rc<Room>,
    pairs: Rc<RefCell<HashMap<Rc<str>, Interned>>>,
    sources: Rc<RefCell<Sources>>,
}

#[derive(Debug)]
struct Interned {
    pair: Rc<PairMetrics>,
    /// Whose source it tells apart, where a peer named it.
    source: Option<(String, String)>,
    /// When a sweep first found it held by nobody; from then on nobody has counted.
    idle_since: Option<Duration>,
}

impl WorkerMetrics {
    pub fn new(store: Arc<SeriesStore>) -> Self {
        Self {
            room: Rc::new(Room { store, made: Cell::new(0), overflow: Keyed::default() }),
            pairs: Rc::default(),
            sources: Rc::default(),
        }
    }

    /// The handle for a pair of workloads, the same one for equal labels; keep it for the life of the route or connection.
    pub fn pair(&self, labels: &PairLabels) -> Rc<PairMetrics> {
        let (labels, source) = self.told_apart(labels);
        let mut pairs = self.pairs.borrow_mut();
        if let Some(interned) = pairs.get_mut(labels.as_str()) {
            interned.idle_since = None;
            return Rc::clone(&interned.pair);
        }
        let labels: Rc<str> = labels.into();
        let pair =
            Rc::new(PairMetrics { labels: Rc::clone(&labels), room: Rc::clone(&self.room), own: Keyed::default() });
        if let Some((identity, names)) = &source {
            self.sources.borrow_mut().enter(identity, names);
        }
        pairs.insert(labels, Interned { pair: Rc::clone(&pair), source, idle_since: None });
        pair
    }

    /// The labels of a pair as text. What a peer says of itself distinguishes a bounded number of sources per identity;
    /// a further one is `unknown`.
    fn told_apart(&self, labels: &PairLabels) -> (String, Option<(String, String)>) {
        if labels.reporter != "destination" || labels.source.principal.is_empty() {
            return (labels.render(), None);
        }
        let source = &labels.source;
        let names = format!("{};{};{}", source.workload, source.app, source.version);
        let store = &self.room.store;
        if self.sources.borrow().admits(&source.principal, &names, store.limits.sources_per_identity) {
            return (labels.render(), Some((source.principal.clone(), names)));
        }
        store.sources_dropped.fetch_add(1, Relaxed);
        let unknown =
            Peer { principal: source.principal.clone(), namespace: source.namespace.clone(), ..Peer::default() };
        (PairLabels { source: unknown, ..labels.clone() }.render(), None)
    }

    /// Closes the series of pairs that nobody has held for `idle`, as seen by these sweeps. One that comes back starts
    /// anew, as Prometheus expects of what was gone.
    pub fn expire(&self, now: Duration, idle: Duration) {
        self.pairs.borrow_mut().retain(|_, interned| {
            if PairMetrics::is_held(&interned.pair) {
                interned.idle_since = None;
                return true;
            }
            let since = *interned.idle_since.get_or_insert(now);
            let kept = now.saturating_sub(since) < idle;
            if !kept {
                interned.pair.close();
                if let Some((identity, names)) = &interned.source {
                    self.sources.borrow_mut().leave(identity, names);
                }
            }
            kept
        });
    }
}

/// State that the pairs of one worker share: the store and how much of it is left for them.
#[derive(Debug)]
struct Room {
    store: Arc<SeriesStore>,
    made: Cell<usize>,
    overflow: Keyed,
}

impl Room {
    /// True while there is room for one more series.
    fn admit(&self) -> bool {
        if self.made.get() >= self.store.limits.per_worker {
            self.store.dropped.fetch_add(1, Relaxed);
            return false;
        }
        self.made.set(self.made.get() + 1);
        true
    }

    fn overflow_requests(&self, key: RequestKey) -> Arc<RequestSeries> {
        let full = self.overflow.requests.borrow().len() >= MAX_OVERFLOW_SERIES;
        let found = self.overflow.find_requests(key);
        let key = if full && found.is_none() { RequestKey::REST } else { key };
        let found = found.or_else(|| self.overflow.find_requests(key));
        found.unwrap_or_else(|| self.overflow.open_requests(&self.store, OVERFLOW, key))
    }

    fn overflow_tcp(&self, flag: Flag) -> Arc<TcpSeries> {
        self.overflow.find_tcp(flag).unwrap_or_else(|| self.overflow.open_tcp(&self.store, OVERFLOW, flag))
    }
}

/// Series that share the labels of a pair.
#[derive(Debug, Default)]
struct Keyed {
    requests: RefCell<Vec<(RequestKey, Opened<RequestSeries>)>>,
    tcp: RefCell<Vec<(Flag, Opened<TcpSeries>)>>,
}

impl Keyed {
    fn find_requests(&self, key: RequestKey) -> Option<Arc<RequestSeries>> {
        self.requests.borrow().iter().find(|(known, _)| *known == key).map(|(_, opened)| Arc::clone(opened.series()))
    }

    fn open_requests(&self, store: &SeriesStore, shared: &str, key: RequestKey) -> Arc<RequestSeries> {
        let opened = store.requests.open(&key.labels(shared));
        let series = Arc::clone(opened.series());
        self.requests.borrow_mut().push((key, opened));
        series
    }

    fn find_tcp(&self, flag: Flag) -> Option<Arc<TcpSeries>> {
        self.tcp.borrow().iter().find(|(known, _)| *known == flag).map(|(_, opened)| Arc::clone(opened.series()))
    }

    fn open_tcp(&self, store: &SeriesStore, shared: &str, flag: Flag) -> Arc<TcpSeries> {
        let opened = store.tcp.open(&tcp_labels(shared, flag));
        let series = Arc::clone(opened.series());
        self.tcp.borrow_mut().push((flag, opened));
        series
    }
}

/// The series of one pair of workloads on one worker.
#[derive(Debug)]
pub struct PairMetrics {
    labels: Rc<str>,
    room: Rc<Room>,
    own: Keyed,
}

impl PairMetrics {
    /// Counts a finished request.
    pub fn request(&self, end: RequestEnd) {
        let key = RequestKey { code: end.code, grpc_status: end.grpc_status, grpc: end.grpc, flag: end.flag };
        if let Some((_, opened)) = self.own.requests.borrow().iter().find(|(known, _)| *known == key) {
            return opened.series().count(&end);
        }
        let room = &*self.room;
        let series = match room.admit() {
            true => self.own.open_requests(&room.store, &self.labels, key),
            false => room.overflow_requests(key),
        };
        series.count(&end);
    }

    /// The series for TCP connections that end (or begin) with `flag`.
    pub fn tcp(&self, flag: Flag) -> Arc<TcpSeries> {
        if let Some(series) = self.own.find_tcp(flag) {
            return series;
        }
        let room = &*self.room;
        match room.admit() {
            true => self.own.open_tcp(&room.store, &self.labels, flag),
            false => room.overflow_tcp(flag),
        }
    }

    /// True while somebody besides its worker's table may count here.
    fn is_held(pair: &Rc<Self>) -> bool {
        Rc::strong_count(pair) > 1
            || pair.own.tcp.borrow().iter().any(|(_, opened)| TcpSeries::is_held(opened.series()))
    }

    /// Takes its series out of the store and gives their room back.
    fn close(&self) {
        let (requests, tcp) = (self.own.requests.take(), self.own.tcp.take());
        self.room.made.set(self.room.made.get() - requests.len() - tcp.len());
        requests.iter().for_each(|(_, opened)| self.room.store.requests.close(opened));
        tcp.iter().for_each(|(_, opened)| self.room.store.tcp.close(opened));
    }
}

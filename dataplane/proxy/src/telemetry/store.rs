//! All series of all workers by label set: each written by its worker, read by a scrape. Invariant: what a label set has
//! counted never shrinks while one of its series lives, though workers close theirs at different times.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::series::{RequestSeries, TcpSeries};

/// Counters that share a label set and can be added up.
pub trait Series: Default {
    /// Adds what `closed` has counted.
    fn absorb(&self, closed: &Self);
}

/// How many series there may be.
#[derive(Debug, Clone, Copy)]
pub struct SeriesLimits {
    /// Label sets of one worker; what comes after is counted under `overflow`.
    pub per_worker: usize,
    /// Source workloads told apart for one calling identity on one worker.
    pub sources_per_identity: usize,
}

impl Default for SeriesLimits {
    fn default() -> Self {
        Self { per_worker: 10_000, sources_per_identity: 64 }
    }
}

/// The series of all workers; read by the scraper.
#[derive(Debug, Default)]
pub struct SeriesStore {
    pub limits: SeriesLimits,
    pub requests: LabelSets<RequestSeries>,
    pub tcp: LabelSets<TcpSeries>,
    /// Number of requests and connections counted under the overflow series.
    pub dropped: AtomicU64,
    /// Times that a source was one too many for its identity.
    pub(super) sources_dropped: AtomicU64,
}

impl SeriesStore {
    pub fn new(limits: SeriesLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    pub fn sources_dropped(&self) -> u64 {
        self.sources_dropped.load(Ordering::Relaxed)
    }
}

/// The series of one kind.
#[derive(Debug)]
pub struct LabelSets<S>(Mutex<BTreeMap<Arc<str>, LabelSet<S>>>);

#[derive(Debug)]
struct LabelSet<S> {
    /// One for each worker that counts under these labels.
    live: Vec<Arc<S>>,
    /// Counts of workers that closed their series while others still live.
    closed: Option<Box<S>>,
}

/// A series and where it is kept.
#[derive(Debug)]
pub struct Opened<S> {
    labels: Arc<str>,
    series: Arc<S>,
}

impl<S> Opened<S> {
    pub fn series(&self) -> &Arc<S> {
        &self.series
    }
}

impl<S> Default for LabelSets<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S: Series> LabelSets<S> {
    /// A new series under `labels`, for one writer.
    pub fn open(&self, labels: &str) -> Opened<S> {
        let mut sets = self.0.lock().expect("no holder panics");
        let labels = sets.get_key_value(labels).map_or_else(|| labels.into(), |(known, _)| Arc::clone(known));
        let set = sets.entry(Arc::clone(&labels)).or_insert(LabelSet { live: Vec::with_capacity(1), closed: None });
        let series = Arc::<S>::default();
        set.live.push(Arc::clone(&series));
        Opened { labels, series }
    }

    /// Forgets a series that nobody writes to any more; with the last of its label set, the label set.
    pub fn close(&self, opened: &Opened<S>) {
        let mut sets = self.0.lock().expect("no holder panics");
        let Some(set) = sets.get_mut(&opened.labels) else { return };
        set.live.retain(|series| !Arc::ptr_eq(series, &opened.series));
        if set.live.is_empty() {
            sets.remove(&opened.labels);
        } else {
            set.closed.get_or_insert_default().absorb(&opened.series);
        }
    }

    /// Each label set with its series added up by `add`, in the order of labels.
    pub fn sums<T: Default>(&self, add: impl Fn(&mut T, &S)) -> Vec<(Arc<str>, T)> {
        let sets = self.0.lock().expect("no holder panics");
        let sum = |set: &LabelSet<S>| {
            let mut sum = T::default();
            set.live
                .iter()
                .map(|series| &**series)
                .chain(set.closed.as_deref())
                .for_each(|series| add(&mut sum, series));
            sum
        };
        sets.iter().map(|(labels, set)| (Arc::clone(labels), sum(set))).collect()
    }

    /// Series that workers hold.
    pub fn live(&self) -> usize {
        self.0.lock().expect("no holder panics").values().map(|set| set.live.len()).sum()
    }
}

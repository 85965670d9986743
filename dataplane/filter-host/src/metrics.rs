//! Metrics that filters define themselves: bounded in number and in sets of labels, shared by all instances of an
//! attachment.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Metrics of one filter at the most.
pub(crate) const MAX_METRICS: usize = 64;
const MAX_LABELS: usize = 4;
/// Sets of labels of all metrics of one filter.
const MAX_SETS: usize = 1_000;
const MAX_NAME: usize = 64;
/// Bytes of a label's value; what is longer is cut.
const MAX_LABEL_VALUE: usize = 128;
/// Labels that the proxy gives each series itself.
const OWN_LABELS: [&str; 5] = ["name", "filter", "version", "le", "other"];
/// Names that a histogram has beside its own.
const SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

/// Upper bounds of a histogram's buckets; the last bucket has none.
pub const HISTOGRAM_BOUNDS: [f64; 14] =
    [0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0];

/// What a filter's own metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CustomKind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric of a filter.
#[derive(Debug)]
pub struct CustomMetric {
    name: String,
    kind: CustomKind,
    labels: Vec<String>,
    /// Of a metric without labels all of it, else what came beyond the bound of label sets.
    rest: Series,
    /// True once something came beyond it.
    overflowed: AtomicBool,
    /// By the values of the labels.
    series: RwLock<HashMap<Vec<String>, Arc<Series>>>,
    /// Sets of labels of the whole filter.
    sets: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Series {
    /// The counter's value, the gauge's bits, or the histogram's sum as bits.
    value: AtomicU64,
    buckets: [AtomicU64; HISTOGRAM_BOUNDS.len() + 1],
}

/// Current value of one series of a filter's own metric.
#[derive(Debug, Clone, PartialEq)]
pub enum CustomValue {
    Counter(u64),
    Gauge(f64),
    /// Counts by bucket (not cumulative) and the sum.
    Histogram {
        buckets: Vec<u64>,
        sum: f64,
    },
}

/// One series: its labels with their values, and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct CustomSeries {
    pub labels: Vec<(String, String)>,
    pub value: CustomValue,
}

/// What became of a value that a filter gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Taken {
    Counted,
    /// There are as many sets of labels as there may be.
    Beyond,
    /// Of another kind, with more or fewer labels, or no number.
    Misused,
}

impl Series {
    fn value(&self, kind: CustomKind) -> CustomValue {
        let value = self.value.load(Relaxed);
        match kind {
            CustomKind::Counter => CustomValue::Counter(value),
            CustomKind::Gauge => CustomValue::Gauge(f64::from_bits(value)),
            CustomKind::Histogram => CustomValue::Histogram {
                buckets: self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect(),
                sum: f64::from_bits(value),
            },
        }
    }

    fn observe(&self, value: f64) {
        let bucket = HISTOGRAM_BOUNDS.iter().take_while(|bound| value > **bound).count();
        self.buckets[bucket].fetch_add(1, Relaxed);
        let sum = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // The closure never refuses, so the update always lands.
        let _ = self.value.fetch_update(Relaxed, Relaxed, sum);
    }
}

impl CustomMetric {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn kind(&self) -> CustomKind {
        self.kind
    }

    /// The value of a metric without labels.
    pub fn value(&self) -> CustomValue {
        self.rest.value(self.kind)
    }

    /// Every series, in the order of their labels; the one of what came beyond the bound is labelled `other="true"`.
    pub fn series(&self) -> Vec<CustomSeries> {
        if self.labels.is_empty() {
            return vec![CustomSeries { labels: Vec::new(), value: self.value() }];
        }
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        let mut sorted: Vec<_> = series.iter().collect();
        sorted.sort_by_key(|(values, _)| *values);
        let one = |(values, series): (&Vec<String>, &Arc<Series>)| CustomSeries {
            labels: self.labels.iter().cloned().zip(values.iter().cloned()).collect(),
            value: series.value(self.kind),
        };
        let mut all: Vec<_> = sorted.into_iter().map(one).collect();
        if self.overflowed.load(Relaxed) {
            let labels = vec![("other".to_owned(), "true".to_owned())];
            all.push(CustomSeries { labels, value: self.value() });
        }
        all
    }

    /// Adds to a counter.
    pub(crate) fn add(&self, labels: Vec<String>, delta: u64) -> Taken {
        self.take(CustomKind::Counter, labels, |series| _ = series.value.fetch_add(delta, Relaxed))
    }

    /// Sets a gauge.
    pub(crate) fn set(&self, labels: Vec<String>, value: f64) -> Taken {
        self.take(CustomKind::Gauge, labels, |series| series.value.store(value.to_bits(), Relaxed))
    }

    /// Records a value into a histogram.
    pub(crate) fn observe(&self, labels: Vec<String>, value: f64) -> Taken {
        if value.is_nan() {
            return Taken::Misused;
        }
        self.take(CustomKind::Histogram, labels, |series| series.observe(value))
    }

    fn take(&self, kind: CustomKind, mut labels: Vec<String>, into: impl FnOnce(&Series)) -> Taken {
        if kind != self.kind || labels.len() != self.labels.len() {
            return Taken::Misused;
        }
        if labels.is_empty() {
            into(&self.rest);
            return Taken::Counted;
        }
        for value in &mut labels {
            value.truncate(value.floor_char_boundary(MAX_LABEL_VALUE));
        }
        match self.of_labels(labels) {
            Some(series) => {
                into(&series);
                Taken::Counted
            }
            None => {
                into(&self.rest);
                self.overflowed.store(true, Relaxed);
                Taken::Beyond
            }
        }
    }

    /// The series of these labels. `None`: there may be no more.
    fn of_labels(&self, labels: Vec<String>) -> Option<Arc<Series>> {
        if let Some(known) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(&labels) {
            return Some(known.clone());
        }
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = series.get(&labels) {
            return Some(known.clone());
        }
        let more = |sets: usize| (sets < MAX_SETS).then_some(sets + 1);
        self.sets.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(series.entry(labels).or_default().clone())
    }
}

/// The metrics of one attachment, by name.
#[derive(Debug, Default)]
pub(crate) struct CustomMetrics {
    all: Mutex<Vec<Arc<CustomMetric>>>,
    sets: Arc<AtomicUsize>,
}

impl CustomMetrics {
    pub(crate) fn define(
        &self,
        kind: CustomKind,
        name: &str,
        labels: Vec<String>,
    ) -> Result<Arc<CustomMetric>, String> {
        if !is_name(name) {
            return Err(format!("a metric's name is [a-z][a-z0-9_]*, at most {MAX_NAME} bytes"));
        }
        check_labels(&labels)?;
        let mut metrics = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = metrics.iter().find(|metric| metric.name == name) {
            return match (known.kind == kind, known.labels == labels) {
                (true, true) => Ok(known.clone()),
                (false, _) => Err(format!("{name} is of another kind")),
                (true, false) => Err(format!("{name} has the labels [{}]", known.labels.join(", "))),
            };
        }
        if let Some(other) = metrics.iter().find(|other| is_part(name, kind, other) || is_part_of(name, other)) {
            return Err(format!("{name} and {} would have series of one name", other.name));
        }
        if metrics.len() == MAX_METRICS {
            return Err(format!("a filter has at most {MAX_METRICS} metrics"));
        }
        let metric = Arc::new(CustomMetric {
            name: name.to_owned(),
            kind,
            labels,
            rest: Series::default(),
            overflowed: AtomicBool::new(false),
            series: RwLock::default(),
            sets: self.sets.clone(),
        });
        metrics.push(metric.clone());
        Ok(metric)
    }

    pub(crate) fn all(&self) -> Vec<Arc<CustomMetric>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.len() <= MAX_NAME
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

fn check_labels(labels: &[String]) -> Result<(), String> {
    if labels.len() > MAX_LABELS {
        return Err(format!("a metric has at most {MAX_LABELS} labels"));
    }
    for (index, label) in labels.iter().enumerate() {
        if !is_name(label) {
            return Err(format!("a label's name is [a-z][a-z0-9_]*, at most {MAX_NAME} bytes"));
        }
        if OWN_LABELS.contains(&label.as_str()) || labels[..index].contains(label) {
            return Err(format!("the label {label} is there already"));
        }
    }
    Ok(())
}

/// True where a histogram of this name would have series that are called as the other metric is.
fn is_part(name: &str, kind: CustomKind, other: &CustomMetric) -> bool {
    kind == CustomKind::Histogram && SUFFIXES.iter().any(|suffix| other.name.strip_suffix(*suffix) == Some(name))
}

/// The same the other way round.
fn is_part_of(name: &str, histogram: &CustomMetric) -> bool {
    let of = histogram.name.as_str();
    histogram.kind == CustomKind::Histogram && SUFFIXES.iter().any(|suffix| name.strip_suffix(*suffix) == Some(of))
}

#[cfg(test)]
mod tests;

//! Metrics that filters define themselves: bounded in number, shared by all instances of an attachment.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::bindings::weft::filter::metrics::Kind;

/// Metrics of one filter at the most.
const MAX_METRICS: usize = 64;

/// Upper bounds of a histogram's buckets; the last bucket has none.
pub const HISTOGRAM_BOUNDS: [f64; 14] =
    [0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0];

/// One metric of a filter.
#[derive(Debug)]
pub struct CustomMetric {
    name: String,
    kind: Kind,
    /// The counter's value, the gauge's bits, or the histogram's sum as bits.
    value: AtomicU64,
    buckets: [AtomicU64; HISTOGRAM_BOUNDS.len() + 1],
}

/// Current value of a filter's own metric.
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

impl CustomMetric {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn value(&self) -> CustomValue {
        let value = self.value.load(Relaxed);
        match self.kind {
            Kind::Counter => CustomValue::Counter(value),
            Kind::Gauge => CustomValue::Gauge(f64::from_bits(value)),
            Kind::Histogram => CustomValue::Histogram {
                buckets: self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect(),
                sum: f64::from_bits(value),
            },
        }
    }

    pub(crate) fn add(&self, delta: u64) {
        if self.kind == Kind::Counter {
            self.value.fetch_add(delta, Relaxed);
        }
    }

    pub(crate) fn set(&self, value: f64) {
        if self.kind == Kind::Gauge {
            self.value.store(value.to_bits(), Relaxed);
        }
    }

    pub(crate) fn observe(&self, value: f64) {
        if self.kind != Kind::Histogram || value.is_nan() {
            return;
        }
        let bucket = HISTOGRAM_BOUNDS.iter().take_while(|bound| value > **bound).count();
        self.buckets[bucket].fetch_add(1, Relaxed);
        let sum = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // The closure never refuses, so the update always lands.
        let _ = self.value.fetch_update(Relaxed, Relaxed, sum);
    }
}

/// The metrics of one attachment, by name.
#[derive(Debug, Default)]
pub(crate) struct CustomMetrics(Mutex<Vec<Arc<CustomMetric>>>);

impl CustomMetrics {
    pub(crate) fn define(&self, kind: Kind, name: &str) -> Result<Arc<CustomMetric>, String> {
        let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
        if !starts || name.len() > 64 || !name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_')) {
            return Err("a metric's name is [a-z][a-z0-9_]*, at most 64 bytes".to_owned());
        }
        let mut metrics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = metrics.iter().find(|metric| metric.name == name) {
            return if known.kind == kind { Ok(known.clone()) } else { Err(format!("{name} is of another kind")) };
        }
        if metrics.len() == MAX_METRICS {
            return Err(format!("a filter has at most {MAX_METRICS} metrics"));
        }
        let metric = Arc::new(CustomMetric {
            name: name.to_owned(),
            kind,
            value: AtomicU64::new(0),
            buckets: Default::default(),
        });
        metrics.push(metric.clone());
        Ok(metric)
    }

    pub(crate) fn all(&self) -> Vec<Arc<CustomMetric>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_names_and_bounds() {
        let metrics = CustomMetrics::default();
        let counter = metrics.define(Kind::Counter, "seen").expect("sound");
        counter.add(2);
        metrics.define(Kind::Counter, "seen").expect("the same").add(3);
        counter.set(9.0);
        assert_eq!(counter.value(), CustomValue::Counter(5));
        assert!(metrics.define(Kind::Gauge, "seen").is_err());
        for bad in ["", "Seen", "1x", "a-b", &"x".repeat(65)] {
            assert!(metrics.define(Kind::Counter, bad).is_err(), "{bad:?}");
        }
        let histogram = metrics.define(Kind::Histogram, "size").expect("sound");
        histogram.observe(0.5);
        histogram.observe(1e9);
        histogram.observe(f64::NAN);
        let CustomValue::Histogram { buckets, sum } = histogram.value() else { panic!("a histogram") };
        assert_eq!((buckets[0], buckets[14], sum), (1, 1, 1e9 + 0.5));
        for n in 2..MAX_METRICS {
            metrics.define(Kind::Gauge, &format!("g{n}")).expect("room");
        }
        assert!(metrics.define(Kind::Gauge, "one_more").is_err());
    }
}

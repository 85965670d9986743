//! Metrics of the filter's own. They appear as `weft_filter_custom_NAME`; define them in `configure`.

#[cfg(target_arch = "wasm32")]
use crate::bindings::weft::filter::metrics as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::simulated::metrics as host;

use crate::bindings::weft::filter::metrics::Kind;

/// A number that only grows.
#[derive(Debug, Clone, Copy)]
pub struct Counter(u32);

/// A number that goes up and down.
#[derive(Debug, Clone, Copy)]
pub struct Gauge(u32);

/// A distribution, in buckets from 0.5 to 10,000.
#[derive(Debug, Clone, Copy)]
pub struct Histogram(u32);

impl Counter {
    /// With at most four labels.
    pub fn define(name: &str, labels: &[&str]) -> Result<Self, String> {
        host::define(Kind::Counter, name, &owned(labels)).map(Self)
    }

    /// `labels`: a value for each label, in order.
    pub fn add(self, labels: &[&str], delta: u64) {
        host::add(self.0, &owned(labels), delta);
    }
}

impl Gauge {
    /// With at most four labels.
    pub fn define(name: &str, labels: &[&str]) -> Result<Self, String> {
        host::define(Kind::Gauge, name, &owned(labels)).map(Self)
    }

    /// `labels`: a value for each label, in order.
    pub fn set(self, labels: &[&str], value: f64) {
        host::set(self.0, &owned(labels), value);
    }
}

impl Histogram {
    /// With at most four labels.
    pub fn define(name: &str, labels: &[&str]) -> Result<Self, String> {
        host::define(Kind::Histogram, name, &owned(labels)).map(Self)
    }

    /// `labels`: a value for each label, in order.
    pub fn observe(self, labels: &[&str], value: f64) {
        host::observe(self.0, &owned(labels), value);
    }
}

fn owned(labels: &[&str]) -> Vec<String> {
    labels.iter().map(|label| (*label).to_owned()).collect()
}

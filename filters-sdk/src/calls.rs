//! Functions that a filter may call: the log and metrics always, token buckets where the FilterPolicy grants them. On
//! other targets than wasm32 the test harness answers.

use std::time::Duration;

#[cfg(target_arch = "wasm32")]
use crate::bindings::weft::filter::{metrics as metric_calls, token_bucket as bucket_calls};
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::simulated::{bucket_calls, metric_calls};

use crate::bindings::weft::filter::metrics::Kind;
use crate::bindings::weft::filter::token_bucket::Limit;

/// Lines in the proxy's log, under the filter's name; too many are dropped.
pub mod log {
    #[cfg(target_arch = "wasm32")]
    use crate::bindings::weft::filter::log::write;
    #[cfg(not(target_arch = "wasm32"))]
    use crate::testing::simulated::write;

    use crate::bindings::weft::filter::log::Level;

    pub fn debug(message: &str) {
        write(Level::Debug, message);
    }

    pub fn info(message: &str) {
        write(Level::Info, message);
    }

    pub fn warn(message: &str) {
        write(Level::Warn, message);
    }

    pub fn error(message: &str) {
        write(Level::Error, message);
    }
}

/// A number that only grows. Define it in `configure`.
#[derive(Debug, Clone, Copy)]
pub struct Counter(u32);

impl Counter {
    pub fn define(name: &str) -> Result<Self, String> {
        metric_calls::define(Kind::Counter, name).map(Self)
    }

    pub fn add(self, delta: u64) {
        metric_calls::add(self.0, delta);
    }
}

/// A number that goes up and down.
#[derive(Debug, Clone, Copy)]
pub struct Gauge(u32);

impl Gauge {
    pub fn define(name: &str) -> Result<Self, String> {
        metric_calls::define(Kind::Gauge, name).map(Self)
    }

    pub fn set(self, value: f64) {
        metric_calls::set(self.0, value);
    }
}

/// A distribution, in buckets from 0.5 to 10,000.
#[derive(Debug, Clone, Copy)]
pub struct Histogram(u32);

impl Histogram {
    pub fn define(name: &str) -> Result<Self, String> {
        metric_calls::define(Kind::Histogram, name).map(Self)
    }

    pub fn observe(self, value: f64) {
        metric_calls::observe(self.0, value);
    }
}

/// The buckets of one limit, one for each key; exact across all workers of a proxy. Needs the capability
/// `token-bucket`; a filter that uses this without the grant is not loaded.
#[derive(Debug, Clone, Copy)]
pub struct TokenBuckets(u32);

impl TokenBuckets {
    /// `tokens` flow in over each `period`; a full bucket holds `burst`.
    pub fn define(name: &str, tokens: u32, period: Duration, burst: u32) -> Result<Self, String> {
        let period_ms = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        bucket_calls::define(&Limit { name: name.to_owned(), tokens, period_ms, burst }).map(Self)
    }

    /// Takes tokens from the bucket of `key`, or says when they will be there.
    pub fn take(self, key: &[u8], tokens: u32) -> Result<(), Duration> {
        bucket_calls::take(self.0, key, tokens).map_err(Duration::from_millis)
    }

    /// Puts tokens back that were taken for something that did not come to pass.
    pub fn give_back(self, key: &[u8], tokens: u32) {
        bucket_calls::give_back(self.0, key, tokens);
    }
}

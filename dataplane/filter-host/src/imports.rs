//! What filters may call in the host, one module for each contract over the same capabilities. Each import is bounded,
//! and acts for the configuration whose call is under way.

pub(crate) mod v01;
pub(crate) mod v02;
pub(crate) mod wasi;

use std::time::Duration;

use crate::bucket::{Buckets, Level as Tokens, Limit};
use crate::metrics::{CustomKind, MAX_METRICS, Taken};
use crate::state::State;
use crate::wasi::LINE_BYTES;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// The call came before anybody said whom it is for: while the component was started.
const NOBODY: &str = "nothing can be asked for before `configure`";

impl State {
    fn log(&self, level: Level, mut message: String) {
        let Some(config) = self.config().filter(|config| config.log_admits()) else { return };
        message.truncate(message.floor_char_boundary(LINE_BYTES));
        let filter = &*config.name;
        match level {
            Level::Debug => tracing::debug!(filter, "{}", message.escape_debug()),
            Level::Info => tracing::info!(filter, "{}", message.escape_debug()),
            Level::Warn => tracing::warn!(filter, "{}", message.escape_debug()),
            Level::Error => tracing::error!(filter, "{}", message.escape_debug()),
        }
    }

    fn define_metric(&mut self, kind: CustomKind, name: &str, labels: Vec<String>) -> Result<u32, String> {
        let config = self.config().cloned().ok_or(NOBODY)?;
        let metric = config.stats.custom.define(kind, name, labels)?;
        self.metrics.of(&config, &metric, MAX_METRICS).ok_or_else(|| "too many metrics".to_owned())
    }

    fn count(&self, taken: Option<Taken>) {
        let Some(config) = self.config() else { return };
        match taken {
            Some(Taken::Counted) => {}
            Some(Taken::Beyond) => config.stats.metric_overflows.add(1),
            Some(Taken::Misused) | None => config.stats.metric_misuses.add(1),
        }
    }

    fn add_to_metric(&self, metric: u32, labels: Vec<String>, delta: u64) {
        self.count(self.metrics.get(metric).map(|metric| metric.add(labels, delta)));
    }

    fn set_metric(&self, metric: u32, labels: Vec<String>, value: f64) {
        self.count(self.metrics.get(metric).map(|metric| metric.set(labels, value)));
    }

    fn observe_metric(&self, metric: u32, labels: Vec<String>, value: f64) {
        self.count(self.metrics.get(metric).map(|metric| metric.observe(labels, value)));
    }

    fn define_limit(&mut self, limit: Limit) -> Result<u32, LimitFault> {
        let config = self.config().cloned().ok_or_else(|| LimitFault::Invalid(NOBODY.to_owned()))?;
        let bounds = config.bucket_limits;
        if limit.name.len() > bounds.key_bytes {
            return Err(LimitFault::Invalid(format!("a limit's name has at most {} bytes", bounds.key_bytes)));
        }
        let full = || LimitFault::Full(format!("a filter has at most {} limits", bounds.limits));
        if !config.takes_limit(&limit) {
            return Err(full());
        }
        let buckets = config.buckets.define(&config.name, limit, bounds.keys, self.now());
        let buckets = buckets.map_err(LimitFault::Invalid)?;
        let handle = self.limits.of(&config, &buckets, bounds.limits).ok_or_else(full)?;
        config.keep(&buckets);
        Ok(handle)
    }

    /// The buckets of a limit, and as much of a key as tells buckets apart.
    fn buckets<'s>(&'s self, limit: u32, key: &'s [u8]) -> Option<(&'s Buckets, &'s [u8])> {
        let (buckets, config) = (self.limits.get(limit)?, self.config()?);
        Some((&**buckets, &key[..key.len().min(config.bucket_limits.key_bytes)]))
    }

    /// Takes tokens, or says in how many milliseconds they will be there; for a limit that is none, never.
    fn take_tokens(&self, limit: u32, key: &[u8], tokens: u32) -> Result<Tokens, u64> {
        let Some(((buckets, key), config)) = self.buckets(limit, key).zip(self.config()) else { return Err(u64::MAX) };
        buckets.take(key, tokens, self.now(), &config.stats).map_err(millis)
    }

    fn give_tokens_back(&self, limit: u32, key: &[u8], tokens: u32) {
        if let Some((buckets, key)) = self.buckets(limit, key) {
            buckets.give_back(key, tokens);
        }
    }
}

/// A time that is over after so many whole milliseconds.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Why there is no such limit.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LimitFault {
    Full(String),
    Invalid(String),
}

#[cfg(test)]
mod tests;

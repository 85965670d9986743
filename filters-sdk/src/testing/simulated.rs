//! The host that native tests talk to: a clock that stands still until a test moves it, exact buckets, a log in memory.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::bindings::weft::filter::log::Level;

#[derive(Default)]
struct Host {
    now: Duration,
    log: Vec<String>,
    metrics: Vec<(String, f64)>,
    limits: Vec<Limit>,
}

struct Limit {
    tokens: u32,
    period: u128,
    burst: u32,
    /// When each bucket is full again, in nanoseconds times `tokens`.
    full_at: BTreeMap<Vec<u8>, u128>,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

pub(crate) fn now() -> Duration {
    HOST.with_borrow(|host| host.now)
}

pub(crate) fn advance(by: Duration) {
    HOST.with_borrow_mut(|host| host.now += by);
}

pub(crate) fn logged() -> Vec<String> {
    HOST.with_borrow(|host| host.log.clone())
}

pub(crate) fn metric(name: &str) -> Option<f64> {
    HOST.with_borrow(|host| host.metrics.iter().find(|(known, _)| known == name).map(|(_, value)| *value))
}

pub(crate) fn write(level: Level, message: &str) {
    let level = match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    HOST.with_borrow_mut(|host| host.log.push(format!("{level}: {message}")));
}

/// As the interface `metrics`.
pub(crate) mod metric_calls {
    use super::HOST;
    use crate::bindings::weft::filter::metrics::Kind;

    pub(crate) fn define(_kind: Kind, name: &str) -> Result<u32, String> {
        HOST.with_borrow_mut(|host| {
            let known = host.metrics.iter().position(|(known, _)| known == name);
            let index = known.unwrap_or_else(|| {
                host.metrics.push((name.to_owned(), 0.0));
                host.metrics.len() - 1
            });
            u32::try_from(index).map_err(|_| "too many metrics".to_owned())
        })
    }

    pub(crate) fn add(metric: u32, delta: u64) {
        // A test does not count beyond 2^53.
        #[expect(clippy::cast_precision_loss, reason = "tests count little")]
        change(metric, |value| value + delta as f64);
    }

    pub(crate) fn set(metric: u32, level: f64) {
        change(metric, |_| level);
    }

    pub(crate) fn observe(metric: u32, observed: f64) {
        change(metric, |sum| sum + observed);
    }

    fn change(metric: u32, change: impl FnOnce(f64) -> f64) {
        HOST.with_borrow_mut(|host| {
            if let Some((_, value)) = host.metrics.get_mut(metric as usize) {
                *value = change(*value);
            }
        });
    }
}

/// As the interface `token-bucket`.
pub(crate) mod bucket_calls {
    use std::collections::BTreeMap;

    use super::{HOST, Limit};
    use crate::bindings::weft::filter::token_bucket as contract;

    pub(crate) fn define(limit: &contract::Limit) -> Result<u32, String> {
        if limit.tokens == 0 || limit.burst == 0 || limit.period_ms == 0 {
            return Err("tokens, period and burst of a limit must be at least 1".to_owned());
        }
        let period = u128::from(limit.period_ms) * 1_000_000;
        HOST.with_borrow_mut(|host| {
            host.limits.push(Limit { tokens: limit.tokens, period, burst: limit.burst, full_at: BTreeMap::new() });
            u32::try_from(host.limits.len() - 1).map_err(|_| "too many limits".to_owned())
        })
    }

    pub(crate) fn take(limit: u32, key: &[u8], tokens: u32) -> Result<(), u64> {
        HOST.with_borrow_mut(|host| {
            let now = host.now.as_nanos();
            let Some(limit) = host.limits.get_mut(limit as usize) else { return Err(u64::MAX) };
            let now = now * u128::from(limit.tokens);
            let full_at = limit.full_at.entry(key.to_vec()).or_default();
            let next = (*full_at).max(now) + limit.period * u128::from(tokens);
            let latest = now + limit.period * u128::from(limit.burst);
            if next <= latest {
                *full_at = next;
                return Ok(());
            }
            let wait = (next - latest).div_ceil(u128::from(limit.tokens)).div_ceil(1_000_000);
            Err(u64::try_from(wait).unwrap_or(u64::MAX))
        })
    }

    pub(crate) fn give_back(limit: u32, key: &[u8], tokens: u32) {
        HOST.with_borrow_mut(|host| {
            if let Some(limit) = host.limits.get_mut(limit as usize)
                && let Some(full_at) = limit.full_at.get_mut(key)
            {
                *full_at = full_at.saturating_sub(limit.period * u128::from(tokens));
            }
        });
    }
}

//! Token buckets. Needs the capability `token-bucket`.

use std::time::Duration;

#[cfg(target_arch = "wasm32")]
use crate::bindings::weft::filter::token_bucket as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::simulated::token_bucket as host;

use super::CallError;
use crate::bindings::weft::filter::token_bucket::Limit;

/// The buckets of one limit, one for each key; exact across all workers of a proxy.
#[derive(Debug, Clone, Copy)]
pub struct TokenBuckets(u32);

/// What is left of a bucket after tokens were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub remaining: u32,
    /// Until the bucket is full again.
    pub reset: Duration,
}

impl TokenBuckets {
    /// `tokens` flow in over each `period`; a full bucket holds `burst`. The name keeps the buckets across a change of
    /// configuration.
    pub fn define(name: &str, tokens: u32, period: Duration, burst: u32) -> Result<Self, CallError> {
        let period_ms = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        let limit = Limit { name: name.to_owned(), tokens, period_ms, burst };
        host::define(&limit).map(Self).map_err(CallError::of("token-bucket"))
    }

    /// Takes tokens from the bucket of `key`, or says when they will be there.
    pub fn take(self, key: &[u8], tokens: u32) -> Result<Taken, Duration> {
        match host::take(self.0, key, tokens) {
            Ok(taken) => Ok(Taken { remaining: taken.remaining, reset: Duration::from_millis(taken.reset_ms) }),
            Err(wait) => Err(Duration::from_millis(wait)),
        }
    }

    /// Puts tokens back that were taken for something that did not come to pass.
    pub fn give_back(self, key: &[u8], tokens: u32) {
        host::give_back(self.0, key, tokens);
    }
}

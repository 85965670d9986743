//! As the interface `token-bucket`.

use std::collections::BTreeMap;

use super::HOST;
use crate::bindings::weft::filter::token_bucket::{Limit, Taken};
use crate::bindings::weft::filter::types::Error;

const LIMITS: usize = 32;
const KEY_BYTES: usize = 1_024;

pub(super) struct Buckets {
    limit: Limit,
    period: u128,
    /// When each bucket is full again, in nanoseconds times `tokens`.
    full_at: BTreeMap<Vec<u8>, u128>,
}

pub(crate) fn define(limit: &Limit) -> Result<u32, Error> {
    HOST.with_borrow_mut(|host| {
        if !host.grants.token_bucket {
            return Err(Error::Denied);
        }
        if limit.tokens == 0 || limit.burst == 0 || limit.period_ms == 0 {
            let what = "tokens, period and burst of a limit must be at least 1";
            return Err(Error::Invalid(what.to_owned()));
        }
        if limit.name.len() > KEY_BYTES {
            return Err(Error::Invalid(format!("a limit's name has at most {KEY_BYTES} bytes")));
        }
        if host.limits.len() == LIMITS {
            return Err(Error::Full(format!("a filter has at most {LIMITS} limits")));
        }
        let period = u128::from(limit.period_ms) * 1_000_000;
        host.limits.push(Buckets { limit: limit.clone(), period, full_at: BTreeMap::new() });
        u32::try_from(host.limits.len() - 1).map_err(|_| Error::Full("limits".to_owned()))
    })
}

pub(crate) fn take(limit: u32, key: &[u8], tokens: u32) -> Result<Taken, u64> {
    HOST.with_borrow_mut(|host| {
        let now = host.now.as_nanos();
        let Some(buckets) = host.limits.get_mut(limit as usize) else { return Err(u64::MAX) };
        let rate = u128::from(buckets.limit.tokens);
        let now = now * rate;
        let full_at = buckets.full_at.entry(shortened(key)).or_default();
        let next = (*full_at).max(now) + buckets.period * u128::from(tokens);
        let latest = now + buckets.period * u128::from(buckets.limit.burst);
        let millis = |scaled: u128| u64::try_from(scaled.div_ceil(rate).div_ceil(1_000_000)).unwrap_or(u64::MAX);
        if next > latest {
            return Err(millis(next - latest));
        }
        *full_at = next;
        let remaining = u32::try_from((latest - next) / buckets.period).unwrap_or(u32::MAX);
        Ok(Taken { remaining, reset_ms: millis(next - now) })
    })
}

pub(crate) fn give_back(limit: u32, key: &[u8], tokens: u32) {
    HOST.with_borrow_mut(|host| {
        if let Some(buckets) = host.limits.get_mut(limit as usize)
            && let Some(full_at) = buckets.full_at.get_mut(&shortened(key))
        {
            *full_at = full_at.saturating_sub(buckets.period * u128::from(tokens));
        }
    });
}

fn shortened(key: &[u8]) -> Vec<u8> {
    key[..key.len().min(KEY_BYTES)].to_vec()
}

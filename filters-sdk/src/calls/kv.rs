//! Values that live in the host, the same to all workers of one proxy. Needs the capability `kv`. A time to live of zero
//! keeps a value until it is removed or room is needed: the oldest go first.

use std::time::Duration;

#[cfg(target_arch = "wasm32")]
use crate::bindings::weft::filter::kv as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::simulated::kv as host;

use super::CallError;

pub fn get(key: &[u8]) -> Result<Option<Vec<u8>>, CallError> {
    host::get(key).map_err(CallError::of("kv"))
}

pub fn set(key: &[u8], value: &[u8], ttl: Duration) -> Result<(), CallError> {
    host::set(key, value, millis(ttl)).map_err(CallError::of("kv"))
}

/// Adds to a number, which is 0 where there is none, and gives what it is then. The time to live counts from when it was
/// made.
pub fn add(key: &[u8], delta: i64, ttl: Duration) -> Result<i64, CallError> {
    host::add(key, delta, millis(ttl)).map_err(CallError::of("kv"))
}

/// Sets the value where it is as expected (`None`: absent), else says [`CallError::Changed`].
pub fn compare_and_swap(key: &[u8], expected: Option<&[u8]>, value: &[u8], ttl: Duration) -> Result<(), CallError> {
    host::compare_and_swap(key, expected, value, millis(ttl)).map_err(CallError::of("kv"))
}

pub fn remove(key: &[u8]) -> Result<(), CallError> {
    host::remove(key).map_err(CallError::of("kv"))
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}

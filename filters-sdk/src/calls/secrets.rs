//! Secrets by the names that the FilterPolicy's capability `secret` gives them.

#[cfg(target_arch = "wasm32")]
use crate::bindings::weft::filter::secrets as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::simulated::secrets as host;

use super::CallError;

/// At most 16 KiB; ask for it while configured: a value that changes has the filter configured anew.
pub fn get(name: &str) -> Result<Vec<u8>, CallError> {
    host::get(name).map_err(CallError::of("secret"))
}

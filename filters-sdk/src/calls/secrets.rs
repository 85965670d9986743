//! Secrets by the names that the FilterPolicy's capability `secret` gives them.

#[cfg(target_arch = "wasm32")]
use crate::bindings::weft::filter::secrets as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::simulated::secrets as host;

use super::CallError;

pub fn get(name: &str) -> Result<Vec<u8>, CallError> {
    host::get(name).map_err(CallError::of("secret"))
}

//! Requests to services that the FilterPolicy's capability `callout` names. The answer comes to the hook `callout` where
//! the verdict of the hook that sent it is to wait.

use std::time::Duration;

#[cfg(target_arch = "wasm32")]
use crate::bindings::weft::filter::callouts as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::simulated::callouts as host;

use super::CallError;
pub use crate::bindings::weft::filter::callouts::Request;
use crate::bindings::weft::filter::types::Field;
use crate::outcome::millis;

impl Request {
    /// `service`: a name of the grant; `path`: with or without a query. An answer may take a second and have 64 KiB.
    pub fn new(service: &str, method: &str, path: &str) -> Self {
        Self {
            service: service.to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout_ms: 1_000,
            answer_bytes: 64 << 10,
        }
    }

    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push(Field { name: name.to_owned(), value: value.into() });
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout_ms = millis(timeout);
        self
    }

    /// An answer whose body is longer is an error.
    pub fn answer_bytes(mut self, most: u32) -> Self {
        self.answer_bytes = most;
        self
    }

    /// Sends it and gives the id that its answer carries. At most 4 for one wait.
    pub fn send(&self) -> Result<u32, CallError> {
        host::send(self).map_err(CallError::of("callout"))
    }
}

//! Lines in the proxy's log, under the filter's name; too many are dropped.

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

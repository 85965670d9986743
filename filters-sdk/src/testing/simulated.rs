//! The host that native tests talk to: a clock that stands still until a test moves it, exact buckets, values, callouts
//! and a log in memory. Each test thread has its own.

pub(crate) mod callouts;
pub(crate) mod crypto;
pub(crate) mod kv;
pub(crate) mod metrics;
pub(crate) mod secrets;
pub(crate) mod token_bucket;

use std::cell::RefCell;
use std::time::Duration;

use super::Grants;
use crate::bindings::weft::filter::log::Level;

#[derive(Default)]
struct Host {
    now: Duration,
    grants: Grants,
    log: Vec<String>,
    metrics: metrics::Metrics,
    limits: Vec<token_bucket::Buckets>,
    kv: kv::Values,
    callouts: callouts::Callouts,
    crypto: crypto::Crypto,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

pub(crate) fn grant(grants: Grants) {
    HOST.with_borrow_mut(|host| host.grants = grants);
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

/// As the interface `log`.
pub(crate) fn write(level: Level, message: &str) {
    let level = match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    HOST.with_borrow_mut(|host| host.log.push(format!("{level}: {message}")));
}

//! The control plane: store, authority, world, publication and operator API behind `weft-control`. It plans with
//! `weft-policy` (pure) and meets proxies only on the wire that it defines. Traffic never depends on it being up.

pub mod access;
pub mod api;
pub mod app;
pub mod artifact;
pub mod builtin;
pub mod ca;
pub mod check;
pub mod claims;
pub mod config;
pub mod grpc;
mod host;
pub mod hub;
pub mod lease;
pub mod listener;
pub mod metrics;
mod peers;
pub mod rate;
pub mod registry;
mod seal;
pub mod session;
pub mod snapshot;
mod state;
pub mod store;
pub mod tls;
pub mod token;
pub mod told;
mod trial;
pub mod view;

/// An error with all of its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Seconds since 1970.
fn now_unix() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

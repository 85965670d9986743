//! For authors of filters: implement [`Filter`], name it in [`export!`], build for wasm32. The contract itself is
//! `wit/filter.wit`; this crate is its Rust face, and on any other target a harness to test filters with `cargo test`.
#![doc = include_str!("../EXAMPLE.md")]

#[doc(hidden)]
pub mod bindings;
mod calls;
mod filter;
mod outcome;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use bindings::weft::filter::types::Outcome;
pub use bindings::weft::filter::types::{
    Attributes, Direction, Edit, Field, Header, Hooks, Interest, Reply, RequestHead, ResponseHead, Summary, Verdict,
    Wants,
};
pub use calls::{Counter, Gauge, Histogram, TokenBuckets, log};
#[doc(hidden)]
pub use filter::Configured;
pub use filter::{Connection, Filter, Request, Response};

//! For authors of filters: implement [`Filter`], name it in [`export!`], build for wasm32. The contract itself is
//! `wit/0.2/filter.wit`; this crate is its Rust face, and on any other target a harness to test filters with `cargo test`.
#![doc = include_str!("../EXAMPLE.md")]

mod ask;
#[doc(hidden)]
pub mod bindings;
mod calls;
mod config;
mod cookie;
mod filter;
pub mod hook;
mod instance;
mod outcome;
pub mod rules;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod values;

pub use ask::{Ask, Interest};
pub use bindings::exports::weft::filter::callout_answer::Answer;
pub use bindings::weft::filter::types::{Edit, Field, Outcome, Reply, Verdict};
pub use calls::{CallError, Counter, Gauge, Histogram, Taken, TokenBuckets, callouts, crypto, kv, log, secrets};
pub use config::NoConfig;
pub use cookie::Cookie;
pub use filter::{Chunk, Connection, Filter, Request, RequestBody, Response, ResponseBody};
#[doc(hidden)]
pub use instance::Instance;
pub use values::{Prefixed, Value, Values};

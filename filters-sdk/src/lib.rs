//! For authors of filters: implement [`Filter`], name it in [`export!`], build for wasm32. The contract itself is
//! `wit/filter.wit`; this crate is its Rust face, and on any other target a harness to test filters with `cargo test`.
//!
//! ```
//! use weft_filters_sdk::{Filter, Hooks, Interest, Outcome, Request, Reply};
//!
//! /// Answers 418 to whoever sends `x-teapot`.
//! struct Teapot;
//!
//! impl Filter for Teapot {
//!     fn configure(_config: &str) -> Result<(Self, Interest), String> {
//!         let interest = Interest { hooks: Hooks::REQUEST_HEAD, ..Interest::default() };
//!         Ok((Teapot, interest.request_header("x-teapot")))
//!     }
//!
//!     fn request_head(&mut self, _stream: u64, request: &Request<'_>) -> Outcome {
//!         match request.header("x-teapot") {
//!             Some(_) => Outcome::respond(Reply::text(418, "teapot", "short and stout\n")),
//!             None => Outcome::pass(),
//!         }
//!     }
//! }
//!
//! weft_filters_sdk::export!(Teapot);
//! # fn main() {}
//! ```

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

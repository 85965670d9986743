//! Runs filters: digest -> verified -> compiled -> pooled -> called. It knows no rule: what a filter decides is the
//! filter's business, that it can harm nobody is this crate's. Nothing here blocks the data path but the calls
//! themselves. [`Host`], one per process, makes a [`FilterSpec`] and a binary into a [`Prepared`] filter. [`Chain`]s of
//! those live in the snapshot; each data-plane thread has a [`Worker`], which owns its instances.

mod backoff;
mod bindings;
mod bucket;
mod budget;
mod cache;
mod callouts;
mod cases;
mod chain;
mod clock;
mod compile;
mod crypto;
mod deadline;
mod edits;
mod failure;
mod frames;
mod grants;
mod guest;
mod hook;
mod host;
mod imports;
mod interest;
mod kv;
mod ledger;
mod metrics;
mod order;
mod prepare;
mod refill;
mod spec;
mod state;
mod stats;
mod values;
mod verify;
mod wasi;
mod worker;

pub use bucket::BucketLimits;
pub use cache::{CacheLimits, CacheStats};
pub use cases::{TRY, run_cases, try_child};
pub use chain::{
    Answering, Attributes, Callout, CalloutAnswer, Chunk, Cut, Event, Hooks, LocalReply, Outcome, Part, Permit,
    Position, ReplyCause, RequestView, ResponseView, Summary, comes_in_parts,
};
pub use compile::{COMPILE, CompileError, CompileLimits, Compiler, compile_child};
pub use failure::TrapKind;
pub use hook::Hook;
pub use host::{Host, HostConfig, HostError};
pub use metrics::{CustomKind, CustomMetric, CustomSeries, CustomValue, HISTOGRAM_BOUNDS};
pub use order::Chain;
pub use prepare::{Interest, PrepareError, Prepared};
pub use spec::{Digest, FilterSpec, SpecError};
pub use stats::{
    Audited, CALL_TIME_BOUNDS, CallTimes, Counter, FilterStats, Gauge, HostStats, OTHER_REASONS, Replies, Tally, Timing,
};
pub use verify::VerifyError;
pub use worker::Worker;

//! Runs filters: digest -> verified -> compiled -> pooled -> called. It knows no rule: what a filter decides is the
//! filter's business, that it can harm nobody is this crate's. Nothing here blocks the data path but the calls themselves.
//! [`Host`], one per process, makes a [`FilterSpec`] and a binary into a [`Prepared`] filter. [`Chain`]s of those live in the
//! snapshot; each data-plane thread has a [`Worker`], which owns its instances.

mod bindings;
mod breaker;
mod bucket;
mod cache;
mod callouts;
mod chain;
mod clock;
mod crypto;
mod deadline;
mod edits;
mod grants;
mod host;
mod imports;
mod instance;
mod kv;
mod metrics;
mod prepare;
mod spec;
mod state;
mod stats;
mod verify;
mod worker;

pub use bucket::BucketLimits;
pub use chain::{Attributes, Chain, Hooks, LocalReply, Outcome, Permit, Position, ReplyCause, RequestView, Summary};
pub use host::{Host, HostConfig, HostError};
pub use metrics::{CustomKind, CustomMetric, CustomSeries, CustomValue, HISTOGRAM_BOUNDS};
pub use prepare::{Interest, PrepareError, Prepared};
pub use spec::{Digest, FilterSpec, SpecError};
pub use stats::{Counter, FilterStats, Gauge, HostStats};
pub use verify::VerifyError;
pub use worker::Worker;

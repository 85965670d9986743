//! The proxy's reports about itself: request and connection metrics in Istio's names, its own in `weft_*`, and the
//! access log. Request-path series are arrays owned by one worker each; a scrape adds them up.

pub mod access_log;
pub mod counters;
pub mod line_writer;
mod log;
pub mod names;
pub mod process;
pub mod render;
pub mod series;
pub mod sources;
pub mod store;
pub mod throttle;

pub use log::{LogLevel, check as check_log_filter};
pub use series::PairMetrics;

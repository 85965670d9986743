//! Traffic over time: which endpoint next, may this be tried again, how long to wait. PURE: `now` and the dice are
//! arguments. Its moving counterpart is `weft-proxy`.

mod backoff;
mod balancer;
mod budget;

pub use backoff::Backoff;
pub use balancer::{Balancer, Outcome};
pub use budget::RetryBudget;

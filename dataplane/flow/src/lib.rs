//! Traffic over time: which endpoint, whether to retry, whether to let pass, how long to wait. PURE: `now` (a duration
//! since any start that the caller keeps) and the dice are arguments. Its moving counterpart is `weft-proxy`.

mod backoff;
mod balancer;
mod bucket;
mod budget;
mod deadline;

pub use backoff::Backoff;
pub use balancer::{Balancer, Outcome, Probed, Vitals};
pub use bucket::TokenBucket;
pub use budget::RetryBudget;
pub use deadline::Deadline;

/// Splits one throw of the dice into independent ones (splitmix64).
fn next_dice(dice: &mut u64) -> u64 {
    *dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *dice;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number below `bound` from uniform dice; 0 where `bound` is 0.
fn below(dice: u64, bound: u64) -> u64 {
    u64::try_from((u128::from(dice) * u128::from(bound)) >> 64).unwrap_or_default()
}

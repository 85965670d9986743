//! Traffic over time: which endpoint, whether to retry, whether to let pass, how long to wait. PURE: `now` (a duration
//! since any start that the caller keeps) and the dice are arguments. Its moving counterpart is `weft-proxy`.

mod backoff;
mod balancer;
mod bucket;
mod budget;
mod callers;
mod deadline;
mod gradient;
mod health;
mod portions;
mod repeats;
mod told;

pub use backoff::Backoff;
pub use balancer::{
    Algorithm, Balancer, Outcome, Outliers, Overprovisioning, Preference, Probed, Purpose, Settings, Sign, SlowStart,
    SuccessRate, Vitals, Wanted,
};
pub use bucket::TokenBucket;
pub use budget::{Allowance, RetryBudget};
pub use callers::{CallersRetries, Claims, Heard, WHOLE as WHOLE_RETRY};
pub use deadline::Deadline;
pub use gradient::{Gradient, GradientSettings, Measured};
pub use health::{Checked, Health, Rounds, Thresholds};
pub use portions::portions;
pub use repeats::{Asked, Repeats};
pub use told::{grpc_timeout, grpc_timeout_text, timeout_ms, timeout_ms_number};

/// Splits one throw of the dice into independent ones (splitmix64).
fn next_dice(dice: &mut u64) -> u64 {
    *dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *dice;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The hash of a name or a key, the same in every process and release: callers agree on where a key goes. FNV-1a, its bits
/// then mixed. It keeps nobody from choosing keys that meet.
pub fn hash(bytes: &[u8]) -> u64 {
    let mixed = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    next_dice(&mut bytes.iter().fold(0xcbf2_9ce4_8422_2325, mixed))
}

/// A number below `bound` from uniform dice; 0 where `bound` is 0.
fn below(dice: u64, bound: u64) -> u64 {
    u64::try_from((u128::from(dice) * u128::from(bound)) >> 64).unwrap_or_default()
}

//! Expressions of policies, in a part of the Common Expression Language: read and type-checked where a policy is taken,
//! evaluated within bounds where requests are. PURE, and no text, compiled form or value makes it panic.

#[cfg(feature = "manifest")]
mod check;
#[cfg(feature = "manifest")]
mod compile;
mod environment;
mod evaluate;
mod expression;
#[cfg(feature = "manifest")]
mod lex;
mod operate;
#[cfg(feature = "manifest")]
mod overload;
#[cfg(feature = "manifest")]
mod parse;
mod rules;
#[cfg(all(test, feature = "manifest"))]
mod tests;
mod travel;
mod value;

#[cfg(feature = "manifest")]
pub use check::{Fault, Purpose, compile};
#[cfg(feature = "manifest")]
pub use compile::{ConfigFault, compile_config};
pub use evaluate::{EvalError, Told, evaluate};
pub use expression::{Each, Expr, Function};
pub use rules::{Compiled, Config, Decision, Deny, End, HeaderEdit, OnError, Otherwise, Respond, Rule, Rules, Then};
pub use value::{List, Map, Value};

/// Bytes of an expression's text.
pub const MAX_TEXT: usize = 4 << 10;
/// Levels of an expression, each within the other. Its compiled form has at most three levels of JSON for each, and
/// readers of JSON stop at 128.
pub const MAX_DEPTH: usize = 32;
/// Parts of an expression.
pub const MAX_NODES: usize = 1_000;
/// What an expression may cost by its form: a part costs 1 each time that it is evaluated at the most.
pub const MAX_COST: u64 = 10_000;
/// Steps of all expressions for one request: a part costs one, and one more for each 64 bytes that it looks at.
pub const MAX_STEPS: u32 = 100_000;
/// Bytes of all values that the expressions for one request make or read.
pub const MAX_BYTES: usize = 1 << 20;

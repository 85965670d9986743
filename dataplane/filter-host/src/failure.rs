//! Why a filter gave no verdict, in the words of metrics, logs and replies, and with what an author needs to mend it.

use std::fmt::{self, Write as _};

use wasmtime::{Trap, WasmBacktrace};

/// Frames of a trap's backtrace that are told, and bytes of it.
pub(crate) const FRAMES: usize = 16;
const DETAIL_BYTES: usize = 2_048;

/// The host does not do what a filter asks of it, and the function has no error to say so: the call ends there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct HostRefusal(pub(crate) String);

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// What happened exactly: which edit was refused and why, where it trapped.
    pub(crate) detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    Trap(TrapKind),
    Timeout,
    /// All calls of one request together took too long.
    Budget,
    /// A verdict or edit that the contract forbids.
    InvalidResult,
    /// No instance could be made, or it did not take the configuration.
    NoInstance,
    /// The instance that held this stream's state is gone (contract 0.1).
    StateLost,
    /// What it waited for did not come in time.
    WaitOver,
    /// The process keeps as much for filters as it may.
    NoRoom,
}

/// What a trap was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrapKind {
    /// It gave up by itself: a panic, an assertion.
    Unreachable,
    StackOverflow,
    /// Memory or a table was accessed beyond its end.
    OutOfBounds,
    /// It wanted more memory than it is granted.
    Memory,
    /// Division by zero, an overflow, or a number that is none.
    Arithmetic,
    /// What it answered can't be read: a pointer or a case that does not exist.
    Malformed,
    Other,
}

impl TrapKind {
    pub const ALL: [TrapKind; 7] = [
        TrapKind::Unreachable,
        TrapKind::StackOverflow,
        TrapKind::OutOfBounds,
        TrapKind::Memory,
        TrapKind::Arithmetic,
        TrapKind::Malformed,
        TrapKind::Other,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            TrapKind::Unreachable => "unreachable",
            TrapKind::StackOverflow => "stack_overflow",
            TrapKind::OutOfBounds => "out_of_bounds",
            TrapKind::Memory => "memory",
            TrapKind::Arithmetic => "arithmetic",
            TrapKind::Malformed => "malformed",
            TrapKind::Other => "other",
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// `None`: it was ended by the clock.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the engine's traps grow with its releases")]
    fn of(trap: Trap) -> Option<Self> {
        Some(match trap {
            Trap::Interrupt => return None,
            Trap::UnreachableCodeReached => Self::Unreachable,
            Trap::StackOverflow => Self::StackOverflow,
            Trap::MemoryOutOfBounds | Trap::TableOutOfBounds | Trap::IndirectCallToNull | Trap::BadSignature => {
                Self::OutOfBounds
            }
            Trap::AllocationTooLarge => Self::Memory,
            Trap::IntegerOverflow | Trap::IntegerDivisionByZero | Trap::BadConversionToInteger => Self::Arithmetic,
            Trap::InvalidChar
            | Trap::StringOutOfBounds
            | Trap::ListOutOfBounds
            | Trap::InvalidDiscriminant
            | Trap::UnalignedPointer => Self::Malformed,
            _ => Self::Other,
        })
    }
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(FailureKind::InvalidResult, detail)
    }

    /// A call that ended in an error was ended by the clock, or by the filter itself. `memory`: it was refused more
    /// memory while it ran, which a filter survives seldom, and says so never.
    pub(crate) fn of_call(error: &wasmtime::Error, memory: bool) -> Self {
        let trap = error.downcast_ref::<Trap>();
        let kind = match trap.map(|trap| TrapKind::of(*trap)) {
            Some(None) => FailureKind::Timeout,
            None if error.is::<HostRefusal>() => FailureKind::Trap(TrapKind::Other),
            Some(Some(TrapKind::Unreachable)) | None if memory => FailureKind::Trap(TrapKind::Memory),
            Some(Some(kind)) => FailureKind::Trap(kind),
            None => FailureKind::Trap(TrapKind::Malformed),
        };
        let mut detail = trap.map_or_else(|| error.root_cause().to_string(), ToString::to_string);
        if let Some(frames) = error.downcast_ref::<WasmBacktrace>() {
            detail.push_str(&backtrace(frames));
        }
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES));
        Self { kind, detail }
    }
}

/// As much of a name that a filter gave as errors repeat.
pub(crate) fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

/// Names of the functions in which it happened as their authors know them, innermost first; those without a name by their number.
fn backtrace(frames: &WasmBacktrace) -> String {
    let mut text = String::new();
    for frame in frames.frames().iter().take(FRAMES) {
        text.push_str(if text.is_empty() { "; in " } else { " < " });
        match frame.func_name() {
            Some(name) => text.push_str(&function(name)),
            None => text.push_str(&format!("function {}", frame.func_index())),
        }
    }
    text
}

/// A function's name without what a compiler put around it, as far as it is told: a short one may stand for a long one.
fn function(name: &str) -> String {
    let mut shown = Shown::default();
    // An error says that there is more.
    _ = write!(shown, "{:#}", rustc_demangle::demangle(name));
    shown.0
}

/// Takes so many characters, and an error for more.
#[derive(Default)]
struct Shown(String);

impl fmt::Write for Shown {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        const MOST: usize = 128;
        let room = MOST.saturating_sub(self.0.chars().count());
        self.0.extend(text.chars().take(room));
        if text.chars().nth(room).is_some() { Err(fmt::Error) } else { Ok(()) }
    }
}

impl FailureKind {
    /// The short word of metrics, logs and replies.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            FailureKind::Trap(_) => "filter_trapped",
            FailureKind::Timeout => "filter_timed_out",
            FailureKind::Budget => "filter_budget_spent",
            FailureKind::InvalidResult => "filter_result_invalid",
            FailureKind::NoInstance => "filter_not_instantiated",
            FailureKind::StateLost => "filter_state_lost",
            FailureKind::WaitOver => "filter_wait_over",
            FailureKind::NoRoom => "filter_no_room",
        }
    }

    /// True where the instance that failed can't be called again: it stopped in the middle of something.
    pub(crate) const fn kills(self) -> bool {
        match self {
            FailureKind::Trap(_) | FailureKind::Timeout => true,
            FailureKind::Budget
            | FailureKind::InvalidResult
            | FailureKind::NoInstance
            | FailureKind::StateLost
            | FailureKind::WaitOver
            | FailureKind::NoRoom => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        if let FailureKind::Trap(kind) = self.kind {
            write!(f, " ({})", kind.as_str())?;
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_refuses_is_told_in_its_words() {
        let refused = wasmtime::Error::from(HostRefusal("there is none".to_owned()));
        let failure = Failure::of_call(&refused, true);
        assert_eq!(failure.to_string(), "filter_trapped (other): there is none");
    }

    #[test]
    fn functions_have_the_names_that_their_authors_know() {
        assert_eq!(function("_ZN4core9panicking5panic17h0123456789abcdefE"), "core::panicking::panic");
        assert_eq!(function("_RNvCs1234_7mycrate3foo"), "mycrate::foo");
        assert_eq!(function("on_request_head"), "on_request_head");
        assert_eq!(function(&"é".repeat(1_000)), "é".repeat(128));
    }

    #[test]
    fn a_trap_is_told_by_its_kind() {
        for (trap, memory, expect) in [
            (Trap::Interrupt, false, FailureKind::Timeout),
            (Trap::Interrupt, true, FailureKind::Timeout),
            (Trap::UnreachableCodeReached, false, FailureKind::Trap(TrapKind::Unreachable)),
            (Trap::UnreachableCodeReached, true, FailureKind::Trap(TrapKind::Memory)),
            (Trap::StackOverflow, false, FailureKind::Trap(TrapKind::StackOverflow)),
            (Trap::StackOverflow, true, FailureKind::Trap(TrapKind::StackOverflow)),
            (Trap::MemoryOutOfBounds, false, FailureKind::Trap(TrapKind::OutOfBounds)),
            (Trap::IntegerDivisionByZero, false, FailureKind::Trap(TrapKind::Arithmetic)),
            (Trap::InvalidDiscriminant, false, FailureKind::Trap(TrapKind::Malformed)),
            (Trap::NullReference, false, FailureKind::Trap(TrapKind::Other)),
        ] {
            assert_eq!(Failure::of_call(&wasmtime::Error::from(trap), memory).kind, expect, "{trap:?}");
        }
        let malformed = Failure::of_call(&wasmtime::format_err!("a pointer beyond the end"), false);
        assert_eq!(malformed.kind, FailureKind::Trap(TrapKind::Malformed));
        assert_eq!(malformed.to_string(), "filter_trapped (malformed): a pointer beyond the end");
    }
}

//! Answers that are given part by part: the first one is its head's, the state counts those that came after it.

use std::time::Duration;

use weft_filters_sdk::{Outcome, Reply};

use crate::heads;

/// True for modes that answer so.
pub(crate) fn is_mode(mode: &str) -> bool {
    mode.starts_with("parts")
}

pub(crate) fn begin(mode: &str) -> Outcome {
    let status = if mode == "parts-304" { 304 } else { 200 };
    let reply = Reply::text(status, "parts", "part 0\n");
    Outcome::respond(if mode == "parts-late" { reply.after(Duration::from_millis(20)) } else { reply })
}

/// The next one; `value`: how many there are beside the first.
pub(crate) fn next(mode: &str, value: &str, state: &mut Vec<u8>) -> Outcome {
    match mode {
        "parts-wait" if !is_last(value, state) => heads::wait(30),
        "parts-ask" if !is_last(value, state) => heads::callout("ask", "/who"),
        "parts-respond" => Outcome::respond(Reply::text(200, "again", "")),
        "parts-header" => Outcome::part("part").set_header("x-late", "1"),
        "parts-idle" => heads::wait(300_000),
        "parts-hold" => held(Outcome::part("late")),
        "parts-empty" => Outcome::part(""),
        "parts-delay" => held(Outcome::pass()),
        "parts-crumbs" => Outcome::part("x"),
        "parts-long" => Outcome::part("x".repeat(1_025 << 10)),
        "parts-endless" => Outcome::part("x".repeat(16 << 10)),
        _ => made(value, state, ""),
    }
}

/// The part that was waited for; `said`: what a service said.
pub(crate) fn made(value: &str, state: &mut Vec<u8>, said: &str) -> Outcome {
    if is_last(value, state) {
        return Outcome::pass();
    }
    let number = count(state) + 1;
    *state = vec![number];
    Outcome::part(format!("part {number}{said}\n"))
}

fn is_last(value: &str, state: &[u8]) -> bool {
    count(state) >= value.parse().unwrap_or(3)
}

fn count(state: &[u8]) -> u8 {
    state.first().copied().unwrap_or_default()
}

fn held(outcome: Outcome) -> Outcome {
    outcome.edits.into_iter().fold(Outcome::pass_after(Duration::from_secs(300)), Outcome::edit)
}

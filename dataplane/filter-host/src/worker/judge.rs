//! From what a filter said to what becomes of the stream: checked as a whole, or refused as a whole.

use std::sync::Arc;
use std::time::Duration;

use weft_policy::path::Ambiguous;

use crate::chain::{Callout, Cut, LocalReply, ReplyCause};
use crate::edits::{self, AtHand, Changes};
use crate::failure::{Failure, FailureKind, shown};
use crate::hook::{Hook, Said, Verdict};
use crate::prepare::Prepared;

/// Effect of one filter's verdict on the stream.
#[derive(Debug)]
pub(super) enum Step {
    Next { changes: Changes, delay: Duration },
    Reply { reply: Box<LocalReply>, delay: Duration },
    Wait { calls: Vec<Callout>, within: Duration },
    Cut(Box<Cut>),
}

/// What a verdict may do at a hook.
#[derive(Debug, Clone, Copy)]
pub(super) struct May {
    pub(super) at_hand: AtHand,
    pub(super) delay: bool,
    pub(super) wait: bool,
}

impl May {
    /// Before a head goes on: everything.
    pub(super) const fn hold(at_hand: AtHand) -> Self {
        Self { at_hand, delay: true, wait: true }
    }

    pub(super) const CHUNK: May = May { at_hand: AtHand::Chunk, delay: true, wait: false };
    pub(super) const TRAILERS: May = May { at_hand: AtHand::Trailers, delay: false, wait: false };
}

impl Step {
    pub(super) const fn pass() -> Self {
        Step::Next { changes: Changes::new(), delay: Duration::ZERO }
    }
}

/// Turns a guest's result into a step, or refuses it. In audit mode a sound result has no effect but on counters.
pub(super) fn judge(filter: &Prepared, said: Said, may: May) -> Result<Step, Failure> {
    let stats = filter.stats();
    let delay = match said.verdict {
        Verdict::Respond(reply) => {
            let delay = millis(reply.after_ms);
            let reply = Box::new(edits::reply(reply, &filter.label, filter.cause())?);
            if filter.is_audit() {
                audit_reply(filter, &reply);
                return Ok(Step::pass());
            }
            stats.replied(&reply.reason);
            return Ok(Step::Reply { reply, delay });
        }
        Verdict::Reset(reason) => return Ok(cut(filter, reason, false)),
        Verdict::Close(reason) => return Ok(cut(filter, reason, true)),
        Verdict::Wait(ms) => {
            let calls = said.callouts.into_vec();
            return wait(filter, calls, ms, may);
        }
        Verdict::Unknown(name) => {
            let name = shown(&name);
            return Err(Failure::invalid(format!("the verdict {name:?}, which this release does not know")));
        }
        Verdict::ContinueAfter(_) if !may.delay => return Err(Failure::invalid("a delay where nothing can be held")),
        Verdict::ContinueAfter(ms) => millis(ms),
        Verdict::Continue => Duration::ZERO,
    };
    // Nothing of the head may change once authorization has seen it.
    if filter.spec().authorization && !said.edits.is_empty() {
        return Err(Failure::invalid("an edit by an authorization filter, which may change nothing"));
    }
    let changes = edits::parse(said.edits, may.at_hand, filter.setup.bounds.body_bytes)?;
    if filter.is_audit() {
        if !delay.is_zero() || !changes.is_empty() {
            stats.audited.add(None);
        }
        return Ok(Step::pass());
    }
    if !delay.is_zero() {
        stats.delays.add(1);
    }
    if !changes.is_empty() {
        stats.edits.add(changes.len() as u64);
    }
    Ok(Step::Next { changes, delay })
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms)).min(edits::MAX_DELAY)
}

fn audit_reply(filter: &Prepared, reply: &LocalReply) {
    filter.stats().audited.add(reply.rule.as_deref());
    if filter.setup.shared.log_admits() {
        let (status, rule, reason) = (reply.status.as_u16(), reply.rule.as_deref(), &*reply.reason);
        tracing::info!(filter = &*reply.filter, status, rule, reason, "audit: would have answered");
    }
}

fn cut(filter: &Prepared, reason: String, close: bool) -> Step {
    if filter.is_audit() {
        filter.stats().audited.add(None);
        return Step::pass();
    }
    filter.stats().resets.add(1);
    let reason = edits::printable(reason);
    Step::Cut(Box::new(Cut { filter: filter.label.name.clone(), reason, close, cause: filter.cause() }))
}

/// The answer to a path that authorization can't be asked about; only an audit lets it pass.
pub(super) fn refuse_ambiguous(filter: &Prepared, ambiguous: Ambiguous) -> Step {
    if filter.is_audit() {
        filter.stats().audited.add(None);
        return Step::pass();
    }
    let reply = Box::new(edits::ambiguous(&filter.label, ambiguous));
    filter.stats().replied(&reply.reason);
    Step::Reply { reply, delay: Duration::ZERO }
}

fn wait(filter: &Prepared, calls: Vec<Callout>, ms: u32, may: May) -> Result<Step, Failure> {
    let hooks = filter.interest.hooks;
    if !may.wait {
        return Err(Failure::invalid("a wait where nothing can be held"));
    }
    let within = Duration::from_millis(u64::from(ms));
    if within > edits::MAX_DELAY {
        return Err(Failure::invalid(format!("a wait of {ms} ms, at most {}", edits::MAX_DELAY.as_millis())));
    }
    if !calls.is_empty() && !hooks.callout {
        return Err(Failure::invalid("a wait for answers without the hook callout"));
    }
    if calls.is_empty() && !hooks.tick && !hooks.callout {
        return Err(Failure::invalid("a wait without the hooks callout and tick"));
    }
    if filter.is_audit() {
        filter.stats().audited.add(None);
        return Ok(Step::pass());
    }
    filter.stats().waits.add(1);
    filter.stats().callouts.add(calls.len() as u64);
    Ok(Step::Wait { calls, within })
}

/// Counts and logs a failure, with all that an author needs to find it.
pub(super) fn note(filter: &Prepared, failure: &Failure, hook: Hook, request_id: Option<&str>) {
    filter.stats().failed(failure.kind);
    if filter.setup.shared.log_admits() {
        let spec = filter.spec();
        let (version, hook, reason) = (&*spec.version, hook.name(), failure.kind.as_str());
        let detail = failure.to_string();
        let detail = detail.escape_debug();
        tracing::warn!(filter = &*spec.name, version, hook, reason, request_id, %detail, "filter failed");
    }
}

/// Effect of a failure on the stream: false where the filter is passed by.
pub(super) fn closes(filter: &Prepared) -> bool {
    let stats = filter.stats();
    if filter.may_be_passed_by() {
        stats.failed_open.add(1);
        return false;
    }
    stats.failed_closed.add(1);
    true
}

/// The end of a stream that can't be answered any more.
pub(super) fn cut_for(filter: &Prepared, reason: &str, cause: ReplyCause) -> Box<Cut> {
    Box::new(Cut { filter: Arc::clone(&filter.label.name), reason: reason.to_owned(), close: false, cause })
}

pub(super) fn wait_over() -> Failure {
    Failure::new(FailureKind::WaitOver, "it has no hook tick, and the time of its wait is up")
}

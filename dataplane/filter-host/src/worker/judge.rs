//! From what a filter said to what becomes of the stream: checked as a whole, or refused as a whole.

use std::sync::Arc;
use std::time::Duration;

use weft_policy::path::{Ambiguous, NormalPath};

use crate::chain::{Callout, Cut, LocalReply, ReplyCause};
use crate::edits::{self, AtHand, Changes};
use crate::failure::{Failure, FailureKind, shown};
use crate::hook::{Hook, Said, Told, Verdict};
use crate::prepare::Prepared;

/// Characters of a path in a line of the log at the most.
const MAX_PATH: usize = 256;

/// Effect of one filter's verdict on the stream.
#[derive(Debug)]
pub(super) enum Step {
    Next { changes: Changes, delay: Duration },
    Reply { reply: Box<LocalReply>, delay: Duration },
    Wait { calls: Vec<Callout>, within: Duration },
    Cut(Box<Cut>),
}

/// Whose stream it is, and about what, as a line of the log tells them apart.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Whose<'a> {
    source: Option<&'a str>,
    method: Option<&'a str>,
    path: Option<&'a NormalPath>,
    request_id: Option<&'a str>,
}

impl<'a> Whose<'a> {
    /// Of what a filter is told; `request_id` is of a stream whose head is not at hand any more.
    pub(super) fn of(told: Told<'a>, request_id: Option<&'a str>) -> Self {
        Self {
            source: told.attributes.and_then(|it| it.principal),
            method: told.request.map(|it| it.method.as_str()),
            path: told.request.and_then(|it| it.path),
            request_id: told.attributes.and_then(|it| it.request_id).or(request_id),
        }
    }

    pub(super) fn named(request_id: Option<&'a str>) -> Self {
        Self { request_id, ..Self::default() }
    }

    /// As much of the path as a line of the log repeats, without its query.
    fn path(&self) -> Option<String> {
        self.path.map(|path| path.standard().chars().take(MAX_PATH).collect())
    }
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
    pub(super) const PART: May = May { at_hand: AtHand::Chunk, delay: true, wait: true };
    pub(super) const TRAILERS: May = May { at_hand: AtHand::Trailers, delay: false, wait: false };
}

impl Step {
    pub(super) const fn pass() -> Self {
        Step::Next { changes: Changes::new(), delay: Duration::ZERO }
    }
}

/// Turns a guest's result into a step, or refuses it. In audit mode a sound result has no effect but on counters.
pub(super) fn judge(filter: &Prepared, said: Said, may: May, whose: Whose<'_>) -> Result<Step, Failure> {
    let stats = filter.stats();
    let delay = match said.verdict {
        Verdict::Respond(reply) => {
            let delay = millis(reply.after_ms);
            let reply = Box::new(edits::reply(reply, &filter.label, filter.cause())?);
            if filter.is_audit() {
                audit_reply(filter, &reply, whose);
                return Ok(Step::pass());
            }
            stats.replied(&reply.reason);
            return Ok(Step::Reply { reply, delay });
        }
        Verdict::Reset(reason) => return Ok(cut(filter, reason, false, whose)),
        Verdict::Close(reason) => return Ok(cut(filter, reason, true, whose)),
        Verdict::Wait(ms) => return wait(filter, said.callouts, ms, may),
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

/// Counts an answer that is not given, and says to whom it would have been.
pub(super) fn audit_reply(filter: &Prepared, reply: &LocalReply, whose: Whose<'_>) {
    filter.stats().audited.add(reply.rule.as_deref());
    if filter.setup.shared.log_admits() {
        let (status, rule, reason) = (reply.status.as_u16(), reply.rule.as_deref(), &*reply.reason);
        let (Whose { source, method, request_id, .. }, path) = (whose, whose.path());
        let (filter, path) = (&*reply.filter, path.as_deref());
        tracing::info!(filter, source, method, path, request_id, status, rule, reason, "audit: would have answered");
    }
}

/// The same of a stream that is not ended.
pub(super) fn audit_cut(filter: &Prepared, reason: &str, whose: Whose<'_>) {
    filter.stats().audited.add(None);
    if filter.setup.shared.log_admits() {
        let (Whose { source, method, request_id, .. }, path) = (whose, whose.path());
        let (filter, path) = (&*filter.label.name, path.as_deref());
        tracing::info!(filter, source, method, path, request_id, reason, "audit: would have ended the stream");
    }
}

fn cut(filter: &Prepared, reason: String, close: bool, whose: Whose<'_>) -> Step {
    let reason = edits::printable(reason);
    if filter.is_audit() {
        audit_cut(filter, &reason, whose);
        return Step::pass();
    }
    filter.stats().resets.add(1);
    Step::Cut(Box::new(Cut { filter: filter.label.name.clone(), reason, close, cause: filter.cause() }))
}

/// The answer to a path that authorization can't be asked about; only an audit lets it pass.
pub(super) fn refuse_ambiguous(filter: &Prepared, ambiguous: Ambiguous, whose: Whose<'_>) -> Step {
    let reply = Box::new(edits::ambiguous(&filter.label, ambiguous));
    if filter.is_audit() {
        audit_reply(filter, &reply, whose);
        return Step::pass();
    }
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

//! One data-plane thread's filter instances, and the run of a chain over them. Nothing here is shared with other threads
//! but counters, breakers and token buckets. Invariant: what a failed instance knew is never mistaken for an answer.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::marker::PhantomData;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use weft_policy::bundle::{FilterMode, OnFailure};
use weft_policy::path::{Ambiguous, Readings};

use crate::bindings::v01::weft::filter::types;
use crate::chain::{Attributes, Chain, LocalReply, Outcome, Permit, Position, ReplyCause, RequestView, Summary};
use crate::edits::{self, Changes};
use crate::host::Host;
use crate::instance::{Failure, Instance};
use crate::prepare::Prepared;

/// Made on the thread that uses it; it can't leave it.
#[derive(Debug)]
pub struct Worker {
    host: Host,
    /// By `Prepared::slot`.
    slots: Vec<Option<Slot>>,
    /// Answers that a filter wants held back, by stream.
    held: HashMap<u64, Box<LocalReply>>,
    dice: u64,
    not_send: PhantomData<*const ()>,
}

/// The instance of one prepared filter on this thread, and whose state it holds.
#[derive(Debug)]
struct Slot {
    /// `Prepared::id`, which is never given twice; the place in the table is.
    id: u64,
    prepared: Weak<Prepared>,
    instance: Option<Instance>,
    /// Grows with each replaced instance.
    generation: u32,
    /// For stateful filters: the generation that first saw each stream.
    streams: HashMap<u64, u32>,
}

/// The connection, request or response that a hook is called for.
enum Subject<'s, 'v> {
    Connection(&'s Attributes<'s>),
    Request(&'s mut RequestView<'v>, &'s Attributes<'s>),
    Response(StatusCode, &'s mut HeaderMap),
}

/// Effect of one filter's verdict on the stream.
enum Step {
    Next { changes: Changes, delay: Duration },
    Reply { reply: Box<LocalReply>, delay: Duration },
}

impl Worker {
    pub fn new(host: &Host) -> Self {
        let dice = std::hash::RandomState::new().hash_one(std::thread::current().id());
        Self { host: host.clone(), slots: Vec::new(), held: HashMap::new(), dice, not_send: PhantomData }
    }

    /// Decides on an opaque byte stream. Not for connections that carry HTTP: their requests are decided one by one.
    /// After `Delay`, call again with its position. Whatever comes of the stream, `done` must follow.
    pub fn connection(&mut self, chain: &Chain, from: Position, stream: u64, attributes: &Attributes<'_>) -> Outcome {
        self.run(chain, from, stream, Subject::Connection(attributes)).map(|()| Permit::mint())
    }

    /// Runs the chain over a request's head, which filters may change. Stream ids are unique among this worker's living
    /// streams. After `Delay`, call again with its position and the same view. `done` must follow, whatever happens.
    pub fn request_head(
        &mut self,
        chain: &Chain,
        from: Position,
        stream: u64,
        view: &mut RequestView<'_>,
        attributes: &Attributes<'_>,
    ) -> Outcome {
        self.run(chain, from, stream, Subject::Request(view, attributes)).map(|()| Permit::mint())
    }

    /// Runs the chain over the head of the final response, whose headers filters may change.
    pub fn response_head(
        &mut self,
        chain: &Chain,
        from: Position,
        stream: u64,
        status: StatusCode,
        headers: &mut HeaderMap,
    ) -> Outcome<()> {
        self.run(chain, from, stream, Subject::Response(status, headers))
    }

    /// Ends a stream: filters forget it. Call it once for each stream that any other hook saw.
    pub fn done(&mut self, chain: &Chain, stream: u64, summary: &Summary) {
        if !self.held.is_empty() {
            self.held.remove(&stream);
        }
        for filter in chain.filters() {
            let interest = filter.interest();
            if !interest.hooks.done {
                if interest.is_stateful() {
                    self.slot(filter).streams.remove(&stream);
                }
                continue;
            }
            let slot = self.slot(filter);
            let lost = interest.is_stateful() && slot.streams.remove(&stream) != Some(slot.generation);
            if lost {
                continue;
            }
            if let Err(failure) = self.call(filter, |instance, _| instance.done(stream, summary)) {
                count(filter, failure);
            }
        }
    }

    /// Frees the instances of filters that no snapshot holds any more. Call it after a swap; it also happens by itself
    /// when a new filter gets its first instance.
    pub fn retire(&mut self) {
        for place in &mut self.slots {
            if place.as_ref().is_some_and(|slot| slot.prepared.strong_count() == 0) {
                *place = None;
            }
        }
    }

    fn run(&mut self, chain: &Chain, from: Position, stream: u64, mut subject: Subject<'_, '_>) -> Outcome<()> {
        if from != Position::START
            && let Some(reply) = self.held.remove(&stream)
        {
            return Outcome::Respond(reply);
        }
        for (index, filter) in chain.filters().iter().enumerate().skip(from.0) {
            if !subject.is_asked_for(filter) {
                continue;
            }
            let resume = Position(index + 1);
            match self.step(filter, stream, &subject) {
                Ok(Step::Next { changes, delay }) => {
                    subject.apply(changes);
                    if !delay.is_zero() {
                        return Outcome::Delay { after: delay, resume };
                    }
                }
                Ok(Step::Reply { reply, delay: Duration::ZERO }) => return Outcome::Respond(reply),
                Ok(Step::Reply { reply, delay }) => {
                    self.held.insert(stream, reply);
                    return Outcome::Delay { after: delay, resume };
                }
                Err(failure) => {
                    if let Some(reply) = settle_failure(filter, failure) {
                        return Outcome::Respond(reply);
                    }
                }
            }
        }
        Outcome::Permitted(())
    }

    /// One filter's say on one hook.
    fn step(&mut self, filter: &Arc<Prepared>, stream: u64, subject: &Subject<'_, '_>) -> Result<Step, Failure> {
        if filter.interest().is_stateful() {
            let slot = self.slot(filter);
            let generation = slot.generation;
            if *slot.streams.entry(stream).or_insert(generation) != generation {
                return Err(Failure::StateLost);
            }
        }
        if let Subject::Request(view, _) = subject
            && filter.spec().authorization
            && let Some(path) = view.path.as_ref().filter(|path| path.is_ambiguous())
        {
            return match path.readings(&view.path_reading) {
                Ok(readings) => self.judge_readings(filter, stream, subject, &readings),
                Err(ambiguous) => Ok(refuse_ambiguous(filter, ambiguous)),
            };
        }
        let outcome = self.call(filter, |instance, dice| subject.call(filter, instance, stream, dice, None))?;
        judge(filter, outcome, matches!(subject, Subject::Request(..)))
    }

    /// Authorization of an ambiguous path: allowed if every reading is. Delays of readings that pass are not added up.
    fn judge_readings(
        &mut self,
        filter: &Arc<Prepared>,
        stream: u64,
        subject: &Subject<'_, '_>,
        readings: &Readings<'_>,
    ) -> Result<Step, Failure> {
        let mut longest = Duration::ZERO;
        for reading in readings.iter() {
            let call = |instance: &mut Instance, dice| subject.call(filter, instance, stream, dice, Some(reading));
            match judge(filter, self.call(filter, call)?, true)? {
                Step::Next { delay, .. } => longest = longest.max(delay),
                Step::Reply { mut reply, delay } => {
                    edits::name_reading(&mut reply, reading);
                    return Ok(Step::Reply { reply, delay });
                }
            }
        }
        Ok(Step::Next { changes: Changes::new(), delay: longest })
    }

    /// A call into this thread's instance, made now where there is none. A failed call costs the instance its life.
    fn call<R>(
        &mut self,
        filter: &Arc<Prepared>,
        run: impl FnOnce(&mut Instance, u64) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        if filter.breaker.is_troubled() && filter.breaker.is_open(self.host.0.started.elapsed()) {
            return Err(Failure::BreakerOpen);
        }
        let dice = self.roll();
        let started = self.host.0.started;
        let slot = self.slot(filter);
        let instance = match &mut slot.instance {
            Some(instance) => instance,
            none => none.insert(filter.instance().map_err(|_| {
                filter.breaker.failed(started.elapsed());
                Failure::NoInstance
            })?),
        };
        filter.config.stats.calls.add(1);
        let result = run(instance, dice);
        match &result {
            Ok(_) if filter.breaker.is_troubled() => filter.breaker.recovered(),
            Ok(_) => {}
            Err(_) => {
                slot.instance = None;
                slot.generation = slot.generation.wrapping_add(1);
                if filter.breaker.failed(started.elapsed()) {
                    filter.config.stats.breaker_openings.add(1);
                }
            }
        }
        result
    }

    fn slot(&mut self, filter: &Arc<Prepared>) -> &mut Slot {
        let known = self.slots.get(filter.slot).and_then(Option::as_ref).is_some_and(|slot| slot.id == filter.id);
        if !known {
            self.retire();
            if self.slots.len() <= filter.slot {
                self.slots.resize_with(filter.slot + 1, || None);
            }
            self.slots[filter.slot] = None;
        }
        self.slots[filter.slot].get_or_insert_with(|| Slot {
            id: filter.id,
            prepared: Arc::downgrade(filter),
            instance: None,
            generation: 0,
            streams: HashMap::new(),
        })
    }

    /// SplitMix64: for percentages, not for secrets.
    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Subject<'_, '_> {
    fn is_asked_for(&self, filter: &Prepared) -> bool {
        let hooks = filter.interest().hooks;
        match self {
            Subject::Connection(_) => hooks.connection,
            Subject::Request(..) => hooks.request_head,
            Subject::Response(..) => hooks.response_head,
        }
    }

    fn call(
        &self,
        filter: &Prepared,
        instance: &mut Instance,
        stream: u64,
        dice: u64,
        reading: Option<&str>,
    ) -> Result<types::Outcome, Failure> {
        let interest = filter.interest();
        match self {
            Subject::Connection(attributes) => instance.connection(interest, stream, attributes, dice),
            Subject::Request(view, attributes) => {
                instance.request_head(interest, stream, view, reading, attributes, dice)
            }
            Subject::Response(status, headers) => instance.response_head(interest, stream, status.as_u16(), headers),
        }
    }

    fn apply(&mut self, changes: Changes) {
        match self {
            Subject::Connection(_) => {}
            Subject::Request(view, _) => edits::apply_to_request(changes, view),
            Subject::Response(_, headers) => {
                changes.into_iter().for_each(|change| edits::apply_to_headers(change, headers));
            }
        }
    }
}

impl<T> Outcome<T> {
    fn map<U>(self, permit: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Outcome::Permitted(value) => Outcome::Permitted(permit(value)),
            Outcome::Delay { after, resume } => Outcome::Delay { after, resume },
            Outcome::Respond(reply) => Outcome::Respond(reply),
        }
    }
}

/// Turns a guest's result into a step, or refuses it. In audit mode a sound result has no effect but on counters.
fn judge(filter: &Prepared, outcome: types::Outcome, request: bool) -> Result<Step, Failure> {
    let stats = &filter.config.stats;
    let authorization = filter.spec().authorization;
    let enforce = filter.spec().mode == FilterMode::Enforce;
    let millis = |ms: u32| Duration::from_millis(u64::from(ms)).min(edits::MAX_DELAY);
    let delay = match outcome.verdict {
        types::Verdict::Respond(guest) => {
            let delay = millis(guest.after_ms);
            let cause = if authorization { ReplyCause::Denied } else { ReplyCause::Filter };
            let reply = Box::new(edits::reply(guest, &filter.config, cause)?);
            if enforce {
                stats.replies.add(1);
                return Ok(Step::Reply { reply, delay });
            }
            stats.audited.add(1);
            if filter.config.log_admits() {
                let (status, rule, reason) = (reply.status.as_u16(), reply.rule.as_deref(), &*reply.reason);
                tracing::info!(filter = &*reply.filter, status, rule, reason, "audit: would have answered");
            }
            return Ok(Step::Next { changes: Changes::new(), delay: Duration::ZERO });
        }
        types::Verdict::ContinueAfter(ms) => millis(ms),
        types::Verdict::Continue => Duration::ZERO,
    };
    // Nothing of the head may change once authorization has seen it.
    if authorization && !outcome.edits.is_empty() {
        return Err(Failure::InvalidResult);
    }
    let changes = edits::parse(outcome.edits, request)?;
    if !enforce {
        if !delay.is_zero() || !changes.is_empty() {
            stats.audited.add(1);
        }
        return Ok(Step::Next { changes: Changes::new(), delay: Duration::ZERO });
    }
    if !delay.is_zero() {
        stats.delays.add(1);
    }
    if !changes.is_empty() {
        stats.edits.add(changes.len() as u64);
    }
    Ok(Step::Next { changes, delay })
}

/// The answer to a path that authorization can't be asked about; only an audit lets it pass.
fn refuse_ambiguous(filter: &Prepared, ambiguous: Ambiguous) -> Step {
    if filter.spec().mode == FilterMode::Enforce {
        filter.config.stats.replies.add(1);
        let reply = Box::new(edits::ambiguous(&filter.config, ambiguous));
        return Step::Reply { reply, delay: Duration::ZERO };
    }
    filter.config.stats.audited.add(1);
    Step::Next { changes: Changes::new(), delay: Duration::ZERO }
}

/// Effect of a failure on the stream: an answer, or `None` where the filter may be skipped.
fn settle_failure(filter: &Prepared, failure: Failure) -> Option<Box<LocalReply>> {
    count(filter, failure);
    let stats = &filter.config.stats;
    let skip = filter.spec().mode == FilterMode::Audit || filter.spec().effective_on_failure() == OnFailure::Allow;
    if skip {
        stats.failed_open.add(1);
        return None;
    }
    stats.failed_closed.add(1);
    Some(Box::new(edits::failed(&filter.config, failure)))
}

fn count(filter: &Prepared, failure: Failure) {
    let stats = &filter.config.stats;
    let counter = match failure {
        Failure::Trap => &stats.traps,
        Failure::Timeout => &stats.timeouts,
        Failure::InvalidResult => &stats.invalid_results,
        Failure::NoInstance => &stats.instantiation_failures,
        Failure::StateLost => &stats.lost_streams,
        Failure::BreakerOpen => &stats.breaker_rejections,
    };
    counter.add(1);
    if filter.config.log_admits() {
        let spec = filter.spec();
        let (version, failure) = (&*spec.version, failure.as_str());
        tracing::warn!(filter = &*spec.name, version, failure, "filter failed");
    }
}

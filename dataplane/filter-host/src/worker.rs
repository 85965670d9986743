//! One data-plane thread's filter instances, and the run of a chain over them. Nothing here is shared with other
//! threads but counters and what capabilities keep. Invariants: what a failed instance knew is never mistaken for an
//! answer; a call that fails costs the request at hand and no other.

use std::hash::BuildHasher as _;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use smallvec::SmallVec;

use crate::backoff::BackOff;
use crate::chain::{
    Answering, Attributes, Chunk, Cut, Event, Outcome, Permit, Position, RequestView, ResponseView, Stage, Summary,
};
use crate::edits::{self, Change};
use crate::failure::{Failure, FailureKind};
use crate::hook::{Hook, RequestPart, Said, SetAttribute, Told};
use crate::host::Host;
use crate::order::Chain;
use crate::prepare::Prepared;

mod bodies;
mod judge;
mod parts;
mod slots;
mod streams;
mod subject;
#[cfg(test)]
mod tests;

use judge::{May, Step, Whose};
use slots::Slots;
use streams::{Kept, Streams};
use subject::Subject;

/// Bytes of a cookie at the most.
const MAX_COOKIE: usize = 4 << 10;
/// Waits of one filter for one stream at the most.
const MAX_WAITS: u32 = 64;

/// Made on the thread that uses it; it can't leave it.
#[derive(Debug)]
pub struct Worker {
    host: Host,
    slots: Slots,
    streams: Streams,
    /// Callers on which filters that may be passed by have failed again and again.
    backoff: BackOff,
    dice: u64,
    pinned: Pinned,
    not_send: PhantomData<*const ()>,
}

/// Chance and time as every call is told them; `None`: as they are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pinned {
    pub(crate) dice: Option<u64>,
    pub(crate) time: Option<u64>,
}

/// Where a run is.
#[derive(Debug, Clone, Copy)]
struct Now {
    at: Position,
    stream: u64,
    /// Something is kept for the stream between calls.
    keeps: bool,
}

/// What becomes of the run after one filter's turn.
enum Turn {
    On(Duration),
    End(Outcome<()>),
}

impl Worker {
    pub fn new(host: &Host) -> Self {
        let dice = std::hash::RandomState::new().hash_one(std::thread::current().id());
        Self {
            host: host.clone(),
            slots: Slots::new(host.0.take_worker()),
            streams: Streams::default(),
            backoff: BackOff::default(),
            dice,
            pinned: Pinned::default(),
            not_send: PhantomData,
        }
    }

    /// One whose filters are told this chance and this time.
    pub(crate) fn pinned(host: &Host, pinned: Pinned) -> Self {
        Self { pinned, ..Self::new(host) }
    }

    /// Decides on an opaque byte stream. Not for connections that carry HTTP: their requests are decided one by one.
    /// Call it again as its outcome says. Stream ids are unique among this worker's living streams. Whatever comes of
    /// the stream, `done` must follow.
    pub fn connection(
        &mut self,
        chain: &Chain,
        from: Position,
        event: Event,
        stream: u64,
        attributes: &Attributes<'_>,
    ) -> Outcome {
        self.run(chain, from, event, stream, Subject::Connection(attributes)).map(|()| Permit::mint())
    }

    /// Runs the chain over a request's head, which filters may change, and its body where one asks for all of it. As
    /// with [`Worker::connection`]; the view stays the same.
    pub fn request_head(
        &mut self,
        chain: &Chain,
        from: Position,
        event: Event,
        stream: u64,
        view: &mut RequestView<'_>,
        attributes: &Attributes<'_>,
    ) -> Outcome {
        self.run(chain, from, event, stream, Subject::Request(view, attributes)).map(|()| Permit::mint())
    }

    /// Runs the chain, in reverse order, over the head of the final response: the filters that the request came past.
    /// Where a filter answered, these are the ones before it; so are they once one of these answers, for a further run
    /// over what it answered.
    pub fn response_head(
        &mut self,
        chain: &Chain,
        from: Position,
        event: Event,
        stream: u64,
        view: &mut ResponseView<'_>,
    ) -> Outcome<()> {
        self.run(chain, from, event, stream, Subject::Response(view))
    }

    /// A chunk of a request's body, where the chain's hooks say so; what it returns goes on in its place.
    ///
    /// # Errors
    /// A filter ends the stream, or failed and can't be passed by. Nothing of the chunk goes on.
    pub fn request_chunk(&mut self, chain: &Chain, stream: u64, bytes: Bytes, end: bool) -> Result<Chunk, Box<Cut>> {
        self.chunk(chain, Told::new(Hook::RequestBody, stream), bytes, end)
    }

    /// A chunk of a response's body, as with [`Worker::request_chunk`].
    ///
    /// # Errors
    /// As there.
    pub fn response_chunk(&mut self, chain: &Chain, stream: u64, bytes: Bytes, end: bool) -> Result<Chunk, Box<Cut>> {
        self.chunk(chain, Told::new(Hook::ResponseBody, stream), bytes, end)
    }

    /// Bytes of an opaque stream; `up`: from the caller. As with [`Worker::request_chunk`].
    ///
    /// # Errors
    /// As there.
    pub fn stream_chunk(
        &mut self,
        chain: &Chain,
        stream: u64,
        up: bool,
        bytes: Bytes,
        end: bool,
    ) -> Result<Chunk, Box<Cut>> {
        let mut told = Told::new(Hook::StreamData, stream);
        told.up = Some(up);
        self.chunk(chain, told, bytes, end)
    }

    /// The trailers of a request, which filters may change.
    ///
    /// # Errors
    /// As with [`Worker::request_chunk`].
    pub fn request_trailers(&mut self, chain: &Chain, stream: u64, trailers: &mut HeaderMap) -> Result<(), Box<Cut>> {
        self.trailers(chain, Hook::RequestTrailers, stream, trailers)
    }

    /// The trailers of a response, which filters may change.
    ///
    /// # Errors
    /// As with [`Worker::request_chunk`].
    pub fn response_trailers(&mut self, chain: &Chain, stream: u64, trailers: &mut HeaderMap) -> Result<(), Box<Cut>> {
        self.trailers(chain, Hook::ResponseTrailers, stream, trailers)
    }

    /// The attributes that filters have set for a stream, by name, for its record. Gone once it is `done`.
    pub fn attributes(&self, stream: u64) -> impl Iterator<Item = (&str, &[u8])> {
        self.streams.set(stream).iter().map(|set| (&*set.name, set.value.as_slice()))
    }

    /// Has filters of one stream told what those of another have set, which is not `done`: it is judged again.
    pub fn inherit(&mut self, from: u64, to: u64) {
        for attribute in self.streams.set(from).to_vec() {
            self.streams.set_attribute(to, attribute);
        }
    }

    /// Ends a stream: filters that it came to are told, and nothing of it is kept. Call it once for each stream that
    /// any other hook saw.
    pub fn done(&mut self, chain: &Chain, stream: u64, summary: &Summary) {
        if chain.hooks().done {
            let reached = self.streams.reached(stream);
            for filter in chain.filters().iter().take(reached) {
                if !filter.interest.hooks.done || self.streams.is_out(stream, filter.id) {
                    continue;
                }
                let mut told = Told::new(Hook::Done, stream);
                told.summary = Some(summary);
                match self.call(filter, told, true) {
                    // Its state is gone, and so is the state of the stream.
                    Err(failure) if failure.kind == FailureKind::StateLost => {}
                    Err(failure) => judge::note(filter, &failure, Hook::Done, self.streams.request_id(stream)),
                    Ok(_) => {}
                }
            }
        }
        if !self.streams.is_empty() {
            self.streams.remove(stream);
        }
    }

    /// Frees the instances of programs that no snapshot holds any more, and has the others forget configurations that
    /// none holds. Call it after a swap; it also happens by itself when a new program gets its first instance.
    pub fn retire(&mut self) {
        self.slots.retire();
    }

    fn run(
        &mut self,
        chain: &Chain,
        from: Position,
        event: Event,
        stream: u64,
        mut subject: Subject<'_, '_>,
    ) -> Outcome<()> {
        let is_response = subject.is_response();
        // A reply that is still held at the start is of an answer that was given up.
        if (from != Position::START || is_response)
            && let Some(reply) = self.streams.take_held(stream)
            && from != Position::START
        {
            return Outcome::Respond(reply);
        }
        let notes = chain.keeps() && !is_response;
        if notes && from == Position::START {
            self.streams.name(stream, subject.request_id());
        }
        let count = if is_response { self.streams.entered(stream) } else { chain.filters().len() };
        let mut now = Now { at: from, stream, keeps: chain.keeps() };
        let mut event = event;
        while now.at.passed < count {
            let place = if is_response { count - 1 - now.at.passed } else { now.at.passed };
            let Some(filter) = chain.filters().get(place) else { break };
            if notes {
                self.streams.reach(stream, place);
            }
            let delay = match self.turn(filter, now, event, &mut subject) {
                Turn::On(delay) => delay,
                Turn::End(outcome) => {
                    if is_response && outcome.is_reply() {
                        self.streams.leave(stream, place);
                    }
                    return outcome;
                }
            };
            event = Event::Go;
            if notes && now.at.stage == Stage::Body {
                self.streams.enter(stream, place);
            }
            now.at = now.at.next();
            if !delay.is_zero() {
                return Outcome::Delay { after: delay, resume: now.at };
            }
        }
        Outcome::Permitted(())
    }

    /// One filter's turn at one stage.
    fn turn(&mut self, filter: &Arc<Prepared>, now: Now, event: Event, subject: &mut Subject<'_, '_>) -> Turn {
        if now.keeps && self.streams.is_out(now.stream, filter.id) {
            return Turn::On(Duration::ZERO);
        }
        let result = match &event {
            Event::Answer { id, answer } => {
                let answer = (*id, answer.as_ref().map_err(String::as_str));
                self.step(filter, now, subject, Hook::Callout, Some(answer))
            }
            Event::Tick if filter.interest.hooks.tick => self.step(filter, now, subject, Hook::Tick, None),
            Event::Tick => Err(judge::wait_over()),
            Event::Go | Event::Body | Event::TooLong => {
                if now.at.stage == Stage::Head && self.passes_by(filter, now, subject) {
                    return Turn::On(Duration::ZERO);
                }
                match hook_now(filter, now.at, &event, subject) {
                    Ok(Some(hook)) => self.step(filter, now, subject, hook, None),
                    Ok(None) => return Turn::On(Duration::ZERO),
                    Err(outcome) => return Turn::End(outcome),
                }
            }
        };
        match result {
            Ok(step) => self.take_step(filter, now, subject, step),
            Err(failure) => self.fail(filter, now, subject, &failure),
        }
    }

    /// What one filter says at one hook, and what follows from it. Authorization of an ambiguous path is asked for each
    /// reading.
    fn step(
        &mut self,
        filter: &Arc<Prepared>,
        now: Now,
        subject: &Subject<'_, '_>,
        hook: Hook,
        answer: subject::Answer<'_>,
    ) -> Result<Step, Failure> {
        let told = Told { answer, ..subject.told(hook, now.stream) };
        let may = May::hold(subject.at_hand(now.at.stage));
        let path = told.request.and_then(|request| request.path).filter(|path| path.is_ambiguous());
        let (Some(path), true, Some(reading)) = (path, filter.spec().authorization, subject.path_reading()) else {
            let said = self.call(filter, told, now.keeps)?;
            return judge::judge(filter, said, may, self.whose(filter, told));
        };
        let readings = match path.readings(&reading) {
            Ok(readings) => readings,
            Err(ambiguous) => return Ok(judge::refuse_ambiguous(filter, ambiguous, self.whose(filter, told))),
        };
        let mut longest = Duration::ZERO;
        for reading in readings.iter() {
            let request = told.request.map(|request| RequestPart { reading: Some(reading), ..request });
            // One reading can't wait while the others are judged.
            let may = May { wait: readings.is_single(), ..may };
            let told = Told { request, ..told };
            let said = self.call(filter, told, now.keeps)?;
            match judge::judge(filter, said, may, self.whose(filter, told))? {
                Step::Next { delay, .. } => longest = longest.max(delay),
                Step::Reply { mut reply, delay } => {
                    edits::name_reading(&mut reply, reading);
                    return Ok(Step::Reply { reply, delay });
                }
                step @ (Step::Wait { .. } | Step::Cut(_)) => return Ok(step),
            }
        }
        Ok(Step::Next { changes: Vec::new(), delay: longest })
    }

    /// Whose stream a filter is told of. Only an audit says it, and only for one is it looked up.
    fn whose<'t>(&'t self, filter: &Prepared, told: Told<'t>) -> Whose<'t> {
        if filter.is_audit() { Whose::of(told, self.streams.request_id(told.stream)) } else { Whose::default() }
    }

    fn take_step(&mut self, filter: &Arc<Prepared>, now: Now, subject: &mut Subject<'_, '_>, step: Step) -> Turn {
        // What is still to be judged may fail yet.
        let is_last = now.at.stage == Stage::Body || filter.whole_body(true).is_none();
        if !self.backoff.is_empty()
            && filter.may_be_passed_by()
            && is_last
            && !matches!(step, Step::Wait { .. })
            && let Some(caller) = subject.caller()
        {
            self.backoff.succeeded(filter.id, caller);
        }
        match step {
            Step::Next { changes, .. } if !self.streams.has_room(now.stream, &attributes_of(&changes)) => {
                let failure =
                    Failure::invalid("an attribute beyond what the filters of one request may set".to_owned());
                self.fail(filter, now, subject, &failure)
            }
            Step::Next { changes, delay } => {
                for change in changes {
                    if let Change::Attribute(attribute) = change {
                        self.streams.set_attribute(now.stream, attribute);
                    } else {
                        subject.apply(change);
                    }
                }
                Turn::On(delay)
            }
            Step::Reply { mut reply, delay } => {
                let has_more = filter.interest.hooks.reply_body && subject.of_request() == Some(true);
                reply.more = has_more.then_some(Answering(now.at.passed));
                if has_more {
                    self.streams.went_on(now.stream, filter.id);
                }
                if delay.is_zero() {
                    return Turn::End(Outcome::Respond(reply));
                }
                self.streams.hold(now.stream, reply);
                Turn::End(Outcome::Delay { after: delay, resume: now.at.next() })
            }
            Step::Wait { calls, within } => {
                if self.streams.waits(now.stream, filter.id) > MAX_WAITS {
                    let failure = Failure::invalid(format!("more than {MAX_WAITS} waits for one request"));
                    return self.fail(filter, now, subject, &failure);
                }
                Turn::End(Outcome::Wait { calls, within, resume: now.at })
            }
            Step::Cut(cut) => Turn::End(Outcome::Reset(cut)),
        }
    }

    /// Beside what is under way: the head went on, and nothing judges by attributes any more.
    fn set(&mut self, filter: &Prepared, stream: u64, attribute: SetAttribute) {
        if !self.streams.set_attribute(stream, attribute) && filter.setup.shared.log_admits() {
            tracing::warn!(filter = &*filter.label.name, "an attribute was not set: the request has too many");
        }
    }

    /// A failure before the head went on: an answer, or the filter is passed by.
    fn fail(&mut self, filter: &Arc<Prepared>, now: Now, subject: &Subject<'_, '_>, failure: &Failure) -> Turn {
        let request_id = subject.request_id().or_else(|| self.streams.request_id(now.stream));
        judge::note(filter, failure, subject.hook(now.at.stage), request_id);
        if filter.may_be_passed_by()
            && let Some(caller) = subject.caller()
            && self.backoff.failed(filter.id, caller, self.host.0.started.elapsed())
        {
            filter.stats().backoffs.add(1);
        }
        if now.keeps {
            self.streams.put_out(now.stream, filter.id);
        }
        if judge::closes(filter) {
            return Turn::End(Outcome::Respond(Box::new(edits::failed(&filter.label, failure.kind.as_str()))));
        }
        Turn::On(Duration::ZERO)
    }

    /// True where the filter has failed on this caller so often that it is not asked for a while.
    fn passes_by(&mut self, filter: &Prepared, now: Now, subject: &Subject<'_, '_>) -> bool {
        if self.backoff.is_empty() || !filter.may_be_passed_by() {
            return false;
        }
        let Some(caller) = subject.caller() else { return false };
        if !self.backoff.skips(filter.id, caller, self.host.0.started.elapsed()) {
            return false;
        }
        filter.stats().backoff_skips.add(1);
        if now.keeps {
            self.streams.put_out(now.stream, filter.id);
        }
        true
    }

    /// One call, with what is kept for the filter and the stream. `keeps`: something is.
    fn call(&mut self, filter: &Arc<Prepared>, told: Told<'_>, keeps: bool) -> Result<Said, Failure> {
        let dice = self.roll();
        let time = self.pinned.time;
        let Self { slots, streams, .. } = self;
        let mut kept = if keeps { streams.take(told.stream, filter.id) } else { Kept::default() };
        let one = filter.setup.call_timeout;
        if told.hook.is_body() || matches!(told.hook, Hook::StreamData | Hook::ReplyBody) {
            kept.budget.add(one, told.chunk.len());
        }
        let lost = filter.interest.keeps_state() && {
            let generation = slots.generation(filter);
            *kept.generation.get_or_insert(generation) != generation
        };
        let mut result = if lost {
            Err(Failure::new(FailureKind::StateLost, "its instance failed for another request"))
        } else if kept.budget.is_spent(one) {
            Err(Failure::new(FailureKind::Budget, "all its calls for this request took too long"))
        } else {
            let told = Told { dice, time, set: streams.set(told.stream), ..told };
            let (result, time) = slots.call(filter, &told, &mut kept.cookie, kept.budget.is_tight(one));
            kept.budget.spend(time);
            result
        };
        if let Ok(Said { cookie: Some(cookie), .. }) = &mut result {
            if cookie.len() <= MAX_COOKIE {
                kept.cookie = std::mem::take(cookie);
            } else {
                result = Err(Failure::invalid(format!("a cookie of {} bytes, at most {MAX_COOKIE}", cookie.len())));
            }
        }
        if keeps {
            streams.keep(told.stream, filter.id, kept);
        }
        result
    }

    /// SplitMix64: for percentages, not for secrets.
    fn roll(&mut self) -> u64 {
        if let Some(dice) = self.pinned.dice {
            return dice;
        }
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn attributes_of(changes: &[Change]) -> SmallVec<[&SetAttribute; 4]> {
    let mut set = SmallVec::new();
    for change in changes {
        if let Change::Attribute(attribute) = change {
            set.push(attribute);
        }
    }
    set
}

/// The hook that is called at this stage, if the filter asked for it; or what must come first.
fn hook_now(
    filter: &Prepared,
    at: Position,
    event: &Event,
    subject: &Subject<'_, '_>,
) -> Result<Option<Hook>, Outcome<()>> {
    let hook = subject.hook(at.stage);
    if at.stage == Stage::Head {
        return Ok(subject.is_asked_for(filter).then_some(hook));
    }
    let of_request = subject.of_request();
    let Some((most, of_request)) = of_request.and_then(|it| Some((filter.whole_body(it)?, it))) else {
        return Ok(None);
    };
    let length = subject.body().map(Bytes::len);
    if length.is_none() && matches!(event, Event::Go) {
        return Err(Outcome::Body { most, resume: at });
    }
    if !matches!(event, Event::TooLong) && length.is_none_or(|length| length <= most) {
        return Ok(Some(hook));
    }
    filter.stats().long_bodies.add(1);
    if filter.lets_long_bodies_pass() {
        return Ok(None);
    }
    let reply = Box::new(edits::too_long(&filter.label, of_request, most, filter.cause()));
    if filter.is_audit() {
        judge::audit_reply(filter, &reply, Whose::of(subject.told(hook, 0), None));
        return Ok(None);
    }
    filter.stats().replied(&reply.reason);
    Err(Outcome::Respond(reply))
}

impl<T> Outcome<T> {
    /// True where a filter has answered, be it that its answer is held back first.
    const fn is_reply(&self) -> bool {
        match self {
            Outcome::Respond(_) | Outcome::Delay { .. } => true,
            Outcome::Permitted(_) | Outcome::Body { .. } | Outcome::Wait { .. } | Outcome::Reset(_) => false,
        }
    }

    pub(crate) fn map<U>(self, permit: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Outcome::Permitted(value) => Outcome::Permitted(permit(value)),
            Outcome::Delay { after, resume } => Outcome::Delay { after, resume },
            Outcome::Body { most, resume } => Outcome::Body { most, resume },
            Outcome::Wait { calls, within, resume } => Outcome::Wait { calls, within, resume },
            Outcome::Respond(reply) => Outcome::Respond(reply),
            Outcome::Reset(cut) => Outcome::Reset(cut),
        }
    }
}

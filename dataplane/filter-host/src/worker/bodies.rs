//! Bodies and trailers that pass by: chunks as they come, or messages of gRPC. Invariant: a filter that asked for a
//! chunk has seen it before anything of it goes on, or is out.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::Worker;
use super::judge::{self, May, Step, Whose};
use crate::chain::{Chunk, Cut, ReplyCause};
use crate::edits::{self, BODY_TOO_LONG, Change, Changes, MAX_DELAY};
use crate::failure::{Failure, FailureKind};
use crate::frames::{self, Output};
use crate::hook::{Hook, Told};
use crate::interest::BodyMode;
use crate::order::Chain;
use crate::prepare::Prepared;

/// What a filter makes of a chunk.
enum Made {
    /// It goes on as it came.
    Same,
    Other(Bytes),
}

impl Worker {
    /// A chunk through all filters that asked for it: a caller's in the order of the chain, others in reverse.
    pub(super) fn chunk(&mut self, chain: &Chain, told: Told<'_>, bytes: Bytes, end: bool) -> Result<Chunk, Box<Cut>> {
        let mut chunk = Chunk { bytes, after: Duration::ZERO };
        let of_caller = told.hook == Hook::RequestBody || told.up == Some(true);
        for filter in self.seen_by(chain, told.stream, told.hook, of_caller) {
            if self.streams.is_out(told.stream, filter.id) {
                // It may have failed on the other direction, while part of a message was held of this one.
                let held = self.streams.flush(told.stream, filter.id, of_caller);
                if !held.is_empty() {
                    chunk.bytes = [&held[..], &chunk.bytes[..]].concat().into();
                }
                continue;
            }
            if chunk.bytes.is_empty() && !end {
                continue;
            }
            let is_messages = told.hook.is_body() && filter.interest.body(of_caller) == BodyMode::Messages;
            let (bytes, delay) = if is_messages {
                self.messages(filter, told, chunk.bytes, end)?
            } else {
                let (made, delay) = self.through(filter, told.with_chunk(&chunk.bytes, end))?;
                (made.or(chunk.bytes), delay)
            };
            chunk.bytes = bytes;
            chunk.after = chunk.after.saturating_add(delay).min(MAX_DELAY);
        }
        Ok(chunk)
    }

    /// Trailers through all filters that asked for them.
    pub(super) fn trailers(
        &mut self,
        chain: &Chain,
        hook: Hook,
        stream: u64,
        trailers: &mut HeaderMap,
    ) -> Result<(), Box<Cut>> {
        for filter in self.seen_by(chain, stream, hook, hook == Hook::RequestTrailers) {
            if self.streams.is_out(stream, filter.id) {
                continue;
            }
            let told = Told { trailers: Some(&*trailers), ..Told::new(hook, stream) };
            let said = self
                .call(filter, told, true)
                .and_then(|said| judge::judge(filter, said, May::TRAILERS, self.whose(filter, told)));
            match said {
                Ok(Step::Next { changes, .. }) => {
                    for change in changes {
                        if let Change::Attribute(attribute) = change {
                            self.set(filter, stream, attribute);
                        } else {
                            edits::apply_to_fields(change, trailers);
                        }
                    }
                }
                Ok(step @ (Step::Reply { .. } | Step::Wait { .. } | Step::Cut(_))) => return Err(end_of(filter, step)),
                Err(failure) => self.fail_midway(filter, hook, stream, &failure)?,
            }
        }
        Ok(())
    }

    /// The filters that asked for a hook and that the stream came past, in the order in which they are called.
    fn seen_by<'c>(
        &self,
        chain: &'c Chain,
        stream: u64,
        hook: Hook,
        of_caller: bool,
    ) -> impl Iterator<Item = &'c Arc<Prepared>> + use<'c> {
        let filters = &chain.filters()[..self.streams.entered(stream).min(chain.filters().len())];
        let count = filters.len();
        let order = move |index| if of_caller { index } else { count - 1 - index };
        (0..count).map(move |index| &filters[order(index)]).filter(move |filter| asks(filter, hook))
    }

    /// One chunk through one filter.
    fn through(&mut self, filter: &Arc<Prepared>, told: Told<'_>) -> Result<(Made, Duration), Box<Cut>> {
        let said = self
            .call(filter, told, true)
            .and_then(|said| judge::judge(filter, said, May::CHUNK, self.whose(filter, told)));
        match said {
            Ok(Step::Next { changes, delay }) => {
                Ok((self.bytes_of(filter, told.stream, changes).map_or(Made::Same, Made::Other), delay))
            }
            Ok(step @ (Step::Reply { .. } | Step::Wait { .. } | Step::Cut(_))) => Err(end_of(filter, step)),
            Err(failure) => {
                self.fail_midway(filter, told.hook, told.stream, &failure)?;
                Ok((Made::Same, Duration::ZERO))
            }
        }
    }

    /// The bytes that a filter gave where only bytes are at hand.
    pub(super) fn bytes_of(&mut self, filter: &Prepared, stream: u64, changes: Changes) -> Option<Bytes> {
        let mut given = None;
        for change in changes {
            match change {
                Change::Body(bytes) => given = Some(bytes),
                Change::Attribute(attribute) => self.set(filter, stream, attribute),
                // Refused there.
                Change::Set(..)
                | Change::Add(..)
                | Change::Remove(_)
                | Change::Path(_)
                | Change::Authority(_)
                | Change::Status(_) => {}
            }
        }
        given
    }

    /// The messages that a chunk completes, each through the filter. What is left of it waits for the rest.
    fn messages(
        &mut self,
        filter: &Arc<Prepared>,
        told: Told<'_>,
        bytes: Bytes,
        end: bool,
    ) -> Result<(Bytes, Duration), Box<Cut>> {
        let (stream, id, of_request) = (told.stream, filter.id, told.hook == Hook::RequestBody);
        let most = filter.setup.bounds.body_bytes;
        let frames = self.streams.frames(stream, id, of_request);
        let (mut out, mut after) = (Output::of(bytes.clone(), frames.is_empty()), Duration::ZERO);
        frames.push(bytes);
        let mut told_end = false;
        loop {
            let frames = self.streams.frames(stream, id, of_request);
            let message = match frames.next(most) {
                Ok(Some(message)) => message,
                Ok(None) if end && !frames.is_empty() => {
                    self.too_long(filter, "filter_message_cut_short", stream)?;
                    break;
                }
                Ok(None) => break,
                Err(frames::TooLong) => {
                    self.too_long(filter, BODY_TOO_LONG, stream)?;
                    break;
                }
            };
            told_end = end && frames.is_empty();
            let body = message.body();
            let (made, delay) = self.through(filter, told.with_chunk(&body, told_end))?;
            after = after.saturating_add(delay);
            match made {
                Made::Same => out.same(message.framed()),
                Made::Other(body) => frame_some(&body, out.other()),
            }
            if self.streams.is_out(stream, id) {
                break;
            }
        }
        if !self.streams.is_out(stream, id) {
            self.keep(filter, told.hook, stream)?;
        }
        if self.streams.is_out(stream, id) {
            let held = self.streams.flush(stream, id, of_request);
            if !held.is_empty() {
                out.other().extend_from_slice(&held);
            }
        } else if end && !told_end {
            let (made, delay) = self.through(filter, told.with_chunk(&[], true))?;
            after = after.saturating_add(delay);
            if let Made::Other(body) = made {
                frame_some(&body, out.other());
            }
        }
        Ok((out.finish(), after))
    }

    /// Counts the part of a message that is held: where the process holds as much as it may, the filter has failed.
    fn keep(&mut self, filter: &Arc<Prepared>, hook: Hook, stream: u64) -> Result<(), Box<Cut>> {
        let frames = self.streams.frames(stream, filter.id, hook == Hook::RequestBody);
        if frames.keep(&self.host.0.ledger) {
            return Ok(());
        }
        let failure = Failure::new(FailureKind::NoRoom, "part of a message can't be held until the rest comes");
        self.fail_midway(filter, hook, stream, &failure)
    }

    /// A message that the filter can't be given: the stream ends, or goes on without the filter.
    fn too_long(&mut self, filter: &Prepared, reason: &str, stream: u64) -> Result<(), Box<Cut>> {
        filter.stats().long_bodies.add(1);
        match (filter.lets_long_bodies_pass(), filter.is_audit()) {
            (true, _) => {}
            (false, true) => judge::audit_cut(filter, reason, Whose::named(self.streams.request_id(stream))),
            (false, false) => {
                filter.stats().resets.add(1);
                return Err(judge::cut_for(filter, reason, filter.cause()));
            }
        }
        self.streams.put_out(stream, filter.id);
        Ok(())
    }

    /// A failure after the head went on: the stream ends, or the filter is passed by from now on.
    fn fail_midway(
        &mut self,
        filter: &Arc<Prepared>,
        hook: Hook,
        stream: u64,
        failure: &Failure,
    ) -> Result<(), Box<Cut>> {
        judge::note(filter, failure, hook, self.streams.request_id(stream));
        self.streams.put_out(stream, filter.id);
        if judge::closes(filter) {
            return Err(judge::cut_for(filter, failure.kind.as_str(), ReplyCause::Failed));
        }
        Ok(())
    }
}

/// Writes a message; one of no bytes takes the other's place without being one.
fn frame_some(body: &[u8], out: &mut BytesMut) {
    if !body.is_empty() {
        frames::frame(body, out);
    }
}

impl Made {
    fn or(self, same: Bytes) -> Bytes {
        match self {
            Made::Same => same,
            Made::Other(bytes) => bytes,
        }
    }
}

/// True where the filter asked for the hook, as things pass by.
fn asks(filter: &Prepared, hook: Hook) -> bool {
    let hooks = filter.interest.hooks;
    match hook {
        Hook::RequestBody => hooks.request_body,
        Hook::ResponseBody => hooks.response_body,
        Hook::RequestTrailers => hooks.request_trailers,
        Hook::ResponseTrailers => hooks.response_trailers,
        Hook::StreamData => hooks.stream_data,
        Hook::Connection
        | Hook::RequestHead
        | Hook::ResponseHead
        | Hook::ReplyBody
        | Hook::Callout
        | Hook::Tick
        | Hook::Done => false,
    }
}

/// A verdict that ends the stream, where nothing can be answered any more.
fn end_of(filter: &Prepared, step: Step) -> Box<Cut> {
    match step {
        Step::Cut(cut) => cut,
        Step::Reply { reply, .. } => judge::cut_for(filter, &reply.reason, reply.cause),
        // Refused where nothing can be held; and a step that goes on ends nothing.
        Step::Wait { .. } | Step::Next { .. } => judge::cut_for(filter, "filter_result_invalid", ReplyCause::Failed),
    }
}

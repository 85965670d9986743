//! The parts of an answer that a filter gives as it is taken. The head has gone: nothing can be said in its place any more,
//! so that whatever is no part and no end breaks it off.

use std::sync::Arc;
use std::time::Duration;

use super::judge::{self, May, Step};
use super::{MAX_WAITS, Worker};
use crate::chain::{Answering, Chunk, Cut, Event, Part, ReplyCause};
use crate::failure::Failure;
use crate::hook::{Hook, Told};
use crate::order::Chain;
use crate::prepare::Prepared;

/// Why there is no further part.
enum Off {
    /// The filter said so.
    Cut(Box<Cut>),
    Failed(Failure),
}

impl From<Failure> for Off {
    fn from(failure: Failure) -> Self {
        Off::Failed(failure)
    }
}

impl Worker {
    /// The next part of an answer whose `more` says who gives it: with [`Event::Go`] once the last one was taken, and after
    /// [`Part::Wait`] as with [`Outcome::Wait`](crate::Outcome::Wait).
    ///
    /// # Errors
    /// The answer breaks off: the filter ended it, or failed.
    pub fn reply_part(
        &mut self,
        chain: &Chain,
        stream: u64,
        Answering(place): Answering,
        event: &Event,
    ) -> Result<Part, Box<Cut>> {
        let Some(filter) = chain.filters().get(place) else { return Ok(Part::End) };
        self.part(filter, stream, event).map_err(|off| match off {
            Off::Cut(cut) => cut,
            Off::Failed(failure) => {
                judge::note(filter, &failure, Hook::ReplyBody, self.streams.request_id(stream));
                filter.stats().failed_closed.add(1);
                self.streams.put_out(stream, filter.id);
                judge::cut_for(filter, failure.kind.as_str(), ReplyCause::Failed)
            }
        })
    }

    fn part(&mut self, filter: &Arc<Prepared>, stream: u64, event: &Event) -> Result<Part, Off> {
        let mut told = Told::new(Hook::ReplyBody, stream);
        match event {
            Event::Answer { id, answer } => {
                told.hook = Hook::Callout;
                told.answer = Some((*id, answer.as_ref().map_err(String::as_str)));
            }
            Event::Tick if filter.interest.hooks.tick => told.hook = Hook::Tick,
            Event::Tick => return Err(judge::wait_over().into()),
            Event::Go | Event::Body | Event::TooLong => {}
        }
        let said = self.call(filter, told, true)?;
        let (changes, after) = match judge::judge(filter, said, May::PART, self.whose(filter, told))? {
            Step::Next { changes, delay } => (changes, delay),
            Step::Wait { calls, within } if self.streams.waits(stream, filter.id) <= MAX_WAITS => {
                return Ok(Part::Wait { calls, within });
            }
            Step::Wait { .. } => {
                return Err(Failure::invalid(format!("more than {MAX_WAITS} waits for one part")).into());
            }
            Step::Reply { .. } => return Err(Failure::invalid("an answer in the middle of one").into()),
            Step::Cut(cut) => return Err(Off::Cut(cut)),
        };
        self.streams.went_on(stream, filter.id);
        match self.bytes_of(filter, stream, changes) {
            Some(bytes) if bytes.is_empty() => Err(Failure::invalid("a part without a byte").into()),
            Some(bytes) => Ok(Part::Bytes(Chunk { bytes, after })),
            None if after == Duration::ZERO => Ok(Part::End),
            None => Err(Failure::invalid("a delay without a part").into()),
        }
    }
}

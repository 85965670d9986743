//! A request on its way through the proxy, and how an attempt to send it may fail. Shared by both sides.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;
use weft_filter_host::Permit;
use weft_transport::http::{RequestHead, Responder, ResponseHead};

use crate::apps::Holder;
use crate::record::{Record, Unanswered};
use crate::relay::Source;
use crate::reply::Failure;

/// A request with its body and the way back to its client, as long as no final head was sent on it. Stays with whoever read
/// it: a future that took it by value would hold it twice.
pub struct Request<'a> {
    pub head: RequestHead,
    pub body: Source<'a>,
    pub responder: Option<Responder<'a>>,
}

/// A request on its way: what is sent, and where the answer and the account of it go. The head is the one that filters and
/// route left; no attempt changes it.
pub struct Call<'c, 'a> {
    pub head: &'c RequestHead,
    pub body: &'c mut Source<'a>,
    /// Taken when the final head of an answer was sent.
    pub responder: &'c mut Option<Responder<'a>>,
    pub record: &'c mut Record,
    /// On whose behalf connections to apps and to addresses outside are opened.
    pub holder: &'c Holder,
    /// What holds for this attempt alone. `None`: nothing.
    pub trial: Option<&'c Trial<'c>>,
}

/// What holds for one attempt of a request that may be followed by others.
#[derive(Clone, Copy)]
pub struct Trial<'t> {
    /// Says which answers nobody is given, since another attempt follows.
    pub again: Option<&'t dyn Again>,
    /// When the final head of an answer has to be there.
    pub end: &'t Cell<Option<End>>,
}

impl<'t> Trial<'t> {
    pub fn end(trial: Option<&Self>) -> Option<End> {
        trial.and_then(|trial| trial.end.get())
    }

    pub fn again(trial: Option<&Self>) -> Option<&'t dyn Again> {
        trial.and_then(|trial| trial.again)
    }
}

/// Says whether an answer is to be followed by another attempt instead of being passed on.
pub trait Again {
    /// `head`: of the answer, or its trailers where they are all that follows.
    fn discards(&self, head: &ResponseHead) -> bool;

    /// True where trailers may say so, too.
    fn reads_trailers(&self) -> bool;
}

/// The moment by which a request, or one attempt to send it, has to be over.
#[derive(Debug, Clone, Copy)]
pub struct End {
    at: Instant,
    limit: Duration,
}

impl End {
    pub fn after(limit: Duration) -> Option<Self> {
        Some(Self { at: Instant::now().checked_add(limit)?, limit })
    }

    /// The earlier of both.
    #[must_use]
    pub fn min(self, other: Option<Self>) -> Self {
        other.filter(|other| other.at < self.at).unwrap_or(self)
    }

    /// Waits for `awaited` until then.
    ///
    /// # Errors
    /// It was not there by then.
    pub async fn bounds<T>(self, awaited: impl Future<Output = T>) -> Result<T, Failure> {
        let late = |_| Failure::Timeout(u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX));
        tokio::time::timeout_at(self.at, awaited).await.map_err(late)
    }
}

impl Call<'_, '_> {
    /// True where the request can be sent again from its first byte: the client was not answered, and what was taken of
    /// its body was kept.
    pub fn rewind(&mut self) -> bool {
        let again = self.responder.is_some() && self.body.rewind();
        if again {
            self.record.sent.bytes.set(0);
        }
        again
    }
}

/// Why an attempt to send a request, or to open a tunnel, did not end in an answer.
#[derive(Debug)]
pub enum Failed {
    /// Provably nobody acted on it, so that it may be sent again: the permit comes back.
    Unprocessed(Failure, Permit),
    /// A connection that had been used before ended without a byte of an answer. An idempotent request may be sent once
    /// more (RFC 9110 section 9.2.2).
    Unanswered(Failure, Permit),
    /// Somebody may have acted on it: it is sent again only where its rule asks for that.
    Unfinished(Failure, Permit),
    /// It stands.
    Final(Failure),
}

impl Failed {
    /// The permit comes back where the request may be sent again.
    pub fn of(unanswered: Unanswered, permit: Permit) -> Self {
        match unanswered.unprocessed {
            true => Failed::Unprocessed(unanswered.failure, permit),
            false => Failed::Unfinished(unanswered.failure, permit),
        }
    }

    pub fn failure(self) -> Failure {
        match self {
            Failed::Unprocessed(failure, _)
            | Failed::Unanswered(failure, _)
            | Failed::Unfinished(failure, _)
            | Failed::Final(failure) => failure,
        }
    }
}

//! A request on its way through the proxy, and how an attempt to send it may fail. Shared by both sides.

use weft_filter_host::Permit;
use weft_transport::http::{RecvBody, RequestHead, Responder};

use crate::apps::Holder;
use crate::record::{Record, Unanswered};
use crate::relay::Source;
use crate::reply::Failure;
use crate::trial::Trial;

/// A request with its body and the way back to its client, as long as no final head was sent on it. Stays with whoever read
/// it: a future that took it by value would hold it twice.
pub struct Request<'a> {
    pub head: RequestHead,
    pub body: Source<'a>,
    pub responder: Option<Responder<'a>>,
}

impl<'a> Request<'a> {
    /// As it was read. `replay`: bytes of its body that are kept, so that it can be sent again.
    pub fn read(head: RequestHead, (body, responder): (RecvBody<'a>, Responder<'a>), replay: usize) -> Self {
        Self { head, body: Source::replayable(body, replay), responder: Some(responder) }
    }
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

impl Call<'_, '_> {
    /// True where the request can be sent again from its first byte: the client was not answered, and what was taken of
    /// its body was kept.
    pub fn rewind(&mut self) -> bool {
        let again = self.responder.is_some() && self.body.rewind();
        if again {
            self.record.sent.begin_again();
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

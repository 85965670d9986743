//! A request on its way through the proxy, and how an attempt to send it may fail. Shared by both sides.

use weft_filter_host::Permit;
use weft_transport::http::{RequestHead, Responder};

use crate::record::Record;
use crate::relay::Source;
use crate::reply::Failure;

/// A request on its way: what is sent, and where the answer and the account of it go. The head is the one that the filters
/// left; attempts make what they send from it and never change it.
pub struct Call<'c, 'a> {
    pub head: &'c RequestHead,
    pub body: &'c mut Source<'a>,
    /// Taken when the final head of an answer was sent.
    pub responder: &'c mut Option<Responder<'a>>,
    pub record: &'c mut Record,
}

impl<'a> Call<'_, 'a> {
    /// The same with what is sent in one attempt.
    pub fn with<'s>(&'s mut self, head: &'s RequestHead) -> Call<'s, 'a> {
        Call { head, body: self.body, responder: self.responder, record: self.record }
    }

    /// True where the request can be sent again from its first byte: the client was not answered, and what was taken of
    /// its body was kept.
    pub fn rewind(&mut self) -> bool {
        self.responder.is_some() && self.body.rewind()
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
    /// It stands.
    Final(Failure),
}

impl Failed {
    pub fn failure(self) -> Failure {
        match self {
            Failed::Unprocessed(failure, _) | Failed::Unanswered(failure, _) | Failed::Final(failure) => failure,
        }
    }
}

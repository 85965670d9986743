//! The connection, request or response that a chain is run over: what filters are told of it, and what they may change.

use bytes::Bytes;
use weft_policy::path::PathReading;

use crate::chain::{Attributes, CalloutAnswer, RequestView, ResponseView, Stage};
use crate::edits::{self, AtHand, Change};
use crate::hook::{Hook, RequestPart, Told};
use crate::prepare::Prepared;

/// An answer to a callout, by its id.
pub(super) type Answer<'a> = Option<(u32, Result<&'a CalloutAnswer, &'a str>)>;

pub(super) enum Subject<'s, 'v> {
    Connection(&'s Attributes<'s>),
    Request(&'s mut RequestView<'v>, &'s Attributes<'s>),
    Response(&'s mut ResponseView<'v>),
}

impl Subject<'_, '_> {
    pub(super) const fn is_response(&self) -> bool {
        matches!(self, Subject::Response(_))
    }

    /// Whose body it has: true for a request's. `None`: a byte stream has none.
    pub(super) const fn of_request(&self) -> Option<bool> {
        match self {
            Subject::Connection(_) => None,
            Subject::Request(..) => Some(true),
            Subject::Response(_) => Some(false),
        }
    }

    pub(super) const fn hook(&self, stage: Stage) -> Hook {
        match (self, stage) {
            (Subject::Connection(_), _) => Hook::Connection,
            (Subject::Request(..), Stage::Head) => Hook::RequestHead,
            (Subject::Request(..), Stage::Body) => Hook::RequestBody,
            (Subject::Response(_), Stage::Head) => Hook::ResponseHead,
            (Subject::Response(_), Stage::Body) => Hook::ResponseBody,
        }
    }

    /// True where the filter asked for the hook of the head.
    pub(super) fn is_asked_for(&self, filter: &Prepared) -> bool {
        let hooks = filter.interest.hooks;
        match self {
            Subject::Connection(_) => hooks.connection,
            Subject::Request(..) => hooks.request_head,
            Subject::Response(_) => hooks.response_head,
        }
    }

    pub(super) const fn at_hand(&self, stage: Stage) -> AtHand {
        let body = matches!(stage, Stage::Body);
        match self {
            Subject::Connection(_) => AtHand::Nothing,
            Subject::Request(..) => AtHand::Request { body },
            Subject::Response(_) => AtHand::Response { body },
        }
    }

    /// The whole body, once it was gathered.
    pub(super) fn body(&self) -> Option<&Bytes> {
        match self {
            Subject::Connection(_) => None,
            Subject::Request(view, _) => view.body.as_ref(),
            Subject::Response(view) => view.body.as_ref(),
        }
    }

    pub(super) fn path_reading(&self) -> Option<PathReading> {
        match self {
            Subject::Request(view, _) => Some(view.path_reading),
            Subject::Connection(_) | Subject::Response(_) => None,
        }
    }

    fn attributes(&self) -> Option<&Attributes<'_>> {
        match self {
            Subject::Connection(attributes) | Subject::Request(_, attributes) => Some(*attributes),
            Subject::Response(_) => None,
        }
    }

    pub(super) fn request_id(&self) -> Option<&str> {
        self.attributes().and_then(|attributes| attributes.request_id)
    }

    /// Who sent it, by identity; nobody's are all alike. `None` for an answer.
    pub(super) fn caller(&self) -> Option<&str> {
        self.attributes().map(|attributes| attributes.principal.unwrap_or_default())
    }

    pub(super) fn told(&self, hook: Hook, stream: u64) -> Told<'_> {
        let mut told = Told::new(hook, stream);
        told.attributes = self.attributes();
        match self {
            Subject::Connection(_) => {}
            Subject::Request(view, _) => {
                told.request = Some(RequestPart {
                    method: view.method,
                    authority: view.authority.as_ref(),
                    path: view.path.as_ref(),
                    path_reading: view.path_reading,
                    reading: None,
                    headers: &*view.headers,
                });
            }
            Subject::Response(view) => told.response = Some((*view.status, &*view.headers)),
        }
        if hook.is_body() {
            let body = self.body().map_or(&[][..], |body| &body[..]);
            told = told.with_chunk(body, true);
        }
        told
    }

    pub(super) fn apply(&mut self, change: Change) {
        match self {
            Subject::Connection(_) => {}
            Subject::Request(view, _) => edits::apply_to_request(change, view),
            Subject::Response(view) => edits::apply_to_response(change, view),
        }
    }
}

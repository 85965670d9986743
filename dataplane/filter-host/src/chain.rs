//! What goes into a run of a chain and what comes of it. Invariant: a `Permit` exists only where every authorization
//! filter of the chain has said continue, and nothing of the head changes after that.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, Method, StatusCode};
use weft_policy::bundle::Direction;
use weft_policy::path::{NormalPath, PathReading};

/// Which hooks any filter of a chain, or one filter, asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hooks {
    pub connection: bool,
    pub request_head: bool,
    /// Chunks of a body, as they come. A whole body is asked for by [`Outcome::Body`].
    pub request_body: bool,
    pub request_trailers: bool,
    pub response_head: bool,
    pub response_body: bool,
    pub response_trailers: bool,
    pub stream_data: bool,
    pub done: bool,
    /// Bodies that are gathered before the head goes on.
    pub(crate) whole_request: bool,
    pub(crate) whole_response: bool,
    /// More of the answers that a filter gives itself.
    pub(crate) reply_body: bool,
    pub(crate) callout: bool,
    pub(crate) tick: bool,
}

impl Hooks {
    /// What either of the two asks for.
    #[must_use]
    pub(crate) const fn or(self, other: Self) -> Self {
        Self {
            connection: self.connection || other.connection,
            request_head: self.request_head || other.request_head,
            request_body: self.request_body || other.request_body,
            request_trailers: self.request_trailers || other.request_trailers,
            response_head: self.response_head || other.response_head,
            response_body: self.response_body || other.response_body,
            response_trailers: self.response_trailers || other.response_trailers,
            stream_data: self.stream_data || other.stream_data,
            done: self.done || other.done,
            whole_request: self.whole_request || other.whole_request,
            whole_response: self.whole_response || other.whole_response,
            reply_body: self.reply_body || other.reply_body,
            callout: self.callout || other.callout,
            tick: self.tick || other.tick,
        }
    }

    /// True where bodies of answers are gathered before their heads go on.
    pub const fn gathers_answers(self) -> bool {
        self.whole_response
    }

    /// True where something of a request is judged.
    pub(crate) const fn judge_requests(self) -> bool {
        self.request_head || self.request_body || self.whole_request || self.request_trailers
    }

    /// True where something of an opaque stream is judged.
    pub(crate) const fn judge_streams(self) -> bool {
        self.connection || self.stream_data
    }

    /// True where a stream is seen again after it was let pass, so that something of it is kept.
    pub(crate) const fn come_again(self) -> bool {
        self.request_body
            || self.request_trailers
            || self.response_head
            || self.whole_response
            || self.response_body
            || self.response_trailers
            || self.reply_body
            || self.stream_data
            || self.done
    }
}

/// How far a stream has come in its chain. Only an outcome hands out one that is not the start, so nobody can skip a
/// filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Filters behind it, in the order in which they run.
    pub(crate) passed: usize,
    pub(crate) stage: Stage,
}

/// What of the filter at a position comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Stage {
    #[default]
    Head,
    /// The whole body, for a filter that asked for it.
    Body,
}

impl Position {
    pub const START: Position = Position { passed: 0, stage: Stage::Head };

    /// What comes after this one.
    pub(crate) const fn next(self) -> Self {
        match self.stage {
            Stage::Head => Self { passed: self.passed, stage: Stage::Body },
            Stage::Body => self.next_filter(),
        }
    }

    pub(crate) const fn next_filter(self) -> Self {
        Self { passed: self.passed + 1, stage: Stage::Head }
    }
}

/// Proof that a chain let a request or a byte stream pass. Opening a stream towards an app or a peer consumes one.
#[derive(Debug)]
#[must_use]
pub struct Permit(());

impl Permit {
    /// For the end of a chain's run only.
    pub(crate) fn mint() -> Self {
        Self(())
    }

    /// For a copy of what this one lets pass, sent elsewhere: the chain judged both.
    pub fn of_copy(&self) -> Self {
        Self(())
    }
}

/// The part of a request's head that filters may see and change. Authorization is asked once for each reading of the
/// path by an app that reads as `path_reading` says; other filters see the path as it is sent.
#[derive(Debug)]
pub struct RequestView<'a> {
    pub method: &'a Method,
    pub authority: &'a mut Option<Authority>,
    pub path: &'a mut Option<NormalPath>,
    pub path_reading: PathReading,
    pub headers: &'a mut HeaderMap,
    /// The whole body, once it was gathered; a filter may replace it. `None`: it was not.
    pub body: &'a mut Option<Bytes>,
}

/// The answer to a request, as filters may see and change it.
#[derive(Debug)]
pub struct ResponseView<'a> {
    pub status: &'a mut StatusCode,
    pub headers: &'a mut HeaderMap,
    /// As in [`RequestView`].
    pub body: &'a mut Option<Bytes>,
}

/// Caller and destination of a connection or request.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// The SPIFFE ID that TLS proved.
    pub principal: Option<&'a str>,
    pub source: Option<IpAddr>,
    pub destination_port: u16,
    pub direction: Direction,
    /// As the access log has it.
    pub request_id: Option<&'a str>,
    /// `namespace/name`.
    pub destination_service: Option<&'a str>,
    pub route: Option<&'a str>,
    /// True where the caller came with mutual TLS.
    pub tls: bool,
    /// What the caller speaks, as the proxy names it.
    pub protocol: &'a str,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    /// 0 for byte streams and where no response was sent.
    pub status: u16,
    pub duration: Duration,
    pub request_bytes: u64,
    pub response_bytes: u64,
}

/// Result of a run of the chain.
#[derive(Debug)]
pub enum Outcome<T = Permit> {
    /// Every filter let it pass.
    Permitted(T),
    /// Wait, then call the same hook again from `resume`, with [`Event::Go`].
    Delay { after: Duration, resume: Position },
    /// A filter judges the whole body before the head goes on: gather it into the view, and call again with
    /// [`Event::Body`]; with [`Event::TooLong`] where it has more than `most` bytes.
    Body { most: usize, resume: Position },
    /// A filter waits for answers of others: send these, and call again with [`Event::Answer`] for each as it comes, or
    /// with [`Event::Tick`] once `within` has passed. What it then wants may be to wait on; `calls` are the new ones.
    Wait { calls: Vec<Callout>, within: Duration, resume: Position },
    /// Answer in the app's place.
    Respond(Box<LocalReply>),
    /// End the stream without an answer.
    Reset(Box<Cut>),
}

/// Why a hook is called again from a [`Position`].
#[derive(Debug)]
pub enum Event {
    /// At the start, and after a delay.
    Go,
    /// The view holds the whole body.
    Body,
    /// The body is longer than the filter takes.
    TooLong,
    /// An answer to a callout, or why there is none.
    Answer { id: u32, answer: Result<CalloutAnswer, String> },
    /// The time of the wait is up.
    Tick,
}

/// A request that a filter wants sent to a service of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callout {
    pub id: u32,
    /// `host:port` of the destination, as an app would name it: what the grant says of the name that the filter uses.
    pub service: String,
    pub method: Method,
    pub path: NormalPath,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub timeout: Duration,
    /// An answer whose body is longer is an error.
    pub most: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalloutAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Part of a body after a filter has seen it: what goes on, and how long it is held before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub bytes: Bytes,
    pub after: Duration,
}

/// What a filter that answered has to add.
#[derive(Debug)]
pub enum Part {
    /// It goes on after a while, and more is asked for then.
    Bytes(Chunk),
    /// The answer is complete.
    End,
    /// As [`Outcome::Wait`].
    Wait { calls: Vec<Callout>, within: Duration },
}

/// A stream ended by a filter, or by its failure, once nothing can be answered any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    pub filter: Arc<str>,
    pub reason: String,
    /// The caller's connection is not to be used again either.
    pub close: bool,
    pub cause: ReplyCause,
}

/// An answer made by a filter, or in its place where it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalReply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The attachment that decided.
    pub filter: Arc<str>,
    /// Filter version and digest are in `Prepared::spec`; the version alone is repeated here, for headers and logs.
    pub version: Arc<str>,
    pub rule: Option<String>,
    pub reason: String,
    pub cause: ReplyCause,
    /// The filter has more of it, as [`Worker::reply_part`](crate::Worker::reply_part) asks for it.
    pub more: Option<Answering>,
}

/// The filter of a chain that gave an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answering(pub(crate) usize);

/// True where an answer to such a request has a body that may come in parts. `is_grpc`: it is told in fields.
#[must_use]
pub fn comes_in_parts(is_head: bool, status: StatusCode, is_grpc: bool) -> bool {
    let has_body = !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    has_body && !is_head && !is_grpc
}

/// Whose decision a local reply was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyCause {
    /// The authorization filter denied.
    Denied,
    /// Another filter answered.
    Filter,
    /// The filter failed and its `onFailure` is Deny; the status is 503.
    Failed,
}

//! A chain of prepared filters and what comes of running it. Invariant: a `Permit` exists only where every authorization
//! filter of the chain has said continue, and nothing of the head changes after that.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, Method, StatusCode};
use weft_policy::bundle::{Direction, FilterMode};
use weft_policy::path::{NormalPath, PathReading};

use crate::prepare::Prepared;

/// Filters in the order in which they run; those of authorization come last whatever order was given. Immutable.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    filters: Vec<Arc<Prepared>>,
    hooks: Hooks,
    needs_http: bool,
}

/// Which hooks any filter of a chain, or one filter, asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hooks {
    pub connection: bool,
    pub request_head: bool,
    pub response_head: bool,
    pub done: bool,
}

impl Chain {
    /// Keeps the order given, but for the authorization filters, which move to the end.
    pub fn new(mut filters: Vec<Arc<Prepared>>) -> Self {
        filters.sort_by_key(|filter| filter.spec().authorization);
        let mut hooks = Hooks::default();
        for filter in &filters {
            let of = filter.interest().hooks;
            hooks.connection |= of.connection;
            hooks.request_head |= of.request_head;
            hooks.response_head |= of.response_head;
            hooks.done |= of.done;
        }
        let needs_http = filters.iter().any(|filter| {
            let hooks = filter.interest().hooks;
            filter.spec().mode == FilterMode::Enforce && hooks.request_head && !hooks.connection
        });
        Self { filters, hooks, needs_http }
    }

    /// True where a filter that is enforced judges requests and no connections: a byte stream would pass it by.
    pub fn needs_http(&self) -> bool {
        self.needs_http
    }

    pub fn filters(&self) -> &[Arc<Prepared>] {
        &self.filters
    }

    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// The part of it that authorizes: what stands is judged again by that alone.
    #[must_use]
    pub fn authorization(&self) -> Self {
        Self::new(self.filters.iter().filter(|filter| filter.spec().authorization).cloned().collect())
    }

    /// True where the filters that authorize are the very same.
    #[must_use]
    pub fn authorizes_as(&self, other: &Self) -> bool {
        let of = |filter: &&Arc<Prepared>| filter.spec().authorization;
        self.filters.iter().filter(of).map(Arc::as_ptr).eq(other.filters.iter().filter(of).map(Arc::as_ptr))
    }

    pub fn has_authorization(&self) -> bool {
        self.filters.last().is_some_and(|filter| filter.spec().authorization)
    }

    /// Hooks that any of the chain's filters asked for: a hook that is false here needs no call.
    pub fn hooks(&self) -> Hooks {
        self.hooks
    }
}

/// How far a stream has come in its chain. Only a delay hands out one that is not the start, so nobody can skip a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position(pub(crate) usize);

impl Position {
    pub const START: Position = Position(0);
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

/// The part of a request's head that filters may see and change. Authorization is asked once for each reading of the path
/// by an app that reads as `path_reading` says; other filters see the path as it is sent.
#[derive(Debug)]
pub struct RequestView<'a> {
    pub method: &'a Method,
    pub authority: &'a mut Option<Authority>,
    pub path: &'a mut Option<NormalPath>,
    pub path_reading: PathReading,
    pub headers: &'a mut HeaderMap,
}

/// Caller and destination of a connection or request.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// The SPIFFE ID that TLS proved.
    pub principal: Option<&'a str>,
    pub source: Option<IpAddr>,
    pub destination_port: u16,
    pub direction: Direction,
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

//! What is said at the border between the host and a filter, in words of no contract's version: hooks, what a call is
//! told, and what comes back of it.

use http::uri::Authority;
use http::{HeaderMap, Method, StatusCode};
use weft_policy::path::{NormalPath, PathReading};

use crate::chain::{Attributes, Callout, CalloutAnswer, Summary};

/// Where a filter may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    Connection,
    RequestHead,
    RequestBody,
    RequestTrailers,
    ResponseHead,
    ResponseBody,
    ResponseTrailers,
    ReplyBody,
    StreamData,
    Callout,
    Tick,
    Done,
}

impl Hook {
    pub const COUNT: usize = 12;

    pub const ALL: [Hook; Hook::COUNT] = [
        Hook::Connection,
        Hook::RequestHead,
        Hook::RequestBody,
        Hook::RequestTrailers,
        Hook::ResponseHead,
        Hook::ResponseBody,
        Hook::ResponseTrailers,
        Hook::ReplyBody,
        Hook::StreamData,
        Hook::Callout,
        Hook::Tick,
        Hook::Done,
    ];

    /// As filters ask for it, and as it is called in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Hook::Connection => "connection",
            Hook::RequestHead => "request-head",
            Hook::RequestBody => "request-body",
            Hook::RequestTrailers => "request-trailers",
            Hook::ResponseHead => "response-head",
            Hook::ResponseBody => "response-body",
            Hook::ResponseTrailers => "response-trailers",
            Hook::ReplyBody => "reply-body",
            Hook::StreamData => "stream-data",
            Hook::Callout => "callout",
            Hook::Tick => "tick",
            Hook::Done => "done",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.name() == name)
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// True where a body comes by, whole or in chunks.
    pub(crate) const fn is_body(self) -> bool {
        match self {
            Hook::RequestBody | Hook::ResponseBody => true,
            Hook::Connection
            | Hook::RequestHead
            | Hook::RequestTrailers
            | Hook::ResponseHead
            | Hook::ResponseTrailers
            | Hook::ReplyBody
            | Hook::StreamData
            | Hook::Callout
            | Hook::Tick
            | Hook::Done => false,
        }
    }
}

/// The head of a request, as it stands when a filter is called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestPart<'a> {
    pub(crate) method: &'a Method,
    pub(crate) authority: Option<&'a Authority>,
    pub(crate) path: Option<&'a NormalPath>,
    /// How the app that is called reads paths.
    pub(crate) path_reading: PathReading,
    /// Told instead of the path as it is sent: authorization is asked about each reading.
    pub(crate) reading: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
}

/// What one call is about and may be told. A filter is told of it what it asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told<'a> {
    pub(crate) hook: Hook,
    pub(crate) stream: u64,
    pub(crate) dice: u64,
    /// Milliseconds since the Unix epoch that it is told in place of the time.
    pub(crate) time: Option<u64>,
    pub(crate) attributes: Option<&'a Attributes<'a>>,
    pub(crate) request: Option<RequestPart<'a>>,
    pub(crate) response: Option<(StatusCode, &'a HeaderMap)>,
    pub(crate) trailers: Option<&'a HeaderMap>,
    pub(crate) summary: Option<&'a Summary>,
    /// Of an opaque stream: true for bytes from the caller.
    pub(crate) up: Option<bool>,
    /// The chunk, or the whole body, at hand.
    pub(crate) chunk: &'a [u8],
    pub(crate) end: bool,
    pub(crate) answer: Option<(u32, Result<&'a CalloutAnswer, &'a str>)>,
    /// Set by filters that ran earlier.
    pub(crate) set: &'a [SetAttribute],
}

impl<'a> Told<'a> {
    pub(crate) fn new(hook: Hook, stream: u64) -> Self {
        Self {
            hook,
            stream,
            dice: 0,
            time: None,
            attributes: None,
            request: None,
            response: None,
            trailers: None,
            summary: None,
            up: None,
            chunk: &[],
            end: false,
            answer: None,
            set: &[],
        }
    }

    /// The same, of a body's chunk.
    #[must_use]
    pub(crate) fn with_chunk(mut self, chunk: &'a [u8], end: bool) -> Self {
        (self.chunk, self.end) = (chunk, end);
        self
    }
}

/// A value that a filter gave a request, under a name that starts with `filter.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetAttribute {
    pub(crate) name: Box<str>,
    pub(crate) value: Vec<u8>,
}

/// What a filter answered a call, unchecked.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) verdict: Verdict,
    pub(crate) edits: Vec<Edit>,
    /// What the next call of the stream is handed; `None` leaves it as it is.
    pub(crate) cookie: Option<Vec<u8>>,
    /// What it wants asked of services, which counts only where it waits.
    pub(crate) callouts: Vec<Callout>,
}

#[derive(Debug, Default)]
pub(crate) enum Verdict {
    #[default]
    Continue,
    /// Milliseconds, here and below.
    ContinueAfter(u32),
    Wait(u32),
    Respond(Reply),
    Reset(String),
    Close(String),
    /// A verdict of a later release, by its name.
    Unknown(String),
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) value: Vec<u8>,
}

#[derive(Debug)]
pub(crate) enum Edit {
    Set(Field),
    Add(Field),
    Remove(String),
    Path(String),
    Authority(String),
    Status(u16),
    Body(Vec<u8>),
    Attribute(Field),
    /// An edit of a later release, by its name.
    Unknown(String),
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<Field>,
    pub(crate) body: Vec<u8>,
    pub(crate) rule: Option<String>,
    pub(crate) reason: String,
    pub(crate) after_ms: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hook_has_its_place_and_its_name() {
        for (position, hook) in Hook::ALL.into_iter().enumerate() {
            assert_eq!(hook.index(), position);
            assert_eq!(Hook::named(hook.name()), Some(hook));
        }
        assert_eq!(Hook::named("request"), None);
    }
}

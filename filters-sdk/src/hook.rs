//! The hooks as types: a value that was asked for at one of them can be looked up there and nowhere else.

use std::fmt::Debug;

/// A hook that a filter can be called at.
pub trait Hook: Debug + Copy + 'static {
    /// As the contract names it.
    const NAME: &'static str;
}

macro_rules! hooks {
    ($($hook:ident, $name:literal, $doc:literal;)*) => {$(
        #[doc = $doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $hook {}

        impl Hook for $hook {
            const NAME: &'static str = $name;
        }
    )*};
}

hooks! {
    Connection, "connection", "An opaque byte stream (TCP) is about to be opened.";
    RequestHead, "request-head", "The head of a request has arrived.";
    RequestBody, "request-body", "A chunk of a request's body, or all of it.";
    RequestTrailers, "request-trailers", "The trailers of a request have arrived.";
    ResponseHead, "response-head", "The head of the final response has arrived.";
    ResponseBody, "response-body", "A chunk of a response's body, or all of it.";
    ResponseTrailers, "response-trailers", "The trailers of a response have arrived.";
    ReplyBody, "reply-body", "More of an answer that the filter gave.";
    StreamData, "stream-data", "Bytes of an opaque stream.";
    Callout, "callout", "The answer to a callout that the stream waits for.";
    Tick, "tick", "The time of a wait is up.";
    Done, "done", "The stream has ended, however it ended.";
}

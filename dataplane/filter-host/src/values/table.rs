//! Every value by name: where it can be given and what it means. docs/filters/values.md repeats it, and a test compares
//! both.

use crate::hook::Hook;

/// One value, or one family of values.
#[derive(Debug)]
pub(crate) struct Row {
    /// With `NAME` in it where it stands for a family.
    pub(crate) name: &'static str,
    pub(crate) plain: Option<Plain>,
    pub(crate) family: Option<Family>,
    at: At,
    #[cfg_attr(not(test), expect(dead_code, reason = "the documentation repeats it, which a test compares"))]
    pub(crate) meaning: &'static str,
}

/// Values that are one each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plain {
    SourcePrincipal,
    SourceNamespace,
    SourceServiceAccount,
    SourceAddress,
    DestinationPort,
    DestinationService,
    Direction,
    ConnectionTls,
    ConnectionProtocol,
    RequestMethod,
    RequestPath,
    RequestQuery,
    RequestAuthority,
    RequestId,
    RequestPathAmbiguous,
    RequestPathReadings,
    RouteName,
    ResponseStatus,
    StreamFrom,
    StreamDuration,
    RequestBytes,
    ResponseBytes,
    Time,
    Dice,
}

/// Values that are named by their filters: a name, or all names that start alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    RequestHeader,
    RequestTrailer,
    ResponseHeader,
    ResponseTrailer,
    Attribute,
}

impl Family {
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            Family::RequestHeader => "request.header.",
            Family::RequestTrailer => "request.trailer.",
            Family::ResponseHeader => "response.header.",
            Family::ResponseTrailer => "response.trailer.",
            Family::Attribute => "filter.",
        }
    }
}

/// Where a value can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Always,
    /// A connection or a request that is being judged.
    Source,
    /// The head of a request that is being judged.
    Request,
    /// The head of an answer, and the end.
    Status,
    /// The head of an answer.
    Response,
    RequestTrailers,
    ResponseTrailers,
    StreamData,
    Done,
}

impl Row {
    /// `whole`: a body hook that is called once, with the whole body, while the head is still at hand.
    pub(crate) fn is_given_at(&self, hook: Hook, whole: bool) -> bool {
        let waits = matches!(hook, Hook::Callout | Hook::Tick);
        let request = hook == Hook::RequestHead || (hook == Hook::RequestBody && whole) || waits;
        let response = hook == Hook::ResponseHead || (hook == Hook::ResponseBody && whole) || waits;
        match self.at {
            At::Always => true,
            At::Source => hook == Hook::Connection || request,
            At::Request => request,
            At::Status => response || hook == Hook::Done,
            At::Response => response,
            At::RequestTrailers => hook == Hook::RequestTrailers,
            At::ResponseTrailers => hook == Hook::ResponseTrailers,
            At::StreamData => hook == Hook::StreamData,
            At::Done => hook == Hook::Done,
        }
    }

    /// The hooks, as the documentation names them.
    #[cfg(test)]
    pub(crate) const fn given_at(&self) -> &'static str {
        match self.at {
            At::Always => "everywhere",
            At::Source => "connection, request-head, whole request body",
            At::Request => "request-head, whole request body",
            At::Status => "response-head, whole response body, done",
            At::Response => "response-head, whole response body",
            At::RequestTrailers => "request-trailers",
            At::ResponseTrailers => "response-trailers",
            At::StreamData => "stream-data",
            At::Done => "done",
        }
    }
}

const fn plain(name: &'static str, plain: Plain, at: At, meaning: &'static str) -> Row {
    Row { name, plain: Some(plain), family: None, at, meaning }
}

const fn family(name: &'static str, family: Family, at: At, meaning: &'static str) -> Row {
    Row { name, plain: None, family: Some(family), at, meaning }
}

pub(crate) const TABLE: &[Row] = &[
    plain("source.principal", Plain::SourcePrincipal, At::Source, "the caller's SPIFFE ID, as TLS proved it"),
    plain("source.namespace", Plain::SourceNamespace, At::Source, "the caller's namespace, of its SPIFFE ID"),
    plain(
        "source.service-account",
        Plain::SourceServiceAccount,
        At::Source,
        "the caller's service account, of its SPIFFE ID",
    ),
    plain("source.address", Plain::SourceAddress, At::Source, "the caller's IP address"),
    plain("destination.port", Plain::DestinationPort, At::Source, "the port that was called"),
    plain(
        "destination.service",
        Plain::DestinationService,
        At::Source,
        "the service that was called, `namespace/name`",
    ),
    plain("direction", Plain::Direction, At::Source, "`inbound`: a call of the workload; `outbound`: a call by it"),
    plain("connection.tls", Plain::ConnectionTls, At::Source, "`true` where the caller came with mutual TLS"),
    plain(
        "connection.protocol",
        Plain::ConnectionProtocol,
        At::Source,
        "the protocol that the caller speaks, as the proxy names it",
    ),
    plain("route.name", Plain::RouteName, At::Source, "the route that was chosen, where one was"),
    plain("request.method", Plain::RequestMethod, At::Request, "the method"),
    plain(
        "request.path",
        Plain::RequestPath,
        At::Request,
        "the path without its query, normalised: what the app is sent",
    ),
    plain(
        "request.path.ambiguous",
        Plain::RequestPathAmbiguous,
        At::Request,
        "`true` where apps may read the path in several ways",
    ),
    plain(
        "request.path.readings",
        Plain::RequestPathReadings,
        At::Request,
        "where it is ambiguous: each way in which the service's apps may read it, a line each; empty where there are more than 32",
    ),
    plain("request.query", Plain::RequestQuery, At::Request, "the query without its `?`"),
    plain("request.authority", Plain::RequestAuthority, At::Request, "host and port, as in `:authority` or `host`"),
    plain("request.id", Plain::RequestId, At::Request, "the request's id, as in the access log"),
    family("request.header.NAME", Family::RequestHeader, At::Request, "a header; `NAME*`: all whose names start so"),
    family(
        "request.trailer.NAME",
        Family::RequestTrailer,
        At::RequestTrailers,
        "a trailer; `NAME*`: all whose names start so",
    ),
    plain(
        "response.status",
        Plain::ResponseStatus,
        At::Status,
        "the status; at `done` absent where there was no answer",
    ),
    family("response.header.NAME", Family::ResponseHeader, At::Response, "a header; `NAME*`: all whose names start so"),
    family(
        "response.trailer.NAME",
        Family::ResponseTrailer,
        At::ResponseTrailers,
        "a trailer; `NAME*`: all whose names start so",
    ),
    plain(
        "stream.from",
        Plain::StreamFrom,
        At::StreamData,
        "`caller` or `destination`: which side the bytes come from",
    ),
    plain("stream.duration-ms", Plain::StreamDuration, At::Done, "how long the stream lasted"),
    plain("request.bytes", Plain::RequestBytes, At::Done, "bytes of the request's body, or from the caller"),
    plain("response.bytes", Plain::ResponseBytes, At::Done, "bytes of the answer's body, or to the caller"),
    plain("time", Plain::Time, At::Always, "milliseconds since the Unix epoch"),
    plain("dice", Plain::Dice, At::Always, "64 random bits of each call; not for secrets"),
    family(
        "filter.NAME",
        Family::Attribute,
        At::Always,
        "set by filters that ran earlier; `NAME*`: all whose names start so",
    ),
];

//! Why a request was refused by a codec itself, in any version of HTTP: each cause has one word for metrics, and one status
//! where it is answered.

use http::StatusCode;

/// A request that a codec refused: nobody else has seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    pub refusal: Refusal,
    pub reason: &'static str,
    /// The status that the client was answered; `None`: its stream was reset, or its connection closed.
    pub status: Option<StatusCode>,
}

impl Refused {
    /// A request that was answered with the status of its cause.
    pub fn answered(refusal: Refusal, reason: &'static str) -> Self {
        Self { refusal, reason, status: Some(refusal.status()) }
    }

    /// A request that was given no answer.
    pub fn reset(refusal: Refusal, reason: &'static str) -> Self {
        Self { refusal, reason, status: None }
    }
}

/// The cause of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The request line or a field is not HTTP.
    Malformed,
    /// The authority is missing, given twice, or none.
    Host,
    /// The end of the body is ambiguous.
    Framing,
    /// The frame of a chunk is malformed.
    Chunk,
    /// The head, or the trailer section, is larger than allowed.
    HeadTooLarge,
    /// The head has more fields than allowed.
    TooManyFields,
    /// The request target is longer than allowed.
    TargetTooLong,
    /// Chunk extensions are longer than allowed.
    ContentTooLarge,
    /// The head did not come in time.
    HeadTimeout,
    /// The method is longer than any that is known.
    UnknownMethod,
    /// A transfer coding other than `chunked`.
    UnknownCoding,
    /// A major version other than 1.
    UnsupportedVersion,
    /// An extended CONNECT for a protocol that nobody knows.
    UnknownProtocol,
    /// HTTP/2: the stream as such was refused: its head is malformed or far too large, or there was one stream too many.
    Stream,
    /// Too many requests whose heads had begun waited for the rest.
    HeadsPending,
    /// The connection as such broke the rules, or a limit.
    Connection,
}

impl Refusal {
    pub const ALL: [Self; 16] = [
        Self::Malformed,
        Self::Host,
        Self::Framing,
        Self::Chunk,
        Self::HeadTooLarge,
        Self::TooManyFields,
        Self::TargetTooLong,
        Self::ContentTooLarge,
        Self::HeadTimeout,
        Self::UnknownMethod,
        Self::UnknownCoding,
        Self::UnsupportedVersion,
        Self::UnknownProtocol,
        Self::Stream,
        Self::HeadsPending,
        Self::Connection,
    ];

    /// The status of an answer, where there is one.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Malformed | Self::Host | Self::Framing | Self::Chunk | Self::Stream | Self::Connection => {
                StatusCode::BAD_REQUEST
            }
            Self::HeadTooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::ContentTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::UnknownMethod | Self::UnknownCoding | Self::UnknownProtocol => StatusCode::NOT_IMPLEMENTED,
            Self::HeadsPending => StatusCode::SERVICE_UNAVAILABLE,
            Self::UnsupportedVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }

    /// One word for a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Host => "host",
            Self::Framing => "framing",
            Self::Chunk => "chunk",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::TargetTooLong => "target_too_long",
            Self::ContentTooLarge => "content_too_large",
            Self::HeadTimeout => "head_timeout",
            Self::UnknownMethod => "unknown_method",
            Self::UnknownCoding => "unknown_coding",
            Self::UnsupportedVersion => "unsupported_version",
            Self::UnknownProtocol => "unknown_protocol",
            Self::Stream => "stream",
            Self::HeadsPending => "heads_pending",
            Self::Connection => "connection",
        }
    }
}

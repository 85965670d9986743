//! Why a request was refused by the codec itself: each cause has one status for the client and one word for metrics.

use http::StatusCode;

/// The cause of a refusal. The client has been answered with `status`, and its connection closed.
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
}

impl Refusal {
    pub const ALL: [Self; 12] = [
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
    ];

    pub fn status(self) -> StatusCode {
        match self {
            Self::Malformed | Self::Host | Self::Framing | Self::Chunk => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::ContentTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::UnknownMethod | Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
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
        }
    }
}

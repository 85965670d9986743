//! HTTP/3 and QPACK error codes, as they travel in RESET_STREAM, STOP_SENDING and CONNECTION_CLOSE.

/// The codes as plain numbers, since streams of every version speak them (`http::StreamError::Reset`).
#[derive(Debug, Clone, Copy)]
pub struct Code;

//= rfc9114#section-8.1
impl Code {
    pub const DATAGRAM_ERROR: u64 = 0x33;
    pub const NO_ERROR: u64 = 0x100;
    pub const GENERAL_PROTOCOL_ERROR: u64 = 0x101;
    pub const INTERNAL_ERROR: u64 = 0x102;
    pub const STREAM_CREATION_ERROR: u64 = 0x103;
    pub const CLOSED_CRITICAL_STREAM: u64 = 0x104;
    pub const FRAME_UNEXPECTED: u64 = 0x105;
    pub const FRAME_ERROR: u64 = 0x106;
    pub const EXCESSIVE_LOAD: u64 = 0x107;
    pub const ID_ERROR: u64 = 0x108;
    pub const SETTINGS_ERROR: u64 = 0x109;
    pub const MISSING_SETTINGS: u64 = 0x10a;
    /// The server did not process the request: it is safe to send it again.
    pub const REQUEST_REJECTED: u64 = 0x10b;
    pub const REQUEST_CANCELLED: u64 = 0x10c;
    pub const REQUEST_INCOMPLETE: u64 = 0x10d;
    pub const MESSAGE_ERROR: u64 = 0x10e;
    pub const CONNECT_ERROR: u64 = 0x10f;
    pub const VERSION_FALLBACK: u64 = 0x110;
    //= rfc9204#section-6
    pub const QPACK_DECOMPRESSION_FAILED: u64 = 0x200;
    pub const QPACK_ENCODER_STREAM_ERROR: u64 = 0x201;
    pub const QPACK_DECODER_STREAM_ERROR: u64 = 0x202;

    /// The name of a code as the RFCs write it, for logs and metric labels.
    #[must_use]
    pub fn name(code: u64) -> &'static str {
        match code {
            Code::DATAGRAM_ERROR => "H3_DATAGRAM_ERROR",
            Code::NO_ERROR => "H3_NO_ERROR",
            Code::GENERAL_PROTOCOL_ERROR => "H3_GENERAL_PROTOCOL_ERROR",
            Code::INTERNAL_ERROR => "H3_INTERNAL_ERROR",
            Code::STREAM_CREATION_ERROR => "H3_STREAM_CREATION_ERROR",
            Code::CLOSED_CRITICAL_STREAM => "H3_CLOSED_CRITICAL_STREAM",
            Code::FRAME_UNEXPECTED => "H3_FRAME_UNEXPECTED",
            Code::FRAME_ERROR => "H3_FRAME_ERROR",
            Code::EXCESSIVE_LOAD => "H3_EXCESSIVE_LOAD",
            Code::ID_ERROR => "H3_ID_ERROR",
            Code::SETTINGS_ERROR => "H3_SETTINGS_ERROR",
            Code::MISSING_SETTINGS => "H3_MISSING_SETTINGS",
            Code::REQUEST_REJECTED => "H3_REQUEST_REJECTED",
            Code::REQUEST_CANCELLED => "H3_REQUEST_CANCELLED",
            Code::REQUEST_INCOMPLETE => "H3_REQUEST_INCOMPLETE",
            Code::MESSAGE_ERROR => "H3_MESSAGE_ERROR",
            Code::CONNECT_ERROR => "H3_CONNECT_ERROR",
            Code::VERSION_FALLBACK => "H3_VERSION_FALLBACK",
            Code::QPACK_DECOMPRESSION_FAILED => "QPACK_DECOMPRESSION_FAILED",
            Code::QPACK_ENCODER_STREAM_ERROR => "QPACK_ENCODER_STREAM_ERROR",
            Code::QPACK_DECODER_STREAM_ERROR => "QPACK_DECODER_STREAM_ERROR",
            _ => "unknown",
        }
    }
}

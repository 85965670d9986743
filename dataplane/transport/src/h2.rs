//! HTTP/2 behind the seam of `http`, on the crate `h2`: prior-knowledge h2c at the application's side, and the fallback
//! between proxies. Flow-control credit goes back only as bytes are consumed, so a slow reader slows its sender.

use h2::Reason;

use crate::http::StreamError;

mod client;
mod server;
mod stream;
#[cfg(test)]
mod tests;

pub use client::ClientConn;
pub use server::ServerConn;
pub use stream::{RecvStream, SendStream};

/// What one HTTP/2 connection accepts and offers.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes that a peer may have in flight on one stream before they are consumed. Default 128 KiB.
    pub stream_window: u32,
    /// The same for the whole connection. Default 1 MiB.
    pub connection_window: u32,
    /// Streams that a client may have open. Default 256.
    pub concurrent_streams: u32,
    /// Bytes of a header list, as RFC 9113 counts them. Default 64 KiB; more is answered with 431.
    pub header_list_bytes: u32,
    /// Header fields of a head. Default 128.
    pub fields: usize,
    /// Bytes that wait in one stream to be written. Default 64 KiB.
    pub send_buffer: usize,
    /// Streams that a client may open and reset before they were accepted. Default 256; more ends the connection.
    pub pending_resets: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stream_window: 128 * 1024,
            connection_window: 1024 * 1024,
            concurrent_streams: 256,
            header_list_bytes: 64 * 1024,
            fields: 128,
            send_buffer: 64 * 1024,
            pending_resets: 256,
        }
    }
}

/// The HTTP/3 error code for an HTTP/2 one.
//= rfc9114#section-8.1
pub fn code_from_reason(reason: Reason) -> u64 {
    match reason {
        Reason::NO_ERROR => 0x100,
        Reason::INTERNAL_ERROR | Reason::INADEQUATE_SECURITY => 0x102,
        Reason::FRAME_SIZE_ERROR => 0x106,
        Reason::ENHANCE_YOUR_CALM => 0x107,
        Reason::REFUSED_STREAM => 0x10b,
        Reason::CANCEL => 0x10c,
        Reason::CONNECT_ERROR => 0x10f,
        Reason::HTTP_1_1_REQUIRED => 0x110,
        _ => 0x101,
    }
}

/// The HTTP/2 error code for an HTTP/3 one.
pub fn reason_from_code(code: u64) -> Reason {
    match code {
        0x100 => Reason::NO_ERROR,
        0x102 => Reason::INTERNAL_ERROR,
        0x106 => Reason::FRAME_SIZE_ERROR,
        0x107 => Reason::ENHANCE_YOUR_CALM,
        0x10b => Reason::REFUSED_STREAM,
        0x10c => Reason::CANCEL,
        0x10f => Reason::CONNECT_ERROR,
        0x110 => Reason::HTTP_1_1_REQUIRED,
        0x101..=0x10e => Reason::PROTOCOL_ERROR,
        _ => Reason::INTERNAL_ERROR,
    }
}

fn stream_error(error: &h2::Error) -> StreamError {
    match error.reason() {
        Some(reason) if error.is_reset() => StreamError::Reset(code_from_reason(reason)),
        Some(_) | None => StreamError::ConnectionLost(error.to_string()),
    }
}

/// True when the peer says that it did not act on the stream: refused, or above the id of its GOAWAY.
//= rfc9113#section-8.7
fn is_unprocessed(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    error.is_remote() && (refused || error.is_go_away())
}

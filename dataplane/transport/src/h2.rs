//! HTTP/2 behind the seam of `http`, on the crate `h2`: prior-knowledge h2c at the application's side, and the fallback
//! between proxies. Flow-control credit goes back only as bytes are consumed, so a slow reader slows its sender.

mod ahead;
mod chunk;
mod client;
mod deaf;
pub(crate) mod fields;
mod flood;
mod server;
mod stream;
#[cfg(test)]
mod tests;
mod window;

use std::time::Duration;

use h2::Reason;

use crate::http::StreamError;

pub use client::{ClientConn, Room, Slot};
pub use server::{ConnectionError, Exchange, ServerConn};
pub use stream::{RecvStream, SendStream};

/// Limits of one HTTP/2 connection, and the settings that it offers.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes that a peer may have in flight on one stream before they are consumed. Default 128 KiB.
    pub stream_window: u32,
    /// The same for a connection with few streams. Default 1 MiB; it grows with the streams that are open, so that each of
    /// them may be stalled with a full window and none holds up another.
    pub connection_window: u32,
    /// Small DATA frames of one connection that may wait to be read, or as many as a stream's window has bytes, if that is
    /// more; beyond them the connection ends. Default 262,144.
    pub unread_frames: u32,
    /// Streams that a client may have open. Default 256.
    pub concurrent_streams: u32,
    /// Bytes of a header list, as RFC 9113 counts them. Default 64 KiB; more is answered with 431.
    pub header_list_bytes: u32,
    /// Header fields of a head. Default 128.
    pub fields: usize,
    /// Server: bytes of a request target. Default 16 KiB; more is answered with 414.
    pub target_bytes: usize,
    /// Client: interim responses before a final one. Default 32.
    pub interim_responses: u32,
    /// Server: how long a connection may stay without an open request. Default 1 h.
    pub idle: Duration,
    /// Bytes that wait in one stream to be written. Default 64 KiB.
    pub send_buffer: usize,
    /// Streams that a client may open and reset before they were accepted. Default 256; more ends the connection.
    pub pending_resets: usize,
    /// Server: requests that a client may give up before they are answered, at once; more ends the connection. Each
    /// answered request earns another. Default 512.
    pub cancels: u32,
    /// How many of those come back in a second. Default 256.
    pub cancels_per_second: u32,
    /// Server: frames that carry nothing (PING, SETTINGS, RST_STREAM, empty DATA and the like), at once; more ends the
    /// connection. Default 20,000: a client that measures its round trip sends a PING in each.
    pub idle_frames: u32,
    /// How many of those come back in a second. Default 5,000.
    pub idle_frames_per_second: u32,
    /// How long the peer's preface may take. Default 10 s.
    pub preface: Duration,
    /// How long a client that is told to go may take to read it. Default 1 s.
    pub last_words: Duration,
    /// How long `abort` waits until what was given before has been written. Default 5 s.
    pub abort: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stream_window: 128 * 1024,
            connection_window: 1024 * 1024,
            unread_frames: 256 * 1024,
            concurrent_streams: 256,
            header_list_bytes: 64 * 1024,
            fields: 128,
            target_bytes: 16 * 1024,
            interim_responses: 32,
            idle: Duration::from_secs(3600),
            send_buffer: 64 * 1024,
            pending_resets: 256,
            cancels: 512,
            cancels_per_second: 256,
            idle_frames: 20_000,
            idle_frames_per_second: 5_000,
            preface: Duration::from_secs(10),
            last_words: Duration::from_secs(1),
            abort: Duration::from_secs(5),
        }
    }
}

/// Bytes below which the crate `h2` counts a DATA frame as small; what one is short of them it takes from the budget of
/// its connection.
const SMALL_FRAME: usize = 256;

impl Limits {
    /// The crate's budget for small frames. No stream that keeps to its window can use it up alone.
    fn frame_budget(&self) -> usize {
        SMALL_FRAME.saturating_mul(self.unread_frames.max(self.stream_window) as usize)
    }
}

/// True where a connection was ended because its peer left more small frames unread than [`Limits::unread_frames`].
fn is_overrun(error: &h2::Error) -> bool {
    error.is_library() && error.is_go_away() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
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
        Some(reason) if error.is_reset() && error.is_remote() => StreamError::Reset(code_from_reason(reason)),
        Some(_) if error.is_reset() => StreamError::Protocol("malformed HTTP/2 message"),
        Some(_) | None => StreamError::ConnectionLost(error.to_string()),
    }
}

/// True when the peer says that it did not act on the stream: refused, or above the id of its GOAWAY. The crate fails a
/// stream with the GOAWAY itself only where its id is above; one below lives on, or is lost with the connection.
//= rfc9113#section-6.8
//= rfc9113#section-8.7
fn is_unprocessed(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    error.is_remote() && (refused || error.is_go_away())
}

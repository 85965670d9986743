//! HTTP/1.0 and HTTP/1.1 on TCP, both roles. Bytes that are ambiguous about where a message ends are refused, never
//! guessed at; a connection whose framing is in doubt is closed, never reused.

use std::time::Duration;

mod client;
mod decode;
mod encode;
mod parse;
mod server;
mod stream;
#[cfg(test)]
mod tests;

pub use client::{ClientConn, ResponseReader};
pub use server::{Exchange, Responder, ServerConn, ServerError};
pub use stream::{Body, Sink};

/// What one HTTP/1 connection accepts. Hitting a number is an error with a reason: 431 or 414 to a client, a protocol
/// error from a server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a message head. Default 64 KiB.
    pub head_bytes: usize,
    /// Header fields of a head, and trailer fields. Default and at most 128.
    pub fields: usize,
    /// Bytes of a request target. Default 16 KiB.
    pub uri_bytes: usize,
    /// Bytes of a trailer section. Default 16 KiB.
    pub trailer_bytes: usize,
    /// Bytes of chunk extensions in one message. Default 16 KiB.
    pub chunk_extension_bytes: usize,
    /// Interim responses before a final one. Default 32.
    pub interim_responses: u32,
    /// From a head's first byte to its last. Default 10 s; then 408.
    pub head_timeout: Duration,
    /// How long a client's connection may stay without a request. Default 1 h.
    pub idle_timeout: Duration,
    /// Bytes of an unread request body that are read over to keep a connection. Default 64 KiB.
    pub drain_bytes: u64,
    /// How long a closing connection is read so that the client sees the last answer before an RST. Default 1 s.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 64 * 1024,
            fields: parse::MAX_FIELDS,
            uri_bytes: 16 * 1024,
            trailer_bytes: 16 * 1024,
            chunk_extension_bytes: 16 * 1024,
            interim_responses: 32,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(3600),
            drain_bytes: 64 * 1024,
            linger: Duration::from_secs(1),
        }
    }
}

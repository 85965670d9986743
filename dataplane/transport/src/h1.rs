//! HTTP/1.0 and HTTP/1.1 on TCP, both roles. Bytes that are ambiguous about where a message ends are refused, never
//! guessed at; a connection whose framing is in doubt is closed, never reused.

use std::time::Duration;

mod client;
mod decode;
mod encode;
pub mod heads;
mod parse;
mod server;
mod socket;
mod stream;
#[cfg(test)]
mod tests;

use crate::http::{HttpLimits, Leaving};

pub use crate::http::Refusal;
pub use client::{ClientConn, ResponseReader};
pub use server::{Exchange, Responder, ServerConn, ServerError};
pub use stream::{Body, Sink};

/// Empty lines that may precede a request line.
//= rfc9112#section-2.2
pub(crate) const MAX_EMPTY_LINES: usize = 8;

/// Limits of one HTTP/1 connection on what it accepts, and the times of its close. Hitting a number is an error with a
/// reason: a [`Refusal`] to a client, a protocol error from a server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Limits that hold for every version of HTTP.
    pub http: HttpLimits,
    /// Bytes of an unread request body that are read over to keep a connection. Default 64 KiB.
    pub drain_bytes: u64,
    /// How long a closing connection is read so that the client sees the last answer before an RST. Default 30 s.
    pub linger: Duration,
    /// How long a closing connection may be silent meanwhile. Default 2 s.
    pub linger_idle: Duration,
    /// Server: once told, each answer is the last one on its connection.
    pub leaving: Leaving,
}

impl Default for Limits {
    fn default() -> Self {
        Self::from(HttpLimits::default())
    }
}

impl From<HttpLimits> for Limits {
    fn from(http: HttpLimits) -> Self {
        Self {
            http,
            drain_bytes: 64 * 1024,
            linger: Duration::from_secs(30),
            linger_idle: Duration::from_secs(2),
            leaving: Leaving::default(),
        }
    }
}

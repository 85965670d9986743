//! HTTP/3 straight on quinn streams (RFC 9114, 9204 static table, 9220): frames, field sections, the life of a connection.
//! Nothing that a peer sends panics; every buffer and count has a number in [`Limits`]; no task is spawned per request.
//!
//! Streams are read and written by whoever holds them; the connection's driver only looks after control streams and GOAWAY.

mod client;
mod code;
mod connection;
mod driver;
pub mod frame;
pub mod message;
mod recv;
mod send;
mod server;
#[cfg(test)]
mod tests;

pub use client::{Client, connect};
pub use code::Code;
pub use frame::Violation;
pub use recv::RecvStream;
pub use send::SendStream;
pub use server::{Incoming, Server, accept};

use std::time::Duration;

use crate::qpack;

/// Bounds on what a peer may make us hold or do, and how we write.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Size of a field section as RFC 9114 section 4.2.2 counts it (name + value + 32 per field), announced to the peer;
    /// also the most bytes of one HEADERS frame.
    pub header_bytes: usize,
    /// Fields in one section, cookie crumbs as one.
    pub header_fields: usize,
    /// Bytes of `:path`.
    pub path_bytes: usize,
    /// Bytes of one SETTINGS frame.
    pub settings_bytes: usize,
    /// Bytes of one frame of unknown type.
    pub unknown_frame_bytes: u64,
    /// Frames in a row that carry nothing, per stream.
    pub idle_frames: u32,
    /// Interim responses to one request.
    pub interim_responses: u32,
    /// Unidirectional streams of unknown type over the life of a connection.
    pub unknown_streams: u32,
    /// Server: requests that the peer may give up before they are answered, at once; over it the connection is closed with
    /// H3_EXCESSIVE_LOAD. More than may be open at once, so that all of them may be. Each answered request earns another.
    pub cancels: u32,
    /// How many of those come back in a second: as many as may be open, each timing out after a second.
    pub cancels_per_second: u32,
    /// Server: how long a request's head may take from its first byte to its last.
    pub head_timeout: Duration,
    /// Server: requests of one connection whose heads are incomplete; more are refused as not processed.
    pub waiting_heads: usize,
    /// Client: how long a request waits for one of the streams that the peer allows at once. Default 5 s.
    pub stream_wait: Duration,
    /// How long `abort` waits until what was given before has left.
    pub abort: Duration,
    /// Agree with peers that say so too on ending a message as failed behind its last byte, not ahead of it.
    pub aborts: bool,
    /// Bytes that the peer may send on one stream before any are read, for the account of what a stream holds. The window
    /// itself is QUIC's.
    pub stream_window: usize,
    /// Huffman-code strings where that is shorter. Costs more CPU than the bytes are worth inside one network.
    pub huffman: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            header_bytes: 64 * 1024,
            header_fields: 128,
            path_bytes: 16 * 1024,
            settings_bytes: 4096,
            unknown_frame_bytes: 64 * 1024,
            idle_frames: 256,
            interim_responses: 32,
            unknown_streams: 1024,
            stream_wait: Duration::from_secs(5),
            cancels: 2048,
            cancels_per_second: 1024,
            head_timeout: Duration::from_secs(10),
            waiting_heads: 256,
            abort: Duration::from_secs(5),
            aborts: true,
            stream_window: 256 * 1024,
            huffman: false,
        }
    }
}

impl Limits {
    fn section(&self) -> qpack::Limits {
        qpack::Limits { size: self.header_bytes, fields: self.header_fields }
    }

    fn bounds(&self) -> frame::Bounds {
        frame::Bounds {
            headers: self.header_bytes,
            settings: self.settings_bytes,
            unknown: self.unknown_frame_bytes,
            idle_frames: self.idle_frames,
        }
    }
}

//! Which protocol the first bytes of a connection belong to. Pure on bytes; the reading around it never loses one.

use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;

/// The verdict on the first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detected {
    NeedMore,
    Http1,
    Http2,
    Tls { sni: Option<String> },
    Opaque,
}
pub fn detect(_bytes: &[u8]) -> Detected {
    todo!()
}
/// Reads until the protocol is clear, `max` bytes are there, or `timeout` has passed (then `Opaque`: server speaks first).
pub async fn detect_stream(
    _io: &mut TcpStream,
    _prefix: Bytes,
    _timeout: Duration,
) -> std::io::Result<(Detected, Bytes)> {
    todo!()
}

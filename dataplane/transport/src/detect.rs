//! Which protocol the first bytes of a connection belong to. Pure on bytes; the reading around it never loses one.
//! If no protocol is declared, only certain results are claimed: everything else is opaque and travels as TCP. If HTTP
//! is declared, only its version is asked for, and no byte makes it anything else.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::h1::MAX_EMPTY_LINES;
use crate::http::HttpLimits;
use crate::upgrade::is_token;

mod client_hello;
mod first_line;
#[cfg(test)]
mod tests;
mod text;

pub use first_line::{FirstLine, Judged};
pub use text::Text;

/// The most bytes that a verdict may need: a request line, or a large ClientHello.
pub const MAX_BYTES: usize = 18 * 1024;
/// Longer first words are no HTTP method where nothing says that the connection speaks HTTP.
const MAX_METHOD: usize = 32;
/// First bytes of a client of HTTP/2 with prior knowledge (RFC 9113 section 3.4).
pub const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The verdict on the first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detected {
    /// Every protocol that these bytes could still become needs more of them.
    NeedMore,
    /// A request line of HTTP/1.
    Http1,
    /// The preface of HTTP/2 with prior knowledge.
    Http2,
    /// A TLS ClientHello, with the server name if it holds one.
    Tls { sni: Option<String> },
    /// Something else.
    Opaque,
}

/// Judges the first bytes of a connection.
pub fn detect(bytes: &[u8]) -> Detected {
    let Some(first) = bytes.first() else { return Detected::NeedMore };
    if *first == client_hello::HANDSHAKE {
        return client_hello::detect(bytes);
    }
    let preface = &HTTP2_PREFACE[..bytes.len().min(HTTP2_PREFACE.len())];
    if bytes.starts_with(preface) {
        return if preface.len() == HTTP2_PREFACE.len() { Detected::Http2 } else { Detected::NeedMore };
    }
    let line = after_empty_lines(bytes);
    if line.is_empty() || line == b"\r" {
        return Detected::NeedMore;
    }
    request_line(line)
}

/// The bytes after the empty lines that robust servers skip.
//= rfc9112#section-2.2
fn after_empty_lines(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    for _ in 0..MAX_EMPTY_LINES {
        match rest.strip_prefix(b"\r\n") {
            Some(after) => rest = after,
            None => break,
        }
    }
    rest
}

/// The version of HTTP on a connection that is declared to speak it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1, or what is none: the codec answers it with 400.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// Judges the first bytes of a connection that is declared to speak HTTP; `None` while they may become either version.
pub fn detect_http(bytes: &[u8]) -> Option<HttpVersion> {
    if bytes.starts_with(HTTP2_PREFACE) {
        Some(HttpVersion::Http2)
    } else if HTTP2_PREFACE.starts_with(bytes) {
        None
    } else {
        Some(HttpVersion::Http1)
    }
}

/// Reads until the version of HTTP is clear; gives it and every byte read, `prefix` first. A client that says nothing for
/// `limits.idle_timeout`, or ends before its first byte, gives `None`. One that begins and goes no further within
/// `limits.head_timeout` is HTTP/1, whose codec answers it.
pub async fn detect_http_stream(
    io: &mut TcpStream,
    prefix: Bytes,
    limits: &HttpLimits,
) -> io::Result<Option<(HttpVersion, Bytes)>> {
    let mut bytes = BytesMut::from(prefix);
    if bytes.is_empty() {
        match timeout(limits.idle_timeout, io.read_buf(&mut bytes)).await {
            Ok(Ok(0)) | Err(_) => return Ok(None),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
        }
    }
    let deadline = Instant::now() + limits.head_timeout;
    loop {
        if let Some(version) = detect_http(&bytes) {
            return Ok(Some((version, bytes.freeze())));
        }
        match timeout_at(deadline, io.read_buf(&mut bytes)).await {
            Ok(Ok(0)) | Err(_) => return Ok(Some((HttpVersion::Http1, bytes.freeze()))),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
        }
    }
}

/// `METHOD SP target SP HTTP/1.x`, up to the end of the line. Malformed lines that still name HTTP are HTTP: the codec
/// answers them with 400 rather than letting them through as TCP.
fn request_line(bytes: &[u8]) -> Detected {
    let line_end = bytes.iter().position(|byte| *byte == b'\n');
    let line = &bytes[..line_end.unwrap_or(bytes.len())];
    let Some(method_end) = line.iter().position(|byte| !is_token(*byte)) else {
        return if line_end.is_some() || line.len() > MAX_METHOD { Detected::Opaque } else { Detected::NeedMore };
    };
    if method_end == 0 || method_end > MAX_METHOD || line[method_end] != b' ' {
        return Detected::Opaque;
    }
    let rest = &line[method_end + 1..];
    let rest = rest.strip_suffix(b"\r").unwrap_or(rest);
    if rest.iter().any(|byte| *byte < b' ' || *byte == 0x7f) {
        return Detected::Opaque;
    }
    let version = rest.iter().rposition(|byte| *byte == b' ').map(|space| &rest[space + 1..]);
    match (line_end, version) {
        (Some(_), Some(version)) if version.starts_with(b"HTTP/") => Detected::Http1,
        (Some(_), _) => Detected::Opaque,
        (None, _) if bytes.len() >= MAX_BYTES => Detected::Opaque,
        (None, _) => Detected::NeedMore,
    }
}

/// So many times as long a client is waited for that has begun with what looks like a method.
const FOR_A_METHOD: u32 = 10;
/// No longer than this on that account.
const LONGEST_FOR_A_METHOD: Duration = Duration::from_secs(60);

/// True for the beginning of a request line whose method is one of the usual: in upper case.
fn is_a_methods_beginning(bytes: &[u8]) -> bool {
    after_empty_lines(bytes).first().is_some_and(u8::is_ascii_uppercase)
}

/// Reads until the protocol is clear; gives the verdict and every byte read, `prefix` first. When `timeout` passes first the
/// verdict is `Opaque`: most likely the server speaks first. A client that has begun with what may become a request is
/// waited for ten times as long, up to a minute. `NeedMore` never comes back. At the end of the stream the verdict is `Opaque` too; no
/// bytes then means that the client never said anything.
pub async fn detect_stream(
    io: &mut (impl AsyncRead + Unpin),
    prefix: Bytes,
    timeout: Duration,
) -> io::Result<(Detected, Bytes)> {
    let mut bytes = BytesMut::from(prefix);
    let began = Instant::now();
    let for_a_method = timeout.max(timeout.saturating_mul(FOR_A_METHOD).min(LONGEST_FOR_A_METHOD));
    loop {
        let verdict = detect(&bytes);
        if verdict != Detected::NeedMore {
            return Ok((verdict, bytes.freeze()));
        }
        if bytes.len() >= MAX_BYTES {
            return Ok((Detected::Opaque, bytes.freeze()));
        }
        if bytes.capacity() - bytes.len() < 1024 {
            bytes.reserve(2048);
        }
        let patience = if is_a_methods_beginning(&bytes) { for_a_method } else { timeout };
        match timeout_at(began + patience, io.read_buf(&mut bytes)).await {
            Ok(Ok(0)) | Err(_) => return Ok((Detected::Opaque, bytes.freeze())),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
        }
    }
}

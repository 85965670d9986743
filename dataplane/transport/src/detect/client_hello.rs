//! A TLS ClientHello: recognised by its frame, read for its server name. Bounds come from the bytes present, never from the
//! lengths that they claim.

use super::{Detected, MAX_BYTES};

/// The content type of a TLS handshake record.
//= rfc8446#section-5.1
pub(super) const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
const RECORD_HEADER: usize = 5;
const MAX_RECORD: usize = 1 << 14;

pub(super) fn detect(bytes: &[u8]) -> Detected {
    match handshake_bytes(bytes) {
        Records::NotTls => Detected::Opaque,
        Records::Partial => Detected::NeedMore,
        Records::Hello(hello) => match server_name(&hello) {
            Ok(sni) => Detected::Tls { sni },
            Err(Malformed) => Detected::Tls { sni: None },
        },
        Records::TooLong => Detected::Tls { sni: None },
    }
}

enum Records {
    NotTls,
    Partial,
    TooLong,
    /// The body of a complete ClientHello.
    Hello(Vec<u8>),
}

/// Gathers the handshake message from as many records as it spans.
fn handshake_bytes(mut bytes: &[u8]) -> Records {
    let mut message = Vec::new();
    let mut wanted = 4;
    loop {
        let header = &bytes[..bytes.len().min(RECORD_HEADER)];
        let plausible = [HANDSHAKE, 3];
        if !plausible.starts_with(&header[..header.len().min(2)]) && !header.starts_with(&plausible) {
            return Records::NotTls;
        }
        let [_, _, minor, high, low] = *header else {
            return if header.get(2).is_some_and(|minor| *minor > 4) { Records::NotTls } else { Records::Partial };
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if minor > 4 || length == 0 || length > MAX_RECORD {
            return Records::NotTls;
        }
        let body = &bytes[RECORD_HEADER..];
        message.extend_from_slice(&body[..body.len().min(length)]);
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Records::NotTls;
        }
        if let [_, high, middle, low, ..] = *message.as_slice() {
            wanted = 4 + usize::from(high) * 65536 + usize::from(middle) * 256 + usize::from(low);
        }
        if wanted > MAX_BYTES {
            return Records::TooLong;
        }
        if message.len() >= wanted && wanted > 4 {
            message.truncate(wanted);
            message.drain(..4);
            return Records::Hello(message);
        }
        if body.len() <= length {
            return Records::Partial;
        }
        bytes = &body[length..];
    }
}

struct Malformed;

/// The host name in the server_name extension of a ClientHello body.
//= rfc6066#section-3
fn server_name(hello: &[u8]) -> Result<Option<String>, Malformed> {
    let mut rest = Reader(hello);
    rest.skip(2 + 32)?;
    rest.vector8()?;
    rest.vector16()?;
    rest.vector8()?;
    if rest.0.is_empty() {
        return Ok(None);
    }
    let mut extensions = Reader(rest.vector16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let body = extensions.vector16()?;
        if kind == SERVER_NAME {
            let mut names = Reader(Reader(body).vector16()?);
            while !names.0.is_empty() {
                let kind = names.u8()?;
                let name = names.vector16()?;
                if kind == HOST_NAME {
                    return host_name(name).map(Some);
                }
            }
        }
    }
    Ok(None)
}

fn host_name(bytes: &[u8]) -> Result<String, Malformed> {
    let plausible = !bytes.is_empty()
        && bytes.len() <= 253
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte));
    let name = std::str::from_utf8(bytes).ok().filter(|_| plausible).ok_or(Malformed)?;
    Ok(name.trim_end_matches('.').to_ascii_lowercase())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn skip(&mut self, count: usize) -> Result<(), Malformed> {
        self.take(count).map(|_| ())
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    fn vector16(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

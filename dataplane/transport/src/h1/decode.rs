//! Message bodies from bytes, incrementally: the state survives any split of the input. A malformed chunk ends the
//! connection; nothing is resynchronised.

use bytes::{Buf, Bytes};
use http::HeaderMap;

use super::Refusal;
use super::parse::{self, Rejection};
use crate::http::HttpLimits;
use crate::tcp::buffer::ReadBuffer;

#[cfg(test)]
mod tests;

/// Position of the reader in a body.
#[derive(Debug)]
pub(super) enum Decoder {
    Empty,
    /// Bytes still to come, never 0.
    Length(u64),
    Chunked(Chunked),
    /// The end of the connection is the end of the body.
    UntilClose,
    /// Raw bytes after an accepted CONNECT.
    Tunnel,
}

/// One step of decoding.
#[derive(Debug)]
pub(super) enum Decoded {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    NeedMore,
}

#[derive(Debug, Default)]
pub(super) struct Chunked {
    state: ChunkState,
    /// Bytes of chunk extensions seen in this message.
    extension_bytes: usize,
    /// Bytes of the trailer section already searched for a line end.
    searched: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    Size {
        value: u64,
        digits: u8,
    },
    /// White space between the size and `;` or CR.
    AfterSize(u64),
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailers,
    Done,
}

impl Default for ChunkState {
    fn default() -> Self {
        ChunkState::Size { value: 0, digits: 0 }
    }
}

impl Decoder {
    pub(super) fn length(length: u64) -> Self {
        if length == 0 { Decoder::Empty } else { Decoder::Length(length) }
    }

    pub(super) fn chunked() -> Self {
        Decoder::Chunked(Chunked::default())
    }

    /// True once the whole body was taken.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Decoder::Empty => true,
            Decoder::Length(_) | Decoder::UntilClose | Decoder::Tunnel => false,
            Decoder::Chunked(chunked) => chunked.state == ChunkState::Done,
        }
    }

    /// True when the end of the connection is a clean end of the body.
    pub(super) fn ends_with_connection(&self) -> bool {
        matches!(self, Decoder::UntilClose | Decoder::Tunnel)
    }

    pub(super) fn decode(&mut self, buffer: &mut ReadBuffer, limits: &HttpLimits) -> Result<Decoded, Rejection> {
        let available = buffer.bytes.len();
        match self {
            Decoder::Empty => Ok(Decoded::End),
            _ if available == 0 && !self.is_done() => Ok(Decoded::NeedMore),
            Decoder::UntilClose | Decoder::Tunnel => Ok(Decoded::Data(buffer.take(available))),
            Decoder::Length(left) => {
                let count = take_at_most(*left, available);
                *left -= count as u64;
                let data = buffer.take(count);
                if *left == 0 {
                    *self = Decoder::Empty;
                }
                Ok(Decoded::Data(data))
            }
            Decoder::Chunked(chunked) => chunked.decode(buffer, limits),
        }
    }
}

impl Chunked {
    fn decode(&mut self, buffer: &mut ReadBuffer, limits: &HttpLimits) -> Result<Decoded, Rejection> {
        loop {
            match self.state {
                ChunkState::Done => return Ok(Decoded::End),
                ChunkState::Trailers => return self.decode_trailers(buffer, limits),
                ChunkState::Data(left) => {
                    let count = take_at_most(left, buffer.bytes.len());
                    if count == 0 {
                        return Ok(Decoded::NeedMore);
                    }
                    let left = left - count as u64;
                    self.state = if left == 0 { ChunkState::DataCr } else { ChunkState::Data(left) };
                    return Ok(Decoded::Data(buffer.take(count)));
                }
                ChunkState::Size { .. }
                | ChunkState::AfterSize(_)
                | ChunkState::Extension(_)
                | ChunkState::SizeLf(_)
                | ChunkState::DataCr
                | ChunkState::DataLf => {
                    let Some(byte) = buffer.bytes.first().copied() else { return Ok(Decoded::NeedMore) };
                    buffer.bytes.advance(1);
                    self.state = self.step(byte, limits)?;
                }
            }
        }
    }

    /// One byte of a chunk's frame.
    //= rfc9112#section-7.1
    fn step(&mut self, byte: u8, limits: &HttpLimits) -> Result<ChunkState, Rejection> {
        let malformed = Err(Rejection { refusal: Refusal::Chunk, reason: "malformed chunk" });
        match (self.state, byte) {
            (ChunkState::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                if digits >= 16 || value >> 60 != 0 {
                    return Err(Rejection { refusal: Refusal::Chunk, reason: "chunk size too large" });
                }
                Ok(ChunkState::Size { value: value << 4 | u64::from(digit), digits: digits + 1 })
            }
            (ChunkState::Size { digits: 0, .. }, _) => malformed,
            (ChunkState::Size { value, .. } | ChunkState::AfterSize(value), b' ' | b'\t') => {
                self.count_extension(limits)?;
                Ok(ChunkState::AfterSize(value))
            }
            (ChunkState::Size { value, .. } | ChunkState::AfterSize(value), b';') => Ok(ChunkState::Extension(value)),
            (ChunkState::Size { value, .. } | ChunkState::AfterSize(value) | ChunkState::Extension(value), b'\r') => {
                Ok(ChunkState::SizeLf(value))
            }
            (ChunkState::Extension(value), b'\t' | b' '..=b'~' | 0x80..) => {
                self.count_extension(limits)?;
                Ok(ChunkState::Extension(value))
            }
            (ChunkState::SizeLf(0), b'\n') => Ok(ChunkState::Trailers),
            (ChunkState::SizeLf(value), b'\n') => Ok(ChunkState::Data(value)),
            (ChunkState::DataCr, b'\r') => Ok(ChunkState::DataLf),
            (ChunkState::DataLf, b'\n') => Ok(ChunkState::default()),
            (_, _) => malformed,
        }
    }

    /// Extensions are read over, but not without end: a peer could send bytes for ever that carry nothing.
    //= rfc9112#section-7.1.1
    fn count_extension(&mut self, limits: &HttpLimits) -> Result<(), Rejection> {
        self.extension_bytes += 1;
        if self.extension_bytes > limits.chunk_extension_bytes {
            return Err(Rejection { refusal: Refusal::ContentTooLarge, reason: "chunk extensions" });
        }
        Ok(())
    }

    fn decode_trailers(&mut self, buffer: &mut ReadBuffer, limits: &HttpLimits) -> Result<Decoded, Rejection> {
        let bytes = &buffer.bytes;
        if bytes.starts_with(b"\r\n") {
            buffer.bytes.advance(2);
            self.state = ChunkState::Done;
            return Ok(Decoded::End);
        }
        let parsed = if bytes[self.searched.min(bytes.len())..].contains(&b'\n') {
            parse::trailers(bytes, limits)?
        } else {
            None
        };
        self.searched = bytes.len();
        match parsed {
            Some((map, consumed)) if consumed <= limits.trailer_bytes => {
                buffer.bytes.advance(consumed);
                self.state = ChunkState::Done;
                Ok(if map.is_empty() { Decoded::End } else { Decoded::Trailers(map) })
            }
            None if bytes.len() <= limits.trailer_bytes => Ok(Decoded::NeedMore),
            Some(_) | None => Err(Rejection { refusal: Refusal::HeadTooLarge, reason: "trailers" }),
        }
    }
}

fn take_at_most(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

//! Frames, settings and variable-length integers (RFC 9114 section 7, RFC 9000 section 16) as pure functions of bytes.
//! The decoder takes bytes in any division and never holds more than one bounded frame payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use super::Code;

/// A breach that ends the connection with `code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Violation {
    pub code: u64,
    pub reason: &'static str,
}

impl Violation {
    pub(super) const fn new(code: u64, reason: &'static str) -> Self {
        Violation { code, reason }
    }
}

/// Which side of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// Which kind of stream frames are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Request,
    Control,
}

/// Bounds on what one stream may make us hold or skip.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Payload of a HEADERS frame.
    pub headers: usize,
    /// Payload of a SETTINGS frame.
    pub settings: usize,
    /// Payload of a frame of unknown type.
    pub unknown: u64,
    /// Frames in a row that carry nothing (unknown types, empty DATA).
    pub idle_frames: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { headers: 64 * 1024, settings: 4096, unknown: 64 * 1024, idle_frames: 256 }
    }
}

/// Event that a stream of frames yields.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Part of a DATA payload, never empty.
    Data(Bytes),
    /// A whole encoded field section.
    Headers(Bytes),
    /// A field section above `Bounds::headers`; its bytes are skipped.
    Oversize,
    Settings(Settings),
    GoAway(u64),
    CancelPush(u64),
    MaxPushId(u64),
    /// The message ends here as failed, with this code: Weft's own frame, which only follows our own setting.
    Abort(u64),
}

const DATA: u64 = 0x0;
const HEADERS: u64 = 0x1;
const CANCEL_PUSH: u64 = 0x3;
const SETTINGS: u64 = 0x4;
const PUSH_PROMISE: u64 = 0x5;
const GOAWAY: u64 = 0x7;
const MAX_PUSH_ID: u64 = 0xd;
/// Weft's own frame type, far from those of the RFCs and none of those reserved for grease (0x1f * N + 0x21).
pub(super) const ABORT: u64 = 0x2577_6566;

/// Decodes a whole stream's bytes: the plain form, for tools and fuzzing.
pub fn decode(bytes: &[u8], role: Role, place: Place, bounds: Bounds) -> Result<Vec<Event>, Violation> {
    let mut decoder = Decoder::new(role, place, bounds);
    decoder.push(Bytes::copy_from_slice(bytes));
    let mut events = Vec::new();
    while let Some(event) = decoder.next()? {
        events.push(event);
    }
    decoder.finish()?;
    Ok(events)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between frames, or within a frame's type and length.
    Header,
    Data(u64),
    /// Collecting a payload that is understood only whole.
    Gather {
        kind: u64,
        length: usize,
    },
    Skip(u64),
}

/// Turns the bytes of one stream into events. DATA and whole payloads are slices of what was pushed, not copies.
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    place: Place,
    bounds: Bounds,
    state: State,
    settings_seen: bool,
    idle: u32,
    buffer: Bytes,
    /// The beginning of a frame header or gathered payload that is split over pushes.
    partial: BytesMut,
}

impl Decoder {
    #[must_use]
    pub fn new(role: Role, place: Place, bounds: Bounds) -> Self {
        Decoder {
            role,
            place,
            bounds,
            state: State::Header,
            settings_seen: false,
            idle: 0,
            buffer: Bytes::new(),
            partial: BytesMut::new(),
        }
    }

    /// Gives the next bytes of the stream; best after `next` returned `None`, so that nothing is copied.
    pub fn push(&mut self, bytes: Bytes) {
        if self.buffer.is_empty() {
            self.buffer = bytes;
        } else {
            let mut joined = BytesMut::from(&self.buffer[..]);
            joined.extend_from_slice(&bytes);
            self.buffer = joined.freeze();
        }
    }

    /// The next event; `None` when more bytes are needed.
    #[expect(clippy::should_implement_trait, reason = "it is fallible, and its end is not the end of the stream")]
    pub fn next(&mut self) -> Result<Option<Event>, Violation> {
        loop {
            match self.state {
                State::Header => match self.header() {
                    Some((kind, length)) => {
                        self.state = self.begin(kind, length)?;
                        if matches!(self.state, State::Skip(_)) && kind == HEADERS {
                            return Ok(Some(Event::Oversize));
                        }
                    }
                    None => return Ok(None),
                },
                State::Data(0) | State::Skip(0) => self.state = State::Header,
                State::Data(left) => {
                    let Some(data) = self.take(left) else { return Ok(None) };
                    self.state = State::Data(left - data.len() as u64);
                    self.idle = 0;
                    return Ok(Some(Event::Data(data)));
                }
                State::Skip(left) => {
                    let Some(skipped) = self.take(left) else { return Ok(None) };
                    self.state = State::Skip(left - skipped.len() as u64);
                }
                State::Gather { kind, length } => {
                    let Some(payload) = self.gather(length) else { return Ok(None) };
                    self.state = State::Header;
                    self.idle = 0;
                    return self.payload(kind, payload).map(Some);
                }
            }
        }
    }

    /// True between frames with no byte left over.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        let between = matches!(self.state, State::Header | State::Data(0) | State::Skip(0));
        between && self.is_drained() && self.partial.is_empty()
    }

    /// True when every pushed byte has been looked at.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The stream has ended: was it between frames?
    pub fn finish(&self) -> Result<(), Violation> {
        //= rfc9114#section-7.1
        // A frame cut off by the end of its stream is a connection error.
        if self.is_between_frames() { Ok(()) } else { Err(Violation::new(Code::FRAME_ERROR, "truncated frame")) }
    }

    fn take(&mut self, left: u64) -> Option<Bytes> {
        if self.buffer.is_empty() {
            return None;
        }
        let take = usize::try_from(left).map_or(self.buffer.len(), |left| left.min(self.buffer.len()));
        Some(self.buffer.split_to(take))
    }

    fn header(&mut self) -> Option<(u64, u64)> {
        if self.partial.is_empty()
            && let Some((kind, length, used)) = frame_header(&self.buffer)
        {
            self.buffer.advance(used);
            return Some((kind, length));
        }
        // Split over pushes: at most 16 bytes move one by one.
        while self.buffer.has_remaining() {
            self.partial.put_u8(self.buffer.get_u8());
            if let Some((kind, length, _)) = frame_header(&self.partial) {
                self.partial.clear();
                return Some((kind, length));
            }
        }
        None
    }

    fn gather(&mut self, length: usize) -> Option<Bytes> {
        if self.partial.is_empty() && self.buffer.len() >= length {
            return Some(self.buffer.split_to(length));
        }
        let missing = length - self.partial.len();
        let take = missing.min(self.buffer.len());
        self.partial.extend_from_slice(&self.buffer.split_to(take));
        (take == missing).then(|| self.partial.split().freeze())
    }

    /// Judges a frame by its type and length, before any of its payload is held.
    fn begin(&mut self, kind: u64, length: u64) -> Result<State, Violation> {
        let unexpected = |reason| Err(Violation::new(Code::FRAME_UNEXPECTED, reason));
        //= rfc9114#section-6.2.1
        if self.place == Place::Control && !self.settings_seen && kind != SETTINGS {
            return Err(Violation::new(Code::MISSING_SETTINGS, "first frame is not SETTINGS"));
        }
        match (kind, self.place) {
            (DATA, Place::Request) => {
                if length == 0 {
                    self.count_idle()?;
                }
                Ok(State::Data(length))
            }
            (HEADERS, Place::Request) => match usize::try_from(length) {
                Ok(length) if length <= self.bounds.headers => Ok(State::Gather { kind, length }),
                _ => Ok(State::Skip(length)),
            },
            (ABORT, Place::Request) => match usize::try_from(length) {
                Ok(length @ 1..=8) => Ok(State::Gather { kind, length }),
                _ => Err(Violation::new(Code::FRAME_ERROR, "frame of one integer has another length")),
            },
            (DATA | HEADERS | ABORT, Place::Control) => unexpected("message frame on the control stream"),
            (PUSH_PROMISE, Place::Request) if self.role == Role::Client => {
                Err(Violation::new(Code::ID_ERROR, "push without MAX_PUSH_ID"))
            }
            (PUSH_PROMISE, _) => unexpected("PUSH_PROMISE"),
            (CANCEL_PUSH | SETTINGS | GOAWAY | MAX_PUSH_ID, Place::Request) => {
                unexpected("control frame on a request stream")
            }
            (SETTINGS, Place::Control) if self.settings_seen => unexpected("second SETTINGS"),
            (SETTINGS, Place::Control) => match usize::try_from(length) {
                Ok(length) if length <= self.bounds.settings => Ok(State::Gather { kind, length }),
                _ => Err(Violation::new(Code::EXCESSIVE_LOAD, "SETTINGS too long")),
            },
            (MAX_PUSH_ID, Place::Control) if self.role == Role::Client => unexpected("MAX_PUSH_ID from a server"),
            (CANCEL_PUSH | GOAWAY | MAX_PUSH_ID, Place::Control) => match usize::try_from(length) {
                Ok(length) if length <= 8 => Ok(State::Gather { kind, length }),
                _ => Err(Violation::new(Code::FRAME_ERROR, "frame of one integer too long")),
            },
            //= rfc9114#section-11.2.1
            // Types that only HTTP/2 has.
            (0x2 | 0x6 | 0x8 | 0x9, _) => unexpected("reserved frame type"),
            //= rfc9114#section-9
            // Unknown types are ignored, within limits.
            _ if length > self.bounds.unknown => Err(Violation::new(Code::EXCESSIVE_LOAD, "unknown frame too long")),
            _ => {
                self.count_idle()?;
                Ok(State::Skip(length))
            }
        }
    }

    fn count_idle(&mut self) -> Result<(), Violation> {
        self.idle += 1;
        if self.idle > self.bounds.idle_frames {
            return Err(Violation::new(Code::EXCESSIVE_LOAD, "too many frames without content"));
        }
        Ok(())
    }

    fn payload(&mut self, kind: u64, payload: Bytes) -> Result<Event, Violation> {
        match kind {
            HEADERS => Ok(Event::Headers(payload)),
            SETTINGS => {
                self.settings_seen = true;
                Settings::decode(&payload).map(Event::Settings)
            }
            _ => {
                let id = match read_varint(&payload) {
                    Some((id, used)) if used == payload.len() => id,
                    _ => return Err(Violation::new(Code::FRAME_ERROR, "frame of one integer has another length")),
                };
                Ok(match kind {
                    GOAWAY => Event::GoAway(id),
                    CANCEL_PUSH => Event::CancelPush(id),
                    ABORT => Event::Abort(id),
                    _ => Event::MaxPushId(id),
                })
            }
        }
    }
}

fn frame_header(bytes: &[u8]) -> Option<(u64, u64, usize)> {
    let (kind, first) = read_varint(bytes)?;
    let (length, second) = read_varint(bytes.get(first..)?)?;
    Some((kind, length, first + second))
}

/// The settings that concern us; the others are ignored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// The largest field section that the sender of the settings takes.
    pub max_field_section_size: Option<u64>,
    /// Extended CONNECT (RFC 9220).
    pub connect_protocol: bool,
    /// The sender of the settings understands [`Event::Abort`].
    pub aborts: bool,
}

const MAX_FIELD_SECTION_SIZE: u64 = 0x6;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x8;
const H3_DATAGRAM: u64 = 0x33;
/// Weft's own setting, chosen as [`ABORT`] is.
pub(super) const ABORTS: u64 = 0x2577_6567;
const MOST_SETTINGS: usize = 64;

impl Settings {
    /// Parses the payload of a SETTINGS frame.
    pub fn decode(mut payload: &[u8]) -> Result<Settings, Violation> {
        let error = |reason| Violation::new(Code::SETTINGS_ERROR, reason);
        let mut settings = Settings::default();
        let mut seen = SmallVec::<[u64; 8]>::new();
        while !payload.is_empty() {
            let (id, value, used) =
                frame_header(payload).ok_or(Violation::new(Code::FRAME_ERROR, "truncated setting"))?;
            payload = &payload[used..];
            //= rfc9114#section-7.2.4
            if seen.contains(&id) {
                return Err(error("setting given twice"));
            }
            if seen.len() == MOST_SETTINGS {
                return Err(Violation::new(Code::EXCESSIVE_LOAD, "too many settings"));
            }
            seen.push(id);
            let flag = |value| match value {
                0 => Ok(false),
                1 => Ok(true),
                _ => Err(error("setting is neither 0 nor 1")),
            };
            match id {
                MAX_FIELD_SECTION_SIZE => settings.max_field_section_size = Some(value),
                ENABLE_CONNECT_PROTOCOL => settings.connect_protocol = flag(value)?,
                //= rfc9297#section-2.1.1
                // Nobody here reads datagrams or announces them; a peer that offers them keeps to the form.
                H3_DATAGRAM => drop(flag(value)?),
                ABORTS => settings.aborts = flag(value)?,
                //= rfc9114#section-7.2.4.1
                0x0 | 0x2..=0x5 => return Err(error("setting of HTTP/2")),
                _ => {}
            }
        }
        Ok(settings)
    }

    /// Appends a SETTINGS frame.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut payload = BytesMut::new();
        let mut put = |id, value| {
            write_varint(&mut payload, id);
            write_varint(&mut payload, value);
        };
        if let Some(size) = self.max_field_section_size {
            put(MAX_FIELD_SECTION_SIZE, size);
        }
        if self.connect_protocol {
            put(ENABLE_CONNECT_PROTOCOL, 1);
        }
        if self.aborts {
            put(ABORTS, 1);
        }
        write_varint(out, SETTINGS);
        write_varint(out, payload.len() as u64);
        out.put_slice(&payload);
    }
}

/// Appends a GOAWAY frame.
pub fn write_goaway(out: &mut BytesMut, id: u64) {
    let mut payload = BytesMut::new();
    write_varint(&mut payload, id);
    write_varint(out, GOAWAY);
    write_varint(out, payload.len() as u64);
    out.put_slice(&payload);
}

/// Appends an ABORT frame.
pub fn write_abort(out: &mut BytesMut, code: u64) {
    let mut payload = BytesMut::new();
    write_varint(&mut payload, code);
    write_varint(out, ABORT);
    write_varint(out, payload.len() as u64);
    out.put_slice(&payload);
}

/// Appends the header of a DATA frame of `length` bytes.
pub fn write_data_header(out: &mut BytesMut, length: usize) {
    write_varint(out, DATA);
    write_varint(out, length as u64);
}

/// Appends a HEADERS frame whose field section `section` writes; its length is filled in afterwards.
pub(super) fn write_headers<R>(out: &mut BytesMut, section: impl FnOnce(&mut BytesMut) -> R) -> R {
    let start = out.len();
    out.put_slice(&[low_octet(HEADERS), 0, 0, 0, 0]);
    let result = section(out);
    // A four byte integer: its two top bits say so, 30 are left for the length.
    let length = u32::try_from(out.len() - start - 5).unwrap_or(u32::MAX) & 0x3fff_ffff;
    out[start + 1..start + 5].copy_from_slice(&(length | 0x8000_0000).to_be_bytes());
    result
}

/// Reads a variable-length integer at the start of `bytes`: its value and length; `None` if it is not all there.
#[must_use]
pub fn read_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1_usize << (first >> 6);
    let mut value = u64::from(first & 0x3f);
    for &octet in bytes.get(1..length)? {
        value = (value << 8) | u64::from(octet);
    }
    Some((value, length))
}

/// Appends a variable-length integer; values above 62 bits are cut to them.
pub fn write_varint(out: &mut BytesMut, value: u64) {
    let octets = value.to_be_bytes();
    match value {
        0..0x40 => out.put_u8(low_octet(value)),
        0x40..0x4000 => out.put_slice(&[octets[6] | 0x40, octets[7]]),
        0x4000..0x4000_0000 => out.put_slice(&[octets[4] | 0x80, octets[5], octets[6], octets[7]]),
        _ => out.put_u64((value & ((1 << 62) - 1)) | (0b11 << 62)),
    }
}

fn low_octet(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

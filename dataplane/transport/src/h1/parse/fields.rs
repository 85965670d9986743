//! The header fields of one message, with everything that concerns this connection taken out and kept beside: framing,
//! persistence, upgrade. Pure.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderName, TE};
use http::{HeaderMap, HeaderValue, Version};
use smallvec::SmallVec;

use super::{Refusal, Rejection};
use crate::block;
use crate::http::{HttpLimits, UpgradeToken, is_internal};

/// One exact copy of a head, which the values parsed from it share, so that a head costs one allocation, not one a field.
pub(super) struct Shared<'b> {
    original: &'b [u8],
    copy: Bytes,
}

impl<'b> Shared<'b> {
    pub(super) fn new(original: &'b [u8]) -> Self {
        Self { original, copy: block::copy(original) }
    }

    /// `part` is a subslice of the original; the same range of the copy.
    pub(super) fn slice(&self, part: &[u8]) -> Bytes {
        let start = (part.as_ptr() as usize).wrapping_sub(self.original.as_ptr() as usize);
        if part.is_empty() { Bytes::new() } else { self.copy.slice(start..start + part.len()) }
    }

    pub(super) fn value(&self, part: &[u8]) -> Result<HeaderValue, &'static str> {
        HeaderValue::from_maybe_shared(self.slice(part)).map_err(|_| "malformed header value")
    }

    /// The byte after `part` in the original: CR, unless white space follows a value.
    fn byte_after(&self, part: &[u8]) -> Option<u8> {
        let end = (part.as_ptr() as usize).wrapping_sub(self.original.as_ptr() as usize) + part.len();
        self.original.get(end).copied()
    }
}

/// Which message the fields belong to: `host` frames a request and is an ordinary field of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Request,
    Response,
}

#[derive(Default)]
pub(super) struct Fields {
    pub(super) map: HeaderMap,
    pub(super) host: Option<Bytes>,
    pub(super) content_length: Option<u64>,
    pub(super) transfer_encoding: TransferEncoding,
    /// Of a request the first protocol of `Upgrade` that is carried.
    pub(super) asked: Option<UpgradeToken>,
    /// Of a response the whole field `Upgrade`.
    pub(super) upgrade: Option<Bytes>,
    /// `connection` names `upgrade`.
    pub(super) upgrade_nominated: bool,
    /// `timeout` of `Keep-Alive`.
    pub(super) keep_alive_timeout: Option<Duration>,
    close: bool,
    keep_alive: bool,
    trailers_wanted: bool,
    nominated: SmallVec<[HeaderName; 2]>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransferEncoding {
    #[default]
    Absent,
    Chunked,
    /// A coding that is well formed and not known here.
    Unknown,
    Malformed,
}

/// Fields that a proxy may add to a request on the way; room for them from the start spares growing the map.
const ADDED: usize = 4;

impl Fields {
    pub(super) fn collect(raw: &[httparse::Header<'_>], shared: &Shared<'_>, of: Of) -> Result<Self, Rejection> {
        let added = if of == Of::Request { ADDED } else { 0 };
        let mut fields = Fields { map: HeaderMap::with_capacity(raw.len() + added), ..Fields::default() };
        for field in raw {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| "malformed header name")?;
            match name.as_str() {
                "host" if of == Of::Request => {
                    if fields.host.replace(shared.slice(field.value)).is_some() {
                        return Err(Rejection { refusal: Refusal::Host, reason: "more than one host field" });
                    }
                }
                "content-length" => fields.content_length(field.value, shared)?,
                "transfer-encoding" => fields.transfer_encoding(field.value, shared),
                "connection" => fields.connection(field.value)?,
                "te" => fields.trailers_wanted |= tokens(field.value).any(|t| t.eq_ignore_ascii_case(b"trailers")),
                "upgrade" if of == Of::Request => fields.upgrade(field.value, shared),
                "upgrade" => fields.upgrade = Some(shared.slice(field.value)),
                "keep-alive" => fields.keep_alive_timeout = keep_alive_timeout(field.value),
                _ if is_hop_by_hop(&name) || (of == Of::Response && is_internal(&name)) => {}
                _ => {
                    fields.map.append(name, shared.value(field.value)?);
                }
            }
        }
        Ok(fields)
    }

    //= rfc9112#section-6.3
    fn content_length(&mut self, value: &[u8], shared: &Shared<'_>) -> Result<(), Rejection> {
        let refused = |reason| Rejection { refusal: Refusal::Framing, reason };
        let length = decimal(value).ok_or(refused("malformed content-length"))?;
        if self.content_length.is_some_and(|known| known != length) {
            return Err(refused("content-length fields disagree"));
        }
        if self.content_length.replace(length).is_none() {
            let plain = value.len() == 1 || value[0] != b'0';
            let value = if plain { shared.value(value)? } else { HeaderValue::from(length) };
            self.map.insert(CONTENT_LENGTH, value);
        }
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8], shared: &Shared<'_>) {
        let well_formed = shared.byte_after(value) == Some(b'\r');
        self.transfer_encoding = match self.transfer_encoding {
            TransferEncoding::Absent if well_formed && value.eq_ignore_ascii_case(b"chunked") => {
                TransferEncoding::Chunked
            }
            TransferEncoding::Absent
                if well_formed && tokens(value).all(|token| !is_chunked_like(token)) && !value.is_empty() =>
            {
                TransferEncoding::Unknown
            }
            TransferEncoding::Absent
            | TransferEncoding::Chunked
            | TransferEncoding::Unknown
            | TransferEncoding::Malformed => TransferEncoding::Malformed,
        };
    }

    fn connection(&mut self, value: &[u8]) -> Result<(), &'static str> {
        for token in tokens(value) {
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade_nominated = true;
            } else {
                self.nominated.push(HeaderName::from_bytes(token).map_err(|_| "malformed connection field")?);
            }
        }
        Ok(())
    }

    /// A request that asks for none that is carried stays what it is.
    //= rfc9110#section-7.8
    fn upgrade(&mut self, value: &[u8], shared: &Shared<'_>) {
        if self.asked.is_none() {
            self.asked = tokens(value).find_map(|token| UpgradeToken::new(shared.slice(token)));
        }
    }

    //= rfc9112#section-9.3
    pub(super) fn keep_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep_alive)
    }

    /// The fields that go on; `te` comes back as `trailers` alone.
    pub(super) fn into_end_to_end(mut self) -> HeaderMap {
        for name in &self.nominated {
            self.map.remove(name);
        }
        if self.trailers_wanted {
            self.map.insert(TE, HeaderValue::from_static("trailers"));
        }
        self.map
    }
}

/// True for fields that concern one connection only. `te` and `trailer` are judged apart.
//= rfc9110#section-7.6.1
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" | "http2-settings"
    )
}

/// True for a field that a trailer section may not hold.
//= rfc9110#section-6.5.1
pub(super) fn frames_or_routes(name: &HeaderName) -> bool {
    is_hop_by_hop(name) || matches!(*name, HOST | CONTENT_LENGTH | TE) || name.as_str() == "trailer"
}

/// The size of fields as HTTP/2 and HTTP/3 count it: what fits here fits there.
//= rfc9114#section-4.2.2
pub(super) fn fit(raw: &[httparse::Header<'_>], limits: &HttpLimits) -> bool {
    let size: usize = raw.iter().map(|field| field.name.len() + field.value.len() + 32).sum();
    size <= limits.head_bytes
}

/// Digits only, no sign, no list, no white space, within 64 bits.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// `timeout=5` among the parameters of `Keep-Alive`, in seconds.
fn keep_alive_timeout(value: &[u8]) -> Option<Duration> {
    let seconds = tokens(value).find_map(|token| {
        let (name, value) = token.split_at_checked("timeout=".len())?;
        name.eq_ignore_ascii_case(b"timeout=").then(|| decimal(value.trim_ascii()))?
    });
    seconds.map(Duration::from_secs)
}

pub(super) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Anything that some parser might take for `chunked`, or that hides it.
fn is_chunked_like(token: &[u8]) -> bool {
    let plain = token.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b));
    !plain || token.eq_ignore_ascii_case(b"identity") || token.to_ascii_lowercase().windows(5).any(|w| w == b"chunk")
}

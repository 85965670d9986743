//! Field sections as HTTP messages (RFC 9114 section 4): pseudo-header rules, forbidden fields, cookies, content-length.
//! Pure: bytes to heads and back. A head that comes out of here can be sent on as it is.

use bytes::{BufMut, Bytes, BytesMut};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

use super::Limits;
use crate::http::{Added, RequestHead, ResponseHead, Target, is_plain};
use crate::qpack::{self, Encoder, Error, Pseudo, Sink};
use crate::upgrade;

/// A decoded head and what its `content-length` promised.
#[derive(Debug)]
pub struct Decoded<T> {
    pub head: T,
    pub content_length: Option<u64>,
}

/// Decodes and validates the field section of a request.
pub fn decode_request(section: &Bytes, limits: &Limits) -> Result<Decoded<RequestHead>, Error> {
    let fields = Fields::expected_in(section, limits);
    let mut request = RequestSink { path_bytes: limits.path_bytes, fields, ..RequestSink::default() };
    qpack::decode_into(section, &limits.section(), &mut request)?;
    request.finish()
}

/// Decodes and validates the field section of a response, interim or final.
pub fn decode_response(section: &Bytes, limits: &Limits) -> Result<Decoded<ResponseHead>, Error> {
    let mut response = ResponseSink { fields: Fields::expected_in(section, limits), ..ResponseSink::default() };
    qpack::decode_into(section, &limits.section(), &mut response)?;
    let status = response.status.ok_or(Error::Field("no :status"))?;
    let content_length = response.fields.content_length;
    Ok(Decoded { head: ResponseHead { status, headers: response.fields.finish()? }, content_length })
}

/// Decodes and validates trailers.
pub fn decode_trailers(section: &Bytes, limits: &Limits) -> Result<HeaderMap, Error> {
    let mut trailers = TrailerSink::default();
    qpack::decode_into(section, &limits.section(), &mut trailers)?;
    trailers.0.finish()
}

/// The ordinary fields of a section, checked one by one.
#[derive(Default)]
struct Fields {
    map: HeaderMap,
    content_length: Option<u64>,
    cookie: Option<HeaderValue>,
    /// Holds all crumbs once there is more than one.
    crumbs: BytesMut,
}

/// Bytes that a field usually takes in a section, and fields that a proxy may add to it on the way.
const USUAL_BYTES: usize = 32;
const ADDED: usize = 3;

impl Fields {
    /// With room for what a section of this size usually holds, so that the map neither grows nor wastes.
    fn expected_in(section: &Bytes, limits: &Limits) -> Self {
        let expected = (section.len() / USUAL_BYTES).min(limits.header_fields);
        Self { map: HeaderMap::with_capacity(expected + ADDED), ..Self::default() }
    }

    /// Takes a field that is not `host`.
    fn take(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Error> {
        //= rfc9114#section-10.3
        if !is_exact(&value) {
            return Err(Error::Field("blank around a field value"));
        }
        match name.as_str() {
            //= rfc9114#section-4.2
            "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => {
                return Err(Error::Field("connection-specific field"));
            }
            "te" if !value.as_bytes().eq_ignore_ascii_case(b"trailers") => {
                return Err(Error::Field("te other than trailers"));
            }
            "content-length" => {
                let length = decimal(value.as_bytes()).ok_or(Error::Field("content-length"))?;
                if let Some(earlier) = self.content_length.replace(length) {
                    return if earlier == length { Ok(()) } else { Err(Error::Field("content-lengths differ")) };
                }
            }
            "cookie" => {
                self.take_cookie(value);
                return Ok(());
            }
            _ => {}
        }
        self.map.try_append(name, value).map_err(|_| Error::Limit("header fields"))?;
        Ok(())
    }

    //= rfc9114#section-4.2.1
    // Crumbs are joined before they leave HTTP/3.
    fn take_cookie(&mut self, value: HeaderValue) {
        let Some(first) = &self.cookie else {
            self.cookie = Some(value);
            return;
        };
        // Nothing to add, and a separator at the end would leave a blank there.
        if value.is_empty() {
            return;
        }
        if self.crumbs.is_empty() {
            self.crumbs.put_slice(first.as_bytes());
        }
        self.crumbs.put_slice(b"; ");
        self.crumbs.put_slice(value.as_bytes());
    }

    fn finish(mut self) -> Result<HeaderMap, Error> {
        let cookie = if self.crumbs.is_empty() {
            self.cookie
        } else {
            let joined = HeaderValue::from_maybe_shared(self.crumbs.freeze());
            Some(joined.map_err(|_| Error::Field("field value"))?)
        };
        if let Some(cookie) = cookie {
            self.map.try_append(header::COOKIE, cookie).map_err(|_| Error::Limit("header fields"))?;
        }
        Ok(self.map)
    }
}

/// True where a value neither begins nor ends with a blank or a tab, which are no part of it (RFC 9110 section 5.5).
fn is_exact(value: &HeaderValue) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let bytes = value.as_bytes();
    !blank(bytes.first()) && !blank(bytes.last())
}

/// Digits only, no sign, no list, at most 62 bits of it.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

#[derive(Default)]
struct RequestSink {
    path_bytes: usize,
    method: Option<Method>,
    scheme: Option<Bytes>,
    authority: Option<Authority>,
    path: Option<Target>,
    protocol: Option<Bytes>,
    host: Option<HeaderValue>,
    fields_began: bool,
    fields: Fields,
}

impl Sink for RequestSink {
    fn pseudo(&mut self, name: Pseudo, value: Bytes) -> Result<(), Error> {
        //= rfc9114#section-4.3
        if self.fields_began {
            return Err(Error::Field("pseudo-header field after a field"));
        }
        let twice = match name {
            Pseudo::Method => {
                let method = Method::from_bytes(&value).map_err(|_| Error::Field(":method"))?;
                self.method.replace(method).is_some()
            }
            Pseudo::Scheme => {
                if !value.eq_ignore_ascii_case(b"https") && !value.eq_ignore_ascii_case(b"http") {
                    return Err(Error::Field(":scheme"));
                }
                self.scheme.replace(value).is_some()
            }
            Pseudo::Authority => self.authority.replace(authority(value)?).is_some(),
            Pseudo::Path => {
                if value.len() > self.path_bytes {
                    return Err(Error::Limit("path bytes"));
                }
                self.path.replace(path(value)?).is_some()
            }
            Pseudo::Protocol => {
                if HeaderName::from_bytes(&value).is_err() {
                    return Err(Error::Field(":protocol"));
                }
                self.protocol.replace(value).is_some()
            }
            Pseudo::Status => return Err(Error::Field(":status in a request")),
        };
        if twice { Err(Error::Field("pseudo-header field given twice")) } else { Ok(()) }
    }

    fn field(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Error> {
        self.fields_began = true;
        if name == header::HOST {
            return match self.host.replace(value) {
                Some(_) => Err(Error::Field("host given twice")),
                None => Ok(()),
            };
        }
        self.fields.take(name, value)
    }
}

impl RequestSink {
    fn finish(mut self) -> Result<Decoded<RequestHead>, Error> {
        let method = self.method.take().ok_or(Error::Field("no :method"))?;
        let plain_connect = method == Method::CONNECT && self.protocol.is_none();
        //= rfc9114#section-4.4
        if plain_connect && (self.scheme.is_some() || self.path.is_some()) {
            return Err(Error::Field(":scheme or :path with CONNECT"));
        }
        if !plain_connect {
            //= rfc9114#section-4.3.1
            if self.scheme.is_none() {
                return Err(Error::Field("no :scheme"));
            }
            let path = self.path.as_ref().ok_or(Error::Field("no :path"))?;
            if path.is_asterisk() && method != Method::OPTIONS {
                return Err(Error::Field(":path"));
            }
        }
        //= rfc9220#section-3
        if self.protocol.is_some() && method != Method::CONNECT {
            return Err(Error::Field(":protocol without CONNECT"));
        }
        let authority = match (self.authority.take(), self.host.take()) {
            (None, None) => return Err(Error::Field("neither :authority nor host")),
            (None, Some(_)) if method == Method::CONNECT => return Err(Error::Field("no :authority with CONNECT")),
            (None, Some(host)) => authority(Bytes::copy_from_slice(host.as_bytes()))?,
            (Some(authority), Some(host)) if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
                return Err(Error::Field("host differs from :authority"));
            }
            (Some(authority), _) => authority,
        };
        let content_length = self.fields.content_length;
        let mut headers = self.fields.finish()?;
        let (method, protocol) = match self.protocol {
            None => (method, None),
            //= rfc9220#section-3
            Some(protocol) => {
                let asked = upgrade::from_wire(&protocol, &mut headers, true);
                asked.map(|(method, token)| (method, Some(token))).ok_or(Error::Protocol)?
            }
        };
        let head = RequestHead {
            method,
            authority: Some(authority),
            path: self.path,
            protocol,
            headers,
            version: Version::HTTP_3,
        };
        Ok(Decoded { head, content_length })
    }
}

fn authority(value: Bytes) -> Result<Authority, Error> {
    //= rfc9114#section-4.3.1
    // Neither empty nor with userinfo; and with nothing that only some parsers take.
    let authority = Authority::from_maybe_shared(value).map_err(|_| Error::Field(":authority"))?;
    if authority.host().is_empty() || !is_plain(&authority) {
        return Err(Error::Field(":authority"));
    }
    Ok(authority)
}

fn path(value: Bytes) -> Result<Target, Error> {
    Target::from_shared(value).map_err(|_| Error::Field(":path"))
}

#[derive(Default)]
struct ResponseSink {
    status: Option<StatusCode>,
    fields_began: bool,
    fields: Fields,
}

impl Sink for ResponseSink {
    fn pseudo(&mut self, name: Pseudo, value: Bytes) -> Result<(), Error> {
        if self.fields_began {
            return Err(Error::Field("pseudo-header field after a field"));
        }
        if name != Pseudo::Status {
            return Err(Error::Field("request pseudo-header field in a response"));
        }
        let status = StatusCode::from_bytes(&value).map_err(|_| Error::Field(":status"))?;
        //= rfc9114#section-4.5
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::Field("101 in HTTP/3"));
        }
        match self.status.replace(status) {
            Some(_) => Err(Error::Field("pseudo-header field given twice")),
            None => Ok(()),
        }
    }

    fn field(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Error> {
        self.fields_began = true;
        self.fields.take(name, value)
    }
}

#[derive(Default)]
struct TrailerSink(Fields);

impl Sink for TrailerSink {
    fn pseudo(&mut self, _: Pseudo, _: Bytes) -> Result<(), Error> {
        Err(Error::Field("pseudo-header field in trailers"))
    }

    fn field(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Error> {
        self.0.take(name, value)
    }
}

/// Why a request can't be written as HTTP/3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("request has no {0}")]
pub struct Missing(pub &'static str);

/// Appends the field section of a request, with what this hop adds to it; gives its size by RFC 9114 section 4.2.2.
pub fn encode_request(
    out: &mut BytesMut,
    head: &RequestHead,
    added: &Added<'_>,
    huffman: bool,
) -> Result<usize, Missing> {
    let authority = head.authority.as_ref().or(added.authority).ok_or(Missing("authority"))?;
    let asked = head.protocol.as_ref().map(|token| upgrade::to_wire(&head.method, token));
    let method = if asked.is_some() { &Method::CONNECT } else { &head.method };
    let mut encoder = Encoder::new(out, huffman);
    encoder.pseudo(Pseudo::Method, method.as_str().as_bytes());
    if *method != Method::CONNECT || asked.is_some() {
        let path = head.path.as_ref().ok_or(Missing("path"))?;
        encoder.pseudo(Pseudo::Scheme, b"https");
        encoder.pseudo(Pseudo::Path, path.as_bytes());
    }
    encoder.pseudo(Pseudo::Authority, authority.as_str().as_bytes());
    if let Some(asked) = asked {
        encoder.pseudo(Pseudo::Protocol, asked.protocol);
        asked.fields.iter().for_each(|(name, value)| encoder.field(name, value));
    }
    encode_fields(&mut encoder, head.headers.iter().filter(|(name, _)| **name != header::HOST));
    for (name, value) in added.fields {
        encoder.field(name, value);
    }
    Ok(encoder.size())
}

/// Appends the field section of a response; gives its size.
pub fn encode_response(out: &mut BytesMut, head: &ResponseHead, huffman: bool) -> usize {
    let mut encoder = Encoder::new(out, huffman);
    encoder.pseudo(Pseudo::Status, head.status.as_str().as_bytes());
    encode_fields(&mut encoder, head.headers.iter());
    encoder.size()
}

/// Appends the field section of trailers; gives its size.
pub fn encode_trailers(out: &mut BytesMut, trailers: &HeaderMap, huffman: bool) -> usize {
    let mut encoder = Encoder::new(out, huffman);
    encode_fields(&mut encoder, trailers.iter().filter(|(name, _)| **name != header::HOST));
    encoder.size()
}

/// Fields that may not be in HTTP/3 are left out, wherever they came from.
fn encode_fields<'f>(encoder: &mut Encoder<'_>, fields: impl Iterator<Item = (&'f HeaderName, &'f HeaderValue)>) {
    for (name, value) in fields {
        match name.as_str() {
            "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => {}
            "te" if !value.as_bytes().eq_ignore_ascii_case(b"trailers") => {}
            _ if is_exact(value) => encoder.field(name, value),
            _ => {
                let trimmed = HeaderValue::from_bytes(value.as_bytes().trim_ascii());
                encoder.field(name, &trimmed.expect("a part of a value is a value"));
            }
        }
    }
}

//! Message heads from bytes. Pure; the one place that decides where a message ends, and it decides only when every
//! reading of the head agrees.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HeaderName, TE};
use http::uri::{Authority, PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use smallvec::SmallVec;

use super::Limits;
use super::decode::Decoder;
use crate::block;
use crate::http::{RequestHead, ResponseHead, is_plain};

#[cfg(test)]
mod tests;

/// The most header fields that any configuration allows in one head.
pub(super) const MAX_FIELDS: usize = 128;

/// A request that will not be served, and the answer it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) status: StatusCode,
    pub(super) reason: &'static str,
}

impl From<&'static str> for Rejection {
    fn from(reason: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, reason }
    }
}

#[derive(Debug)]
pub(super) struct ParsedRequest {
    pub(super) head: RequestHead,
    pub(super) body: Decoder,
    /// What the client asked for; the response may still close.
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
    /// Bytes of the head.
    pub(super) consumed: usize,
}

#[derive(Debug)]
pub(super) struct ParsedResponse {
    pub(super) head: ResponseHead,
    pub(super) body: Decoder,
    pub(super) keep_alive: bool,
    pub(super) consumed: usize,
}

/// What the request was, as far as it shapes the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Head,
    Connect,
    Other,
}

impl From<&Method> for Asked {
    fn from(method: &Method) -> Self {
        if *method == Method::HEAD {
            Asked::Head
        } else if *method == Method::CONNECT {
            Asked::Connect
        } else {
            Asked::Other
        }
    }
}

/// Parses a request head. `None` when more bytes are needed and the limits still allow them.
pub(super) fn request(bytes: &[u8], limits: &Limits) -> Result<Option<ParsedRequest>, Rejection> {
    let mut space = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
    let mut raw = httparse::Request::new(&mut []);
    let fields_allowed = limits.fields.min(MAX_FIELDS);
    let consumed = match raw.parse_with_uninit_headers(bytes, &mut space[..fields_allowed]) {
        Ok(httparse::Status::Complete(consumed)) => consumed,
        Ok(httparse::Status::Partial) => return too_large_yet(bytes, limits).map(|()| None),
        Err(error) => return Err(malformed(error)),
    };
    let path = raw.path.unwrap_or_default();
    if path.len() > limits.uri_bytes {
        return Err(Rejection { status: StatusCode::URI_TOO_LONG, reason: "request target too long" });
    }
    if consumed > limits.head_bytes {
        return Err(Rejection { status: TOO_LARGE, reason: "request head too large" });
    }
    refuse_bare_lf(&bytes[..consumed])?;
    let shared = Shared::new(&bytes[..consumed]);
    let method = Method::from_bytes(raw.method.unwrap_or_default().as_bytes()).map_err(|_| "malformed method")?;
    let version = if raw.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let target = Target::parse(&method, shared.slice(path.as_bytes()))?;
    let fields = Fields::collect(raw.headers, &shared)?;
    let body = request_body(&method, version, &fields)?;
    let keep_alive = fields.keep_alive(version);
    let expects_continue = version == Version::HTTP_11
        && !body.is_done()
        && fields.map.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let head = request_head(method, version, target, fields)?;
    Ok(Some(ParsedRequest { head, body, keep_alive, expects_continue, consumed }))
}

/// Parses a response head; the error says what the server did wrong.
pub(super) fn response(bytes: &[u8], asked: Asked, limits: &Limits) -> Result<Option<ParsedResponse>, &'static str> {
    let mut space = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
    let mut raw = httparse::Response::new(&mut []);
    let fields_allowed = limits.fields.min(MAX_FIELDS);
    let parser = httparse::ParserConfig::default();
    let consumed = match parser.parse_response_with_uninit_headers(&mut raw, bytes, &mut space[..fields_allowed]) {
        Ok(httparse::Status::Complete(consumed)) => consumed,
        Ok(httparse::Status::Partial) if bytes.len() <= limits.head_bytes => return Ok(None),
        Ok(httparse::Status::Partial) => return Err("response head too large"),
        Err(httparse::Error::TooManyHeaders) => return Err("too many header fields in the response"),
        Err(_) => return Err("malformed response head"),
    };
    if consumed > limits.head_bytes {
        return Err("response head too large");
    }
    refuse_bare_lf(&bytes[..consumed])?;
    let status = StatusCode::from_u16(raw.code.unwrap_or_default()).map_err(|_| "status code out of range")?;
    let version = if raw.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let fields = Fields::collect(raw.headers, &Shared::new(&bytes[..consumed]))?;
    let (body, delimited) = response_body(status, asked, version, &fields)?;
    let keep_alive = delimited && fields.keep_alive(version);
    let headers = fields.into_end_to_end();
    Ok(Some(ParsedResponse { head: ResponseHead { status, headers }, body, keep_alive, consumed }))
}

/// Parses the trailer section of a chunked body. Fields that frame or route a message are dropped there.
//= rfc9110#section-6.5.1
pub(super) fn trailers(bytes: &[u8], limits: &Limits) -> Result<Option<(HeaderMap, usize)>, &'static str> {
    let mut space = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let (consumed, raw) = match httparse::parse_headers(bytes, &mut space[..limits.fields.min(MAX_FIELDS)]) {
        Ok(httparse::Status::Complete(complete)) => complete,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err("too many trailer fields"),
        Err(_) => return Err("malformed trailer"),
    };
    refuse_bare_lf(&bytes[..consumed])?;
    let shared = Shared::new(&bytes[..consumed]);
    let mut map = HeaderMap::with_capacity(raw.len());
    for field in raw {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| "malformed trailer name")?;
        if !is_hop_by_hop(&name) && !matches!(name.as_str(), "host" | "content-length" | "trailer" | "te") {
            map.append(name, shared.value(field.value)?);
        }
    }
    Ok(Some((map, consumed)))
}

/// True for fields that concern one connection only. `te` and `trailer` are judged apart.
//= rfc9110#section-7.6.1
pub(super) fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" | "http2-settings"
    )
}

const TOO_LARGE: StatusCode = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;

fn malformed(error: httparse::Error) -> Rejection {
    let reason = match error {
        httparse::Error::TooManyHeaders => return Rejection { status: TOO_LARGE, reason: "too many header fields" },
        httparse::Error::HeaderName => "malformed header name",
        httparse::Error::HeaderValue => "malformed header value",
        httparse::Error::NewLine => "malformed line end",
        httparse::Error::Version => "malformed or unsupported version",
        httparse::Error::Token | httparse::Error::Status => "malformed request line",
    };
    reason.into()
}

/// Judges a head that is not complete yet: a peer may not make us buffer more than the limits.
fn too_large_yet(bytes: &[u8], limits: &Limits) -> Result<(), Rejection> {
    let in_request_line = !bytes.contains(&b'\n');
    if in_request_line && bytes.len() > limits.uri_bytes + REQUEST_LINE_OVERHEAD && bytes.contains(&b' ') {
        return Err(Rejection { status: StatusCode::URI_TOO_LONG, reason: "request target too long" });
    }
    if bytes.len() > limits.head_bytes {
        return Err(Rejection { status: TOO_LARGE, reason: "request head too large" });
    }
    Ok(())
}

/// Method and version around the target of a request line.
const REQUEST_LINE_OVERHEAD: usize = 64;

/// httparse takes a bare LF as a line end, which other parsers read differently: refused. Every CR that httparse lets
/// through is followed by LF, so equal counts mean that every LF has its CR.
//= rfc9112#section-2.2
fn refuse_bare_lf(head: &[u8]) -> Result<(), &'static str> {
    let count = |wanted: u8| head.iter().filter(|byte| **byte == wanted).count();
    if count(b'\n') == count(b'\r') { Ok(()) } else { Err("line ends without CR") }
}

/// One exact copy of a head, which the values parsed from it share, so that a head costs one allocation, not one a field.
struct Shared<'b> {
    original: &'b [u8],
    copy: Bytes,
}

impl<'b> Shared<'b> {
    fn new(original: &'b [u8]) -> Self {
        Self { original, copy: block::copy(original) }
    }

    /// `part` is a subslice of the original; the same range of the copy.
    fn slice(&self, part: &[u8]) -> Bytes {
        let start = (part.as_ptr() as usize).wrapping_sub(self.original.as_ptr() as usize);
        if part.is_empty() { Bytes::new() } else { self.copy.slice(start..start + part.len()) }
    }

    fn value(&self, part: &[u8]) -> Result<HeaderValue, &'static str> {
        HeaderValue::from_maybe_shared(self.slice(part)).map_err(|_| "malformed header value")
    }

    /// The byte after `part` in the original: CR, unless white space follows a value.
    fn byte_after(&self, part: &[u8]) -> Option<u8> {
        let end = (part.as_ptr() as usize).wrapping_sub(self.original.as_ptr() as usize) + part.len();
        self.original.get(end).copied()
    }
}

/// The request target in its four forms.
//= rfc9112#section-3.2
enum Target {
    Origin(PathAndQuery),
    Absolute(Authority, PathAndQuery),
    Authority(Authority),
}

impl Target {
    fn parse(method: &Method, bytes: Bytes) -> Result<Self, Rejection> {
        if *method == Method::CONNECT {
            let authority = plain_authority(bytes)?;
            //= rfc9110#section-9.3.6
            if authority.port_u16().is_none_or(|port| port == 0) || authority.host().is_empty() {
                return Err("CONNECT needs host:port".into());
            }
            return Ok(Target::Authority(authority));
        }
        if bytes.contains(&b'#') {
            return Err("fragment in the request target".into());
        }
        match bytes.first() {
            Some(b'/') => {
                let path = PathAndQuery::from_maybe_shared(bytes).map_err(|_| "malformed request target")?;
                Ok(Target::Origin(path))
            }
            Some(b'*') if bytes.len() == 1 && *method == Method::OPTIONS => {
                Ok(Target::Origin(PathAndQuery::from_static("*")))
            }
            Some(_) | None => Self::absolute(method, bytes),
        }
    }

    fn absolute(method: &Method, bytes: Bytes) -> Result<Self, Rejection> {
        let whole = bytes.len();
        let uri = Uri::from_maybe_shared(bytes).map_err(|_| "malformed request target")?;
        let parts = uri.into_parts();
        if parts.scheme.is_none_or(|scheme| scheme != http::uri::Scheme::HTTP) {
            return Err("request target is not a path or an http URI".into());
        }
        let authority = parts.authority.filter(is_plain).ok_or("request target without a plain authority")?;
        //= rfc9112#section-3.2.4
        let bare = whole == "http://".len() + authority.as_str().len();
        let path = match parts.path_and_query {
            _ if bare && *method == Method::OPTIONS => PathAndQuery::from_static("*"),
            _ if bare => PathAndQuery::from_static("/"),
            Some(path) if path.as_str().starts_with('/') => path,
            Some(path) => {
                PathAndQuery::try_from(format!("/{}", path.as_str())).map_err(|_| "malformed request target")?
            }
            None => PathAndQuery::from_static("/"),
        };
        Ok(Target::Absolute(authority, path))
    }
}

fn plain_authority(bytes: Bytes) -> Result<Authority, &'static str> {
    let authority = Authority::from_maybe_shared(bytes).map_err(|_| "malformed authority")?;
    if is_plain(&authority) { Ok(authority) } else { Err("malformed authority") }
}

/// The header fields of one message, with everything that concerns this connection taken out and kept beside.
#[derive(Default)]
struct Fields {
    map: HeaderMap,
    host: Option<Bytes>,
    content_length: Option<u64>,
    transfer_encoding: TransferEncoding,
    close: bool,
    keep_alive: bool,
    trailers_wanted: bool,
    nominated: SmallVec<[HeaderName; 2]>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum TransferEncoding {
    #[default]
    Absent,
    Chunked,
    /// A coding that is well formed and not known here.
    Unknown,
    Malformed,
}

/// Fields that a proxy may add on the way; room for them from the start spares growing the map.
const ADDED: usize = 4;

impl Fields {
    fn collect(raw: &[httparse::Header<'_>], shared: &Shared<'_>) -> Result<Self, &'static str> {
        let mut fields = Fields { map: HeaderMap::with_capacity(raw.len() + ADDED), ..Fields::default() };
        for field in raw {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| "malformed header name")?;
            match name.as_str() {
                "host" => {
                    if fields.host.replace(shared.slice(field.value)).is_some() {
                        return Err("more than one host field");
                    }
                }
                "content-length" => fields.content_length(field.value, shared)?,
                "transfer-encoding" => fields.transfer_encoding(field.value, shared),
                "connection" => fields.connection(field.value)?,
                "te" => fields.trailers_wanted |= tokens(field.value).any(|t| t.eq_ignore_ascii_case(b"trailers")),
                _ if is_hop_by_hop(&name) => {}
                _ => {
                    fields.map.append(name, shared.value(field.value)?);
                }
            }
        }
        Ok(fields)
    }

    //= rfc9112#section-6.3
    fn content_length(&mut self, value: &[u8], shared: &Shared<'_>) -> Result<(), &'static str> {
        let length = decimal(value).ok_or("malformed content-length")?;
        if self.content_length.is_some_and(|known| known != length) {
            return Err("content-length fields disagree");
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
            } else {
                self.nominated.push(HeaderName::from_bytes(token).map_err(|_| "malformed connection field")?);
            }
        }
        Ok(())
    }

    //= rfc9112#section-9.3
    fn keep_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep_alive)
    }

    /// The fields that go on; `te` comes back as `trailers` alone.
    fn into_end_to_end(mut self) -> HeaderMap {
        for name in &self.nominated {
            self.map.remove(name);
        }
        if self.trailers_wanted {
            self.map.insert(TE, HeaderValue::from_static("trailers"));
        }
        self.map
    }
}

fn request_body(method: &Method, version: Version, fields: &Fields) -> Result<Decoder, Rejection> {
    match (fields.transfer_encoding, fields.content_length) {
        (TransferEncoding::Absent, None | Some(0)) if *method == Method::CONNECT => Ok(Decoder::Tunnel),
        _ if *method == Method::CONNECT => Err("CONNECT with a body".into()),
        (TransferEncoding::Absent, None) => Ok(Decoder::Empty),
        (TransferEncoding::Absent, Some(length)) => Ok(Decoder::length(length)),
        (_, Some(_)) => Err("both transfer-encoding and content-length".into()),
        (_, None) if version == Version::HTTP_10 => Err("transfer-encoding in HTTP/1.0".into()),
        (TransferEncoding::Chunked, None) => Ok(Decoder::chunked()),
        (TransferEncoding::Malformed, None) => Err("malformed transfer-encoding".into()),
        //= rfc9112#section-6.1
        (TransferEncoding::Unknown, None) => {
            Err(Rejection { status: StatusCode::NOT_IMPLEMENTED, reason: "unknown transfer-encoding" })
        }
    }
}

/// How the answer ends, and whether its end can be known without the connection's end.
//= rfc9112#section-6.3
fn response_body(
    status: StatusCode,
    asked: Asked,
    version: Version,
    fields: &Fields,
) -> Result<(Decoder, bool), &'static str> {
    let bodyless = status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err("101 to a request that asked for no upgrade");
    }
    if asked == Asked::Connect && status.is_success() {
        return Ok((Decoder::Tunnel, false));
    }
    match (fields.transfer_encoding, fields.content_length) {
        (TransferEncoding::Absent, _) if bodyless || asked == Asked::Head => Ok((Decoder::Empty, true)),
        (TransferEncoding::Absent, Some(length)) => Ok((Decoder::length(length), true)),
        (TransferEncoding::Absent, None) => Ok((Decoder::UntilClose, false)),
        (_, Some(_)) => Err("both transfer-encoding and content-length in the response"),
        (_, None) if version == Version::HTTP_10 => Err("transfer-encoding in an HTTP/1.0 response"),
        (TransferEncoding::Chunked, None) if bodyless || asked == Asked::Head => Ok((Decoder::Empty, true)),
        (TransferEncoding::Chunked, None) => Ok((Decoder::chunked(), true)),
        (TransferEncoding::Unknown | TransferEncoding::Malformed, None) => {
            Err("unknown or malformed transfer-encoding in the response")
        }
    }
}

fn request_head(
    method: Method,
    version: Version,
    target: Target,
    mut fields: Fields,
) -> Result<RequestHead, Rejection> {
    let host = fields.host.take();
    //= rfc9112#section-3.2
    if host.is_none() && version == Version::HTTP_11 {
        return Err("missing host field".into());
    }
    let host = match host {
        Some(value) if !value.is_empty() => Some(plain_authority(value)?),
        Some(_) | None => None,
    };
    if method == Method::CONNECT {
        fields.map.remove(CONTENT_LENGTH);
    }
    let headers = fields.into_end_to_end();
    let (authority, path, absolute_form, target_authority) = match target {
        Target::Origin(path) => (host, Some(path), false, None),
        Target::Authority(authority) => (Some(authority), None, false, None),
        Target::Absolute(target, path) => match host {
            Some(host) if host != target => (Some(host), Some(path), true, Some(target)),
            Some(_) | None => (Some(target), Some(path), true, None),
        },
    };
    Ok(RequestHead { method, authority, path, absolute_form, target_authority, protocol: None, headers, version })
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

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Anything that some parser might take for `chunked`, or that hides it.
fn is_chunked_like(token: &[u8]) -> bool {
    let plain = token.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b));
    !plain || token.eq_ignore_ascii_case(b"identity") || token.to_ascii_lowercase().windows(5).any(|w| w == b"chunk")
}

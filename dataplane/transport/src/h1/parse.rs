//! Message heads from bytes. Pure; the one place that decides where a message ends, and it decides only when every
//! reading of the head agrees.

use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use super::Refusal;
use super::decode::Decoder;
use crate::http::{Content, HttpLimits, MAX_FIELDS, RequestHead, ResponseHead, UpgradeToken, WEFT_OFFERS, WEFT_REASON};

use crate::upgrade;

mod fields;
mod line;
#[cfg(test)]
mod tests;

pub(super) use fields::is_hop_by_hop;
use fields::{Fields, Of, Shared, TransferEncoding};
use line::{Form, Line};

/// A request that will not be served, and the answer it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) refusal: Refusal,
    pub(super) reason: &'static str,
}

impl From<&'static str> for Rejection {
    fn from(reason: &'static str) -> Self {
        Self { refusal: Refusal::Malformed, reason }
    }
}

#[derive(Debug)]
pub(super) struct ParsedRequest {
    pub(super) head: RequestHead,
    pub(super) body: Decoder,
    /// True if the client wants to keep the connection; the response may still close it.
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
    /// How long the server keeps the connection, as far as it says.
    pub(super) keep_alive_timeout: Option<Duration>,
    pub(super) consumed: usize,
}

/// Kind of the request, as far as it shapes the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Head,
    Connect,
    /// The protocol to change to.
    Upgrade(UpgradeToken),
    Other,
}

impl From<&RequestHead> for Asked {
    fn from(head: &RequestHead) -> Self {
        match (&head.protocol, &head.method) {
            (Some(protocol), _) => Asked::Upgrade(protocol.clone()),
            (None, &Method::HEAD) => Asked::Head,
            (None, &Method::CONNECT) => Asked::Connect,
            (None, _) => Asked::Other,
        }
    }
}

/// Parses a request head. `None` when more bytes are needed and the limits still allow them.
pub(super) fn request(bytes: &[u8], limits: &HttpLimits) -> Result<Option<ParsedRequest>, Rejection> {
    const TOO_LARGE: Rejection = Rejection { refusal: Refusal::HeadTooLarge, reason: "request head too large" };
    let Some(line) = Line::parse(bytes, limits)? else { return Ok(None) };
    let mut space = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let fields_allowed = limits.fields.min(MAX_FIELDS);
    let (consumed, raw) = match httparse::parse_headers(&bytes[line.length..], &mut space[..fields_allowed]) {
        Ok(httparse::Status::Complete((length, raw))) => (line.length + length, raw),
        Ok(httparse::Status::Partial) if bytes.len() <= limits.head_bytes => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(TOO_LARGE),
        Err(error) => return Err(malformed(error)),
    };
    if consumed > limits.head_bytes || !fields::fit(raw, limits) {
        return Err(TOO_LARGE);
    }
    refuse_bare_lf(&bytes[..consumed])?;
    let shared = Shared::new(&bytes[..consumed]);
    let Line { method, target, version, .. } = line;
    let form = Form::parse(&method, shared.slice(target))?;
    let fields = Fields::collect(raw, &shared, Of::Request)?;
    let body = request_body(&method, version, &fields)?;
    let keep_alive = fields.keep_alive(version);
    let expects_continue = version == Version::HTTP_11
        && !body.is_done()
        && fields.map.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let head = request_head(method, version, form, fields)?;
    let body = if head.protocol.is_some() { Decoder::Tunnel } else { body };
    Ok(Some(ParsedRequest { head, body, keep_alive, expects_continue, consumed }))
}

/// Parses a response head; the error says what the server did wrong.
pub(super) fn response(
    bytes: &[u8],
    asked: &Asked,
    limits: &HttpLimits,
) -> Result<Option<ParsedResponse>, &'static str> {
    let mut space = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
    let mut raw = httparse::Response::new(&mut []);
    let fields_allowed = limits.fields.min(MAX_FIELDS);
    let mut parser = httparse::ParserConfig::default();
    //= rfc9112#section-5.1
    // A proxy removes white space between a field's name and its colon from a response.
    parser.allow_spaces_after_header_name_in_responses(true);
    let consumed = match parser.parse_response_with_uninit_headers(&mut raw, bytes, &mut space[..fields_allowed]) {
        Ok(httparse::Status::Complete(consumed)) => consumed,
        Ok(httparse::Status::Partial) if bytes.len() <= limits.head_bytes => return Ok(None),
        Ok(httparse::Status::Partial) => return Err("response head too large"),
        Err(httparse::Error::TooManyHeaders) => return Err("too many header fields in the response"),
        Err(_) => return Err("malformed response head"),
    };
    if consumed > limits.head_bytes || !fields::fit(raw.headers, limits) {
        return Err("response head too large");
    }
    refuse_bare_lf(&bytes[..consumed])?;
    let status = StatusCode::from_u16(raw.code.unwrap_or_default()).map_err(|_| "status code out of range")?;
    let version = if raw.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let shared = Shared::new(&bytes[..consumed]);
    let fields = Fields::collect(raw.headers, &shared, Of::Response).map_err(|rejection| rejection.reason)?;
    let (body, delimited) = response_body(status, asked, version, &fields)?;
    let keep_alive = delimited && fields.keep_alive(version);
    let keep_alive_timeout = fields.keep_alive_timeout;
    let upgrade = fields.upgrade.clone().filter(|_| status == StatusCode::UPGRADE_REQUIRED);
    let mut headers = fields.into_end_to_end();
    keep_aside(&mut headers, WEFT_OFFERS, upgrade);
    keep_aside(&mut headers, WEFT_REASON, own_reason(&bytes[..consumed], status).map(|reason| shared.slice(reason)));
    let head = ResponseHead { status, headers };
    Ok(Some(ParsedResponse { head, body, keep_alive, keep_alive_timeout, consumed }))
}

/// Puts what HTTP/1 says outside of end-to-end fields into a field of ours, so that it passes through other versions.
fn keep_aside(headers: &mut HeaderMap, name: HeaderName, value: Option<Bytes>) {
    if let Some(value) = value.and_then(|value| HeaderValue::from_maybe_shared(value).ok()) {
        headers.insert(name, value);
    }
}

/// The reason phrase, where it is not the usual one. It may be empty.
fn own_reason(head: &[u8], status: StatusCode) -> Option<&[u8]> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let reason = line.get("HTTP/1.1 200 ".len()..)?.trim_ascii();
    let usual = status.canonical_reason().unwrap_or_default().as_bytes();
    (may_have_reason(status) && reason != usual).then_some(reason)
}

/// True for a final answer: an interim one passes with the usual phrase.
pub(super) fn may_have_reason(status: StatusCode) -> bool {
    !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS
}

/// Parses the trailer section of a chunked body. Fields that frame or route a message are dropped there.
//= rfc9110#section-6.5.1
pub(super) fn trailers(bytes: &[u8], limits: &HttpLimits) -> Result<Option<(HeaderMap, usize)>, Rejection> {
    let mut space = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let (consumed, raw) = match httparse::parse_headers(bytes, &mut space[..limits.fields.min(MAX_FIELDS)]) {
        Ok(httparse::Status::Complete(complete)) => complete,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Rejection { refusal: Refusal::TooManyFields, reason: "too many trailer fields" });
        }
        Err(_) => return Err("malformed trailer".into()),
    };
    if !fields::fit(raw, limits) {
        return Err(Rejection { refusal: Refusal::HeadTooLarge, reason: "trailers" });
    }
    refuse_bare_lf(&bytes[..consumed])?;
    let shared = Shared::new(&bytes[..consumed]);
    let mut map = HeaderMap::with_capacity(raw.len());
    for field in raw {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| "malformed trailer name")?;
        if !fields::frames_or_routes(&name) {
            map.append(name, shared.value(field.value)?);
        }
    }
    Ok(Some((map, consumed)))
}

fn malformed(error: httparse::Error) -> Rejection {
    let reason = match error {
        httparse::Error::TooManyHeaders => {
            return Rejection { refusal: Refusal::TooManyFields, reason: "too many header fields" };
        }
        httparse::Error::HeaderName => "malformed header name",
        httparse::Error::HeaderValue => "malformed header value",
        httparse::Error::NewLine => "malformed line end",
        httparse::Error::Version | httparse::Error::Token | httparse::Error::Status => "malformed header field",
    };
    reason.into()
}

/// httparse takes a bare LF as a line end, which other parsers read differently: refused. Every CR that httparse lets
/// through is followed by LF, so equal counts mean that every LF has its CR.
//= rfc9112#section-2.2
fn refuse_bare_lf(head: &[u8]) -> Result<(), &'static str> {
    let count = |wanted: u8| head.iter().filter(|byte| **byte == wanted).count();
    if count(b'\n') == count(b'\r') { Ok(()) } else { Err("line ends without CR") }
}

fn request_body(method: &Method, version: Version, fields: &Fields) -> Result<Decoder, Rejection> {
    let refused = |reason| Err(Rejection { refusal: Refusal::Framing, reason });
    match (fields.transfer_encoding, fields.content_length) {
        (TransferEncoding::Absent, None | Some(0)) if *method == Method::CONNECT => Ok(Decoder::Tunnel),
        _ if *method == Method::CONNECT => refused("CONNECT with a body"),
        (TransferEncoding::Absent, None) => Ok(Decoder::Empty),
        (TransferEncoding::Absent, Some(length)) => Ok(Decoder::length(length)),
        (_, Some(_)) => refused("both transfer-encoding and content-length"),
        (_, None) if version == Version::HTTP_10 => refused("transfer-encoding in HTTP/1.0"),
        (TransferEncoding::Chunked, None) => Ok(Decoder::chunked()),
        (TransferEncoding::Malformed, None) => refused("malformed transfer-encoding"),
        //= rfc9112#section-6.1
        (TransferEncoding::Unknown, None) => {
            Err(Rejection { refusal: Refusal::UnknownCoding, reason: "unknown transfer-encoding" })
        }
    }
}

/// How the answer ends, and whether its end can be known without the connection's end.
//= rfc9112#section-6.3
fn response_body(
    status: StatusCode,
    asked: &Asked,
    version: Version,
    fields: &Fields,
) -> Result<(Decoder, bool), &'static str> {
    let bodyless = Content::of(status) == Content::Never;
    match (status, asked) {
        (StatusCode::SWITCHING_PROTOCOLS, Asked::Upgrade(protocol)) => {
            //= rfc9110#section-15.2.2
            let changed = fields.upgrade.as_ref().is_some_and(|field| field.eq_ignore_ascii_case(protocol));
            let changed = changed && fields.upgrade_nominated && version == Version::HTTP_11;
            return if changed { Ok((Decoder::Tunnel, false)) } else { Err("101 without the protocol asked for") };
        }
        (StatusCode::SWITCHING_PROTOCOLS, _) => return Err("101 to a request that asked for no upgrade"),
        _ => {}
    }
    let headless = *asked == Asked::Head;
    match (fields.transfer_encoding, fields.content_length) {
        (TransferEncoding::Absent, _) if bodyless || headless => Ok((Decoder::Empty, true)),
        (TransferEncoding::Absent, Some(length)) => Ok((Decoder::length(length), true)),
        (TransferEncoding::Absent, None) => Ok((Decoder::UntilClose, false)),
        (_, Some(_)) => Err("both transfer-encoding and content-length in the response"),
        (_, None) if version == Version::HTTP_10 => Err("transfer-encoding in an HTTP/1.0 response"),
        (TransferEncoding::Chunked, None) if bodyless || headless => Ok((Decoder::Empty, true)),
        (TransferEncoding::Chunked, None) => Ok((Decoder::chunked(), true)),
        (TransferEncoding::Unknown | TransferEncoding::Malformed, None) => {
            Err("unknown or malformed transfer-encoding in the response")
        }
    }
}

fn request_head(method: Method, version: Version, form: Form, mut fields: Fields) -> Result<RequestHead, Rejection> {
    let refused = |reason| Rejection { refusal: Refusal::Host, reason };
    let host = fields.host.take();
    //= rfc9112#section-3.2
    if host.is_none() && version == Version::HTTP_11 {
        return Err(refused("missing host field"));
    }
    // An empty host is legal: the origin has no name.
    let host = host.filter(|value| !value.is_empty()).map(line::plain_authority).transpose().map_err(refused)?;
    if method == Method::CONNECT {
        fields.map.remove(CONTENT_LENGTH);
    }
    let protocol = protocol(&method, version, &mut fields);
    let headers = fields.into_end_to_end();
    let (authority, path) = match form {
        Form::Origin(path) => (host, Some(path)),
        Form::Authority(authority) => (Some(authority), None),
        //= rfc9112#section-3.2.2
        // The target replaces whatever `Host` says.
        Form::Absolute(target, path) => (Some(target), Some(path)),
    };
    Ok(RequestHead { method, authority, path, protocol, headers, version })
}

/// The protocol that the request asks to change to, by whatever method: WebSocket asks by GET, `docker attach` and `kubectl
/// exec` by POST. A request with a body stays an ordinary one.
//= rfc9110#section-7.8
fn protocol(method: &Method, version: Version, fields: &mut Fields) -> Option<UpgradeToken> {
    let no_body =
        fields.transfer_encoding == TransferEncoding::Absent && matches!(fields.content_length, None | Some(0));
    let asked = version == Version::HTTP_11 && upgrade::may_ask(method) && no_body && fields.upgrade_nominated;
    let protocol = fields.asked.take().filter(|_| asked)?;
    fields.map.remove(CONTENT_LENGTH);
    Some(protocol)
}

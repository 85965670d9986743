//! Message heads and chunk frames to bytes. Pure; decides how the body after a head is framed, so that what was said and
//! what is sent agree. Never invents `date`, `server`, or a `transfer-encoding` on a message without a body.

use bytes::{BufMut, BytesMut};
use http::header::{CONTENT_LENGTH, COOKIE, HOST, TE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::parse::{Asked, is_hop_by_hop, may_have_reason};
use crate::http::{Content, RequestHead, ResponseHead, StreamError, WEFT_OFFERS, WEFT_REASON, is_internal};
use crate::upgrade;

#[cfg(test)]
mod tests;

/// How the rest of an outgoing message is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// Nothing more belongs to this message.
    Done,
    /// Body bytes still to come, never 0.
    Length(u64),
    Chunked,
    /// HTTP/1.0: the body ends with the connection.
    UntilClose,
    /// The message has no body, whatever is given: bytes are dropped.
    Dropped,
    /// An upgrade was asked for and is not answered: bytes wait.
    Held,
    /// Raw bytes after CONNECT or an upgrade.
    Tunnel,
    /// A request was taken and no head of an answer was written.
    Unanswered,
}

/// Facts about a request and its connection that shape the answer.
#[derive(Debug, Clone)]
pub(super) struct Answering {
    pub(super) asked: Asked,
    /// The client speaks HTTP/1.0: no chunks, no interim responses.
    pub(super) http10: bool,
    /// True if the connection may stay open after this message.
    pub(super) keep_alive: bool,
}

/// Writes a request head; `end` says that no body follows.
pub(super) fn request(out: &mut BytesMut, head: &RequestHead, end: bool) -> Result<Outgoing, StreamError> {
    if head.method == Method::CONNECT {
        // An application that took it for a request of its own would read the tunnel's bytes as further requests.
        return Err(StreamError::Protocol("CONNECT is never sent to an application"));
    }
    let framing = match &head.protocol {
        Some(_) if upgrade::may_ask(&head.method) => Outgoing::Held,
        Some(_) => return Err(StreamError::Protocol("this method can't ask for an upgrade")),
        None => request_framing(&head.headers, end)?,
    };
    let path = head.path.as_ref().ok_or(StreamError::Protocol("request without a target"))?;
    out.reserve(estimate(&head.headers) + path.as_bytes().len() + 128);
    put(out, head.method.as_str());
    out.put_u8(b' ');
    //= rfc9112#section-3.2.1
    out.extend_from_slice(path.as_bytes());
    put(out, " HTTP/1.1\r\nhost: ");
    put(out, head.authority.as_ref().map_or("", |authority| authority.as_str()));
    put(out, "\r\n");
    put_fields(out, &head.headers, framing == Outgoing::Held, |name| *name != HOST);
    if framing == Outgoing::Chunked {
        put(out, "transfer-encoding: chunked\r\n");
    } else if says_no_content(head, framing) {
        put(out, "content-length: 0\r\n");
    }
    //= rfc9110#section-10.1.4
    let trailers = head.headers.contains_key(TE);
    if trailers {
        put(out, "te: trailers\r\n");
    }
    //= rfc9110#section-7.8
    if let Some(protocol) = &head.protocol {
        put(out, "upgrade: ");
        out.extend_from_slice(protocol);
        put(out, if trailers { "\r\nconnection: upgrade, te\r\n" } else { "\r\nconnection: upgrade\r\n" });
    } else if trailers {
        put(out, "connection: te\r\n");
    }
    put(out, "\r\n");
    Ok(framing)
}

/// True for a request without content whose method has its receiver expect some.
//= rfc9110#section-8.6
fn says_no_content(head: &RequestHead, framing: Outgoing) -> bool {
    let unsaid = framing == Outgoing::Held || framing == Outgoing::Done && !head.headers.contains_key(CONTENT_LENGTH);
    unsaid && matches!(head.method, Method::POST | Method::PUT | Method::PATCH)
}

/// Writes a final response head. Gives the framing, and whether the connection stays open after the message.
pub(super) fn response(
    out: &mut BytesMut,
    head: &ResponseHead,
    end: bool,
    answering: &Answering,
) -> Result<(Outgoing, bool), StreamError> {
    let framing = response_framing(head, end, answering)?;
    let keep_alive = answering.keep_alive && framing != Outgoing::UntilClose;
    let emptied = head.status == StatusCode::RESET_CONTENT && answering.asked != Asked::Head;
    let drop_length = has_no_length(head.status, &answering.asked) || emptied;
    out.reserve(estimate(&head.headers) + 128);
    put_status_line(out, head);
    put_fields(out, &head.headers, drop_length, |name| !is_internal(name));
    if framing == Outgoing::Chunked {
        put(out, "transfer-encoding: chunked\r\n");
    } else if says_empty(head, framing, &answering.asked) {
        put(out, "content-length: 0\r\n");
    }
    match &answering.asked {
        Asked::Upgrade(protocol) if framing == Outgoing::Tunnel => {
            put_upgrade(out, protocol, false);
        }
        Asked::Connect if framing == Outgoing::Tunnel => {}
        Asked::Head | Asked::Connect | Asked::Upgrade(_) | Asked::Other => {
            let advertised = head.headers.get(WEFT_OFFERS).filter(|_| head.status == StatusCode::UPGRADE_REQUIRED);
            match advertised {
                Some(protocols) => put_upgrade(out, protocols.as_bytes(), !keep_alive),
                None if !keep_alive => put(out, "connection: close\r\n"),
                None if answering.http10 => put(out, "connection: keep-alive\r\n"),
                None => {}
            }
        }
    }
    put(out, "\r\n");
    Ok((framing, keep_alive))
}

/// True for a message without content that has to say so.
fn says_empty(head: &ResponseHead, framing: Outgoing, asked: &Asked) -> bool {
    match framing {
        Outgoing::Done | Outgoing::Dropped if head.status == StatusCode::RESET_CONTENT => *asked != Asked::Head,
        Outgoing::Done => {
            let bodyless = *asked == Asked::Head || Content::of(head.status) != Content::Framed;
            !bodyless && !head.headers.contains_key(CONTENT_LENGTH)
        }
        Outgoing::Length(_)
        | Outgoing::Chunked
        | Outgoing::UntilClose
        | Outgoing::Dropped
        | Outgoing::Held
        | Outgoing::Tunnel
        | Outgoing::Unanswered => false,
    }
}

//= rfc9110#section-7.8
fn put_upgrade(out: &mut BytesMut, protocols: &[u8], close: bool) {
    put(out, "upgrade: ");
    out.extend_from_slice(protocols);
    put(out, if close { "\r\nconnection: upgrade, close\r\n" } else { "\r\nconnection: upgrade\r\n" });
}

/// Writes an interim response (1xx).
pub(super) fn interim(out: &mut BytesMut, head: &ResponseHead) {
    out.reserve(estimate(&head.headers) + 64);
    put_status_line(out, head);
    put_fields(out, &head.headers, true, |name| !is_internal(name));
    put(out, "\r\n");
}

/// Writes the line before a chunk's data.
pub(super) fn chunk_size(out: &mut BytesMut, size: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let significant = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for position in (0..significant).rev() {
        out.put_u8(DIGITS[(size >> (position * 4)) & 0xf]);
    }
    put(out, "\r\n");
}

/// Writes the last chunk, the trailers and the end of a chunked body.
pub(super) fn last_chunk(out: &mut BytesMut, trailers: Option<&HeaderMap>) {
    put(out, "0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        if !is_hop_by_hop(name) && *name != CONTENT_LENGTH && *name != HOST {
            put_field(out, name, value);
        }
    }
    put(out, "\r\n");
}

//= rfc9112#section-6.1
fn request_framing(headers: &HeaderMap, end: bool) -> Result<Outgoing, StreamError> {
    match (content_length(headers)?, end) {
        (None | Some(0), true) | (Some(0), false) => Ok(Outgoing::Done),
        (Some(length), false) => Ok(Outgoing::Length(length)),
        (None, false) => Ok(Outgoing::Chunked),
        (Some(_), true) => Err(StreamError::Protocol("content-length without a body")),
    }
}

fn response_framing(head: &ResponseHead, end: bool, answering: &Answering) -> Result<Outgoing, StreamError> {
    match (&answering.asked, head.status) {
        (Asked::Connect, status) if status.is_success() => return Ok(Outgoing::Tunnel),
        (Asked::Upgrade(_), StatusCode::SWITCHING_PROTOCOLS) => return Ok(Outgoing::Tunnel),
        (_, status) if status.is_informational() => {
            return Err(StreamError::Protocol("interim status in a final response"));
        }
        (Asked::Head | Asked::Connect | Asked::Upgrade(_) | Asked::Other, _) => {}
    }
    if answering.asked == Asked::Head || Content::of(head.status) != Content::Framed {
        return Ok(if end { Outgoing::Done } else { Outgoing::Dropped });
    }
    match (content_length(&head.headers)?, end) {
        (None | Some(0), true) | (Some(0), false) => Ok(Outgoing::Done),
        (Some(length), false) => Ok(Outgoing::Length(length)),
        (None, false) if answering.http10 => Ok(Outgoing::UntilClose),
        (None, false) => Ok(Outgoing::Chunked),
        (Some(_), true) => Err(StreamError::Protocol("content-length without a body")),
    }
}

/// Messages that must not carry `content-length` at all.
//= rfc9110#section-8.6
fn has_no_length(status: StatusCode, asked: &Asked) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT || (*asked == Asked::Connect && status.is_success())
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, StreamError> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = values.next() else { return Ok(None) };
    let digits = first.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|text| text.parse().ok()) {
        Some(length) if values.next().is_none() => Ok(Some(length)),
        Some(_) | None => Err(StreamError::Protocol("malformed content-length")),
    }
}

fn put(out: &mut BytesMut, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn put_status_line(out: &mut BytesMut, head: &ResponseHead) {
    put(out, "HTTP/1.1 ");
    put(out, head.status.as_str());
    out.put_u8(b' ');
    match head.headers.get(WEFT_REASON).filter(|_| may_have_reason(head.status)) {
        Some(reason) => out.extend_from_slice(reason.as_bytes()),
        None => put(out, head.status.canonical_reason().unwrap_or_default()),
    }
    put(out, "\r\n");
}

fn put_fields(out: &mut BytesMut, headers: &HeaderMap, drop_length: bool, take: impl Fn(&HeaderName) -> bool) {
    for (name, value) in headers {
        if is_hop_by_hop(name) || *name == TE || (drop_length && *name == CONTENT_LENGTH) {
            continue;
        }
        if *name != COOKIE && take(name) {
            put_field(out, name, value);
        }
    }
    put_cookies(out, headers);
}

/// HTTP/2 and HTTP/3 may split `cookie` into crumbs; HTTP/1 has one field.
//= rfc9114#section-4.2.1
fn put_cookies(out: &mut BytesMut, headers: &HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let Some(first) = crumbs.next() else { return };
    put(out, "cookie: ");
    out.extend_from_slice(first.as_bytes());
    for crumb in crumbs {
        put(out, "; ");
        out.extend_from_slice(crumb.as_bytes());
    }
    put(out, "\r\n");
}

fn put_field(out: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    put(out, name.as_str());
    put(out, ": ");
    out.extend_from_slice(value.as_bytes());
    put(out, "\r\n");
}

fn estimate(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

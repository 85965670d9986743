//! Changes and answers that a filter wants, checked before any of them happens: all of a result holds or none, and what
//! does not hold is named.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{HeaderMap, StatusCode};
use weft_policy::authz::{is_alike, is_of_mesh};
use weft_policy::path::{Ambiguous, NormalPath};

use crate::chain::{LocalReply, ReplyCause, RequestView, ResponseView};
use crate::failure::{Failure, shown};
use crate::hook::{Edit, Field, Reply, SetAttribute};
use crate::values::is_attribute;

const MAX_EDITS: usize = 64;
const MAX_NAME: usize = 256;
const MAX_VALUE: usize = 64 << 10;
const MAX_REPLY_BODY: usize = 64 << 10;
const MAX_RULE: usize = 256;
/// A stream waits this long at the most, whatever a filter says.
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(300);

/// What is at hand, and so can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtHand {
    /// Nothing but the request's attributes.
    Nothing,
    /// `body`: with the whole body.
    Request {
        body: bool,
    },
    Response {
        body: bool,
    },
    Chunk,
    Trailers,
}

/// Who answers: what replies and logs say of it.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    pub(crate) name: Arc<str>,
    pub(crate) version: Arc<str>,
}

/// A change that may be made.
#[derive(Debug, PartialEq)]
pub(crate) enum Change {
    Set(HeaderName, HeaderValue),
    Add(HeaderName, HeaderValue),
    Remove(HeaderName),
    Path(NormalPath),
    Authority(Authority),
    Status(StatusCode),
    Body(Bytes),
    Attribute(SetAttribute),
}

pub(crate) type Changes = Vec<Change>;

/// Why an edit is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Name,
    LongName,
    Value,
    LongValue,
    OutOfReach,
    NotAtHand,
    Path,
    Authority,
    Status,
    LongBody,
    Attribute,
    Unknown,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Name => "is no header name",
            Why::LongName => "has a name of more than 256 bytes",
            Why::Value => "has a value that no header can have",
            Why::LongValue => "has a value of more than 64 KiB",
            Why::OutOfReach => "is framing's, this hop's or the mesh's own",
            Why::NotAtHand => "changes what is not at hand at this hook",
            Why::Path => "is no path that may be sent",
            Why::Authority => "is no authority",
            Why::Status => "is no status from 200 to 599",
            Why::LongBody => "is longer than the filter's limit for bodies",
            Why::Attribute => "is no attribute: filter.NAME in lower case",
            Why::Unknown => "is an edit that this release does not know",
        })
    }
}

/// Checks every edit. `most`: bytes that a body may be replaced by.
///
/// # Errors
/// The first that is refused, and why.
pub(crate) fn parse(edits: Vec<Edit>, at_hand: AtHand, most: usize) -> Result<Changes, Failure> {
    if edits.len() > MAX_EDITS {
        return Err(Failure::invalid(format!("{} edits, at most {MAX_EDITS} are possible", edits.len())));
    }
    let check = |(mut edit, number): (Edit, usize)| {
        let parsed = parse_one(&mut edit, at_hand, most);
        parsed.map_err(|why| Failure::invalid(format!("edit {number} ({}) {why}", name_of(&edit))))
    };
    edits.into_iter().zip(1..).map(check).collect()
}

/// Takes values and bodies out of the edit; where it is refused, what [`name_of`] tells of it is still there.
fn parse_one(edit: &mut Edit, at_hand: AtHand, most: usize) -> Result<Change, Why> {
    let (fields, request, response, body) = match at_hand {
        AtHand::Nothing => (false, false, false, false),
        AtHand::Request { body } => (true, true, false, body),
        AtHand::Response { body } => (true, false, true, body),
        AtHand::Chunk => (false, false, false, true),
        AtHand::Trailers => (true, false, false, false),
    };
    let needs = |there: bool| if there { Ok(()) } else { Err(Why::NotAtHand) };
    match edit {
        Edit::Set(field) => needs(fields).and_then(|()| own_field(field)).map(|(name, value)| Change::Set(name, value)),
        Edit::Add(field) => needs(fields).and_then(|()| own_field(field)).map(|(name, value)| Change::Add(name, value)),
        Edit::Remove(name) => needs(fields).and_then(|()| checked_name(name)).map(Change::Remove),
        Edit::Path(path) => {
            needs(request)?;
            NormalPath::new(Bytes::copy_from_slice(path.as_bytes())).map(Change::Path).map_err(|_| Why::Path)
        }
        Edit::Authority(authority) => {
            needs(request)?;
            let authority = Bytes::copy_from_slice(authority.as_bytes());
            Authority::from_maybe_shared(authority).map(Change::Authority).map_err(|_| Why::Authority)
        }
        Edit::Status(status) => {
            needs(response)?;
            own_status(*status).map(Change::Status)
        }
        Edit::Body(bytes) => {
            needs(body)?;
            if bytes.len() > most { Err(Why::LongBody) } else { Ok(Change::Body(std::mem::take(bytes).into())) }
        }
        Edit::Attribute(Field { name, value }) => {
            if !is_attribute(name) {
                return Err(Why::Attribute);
            }
            if value.len() > MAX_VALUE {
                return Err(Why::LongValue);
            }
            let (name, value) = (std::mem::take(name).into(), std::mem::take(value));
            Ok(Change::Attribute(SetAttribute { name, value }))
        }
        Edit::Unknown(_) => Err(Why::Unknown),
    }
}

/// The edit as its author wrote it, without values, which may be secret.
fn name_of(edit: &Edit) -> String {
    let (kind, name) = match edit {
        Edit::Set(field) => ("set", &*field.name),
        Edit::Add(field) => ("add", &*field.name),
        Edit::Remove(name) => ("remove", &**name),
        Edit::Path(path) => ("path", path.split('?').next().unwrap_or_default()),
        Edit::Authority(authority) => ("authority", &**authority),
        Edit::Status(status) => return format!("status {status}"),
        Edit::Body(bytes) => return format!("body of {} bytes", bytes.len()),
        Edit::Attribute(field) => ("attribute", &*field.name),
        Edit::Unknown(name) => ("other", &**name),
    };
    format!("{kind} {:?}", shown(name))
}

pub(crate) fn apply_to_request(change: Change, view: &mut RequestView<'_>) {
    match change {
        Change::Path(path) => *view.path = Some(path),
        Change::Authority(authority) => *view.authority = Some(authority),
        Change::Body(bytes) => *view.body = Some(bytes),
        Change::Set(..) | Change::Add(..) | Change::Remove(_) => {
            if let Change::Set(name, _) | Change::Remove(name) = &change {
                forget_alike(name, view.headers);
            }
            apply_to_fields(change, view.headers);
        }
        Change::Status(_) | Change::Attribute(_) => {}
    }
}

/// Removes other spellings of a name. An app that folds `_` into `-` (CGI, WSGI) would read the caller's value beside the one
/// that a filter sets, or in place of the one that it removes.
fn forget_alike(name: &HeaderName, headers: &mut HeaderMap) {
    let is_other = |other: &&HeaderName| *other != name && is_alike(other.as_str(), name.as_str());
    let others: Vec<HeaderName> = headers.keys().filter(is_other).cloned().collect();
    for other in others {
        headers.remove(other);
    }
}

pub(crate) fn apply_to_response(change: Change, view: &mut ResponseView<'_>) {
    match change {
        Change::Status(status) => *view.status = status,
        Change::Body(bytes) => *view.body = Some(bytes),
        Change::Set(..) | Change::Add(..) | Change::Remove(_) => apply_to_fields(change, view.headers),
        Change::Path(_) | Change::Authority(_) | Change::Attribute(_) => {}
    }
}

pub(crate) fn apply_to_fields(change: Change, fields: &mut HeaderMap) {
    // A map that is full (32,768 names) takes no more; codecs refuse heads long before.
    match change {
        Change::Set(name, value) => drop(fields.try_insert(name, value)),
        Change::Add(name, value) => drop(fields.try_append(name, value)),
        Change::Remove(name) => drop(fields.remove(name)),
        Change::Path(_) | Change::Authority(_) | Change::Status(_) | Change::Body(_) | Change::Attribute(_) => {}
    }
}

/// The answer that a filter gave.
///
/// # Errors
/// What of it is refused, and why.
pub(crate) fn reply(reply: Reply, label: &Label, cause: ReplyCause) -> Result<LocalReply, Failure> {
    let status = own_status(reply.status)
        .map_err(|why| Failure::invalid(format!("the status {} of the reply {why}", reply.status)))?;
    if reply.body.len() > MAX_REPLY_BODY {
        return Err(Failure::invalid(format!("a reply's body of {} bytes, at most 64 KiB", reply.body.len())));
    }
    if reply.headers.len() > MAX_EDITS {
        return Err(Failure::invalid(format!("a reply with {} headers, at most {MAX_EDITS}", reply.headers.len())));
    }
    let mut headers = HeaderMap::with_capacity(reply.headers.len());
    for mut field in reply.headers {
        let (name, value) = own_field(&mut field)
            .map_err(|why| Failure::invalid(format!("the header {:?} of the reply {why}", shown(&field.name))))?;
        headers.append(name, value);
    }
    Ok(LocalReply {
        status,
        headers,
        body: reply.body.into(),
        filter: label.name.clone(),
        version: label.version.clone(),
        rule: reply.rule.map(printable),
        reason: printable(reply.reason),
        cause,
        more: None,
    })
}

/// An answer that the host makes in a filter's place.
fn in_place(label: &Label, status: StatusCode, body: String, reason: &str, cause: ReplyCause) -> LocalReply {
    let text = HeaderValue::from_static("text/plain");
    LocalReply {
        status,
        headers: HeaderMap::from_iter([(header::CONTENT_TYPE, text)]),
        body: body.into(),
        filter: label.name.clone(),
        version: label.version.clone(),
        rule: None,
        reason: reason.to_owned(),
        cause,
        more: None,
    }
}

/// The answer in place of a filter that failed. It does not say how: the log does.
pub(crate) fn failed(label: &Label, reason: &str) -> LocalReply {
    let body = format!("filter {} failed: {reason}\n", label.name);
    in_place(label, StatusCode::SERVICE_UNAVAILABLE, body, reason, ReplyCause::Failed)
}

/// The answer to a path with more readings than authorization is asked about.
pub(crate) fn ambiguous(label: &Label, ambiguous: Ambiguous) -> LocalReply {
    let body = format!("{ambiguous}\n");
    in_place(label, StatusCode::BAD_REQUEST, body, "ambiguous_path", ReplyCause::Denied)
}

/// Why a body that is longer than its filter takes ends a stream.
pub(crate) const BODY_TOO_LONG: &str = "filter_body_too_long";

/// The answer where a body is longer than its filter takes: the caller's, or the app's.
pub(crate) fn too_long(label: &Label, of_request: bool, most: usize, cause: ReplyCause) -> LocalReply {
    let status = if of_request { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_GATEWAY };
    let body = format!("filter {} takes bodies of up to {most} bytes\n", label.name);
    in_place(label, status, body, BODY_TOO_LONG, cause)
}

/// Adds to a refusal the reading of the path that it is about.
pub(crate) fn name_reading(reply: &mut LocalReply, reading: &str) {
    let reading: String = reading.chars().take(MAX_RULE).collect();
    reply.reason = printable(format!("{} (path read as {reading})", reply.reason));
    let mut body = Vec::from(std::mem::take(&mut reply.body));
    body.extend_from_slice(format!("path read as {reading}\n").as_bytes());
    reply.body = body.into();
}

fn own_status(status: u16) -> Result<StatusCode, Why> {
    StatusCode::from_u16(status).ok().filter(|status| (200..600).contains(&status.as_u16())).ok_or(Why::Status)
}

/// Takes the value out of the field.
fn own_field(Field { name, value }: &mut Field) -> Result<(HeaderName, HeaderValue), Why> {
    let name = checked_name(name)?;
    if value.len() > MAX_VALUE {
        return Err(Why::LongValue);
    }
    Ok((name, self::value(std::mem::take(value)).ok_or(Why::Value)?))
}

pub(crate) fn value(value: Vec<u8>) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(Bytes::from(value)).ok()
}

/// A header that filters may touch: none of framing, of this hop, of identity, or of the mesh's own.
pub(crate) fn own_name(name: &str) -> Option<HeaderName> {
    checked_name(name).ok()
}

fn checked_name(name: &str) -> Result<HeaderName, Why> {
    if name.len() > MAX_NAME {
        return Err(Why::LongName);
    }
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Why::Name)?;
    let forbidden = [
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let text = name.as_str();
    // Servers fold `_` into `-`: who calls is not to be said in another spelling either.
    if is_of_mesh(text) || forbidden.contains(&text) || is_alike(text, "x-forwarded-client-cert") {
        return Err(Why::OutOfReach);
    }
    Ok(name)
}

/// Words of a filter go into logs, labels and headers: visible ASCII, and not too many.
pub(crate) fn printable(text: String) -> String {
    let clean = text.len() <= MAX_RULE && text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b';');
    if clean {
        return text;
    }
    text.chars().take(MAX_RULE).map(|c| if matches!(c, ' '..='~') && c != ';' { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests;

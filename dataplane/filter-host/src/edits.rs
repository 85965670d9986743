//! Changes and answers that a filter wants, checked before any of them happens: all of a result holds or none.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{HeaderMap, StatusCode};
use weft_policy::path::{Ambiguous, NormalPath};

use crate::bindings::v01::weft::filter::types;
use crate::chain::{LocalReply, ReplyCause, RequestView};
use crate::instance::Failure;
use crate::state::ConfigShared;

const MAX_EDITS: usize = 64;
const MAX_REPLY_BODY: usize = 64 << 10;
const MAX_RULE: usize = 256;
/// A stream waits this long at the most, whatever a filter says.
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(300);

/// A change that may be made.
#[derive(Debug, PartialEq)]
pub(crate) enum Change {
    Set(HeaderName, HeaderValue),
    Add(HeaderName, HeaderValue),
    Remove(HeaderName),
    Path(NormalPath),
    Authority(Authority),
}

pub(crate) type Changes = Vec<Change>;

/// Checks every edit. `request`: path and authority may be changed.
pub(crate) fn parse(edits: Vec<types::Edit>, request: bool) -> Result<Changes, Failure> {
    if edits.len() > MAX_EDITS {
        return Err(Failure::InvalidResult);
    }
    let parse = |edit| match edit {
        types::Edit::Set(types::Field { name, value }) => Some(Change::Set(own_name(&name)?, self::value(value)?)),
        types::Edit::Add(types::Field { name, value }) => Some(Change::Add(own_name(&name)?, self::value(value)?)),
        types::Edit::Remove(name) => Some(Change::Remove(own_name(&name)?)),
        types::Edit::Path(path) if request => Some(Change::Path(NormalPath::new(Bytes::from(path)).ok()?)),
        types::Edit::Authority(authority) if request => {
            Some(Change::Authority(Authority::from_maybe_shared(Bytes::from(authority)).ok()?))
        }
        types::Edit::Path(_) | types::Edit::Authority(_) => None,
    };
    edits.into_iter().map(|edit| parse(edit).ok_or(Failure::InvalidResult)).collect()
}

pub(crate) fn apply_to_request(changes: Changes, view: &mut RequestView<'_>) {
    for change in changes {
        match change {
            Change::Path(path) => *view.path = Some(path),
            Change::Authority(authority) => *view.authority = Some(authority),
            Change::Set(..) | Change::Add(..) | Change::Remove(_) => apply_to_headers(change, view.headers),
        }
    }
}

pub(crate) fn apply_to_headers(change: Change, headers: &mut HeaderMap) {
    // A map that is full (32,768 names) takes no more; codecs refuse heads long before.
    match change {
        Change::Set(name, value) => drop(headers.try_insert(name, value)),
        Change::Add(name, value) => drop(headers.try_append(name, value)),
        Change::Remove(name) => drop(headers.remove(name)),
        Change::Path(_) | Change::Authority(_) => {}
    }
}

/// The answer that a filter gave.
pub(crate) fn reply(reply: types::Reply, config: &ConfigShared, cause: ReplyCause) -> Result<LocalReply, Failure> {
    let status = StatusCode::from_u16(reply.status).ok().filter(|status| (200..600).contains(&status.as_u16()));
    let status = status.ok_or(Failure::InvalidResult)?;
    if reply.body.len() > MAX_REPLY_BODY || reply.headers.len() > MAX_EDITS {
        return Err(Failure::InvalidResult);
    }
    let mut headers = HeaderMap::with_capacity(reply.headers.len());
    for types::Field { name, value } in reply.headers {
        let field = own_name(&name).zip(self::value(value)).ok_or(Failure::InvalidResult)?;
        headers.append(field.0, field.1);
    }
    Ok(LocalReply {
        status,
        headers,
        body: reply.body.into(),
        filter: config.name.clone(),
        version: config.version.clone(),
        rule: reply.rule.map(printable),
        reason: printable(reply.reason),
        cause,
    })
}

/// The answer in place of a filter that failed.
pub(crate) fn failed(config: &ConfigShared, failure: Failure) -> LocalReply {
    let body = format!("filter {} failed: {}\n", config.name, failure.as_str());
    let text = HeaderValue::from_static("text/plain");
    LocalReply {
        status: StatusCode::SERVICE_UNAVAILABLE,
        headers: HeaderMap::from_iter([(header::CONTENT_TYPE, text)]),
        body: body.into(),
        filter: config.name.clone(),
        version: config.version.clone(),
        rule: None,
        reason: failure.as_str().to_owned(),
        cause: ReplyCause::Failed,
    }
}

/// The answer to a path with more readings than authorization is asked about.
pub(crate) fn ambiguous(config: &ConfigShared, ambiguous: Ambiguous) -> LocalReply {
    let text = HeaderValue::from_static("text/plain");
    LocalReply {
        status: StatusCode::BAD_REQUEST,
        headers: HeaderMap::from_iter([(header::CONTENT_TYPE, text)]),
        body: format!("{ambiguous}\n").into(),
        filter: config.name.clone(),
        version: config.version.clone(),
        rule: None,
        reason: "ambiguous_path".to_owned(),
        cause: ReplyCause::Denied,
    }
}

/// Adds to a refusal the reading of the path that it is about.
pub(crate) fn name_reading(reply: &mut LocalReply, reading: &str) {
    let reading: String = reading.chars().take(MAX_RULE).collect();
    reply.reason = printable(format!("{} (path read as {reading})", reply.reason));
    let mut body = Vec::from(std::mem::take(&mut reply.body));
    body.extend_from_slice(format!("path read as {reading}\n").as_bytes());
    reply.body = body.into();
}

/// A header that filters may touch: none of framing, of this hop, of identity, or of the mesh's own.
pub(crate) fn own_name(name: &str) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
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
        "x-forwarded-client-cert",
    ];
    let text = name.as_str();
    (!text.starts_with("weft-") && !forbidden.contains(&text)).then_some(name)
}

pub(crate) fn value(value: Vec<u8>) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(Bytes::from(value)).ok()
}

/// Words of a filter go into logs, labels and headers: visible ASCII, and not too many.
fn printable(text: String) -> String {
    let clean = text.len() <= MAX_RULE && text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b';');
    if clean {
        return text;
    }
    text.chars().take(MAX_RULE).map(|c| if matches!(c, ' '..='~') && c != ';' { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests;

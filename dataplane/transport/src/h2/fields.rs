//! Rules that the crate `h2` leaves to us: what HTTP/2 forbids, or asks of whoever passes a message on.

use http::header::{COOKIE, HOST};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue};

use crate::http::{WEFT_OFFERS, WEFT_REASON};

/// True where no value begins or ends with a blank or a tab.
//= rfc9113#section-8.2.1
pub(super) fn are_exact(headers: &HeaderMap) -> bool {
    headers.values().all(is_exact)
}

fn is_exact(value: &HeaderValue) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let bytes = value.as_bytes();
    !blank(bytes.first()) && !blank(bytes.last())
}

/// Cuts the blanks around values, which are no part of them (RFC 9110 section 5.5).
pub(crate) fn trim(headers: &mut HeaderMap) {
    for value in headers.values_mut().filter(|value| !is_exact(value)) {
        let trimmed = HeaderValue::from_bytes(value.as_bytes().trim_ascii());
        *value = trimmed.expect("a part of a value is a value");
    }
}

/// Joins the crumbs of a cookie, which other versions of HTTP want in one field.
//= rfc9113#section-8.2.3
pub(super) fn join_cookies(headers: &mut HeaderMap) -> Option<()> {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return Some(()) };
    let mut joined = first.as_bytes().to_vec();
    for crumb in [second].into_iter().chain(crumbs).filter(|crumb| !crumb.is_empty()) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    headers.insert(COOKIE, HeaderValue::try_from(joined).ok()?);
    Some(())
}

/// Takes `host` off the fields. `None`: it is there several times, or is no authority.
#[expect(clippy::option_option, reason = "a request without the field is a good one")]
pub(super) fn take_host(headers: &mut HeaderMap) -> Option<Option<Authority>> {
    let mut hosts = headers.get_all(HOST).iter();
    let Some(host) = hosts.next().map(|value| Authority::try_from(value.as_bytes())) else { return Some(None) };
    let several = hosts.next().is_some();
    headers.remove(HOST);
    host.ok().filter(|_| !several).map(Some)
}

/// HTTP/2 has no connection-specific fields; `te: trailers` is the exception.
//= rfc9113#section-8.2.2
pub(super) fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        headers.remove(name);
    }
    take_internal(&mut headers);
    trim(&mut headers);
    headers
}

/// Removes what only codecs say to each other.
pub(super) fn take_internal(headers: &mut HeaderMap) {
    headers.remove(WEFT_REASON);
    headers.remove(WEFT_OFFERS);
}

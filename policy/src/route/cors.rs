//! Requests that come from web pages of other origins (GEP-1767): the answer to a preflight, and what the answer to any other
//! request says of its origin. An origin that is allowed is named, never `*`: `*` forbids credentials to browsers.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::HeadView;
use crate::bundle::Cors;

/// The answer to a preflight; no app sees one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflight {
    pub origin: String,
    /// The header that allows the request; `None`: the rule does not allow the origin.
    pub allowed: Option<HeaderMap>,
}

/// True for the question of a browser whether it may send a request.
fn asked_for<'h>(head: &HeadView<'h>) -> Option<(&'h str, &'h str)> {
    let field = head.headers;
    let (origin, method) = (field("origin")?, field("access-control-request-method")?);
    (head.method == "OPTIONS").then_some((origin, method))
}

/// Answers a preflight; other requests go on.
pub(super) fn preflight(cors: &Cors, head: &HeadView<'_>) -> Option<Preflight> {
    let (origin, method) = asked_for(head)?;
    let allowed = allowed_origin(cors, origin).map(|value| {
        let mut headers = HeaderMap::new();
        let mut put = |name: HeaderName, text: Option<String>| {
            if let Some(Ok(value)) = text.map(HeaderValue::try_from) {
                headers.insert(name, value);
            }
        };
        let asked = (head.headers)("access-control-request-headers");
        put(header::ACCESS_CONTROL_ALLOW_METHODS, listed(&cors.methods, Some(method)));
        put(header::ACCESS_CONTROL_ALLOW_HEADERS, listed(&cors.headers, asked));
        put(header::ACCESS_CONTROL_MAX_AGE, Some(cors.max_age_s.to_string()));
        share(cors, value, &mut headers);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        headers
    });
    Some(Preflight { origin: origin.to_owned(), allowed })
}

fn allowed_origin(cors: &Cors, origin: &str) -> Option<HeaderValue> {
    let is_allowed = cors.origins.iter().any(|pattern| pattern.allows(origin));
    HeaderValue::from_str(origin).ok().filter(|_| is_allowed)
}

/// A list as a browser reads it; what was asked for where anything is allowed, since `*` means nothing to a request with
/// credentials.
fn listed(list: &[String], asked: Option<&str>) -> Option<String> {
    if list.iter().any(|entry| entry == ANY) {
        return asked.map(str::to_owned);
    }
    (!list.is_empty()).then(|| list.join(", "))
}

const ANY: &str = "*";

/// Says who may read the answer.
fn share(cors: &Cors, origin: HeaderValue, headers: &mut HeaderMap) {
    let any = cors.expose.iter().any(|name| name == ANY);
    let exposed = match (any, cors.credentials) {
        (true, true) => Some(headers.keys().filter(|name| !is_withheld(name)).map(HeaderName::as_str).collect()),
        (true, false) => Some(vec![ANY]),
        (false, _) => (!cors.expose.is_empty()).then(|| cors.expose.iter().map(String::as_str).collect::<Vec<_>>()),
    };
    let exposed = exposed.filter(|names| !names.is_empty()).map(|names| names.join(", "));
    if let Some(Ok(exposed)) = exposed.map(HeaderValue::try_from) {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if cors.credentials {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

/// Fields that no script reads, or that are about sharing itself.
fn is_withheld(name: &HeaderName) -> bool {
    name.as_str().starts_with(ABOUT_SHARING) || *name == header::SET_COOKIE || name.as_str() == "set-cookie2"
}

const ABOUT_SHARING: &str = "access-control-";

/// What a rule says of the origin of an answer. It comes in the place of whatever the app says.
#[derive(Debug, Clone)]
pub(super) struct Sharing {
    cors: Arc<Cors>,
    /// Where it is allowed.
    origin: Option<HeaderValue>,
}

impl Sharing {
    pub(super) fn of(cors: &Arc<Cors>, head: &HeadView<'_>) -> Self {
        let origin = (head.headers)("origin").and_then(|origin| allowed_origin(cors, origin));
        Self { cors: Arc::clone(cors), origin }
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        let own = headers.keys().filter(|name| name.as_str().starts_with(ABOUT_SHARING));
        for name in own.cloned().collect::<Vec<_>>() {
            headers.remove(name);
        }
        if let Some(origin) = &self.origin {
            share(&self.cors, origin.clone(), headers);
        }
        // Also of an answer that names no origin: a cache shall not give it to a page that has one.
        if !varies(headers) {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
    }

    /// True where the request has an origin that is allowed.
    #[cfg(feature = "manifest")]
    pub(super) fn is_allowed(&self) -> bool {
        self.origin.is_some()
    }
}

/// True where caches know already that the answer is for one origin.
fn varies(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::VARY).iter().filter_map(|value| value.to_str().ok());
    lists
        .flat_map(|list| list.split(','))
        .any(|name| matches!(name.trim(), ANY) || name.trim().eq_ignore_ascii_case("origin"))
}

//! Sessions that a rule keeps at one endpoint: the token of a request, and the one that its answer carries. A token is
//! a hash of backend and endpoint with the times of its session. It is no secret and proves nothing, so that every
//! calling proxy reads the tokens of all others: who makes one up chooses among the endpoints that it may be sent to
//! anyway. Pure: `now` is in seconds since 1970 and an argument.

#[cfg(test)]
mod tests;

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use weft_flow::hash;
use weft_policy::bundle::{ObjectName, Persistence, RouteRule, SessionToken};

/// Clocks of proxies differ by no more than this; a token from further ahead is none.
const SKEW_S: u64 = 60;
/// Hexadecimal digits of a hash.
const DIGITS: usize = 16;

/// The session of a request, and what its answer says of it.
#[derive(Debug, Clone)]
pub(super) struct Session {
    persistence: Persistence,
    /// The mark of the backend that it is sent to.
    backend: u64,
    /// `None`: it has none that still holds.
    token: Option<Token>,
    now: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    backend: u64,
    endpoint: u64,
    /// When its session began, and when its last request came.
    began: u64,
    used: u64,
}

/// How tokens name a backend: its service, and the port of that. `outside`: it is an ExternalService, which may have the name of
/// a service.
pub(super) fn backend_mark(service: &ObjectName, port: u16, outside: bool) -> u64 {
    let kind = if outside { "session backend outside" } else { "session backend" };
    hash(format!("{kind} {service}:{port}").as_bytes())
}

/// The place of the backend to which the session of a request belongs. `None`: it has no session, or that is over.
pub(super) fn kept(persistence: &Persistence, rule: &RouteRule, headers: &HeaderMap, now: u64) -> Option<usize> {
    let token = Token::of(persistence, headers, now)?;
    rule.backends.iter().position(|backend| {
        let mark = |service: &ObjectName| backend_mark(service, backend.port, backend.outside);
        backend.service.as_ref().is_some_and(|service| mark(service) == token.backend)
    })
}

impl Session {
    /// Of a request that is sent to this backend.
    pub(super) fn new(persistence: &Persistence, backend: u64, headers: &HeaderMap, now: u64) -> Self {
        let token = Token::of(persistence, headers, now).filter(|token| token.backend == backend);
        Self { persistence: persistence.clone(), backend, token, now }
    }

    /// The mark of the endpoint that it belongs to.
    pub(super) fn endpoint(&self) -> Option<u64> {
        self.token.map(|token| token.endpoint)
    }

    /// The field by which an answer of this endpoint begins the session, or goes on with it. `None`: its client has it.
    pub(super) fn field(&self, endpoint: u64) -> Option<(HeaderName, HeaderValue)> {
        let Persistence { name, by, absolute_ms, idle_ms } = &self.persistence;
        let known = self.token.filter(|token| token.endpoint == endpoint);
        if known.is_some() && idle_ms.is_none() {
            return None;
        }
        let began = known.map_or(self.now, |token| token.began);
        let text = Token { backend: self.backend, endpoint, began, used: self.now }.text();
        match by {
            SessionToken::Header => Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(text).ok()?)),
            SessionToken::Cookie { path, permanent } => {
                let ends = absolute_ms.filter(|_| *permanent).map(|ms| began.saturating_add(ms.div_ceil(1_000)));
                let left = ends.map(|ends| format!("; Max-Age={}", ends.saturating_sub(self.now)));
                let cookie = format!("{name}={text}; Path={path}; HttpOnly{}", left.unwrap_or_default());
                Some((SET_COOKIE, HeaderValue::try_from(cookie).ok()?))
            }
        }
    }
}

impl Token {
    /// That of a request, where it has one and its session is not over.
    fn of(persistence: &Persistence, headers: &HeaderMap, now: u64) -> Option<Self> {
        let fields = |name: &str| headers.get_all(name).into_iter().map(HeaderValue::as_bytes);
        let token = Self::parse(persistence.find(fields)?)?;
        token.holds(persistence, now).then_some(token)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(text).ok()?.split('-');
        let (marks, began, used) = (parts.next()?, parts.next()?, parts.next()?);
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        if marks.len() != 2 * DIGITS || parts.next().is_some() {
            return None;
        }
        let (backend, endpoint) = marks.split_at_checked(DIGITS)?;
        Some(Self {
            backend: number(backend)?,
            endpoint: number(endpoint)?,
            began: number(began)?,
            used: number(used)?,
        })
    }

    fn text(self) -> String {
        let Self { backend, endpoint, began, used } = self;
        format!("{backend:016x}{endpoint:016x}-{began:x}-{used:x}")
    }

    fn holds(&self, persistence: &Persistence, now: u64) -> bool {
        let is_within = |since: u64, limit_ms: Option<u64>| {
            limit_ms.is_none_or(|limit_ms| now.saturating_sub(since).saturating_mul(1_000) < limit_ms)
        };
        let newest = now.saturating_add(SKEW_S);
        self.began <= self.used
            && self.used <= newest
            && is_within(self.began, persistence.absolute_ms)
            && is_within(self.used, persistence.idle_ms)
    }
}

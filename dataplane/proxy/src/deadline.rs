//! How long the caller of a request waits: read from its fields, told on as what is left of it, and held. It shortens what the
//! operator set and lengthens nothing, so that nobody has to be believed.

#[cfg(test)]
mod tests;

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use weft_transport::http::RequestHead;

use crate::reply::Failure;
use crate::trial::End;

/// Milliseconds that the caller waits still, in any request: an app may say it, and is told it.
pub const WEFT_TIMEOUT_MS: HeaderName = HeaderName::from_static("weft-timeout-ms");
/// The same of a gRPC call (PROTOCOL-HTTP2.md of gRPC, `Timeout`).
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The proxy of a callee holds a deadline so much longer than that of the caller, which is to end the request: its answer says
/// whose time was over. Not in the configuration: nobody waits for it.
const BEHIND: Duration = Duration::from_millis(50);

/// What the fields of a request said when it came.
#[derive(Debug, Clone, Copy)]
pub struct Said {
    /// By `weft-timeout-ms`.
    plain: Option<End>,
    came: Instant,
}

impl Said {
    /// Reads what only proxies pass on, before that is taken off. What can't be meant says nothing; of several values the least
    /// counts.
    pub fn read(headers: &HeaderMap) -> Self {
        let plain = least(headers, &WEFT_TIMEOUT_MS, weft_flow::timeout_ms);
        Self { plain: plain.map(End::told), came: Instant::now() }
    }

    /// Takes what a gRPC call says of it off the head, and puts both together. An upgraded request has no deadline.
    pub fn take(self, head: &mut RequestHead) -> Until {
        let headers = &mut head.headers;
        if head.protocol.is_some() {
            return Until::default();
        }
        let is_grpc = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let grpc = is_grpc.then(|| least(headers, &GRPC_TIMEOUT, weft_flow::grpc_timeout)).flatten();
        if grpc.is_some() {
            headers.remove(GRPC_TIMEOUT);
        }
        let told = grpc.map(|wait| End::told(wait.saturating_sub(self.came.elapsed())));
        Until { end: End::earlier(self.plain, told), in_grpc: grpc.is_some() }
    }
}

/// The least of what the values of a field mean.
fn least(headers: &HeaderMap, name: &HeaderName, read: fn(&[u8]) -> Option<Duration>) -> Option<Duration> {
    headers.get_all(name).iter().filter_map(|value| read(value.as_bytes())).min()
}

/// The end of a request's time, and how its callee is told of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Until {
    end: Option<End>,
    /// It was said by `grpc-timeout`, too.
    in_grpc: bool,
}

impl Until {
    /// The earlier of this and of what the operator set.
    #[must_use]
    pub fn and(self, limit: Option<Duration>) -> Self {
        Self { end: End::earlier(limit.and_then(End::after), self.end), ..self }
    }

    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The end for who only stands behind the one that holds it.
    pub fn end_behind(&self) -> Option<End> {
        self.end.map(|end| end.later(BEHIND))
    }

    /// True where so little is left that the callee's proxy may hold it to be over.
    pub fn is_nearly_over(&self) -> bool {
        self.end.is_some_and(|end| end.left() <= BEHIND)
    }

    /// An error where nothing is left: the request is not sent.
    ///
    /// # Errors
    /// Its time is over.
    pub fn check(&self) -> Result<(), Failure> {
        match self.end {
            Some(end) if end.left().is_zero() => Err(end.unsent()),
            Some(_) | None => Ok(()),
        }
    }

    /// The fields that tell what is left now.
    pub fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let left = self.end.map(End::left);
        let plain = left.map(|left| (WEFT_TIMEOUT_MS, HeaderValue::from(weft_flow::timeout_ms_number(left))));
        plain.into_iter().chain(left.and_then(|left| self.grpc_field(left)))
    }

    /// The one of them that a callee without a proxy knows, where the call had it.
    pub fn plain_field(&self) -> Option<(HeaderName, HeaderValue)> {
        self.end.and_then(|end| self.grpc_field(end.left()))
    }

    fn grpc_field(&self, left: Duration) -> Option<(HeaderName, HeaderValue)> {
        let text = self.in_grpc.then(|| weft_flow::grpc_timeout_text(left))?;
        Some((GRPC_TIMEOUT, HeaderValue::try_from(text).expect("digits and a letter")))
    }
}

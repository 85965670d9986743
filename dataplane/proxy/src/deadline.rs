//! How long the caller of a request waits: read from its fields, told on as what is left of it, and held. It shortens what the
//! operator set and lengthens nothing, so that nobody has to be believed. A stream is ended by what its caller says, and of
//! what the operator set by the time of streams alone.

#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use weft_transport::between::{WEFT_ANSWER_MS, WEFT_TIMEOUT_MS};
use weft_transport::http::RequestHead;

use crate::reply::Failure;
use crate::trial::{End, Ends};

/// As [`WEFT_TIMEOUT_MS`], of a gRPC call (PROTOCOL-HTTP2.md of gRPC, `Timeout`).
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The proxy of a callee holds a deadline so much longer than that of the caller, which is to end the request: its answer says
/// whose time was over. Not in the configuration: nobody waits for it.
const BEHIND: Duration = Duration::from_millis(50);

/// What the fields of a request said when it came.
#[derive(Debug, Clone, Copy)]
pub struct Said {
    /// By `weft-timeout-ms`.
    plain: Option<Duration>,
    /// By `weft-answer-ms`.
    answer: Option<Duration>,
}

impl Said {
    /// Reads what an app may say of what only proxies pass on, before that is taken off. What can't be meant says nothing; of
    /// several values the least counts.
    pub fn read(headers: &HeaderMap) -> Self {
        Self { plain: least(headers, &WEFT_TIMEOUT_MS, weft_flow::timeout_ms), answer: None }
    }

    /// The same of what another proxy says.
    pub fn read_of_proxy(headers: &HeaderMap) -> Self {
        Self { answer: least(headers, &WEFT_ANSWER_MS, weft_flow::timeout_ms), ..Self::read(headers) }
    }

    /// Takes what a gRPC call says of it off the head, and puts both together. An upgraded request has no deadline. `came`: when the
    /// request did.
    pub fn take(self, head: &mut RequestHead, came: Instant) -> Until {
        let headers = &mut head.headers;
        if head.protocol.is_some() {
            return Until::default();
        }
        let is_grpc = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let grpc = is_grpc.then(|| least(headers, &GRPC_TIMEOUT, weft_flow::grpc_timeout)).flatten();
        if grpc.is_some() {
            headers.remove(GRPC_TIMEOUT);
        }
        let told = |wait| End::told(wait, came);
        let caller = grpc.into_iter().chain(self.plain).min().map(told);
        Until::of(Times { caller, operator: self.answer.map(told), stream: None, in_grpc: grpc.is_some() })
    }
}

/// The least of what the values of a field mean.
fn least(headers: &HeaderMap, name: &HeaderName, read: fn(&[u8]) -> Option<Duration>) -> Option<Duration> {
    headers.get_all(name).iter().filter_map(|value| read(value.as_bytes())).min()
}

/// The ends of a request's time, and how its callee is told of them. Most requests have none.
#[derive(Debug, Clone, Default)]
pub struct Until(Option<Rc<Times>>);

#[derive(Debug, Clone, Copy, Default)]
struct Times {
    /// The caller's word, for whatever its call becomes.
    caller: Option<End>,
    /// Of what is no stream.
    operator: Option<End>,
    /// Of what is one.
    stream: Option<End>,
    /// The caller's was said by `grpc-timeout`, too.
    in_grpc: bool,
}

impl Until {
    fn of(times: Times) -> Self {
        let has_some = times.caller.is_some() || times.operator.is_some() || times.stream.is_some();
        Self(has_some.then(|| Rc::new(times)))
    }

    fn times(&self) -> Times {
        self.0.as_deref().copied().unwrap_or_default()
    }

    /// The end of what has so long, whatever its answer is.
    pub fn whole(limit: Duration) -> Self {
        Self::of(Times { caller: End::after(limit, Instant::now()), ..Times::default() })
    }

    /// The earlier of this and of what the operator set. `stream`: for an answer that is a stream.
    #[must_use]
    pub fn and(&self, limit: Option<Duration>, stream: Option<Duration>) -> Self {
        if limit.is_none() && stream.is_none() {
            return self.clone();
        }
        let (times, now) = (self.times(), Instant::now());
        let own = |limit: Option<Duration>| limit.and_then(|limit| End::after(limit, now));
        let (operator, stream) = (End::earlier(own(limit), times.operator), End::earlier(own(stream), times.stream));
        Self::of(Times { operator, stream, ..times })
    }

    /// The end of what is no stream.
    pub fn end(&self) -> Option<End> {
        let Times { caller, operator, .. } = self.times();
        End::earlier(operator, caller)
    }

    /// The ends by what the answer is.
    pub fn ends(&self) -> Ends {
        let Times { caller, stream, .. } = self.times();
        Ends { whole: self.end(), stream: End::earlier(stream, caller) }
    }

    /// The same for who only stands behind the one that holds them.
    pub fn ends_behind(&self) -> Ends {
        let (ends, behind) = (self.ends(), |end: Option<End>| end.map(|end| end.later(BEHIND)));
        Ends { whole: behind(ends.whole), stream: behind(ends.stream) }
    }

    /// True where so little is left that the callee's proxy may hold it to be over.
    pub fn is_nearly_over(&self) -> bool {
        self.end().is_some_and(|end| end.left(Instant::now()) <= BEHIND)
    }

    /// An error where nothing is left: the request is not sent.
    ///
    /// # Errors
    /// Its time is over.
    pub fn check(&self, now: Instant) -> Result<(), Failure> {
        match self.end() {
            Some(end) if end.left(now).is_zero() => Err(end.unsent()),
            Some(_) | None => Ok(()),
        }
    }

    /// The fields that tell an app what is left.
    pub fn fields(&self, now: Instant) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let plain = self.end().map(|end| (WEFT_TIMEOUT_MS, millis(end, now)));
        plain.into_iter().chain(self.plain_field(now))
    }

    /// The fields that tell a callee's proxy, each time by itself.
    pub fn to_proxy(&self, now: Instant) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let Times { caller, operator, .. } = self.times();
        let is_earlier = |end: &End| caller.is_none_or(|caller| end.at() < caller.at());
        let answer = operator.filter(is_earlier).map(|end| (WEFT_ANSWER_MS, millis(end, now)));
        let plain = caller.map(|end| (WEFT_TIMEOUT_MS, millis(end, now)));
        plain.into_iter().chain(self.plain_field(now)).chain(answer)
    }

    /// The one of them that a callee without a proxy knows, where the call had it. Its server ends streams by it, so that it is
    /// the caller's alone.
    pub fn plain_field(&self, now: Instant) -> Option<(HeaderName, HeaderValue)> {
        let Times { caller, in_grpc, .. } = self.times();
        let text = weft_flow::grpc_timeout_text(caller.filter(|_| in_grpc)?.left(now));
        Some((GRPC_TIMEOUT, HeaderValue::try_from(text).expect("digits and a letter")))
    }
}

fn millis(end: End, now: Instant) -> HeaderValue {
    // The conversion of a number that `HeaderValue` has makes two allocations.
    let value = itoa::Buffer::new().format(weft_flow::timeout_ms_number(end.left(now))).parse();
    value.expect("digits")
}

//! What holds for one attempt to send a request that may be followed by others: when it has to be over, and which answers
//! nobody is given, and who is told of the one that somebody is.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;
use weft_transport::http::ResponseHead;

use crate::alarms::Alarms;
use crate::reply::Failure;

/// What holds for one attempt of a request that may be followed by others.
#[derive(Clone, Copy)]
pub struct Trial<'t> {
    /// Says which answers nobody is given, since another attempt follows.
    pub again: Option<&'t dyn Again>,
    /// When it has to be over: with the final head of its answer, or behind it.
    pub ends: Option<&'t Cell<Ends>>,
    /// Told of the answer that is passed on.
    pub begun: Option<&'t dyn Begun>,
    /// The final head of an answer that was awaited beside another's.
    pub received: Option<&'t Cell<Option<ResponseHead>>>,
    /// Told what that answer is.
    pub flow: &'t Flow,
}

impl<'t> Trial<'t> {
    /// Of a request that is sent on as it is, by whoever bounds it by what its answer is.
    pub fn of(flow: &'t Flow) -> Self {
        Self { again: None, ends: None, begun: None, received: None, flow }
    }

    pub fn ends(trial: Option<&Self>) -> Ends {
        trial.and_then(|trial| trial.ends).map(Cell::get).unwrap_or_default()
    }

    /// From now on it has to be over by these.
    pub fn set_ends(trial: Option<&Self>, ends: Ends) {
        if let Some(cell) = trial.and_then(|trial| trial.ends) {
            cell.set(ends);
        }
    }

    pub fn flow(trial: Option<&Self>) -> Option<&'t Flow> {
        trial.map(|trial| trial.flow)
    }

    pub fn again(trial: Option<&Self>) -> Option<&'t dyn Again> {
        trial.and_then(|trial| trial.again)
    }

    pub fn received(trial: Option<&Self>) -> Option<&'t Cell<Option<ResponseHead>>> {
        trial.and_then(|trial| trial.received)
    }

    pub fn begun(trial: Option<&Self>) -> Option<&'t dyn Begun> {
        trial.and_then(|trial| trial.begun)
    }
}

/// Says whether an answer is to be followed by another attempt instead of being passed on.
pub trait Again {
    /// `head`: of the answer, or its trailers where they are all that follows.
    fn discards(&self, head: &ResponseHead) -> bool;

    /// True where trailers may say so, too.
    fn reads_trailers(&self) -> bool;
}

/// Told once the final head of an answer has come that is passed on.
pub trait Begun {
    /// `own`: the status with which it came.
    fn begun(&self, own: StatusCode, at: std::time::Instant);
}

/// What the answer of a request is by now, as far as that decides which of its times end it.
#[derive(Debug, Default)]
pub struct Flow(Cell<Kind>);

/// What the head of an answer says that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// A message, which its receiver awaits the end of.
    #[default]
    Message,
    /// Messages of gRPC: of a call that hangs before the first of them nobody knows that it streams.
    Call,
    /// Events, or messages of gRPC of which the first is there.
    Stream,
}

impl Kind {
    /// By the content type of an answer, as it came.
    pub fn of(headers: &HeaderMap) -> Self {
        let value = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        let kind = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is_grpc = kind.get(..GRPC.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC));
        match (kind.eq_ignore_ascii_case(EVENTS), is_grpc) {
            (true, _) => Self::Stream,
            (false, true) => Self::Call,
            (false, false) => Self::Message,
        }
    }
}

const EVENTS: &[u8] = b"text/event-stream";
/// And its subtypes.
const GRPC: &[u8] = b"application/grpc";

impl Flow {
    /// The head of the answer has come that is passed on.
    pub fn begins(&self, kind: Kind) {
        self.0.set(kind);
    }

    /// Bytes of its body have come.
    pub fn moved(&self) {
        if self.0.get() == Kind::Call {
            self.0.set(Kind::Stream);
        }
    }

    /// Its first bytes decide.
    pub fn waits_for_bytes(&self) -> bool {
        self.0.get() == Kind::Call
    }

    pub fn is_stream(&self) -> bool {
        self.0.get() == Kind::Stream
    }
}

/// When an exchange has to be over, by what its answer is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ends {
    /// Unless it is a stream.
    pub whole: Option<End>,
    /// Where it is one.
    pub stream: Option<End>,
}

impl Ends {
    pub fn are_some(&self) -> bool {
        self.whole.is_some() || self.stream.is_some()
    }

    /// Waits for `awaited`, which tells `flow` what its answer is, until then.
    ///
    /// # Errors
    /// It was not there by then.
    pub fn bound<'b, F: Future>(
        self,
        alarms: &'b Alarms,
        flow: Option<&'b Flow>,
        mut awaited: Pin<&'b mut F>,
    ) -> impl Future<Output = Result<F::Output, Failure>> {
        let mut alarm = None;
        std::future::poll_fn(move |cx| {
            if let Poll::Ready(output) = awaited.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            let end = if flow.is_some_and(Flow::is_stream) { self.stream } else { self.whole };
            let Some(end) = end else { return Poll::Pending };
            alarm.get_or_insert_with(|| alarms.take()).poll(end.at, cx).map(|()| Err(end.late()))
        })
    }
}

/// Waits for `awaited`, which tells `flow` what its answer is, but not beyond its ends: `late` says what it is then.
pub fn within<'b, F, E>(
    alarms: &'b Alarms,
    (ends, flow): (Ends, Option<&'b Flow>),
    awaited: Pin<&'b mut F>,
    late: fn(Failure) -> E,
) -> impl Future<Output = Result<(), E>>
where
    F: Future<Output = Result<(), E>>,
{
    ends.bound(alarms, flow, awaited).map(move |ended| ended.unwrap_or_else(|failure| Err(late(failure))))
}

/// The moment by which a request, or one attempt to send it, has to be over.
#[derive(Debug, Clone, Copy)]
pub struct End {
    at: Instant,
    limit_ms: u64,
    /// The caller says so, not the operator.
    told: bool,
}

impl End {
    pub fn after(limit: Duration, now: Instant) -> Option<Self> {
        Some(Self { at: now.checked_add(limit)?, limit_ms: millis(limit), told: false })
    }

    /// The end of what the caller said when its request came that it waits, which has bounds.
    pub fn told(limit: Duration, came: Instant) -> Self {
        Self { at: came + limit, limit_ms: millis(limit), told: true }
    }

    /// The same, so much later.
    #[must_use]
    pub fn later(self, by: Duration) -> Self {
        Self { at: self.at + by, ..self }
    }

    pub fn at(self) -> Instant {
        self.at
    }

    /// Time until then; zero once it is over.
    pub fn left(self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }

    /// The earlier of those that there are; of two at one moment the first.
    pub fn earlier(first: Option<Self>, second: Option<Self>) -> Option<Self> {
        first.map(|first| first.min(second)).or(second)
    }

    /// The failure of a request that it kept from being sent.
    pub fn unsent(self) -> Failure {
        if self.told { Failure::NoTimeLeft } else { self.late() }
    }

    fn late(self) -> Failure {
        if self.told { Failure::CallerDeadline(self.limit_ms) } else { Failure::Timeout(self.limit_ms) }
    }

    /// The earlier of both.
    #[must_use]
    pub fn min(self, other: Option<Self>) -> Self {
        other.filter(|other| other.at < self.at).unwrap_or(self)
    }
}

fn millis(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

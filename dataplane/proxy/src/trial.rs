//! What holds for one attempt to send a request that may be followed by others: when it has to be over, and which answers
//! nobody is given, and who is told of the one that somebody is.

use std::cell::Cell;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;
use weft_transport::http::ResponseHead;

use crate::reply::Failure;

/// What holds for one attempt of a request that may be followed by others.
#[derive(Clone, Copy)]
pub struct Trial<'t> {
    /// Says which answers nobody is given, since another attempt follows.
    pub again: Option<&'t dyn Again>,
    /// When the final head of an answer has to be there.
    pub end: &'t Cell<Option<End>>,
    /// Told of the answer that is passed on.
    pub begun: &'t dyn Begun,
    /// The final head of an answer that was awaited beside another's.
    pub received: &'t Cell<Option<ResponseHead>>,
}

impl<'t> Trial<'t> {
    pub fn end(trial: Option<&Self>) -> Option<End> {
        trial.and_then(|trial| trial.end.get())
    }

    pub fn again(trial: Option<&Self>) -> Option<&'t dyn Again> {
        trial.and_then(|trial| trial.again)
    }

    pub fn received(trial: Option<&Self>) -> Option<&'t Cell<Option<ResponseHead>>> {
        trial.map(|trial| trial.received)
    }

    pub fn begun(trial: Option<&Self>) -> Option<&'t dyn Begun> {
        trial.map(|trial| trial.begun)
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

/// The moment by which a request, or one attempt to send it, has to be over.
#[derive(Debug, Clone, Copy)]
pub struct End {
    at: Instant,
    limit: Duration,
    /// The caller says so, not the operator.
    told: bool,
}

impl End {
    pub fn after(limit: Duration) -> Option<Self> {
        Some(Self { at: Instant::now().checked_add(limit)?, limit, told: false })
    }

    /// The end of what the caller says that it waits, which has bounds.
    pub fn told(limit: Duration) -> Self {
        Self { at: Instant::now() + limit, limit, told: true }
    }

    /// The same, so much later.
    #[must_use]
    pub fn later(self, by: Duration) -> Self {
        Self { at: self.at + by, ..self }
    }

    /// Time until then; zero once it is over.
    pub fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
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
        let limit_ms = u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX);
        if self.told { Failure::CallerDeadline(limit_ms) } else { Failure::Timeout(limit_ms) }
    }

    /// The earlier of both.
    #[must_use]
    pub fn min(self, other: Option<Self>) -> Self {
        other.filter(|other| other.at < self.at).unwrap_or(self)
    }

    /// Waits for `awaited` until then.
    ///
    /// # Errors
    /// It was not there by then.
    pub async fn bounds<T>(self, awaited: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::time::timeout_at(self.at, awaited).await.map_err(|_| self.late())
    }
}

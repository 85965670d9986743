//! Requests that are under way on a connection. One on which nothing is asked is closed: frames that ask for nothing, such
//! as answers to PING, keep no place.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body::{Body, Frame, SizeHint};

/// The requests of one connection; clones are of the same.
#[derive(Debug, Clone)]
pub struct Uses(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    open: usize,
    /// When the last one ended, or the connection began.
    since: Instant,
}

/// One request, until its answer has been sent or given up.
#[derive(Debug)]
pub struct Use(Uses);

impl Uses {
    pub(super) fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(State { open: 0, since: now })))
    }

    /// A request begins.
    pub fn begin(&self) -> Use {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).open += 1;
        Use(self.clone())
    }

    /// How long nothing has been asked; `None` while something is.
    pub(super) fn idle(&self, now: Instant) -> Option<Duration> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.open == 0).then(|| now.saturating_duration_since(state.since))
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.open = state.open.saturating_sub(1);
        state.since = Instant::now();
    }
}

/// A body of an answer, whose request is under way until it is dropped.
pub struct InUse<B> {
    body: B,
    _use: Use,
}

impl<B> InUse<B> {
    pub fn new(body: B, r#use: Use) -> Self {
        Self { body, _use: r#use }
    }
}

impl<B: Body + Unpin> Body for InUse<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_from_the_end_of_its_last_request() {
        let start = Instant::now();
        let uses = Uses::new(start);
        assert_eq!(uses.idle(start + Duration::from_secs(5)), Some(Duration::from_secs(5)));
        let (first, second) = (uses.begin(), uses.clone().begin());
        drop(first);
        assert_eq!(uses.idle(start + Duration::from_secs(500)), None);
        let body = InUse::new(http_body_util::Empty::<&[u8]>::new(), second);
        assert!(body.is_end_stream());
        assert_eq!(uses.idle(start + Duration::from_secs(500)), None, "until the answer is sent");
        drop(body);
        assert!(uses.idle(Instant::now()).unwrap() < Duration::from_secs(60), "from now on");
    }
}

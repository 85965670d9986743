//! The request body of an exchange on its way up, driven by whoever waits for the answer.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use weft_transport::http::SendBody;

use super::{ExchangeError, Progress, PumpError, Source, pump};
use crate::reply::Failure;
use crate::stalls::Stalls;

/// The request body on its way up, beside the answer. Boxed: most requests have none, and it is most of an exchange.
pub(super) enum Upload<'u> {
    Running(Pin<Box<dyn Future<Output = Result<(), PumpError>> + 'u>>),
    /// The other side takes no more of it.
    Refused,
    Done,
}

/// State of an upload at the moment it was given up.
pub(super) enum GivenUp {
    Running,
    Refused,
    Nothing,
}

impl<'u> Upload<'u> {
    pub(super) fn start(
        body: &'u mut Source<'_>,
        up: &'u mut SendBody<'_>,
        sent: &'u Progress,
        stalls: &'u Stalls,
    ) -> Self {
        if body.is_end() {
            body.end_copies();
            return Upload::Done;
        }
        Upload::Running(Box::pin(pump(body, up, sent, stalls)))
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self, Upload::Running(_))
    }

    /// Drives the upload while waiting for `other`. A sink that takes no more (early answer) ends the upload, not the
    /// exchange.
    pub(super) async fn race<F: Future>(&mut self, mut other: Pin<&mut F>) -> Result<F::Output, ExchangeError> {
        std::future::poll_fn(|cx| {
            if let Upload::Running(upload) = self
                && let Poll::Ready(end) = upload.as_mut().poll(cx)
            {
                *self = if end.is_ok() { Upload::Done } else { Upload::Refused };
                if let Err(error) = ended(end) {
                    return Poll::Ready(Err(error));
                }
            }
            other.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Carries on after a complete answer for as long as the app reads and the client sends.
    pub(super) async fn finish(mut self, sent: &Progress, idle: Duration) -> Result<(), ExchangeError> {
        let still = pin!(until_still(|| sent.of_attempt.get(), idle));
        self.race_to_its_end(still).await
    }

    async fn race_to_its_end(&mut self, mut still: Pin<&mut impl Future<Output = ()>>) -> Result<(), ExchangeError> {
        std::future::poll_fn(|cx| match self {
            Upload::Done | Upload::Refused => Poll::Ready(Ok(())),
            Upload::Running(upload) => match upload.as_mut().poll(cx) {
                Poll::Ready(end) => Poll::Ready(ended(end)),
                Poll::Pending => still.as_mut().poll(cx).map(Ok),
            },
        })
        .await
    }

    /// Ends what is not done.
    pub(super) fn give_up(self) -> GivenUp {
        match self {
            Upload::Running(_) => GivenUp::Running,
            Upload::Refused => GivenUp::Refused,
            Upload::Done => GivenUp::Nothing,
        }
    }
}

/// What the end of an upload is to its exchange, which a sink that takes no more does not end.
fn ended(end: Result<(), PumpError>) -> Result<(), ExchangeError> {
    match end {
        Ok(()) | Err(PumpError::Sink) => Ok(()),
        Err(PumpError::Source(_)) => Err(ExchangeError::ClientGone),
        Err(PumpError::Cut(cut)) => Err(ExchangeError::Filter(Failure::FilterCut(cut))),
        Err(PumpError::Stalled(stalled)) => Err(ExchangeError::Stalled(stalled)),
    }
}

/// Resolves when `moved` has not changed for `idle`.
pub(super) async fn until_still(moved: impl Fn() -> u64, idle: Duration) {
    let mut seen = moved();
    loop {
        tokio::time::sleep(idle).await;
        if std::mem::replace(&mut seen, moved()) == moved() {
            return;
        }
    }
}

//! Answers whose body the proxy, or a filter in it, makes: their clients may take them slowly, or not at all.

use std::pin::pin;

use bytes::Bytes;
use futures_util::future::{Either, select};
use weft_transport::http::{Responder, ResponseHead, SendBody, StreamError};
use weft_transport::mesh::Code;

use super::{ExchangeError, Idle, Progress, PumpError, Source, pump, tell};
use crate::reply::Failure;
use crate::stalls::{Stalled, Stalls};
use crate::telemetry::counters::Limited;

/// An answer of the proxy's own was not taken whole.
#[derive(Debug)]
pub struct NotTaken;

/// Bytes that the head of an answer of the proxy's own takes, about.
const OWN_HEAD: usize = 512;

/// Sends an answer of the proxy's own. While its client takes nothing, it is on the books of what is held; and it is given
/// up after a while.
pub async fn answer(
    responder: Responder<'_>,
    head: &ResponseHead,
    body: Bytes,
    idle: Idle<'_>,
) -> Result<(), NotTaken> {
    let held = OWN_HEAD + body.len();
    let sending = async {
        let sink = responder.head(head, body.is_empty()).await?;
        if body.is_empty() { Ok(()) } else { send_all(sink, body).await }
    };
    match tokio::time::timeout(idle.own_answer, idle.stalls.once(held, pin!(sending))).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(_)) | Err(Stalled { .. })) => Err(NotTaken),
        Err(_) => {
            Limited::OwnAnswers.hit();
            Err(NotTaken)
        }
    }
}

/// Sends an answer whose body is made as it is taken: as long as its client takes it, and its maker goes on. What is left of
/// the request is read and forgotten meanwhile: who sends it may read nothing before it was taken.
pub async fn stream(
    (rest, responder): (&mut Source<'_>, Responder<'_>),
    head: &ResponseHead,
    source: &mut Source<'_>,
    (received, idle): (&Progress, Idle<'_>),
) -> Result<(), ExchangeError> {
    let mut sink = tell(idle.stalls, OWN_HEAD, pin!(responder.head(head, false))).await?;
    let end = {
        let answering = pin!(pump(source, &mut sink, received, idle.stalls));
        match select(answering, pin!(forget(rest))).await {
            Either::Left((end, _)) => end,
            Either::Right(((), answering)) => answering.await,
        }
    };
    if !rest.is_end() {
        rest.stop(Code::NO_ERROR);
    }
    end.map_err(|error| match error {
        PumpError::Source(error) => ExchangeError::Broken(error),
        PumpError::Cut(cut) => ExchangeError::Filter(Failure::FilterCut(cut)),
        PumpError::Sink => ExchangeError::ClientGone,
        PumpError::Stalled(stalled) => ExchangeError::Stalled(stalled),
    })
}

/// Reads a body to its end, or until it breaks off.
async fn forget(body: &mut Source<'_>) {
    body.kept().settle();
    while let Ok(Some(_)) = body.frame().await {
        tokio::task::coop::consume_budget().await;
    }
}

/// Sends a whole small body and ends the message.
async fn send_all(mut to: SendBody<'_>, body: Bytes) -> Result<(), StreamError> {
    to.data(body).await?;
    to.finish(None).await
}

/// Sends what a filter put in the place of an answer's body.
pub(super) async fn replace(
    head: &ResponseHead,
    body: Bytes,
    responder: Responder<'_>,
    stalls: &Stalls,
    received: &Progress,
) -> Result<(), ExchangeError> {
    let length = body.len();
    let sink = tell(stalls, length, pin!(responder.head(head, body.is_empty()))).await?;
    if !body.is_empty() {
        tell(stalls, length, pin!(send_all(sink, body))).await?;
        received.bytes.set(length as u64);
    }
    Ok(())
}

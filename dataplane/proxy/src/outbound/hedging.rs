//! Another attempt beside one whose answer is slow, where a TrafficPolicy asks for it: of requests without a body that
//! may be at two endpoints at once, between endpoints that have a proxy. The first good answer is passed on, and the
//! other attempt is given up; where neither is good the first attempt's answer stands. Nothing is told to the client
//! before one has won.

use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use http::StatusCode;
use weft_filter_host::Permit;
use weft_transport::http::{RequestHead, ResponseHead, SendError};

use super::attempts::{Attempt, Attempts};
use super::peer_leg::Opened;
use crate::call::{Call, Failed};
use crate::filtering::Filtered;
use crate::record::Unanswered;
use crate::relay::{self, ClientGone};
use crate::reply::{Failure, Party};
use crate::snapshot::Served;
use crate::trial::Trial;
use crate::worker::Worker;

/// Statuses of gRPC that another endpoint may do better than: DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL,
/// UNAVAILABLE.
const BAD_CODES: [u16; 4] = [4, 8, 13, 14];

/// The attempt whose answer is passed on.
struct Won<'w> {
    opened: Opened,
    answer: Result<ResponseHead, SendError>,
    /// It is not the first: this one, and what the first came to.
    by: Option<(Attempt<'w>, Loss)>,
    /// There was another.
    was_hedged: bool,
}

/// What an attempt came to whose answer is not passed on.
enum Loss {
    /// Its answer had not come.
    Slower,
    Answered(StatusCode),
    Failed(Failure),
}

/// How a race of two ended: the answer that won, and what the other attempt came to.
enum Outcome {
    First(Result<ResponseHead, SendError>, Loss),
    Second(Box<Opened>, ResponseHead, Loss),
}

impl Loss {
    /// Of the first attempt, by an answer that was not good.
    fn of(answer: Result<ResponseHead, SendError>) -> Self {
        match answer {
            Ok(head) => Self::Answered(head.status),
            Err(error) => Self::Failed(Unanswered::new(Party::Peer, error).failure),
        }
    }
}

/// One attempt, with another beside it where its answer is not there `after` so long. `attempt` is the one that won.
pub(super) async fn exchange<'w>(
    (worker, from): (&Rc<Worker>, &Served),
    (attempts, after): (&Attempts<'w>, Duration),
    attempt: &mut Attempt<'w>,
    permit: Permit,
    filtered: &mut Filtered<'_>,
    call: &mut Call<'_, '_>,
) -> Result<(), Failed> {
    note(attempt, false, call);
    // For the attempt beside it, and for what follows where neither is answered in time.
    let (beside, again) = (permit.of_copy(), permit.of_copy());
    let won = {
        let racing = pin!(race((worker, from), (attempts, after), attempt, (permit, beside), call.head));
        let timed = pin!(relay::in_time(Trial::ends(call.trial).whole, &worker.alarms, racing));
        relay::unless_gone(timed, call.responder.as_mut()).await
    };
    let Won { opened, answer, by, was_hedged } = match won {
        Ok(Ok(won)) => won?,
        Ok(Err(late)) => return Err(Failed::Unfinished(late, again)),
        Err(ClientGone) => return Err(Failed::Final(Failure::ClientGone)),
    };
    call.record.log(|log| log.hedged = was_hedged);
    if let Some((winner, loss)) = by {
        worker.ledger.counters.hedges_won.increment(1);
        settle(std::mem::replace(attempt, winner), loss);
        call.record.metrics = Some(Rc::clone(&attempt.destination.metrics));
    }
    note(attempt, true, call);
    match answer {
        Ok(head) => {
            if let Some(received) = Trial::received(call.trial) {
                received.set(Some(head));
            }
            opened.carry(worker.idle(), filtered, call).await
        }
        Err(error) => Err(opened.failed(error)),
    }
}

/// Notes where the request goes. `is_proved`: TLS has proved who it is.
fn note(attempt: &Attempt<'_>, is_proved: bool, call: &mut Call<'_, '_>) {
    let destination = &attempt.destination;
    call.record.log(|log| {
        log.upstream = destination.socket(attempt.port).to_str().ok().map(str::to_owned);
        let peer = destination.peer().filter(|_| is_proved);
        log.destination = peer.map(|peer| peer.destination().to_string());
    });
}

async fn race<'w>(
    (worker, from): (&Rc<Worker>, &Served),
    (attempts, after): (&Attempts<'w>, Duration),
    attempt: &Attempt<'w>,
    (permit, beside): (Permit, Permit),
    head: &RequestHead,
) -> Result<Won<'w>, Failed> {
    let mut first = open(from, attempt, permit, head).await?;
    if let Ok(answer) = tokio::time::timeout(after, first.head()).await {
        return Ok(Won { opened: first, answer, by: None, was_hedged: false });
    }
    let Some(other) = attempts.beside(attempt) else {
        let answer = first.head().await;
        return Ok(Won { opened: first, answer, by: None, was_hedged: false });
    };
    worker.ledger.counters.hedged.increment(1);
    let outcome = {
        let second = pin!(answered(from, &other, beside, head));
        match select(pin!(first.head()), second).await {
            Either::Left((answer, _)) if is_good(&answer) => Outcome::First(answer, Loss::Slower),
            Either::Left((answer, second)) => match judged(second.await) {
                Ok((opened, head)) => Outcome::Second(Box::new(opened), head, Loss::of(answer)),
                Err(loss) => Outcome::First(answer, loss),
            },
            Either::Right((answer, first)) => match judged(answer) {
                Ok((opened, head)) => Outcome::Second(Box::new(opened), head, Loss::Slower),
                Err(loss) => Outcome::First(first.await, loss),
            },
        }
    };
    Ok(match outcome {
        Outcome::First(answer, loss) => {
            settle(other, loss);
            Won { opened: first, answer, by: None, was_hedged: true }
        }
        Outcome::Second(opened, head, loss) => {
            Won { opened: *opened, answer: Ok(head), by: Some((other, loss)), was_hedged: true }
        }
    })
}

/// Sends the request to the endpoint of an attempt.
async fn open(from: &Served, attempt: &Attempt<'_>, permit: Permit, head: &RequestHead) -> Result<Opened, Failed> {
    let destination = &attempt.destination;
    let Some(peer) = destination.peer() else {
        // Only endpoints with a proxy are raced.
        let service = destination.endpoint.workload.to_string();
        return Err(Failed::Unprocessed(Failure::NoEndpoints { service }, permit));
    };
    let socket = destination.socket(attempt.port);
    let connected = attempt.connect(peer, permit).await;
    let conn = connected.map_err(|(failure, permit)| Failed::Unprocessed(failure, permit))?;
    let stamp = attempt.stamp(head, &socket, &from.source);
    conn.send(head, &stamp.added()).await
}

/// The answer to an attempt, whatever it is.
async fn answered(
    from: &Served,
    attempt: &Attempt<'_>,
    permit: Permit,
    head: &RequestHead,
) -> Result<(Opened, ResponseHead), Failure> {
    let mut opened = open(from, attempt, permit, head).await.map_err(Failed::failure)?;
    match opened.head().await {
        Ok(head) => Ok((opened, head)),
        Err(error) => Err(Unanswered::new(Party::Peer, error).failure),
    }
}

/// Whether the second attempt wins by its answer; what it came to, where not.
fn judged(answer: Result<(Opened, ResponseHead), Failure>) -> Result<(Opened, ResponseHead), Loss> {
    match answer {
        Ok((opened, head)) if is_good_head(&head) => Ok((opened, head)),
        Ok((_, head)) => Err(Loss::Answered(head.status)),
        Err(failure) => Err(Loss::Failed(failure)),
    }
}

fn is_good(answer: &Result<ResponseHead, SendError>) -> bool {
    answer.as_ref().is_ok_and(is_good_head)
}

/// True for an answer that another endpoint is not asked to better.
fn is_good_head(head: &ResponseHead) -> bool {
    let is_bad_call = relay::grpc_status(&head.headers).is_some_and(|code| BAD_CODES.contains(&code));
    !head.status.is_server_error() && !is_bad_call
}

/// Tells the balancer what became of an attempt whose answer is not passed on.
fn settle(mut attempt: Attempt<'_>, loss: Loss) {
    attempt.was_given(true);
    match loss {
        Loss::Slower => attempt.late(),
        Loss::Answered(status) => attempt.answered(Some((status, false)), Some(Instant::now())),
        Loss::Failed(failure) => _ = attempt.ended(failure),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn answers_that_win() {
        fn check(status: u16, grpc: Option<&'static str>, expect: bool) {
            let mut headers = HeaderMap::new();
            headers.extend(
                grpc.map(|code| (http::HeaderName::from_static("grpc-status"), HeaderValue::from_static(code))),
            );
            let head = ResponseHead { status: StatusCode::from_u16(status).unwrap(), headers };
            assert_eq!(is_good_head(&head), expect, "{status} {grpc:?}");
        }
        check(200, None, true);
        check(404, None, true);
        check(429, None, true);
        check(500, None, false);
        check(503, None, false);
        check(200, Some("0"), true);
        check(200, Some("5"), true);
        check(200, Some("14"), false);
        check(200, Some("4"), false);
    }
}

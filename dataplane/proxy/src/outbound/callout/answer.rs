//! The exchange of one callout: its body goes up while its answer is read, as much of it as the filter takes.

use std::pin::pin;

use bytes::BytesMut;
use futures_util::future::{Either, select};
use http::HeaderMap;
use weft_filter_host::CalloutAnswer;
use weft_transport::http::{Frame, ResponseHead, ResponseRecv, SendBody, SendError, StreamError};

use super::Question;
use crate::mesh;
use crate::record;
use crate::reply::{Failure, Party, WEFT_REPLY, WEFT_UNSERVED, told};
use crate::telemetry::counters::Limited;

/// Why an exchange gave no answer.
pub(super) enum Unanswered {
    Failed(record::Unanswered),
    TooLong(&'static str),
}

impl Unanswered {
    pub(super) fn of(party: Party, error: SendError) -> Self {
        Self::Failed(record::Unanswered::new(party, error))
    }

    /// True where its connection ended before a byte of an answer.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::Failed(record::Unanswered { lost: true, .. }))
    }
}

/// Sends the body and reads the answer, both at once.
pub(super) async fn answered(
    (mut up, answer): (SendBody<'_>, ResponseRecv<'_>),
    party: Party,
    question: &Question<'_>,
) -> Result<CalloutAnswer, Unanswered> {
    let reading = pin!(read(answer, party, question));
    if question.body.is_empty() {
        return reading.await;
    }
    let sending = async {
        // Who answers without having read it all has answered.
        if up.data(question.body.clone()).await.is_ok() {
            let _ = up.finish(None).await;
        }
    };
    match select(pin!(sending), reading).await {
        Either::Left(((), reading)) => reading.await,
        Either::Right((answer, _)) => answer,
    }
}

async fn read(
    mut answer: ResponseRecv<'_>,
    party: Party,
    question: &Question<'_>,
) -> Result<CalloutAnswer, Unanswered> {
    let head = answer.final_head().await.map_err(|error| Unanswered::of(party, error))?;
    if party == Party::Peer {
        of_the_service(&head)?;
    }
    let ResponseHead { status, mut headers } = head;
    mesh::strip_response(&mut headers, false);
    let (mut body, mut room) = (BytesMut::new(), (question.room)());
    let mut rest = answer.into_body();
    let broken = |error: StreamError| Unanswered::of(party, SendError { error, unprocessed: false });
    while let Some(frame) = rest.frame().await.map_err(broken)? {
        match frame {
            Frame::Data(data) if body.len() + data.len() > question.most => {
                return Err(Unanswered::TooLong("the answer is longer than the filter takes"));
            }
            Frame::Data(data) if !room.grow(data.len() as u64) => {
                Limited::FilterBodies.hit();
                return Err(Unanswered::TooLong("no room for the answer: limits.filter_bodies"));
            }
            Frame::Data(data) => body.extend_from_slice(&data),
            // Such as the status of a gRPC call. What the head says stays.
            Frame::Trailers(mut trailers) => {
                mesh::strip(&mut trailers);
                let mut added = HeaderMap::new();
                for (name, value) in trailers.iter().filter(|(name, _)| !headers.contains_key(*name)) {
                    added.append(name.clone(), value.clone());
                }
                headers.extend(added);
            }
        }
    }
    Ok(CalloutAnswer { status, headers, body: body.freeze() })
}

/// An answer that a proxy on the way made itself is none of the service: who may not ask it, or can't, knows nothing of what
/// it would have said.
fn of_the_service(head: &ResponseHead) -> Result<(), Unanswered> {
    if !head.headers.contains_key(WEFT_REPLY) {
        return Ok(());
    }
    let told = told(&head.headers).to_owned();
    if head.headers.contains_key(WEFT_UNSERVED) {
        let failure = Failure::PeerUnserved { told };
        return Err(Unanswered::Failed(record::Unanswered { failure, unprocessed: true, lost: false }));
    }
    let failure = Failure::CalloutRefused { status: head.status, told };
    Err(Unanswered::Failed(record::Unanswered { failure, unprocessed: false, lost: false }))
}

//! The filter chain as a request meets it: the head before routing or delivery, the response head on its way back, the
//! end. Filter calls never wait; a delay is a verdict that is slept here.

use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;
use weft_filter_host::{Attributes, Chain, LocalReply, Outcome, Permit, Position, ReplyCause, RequestView, Summary};
use weft_policy::bundle::Direction;
use weft_transport::http::{RequestHead, ResponseHead};

use crate::outbound::Origin;
use crate::reply::{Failure, FilterReply};
use crate::snapshot::Served;
use crate::worker::Worker;

/// Where a request stands when its filters see it.
pub struct Place<'a> {
    pub direction: Direction,
    /// The caller's identity as TLS proved it (inbound), or our own workload's (outbound).
    pub principal: Option<&'a str>,
    pub source: IpAddr,
    pub destination_port: u16,
}

impl<'a> Place<'a> {
    pub fn outbound(origin: &Origin, port: u16, from: &'a Served) -> Self {
        Self {
            direction: Direction::Outbound,
            principal: Some(from.workload.identity.as_str()),
            source: origin.peer.ip(),
            destination_port: port,
        }
    }

    fn attributes(&self) -> Attributes<'_> {
        Attributes {
            principal: self.principal,
            source: Some(self.source),
            destination_port: self.destination_port,
            direction: self.direction,
        }
    }
}

/// A request that its filters let pass: the permit to send it, and what the filters still want to see of it.
pub struct Filtered<'a> {
    worker: &'a Worker,
    chain: &'a Chain,
    stream: u64,
    start: Instant,
    status: u16,
    permit: Option<Permit>,
}

/// Runs the request hooks of `chain`, sleeping out delays.
///
/// # Errors
/// A filter answered the request itself, or failed with onFailure Deny.
pub async fn request<'a>(
    worker: &'a Worker,
    chain: &'a Chain,
    place: &Place<'_>,
    head: &mut RequestHead,
) -> Result<Filtered<'a>, Failure> {
    let mut filtered = Filtered::new(worker, chain);
    let mut from = Position::START;
    loop {
        let outcome = {
            let attributes = place.attributes();
            let mut view = RequestView {
                method: &head.method,
                authority: &mut head.authority,
                path: &mut head.path,
                headers: &mut head.headers,
            };
            worker.filters.borrow_mut().request_head(chain, from, filtered.stream, &mut view, &attributes)
        };
        match outcome {
            Outcome::Permitted(permit) => {
                filtered.permit = Some(permit);
                return Ok(filtered);
            }
            Outcome::Delay { after, resume } => {
                tokio::time::sleep(after).await;
                from = resume;
            }
            Outcome::Respond(reply) => {
                filtered.status = reply.status.as_u16();
                return Err(failure(*reply));
            }
        }
    }
}

/// Runs the connection hooks of `chain` for a TCP connection.
///
/// # Errors
/// A filter refused the connection.
pub async fn connection<'a>(worker: &'a Worker, chain: &'a Chain, place: &Place<'_>) -> Result<Filtered<'a>, Failure> {
    let mut filtered = Filtered::new(worker, chain);
    let mut from = Position::START;
    loop {
        let outcome = worker.filters.borrow_mut().connection(chain, from, filtered.stream, &place.attributes());
        match outcome {
            Outcome::Permitted(permit) => {
                filtered.permit = Some(permit);
                return Ok(filtered);
            }
            Outcome::Delay { after, resume } => {
                tokio::time::sleep(after).await;
                from = resume;
            }
            Outcome::Respond(reply) => return Err(failure(*reply)),
        }
    }
}

fn failure(reply: LocalReply) -> Failure {
    Failure::Filter(Box::new(FilterReply {
        status: reply.status,
        headers: reply.headers,
        body: reply.body,
        filter: reply.filter,
        authorization: reply.cause == ReplyCause::Denied,
        rule: reply.rule,
        reason: reply.reason,
    }))
}

impl<'a> Filtered<'a> {
    fn new(worker: &'a Worker, chain: &'a Chain) -> Self {
        Self { worker, chain, stream: worker.next_stream(), start: Instant::now(), status: 0, permit: None }
    }

    /// The permit to open a stream towards the app or a peer; given out once.
    pub fn take_permit(&mut self) -> Option<Permit> {
        self.permit.take()
    }

    /// Runs the response hooks. A filter that answers here replaces the head; its body comes instead of the app's.
    pub async fn response(&mut self, head: &mut ResponseHead) -> Option<Bytes> {
        self.status = head.status.as_u16();
        if !self.chain.hooks().response_head {
            return None;
        }
        let mut from = Position::START;
        loop {
            let outcome = self.worker.filters.borrow_mut().response_head(
                self.chain,
                from,
                self.stream,
                head.status,
                &mut head.headers,
            );
            match outcome {
                Outcome::Permitted(()) => return None,
                Outcome::Delay { after, resume } => {
                    tokio::time::sleep(after).await;
                    from = resume;
                }
                Outcome::Respond(reply) => {
                    head.status = reply.status;
                    head.headers = reply.headers;
                    head.headers.insert(http::header::CONTENT_LENGTH, http::HeaderValue::from(reply.body.len()));
                    self.status = head.status.as_u16();
                    return Some(reply.body);
                }
            }
        }
    }
}

impl Drop for Filtered<'_> {
    fn drop(&mut self) {
        if self.chain.is_empty() {
            return;
        }
        let summary = Summary { status: self.status, duration: self.start.elapsed(), ..Summary::default() };
        self.worker.filters.borrow_mut().done(self.chain, self.stream, &summary);
    }
}

//! One run of a chain over the head of a request or over a new connection, until it lets it pass, answers or ends it.

use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT};
use http::{HeaderMap, StatusCode};
use weft_filter_host::{Attributes, Chain, Event, Outcome, Permit, Position, RequestView};
use weft_policy::path::NormalPath;
use weft_transport::http::{RequestHead, Responder, ResponseHead, StreamError};

use super::callouts::Waiting;
use super::{Filters, Link, Place, failure};
use crate::relay::{ClientGone, Gathering, Source, Ungathered, unless_gone};
use crate::reply::Failure;
use crate::telemetry::counters::Limited;

/// What follows the head of a request, and its client, while the head is judged.
pub struct Rest<'r, 'a> {
    pub body: &'r mut Source<'a>,
    pub client: Option<&'r mut Responder<'a>>,
}

/// One run of a chain.
pub(super) struct Judging<'j, 'a> {
    pub(super) filters: &'j Filters,
    pub(super) link: &'j Link<'a>,
    pub(super) place: &'j Place<'j>,
    /// `None`: its filters may ask nobody.
    pub(super) asks_as: Option<IpAddr>,
}

/// What filters are told of a request that has to be put into words for them.
#[derive(Default)]
struct Facts {
    request_id: Option<String>,
    service: Option<String>,
}

impl Facts {
    /// Nobody looks at those of an empty chain.
    fn of(chain: &Chain, place: &Place<'_>, headers: Option<&HeaderMap>) -> Self {
        if chain.is_empty() {
            return Self::default();
        }
        let request_id = headers.and_then(|headers| headers.get("x-request-id")?.to_str().ok());
        Self { request_id: request_id.map(str::to_owned), service: place.service.map(ToString::to_string) }
    }

    fn attributes<'f>(&'f self, place: &'f Place<'_>) -> Attributes<'f> {
        Attributes {
            principal: place.principal,
            source: Some(place.source),
            destination_port: place.destination_port,
            direction: place.direction,
            request_id: self.request_id.as_deref(),
            destination_service: self.service.as_deref(),
            route: place.route,
            tls: place.is_tls,
            protocol: place.protocol,
        }
    }
}

impl Judging<'_, '_> {
    /// Runs the request hooks over `head`, with its path, and over the body of `rest` where a filter wants all of it.
    pub(super) async fn request(
        &self,
        path: &mut Option<NormalPath>,
        head: &mut RequestHead,
        mut rest: Option<Rest<'_, '_>>,
    ) -> Result<Permit, Failure> {
        let (chain, stream) = (&*self.link.chain, self.link.stream);
        let facts = Facts::of(chain, self.place, Some(&head.headers));
        let mut waiting = Waiting::new(self.filters, self.asks_as);
        let (mut from, mut event, mut body) = (Position::START, Event::Go, None);
        loop {
            let outcome = {
                let attributes = facts.attributes(self.place);
                let mut view = RequestView {
                    method: &head.method,
                    authority: &mut head.authority,
                    path: &mut *path,
                    path_reading: self.place.path_reading,
                    headers: &mut head.headers,
                    body: &mut body,
                };
                self.filters.instances.borrow_mut().request_head(chain, from, event, stream, &mut view, &attributes)
            };
            (event, from) = match outcome {
                Outcome::Permitted(permit) => {
                    if let (Some(body), Some(rest)) = (body, rest) {
                        rest.body.send_as(body, &mut head.headers);
                    }
                    return Ok(permit);
                }
                Outcome::Delay { after, resume } => {
                    waiting.end();
                    Box::pin(unless_left(&mut rest, tokio::time::sleep(after))).await?;
                    (Event::Go, resume)
                }
                Outcome::Body { most, resume } => {
                    waiting.end();
                    (Box::pin(self.gather(most, &mut body, head, &mut rest)).await?, resume)
                }
                Outcome::Wait { calls, within, resume } => {
                    let next = waiting.next(calls, within, resume == from);
                    let event = Box::pin(unless_left(&mut rest, next)).await??;
                    (event, resume)
                }
                Outcome::Respond(reply) => return Err(failure(*reply)),
                Outcome::Reset(cut) => return Err(Failure::FilterCut(cut)),
            };
        }
    }

    /// Runs the connection hooks.
    pub(super) async fn connection(&self) -> Result<Permit, Failure> {
        let (chain, stream) = (&*self.link.chain, self.link.stream);
        let facts = Facts::of(chain, self.place, None);
        let mut waiting = Waiting::new(self.filters, self.asks_as);
        let (mut from, mut event) = (Position::START, Event::Go);
        loop {
            let outcome = {
                let attributes = facts.attributes(self.place);
                self.filters.instances.borrow_mut().connection(chain, from, event, stream, &attributes)
            };
            (event, from) = match outcome {
                Outcome::Permitted(permit) => return Ok(permit),
                Outcome::Delay { after, resume } => {
                    waiting.end();
                    tokio::time::sleep(after).await;
                    (Event::Go, resume)
                }
                // A connection has no body that ends.
                Outcome::Body { resume, .. } => (Event::TooLong, resume),
                Outcome::Wait { calls, within, resume } => {
                    (Box::pin(waiting.next(calls, within, resume == from)).await?, resume)
                }
                Outcome::Respond(reply) => return Err(failure(*reply)),
                Outcome::Reset(cut) => return Err(Failure::FilterCut(cut)),
            };
        }
    }

    /// Gathers the whole body of a request, or as much as tells that it is longer than `most`. A client that waits to be told
    /// to send it is told.
    async fn gather(
        &self,
        most: usize,
        body: &mut Option<Bytes>,
        head: &mut RequestHead,
        rest: &mut Option<Rest<'_, '_>>,
    ) -> Result<Event, Failure> {
        if let Some(known) = body {
            return Ok(whole_within(known.len(), most));
        }
        // What follows an upgrade has no end, and the body of what stands has gone.
        let Some(Rest { body: source, client }) = rest.as_mut().filter(|_| head.protocol.is_none()) else {
            return Ok(Event::TooLong);
        };
        if announced(&head.headers).is_some_and(|length| length > most as u64) {
            return Ok(Event::TooLong);
        }
        let bodies = &self.filters.bodies;
        if head.expects_continue() {
            if let Some(client) = client
                && !source.is_end()
            {
                let go_on = ResponseHead { status: StatusCode::CONTINUE, headers: HeaderMap::new() };
                client.interim(&go_on).await.map_err(|_: StreamError| Failure::ClientGone)?;
            }
            head.headers.remove(EXPECT);
        }
        let gathered = {
            let gathering = pin!(source.gather(most, || bodies.budget.part(&self.place.caller())));
            let gathering = unless_gone(gathering, client.as_deref_mut());
            tokio::time::timeout(bodies.wait, gathering).await
        };
        match gathered {
            Ok(Ok(Ok(Gathering::Whole(whole)))) => {
                *body = Some(whole);
                Ok(Event::Body)
            }
            Ok(Ok(Ok(Gathering::TooLong))) => Ok(Event::TooLong),
            // Its sender is the client.
            Ok(Ok(Err(Ungathered::Broken(_))) | Err(ClientGone)) => Err(Failure::ClientGone),
            Ok(Ok(Err(Ungathered::NoRoom))) => {
                Limited::FilterBodies.hit();
                Err(Failure::FilterBodies)
            }
            Err(_) => {
                Limited::FilterBodyTimeout.hit();
                Err(Failure::FilterBodyLate(u64::try_from(bodies.wait.as_millis()).unwrap_or(u64::MAX)))
            }
        }
    }
}

/// The event of a filter that asks for a body which is there already.
pub(super) fn whole_within(length: usize, most: usize) -> Event {
    if length <= most { Event::Body } else { Event::TooLong }
}

/// The length that a head says its body has.
pub(super) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Waits for `awaited`, as long as the client does.
async fn unless_left<T>(rest: &mut Option<Rest<'_, '_>>, awaited: impl Future<Output = T>) -> Result<T, Failure> {
    let client = rest.as_mut().and_then(|rest| rest.client.as_deref_mut());
    unless_gone(pin!(awaited), client).await.map_err(|ClientGone| Failure::ClientGone)
}

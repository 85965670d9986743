//! The filter chain as a request meets it: the head before routing or delivery, the response head on its way back, the
//! end. Filter calls never wait; a delay is a verdict that is slept here.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::pin::pin;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::SET_COOKIE;
use http::{HeaderName, HeaderValue};
use weft_filter_host::{Attributes, Chain, Host, LocalReply, Outcome, Permit, Position, RequestView, Summary};
use weft_policy::bundle::Direction;
use weft_policy::path::{NormalPath, PathReading};
use weft_policy::route::AnswerEdits;
use weft_transport::http::{RequestHead, Responder, ResponseHead, Target};

use crate::reply::{Failure, FilterReply};
use crate::snapshot::Served;

/// The filter instances of one worker, and the ids by which they know its streams.
pub struct Filters {
    host: RefCell<weft_filter_host::Worker>,
    streams: Cell<u64>,
}

impl Filters {
    pub fn new(host: &Host) -> Self {
        Self { host: RefCell::new(weft_filter_host::Worker::new(host)), streams: Cell::new(0) }
    }

    /// An id for one request in its filters; never 0, unique on this worker.
    fn next_stream(&self) -> u64 {
        self.streams.set(self.streams.get() + 1);
        self.streams.get()
    }

    /// Frees the instances of filters that no snapshot holds any more.
    pub fn retire(&self) {
        self.host.borrow_mut().retire();
    }
}

/// Direction, caller and destination of a request, as its filters are told.
pub struct Place<'a> {
    pub direction: Direction,
    /// The caller's identity as TLS proved it (inbound), or our own workload's (outbound).
    pub principal: Option<&'a str>,
    pub source: IpAddr,
    pub destination_port: u16,
    /// How the app at the destination says it reads paths.
    pub path_reading: PathReading,
}

#[cfg(test)]
impl Place<'static> {
    /// On the way out, of nobody.
    pub(crate) fn of_nobody() -> Self {
        Self {
            direction: Direction::Outbound,
            principal: None,
            source: [127, 0, 0, 1].into(),
            destination_port: 80,
            path_reading: PathReading::default(),
        }
    }
}

impl<'a> Place<'a> {
    /// On the way out, for an app of `from` that calls from `source`.
    pub fn outbound(source: IpAddr, port: u16, from: &'a Served) -> Self {
        Self {
            direction: Direction::Outbound,
            principal: Some(from.workload.identity.as_str()),
            source,
            destination_port: port,
            path_reading: PathReading::default(),
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
    filters: &'a Filters,
    /// Borrowed from the snapshot of a request; a connection outlives snapshots and has its own.
    chain: Cow<'a, Chain>,
    /// Of a request: its path as they left it.
    path: Option<NormalPath>,
    /// What the route changes of the answer, before the filters see it.
    edits: AnswerEdits,
    /// The field by which the answer says of which session it is.
    session: Option<(HeaderName, HeaderValue)>,
    stream: u64,
    start: Instant,
    status: u16,
    /// Body bytes of the request and of its answer, told to the filters at the end.
    bytes: (u64, u64),
}

/// Runs the request hooks of `chain`, sleeping out delays.
///
/// # Errors
/// A filter answered the request itself, or failed with onFailure Deny; or the `client` left while it was held up.
pub async fn request<'a>(
    filters: &'a Filters,
    chain: &'a Chain,
    place: &Place<'_>,
    head: &mut RequestHead,
    mut client: Option<&mut Responder<'_>>,
) -> Result<(Filtered<'a>, Permit), Failure> {
    let mut filtered = Filtered::new(filters, Cow::Borrowed(chain));
    let mut from = Position::START;
    filtered.path = normal_path(head)?;
    loop {
        let outcome = {
            let attributes = place.attributes();
            let mut view = RequestView {
                method: &head.method,
                authority: &mut head.authority,
                path: &mut filtered.path,
                path_reading: place.path_reading,
                headers: &mut head.headers,
            };
            filters.host.borrow_mut().request_head(chain, from, filtered.stream, &mut view, &attributes)
        };
        match outcome {
            Outcome::Permitted(permit) => {
                put_path(head, filtered.path.as_ref())?;
                return Ok((filtered, permit));
            }
            Outcome::Delay { after, resume } => {
                let mut over = pin!(tokio::time::sleep(after));
                match &mut client {
                    None => over.await,
                    Some(client) => {
                        if let Either::Right(_) = select(over.as_mut(), pin!(client.gone())).await {
                            return Err(Failure::ClientGone);
                        }
                    }
                }
                from = resume;
            }
            Outcome::Respond(reply) => {
                filtered.status = reply.status.as_u16();
                return Err(failure(*reply));
            }
        }
    }
}

/// The path of a head in the one form that filters, routes and the application are given.
///
/// # Errors
/// No server may be sent such a path.
pub fn normal_path(head: &RequestHead) -> Result<Option<NormalPath>, Failure> {
    let Some(path) = &head.path else { return Ok(None) };
    let path = NormalPath::new(path.to_bytes());
    path.map(Some).map_err(|error| Failure::BadRequest(Cow::Owned(format!("path: {error}"))))
}

fn put_path(head: &mut RequestHead, path: Option<&NormalPath>) -> Result<(), Failure> {
    if head.path.as_ref().map(Target::as_bytes) == path.map(|path| &path.as_bytes()[..]) {
        return Ok(());
    }
    let put = path.map(|path| Target::from_shared(path.as_bytes().clone())).transpose();
    head.path = put.map_err(|_| Failure::BadRequest("path: not a path".into()))?;
    Ok(())
}

/// Runs the connection hooks of `chain` for a TCP connection, which may outlive the snapshot that the chain belongs to.
///
/// # Errors
/// A filter refused the connection.
pub async fn connection<'a>(
    filters: &'a Filters,
    chain: &Chain,
    place: &Place<'_>,
) -> Result<(Filtered<'a>, Permit), Failure> {
    let filtered = Filtered::new(filters, Cow::Owned(chain.clone()));
    let mut from = Position::START;
    loop {
        let outcome = filters.host.borrow_mut().connection(chain, from, filtered.stream, &place.attributes());
        match outcome {
            Outcome::Permitted(permit) => return Ok((filtered, permit)),
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
        cause: reply.cause,
        rule: reply.rule,
        reason: reply.reason,
    }))
}

impl<'a> Filtered<'a> {
    fn new(filters: &'a Filters, chain: Cow<'a, Chain>) -> Self {
        Self {
            filters,
            chain,
            path: None,
            edits: AnswerEdits::default(),
            session: None,
            stream: filters.next_stream(),
            start: Instant::now(),
            status: 0,
            bytes: (0, 0),
        }
    }

    /// The path of the request as the filters left it.
    pub fn path(&self) -> Option<&NormalPath> {
        self.path.as_ref()
    }

    /// Has the answer changed by the route that the request took.
    pub fn edit_answer(&mut self, edits: AnswerEdits) {
        self.edits = edits;
    }

    /// Has the answer say of which session it is, in the place of what was to be said before.
    pub fn in_session(&mut self, field: Option<(HeaderName, HeaderValue)>) {
        self.session = field;
    }

    /// Notes how many body bytes went up and came down, for the end.
    pub fn moved(&mut self, up: u64, down: u64) {
        self.bytes = (up, down);
    }

    /// No session begins at an endpoint that fails.
    fn tell_session(&mut self, head: &mut ResponseHead) {
        let Some((name, value)) = self.session.take().filter(|_| !head.status.is_server_error()) else { return };
        if name == SET_COOKIE {
            head.headers.append(name, value);
        } else {
            head.headers.insert(name, value);
        }
    }

    /// Changes the answer as the route says and runs the response hooks. A filter that answers here replaces the head; its body comes instead of the app's.
    pub async fn response(&mut self, head: &mut ResponseHead) -> Option<Bytes> {
        self.edits.apply(&mut head.headers);
        self.tell_session(head);
        self.status = head.status.as_u16();
        if !self.chain.hooks().response_head {
            return None;
        }
        let mut from = Position::START;
        loop {
            let outcome = self.filters.host.borrow_mut().response_head(
                &self.chain,
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
        let summary = Summary {
            status: self.status,
            duration: self.start.elapsed(),
            request_bytes: self.bytes.0,
            response_bytes: self.bytes.1,
        };
        self.filters.host.borrow_mut().done(&self.chain, self.stream, &summary);
    }
}

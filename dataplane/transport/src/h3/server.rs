//! The server's side of a connection: accepting requests, refusing those that HTTP refuses, and going away.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use http::{HeaderMap, StatusCode};

use super::connection::Connection;
use super::recv::{HeadError, RequestKind};
use super::{Code, Limits, RecvStream, SendStream, Violation, driver, frame};
use crate::http::{Refusal, Refused, RequestHead, ResponseHead, StreamError};

/// Takes over an established connection as its server. The future drives the control streams and ends with the connection.
pub fn accept(quic: quinn::Connection, limits: Limits) -> (Server, impl Future<Output = ()> + Send + 'static) {
    let connection = Arc::new(Connection::new(quic, frame::Role::Server, limits));
    (Server { connection: connection.clone() }, driver::drive(connection))
}

/// The accepting side of a connection; clones serve the same one.
#[derive(Debug, Clone)]
pub struct Server {
    connection: Arc<Connection>,
}

impl Server {
    /// The next request stream; `None` when no more will come (GOAWAY sent, connection gone). Cancel safe.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let changed = self.connection.changed.notified();
            if self.connection.is_draining() {
                return None;
            }
            let (send, recv) = tokio::select! {
                biased;
                stream = self.connection.quic.accept_bi() => stream.ok()?,
                () = changed => continue,
            };
            if !self.connection.admit(u64::from(send.id())) {
                driver::reject((send, recv));
                return None;
            }
            self.connection.opened();
            let send = SendStream::new(send, self.connection.clone(), Code::REQUEST_REJECTED);
            let kind = RequestKind::Other;
            let recv = RecvStream::new(recv, self.connection.clone(), kind, Code::REQUEST_REJECTED);
            return Some(Incoming { send, recv, refused: None });
        }
    }

    /// Sends GOAWAY with the id of the first stream that will not be processed, and gives that id. Requests in flight go
    /// on; later ones are refused with H3_REQUEST_REJECTED by the driver.
    pub fn goaway(&self) -> u64 {
        self.connection.decide_goaway()
    }

    /// Resolves when, after `goaway`, every request is done and the client has closed the connection or had time to: the
    /// connection is closed then. Cancel safe.
    pub async fn drained(&self) {
        loop {
            let changed = self.connection.changed.notified();
            if self.connection.is_closed() {
                return;
            }
            let idle = self.connection.own_goaway().is_some() && self.connection.open_streams() == 0;
            tokio::select! {
                _ = self.connection.quic.closed() => return,
                () = changed => {}
                // The client closes first, since only it knows that the last answer has arrived.
                () = tokio::time::sleep(self.connection.linger() * 4), if idle => {
                    self.connection.close(Code::NO_ERROR, "drained");
                    return;
                }
            }
        }
    }

    /// Requests whose streams are still held.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.connection.open_streams()
    }

    /// The peer's breach of the protocol or of our limits for which we closed the connection, if that is why it ended.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        self.connection.violation()
    }

    /// Closes at once; requests in flight fail.
    pub fn close(&self) {
        self.connection.close(Code::NO_ERROR, "closed");
    }

    /// The QUIC connection under it, for its addresses, identity and statistics.
    #[must_use]
    pub fn quic(&self) -> &quinn::Connection {
        &self.connection.quic
    }
}

/// A request stream whose head has not been read yet. Dropped, it is refused as not processed.
#[derive(Debug)]
pub struct Incoming {
    send: SendStream,
    recv: RecvStream,
    /// Set once reading its head has failed by the client's fault.
    refused: Option<Refused>,
}

impl Incoming {
    /// Reads the request head, so that a slow one holds up nobody else. A malformed request is answered here; so is one
    /// above our limits (431, 414). Until it is read, dropping `self` refuses the request as not processed.
    pub async fn head(&mut self) -> Result<RequestHead, StreamError> {
        let Incoming { send, recv, refused } = self;
        match within_limits(recv).await {
            Ok(head) => {
                recv.set_stop_code(Code::NO_ERROR);
                send.set_abandon_code(Code::INTERNAL_ERROR);
                send.set_request(recv.kind());
                Ok(head)
            }
            Err(HeadError::Protocol) => {
                recv.stop(Code::NO_ERROR);
                let head = ResponseHead { status: StatusCode::NOT_IMPLEMENTED, headers: HeaderMap::new() };
                *refused = Some(Refused::answered(Refusal::UnknownProtocol, "unknown :protocol"));
                refuse(send, &head).await?;
                Err(StreamError::Protocol("unknown :protocol"))
            }
            Err(HeadError::TooLarge(what)) => {
                let refusal = match what {
                    "path bytes" => Refusal::TargetTooLong,
                    "header fields" => Refusal::TooManyFields,
                    _ => Refusal::HeadTooLarge,
                };
                *refused = Some(Refused::answered(refusal, what));
                recv.stop(Code::NO_ERROR);
                let head = ResponseHead { status: refusal.status(), headers: HeaderMap::new() };
                refuse(send, &head).await?;
                Err(StreamError::Limit(what))
            }
            Err(HeadError::Over(error)) => {
                *refused = refused_for(&error);
                send.reset(answer_to(&error));
                recv.stop(answer_to(&error));
                Err(error)
            }
        }
    }

    /// The client's fault for which its request was refused, once `head` has failed.
    #[must_use]
    pub fn refused(&self) -> Option<Refused> {
        self.refused
    }

    /// The halves that the body comes from and the answer goes to, once the head was read.
    pub fn streams(&mut self) -> (&mut RecvStream, &mut SendStream) {
        (&mut self.recv, &mut self.send)
    }

    /// The halves by value.
    #[must_use]
    pub fn into_streams(self) -> (RecvStream, SendStream) {
        (self.recv, self.send)
    }

    /// The stream's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.recv.id()
    }
}

/// Answers a request that nobody else sees. A client that takes no answer is waited for no longer than for a head.
async fn refuse(send: &mut SendStream, head: &ResponseHead) -> Result<(), StreamError> {
    let patience = send.patience();
    let Ok(sent) = tokio::time::timeout(patience, send.response(head, true)).await else {
        send.reset(Code::EXCESSIVE_LOAD);
        return Err(StreamError::Limit("an answer that is not taken"));
    };
    sent
}

/// Reads a head that is mostly here already; one that has to be waited for takes a place among those, and has a deadline.
async fn within_limits(recv: &mut RecvStream) -> Result<RequestHead, HeadError> {
    let connection = recv.connection();
    let mut head = pin!(recv.request_head());
    if let Poll::Ready(head) = std::future::poll_fn(|cx| Poll::Ready(head.as_mut().poll(cx))).await {
        return head;
    }
    let Some(_place) = connection.await_head() else {
        return Err(HeadError::Over(StreamError::Limit("requests without a head")));
    };
    let late = Err(HeadError::Over(StreamError::Limit("head in time")));
    tokio::time::timeout(connection.limits.head_timeout, head).await.unwrap_or(late)
}

/// The client's fault, if a head could not be read by that: not where it left, or its connection was lost.
fn refused_for(error: &StreamError) -> Option<Refused> {
    match error {
        StreamError::Protocol(reason) => Some(Refused::reset(Refusal::Malformed, reason)),
        StreamError::Limit("requests without a head") => Some(Refused::reset(Refusal::HeadsPending, "heads pending")),
        StreamError::Limit("head in time") => Some(Refused::reset(Refusal::HeadTimeout, "request head too slow")),
        StreamError::Limit(reason) => Some(Refused::reset(Refusal::HeadTooLarge, reason)),
        StreamError::Truncated | StreamError::Reset(_) | StreamError::ConnectionLost(_) | StreamError::Busy(_) => None,
    }
}

/// The code with which a request that could not be read is reset.
fn answer_to(error: &StreamError) -> u64 {
    match error {
        StreamError::Protocol(_) => Code::MESSAGE_ERROR,
        StreamError::Truncated => Code::REQUEST_INCOMPLETE,
        StreamError::Limit("requests without a head") => Code::REQUEST_REJECTED,
        StreamError::Limit(_) => Code::EXCESSIVE_LOAD,
        StreamError::Reset(_) | StreamError::ConnectionLost(_) | StreamError::Busy(_) => Code::REQUEST_CANCELLED,
    }
}

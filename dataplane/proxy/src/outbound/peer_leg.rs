//! The leg to a peer's proxy: one stream of a mesh connection, opened for what a permit lets pass.

use std::pin::pin;

use weft_filter_host::Permit;
use weft_transport::http::{Added, RecvBody, RequestHead, ResponseHead, SendBody, SendError, StreamError};
use weft_transport::mesh::{MeshClient, MeshStream};

use crate::app_leg;
use crate::call::{Call, Failed};
use crate::filtering::Filtered;
use crate::record::Unanswered;
use crate::relay::{self, ClientGone, Idle};
use crate::reply::{Failure, Party, WEFT_UNSERVED, told};
use crate::telemetry::counters::Limited;

/// A connection to a peer, for one request or tunnel, whose permit it holds.
pub(super) struct PeerConn {
    client: MeshClient,
    permit: Permit,
}

/// A request without a body that was sent, and whose answer is awaited beside another's.
pub(super) struct Opened {
    stream: MeshStream,
    permit: Permit,
}

/// A tunnel that the peer accepted.
pub(super) struct PeerTunnel(MeshStream);

impl PeerTunnel {
    pub(super) fn halves(&mut self) -> (RecvBody<'_>, SendBody<'_>) {
        self.0.halves()
    }
}

impl Opened {
    /// The final head of its answer. Cancel safe.
    pub(super) async fn head(&mut self) -> Result<ResponseHead, SendError> {
        loop {
            let head = self.stream.response_head().await?;
            if !head.status.is_informational() {
                return Ok(head);
            }
        }
    }

    /// It was not answered.
    pub(super) fn failed(self, error: SendError) -> Failed {
        Failed::of(Unanswered::new(Party::Peer, error), self.permit)
    }

    /// Sends its answer back, whose head has come.
    pub(super) async fn carry(
        mut self,
        idle: Idle<'_>,
        filtered: &mut Filtered<'_>,
        call: &mut Call<'_, '_>,
    ) -> Result<(), Failed> {
        let exchanged = app_leg::exchange(self.stream.exchange(), idle, filtered, call, Party::Peer).await;
        exchanged.map_err(|unanswered| Failed::of(unanswered, self.permit))
    }
}

impl PeerConn {
    pub(super) fn new(client: MeshClient, permit: Permit) -> Self {
        Self { client, permit }
    }

    /// Sends the request with what is `added` to it, and its answer back.
    pub(super) async fn carry(
        self,
        added: &Added<'_>,
        idle: Idle<'_>,
        filtered: &mut Filtered<'_>,
        call: &mut Call<'_, '_>,
    ) -> Result<(), Failed> {
        let sent = {
            let sending = pin!(self.client.send(call.head, added, call.body.is_end()));
            relay::unless_gone(sending, call.responder.as_mut()).await
        };
        let mut stream = match sent {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.failed(error)),
            Err(ClientGone) => return Err(Failed::Final(Failure::ClientGone)),
        };
        let exchanged = app_leg::exchange(stream.exchange(), idle, filtered, call, Party::Peer).await;
        exchanged.map_err(|unanswered| Failed::of(unanswered, self.permit))
    }

    /// Sends a request that has no body.
    pub(super) async fn send(self, head: &RequestHead, added: &Added<'_>) -> Result<Opened, Failed> {
        match self.client.send(head, added, true).await {
            Ok(stream) => Ok(Opened { stream, permit: self.permit }),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Sends the head of a copy, whose answer nobody waits for.
    pub(super) async fn open(self, head: &RequestHead, added: &Added<'_>, end: bool) -> Result<MeshStream, Failure> {
        self.client.send(head, added, end).await.map_err(|error| self.failed(error).failure())
    }

    /// Sends the head of a callout. The permit comes back, for where nobody acts on it.
    pub(super) async fn start(
        self,
        head: &RequestHead,
        added: &Added<'_>,
        end: bool,
    ) -> Result<(MeshStream, Permit), Failed> {
        match self.client.send(head, added, end).await {
            Ok(stream) => Ok((stream, self.permit)),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Opens a byte tunnel by the CONNECT `head`.
    pub(super) async fn tunnel(self, head: &RequestHead) -> Result<PeerTunnel, Failed> {
        let mut stream = match self.client.send(head, &Added::default(), false).await {
            Ok(stream) => stream,
            Err(error) => return Err(self.failed(error)),
        };
        let answer = match stream.response_head().await {
            Ok(answer) => answer,
            Err(error) => return Err(self.failed(error)),
        };
        if answer.status.is_success() {
            return Ok(PeerTunnel(stream));
        }
        let told = told(&answer.headers).to_owned();
        if answer.headers.contains_key(WEFT_UNSERVED) {
            return Err(Failed::Unprocessed(Failure::PeerUnserved { told }, self.permit));
        }
        Err(Failed::Final(Failure::TunnelRefused { status: answer.status, told }))
    }

    fn failed(self, error: SendError) -> Failed {
        if let StreamError::Busy(_) = error.error {
            Limited::PeerStreams.hit();
        }
        Failed::of(Unanswered::new(Party::Peer, error), self.permit)
    }
}

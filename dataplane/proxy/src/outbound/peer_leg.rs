//! The leg to a peer's proxy: one stream of a mesh connection, opened for what a permit lets pass.

use weft_filter_host::Permit;
use weft_transport::h3;
use weft_transport::http::{RecvBody, RequestHead, ResponseRecv, SendBody, SendError};

use crate::app_leg;
use crate::call::{Call, Failed};
use crate::filtering::Filtered;
use crate::record::Unanswered;
use crate::relay::Idle;
use crate::reply::{Failure, Party, WEFT_REPLY};

/// A connection to a peer, for one request or tunnel, whose permit it holds.
pub(super) struct PeerConn {
    client: h3::Client,
    permit: Permit,
}

/// A tunnel that the peer accepted.
pub(super) struct PeerTunnel {
    receive: h3::RecvStream,
    send: h3::SendStream,
}

impl PeerTunnel {
    pub(super) fn halves(&mut self) -> (RecvBody<'_>, SendBody<'_>) {
        (RecvBody::H3(&mut self.receive), SendBody::H3(&mut self.send))
    }
}

impl PeerConn {
    pub(super) fn new(client: h3::Client, permit: Permit) -> Self {
        Self { client, permit }
    }

    /// Sends the request, and its answer back.
    pub(super) async fn carry(
        self,
        idle: Idle,
        filtered: &mut Filtered<'_>,
        call: &mut Call<'_, '_>,
    ) -> Result<(), Failed> {
        let (mut send, mut receive) = match self.client.send(call.head, call.body.is_end()).await {
            Ok(streams) => streams,
            Err(error) => return Err(self.failed(error)),
        };
        let streams = (SendBody::H3(&mut send), ResponseRecv::H3(&mut receive));
        let exchanged = app_leg::exchange(streams, idle, filtered, call, Party::Peer).await;
        exchanged.map_err(|Unanswered { failure, unprocessed, .. }| match unprocessed {
            true => Failed::Unprocessed(failure, self.permit),
            false => Failed::Final(failure),
        })
    }

    /// Opens a byte tunnel by the CONNECT `head`.
    pub(super) async fn tunnel(self, head: &RequestHead) -> Result<PeerTunnel, Failed> {
        let (send, mut receive) = match self.client.send(head, false).await {
            Ok(streams) => streams,
            Err(error) => return Err(self.failed(error)),
        };
        let answer = match receive.response_head().await {
            Ok(answer) => answer,
            Err(error) => return Err(self.failed(error)),
        };
        if answer.status.is_success() {
            return Ok(PeerTunnel { receive, send });
        }
        let told = answer.headers.get(WEFT_REPLY).and_then(|value| value.to_str().ok()).unwrap_or("no reason given");
        Err(Failed::Final(Failure::TunnelRefused { status: answer.status, told: told.to_owned() }))
    }

    fn failed(self, error: SendError) -> Failed {
        let SendError { error, unprocessed } = error;
        match unprocessed {
            true => Failed::Unprocessed(Failure::Unprocessed { to: Party::Peer, error }, self.permit),
            false => Failed::Final(Failure::NoAnswer { to: Party::Peer, error }),
        }
    }
}

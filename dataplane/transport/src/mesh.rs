//! The leg between two proxies as the request path sees it: who is at the other end, requests and their streams. Over
//! HTTP/3 today; whatever carries it, nobody outside of this file and the pool has to know.

use std::future::Future;
use std::net::SocketAddr;

use weft_policy::identity::SpiffeId;

pub use crate::h3::Code;

use crate::h3;
use crate::http::{HttpLimits, RecvBody, RequestHead, Responder, ResponseHead, ResponseRecv, SendBody, SendError, StreamError};
use crate::quic::{Accepted, ConnectionPlace};
use crate::tls::PeerIdentity;

/// What one connection from a peer's proxy may hold.
#[derive(Debug, Clone)]
pub struct MeshLimits {
    /// Requests open at once. All of them may be given up together, once a second; more ends the connection.
    pub concurrent_requests: u32,
    /// What an application may say; between proxies there is room for what they add.
    pub http: HttpLimits,
}

impl MeshLimits {
    fn h3(&self) -> h3::Limits {
        let requests = self.concurrent_requests;
        let of_peers = self.http.between_proxies().h3();
        h3::Limits { cancels: requests.saturating_mul(2), cancels_per_second: requests, ..of_peers }
    }
}

/// A connection to a peer's proxy, to send requests on; clones share it.
#[derive(Debug, Clone)]
pub struct MeshClient {
    over: h3::Client,
}

impl From<h3::Client> for MeshClient {
    fn from(over: h3::Client) -> Self {
        Self { over }
    }
}

impl MeshClient {
    /// Sends a request head, waiting for stream credit. `end`: the request has no body. Cancel safe: a request whose future
    /// is dropped was not sent, or is reset.
    ///
    /// # Errors
    /// The request was not sent, or provably not processed where the error says so.
    pub async fn send(&self, head: &RequestHead, end: bool) -> Result<MeshStream, SendError> {
        let (send, recv) = self.over.send(head, end).await?;
        Ok(MeshStream { send, recv })
    }
}

/// A request that was sent, and its answer. Dropped before its end, both directions are given up.
#[derive(Debug)]
pub struct MeshStream {
    send: h3::SendStream,
    recv: h3::RecvStream,
}

impl MeshStream {
    /// Where the request's body goes, and where its answer comes from.
    pub fn exchange(&mut self) -> (SendBody<'_>, ResponseRecv<'_>) {
        (SendBody::H3(&mut self.send), ResponseRecv::H3(&mut self.recv))
    }

    /// The next head of the answer. Cancel safe.
    ///
    /// # Errors
    /// As of [`ResponseRecv::head`].
    pub async fn response_head(&mut self) -> Result<ResponseHead, SendError> {
        self.recv.response_head().await
    }

    /// Both directions as bytes, once the answer's head was read.
    pub fn halves(&mut self) -> (RecvBody<'_>, SendBody<'_>) {
        (RecvBody::H3(&mut self.recv), SendBody::H3(&mut self.send))
    }
}

/// A connection from a peer's proxy that has proved who it is.
#[derive(Debug)]
pub struct MeshServer {
    over: h3::Server,
    peer: PeerIdentity,
    served: SpiffeId,
    address: SocketAddr,
    /// Among the peer's connections, as long as this one is served.
    _place: ConnectionPlace,
}

/// A breach for which a connection was closed: its code's name, and what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breach {
    pub code: &'static str,
    pub reason: &'static str,
}

impl MeshServer {
    /// Takes over an accepted connection. The future drives it and ends with it.
    pub fn new(accepted: Accepted, limits: &MeshLimits) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let Accepted { connection, peer, served, place } = accepted;
        let address = connection.remote_address();
        let (over, driver) = h3::accept(connection, limits.h3());
        (Self { over, peer, served, address, _place: place }, driver)
    }

    /// Who the peer's certificate says it is.
    #[must_use]
    pub fn peer(&self) -> &SpiffeId {
        &self.peer.id
    }

    /// The workload that the connection is for: whose certificate the peer was shown.
    #[must_use]
    pub fn served(&self) -> &SpiffeId {
        &self.served
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next request; `None` when no more will come. Cancel safe.
    pub async fn accept(&self) -> Option<MeshRequest> {
        self.over.accept().await.map(|over| MeshRequest { over })
    }

    /// Takes no more requests; those in flight go on.
    pub fn goaway(&self) {
        self.over.goaway();
    }

    /// Resolves when, after `goaway`, every request is done and the connection closed. Cancel safe.
    pub async fn drained(&self) {
        self.over.drained().await;
    }

    /// The peer's breach of the protocol or of our limits, if that is why the connection ended.
    #[must_use]
    pub fn breach(&self) -> Option<Breach> {
        let violation = self.over.violation()?;
        Some(Breach { code: h3::Code::name(violation.code), reason: violation.reason })
    }
}

/// A request whose head was not read yet. Dropped, it is refused as not processed.
#[derive(Debug)]
pub struct MeshRequest {
    over: h3::Incoming,
}

impl MeshRequest {
    /// Reads the head, within the limits of size and time. A malformed request is answered here.
    ///
    /// # Errors
    /// There is no request to serve.
    pub async fn head(&mut self) -> Result<RequestHead, StreamError> {
        self.over.head().await
    }

    /// Where the body comes from and the answer goes, once the head was read.
    pub fn exchange(&mut self) -> (RecvBody<'_>, Responder<'_>) {
        let (recv, send) = self.over.streams();
        (RecvBody::H3(recv), Responder::H3(send))
    }
}

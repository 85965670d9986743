//! The leg between two proxies as the request path sees it: who is at the other end, requests and their streams. Over
//! HTTP/3 today; whatever carries it, nobody outside of this file and the pool has to know.

use std::future::Future;
use std::net::SocketAddr;

use weft_policy::identity::SpiffeId;

pub use crate::h3::Code;

use crate::h3;
use crate::http::{
    Added, HttpLimits, RecvBody, Refused, RequestHead, Responder, ResponseHead, ResponseRecv, SendBody, SendError,
    StreamError,
};
use crate::quic::{Accepted, ConnectionPlace};
use crate::tls::PeerIdentity;

/// Limits of one connection from a peer's proxy.
#[derive(Debug, Clone)]
pub struct MeshLimits {
    /// Requests open at once. All of them may be given up together, once a second; more ends the connection.
    pub concurrent_requests: u32,
    /// Limits on what an application may send; between proxies there is room for what they add.
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
    /// Sends a request head with what this hop adds to it, waiting for stream credit. `end`: the request has no body.
    /// Cancel safe: a request whose future is dropped was not sent, or is reset.
    ///
    /// # Errors
    /// The request was not sent, or provably not processed where the error says so.
    pub async fn send(&self, head: &RequestHead, added: &Added<'_>, end: bool) -> Result<MeshStream, SendError> {
        let (send, recv) = self.over.send_with(head, added, end).await?;
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
    /// Sender of the request's body, and receiver of its answer.
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
        let Accepted { connection, peer, served, stream_window, place } = accepted;
        let address = connection.remote_address();
        let stream_window = usize::try_from(stream_window).unwrap_or(usize::MAX);
        let (over, driver) = h3::accept(connection, h3::Limits { stream_window, ..limits.h3() });
        (Self { over, peer, served, address, _place: place }, driver)
    }

    /// Identity of the peer, by its certificate.
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

    /// The peer's fault for which its request was refused, once `head` has failed.
    #[must_use]
    pub fn refused(&self) -> Option<Refused> {
        self.over.refused()
    }

    /// Receiver of the body, and sender of the answer, once the head was read.
    pub fn exchange(&mut self) -> (RecvBody<'_>, Responder<'_>) {
        let (recv, send) = self.over.streams();
        (RecvBody::H3(recv), Responder::H3(send))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderMap, Method, StatusCode, Version};

    use super::*;
    use crate::http::Frame;
    use crate::quic::{Dialer, Server, SharedKeys, TransportLimits, Worker, bind_client, bind_workers};
    use crate::tls::testing::{Ca, id};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn head(method: Method, path: Option<&str>) -> RequestHead {
        RequestHead {
            method,
            authority: Some("shop:80".parse().unwrap()),
            path: path.map(|path| path.parse().unwrap()),
            protocol: None,
            headers: HeaderMap::new(),
            version: Version::HTTP_11,
        }
    }

    /// Answers every request with its body, then breaks off; a CONNECT with its bytes.
    async fn serve(server: MeshServer) -> SpiffeId {
        while let Some(mut request) = server.accept().await {
            let asked = request.head().await.unwrap();
            let (mut body, responder) = request.exchange();
            let answer = ResponseHead { status: StatusCode::OK, headers: HeaderMap::new() };
            let mut sink = responder.head(&answer, false).await.unwrap();
            sink.flush().await.unwrap();
            while let Some(Frame::Data(data)) = body.frame().await.unwrap() {
                sink.data(data).await.unwrap();
            }
            match asked.method {
                Method::CONNECT => sink.finish(None).await.unwrap(),
                _ => sink.abort(Code::INTERNAL_ERROR).await,
            }
        }
        assert_eq!(server.breach(), None);
        server.peer().clone()
    }

    #[test]
    fn a_request_and_a_tunnel_to_a_peer_that_is_known_by_its_certificate() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            tokio::time::timeout(PATIENCE, exchanges()).await.expect("in time");
        });
    }

    async fn exchanges() {
        let (ca, keys, limits) = (Ca::new(), SharedKeys::generate(), TransportLimits::default());
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let socket = bind_workers((loopback, 0).into(), 1).unwrap().remove(0);
        let listening = Server::new(socket, Worker::single(), &keys, &ca.handle("shop"), &limits).unwrap();
        let address = listening.endpoint().local_addr().unwrap();
        let served = tokio::task::spawn_local(async move {
            let accepted = listening.accept().await.unwrap().finish().await.unwrap();
            let (server, driver) =
                MeshServer::new(accepted, &MeshLimits { concurrent_requests: 10, http: HttpLimits::default() });
            tokio::task::spawn_local(driver);
            assert!(server.address().ip().is_loopback());
            assert_eq!(server.served(), &id("shop"));
            serve(server).await
        });
        let socket = bind_client(loopback, None).unwrap();
        let dialer = Dialer::new(socket, Worker::single(), &keys, &limits).unwrap();
        let connection = dialer.dial(&ca.handle("cart"), &id("shop"), address, PATIENCE).await.unwrap();
        let (over, driver) = h3::connect(connection.clone(), h3::Limits::default());
        tokio::task::spawn_local(driver);
        let client = MeshClient::from(over);

        let mut stream = client.send(&head(Method::POST, Some("/")), &Added::default(), false).await.unwrap();
        let (mut up, mut answer) = stream.exchange();
        up.data(Bytes::from_static(b"all of it")).await.unwrap();
        up.finish(None).await.unwrap();
        assert_eq!(answer.head().await.unwrap().status, 200);
        let mut down = answer.into_body();
        assert!(matches!(down.frame().await, Ok(Some(Frame::Data(data))) if data == "all of it"));
        assert!(matches!(down.frame().await, Err(StreamError::Reset(Code::INTERNAL_ERROR))));

        let mut tunnel = client.send(&head(Method::CONNECT, None), &Added::default(), false).await.unwrap();
        assert_eq!(tunnel.response_head().await.unwrap().status, 200);
        let (mut down, mut up) = tunnel.halves();
        up.data(Bytes::from_static(b"bytes")).await.unwrap();
        assert!(matches!(down.frame().await, Ok(Some(Frame::Data(data))) if data == "bytes"));
        up.finish(None).await.unwrap();
        assert!(matches!(down.frame().await, Ok(None)));
        connection.close(0x100_u32.into(), b"");
        assert_eq!(served.await.unwrap(), id("cart"));
    }
}

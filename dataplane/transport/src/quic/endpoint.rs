//! The two ends of a handshake. `Server` accepts with the credentials of the moment and knows why it refused; `Dialer`
//! reports success only once the callee has accepted our certificate too.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Endpoint, TokioRuntime, TransportConfig, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use weft_policy::identity::SpiffeId;

use super::cid::InitialCids;
use super::{SharedKeys, TransportLimits, Worker};
use crate::tls::{
    self, Credentials, HandshakeError, HandshakeFailure, IdentityHandle, PeerIdentity, RefusedBy, Verdict,
};

/// The code of a close that is nobody's error.
pub(super) const NO_ERROR: VarInt = VarInt::from_u32(0x100);

/// The receiving endpoint of one worker.
#[derive(Debug)]
pub struct Server {
    endpoint: Endpoint,
    identity: IdentityHandle,
    keys: SharedKeys,
    timeout: Duration,
    transport: Arc<TransportConfig>,
    handshakes: Arc<Semaphore>,
    established: Established,
    trust_watch: AbortHandle,
}

impl Server {
    /// Takes one socket of `bind_workers`. Must run inside the worker's runtime.
    pub fn new(
        socket: UdpSocket,
        worker: Worker,
        keys: &SharedKeys,
        identity: &IdentityHandle,
        limits: &TransportLimits,
    ) -> io::Result<Server> {
        let transport = limits.callee();
        let config = server_config(identity, keys, &transport, Verdict::default());
        let endpoint = Endpoint::new(keys.endpoint_config(worker), Some(config), socket, Arc::new(TokioRuntime))?;
        let established = Established::default();
        let trust_watch = tokio::spawn(watch_trust(identity.clone(), established.clone())).abort_handle();
        Ok(Server {
            endpoint,
            identity: identity.clone(),
            keys: keys.clone(),
            timeout: limits.handshake_timeout,
            transport,
            handshakes: Arc::new(Semaphore::new(limits.concurrent_handshakes)),
            established,
            trust_watch,
        })
    }

    /// The next attempt to connect; `None` once the endpoint is closed. Attempts over the limit of concurrent
    /// handshakes are refused here and counted in the endpoint's `stats`. Cancel safe.
    pub async fn accept(&self) -> Option<Handshake> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let Ok(permit) = self.handshakes.clone().try_acquire_owned() else {
                incoming.refuse();
                continue;
            };
            let verdict = Verdict::default();
            let config = server_config(&self.identity, &self.keys, &self.transport, verdict.clone());
            return Some(Handshake {
                incoming,
                config: Arc::new(config),
                verdict,
                timeout: self.timeout,
                identity: self.identity.clone(),
                established: self.established.clone(),
                permit,
            });
        }
    }

    /// The endpoint itself: its address, its counters, `close`, `wait_idle`.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.trust_watch.abort();
    }
}

fn server_config(
    identity: &IdentityHandle,
    keys: &SharedKeys,
    transport: &Arc<TransportConfig>,
    verdict: Verdict,
) -> quinn::ServerConfig {
    let tls = QuicServerConfig::try_from(tls::server_config_with(identity, verdict))
        .expect("the provider has the suite that QUIC begins with");
    let mut config = quinn::ServerConfig::new(Arc::new(tls), keys.token());
    config.transport_config(transport.clone());
    config.max_incoming(1024).incoming_buffer_size(64 * 1024).incoming_buffer_size_total(4 * 1024 * 1024);
    config.validation_token.sent(0);
    config
}

/// An attempt to connect, nothing of it verified yet.
#[derive(Debug)]
pub struct Handshake {
    incoming: quinn::Incoming,
    config: Arc<quinn::ServerConfig>,
    verdict: Verdict,
    timeout: Duration,
    identity: IdentityHandle,
    established: Established,
    permit: OwnedSemaphorePermit,
}

impl Handshake {
    pub fn remote_address(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Runs the handshake to its end. Dropped before the end, it is refused. The caller logs and counts a refusal.
    pub async fn finish(self) -> Result<Accepted, HandshakeError> {
        let Handshake { incoming, config, verdict, timeout, identity, established, permit } = self;
        let generation = identity.current().generation;
        let failed = |error| HandshakeError::from_quic(&error, verdict.refusal());
        let connecting = incoming.accept_with(config).map_err(failed)?;
        let connection = match tokio::time::timeout(timeout, connecting).await {
            Ok(result) => result.map_err(failed)?,
            Err(_) => return Err(HandshakeError::timeout(format!("handshake unfinished after {timeout:?}"))),
        };
        drop(permit);
        let Some(peer) = tls::peer_identity(&connection) else {
            // Unreachable while the verifier stands: kept so that its loss would fail closed.
            connection.close(NO_ERROR, b"");
            let detail = "the handshake proved no identity";
            return Err(HandshakeError::new(HandshakeFailure::NoCertificate, RefusedBy::Us, detail));
        };
        established.insert(&connection);
        let credentials = identity.current();
        if credentials.generation != generation
            && let Err(error) = tls::recheck(&connection, &credentials)
        {
            cut(&connection, &error);
            return Err(error);
        }
        Ok(Accepted { connection, peer })
    }
}

/// A connection whose peer has proved who it is.
#[derive(Debug)]
pub struct Accepted {
    pub connection: quinn::Connection,
    pub peer: PeerIdentity,
}

/// A server's standing connections, to be judged again when trust changes.
#[derive(Debug, Clone, Default)]
struct Established(Arc<Mutex<Vec<quinn::Connection>>>);

impl Established {
    fn insert(&self, connection: &quinn::Connection) {
        let mut connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if connections.len() == connections.capacity() {
            connections.retain(|connection| connection.close_reason().is_none());
        }
        connections.push(connection.clone());
    }

    fn enforce(&self, credentials: &Credentials) {
        let mut connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|connection| connection.close_reason().is_none());
        for connection in connections.iter() {
            if let Err(error) = tls::recheck(connection, credentials) {
                cut(connection, &error);
            }
        }
    }
}

async fn watch_trust(identity: IdentityHandle, established: Established) {
    let mut changes = identity.subscribe();
    while changes.changed().await.is_ok() {
        established.enforce(&identity.current());
    }
}

/// Ends a connection whose peer is no longer trusted, requests in flight included.
pub(super) fn cut(connection: &quinn::Connection, error: &HandshakeError) {
    tracing::warn!(peer = %connection.remote_address(), reason = error.reason.as_str(), detail = error.detail,
        "mesh connection closed: its peer is no longer trusted");
    connection.close(NO_ERROR, b"trust withdrawn");
}

/// The calling endpoint of one worker.
#[derive(Debug, Clone)]
pub struct Dialer {
    endpoint: Endpoint,
    transport: Arc<TransportConfig>,
    initial_cids: InitialCids,
}

impl Dialer {
    /// Takes a socket of `bind_client`. Must run inside the worker's runtime.
    pub fn new(socket: UdpSocket, worker: Worker, keys: &SharedKeys, limits: &TransportLimits) -> io::Result<Dialer> {
        // The socket is this worker's alone: its connection IDs need not name a worker.
        let config = keys.endpoint_config(Worker::single());
        Ok(Dialer {
            endpoint: Endpoint::new(config, None, socket, Arc::new(TokioRuntime))?,
            transport: limits.caller(),
            initial_cids: InitialCids::new(keys.spread, worker),
        })
    }

    /// Connects to `address`, accepting `expected` and nobody else. `Ok` means that both sides have accepted: in TLS 1.3
    /// the caller is done before the callee has looked at its certificate, so the callee's confirmation is waited for.
    pub async fn dial(
        &self,
        identity: &IdentityHandle,
        expected: &SpiffeId,
        address: SocketAddr,
        timeout: Duration,
    ) -> Result<quinn::Connection, HandshakeError> {
        let verdict = Verdict::default();
        let tls = QuicClientConfig::try_from(tls::client_config_with(identity, expected, verdict.clone()))
            .expect("the provider has the suite that QUIC begins with");
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(self.transport.clone());
        config.initial_dst_cid_provider(self.initial_cids.provider());
        config.token_store(Arc::new(quinn_proto::NoneTokenStore));
        let connecting = self
            .endpoint
            .connect_with(config, address, UNUSED_NAME)
            .map_err(|error| HandshakeError::new(HandshakeFailure::Other, RefusedBy::Us, error.to_string()))?;
        let established = async {
            let connection = connecting.await?;
            confirmed(&connection).await?;
            Ok(connection)
        };
        match tokio::time::timeout(timeout, established).await {
            Ok(result) => result.map_err(|error| HandshakeError::from_quic(&error, verdict.refusal())),
            Err(_) => Err(HandshakeError::timeout(format!("no answer within {timeout:?}"))),
        }
    }

    /// The endpoint itself: its address, its counters, `close`, `wait_idle`.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

/// quinn wants a name; SNI is off and the verifier looks at SPIFFE IDs only.
const UNUSED_NAME: &str = "mesh.weft.invalid";

/// Waits until the callee has confirmed the handshake.
//= rfc9001#section-4.1.2
//# the handshake is considered confirmed when a HANDSHAKE_DONE frame is received
async fn confirmed(connection: &quinn::Connection) -> Result<(), quinn::ConnectionError> {
    // quinn has no event for the frame, only a count; it is one round trip away.
    const STEP: Duration = Duration::from_millis(1);
    while connection.stats().frame_rx.handshake_done == 0 {
        tokio::select! {
            error = connection.closed() => return Err(error),
            () = tokio::time::sleep(STEP) => {}
        }
    }
    Ok(())
}

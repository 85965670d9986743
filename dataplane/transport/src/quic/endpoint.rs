//! The two ends of a handshake. `Server` accepts with the credentials of the moment and knows why it refused; `Dialer`
//! reports success only once the callee has accepted our certificate too.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, TokioRuntime, TransportConfig, VarInt};
use rustls_pki_types::UnixTime;
use tokio::task::AbortHandle;
use weft_policy::identity::SpiffeId;

use super::admission::{Admission, AdmissionStats, ConnectionPlace, HandshakePlace, Judgement};
use super::cid::{self, InitialCids};
use super::limits::{ByDistance, Distance, WindowLimits};
use super::udp::Udp;
use super::{SharedKeys, TransportLimits, Worker, refusal};
use crate::tls::{
    self, Choice, Credentials, HandshakeError, HandshakeFailure, IdentityHandle, PeerIdentity, RefusedBy, Served,
    Verdict,
};

/// H3_EXCESSIVE_LOAD, for a peer with too many connections.
const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);
/// The code of a close that is nobody's error.
pub(super) const NO_ERROR: VarInt = VarInt::from_u32(0x100);

/// The receiving endpoint of one worker.
#[derive(Debug)]
pub struct Server {
    endpoint: Endpoint,
    served: Served,
    keys: SharedKeys,
    timeout: Duration,
    transport: ByDistance,
    windows: WindowLimits,
    admission: Admission,
    established: Established,
    trust_watches: Vec<AbortHandle>,
}

impl Server {
    /// Takes one socket of `bind_workers`. Must run inside the worker's runtime.
    pub fn new(
        socket: UdpSocket,
        worker: Worker,
        keys: &SharedKeys,
        served: impl Into<Served>,
        limits: &TransportLimits,
    ) -> io::Result<Server> {
        Server::over(Udp::new(socket)?, worker, keys, served, limits)
    }

    /// As `new`, over a socket of any kind.
    pub(super) fn over(
        socket: Arc<dyn AsyncUdpSocket>,
        worker: Worker,
        keys: &SharedKeys,
        served: impl Into<Served>,
        limits: &TransportLimits,
    ) -> io::Result<Server> {
        let served = served.into();
        let transport = limits.callee();
        let choice = Choice::new(served.clone(), None);
        let config = server_config(&choice, keys, transport.of(Distance::Near), Verdict::default());
        let endpoint = endpoint_over(keys.endpoint_config(worker), Some(config), socket)?;
        let established = Established::default();
        let watch =
            |identity: &IdentityHandle| tokio::spawn(watch_trust(identity.clone(), established.clone())).abort_handle();
        Ok(Server {
            endpoint,
            trust_watches: served.handles().map(watch).collect(),
            served,
            keys: keys.clone(),
            timeout: limits.handshake_timeout,
            transport,
            windows: limits.windows,
            admission: Admission::new(limits),
            established,
        })
    }

    /// The next attempt to connect; `None` once the endpoint is closed. Attempts over the limits are refused here, and a
    /// caller that has to prove its address first is told so; both are counted in `stats`. Cancel safe.
    pub async fn accept(&self) -> Option<Handshake> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let source = incoming.remote_address().ip();
            let place = match self.admission.judge(source, incoming.remote_address_validated()) {
                Judgement::Admitted(place) => place,
                Judgement::ProveAddress => {
                    // Can't fail: only an address that was not validated is asked for proof.
                    let _ = incoming.retry();
                    continue;
                }
                Judgement::Refused => {
                    incoming.refuse();
                    continue;
                }
            };
            let verdict = Verdict::default();
            let choice = Choice::new(self.served.clone(), incoming.local_ip());
            let distance = cid::told_distance(&incoming.orig_dst_cid());
            let config = server_config(&choice, &self.keys, self.transport.of(distance), verdict.clone());
            return Some(Handshake {
                incoming,
                config: Arc::new(config),
                verdict,
                timeout: self.timeout,
                choice,
                established: self.established.clone(),
                windows: self.windows,
                distance,
                place,
            });
        }
    }

    /// The endpoint itself: its address, its counters, `close`, `wait_idle`.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Counts of callers that were refused or asked for proof; shared with whoever renders metrics.
    pub fn stats(&self) -> &Arc<AdmissionStats> {
        self.admission.stats()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.trust_watches.iter().for_each(AbortHandle::abort);
    }
}

fn endpoint_over(
    config: EndpointConfig,
    server: Option<quinn::ServerConfig>,
    socket: Arc<dyn AsyncUdpSocket>,
) -> io::Result<Endpoint> {
    Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime))
}

fn server_config(
    choice: &Choice,
    keys: &SharedKeys,
    transport: &Arc<TransportConfig>,
    verdict: Verdict,
) -> quinn::ServerConfig {
    let tls = QuicServerConfig::try_from(tls::server_config_with(choice, verdict))
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
    choice: Choice,
    established: Established,
    windows: WindowLimits,
    distance: Distance,
    place: HandshakePlace,
}

impl Handshake {
    pub fn remote_address(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Runs the handshake to its end. Dropped before the end, it is refused. The caller logs and counts a refusal.
    pub async fn finish(self) -> Result<Accepted, HandshakeError> {
        let Handshake { incoming, config, verdict, timeout, choice, established, windows, distance, place } = self;
        let failed = |error| HandshakeError::from_quic(&error, verdict.refusal());
        let connecting = incoming.accept_with(config).map_err(failed)?;
        let connection = match tokio::time::timeout(timeout, connecting).await {
            Ok(result) => result.map_err(failed)?,
            Err(_) => return Err(HandshakeError::timeout(format!("handshake unfinished after {timeout:?}"))),
        };
        let (Some(peer), Some((identity, before))) = (tls::peer_identity(&connection), choice.made()) else {
            // Unreachable while the verifier stands: kept so that its loss would fail closed.
            connection.close(NO_ERROR, b"");
            let detail = "the handshake proved no identity";
            return Err(HandshakeError::new(HandshakeFailure::NoCertificate, RefusedBy::Us, detail));
        };
        let place = match place.establish(&peer.id) {
            Ok(place) => place,
            Err(error) => {
                connection.close(EXCESSIVE_LOAD, error.told().as_bytes());
                return Err(error);
            }
        };
        established.insert(&connection, identity, before);
        let credentials = identity.current();
        if credentials.generation != before.generation
            && let Err(error) = still_holds(&connection, &credentials, tls::evicted(&connection, before))
        {
            cut(&connection, &error);
            return Err(error);
        }
        let stream_window = windows.of_stream(distance);
        Ok(Accepted { connection, peer, served: identity.id(), stream_window, place })
    }
}

/// A connection whose peer has proved who it is.
#[derive(Debug)]
pub struct Accepted {
    pub connection: quinn::Connection,
    pub peer: PeerIdentity,
    /// The workload that the connection is for: whose certificate the peer was shown.
    pub served: SpiffeId,
    /// Bytes that the peer may send on one stream before any are read.
    pub stream_window: u32,
    /// Its place among the peer's connections; to be kept as long as the connection is served.
    pub place: ConnectionPlace,
}

/// A server's standing connections, to be judged again when trust changes.
#[derive(Debug, Clone, Default)]
struct Established(Arc<Mutex<Vec<Standing>>>);

#[derive(Debug)]
struct Standing {
    connection: quinn::Connection,
    served: SpiffeId,
    /// When the first of the two certificates ends that it began with.
    ends_at: UnixTime,
    /// The eviction of its peer that it began after.
    evicted: Option<u64>,
}

impl Established {
    fn insert(&self, connection: &quinn::Connection, served: &IdentityHandle, own: &Credentials) {
        let mut standing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if standing.len() == standing.capacity() {
            standing.retain(|it| it.connection.close_reason().is_none());
        }
        let ends_at = tls::ends_at(connection, own).unwrap_or_else(UnixTime::now);
        let (connection, evicted) = (connection.clone(), tls::evicted(connection, own));
        standing.push(Standing { connection, served: served.id(), ends_at, evicted });
    }

    fn enforce(&self, credentials: &Credentials) {
        let mut standing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        standing.retain(|it| it.connection.close_reason().is_none());
        for it in standing.iter().filter(|it| it.served == *credentials.identity.id()) {
            if let Err(error) = still_holds(&it.connection, credentials, it.evicted) {
                cut(&it.connection, &error);
            }
        }
    }

    /// Closes what began with a certificate that has ended by `now`.
    fn expire(&self, now: UnixTime) {
        let mut standing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for it in standing.extract_if(.., |it| now > it.ends_at) {
            if it.connection.close_reason().is_none() {
                expired(&it.connection);
            }
        }
    }
}

/// How often it is looked whether certificates of standing connections have ended; by the wall clock, which may jump.
const LOOK: Duration = Duration::from_secs(1);

async fn watch_trust(identity: IdentityHandle, established: Established) {
    let mut changes = identity.subscribe();
    loop {
        tokio::select! {
            changed = changes.changed() => match changed {
                Ok(()) => established.enforce(&identity.current()),
                Err(_) => return,
            },
            () = tokio::time::sleep(LOOK) => established.expire(UnixTime::now()),
        }
    }
}

/// Ends a connection with the life of a certificate that it began with.
pub(super) fn expired(connection: &quinn::Connection) {
    tracing::info!(peer = %connection.remote_address(), "mesh connection closed: a certificate that it began with has ended");
    let reason = HandshakeError::new(HandshakeFailure::Expired, RefusedBy::Us, "a certificate has ended");
    connection.close(NO_ERROR, reason.told().as_bytes());
}

/// Judges a standing connection by what holds now; `evicted` is the eviction of its peer that it began after.
pub(super) fn still_holds(
    connection: &quinn::Connection,
    credentials: &Credentials,
    evicted: Option<u64>,
) -> Result<(), HandshakeError> {
    tls::recheck(connection, credentials)?;
    match tls::evicted(connection, credentials) {
        Some(number) if evicted != Some(number) => {
            let detail = "an operator ended the peer's connections";
            Err(HandshakeError::new(HandshakeFailure::Evicted, RefusedBy::Us, detail))
        }
        Some(_) | None => Ok(()),
    }
}

/// Ends a connection whose peer is no longer trusted, requests in flight included.
pub(super) fn cut(connection: &quinn::Connection, error: &HandshakeError) {
    tracing::warn!(peer = %connection.remote_address(), reason = error.reason.as_str(), detail = error.detail,
        "mesh connection closed: it does not hold any more");
    connection.close(NO_ERROR, b"trust withdrawn");
}

/// The calling endpoint of one worker.
#[derive(Debug, Clone)]
pub struct Dialer {
    endpoint: Endpoint,
    transport: ByDistance,
    initial_cids: InitialCids,
    asks_from: Option<refusal::From>,
    windows: WindowLimits,
}

impl Dialer {
    /// Takes a socket of `bind_client`. Must run inside the worker's runtime.
    pub fn new(socket: UdpSocket, worker: Worker, keys: &SharedKeys, limits: &TransportLimits) -> io::Result<Dialer> {
        let mark = socket2::SockRef::from(&socket).mark().unwrap_or(0);
        let from = refusal::From { ip: socket.local_addr()?.ip(), mark };
        Dialer::over(Udp::new(socket)?, Some(from), worker, keys, limits)
    }

    /// As `new`, over a socket of any kind. Without `asks_from` the kernel is not asked who refuses.
    pub(super) fn over(
        socket: Arc<dyn AsyncUdpSocket>,
        asks_from: Option<refusal::From>,
        worker: Worker,
        keys: &SharedKeys,
        limits: &TransportLimits,
    ) -> io::Result<Dialer> {
        // The socket is this worker's alone: its connection IDs need not name a worker.
        let config = keys.endpoint_config(Worker::single());
        Ok(Dialer {
            asks_from,
            endpoint: endpoint_over(config, None, socket)?,
            transport: limits.caller(),
            initial_cids: InitialCids::new(keys.spread, worker),
            windows: limits.windows,
        })
    }

    pub(super) fn windows(&self) -> &WindowLimits {
        &self.windows
    }

    /// As `dial_at`, for a peer of which nothing is known.
    pub async fn dial(
        &self,
        identity: &IdentityHandle,
        expected: &SpiffeId,
        address: SocketAddr,
        timeout: Duration,
    ) -> Result<quinn::Connection, HandshakeError> {
        self.dial_at(identity, expected, address, Distance::Near, timeout).await
    }

    /// Connects to `address`, accepting `expected` and nobody else. `Ok` means that both sides have accepted: in TLS 1.3
    /// the caller is done before the callee has looked at its certificate, so the callee's confirmation is waited for.
    pub(super) async fn dial_at(
        &self,
        identity: &IdentityHandle,
        expected: &SpiffeId,
        address: SocketAddr,
        distance: Distance,
        timeout: Duration,
    ) -> Result<quinn::Connection, HandshakeError> {
        let verdict = Verdict::default();
        let tls = QuicClientConfig::try_from(tls::client_config_with(identity, expected, verdict.clone()))
            .expect("the provider has the suite that QUIC begins with");
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(self.transport.of(distance).clone());
        config.initial_dst_cid_provider(self.initial_cids.provider(distance));
        config.token_store(Arc::new(quinn_proto::NoneTokenStore));
        let connecting = self
            .endpoint
            .connect_with(config, address, &tls::server_name(expected))
            .map_err(|error| HandshakeError::new(HandshakeFailure::Other, RefusedBy::Us, error.to_string()))?;
        let established = async {
            let connection = connecting.await?;
            confirmed(&connection).await?;
            Ok(connection)
        };
        let refusals = refusal::Refusals::default();
        tokio::select! {
            biased;
            result = established => result.map_err(|error| HandshakeError::from_quic(&error, verdict.refusal())),
            error = refusal::of(address, self.asks_from, &refusals) => Err(error),
            () = tokio::time::sleep(timeout) => Err(refusals.and_silence(address, timeout)),
        }
    }

    /// The endpoint itself: its address, its counters, `close`, `wait_idle`.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

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

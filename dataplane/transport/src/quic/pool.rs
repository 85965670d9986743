//! One worker's connections to its peers, by who calls, who is called, and where. `get` never opens a second dial to a
//! peer while one is under way; whatever fails here has provably not been processed by anybody. A connection that falls
//! silent gets no new request, and keeps those that it has: silence is no death.

mod connection;

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use weft_policy::identity::SpiffeId;

use super::limits::Distance;
use super::stats::PoolStats;
use super::{Dialer, PoolLimits};
use crate::h3;
use crate::tls::{Credentials, HandshakeError, HandshakeFailure, Identities, IdentityHandle, RefusedBy};
use connection::Pooled;

/// Caller, callee and the callee's address. Cheap to clone and to hash: make one per endpoint and keep it.
#[derive(Debug, Clone)]
pub struct PeerKey(Arc<PeerParts>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct PeerParts {
    source: SpiffeId,
    destination: SpiffeId,
    address: SocketAddr,
    hash: u64,
}

impl PeerKey {
    pub fn new(source: SpiffeId, destination: SpiffeId, address: SocketAddr) -> PeerKey {
        let mut hasher = DefaultHasher::new();
        (&source, &destination, address).hash(&mut hasher);
        PeerKey(Arc::new(PeerParts { source, destination, address, hash: hasher.finish() }))
    }

    pub fn source(&self) -> &SpiffeId {
        &self.0.source
    }

    pub fn destination(&self) -> &SpiffeId {
        &self.0.destination
    }

    pub fn address(&self) -> SocketAddr {
        self.0.address
    }
}

impl PartialEq for PeerKey {
    fn eq(&self, other: &PeerKey) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for PeerKey {}

impl Hash for PeerKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

/// Takes over the hash that a `PeerKey` carries.
#[derive(Debug, Default)]
struct Prehashed(u64);

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// Why there is no connection. The request was not sent: it may be sent elsewhere.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no connection to {} at {}", peer.destination(), peer.address())]
pub struct ConnectError {
    pub peer: PeerKey,
    #[source]
    pub error: HandshakeError,
}

impl ConnectError {
    pub fn reason(&self) -> HandshakeFailure {
        self.error.reason
    }

    fn new(key: &PeerKey, error: HandshakeError) -> ConnectError {
        ConnectError { peer: key.clone(), error }
    }
}

/// One worker's pool; clones are the same pool. Lives inside a `LocalSet`.
#[derive(Debug, Clone)]
pub struct Pool {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dialer: Dialer,
    identities: Identities,
    limits: PoolLimits,
    h3: h3::Limits,
    stats: Arc<PoolStats>,
    peers: RefCell<HashMap<PeerKey, Peer, BuildHasherDefault<Prehashed>>>,
}

#[derive(Debug, Default)]
struct Peer {
    connections: Vec<Rc<Pooled>>,
    dial: Option<Dial>,
    failure: Option<FailedDial>,
    /// How far away it was found to be: new connections get windows to match.
    distance: Distance,
    /// Wakes who waits for the peer to be heard again.
    heard: Rc<Notify>,
}

type DialResult = watch::Receiver<Option<Result<(), ConnectError>>>;

#[derive(Debug)]
struct Dial {
    result: DialResult,
    task: AbortHandle,
    begun: Instant,
    waiting: Waiting,
}

/// Whether requests wait for a dial that have a connection to use meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// For a while.
    Worth,
    /// It failed before.
    Vain,
}

impl Drop for Dial {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The last dial, which failed: its error is given again without dialling until `until`.
#[derive(Debug)]
struct FailedDial {
    error: ConnectError,
    until: Instant,
    backoff: Duration,
}

/// Next step of a request that needs a connection.
enum Step {
    Use(h3::Client),
    Wait(DialResult),
}

impl Pool {
    pub fn new(dialer: Dialer, identities: impl Into<Identities>, limits: PoolLimits, h3: h3::Limits) -> Pool {
        let inner = Inner {
            dialer,
            identities: identities.into(),
            limits,
            h3,
            stats: Arc::default(),
            peers: RefCell::default(),
        };
        Pool { inner: Rc::new(inner) }
    }

    /// A client for one request to this peer: of a standing connection, or of a new one. For a request that may go to
    /// another endpoint: a peer that is silent is waited for no longer than it takes to tell. Cancel safe: a dial goes on
    /// for those who come after.
    pub async fn get(&self, key: &PeerKey) -> Result<h3::Client, ConnectError> {
        // Each round ends with a dial; a stampede fills the connections that a peer may have, one round each.
        for _ in 0..self.inner.limits.connections_per_peer + 2 {
            let dial = match self.inner.step(key)? {
                Step::Use(client) => return Ok(client),
                Step::Wait(dial) => dial,
            };
            match self.inner.wait_for(key, dial).await {
                Ok(()) => {}
                Err(error) => return self.inner.least_loaded(key).ok_or(error),
            }
        }
        let lost =
            || HandshakeError::new(HandshakeFailure::Other, RefusedBy::Peer, "connections end as soon as they stand");
        self.inner.least_loaded(key).ok_or_else(|| ConnectError::new(key, lost()))
    }

    /// A connection that stands and takes a further request. `None`: there is none, and none is dialled.
    pub fn at_once(&self, key: &PeerKey) -> Option<h3::Client> {
        self.inner.free(self.inner.peers.borrow().get(key)?)
    }

    /// As `get`, for a request that may go nowhere else. Waits for a silent peer as long as a connection to it stands, and
    /// `connect_timeout` where there is none: a peer that answers again within that time costs latency only. Cancel safe.
    pub async fn get_patiently(&self, key: &PeerKey, connect_timeout: Duration) -> Result<h3::Client, ConnectError> {
        let begun = Instant::now();
        loop {
            let heard = self.inner.heard(key);
            let heard = heard.as_ref().map(|heard| heard.notified());
            let patience = if self.inner.stands(key) { self.inner.limits.patience } else { connect_timeout };
            let left = patience.saturating_sub(begun.elapsed());
            let error = match tokio::time::timeout(left, self.get(key)).await {
                Ok(Ok(client)) => return Ok(client),
                Ok(Err(error)) => error,
                Err(_) => ConnectError::new(key, HandshakeError::timeout(format!("no connection within {patience:?}"))),
            };
            let silent = error.reason() == HandshakeFailure::Timeout;
            let patience = if self.inner.stands(key) { self.inner.limits.patience } else { connect_timeout };
            let (Some(heard), true) = (heard, silent && begun.elapsed() < patience) else { return Err(error) };
            tokio::select! {
                () = heard => {}
                () = tokio::time::sleep(self.inner.until_redial(key)) => {}
            }
        }
    }

    /// Forgets a peer that left discovery: no request goes there any more, those under way may finish.
    pub fn evict(&self, key: &PeerKey) {
        let peer = self.inner.peers.borrow_mut().remove(key);
        if let Some(peer) = peer {
            self.inner.retire(&peer);
        }
    }

    /// Evicts every peer for which `keep` is false; `retain(|_| false)` begins a shutdown.
    pub fn retain(&self, mut keep: impl FnMut(&PeerKey) -> bool) {
        let gone: Vec<Peer> =
            self.inner.peers.borrow_mut().extract_if(|key, _| !keep(key)).map(|(_, peer)| peer).collect();
        for peer in &gone {
            self.inner.retire(peer);
        }
    }

    /// Cuts the connections to a peer at once, requests under way included: its identity was revoked.
    pub fn cut(&self, key: &PeerKey) {
        let peer = self.inner.peers.borrow_mut().remove(key);
        for connection in peer.iter().flat_map(|peer| &peer.connections) {
            connection.close(b"cut");
        }
    }

    /// Requests under way on connections to this peer.
    pub fn open_streams(&self, key: &PeerKey) -> usize {
        let peers = self.inner.peers.borrow();
        peers.get(key).map_or(0, |peer| peer.connections.iter().map(|connection| connection.open_streams()).sum())
    }

    pub fn stats(&self) -> &Arc<PoolStats> {
        &self.inner.stats
    }

    /// The endpoint that dials: its address, its counters, `close`, `wait_idle`.
    pub fn endpoint(&self) -> &quinn::Endpoint {
        self.inner.dialer.endpoint()
    }
}

fn evicted() -> HandshakeError {
    HandshakeError::new(HandshakeFailure::Evicted, RefusedBy::Us, "the endpoint left discovery")
}

impl Inner {
    /// Requests on one connection before another is dialled.
    fn streams(&self, distance: Distance) -> usize {
        self.limits.streams_per_connection.min(self.dialer.windows().streams(distance))
    }

    /// A connection that fits its peer and takes a further request.
    fn free(&self, peer: &Peer) -> Option<h3::Client> {
        let takes_more = |it: &&Rc<Pooled>| it.open_streams() < self.streams(it.distance());
        peer.fitting(self.dial_patience(peer)).find(takes_more).map(|connection| connection.client())
    }

    fn step(self: &Rc<Self>, key: &PeerKey) -> Result<Step, ConnectError> {
        let mut peers = self.peers.borrow_mut();
        if let Some(client) = peers.get(key).and_then(|peer| self.free(peer)) {
            return Ok(Step::Use(client));
        }
        let peer = peers.entry(key.clone()).or_default();
        let held = peer.usable().count();
        if let Some(dial) = &peer.dial {
            self.stats.coalesced.add();
            return Ok(Step::Wait(dial.result.clone()));
        }
        let failed = peer.failure.as_ref().filter(|failure| Instant::now() < failure.until);
        if held > 0 && (failed.is_some() || held >= self.limits.connections_per_peer) {
            self.stats.saturated.add();
            let connection = peer.least_loaded().expect("held counts usable connections");
            return Ok(Step::Use(connection.client()));
        }
        if let Some(failure) = failed {
            return Err(failure.error.clone());
        }
        self.start_dial(key, peer, Waiting::Worth).map(Step::Wait)
    }

    /// Waits for a dial to end. Beside a connection that stands not for long: one that fell silent will most likely find
    /// silence again, and one that only has small windows, or many requests, is better than none.
    async fn wait_for(&self, key: &PeerKey, mut dial: DialResult) -> Result<(), ConnectError> {
        let result = async { dial.wait_for(Option::is_some).await.ok().and_then(|result| result.clone()) };
        let limit = {
            let peers = self.peers.borrow();
            let stands = peers.get(key).filter(|peer| peer.connections.iter().any(|it| it.may_serve()));
            stands.map_or(Duration::MAX, |peer| self.dial_patience(peer))
        };
        match tokio::time::timeout(limit, result).await {
            Ok(Some(result)) => result,
            Ok(None) => Err(ConnectError::new(key, evicted())),
            Err(_) => Err(ConnectError::new(key, HandshakeError::timeout("its connections are silent"))),
        }
    }

    /// How long requests wait for a dial beside the connections that there are: a handshake takes a few round trips.
    fn dial_patience(&self, peer: &Peer) -> Duration {
        let round_trip = peer.connections.iter().map(|it| it.round_trip()).max().unwrap_or_default();
        self.limits.elsewhere_after.max(round_trip * 4)
    }

    /// True where a connection to the peer stands, be it silent.
    fn stands(&self, key: &PeerKey) -> bool {
        self.peers.borrow().get(key).is_some_and(|peer| peer.connections.iter().any(|it| it.is_suspect()))
    }

    fn heard(&self, key: &PeerKey) -> Option<Rc<Notify>> {
        self.identities.of(key.source())?;
        Some(Rc::clone(&self.peers.borrow_mut().entry(key.clone()).or_default().heard))
    }

    /// How long until a dial makes sense again: one is under way, or has just failed.
    fn until_redial(&self, key: &PeerKey) -> Duration {
        let peers = self.peers.borrow();
        let failure = peers.get(key).and_then(|peer| peer.failure.as_ref());
        let wait = failure.map_or(Duration::ZERO, |failure| failure.until.saturating_duration_since(Instant::now()));
        wait.max(self.limits.redial_backoff.0)
    }

    fn least_loaded(&self, key: &PeerKey) -> Option<h3::Client> {
        self.peers.borrow().get(key)?.least_loaded().map(|connection| connection.client())
    }

    fn start_dial(
        self: &Rc<Self>,
        key: &PeerKey,
        peer: &mut Peer,
        waiting: Waiting,
    ) -> Result<DialResult, ConnectError> {
        let Some(identity) = self.identities.of(key.source()).cloned() else {
            let detail = format!("this proxy does not speak for {}", key.source());
            let error = HandshakeError::new(HandshakeFailure::NoCertificate, RefusedBy::Us, detail);
            return Err(ConnectError::new(key, error));
        };
        self.stats.dials.add();
        let (done, result) = watch::channel(None);
        let timeout = self.limits.dial_timeout;
        let (key, dialer) = (key.clone(), self.dialer.clone());
        let task = dial(Rc::downgrade(self), key, identity, dialer, peer.distance, timeout, done);
        let task = tokio::task::spawn_local(task).abort_handle();
        peer.dial = Some(Dial { result: result.clone(), task, begun: Instant::now(), waiting });
        Ok(result)
    }

    /// Takes in what a dial came to.
    fn dialled(
        self: &Rc<Self>,
        key: &PeerKey,
        identity: &IdentityHandle,
        credentials: Arc<Credentials>,
        distance: Distance,
        result: Result<quinn::Connection, HandshakeError>,
    ) -> Result<(), ConnectError> {
        let mut peers = self.peers.borrow_mut();
        // Eviction aborts the dial, so the peer is still here; if not, its connection must not outlive it.
        let peer = peers.get_mut(key).ok_or_else(|| ConnectError::new(key, evicted()))?;
        // Aborts the task that runs here; it ends without waiting for anything more, so that the result is still told.
        peer.dial = None;
        match result {
            Ok(connection) => {
                self.stats.established.add();
                peer.failure = None;
                let found = self.dialer.windows().distance(&connection);
                peer.connections.push(connection::adopt(self, key, identity, connection, credentials, distance));
                peer.heard.notify_waiters();
                peer.measured(distance, found);
                if peer.distance != distance {
                    // Requests wait for the one that fits, a round trip longer: on this one a large body takes many.
                    let _ = self.start_dial(key, peer, Waiting::Worth);
                }
                Ok(())
            }
            Err(error) => {
                tracing::warn!(source = %key.source(), destination = %key.destination(), address = %key.address(),
                    reason = error.reason.as_str(), refused_by = error.refused_by.as_str(), detail = error.detail,
                    "mesh handshake failed");
                self.stats.failed(error.reason);
                peer.dial_failed(ConnectError::new(key, error), &self.limits)
            }
        }
    }

    fn retire(&self, peer: &Peer) {
        for connection in &peer.connections {
            self.stats.evicted.add();
            connection.retire();
        }
    }

    /// Dials a peer that has fallen silent, so that a connection is there for what comes as soon as it can be.
    fn redial(self: &Rc<Self>, key: &PeerKey) {
        let mut peers = self.peers.borrow_mut();
        if let Some(peer) = peers.get_mut(key)
            && peer.dial.is_none()
            && peer.usable().next().is_none()
            && peer.failure.as_ref().is_none_or(|failure| Instant::now() >= failure.until)
        {
            // Without an identity there is nothing to dial with, and `get` will say so.
            let _ = self.start_dial(key, peer, Waiting::Worth);
        }
    }

    /// Dials the connection that fits a far peer once more where that failed, beside the requests on those that don't fit.
    fn refit(self: &Rc<Self>, key: &PeerKey) {
        let mut peers = self.peers.borrow_mut();
        let Some(peer) = peers.get_mut(key) else { return };
        let fits = || peer.usable().any(|it| it.distance() == Distance::Far);
        let is_due = |failed: &FailedDial| Instant::now() >= failed.until + self.limits.refit_after;
        if peer.distance == Distance::Far && peer.dial.is_none() && !fits() && peer.failure.as_ref().is_none_or(is_due)
        {
            // Without an identity there is nothing to dial with, and `get` will say so.
            let _ = self.start_dial(key, peer, Waiting::Vain);
        }
    }

    /// A connection that was silent is heard again: dials that failed meanwhile say nothing any more.
    fn found(&self, key: &PeerKey) {
        if let Some(peer) = self.peers.borrow_mut().get_mut(key) {
            peer.failure = None;
            peer.heard.notify_waiters();
        }
    }

    /// Since when a connection to the peer has been heard that was made after `then`.
    fn heard_since(&self, key: &PeerKey, then: Instant) -> Option<Instant> {
        let peers = self.peers.borrow();
        let younger = peers.get(key)?.connections.iter().filter(|it| !it.is_suspect() && it.made_at() > then);
        younger.map(|it| it.made_at()).min()
    }

    fn forget(&self, key: &PeerKey, gone: &Rc<Pooled>) {
        let mut peers = self.peers.borrow_mut();
        if let Some(peer) = peers.get_mut(key) {
            peer.connections.retain(|connection| !Rc::ptr_eq(connection, gone));
            let waited_for = Rc::strong_count(&peer.heard) > 1;
            if peer.connections.is_empty() && peer.dial.is_none() && peer.failure.is_none() && !waited_for {
                peers.remove(key);
            }
        }
    }
}

impl Peer {
    /// Takes in how far away the peer is: a far one gets connections that fit, beside those that don't.
    fn measured(&mut self, dialled: Distance, found: Distance) {
        match (dialled, found) {
            (Distance::Near, Distance::Far) => self.distance = Distance::Far,
            (Distance::Far, _) => {
                let (_, before) = self.connections.split_last().expect("the one just made is the last");
                before.iter().filter(|it| it.distance() == Distance::Near).for_each(|it| it.retire());
            }
            (Distance::Near, Distance::Near) => {}
        }
    }

    /// Those to which new requests go: a connection with small windows to a peer that was found to be far away is only for
    /// when no other can be had, or a dial takes longer than `patience`.
    fn fitting(&self, patience: Duration) -> impl Iterator<Item = &Rc<Pooled>> {
        let is_worth = |dial: &Dial| dial.waiting == Waiting::Worth && dial.begun.elapsed() < patience;
        let is_coming = self.dial.as_ref().is_some_and(is_worth);
        let waits = self.distance == Distance::Far && is_coming;
        self.usable().filter(move |connection| !waits || connection.distance() == Distance::Far)
    }

    fn usable(&self) -> impl Iterator<Item = &Rc<Pooled>> {
        self.connections.iter().filter(|connection| connection.is_usable())
    }

    fn least_loaded(&self) -> Option<&Rc<Pooled>> {
        self.usable().min_by_key(|connection| connection.open_streams())
    }

    fn dial_failed(&mut self, error: ConnectError, limits: &PoolLimits) -> Result<(), ConnectError> {
        if error.reason() == HandshakeFailure::PortClosed {
            // The process at the other end of these connections has gone without a word.
            for connection in self.connections.iter().filter(|connection| connection.is_suspect()) {
                connection.close(b"nobody listens at the peer's address");
            }
        }
        let (first, longest) = limits.redial_backoff;
        let backoff = self.failure.as_ref().map_or(first, |failure| (failure.backoff * 2).min(longest));
        self.failure = Some(FailedDial { error: error.clone(), until: Instant::now() + backoff, backoff });
        Err(error)
    }
}

async fn dial(
    pool: Weak<Inner>,
    key: PeerKey,
    identity: IdentityHandle,
    dialer: Dialer,
    distance: Distance,
    timeout: Duration,
    done: watch::Sender<Option<Result<(), ConnectError>>>,
) {
    let credentials = identity.current();
    let result = dialer.dial_at(&identity, key.destination(), key.address(), distance, timeout).await;
    if let Some(pool) = pool.upgrade() {
        let result = pool.dialled(&key, &identity, credentials, distance, result);
        // Nobody waits any more: the connection is there for the next request.
        let _ = done.send(Some(result));
    }
}

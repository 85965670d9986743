//! Connections from one worker to applications (and to plain destinations outside the mesh): dialled, kept while idle,
//! reused last-in-first-out, never shared between workers.

mod multiplexed;

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Version;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use weft_filter_host::Permit;
use weft_policy::identity::SpiffeId;
use weft_transport::http::HttpLimits;
use weft_transport::tls::{self, OutsideStream};
use weft_transport::{capture, h1};

use self::multiplexed::{AppStream, Multiplexed, MultiplexedStats, NoStream};
use crate::config::Limits;
use crate::reply::{Failure, Party};
use crate::shares::{self, Full, Kept, ShareLimits};
use crate::snapshot::ServedSocket;
use crate::sockets::{Guard, OutsideSocket, PlainSocket};
use crate::staggered;
use crate::telemetry::counters::Limited;
use crate::telemetry::series::Counter;
use crate::terms::AllTerms;

/// How long one address of several is tried alone (RFC 8305 section 5, Connection Attempt Delay).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How long before the end that an app announced (`Keep-Alive: timeout`) a connection is used no more.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_millis(500);

/// On whose behalf a connection is opened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A peer's workload.
    Peer(SpiffeId),
    /// An application beside us, by its address.
    App(IpAddr),
}

/// The place of an open connection among those of its destination and its holder.
pub type Share = shares::Share<PlainSocket, Holder>;

/// A connection checked out for one request, for which it holds the permit.
#[derive(Debug)]
pub struct AppConn {
    pub conn: Conn,
    /// It has carried a request before.
    pub reused: bool,
    permit: Permit,
    /// Of one that carries a single request at a time.
    share: Option<Share>,
}

/// The connection itself.
#[derive(Debug)]
pub enum Conn {
    H1(Box<h1::ClientConn>),
    /// Multiplexed: a stream on a shared connection.
    H2(AppStream<Holder>),
}

/// The pool of one worker.
#[derive(Debug)]
pub struct AppPool {
    /// The firewall mark that capture rules leave alone; needs CAP_NET_ADMIN, so only with capture.
    mark: Option<u32>,
    guard: Guard,
    idle_timeout: Duration,
    http: HttpLimits,
    h1: Kept<PlainSocket, Holder, Box<h1::ClientConn>>,
    h2: Multiplexed<PlainSocket, Holder>,
    terms: AllTerms,
    pub stats: AppPoolStats,
}

/// Counters of a pool; one writer.
#[derive(Debug, Default, Clone)]
pub struct AppPoolStats {
    pub reused: std::sync::Arc<Counter>,
    pub dialled: std::sync::Arc<Counter>,
    pub multiplexed: MultiplexedStats,
}

/// Why there is no connection. Nothing was sent: the permit comes back.
pub type NotConnected = (Failure, Permit);

impl AppPool {
    pub fn new(mark: Option<u32>, guard: Guard, limits: &Limits, shares: ShareLimits) -> Self {
        let stats = AppPoolStats::default();
        let patience = Duration::from_millis(limits.app_stream_wait_ms);
        Self {
            mark,
            guard,
            idle_timeout: Duration::from_secs(limits.app_idle_timeout_s),
            http: limits.http(),
            h1: Kept::new(limits.app_idle_connections, shares),
            h2: Multiplexed::new(
                (limits.app_h2_connections, limits.app_streams_per_caller_percent),
                patience,
                &limits.http(),
                stats.multiplexed.clone(),
            ),
            terms: AllTerms::default(),
            stats,
        }
    }

    /// A socket outside at which TLS is begun, with a server that has to be `name`.
    pub fn with_tls(
        &self,
        outside: OutsideSocket,
        config: &Arc<ClientConfig>,
        name: &ServerName<'static>,
    ) -> PlainSocket {
        PlainSocket::Tls(outside, self.terms.number(config, name, Instant::now()))
    }

    /// A connection to one of `sockets` that speaks `version`, has been used before and is still good. The permit comes back
    /// where there is none.
    pub fn checkout_kept(
        &self,
        sockets: &[PlainSocket],
        version: Version,
        holder: &Holder,
        permit: Permit,
    ) -> Result<AppConn, Permit> {
        for socket in sockets {
            if let Some((conn, share)) = self.standing(*socket, version, holder) {
                self.stats.reused.add(1);
                return Ok(AppConn { conn, reused: true, permit, share });
            }
        }
        Err(permit)
    }

    /// The same of a new one, made within `timeout`.
    pub async fn checkout_new(
        &self,
        sockets: &[PlainSocket],
        version: Version,
        timeout: Duration,
        holder: &Holder,
        permit: Permit,
    ) -> Result<AppConn, NotConnected> {
        match self.dial(sockets, version, timeout, holder).await {
            Ok((conn, share)) => Ok(AppConn { conn, reused: false, permit, share }),
            Err(failure) => Err((failure, permit)),
        }
    }

    fn standing(&self, socket: PlainSocket, version: Version, holder: &Holder) -> Option<(Conn, Option<Share>)> {
        if version == Version::HTTP_2 {
            let standing = self.h2.standing(socket, holder);
            return standing.map(|stream| (Conn::H2(by_scheme(socket, stream)), None));
        }
        while let Some((mut conn, share)) = self.h1.reuse(socket, holder, Instant::now()) {
            if !conn.is_stale() {
                return Some((Conn::H1(conn), Some(share)));
            }
        }
        None
    }

    /// A place for one more connection to `socket`.
    fn place(&self, socket: PlainSocket, holder: &Holder) -> Result<Share, Failure> {
        self.h1.open(socket, holder).map_err(|full| used_up(socket, full))
    }

    async fn dial(
        &self,
        sockets: &[PlainSocket],
        version: Version,
        timeout: Duration,
        holder: &Holder,
    ) -> Result<(Conn, Option<Share>), Failure> {
        if version == Version::HTTP_2 {
            // Callers share the connections: each has a part of their streams.
            return self.stream(sockets, timeout, holder).await.map(|stream| (Conn::H2(stream), None));
        }
        let (stream, socket, share) = self.connect_any(sockets, timeout, |socket| self.place(socket, holder)).await?;
        let stream = self.secured(stream, socket, timeout).await?;
        Ok((Conn::H1(Box::new(h1::ClientConn::over(stream, self.http.h1()))), Some(share)))
    }

    /// A stream to the one of `sockets` that answers first, as soon as that has one to give.
    async fn stream(
        &self,
        sockets: &[PlainSocket],
        timeout: Duration,
        holder: &Holder,
    ) -> Result<AppStream<Holder>, Failure> {
        let (connected, socket) = match sockets {
            [only] => (None, *only),
            several => {
                let (stream, socket, ()) = self.connect_any(several, timeout, uncounted).await?;
                (Some(stream), socket)
            }
        };
        let connected = Cell::new(connected);
        let dial = async || {
            let stream = match connected.take() {
                Some(stream) => stream,
                None => self.connect_any(&[socket], timeout, uncounted).await?.0,
            };
            self.secured(stream, socket, timeout).await
        };
        match self.h2.stream(socket, holder, dial).await {
            Ok(stream) => Ok(by_scheme(socket, stream)),
            Err(NoStream::Dial(failure)) => Err(failure),
            // It took the connection and speaks something else.
            Err(NoStream::Settings(error)) => Err(Failure::NoAnswer { to: Party::App, error }),
            Err(NoStream::Late { patience, connections }) => {
                let (address, wait_ms) = (socket.address().to_string(), patience.as_millis());
                Err(Failure::AppSaturated { address, wait_ms, connections })
            }
        }
    }

    /// Begins TLS where the socket is dialled on such terms, within `timeout`.
    async fn secured(
        &self,
        stream: TcpStream,
        socket: PlainSocket,
        timeout: Duration,
    ) -> Result<OutsideStream, Failure> {
        let (outside, id) = match socket {
            PlainSocket::Served(_) | PlainSocket::Outside(_) => return Ok(OutsideStream::Plain(stream)),
            PlainSocket::Tls(outside, id) => (outside, id),
        };
        let failed = |reason: String| Failure::OutsideTls { address: outside.address().to_string(), reason };
        let terms = self.terms.get(id).ok_or_else(|| failed("too many other names are being asked for".to_owned()))?;
        let begun = Box::pin(tls::begin(terms.config, terms.name, stream));
        match tokio::time::timeout(timeout, begun).await {
            Ok(begun) => begun.map_err(|error| failed(error.to_string())),
            Err(_) => Err(failed(format!("the handshake took more than {} ms", timeout.as_millis()))),
        }
    }

    /// Gives a connection back after its exchange. One that cannot be used again is closed.
    pub fn put_back(&self, conn: AppConn) {
        let AppConn { conn: Conn::H1(conn), share: Some(share), .. } = conn else { return };
        if !conn.reusable() {
            return;
        }
        let keep = conn.keep_alive_timeout().map_or(self.idle_timeout, |said| {
            // A request sent in the app's last moment may cross its close, so we keep the connection a little shorter.
            said.saturating_sub(KEEP_ALIVE_MARGIN).min(self.idle_timeout)
        });
        let now = Instant::now();
        self.h1.keep(conn, share, now, now + keep);
    }

    /// A raw connection, for the byte stream that `permit` lets pass. No TLS is begun on it.
    pub async fn connect(
        &self,
        sockets: &[PlainSocket],
        timeout: Duration,
        holder: &Holder,
        permit: Permit,
    ) -> Result<(TcpStream, Share), NotConnected> {
        match self.connect_any(sockets, timeout, |socket| self.place(socket, holder)).await {
            Ok((stream, _, share)) => Ok((stream, share)),
            Err(failure) => Err((failure, permit)),
        }
    }

    /// The same outside the mesh, where TLS is begun on it if the socket is dialled on such terms.
    pub async fn connect_outside(
        &self,
        sockets: &[PlainSocket],
        timeout: Duration,
        holder: &Holder,
        permit: Permit,
    ) -> Result<(OutsideStream, Share), NotConnected> {
        let connected = match self.connect_any(sockets, timeout, |socket| self.place(socket, holder)).await {
            Ok((stream, socket, share)) => self.secured(stream, socket, timeout).await.map(|stream| (stream, share)),
            Err(failure) => Err(failure),
        };
        connected.map_err(|failure| (failure, permit))
    }

    /// A connection as one that carries bytes and no message.
    pub fn bytes_over(&self, stream: OutsideStream) -> h1::ClientConn {
        h1::ClientConn::of_bytes(stream, self.http.h1())
    }

    /// True where a connection can be made. It carries nothing.
    pub async fn answers(&self, socket: PlainSocket, timeout: Duration) -> bool {
        self.connect_any(&[socket], timeout, uncounted).await.is_ok()
    }

    /// Connects to the first of `sockets` that answers: each is tried beside those before it after a moment, or at once
    /// when they have failed. Each attempt has a place of its own, which `place` gives or refuses.
    async fn connect_any<S>(
        &self,
        sockets: &[PlainSocket],
        timeout: Duration,
        place: impl Fn(PlainSocket) -> Result<S, Failure>,
    ) -> Result<(TcpStream, PlainSocket, S), Failure> {
        let attempts = sockets.iter().map(|socket| self.connect_one(*socket, timeout, place(*socket)));
        let failures = match staggered::first_of(attempts, ATTEMPT_DELAY).await {
            Ok(connected) => return Ok(connected),
            Err(failures) => failures,
        };
        Err(failures.into_iter().next().unwrap_or(Failure::NotReady))
    }

    async fn connect_one<S>(
        &self,
        socket: PlainSocket,
        timeout: Duration,
        place: Result<S, Failure>,
    ) -> Result<(TcpStream, PlainSocket, S), Failure> {
        let place = place?;
        self.stats.dialled.add(1);
        let connected = match socket {
            PlainSocket::Outside(outside) | PlainSocket::Tls(outside, _) => {
                self.connect_to(outside.address(), timeout).await
            }
            PlainSocket::Served(served) => self.connect_served(served, timeout).await,
        };
        connected.map(|stream| (stream, socket, place)).map_err(|error| not_connected(socket, &error.to_string()))
    }

    /// An app that binds loopback only refuses at its workload's address and is found there.
    async fn connect_served(&self, served: ServedSocket, timeout: Duration) -> std::io::Result<TcpStream> {
        let own = served.address();
        if self.guard.is_own_listener(own) {
            return Err(std::io::Error::other("it is a port of this proxy"));
        }
        let refused = match self.connect_to(own, timeout).await {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => error,
            connected => return connected,
        };
        let Some(loopback) = self.guard.loopback_of(served) else { return Err(refused) };
        let also = |_| std::io::Error::new(refused.kind(), format!("{refused}, nor does it listen at {loopback}"));
        self.connect_to(loopback, timeout).await.map_err(also)
    }

    async fn connect_to(&self, address: SocketAddr, timeout: Duration) -> std::io::Result<TcpStream> {
        capture::connect_tcp(address, None, self.mark, timeout).await
    }

    /// Closes connections that have been idle too long; called now and then by the worker.
    pub fn expire(&self) {
        self.terms.expire(Instant::now(), self.idle_timeout.max(Duration::from_secs(60)));
        self.h1.expire(Instant::now());
        self.h2.expire(self.idle_timeout);
    }
}

impl AppConn {
    /// The permit, where the request provably was not processed and may be sent again.
    pub fn into_permit(self) -> Permit {
        self.permit
    }
}

/// A request on a stream says by its scheme whether TLS is below.
fn by_scheme(socket: PlainSocket, mut stream: AppStream<Holder>) -> AppStream<Holder> {
    if let PlainSocket::Tls(..) = socket {
        stream.slot.secured();
    }
    stream
}

/// Stands for a share where connections are bounded elsewhere.
fn uncounted(_: PlainSocket) -> Result<(), Failure> {
    Ok(())
}

/// Counts that a limit was hit.
fn used_up(socket: PlainSocket, full: Full) -> Failure {
    match full {
        Full::Destination(_) => Limited::AppConnections.hit(),
        Full::Caller(_) => Limited::AppConnectionsPerCaller.hit(),
    }
    Failure::ConnectionsUsedUp { address: socket.address().to_string(), full }
}

fn not_connected(socket: PlainSocket, reason: &str) -> Failure {
    let reason = reason.to_owned();
    match socket {
        PlainSocket::Served(served) => Failure::AppConnect { address: served.address().to_string(), reason },
        PlainSocket::Outside(outside) | PlainSocket::Tls(outside, _) => {
            Failure::Passthrough { address: outside.address().to_string(), reason }
        }
    }
}

//! Connections from one worker to applications (and to plain destinations outside the mesh): dialled, kept while idle,
//! reused last-in-first-out, never shared between workers.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use http::Version;
use tokio::net::TcpStream;
use weft_transport::{capture, h1, h2};

use crate::config::Limits;
use crate::telemetry::series::Counter;

/// How connections are dialled.
#[derive(Debug, Clone)]
pub struct Dial {
    /// The firewall mark that capture rules leave alone; needs CAP_NET_ADMIN, so only with capture.
    pub mark: Option<u32>,
    pub timeout: Duration,
}

/// Why an application could not be reached.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct AppConnectError {
    pub address: SocketAddr,
    pub reason: String,
}

/// A connection to an application, checked out for one request.
#[derive(Debug)]
pub enum AppConn {
    H1(Box<h1::ClientConn>),
    /// Multiplexed: a handle on the shared connection.
    H2(h2::ClientConn),
}

#[derive(Debug)]
struct Idle {
    conn: Box<h1::ClientConn>,
    since: Instant,
}

/// The pool of one worker.
#[derive(Debug)]
pub struct AppPool {
    dial: Dial,
    max_idle: usize,
    idle_timeout: Duration,
    idle: RefCell<HashMap<SocketAddr, Vec<Idle>>>,
    h2: RefCell<HashMap<SocketAddr, h2::ClientConn>>,
    pub stats: AppPoolStats,
}

/// Counters of a pool; one writer.
#[derive(Debug, Default, Clone)]
pub struct AppPoolStats {
    pub reused: std::sync::Arc<Counter>,
    pub dialled: std::sync::Arc<Counter>,
}

impl AppPool {
    pub fn new(dial: Dial, limits: &Limits) -> Self {
        Self {
            dial,
            max_idle: limits.app_idle_connections,
            idle_timeout: Duration::from_secs(limits.app_idle_timeout_s),
            idle: RefCell::default(),
            h2: RefCell::default(),
            stats: AppPoolStats::default(),
        }
    }

    /// A connection to `address` that speaks `version`: an idle one that is still good, or a new one.
    pub async fn checkout(&self, address: SocketAddr, version: Version) -> Result<AppConn, AppConnectError> {
        match self.standing(address, version) {
            Some(conn) => {
                self.stats.reused.add(1);
                Ok(conn)
            }
            // Boxed: rare, and larger than all the rest of a request's leg to its app.
            None => Box::pin(self.dial(address, version)).await,
        }
    }

    fn standing(&self, address: SocketAddr, version: Version) -> Option<AppConn> {
        if version == Version::HTTP_2 {
            return self.h2.borrow().get(&address).filter(|conn| !conn.is_closed()).cloned().map(AppConn::H2);
        }
        loop {
            let mut conn = self.pop_idle(address)?;
            if !conn.is_stale() {
                return Some(AppConn::H1(conn));
            }
        }
    }

    async fn dial(&self, address: SocketAddr, version: Version) -> Result<AppConn, AppConnectError> {
        let stream = self.connect(address).await?;
        if version != Version::HTTP_2 {
            return Ok(AppConn::H1(Box::new(h1::ClientConn::new(stream, h1::Limits::default()))));
        }
        let conn = h2::ClientConn::connect(stream, &h2::Limits::default())
            .await
            .map_err(|error| AppConnectError { address, reason: error.to_string() })?;
        self.h2.borrow_mut().insert(address, conn.clone());
        Ok(AppConn::H2(conn))
    }

    /// Gives a connection back after its exchange. One that cannot be used again is closed.
    pub fn put_back(&self, address: SocketAddr, conn: AppConn) {
        let AppConn::H1(conn) = conn else { return };
        if !conn.reusable() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let idle = idle.entry(address).or_default();
        let now = Instant::now();
        if idle.len() >= self.max_idle || idle.first().is_some_and(|oldest| oldest.since + self.idle_timeout < now) {
            idle.retain(|kept| kept.since + self.idle_timeout >= now);
            if idle.len() >= self.max_idle {
                return;
            }
        }
        idle.push(Idle { conn, since: now });
    }

    /// A raw connection, for TCP.
    pub async fn connect(&self, address: SocketAddr) -> Result<TcpStream, AppConnectError> {
        self.stats.dialled.add(1);
        match self.connect_once(address).await {
            Ok(stream) => Ok(stream),
            Err(error) => match loopback_of(address) {
                Some(loopback) => self.connect_once(loopback).await.map_err(|_| error),
                None => Err(error),
            },
        }
    }

    async fn connect_once(&self, address: SocketAddr) -> Result<TcpStream, AppConnectError> {
        capture::connect_tcp(address, None, self.dial.mark, self.dial.timeout)
            .await
            .map_err(|error| AppConnectError { address, reason: error.to_string() })
    }

    fn pop_idle(&self, address: SocketAddr) -> Option<Box<h1::ClientConn>> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(&address)?.pop()?;
        (kept.since.elapsed() < self.idle_timeout).then_some(kept.conn)
    }

    /// Closes connections that have been idle too long; called now and then by the worker.
    pub fn expire(&self) {
        let now = Instant::now();
        let mut idle = self.idle.borrow_mut();
        for kept in idle.values_mut() {
            kept.retain(|kept| kept.since + self.idle_timeout >= now);
        }
        idle.retain(|_, kept| !kept.is_empty());
        self.h2.borrow_mut().retain(|_, conn| !conn.is_closed());
    }
}

/// An app that binds loopback only is found there: `ip:port` first, then `127.0.0.1:port`.
fn loopback_of(address: SocketAddr) -> Option<SocketAddr> {
    let loopback = match address.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    (address.ip() != loopback).then(|| SocketAddr::new(loopback, address.port()))
}

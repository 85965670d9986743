//! Listeners of one worker, and the loops that take connections from there to the request path.

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tracing::{info, warn};
use weft_transport::quic::Server;

use crate::descriptors;
use crate::inbound;
use crate::outbound;
use crate::telemetry::throttle;
use crate::worker::Worker;

/// How long a connection may wait for a proxy that is starting.
const START: Duration = Duration::from_secs(1);

/// The sockets of one worker, bound before it starts: a conflict is known at once.
pub struct Sockets {
    pub explicit: Option<std::net::TcpListener>,
    pub outbound: Option<std::net::TcpListener>,
    pub inbound: Option<std::net::TcpListener>,
    pub mesh: std::net::UdpSocket,
    /// For dialling peers.
    pub dial: std::net::UdpSocket,
}

/// Takes TCP connections and hands each to `serve`, bounded by the limit of open connections.
pub async fn accept<F, Fut>(worker: Rc<Worker>, listener: TcpListener, serve: F)
where
    F: Fn(Rc<Worker>, TcpStream, SocketAddr) -> Fut,
    Fut: Future<Output = ()> + 'static,
{
    let limit = descriptors::app_connections(&worker.shared.config);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if worker.shared.app_connections.value() >= limit {
                    worker.ledger.counters.connections_refused.increment(1);
                    continue;
                }
                let _ = stream.set_nodelay(true);
                tokio::task::spawn_local(serve(Rc::clone(&worker), stream, peer));
            }
            Err(error) => {
                if throttle::ACCEPT.first() {
                    warn!(%error, "cannot accept an application connection");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// A connection that capture redirected. Nothing is known of its destination before there is a configuration: it is
/// refused then, never passed on in the clear.
async fn captured(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    if worker.snapshot().is_none() {
        worker.ledger.counters.connections_refused.increment(1);
        return refuse(&stream);
    }
    outbound::connection::captured(worker, stream, peer).await;
}

/// A reset says so at once.
fn refuse(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// Refuses captured connections while there is nobody to serve them: an app is told so, instead of waiting in a queue
/// that nobody looks at. A start that takes no longer than [`START`] refuses nobody.
pub fn refuse_for_now(sockets: &[Sockets]) -> std::io::Result<AbortHandle> {
    let mut refusing = JoinSet::new();
    for listener in sockets.iter().flat_map(|sockets| [&sockets.outbound, &sockets.inbound]).flatten() {
        let listener = TcpListener::from_std(listener.try_clone()?)?;
        refusing.spawn(async move {
            tokio::time::sleep(START).await;
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => refuse(&stream),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
    }
    Ok(tokio::spawn(async move { while refusing.join_next().await.is_some() {} }).abort_handle())
}

/// Takes mesh connections.
pub async fn accept_mesh(worker: Rc<Worker>, server: Rc<Server>) {
    let crew = Rc::default();
    while let Some(handshake) = server.accept().await {
        tokio::task::spawn_local(inbound::connection::run(Rc::clone(&worker), Rc::clone(&crew), handshake));
    }
}

/// Starts all loops of a worker.
pub fn start(worker: &Rc<Worker>, sockets: TcpSockets, mesh: Server) -> std::io::Result<Rc<Server>> {
    if let Some(listener) = sockets.explicit {
        let listener = TcpListener::from_std(listener)?;
        tokio::task::spawn_local(accept(Rc::clone(worker), listener, outbound::connection::explicit));
    }
    if let Some(listener) = sockets.outbound {
        let listener = TcpListener::from_std(listener)?;
        tokio::task::spawn_local(accept(Rc::clone(worker), listener, captured));
    }
    if let Some(listener) = sockets.inbound {
        let listener = TcpListener::from_std(listener)?;
        let refuse = |worker: Rc<Worker>, stream, _| async move { inbound::plaintext::refuse(&worker, stream) };
        tokio::task::spawn_local(accept(Rc::clone(worker), listener, refuse));
    }
    let mesh = Rc::new(mesh);
    tokio::task::spawn_local(accept_mesh(Rc::clone(worker), Rc::clone(&mesh)));
    info!(worker = worker.index, "listening");
    Ok(mesh)
}

/// The TCP part of [`Sockets`].
pub struct TcpSockets {
    pub explicit: Option<std::net::TcpListener>,
    pub outbound: Option<std::net::TcpListener>,
    pub inbound: Option<std::net::TcpListener>,
}

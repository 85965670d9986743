//! What one worker listens on, and the loops that take connections from there to the request path.

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tracing::{info, warn};
use weft_transport::quic::Server;

use crate::inbound;
use crate::outbound;
use crate::worker::Worker;

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
    let limit = worker.shared.config.limits.max_connections as u64 * worker.shared.config.worker_count() as u64;
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
                warn!(%error, "cannot accept an application connection");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Takes mesh connections.
pub async fn accept_mesh(worker: Rc<Worker>, server: Rc<Server>) {
    while let Some(handshake) = server.accept().await {
        tokio::task::spawn_local(inbound::connection::run(Rc::clone(&worker), handshake));
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
        tokio::task::spawn_local(accept(Rc::clone(worker), listener, outbound::connection::captured));
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

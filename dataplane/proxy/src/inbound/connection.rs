//! One QUIC connection from a peer's proxy: handshake, then its streams, until it closes or we drain.

use std::net::SocketAddr;
use std::rc::Rc;

use http::Method;
use tracing::{debug, warn};
use weft_transport::h3;
use weft_transport::quic::Handshake;

use super::{Caller, serve, tcp};
use crate::reply::Side;
use crate::worker::Worker;

/// Serves a connection attempt to its end.
pub async fn run(worker: Rc<Worker>, handshake: Handshake) {
    let address: SocketAddr = handshake.remote_address();
    let accepted = match handshake.finish().await {
        Ok(accepted) => accepted,
        Err(error) => {
            let reason = error.reason.as_str();
            worker.shared.handshake(Side::Inbound, Some(reason));
            return warn!(peer = %address, reason, %error, "mesh handshake refused");
        }
    };
    worker.shared.handshake(Side::Inbound, None);
    debug!(peer = %address, identity = %accepted.peer.id, "mesh connection accepted");
    let _open = worker.shared.peer_connections.enter();
    let (server, driver) = h3::accept(accepted.connection, h3::Limits::default());
    tokio::task::spawn_local(driver);
    streams(&worker, Rc::new(Caller::new(accepted.peer.id, address)), &server).await;
}

async fn streams(worker: &Rc<Worker>, caller: Rc<Caller>, server: &h3::Server) {
    let draining = worker.shared.drain.draining();
    tokio::pin!(draining);
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            incoming = server.accept() => match incoming {
                Some(incoming) => {
                    tokio::task::spawn_local(stream(Rc::clone(worker), Rc::clone(&caller), incoming));
                }
                None => break,
            },
            () = &mut draining, if !told => {
                told = true;
                server.goaway();
            }
        }
    }
    server.drained().await;
}

async fn stream(worker: Rc<Worker>, caller: Rc<Caller>, incoming: h3::Incoming) {
    match incoming.head().await {
        Ok((head, receive, send)) if head.method == Method::CONNECT && head.protocol.is_none() => {
            Box::pin(tcp::serve(&worker, &caller, head, (receive, send))).await;
        }
        Ok((head, receive, send)) => Box::pin(serve(&worker, &caller, head, (receive, send))).await,
        Err(error) => {
            worker.shared.counters.malformed.increment(1);
            debug!(peer = %caller.identity, %error, "malformed request from a peer");
        }
    }
}

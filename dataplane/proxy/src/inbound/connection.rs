//! One QUIC connection from a peer's proxy: handshake, then its streams, until it closes or we drain.

use std::net::SocketAddr;
use std::rc::Rc;

use http::Method;
use tracing::{debug, warn};
use weft_transport::h3;
use weft_transport::quic::Handshake;

use super::{Caller, serve, tcp};
use crate::config::Limits;
use crate::reply::Side;
use crate::telemetry::{counters, throttle};
use crate::worker::Worker;

/// Serves a connection attempt to its end.
pub async fn run(worker: Rc<Worker>, handshake: Handshake) {
    let address: SocketAddr = handshake.remote_address();
    let accepted = match handshake.finish().await {
        Ok(accepted) => accepted,
        Err(error) => {
            let reason = error.reason.as_str();
            counters::handshake(Side::Inbound, Some(reason));
            if throttle::HANDSHAKE.first() {
                warn!(peer = %address, reason, %error, "mesh handshake refused");
            }
            return;
        }
    };
    counters::handshake(Side::Inbound, None);
    debug!(peer = %address, identity = %accepted.peer.id, "mesh connection accepted");
    let (_open, _place) = (worker.shared.peer_connections.enter(), accepted.place);
    let (server, driver) = h3::accept(accepted.connection, limits(&worker.shared.config.limits));
    tokio::task::spawn_local(driver);
    let caller = Rc::new(Caller::new(accepted.peer.id, address));
    streams(&worker, Rc::clone(&caller), &server).await;
    if let Some(violation) = server.violation() {
        counters::violation(&violation);
        let (identity, code) = (&caller.identity, h3::Code::name(violation.code));
        if throttle::VIOLATION.first() {
            warn!(peer = %address, %identity, code, reason = violation.reason, "mesh connection closed: its peer broke the rules");
        }
    }
}

/// All requests that a peer may have open may time out together, once a second.
fn limits(limits: &Limits) -> h3::Limits {
    let streams = limits.max_streams_per_connection;
    let of_peers = limits.http().between_proxies().h3();
    h3::Limits { cancels: streams.saturating_mul(2), cancels_per_second: streams, ..of_peers }
}

async fn streams(worker: &Rc<Worker>, caller: Rc<Caller>, server: &h3::Server) {
    let draining = worker.shared.drain.draining();
    tokio::pin!(draining);
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            incoming = server.accept() => match incoming {
                Some(mut incoming) => {
                    let (worker, caller) = (Rc::clone(worker), Rc::clone(&caller));
                    tokio::task::spawn_local(async move { stream(&worker, &caller, &mut incoming).await });
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

async fn stream(worker: &Rc<Worker>, caller: &Caller, incoming: &mut h3::Incoming) {
    match incoming.head().await {
        Ok(head) if head.method == Method::CONNECT && head.protocol.is_none() => {
            Box::pin(tcp::serve(worker, caller, head, incoming.streams())).await;
        }
        Ok(head) => serve(worker, caller, head, incoming.streams()).await,
        Err(error) => {
            worker.ledger.counters.malformed.increment(1);
            debug!(peer = %caller.identity, %error, "malformed request from a peer");
        }
    }
}

//! One QUIC connection from a peer's proxy: handshake, then its streams, until it closes or we drain.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use http::{Method, Version};
use tracing::{debug, warn};
use weft_transport::http::{Refusal, Refused};
use weft_transport::mesh::{MeshLimits, MeshRequest, MeshServer};
use weft_transport::quic::Handshake;

use super::{Caller, serve, tcp};
use crate::call::Request;
use crate::crew::{Crew, Job};
use crate::reply::Side;
use crate::telemetry::{counters, throttle};
use crate::worker::Worker;

/// Serves a connection attempt to its end. `crew`: serves the streams of all of them.
pub async fn run(worker: Rc<Worker>, crew: Rc<Crew<PeerStream>>, handshake: Handshake) {
    let address: SocketAddr = handshake.remote_address();
    let accepted = match handshake.finish().await {
        Ok(accepted) => accepted,
        Err(error) => {
            let reason = error.reason.as_str();
            counters::handshake(Some(reason));
            if throttle::HANDSHAKE.first_of(reason) {
                warn!(peer = %address, reason, %error, "mesh handshake refused");
            }
            return;
        }
    };
    counters::handshake(None);
    debug!(peer = %address, identity = %accepted.peer.id, "mesh connection accepted");
    let _open = worker.shared.peer_connections.enter();
    let limits = &worker.shared.config.limits;
    let most_pairs = limits.metric_pairs_per_connection;
    let limits = MeshLimits { concurrent_requests: limits.max_streams_per_connection, http: limits.http() };
    let (server, driver) = MeshServer::new(accepted, &limits);
    tokio::task::spawn_local(driver);
    let caller = Rc::new(Caller::new(server.peer().clone(), address, server.served().clone(), most_pairs));
    streams(&worker, &crew, Rc::clone(&caller), &server).await;
    if let Some(breach) = server.breach() {
        counters::breach(&breach);
        let refused = Refused::reset(Refusal::Connection, breach.reason);
        let (from, identity, snapshot) = ((Side::Inbound, address), Some(&caller.identity), worker.snapshot());
        worker.ledger.refused(from, identity, Version::HTTP_3, &refused, snapshot.as_ref());
        let (identity, code) = (&caller.identity, breach.code);
        if throttle::VIOLATION.first() {
            warn!(peer = %address, %identity, code, reason = breach.reason, "mesh connection closed: its peer broke the rules");
        }
    }
}

async fn streams(worker: &Rc<Worker>, crew: &Rc<Crew<PeerStream>>, caller: Rc<Caller>, server: &MeshServer) {
    let mut draining = pin!(worker.draining.cancelled());
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            incoming = server.accept() => match incoming {
                Some(incoming) => {
                    let (worker, caller) = (Rc::clone(worker), Rc::clone(&caller));
                    crew.hand(PeerStream { worker, caller, incoming });
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

/// One stream of a peer's connection.
pub struct PeerStream {
    worker: Rc<Worker>,
    caller: Rc<Caller>,
    incoming: MeshRequest,
}

impl Job for PeerStream {
    async fn run(mut self) {
        stream(&self.worker, &self.caller, &mut self.incoming).await;
    }
}

async fn stream(worker: &Rc<Worker>, caller: &Caller, incoming: &mut MeshRequest) {
    let head = match incoming.head().await {
        Ok(head) => head,
        Err(error) => {
            debug!(peer = %caller.identity, %error, "no request from a peer");
            if let Some(refused) = incoming.refused() {
                let (from, snapshot) = ((Side::Inbound, caller.address), worker.snapshot());
                let identity = Some(&caller.identity);
                worker.ledger.refused(from, identity, Version::HTTP_3, &refused, snapshot.as_ref());
            }
            return;
        }
    };
    if head.method == Method::CONNECT && head.protocol.is_none() {
        return Box::pin(tcp::serve(worker, caller, head, incoming.exchange())).await;
    }
    let replay = worker.shared.config.limits.replay_buffer_bytes;
    serve(worker, caller, &mut Request::read(head, incoming.exchange(), replay)).await;
}

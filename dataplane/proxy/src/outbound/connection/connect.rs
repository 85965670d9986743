//! CONNECT on the explicit proxy. It is answered once its far end is known: opened, where bytes are carried as they are;
//! reachable, where the bytes first have to tell what they are.

use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::net::TcpStream;
use weft_policy::bundle::{ExternalProtocol, Protocol, RouteKind};
use weft_policy::route::{Hello, Resolved};
use weft_transport::http::ResponseHead;

use super::super::attempts::Attempts;
use super::super::patience::Patience;
use super::super::routing::Way;
use super::super::{Origin, Target, routing, tcp};
use super::{payload, refuse};
use crate::call::Request;
use crate::record::connection::ConnectionRecord;
use crate::relay::{self, ClientGone, TunnelEnd};
use crate::reply::{Failure, Side};
use crate::snapshot::{Served, Snapshot};
use crate::worker::Worker;

/// Target of an accepted CONNECT, and its far end if that was opened.
pub(super) struct Accepted<'w> {
    target: Target,
    /// The far end that was opened for it, with the account of the connection; `None`: its bytes tell first.
    opened: Option<(tcp::Far<'w>, ConnectionRecord)>,
}

/// Answers a CONNECT: 200 where its far end is there, else why not.
pub(super) async fn accept<'w>(
    worker: &'w Rc<Worker>,
    origin: &Origin,
    request: &mut Request<'_>,
) -> Option<Accepted<'w>> {
    let _in_flight = worker.in_flight.enter();
    let target = request.head.authority.as_ref().and_then(Target::of_connect);
    let opened = match target {
        _ if origin.target.is_some() => {
            Err(Failure::ConnectRefused("a connection that already has a destination".to_owned()))
        }
        None => Err(Failure::BadRequest("CONNECT needs host:port".into())),
        Some(target) => {
            let opened = {
                let opening = pin!(open(worker, origin, &target));
                relay::unless_gone(opening, request.responder.as_mut()).await
            };
            let opened = opened.unwrap_or_else(|ClientGone| Err(Failure::ClientGone));
            opened.map(|opened| Accepted { target, opened })
        }
    };
    let mut accepted = match opened {
        Ok(accepted) => accepted,
        Err(failure) => {
            refuse(worker, origin, request, &failure).await;
            return None;
        }
    };
    let head = ResponseHead { status: StatusCode::OK, headers: HeaderMap::new() };
    let answered = match request.responder.take()?.head(&head, false).await {
        Ok(mut sink) => sink.flush().await,
        Err(error) => Err(error),
    };
    if answered.is_ok() {
        return Some(accepted);
    }
    if let Some((_, mut record)) = accepted.opened.take() {
        record.ended(TunnelEnd::ClientLost);
        record.close(&worker.ledger, worker.snapshot().as_ref());
    }
    None
}

async fn open<'w>(
    worker: &'w Rc<Worker>,
    origin: &Origin,
    target: &Target,
) -> Result<Option<(tcp::Far<'w>, ConnectionRecord)>, Failure> {
    let mut snapshot = worker.snapshot().ok_or(Failure::NotReady)?;
    let mut patience = Patience::default();
    let resolved = loop {
        let from = origin.workload(&snapshot)?;
        match routing::resolve_target(&snapshot, &worker.shared.hosts, from, target) {
            Ok(resolved) => break resolved,
            Err(failure) => snapshot = Box::pin(patience.learn(worker, &snapshot, failure)).await?,
        }
    };
    let from = origin.workload(&snapshot)?;
    match resolved {
        Way::Mesh(to) => {
            let is_of_bytes = matches!(to.protocol(), Protocol::Tcp | Protocol::Udp);
            match routing::stream_kind(&snapshot, from, &to) {
                None if is_of_bytes => {}
                // Each request inside goes where its rule leads: the service itself may have no endpoints.
                None if snapshot.routes.leads_requests(&to, &from.workload.name.namespace) => return Ok(None),
                None => return reach(worker, &snapshot, from, &to).await.map(|()| None),
                // A route leads elsewhere, and which it is the first bytes tell.
                Some(kind) if kind == RouteKind::Tls || !is_of_bytes => return Ok(None),
                Some(_) => {}
            }
        }
        // Each request inside is dialled for on its own, and TLS by what it begins with.
        Way::External(way) if way.port.protocol != ExternalProtocol::Tcp => return Ok(None),
        Way::External(_) | Way::Outside => {}
    }
    let mut record = ConnectionRecord::open(Side::Outbound, origin.peer, target.to_string());
    // One that fails is told and counted as the request that asked for it.
    tcp::open(worker, origin, target, Hello::Other, &mut record).await.map(|far| Some((far, record)))
}

/// Makes sure that an endpoint can be connected to.
async fn reach(worker: &Rc<Worker>, snapshot: &Snapshot, from: &Served, to: &Resolved<'_>) -> Result<(), Failure> {
    let goal = routing::goal(to)?;
    let mut attempts = Attempts::to_reach(worker, snapshot, from, goal);
    loop {
        let attempt = attempts.pick()?;
        let Some(peer) = attempt.destination.peer() else { return Ok(()) };
        match attempt.reach(peer).await {
            Ok(()) => return Ok(()),
            Err(failure) => attempts.failed(attempt, failure)?,
        }
    }
}

impl Accepted<'_> {
    /// Carries what flows inside.
    pub(super) async fn serve(self, worker: &Rc<Worker>, stream: TcpStream, prefix: Bytes, origin: Origin) {
        match self.opened {
            None => payload(worker, stream, prefix, Origin { target: Some(self.target), ..origin }).await,
            Some((far, record)) => {
                let _in_flight = worker.in_flight.enter();
                Box::pin(tcp::carry(worker, stream, &prefix, far, record)).await;
            }
        }
    }
}

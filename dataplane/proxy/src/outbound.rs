//! The way out: a request from a local application to its destination. Reads top to bottom: where to, what the filters
//! say, which route, which endpoint, carry. Retries only what was provably not processed, within the budget.

mod affinity;
mod attempts;
pub mod connection;
mod mirror;
mod origin;
mod outlier;
pub mod passthrough;
mod patience;
mod peer_leg;
mod probe;
mod routing;
pub mod tcp;

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use http::Method;
use weft_filter_host::Permit;
use weft_policy::bundle::ObjectName;
use weft_transport::http::Forwards;

use self::attempts::{Attempt, Attempts};
use self::mirror::Mirrors;
pub use self::origin::{Origin, Target};
use self::patience::Patience;
use crate::call::{Call, Failed, Request};
use crate::filtering::{self, Filtered};
use crate::gate::{Gate, Place};
use crate::mesh::{self, Stamp};
use crate::record::Record;
use crate::relay::{self, ClientGone};
use crate::reply::{Failure, Side};
use crate::snapshot::{Current, Served};
use crate::sockets::PlainSocket;
use crate::worker::Worker;

/// Serves one request of a local application. Always answers, always counts.
pub async fn serve(worker: &Rc<Worker>, origin: &Origin, request: &mut Request<'_>) {
    let _in_flight = worker.in_flight.enter();
    let snapshot = worker.snapshot();
    let access_log = snapshot.as_ref().is_some_and(|snapshot| snapshot.mesh.access_log);
    let mut record = Record::open(Side::Outbound, origin.peer, &request.head, access_log);
    let result = match snapshot {
        Some(snapshot) => carry(worker, snapshot, origin, request, &mut record).await,
        None => Err(Failure::NotReady),
    };
    if let Err(failure) = result {
        Box::pin(record.reply(&failure, &mut request.responder, worker.idle())).await;
    }
    record.close(&worker.ledger, worker.snapshot().as_ref());
}

async fn carry(
    worker: &Rc<Worker>,
    mut snapshot: Current,
    origin: &Origin,
    request: &mut Request<'_>,
    record: &mut Record,
) -> Result<(), Failure> {
    let mut from = snapshot.hold(origin.workload(&snapshot)?);
    record.log(|log| log.source = Some(from.workload.identity.to_string()));
    mesh::strip(&mut request.head.headers);
    if worker.shared.via.is_loop(&request.head) {
        return Err(Failure::Loop);
    }
    if request.head.count_forward() == Forwards::Exhausted {
        return Err(if request.head.method == Method::TRACE { Failure::NoTrace } else { Failure::LastHop });
    }
    let mut patience = Patience::default();
    let resolved = loop {
        match routing::resolve(&snapshot, &worker.shared.hosts, &from, origin, &request.head) {
            Ok(resolved) => break resolved,
            Err(failure) => snapshot = Box::pin(patience.learn(worker, &snapshot, failure)).await?,
        }
        // The request goes on by the configuration that knows where it goes.
        from = snapshot.hold(origin.workload(&snapshot)?);
    };
    origin.name_host(&mut request.head);
    let Some(resolved) = resolved else {
        return Box::pin(passthrough::request(worker, snapshot, &from, origin, request, record)).await;
    };
    resolved.protocol().takes_requests(resolved.port).map_err(Failure::RequestForbidden)?;
    let _using = worker.uses.begin(&snapshot, resolved.service);
    let place = filtering::Place::outbound(origin.peer.ip(), resolved.port, &from);
    let Request { head, body, responder } = request;
    let (mut filtered, permit) =
        filtering::request(&worker.filters, &from.outbound, &place, head, responder.as_mut()).await?;
    let (attempts, timeout, mirrors) = {
        let plan = routing::route(&snapshot, &from, &resolved, (head, filtered.path()), worker.dice())?;
        plan.modify(head);
        filtered.edit_answer(plan.answer_edits());
        record.log(|log| log.route = plan.route.map(|route| route.name.to_string()));
        let mirrors = Mirrors::of(worker, &snapshot, &from, (plan.decided(), head), &permit);
        (Attempts::new(worker, &snapshot, &from, plan.goal, Some(&head.headers)), plan.timeout, mirrors)
    };
    // The request may stand for long: it keeps its workload, and nothing else of the configuration.
    drop(snapshot);
    let mut call = Call { head, body, responder, record, holder: &origin.holder() };
    // An upgraded request stands for as long as both sides like.
    let limit = timeout.filter(|_| call.head.protocol.is_none());
    let attempts = attempts.within(limit);
    let sending = send(worker, &from, (attempts, mirrors), permit, &mut filtered, &mut call);
    let sent = within(limit, pin!(sending)).await;
    filtered.moved(record.sent.bytes.get(), record.received.bytes.get());
    sent
}

async fn within<F>(limit: Option<Duration>, sending: Pin<&mut F>) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let Some(limit) = limit else { return sending.await };
    let late = |_| Err(Failure::Timeout(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)));
    tokio::time::timeout(limit, sending).await.unwrap_or_else(late)
}

/// Sends the request to an endpoint; to another where the first provably did not process it.
async fn send(
    worker: &Rc<Worker>,
    from: &Served,
    (mut attempts, mut mirrors): (Attempts<'_>, Mirrors),
    mut permit: Permit,
    filtered: &mut Filtered<'_>,
    call: &mut Call<'_, '_>,
) -> Result<(), Failure> {
    call.record.metrics = Some(attempts.unreached());
    // Held until the last byte of the answer.
    let _place = match attempts.gate() {
        Some((gate, service)) => Some(Box::pin(pass(&gate, service, call)).await?),
        None => None,
    };
    loop {
        let attempt = attempts.pick()?;
        mirrors.start(worker, from, call);
        call.record.metrics = Some(Rc::clone(&attempt.destination.metrics));
        match exchange(worker, &attempt, from, permit, filtered, call).await {
            Ok(()) => {
                // A client that left before the head says nothing of the endpoint.
                if let Some((status, at)) = call.record.answer.get() {
                    attempt.answered(Some(status), Some(at));
                }
                return Ok(());
            }
            Err(Failed::Unprocessed(failure, again)) if call.rewind() => {
                attempts.failed(attempt, failure)?;
                permit = again;
            }
            Err(failed) => return Err(attempt.ended(failed.failure())),
        }
    }
}

/// Waits for a place at a destination that takes so many requests, as long as the client does.
async fn pass(gate: &Gate, service: &ObjectName, call: &mut Call<'_, '_>) -> Result<Place, Failure> {
    match relay::unless_gone(pin!(gate.enter()), call.responder.as_mut()).await {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(full)) => Err(Failure::DestinationFull { service: service.to_string(), full }),
        Err(ClientGone) => Err(Failure::ClientGone),
    }
}

/// One attempt at one endpoint. No attempt changes the head: what is said to one endpoint goes beside it.
async fn exchange(
    worker: &Rc<Worker>,
    attempt: &Attempt<'_>,
    from: &Served,
    permit: Permit,
    filtered: &mut Filtered<'_>,
    call: &mut Call<'_, '_>,
) -> Result<(), Failed> {
    let destination = &attempt.destination;
    let socket = destination.socket(attempt.port);
    call.record.log(|log| {
        log.upstream = socket.to_str().ok().map(str::to_owned);
        log.destination = None;
    });
    if let Some(peer) = destination.peer() {
        let connected = attempt.connect(peer, permit).await;
        let client = connected.map_err(|(failure, permit)| Failed::Unprocessed(failure, permit))?;
        // Proved by TLS just now.
        call.record.log(|log| log.destination = Some(peer.destination().to_string()));
        let stamp = Stamp::new(call.head, &socket, &from.source);
        return client.carry(&stamp.added(), worker.idle(), filtered, call).await;
    }
    let address = std::net::SocketAddr::new(destination.endpoint.address, attempt.port);
    let outside = match worker.shared.guard.outside(address, address.ip()) {
        Ok(outside) => PlainSocket::Outside(outside),
        Err(failure) => return Err(Failed::Final(failure)),
    };
    let (leg, version) = (worker.app_leg(attempt.connect_timeout), call.head.version);
    Box::pin(leg.carry(&[outside], version, permit, filtered, call)).await.inspect(|()| attempt.reached())
}

//! The way out: a request from a local application to its destination. Reads top to bottom: where to, what the filters
//! say, which route, which endpoint, carry. Sends again what was provably not processed, and what rules ask for, within the
//! budget.

mod affinity;
mod attempts;
mod callout;
pub mod checking;
pub mod connection;
mod external;
mod fields;
mod hedging;
mod holds;
mod mirror;
mod origin;
mod outlier;
pub mod passthrough;
mod patience;
mod peer_leg;
mod probe;
mod repeating;
mod routing;
mod session;
pub mod tcp;

use std::cell::{Cell, OnceCell};
use std::convert::identity;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::time::Duration;

use http::{Method, Version};
use weft_filter_host::Permit;
use weft_policy::bundle::{ObjectName, RouteName};
use weft_transport::http::{Forwards, RequestHead};

use self::attempts::{Attempt, Attempts};
use self::mirror::Mirrors;
pub use self::origin::{Origin, Target};
use self::patience::Patience;
use self::routing::Way;
use crate::call::{Call, Failed, Request};
use crate::deadline::{Said, Until};
use crate::filtering::{self, Filtered, Rest};
use crate::gate::{Gate, Place, Wait};
use crate::life;
use crate::mesh;
use crate::record::Record;
use crate::relay::{self, ClientGone};
use crate::reply::{Failure, Side};
use crate::snapshot::{Current, HeldWorkload, Served};
use crate::sockets::PlainSocket;
use crate::trial::{Again, Flow, Trial, within};
use crate::worker::Worker;

/// Has what the filters of this worker ask of services sent from here.
pub fn serve_callouts(worker: &Rc<Worker>) {
    let sender: Weak<Worker> = Rc::downgrade(worker);
    worker.filters.ask_by(sender);
}

/// Serves one request of a local application. Always answers, always counts.
pub async fn serve(worker: &Rc<Worker>, origin: &Origin, request: &mut Request<'_>) {
    let _in_flight = worker.in_flight.enter();
    let snapshot = worker.snapshot();
    let access_log = snapshot.as_ref().is_some_and(|snapshot| snapshot.mesh.access_log);
    let mut record = Record::open(Side::Outbound, origin.peer, &request.head, access_log);
    let held = OnceCell::new();
    let mut filtered = None;
    let result = match snapshot {
        Some(snapshot) => carry(worker, snapshot, origin, request, &mut record, (&held, &mut filtered)).await,
        None => Err(Failure::NotReady),
    };
    if let Err(failure) = result {
        let idle = worker.idle();
        let Request { body, responder, .. } = request;
        match &mut filtered {
            Some(filtered) => Box::pin(record.reply_through(filtered, &failure, (body, responder), idle)).await,
            None => Box::pin(record.reply(&failure, responder, idle)).await,
        }
    }
    if let Some(filtered) = &mut filtered {
        filtered.moved(record.sent.bytes.get(), record.received.bytes.get());
        record.log(|log| log.attributes = filtered.attributes());
    }
    record.close(&worker.ledger, worker.snapshot().as_ref());
}

/// `held` and `filtered` outlive it: the filters see whatever the client is answered.
async fn carry<'h>(
    worker: &'h Rc<Worker>,
    mut snapshot: Current,
    origin: &Origin,
    request: &mut Request<'_>,
    record: &mut Record,
    (held, filtered): (&'h OnceCell<HeldWorkload>, &mut Option<Filtered<'h>>),
) -> Result<(), Failure> {
    let mut from = snapshot.hold(origin.workload(&snapshot)?);
    record.log(|log| log.source = Some(from.workload.identity.to_string()));
    let said = Said::read(&request.head.headers);
    mesh::strip(&mut request.head.headers);
    goes_on(worker, &mut request.head)?;
    let mut patience = Patience::default();
    let way = loop {
        match routing::resolve(&snapshot, &worker.shared.hosts, &from, origin, &request.head) {
            Ok(way) => break way,
            Err(failure) => snapshot = Box::pin(patience.learn(worker, &snapshot, failure)).await?,
        }
        // The request goes on by the configuration that knows where it goes.
        from = snapshot.hold(origin.workload(&snapshot)?);
    };
    let from = held.get_or_init(|| from);
    origin.name_host(&mut request.head);
    let (to, led_out) = match way {
        Way::Mesh(to) => (to, None),
        Way::External(way) => (way.resolved(), Some(way)),
        Way::Outside => {
            let from = (&***from, filtered);
            return Box::pin(passthrough::request(worker, snapshot, from, origin, request, record)).await;
        }
    };
    to.protocol().takes_requests(to.port).map_err(Failure::RequestForbidden)?;
    let _using = (!to.outside).then(|| worker.uses.begin(&snapshot, to.service));
    let Request { head, body, responder } = request;
    let place = filtering::Place::outbound(origin.peer.ip(), to.port, from).speaking(head.version);
    let service = (!to.outside).then_some(&to.service.name);
    let place = filtering::Place { service, path_reading: to.service.path_reading, ..place };
    let filtered = filtered.insert(Filtered::new(&worker.filters, &from.outbound, record.start()));
    let permit = filtered.request(&place, head, Some(Rest { body: &mut *body, client: responder.as_mut() })).await?;
    let (mut attempts, mut mirrors, exit, permit) = {
        let to = (&to, led_out.as_deref());
        let chance = (worker.dice(), life::now as fn() -> u64);
        let plan = routing::route(&snapshot, from, to, (head, filtered.path()), chance)?;
        let rest = Rest { body: &mut *body, client: responder.as_mut() };
        let permit = filtered.take_rule(plan.filters(from)?, permit, place, head, rest).await?;
        plan.modify(head)?;
        filtered.edit_answer(plan.answer_edits());
        record.log(|log| log.route = plan.route.map(|route| RouteName::of(&route.name).place()));
        let mirrors = Mirrors::of(worker, &snapshot, from, (plan.decided(), head), &permit);
        let exit = external::leaving(worker, &snapshot, from, plan.exit(), head)?;
        // An upgraded request stands for as long as both sides like.
        let (limit, each) = if head.protocol.is_none() { plan.timeouts() } else { (None, None) };
        let stream = if head.protocol.is_none() { plan.stream_timeout() } else { None };
        let until = said.take(head, record.start().into()).and(limit, stream);
        let attempts = Attempts::new(worker, &snapshot, from, plan.goal, Some(&head.headers)).within(until);
        let attempts = attempts.each(each, plan.retry(), (&head.method, record.is_grpc()));
        (attempts.in_session(plan.session), mirrors, exit, permit)
    };
    // The request may stand for long: it keeps its workload, and nothing else of the configuration.
    drop(led_out);
    drop(snapshot);
    filtered.look_at_request(body, head);
    let (repeating, holds, bounds) = (attempts.repeating(), attempts.holds(), attempts.until().ends());
    let again = repeating.as_deref().map(|repeating| repeating as &dyn Again);
    let (ends, received, flow) = (Cell::new(bounds), Cell::default(), Flow::default());
    let trial = Trial { again, ends: Some(&ends), begun: Some(&*holds), received: Some(&received), flow: &flow };
    let (bounds, holder) = ((bounds, Some(&flow)), origin.holder());
    let mut call = Call { head, body, responder, record, holder: &holder, trial: Some(&trial) };
    let (tries, alarms) = ((&mut attempts, &mut mirrors), &worker.alarms);
    match &exit {
        None => within(alarms, bounds, pin!(send(worker, from, tries, permit, filtered, &mut call)), identity).await,
        Some(exit) => {
            let exit = (&**exit, &***from, origin.peer.ip());
            let mut sending = Box::pin(external::send(worker, exit, tries, permit, filtered, &mut call));
            within(alarms, bounds, sending.as_mut(), identity).await
        }
    }
}

/// Whether a request may go on from here at all.
///
/// # Errors
/// It came from here before, or its sender lets nobody send it on.
fn goes_on(worker: &Worker, head: &mut RequestHead) -> Result<(), Failure> {
    if worker.shared.via.is_loop(head) {
        return Err(Failure::Loop);
    }
    match head.count_forward() {
        Forwards::Exhausted if head.method == Method::TRACE => Err(Failure::NoTrace),
        Forwards::Exhausted => Err(Failure::LastHop),
        Forwards::Allowed => Ok(()),
    }
}

/// Sends the request to an endpoint; to another where the first provably did not process it.
async fn send(
    worker: &Rc<Worker>,
    from: &Served,
    (attempts, mirrors): (&mut Attempts<'_>, &mut Mirrors),
    mut permit: Permit,
    filtered: &mut Filtered<'_>,
    call: &mut Call<'_, '_>,
) -> Result<(), Failure> {
    call.record.metrics = Some(attempts.unreached());
    enter(attempts, call).await?;
    loop {
        let mut attempt = attempts.pick()?;
        mirrors.start(worker, from, call);
        filtered.in_session(attempts.session_field(&attempt));
        call.record.metrics = Some(Rc::clone(&attempt.destination.metrics));
        let (bounds, alarms) = (attempts.bounds(call.trial), &worker.alarms);
        let ended = if let Some(after) = attempts.hedge_after(&attempt, call) {
            let (of, beside) = ((worker, from), (&*attempts, after));
            let mut racing = Box::pin(hedging::exchange(of, beside, &mut attempt, permit, filtered, call));
            within(alarms, bounds, racing.as_mut(), Failed::Final).await
        } else {
            within(alarms, bounds, pin!(exchange(worker, &attempt, from, permit, filtered, call)), Failed::Final).await
        };
        attempt.was_given(call.body.is_end());
        call.record.log(|log| log.tried(attempts.holds().was_refused()));
        let wait;
        (permit, wait) = match ended {
            Ok(()) => {
                match call.record.answer.get() {
                    // By the clock of its proxy the time of a request is over a moment before it is by this one's.
                    Some(answered) if answered.late && attempt.until.is_nearly_over() => attempt.late(),
                    Some(answered) => attempt.answered(Some((answered.own, call.record.broken)), Some(answered.at)),
                    // A client that left before the head says nothing of the endpoint.
                    None => {}
                }
                return Ok(());
            }
            Err(Failed::Unprocessed(failure, again)) if call.rewind() => {
                let another = attempts.failed(attempt, failure).map(|()| Duration::ZERO);
                (again, another.or_else(|failure| attempts.granted(failure))?)
            }
            Err(Failed::Unfinished(failure, again)) if call.rewind() => (again, attempts.repeat(attempt, failure)?),
            Err(failed) => return Err(attempt.cut(failed.failure(), call.record.answer.get())),
        };
        if !wait.is_zero() {
            Box::pin(pause(wait, call)).await?;
        }
    }
}

/// Waits before a further attempt, as long as the client does.
async fn pause(wait: Duration, call: &mut Call<'_, '_>) -> Result<(), Failure> {
    relay::unless_gone(pin!(tokio::time::sleep(wait)), call.responder.as_mut())
        .await
        .map_err(|ClientGone| Failure::ClientGone)
}

/// Has a request hold its place among those of its destination, where those are counted.
async fn enter(attempts: &mut Attempts<'_>, call: &mut Call<'_, '_>) -> Result<(), Failure> {
    if let Some((gate, service)) = attempts.gate() {
        let mut place = Box::pin(pass((&gate, attempts.wait()), service, call)).await?;
        if call.head.protocol.is_some() {
            place.stands();
        }
        attempts.hold(place);
    }
    Ok(())
}

/// Waits for a place at a destination that takes so many requests, as long as the client does.
async fn pass((gate, wait): (&Gate, Wait), service: &ObjectName, call: &mut Call<'_, '_>) -> Result<Place, Failure> {
    match relay::unless_gone(pin!(gate.enter(wait)), call.responder.as_mut()).await {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(full)) => Err(Failure::DestinationFull { service: service.to_string(), full }),
        Err(ClientGone) => Err(Failure::ClientGone),
    }
}

/// The same for what has no client, and ends by its own time.
async fn pass_alone(gate: &Gate, wait: Wait, service: &ObjectName) -> Result<Place, Failure> {
    let passed = gate.enter(wait).await;
    passed.map_err(|full| Failure::DestinationFull { service: service.to_string(), full })
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
        let stamp = attempt.stamp(call.head, &socket, &from.source);
        return client.carry(&stamp.added(), worker.idle(), filtered, call).await;
    }
    let address = std::net::SocketAddr::new(destination.endpoint.address, attempt.port);
    let outside = match worker.shared.guard.outside(address, address.ip()) {
        Ok(outside) => PlainSocket::Outside(outside),
        Err(failure) => return Err(Failed::Final(failure)),
    };
    let (times, outside) = ((attempt.connect_timeout, &attempt.until), [outside]);
    let to = (&outside[..], call.head.version);
    Box::pin(plainly(worker, times, to, permit, filtered, call)).await.inspect(|()| attempt.reached())
}

/// One attempt at one of several sockets behind which there is no proxy.
async fn plainly(
    worker: &Rc<Worker>,
    (connect_timeout, until): (Duration, &Until),
    (sockets, version): (&[PlainSocket], Version),
    permit: Permit,
    filtered: &mut Filtered<'_>,
    call: &mut Call<'_, '_>,
) -> Result<(), Failed> {
    let leg = worker.app_leg(connect_timeout);
    let told = until.plain_field(tokio::time::Instant::now()).map(|field| {
        let mut head = call.head.clone();
        head.headers.extend([field]);
        head
    });
    let mut call = Call {
        head: told.as_ref().unwrap_or(call.head),
        body: &mut *call.body,
        responder: &mut *call.responder,
        record: &mut *call.record,
        holder: call.holder,
        trial: call.trial,
    };
    Box::pin(leg.carry(sockets, version, permit, filtered, &mut call)).await
}

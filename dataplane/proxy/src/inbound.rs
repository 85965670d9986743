//! The way in: a request from a peer's proxy to the application beside us. Reads top to bottom: who calls, which socket,
//! the path as the app will see it, what the filters say (authorization last), deliver.

mod caller;
pub mod connection;
pub mod plaintext;
mod standing;
pub mod tcp;

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{Either, select};
use http::{Method, Version};
use tokio::time::Instant;
use weft_flow::WHOLE_RETRY;
use weft_policy::bundle::{AppVersion, TunnelRefusal, WorkloadPort};
use weft_transport::http::{RequestHead, StreamError};

pub use self::caller::Caller;
use self::standing::until_denied;
use crate::call::{Call, Failed, Request};
use crate::deadline::Until;
use crate::filtering::{self, Filtered, Place, Rest};
use crate::mesh;
use crate::record::Record;
use crate::reply::{Failure, Side};
use crate::snapshot::{Current, HeldWorkload, Served, ServedSocket, Snapshot};
use crate::sockets::PlainSocket;
use crate::trial::{Flow, Trial, within};
use crate::worker::Worker;

/// Serves one request of a peer. Always answers, always counts.
async fn serve(worker: &Rc<Worker>, caller: &Caller, request: &mut Request<'_>) {
    let _in_flight = worker.in_flight.enter();
    let snapshot = worker.snapshot();
    let access_log = snapshot.as_ref().is_some_and(|snapshot| snapshot.mesh.access_log);
    let mut record = Record::open(Side::Inbound, caller.address, &request.head, access_log);
    let held = OnceCell::new();
    let mut filtered = None;
    let result = match snapshot {
        Some(snapshot) => carry(worker, snapshot, caller, request, &mut record, (&held, &mut filtered)).await,
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
    snapshot: Current,
    caller: &Caller,
    request: &mut Request<'_>,
    record: &mut Record,
    (held, filtered): (&'h OnceCell<HeldWorkload>, &mut Option<Filtered<'h>>),
) -> Result<(), Failure> {
    let Request { head, body, responder } = request;
    // A request for an upgrade is a GET here; a CONNECT that gets this far has a protocol that nobody speaks.
    //= rfc9220#section-3
    if head.method == Method::CONNECT {
        return Err(Failure::NotImplemented("an extended CONNECT for an unknown protocol".into()));
    }
    let said = mesh::take(head);
    record.spoken(said.version);
    let found = destination(&snapshot, caller, said.destination);
    let (address, (served, port, socket)) = found.inspect_err(|_| worker.ledger.counters.misdirected.increment(1))?;
    port.protocol.takes_requests(port.port).map_err(Failure::RequestForbidden)?;
    record.metrics = Some(caller.metrics(&worker.ledger, &snapshot, served, address, &said));
    record.log(|log| {
        log.source = Some(caller.identity.to_string());
        log.destination = Some(served.workload.identity.to_string());
        log.upstream = Some(address.to_string());
        log.mirrored = said.mirrored;
    });
    worker.ledger.counters.mirrored_served.increment(said.mirrored.into());
    head.headers.insert(mesh::X_FORWARDED_CLIENT_CERT, caller.client_cert(&served.workload.identity));
    // The request may stand for long: it keeps its workload, and nothing else of the configuration.
    let (judged_by, connect_timeout) = (snapshot.admits, snapshot.connect_timeout());
    let served = held.get_or_init(|| snapshot.hold(served));
    let place = caller.place(address, (served, port)).speaking(said.version);
    let (place, app_speaks) = (Place { may_ask: !said.is_callout, ..place }, port.app_version);
    drop(snapshot);
    let filtered = filtered.insert(Filtered::new(&worker.filters, &served.inbound, record.start()));
    let permit = filtered.request(&place, head, Some(Rest { body: &mut *body, client: responder.as_mut() })).await?;
    let now = count(worker, caller, &said);
    filtered.look_at_request(body, head);
    let (until, head) = (tell(said.deadline.take(head, record.start().into()), head, now)?, &*head);
    let version = app_version(app_speaks, said.version, head.protocol.is_some());
    // After an upgrade nobody judges what the client sends, and an app may take it for requests all the same.
    if head.protocol.as_ref().is_some_and(|protocol| !protocol.is_websocket()) {
        body.forbid_forgery();
    }
    let (flow, bounds, stream) = (Flow::default(), until.ends_behind(), filtered.stream());
    let trial = bounds.are_some().then(|| Trial::of(&flow));
    let mut call = Call { head, body, responder, record, holder: &caller.holder, trial: trial.as_ref() };
    let (leg, socket) = (worker.app_leg(connect_timeout), [PlainSocket::Served(socket)]);
    let ended = {
        // A request may stand for longer than the configuration that let it pass. Authorization judged the head that the
        // filters before it left, and judges that again.
        let denied = until_denied(worker, judged_by, async |latest: &Snapshot| {
            let takes_requests = |port: &WorkloadPort| port.protocol.takes_requests(port.port);
            let found = served_socket(latest, caller, address).and_then(|(served_now, port, _)| {
                takes_requests(port).map(|()| (served_now, port)).map_err(Failure::RequestForbidden)
            });
            let (served_now, port) = match found {
                Ok(found) => found,
                Err(gone) if head.protocol.is_some() => {
                    worker.ledger.counters.misdirected.increment(1);
                    return Err(gone);
                }
                // The port left the configuration: what is under way there is finished, since nobody denied it.
                Err(_) => return Ok(()),
            };
            let place_now = caller.place(address, (served_now, port)).speaking(said.version);
            let place_now = Place { may_ask: place.may_ask, ..place_now };
            if place_now.path_reading == place.path_reading && served.inbound.authorizes_as(&served_now.inbound) {
                return Ok(());
            }
            let chain = served_now.inbound.authorization();
            filtering::again(&worker.filters, (&chain, stream), &place_now, head.clone()).await
        });
        // Dropping it cancels what the app does: nobody waits for longer than the caller.
        let carried = pin!(leg.carry(&socket, version, permit, filtered, &mut call));
        match select(pin!(within(&worker.alarms, (bounds, Some(&flow)), carried, Failed::Final)), pin!(denied)).await {
            Either::Left((carried, _)) => carried,
            Either::Right((denied, _)) => Err(Failed::Final(denied)),
        }
    };
    if call.body.is_forged() {
        return Err(Failure::TunnelForbidden(TunnelRefusal::Upgraded));
    }
    ended.map_err(unserved)
}

/// Counts a request that the filters let pass, by what its caller's proxy says of earlier attempts. Gives the moment of that.
fn count(worker: &Worker, caller: &Caller, said: &mesh::Said) -> Instant {
    let now = Instant::now();
    worker.ledger.counters.retries_received.increment((said.retried == WHOLE_RETRY).into());
    worker.shared.budgets.arrived(&caller.claims, worker.time_of(now.into_std()), said.retried);
    now
}

/// Tells the app what is left of the request's time.
fn tell(until: Until, head: &mut RequestHead, now: Instant) -> Result<Until, Failure> {
    until.check(now)?;
    head.headers.extend(until.fields(now));
    Ok(until)
}

/// A request that this app provably has not seen, and another may: the caller's proxy may send it to another endpoint.
fn unserved(failed: Failed) -> Failure {
    let is_untouched = matches!(failed, Failed::Unprocessed(..));
    let failure = failed.failure();
    let elsewhere = matches!(
        failure,
        Failure::AppConnect { .. }
            | Failure::AppSaturated { .. }
            | Failure::ConnectionsUsedUp { .. }
            | Failure::Unprocessed { .. }
            // It ended its connection before it said what it speaks: a listener that is going down does so.
            | Failure::NoAnswer { error: StreamError::ConnectionLost(_), .. }
    );
    if is_untouched && elsewhere { Failure::Unserved(Box::new(failure)) } else { failure }
}

/// Where a request says that it is for, and who is served there.
fn destination<'s>(
    snapshot: &'s Snapshot,
    caller: &Caller,
    said: Option<SocketAddr>,
) -> Result<(SocketAddr, (&'s Served, &'s WorkloadPort, ServedSocket)), Failure> {
    let address = said.ok_or_else(|| Failure::NotServed("a request without one weft-dst".to_owned()))?;
    Ok((address, served_socket(snapshot, caller, address)?))
}

/// The served workload and port behind `address`. Anything else is refused: a peer must not use us to reach what we can
/// reach and it cannot (confused deputy), nor a connection to one workload to reach another.
fn served_socket<'s>(
    snapshot: &'s Snapshot,
    caller: &Caller,
    address: SocketAddr,
) -> Result<(&'s Served, &'s WorkloadPort, ServedSocket), Failure> {
    let found = snapshot.served_socket(address);
    let found = found.filter(|(served, ..)| served.workload.identity == caller.served);
    found.ok_or_else(|| Failure::NotServed(address.to_string()))
}

/// The version to speak to the app: the one its caller's app spoke, unless the port declares one. An upgrade is asked for in
/// HTTP/1.1, which every app that upgrades speaks, unless the port is declared HTTP/2 only.
fn app_version(declared: AppVersion, said: Version, upgrade: bool) -> Version {
    match (declared, said) {
        (AppVersion::Http2, _) => Version::HTTP_2,
        (AppVersion::AsCaller, Version::HTTP_2) if !upgrade => Version::HTTP_2,
        (_, Version::HTTP_10) => Version::HTTP_10,
        (AppVersion::Http1 | AppVersion::AsCaller, _) => Version::HTTP_11,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::filtering::normal_path;

    fn check(path: &str, expect: &str) {
        let head = RequestHead {
            method: Method::GET,
            authority: None,
            path: Some(path.parse().unwrap()),
            protocol: None,
            headers: HeaderMap::new(),
            version: Version::HTTP_11,
        };
        let seen = match normal_path(&head) {
            Ok(path) => path.map(|path| path.to_string()).unwrap_or_default(),
            Err(failure) => failure.verdict().status.as_u16().to_string(),
        };
        assert_eq!(seen, expect, "{path}");
    }

    #[test]
    fn the_app_is_sent_the_path_that_was_judged() {
        check("/a/b?x=%2f", "/a/b?x=%2f");
        check("/app/%2E./admin?q=1", "/admin?q=1");
        check("//a///b", "//a///b");
        check("/a%2fb", "/a%2Fb");
        check("/%c0%af", "400");
    }

    #[test]
    fn apps_are_spoken_to_as_their_callers_speak() {
        assert_eq!(app_version(AppVersion::Http2, Version::HTTP_11, false), Version::HTTP_2);
        assert_eq!(app_version(AppVersion::Http1, Version::HTTP_10, false), Version::HTTP_10);
        assert_eq!(app_version(AppVersion::Http1, Version::HTTP_2, false), Version::HTTP_11);
        assert_eq!(app_version(AppVersion::AsCaller, Version::HTTP_2, false), Version::HTTP_2);
        assert_eq!(app_version(AppVersion::AsCaller, Version::HTTP_11, false), Version::HTTP_11);
        assert_eq!(app_version(AppVersion::AsCaller, Version::HTTP_10, false), Version::HTTP_10);
        assert_eq!(app_version(AppVersion::AsCaller, Version::HTTP_2, true), Version::HTTP_11);
        assert_eq!(app_version(AppVersion::Http2, Version::HTTP_11, true), Version::HTTP_2);
    }
}

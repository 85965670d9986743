//! Destinations outside the mesh: carried on as they are, in the clear or in the app's own TLS, counted and logged; those that
//! an ExternalService names as it says (`external`). The addresses that are dialled are the ones that the guard looked at, after
//! the name was resolved.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use http::Version;
use weft_transport::http::RequestHead;
use weft_transport::tls::OutsideStream;

use super::external::Exit;
use super::patience::Patience;
use super::routing::Way;
use super::{Origin, Target, routing};
use crate::apps::Share;
use crate::call::{Call, Failed, Request};
use crate::filtering::{self, Filtered, Place, Rest};
use crate::record::Record;
use crate::reply::{Failure, NotOutside};
use crate::snapshot::{Current, Served, Snapshot};
use crate::sockets::{OutsideSocket, PlainSocket};
use crate::telemetry::counters::Limited;
use crate::worker::Worker;

/// Sends a request to a host that is no service, and that no ExternalService names. `filtered` outlives it.
pub(super) async fn request<'h>(
    worker: &'h Rc<Worker>,
    snapshot: Current,
    (from, filtered): (&'h Served, &mut Option<Filtered<'h>>),
    origin: &Origin,
    request: &mut Request<'_>,
    record: &mut Record,
) -> Result<(), Failure> {
    worker.ledger.counters.passthrough.increment(1);
    let (client, connect_timeout) = (origin.peer.ip(), snapshot.connect_timeout());
    let target = match &origin.target {
        Some(target) => target.clone(),
        None => target_of(&request.head)?,
    };
    record.log(|log| log.upstream = Some(target.to_string()));
    let sockets = look_up(worker, connect_timeout, from, &target, client).await?;
    // As in the mesh: a request that stands keeps nothing of the configuration.
    drop(snapshot);
    let Request { head, body, responder } = request;
    let place = Place::outbound(client, target.port(), from).speaking(head.version);
    let filtered = filtered.insert(Filtered::new(&worker.filters, &from.outbound, record.start()));
    let permit = filtered.request(&place, head, Some(Rest { body: &mut *body, client: responder.as_mut() })).await?;
    filtered.look_at_request(body, head);
    worker.shared.via.enter(head);
    let multiplexed = head.version == Version::HTTP_2 && head.protocol.is_none();
    let version = if multiplexed { Version::HTTP_2 } else { Version::HTTP_11 };
    let mut call = Call { head, body, responder, record, holder: &origin.holder(), trial: None };
    let carried = worker.app_leg(connect_timeout).carry(&sockets, version, permit, filtered, &mut call).await;
    carried.map_err(Failed::failure)
}

fn target_of(head: &RequestHead) -> Result<Target, Failure> {
    head.authority.as_ref().map(Target::of_authority).ok_or(Failure::NoAuthority)
}

/// Connects to an address that is no service's, through the outbound filters of `from`.
pub(super) async fn connect<'w>(
    worker: &'w Rc<Worker>,
    snapshot: &Snapshot,
    from: &Served,
    origin: &Origin,
    target: &Target,
    exit: Option<&Exit>,
) -> Result<(OutsideStream, Share, Filtered<'w>), Failure> {
    let client = origin.peer.ip();
    worker.ledger.counters.passthrough.increment(1);
    let timeout = snapshot.connect_timeout();
    let sockets = match exit {
        Some(exit) => Box::pin(exit.sockets(worker, timeout, from, client)).await?,
        None => look_up(worker, timeout, from, target, client).await?,
    };
    let place = Place::outbound(client, target.port(), from);
    let (filtered, permit) = filtering::connection(&worker.filters, &from.outbound, &place).await?;
    let holder = origin.holder();
    let connected = Box::pin(worker.apps.connect_outside(&sockets, timeout, &holder, permit)).await;
    let (stream, share) = connected.map_err(|(failure, _)| failure)?;
    Ok((stream, share, filtered))
}

fn failed(target: &Target, reason: &str) -> Failure {
    Failure::Passthrough { address: target.to_string(), reason: reason.to_owned() }
}

/// The addresses of a target that may be dialled for a client at `client`.
///
/// # Errors
/// There is none, or the guard refuses all that there are; then the first refusal.
async fn look_up(
    worker: &Worker,
    timeout: Duration,
    from: &Served,
    target: &Target,
    client: IpAddr,
) -> Result<Vec<PlainSocket>, Failure> {
    let found = addresses(worker, timeout, target).await?;
    let outside = let_pass(worker, from, found, (client, &[])).await?;
    if outside.is_empty() {
        return Err(failed(target, "the name has no address"));
    }
    Ok(outside.into_iter().map(PlainSocket::Outside).collect())
}

/// The addresses of a target, as many as are tried. `timeout`: of the look-up of a name.
pub(super) async fn addresses(worker: &Worker, timeout: Duration, target: &Target) -> Result<Vec<SocketAddr>, Failure> {
    Ok(match target {
        Target::Address(address) => vec![*address],
        Target::Name { host, port } => {
            let found = worker.names.look_up(host, timeout).await;
            let found = found.map_err(|error| failed(target, &error.to_string()))?;
            let most = worker.shared.config.limits.outside_addresses;
            if found.len() > most {
                Limited::OutsideAddresses.hit();
            }
            found.into_iter().take(most).map(|ip| SocketAddr::new(ip, *port)).collect()
        }
    })
}

/// Those of the addresses that may be dialled for a client at `client`. `named`: those that an ExternalService names
/// themselves.
///
/// # Errors
/// The guard refuses all of them; then the first refusal.
pub(super) async fn let_pass(
    worker: &Worker,
    from: &Served,
    found: Vec<SocketAddr>,
    (client, named): (IpAddr, &[IpAddr]),
) -> Result<Vec<OutsideSocket>, Failure> {
    let (mut sockets, mut refusal) = (Vec::with_capacity(found.len()), None);
    let mut patience = Patience::default();
    for address in found {
        // A name that leads to a workload would pass by its identity, its policy and its declared protocol.
        let outside = match is_in_mesh(worker, from, address, &mut patience).await {
            Ok(true) => Err(Failure::NotOutside { address, why: NotOutside::Workload }),
            Ok(false) if named.contains(&address.ip().to_canonical()) => worker.shared.guard.named(address, client),
            Ok(false) => worker.shared.guard.outside(address, client),
            Err(failure) => Err(failure),
        };
        match outside {
            Ok(outside) => sockets.push(outside),
            Err(failure) => refusal = refusal.or(Some(failure)),
        }
    }
    match refusal.filter(|_| sockets.is_empty()) {
        Some(refusal) => Err(refusal),
        None => Ok(sockets),
    }
}

/// True for an address of the mesh, which is asked for where this proxy does not know.
async fn is_in_mesh(
    worker: &Worker,
    from: &Served,
    address: SocketAddr,
    patience: &mut Patience,
) -> Result<bool, Failure> {
    let mut snapshot = worker.snapshot().ok_or(Failure::NotReady)?;
    loop {
        match routing::resolve_target(&snapshot, &worker.shared.hosts, from, &Target::Address(address)) {
            Ok(way) => return Ok(matches!(way, Way::Mesh(_))),
            Err(failure @ Failure::NotHeld { .. }) => {
                snapshot = Box::pin(patience.learn(worker, &snapshot, failure)).await?;
            }
            // `RegistryOnly` refuses whatever is in no registry, so the address is outside.
            Err(_) => return Ok(false),
        }
    }
}

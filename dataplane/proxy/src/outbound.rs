//! The way out: a request from a local application to its destination. Reads top to bottom: where to, what the filters
//! say, which route, which endpoint, carry. Retries only what was provably not processed, within the budget.

mod attempts;
pub mod connection;
pub mod passthrough;
mod probe;
pub mod tcp;

use std::fmt;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use http::uri::Authority;
use weft_policy::bundle::{ObjectName, RouteRule, Service};
use weft_policy::route::{HeadView, Resolved, RouteDecision};
use weft_transport::http::{RecvBody, RequestHead, Responder, ResponseRecv, SendBody};

use self::attempts::{Attempt, Attempts, Goal};
use crate::app_leg;
use crate::filtering::{self, Filtered, Place};
use crate::mesh;
use crate::record::Record;
use crate::reply::{Failure, Side};
use crate::snapshot::{Served, Snapshot};
use crate::worker::Worker;

/// Where an application's connection came from and where it meant to go.
#[derive(Debug, Clone)]
pub struct Origin {
    pub peer: SocketAddr,
    /// The destination before redirection, or the target of a CONNECT; `None` on the forward proxy, where each request
    /// names its own.
    pub target: Option<Target>,
}

/// Where a connection meant to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Address(SocketAddr),
    Name { host: String, port: u16 },
}

impl Target {
    /// The target of a CONNECT, which must name a port (RFC 9110 section 9.3.6).
    pub fn of_connect(authority: &Authority) -> Option<Target> {
        let port = authority.port_u16()?;
        let host = authority.host();
        Some(match host.trim_matches(['[', ']']).parse() {
            Ok(ip) => Target::Address(SocketAddr::new(ip, port)),
            Err(_) => Target::Name { host: host.to_owned(), port },
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Address(address) => address.fmt(f),
            Target::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// A request with its body and the way back to the application, as long as no final head was sent on it. Stays with
/// whoever read it: a future that took it by value would hold it twice.
pub struct Request<'a> {
    pub head: RequestHead,
    pub body: RecvBody<'a>,
    pub responder: Option<Responder<'a>>,
}

/// Serves one request of a local application. Always answers, always counts.
pub async fn serve(worker: &Rc<Worker>, origin: &Origin, request: &mut Request<'_>) {
    let _in_flight = worker.in_flight.enter();
    let Request { head, body, responder } = request;
    let snapshot = worker.snapshot();
    let access_log = snapshot.as_ref().is_some_and(|snapshot| snapshot.mesh.access_log);
    let mut record = Record::open(Side::Outbound, head, access_log);
    let mut call = Call { head, body, responder, record: &mut record };
    let result = match &snapshot {
        Some(snapshot) => carry(worker, snapshot, origin, &mut call).await,
        None => Err(Failure::NotReady),
    };
    if let Err(failure) = result {
        Box::pin(record.reply(worker, &failure, responder)).await;
    }
    record.close(worker);
}

/// A request on its way: what is sent, and where the answer and the account of it go.
pub struct Call<'c, 'a> {
    pub head: &'c mut RequestHead,
    pub body: &'c mut RecvBody<'a>,
    pub responder: &'c mut Option<Responder<'a>>,
    pub record: &'c mut Record,
}

async fn carry(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    origin: &Origin,
    call: &mut Call<'_, '_>,
) -> Result<(), Failure> {
    let from = snapshot.local();
    mesh::strip(&mut call.head.headers);
    let Some(resolved) = resolve(snapshot, from, origin, call.head)? else {
        return Box::pin(passthrough::request(worker, origin, call)).await;
    };
    let place = Place::outbound(origin, resolved.port, from);
    let mut filtered = filtering::request(worker, &from.outbound, &place, call.head).await?;
    let routed = route(snapshot, from, &resolved, call, worker.dice())?;
    within(routed.timeout, pin!(send(worker, snapshot, &routed, &mut filtered, call))).await
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
    snapshot: &Snapshot,
    routed: &Routed<'_>,
    filtered: &mut Filtered<'_>,
    call: &mut Call<'_, '_>,
) -> Result<(), Failure> {
    let Routed { goal, from, .. } = *routed;
    let mut attempts = Attempts::new(worker, snapshot, from, goal);
    call.record.metrics = Some(attempts.unreached());
    loop {
        let attempt = attempts.pick()?;
        call.record.metrics = Some(Rc::clone(&attempt.destination.metrics));
        mesh::stamp(call.head, &attempt.destination.socket(goal.port), &from.source);
        let Err((failure, unprocessed)) = exchange(worker, &attempt, goal.port, filtered, call).await else {
            attempt.answered(call.record.code < 500);
            return Ok(());
        };
        let whole = !call.record.sent.started.get() && call.responder.is_some();
        attempts.failed(attempt, failure, unprocessed && whole)?;
    }
}

/// One attempt at one endpoint. The flag says whether the request provably was not processed.
async fn exchange(
    worker: &Rc<Worker>,
    attempt: &Attempt<'_>,
    port: u16,
    filtered: &mut Filtered<'_>,
    call: &mut Call<'_, '_>,
) -> Result<(), (Failure, bool)> {
    let endpoint = &attempt.destination.endpoint;
    call.record.log(|log| {
        log.upstream = Some(format!("{}:{port}", endpoint.address));
        log.destination = endpoint.identity.as_ref().map(ToString::to_string);
    });
    let Some(client) = attempt.connect().await.map_err(|failure| (failure, true))? else {
        mesh::strip(&mut call.head.headers);
        let socket = SocketAddr::new(endpoint.address, port);
        let carried = Box::pin(app_leg::carry(worker, socket, call.head.version, filtered, call)).await;
        return carried.inspect(|()| attempt.reached());
    };
    let (mut send, mut receive) = match client.send(call.head, call.body.is_end()).await {
        Ok(streams) => streams,
        Err(error) if error.unprocessed => {
            return Err((Failure::Unprocessed { to: "the peer", error: error.error }, true));
        }
        Err(error) => return Err((Failure::NoAnswer { to: "the peer", error: error.error }, false)),
    };
    let streams = (SendBody::H3(&mut send), ResponseRecv::H3(&mut receive));
    app_leg::exchange(streams, filtered, call, "the peer").await
}

/// The service a request addresses: by where its connection meant to go, and where that says nothing by its
/// authority. `None`: outside the mesh.
fn resolve<'s>(
    snapshot: &'s Snapshot,
    from: &Served,
    origin: &Origin,
    head: &RequestHead,
) -> Result<Option<Resolved<'s>>, Failure> {
    if let Some(target) = &origin.target
        && let Some(resolved) = resolve_target(snapshot, from, target)
    {
        return Ok(Some(resolved));
    }
    let authority = head.target_authority.as_ref().or(head.authority.as_ref()).ok_or(Failure::NoAuthority)?;
    let port = match &origin.target {
        Some(Target::Address(address)) => address.port(),
        Some(Target::Name { port, .. }) => *port,
        None => authority.port_u16().unwrap_or(80),
    };
    Ok(snapshot.routes.resolve(authority.host(), port, &from.workload.name.namespace))
}

/// The service behind the target of a connection. `None`: outside the mesh.
fn resolve_target<'s>(snapshot: &'s Snapshot, from: &Served, target: &Target) -> Option<Resolved<'s>> {
    let namespace = &from.workload.name.namespace;
    match target {
        Target::Address(address) => snapshot.routes.resolve_address(*address, namespace),
        Target::Name { host, port } => snapshot.routes.resolve(host, *port, namespace),
    }
}

/// The decision that holds for one request.
struct Routed<'s> {
    goal: Goal<'s>,
    timeout: Option<Duration>,
    from: &'s Served,
}

fn route<'s>(
    snapshot: &'s Snapshot,
    from: &'s Served,
    resolved: &Resolved<'s>,
    call: &mut Call<'_, '_>,
    dice: u64,
) -> Result<Routed<'s>, Failure> {
    let head = &mut *call.head;
    let default_timeout = snapshot.mesh.request_timeout_ms;
    let decision = {
        let path = head.path.as_ref().map_or("/", |path| path.path());
        let headers = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let view = HeadView { method: head.method.as_str(), path, headers: &headers };
        snapshot.routes.decide(resolved, &from.workload.name.namespace, &view)
    };
    let (rule, backend) = match decision {
        RouteDecision::Default => {
            return routed(from, resolved.service, resolved.port, resolved.endpoint, default_timeout);
        }
        RouteDecision::NoMatch => {
            return Err(Failure::NoRuleMatched { service: resolved.service.name.to_string() });
        }
        RouteDecision::Rule { route, rule, .. } => {
            call.record.log(|log| log.route = Some(route.name.to_string()));
            let named = || format!("HTTPRoute {}", route.name);
            let backend =
                weft_policy::route::pick_backend(rule, dice).ok_or_else(|| Failure::NoBackend { route: named() })?;
            let Some(name) = &backend.service else {
                return Err(Failure::BackendNotFound { route: named() });
            };
            let service = snapshot.bundle.services.get(name);
            (rule, (service.ok_or_else(|| Failure::BackendNotFound { route: named() })?, backend))
        }
    };
    let (service, backend) = backend;
    weft_policy::route::modify_headers(&rule.request_headers, &mut head.headers);
    weft_policy::route::modify_headers(&backend.request_headers, &mut head.headers);
    routed(from, service, backend.port, None, timeout_of(rule).or(default_timeout))
}

fn timeout_of(rule: &RouteRule) -> Option<u64> {
    rule.request_timeout_ms
}

fn routed<'s>(
    from: &'s Served,
    service: &'s Service,
    port: u16,
    direct: Option<&'s ObjectName>,
    timeout_ms: Option<u64>,
) -> Result<Routed<'s>, Failure> {
    let goal = goal(service, port, direct)?;
    let timeout = timeout_ms.filter(|ms| *ms > 0).map(Duration::from_millis);
    Ok(Routed { goal, timeout, from })
}

/// The app port behind a port of a service; an endpoint addressed by its own IP was addressed by its own port.
fn goal<'s>(service: &'s Service, port: u16, direct: Option<&'s ObjectName>) -> Result<Goal<'s>, Failure> {
    let port = match (direct, service.ports.iter().find(|known| known.port == port)) {
        (Some(_), _) => port,
        (None, Some(known)) => known.target_port,
        (None, None) => return Err(Failure::NoSuchPort { service: service.name.to_string(), port }),
    };
    Ok(Goal { service, port, direct })
}

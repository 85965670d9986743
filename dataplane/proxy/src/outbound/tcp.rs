//! A TCP connection of a local application: through the mesh by CONNECT where its destination is a service, straight
//! on where it is not.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{HeaderMap, HeaderValue, Method, Version};
use tokio::net::TcpStream;
use weft_filter_host::Permit;
use weft_policy::bundle::TunnelRefusal;
use weft_policy::route::{self, Hello, Resolved, WayOut};
use weft_transport::between::WEFT_SOURCE;
use weft_transport::http::{RecvBody, RequestHead, SendBody};
use weft_transport::tls::OutsideStream;
use weft_transport::{h1, tcp};

use super::attempts::{Attempt, Attempts};
use super::external::Exit;
use super::patience::Patience;
use super::peer_leg::PeerTunnel;
use super::routing::{self, Way};
use super::{Origin, Target, passthrough};
use crate::apps::Share;
use crate::call::Failed;
use crate::filtering::{self, Filtered, Place};
use crate::gate::Held;
use crate::record::connection::ConnectionRecord;
use crate::relay::{self, Source};
use crate::reply::{Failure, Side};
use crate::snapshot::{Served, Snapshot};
use crate::sockets::PlainSocket;
use crate::usage::Using;
use crate::worker::Worker;

/// Carries an application's connection to where it meant to go; one that can't be carried is reset.
pub(super) async fn serve(worker: &Rc<Worker>, stream: TcpStream, prefix: Bytes, origin: &Origin, hello: Hello<'_>) {
    let Some(target) = &origin.target else { return };
    let _in_flight = worker.in_flight.enter();
    let mut record = ConnectionRecord::open(Side::Outbound, origin.peer, target.to_string());
    let opened = {
        let opening = Box::pin(open(worker, origin, target, hello, &mut record));
        // Filters may have it wait for minutes, and nobody reads it meanwhile.
        let left = pin!(tcp::left(&stream, !prefix.is_empty(), worker.idle().late_upload));
        match select(opening, left).await {
            Either::Left((opened, _)) => opened,
            Either::Right(((), _)) => Err(Failure::ClientGone),
        }
    };
    match opened {
        Ok(far) => Box::pin(carry(worker, stream, &prefix, far, record)).await,
        Err(failure) => {
            tcp::split(stream, &prefix).1.reset();
            record.refused(&worker.ledger, worker.snapshot().as_ref(), &failure);
        }
    }
}

/// Carries bytes between an application and the far end that was opened for it. A long connection holds no snapshot.
pub(super) async fn carry(
    worker: &Worker,
    stream: TcpStream,
    prefix: &Bytes,
    mut far: Far<'_>,
    mut record: ConnectionRecord,
) {
    let (mut read, mut write) = tcp::split(stream, prefix);
    let end = {
        let (up, down) = record.flows(&worker.ledger, worker.snapshot().as_ref());
        let (from_far, mut to_far) = far.streams.halves();
        let (mut from_app, mut to_app) = (Source::once(RecvBody::Tcp(&mut read)), SendBody::Tcp(&mut write));
        let mut from_far = Source::once(from_far);
        far.filtered.look_at_stream(&mut from_app, &mut from_far);
        let near = (&mut from_app, &mut to_app);
        Box::pin(relay::tunnel(near, (&mut from_far, &mut to_far), (up, down), worker.idle())).await
    };
    let (up, down) = record.moved();
    far.filtered.moved(up, down);
    record.ended(end);
    record.close(&worker.ledger, worker.snapshot().as_ref());
}

/// The far end of a connection, open.
pub(super) struct Far<'a> {
    streams: Streams,
    /// Told at the end what has flowed.
    filtered: Filtered<'a>,
    /// The service that it leads to.
    _using: Option<Using>,
    /// Its place among the connections to that, where those are counted.
    _held: Option<Held>,
}

enum Streams {
    Peer(Box<PeerTunnel>),
    /// Outside the mesh.
    Plain {
        halves: Box<(tcp::Reader, tcp::Writer)>,
        _share: Share,
    },
    /// The same, below TLS that this proxy began.
    Tls {
        conn: Box<h1::ClientConn>,
        _share: Share,
    },
}

impl Streams {
    fn plain(stream: TcpStream, share: Share) -> Self {
        Streams::Plain { halves: Box::new(tcp::split(stream, &Bytes::new())), _share: share }
    }

    fn halves(&mut self) -> (RecvBody<'_>, SendBody<'_>) {
        match self {
            Streams::Peer(tunnel) => tunnel.halves(),
            Streams::Plain { halves, .. } => (RecvBody::Tcp(&mut halves.0), SendBody::Tcp(&mut halves.1)),
            Streams::Tls { conn, .. } => conn.halves(),
        }
    }
}

/// Opens the far end of a connection to `target` that begins with `hello`. Notes in `record` where it goes.
pub(super) async fn open<'w>(
    worker: &'w Rc<Worker>,
    origin: &Origin,
    target: &Target,
    hello: Hello<'_>,
    record: &mut ConnectionRecord,
) -> Result<Far<'w>, Failure> {
    let mut snapshot = worker.snapshot().ok_or(Failure::NotReady)?;
    let mut patience = Patience::default();
    let to = loop {
        let from = origin.workload(&snapshot)?;
        record.source = Some(from.workload.identity.to_string());
        match routing::resolve_target(&snapshot, &worker.shared.hosts, from, target) {
            Ok(to) => break to,
            Err(failure) => snapshot = Box::pin(patience.learn(worker, &snapshot, failure)).await?,
        }
    };
    let from = origin.workload(&snapshot)?;
    match to {
        Way::Mesh(to) if routing::is_http_only(&to, from) => {
            Err(Failure::TunnelForbidden(TunnelRefusal::HttpOnly { port: to.port }))
        }
        Way::Mesh(resolved) => {
            let using = worker.uses.begin(&snapshot, resolved.service);
            let plan = routing::stream_plan(&snapshot, from, &resolved, hello, worker.dice())?;
            let far = match &plan.exit {
                Some(way) => {
                    let to = (target, way, hello);
                    Box::pin(open_external(worker, &snapshot, (from, origin), to, record)).await
                }
                None => {
                    let to = (&resolved, &plan);
                    Box::pin(open_mesh(worker, &snapshot, (from, origin), to, record)).await
                }
            };
            Ok(Far { _using: Some(using), ..far? })
        }
        Way::External(way) => {
            let to = (target, &*way, hello);
            Box::pin(open_external(worker, &snapshot, (from, origin), to, record)).await
        }
        Way::Outside => open_outside(worker, &snapshot, (from, origin), target, None, record).await,
    }
}

/// Opens a connection to an ExternalService, by this way.
async fn open_external<'w>(
    worker: &'w Rc<Worker>,
    snapshot: &Snapshot,
    (from, origin): (&Served, &Origin),
    (target, way, hello): (&Target, &WayOut<'_>, Hello<'_>),
    record: &mut ConnectionRecord,
) -> Result<Far<'w>, Failure> {
    let exit = Exit::of_connection(worker, snapshot, from, way, hello)?;
    record.metrics = Some(Rc::clone(&exit.metrics));
    let state = worker.destinations.outside(snapshot, from, way.resolved().service);
    let held = state.gate().map_or(Ok(None), |gate| gate.connect());
    let held = held.map_err(|full| Failure::DestinationFull { service: state.name.to_string(), full })?;
    let far = open_outside(worker, snapshot, (from, origin), target, Some(&exit), record).await?;
    Ok(Far { _held: held, ..far })
}

/// Opens a connection to somewhere outside: to what was named, or as an ExternalService says.
async fn open_outside<'w>(
    worker: &'w Rc<Worker>,
    snapshot: &Snapshot,
    (from, origin): (&Served, &Origin),
    target: &Target,
    exit: Option<&Exit>,
    record: &mut ConnectionRecord,
) -> Result<Far<'w>, Failure> {
    let (stream, share, filtered) = passthrough::connect(worker, snapshot, from, origin, target, exit).await?;
    record.upstream = stream.peer_addr().ok().map(|address| address.to_string());
    let streams = match stream {
        OutsideStream::Plain(stream) => Streams::plain(stream, share),
        stream @ OutsideStream::Tls(_) => {
            Streams::Tls { conn: Box::new(worker.apps.bytes_over(stream)), _share: share }
        }
    };
    Ok(Far { streams, filtered, _using: None, _held: None })
}

/// Opens a tunnel to an endpoint; to another where the first could not be reached or provably did not take it.
async fn open_mesh<'w>(
    worker: &'w Rc<Worker>,
    snapshot: &Snapshot,
    (from, origin): (&Served, &Origin),
    (resolved, plan): (&Resolved<'_>, &route::Plan<'_>),
    record: &mut ConnectionRecord,
) -> Result<Far<'w>, Failure> {
    let goal = routing::goal_of(plan);
    let place = Place::outbound(origin.peer.ip(), resolved.port, from);
    let place = Place { service: Some(&resolved.service.name), ..place };
    let (filtered, mut permit) = filtering::connection(&worker.filters, &from.outbound, &place).await?;
    let mut attempts = Attempts::new(worker, snapshot, from, goal, None);
    record.metrics = Some(attempts.unreached());
    let held = attempts.gate().map_or(Ok(None), |(gate, service)| {
        gate.connect().map_err(|full| Failure::DestinationFull { service: service.to_string(), full })
    })?;
    loop {
        let attempt = attempts.pick()?;
        let endpoint = &attempt.destination.endpoint;
        let socket = SocketAddr::new(endpoint.address, attempt.port);
        record.metrics = Some(Rc::clone(&attempt.destination.metrics));
        record.upstream = Some(socket.to_string());
        match connect(worker, (from, origin), &attempt, socket, permit).await {
            Ok(streams) => {
                record.destination = attempt.destination.peer().map(|peer| peer.destination().to_string());
                attempt.answered(None, None);
                return Ok(Far { streams, filtered, _using: None, _held: held });
            }
            Err(Failed::Unprocessed(failure, again)) => {
                attempts.failed(attempt, failure)?;
                permit = again;
            }
            Err(failed) => return Err(attempt.ended(failed.failure())),
        }
    }
}

/// One attempt at one endpoint.
async fn connect(
    worker: &Worker,
    (from, origin): (&Served, &Origin),
    attempt: &Attempt<'_>,
    socket: SocketAddr,
    permit: Permit,
) -> Result<Streams, Failed> {
    let holder = origin.holder();
    let unprocessed = |(failure, permit)| Failed::Unprocessed(failure, permit);
    if let Some(peer) = attempt.destination.peer() {
        let client = attempt.connect(peer, permit).await.map_err(unprocessed)?;
        let tunnel = client.tunnel(&connect_head(socket, &from.source)).await?;
        return Ok(Streams::Peer(Box::new(tunnel)));
    }
    let outside = worker.shared.guard.outside(socket, socket.ip()).map_err(Failed::Final)?;
    let sockets = [PlainSocket::Outside(outside)];
    let connected = worker.apps.connect(&sockets, attempt.connect_timeout, &holder, permit).await;
    let (stream, share) = connected.map_err(unprocessed)?;
    attempt.reached();
    Ok(Streams::plain(stream, share))
}

/// The head of the CONNECT that opens a tunnel to the app at `socket`.
pub(super) fn connect_head(socket: SocketAddr, source: &HeaderValue) -> RequestHead {
    let mut headers = HeaderMap::new();
    headers.insert(WEFT_SOURCE, source.clone());
    RequestHead {
        method: Method::CONNECT,
        authority: Some(socket.to_string().parse().expect("a socket address is an authority")),
        path: None,
        protocol: None,
        headers,
        version: Version::HTTP_11,
    }
}

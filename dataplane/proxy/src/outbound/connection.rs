//! Connections from local applications: the explicit proxy (15080) and what capture redirected (15001). A destination's
//! declared protocol is law; only `auto` is found out. Requests go to `outbound`, everything else to `outbound::tcp`.

mod connect;

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Version};
use tokio::net::TcpStream;
use tracing::debug;
use weft_policy::bundle::{ExternalProtocol, Protocol, RouteKind};
use weft_policy::route::{EgressRefusal, Hello};
use weft_transport::detect::{self, Detected, HttpVersion};
use weft_transport::http::{HttpLimits, RecvBody, Refusal, Refused, Responder};
use weft_transport::{capture, h1, h2};

use super::patience::Patience;
use super::routing::Way;
use super::{Origin, Target, routing, serve, tcp};
use crate::call::Request;
use crate::record::Record;
use crate::reply::{Failure, Side};
use crate::telemetry::counters::Limited;
use crate::worker::Worker;

/// Serves a connection to the explicit proxy: HTTP/1 and prior-knowledge HTTP/2 in forward-proxy form, and CONNECT.
pub async fn explicit(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let _open = worker.shared.app_connections.enter();
    let app = stream.local_addr().map_or(peer.ip(), |local| local.ip());
    http(&worker, stream, Bytes::new(), Origin { peer, app, target: None }).await;
}

/// Serves a redirected connection to where it meant to go.
pub async fn captured(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let _open = worker.shared.app_connections.enter();
    let Some(destination) = capture::original_dst(&stream) else {
        worker.ledger.counters.misdirected.increment(1);
        return debug!(%peer, "a connection to the capture port that was not redirected");
    };
    if worker.shared.guard.is_own_listener(destination) {
        worker.ledger.counters.misdirected.increment(1);
        return debug!(%peer, %destination, "a connection to the proxy's own port through itself");
    }
    let origin = Origin { peer, app: peer.ip(), target: Some(Target::Address(destination)) };
    payload(&worker, stream, Bytes::new(), origin).await;
}

/// Serves what flows inside a redirected connection or an accepted CONNECT, whose target is known.
async fn payload(worker: &Rc<Worker>, stream: TcpStream, prefix: Bytes, origin: Origin) {
    let Some(Declared { protocol, is_http_only, by_hello }) = declared(worker, &origin).await else {
        return Box::pin(tcp::serve(worker, stream, prefix, &origin, Hello::Other)).await;
    };
    match (protocol, is_http_only) {
        (Protocol::Tcp | Protocol::Udp, _) if by_hello => begun(worker, stream, prefix, origin).await,
        (Protocol::Tcp | Protocol::Udp, _) => {
            Box::pin(tcp::serve(worker, stream, prefix, &origin, Hello::Other)).await;
        }
        // Only HTTP may pass here, so its version is all there is to find out.
        (Protocol::Http | Protocol::Grpc, _) | (Protocol::Auto, true) => http(worker, stream, prefix, origin).await,
        (Protocol::Auto, false) => detected(worker, stream, prefix, origin, by_hello).await,
    }
}

/// What is known of the destination of a connection before its first byte.
struct Declared {
    protocol: Protocol,
    /// Nothing but HTTP may pass.
    is_http_only: bool,
    /// Its ClientHello decides where a connection goes, or whether: the client speaks first, or goes nowhere.
    by_hello: bool,
}

impl Declared {
    /// Nothing but the protocol is known.
    fn only(protocol: Protocol) -> Self {
        Self { protocol, is_http_only: false, by_hello: false }
    }
}

/// `None`: it is nothing of the mesh and nothing that its bytes could name, or the connection goes nowhere.
async fn declared(worker: &Rc<Worker>, origin: &Origin) -> Option<Declared> {
    let target = origin.target.as_ref()?;
    let mut snapshot = worker.snapshot()?;
    let mut patience = Patience::default();
    loop {
        let from = origin.workload(&snapshot).ok()?;
        let failure = match routing::resolve_target(&snapshot, &worker.shared.hosts, from, target) {
            Ok(Way::Mesh(to)) => {
                return Some(Declared {
                    protocol: to.protocol(),
                    is_http_only: routing::is_http_only(&to, from),
                    by_hello: routing::stream_kind(&snapshot, from, &to) == Some(RouteKind::Tls),
                });
            }
            Ok(Way::External(way)) => {
                let by_hello = way.port.protocol == ExternalProtocol::Tls;
                return Some(Declared { by_hello, ..Declared::only(way.port.protocol.declared()) });
            }
            Ok(Way::Outside) | Err(Failure::Egress { refusal: EgressRefusal::RegistryOnly, .. }) => {
                let by_bytes = snapshot.routes.is_told_by_bytes(target.port(), &from.workload.name.namespace);
                let by_bytes = by_bytes && matches!(target, Target::Address(_));
                return by_bytes.then_some(Declared::only(Protocol::Auto));
            }
            Err(failure) => failure,
        };
        match Box::pin(patience.learn(worker, &snapshot, failure)).await {
            Ok(latest) => snapshot = latest,
            // Its first bytes tell in which form it is refused.
            Err(Failure::NotHeld { .. }) => {
                return Some(Declared::only(Protocol::Auto));
            }
            Err(_) => return None,
        }
    }
}

/// Reads the first bytes of a connection, for as long as it takes until they tell what they are. `None`: it is lost.
async fn first_bytes(
    worker: &Worker,
    stream: &mut TcpStream,
    prefix: Bytes,
    origin: &Origin,
    timeout: Duration,
) -> Option<(Detected, Bytes)> {
    match detect::detect_stream(stream, prefix, timeout).await {
        Ok((detected, prefix)) => {
            worker.ledger.counters.detected(&detected).increment(1);
            Some((detected, prefix))
        }
        Err(error) => {
            debug!(peer = %origin.peer, %error, "application connection lost");
            None
        }
    }
}

/// A client that has to speak first has so long.
fn for_first_bytes(worker: &Worker) -> Duration {
    Duration::from_secs(worker.shared.config.limits.first_bytes_timeout_s)
}

/// Serves a connection to a port of bytes that is sent on by its ClientHello. Whatever it begins with, it is no HTTP here.
async fn begun(worker: &Rc<Worker>, mut stream: TcpStream, prefix: Bytes, origin: Origin) {
    let first = first_bytes(worker, &mut stream, prefix, &origin, for_first_bytes(worker)).await;
    let Some((detected, prefix)) = first else { return };
    Box::pin(tcp::serve(worker, stream, prefix, &origin, hello(&detected))).await;
}

fn hello(detected: &Detected) -> Hello<'_> {
    match detected {
        Detected::Tls { sni } => Hello::Tls(sni.as_deref()),
        Detected::Http1 | Detected::Http2 | Detected::Opaque | Detected::NeedMore => Hello::Other,
    }
}

/// Serves a connection whose protocol its first bytes tell.
async fn detected(worker: &Rc<Worker>, mut stream: TcpStream, prefix: Bytes, mut origin: Origin, by_hello: bool) {
    let timeout = match by_hello {
        true => for_first_bytes(worker),
        false => Duration::from_millis(worker.shared.config.limits.detect_timeout_ms),
    };
    let first = first_bytes(worker, &mut stream, prefix, &origin, timeout).await;
    let Some((detected, prefix)) = first else { return };
    match detected {
        Detected::Http1 => Box::pin(serve_h1(worker, stream, prefix, origin)).await,
        Detected::Http2 => Box::pin(serve_h2(worker, stream, prefix, origin)).await,
        Detected::Tls { .. } | Detected::Opaque | Detected::NeedMore => {
            if let Some(named) = greeted(worker, &origin, hello(&detected)) {
                origin.target = Some(named);
            }
            Box::pin(tcp::serve(worker, stream, prefix, &origin, hello(&detected))).await;
        }
    }
}

/// The target that a greeting of TLS names, where an ExternalService is for it and the connection dialled an address of which
/// nobody says more: it goes to that name, as the resource says, not to the address.
fn greeted(worker: &Rc<Worker>, origin: &Origin, hello: Hello<'_>) -> Option<Target> {
    let Hello::Tls(Some(name)) = hello else { return None };
    let (snapshot, dialled) = (worker.snapshot()?, origin.target.as_ref()?);
    let from = origin.workload(&snapshot).ok()?;
    let resolve = |target: &Target| routing::resolve_target(&snapshot, &worker.shared.hosts, from, target);
    match resolve(dialled) {
        Ok(Way::Outside) | Err(Failure::Egress { refusal: EgressRefusal::RegistryOnly, .. }) => {}
        Ok(Way::Mesh(_) | Way::External(_)) | Err(_) => return None,
    }
    let named = Target::Name { host: name.to_owned(), port: dialled.port() };
    let is_external = matches!(resolve(&named), Ok(Way::External(way)) if way.takes_tunnels().is_ok());
    is_external.then_some(named)
}

/// Serves a connection that is HTTP however its bytes come: only the version is theirs to tell.
async fn http(worker: &Rc<Worker>, mut stream: TcpStream, prefix: Bytes, origin: Origin) {
    let limits = HttpLimits { idle_timeout: for_first_bytes(worker), ..worker.shared.config.limits.http() };
    match detect::detect_http_stream(&mut stream, prefix, &limits).await {
        Ok(Some((HttpVersion::Http2, prefix))) => {
            worker.ledger.counters.detected(&Detected::Http2).increment(1);
            Box::pin(serve_h2(worker, stream, prefix, origin)).await;
        }
        Ok(Some((HttpVersion::Http1, prefix))) => {
            worker.ledger.counters.detected(&Detected::Http1).increment(1);
            Box::pin(serve_h1(worker, stream, prefix, origin)).await;
        }
        Ok(None) => debug!(peer = %origin.peer, "an application connection said nothing in time"),
        Err(error) => debug!(peer = %origin.peer, %error, "application connection lost"),
    }
}

/// Serves HTTP/1 until the connection closes, turns into a tunnel, or cannot go on.
async fn serve_h1(worker: &Rc<Worker>, stream: TcpStream, prefix: Bytes, origin: Origin) {
    let limits = &worker.shared.config.limits;
    let replay = limits.replay_buffer_bytes;
    let of_codec = h1::Limits { leaving: worker.shared.drain.leaving(), ..limits.http().h1() };
    let mut conn = h1::ServerConn::new(stream, &prefix, of_codec);
    loop {
        let exchange = match conn.next().await {
            Ok(Some(exchange)) => exchange,
            Ok(None) => return,
            Err(error) => {
                if let Some(refusal) = error.refused() {
                    refused(worker, &origin, Version::HTTP_11, &refusal);
                }
                return debug!(peer = %origin.peer, %error, "application connection ended");
            }
        };
        let h1::Exchange { head, body, responder } = exchange;
        let mut request = Request::read(head, (body, responder), replay);
        if request.head.method != Method::CONNECT {
            serve(worker, &origin, &mut request).await;
            continue;
        }
        if let Some(accepted) = Box::pin(connect::accept(worker, &origin, &mut request)).await {
            drop(request);
            let (stream, prefix) = conn.into_parts();
            return Box::pin(accepted.serve(worker, stream, prefix, origin)).await;
        }
    }
}

/// Serves prior-knowledge HTTP/2: requests run side by side.
async fn serve_h2(worker: &Rc<Worker>, stream: TcpStream, prefix: Bytes, origin: Origin) {
    let mut conn = match h2::ServerConn::new(stream, prefix, &worker.shared.config.limits.http().h2()).await {
        Ok(conn) => conn,
        Err(error) => {
            if error.is_breach() {
                let refusal = Refused::reset(Refusal::Connection, "malformed or unfinished HTTP/2 preface");
                refused(worker, &origin, Version::HTTP_2, &refusal);
            }
            return debug!(peer = %origin.peer, %error, "HTTP/2 preface refused");
        }
    };
    let (teller, from) = (Rc::clone(worker), origin.clone());
    conn.on_refusal(move |refusal| refused(&teller, &from, Version::HTTP_2, &refusal));
    let replay = worker.shared.config.limits.replay_buffer_bytes;
    let mut draining = pin!(worker.draining.cancelled());
    let mut told = false;
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = conn.accept() => accepted,
            () = &mut draining, if !told => {
                told = true;
                conn.graceful_shutdown();
                continue;
            }
        };
        let h2::Exchange { mut head, mut body, mut answer } = match accepted {
            Ok(Some(exchange)) => exchange,
            Ok(None) => return,
            Err(error) => {
                if error.is_overrun() {
                    Limited::H2UnreadFrames.hit();
                }
                if error.is_breach() {
                    let refusal = Refused::reset(Refusal::Connection, "HTTP/2 connection broke the rules");
                    refused(worker, &origin, Version::HTTP_2, &refusal);
                }
                return debug!(peer = %origin.peer, %error, "application connection ended");
            }
        };
        if conn.is_full() {
            Limited::H2Streams.hit();
        }
        let (worker, origin) = (Rc::clone(worker), origin.clone());
        tokio::task::spawn_local(async move {
            head.version = Version::HTTP_2;
            let streams = (RecvBody::H2(&mut body), Responder::H2(&mut answer));
            let mut request = Request::read(head, streams, replay);
            if request.head.method == Method::CONNECT {
                let why = "CONNECT over HTTP/2 is not built; use HTTP/1.1".into();
                return Box::pin(refuse(&worker, &origin, &mut request, &Failure::NotImplemented(why))).await;
            }
            serve(&worker, &origin, &mut request).await;
        });
    }
}

/// Accounts for a request that its codec refused.
fn refused(worker: &Worker, origin: &Origin, version: Version, refusal: &Refused) {
    worker.ledger.refused((Side::Outbound, origin.peer), None, version, refusal, worker.snapshot().as_ref());
}

/// Answers a request that goes nowhere.
async fn refuse(worker: &Worker, origin: &Origin, request: &mut Request<'_>, failure: &Failure) {
    let snapshot = worker.snapshot();
    let access_log = snapshot.as_ref().is_some_and(|snapshot| snapshot.mesh.access_log);
    let mut record = Record::open(Side::Outbound, origin.peer, &request.head, access_log);
    record.reply(failure, &mut request.responder, worker.idle()).await;
    record.close(&worker.ledger, snapshot.as_ref());
}

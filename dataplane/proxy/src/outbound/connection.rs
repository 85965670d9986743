//! Connections from local applications: the explicit proxy (15080) and what capture redirected (15001). Finds out what
//! is spoken, then hands requests to `outbound` and everything else to `outbound::tcp`.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version};
use tokio::net::TcpStream;
use tracing::debug;
use weft_policy::bundle::{Protocol, ServicePort};
use weft_policy::route::Resolved;
use weft_transport::detect::{self, Detected};
use weft_transport::http::{RecvBody, Responder, ResponseHead};
use weft_transport::{capture, h1, h2};

use super::{Origin, Request, Target, resolve_target, serve, tcp};
use crate::record::Record;
use crate::reply::{Failure, Side};
use crate::worker::Worker;

/// A proxy's client always speaks first, but may open its connection well ahead of its request.
const EXPLICIT_FIRST_BYTES: Duration = Duration::from_secs(60);

/// Serves a connection to the explicit proxy: HTTP/1 and prior-knowledge HTTP/2 in forward-proxy form, and CONNECT.
pub async fn explicit(worker: Rc<Worker>, mut stream: TcpStream, peer: SocketAddr) {
    let _open = worker.shared.app_connections.enter();
    let origin = Origin { peer, target: None };
    match detect_within(&worker, &mut stream, Bytes::new(), EXPLICIT_FIRST_BYTES).await {
        Ok((Detected::Http1, prefix)) => Box::pin(serve_h1(&worker, stream, prefix, origin)).await,
        Ok((Detected::Http2, prefix)) => Box::pin(serve_h2(&worker, stream, prefix, origin)).await,
        Ok((Detected::NeedMore, _)) => {}
        Ok((Detected::Tls { .. } | Detected::Opaque, _)) => {
            worker.shared.counters.malformed.increment(1);
            debug!(%peer, "not HTTP on the explicit proxy");
        }
        Err(error) => debug!(%peer, %error, "application connection lost"),
    }
}

/// Serves a redirected connection to where it meant to go.
pub async fn captured(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let _open = worker.shared.app_connections.enter();
    let Some(destination) = capture::original_dst(&stream) else {
        worker.shared.counters.misdirected.increment(1);
        return debug!(%peer, "a connection to the capture port that was not redirected");
    };
    if worker.shared.is_own_listener(destination) {
        worker.shared.counters.misdirected.increment(1);
        return debug!(%peer, %destination, "a connection to the proxy's own port through itself");
    }
    let origin = Origin { peer, target: Some(Target::Address(destination)) };
    payload(&worker, stream, Bytes::new(), origin).await;
}

/// Serves what flows inside a redirected connection or an accepted CONNECT, whose target is known.
async fn payload(worker: &Rc<Worker>, mut stream: TcpStream, prefix: Bytes, origin: Origin) {
    let declared = worker.snapshot().and_then(|snapshot| {
        let target = origin.target.as_ref()?;
        resolve_target(&snapshot, snapshot.local(), target).map(|resolved| protocol(&resolved))
    });
    let detected = match declared {
        None | Some(Protocol::Tcp | Protocol::Udp) => Ok((Detected::Opaque, prefix)),
        Some(Protocol::Http | Protocol::Grpc | Protocol::Auto) => detect_first(worker, &mut stream, prefix).await,
    };
    match detected {
        Ok((Detected::Http1, prefix)) => Box::pin(serve_h1(worker, stream, prefix, origin)).await,
        Ok((Detected::Http2, prefix)) => Box::pin(serve_h2(worker, stream, prefix, origin)).await,
        Ok((Detected::Tls { .. } | Detected::Opaque | Detected::NeedMore, prefix)) => {
            Box::pin(tcp::serve(worker, stream, prefix, origin)).await;
        }
        Err(error) => debug!(peer = %origin.peer, %error, "application connection lost"),
    }
}

/// What a destination is declared to speak; an endpoint addressed by its own IP speaks what its port does.
fn protocol(to: &Resolved<'_>) -> Protocol {
    let of = |port: &&ServicePort| match to.endpoint {
        Some(_) => port.target_port == to.port,
        None => port.port == to.port,
    };
    to.service.ports.iter().find(of).map_or(Protocol::Auto, |port| port.protocol)
}

async fn detect_first(worker: &Worker, stream: &mut TcpStream, prefix: Bytes) -> std::io::Result<(Detected, Bytes)> {
    let timeout = Duration::from_millis(worker.shared.config.limits.detect_timeout_ms);
    detect_within(worker, stream, prefix, timeout).await
}

async fn detect_within(
    worker: &Worker,
    stream: &mut TcpStream,
    prefix: Bytes,
    timeout: Duration,
) -> std::io::Result<(Detected, Bytes)> {
    let (detected, prefix) = detect::detect_stream(stream, prefix, timeout).await?;
    worker.shared.counters.detected(&detected).increment(1);
    Ok((detected, prefix))
}

/// Serves HTTP/1 until the connection closes, turns into a tunnel, or cannot go on.
async fn serve_h1(worker: &Rc<Worker>, stream: TcpStream, prefix: Bytes, origin: Origin) {
    let mut conn = h1::ServerConn::new(stream, &prefix, h1::Limits::default());
    loop {
        let exchange = match conn.next().await {
            Ok(Some(exchange)) => exchange,
            Ok(None) => return,
            Err(error) => {
                worker.shared.counters.malformed.increment(1);
                return debug!(peer = %origin.peer, %error, "application request refused");
            }
        };
        if exchange.head.method != Method::CONNECT {
            let h1::Exchange { head, body, responder } = exchange;
            serve(worker, &origin, &mut Request { head, body, responder: Some(responder) }).await;
            continue;
        }
        match accept_connect(worker, &origin, exchange).await {
            Some(target) => {
                let (stream, prefix) = conn.into_parts();
                let origin = Origin { peer: origin.peer, target: Some(target) };
                return Box::pin(payload(worker, stream, prefix, origin)).await;
            }
            None => continue,
        }
    }
}

/// Answers CONNECT: 200 where there is somewhere to go. The tunnel's payload is looked at afterwards.
async fn accept_connect(worker: &Rc<Worker>, origin: &Origin, exchange: h1::Exchange<'_>) -> Option<Target> {
    let h1::Exchange { head, body: _, responder } = exchange;
    let mut responder = Some(responder);
    let authority = head.authority.as_ref().or(head.target_authority.as_ref());
    let target = authority.and_then(Target::of_connect);
    let failure = match &target {
        _ if origin.target.is_some() => {
            Failure::ConnectRefused("a connection that already has a destination".to_owned())
        }
        None => Failure::BadRequest("CONNECT needs host:port".into()),
        Some(Target::Address(address)) if worker.shared.is_own_listener(*address) => Failure::Loop,
        Some(_) => {
            let accepted = ResponseHead { status: StatusCode::OK, headers: HeaderMap::new() };
            let mut sink = responder.take()?.head(&accepted, false).await.ok()?;
            sink.flush().await.ok()?;
            return target;
        }
    };
    let mut record = Record::open(Side::Outbound, &head, worker.access_log_on());
    record.reply(worker, &failure, &mut responder).await;
    record.close(worker);
    None
}

/// Serves prior-knowledge HTTP/2: requests run side by side.
async fn serve_h2(worker: &Rc<Worker>, stream: TcpStream, prefix: Bytes, origin: Origin) {
    let mut conn = match h2::ServerConn::new(stream, prefix, &h2::Limits::default()).await {
        Ok(conn) => conn,
        Err(error) => return debug!(peer = %origin.peer, %error, "HTTP/2 preface refused"),
    };
    loop {
        let h2::Exchange { mut head, mut body, mut answer } = match conn.accept().await {
            Ok(Some(exchange)) => exchange,
            Ok(None) => return,
            Err(error) => {
                if error.is_breach() {
                    worker.shared.counters.malformed.increment(1);
                }
                return debug!(peer = %origin.peer, %error, "application connection ended");
            }
        };
        let (worker, origin) = (Rc::clone(worker), origin.clone());
        tokio::task::spawn_local(async move {
            head.version = Version::HTTP_2;
            let body = RecvBody::H2(&mut body);
            let responder = Some(Responder::H2(&mut answer));
            serve(&worker, &origin, &mut Request { head, body, responder }).await;
        });
    }
}

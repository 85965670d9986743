//! A TCP connection of a local application: through the mesh by CONNECT where its destination is a service, straight
//! on where it is not.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Version};
use tokio::net::TcpStream;
use tracing::debug;
use weft_policy::route::Resolved;
use weft_transport::h3;
use weft_transport::http::{RecvBody, RequestHead, SendBody};
use weft_transport::tcp;

use super::attempts::{Attempt, Attempts};
use super::{Origin, goal, passthrough, resolve_target};
use crate::filtering::{self, Place};
use crate::mesh;
use crate::relay::{self, Progress};
use crate::reply::{Failure, Flag, Side, WEFT_REPLY};
use crate::snapshot::Snapshot;
use crate::telemetry::access_log::{self, Connection};
use crate::telemetry::series::PairMetrics;
use crate::worker::Worker;

/// Carries an application's connection to where it meant to go.
pub async fn serve(worker: &Rc<Worker>, stream: TcpStream, prefix: Bytes, origin: Origin) {
    let _in_flight = worker.in_flight.enter();
    let start = Instant::now();
    let Some(target) = &origin.target else { return };
    let name = target.to_string();
    let snapshot = worker.snapshot();
    let resolved = snapshot.as_ref().and_then(|snapshot| resolve_target(snapshot, snapshot.local(), target));
    let (Some(snapshot), Some(resolved)) = (&snapshot, resolved) else {
        return Box::pin(passthrough::tcp(worker, stream, prefix, target)).await;
    };
    let (mut read, mut write) = tcp::split(stream, &prefix);
    let mut metrics = None;
    let opened = open(worker, snapshot, &resolved, &origin, &mut metrics).await;
    let metrics = metrics.unwrap_or_else(|| worker.unknown_pair(Side::Outbound));
    let mut opened = match opened {
        Ok(opened) => opened,
        Err(failure) => {
            write.reset();
            return refused(worker, &name, &failure, &metrics, start);
        }
    };
    let series = metrics.tcp(Flag::None);
    series.opened.add(1);
    let (up, down) = (Progress::live(&series.received), Progress::live(&series.sent));
    let (mut from_app, mut to_app) = (RecvBody::Tcp(&mut read), SendBody::Tcp(&mut write));
    let idle = Duration::from_secs(worker.shared.config.limits.tunnel_idle_timeout_s);
    let end = {
        let (mut from_peer, mut to_peer) = opened.halves();
        relay::tunnel((&mut from_app, &mut to_app), (&mut from_peer, &mut to_peer), (&up, &down), idle).await
    };
    series.closed.add(1);
    log(worker, &name, &Flag::None, start, (&up, &down), Some(end.as_str()));
}

/// A tunnel that the far end accepted.
enum Streams {
    Peer(Box<(h3::RecvStream, h3::SendStream)>),
    /// To an endpoint outside the mesh, or by `danger_plaintext_tunnel`.
    Plain(Box<(tcp::Reader, tcp::Writer)>),
}

impl Streams {
    fn halves(&mut self) -> (RecvBody<'_>, SendBody<'_>) {
        match self {
            Streams::Peer(streams) => (RecvBody::H3(&mut streams.0), SendBody::H3(&mut streams.1)),
            Streams::Plain(streams) => (RecvBody::Tcp(&mut streams.0), SendBody::Tcp(&mut streams.1)),
        }
    }
}

/// Opens a tunnel to an endpoint; to another where the first could not be reached or provably did not take it. Notes in
/// `metrics` where it went.
async fn open(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    resolved: &Resolved<'_>,
    origin: &Origin,
    metrics: &mut Option<Rc<PairMetrics>>,
) -> Result<Streams, Failure> {
    let from = snapshot.local();
    let goal = goal(resolved.service, resolved.port, resolved.endpoint)?;
    let place = Place::outbound(origin, resolved.port, from);
    let _permit = filtering::connection(worker, &from.outbound, &place).await?;
    let mut attempts = Attempts::new(worker, snapshot, from, goal);
    *metrics = Some(attempts.unreached());
    loop {
        let attempt = attempts.pick()?;
        *metrics = Some(Rc::clone(&attempt.destination.metrics));
        match connect(worker, &attempt, goal.port, &from.source).await {
            Ok(streams) => {
                attempt.answered(true);
                return Ok(streams);
            }
            Err((failure, unprocessed)) => attempts.failed(attempt, failure, unprocessed)?,
        }
    }
}

/// One attempt at one endpoint. The flag says whether the connection provably was not taken.
async fn connect(
    worker: &Worker,
    attempt: &Attempt<'_>,
    port: u16,
    source: &HeaderValue,
) -> Result<Streams, (Failure, bool)> {
    let socket = SocketAddr::new(attempt.destination.endpoint.address, port);
    let Some(client) = attempt.connect().await.map_err(|failure| (failure, true))? else {
        let stream = worker.apps.connect(socket).await.map_err(|error| {
            (Failure::AppConnect { address: error.address.to_string(), reason: error.reason }, true)
        })?;
        attempt.reached();
        return Ok(Streams::Plain(Box::new(tcp::split(stream, &[]))));
    };
    let mut headers = HeaderMap::new();
    headers.insert(mesh::WEFT_SOURCE, source.clone());
    let head = RequestHead {
        method: Method::CONNECT,
        authority: Some(socket.to_string().parse().expect("a socket address is an authority")),
        path: None,
        absolute_form: false,
        target_authority: None,
        protocol: None,
        headers,
        version: Version::HTTP_11,
    };
    let (send, mut receive) = client
        .send(&head, false)
        .await
        .map_err(|error| (Failure::Unprocessed { to: "the peer", error: error.error }, error.unprocessed))?;
    let answer = receive
        .response_head()
        .await
        .map_err(|error| (Failure::NoAnswer { to: "the peer", error: error.error }, error.unprocessed))?;
    if answer.status.is_success() {
        return Ok(Streams::Peer(Box::new((receive, send))));
    }
    let told = answer.headers.get(WEFT_REPLY).and_then(|value| value.to_str().ok()).unwrap_or("no reason given");
    Err((Failure::TunnelRefused { status: answer.status, told: told.to_owned() }, false))
}

fn refused(worker: &Worker, name: &str, failure: &Failure, metrics: &PairMetrics, start: Instant) {
    let verdict = failure.verdict();
    worker.local_reply(Side::Outbound, &verdict);
    debug!(destination = name, error = %failure, "connection refused");
    let series = metrics.tcp(verdict.flag);
    series.opened.add(1);
    series.closed.add(1);
    let nothing = Progress::default();
    log(worker, name, &verdict.flag, start, (&nothing, &nothing), Some(&failure.to_string()));
}

fn log(
    worker: &Worker,
    name: &str,
    flag: &Flag,
    start: Instant,
    (up, down): (&Progress, &Progress),
    reason: Option<&str>,
) {
    if !worker.access_log_on() {
        return;
    }
    worker.access_log.write(access_log::connection_line(&Connection {
        side: Side::Outbound,
        duration: start.elapsed(),
        authority: name,
        upstream: None,
        flags: flag.letters(),
        bytes_received: up.bytes.get(),
        bytes_sent: down.bytes.get(),
        source: None,
        destination: None,
        rule: None,
        reason,
    }));
}

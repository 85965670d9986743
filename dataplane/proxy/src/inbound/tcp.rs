//! A TCP connection that a peer carries to the application beside us: CONNECT with the app's socket as authority.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};
use weft_transport::h3;
use weft_transport::http::{RecvBody, RequestHead, ResponseHead, SendBody};
use weft_transport::tcp;

use super::{Caller, place, served_socket};
use crate::filtering;
use crate::mesh;
use crate::relay::{self, Progress, TunnelEnd};
use crate::reply::{Failure, Flag, Side};
use crate::telemetry::access_log::{self, Connection};
use crate::worker::Worker;

/// Serves one CONNECT. Always answers, always counts.
pub async fn serve(
    worker: &Rc<Worker>,
    caller: &Caller,
    mut head: RequestHead,
    (receive, send): (&mut h3::RecvStream, &mut h3::SendStream),
) {
    let _in_flight = worker.in_flight.enter();
    let start = Instant::now();
    let said = mesh::take(&mut head);
    let authority = head.authority.as_ref().map(ToString::to_string).unwrap_or_default();
    let opened = open(worker, caller, &authority, &said).await;
    let (app, pair, permit) = match opened {
        Ok(opened) => opened,
        Err(failure) => return refuse(worker, caller, &authority, &failure, start, (receive, send)).await,
    };
    let _permit = permit;
    let head = ResponseHead { status: StatusCode::OK, headers: HeaderMap::new() };
    if send.response(&head, false).await.is_err() {
        return;
    }
    let series = pair.tcp(Flag::None);
    series.opened.add(1);
    let up = Progress::live(&series.received);
    let down = Progress::live(&series.sent);
    let (mut app_read, mut app_write) = tcp::split(app, &[]);
    let (mut from_peer, mut to_peer) = (RecvBody::H3(receive), SendBody::H3(send));
    let (mut from_app, mut to_app) = (RecvBody::Tcp(&mut app_read), SendBody::Tcp(&mut app_write));
    let idle = Duration::from_secs(worker.shared.config.limits.tunnel_idle_timeout_s);
    let end = relay::tunnel((&mut from_peer, &mut to_peer), (&mut from_app, &mut to_app), (&up, &down), idle).await;
    series.closed.add(1);
    log(worker, caller, &authority, start, (&up, &down), end);
}

type Opened = (tokio::net::TcpStream, Rc<crate::telemetry::PairMetrics>, weft_filter_host::Permit);

async fn open(worker: &Rc<Worker>, caller: &Caller, authority: &str, said: &mesh::Said) -> Result<Opened, Failure> {
    let snapshot = worker.snapshot().ok_or(Failure::NotReady)?;
    let socket: SocketAddr = authority.parse().map_err(|_| {
        worker.shared.counters.misdirected.increment(1);
        Failure::NotServed(format!("CONNECT '{authority}'"))
    })?;
    let (served, _port) = served_socket(worker, &snapshot, socket)?;
    // The filters' part ends here: a long connection must not hold an old snapshot.
    let mut filtered = filtering::connection(worker, &served.inbound, &place(caller, socket)).await?;
    let permit = filtered.take_permit().ok_or(Failure::NotReady)?;
    let app = worker
        .apps
        .connect(socket)
        .await
        .map_err(|error| Failure::AppConnect { address: error.address.to_string(), reason: error.reason })?;
    Ok((app, caller.metrics(worker, &snapshot, served, socket, said), permit))
}

async fn refuse(
    worker: &Worker,
    caller: &Caller,
    authority: &str,
    failure: &Failure,
    start: Instant,
    (receive, send): (&mut h3::RecvStream, &mut h3::SendStream),
) {
    let verdict = failure.verdict();
    let flag = if verdict.flag == Flag::Unauthorized { Flag::Deny } else { verdict.flag };
    worker.local_reply(Side::Inbound, &verdict);
    let series = worker.unknown_pair(Side::Inbound).tcp(flag);
    series.opened.add(1);
    series.closed.add(1);
    if worker.access_log_on() {
        let rule = failure.rule();
        worker.access_log.write(access_log::connection_line(&Connection {
            side: Side::Inbound,
            duration: start.elapsed(),
            authority,
            upstream: None,
            flags: flag.letters(),
            bytes_received: 0,
            bytes_sent: 0,
            source: Some(caller.identity.as_str()),
            destination: None,
            rule: rule.as_deref(),
            reason: Some(&failure.to_string()),
        }));
    }
    let (head, body) = failure.reply(Side::Inbound, false, true);
    if send.response(&head, body.is_empty()).await.is_ok() && !body.is_empty() {
        let _ = relay::send_all(SendBody::H3(send), body).await;
    }
    receive.stop(h3::Code::NO_ERROR);
}

fn log(
    worker: &Worker,
    caller: &Caller,
    authority: &str,
    start: Instant,
    (up, down): (&Progress, &Progress),
    end: TunnelEnd,
) {
    if !worker.access_log_on() {
        return;
    }
    worker.access_log.write(access_log::connection_line(&Connection {
        side: Side::Inbound,
        duration: start.elapsed(),
        authority,
        upstream: Some(authority),
        flags: Flag::None.letters(),
        bytes_received: up.bytes.get(),
        bytes_sent: down.bytes.get(),
        source: Some(caller.identity.as_str()),
        destination: None,
        rule: None,
        reason: Some(end.as_str()),
    }));
}

//! A TCP connection that a peer carries to the application beside us: CONNECT with the app's socket as authority. A port
//! that is declared http or grpc takes none. A policy that takes effect later holds for connections that stand already.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{HeaderMap, StatusCode};
use tokio::net::TcpStream;
use tracing::warn;
use weft_policy::bundle::{Protocol, TunnelRefusal};
use weft_transport::http::{RecvBody, RequestHead, Responder, ResponseHead, SendBody};
use weft_transport::mesh::Code;
use weft_transport::tcp;

use super::standing::until_denied;
use super::{Caller, served_socket};
use crate::apps::Share;
use crate::filtering::{self, Filtered, Place};
use crate::mesh::{self, Said};
use crate::record::connection::ConnectionRecord;
use crate::relay::{self, ClientGone, Idle, Source, TunnelEnd};
use crate::reply::{Failure, Form, Side};
use crate::snapshot::Snapshot;
use crate::sockets::PlainSocket;
use crate::telemetry::throttle;
use crate::worker::Worker;

/// Serves one CONNECT. Always answers, always counts.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    caller: &Caller,
    mut head: RequestHead,
    (body, mut responder): (RecvBody<'_>, Responder<'_>),
) {
    let _in_flight = worker.in_flight.enter();
    let said = mesh::take(&mut head);
    let authority = head.authority.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut record = ConnectionRecord::open(Side::Inbound, caller.address, authority);
    record.source = Some(caller.identity.to_string());
    let opened = {
        let opening = pin!(open(worker, caller, &head, &said, &mut record));
        // Filters may have it wait for minutes.
        relay::unless_gone(opening, Some(&mut responder)).await
    };
    let opened = match opened.unwrap_or_else(|ClientGone| Err(Failure::ClientGone)) {
        Ok(opened) => opened,
        Err(failure) => {
            refuse(&failure, body, responder, worker.idle()).await;
            return record.refused(&worker.ledger, worker.snapshot().as_ref(), &failure);
        }
    };
    let head = ResponseHead { status: StatusCode::OK, headers: HeaderMap::new() };
    match responder.head(&head, false).await {
        Ok(sink) => Box::pin(tunnel(worker, caller, opened, &mut record, (body, sink))).await,
        Err(_) => record.ended(TunnelEnd::ClientLost),
    }
    record.close(&worker.ledger, worker.snapshot().as_ref());
}

/// The app's side of a tunnel, open.
struct Opened<'w> {
    app: TcpStream,
    _share: Share,
    address: SocketAddr,
    filtered: Filtered<'w>,
    /// Set for a port of which nothing is declared.
    is_auto: bool,
    /// Its filters may ask others.
    may_ask: bool,
    /// The generation of the configuration that let it pass.
    judged_by: u64,
}

/// Opens the app's side. Notes in `record` where it goes.
async fn open<'w>(
    worker: &'w Rc<Worker>,
    caller: &Caller,
    head: &RequestHead,
    said: &Said,
    record: &mut ConnectionRecord,
) -> Result<Opened<'w>, Failure> {
    let snapshot = worker.snapshot().ok_or(Failure::NotReady)?;
    let authority = head.authority.as_ref().map_or("", |authority| authority.as_str());
    let address: SocketAddr = authority.parse().map_err(|_| {
        worker.ledger.counters.misdirected.increment(1);
        Failure::NotServed(format!("CONNECT '{authority}'"))
    })?;
    let found = served_socket(&snapshot, caller, address);
    let (served, port, socket) = found.inspect_err(|_| worker.ledger.counters.misdirected.increment(1))?;
    record.metrics = Some(caller.metrics(&worker.ledger, &snapshot, served, address, said));
    record.upstream = Some(address.to_string());
    record.destination = Some(served.workload.identity.to_string());
    port.takes_tunnels().map_err(Failure::TunnelForbidden)?;
    let place = Place { may_ask: !said.is_callout, ..caller.place(address, (served, port)) };
    let (filtered, permit) = filtering::connection(&worker.filters, &served.inbound, &place).await?;
    let socket = [PlainSocket::Served(socket)];
    let connected = worker.apps.connect(&socket, snapshot.connect_timeout(), &caller.holder, permit).await;
    let (app, share) = connected.map_err(|(failure, _)| Failure::Unserved(Box::new(failure)))?;
    let is_auto = port.protocol == Protocol::Auto;
    let may_ask = place.may_ask;
    Ok(Opened { app, _share: share, address, filtered, is_auto, may_ask, judged_by: snapshot.admits })
}

/// Carries bytes until an end, or until a policy denies the connection.
async fn tunnel(
    worker: &Rc<Worker>,
    caller: &Caller,
    opened: Opened<'_>,
    record: &mut ConnectionRecord,
    (body, mut to_peer): (RecvBody<'_>, SendBody<'_>),
) {
    let Opened { app, _share, address, mut filtered, is_auto, may_ask, judged_by } = opened;
    let (mut app_read, mut app_write) = tcp::split(app, &Bytes::new());
    let mut from_peer = Source::once(body);
    // An app behind such a port may believe what the mesh sets in the head of a request.
    if is_auto {
        from_peer.forbid_forgery();
    }
    let (mut from_app, mut to_app) = (Source::once(RecvBody::Tcp(&mut app_read)), SendBody::Tcp(&mut app_write));
    filtered.look_at_stream(&mut from_peer, &mut from_app);
    let ended = {
        let accounts = record.flows(&worker.ledger, worker.snapshot().as_ref());
        let (near, far) = ((&mut from_peer, &mut to_peer), (&mut from_app, &mut to_app));
        let tunnel = pin!(relay::tunnel(near, far, accounts, worker.idle()));
        let denied = until_denied(worker, judged_by, async |snapshot: &Snapshot| {
            let found = served_socket(snapshot, caller, address);
            let (served, port, _) = found.inspect_err(|_| worker.ledger.counters.misdirected.increment(1))?;
            port.takes_tunnels().map_err(Failure::TunnelForbidden)?;
            let place = Place { may_ask, ..caller.place(address, (served, port)) };
            let chain = served.inbound.authorization();
            filtering::connection(&worker.filters, &chain, &place).await.map(drop)
        });
        match select(tunnel, pin!(denied)).await {
            Either::Left((end, _)) => Ok(end),
            Either::Right((denied, _)) => Err(denied),
        }
    };
    let ended = if from_peer.is_forged() {
        let refused = Failure::TunnelForbidden(TunnelRefusal::Request { port: address.port() });
        if throttle::TUNNEL.first() {
            warn!(caller = %caller.identity, error = %refused, "tunnel cut");
        }
        Err(refused)
    } else {
        ended
    };
    match ended {
        Ok(end) => record.ended(end),
        Err(denied) => {
            relay::cut((&mut from_peer, &mut to_peer));
            relay::cut((&mut from_app, &mut to_app));
            record.failed(&denied);
        }
    }
    let (up, down) = record.moved();
    filtered.moved(up, down);
}

async fn refuse(failure: &Failure, mut request: RecvBody<'_>, responder: Responder<'_>, idle: Idle<'_>) {
    let (head, body) = failure.reply(Side::Inbound, Form::Http, true);
    // Not taken: the stream is reset when its task ends.
    let _ = relay::answer(responder, &head, body, idle).await;
    request.stop(Code::NO_ERROR);
}

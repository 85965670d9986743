//! One check of one endpoint: what is sent, by the way that ordinary requests take, and what its answer says. No filter of
//! the calling app runs for it, since no app sends it; those of the endpoint judge it as any request.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use weft_filter_host::{Chain, Permit};
use weft_flow::{Checked, Sign};
use weft_policy::bundle::{Endpoint, HealthCheck, HealthProbe, HttpProbe, ObjectName};
use weft_transport::http::{Frame, RequestHead, ResponseHead, ResponseRecv, SendBody, SendError, Target};
use weft_transport::quic::PeerKey;

use super::super::peer_leg::PeerConn;
use super::super::{outlier, tcp};
use crate::apps::{Conn, Holder};
use crate::filtering::{self, Place};
use crate::mesh::Stamp;
use crate::record::Unanswered;
use crate::relay::grpc_status;
use crate::reply::{Failure, Party, WEFT_REPLY, WEFT_UNSERVED, told};
use crate::snapshot::{Current, HeldWorkload};
use crate::sockets::PlainSocket;
use crate::telemetry::counters::HealthChecked;
use crate::worker::Worker;

/// Who asks, for the apps and for access policies that look at it.
const USER_AGENT: &str = "weft-health-check";

/// Bytes of an answer that are read. Of a longer one the head has said enough, and a message of gRPC is none.
const MAX_ANSWER: usize = 64 * 1_024;

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    result: HealthChecked,
    why: String,
}

impl Found {
    pub(super) fn passed() -> Self {
        Self { result: HealthChecked::Passed, why: String::new() }
    }

    fn failed(why: impl Into<String>) -> Self {
        Self { result: HealthChecked::Failed, why: why.into() }
    }

    /// The endpoint's proxy did not let its app see it.
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self { result: HealthChecked::Refused, why: why.into() }
    }

    /// It ended before its time.
    pub(super) fn given_up() -> Self {
        Self { result: HealthChecked::Undecided, why: "given up".to_owned() }
    }

    pub(super) fn late(limit: Duration) -> Self {
        Self { result: HealthChecked::Late, why: format!("no answer within {} ms", limit.as_millis()) }
    }

    fn of(failure: &Failure) -> Self {
        let why = failure.to_string();
        if let Failure::TunnelRefused { status, .. } = failure
            && status.is_client_error()
        {
            return Self::refused(why);
        }
        if failure.is_unreachable() || outlier::of_failure(failure) != Sign::Nothing {
            return Self::failed(why);
        }
        Self { result: HealthChecked::Undecided, why }
    }

    pub(super) fn checked(&self) -> Checked {
        match self.result {
            HealthChecked::Passed => Checked::Passed,
            HealthChecked::Failed | HealthChecked::Late => Checked::Failed,
            HealthChecked::Refused | HealthChecked::Undecided => Checked::Nothing,
        }
    }

    pub(super) fn is_refused(&self) -> bool {
        self.result == HealthChecked::Refused
    }

    pub(super) fn why(&self) -> &str {
        &self.why
    }

    pub(super) fn count(&self) {
        self.result.count();
    }
}

/// Everything that one check needs; it outlives the configuration.
pub(super) struct Ask {
    from: HeldWorkload,
    /// `None`: the endpoint is not in the mesh.
    peer: Option<PeerKey>,
    socket: SocketAddr,
    /// What the app is called where the check names no host.
    name: String,
    probe: HealthProbe,
    timeout: Duration,
}

impl Ask {
    pub(super) fn new(
        worker: &Worker,
        snapshot: &Current,
        (service, endpoint, port): (&ObjectName, &Endpoint, u16),
        check: &HealthCheck,
    ) -> Self {
        let from = snapshot.first();
        let identity = endpoint.identity.clone().filter(|_| !worker.shared.config.danger_plaintext_tunnel);
        Self {
            peer: identity.map(|peer| PeerKey::new(from.workload.identity.clone(), peer, endpoint.mesh_address)),
            from: snapshot.hold(from),
            socket: SocketAddr::new(endpoint.address, port),
            name: format!("{}.{}", service.name, service.namespace),
            probe: check.probe.clone(),
            timeout: Duration::from_millis(check.timeout_ms),
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) async fn run(&self, worker: &Worker) -> Found {
        let source: IpAddr = self.from.workload.address;
        let (nobody, place) = (Chain::new(Vec::new()), Place::outbound(source, self.socket.port(), &self.from));
        let (_filtered, permit) = match filtering::connection(&worker.filters, &nobody, &place).await {
            Ok(permitted) => permitted,
            Err(failure) => return Found::of(&failure),
        };
        let asked = match &self.peer {
            Some(peer) => Box::pin(self.over_the_mesh(worker, peer, permit)).await,
            None => Box::pin(self.plainly(worker, permit)).await,
        };
        match asked {
            Ok(found) | Err(found) => found,
        }
    }

    async fn over_the_mesh(&self, worker: &Worker, peer: &PeerKey, permit: Permit) -> Result<Found, Found> {
        let client = worker.pool.get(peer).await.map_err(|error| Found::failed(crate::chain(&error)))?;
        let conn = PeerConn::new(client.into(), permit);
        let Some((head, body)) = request(&self.probe, &self.name) else {
            let tunnel = conn.tunnel(&tcp::connect_head(self.socket, &self.from.source)).await;
            let mut tunnel = tunnel.map_err(|failed| Found::of(&failed.failure()))?;
            // Whatever becomes of it: that it was opened is all that was asked.
            _ = tunnel.halves().1.finish(None).await;
            return Ok(Found::passed());
        };
        let socket = HeaderValue::try_from(self.socket.to_string()).expect("a socket address is printable ASCII");
        let stamp = Stamp::new(&head, &socket, &self.from.source, 0);
        let opened = conn.open(&head, &stamp.added(), body.is_none()).await;
        let mut stream = opened.map_err(|failure| Found::of(&failure))?;
        answer(stream.exchange(), body, &self.probe, Party::Peer).await
    }

    /// To an endpoint that has no proxy. By a connection of its own: one that was kept says little.
    async fn plainly(&self, worker: &Worker, permit: Permit) -> Result<Found, Found> {
        let outside = worker.shared.guard.outside(self.socket, self.socket.ip()).map_err(|it| Found::of(&it))?;
        let (socket, timeout) = (PlainSocket::Outside(outside), self.timeout);
        let Some((head, body)) = request(&self.probe, &self.name) else {
            let is_open = worker.apps.answers(socket, timeout).await;
            return if is_open { Ok(Found::passed()) } else { Err(Found::failed("no connection could be made")) };
        };
        let holder = Holder::App(self.from.workload.address);
        let sockets = [socket];
        let connected = Box::pin(worker.apps.checkout_new(&sockets, head.version, timeout, &holder, permit)).await;
        let mut conn = connected.map_err(|(failure, _)| Found::of(&failure))?;
        match &mut conn.conn {
            Conn::H1(h1) => {
                let streams = h1.send(&head, body.is_none()).await.map_err(|error| unanswered(Party::App, error))?;
                answer(streams, body, &self.probe, Party::App).await
            }
            Conn::H2(h2) => {
                let sent = h2.slot.send(&head, body.is_none()).await;
                let (mut send, mut receive) = sent.map_err(|error| unanswered(Party::App, error))?;
                let streams = (SendBody::H2(&mut send), ResponseRecv::H2(&mut receive));
                answer(streams, body, &self.probe, Party::App).await
            }
        }
    }
}

fn unanswered(party: Party, error: SendError) -> Found {
    Found::of(&Unanswered::new(party, error).failure)
}

/// The request that a check sends, and its body. `None`: it opens a connection and sends nothing.
fn request(probe: &HealthProbe, name: &str) -> Option<(RequestHead, Option<Bytes>)> {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    let path = |text: &str| Target::from_shared(Bytes::copy_from_slice(text.as_bytes())).ok();
    match probe {
        HealthProbe::Http(HttpProbe { path: asked, host, .. }) => Some((
            RequestHead {
                method: Method::GET,
                authority: host.as_deref().unwrap_or(name).parse().ok(),
                path: path(asked),
                protocol: None,
                headers,
                version: Version::HTTP_11,
            },
            None,
        )),
        HealthProbe::Grpc(service) => {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
            let head = RequestHead {
                method: Method::POST,
                authority: name.parse().ok(),
                path: path("/grpc.health.v1.Health/Check"),
                protocol: None,
                headers,
                version: Version::HTTP_2,
            };
            Some((head, Some(question(service))))
        }
        HealthProbe::Tcp => None,
    }
}

/// The message HealthCheckRequest in its frame: field 1 is the service, and is left out where it is empty.
fn question(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut left = service.len();
        loop {
            let part = u8::try_from(left & 0x7f).unwrap_or_default();
            left >>= 7;
            message.push(if left > 0 { part | 0x80 } else { part });
            if left == 0 {
                break;
            }
        }
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0], &length[..], &message].concat().into()
}

/// Reads the answer, to its end where that is near, and judges it.
async fn answer(
    (mut up, mut answer): (SendBody<'_>, ResponseRecv<'_>),
    body: Option<Bytes>,
    probe: &HealthProbe,
    party: Party,
) -> Result<Found, Found> {
    if let Some(body) = body
        && up.data(body).await.is_ok()
    {
        // An answer that comes without the end of it tells as well.
        _ = up.finish(None).await;
    }
    let head = answer.final_head().await.map_err(|error| unanswered(party, error))?;
    if party == Party::Peer
        && let Some(found) = of_the_proxy(&head)
    {
        return Ok(found);
    }
    let (mut read, mut trailers, mut rest) = (Vec::new(), None, answer.into_body());
    while let Some(frame) =
        rest.frame().await.map_err(|error| unanswered(party, SendError { error, unprocessed: false }))?
    {
        match frame {
            Frame::Data(data) if read.len() + data.len() > MAX_ANSWER => break,
            Frame::Data(data) => read.extend_from_slice(&data),
            Frame::Trailers(fields) => trailers = Some(fields),
        }
    }
    Ok(match probe {
        HealthProbe::Http(http) if http.expects(head.status.as_u16()) => Found::passed(),
        HealthProbe::Http(_) => Found::failed(format!("answered {}", head.status.as_u16())),
        HealthProbe::Grpc(_) => of_grpc(&head, trailers.as_ref(), &read),
        HealthProbe::Tcp => Found::passed(),
    })
}

/// An answer that the endpoint's proxy made itself. That its app can't be had is the app's fault; that somebody may not ask
/// it says nothing of the app.
fn of_the_proxy(head: &ResponseHead) -> Option<Found> {
    if !head.headers.contains_key(WEFT_REPLY) {
        return None;
    }
    let grpc = grpc_status(&head.headers);
    let status = grpc.unwrap_or(head.status.as_u16());
    let why = format!("its proxy answered {status}: {}", told(&head.headers));
    let is_fault = match grpc {
        // DEADLINE_EXCEEDED and UNAVAILABLE.
        Some(status) => status == 4 || status == 14,
        None if !head.status.is_client_error() && !head.status.is_server_error() => return None,
        None => head.status.is_server_error(),
    };
    let is_fault = is_fault || head.headers.contains_key(WEFT_UNSERVED);
    Some(if is_fault { Found::failed(why) } else { Found::refused(why) })
}

/// `SERVING` of `grpc.health.v1`, and the names of the others.
const SERVING: u64 = 1;
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

fn of_grpc(head: &ResponseHead, trailers: Option<&HeaderMap>, body: &[u8]) -> Found {
    if head.status != StatusCode::OK {
        return Found::failed(format!("answered {}", head.status.as_u16()));
    }
    match trailers.and_then(grpc_status).or_else(|| grpc_status(&head.headers)) {
        Some(0) => {}
        Some(status) => return Found::failed(format!("answered grpc-status {status}")),
        None => return Found::failed("answered without a grpc-status"),
    }
    match serving_status(body) {
        Some(SERVING) => Found::passed(),
        Some(other) => {
            let name = usize::try_from(other).ok().and_then(|at| STATUSES.get(at)).copied();
            Found::failed(format!("is {}", name.unwrap_or("in a status that is not known")))
        }
        None => Found::failed("answered with what is no HealthCheckResponse"),
    }
}

/// Field 1 of the one message in a body. What else a later version says in it is passed over.
fn serving_status(body: &[u8]) -> Option<u64> {
    let (compressed, rest) = body.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let mut message = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    if *compressed != 0 {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        match (key >> 3, key & 7) {
            (1, 0) => status = varint(&mut message)?,
            (_, 0) => _ = varint(&mut message)?,
            (_, 1) => message = message.get(8..)?,
            (_, 5) => message = message.get(4..)?,
            (_, 2) => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            _ => return None,
        }
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

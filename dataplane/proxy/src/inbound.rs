//! The way in: a request from a peer's proxy to the application beside us. Reads top to bottom: who calls, which socket,
//! the path as the app will see it, what the filters say (authorization last), deliver.

pub mod connection;
pub mod plaintext;
pub mod tcp;

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use http::uri::PathAndQuery;
use http::{HeaderValue, Version};
use weft_policy::bundle::{Protocol, WorkloadPort};
use weft_policy::identity::SpiffeId;
use weft_transport::h3;
use weft_transport::http::{RecvBody, RequestHead, Responder};

use crate::app_leg;
use crate::destination::local_peer;
use crate::filtering::{self, Place};
use crate::mesh::{self, Said};
use crate::outbound::Call;
use crate::record::Record;
use crate::reply::{Failure, Side};
use crate::snapshot::{Served, Snapshot};
use crate::telemetry::series::{PairLabels, PairMetrics};
use crate::worker::Worker;

/// The proxy at the other end of a mesh connection, as its certificate says.
pub struct Caller {
    pub identity: SpiffeId,
    pub address: SocketAddr,
    pairs: RefCell<Pairs>,
    /// `x-forwarded-client-cert` of this caller's requests, and the workload that it was made for.
    client_cert: RefCell<Option<(SpiffeId, HeaderValue)>>,
}

/// Metric handles by what the caller says of itself, for one snapshot.
#[derive(Default)]
struct Pairs {
    generation: u64,
    known: Vec<(Option<HeaderValue>, SocketAddr, Rc<PairMetrics>)>,
}

/// Sources told apart on one connection; more share the last handle.
const MAX_PAIRS: usize = 64;

impl Caller {
    pub fn new(identity: SpiffeId, address: SocketAddr) -> Self {
        Self { identity, address, pairs: RefCell::default(), client_cert: RefCell::default() }
    }

    /// What the app of `own` is told of this caller; made once, since a caller nearly always talks to one workload.
    fn client_cert(&self, own: &SpiffeId) -> HeaderValue {
        let mut known = self.client_cert.borrow_mut();
        match &*known {
            Some((workload, value)) if workload == own => value.clone(),
            _ => {
                let value = mesh::client_cert(own, &self.identity);
                known.insert((own.clone(), value)).1.clone()
            }
        }
    }

    /// The series for what this caller sends to `socket`.
    pub fn metrics(
        &self,
        worker: &Worker,
        snapshot: &Snapshot,
        to: &Served,
        socket: SocketAddr,
        said: &Said,
    ) -> Rc<PairMetrics> {
        let mut pairs = self.pairs.borrow_mut();
        if pairs.generation != snapshot.generation {
            *pairs = Pairs { generation: snapshot.generation, known: Vec::new() };
        }
        let found = pairs.known.iter().find(|(source, to, _)| *to == socket && *source == said.source);
        if let Some((_, _, pair)) = found {
            return Rc::clone(pair);
        }
        if pairs.known.len() >= MAX_PAIRS
            && let Some((_, _, pair)) = pairs.known.last()
        {
            return Rc::clone(pair);
        }
        let service = to.workload.service.as_ref();
        let pair = worker.metrics.pair(&PairLabels {
            reporter: "destination",
            source: mesh::source_peer(&self.identity, said.source.as_ref()),
            destination: local_peer(to),
            destination_service: service
                .map(|name| format!("{}.{}.svc.cluster.local", name.name, name.namespace))
                .unwrap_or_default(),
            destination_service_name: service.map(|name| name.name.clone()).unwrap_or_default(),
            destination_service_namespace: service.map(|name| name.namespace.clone()).unwrap_or_default(),
            mutual_tls: true,
        });
        pairs.known.push((said.source.clone(), socket, Rc::clone(&pair)));
        pair
    }
}

/// Serves one request of a peer. Always answers, always counts.
pub async fn serve(
    worker: &Rc<Worker>,
    caller: &Caller,
    head: &mut RequestHead,
    (receive, send): (&mut h3::RecvStream, &mut h3::SendStream),
) {
    let _in_flight = worker.in_flight.enter();
    let mut body = RecvBody::H3(receive);
    let mut responder = Some(Responder::H3(send));
    let snapshot = worker.snapshot();
    let access_log = snapshot.as_ref().is_some_and(|snapshot| snapshot.mesh.access_log);
    let mut record = Record::open(Side::Inbound, head, access_log);
    let mut call = Call { head, body: &mut body, responder: &mut responder, record: &mut record };
    let result = match &snapshot {
        Some(snapshot) => carry(worker, snapshot, caller, &mut call).await,
        None => Err(Failure::NotReady),
    };
    if let Err(failure) = result {
        Box::pin(record.reply(worker, &failure, &mut responder)).await;
    }
    record.close(worker);
}

async fn carry(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    caller: &Caller,
    call: &mut Call<'_, '_>,
) -> Result<(), Failure> {
    let said = mesh::take(call.head);
    let socket = said.destination.ok_or_else(|| {
        worker.shared.counters.misdirected.increment(1);
        Failure::NotServed("a request without one weft-dst".to_owned())
    })?;
    let (served, port) = served_socket(worker, snapshot, socket)?;
    call.record.metrics = Some(caller.metrics(worker, snapshot, served, socket, &said));
    call.record.log(|log| {
        log.source = Some(caller.identity.to_string());
        log.destination = Some(served.workload.identity.to_string());
        log.upstream = Some(socket.to_string());
        log.version = said.version;
    });
    normalise_path(call.head)?;
    let own = &served.workload.identity;
    call.head.headers.insert(mesh::X_FORWARDED_CLIENT_CERT, caller.client_cert(own));
    let place = place(caller, socket);
    let mut filtered = filtering::request(worker, &served.inbound, &place, call.head).await?;
    let version = app_version(port.protocol, said.version, call.record.grpc);
    let _permit = filtered.take_permit().ok_or(Failure::NotReady)?;
    app_leg::carry(worker, socket, version, &mut filtered, call).await.map_err(|(failure, _)| failure)
}

/// Where an inbound request or connection stands when its filters see it.
fn place(caller: &Caller, socket: SocketAddr) -> Place<'_> {
    Place {
        direction: weft_policy::bundle::Direction::Inbound,
        principal: Some(caller.identity.as_str()),
        source: caller.address.ip(),
        destination_port: socket.port(),
    }
}

/// The served workload and port behind `socket`. Anything else is refused: a peer must not use us to reach what we can
/// reach and it cannot (confused deputy).
fn served_socket<'s>(
    worker: &Worker,
    snapshot: &'s Snapshot,
    socket: SocketAddr,
) -> Result<(&'s Served, &'s WorkloadPort), Failure> {
    let refused = || {
        worker.shared.counters.misdirected.increment(1);
        Failure::NotServed(socket.to_string())
    };
    let served = snapshot.served_at(socket.ip()).ok_or_else(refused)?;
    let port = served.workload.ports.iter().find(|port| port.port == socket.port()).ok_or_else(refused)?;
    Ok((served, port))
}

/// Puts the path into the one form that authorization and the application both see.
fn normalise_path(head: &mut RequestHead) -> Result<(), Failure> {
    let Some(path) = &head.path else { return Ok(()) };
    if path.path() == "*" {
        return Ok(());
    }
    let normalised = weft_policy::path::normalize(path.path())
        .map_err(|error| Failure::BadRequest(Cow::Owned(format!("path: {error}"))))?;
    if let Cow::Owned(normalised) = normalised {
        let text = match path.query() {
            Some(query) => format!("{normalised}?{query}"),
            None => normalised,
        };
        let path = PathAndQuery::try_from(text).map_err(|_| Failure::BadRequest("path: not a path".into()))?;
        head.path = Some(path);
    }
    Ok(())
}

/// The version to speak to the app: the one its caller's app spoke, unless the port says gRPC.
fn app_version(protocol: Protocol, said: Version, grpc: bool) -> Version {
    match (protocol, said) {
        (Protocol::Grpc, _) => Version::HTTP_2,
        (_, Version::HTTP_2) => Version::HTTP_2,
        _ if grpc => Version::HTTP_2,
        _ => Version::HTTP_11,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;

    fn check(path: &str, expect: &str) {
        let mut head = RequestHead {
            method: Method::GET,
            authority: None,
            path: Some(path.parse().unwrap()),
            absolute_form: false,
            target_authority: None,
            protocol: None,
            headers: HeaderMap::new(),
            version: Version::HTTP_11,
        };
        let seen = match normalise_path(&mut head) {
            Ok(()) => head.path.map(|path| path.to_string()).unwrap_or_default(),
            Err(failure) => failure.verdict().status.as_u16().to_string(),
        };
        assert_eq!(seen, expect, "{path}");
    }

    #[test]
    fn the_app_is_sent_the_path_that_was_judged() {
        check("/a/b?x=%2f", "/a/b?x=%2f");
        check("/app/%2E./admin?q=1", "/admin?q=1");
        check("//a///b", "/a/b");
        check("/a%2fb", "400");
        check("/a%5cb", "400");
    }

    #[test]
    fn apps_are_spoken_to_as_their_callers_speak() {
        assert_eq!(app_version(Protocol::Grpc, Version::HTTP_11, false), Version::HTTP_2);
        assert_eq!(app_version(Protocol::Http, Version::HTTP_2, false), Version::HTTP_2);
        assert_eq!(app_version(Protocol::Http, Version::HTTP_11, false), Version::HTTP_11);
        assert_eq!(app_version(Protocol::Auto, Version::HTTP_11, true), Version::HTTP_2);
    }
}

//! The proxy at the other end of a mesh connection, and what is kept of it between its requests.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use http::HeaderValue;
use weft_policy::bundle::WorkloadPort;
use weft_policy::identity::SpiffeId;

use crate::filtering::Place;
use crate::ledger::Ledger;
use crate::mesh::{self, Said};
use crate::snapshot::{Served, Snapshot};
use crate::telemetry::series::{PairLabels, PairMetrics};

/// The proxy at the other end of a mesh connection, as its certificate says.
pub struct Caller {
    pub identity: SpiffeId,
    pub address: SocketAddr,
    /// The workload that the connection was made for: whose certificate the caller was shown.
    pub served: SpiffeId,
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

/// Sources told apart on one connection; more share the last handle. Not in the configuration: it only bounds a search of
/// a list, and `limits.metric_sources_per_identity` bounds what is told apart.
const MAX_PAIRS: usize = 64;

impl Caller {
    pub(super) fn new(identity: SpiffeId, address: SocketAddr, served: SpiffeId) -> Self {
        Self { identity, address, served, pairs: RefCell::default(), client_cert: RefCell::default() }
    }

    /// Direction, caller and destination of its request or connection to `socket`, as filters are told.
    pub(super) fn place(&self, socket: SocketAddr, port: &WorkloadPort) -> Place<'_> {
        Place {
            direction: weft_policy::bundle::Direction::Inbound,
            principal: Some(self.identity.as_str()),
            source: self.address.ip(),
            destination_port: socket.port(),
            path_reading: port.path_reading,
        }
    }

    /// Header that tells the app of `own` of this caller; kept, since a caller nearly always talks to one workload.
    pub(super) fn client_cert(&self, own: &SpiffeId) -> HeaderValue {
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
    pub(super) fn metrics(
        &self,
        ledger: &Ledger,
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
        let pair = ledger.metrics.pair(&PairLabels {
            reporter: "destination",
            source: mesh::source_peer(&self.identity, said.source.as_ref()),
            destination: to.peer(),
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

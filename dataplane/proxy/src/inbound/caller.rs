//! The proxy at the other end of a mesh connection, and what is kept of it between its requests.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use http::HeaderValue;
use weft_flow::Claims;
use weft_policy::bundle::WorkloadPort;
use weft_policy::identity::SpiffeId;

use crate::apps::Holder;
use crate::filtering::Place;
use crate::ledger::Ledger;
use crate::mesh::{self, Said};
use crate::snapshot::{Served, Snapshot};
use crate::telemetry::counters::Limited;
use crate::telemetry::series::{PairLabels, PairMetrics};

/// The proxy at the other end of a mesh connection, as its certificate says.
pub struct Caller {
    pub identity: SpiffeId,
    pub address: SocketAddr,
    /// The workload that the connection was made for: whose certificate the caller was shown.
    pub served: SpiffeId,
    /// Whom the connections to apps that it causes are counted for.
    pub(super) holder: Holder,
    most_pairs: usize,
    /// What it may still say to have been sent before.
    pub(super) claims: Cell<Claims>,
    pairs: RefCell<Pairs>,
    /// `x-forwarded-client-cert` of this caller's requests, and the workload that it was made for.
    client_cert: RefCell<Option<(SpiffeId, HeaderValue)>>,
}

/// Metric handles by what the caller says of itself and the socket that it reaches, for one snapshot. The list is short:
/// it is searched. `limits.metric_sources_per_identity` bounds the sources that are told apart.
struct Pairs<T = Rc<PairMetrics>> {
    generation: u64,
    /// Ticks with each use.
    clock: u64,
    known: Vec<Pair<T>>,
}

struct Pair<T> {
    source: Option<HeaderValue>,
    socket: SocketAddr,
    handle: T,
    used: u64,
}

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self { generation: 0, clock: 0, known: Vec::new() }
    }
}

impl<T: Clone> Pairs<T> {
    fn enter(&mut self, generation: u64) {
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
        }
    }

    fn find(&mut self, source: Option<&HeaderValue>, socket: SocketAddr) -> Option<T> {
        self.clock += 1;
        let known = self.known.iter_mut().find(|pair| pair.socket == socket && pair.source.as_ref() == source)?;
        known.used = self.clock;
        Some(known.handle.clone())
    }

    /// Keeps a handle, in place of the longest unused one where there are `most` already. True where one had to go.
    fn keep(&mut self, source: Option<HeaderValue>, socket: SocketAddr, handle: T, most: usize) -> bool {
        let pair = Pair { source, socket, handle, used: self.clock };
        if self.known.len() < most.max(1) {
            self.known.push(pair);
            return false;
        }
        if let Some(oldest) = self.known.iter_mut().min_by_key(|pair| pair.used) {
            *oldest = pair;
        }
        true
    }
}

impl Caller {
    pub(super) fn new(identity: SpiffeId, address: SocketAddr, served: SpiffeId, most_pairs: usize) -> Self {
        let holder = Holder::Peer(identity.clone());
        Self {
            identity,
            holder,
            address,
            served,
            most_pairs,
            claims: Cell::default(),
            pairs: RefCell::default(),
            client_cert: RefCell::default(),
        }
    }

    /// Direction, caller and destination of its request or connection to `socket`, as filters are told.
    pub(super) fn place<'p>(&'p self, socket: SocketAddr, (served, port): (&'p Served, &WorkloadPort)) -> Place<'p> {
        let place = Place::inbound(self.identity.as_str(), self.address.ip(), (socket.ip(), socket.port()));
        Place { service: served.workload.service.as_ref(), path_reading: port.path_reading, ..place }
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
        pairs.enter(snapshot.generation);
        if let Some(pair) = pairs.find(said.source.as_ref(), socket) {
            return pair;
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
        if pairs.keep(said.source.clone(), socket, Rc::clone(&pair), self.most_pairs) {
            Limited::MetricPairs.hit();
        }
        pair
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_source_takes_the_place_of_the_longest_unused_and_nobodys_series() {
        let socket = SocketAddr::from(([127, 0, 0, 1], 80));
        let source = |nth: usize| HeaderValue::try_from(format!("w{nth};;")).unwrap();
        let mut pairs = Pairs::<usize>::default();
        pairs.enter(1);
        let mut ask = |nth: usize| {
            let known = pairs.find(Some(&source(nth)), socket);
            let evicted = known.is_none() && pairs.keep(Some(source(nth)), socket, nth, 64);
            (known.unwrap_or(nth), known.is_some(), evicted)
        };
        for nth in 0..64 {
            assert_eq!(ask(nth), (nth, false, false));
        }
        assert_eq!(ask(0), (0, true, false));
        assert_eq!(ask(64), (64, false, true), "it counts as itself, not as another");
        assert_eq!(ask(0), (0, true, false), "what was used lately stays");
        assert_eq!(ask(1), (1, false, true), "the longest unused went, and comes back as itself");
        pairs.enter(2);
        assert_eq!(pairs.find(Some(&source(0)), socket), None);
    }
}

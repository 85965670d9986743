//! Accounts of what one worker carries: the series of pairs of workloads, the access log, and the counters of rare
//! events. Requests and connections keep a record and enter it here once, at their end.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::Version;
use weft_policy::identity::SpiffeId;
use weft_transport::http::Refused;

use crate::reply::Side;
use crate::snapshot::Current;
use crate::telemetry::access_log::{self, AccessLog, Logged};
use crate::telemetry::counters::{self, Counters};
use crate::telemetry::series::{PairLabels, PairMetrics, Peer, RequestEnd, SeriesStore, WorkerMetrics};

/// The accounts of one worker.
pub struct Ledger {
    pub metrics: WorkerMetrics,
    pub access_log: AccessLog,
    pub counters: Counters,
    unknown: RefCell<Option<Unknown>>,
}

/// Series of requests that never found a destination, for one snapshot: outbound, inbound.
struct Unknown {
    generation: u64,
    pairs: [Rc<PairMetrics>; 2],
}

impl Ledger {
    pub fn new(store: Arc<SeriesStore>, access_log: AccessLog, counters: Counters) -> Self {
        Self { metrics: WorkerMetrics::new(store), access_log, counters, unknown: RefCell::default() }
    }

    /// Counts a request that a codec refused, and writes its line. `source`: the peer that sent it.
    pub fn refused(
        &self,
        (side, client): (Side, SocketAddr),
        source: Option<&SpiffeId>,
        version: Version,
        refused: &Refused,
        snapshot: Option<&Current>,
    ) {
        counters::refused(side, refused);
        tracing::debug!(side = side.as_str(), %client, reason = refused.reason, "request refused by its codec");
        if snapshot.is_some_and(|snapshot| snapshot.mesh.access_log) {
            let source = source.map(SpiffeId::as_str);
            self.access_log.write(access_log::refused_line(side, client, source, version, refused));
        }
    }

    /// Writes the line of a copy of a request. It is in no series: nobody asked for it.
    pub fn copied(&self, log: &Logged, end: &RequestEnd) {
        self.access_log.write(access_log::request_line(Side::Outbound, log, end));
    }

    /// The series of requests that never found a destination.
    pub fn unknown_pair(&self, side: Side, snapshot: Option<&Current>) -> Rc<PairMetrics> {
        let generation = snapshot.map_or(0, |snapshot| snapshot.generation);
        let index = usize::from(side == Side::Inbound);
        if let Some(known) = &*self.unknown.borrow()
            && known.generation == generation
        {
            return Rc::clone(&known.pairs[index]);
        }
        let local = snapshot.map(|snapshot| snapshot.first().peer()).unwrap_or_default();
        let pairs = [
            PairLabels { reporter: "source", source: local.clone(), ..PairLabels::default() },
            PairLabels {
                reporter: "destination",
                destination: local,
                source: Peer::default(),
                ..PairLabels::default()
            },
        ]
        .map(|labels| self.metrics.pair(&labels));
        let pair = Rc::clone(&pairs[index]);
        *self.unknown.borrow_mut() = Some(Unknown { generation, pairs });
        pair
    }
}

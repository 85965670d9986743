//! Which endpoint a request or a connection is sent to, and whether to another after it failed there: the one place that
//! picks, observes, withdraws from the retry budget and avoids, for HTTP and TCP alike.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use weft_flow::Outcome;
use weft_policy::bundle::{ObjectName, Service};
use weft_transport::h3;

use super::probe;
use crate::destination::{Destination, ServiceState};
use crate::reply::Failure;
use crate::snapshot::{Served, Snapshot};
use crate::telemetry::series::PairMetrics;
use crate::worker::Worker;

/// Where something is sent.
#[derive(Clone, Copy)]
pub(super) struct Goal<'s> {
    pub(super) service: &'s Service,
    /// The target port at the endpoints.
    pub(super) port: u16,
    /// Only this endpoint may serve it (addressed by its own IP).
    pub(super) direct: Option<&'s ObjectName>,
}

/// The attempts of one request or connection.
pub(super) struct Attempts<'a> {
    worker: &'a Rc<Worker>,
    goal: Goal<'a>,
    state: Rc<ServiceState>,
    max_retries: u32,
    /// Endpoints that could not be reached or provably did not take it.
    avoid: Vec<Rc<Destination>>,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(worker: &'a Rc<Worker>, snapshot: &Snapshot, from: &Served, goal: Goal<'a>) -> Self {
        let state = worker.destinations.service(snapshot, from, goal.service);
        Self { worker, goal, state, max_retries: snapshot.mesh.max_retries, avoid: Vec::new() }
    }

    /// For what never gets to an endpoint.
    pub(super) fn unreached(&self) -> Rc<PairMetrics> {
        Rc::clone(&self.state.unreached)
    }

    /// Picks the endpoint of the next attempt.
    pub(super) fn pick(&self) -> Result<Attempt<'a>, Failure> {
        let Self { worker, goal, state, .. } = self;
        let now = worker.now();
        if self.avoid.is_empty() {
            state.budget.borrow_mut().deposit(now);
        }
        let picked = match goal.direct {
            Some(workload) => state.direct(workload),
            None => state.pick(now, worker.dice(), &self.avoid),
        };
        probe::start_due(worker, state, goal.port, now);
        let destination = picked.ok_or_else(|| Failure::NoEndpoints { service: goal.service.name.to_string() })?;
        destination.vitals.started();
        Ok(Attempt { worker, state: Rc::clone(state), destination, start: Cell::new(now), outcome: Outcome::Cancelled })
    }

    /// Takes in why an attempt failed: `Ok` where another may follow, the failure where it stands.
    pub(super) fn failed(&mut self, attempt: Attempt<'_>, failure: Failure, unprocessed: bool) -> Result<(), Failure> {
        let (worker, unreachable) = (self.worker, failure.is_unreachable());
        let destination = Rc::clone(&attempt.destination);
        attempt.failed(unreachable);
        if !unprocessed || self.avoid.len() >= self.max_retries as usize || unreachable && self.was_last() {
            return Err(failure);
        }
        // What reached nobody loaded nobody: a crowd that waited for one connection in vain may all try another.
        if !unreachable && !self.state.budget.borrow_mut().withdraw(worker.now()) {
            worker.shared.counters.retries_refused.increment(1);
            return Err(failure);
        }
        worker.shared.counters.retries.increment(1);
        tracing::debug!(destination = %destination.endpoint.workload, error = %failure, "trying again");
        self.avoid.push(destination);
        Ok(())
    }

    /// True where every endpoint has been tried.
    fn was_last(&self) -> bool {
        self.goal.direct.is_some() || self.avoid.len() + 1 >= self.state.size()
    }
}

/// One attempt at one endpoint. Tells the balancer how it went, whichever way it ends.
pub(super) struct Attempt<'a> {
    worker: &'a Rc<Worker>,
    state: Rc<ServiceState>,
    pub(super) destination: Rc<Destination>,
    /// When a connection was there: dialling is no part of an endpoint's latency.
    start: Cell<Duration>,
    outcome: Outcome,
}

impl Attempt<'_> {
    /// A client of the endpoint's proxy; `None`: it is spoken to in plain text.
    pub(super) async fn connect(&self) -> Result<Option<h3::Client>, Failure> {
        let Some(peer) = self.destination.peer(self.worker) else { return Ok(None) };
        match self.worker.pool.get(peer).await {
            Ok(client) => {
                self.start.set(self.worker.now());
                self.reached();
                Ok(Some(client))
            }
            Err(error) => Err(Failure::PeerConnect { address: peer.address().to_string(), reason: error.to_string() }),
        }
    }

    /// There is a connection to the endpoint.
    pub(super) fn reached(&self) {
        if !self.destination.vitals.is_reachable() {
            self.state.reached(&self.destination, self.worker.now());
        }
    }

    /// It was answered. `good`: by what does not speak against the endpoint.
    pub(super) fn answered(mut self, good: bool) {
        self.outcome = if good { Outcome::Success } else { Outcome::Failure };
    }

    fn failed(mut self, unreachable: bool) {
        if unreachable {
            self.state.not_reached(&self.destination, self.worker.now(), self.worker.dice());
        }
        self.outcome = Outcome::Failure;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let now = self.worker.now();
        self.destination.vitals.finished(now, now.saturating_sub(self.start.get()), self.outcome);
    }
}

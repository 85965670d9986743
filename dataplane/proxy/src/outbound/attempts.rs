//! Which endpoint a request or a connection is sent to, and whether to another after it failed there: the one place that
//! picks, observes, withdraws from the retry budget and avoids, for HTTP and TCP alike.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};
use weft_filter_host::Permit;
use weft_flow::{Deadline, Outcome, Sign};
use weft_policy::bundle::{ObjectName, Service};
use weft_policy::route::{KeptTarget, Target};
use weft_transport::mesh::MeshClient;
use weft_transport::quic::PeerKey;

use super::affinity::{Affinity, affinity};
use super::peer_leg::PeerConn;
use super::{outlier, probe};
use crate::apps::NotConnected;
use crate::destination::{Destination, ServiceState};
use crate::gate::Gate;
use crate::reply::Failure;
use crate::snapshot::{Served, Snapshot};
use crate::telemetry::counters::Limited;
use crate::telemetry::series::PairMetrics;
use crate::worker::Worker;

/// Destination that a request or connection is sent to.
#[derive(Clone, Copy)]
pub(super) struct Goal<'s> {
    pub(super) service: &'s Service,
    /// The port at the endpoints.
    pub(super) target: Target<'s>,
    /// Only this endpoint may serve it (addressed by its own IP).
    pub(super) direct: Option<&'s ObjectName>,
}

/// The attempts of one request or connection. They hold nothing of the snapshot that they were made from: endpoints come
/// and go meanwhile.
pub(super) struct Attempts<'a> {
    worker: &'a Rc<Worker>,
    /// The port at each endpoint.
    target: KeptTarget,
    connect_timeout: Duration,
    /// Only this endpoint may serve it.
    direct: Option<ObjectName>,
    /// What keeps it together with others.
    key: Option<u64>,
    /// The end of its time: an attempt that is given up after it failed.
    deadline: Deadline,
    state: Rc<ServiceState>,
    max_retries: u32,
    /// Endpoints that may be tried, however many there are.
    most: usize,
    /// Attempts that reached an endpoint, which did not take them.
    refusals: u32,
    /// Endpoints that could not be reached or provably did not take it.
    avoid: Vec<Rc<Destination>>,
}

impl<'a> Attempts<'a> {
    /// `headers`: of the request; `None` for a connection whose bytes are not looked into.
    pub(super) fn new(
        worker: &'a Rc<Worker>,
        snapshot: &Snapshot,
        from: &Served,
        goal: Goal<'_>,
        headers: Option<&HeaderMap>,
    ) -> Self {
        let affinity = affinity(goal.service, from, headers);
        if affinity == Affinity::Lacking && goal.direct.is_none() {
            worker.ledger.counters.without_hash_key.increment(1);
        }
        let state = worker.destinations.service(snapshot, from, goal.service, goal.target.partial());
        let (max_retries, most) = (snapshot.mesh.max_retries, worker.shared.config.limits.endpoints_tried);
        Self {
            worker,
            target: goal.target.keep(),
            connect_timeout: snapshot.connect_timeout(),
            direct: goal.direct.cloned(),
            key: affinity.key(),
            deadline: Deadline::NEVER,
            state,
            max_retries,
            most,
            refusals: 0,
            avoid: Vec::new(),
        }
    }

    /// They have so long, all together.
    pub(super) fn within(self, limit: Option<Duration>) -> Self {
        Self { deadline: Deadline::after(self.worker.now(), limit), ..self }
    }

    /// The gate that a request has to pass before its first attempt, and its destination.
    pub(super) fn gate(&self) -> Option<(Arc<Gate>, &ObjectName)> {
        Some((self.state.gate()?, &self.state.name))
    }

    /// Series of a request that reaches no endpoint.
    pub(super) fn unreached(&self) -> Rc<PairMetrics> {
        Rc::clone(&self.state.unreached)
    }

    /// Picks the endpoint of the next attempt.
    pub(super) fn pick(&self) -> Result<Attempt<'a>, Failure> {
        let Self { worker, state, .. } = self;
        let now = worker.now();
        if self.avoid.is_empty() {
            state.budget.borrow_mut().deposit(now);
        }
        let picked = match &self.direct {
            Some(workload) => state.direct(workload),
            None => state.pick(now, worker.dice(), self.key, &self.avoid),
        };
        probe::start_due(worker, state, (self.target, self.connect_timeout), now);
        let picked = picked.and_then(|picked| Some((state.target(self.target, &picked.endpoint.workload)?, picked)));
        let nobody = || Failure::NoEndpoints { service: state.name.to_string() };
        let (port, destination) = picked.ok_or_else(nobody)?;
        destination.vitals.started();
        let last = self.is_last(&destination);
        Ok(Attempt {
            worker,
            state: Rc::clone(state),
            destination,
            port,
            connect_timeout: self.connect_timeout,
            last,
            picked: now,
            deadline: self.deadline,
            start: Cell::new(now),
            end: None,
            outcome: Outcome::Cancelled,
            sign: Sign::Nothing,
        })
    }

    /// Takes in why an attempt failed that nobody processed: `Ok` where another may follow, the failure where it stands.
    pub(super) fn failed(&mut self, attempt: Attempt<'_>, failure: Failure) -> Result<(), Failure> {
        let (worker, unreachable) = (self.worker, failure.is_unreachable());
        // The endpoint's own proxy says that its app can't be had: asking it again would change nothing.
        let hopeless = unreachable || failure.is_unserved();
        let destination = Rc::clone(&attempt.destination);
        let failure = attempt.ended(failure);
        self.avoid.push(Rc::clone(&destination));
        self.refusals += u32::from(!unreachable);
        if self.refusals > self.max_retries || hopeless && self.was_last() {
            return Err(failure);
        }
        if self.avoid.len() >= self.most {
            Limited::EndpointsTried.hit();
            return Err(failure);
        }
        // A failed connect costs the callee nothing, so it doesn't draw on the retry budget.
        if !unreachable && !self.state.budget.borrow_mut().withdraw(worker.now()) {
            worker.ledger.counters.retries_refused.increment(1);
            return Err(failure);
        }
        worker.ledger.counters.retries.increment(1);
        tracing::debug!(destination = %destination.endpoint.workload, error = %failure, "trying again");
        Ok(())
    }

    /// True where nothing is left to try after `picked`.
    fn is_last(&self, picked: &Rc<Destination>) -> bool {
        self.direct.is_some() || self.avoid.len() + 1 >= self.most || self.state.all_among_or(&self.avoid, picked)
    }

    /// True where each endpoint that there is now has been tried. Told from the set of those tried: endpoints come and go
    /// while a request is under way.
    fn was_last(&self) -> bool {
        self.direct.is_some() || self.state.all_among(&self.avoid)
    }
}

/// The one attempt of a copy of a request, which may outlive the request and the configuration.
pub(super) struct Once {
    target: KeptTarget,
    connect_timeout: Duration,
    key: Option<u64>,
    state: Rc<ServiceState>,
}

impl<'a> Attempts<'a> {
    /// One of them, for a task of its own.
    pub(super) fn once(self) -> Once {
        let Self { target, connect_timeout, key, state, .. } = self;
        Once { target, connect_timeout, key, state }
    }

    pub(super) fn again(worker: &'a Rc<Worker>, once: Once) -> Self {
        let Once { target, connect_timeout, key, state } = once;
        Self {
            worker,
            target,
            connect_timeout,
            direct: None,
            key,
            deadline: Deadline::NEVER,
            state,
            max_retries: 0,
            most: 1,
            refusals: 0,
            avoid: Vec::new(),
        }
    }
}

/// One attempt at one endpoint. Tells the balancer how it went, whichever way it ends.
pub(super) struct Attempt<'a> {
    worker: &'a Rc<Worker>,
    state: Rc<ServiceState>,
    pub(super) destination: Rc<Destination>,
    /// The app's, at this endpoint.
    pub(super) port: u16,
    pub(super) connect_timeout: Duration,
    /// No other endpoint is left, so a silent one is waited for.
    last: bool,
    picked: Duration,
    deadline: Deadline,
    /// When a connection was there: dialling is no part of an endpoint's latency.
    start: Cell<Duration>,
    end: Option<Duration>,
    outcome: Outcome,
    sign: Sign,
}

impl Attempt<'_> {
    /// A connection to the endpoint's proxy, for what `permit` lets pass.
    pub(super) async fn connect(&self, peer: &PeerKey, permit: Permit) -> Result<PeerConn, NotConnected> {
        match self.client(peer).await {
            Ok(client) => Ok(PeerConn::new(client, permit)),
            Err(failure) => Err((failure, permit)),
        }
    }

    /// Makes sure that there is a connection to the endpoint's proxy.
    pub(super) async fn reach(&self, peer: &PeerKey) -> Result<(), Failure> {
        self.client(peer).await.map(drop)
    }

    async fn client(&self, peer: &PeerKey) -> Result<MeshClient, Failure> {
        let (pool, timeout) = (&self.worker.pool, self.connect_timeout);
        let connected = if self.last {
            Ok(Box::pin(pool.get_patiently(peer, timeout)).await)
        } else {
            tokio::time::timeout(timeout, pool.get(peer)).await
        };
        let reason = match connected {
            Ok(Ok(client)) => {
                // Dialling is no part of the latency that the balancer learns.
                self.start.set(self.worker.now());
                self.reached();
                return Ok(client.into());
            }
            Ok(Err(error)) => crate::chain(&error),
            Err(_) => format!("no connection within {} ms", timeout.as_millis()),
        };
        Err(Failure::PeerConnect { address: peer.address().to_string(), reason })
    }

    /// There is a connection to the endpoint.
    pub(super) fn reached(&self) {
        if !self.destination.vitals.is_reachable() {
            self.state.reached(&self.destination, self.worker.now());
        }
    }

    /// The endpoint answered; `status`: where it did so by one. `at`: when its head came, which ends the latency
    /// that the balancer learns, however long the body takes.
    pub(super) fn answered(mut self, status: Option<StatusCode>, at: Option<Instant>) {
        self.end = at.map(|at| self.worker.time_of(at));
        self.sign = status.map_or(Sign::Good, outlier::of_status);
        self.outcome = if self.sign == Sign::Good { Outcome::Success } else { Outcome::Failure };
    }

    /// It was not answered; `failure` says why and is given back.
    pub(super) fn ended(mut self, failure: Failure) -> Failure {
        if failure.is_unreachable() {
            self.state.not_reached(&self.destination, self.worker.now(), self.worker.dice());
        }
        self.outcome = Outcome::Failure;
        self.sign = outlier::of_failure(&failure);
        failure
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let now = self.worker.now();
        let latency = self.end.unwrap_or(now).saturating_sub(self.start.get());
        self.destination.vitals.finished(now, latency, self.outcome);
        // Given up at its deadline, not by its client.
        let is_late = self.outcome == Outcome::Cancelled && self.deadline.is_over(now);
        let sign = if is_late { Sign::LocalFailure } else { self.sign };
        if self.state.ended(&self.destination, self.picked, now, self.worker.dice(), sign) {
            self.worker.ledger.counters.ejections.increment(1);
            tracing::info!(destination = %self.destination.endpoint.workload, "ejected: it failed too often in a row");
        }
    }
}

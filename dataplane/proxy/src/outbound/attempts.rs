//! Which endpoint a request or a connection is sent to, and whether to another after it failed there: the one place that
//! picks, observes, withdraws from the retry budget and avoids, for HTTP and TCP alike.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use weft_filter_host::Permit;
use weft_flow::{Deadline, Outcome, Purpose, Sign, Wanted};
use weft_policy::bundle::{Hedge, ObjectName, Retry, Service};
use weft_policy::route::{KeptTarget, Target};
use weft_transport::http::RequestHead;
use weft_transport::mesh::MeshClient;
use weft_transport::quic::PeerKey;

use super::affinity::{Affinity, affinity};
use super::holds::Holds;
use super::peer_leg::PeerConn;
use super::repeating::{Repeating, Rule, may_send_again};
use super::session::Session;
use super::{outlier, probe};
use crate::apps::NotConnected;
use crate::call::Call;
use crate::deadline::Until;
use crate::destination::{Destination, ServiceState};
use crate::gate::{Gate, Place, Wait};
use crate::mesh::Stamp;
use crate::relay::Answered;
use crate::reply::Failure;
use crate::snapshot::{Served, Snapshot};
use crate::telemetry::counters::Limited;
use crate::telemetry::series::PairMetrics;
use crate::trial::{End, Ends, Flow, Trial};
use crate::worker::Worker;

/// Dialling ends so much before the time of its attempt does, so that the attempt knows of it.
const AHEAD: Duration = Duration::from_millis(5);

/// Destination that a request or connection is sent to.
#[derive(Clone, Copy)]
pub(super) struct Goal<'s> {
    pub(super) service: &'s Service,
    /// The port at the endpoints.
    pub(super) target: Target<'s>,
    /// Only this endpoint may serve it (addressed by its own IP).
    pub(super) direct: Option<&'s ObjectName>,
    /// It is an ExternalService: nobody is picked.
    pub(super) outside: bool,
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
    /// What they are for, and what keeps it together with others.
    key: Wanted,
    /// The end of their time on the worker's clock.
    deadline: Deadline,
    until: Until,
    attempt_timeout: Option<Duration>,
    repeating: Option<Rc<Repeating>>,
    /// What keeps it at one endpoint, for as long as that takes requests.
    session: Option<Box<Session>>,
    /// What has another made beside one that is slow.
    hedge: Option<Hedge>,
    state: Rc<ServiceState>,
    max_retries: u32,
    /// Endpoints that may be tried, however many there are.
    most: usize,
    /// Attempts that reached an endpoint, which did not take them.
    refusals: u32,
    /// Endpoints that could not be reached or provably did not take it.
    avoid: Vec<Rc<Destination>>,
    /// They count in the retry budget.
    counts: bool,
    /// Endpoints that may have taken it, and are tried again only where there is no other.
    tried: Vec<Rc<Destination>>,
    /// What their request holds of its destination.
    holds: Rc<Holds>,
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
        let purpose = if headers.is_some() { Purpose::Request } else { Purpose::Connection };
        Self::wanting(worker, snapshot, from, goal, Wanted { purpose, key: affinity.key() })
    }

    /// Of a CONNECT whose bytes are still to come: it takes nothing that the requests inside it take.
    pub(super) fn to_reach(worker: &'a Rc<Worker>, snapshot: &Snapshot, from: &Served, goal: Goal<'_>) -> Self {
        let key = affinity(goal.service, from, None).key();
        Self::wanting(worker, snapshot, from, goal, Wanted { purpose: Purpose::Reach, key })
    }

    fn wanting(worker: &'a Rc<Worker>, snapshot: &Snapshot, from: &Served, goal: Goal<'_>, key: Wanted) -> Self {
        let state = match goal.outside {
            true => worker.destinations.outside(snapshot, from, goal.service),
            false => worker.destinations.service(snapshot, from, goal.service, goal.target.partial()),
        };
        let once = Once { target: goal.target.keep(), connect_timeout: snapshot.connect_timeout(), key, state };
        Self {
            direct: goal.direct.cloned(),
            hedge: goal.service.traffic.as_ref().and_then(|traffic| traffic.hedge),
            max_retries: snapshot.mesh.max_retries,
            most: worker.shared.config.limits.endpoints_tried,
            ..Self::single(worker, once)
        }
    }

    /// One attempt, for as long as it takes.
    fn single(worker: &'a Rc<Worker>, once: Once) -> Self {
        let Once { target, connect_timeout, key, state } = once;
        Self {
            worker,
            target,
            connect_timeout,
            direct: None,
            key,
            deadline: Deadline::NEVER,
            until: Until::default(),
            attempt_timeout: None,
            repeating: None,
            session: None,
            hedge: None,
            state,
            max_retries: 0,
            most: 1,
            refusals: 0,
            avoid: Vec::new(),
            counts: true,
            tried: Vec::new(),
            holds: Rc::default(),
        }
    }

    /// They have so long, all together.
    pub(super) fn within(self, until: Until) -> Self {
        let deadline = until.end().map_or(Deadline::NEVER, |end| Deadline::at(self.worker.time_of(end.at().into())));
        Self { deadline, until, ..self }
    }

    /// They belong to this session.
    pub(super) fn in_session(self, session: Option<Session>) -> Self {
        Self { session: session.map(Box::new), ..self }
    }

    /// The field by which an answer to this attempt tells its client of its session.
    pub(super) fn session_field(&self, attempt: &Attempt<'_>) -> Option<(HeaderName, HeaderValue)> {
        self.session.as_ref()?.field(attempt.destination.session())
    }

    /// Each of them has so long, and further ones follow as `retry` has it for a request with this method.
    pub(super) fn each(self, limit: Option<Duration>, retry: Option<&Retry>, (method, grpc): (&Method, bool)) -> Self {
        let repeating = retry.map(|retry| {
            let rule = Rule::new(retry, method, grpc);
            let (worker, state) = (self.worker, &self.state);
            Rc::new(Repeating::new(worker, state, retry, rule, self.max_retries, self.deadline, &self.holds))
        });
        Self { attempt_timeout: limit, repeating, ..self }
    }

    /// What has it sent again although somebody may have acted on it. `None`: nothing.
    pub(super) fn repeating(&self) -> Option<Rc<Repeating>> {
        self.repeating.clone()
    }

    /// The end of an attempt that begins now, and what tells whether that counts: one whose answer is a stream has none of its
    /// own. Its trial is told the ends by this and by the time of them all.
    pub(super) fn bounds<'t>(&self, trial: Option<&Trial<'t>>) -> (Ends, Option<&'t Flow>) {
        let own = self.attempt_timeout.and_then(|limit| End::after(limit, tokio::time::Instant::now()));
        let (whole, all) = (own, self.until.ends());
        Trial::set_ends(trial, Ends { whole: End::earlier(whole, all.whole), ..all });
        (Ends { whole, stream: None }, Trial::flow(trial))
    }

    /// The gate that a request has to pass before its first attempt, and its destination.
    pub(super) fn gate(&self) -> Option<(Arc<Gate>, &ObjectName)> {
        Some((self.state.gate()?, &self.state.name))
    }

    /// Whether a request may wait for that.
    pub(super) fn wait(&self) -> Wait {
        let is_unreachable = match &self.direct {
            Some(workload) => self.state.direct(workload).is_none_or(|only| !only.vitals.is_reachable()),
            None => self.state.is_unreachable(),
        };
        if is_unreachable { Wait::Never } else { Wait::AsSet }
    }

    /// Holds the place that their request was given.
    pub(super) fn hold(&self, place: Place) {
        self.holds.place(place);
    }

    /// What their request holds of its destination, to be told of its answer.
    pub(super) fn holds(&self) -> Rc<Holds> {
        Rc::clone(&self.holds)
    }

    /// Series of a request that reaches no endpoint.
    pub(super) fn unreached(&self) -> Rc<PairMetrics> {
        Rc::clone(&self.state.unreached)
    }

    /// Begins the next attempt, and gives the moment on the worker's clock; the first counts in the retry budget.
    ///
    /// # Errors
    /// Their time is over.
    pub(super) fn begin(&self) -> Result<Duration, Failure> {
        let now = tokio::time::Instant::now();
        self.until.check(now)?;
        if self.counts {
            self.holds.count(&self.state.budget);
        }
        Ok(self.worker.time_of(now.into_std()))
    }

    /// How long one of them may take to connect: who has a time of its own is not waited for beyond it.
    pub(super) fn connect_timeout(&self) -> Duration {
        let limit = self.attempt_timeout.map(|limit| limit.saturating_sub(AHEAD));
        limit.map_or(self.connect_timeout, |limit| self.connect_timeout.min(limit))
    }

    /// The ends of their time, and how their callee is told of them.
    pub(super) fn until(&self) -> &Until {
        &self.until
    }

    /// Picks the endpoint of the next attempt.
    pub(super) fn pick(&self) -> Result<Attempt<'a>, Failure> {
        let now = self.begin()?;
        let Self { worker, state, .. } = self;
        let picked = match &self.direct {
            Some(workload) => state.direct(workload),
            None => self
                .kept()
                .or_else(|| self.among_untried(now))
                .or_else(|| state.pick(now, worker.dice(), self.key, &self.avoid)),
        };
        probe::start_due(worker, state, (self.target, self.connect_timeout), now);
        let picked = picked.and_then(|picked| Some((state.target(self.target, &picked.endpoint.workload)?, picked)));
        let nobody = || Failure::NoEndpoints { service: state.name.to_string() };
        let (port, destination) = picked.ok_or_else(nobody)?;
        Ok(self.attempt_at(destination, port, now, self.tried.len()))
    }

    /// Begins an attempt, beyond so many others that had the request.
    fn attempt_at(&self, destination: Rc<Destination>, port: u16, now: Duration, others: usize) -> Attempt<'a> {
        let Self { worker, state, .. } = self;
        destination.vitals.started();
        if let Some(nearness) = destination.nearness().filter(|_| self.is_spread()) {
            worker.ledger.counters.near(nearness).increment(1);
        }
        let last = self.is_last(&destination);
        Attempt {
            worker,
            state: Rc::clone(state),
            destination,
            port,
            connect_timeout: self.connect_timeout(),
            // Who has a time of its own is not waited for beyond it.
            last: last && self.attempt_timeout.is_none(),
            purpose: self.key.purpose,
            picked: now,
            was_given: false,
            start: Cell::new(now),
            repeat: u32::try_from(others).unwrap_or(u32::MAX),
            until: self.until.clone(),
            end: None,
            outcome: Outcome::Cancelled,
            sign: Sign::Nothing,
        }
    }

    /// How long the first attempt has for itself, where another may be made beside it: its request has no body, belongs
    /// to no session and may be at two endpoints at once.
    pub(super) fn hedge_after(&self, attempt: &Attempt<'_>, call: &Call<'_, '_>) -> Option<Duration> {
        let hedge = self.hedge.filter(|hedge| hedge.takes(call.head.method.as_str()))?;
        let is_alone = self.tried.is_empty() && self.direct.is_none() && self.session.is_none();
        let is_whole = call.body.is_end() && call.head.protocol.is_none() && call.trial.is_some();
        let after = Duration::from_millis(hedge.after_ms);
        (is_alone && is_whole && attempt.destination.peer().is_some()).then_some(after)
    }

    /// An attempt beside one whose answer is slow, at an endpoint that has not had the request, as far as limits and
    /// budget let it be.
    pub(super) fn beside(&self, slow: &Attempt<'_>) -> Option<Attempt<'a>> {
        let Self { worker, state, avoid, .. } = self;
        let now = worker.now();
        let had: Vec<_> = avoid.iter().chain([&slow.destination]).cloned().collect();
        let picked = state.pick(now, worker.dice(), self.key, &had)?;
        let port = state.target(self.target, &picked.endpoint.workload)?;
        if picked.peer().is_none() || had.iter().any(|one| Rc::ptr_eq(one, &picked)) {
            return None;
        }
        may_send_again(worker, state, &self.holds, now)
            .then(|| self.attempt_at(picked, port, now, self.tried.len() + 1))
    }

    /// True for what goes to any endpoint that is picked, and is sent there.
    fn is_spread(&self) -> bool {
        self.direct.is_none() && self.key.purpose != Purpose::Reach
    }

    /// The endpoint of its session, where that takes requests and has not failed it.
    fn kept(&self) -> Option<Rc<Destination>> {
        let mark = self.session.as_ref()?.endpoint()?;
        if !self.avoid.is_empty() || !self.tried.is_empty() {
            return None;
        }
        let kept = self.state.in_session(mark);
        if kept.is_none() {
            self.worker.ledger.counters.sessions_moved.increment(1);
        }
        kept
    }

    /// One that has not had the request, where it is sent again although others may have acted on it.
    fn among_untried(&self, now: Duration) -> Option<Rc<Destination>> {
        let Self { worker, state, avoid, tried, .. } = self;
        if tried.is_empty() {
            return None;
        }
        let had: Vec<_> = avoid.iter().chain(tried).cloned().collect();
        let untried = |picked: &Rc<Destination>| !had.iter().any(|one| Rc::ptr_eq(one, picked));
        state.pick(now, worker.dice(), self.key, &had).filter(untried)
    }

    /// Takes in that an attempt is followed by another although somebody may have acted on the request. Gives the wait
    /// before it; the failure stands where none is granted.
    pub(super) fn repeat(&mut self, attempt: Attempt<'_>, failure: Failure) -> Result<Duration, Failure> {
        let destination = Rc::clone(&attempt.destination);
        let failure = attempt.ended(failure);
        self.tried.push(destination);
        self.granted(failure)
    }

    /// The wait before an attempt beyond those that every request has, where the rule or the service grants one.
    pub(super) fn granted(&mut self, failure: Failure) -> Result<Duration, Failure> {
        let repeating = self.repeating.as_ref().filter(|repeating| repeating.grants_after(&failure));
        let wait = repeating.map(|repeating| repeating.wait()).ok_or(failure)?;
        // Those that could not be reached or did not take it may do so by then.
        (self.avoid, self.refusals) = (Vec::new(), 0);
        Ok(wait)
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
        // A failed connect costs the callee nothing, and a stream that is refused next to nothing. Whoever leaves in order
        // refuses all that is on its way at once: what one request tries first draws on no budget for it.
        let is_free = unreachable || self.refusals == 1 && failure.is_refusal();
        if !is_free && !may_send_again(worker, &self.state, &self.holds, worker.now()) {
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
    key: Wanted,
    state: Rc<ServiceState>,
}

impl<'a> Attempts<'a> {
    /// One of them, for a task of its own.
    pub(super) fn once(self) -> Once {
        let Self { target, connect_timeout, key, state, .. } = self;
        Once { target, connect_timeout, key, state }
    }

    pub(super) fn again(worker: &'a Rc<Worker>, once: Once) -> Self {
        // Its request is in the budget, where the copy adds none.
        Self { counts: false, ..Self::single(worker, once) }
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
    purpose: Purpose,
    picked: Duration,
    /// The endpoint had the whole request.
    was_given: bool,
    /// When a connection was there: dialling is no part of an endpoint's latency.
    start: Cell<Duration>,
    /// How often the request was sent before, to those who may have acted on it.
    pub(super) repeat: u32,
    /// The end of the time of all of them.
    pub(super) until: Until,
    end: Option<Duration>,
    outcome: Outcome,
    sign: Sign,
}

impl Attempt<'_> {
    /// What the proxy of its endpoint is told beside the head.
    pub(super) fn stamp(&self, head: &RequestHead, socket: &HeaderValue, source: &HeaderValue) -> Stamp {
        let behind = self.worker.shared.budgets.behind(self.picked);
        Stamp::new(head, socket, source, self.repeat).behind(behind).telling(&self.until)
    }

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
        if let Some(client) = pool.at_once(peer) {
            self.reached();
            return Ok(client.into());
        }
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

    /// Notes whether the endpoint had the whole request by now.
    pub(super) fn was_given(&mut self, whole: bool) {
        self.was_given = whole;
    }

    /// The endpoint answered; `status`: where it did so by one, and whether it broke off behind it. `at`: when its head came,
    /// which ends the latency that the balancer learns, however long the body takes.
    pub(super) fn answered(mut self, status: Option<(StatusCode, bool)>, at: Option<Instant>) {
        self.end = at.map(|at| self.worker.time_of(at));
        self.sign = status.map_or(Sign::Good, |(status, broken)| outlier::of_answer(status, broken));
        self.outcome = if self.sign == Sign::Good { Outcome::Success } else { Outcome::Failure };
    }

    /// It ended by `failure`, which is given back. Who began its answer within the time that is over was not late.
    pub(super) fn cut(self, failure: Failure, answered: Option<Answered>) -> Failure {
        let is_late = matches!(failure, Failure::Timeout(_) | Failure::CallerDeadline(_));
        let Some(Answered { own, at, .. }) = answered.filter(|_| is_late) else { return self.ended(failure) };
        self.answered(Some((own, false)), Some(at));
        failure
    }

    /// Its proxy answered for it that the time of its caller is over.
    pub(super) fn late(mut self) {
        self.sign = self.of_deadline();
    }

    /// What it says of the endpoint that the time of its caller is over.
    fn of_deadline(&self) -> Sign {
        let had = self.worker.now().saturating_sub(self.start.get());
        outlier::of_deadline(&self.destination.vitals, self.was_given, had)
    }

    /// It was not answered; `failure` says why and is given back.
    pub(super) fn ended(mut self, failure: Failure) -> Failure {
        if failure.is_unreachable() {
            self.state.not_reached(&self.destination, self.worker.now(), self.worker.dice());
        }
        let is_callers = matches!(failure, Failure::CallerDeadline(_));
        self.outcome = if is_callers { Outcome::Cancelled } else { Outcome::Failure };
        let had = self.worker.now().saturating_sub(self.picked);
        let sign = outlier::of_attempt(&failure, self.was_given, had);
        self.sign = if sign == Sign::Late { self.of_deadline() } else { sign };
        failure
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let now = self.worker.now();
        let latency = self.end.unwrap_or(now).saturating_sub(self.start.get());
        self.destination.vitals.finished(now, latency, self.outcome);
        let sign = if self.purpose == Purpose::Connection { outlier::of_connection(self.sign) } else { self.sign };
        if self.state.ended(&self.destination, self.picked, now, self.worker.dice(), sign) {
            self.worker.ledger.counters.ejections.increment(1);
            tracing::info!(destination = %self.destination.endpoint.workload, "ejected: it failed too often in a row");
        }
        for ejected in self.state.rated(&self.destination, now, self.worker.dice(), sign) {
            self.worker.ledger.counters.ejections.increment(1);
            tracing::info!(destination = %ejected.endpoint.workload, "ejected: it succeeds less often than the others");
        }
    }
}

//! Destinations of one worker's requests: for each service its balancer, its endpoints and their metric handles, kept
//! across snapshots so that what was learned of an endpoint survives an update elsewhere.

#[cfg(test)]
pub(crate) mod tests;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use weft_flow::{
    Algorithm, Balancer, Outliers, Overprovisioning, Preference, Probed, Settings, Sign, SlowStart, SuccessRate,
    Vitals, Wanted,
};
use weft_policy::bundle::{
    Balancing, Endpoint, External, Nearness, ObjectName, Place, PlaceShares, Service, ServicePort, Spread, Traffic,
};
use weft_policy::route::KeptTarget;
use weft_transport::quic::PeerKey;

use crate::budget::{Budget, Budgets};
use crate::gate::{Gate, Gates, Held};
use crate::gauges::{OpenGuard, Out};
use crate::health::{Findings, HealthChecks};
use crate::reach::{Reach, Reaches};
use crate::snapshot::{Served, Snapshot};
use crate::telemetry::series::{PairLabels, PairMetrics, Peer, WorkerMetrics};

/// An endpoint as this worker uses it.
#[derive(Debug)]
pub struct Destination {
    /// As it was when it came; its weight may have changed since.
    pub endpoint: Endpoint,
    /// The peer to dial. `None`: not in the mesh.
    peer: Option<PeerKey>,
    pub metrics: Rc<PairMetrics>,
    /// Its load, and whether it can be reached.
    pub vitals: Vitals,
    /// Tells the control plane of it; `None`: it is not in the mesh.
    reach: Option<Arc<Reach>>,
    /// How near it is to the workload that calls. `None`: its service has all alike.
    nearness: Cell<Option<Nearness>>,
    /// How tokens of sessions name it: by the name of its workload, for all proxies alike.
    session: u64,
    /// `weft-dst` by target port: the first used is nearly always the only one.
    socket: RefCell<Vec<(u16, HeaderValue)>>,
}

impl Destination {
    /// The peer that takes its requests; `None`: it is not in the mesh and spoken to in plain text.
    pub fn peer(&self) -> Option<&PeerKey> {
        self.peer.as_ref()
    }

    /// How tokens of sessions name it.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// How near it is, where that counts.
    pub fn nearness(&self) -> Option<Nearness> {
        self.nearness.get()
    }

    fn found(&self, is_reached: bool, now: Duration) {
        if let Some(reach) = &self.reach {
            reach.found(is_reached, now);
        }
    }

    /// The app socket at the far end, as `weft-dst` says it.
    pub fn socket(&self, port: u16) -> HeaderValue {
        if let Some((_, value)) = self.socket.borrow().iter().find(|(known, _)| *known == port) {
            return value.clone();
        }
        let address = SocketAddr::new(self.endpoint.address, port);
        let value = HeaderValue::try_from(address.to_string()).expect("a socket address is printable ASCII");
        self.socket.borrow_mut().push((port, value.clone()));
        value
    }
}

impl AsRef<Vitals> for Destination {
    fn as_ref(&self) -> &Vitals {
        &self.vitals
    }
}

/// A service as this worker uses it, or an ExternalService, of which there are no endpoints.
#[derive(Debug)]
pub struct ServiceState {
    pub name: ObjectName,
    outside: bool,
    generation: Cell<u64>,
    balancer: RefCell<Balancer<Destination>>,
    /// Shared with the other workers.
    pub budget: Arc<Budget>,
    /// By workload; those that an update leaves as they were are kept, with what was learned of them.
    destinations: RefCell<BTreeMap<ObjectName, Rc<Destination>>>,
    /// The same by the marks of their sessions. `None`: nobody has asked for one since they changed.
    sessions: RefCell<Option<HashMap<u64, Rc<Destination>>>>,
    /// The ports of the service; each says its number at the endpoints.
    ports: RefCell<Vec<ServicePort>>,
    /// For requests that never reached an endpoint.
    pub unreached: Rc<PairMetrics>,
    /// True where endpoints that fail are ejected.
    ejects: Cell<bool>,
    /// `None`: nobody checks them.
    heeded: RefCell<Option<Heeded>>,
    /// `None`: as many requests as come may be under way.
    gate: RefCell<Option<Arc<Gate>>>,
    /// One for each endpoint that cannot be reached, and for each that is ejected, so that they are counted over all services.
    unreachable: RefCell<Vec<OpenGuard>>,
    ejected: RefCell<Vec<OpenGuard>>,
    /// One while so few are in that those that are ejected or fail their checks are used as well.
    panicking: RefCell<Option<OpenGuard>>,
    all_out: Out,
}

/// What a worker has taken in of the checks of a service.
#[derive(Debug)]
struct Heeded {
    findings: Arc<Findings>,
    seen: Cell<u64>,
}

impl ServiceState {
    /// True where each endpoint that there is now is among `tried`.
    pub fn all_among(&self, tried: &[Rc<Destination>]) -> bool {
        let destinations = self.destinations.borrow();
        destinations.values().all(|destination| tried.iter().any(|tried| Rc::ptr_eq(tried, destination)))
    }

    /// True where `picked` is the only endpoint that is not among `tried`.
    pub fn all_among_or(&self, tried: &[Rc<Destination>], picked: &Rc<Destination>) -> bool {
        let destinations = self.destinations.borrow();
        let known = |destination: &Rc<Destination>| tried.iter().any(|tried| Rc::ptr_eq(tried, destination));
        destinations.values().all(|destination| Rc::ptr_eq(destination, picked) || known(destination))
    }

    /// The gate that requests have to pass, where there is one.
    pub fn gate(&self) -> Option<Arc<Gate>> {
        self.gate.borrow().clone()
    }

    /// True where no connection can be made to any endpoint. What is outside may be reached as far as anybody knows.
    pub fn is_unreachable(&self) -> bool {
        !self.outside && self.balancer.borrow().unreachable() >= self.destinations.borrow().len()
    }

    /// True where a request may be sent again, as far as the limits of the service say. Its place is kept in `held`.
    pub fn may_retry(&self, held: &RefCell<Option<Held>>) -> bool {
        self.gate.borrow().as_ref().is_none_or(|gate| gate.retry(&mut held.borrow_mut()))
    }

    /// Picks an endpoint, or none where there is none. `avoid`: endpoints that just refused it.
    pub fn pick(&self, now: Duration, dice: u64, wanted: Wanted, avoid: &[Rc<Destination>]) -> Option<Rc<Destination>> {
        self.heed();
        self.balancer.borrow().pick(now, dice, wanted, avoid).map(Rc::clone)
    }

    /// The endpoint that a session belongs to, where that takes requests as any other; its weight does not matter.
    pub fn in_session(&self, mark: u64) -> Option<Rc<Destination>> {
        self.heed();
        let mut sessions = self.sessions.borrow_mut();
        let sessions = sessions.get_or_insert_with(|| {
            let destinations = self.destinations.borrow();
            destinations.values().map(|destination| (destination.session, Rc::clone(destination))).collect()
        });
        sessions.get(&mark).filter(|destination| destination.vitals.is_in()).map(Rc::clone)
    }

    /// Takes in what checks of the endpoints have found by now, and has them go on.
    fn heed(&self) {
        let heeded = self.heeded.borrow();
        let Some(Heeded { findings, seen }) = &*heeded else { return };
        findings.touch();
        if let Some((version, unhealthy)) = findings.news(seen.get()) {
            seen.set(version);
            self.balancer.borrow_mut().heed(|destination| unhealthy.contains(&destination.endpoint.workload));
            self.count_out();
        }
    }

    /// The number of a port at one endpoint, as it is now. `None`: it is no endpoint of that port.
    pub fn target(&self, target: KeptTarget, workload: &ObjectName) -> Option<u16> {
        match target {
            KeptTarget::Number(number) => Some(number),
            KeptTarget::Of(port) => self.ports.borrow().iter().find(|known| known.port == port)?.target_of(workload),
        }
    }

    /// The endpoint of one workload, for requests that address it directly.
    pub fn direct(&self, workload: &ObjectName) -> Option<Rc<Destination>> {
        self.destinations.borrow().get(workload).map(Rc::clone)
    }

    /// There is a connection to it.
    pub fn reached(&self, destination: &Destination, now: Duration) {
        destination.found(true, now);
        self.balancer.borrow_mut().reached(destination, now);
        self.count_out();
    }

    /// No connection could be made to it.
    pub fn not_reached(&self, destination: &Destination, now: Duration, dice: u64) {
        destination.found(false, now);
        self.balancer.borrow_mut().not_reached(destination, now, dice);
        self.count_out();
    }

    /// A request that was given this endpoint at `picked` ended so. True where the endpoint is ejected by that.
    pub fn ended(&self, destination: &Destination, picked: Duration, now: Duration, dice: u64, sign: Sign) -> bool {
        // Nothing is counted where nobody is ejected.
        if !self.ejects.get() {
            return false;
        }
        let is_ejected = self.balancer.borrow_mut().ended(destination, picked, now, dice, sign);
        self.count_out();
        is_ejected
    }

    /// Counts the end of a request towards the success rate of its endpoint. Gives the endpoints that are ejected by their
    /// rates since an interval is over.
    pub fn rated(&self, destination: &Destination, now: Duration, dice: u64, sign: Sign) -> Vec<Rc<Destination>> {
        if !self.ejects.get() {
            return Vec::new();
        }
        let ejected = self.balancer.borrow_mut().rated(destination, now, dice, sign);
        if !ejected.is_empty() {
            self.count_out();
        }
        ejected
    }

    /// An endpoint to probe, where one is due; [`ServiceState::probed`] must follow.
    pub fn take_probe(&self, now: Duration) -> Option<Rc<Destination>> {
        self.balancer.borrow().take_probe(now)
    }

    pub fn probed(&self, destination: &Destination, now: Duration, dice: u64, probed: Probed) {
        match probed {
            Probed::Reached => destination.found(true, now),
            Probed::Unreachable => destination.found(false, now),
            Probed::Cancelled => {}
        }
        self.balancer.borrow_mut().probed(destination, now, dice, probed);
        self.count_out();
    }

    fn count_out(&self) {
        let (balancer, Out { unreachable, ejected, panicking }) = (self.balancer.borrow(), &self.all_out);
        self.unreachable.borrow_mut().resize_with(balancer.unreachable(), || unreachable.enter());
        self.ejected.borrow_mut().resize_with(balancer.ejected(), || ejected.enter());
        let mut panics = self.panicking.borrow_mut();
        if panics.is_some() != balancer.is_panicking() {
            *panics = balancer.is_panicking().then(|| panicking.enter());
        }
    }
}

/// The place to which a worker reports whether it reached its peers, the start of its clock, and what checks find.
#[derive(Debug, Clone)]
pub struct Finding {
    pub reaches: Reaches,
    pub start: Instant,
    pub checks: HealthChecks,
}

/// A service, and the port where not all of its endpoints are endpoints of that port; or an ExternalService.
type StateKey = (ObjectName, Option<u16>, bool);

/// By a service's place in a snapshot and a port of it.
type Placed = BTreeMap<(*const Service, Option<u16>), Rc<ServiceState>>;

/// All destinations of one worker.
#[derive(Debug)]
pub struct Destinations {
    metrics: WorkerMetrics,
    out: Out,
    gates: Gates,
    budgets: Budgets,
    finding: Finding,
    /// Every endpoint is spoken to in plain text (`danger_plaintext_tunnel`).
    plaintext: bool,
    services: RefCell<BTreeMap<StateKey, Rc<ServiceState>>>,
    /// The newest snapshot that was seen here, and by their places in it the services asked for since: requests find
    /// theirs without comparing names.
    generation: Cell<u64>,
    placed: RefCell<Placed>,
}

impl Destinations {
    /// `out` counts the endpoints that take no requests.
    pub fn new(
        metrics: WorkerMetrics,
        out: Out,
        (gates, budgets): (Gates, Budgets),
        finding: Finding,
        plaintext: bool,
    ) -> Self {
        Self {
            metrics,
            out,
            gates,
            budgets,
            finding,
            plaintext,
            services: RefCell::default(),
            generation: Cell::new(0),
            placed: RefCell::default(),
        }
    }

    /// The state of `service`, which is part of `snapshot`: brought up to it, or already beyond it. `port`: only the endpoints
    /// of that port, where those are not all.
    pub fn service(
        &self,
        snapshot: &Snapshot,
        from: &Served,
        service: &Service,
        port: Option<&ServicePort>,
    ) -> Rc<ServiceState> {
        self.state(snapshot, from, (service, None), port)
    }

    /// The same of an ExternalService, as routes see it: its limits and its budget, and nobody to pick.
    pub fn outside(&self, snapshot: &Snapshot, from: &Served, service: &Service) -> Rc<ServiceState> {
        let external = snapshot.bundle.externals.get(&service.name);
        self.state(snapshot, from, (service, external), None)
    }

    fn state(
        &self,
        snapshot: &Snapshot,
        from: &Served,
        (service, external): (&Service, Option<&External>),
        port: Option<&ServicePort>,
    ) -> Rc<ServiceState> {
        self.notice(snapshot);
        // A place means something in its own snapshot only, which the request holds.
        let newest = self.generation.get() == snapshot.generation;
        let place = (std::ptr::from_ref(service), port.map(|port| port.port));
        if newest && let Some(state) = self.placed.borrow().get(&place) {
            return Rc::clone(state);
        }
        let state = self.named(from, (service, external), port.map(|port| port.port));
        // A request that has been under way since an older snapshot does not bring back endpoints that left.
        if state.generation.get() < snapshot.generation {
            state.generation.set(snapshot.generation);
            self.refresh(&state, from, service, port);
        }
        if newest {
            self.placed.borrow_mut().insert(place, Rc::clone(&state));
        }
        state
    }

    /// Forgets what belongs to older snapshots than this, where it is the newest.
    fn notice(&self, snapshot: &Snapshot) {
        if self.generation.get() < snapshot.generation {
            self.generation.set(snapshot.generation);
            self.placed.borrow_mut().clear();
            // Of a port that all endpoints have there is no state of its own, and of the rest one together.
            let is_own = |service: &Service, port: Option<u16>| match port {
                Some(port) => service.ports.iter().any(|known| known.port == port && known.is_partial()),
                None => service.ports.is_empty() || !service.ports.iter().all(ServicePort::is_partial),
            };
            self.services.borrow_mut().retain(|(name, port, outside), _| {
                if *outside {
                    return snapshot.bundle.externals.contains_key(name);
                }
                let service = snapshot.bundle.services.get(name);
                service.is_some_and(|service| is_own(service, *port))
            });
        }
    }

    fn named(
        &self,
        from: &Served,
        (service, external): (&Service, Option<&External>),
        port: Option<u16>,
    ) -> Rc<ServiceState> {
        let key = (service.name.clone(), port, external.is_some());
        if let Some(state) = self.services.borrow().get(&key) {
            return Rc::clone(state);
        }
        let labels = external.map_or_else(|| labels(from, service, None), |external| outside_labels(from, external));
        let state = Rc::new(ServiceState {
            name: service.name.clone(),
            outside: external.is_some(),
            generation: Cell::new(0),
            balancer: RefCell::new(Balancer::new()),
            budget: match external {
                Some(external) => self.budgets.outside(&external.name),
                None => self.budgets.of(&service.name),
            },
            destinations: RefCell::default(),
            sessions: RefCell::default(),
            ports: RefCell::default(),
            unreached: self.metrics.pair(&labels),
            ejects: Cell::new(false),
            heeded: RefCell::default(),
            gate: RefCell::default(),
            unreachable: RefCell::default(),
            ejected: RefCell::default(),
            panicking: RefCell::default(),
            all_out: self.out.clone(),
        });
        self.services.borrow_mut().insert(key, Rc::clone(&state));
        state
    }

    fn refresh(&self, state: &ServiceState, from: &Served, service: &Service, port: Option<&ServicePort>) {
        let is_meant = |name: &ObjectName| port.is_none_or(|port| port.target_of(name).is_some());
        let endpoints = || service.endpoints.iter().filter(|(name, _)| is_meant(name));
        state.sessions.replace(None);
        let mut destinations = state.destinations.borrow_mut();
        let stays = |name: &ObjectName, kept: &Rc<Destination>| {
            service.endpoints.get(name).is_some_and(|now| is_meant(name) && is_same(&kept.endpoint, now))
        };
        destinations.retain(|name, kept| stays(name, kept));
        for (name, endpoint) in endpoints() {
            destinations.entry(name.clone()).or_insert_with(|| {
                let peer = endpoint.identity.clone().filter(|_| !self.plaintext).map(|destination| {
                    PeerKey::new(from.workload.identity.clone(), destination, endpoint.mesh_address)
                });
                Rc::new(Destination {
                    endpoint: endpoint.clone(),
                    reach: peer.as_ref().map(|_| self.finding.reaches.watch(name, self.finding.start)),
                    peer,
                    metrics: self.metrics.pair(&labels(from, service, Some(endpoint))),
                    vitals: Vitals::of(&name.to_string()),
                    nearness: Cell::default(),
                    session: weft_flow::hash(format!("session endpoint {name}").as_bytes()),
                    socket: RefCell::default(),
                })
            });
        }
        state.ports.borrow_mut().clone_from(&service.ports);
        let locality = service.spread.as_ref().and_then(|spread| spread.locality.as_ref());
        let caller = Place::of(&from.workload.labels);
        let shares = service.spread.as_ref().and_then(|spread| spread.shares_of(caller));
        let shared = preferences(shares, endpoints().map(|(_, endpoint)| endpoint));
        let weighted = endpoints().zip(shared).map(|((name, endpoint), shared)| {
            let destination = &destinations[name];
            let nearness = locality.map(|it| it.nearness(caller, Place::of(&endpoint.labels)));
            destination.nearness.set(nearness);
            let distance = nearness.map_or(shared.distance, Nearness::distance);
            (Rc::clone(destination), Preference { distance, ..shared })
        });
        let settings = service.traffic.as_deref().map(settings).unwrap_or_default();
        let settings = service.spread.as_deref().map_or(settings, |spread| spreading(settings, spread));
        state.ejects.set(settings.outliers.is_some());
        let limits = service.traffic.as_ref().and_then(|traffic| traffic.limits.as_ref());
        let gate = |limits| match state.outside {
            true => self.gates.outside(&service.name, limits),
            false => self.gates.of(&service.name, limits),
        };
        state.gate.replace(limits.map(gate));
        let traffic = service.traffic.as_ref();
        let checks =
            traffic.and_then(|traffic| traffic.health_check.as_ref()).map(|_| self.finding.checks.of(&service.name));
        let is_heeded = checks.is_some();
        state.heeded.replace(checks.map(|findings| Heeded { findings, seen: Cell::new(0) }));
        state.balancer.borrow_mut().update(settings, weighted);
        if is_heeded {
            state.heed();
        } else {
            state.balancer.borrow_mut().heed(|_| false);
        }
        state.count_out();
    }
}

/// The weights of endpoints, by which each place gets its share where a policy sets shares. What is in none of the places comes
/// last.
fn preferences<'e>(shares: Option<&PlaceShares>, endpoints: impl Iterator<Item = &'e Endpoint>) -> Vec<Preference> {
    let place = |endpoint: &Endpoint| shares.and_then(|shares| shares.place_of(Place::of(&endpoint.labels)));
    let known: Vec<_> = endpoints.map(|endpoint| (place(endpoint), endpoint.weight)).collect();
    let percents: Vec<u32> = shares.into_iter().flat_map(|shares| &shares.to).map(|share| share.percent).collect();
    let weights = known.iter().zip(weft_flow::portions(&known, &percents));
    let is_last = |place: Option<usize>| shares.is_some() && place.is_none();
    weights.map(|((place, _), weight)| Preference { weight, distance: is_last(*place).into() }).collect()
}

fn settings(traffic: &Traffic) -> Settings {
    let algorithm = match traffic.balancing {
        Balancing::PeakEwma => Algorithm::PeakEwma,
        Balancing::LeastRequest => Algorithm::LeastRequest,
        Balancing::RoundRobin => Algorithm::RoundRobin,
        Balancing::Random => Algorithm::Random,
        Balancing::RingHash(_) => Algorithm::RingHash,
        Balancing::Maglev(_) => Algorithm::Maglev,
    };
    let outliers = traffic.outliers.as_ref().map(|outliers| Outliers {
        server_errors: outliers.consecutive_5xx,
        gateway_errors: outliers.consecutive_gateway_errors,
        local_failures: outliers.consecutive_local_failures,
        interval: Duration::from_millis(outliers.interval_ms),
        ejection: Duration::from_millis(outliers.ejection_ms),
        longest: Duration::from_millis(outliers.longest_ms),
        most_percent: outliers.most_percent,
        success_rate: outliers.success_rate.as_ref().map(|rates| SuccessRate {
            minimum_hosts: rates.minimum_hosts,
            request_volume: rates.request_volume,
            stdev_thousandths: rates.stdev_thousandths,
        }),
    });
    Settings { algorithm, outliers, ..Settings::default() }
}

fn spreading(settings: Settings, spread: &Spread) -> Settings {
    let slow_start = spread
        .slow_start
        .as_ref()
        .map(|slow| SlowStart { window: Duration::from_millis(slow.window_ms), least_percent: slow.least_percent });
    let overprovisioning = spread.locality.as_ref().map(|it| Overprovisioning(it.overprovisioning_percent));
    Settings {
        overprovisioning: overprovisioning.unwrap_or_default(),
        slow_start,
        panic_percent: spread.panic_percent,
        ..settings
    }
}

/// True where an endpoint is what it was before an update: at another address, or with another identity, it is another.
/// Its weight is the balancer's.
pub(crate) fn is_same(before: &Endpoint, now: &Endpoint) -> bool {
    let Endpoint { workload, identity, address, addresses: _, mesh_address, weight: _, labels } = before;
    (workload, identity, address, mesh_address, labels)
        == (&now.workload, &now.identity, &now.address, &now.mesh_address, &now.labels)
}

/// The labels of what goes to an ExternalService: named by the resource, whatever name below a pattern was asked for.
pub fn outside_labels(from: &Served, external: &External) -> PairLabels {
    let name = &external.name;
    PairLabels {
        reporter: "source",
        source: from.peer(),
        destination: Peer::default(),
        destination_service: external.hosts.first().cloned().unwrap_or_default(),
        destination_service_name: name.name.clone(),
        destination_service_namespace: name.namespace.clone(),
        mutual_tls: false,
    }
}

/// The labels of requests from a served workload to (an endpoint of) a service, as the source reports them.
fn labels(from: &Served, service: &Service, endpoint: Option<&Endpoint>) -> PairLabels {
    let destination = endpoint.map(|endpoint| {
        let label = |name: &str| endpoint.labels.get(name).cloned().unwrap_or_default();
        Peer {
            workload: endpoint.workload.name.clone(),
            namespace: endpoint.workload.namespace.clone(),
            principal: endpoint.identity.as_ref().map(ToString::to_string).unwrap_or_default(),
            app: label("app"),
            version: label("version"),
        }
    });
    let name = &service.name;
    PairLabels {
        reporter: "source",
        source: from.peer(),
        destination: destination.unwrap_or_default(),
        destination_service: format!("{}.{}.svc.cluster.local", name.name, name.namespace),
        destination_service_name: name.name.clone(),
        destination_service_namespace: name.namespace.clone(),
        mutual_tls: endpoint.is_some_and(|endpoint| endpoint.identity.is_some()),
    }
}

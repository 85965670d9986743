//! Which service a name means and which rule of its routes a request meets, by the precedence of Gateway API (GAMMA).
//! Two pure steps around the filters: [`resolve`] says where a request goes, [`plan`] how. Immutable; made once for
//! each snapshot.

mod action;
mod plan;
mod resolve;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bundle::{Bundle, ObjectName, PathMatch, Protocol, Route, RouteMatch, RouteRule, Service, ServicePort};
use crate::path::{self, NormalPath};
use crate::scope::Ask;

use action::RuleActions;
pub(crate) use plan::to_backend;
pub use plan::{Choice, KeptTarget, Plan, RouteRefusal, Target, choose, plan, plan_connection};
pub use resolve::{Authority, EgressRefusal, Meant, Resolution, Resolver};

/// A service as addressed by a request.
#[derive(Debug, Clone, Copy)]
pub struct Resolved<'t> {
    pub service: &'t Service,
    /// The service's port; with `endpoint` the app's.
    pub port: u16,
    /// Only this endpoint was meant: it was addressed by its own IP, and no route holds.
    pub endpoint: Option<&'t ObjectName>,
}

impl Resolved<'_> {
    /// Declared protocol of the destination; an endpoint addressed by its own IP speaks what its port does.
    pub fn protocol(&self) -> Protocol {
        self.service_port().map_or(Protocol::Auto, |port| port.protocol)
    }

    /// True where what is not HTTP is refused, though nothing is declared.
    pub fn opaque_refused(&self) -> bool {
        self.service_port().is_some_and(|port| port.opaque_refused)
    }

    fn service_port(&self) -> Option<&ServicePort> {
        let of = |port: &&ServicePort| match self.endpoint {
            Some(endpoint) => port.target_of(endpoint) == Some(self.port),
            None => port.port == self.port,
        };
        self.service.ports.iter().find(of)
    }
}

/// A request's head, as the outbound filters left it.
#[derive(Clone, Copy)]
pub struct HeadView<'a> {
    pub method: &'a str,
    pub path: &'a NormalPath,
    /// By name in lower case; values of a repeated header joined or the first.
    pub headers: &'a dyn Fn(&str) -> Option<&'a str>,
}

/// The rule that a request meets.
#[derive(Debug, Clone, Copy)]
pub struct MetRule<'t> {
    pub route: &'t Route,
    /// Its place in the route as written.
    pub index: usize,
    pub rule: &'t RouteRule,
    actions: &'t RuleActions,
}

/// Decision of the routes on a request.
#[derive(Debug, Clone, Copy)]
enum RouteDecision<'t> {
    /// No route is attached: to the service itself.
    Default,
    Rule(MetRule<'t>),
    /// Routes are attached and none matches: 404.
    NoMatch,
}

/// All names and routes of a bundle.
#[derive(Debug)]
pub struct RouteTable {
    bundle: Arc<Bundle>,
    /// By namespace, then name: looked up without making a key.
    by_name: BTreeMap<String, BTreeMap<String, ObjectName>>,
    by_vip: BTreeMap<IpAddr, ObjectName>,
    by_endpoint: BTreeMap<IpAddr, Vec<(ObjectName, ObjectName)>>,
    routes: Vec<CompiledRoute>,
    /// Candidates of each service in order of precedence: the first that matches decides.
    candidates: BTreeMap<ObjectName, Vec<Candidate>>,
    /// What was answered, each with whether somebody needed to know since that was asked.
    answered: BTreeMap<Ask, AtomicBool>,
}

/// A route, with the actions of each of its rules.
#[derive(Debug)]
struct CompiledRoute {
    route: Route,
    rules: Vec<RuleActions>,
}

impl CompiledRoute {
    fn of(route: &Route) -> Self {
        Self { route: route.clone(), rules: route.rules.iter().map(RuleActions::of).collect() }
    }
}

/// One match of one rule of one route.
#[derive(Debug)]
struct Candidate {
    /// Indexes into `RouteTable::routes`, its rules, and the rule's matches.
    route: usize,
    rule: usize,
    /// `None`: the rule has no matches and holds for all.
    matching: Option<usize>,
    path: DecodedPath,
}

/// A `PathMatch`, decoded as the readings are that it is compared with.
#[derive(Debug)]
enum DecodedPath {
    Any,
    Exact(Vec<u8>),
    /// Without the slash at its end.
    Prefix(Vec<u8>),
}

impl RouteTable {
    pub fn new(bundle: &Arc<Bundle>) -> Self {
        let mut table = Self {
            bundle: Arc::clone(bundle),
            by_name: BTreeMap::new(),
            by_vip: BTreeMap::new(),
            by_endpoint: BTreeMap::new(),
            routes: bundle.routes.values().map(CompiledRoute::of).collect(),
            candidates: BTreeMap::new(),
            answered: bundle.answered.iter().map(|ask| (ask.clone(), AtomicBool::new(false))).collect(),
        };
        for (name, service) in &bundle.services {
            table.by_name.entry(name.namespace.clone()).or_default().insert(name.name.clone(), name.clone());
            if let Some(vip) = service.vip {
                table.by_vip.entry(vip.to_canonical()).or_insert_with(|| name.clone());
            }
            for (workload, endpoint) in &service.endpoints {
                let addresses = std::iter::once(&endpoint.address).chain(&endpoint.addresses);
                let addresses: BTreeSet<IpAddr> = addresses.map(IpAddr::to_canonical).collect();
                for address in addresses {
                    table.by_endpoint.entry(address).or_default().push((name.clone(), workload.clone()));
                }
            }
        }
        for (number, CompiledRoute { route, .. }) in table.routes.iter().enumerate() {
            let candidates = table.candidates.entry(route.parent.clone()).or_default();
            for (index, rule) in route.rules.iter().enumerate() {
                let candidate = |matching: Option<usize>| {
                    let path = matching.and_then(|at| rule.matches[at].path.as_ref());
                    Candidate { route: number, rule: index, matching, path: DecodedPath::from(path) }
                };
                if rule.matches.is_empty() {
                    candidates.push(candidate(None));
                }
                candidates.extend((0..rule.matches.len()).map(Some).map(candidate));
            }
        }
        for candidates in table.candidates.values_mut() {
            candidates.sort_by_cached_key(|candidate| precedence(&table.routes, candidate));
        }
        table
    }

    /// A service by one of its names: NAME, NAME.NS, NAME.NS.svc.cluster.local, NAME.NS.mesh.local, in any case, with or
    /// without the trailing dot.
    fn by_host(&self, host: &str, port: u16, from_namespace: &str) -> Option<Resolved<'_>> {
        let host = host.strip_suffix('.').unwrap_or(host);
        let host = if host.bytes().any(|b| b.is_ascii_uppercase()) {
            Cow::Owned(host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(host)
        };
        let (name, namespace) = Self::service_labels(&host, from_namespace)?;
        let service = self.bundle.services.get(self.by_name.get(namespace)?.get(name)?)?;
        Some(Resolved { service, port, endpoint: None })
    }

    /// Name and namespace of the service that a host in lower case means, if it has the form of a service's name.
    fn service_labels<'h>(host: &'h str, from_namespace: &'h str) -> Option<(&'h str, &'h str)> {
        let mut labels = host.splitn(3, '.');
        let name = labels.next()?;
        let namespace = labels.next().unwrap_or(from_namespace);
        let is_ours = matches!(labels.next(), None | Some("svc" | "svc.cluster.local" | "mesh.local"));
        is_ours.then_some((name, namespace))
    }

    /// True where the proxy asked for this and was answered.
    fn is_answered(&self, ask: &Ask) -> bool {
        let Some(is_used) = self.answered.get(ask) else { return false };
        // Written once: what many threads read stays where it is.
        if !is_used.load(Ordering::Relaxed) {
            is_used.store(true, Ordering::Relaxed);
        }
        true
    }

    /// Answers that decided something since this was called last.
    pub fn take_used(&self) -> impl Iterator<Item = &Ask> {
        self.answered.iter().filter(|(_, is_used)| is_used.swap(false, Ordering::Relaxed)).map(|(ask, _)| ask)
    }

    /// By a service's virtual address.
    fn by_vip(&self, address: SocketAddr) -> Option<Resolved<'_>> {
        let service = self.bundle.services.get(self.by_vip.get(&address.ip().to_canonical())?)?;
        Some(Resolved { service, port: address.port(), endpoint: None })
    }

    /// An endpoint by its own address.
    fn by_endpoint(&self, address: SocketAddr, from_namespace: &str) -> Option<Resolved<'_>> {
        let behind = self.by_endpoint.get(&address.ip().to_canonical())?;
        let serves = |service: &Service, workload: &ObjectName| {
            service.ports.iter().any(|port| port.target_of(workload) == Some(address.port()))
        };
        // The same instance may stand behind several services: the caller's own namespace first, then by name.
        let mut found: Vec<_> = behind
            .iter()
            .filter(|(name, own)| self.bundle.services.get(name).is_some_and(|it| serves(it, own)))
            .collect();
        found.sort_by_key(|(name, _)| (name.namespace != from_namespace, name));
        let (service, workload) = found.first()?;
        let service = self.bundle.services.get(service)?;
        Some(Resolved { service, port: address.port(), endpoint: Some(workload) })
    }

    /// The first match in order of precedence among the routes that hold for this caller and port. Routes of the
    /// caller's own namespace on somebody else's service (consumer routes) come instead of the service's own.
    /// `reading`: one reading of the head's path.
    fn decide(&self, to: &Resolved<'_>, from_namespace: &str, head: &HeadView<'_>, reading: &str) -> RouteDecision<'_> {
        let path = path::decode(reading);
        let candidates = match self.candidates.get(&to.service.name) {
            Some(candidates) if to.endpoint.is_none() => candidates,
            _ => return RouteDecision::Default,
        };
        let (mut attached, mut consumer) = (false, false);
        for candidate in candidates {
            let CompiledRoute { route, rules } = &self.routes[candidate.route];
            if consumer && route.consumer_namespace.is_none() {
                break;
            }
            if !holds(route, to.port, from_namespace) {
                continue;
            }
            attached = true;
            consumer |= route.consumer_namespace.is_some();
            let rule = &route.rules[candidate.rule];
            let matching = candidate.matching.map(|index| &rule.matches[index]);
            if matching.is_none_or(|matching| candidate.path.holds(&path) && matching.holds(head)) {
                let (index, actions) = (candidate.rule, &rules[candidate.rule]);
                return RouteDecision::Rule(MetRule { route, index, rule, actions });
            }
        }
        if attached { RouteDecision::NoMatch } else { RouteDecision::Default }
    }
}

impl DecodedPath {
    fn from(path: Option<&PathMatch>) -> Self {
        let decode = |text: &str| path::decode(text).into_owned();
        match path {
            None => Self::Any,
            Some(PathMatch::Exact(path)) => Self::Exact(decode(path)),
            Some(PathMatch::Prefix(prefix)) => Self::Prefix(decode(prefix.trim_end_matches('/'))),
        }
    }

    fn holds(&self, path: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == path,
            Self::Prefix(prefix) => {
                path.strip_prefix(prefix.as_slice()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
            }
        }
    }
}

impl RouteMatch {
    /// All but the path.
    fn holds(&self, head: &HeadView<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method == head.method)
            && self.headers.iter().all(|header| (head.headers)(&header.name) == Some(header.value.as_str()))
    }
}

fn holds(route: &Route, port: u16, from_namespace: &str) -> bool {
    route.parent_port.is_none_or(|own| own == port)
        && route.consumer_namespace.as_ref().is_none_or(|namespace| namespace == from_namespace)
}

/// Smaller comes first. Consumer routes; exact path, longest prefix, method, number of headers; then the oldest route, then its name,
/// then the order written.
fn precedence(routes: &[CompiledRoute], candidate: &Candidate) -> impl Ord + use<> {
    let route = &routes[candidate.route].route;
    let matching = candidate.matching.map(|index| &route.rules[candidate.rule].matches[index]);
    let (exact, prefix) = match matching.and_then(|matching| matching.path.as_ref()) {
        Some(PathMatch::Exact(_)) => (true, 0),
        Some(PathMatch::Prefix(prefix)) => (false, prefix.trim_end_matches('/').len()),
        None => (false, 0),
    };
    let method = matching.is_some_and(|matching| matching.method.is_some());
    let headers = matching.map_or(0, |matching| matching.headers.len());
    let age = (route.created, route.name.clone());
    let written = (candidate.rule, candidate.matching);
    let producer = route.consumer_namespace.is_none();
    (producer, !exact, std::cmp::Reverse((prefix, method, headers)), age, written)
}

/// The place of the backend for one request: weights in proportion, `dice` uniform over all of `u64`. `None`: no backend,
/// or all of weight 0 (500). One that doesn't resolve keeps its share (`Backend::service` is `None`).
fn pick_backend(rule: &RouteRule, dice: u64) -> Option<usize> {
    let total: u64 = rule.backends.iter().map(|backend| u64::from(backend.weight)).sum();
    // Multiplying instead of a remainder: no bias worth naming, no division.
    let mut at = u64::try_from((u128::from(dice) * u128::from(total)) >> 64).ok()?;
    for (index, backend) in rule.backends.iter().enumerate() {
        let weight = u64::from(backend.weight);
        if at < weight {
            return Some(index);
        }
        at -= weight;
    }
    None
}

//! Which service a name means and which rule of its routes a request meets, by the precedence of Gateway API (GAMMA).
//! Two pure steps around the filters: [`resolve`] says where a request goes, [`plan`] how. Immutable; made once for
//! each snapshot.

mod action;
mod cors;
mod external;
mod filtered;
mod index;
mod matching;
mod mirror;
pub(crate) mod pattern;
mod plan;
mod query;
mod resolve;
mod rewrite;
mod routed;
mod stream;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bundle::{Bundle, ObjectName, Protocol, Route, RouteRule, Service, ServicePort};
use crate::host::bare;
use crate::path::NormalPath;
use crate::scope::Ask;

pub use action::AnswerEdits;
use action::RuleActions;
pub(crate) use action::Setting;
pub use cors::Preflight;
use external::Externals;
pub use external::WayOut;
use filtered::RuleFilters;
use mirror::RuleMirrors;
pub use mirror::{Copied, mirrors};
use pattern::Patterns;
#[cfg(feature = "manifest")]
pub(crate) use plan::is_shared;
pub use plan::{
    Choice, KeptTarget, Plan, RouteRefusal, Target, choose, plan, plan_connection, plan_kept, plan_outside,
};
pub(crate) use plan::{SaidBy, directly, directly_outside, own_answer, to_backend};
use query::QueryReading;
pub use resolve::{Authority, EgressRefusal, Meant, Resolution, Resolver};
use routed::Routed;
pub(crate) use stream::to_backend_of_bytes;
pub use stream::{Hello, choose_stream, plan_stream, stream_kind};

/// A service as addressed by a request, or an ExternalService.
#[derive(Debug, Clone, Copy)]
pub struct Resolved<'t> {
    pub service: &'t Service,
    /// The service's port; with `endpoint` the app's.
    pub port: u16,
    /// Only this endpoint was meant: it was addressed by its own IP, and no route holds.
    pub endpoint: Option<&'t ObjectName>,
    /// It is an ExternalService, as [`WayOut::resolved`] has it.
    pub outside: bool,
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
    /// The host that was asked for, without a port.
    pub host: Option<&'a str>,
    /// By name in lower case; values of a repeated header joined or the first. What it says of [`HOST`] is not asked
    /// for.
    pub headers: Fields<'a>,
    /// Other ways in which servers read the fields, where this request has some.
    pub others: &'a [Fields<'a>],
}

/// The value of a field by its name.
pub type Fields<'a> = &'a dyn Fn(&str) -> Option<&'a str>;

/// The field that matches mean `HeadView::host` by.
pub(crate) const HOST: &str = "host";

/// Methods of the standards: a match of a route names no others.
//= rfc9110#section-9.3
//= rfc5789#section-2
pub(crate) const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// The rule that a request meets.
#[derive(Debug, Clone, Copy)]
pub struct MetRule<'t> {
    pub route: &'t Route,
    /// Its place in the route as written.
    pub index: usize,
    pub rule: &'t RouteRule,
    actions: &'t RuleActions,
    mirrors: &'t RuleMirrors,
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
    /// By the service that they are attached to, and by the ExternalService.
    routed: [BTreeMap<ObjectName, Arc<Routed>>; 2],
    patterns: Patterns,
    rule_filters: RuleFilters,
    externals: Externals,
    /// What was answered, each with whether somebody needed to know since that was asked.
    answered: BTreeMap<Ask, AtomicBool>,
}

impl RouteTable {
    pub fn new(bundle: &Arc<Bundle>) -> Self {
        Self::following(bundle, None)
    }

    /// The table of a bundle in the place of another table: the routes of services that are the same stay compiled.
    pub fn following(bundle: &Arc<Bundle>, before: Option<&Self>) -> Self {
        let mut table = Self {
            bundle: Arc::clone(bundle),
            by_name: BTreeMap::new(),
            by_vip: BTreeMap::new(),
            by_endpoint: BTreeMap::new(),
            routed: [BTreeMap::new(), BTreeMap::new()],
            patterns: before.map(|before| before.patterns.kept()).unwrap_or_default(),
            rule_filters: RuleFilters::of(bundle),
            externals: Externals::of(bundle),
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
        let mut routes: BTreeMap<(bool, &ObjectName), Vec<&Route>> = BTreeMap::new();
        for route in bundle.routes.values() {
            routes.entry((route.outside, &route.parent)).or_default().push(route);
        }
        for ((outside, parent), routes) in routes {
            let side = usize::from(outside);
            let known = before.and_then(|before| before.routed[side].get(parent)).filter(|known| known.is_of(&routes));
            let routed = known.map_or_else(|| Arc::new(Routed::of(&routes, &mut table.patterns)), Arc::clone);
            table.routed[side].insert(parent.clone(), routed);
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
        Some(Resolved { service, port, endpoint: None, outside: false })
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

    /// An ExternalService that callers of this namespace see, by a name or an address.
    fn external(&self, host: &str, port: u16, from_namespace: &str) -> Option<WayOut<'_>> {
        match bare(host).parse() {
            Ok(ip) => self.external_at(SocketAddr::new(ip, port), from_namespace),
            Err(_) => self.externals.by_host(&self.bundle, host, port, from_namespace),
        }
    }

    fn external_at(&self, address: SocketAddr, from_namespace: &str) -> Option<WayOut<'_>> {
        self.externals.by_address(&self.bundle, address, from_namespace)
    }

    /// The way of a request for the host `asked` that a route leads to an ExternalService.
    fn led_out(&self, name: &ObjectName, port: u16, asked: Option<&str>) -> Option<WayOut<'_>> {
        self.externals.by_route(&self.bundle, name, port, asked)
    }

    /// True where the first bytes of a connection to this port, which is not the mesh's, may name an ExternalService.
    pub fn is_told_by_bytes(&self, port: u16, from_namespace: &str) -> bool {
        external::is_told_by_bytes(&self.bundle, port, from_namespace)
    }

    /// By a service's virtual address.
    fn by_vip(&self, address: SocketAddr) -> Option<Resolved<'_>> {
        let service = self.bundle.services.get(self.by_vip.get(&address.ip().to_canonical())?)?;
        Some(Resolved { service, port: address.port(), endpoint: None, outside: false })
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
        Some(Resolved { service, port: address.port(), endpoint: Some(workload), outside: false })
    }

    /// The routes that are attached to it.
    fn routed(&self, to: &Resolved<'_>) -> Option<&Routed> {
        let routed = self.routed[usize::from(to.outside)].get(&to.service.name);
        routed.filter(|_| to.endpoint.is_none()).map(Arc::as_ref)
    }

    /// True where routes of requests hold for this caller and port: each request goes where its rule leads, and perhaps none to
    /// the service itself.
    pub fn leads_requests(&self, to: &Resolved<'_>, from_namespace: &str) -> bool {
        self.routed(to).is_some_and(|routed| routed.has_requests(to.port, from_namespace))
    }
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

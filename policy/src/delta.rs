//! Differences between bundles: what the control plane sends and the proxy applies. `diff` then `apply` is identity.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::bundle::{
    Bundle, Endpoint, External, ExternalPort, ExternalProtocol, ExternalTls, FilterAttachment, MeshSettings,
    ObjectName, Revision, Route, RouteKind, RouteName, RouteRule, ServedWorkload, Service, ServicePort, Spread,
    Traffic,
};
use crate::identity::SpiffeId;
use crate::scope::Ask;

/// One step from a bundle to the next.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Delta {
    pub revision: Revision,
    pub upserts: Vec<Object>,
    pub removals: Vec<Key>,
    /// Removals only, to be applied at once to whatever is current.
    pub subtractive: bool,
    /// Services and routes that answer a question, to be applied at once to whatever is current.
    pub ahead: bool,
    /// The bundle is exactly `upserts`: what they don't name goes.
    pub full: bool,
    /// What the proxy asked for: with this delta it has all that there is of it.
    pub answered: BTreeSet<Ask>,
}

/// A part of a bundle that is sent as a whole.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    Mesh(MeshSettings),
    Workload(ServedWorkload),
    Service(Service),
    Route(Route),
    External(External),
    Filter(FilterAttachment),
}

/// The name of an `Object`, or of an endpoint of a service, in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Mesh,
    Workload(ObjectName),
    Service(ObjectName),
    Route(ObjectName),
    External(ObjectName),
    Filter(String),
    Endpoint { service: ObjectName, workload: ObjectName },
}

impl Object {
    pub fn key(&self) -> Key {
        match self {
            Self::Mesh(_) => Key::Mesh,
            Self::Workload(workload) => Key::Workload(workload.name.clone()),
            Self::Service(service) => Key::Service(service.name.clone()),
            Self::Route(route) => Key::Route(route.name.clone()),
            Self::External(external) => Key::External(external.name.clone()),
            Self::Filter(filter) => Key::Filter(filter.name.clone()),
        }
    }
}

/// An address that nobody can dial.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Somebody whom nobody can prove to be.
fn nobody() -> SpiffeId {
    "spiffe://nowhere.invalid/ns/nowhere/sa/nobody".parse().expect("it has the form of one")
}

/// Objects by the number that their sender gave to their content.
pub type Versions = BTreeMap<Key, u64>;

impl Object {
    /// The form of this object that serves nobody, for a proxy that can't do what the object asks for: it is in every
    /// release, and a name that is there but closed opens nothing. `None`: it has no such form, since what it protects
    /// is named elsewhere.
    #[must_use]
    pub fn closed(&self) -> Option<Self> {
        match self {
            Self::Workload(workload) => {
                let outbound_closed = None;
                Some(Self::Workload(ServedWorkload { ports: vec![], outbound_closed, ..workload.clone() }))
            }
            Self::Service(service) => {
                // Their addresses stay the mesh's: what goes to one of them does not leave it in plain text.
                let mut closed = service.clone();
                for endpoint in closed.endpoints.values_mut() {
                    endpoint.mesh_address = NOWHERE;
                    // One without an identity is dialled itself, in plain text, whatever its mesh address is.
                    endpoint.identity.get_or_insert_with(nobody);
                }
                closed.ports.iter_mut().for_each(|port| port.other_targets.clear());
                (closed.traffic, closed.spread) = (None, None);
                Some(Self::Service(closed))
            }
            Self::Route(route) => {
                let (kind, rules) = (RouteKind::default(), vec![RouteRule::refusing()]);
                Some(Self::Route(Route { kind, rules, hostnames: Vec::new(), ..route.clone() }))
            }
            Self::External(external) => Some(Self::External(closed_outside(external))),
            Self::Mesh(_) | Self::Filter(_) => None,
        }
    }

    /// The form of this object without what it only prefers, for a proxy that can't do that: it serves as by default, and
    /// nobody is let in by that. What a preference would have held back, such as requests beyond a limit, is sent. `None`: it
    /// prefers nothing. What is newer goes first: of the form that it gives there may be another without the rest.
    #[must_use]
    pub fn without_preferences(&self) -> Option<Self> {
        match self {
            Self::Service(Service { traffic: Some(traffic), .. })
            | Self::External(External { traffic: Some(traffic), .. })
                if traffic.stream_timeout_ms.is_some() =>
            {
                Some(self.without_stream_timeout(traffic))
            }
            Self::Service(service) if service.spread.as_ref().is_some_and(|spread| !spread.shares.is_empty()) => {
                let spread = service.spread.as_deref().map(|spread| Spread { shares: Vec::new(), ..spread.clone() });
                let spread = spread.filter(|spread| *spread != Spread::default()).map(Box::new);
                Some(Self::Service(Service { spread, ..service.clone() }))
            }
            Self::Service(service) if service.traffic.as_ref().is_some_and(|traffic| traffic.hedge.is_some()) => {
                self.without_hedge()
            }
            Self::Service(service) if service.spread.is_some() => {
                Some(Self::Service(Service { spread: None, ..service.clone() }))
            }
            Self::Service(service) if service.traffic.as_ref().is_some_and(|traffic| traffic.checks_health()) => {
                self.without_health_checks()
            }
            Self::Service(service) if service.traffic.is_some() => {
                Some(Self::Service(Service { traffic: None, ..service.clone() }))
            }
            // Where it goes to nobody else's port it is only refused by some.
            Self::Service(service) if service.ports.iter().any(ServicePort::is_partial) => {
                let is_led = |port: &ServicePort| port.other_targets.values().any(Option::is_some);
                let mut all = service.clone();
                all.ports.iter_mut().for_each(|port| port.other_targets.clear());
                (!service.ports.iter().any(is_led)).then_some(Self::Service(all))
            }
            Self::Route(route) if route.has_preferences() => Some(Self::Route(route.without_preferences())),
            Self::External(external) if external.traffic.is_some() => {
                Some(Self::External(External { traffic: None, ..external.clone() }))
            }
            Self::Mesh(_)
            | Self::Workload(_)
            | Self::Service(_)
            | Self::Route(_)
            | Self::External(_)
            | Self::Filter(_) => None,
        }
    }
}

/// The form of an ExternalService by which nothing goes to its hosts and endpoints, also where everything else is let
/// out: each of its ports takes requests only, and those are sent to nobody but a server that nobody can prove to be.
fn closed_outside(external: &External) -> External {
    let http = |port: &ExternalPort| ExternalPort { protocol: ExternalProtocol::Http, ..port.clone() };
    let (server_name, roots_pem) = (Some("nowhere.invalid".to_owned()), Some(String::new()));
    let tls = ExternalTls { server_name, roots_pem, ..ExternalTls::default() };
    External { ports: external.ports.iter().map(http).collect(), tls: Some(tls), traffic: None, ..external.clone() }
}

impl Object {
    /// The form of a service or an ExternalService with these settings whose streams have no time of their own.
    fn without_stream_timeout(&self, traffic: &Traffic) -> Self {
        let traffic = Some(Box::new(Traffic { stream_timeout_ms: None, ..traffic.clone() }));
        match self {
            Self::Service(service) => Self::Service(Service { traffic, ..service.clone() }),
            Self::External(external) => Self::External(External { traffic, ..external.clone() }),
            Self::Mesh(_) | Self::Workload(_) | Self::Route(_) | Self::Filter(_) => self.clone(),
        }
    }

    /// The form of a service whose requests are at one endpoint at a time. `None`: they are anyway.
    fn without_hedge(&self) -> Option<Self> {
        let Self::Service(service) = self else { return None };
        let traffic = service.traffic.as_deref().filter(|traffic| traffic.hedge.is_some())?;
        let traffic = Some(Box::new(Traffic { hedge: None, ..traffic.clone() }));
        Some(Self::Service(Service { traffic, ..service.clone() }))
    }

    /// The form of a filter without the word that it ships with the control plane, for a proxy that does not read that. `None`:
    /// it has none.
    #[must_use]
    pub fn without_origin(&self) -> Option<Self> {
        match self {
            Self::Filter(filter) if filter.shipped => {
                Some(Self::Filter(FilterAttachment { shipped: false, ..filter.clone() }))
            }
            Self::Mesh(_)
            | Self::Workload(_)
            | Self::Service(_)
            | Self::Route(_)
            | Self::External(_)
            | Self::Filter(_) => None,
        }
    }

    /// The form of a filter without what its publisher has signed of it, for a proxy that does not read that. `None`: nothing
    /// of it is.
    #[must_use]
    pub fn without_statement(&self) -> Option<Self> {
        match self {
            Self::Filter(filter) if filter.statement.is_some() => {
                Some(Self::Filter(FilterAttachment { statement: None, ..filter.clone() }))
            }
            Self::Mesh(_)
            | Self::Workload(_)
            | Self::Service(_)
            | Self::Route(_)
            | Self::External(_)
            | Self::Filter(_) => None,
        }
    }

    /// The form of a service that checks nobody's health and compares no success rates; all else that it prefers stays.
    /// `None`: it asks for neither.
    fn without_health_checks(&self) -> Option<Self> {
        let Self::Service(service) = self else { return None };
        let traffic = service.traffic.as_ref().filter(|traffic| traffic.checks_health())?.without_health_checks();
        Some(Self::Service(Service { traffic: Some(Box::new(traffic)), ..service.clone() }))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mesh => f.write_str("Mesh"),
            Self::Workload(name) => write!(f, "Workload {name}"),
            Self::Service(name) => write!(f, "Service {name}"),
            Self::Route(name) => write!(f, "{}", RouteName::of(name)),
            Self::External(name) => write!(f, "ExternalService {name}"),
            Self::Filter(name) => write!(f, "Filter {name}"),
            Self::Endpoint { service, workload } => write!(f, "Endpoint {workload} of Service {service}"),
        }
    }
}

impl Bundle {
    /// All parts by key, in the order in which they are sent.
    pub fn objects(&self) -> BTreeMap<Key, Object> {
        let mesh = self.mesh.iter().cloned().map(Object::Mesh);
        let workloads = self.workloads.values().cloned().map(Object::Workload);
        let services = self.services.values().cloned().map(Object::Service);
        let routes = self.routes.values().cloned().map(Object::Route);
        let externals = self.externals.values().cloned().map(Object::External);
        let filters = self.filters.values().cloned().map(Object::Filter);
        let all = mesh.chain(workloads).chain(services).chain(routes).chain(externals).chain(filters);
        all.map(|object| (object.key(), object)).collect()
    }

    pub fn upsert(&mut self, object: Object) {
        match object {
            Object::Mesh(mesh) => self.mesh = Some(mesh),
            Object::Workload(workload) => {
                self.workloads.insert(workload.name.to_string(), workload);
            }
            Object::Service(service) => {
                self.services.insert(service.name.clone(), service);
            }
            Object::Route(route) => {
                self.routes.insert(route.name.clone(), route);
            }
            Object::External(external) => {
                self.externals.insert(external.name.clone(), external);
            }
            Object::Filter(filter) => {
                self.filters.insert(filter.name.clone(), filter);
            }
        }
    }

    /// Removing what isn't there is fine: a removal may come twice.
    pub fn remove(&mut self, key: &Key) {
        match key {
            Key::Mesh => self.mesh = None,
            Key::Workload(name) => {
                self.workloads.remove(&name.to_string());
            }
            Key::Service(name) => {
                self.services.remove(name);
            }
            Key::Route(name) => {
                self.routes.remove(name);
            }
            Key::External(name) => {
                self.externals.remove(name);
            }
            Key::Filter(name) => {
                self.filters.remove(name);
            }
            Key::Endpoint { service, workload } => {
                if let Some(service) = self.services.get_mut(service) {
                    service.endpoints.remove(workload);
                }
            }
        }
    }

    /// True where there is what was asked for.
    pub fn has(&self, ask: &Ask) -> bool {
        self.meant(ask).next().is_some()
    }

    /// The services that something asked for means.
    pub fn meant(&self, ask: &Ask) -> impl Iterator<Item = &Service> {
        let (name, address) = match ask {
            Ask::Service(name) => (Some(name), None),
            Ask::Address(address) => (None, Some(*address)),
        };
        let at = move |service: &&Service| {
            address.is_some_and(|address| {
                let own = service.vip.is_some_and(|vip| vip.to_canonical() == address);
                own || service.endpoints.values().any(|endpoint| endpoint.is_at(address))
            })
        };
        let behind = address.is_some().then(|| self.services.values().filter(at)).into_iter().flatten();
        name.and_then(|name| self.services.get(name)).into_iter().chain(behind)
    }

    /// Applies a delta. A subtractive one and one of answers leave the revision alone: they come ahead of the one that they belong to.
    pub fn apply(&mut self, delta: &Delta) {
        if delta.full {
            *self = Self::default();
        }
        for key in &delta.removals {
            self.remove(key);
        }
        for object in &delta.upserts {
            self.upsert(object.clone());
        }
        self.answered.extend(delta.answered.iter().cloned());
        if !delta.subtractive && !delta.ahead {
            self.revision = delta.revision;
        }
    }
}

/// The delta that leads from `old` to `new`; what was answered stays answered.
pub fn diff(old: &Bundle, new: &Bundle) -> Delta {
    let (before, after) = (old.objects(), new.objects());
    let removals = before.keys().filter(|key| !after.contains_key(key)).cloned().collect();
    let upserts = after.into_iter().filter(|(key, object)| before.get(key) != Some(object)).map(|(_, o)| o).collect();
    let answered = new.answered.difference(&old.answered).cloned().collect();
    Delta { revision: new.revision, upserts, removals, answered, ..Delta::default() }
}

/// The endpoints of a service that it has no longer, or as another place or identity under the same name: they go at once,
/// ahead of `diff`. Of a service that is not there `now` those that `is_gone` tells.
pub fn withdrawn(
    before: &Service,
    now: Option<&Service>,
    is_gone: impl Fn(&Endpoint) -> bool,
) -> impl Iterator<Item = Key> {
    let has_left = move |old: &Endpoint| match now {
        Some(now) => now.endpoints.get(&old.workload).is_none_or(|new| !new.is_same_place(old)),
        None => is_gone(old),
    };
    let left = before.endpoints.values().filter(move |endpoint| has_left(endpoint));
    left.map(|endpoint| Key::Endpoint { service: before.name.clone(), workload: endpoint.workload.clone() })
}

#[cfg(test)]
mod tests;

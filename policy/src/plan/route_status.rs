//! The status of routes in Gateway API's words.

use std::fmt;

use serde::{Serialize, Serializer};

use super::World;
use super::carried::{self, OffPorts};
use super::external::is_mesh_wide;
use super::grant;
use super::http_only;
use crate::bundle::{ExternalProtocol, ObjectName, RouteKind, RouteName};
use crate::resource::route::{ParentRef, Place, Referred};
use crate::resource::{AnyRoute, ExternalServiceSpec, Object, ObjectKey, ServiceSpec, Unserved};

/// The status of a route towards one of the services that it names as parents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentStatus {
    /// As the route writes it.
    pub parent_ref: ParentRef,
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs` ...
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `True` or `False` in print.
    #[serde(serialize_with = "true_or_false")]
    pub status: bool,
    pub reason: &'static str,
    pub message: String,
    /// Place in the manifest; empty where all is well.
    #[serde(skip)]
    pub key: String,
}

fn true_or_false<S: Serializer>(status: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if *status { "True" } else { "False" })
}

impl Condition {
    pub(super) fn good(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status: true, reason: kind, message: message.into(), key: String::new() }
    }
}

/// All in one line, each with its key.
pub(super) fn in_words(unserved: &[Unserved]) -> String {
    let words = unserved.iter().map(|one| format!("spec.{}: {}", one.key, one.message));
    words.collect::<Vec<_>>().join("; ")
}

/// What a route asks for that can't be done, so that it leads nowhere; by its name in a bundle.
pub(crate) fn undone(world: &World, route: &ObjectName) -> Option<String> {
    let name = RouteName::of(route);
    let ObjectName { namespace, name: own } = name.object();
    let undoable = world.route(&ObjectKey::new(name.kind.resource(), &namespace, &own))?.spec.undoable();
    (!undoable.is_empty()).then(|| in_words(&undoable))
}

/// Status of a route, for each parent that is a service or an ExternalService, in the order written.
pub fn route_status(world: &World, route: AnyRoute<'_>) -> Vec<ParentStatus> {
    let resolved = unresolved(world, route).unwrap_or_else(|| {
        Condition::good("ResolvedRefs", "every backend is a port of a Service or an ExternalService that exists")
    });
    let partial = partially(route);
    let parents = route.spec.parent_refs.iter().enumerate().filter(|(_, parent)| route.may_hold_at(parent));
    let status = |(index, parent): (usize, &ParentRef)| {
        let accepted = accepted(world, route, index, parent);
        let conditions = [Some(accepted), Some(resolved.clone()), partial.clone()];
        ParentStatus { parent_ref: parent.clone(), conditions: conditions.into_iter().flatten().collect() }
    };
    parents.map(status).collect()
}

fn accepted(world: &World, route: AnyRoute<'_>, index: usize, parent: &ParentRef) -> Condition {
    let name = route.named(parent.namespace.as_deref(), &parent.name);
    let good = || Condition::good("Accepted", format!("attached to Service {name}"));
    let key = format!("spec.parentRefs[{index}]");
    let refused = |message| {
        let key = key.clone();
        Condition { status: false, reason: "NoMatchingParent", message, key, ..good() }
    };
    let held = || {
        let (off, displaced) = (OffPorts::of(world, route, parent), Displaced::of(world, route, parent));
        match (&off, &displaced) {
            (Some(off), _) if off.everywhere => return refused(off.to_string()),
            (_, Some(displaced)) if displaced.everywhere => {
                let (message, key) = (displaced.to_string(), key.clone());
                return Condition { status: false, reason: "Conflicted", message, key, ..good() };
            }
            (_, _) => {}
        }
        let words = [off.map(|off| off.to_string()), displaced.map(|displaced| displaced.to_string())];
        let words: String = words.into_iter().flatten().map(|words| format!("; {words}")).collect();
        Condition::good("Accepted", format!("attached to Service {name}{words}"))
    };
    let undoable = route.spec.undoable();
    if let Some(first) = undoable.first() {
        let message = format!("every request that it matches is answered 500: {}", in_words(&undoable));
        let key = format!("spec.{}", first.key);
        return Condition { status: false, reason: "UnsupportedValue", message, key, ..good() };
    }
    if parent.is_external() {
        return match misattached(world, route, parent, &name) {
            Some(message) => refused(message),
            None => Condition::good("Accepted", format!("attached to ExternalService {name}")),
        };
    }
    match world.service(&name) {
        None => refused(format!("Service {name} does not exist")),
        Some(service) => match (parent.port, &parent.section_name) {
            (None, None) => held(),
            _ if service.spec.served_ports().any(|port| parent.is_at(port)) => held(),
            (Some(port), None) => refused(format!("Service {name} has no port {port}")),
            (None, Some(section)) => refused(format!("Service {name} has no port named {section}")),
            (Some(port), Some(section)) => refused(format!("Service {name} has no port {port} named {section}")),
        },
    }
}

/// Why a route holds for nothing that goes to the ExternalService that it names as parent.
pub(crate) fn misattached(world: &World, route: AnyRoute<'_>, parent: &ParentRef, name: &ObjectName) -> Option<String> {
    let (own, found) = (&route.metadata.namespace, world.external(name));
    // Whether there is one is not said where nobody sees it.
    if name.namespace != *own && !found.is_some_and(is_mesh_wide) {
        return Some(format!("nobody in namespace {own} sees ExternalService {name}"));
    }
    let Some(external) = found else { return Some(format!("ExternalService {name} does not exist")) };
    let mut named =
        external.spec.ports.iter().filter(|port| parent.is_at_port(port.port, port.name.as_ref())).peekable();
    if named.peek().is_none() {
        return Some(format!("ExternalService {name} has no such port"));
    }
    let carries_none = named.all(|port| !port.protocol.is_http());
    carries_none.then(|| format!("no port of ExternalService {name} that it names carries requests"))
}

/// The ports of a parent at which a route is not asked, because another's kind comes first (GEP-1294, Route types).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Displaced {
    /// The first of those that are asked.
    by: ObjectKey,
    ports: Vec<u16>,
    /// The route has no other port of this parent.
    everywhere: bool,
}

/// The kinds in the order of the world: of several routes that displace one the first is named.
const IN_ORDER: [RouteKind; 4] = [RouteKind::Http, RouteKind::Grpc, RouteKind::Tls, RouteKind::Tcp];

impl Displaced {
    /// `None`: it is asked at each port that the parent names.
    pub(crate) fn of(world: &World, route: AnyRoute<'_>, parent: &ParentRef) -> Option<Self> {
        let service = world.service(&route.named(parent.namespace.as_deref(), &parent.name))?;
        let own = service.spec.served_ports().filter(|port| parent.is_at(port));
        let (mut by, mut ports, mut everywhere) = (None, Vec::new(), true);
        for port in own {
            // At a port of bytes routes of requests don't hold, and displace nothing; and the other way round.
            let protocol = route.kind.is_of_bytes().then(|| carried::protocol(world, service, port));
            if protocol.is_some_and(|protocol| !route.kind.holds_at(protocol)) {
                continue;
            }
            // Those of a consumer and those of the producer hold for other callers. But where a producer's are of requests,
            // nobody's bytes pass.
            let is_before = |other: &AnyRoute<'_>| {
                let (own, namespace) = (&route.metadata.namespace, &other.metadata.namespace);
                let keeps_bytes_out = route.kind.is_of_bytes() && !other.kind.is_of_bytes();
                (namespace == own || keeps_bytes_out && *namespace == service.metadata.namespace)
                    && protocol.is_none_or(|protocol| other.kind.holds_at(protocol))
            };
            let kinds = IN_ORDER.into_iter().filter(|kind| *kind < route.kind);
            let mut others = kinds.flat_map(|kind| http_only::attached_of_kind(world, service, port, kind));
            match others.find(is_before) {
                Some(other) => {
                    by.get_or_insert(other.key());
                    ports.push(port.port);
                }
                None => everywhere = false,
            }
        }
        Some(Self { by: by?, ports, everywhere })
    }
}

impl fmt::Display for Displaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = self.ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        write!(f, "{} is asked in its place at port {numbers}: routes of two kinds are not mixed", self.by)
    }
}

/// Told where the route holds, but not all that it asks for has an effect.
fn partially(route: AnyRoute<'_>) -> Option<Condition> {
    let unserved = route.unserved();
    let first = unserved.first()?;
    let (message, key) = (in_words(&unserved), format!("spec.{}", first.key));
    Some(Condition { kind: "PartiallyInvalid", status: true, reason: "UnsupportedValue", message, key })
}

/// The first backend or mirror that doesn't resolve.
fn unresolved(world: &World, route: AnyRoute<'_>) -> Option<Condition> {
    for (i, rule) in route.spec.rules.iter().enumerate() {
        for (at, backend) in rule.referred() {
            if let Err((reason, message)) = resolve(world, route, backend) {
                let key = format!("spec.rules[{i}].{at}");
                return Some(Condition { kind: "ResolvedRefs", status: false, reason, message, key });
            }
        }
    }
    None
}

/// What a backend or a mirror leads to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Led<'w> {
    Service(&'w Object<ServiceSpec>),
    External(&'w Object<ExternalServiceSpec>),
}

impl<'w> Led<'w> {
    pub(crate) fn name(self) -> ObjectName {
        match self {
            Self::Service(service) => service.name(),
            Self::External(external) => external.name(),
        }
    }

    pub(crate) fn service(self) -> Option<&'w Object<ServiceSpec>> {
        match self {
            Self::Service(service) => Some(service),
            Self::External(_) => None,
        }
    }

    pub(crate) fn is_outside(self) -> bool {
        self.service().is_none()
    }
}

/// The service or ExternalService of a backend, or the service of a mirror. A reference to what doesn't exist, or into
/// another namespace without its grant, doesn't resolve. Without a grant nothing is said of whether it exists.
///
/// # Errors
/// The reason in Gateway API's words, and why.
pub(crate) fn resolve<'w>(
    world: &'w World,
    route: AnyRoute<'_>,
    backend: Referred<'_>,
) -> Result<Led<'w>, (&'static str, String)> {
    let namespace = route.metadata.namespace.as_str();
    let name = backend.object_name(namespace);
    let Some(place) = backend.place else {
        return Err(("InvalidKind", backend.no_place(namespace)));
    };
    if place == Place::External && backend.is_mirror {
        return Err(("InvalidKind", format!("copies are sent to Services only, and {name} is an ExternalService")));
    }
    if !grant::is_permitted(world, route, (place, &name)) {
        let message = format!(
            "{} {name} is in another namespace, where no ReferenceGrant permits it; this one would: {}",
            place.kind(),
            grant::missing(route, (place, &name))
        );
        return Err(("RefNotPermitted", message));
    }
    match place {
        Place::Service => resolve_service(world, route, backend, &name).map(Led::Service),
        Place::External => resolve_outside(world, route.kind, backend, &name).map(Led::External),
    }
}

fn resolve_outside<'w>(
    world: &'w World,
    kind: RouteKind,
    backend: Referred<'_>,
    name: &ObjectName,
) -> Result<&'w Object<ExternalServiceSpec>, (&'static str, String)> {
    let absent = |message: String| ("BackendNotFound", message);
    let external = world.external(name).ok_or_else(|| absent(format!("ExternalService {name} does not exist")))?;
    let number = backend.port;
    let port = external.spec.ports.iter().find(|port| port.port == number);
    let port = port.ok_or_else(|| absent(format!("ExternalService {name} has no port {number}")))?;
    let declared = port.protocol;
    let (is_fit, law) = match kind {
        RouteKind::Http | RouteKind::Grpc => (declared.is_http(), "no request is sent to it"),
        // Who does not look at the first bytes can't tell whether they are for one of its hosts.
        RouteKind::Tcp => (declared == ExternalProtocol::Tcp, "a TCPRoute leads to a port of tcp"),
        RouteKind::Tls => (!declared.is_http(), "a TLSRoute leads to a port of tls or tcp"),
    };
    let misfit = || format!("port {number} of ExternalService {name} is declared {declared}: {law}");
    if is_fit { Ok(external) } else { Err(("UnsupportedProtocol", misfit())) }
}

fn resolve_service<'w>(
    world: &'w World,
    route: AnyRoute<'_>,
    backend: Referred<'_>,
    name: &ObjectName,
) -> Result<&'w Object<ServiceSpec>, (&'static str, String)> {
    match world.service(name) {
        None => Err(("BackendNotFound", format!("Service {name} does not exist"))),
        Some(service) if service.spec.port(backend.port).is_none() => {
            Err(("BackendNotFound", format!("Service {name} has no port {}", backend.port)))
        }
        Some(service) => match carried::refuses_bytes(route, service, backend) {
            Some(message) => Err(("UnsupportedProtocol", message)),
            None => Ok(service),
        },
    }
}

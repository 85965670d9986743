//! The status of routes in Gateway API's words.

use serde::{Serialize, Serializer};

use super::World;
use super::grant::needs_no_grant;
use crate::bundle::ObjectName;
use crate::resource::route::{ParentRef, Referred};
use crate::resource::{HttpRouteSpec, Kind, Object, ObjectKey, ServiceSpec, Spec, Unserved};

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
    let name = route.name.split_once('#').map_or(route.name.as_str(), |(name, _)| name);
    let key = ObjectKey::new(Kind::HttpRoute, &route.namespace, name);
    let undoable = HttpRouteSpec::of(&world.get(&key)?.resource)?.spec.undoable();
    (!undoable.is_empty()).then(|| in_words(&undoable))
}

/// Status of a route, for each parent that is a service, in the order written.
pub fn route_status(world: &World, route: &Object<HttpRouteSpec>) -> Vec<ParentStatus> {
    let resolved = unresolved(world, route)
        .unwrap_or_else(|| Condition::good("ResolvedRefs", "every backend is a port of a Service that exists"));
    let partial = partially(route);
    let parents = route.spec.parent_refs.iter().enumerate().filter(|(_, parent)| parent.is_service());
    let status = |(index, parent): (usize, &ParentRef)| {
        let accepted = accepted(world, route, index, parent);
        let conditions = [Some(accepted), Some(resolved.clone()), partial.clone()];
        ParentStatus { parent_ref: parent.clone(), conditions: conditions.into_iter().flatten().collect() }
    };
    parents.map(status).collect()
}

fn accepted(world: &World, route: &Object<HttpRouteSpec>, index: usize, parent: &ParentRef) -> Condition {
    let namespace = parent.namespace.as_ref().unwrap_or(&route.metadata.namespace);
    let name = ObjectName::new(namespace.clone(), parent.name.clone());
    let good = || Condition::good("Accepted", format!("attached to Service {name}"));
    let key = format!("spec.parentRefs[{index}]");
    let refused = |message| Condition { status: false, reason: "NoMatchingParent", message, key, ..good() };
    let undoable = route.spec.undoable();
    if let Some(first) = undoable.first() {
        let message = format!("every request that it matches is answered 500: {}", in_words(&undoable));
        let key = format!("spec.{}", first.key);
        return Condition { status: false, reason: "UnsupportedValue", message, key, ..good() };
    }
    match world.service(&name) {
        None => refused(format!("Service {name} does not exist")),
        Some(service) => match (parent.port, &parent.section_name) {
            (None, None) => good(),
            _ if service.spec.served_ports().any(|port| parent.is_at(port)) => good(),
            (Some(port), None) => refused(format!("Service {name} has no port {port}")),
            (None, Some(section)) => refused(format!("Service {name} has no port named {section}")),
            (Some(port), Some(section)) => refused(format!("Service {name} has no port {port} named {section}")),
        },
    }
}

/// Told where the route holds, but not all that it asks for has an effect.
fn partially(route: &Object<HttpRouteSpec>) -> Option<Condition> {
    let unserved = route.spec.unserved();
    let first = unserved.first()?;
    let (message, key) = (in_words(&unserved), format!("spec.{}", first.key));
    Some(Condition { kind: "PartiallyInvalid", status: true, reason: "UnsupportedValue", message, key })
}

/// The first backend or mirror that doesn't resolve.
fn unresolved(world: &World, route: &Object<HttpRouteSpec>) -> Option<Condition> {
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

/// The service of a backend or a mirror. A reference to what doesn't exist, or into another namespace without its grant (there are no
/// ReferenceGrants yet), doesn't resolve.
///
/// # Errors
/// The reason in Gateway API's words, and why.
pub(crate) fn resolve<'w>(
    world: &'w World,
    route: &Object<HttpRouteSpec>,
    backend: Referred<'_>,
) -> Result<&'w Object<ServiceSpec>, (&'static str, String)> {
    let namespace = route.metadata.namespace.as_str();
    let name = backend.object_name(namespace);
    if !backend.is_service {
        return Err(("InvalidKind", format!("{} {name} takes no requests: a backend is a Service", backend.kind)));
    }
    if name.namespace != namespace && !needs_no_grant(route, &name) {
        let message = format!("Service {name} is in another namespace; ReferenceGrant is not supported yet");
        return Err(("RefNotPermitted", message));
    }
    match world.service(&name) {
        None => Err(("BackendNotFound", format!("Service {name} does not exist"))),
        Some(service) if service.spec.port(backend.port).is_none() => {
            Err(("BackendNotFound", format!("Service {name} has no port {}", backend.port)))
        }
        Some(service) => Ok(service),
    }
}

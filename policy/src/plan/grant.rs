//! References into other namespaces: which need nobody's grant, and which a ReferenceGrant permits.

use super::World;
use crate::bundle::ObjectName;
use crate::resource::grant::GATEWAY;
use crate::resource::{AnyRoute, Kind, ReferenceGrantSpec};

/// A consumer's route may send requests for a producer's service to that very service, says GAMMA: its callers may do so
/// without any route. One that is attached to a service of its own namespace, too, leads everybody's callers.
fn needs_no_grant(route: AnyRoute<'_>, backend: &ObjectName) -> bool {
    let own = &route.metadata.namespace;
    let is_consumers = route.parents().all(|parent| parent.namespace != *own);
    is_consumers && route.parents().any(|parent| parent == *backend)
}

/// True where the route may lead to the service, whether or not that exists. A grant that can't be read permits nothing.
pub(super) fn is_permitted(world: &World, route: AnyRoute<'_>, service: &ObjectName) -> bool {
    let own = &route.metadata.namespace;
    let granted = || {
        let mut grants = world.of_namespace::<ReferenceGrantSpec>(&service.namespace);
        grants.any(|grant| grant.spec.permits(route.kind.as_str(), own, &service.name))
    };
    service.namespace == *own || needs_no_grant(route, service) || granted()
}

/// The manifest of a grant that would permit it, in one line.
pub(super) fn missing(route: AnyRoute<'_>, service: &ObjectName) -> String {
    let (kind, own) = (Kind::ReferenceGrant, &route.metadata.namespace);
    let ObjectName { namespace, name } = service;
    format!(
        "{{apiVersion: {}, kind: {kind}, metadata: {{name: {own}-to-{name}, namespace: {namespace}}}, spec: {{from: [{{group: \
         {GATEWAY}, kind: {}, namespace: {own}}}], to: [{{group: '', kind: Service, name: {name}}}]}}}}",
        kind.api_version(),
        route.kind.as_str()
    )
}

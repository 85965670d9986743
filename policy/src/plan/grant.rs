//! References into other namespaces: which need nobody's grant, and which a ReferenceGrant permits.

use super::World;
use super::external::is_mesh_wide;
use crate::bundle::ObjectName;
use crate::resource::grant::GATEWAY;
use crate::resource::route::{EXTERNAL_GROUP, Place};
use crate::resource::{AnyRoute, Kind};

/// A consumer's route may send requests for a producer's service to that very service, says GAMMA: its callers may do so
/// without any route. One that is attached to a service of its own namespace, too, leads everybody's callers.
/// An ExternalService for the whole mesh is everybody's, too.
fn needs_no_grant(world: &World, route: AnyRoute<'_>, (place, backend): (Place, &ObjectName)) -> bool {
    let own = &route.metadata.namespace;
    if place == Place::External {
        return world.external(backend).is_some_and(is_mesh_wide);
    }
    let is_consumers = route.parents().chain(route.external_parents()).all(|parent| parent.namespace != *own);
    is_consumers && route.parents().any(|parent| parent == *backend)
}

/// True where the route may lead to the service or ExternalService, whether or not that exists. A grant that can't be
/// read permits nothing.
pub(super) fn is_permitted(world: &World, route: AnyRoute<'_>, to: (Place, &ObjectName)) -> bool {
    let (own, (place, name)) = (&route.metadata.namespace, to);
    let granted = || {
        let mut grants = world.index().grants(&name.namespace, route.kind.as_str(), own);
        grants.any(|grant| grant.spec.leads_to(place, &name.name))
    };
    name.namespace == *own || needs_no_grant(world, route, to) || granted()
}

/// The manifest of a grant that would permit it, in one line.
pub(super) fn missing(route: AnyRoute<'_>, (place, service): (Place, &ObjectName)) -> String {
    let group = match place {
        Place::Service => "''",
        Place::External => EXTERNAL_GROUP,
    };
    let (kind, own) = (Kind::ReferenceGrant, &route.metadata.namespace);
    let ObjectName { namespace, name } = service;
    format!(
        "{{apiVersion: {}, kind: {kind}, metadata: {{name: {own}-to-{name}, namespace: {namespace}}}, spec: {{from: [{{group: \
         {GATEWAY}, kind: {}, namespace: {own}}}], to: [{{group: {group}, kind: {}, name: {name}}}]}}}}",
        kind.api_version(),
        route.kind.as_str(),
        place.kind()
    )
}

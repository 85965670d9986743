//! The part of the mesh that a proxy holds which holds only what it uses. Invariant: a service is held with all routes that
//! hold for its callers, and with their backends, so that what is held decides as the whole mesh would.

use std::collections::BTreeSet;

use super::World;
use super::assemble::{attached, bundle_for};
use super::callout::called_by_filters;
use crate::bundle::{Bundle, ObjectName, Revision, Route};
use crate::resource::AnyRoute;
use crate::route::mirrors;
use crate::scope::{Ask, Blocks, Ranges};

/// The services that the proxy of `served` holds once it has asked for `asked`.
pub fn scope_of(world: &World, served: &[ObjectName], asked: &BTreeSet<Ask>) -> BTreeSet<ObjectName> {
    let namespaces: BTreeSet<&str> = served.iter().map(|name| name.namespace.as_str()).collect();
    let backends = |service: &ObjectName| {
        let routes = world.index().attached_to(service).filter_map(AnyRoute::of);
        let routes = routes.flat_map(|route| attached(world, route, Revision::default()));
        let met = routes.filter(|route| route.parent == *service && concerns(route, &namespaces));
        met.flat_map(|route| backends(&route).cloned().collect::<Vec<_>>()).collect()
    };
    closure(world, roots(world, served, asked), backends)
}

/// What `bundle_for` says, without the services that are not in scope and their routes.
pub fn scoped_bundle_for(
    world: &World,
    served: &[ObjectName],
    asked: &BTreeSet<Ask>,
    revision: Revision,
    trust_bundle_pem: &str,
) -> Bundle {
    let held = scope_of(world, served, asked);
    let mut bundle = bundle_for(world, served, revision, trust_bundle_pem);
    bundle.services.retain(|name, _| held.contains(name));
    bundle.routes.retain(|_, route| held.contains(&route.parent));
    bundle.mesh.iter_mut().for_each(|mesh| mesh.ranges = Some(ranges(world)));
    bundle.answered.clone_from(asked);
    bundle
}

/// Services that a proxy holds by themselves: those that its workloads stand behind, those that they or their namespaces say
/// they use, those that its filters call, and those that it asked for.
pub(super) fn roots(world: &World, served: &[ObjectName], asked: &BTreeSet<Ask>) -> BTreeSet<ObjectName> {
    let mut roots = BTreeSet::new();
    for name in served {
        roots.extend(world.uses_of_namespace(&name.namespace));
        let Some(workload) = world.workload(name) else { continue };
        roots.extend(world.selecting(workload).map(crate::resource::Object::name));
        roots.extend(workload.metadata.uses(&name.namespace));
        roots.extend(called_by_filters(world, workload));
    }
    roots.extend(asked.iter().flat_map(|ask| meant(world, ask)));
    roots
}

/// The services that something asked for means; none where there is nothing.
pub fn meant(world: &World, ask: &Ask) -> Vec<ObjectName> {
    match ask {
        Ask::Service(name) => world.service(name).map(|_| name.clone()).into_iter().collect(),
        Ask::Address(address) => world.index().at(world, *address),
    }
}

/// The roots that there are, with the backends of all their routes, and of the routes of those.
pub(super) fn closure(
    world: &World,
    roots: BTreeSet<ObjectName>,
    backends: impl Fn(&ObjectName) -> Vec<ObjectName>,
) -> BTreeSet<ObjectName> {
    let mut open: Vec<ObjectName> = roots.into_iter().collect();
    let mut held = BTreeSet::new();
    while let Some(name) = open.pop() {
        if !held.contains(&name) && world.service(&name).is_some() {
            open.extend(backends(&name));
            held.insert(name);
        }
    }
    held
}

/// The services that requests, or copies of them, may be sent to by a route.
pub(super) fn backends(route: &Route) -> impl Iterator<Item = &ObjectName> {
    let of_actions = |actions| mirrors(actions).filter_map(|mirror| mirror.service.as_ref());
    route.rules.iter().flat_map(move |rule| {
        let backends = rule.backends.iter();
        let mirrored = of_actions(&rule.actions).chain(backends.clone().flat_map(move |it| of_actions(&it.actions)));
        backends.filter_map(|backend| backend.service.as_ref()).chain(mirrored)
    })
}

/// True where callers of these namespaces meet the route.
pub(super) fn concerns(route: &Route, namespaces: &BTreeSet<&str>) -> bool {
    route.consumer_namespace.as_deref().is_none_or(|consumer| namespaces.contains(consumer))
}

/// Blocks around every address of a service or a workload.
pub(super) fn ranges(world: &World) -> Ranges {
    blocks(world).ranges()
}

pub(super) fn blocks(world: &World) -> Blocks {
    let virtual_addresses = world.services().filter_map(|service| service.spec.cluster_ip);
    let own = world.workloads().flat_map(|workload| workload.spec.all_addresses());
    virtual_addresses.chain(own).collect()
}

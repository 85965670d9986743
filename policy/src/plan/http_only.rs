//! Policies and routes that are attached to a port and hold for HTTP only. If nothing is declared of the port, a stream
//! that does not look like HTTP would pass them by, and is refused.

use std::collections::BTreeSet;

use super::World;
use super::select::holds_for;
use crate::authz::{Action, Conditions};
use crate::bundle::{Direction, Protocol, RouteKind};
use crate::resource::core::PortSpec;
use crate::resource::filter::PolicyMode;
use crate::resource::{
    AccessPolicySpec, AnyRoute, Holding, Object, ObjectKey, ServiceSpec, Spec as _, TargetKind, WorkloadSpec,
};

/// A policy, and whether it names the service or workload that it holds for.
pub(crate) struct Attached {
    pub(crate) object: ObjectKey,
    pub(crate) targeted: bool,
    /// Of an access policy: it has a say about connections that are not looked into, too.
    pub(crate) action: Option<Action>,
}

/// The policies that hold for a port of a workload as far as it carries HTTP. A filter may look at connections too, but
/// only its binary knows.
pub(crate) fn policies(world: &World, workload: &Object<WorkloadSpec>, port: u16) -> Vec<Attached> {
    let near = world.index().near_policies(world, workload);
    near.filter_map(|resource| {
        let Holding { kind, metadata, targets, direction, mode } = Holding::of(resource)?;
        let access = AccessPolicySpec::of(resource);
        let is_judging = direction == Direction::Inbound
            && mode == PolicyMode::Enforce
            && access.is_none_or(|policy| judges_http(policy, port));
        (is_judging && holds_for(world, metadata, targets, workload)).then(|| Attached {
            object: ObjectKey::new(kind, &metadata.namespace, &metadata.name),
            targeted: targets.iter().any(|target| target.kind != TargetKind::Namespace),
            action: access.map(|policy| policy.spec.action),
        })
    })
    .collect()
}

fn judges_http(policy: &Object<AccessPolicySpec>, port: u16) -> bool {
    policy.spec.rules.iter().any(|rule| {
        let is_claimed = rule.from.iter().any(|from| !from.claims.is_empty());
        let mut to = rule.to.iter().map(Conditions::from);
        rule.to.is_empty() && is_claimed || to.any(|to| to.are_for(port) && (is_claimed || to.need_http()))
    })
}

/// Those whose routes count.
#[derive(Clone, Copy)]
pub(crate) enum RoutesOf<'a> {
    /// The service's own namespace: routes that hold for every caller.
    Producer,
    /// The same, and consumers of these namespaces.
    CallersIn(&'a BTreeSet<&'a str>),
    Everybody,
}

impl RoutesOf<'_> {
    fn contain(self, producer: &str, namespace: &str) -> bool {
        match self {
            Self::Producer => namespace == producer,
            Self::CallersIn(callers) => namespace == producer || callers.contains(namespace),
            Self::Everybody => true,
        }
    }
}

/// The routes of requests that are attached to a served port of a service. A consumer's route concerns its own callers: no other proxy
/// is told anything because of it.
pub(crate) fn routes<'w>(
    world: &'w World,
    service: &'w Object<ServiceSpec>,
    port: u16,
    of: RoutesOf<'_>,
) -> impl Iterator<Item = AnyRoute<'w>> {
    let port = service.spec.port(port);
    let attached = world.index().attached_to(&service.name()).filter_map(AnyRoute::of);
    attached.filter(move |route| {
        !route.kind.is_of_bytes()
            && of.contain(&service.metadata.namespace, &route.metadata.namespace)
            && port.is_some_and(|port| is_at(route, service, port))
    })
}

/// The routes of one kind that are attached to a served port of a service, everybody's. Of the others, of which there may be
/// thousands, none is looked at.
pub(super) fn attached_of_kind<'w>(
    world: &'w World,
    service: &'w Object<ServiceSpec>,
    port: &'w PortSpec,
    kind: RouteKind,
) -> impl Iterator<Item = AnyRoute<'w>> {
    let attached = world.index().attached_of_kind(&service.name(), kind.resource());
    attached.filter(move |route| is_at(route, service, port))
}

/// True where a route names a port of a service as its parent.
fn is_at(route: &AnyRoute<'_>, service: &Object<ServiceSpec>, port: &PortSpec) -> bool {
    #[cfg(test)]
    super::select::work::count();
    route.spec.parent_refs.iter().any(|parent| {
        let namespace = parent.namespace.as_ref().unwrap_or(&route.metadata.namespace);
        parent.is_service()
            && *namespace == service.metadata.namespace
            && parent.name == service.metadata.name
            && parent.is_at(port)
    })
}

/// Protocol of a service's port: what it declares, else what all its workloads do.
pub(crate) fn service_protocol(port: &PortSpec, workloads: &[&Object<WorkloadSpec>]) -> Protocol {
    if port.protocol() != Protocol::Auto {
        return port.protocol();
    }
    let own = |workload: &&Object<WorkloadSpec>| {
        let target = port.served_at(&workload.spec);
        let own = workload.spec.ports.iter().find(|own| target == Some(own.port));
        own.map_or(Protocol::Auto, |own| own.protocol)
    };
    // One without the port is no endpoint of it, and has no say.
    let with_it = workloads.iter().filter(|workload| port.served_at(&workload.spec).is_some());
    let mut protocols = with_it.map(own);
    let first = protocols.next().unwrap_or(Protocol::Auto);
    if protocols.all(|other| other == first) { first } else { Protocol::Auto }
}

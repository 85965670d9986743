//! Selection of workloads: those behind services, those under policies.

use crate::bundle::ObjectName;
use crate::resource::core::{ACCOUNTS, GRANTED_SERVICES, REGISTERED_BY, STARTING};
use crate::resource::{
    AnyRoute, Kind, Metadata, Object, ObjectKey, ROOT_NAMESPACE, ServiceSpec, TargetKind, TargetRef, WorkloadSpec,
};

use super::World;

/// The workloads of the service's namespace with all the labels of its selector; an empty selector selects none.
pub(super) fn selected_by<'w>(
    world: &'w World,
    service: &'w Object<ServiceSpec>,
) -> impl Iterator<Item = &'w Object<WorkloadSpec>> {
    world.index().near_service(service).filter(|workload| selects(service, workload))
}

/// True for a workload that callers may be sent to. One that its proxy has registered and can't serve yet is known already, and
/// no endpoint.
pub(super) fn is_in_discovery(workload: &Object<WorkloadSpec>) -> bool {
    let annotations = &workload.metadata.annotations;
    !(annotations.contains_key(REGISTERED_BY) && annotations.contains_key(STARTING))
}

/// True when a workload stands behind a service.
pub fn selects(service: &Object<ServiceSpec>, workload: &Object<WorkloadSpec>) -> bool {
    #[cfg(test)]
    work::count();
    let selector = &service.spec.selector;
    !selector.is_empty()
        && service.metadata.namespace == workload.metadata.namespace
        && selector.iter().all(|(key, value)| workload.metadata.labels.get(key) == Some(value))
        && admits(service, workload)
}

/// A service that lists accounts takes no registered workload of another, unless it was granted the service.
fn admits(service: &Object<ServiceSpec>, workload: &Object<WorkloadSpec>) -> bool {
    let (name, account) = (&service.metadata.name, &workload.spec.service_account);
    let annotations = &workload.metadata.annotations;
    let granted =
        || annotations.get(GRANTED_SERVICES).is_some_and(|list| list.split(',').any(|granted| granted == name));
    !service.metadata.annotations.contains_key(ACCOUNTS)
        || !annotations.contains_key(REGISTERED_BY)
        || name == account
        || service.accounts().any(|listed| listed == account)
        || granted()
}

/// True if a policy holds for a workload. Without targets: for its namespace, from the root namespace for the whole
/// mesh. Targets are of the policy's own namespace; only a policy of the root namespace may target other namespaces.
pub(crate) fn holds_for(
    world: &World,
    policy: &Metadata,
    targets: &[TargetRef],
    workload: &Object<WorkloadSpec>,
) -> bool {
    #[cfg(test)]
    work::count();
    let own = &workload.metadata;
    if targets.is_empty() {
        return policy.namespace == ROOT_NAMESPACE || policy.namespace == own.namespace;
    }
    targets.iter().any(|target| match target.kind {
        TargetKind::Workload => policy.namespace == own.namespace && target.name == own.name,
        TargetKind::Service => {
            let name = ObjectName::new(policy.namespace.clone(), target.name.clone());
            match world.service(&name) {
                Some(service) => selects(service, workload),
                // Whom it selects is not known, so that it may be anybody of its namespace.
                None => policy.namespace == own.namespace && world.is_unreadable(Kind::Service, &name),
            }
        }
        TargetKind::Namespace => {
            target.name == own.namespace && (policy.namespace == own.namespace || policy.namespace == ROOT_NAMESPACE)
        }
        // Callers of its namespace: which of their requests, their proxies know.
        TargetKind::HttpRoute | TargetKind::GrpcRoute => policy.namespace == own.namespace,
        // Refused at apply. Where a store has one, it restricts everybody.
        TargetKind::Mesh => policy.namespace == ROOT_NAMESPACE,
        TargetKind::ExternalService => policy.namespace == own.namespace,
    })
}

/// The target is not there, as far as one can tell.
pub(crate) fn is_missing(world: &World, policy: &Metadata, target: &TargetRef) -> bool {
    let name = ObjectName::new(policy.namespace.clone(), target.name.clone());
    match target.kind {
        TargetKind::Service => world.service(&name).is_none() && !world.is_unreadable(Kind::Service, &name),
        TargetKind::ExternalService => {
            world.external(&name).is_none() && !world.is_unreadable(Kind::ExternalService, &name)
        }
        TargetKind::Workload => world.workload(&name).is_none(),
        TargetKind::Namespace => !world.has_namespace(&target.name),
        TargetKind::HttpRoute | TargetKind::GrpcRoute => {
            let Some((kind, _)) = target.kind.route() else { return true };
            let wanted = target.section_name.as_ref();
            let has = |route: AnyRoute<'_>| {
                wanted.is_none() || route.spec.rules.iter().any(|rule| rule.name.as_ref() == wanted)
            };
            let route = world.route(&ObjectKey::new(kind, &name.namespace, &name.name));
            !route.is_some_and(has) && !world.is_unreadable(kind, &name)
        }
        TargetKind::Mesh => {
            world.mesh().is_none_or(|mesh| mesh.metadata.name != target.name) && !world.is_unreadable(Kind::Mesh, &name)
        }
    }
}

/// Counts pairs that were compared: the work of judging a world.
#[cfg(test)]
pub(crate) mod work {
    use std::cell::Cell;

    thread_local!(static PAIRS: Cell<u64> = const { Cell::new(0) });

    pub(crate) fn count() {
        PAIRS.set(PAIRS.get() + 1);
    }

    /// The pairs that `what` compares on this thread.
    pub(crate) fn of(what: impl FnOnce()) -> u64 {
        let before = PAIRS.get();
        what();
        PAIRS.get() - before
    }
}

//! What of the objects that proxies are told of may differ between two worlds. Whatever is not affected is the same: more
//! may be named than differs, never less.

use std::collections::BTreeSet;

use super::{World, selects};
use crate::bundle::ObjectName;
use crate::resource::{Kind, Object, ObjectKey, ROOT_NAMESPACE, ServiceSpec, WorkloadSpec};

pub(super) struct Affected<'w> {
    old: &'w World,
    new: &'w World,
    /// Something may hold anywhere.
    everything: bool,
    mesh: bool,
    /// Filters as they are published.
    filters: bool,
    /// Namespaces where policies hold for others than before.
    policies: BTreeSet<&'w str>,
    services: BTreeSet<ObjectName>,
    /// Services that a changed route names as its parent.
    parents: BTreeSet<ObjectName>,
    routes: BTreeSet<ObjectName>,
    workloads: BTreeSet<ObjectName>,
}

impl<'w> Affected<'w> {
    pub(super) fn between(old: &'w World, new: &'w World) -> Self {
        let mut affected = Self {
            old,
            new,
            everything: !old.has_same_unreadable(new),
            mesh: false,
            filters: !old.has_same_versions(new),
            policies: BTreeSet::new(),
            services: BTreeSet::new(),
            parents: BTreeSet::new(),
            routes: BTreeSet::new(),
            workloads: BTreeSet::new(),
        };
        for key in old.differing_entries(new) {
            affected.note(key);
        }
        affected
    }

    fn note(&mut self, key: &'w ObjectKey) {
        let (old, new) = (self.old, self.new);
        let name = key.object_name();
        match key.kind {
            Kind::Mesh => self.mesh = true,
            Kind::Namespace => {}
            Kind::Filter => self.filters = true,
            Kind::AccessPolicy | Kind::FilterPolicy => {
                self.everything |= key.namespace == ROOT_NAMESPACE;
                self.policies.insert(&key.namespace);
            }
            Kind::Service => {
                if [old, new].iter().any(|world| world.index().is_targeted(&name)) {
                    self.policies.insert(&key.namespace);
                }
                self.services.insert(name);
            }
            Kind::HttpRoute => {
                let both = [old, new].into_iter().filter_map(|world| world.route(&name));
                self.parents.extend(both.flat_map(|route| route.spec.parents(&route.metadata.namespace)));
                self.routes.insert(name);
            }
            Kind::Workload => {
                self.workloads.insert(name);
            }
        }
        let namespace = if key.kind == Kind::Namespace { &key.name } else { &key.namespace };
        self.mesh |= old.has_namespace(namespace) != new.has_namespace(namespace);
    }

    pub(super) fn mesh(&self) -> bool {
        self.everything || self.mesh
    }

    /// A service as callers see it.
    pub(super) fn service(&self, name: &ObjectName) -> bool {
        let near = || {
            let in_both = self.old.service(name).zip(self.new.service(name));
            in_both.is_none_or(|(old, new)| self.has_changed_behind(old) || self.has_changed_behind(new))
        };
        self.everything
            || self.policies.contains(name.namespace.as_str())
            || self.services.contains(name)
            || self.parents.contains(name)
            || near()
    }

    /// A workload that changed stands behind the service, or did.
    fn has_changed_behind(&self, service: &Object<ServiceSpec>) -> bool {
        let of_namespace = self.workloads.range(ObjectName::new(&service.metadata.namespace, "")..);
        let mut of_namespace = of_namespace.take_while(|name| name.namespace == service.metadata.namespace);
        let both = |name| [self.old, self.new].into_iter().filter_map(move |world| world.workload(name));
        of_namespace.any(|name| both(name).any(|workload| selects(service, workload)))
    }

    /// A route with each of its parents.
    pub(super) fn route(&self, name: &ObjectName) -> bool {
        let names_changed = || {
            self.new.route(name).is_none_or(|route| {
                let own = &route.metadata.namespace;
                route.spec.parents(own).chain(route.spec.backends(own)).any(|service| self.services.contains(&service))
            })
        };
        self.everything || self.routes.contains(name) || names_changed()
    }

    /// A workload as its own proxy serves it.
    pub(super) fn workload(&self, name: &ObjectName) -> bool {
        self.everything
            || self.workloads.contains(name)
            || self.policies.contains(name.namespace.as_str())
            || self.new.workload(name).is_none_or(|workload| self.is_behind_changed(workload))
    }

    /// A service that changed, or whose routes did, is in front of the workload, or was.
    fn is_behind_changed(&self, workload: &Object<WorkloadSpec>) -> bool {
        let mut touched = self.services.iter().chain(&self.parents);
        let both = |name| [self.old, self.new].into_iter().filter_map(move |world| world.service(name));
        touched.any(|name| both(name).any(|service| selects(service, workload)))
    }

    /// The filters that run for these workloads.
    pub(super) fn filters(&self, served: &[ObjectName]) -> bool {
        self.filters || served.iter().any(|name| self.workload(name))
    }
}

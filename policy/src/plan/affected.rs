//! What of the objects that proxies are told of may differ between two worlds. Whatever is not affected is the same: more
//! may be named than differs, never less.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use super::select::selected_by;
use super::{World, selects};
use crate::bundle::ObjectName;
use crate::resource::{HttpRouteSpec, Kind, Object, ObjectKey, ROOT_NAMESPACE, ServiceSpec, Spec, WorkloadSpec};
use crate::scope::{Ask, Blocks};

#[derive(Debug)]
pub(super) struct Affected {
    old: Arc<World>,
    new: Arc<World>,
    /// Something may hold anywhere.
    everything: bool,
    mesh: bool,
    /// Filters as they are published.
    filters: bool,
    /// Namespaces where policies hold for others than before.
    policies: BTreeSet<String>,
    /// Namespaces that are otherwise declared.
    namespaces: BTreeSet<String>,
    services: BTreeSet<ObjectName>,
    /// Services that a changed route names as its parent.
    parents: BTreeSet<ObjectName>,
    routes: BTreeSet<ObjectName>,
    workloads: BTreeSet<ObjectName>,
    /// Addresses at which there may be something else.
    addresses: OnceLock<BTreeSet<IpAddr>>,
}

impl Affected {
    pub(super) fn between(old: &Arc<World>, new: &Arc<World>) -> Self {
        let mut affected = Self {
            old: Arc::clone(old),
            new: Arc::clone(new),
            everything: !old.has_same_unreadable(new),
            mesh: false,
            filters: !old.has_same_versions(new),
            policies: BTreeSet::new(),
            namespaces: BTreeSet::new(),
            services: BTreeSet::new(),
            parents: BTreeSet::new(),
            routes: BTreeSet::new(),
            workloads: BTreeSet::new(),
            addresses: OnceLock::new(),
        };
        for key in old.differing_entries(new) {
            affected.note(key);
        }
        affected
    }

    fn note(&mut self, key: &ObjectKey) {
        let (old, new) = (&*self.old, &*self.new);
        let name = key.object_name();
        match key.kind {
            Kind::Mesh => self.mesh = true,
            Kind::Namespace => _ = self.namespaces.insert(key.name.clone()),
            Kind::Filter => self.filters = true,
            Kind::AccessPolicy | Kind::FilterPolicy => {
                self.everything |= key.namespace == ROOT_NAMESPACE;
                self.policies.insert(key.namespace.clone());
            }
            Kind::Service => {
                if [old, new].iter().any(|world| world.index().is_targeted(&name)) {
                    self.policies.insert(key.namespace.clone());
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

    /// True where this leads from that world.
    pub(super) fn is_from(&self, world: &Arc<World>) -> bool {
        Arc::ptr_eq(&self.old, world)
    }

    /// The blocks around the addresses of the old world as they are in the new one, and whether they are others.
    pub(super) fn blocks(&self, old: &Arc<Blocks>) -> (Arc<Blocks>, bool) {
        let of = |world: &World| -> Vec<IpAddr> {
            let services = self.services.iter().filter_map(|name| world.service(name)?.spec.cluster_ip);
            let workloads = self.workloads.iter().filter_map(|name| world.workload(name));
            let mut all: Vec<_> = services.chain(workloads.flat_map(|it| it.spec.all_addresses())).collect();
            all.sort();
            all
        };
        let (gone, come) = (of(&self.old), of(&self.new));
        let mut blocks = Arc::clone(old);
        if gone == come {
            return (blocks, false);
        }
        let counted = Arc::make_mut(&mut blocks);
        let mut are_others = false;
        come.into_iter().for_each(|address| are_others |= counted.add(address));
        gone.into_iter().for_each(|address| are_others |= counted.remove(address));
        (blocks, are_others)
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
        let both = |name| [&*self.old, &*self.new].into_iter().filter_map(move |world| world.workload(name));
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
        let both = |name| [&*self.old, &*self.new].into_iter().filter_map(move |world| world.service(name));
        touched.any(|name| both(name).any(|service| selects(service, workload)))
    }

    /// The filters that run for these workloads.
    pub(super) fn filters(&self, served: &[ObjectName]) -> bool {
        self.filters || served.iter().any(|name| self.workload(name))
    }

    /// What a proxy of `served` holds that asked for `asked`, and so holds the services of `scope`.
    pub(super) fn view(&self, served: &[ObjectName], asked: &BTreeSet<Ask>, scope: &BTreeSet<ObjectName>) -> bool {
        self.mesh()
            || self.filters(served)
            || served.iter().any(|name| self.namespaces.contains(&name.namespace) || self.is_used_by(name))
            || scope.iter().any(|name| self.service(name) || self.is_led_to_by(name))
            || asked.iter().any(|ask| match ask {
                Ask::Service(name) => self.services.contains(name),
                Ask::Address(address) => self.addresses().contains(address),
            })
    }

    /// A service that came or went is one that the workload or its namespace says it uses.
    fn is_used_by(&self, name: &ObjectName) -> bool {
        let namespace = &name.namespace;
        let own = self.new.workload(name).into_iter().flat_map(|workload| workload.metadata.uses(namespace));
        own.chain(self.new.uses_of_namespace(namespace)).any(|used| self.services.contains(&used))
    }

    /// A route of the service leads to one that changed, or would if that were there.
    fn is_led_to_by(&self, name: &ObjectName) -> bool {
        let mut routes = self.new.index().attached_to(name).filter_map(HttpRouteSpec::of);
        !self.services.is_empty()
            && routes.any(|route| {
                let mut backends = route.spec.backends(&route.metadata.namespace);
                backends.any(|backend| self.services.contains(&backend))
            })
    }

    fn addresses(&self) -> &BTreeSet<IpAddr> {
        self.addresses.get_or_init(|| {
            let mut all = BTreeSet::new();
            for world in [&*self.old, &*self.new] {
                let services = || self.services.iter().filter_map(|name| world.service(name));
                all.extend(services().filter_map(|service| service.spec.cluster_ip));
                let behind = services().flat_map(|service| selected_by(world, service));
                let workloads = self.workloads.iter().filter_map(|name| world.workload(name)).chain(behind);
                let addresses = |it: &'_ Object<WorkloadSpec>| it.spec.all_addresses().collect::<Vec<_>>();
                all.extend(workloads.flat_map(addresses));
            }
            all.into_iter().map(|address: IpAddr| address.to_canonical()).collect()
        })
    }
}

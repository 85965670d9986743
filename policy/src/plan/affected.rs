//! What of the objects that proxies are told of may differ between two worlds. Whatever is not affected is the same: more
//! may be named than differs, never less.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::World;
use super::merge::tier_of;
use super::select::selected_by;
use crate::bundle::ObjectName;
use crate::resource::capability::CalloutKind;
use crate::resource::{
    AnyRoute, ExternalServiceSpec, Kind, Object, ObjectKey, ROOT_NAMESPACE, ServiceSpec, TargetKind, TargetRef,
};
use crate::scope::{Ask, Blocks};

/// Found once for all who ask, in a time that grows with what changed and what is near it.
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
    /// Services that are not the same.
    services: BTreeSet<ObjectName>,
    /// Services as callers see them: those that changed, whose routes did, or a workload behind them.
    seen: BTreeSet<ObjectName>,
    /// Namespaces of which all services were noted for a policy; the empty name is the whole mesh. Of many policies for the
    /// same the first is enough.
    swept: BTreeSet<String>,
    /// Services of which a route leads to one that changed.
    leading: BTreeSet<ObjectName>,
    /// Routes, with each of their parents, by the name that each has in bundles at its first.
    routes: BTreeSet<ObjectName>,
    /// ExternalServices.
    externals: BTreeSet<ObjectName>,
    /// Workloads as their own proxies serve them.
    workloads: BTreeSet<ObjectName>,
    /// Addresses at which there may be something else.
    addresses: BTreeSet<IpAddr>,
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
            seen: BTreeSet::new(),
            swept: BTreeSet::new(),
            leading: BTreeSet::new(),
            routes: BTreeSet::new(),
            externals: BTreeSet::new(),
            workloads: BTreeSet::new(),
            addresses: BTreeSet::new(),
        };
        for key in old.differing_entries(new) {
            affected.note(key);
        }
        affected
    }

    fn note(&mut self, key: &ObjectKey) {
        let (old, new) = (Arc::clone(&self.old), Arc::clone(&self.new));
        let (worlds, name) = ([&*old, &*new], key.object_name());
        match key.kind {
            Kind::Mesh => {
                self.mesh = true;
                // It says whose filters run.
                self.filters = true;
                self.note_mesh_wide();
            }
            Kind::Namespace => _ = self.namespaces.insert(key.name.clone()),
            // Publishers say whose filters run.
            Kind::Filter | Kind::FilterPublisher => self.filters = true,
            // The attachments of its namespace carry its values, or are closed without.
            Kind::Secret
            | Kind::AccessPolicy
            | Kind::FilterPolicy
            | Kind::RateLimitPolicy
            | Kind::FaultPolicy
            | Kind::JwtPolicy => {
                self.everything |= key.namespace == ROOT_NAMESPACE;
                self.policies.insert(key.namespace.clone());
            }
            Kind::Service => {
                if worlds.iter().any(|world| world.index().is_targeted(&name)) {
                    self.policies.insert(key.namespace.clone());
                }
                self.note_callers(worlds, CalloutKind::Service, &name);
                self.note_service(worlds, name);
            }
            Kind::TrafficPolicy => {
                for policy in worlds.into_iter().filter_map(|world| world.traffic_policy(&name)) {
                    policy.spec.target_refs.iter().for_each(|target| self.note_traffic(worlds, &key.namespace, target));
                }
            }
            Kind::PolicyTemplate => self.note_template(worlds, &key.name),
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute => {
                for route in worlds.into_iter().filter_map(|world| world.route(key)) {
                    route.parents().for_each(|parent| self.note_parent(worlds, parent));
                    self.externals.extend(route.external_parents());
                    self.routes.insert(route.name_of_first());
                }
            }
            Kind::ReferenceGrant => {
                for route in worlds.into_iter().flat_map(|world| world.leading_into(&key.namespace)) {
                    self.note_leading(route);
                }
            }
            Kind::ExternalService => {
                self.note_callers(worlds, CalloutKind::ExternalService, &name);
                self.note_external(worlds, name);
            }
            Kind::Workload => self.note_workload(worlds, name),
        }
        let namespace = if key.kind == Kind::Namespace { &key.name } else { &key.namespace };
        self.mesh |= old.has_namespace(namespace) != new.has_namespace(namespace);
    }

    /// What a TrafficPolicy of this namespace is for.
    fn note_traffic(&mut self, worlds: [&World; 2], namespace: &str, target: &TargetRef) {
        match target.kind {
            TargetKind::Service => _ = self.seen.insert(ObjectName::new(namespace, &target.name)),
            TargetKind::ExternalService => self.note_settings_outside(worlds, ObjectName::new(namespace, &target.name)),
            TargetKind::Namespace => {
                if self.swept.insert(namespace.to_owned()) {
                    for world in worlds {
                        self.seen.extend(world.of_namespace::<ServiceSpec>(namespace).map(Object::name));
                        let outside = world.of_namespace::<ExternalServiceSpec>(namespace);
                        outside.for_each(|external| self.note_settings_outside(worlds, external.name()));
                    }
                }
            }
            TargetKind::Mesh => {
                if self.swept.insert(String::new()) {
                    worlds.iter().for_each(|world| self.note_everything_set(worlds, world));
                }
            }
            TargetKind::Workload | TargetKind::HttpRoute | TargetKind::GrpcRoute => {}
        }
    }

    /// The Mesh may have another name, by which policies are for it or not.
    fn note_mesh_wide(&mut self) {
        let (old, new) = (Arc::clone(&self.old), Arc::clone(&self.new));
        let name = |world: &World| world.mesh().map(|mesh| mesh.metadata.name.clone());
        let is_targeted = [&old, &new].iter().any(|world| world.index().targeting_mesh().next().is_some());
        if is_targeted && name(&old) != name(&new) {
            let worlds = [&*old, &*new];
            worlds.iter().for_each(|world| self.note_everything_set(worlds, world));
        }
    }

    /// Every service and every ExternalService of a world may be set otherwise.
    fn note_everything_set(&mut self, worlds: [&World; 2], world: &World) {
        self.seen.extend(world.services().map(Object::name));
        world.externals().for_each(|external| self.note_settings_outside(worlds, external.name()));
    }

    /// An ExternalService may be set otherwise: who is led to it without seeing it is told, too.
    fn note_settings_outside(&mut self, worlds: [&World; 2], name: ObjectName) {
        for route in worlds.into_iter().flat_map(|world| world.index().leading_to(&name)) {
            self.leading.extend(route.parents());
            self.externals.extend(route.external_parents());
        }
        self.externals.insert(name);
    }

    /// What routes lead to it, and what those that are attached to it do, may be otherwise.
    fn note_external(&mut self, worlds: [&World; 2], name: ObjectName) {
        for world in worlds {
            world.index().leading_to(&name).for_each(|route| self.note_leading(route));
            let attached = world.index().attached_to(&name).filter_map(AnyRoute::of);
            self.routes.extend(attached.map(AnyRoute::name_of_first));
        }
        self.externals.insert(name);
    }

    /// A route leads elsewhere, or may.
    fn note_leading(&mut self, route: AnyRoute<'_>) {
        self.leading.extend(route.parents());
        self.externals.extend(route.external_parents());
        self.routes.insert(route.name_of_first());
    }

    /// The services of a template's tier, and what the policies that use it are for.
    fn note_template(&mut self, worlds: [&World; 2], name: &str) {
        for tier in worlds.iter().filter_map(|world| world.template(name)?.spec.tier.as_deref()) {
            let of_tier = worlds.iter().flat_map(|world| world.services());
            self.seen.extend(of_tier.filter(|service| tier_of(service) == Some(tier)).map(Object::name));
        }
        for policy in worlds.iter().flat_map(|world| world.traffic_policies()) {
            if policy.spec.template.as_ref().is_some_and(|used| used.name == name) {
                let own = &policy.metadata.namespace;
                policy.spec.target_refs.iter().for_each(|target| self.note_traffic(worlds, own, target));
            }
        }
    }

    /// Policies whose filters may call what is there or gone now: the attachments say where callouts lead.
    fn note_callers(&mut self, worlds: [&World; 2], kind: CalloutKind, name: &ObjectName) {
        for policy in worlds.iter().flat_map(|world| world.index().calling(kind, name)) {
            let namespace = &policy.resource.metadata().namespace;
            self.everything |= *namespace == ROOT_NAMESPACE;
            self.policies.insert(namespace.clone());
        }
    }

    fn note_service(&mut self, worlds: [&World; 2], name: ObjectName) {
        for world in worlds {
            world.index().leading_to(&name).for_each(|route| self.note_leading(route));
            let attached = world.index().attached_to(&name).filter_map(AnyRoute::of);
            self.routes.extend(attached.map(AnyRoute::name_of_first));
            let Some(service) = world.service(&name) else { continue };
            self.addresses.extend(service.spec.cluster_ip.iter().map(IpAddr::to_canonical));
            let behind = selected_by(world, service).flat_map(|workload| workload.spec.all_addresses());
            self.addresses.extend(behind.map(|address| address.to_canonical()));
        }
        self.services.insert(name.clone());
        self.note_parent(worlds, name);
    }

    /// A service or its routes: callers see it otherwise, and so do the proxies of the workloads behind it.
    fn note_parent(&mut self, worlds: [&World; 2], name: ObjectName) {
        for world in worlds {
            let behind = world.service(&name).into_iter().flat_map(|service| selected_by(world, service));
            self.workloads.extend(behind.map(Object::name));
        }
        self.seen.insert(name);
    }

    fn note_workload(&mut self, worlds: [&World; 2], name: ObjectName) {
        for world in worlds {
            let Some(workload) = world.workload(&name) else { continue };
            self.seen.extend(world.selecting(workload).map(Object::name));
            self.addresses.extend(workload.spec.all_addresses().map(|address| address.to_canonical()));
        }
        self.workloads.insert(name);
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

    fn of(&self, which: Which) -> &BTreeSet<ObjectName> {
        match which {
            Which::Services => &self.seen,
            Which::Routes => &self.routes,
            Which::Externals => &self.externals,
            Which::Workloads => &self.workloads,
        }
    }

    /// Where policies changed, everything of their namespace is affected that they may hold for.
    fn is_under_policies(which: Which) -> bool {
        matches!(which, Which::Services | Which::Workloads)
    }

    /// What of these names is affected, where that can be said by name: `None` where it takes a look at each.
    pub(super) fn named(&self, which: Which) -> Option<&BTreeSet<ObjectName>> {
        let by_name = !self.everything && (self.policies.is_empty() || !Self::is_under_policies(which));
        by_name.then(|| self.of(which))
    }

    /// One of these names: a service as callers see it, a route with each of its parents, a workload as its own proxy serves it.
    pub(super) fn concerns(&self, which: Which, name: &ObjectName) -> bool {
        self.everything
            || Self::is_under_policies(which) && self.policies.contains(name.namespace.as_str())
            || self.of(which).contains(name)
    }

    /// The filters that run for these workloads.
    pub(super) fn filters(&self, served: &[ObjectName]) -> bool {
        self.filters || served.iter().any(|name| self.concerns(Which::Workloads, name))
    }

    /// What a proxy of `served` holds that asked for `asked`, and so holds the services of `scope`.
    pub(super) fn view(&self, served: &[ObjectName], asked: &BTreeSet<Ask>, scope: &BTreeSet<ObjectName>) -> bool {
        self.mesh()
            || self.filters(served)
            || served.iter().any(|name| self.namespaces.contains(&name.namespace) || self.is_used_by(name))
            || meet(&self.seen, scope)
            || meet(&self.leading, scope)
            || !self.policies.is_empty() && scope.iter().any(|name| self.policies.contains(&name.namespace))
            || self.is_asked_for(asked)
            || self.are_seen_by(served)
    }

    /// An ExternalService of their namespaces, or one that may be the whole mesh's.
    fn are_seen_by(&self, served: &[ObjectName]) -> bool {
        let is_seen = |external: &ObjectName| {
            external.namespace == ROOT_NAMESPACE || served.iter().any(|name| name.namespace == external.namespace)
        };
        self.externals.iter().any(is_seen)
    }

    fn is_asked_for(&self, asked: &BTreeSet<Ask>) -> bool {
        let services = self.services.iter().map(|name| Ask::Service(name.clone()));
        let addresses = self.addresses.iter().map(|address| Ask::Address(*address));
        services.chain(addresses).any(|ask| asked.contains(&ask))
    }

    /// A service that came or went is one that the workload or its namespace says it uses.
    fn is_used_by(&self, name: &ObjectName) -> bool {
        let namespace = &name.namespace;
        let used = || {
            let own = self.new.workload(name).into_iter().flat_map(|workload| workload.metadata.uses(namespace));
            own.chain(self.new.uses_of_namespace(namespace))
        };
        !self.services.is_empty() && used().any(|used| self.services.contains(&used))
    }
}

/// Objects that are found by their own names.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which {
    Services,
    Routes,
    Externals,
    Workloads,
}

/// True where something is in both: the smaller is looked through.
fn meet(a: &BTreeSet<ObjectName>, b: &BTreeSet<ObjectName>) -> bool {
    let (few, many) = if a.len() < b.len() { (a, b) } else { (b, a) };
    few.iter().any(|name| many.contains(name))
}

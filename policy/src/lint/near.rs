//! The objects that a change may bring an error to: what it touches, and what the passes look at together with that. More may
//! be named than is concerned, never less.

use std::collections::BTreeSet;

use crate::bundle::ObjectName;
use crate::plan::World;
use crate::resource::{
    AnyRoute, ExternalServiceSpec, FilterPolicySpec, Holding, JwtPolicySpec, Kind, Object, ObjectKey, ROOT_NAMESPACE,
    ServiceSpec, Spec, TargetKind, TargetRef, TrafficPolicySpec,
};

/// Where findings may differ between two worlds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Near {
    Everything,
    These(BTreeSet<ObjectKey>),
}

impl Near {
    /// About the objects that are not the same in both worlds, those around them, and the `given`.
    pub fn between<'k>(before: &World, after: &World, given: impl IntoIterator<Item = &'k ObjectKey>) -> Self {
        let touched = before.differing(after);
        let is_rare = |key: &&ObjectKey| {
            let is_wide = |kind| {
                matches!(
                    kind,
                    Kind::Mesh | Kind::Namespace | Kind::Filter | Kind::FilterPublisher | Kind::PolicyTemplate
                )
            };
            let everywhere = is_wide(key.kind) || key.namespace == ROOT_NAMESPACE;
            let is_unread = |world: &World| world.is_unreadable(key.kind, &key.object_name());
            let moves = before.has_namespace(&key.namespace) != after.has_namespace(&key.namespace);
            everywhere || is_unread(before) || is_unread(after) || moves
        };
        if touched.iter().copied().any(|key| is_rare(&key)) || !before.has_same_versions(after) {
            return Self::Everything;
        }
        let keys = given.into_iter().cloned().collect();
        let mut near = Around { worlds: [before, after], keys, looked_at: BTreeSet::new() };
        touched.into_iter().for_each(|key| near.add(key));
        Self::These(near.keys)
    }

    pub(super) fn keys(&self) -> Option<&BTreeSet<ObjectKey>> {
        match self {
            Self::Everything => None,
            Self::These(keys) => Some(keys),
        }
    }
}

struct Around<'w> {
    worlds: [&'w World; 2],
    keys: BTreeSet<ObjectKey>,
    /// What is among the keys already, each with whether it is of the world before: ten thousand routes of one service
    /// have one service to look around.
    looked_at: BTreeSet<(bool, Vicinity)>,
}

/// What many objects of one change may have around them together.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Vicinity {
    /// Routes and policies of a service or an ExternalService.
    Of(ObjectName),
    /// The same of a service, and the workloads behind it.
    Behind(ObjectName),
    /// Services and policies of a namespace.
    Policies(String),
    /// Routes that lead into a namespace.
    LeadingInto(String),
    /// ExternalServices and filters of a namespace.
    Externals(String),
    /// TrafficPolicies of a namespace.
    Traffic(String),
    /// FilterPolicies of a namespace.
    Filters(String),
}

impl Around<'_> {
    /// True the first time that this is asked for.
    fn is_new(&mut self, world: &World, vicinity: Vicinity) -> bool {
        self.looked_at.insert((std::ptr::eq(world, self.worlds[0]), vicinity))
    }

    fn around(&mut self, world: &World, name: &ObjectName) {
        if self.is_new(world, Vicinity::Of(name.clone())) {
            self.keys.extend(world.around_service(name));
        }
    }

    fn add(&mut self, key: &ObjectKey) {
        self.keys.insert(key.clone());
        let name = key.object_name();
        for world in self.worlds {
            match key.kind {
                Kind::Service => self.service(world, &name),
                Kind::Workload => self.workload(world, &name),
                Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute => self.route(world, key),
                // Policies are compared with those that hold beside them, and with the ports of services.
                Kind::AccessPolicy
                | Kind::FilterPolicy
                | Kind::RateLimitPolicy
                | Kind::FaultPolicy
                | Kind::JwtPolicy => self.policies(world, &key.namespace),
                // One that holds for the same services may be overruled, or not any more.
                Kind::TrafficPolicy => {
                    let policy = world.traffic_policy(&name).into_iter();
                    for target in policy.flat_map(|policy| &policy.spec.target_refs) {
                        self.beside_traffic_policy(world, &key.namespace, target);
                    }
                }
                Kind::ReferenceGrant => {
                    if self.is_new(world, Vicinity::LeadingInto(key.namespace.clone())) {
                        self.keys.extend(world.leading_into(&key.namespace).map(AnyRoute::key));
                    }
                }
                // Those beside it may claim the same, and filters of its namespace may call it.
                Kind::ExternalService => {
                    if self.is_new(world, Vicinity::Externals(key.namespace.clone())) {
                        self.insert(world.of_namespace::<ExternalServiceSpec>(&key.namespace));
                        self.insert(world.of_namespace::<FilterPolicySpec>(&key.namespace));
                        self.insert(world.of_namespace::<JwtPolicySpec>(&key.namespace));
                    }
                    self.around(world, &name);
                }
                // Filters of its namespace may be handed its values.
                Kind::Secret => {
                    if self.is_new(world, Vicinity::Filters(key.namespace.clone())) {
                        self.insert(world.of_namespace::<FilterPolicySpec>(&key.namespace));
                    }
                }
                Kind::Mesh | Kind::Namespace | Kind::Filter | Kind::FilterPublisher | Kind::PolicyTemplate => {}
            }
        }
    }

    fn insert<'o, S: Spec>(&mut self, objects: impl Iterator<Item = &'o Object<S>>) {
        self.keys.extend(objects.map(|object| key(S::KIND, object.name())));
    }

    fn policies(&mut self, world: &World, namespace: &str) {
        if !self.is_new(world, Vicinity::Policies(namespace.to_owned())) {
            return;
        }
        self.insert(world.of_namespace::<ServiceSpec>(namespace));
        for namespace in [namespace, ROOT_NAMESPACE] {
            for kind in [Kind::AccessPolicy].into_iter().chain(Kind::ATTACHING) {
                self.keys.extend(world.within(kind, namespace).map(|(key, _)| key.clone()));
            }
        }
    }

    /// What else is for a target of a TrafficPolicy.
    fn beside_traffic_policy(&mut self, world: &World, namespace: &str, target: &TargetRef) {
        match target.kind {
            TargetKind::Service | TargetKind::ExternalService => {
                self.around(world, &ObjectName::new(namespace, &target.name));
            }
            TargetKind::Namespace => {
                if self.is_new(world, Vicinity::Traffic(namespace.to_owned())) {
                    self.insert(world.of_namespace::<TrafficPolicySpec>(namespace));
                }
            }
            // Of the root namespace, for which everything is looked at, and of nobody.
            TargetKind::Mesh | TargetKind::Workload | TargetKind::HttpRoute | TargetKind::GrpcRoute => {}
        }
    }

    /// Its routes, who has its address, the workloads behind it, and policies that name it or hold for those.
    fn service(&mut self, world: &World, name: &ObjectName) {
        if !self.is_new(world, Vicinity::Behind(name.clone())) {
            return;
        }
        self.around(world, name);
        let Some(service) = world.service(name) else { return };
        self.keys.extend(service.spec.cluster_ip.iter().flat_map(|address| world.with_address(*address)));
        for workload in world.standing_behind(service) {
            self.keys.insert(key(Kind::Workload, workload.name()));
            self.keys.extend(world.policies_of(workload).map(|policy| policy.key()));
        }
    }

    /// Who has its addresses, the services in front of it with all behind them, and the policies that hold for them.
    fn workload(&mut self, world: &World, name: &ObjectName) {
        let Some(workload) = world.workload(name) else { return };
        self.keys.extend(world.policies_of(workload).map(|policy| policy.key()));
        self.keys.extend(workload.spec.all_addresses().flat_map(|address| world.with_address(address)));
        for service in world.selecting(workload) {
            self.keys.insert(key(Kind::Service, service.name()));
            self.service(world, &service.name());
        }
    }

    /// Its parents with their other routes, and what it leads to.
    fn route(&mut self, world: &World, key: &ObjectKey) {
        let is_target = |target: &TargetRef| {
            target.name == key.name && target.kind.route().is_some_and(|(kind, _)| kind == key.kind)
        };
        for (policy, entry) in Kind::ATTACHING.into_iter().flat_map(|kind| world.within(kind, &key.namespace)) {
            if Holding::of(&entry.resource).is_some_and(|held| held.targets.iter().any(is_target)) {
                self.keys.insert(policy.clone());
            }
        }
        let Some(route) = world.route(key) else { return };
        for parent in route.parents() {
            self.around(world, &parent);
            self.keys.insert(self::key(Kind::Service, parent));
        }
        for parent in route.external_parents() {
            self.around(world, &parent);
            self.keys.insert(self::key(Kind::ExternalService, parent));
        }
        for backend in route.backends() {
            self.keys.insert(self::key(Kind::ExternalService, backend.clone()));
            self.keys.insert(self::key(Kind::Service, backend));
        }
    }
}

fn key(kind: Kind, name: ObjectName) -> ObjectKey {
    ObjectKey::new(kind, &name.namespace, &name.name)
}

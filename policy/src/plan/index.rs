//! Lookups over a whole world, made once for all who ask the same world: who stands behind a service, which policies
//! hold for a workload, which routes are attached to a service. With them the work of judging a world grows with what
//! is in it, not with its square.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use super::world::{Entry, World};
use crate::bundle::ObjectName;
use crate::resource::{
    Kind, Metadata, Object, ObjectKey, ROOT_NAMESPACE, Resource, ServiceSpec, Spec, TargetKind, TargetRef, WorkloadSpec,
};

/// A namespace, and a label's key and value.
type Label = (String, String, String);

/// Positions are those of the world's order, so that every answer comes in it.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: Vec<Arc<Entry>>,
    workloads: BTreeMap<Label, Vec<usize>>,
    /// Routes by the service that they are attached to.
    routes: BTreeMap<ObjectName, Vec<usize>>,
    policies: BTreeMap<Scope, Vec<usize>>,
    /// Services that a policy is for, by the first label of their selector: others may be many, and all select the same.
    targeted: OnceLock<BTreeMap<Label, Vec<ObjectName>>>,
    /// Services by the first label of their selector, made when somebody asks.
    selecting: OnceLock<BTreeMap<Label, Vec<ObjectName>>>,
    /// Who has an address, made when somebody asks.
    addresses: OnceLock<BTreeMap<IpAddr, Vec<Holder>>>,
}

/// An object that has an address.
#[derive(Debug, Clone)]
enum Holder {
    Service(ObjectName),
    Workload(ObjectName),
}

/// What a policy holds for, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    /// Nothing is named: everything of the policy's namespace, or of the mesh.
    All(String),
    Namespace(String),
    Service(ObjectName),
    Workload(ObjectName),
}

impl Index {
    pub(super) fn of<'w>(objects: impl Iterator<Item = &'w Arc<Entry>>) -> Self {
        let mut index = Self::default();
        for entry in objects {
            index.add(entry);
        }
        index
    }

    fn add(&mut self, entry: &Arc<Entry>) {
        let position = self.entries.len();
        match &entry.resource {
            Resource::Workload(workload) => {
                for (key, value) in &workload.metadata.labels {
                    let label = (workload.metadata.namespace.clone(), key.clone(), value.clone());
                    self.workloads.entry(label).or_default().push(position);
                }
            }
            Resource::HttpRoute(route) => {
                let own = &route.metadata.namespace;
                let parents = route.spec.parent_refs.iter();
                let parents: BTreeSet<_> = parents
                    .map(|parent| ObjectName::new(parent.namespace.as_ref().unwrap_or(own).clone(), &parent.name))
                    .collect();
                for parent in parents {
                    self.routes.entry(parent).or_default().push(position);
                }
            }
            Resource::AccessPolicy(policy) => self.add_policy(position, &policy.metadata, &policy.spec.target_refs),
            Resource::FilterPolicy(policy) => self.add_policy(position, &policy.metadata, &policy.spec.target_refs),
            Resource::Namespace(_) | Resource::Mesh(_) | Resource::Service(_) | Resource::Filter(_) => return,
        }
        self.entries.push(entry.clone());
    }

    fn add_policy(&mut self, position: usize, policy: &Metadata, targets: &[TargetRef]) {
        let named = |target: &TargetRef| ObjectName::new(policy.namespace.clone(), &target.name);
        let scope = |target: &TargetRef| match target.kind {
            TargetKind::Namespace => Scope::Namespace(target.name.clone()),
            TargetKind::Service => Scope::Service(named(target)),
            TargetKind::Workload => Scope::Workload(named(target)),
        };
        let mut scopes: BTreeSet<_> = targets.iter().map(scope).collect();
        if targets.is_empty() {
            scopes.insert(Scope::All(policy.namespace.clone()));
        }
        for scope in scopes {
            self.policies.entry(scope).or_default().push(position);
        }
    }

    /// Workloads that have the rarest of the selector's labels: all that the service selects are among them.
    pub(super) fn near_service<'w>(
        &'w self,
        service: &Object<ServiceSpec>,
    ) -> impl Iterator<Item = &'w Object<WorkloadSpec>> + use<'w> {
        let with = |(key, value): (&String, &String)| {
            let label = (service.metadata.namespace.clone(), key.clone(), value.clone());
            self.workloads.get(&label).map(Vec::as_slice).unwrap_or_default()
        };
        let rarest = service.spec.selector.iter().map(with).min_by_key(|found| found.len()).unwrap_or_default();
        rarest.iter().filter_map(|position| Spec::of(&self.entries[*position].resource))
    }

    /// Services that have a label of the workload in their selector: all that it stands behind are among them, in their order.
    pub(super) fn near_workload<'w>(
        &'w self,
        world: &'w World,
        workload: &Object<WorkloadSpec>,
    ) -> impl Iterator<Item = &'w Object<ServiceSpec>> + use<'w> {
        let by_label = self.selecting.get_or_init(|| {
            let mut by_label = BTreeMap::<Label, Vec<ObjectName>>::new();
            for service in world.services() {
                let Some((key, value)) = service.spec.selector.first_key_value() else { continue };
                let label = (service.metadata.namespace.clone(), key.clone(), value.clone());
                by_label.entry(label).or_default().push(service.name());
            }
            by_label
        });
        let own = &workload.metadata.namespace;
        let with = |(key, value): (&String, &String)| {
            by_label.get(&(own.clone(), key.clone(), value.clone())).map(Vec::as_slice).unwrap_or_default()
        };
        let near: BTreeSet<&ObjectName> = workload.metadata.labels.iter().flat_map(with).collect();
        near.into_iter().filter_map(|name| world.service(name))
    }

    pub(super) fn attached_to<'w>(&'w self, service: &ObjectName) -> impl Iterator<Item = &'w Resource> + use<'w> {
        self.routes_of(service).map(|entry| &entry.resource)
    }

    /// Routes that are attached to a service, as they are in the world.
    pub(super) fn routes_of<'w>(&'w self, service: &ObjectName) -> impl Iterator<Item = &'w Entry> + use<'w> {
        let found = self.routes.get(service).map(Vec::as_slice).unwrap_or_default();
        found.iter().map(|position| self.entries[*position].as_ref())
    }

    /// Services with this virtual address, and those in front of the workloads that have it.
    pub(super) fn at(&self, world: &World, address: IpAddr) -> Vec<ObjectName> {
        let holders = self.addresses.get_or_init(|| {
            let mut holders = BTreeMap::<IpAddr, Vec<Holder>>::new();
            let mut note = |address: IpAddr, holder| holders.entry(address.to_canonical()).or_default().push(holder);
            for service in world.services() {
                service.spec.cluster_ip.into_iter().for_each(|ip| note(ip, Holder::Service(service.name())));
            }
            for workload in world.workloads() {
                workload.spec.all_addresses().for_each(|ip| note(ip, Holder::Workload(workload.name())));
            }
            holders
        });
        let mut found = BTreeSet::new();
        for holder in holders.get(&address.to_canonical()).into_iter().flatten() {
            match holder {
                Holder::Service(name) => _ = found.insert(name.clone()),
                Holder::Workload(name) => {
                    let Some(workload) = world.workload(name) else { continue };
                    found.extend(world.selecting(workload).map(Object::name));
                }
            }
        }
        found.into_iter().collect()
    }

    /// Namespaces that have routes of their own for another's service, some more than once.
    pub(super) fn consumers<'w>(&'w self, service: &'w ObjectName) -> impl Iterator<Item = &'w str> {
        let namespaces = self.attached_to(service).map(|route| route.metadata().namespace.as_str());
        namespaces.filter(|namespace| *namespace != service.namespace)
    }

    /// True where a policy names the service as its target.
    pub(super) fn is_targeted(&self, service: &ObjectName) -> bool {
        self.policies.contains_key(&Scope::Service(service.clone()))
    }

    fn targeted(&self, world: &World) -> &BTreeMap<Label, Vec<ObjectName>> {
        self.targeted.get_or_init(|| {
            let mut by_label = BTreeMap::<Label, Vec<ObjectName>>::new();
            for scope in self.policies.keys() {
                let Scope::Service(name) = scope else { continue };
                let first = world.service(name).and_then(|service| service.spec.selector.first_key_value());
                if let Some((key, value)) = first {
                    let label = (name.namespace.clone(), key.clone(), value.clone());
                    by_label.entry(label).or_default().push(name.clone());
                }
            }
            by_label
        })
    }

    /// Policies that may hold for a workload: all that do are among them.
    pub(super) fn near_policies<'w>(
        &'w self,
        world: &World,
        workload: &Object<WorkloadSpec>,
    ) -> impl Iterator<Item = &'w Resource> + use<'w> {
        let (own, name) = (&workload.metadata.namespace, workload.name());
        let mut scopes = vec![
            Scope::All(own.clone()),
            Scope::All(ROOT_NAMESPACE.to_owned()),
            Scope::Namespace(own.clone()),
            Scope::Workload(name),
        ];
        let with = |(key, value): (&String, &String)| {
            self.targeted(world).get(&(own.clone(), key.clone(), value.clone())).map(Vec::as_slice).unwrap_or_default()
        };
        let near = workload.metadata.labels.iter().flat_map(with);
        let holding = near.filter(|name| world.service(name).is_some_and(|it| super::selects(it, workload)));
        scopes.extend(holding.map(|name| Scope::Service(name.clone())));
        // A service that can't be read may select anybody of its namespace.
        let unread = world.unreadable_of(Kind::Service, own);
        scopes.extend(unread.map(|key: &ObjectKey| Scope::Service(key.object_name())));
        let found: BTreeSet<usize> =
            scopes.iter().flat_map(|scope| self.policies.get(scope)).flatten().copied().collect();
        found.into_iter().map(|position| &self.entries[position].resource)
    }
}

//! Lookups over a whole world, which follow each of its changes: who stands behind a service, which policies hold for a
//! workload, which routes are attached to a service, what is whose. With them the work of a change grows with what it touches.

mod owned;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use self::owned::Owned;
use super::callout::callees;
use super::world::{Entry, Held, Objects, World};
use crate::bundle::ObjectName;
use crate::resource::capability::CalloutKind;
use crate::resource::grant::GrantFrom;
use crate::resource::{
    AnyRoute, Attaching, Holding, Kind, Metadata, Object, ObjectKey, ROOT_NAMESPACE, ReferenceGrantSpec, Resource,
    ServiceSpec, Spec, TargetKind, TargetRef, WorkloadSpec,
};

/// A namespace, and a label's key and value.
type Label = (String, String, String);

/// The namespace of a grant, and a kind and a namespace that it is for.
type Granted = (String, String, String);

/// Objects in the world's order, so that every answer comes in it.
type Entries = Arc<Vec<Held>>;

/// As a world, it costs nothing to clone. Invariant: what is asked of it is what would be found in the world's objects.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Index {
    /// Workloads by each of their labels.
    workloads: OrdMap<Label, Entries>,
    /// Services by the first label of their selector.
    services: OrdMap<Label, Entries>,
    /// Routes by the service that they are attached to, and by those that they lead to.
    routes: OrdMap<ObjectName, Entries>,
    leading: OrdMap<ObjectName, Entries>,
    policies: OrdMap<Scope, Entries>,
    /// ReferenceGrants, by what they let in: into which namespace, from which kind of which.
    grants: OrdMap<Granted, Entries>,
    /// Services that a policy is for, by the first label of their selector: others may be many, and all select the same.
    targeted: OrdMap<Label, OrdSet<ObjectName>>,
    /// Services and workloads by their addresses.
    addresses: OrdMap<IpAddr, Entries>,
    /// Workloads by the address at which they take mesh traffic.
    mesh_addresses: OrdMap<SocketAddr, Entries>,
    owned: Owned,
}

/// What a policy holds for, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    /// Nothing is named: everything of the policy's namespace, or of the mesh.
    All(String),
    Namespace(String),
    Service(ObjectName),
    External(ObjectName),
    Workload(ObjectName),
    Mesh,
    /// It holds for others, and lets its filter call this.
    Callout(CalloutKind, ObjectName),
}

/// What an object is found by.
#[derive(Default)]
struct Found {
    workloads: BTreeSet<Label>,
    services: BTreeSet<Label>,
    routes: BTreeSet<ObjectName>,
    leading: BTreeSet<ObjectName>,
    policies: BTreeSet<Scope>,
    grants: BTreeSet<Granted>,
    addresses: BTreeSet<IpAddr>,
    mesh_addresses: BTreeSet<SocketAddr>,
}

impl Found {
    fn by(resource: &Resource) -> Self {
        let mut found = Self::default();
        match resource {
            Resource::Workload(workload) => {
                let Metadata { namespace, labels, .. } = &workload.metadata;
                let label = |(key, value): (&String, &String)| (namespace.clone(), key.clone(), value.clone());
                found.workloads = labels.iter().map(label).collect();
                found.addresses = workload.spec.all_addresses().map(|ip| ip.to_canonical()).collect();
                found.mesh_addresses = BTreeSet::from([workload.spec.mesh_address()]);
            }
            Resource::Service(service) => {
                found.services = first_label(service).into_iter().collect();
                found.addresses = service.spec.cluster_ip.iter().map(IpAddr::to_canonical).collect();
            }
            Resource::HttpRoute(_) | Resource::GrpcRoute(_) | Resource::TlsRoute(_) | Resource::TcpRoute(_) => {
                if let Some(route) = AnyRoute::of(resource) {
                    let parents = route.spec.parent_refs.iter();
                    let parents = parents.map(|parent| route.named(parent.namespace.as_deref(), &parent.name));
                    found.routes = parents.collect();
                    found.leading = route.backends().collect();
                }
            }
            Resource::AccessPolicy(_) | Resource::RateLimitPolicy(_) | Resource::FaultPolicy(_) => {
                if let Some(held) = Holding::of(resource) {
                    found.policies = scopes(held.metadata, held.targets);
                }
            }
            Resource::FilterPolicy(_) | Resource::JwtPolicy(_) => {
                if let Some(policy) = Attaching::of(resource) {
                    found.policies = scopes(&policy.metadata, &policy.spec.target_refs);
                    found.policies.extend(callees(&policy).map(|(kind, name)| Scope::Callout(kind, name)));
                }
            }
            Resource::TrafficPolicy(policy) => found.policies = scopes(&policy.metadata, &policy.spec.target_refs),
            Resource::ReferenceGrant(grant) => {
                let of =
                    |from: &GrantFrom| (grant.metadata.namespace.clone(), from.kind.clone(), from.namespace.clone());
                found.grants = grant.spec.from.iter().map(of).collect();
            }
            Resource::Namespace(_)
            | Resource::Mesh(_)
            | Resource::Filter(_)
            | Resource::FilterPublisher(_)
            | Resource::Secret(_)
            | Resource::PolicyTemplate(_)
            | Resource::ExternalService(_) => {}
        }
        found
    }
}

/// What a policy holds for.
fn scopes(policy: &Metadata, targets: &[TargetRef]) -> BTreeSet<Scope> {
    let named = |target: &TargetRef| ObjectName::new(policy.namespace.clone(), &target.name);
    let scope = |target: &TargetRef| match target.kind {
        TargetKind::Namespace => Scope::Namespace(target.name.clone()),
        TargetKind::Service => Scope::Service(named(target)),
        TargetKind::ExternalService => Scope::External(named(target)),
        TargetKind::Workload => Scope::Workload(named(target)),
        TargetKind::Mesh => Scope::Mesh,
        TargetKind::HttpRoute | TargetKind::GrpcRoute => Scope::All(policy.namespace.clone()),
    };
    match targets {
        [] => BTreeSet::from([Scope::All(policy.namespace.clone())]),
        targets => targets.iter().map(scope).collect(),
    }
}

fn first_label(service: &Object<ServiceSpec>) -> Option<Label> {
    let (key, value) = service.spec.selector.first_key_value()?;
    Some((service.metadata.namespace.clone(), key.clone(), value.clone()))
}

/// Where an object is in the world's order.
fn place(held: &Held) -> (Kind, &str, &str) {
    let (resource, metadata) = (&held.0.resource, held.0.resource.metadata());
    (resource.kind(), &metadata.namespace, &metadata.name)
}

/// What becomes of an object.
#[derive(Clone, Copy)]
enum Turn<'h> {
    Comes(&'h Held),
    Goes(&'h Held),
}

impl Turn<'_> {
    fn note<K: Ord + Clone>(self, map: &mut OrdMap<K, Entries>, keys: BTreeSet<K>) {
        for key in keys {
            match self {
                Self::Comes(held) => {
                    let entries = Arc::make_mut(map.entry(key).or_default());
                    if let Err(at) = entries.binary_search_by(|other| place(other).cmp(&place(held))) {
                        entries.insert(at, held.clone());
                    }
                }
                Self::Goes(was) => {
                    let Some(entries) = map.get_mut(&key).map(Arc::make_mut) else { continue };
                    if let Ok(at) = entries.binary_search_by(|other| place(other).cmp(&place(was))) {
                        entries.remove(at);
                    }
                    if entries.is_empty() {
                        map.remove(&key);
                    }
                }
            }
        }
    }
}

/// Each once, in the world's order.
fn in_order(mut found: Vec<&Held>) -> impl Iterator<Item = &Resource> {
    found.sort_unstable_by_key(|held| place(held));
    found.dedup_by_key(|held| place(held));
    found.into_iter().map(|held| &held.0.resource)
}

fn all<'i, K: Ord>(map: &'i OrdMap<K, Entries>, found_by: &K) -> impl Iterator<Item = &'i Entry> + use<'i, K> {
    map.get(found_by).into_iter().flat_map(|entries| entries.iter()).map(|held| &*held.0)
}

impl Index {
    /// An object is in the world, which has all `objects`.
    pub(super) fn note(&mut self, objects: &Objects, key: &ObjectKey, held: &Held) {
        let found = Found::by(&held.0.resource);
        for label in &found.services {
            if self.policies.contains_key(&Scope::Service(key.object_name())) {
                self.targeted.entry(label.clone()).or_default().insert(key.object_name());
            }
        }
        for scope in &found.policies {
            if let Scope::Service(name) = scope
                && let Some(label) = label_of(objects, name)
            {
                self.targeted.entry(label).or_default().insert(name.clone());
            }
        }
        self.take(found, Turn::Comes(held));
        self.owned.note(key, &held.0);
    }

    /// An object that was in the world is no longer, or there is another in its place.
    pub(super) fn forget(&mut self, objects: &Objects, key: &ObjectKey, was: &Held) {
        let found = Found::by(&was.0.resource);
        found.services.iter().for_each(|label| self.untarget(label, &key.object_name()));
        let scopes = found.policies.clone();
        self.take(found, Turn::Goes(was));
        self.owned.forget(key, &was.0);
        for scope in &scopes {
            if let Scope::Service(name) = scope
                && !self.policies.contains_key(scope)
                && let Some(label) = label_of(objects, name)
            {
                self.untarget(&label, name);
            }
        }
    }

    fn take(&mut self, found: Found, turn: Turn<'_>) {
        let Found { workloads, services, routes, leading, policies, grants, addresses, mesh_addresses } = found;
        turn.note(&mut self.workloads, workloads);
        turn.note(&mut self.services, services);
        turn.note(&mut self.routes, routes);
        turn.note(&mut self.leading, leading);
        turn.note(&mut self.policies, policies);
        turn.note(&mut self.grants, grants);
        turn.note(&mut self.addresses, addresses);
        turn.note(&mut self.mesh_addresses, mesh_addresses);
    }

    fn untarget(&mut self, label: &Label, service: &ObjectName) {
        let Some(targeted) = self.targeted.get_mut(label) else { return };
        targeted.remove(service);
        if targeted.is_empty() {
            self.targeted.remove(label);
        }
    }

    /// Workloads that have the rarest of the selector's labels: all that the service selects are among them.
    pub(super) fn near_service<'w>(
        &'w self,
        service: &Object<ServiceSpec>,
    ) -> impl Iterator<Item = &'w Object<WorkloadSpec>> + use<'w> {
        let with = |(key, value): (&String, &String)| {
            let label = (service.metadata.namespace.clone(), key.clone(), value.clone());
            self.workloads.get(&label).map(|found| found.as_slice()).unwrap_or_default()
        };
        let rarest = service.spec.selector.iter().map(with).min_by_key(|found| found.len()).unwrap_or_default();
        rarest.iter().filter_map(|held| Spec::of(&held.0.resource))
    }

    /// Services whose selector begins with a label of the workload: all that select it are among them.
    pub(super) fn near_workload<'w>(
        &'w self,
        workload: &Object<WorkloadSpec>,
    ) -> impl Iterator<Item = &'w Object<ServiceSpec>> + use<'w> {
        let Metadata { namespace, labels, .. } = &workload.metadata;
        let with =
            |(key, value): (&String, &String)| self.services.get(&(namespace.clone(), key.clone(), value.clone()));
        in_order(labels.iter().filter_map(with).flat_map(|found| found.iter()).collect()).filter_map(Spec::of)
    }

    pub(super) fn attached_to<'w>(&'w self, service: &ObjectName) -> impl Iterator<Item = &'w Resource> + use<'w> {
        self.routes_of(service).map(|entry| &entry.resource)
    }

    /// Routes that are attached to a service, as they are in the world.
    pub(super) fn routes_of<'w>(&'w self, service: &ObjectName) -> impl Iterator<Item = &'w Entry> + use<'w> {
        all(&self.routes, service)
    }

    /// Those of one kind, without a look at the others.
    pub(super) fn attached_of_kind<'w>(
        &'w self,
        service: &ObjectName,
        kind: Kind,
    ) -> impl Iterator<Item = AnyRoute<'w>> + use<'w> {
        let entries = self.routes.get(service).map(|entries| entries.as_slice()).unwrap_or_default();
        let begin = entries.partition_point(|held| held.0.resource.kind() < kind);
        let end = entries.partition_point(|held| held.0.resource.kind() <= kind);
        entries[begin..end].iter().filter_map(|held| AnyRoute::of(&held.0.resource))
    }

    /// Routes that lead to a service.
    pub(super) fn leading_to<'w>(&'w self, service: &ObjectName) -> impl Iterator<Item = AnyRoute<'w>> + use<'w> {
        all(&self.leading, service).filter_map(|entry| AnyRoute::of(&entry.resource))
    }

    /// Routes of other namespaces that lead to a service of this one, some more than once.
    pub(super) fn leading_into<'w>(&'w self, namespace: &str) -> impl Iterator<Item = AnyRoute<'w>> + use<'w> {
        let namespace = namespace.to_owned();
        let from = self.leading.range(ObjectName::new(namespace.clone(), "")..);
        let within = from.take_while(move |(service, _)| service.namespace == namespace);
        let foreign = within.flat_map(|(service, entries)| entries.iter().map(move |held| (service, held)));
        foreign.filter_map(|(service, held)| {
            AnyRoute::of(&held.0.resource).filter(|route| route.metadata.namespace != service.namespace)
        })
    }

    /// Services with this virtual address, and those in front of the workloads that have it.
    pub(super) fn at(&self, world: &World, address: IpAddr) -> Vec<ObjectName> {
        let mut found = BTreeSet::new();
        for holder in all(&self.addresses, &address.to_canonical()) {
            match &holder.resource {
                Resource::Service(service) => _ = found.insert(service.name()),
                Resource::Workload(workload) => found.extend(world.selecting(workload).map(Object::name)),
                Resource::Namespace(_)
                | Resource::Mesh(_)
                | Resource::ReferenceGrant(_)
                | Resource::HttpRoute(_)
                | Resource::GrpcRoute(_)
                | Resource::TlsRoute(_)
                | Resource::TcpRoute(_)
                | Resource::Filter(_)
                | Resource::FilterPublisher(_)
                | Resource::Secret(_)
                | Resource::FilterPolicy(_)
                | Resource::RateLimitPolicy(_)
                | Resource::FaultPolicy(_)
                | Resource::JwtPolicy(_)
                | Resource::AccessPolicy(_)
                | Resource::PolicyTemplate(_)
                | Resource::ExternalService(_)
                | Resource::TrafficPolicy(_) => {}
            }
        }
        found.into_iter().collect()
    }

    pub(super) fn with_address(&self, address: IpAddr) -> impl Iterator<Item = ObjectKey> {
        all(&self.addresses, &address.to_canonical()).map(|entry| entry.resource.key())
    }

    /// Services and workloads with one of these addresses, and workloads that take mesh traffic there: in the world's order.
    pub(super) fn sharing(&self, addresses: impl Iterator<Item = IpAddr>, mesh: SocketAddr) -> Vec<&Resource> {
        let canonical: BTreeSet<_> = addresses.chain([mesh.ip()]).map(|address| address.to_canonical()).collect();
        let with = canonical.iter().filter_map(|address| self.addresses.get(address));
        let with = with.chain(self.mesh_addresses.get(&mesh));
        in_order(with.flat_map(|entries| entries.iter()).collect()).collect()
    }

    pub(super) fn owned(&self) -> &Owned {
        &self.owned
    }

    /// Policies whose filters may call this.
    pub(super) fn calling<'w>(
        &'w self,
        kind: CalloutKind,
        name: &ObjectName,
    ) -> impl Iterator<Item = &'w Entry> + use<'w> {
        all(&self.policies, &Scope::Callout(kind, name.clone()))
    }

    /// Routes that are attached to a service or an ExternalService of this name or lead to it, and policies that name
    /// it or whose filters may call it.
    pub(super) fn around_service(&self, name: &ObjectName) -> BTreeSet<ObjectKey> {
        let found = all(&self.routes, name).chain(all(&self.leading, name));
        let found = found.chain(all(&self.policies, &Scope::Service(name.clone())));
        let found = found.chain(all(&self.policies, &Scope::External(name.clone())));
        let found = found.chain(self.calling(CalloutKind::Service, name));
        let key = |entry: &Entry| {
            #[cfg(test)]
            super::work::count();
            entry.resource.key()
        };
        found.map(key).collect()
    }

    /// Namespaces that have routes of their own for another's service, some more than once.
    pub(super) fn consumers<'w>(&'w self, service: &'w ObjectName) -> impl Iterator<Item = &'w str> {
        let namespaces = self.attached_to(service).map(|route| route.metadata().namespace.as_str());
        namespaces.filter(|namespace| *namespace != service.namespace)
    }

    /// Policies that name a service, of every kind.
    pub(super) fn targeting<'w>(&'w self, service: &ObjectName) -> impl Iterator<Item = &'w Entry> + use<'w> {
        all(&self.policies, &Scope::Service(service.clone()))
    }

    /// The same of an ExternalService.
    pub(super) fn targeting_external<'w>(&'w self, external: &ObjectName) -> impl Iterator<Item = &'w Entry> + use<'w> {
        all(&self.policies, &Scope::External(external.clone()))
    }

    /// The grants of the namespace `into` for routes of this kind and namespace.
    pub(super) fn grants<'w>(
        &'w self,
        into: &str,
        kind: &str,
        from: &str,
    ) -> impl Iterator<Item = &'w Object<ReferenceGrantSpec>> + use<'w> {
        let granted = (into.to_owned(), kind.to_owned(), from.to_owned());
        let grants = all(&self.grants, &granted).filter_map(|entry| ReferenceGrantSpec::of(&entry.resource));
        let (kind, from) = (granted.1, granted.2);
        grants.filter(move |grant| grant.spec.is_for(&kind, &from))
    }

    /// Policies that name a namespace, of every kind.
    pub(super) fn targeting_namespace<'w>(&'w self, namespace: &str) -> impl Iterator<Item = &'w Entry> + use<'w> {
        all(&self.policies, &Scope::Namespace(namespace.to_owned()))
    }

    /// Policies that name the Mesh, of every kind.
    pub(super) fn targeting_mesh(&self) -> impl Iterator<Item = &Entry> {
        all(&self.policies, &Scope::Mesh)
    }

    /// True where a policy names the service as its target.
    pub(super) fn is_targeted(&self, service: &ObjectName) -> bool {
        self.policies.contains_key(&Scope::Service(service.clone()))
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
            Scope::Mesh,
        ];
        let with = |(key, value): (&String, &String)| {
            self.targeted.get(&(own.clone(), key.clone(), value.clone())).into_iter().flatten()
        };
        let near = workload.metadata.labels.iter().flat_map(with);
        let holding = near.filter(|name| world.service(name).is_some_and(|it| super::selects(it, workload)));
        scopes.extend(holding.map(|name| Scope::Service(name.clone())));
        // A service that can't be read may select anybody of its namespace.
        let unread = world.unreadable_of(Kind::Service, own);
        scopes.extend(unread.map(|key: &ObjectKey| Scope::Service(key.object_name())));
        in_order(scopes.iter().filter_map(|scope| self.policies.get(scope)).flat_map(|one| one.iter()).collect())
    }
}

/// The first label of the selector of a service.
fn label_of(objects: &Objects, service: &ObjectName) -> Option<Label> {
    let held = objects.get(&ObjectKey::new(Kind::Service, &service.namespace, &service.name))?;
    first_label(Spec::of(&held.0.resource)?)
}

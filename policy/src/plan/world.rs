//! All resources at one revision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::Action;
use super::index::Index;
use crate::bundle::{ObjectName, Revision};
use crate::identity::TrustDomain;
use crate::resource::{
    AccessPolicySpec, FilterPolicySpec, FilterSpec, HttpRouteSpec, Kind, MeshSpec, Object, ObjectKey, ROOT_NAMESPACE,
    Resource, ServiceSpec, WorkloadSpec,
};

/// A resource with what the store knows about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub resource: Resource,
    pub uid: String,
    /// Counts changes of the manifest, from 1.
    pub generation: u64,
    pub created: Revision,
    pub modified: Revision,
}

/// Cheap to clone: entries are shared.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The control plane's own: identities are made of it.
    pub trust_domain: TrustDomain,
    objects: BTreeMap<ObjectKey, Arc<Entry>>,
    /// Objects that exist and can't be read: what restricts by them fails closed.
    unreadable: Arc<BTreeSet<ObjectKey>>,
    /// Every version of each filter of the root namespace that was ever published, for policies that name one.
    versions: Arc<BTreeMap<(String, String), FilterSpec>>,
    /// Made when it is first asked for; a change of an object ends it.
    index: OnceLock<Arc<Index>>,
}

impl World {
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self { trust_domain, ..Self::default() }
    }

    pub fn get(&self, key: &ObjectKey) -> Option<&Entry> {
        self.objects.get(key).map(Arc::as_ref)
    }

    /// All objects, by kind in the order of `Kind::ALL`, then by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Entry)> {
        self.objects.iter().map(|(key, entry)| (key, entry.as_ref()))
    }

    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Entry)> {
        let first = ObjectKey::new(kind, "", "");
        let from = self.objects.range(first..).take_while(move |(key, _)| key.kind == kind);
        from.map(|(key, entry)| (key, entry.as_ref()))
    }

    pub fn len(&self) -> usize {
        self.objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// As loaded from a store.
    pub fn insert(&mut self, entry: Entry) {
        self.index.take();
        self.objects.insert(entry.resource.key(), Arc::new(entry));
    }

    /// The store holds an object that can't be read; until another takes its place it is known by its key alone.
    pub fn note_unreadable(&mut self, key: ObjectKey) {
        self.index.take();
        Arc::make_mut(&mut self.unreadable).insert(key);
    }

    pub(crate) fn is_unreadable(&self, kind: Kind, name: &ObjectName) -> bool {
        !self.unreadable.is_empty() && self.unreadable.contains(&ObjectKey::new(kind, &name.namespace, &name.name))
    }

    /// Objects of a kind and namespace that exist and can't be read.
    pub(super) fn unreadable_of(&self, kind: Kind, namespace: &str) -> impl Iterator<Item = &ObjectKey> {
        let of = move |key: &&ObjectKey| key.kind == kind && key.namespace == namespace;
        self.unreadable.iter().filter(of)
    }

    pub(super) fn index(&self) -> &Index {
        self.index.get_or_init(|| Arc::new(Index::of(self.objects.values())))
    }

    fn is_read_again(&mut self, key: &ObjectKey) {
        if self.unreadable.contains(key) {
            Arc::make_mut(&mut self.unreadable).remove(key);
        }
    }

    /// Creates or changes an object at `revision`; `uid` is used only where it is new. What is the same stays untouched.
    pub fn put(&mut self, resource: Resource, revision: Revision, uid: &str) -> Action {
        let key = resource.key();
        let (entry, action) = match self.objects.get(&key) {
            Some(known) if known.resource == resource => return Action::Unchanged,
            Some(known) => {
                let generation = known.generation + 1;
                let known = Entry::clone(known);
                (Entry { resource, generation, modified: revision, ..known }, Action::Changed)
            }
            None => {
                let uid = uid.to_owned();
                (Entry { resource, uid, generation: 1, created: revision, modified: revision }, Action::Created)
            }
        };
        self.is_read_again(&key);
        self.index.take();
        self.objects.insert(key, Arc::new(entry));
        action
    }

    pub fn remove(&mut self, key: &ObjectKey) -> Option<Arc<Entry>> {
        self.is_read_again(key);
        self.index.take();
        self.objects.remove(key)
    }

    pub fn service(&self, name: &ObjectName) -> Option<&Object<ServiceSpec>> {
        let Resource::Service(service) = &self.named(Kind::Service, name)?.resource else { return None };
        Some(service)
    }

    pub fn workload(&self, name: &ObjectName) -> Option<&Object<WorkloadSpec>> {
        let Resource::Workload(workload) = &self.named(Kind::Workload, name)?.resource else { return None };
        Some(workload)
    }

    pub fn filter(&self, name: &ObjectName) -> Option<&Object<FilterSpec>> {
        let Resource::Filter(filter) = &self.named(Kind::Filter, name)?.resource else { return None };
        Some(filter)
    }

    /// A version of a filter: the one that is asked for, or the one that the `Filter` stands for now.
    pub fn filter_version(&self, name: &ObjectName, version: Option<&str>) -> Option<&FilterSpec> {
        let current = self.filter(name).map(|filter| &filter.spec);
        match version {
            Some(version) if current.is_none_or(|current| current.version != version) => {
                self.published_version(name, version)
            }
            Some(_) | None => current,
        }
    }

    /// A filter's version as it was published.
    pub fn published_version(&self, name: &ObjectName, version: &str) -> Option<&FilterSpec> {
        let published = || self.versions.get(&(name.name.clone(), version.to_owned()));
        (name.namespace == ROOT_NAMESPACE).then(published).flatten()
    }

    /// Notes a version of a filter of the root namespace that was published.
    pub fn note_version(&mut self, name: &str, spec: FilterSpec) {
        let key = (name.to_owned(), spec.version.clone());
        Arc::make_mut(&mut self.versions).insert(key, spec);
    }

    /// The mesh's settings: the only one, or the first by name.
    pub fn mesh(&self) -> Option<&Object<MeshSpec>> {
        self.of_kind(Kind::Mesh).find_map(|(_, entry)| {
            let Resource::Mesh(mesh) = &entry.resource else { return None };
            Some(mesh)
        })
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &Object<ServiceSpec>> {
        self.of_kind(Kind::Service).filter_map(|(_, entry)| {
            let Resource::Service(service) = &entry.resource else { return None };
            Some(service)
        })
    }

    pub fn workloads(&self) -> impl Iterator<Item = &Object<WorkloadSpec>> {
        self.of_kind(Kind::Workload).filter_map(|(_, entry)| {
            let Resource::Workload(workload) = &entry.resource else { return None };
            Some(workload)
        })
    }

    /// The services that a workload stands behind.
    pub fn selecting<'w>(
        &'w self,
        workload: &'w Object<WorkloadSpec>,
    ) -> impl Iterator<Item = &'w Object<ServiceSpec>> {
        self.services().filter(|service| super::selects(service, workload))
    }

    /// The policies that hold for a workload, of both kinds.
    pub(crate) fn policies_of<'w>(&'w self, workload: &'w Object<WorkloadSpec>) -> impl Iterator<Item = &'w Resource> {
        self.index().near_policies(self, workload).filter(move |resource| {
            let targets = match resource {
                Resource::AccessPolicy(policy) => &policy.spec.target_refs,
                Resource::FilterPolicy(policy) => &policy.spec.target_refs,
                Resource::Namespace(_)
                | Resource::Mesh(_)
                | Resource::Service(_)
                | Resource::Workload(_)
                | Resource::HttpRoute(_)
                | Resource::Filter(_) => return false,
            };
            super::holds_for(self, resource.metadata(), targets, workload)
        })
    }

    /// The workloads that stand behind a service.
    pub fn standing_behind<'w>(
        &'w self,
        service: &'w Object<ServiceSpec>,
    ) -> impl Iterator<Item = &'w Object<WorkloadSpec>> {
        super::select::selected_by(self, service)
    }

    pub(super) fn workloads_of<'w>(
        &'w self,
        namespace: &str,
    ) -> impl Iterator<Item = &'w Object<WorkloadSpec>> + use<'w> {
        let namespace = namespace.to_owned();
        let first = ObjectKey::new(Kind::Workload, &namespace, "");
        let within =
            move |(key, _): &(&ObjectKey, &Arc<Entry>)| key.kind == Kind::Workload && key.namespace == namespace;
        self.objects.range(first..).take_while(within).filter_map(|(_, entry)| {
            let Resource::Workload(workload) = &entry.resource else { return None };
            Some(workload)
        })
    }

    /// With the revision of creation: age decides between routes.
    pub(crate) fn routes(&self) -> impl Iterator<Item = (&Object<HttpRouteSpec>, Revision)> {
        self.of_kind(Kind::HttpRoute).filter_map(|(_, entry)| {
            let Resource::HttpRoute(route) = &entry.resource else { return None };
            Some((route, entry.created))
        })
    }

    pub(crate) fn filter_policies(&self) -> impl Iterator<Item = &Object<FilterPolicySpec>> {
        self.of_kind(Kind::FilterPolicy).filter_map(|(_, entry)| {
            let Resource::FilterPolicy(policy) = &entry.resource else { return None };
            Some(policy)
        })
    }

    pub(crate) fn access_policies(&self) -> impl Iterator<Item = &Object<AccessPolicySpec>> {
        self.of_kind(Kind::AccessPolicy).filter_map(|(_, entry)| {
            let Resource::AccessPolicy(policy) = &entry.resource else { return None };
            Some(policy)
        })
    }

    fn named(&self, kind: Kind, name: &ObjectName) -> Option<&Entry> {
        self.get(&ObjectKey::new(kind, &name.namespace, &name.name))
    }
}

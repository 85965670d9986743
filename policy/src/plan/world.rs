//! All resources at one revision.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use serde::{Deserialize, Serialize};

use super::expression::Compilations;
use super::index::Index;
use super::{Action, Owned, Owner, ProxyKey, Release};
use crate::bundle::{ObjectName, Revision};
use crate::identity::{SpiffeId, TrustDomain};
use crate::resource::{
    AnyRoute, Attaching, ExternalServiceSpec, FilterPublisherSpec, FilterSpec, Holding, Kind, MeshSpec, Object,
    ObjectKey, PolicyTemplateSpec, ROOT_NAMESPACE, Resource, SecretSpec, ServiceSpec, Spec, TrafficPolicySpec,
    WorkloadSpec,
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
    /// When it was made, by the clock of whoever stores it; nothing in here is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_unix: Option<i64>,
    #[serde(default, skip_serializing_if = "Owner::is_applied")]
    pub owner: Owner,
    /// Of its manifest.
    #[serde(skip)]
    bytes: usize,
}

impl Entry {
    /// An object that was applied at `revision`.
    pub fn applied(resource: Resource, revision: Revision, uid: String) -> Self {
        let (owner, created_unix) = (Owner::Applied, None);
        Self { resource, uid, generation: 1, created: revision, modified: revision, created_unix, owner, bytes: 0 }
    }

    /// Bytes of its manifest as JSON.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// An entry as a world holds it: the same where it is the one that was put there.
#[derive(Debug, Clone)]
pub(super) struct Held(pub(super) Arc<Entry>);

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

pub(super) type Objects = OrdMap<ObjectKey, Held>;

/// Costs nothing to clone, and what it costs to change or to compare with the one before it does not grow with what is in it:
/// both share all that is the same.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The control plane's own: identities are made of it.
    pub trust_domain: TrustDomain,
    objects: Objects,
    /// Objects that exist and can't be read: what restricts by them fails closed.
    unreadable: Arc<BTreeSet<ObjectKey>>,
    /// The published versions of each filter of the root namespace.
    versions: Arc<BTreeMap<(String, String), Release>>,
    /// Follows each change of an object.
    index: Index,
    compilations: Compilations,
}

impl World {
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self { trust_domain, ..Self::default() }
    }

    pub fn get(&self, key: &ObjectKey) -> Option<&Entry> {
        self.objects.get(key).map(|held| &*held.0)
    }

    /// All objects, by kind in the order of `Kind::ALL`, then by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Entry)> {
        self.objects.iter().map(|(key, held)| (key, &*held.0))
    }

    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Entry)> {
        let first = ObjectKey::new(kind, "", "");
        let from = self.objects.range(first..).take_while(move |(key, _)| key.kind == kind);
        from.map(|(key, held)| (key, &*held.0))
    }

    /// What was compiled of policies' expressions, in this world or in one before it.
    pub(super) fn compilations(&self) -> &Compilations {
        &self.compilations
    }

    pub fn len(&self) -> usize {
        self.objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The world without the objects of other keys, for somebody who may read only some: what is hidden is not there.
    #[must_use]
    pub fn part(&self, is_seen: impl Fn(&ObjectKey) -> bool) -> Self {
        let mut part = Self {
            trust_domain: self.trust_domain.clone(),
            objects: Objects::new(),
            unreadable: Arc::new(self.unreadable.iter().filter(|key| is_seen(key)).cloned().collect()),
            versions: Arc::clone(&self.versions),
            index: Index::default(),
            compilations: self.compilations.clone(),
        };
        for (key, Held(entry)) in self.objects.iter().filter(|(key, _)| is_seen(key)) {
            part.set(key, Some(entry.clone()));
        }
        part
    }

    /// Puts an object there, or takes it away: the one place where objects change. Gives what was there.
    fn set(&mut self, key: &ObjectKey, entry: Option<Arc<Entry>>) -> Option<Arc<Entry>> {
        let old = match &entry {
            Some(entry) => self.objects.insert(key.clone(), Held(entry.clone())),
            None => self.objects.remove(key),
        };
        if let Some(old) = &old {
            self.index.forget(&self.objects, key, old);
        }
        if let Some(entry) = entry {
            self.index.note(&self.objects, key, &Held(entry));
        }
        old.map(|Held(old)| old)
    }

    /// As loaded from a store.
    pub fn insert(&mut self, mut entry: Entry) {
        entry.bytes = size(&entry.resource);
        self.set(&entry.resource.key(), Some(Arc::new(entry)));
    }

    /// The store holds an object that can't be read; until another takes its place it is known by its key alone.
    pub fn note_unreadable(&mut self, key: ObjectKey) {
        Arc::make_mut(&mut self.unreadable).insert(key);
    }

    pub(crate) fn is_unreadable(&self, kind: Kind, name: &ObjectName) -> bool {
        !self.unreadable.is_empty() && self.unreadable.contains(&ObjectKey::new(kind, &name.namespace, &name.name))
    }

    pub(crate) fn has_unreadable(&self, kind: Kind) -> bool {
        self.unreadable.iter().any(|key| key.kind == kind)
    }

    /// Objects of a kind and namespace that exist and can't be read.
    pub(super) fn unreadable_of(&self, kind: Kind, namespace: &str) -> impl Iterator<Item = &ObjectKey> {
        let of = move |key: &&ObjectKey| key.kind == kind && key.namespace == namespace;
        self.unreadable.iter().filter(of)
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    fn is_read_again(&mut self, key: &ObjectKey) {
        if self.unreadable.contains(key) {
            Arc::make_mut(&mut self.unreadable).remove(key);
        }
    }

    /// Creates or changes an object of `owner` at `revision`; `uid` is used only where it is new. What is the same stays
    /// untouched.
    ///
    /// # Errors
    /// The object is another owner's.
    pub fn put(&mut self, owner: &Owner, resource: Resource, revision: Revision, uid: &str) -> Result<Action, Owned> {
        let key = resource.key();
        let (entry, action) = match self.get(&key) {
            Some(known) if known.owner != *owner => {
                return Err(Owned { key, owner: Box::new(known.owner.clone()) });
            }
            Some(known) if known.resource == resource => return Ok(Action::Unchanged),
            Some(known) => {
                let (generation, bytes) = (known.generation + 1, size(&resource));
                let known = known.clone();
                (Entry { resource, generation, modified: revision, bytes, ..known }, Action::Changed)
            }
            None => {
                let (uid, owner, bytes) = (uid.to_owned(), owner.clone(), size(&resource));
                (Entry { owner, bytes, ..Entry::applied(resource, revision, uid) }, Action::Created)
            }
        };
        self.is_read_again(&key);
        self.set(&key, Some(Arc::new(entry)));
        Ok(action)
    }

    /// Bytes of the applied objects of a namespace.
    pub fn applied_bytes(&self, namespace: &str) -> usize {
        self.index.owned().applied_bytes(namespace)
    }

    /// Bytes of the workloads that the proxies of an account have registered.
    pub fn registered_bytes(&self, account: &SpiffeId) -> usize {
        self.index.owned().registered_bytes(account)
    }

    /// Gives an object to another owner. False where it is not there or is that owner's already.
    pub fn hand_over(&mut self, key: &ObjectKey, owner: &Owner) -> bool {
        let Some(entry) = self.get(key).filter(|entry| entry.owner != *owner).cloned() else { return false };
        self.set(key, Some(Arc::new(Entry { owner: owner.clone(), ..entry })));
        true
    }

    /// The proxy that registered a workload; `None` also where it was applied.
    pub fn registered_by(&self, workload: &ObjectName) -> Option<&ProxyKey> {
        self.entry::<WorkloadSpec>(workload)?.owner.proxy()
    }

    /// Registered workloads, each with its proxy.
    pub fn registered(&self) -> impl Iterator<Item = (ObjectName, &ProxyKey)> {
        let workloads = self.of_kind(Kind::Workload);
        workloads.filter_map(|(key, entry)| Some((key.object_name(), entry.owner.proxy()?)))
    }

    /// Workloads that a proxy registered.
    pub fn registered_of(&self, proxy: &ProxyKey) -> impl Iterator<Item = &ObjectName> {
        self.index.owned().by(proxy)
    }

    /// Workloads that the proxies of an account registered.
    pub fn registered_of_account(&self, account: &SpiffeId) -> impl Iterator<Item = &ObjectName> {
        self.index.owned().of_account(account)
    }

    /// Services and workloads that have an address of a workload like this one, or take mesh traffic where it does.
    pub fn sharing_place(&self, spec: &WorkloadSpec) -> Vec<&Resource> {
        self.index.sharing(spec.all_addresses(), spec.mesh_address())
    }

    /// Keeps when an object was made.
    pub fn note_creation(&mut self, key: &ObjectKey, unix: i64) {
        if let Some(entry) = self.get(key).cloned() {
            self.set(key, Some(Arc::new(Entry { created_unix: Some(unix), ..entry })));
        }
    }

    pub fn remove(&mut self, key: &ObjectKey) -> Option<Arc<Entry>> {
        self.is_read_again(key);
        self.set(key, None)
    }

    pub fn service(&self, name: &ObjectName) -> Option<&Object<ServiceSpec>> {
        self.named(name)
    }

    pub fn workload(&self, name: &ObjectName) -> Option<&Object<WorkloadSpec>> {
        self.named(name)
    }

    pub(crate) fn external(&self, name: &ObjectName) -> Option<&Object<ExternalServiceSpec>> {
        self.named(name)
    }

    pub(super) fn publishers(&self) -> impl Iterator<Item = &Object<FilterPublisherSpec>> {
        self.all()
    }

    pub(super) fn secret(&self, name: &ObjectName) -> Option<&Object<SecretSpec>> {
        self.named(name)
    }

    pub(super) fn externals(&self) -> impl Iterator<Item = &Object<ExternalServiceSpec>> {
        self.all()
    }

    pub fn filter(&self, name: &ObjectName) -> Option<&Object<FilterSpec>> {
        self.named(name)
    }

    /// A filter's version as it was published.
    pub fn published_version(&self, name: &ObjectName, version: &str) -> Option<&FilterSpec> {
        self.release(name, version).map(|release| &release.spec)
    }

    /// The same with all that is known of it.
    pub fn release(&self, name: &ObjectName, version: &str) -> Option<&Release> {
        let published = || self.versions.get(&(name.name.clone(), version.to_owned()));
        (name.namespace == ROOT_NAMESPACE).then(published).flatten()
    }

    /// The published versions of a filter.
    pub fn releases<'w>(&'w self, name: &ObjectName) -> impl Iterator<Item = &'w Release> + use<'w> {
        let (is_root, name) = (name.namespace == ROOT_NAMESPACE, name.name.clone());
        let from = self.versions.range((name.clone(), String::new())..);
        from.take_while(move |((of, _), _)| is_root && *of == name).map(|(_, release)| release)
    }

    /// Notes a version of a filter of the root namespace that was published, or what has changed of it.
    pub fn note_release(&mut self, name: &str, release: Release) {
        let key = (name.to_owned(), release.spec.version.clone());
        Arc::make_mut(&mut self.versions).insert(key, release);
    }

    /// A version of a filter of the root namespace is there no longer.
    pub fn forget_release(&mut self, name: &str, version: &str) {
        Arc::make_mut(&mut self.versions).remove(&(name.to_owned(), version.to_owned()));
    }

    /// True where a version or a Filter names this binary.
    pub fn names_binary(&self, digest: &str) -> bool {
        let mut filters = self.all::<FilterSpec>();
        self.versions.values().any(|release| release.spec.digest == digest)
            || filters.any(|filter| filter.spec.digest == digest)
    }

    /// The mesh's settings: the only one, or the first by name.
    pub fn mesh(&self) -> Option<&Object<MeshSpec>> {
        self.all().next()
    }

    pub fn services(&self) -> impl Iterator<Item = &Object<ServiceSpec>> {
        self.all()
    }

    pub fn workloads(&self) -> impl Iterator<Item = &Object<WorkloadSpec>> {
        self.all()
    }

    /// The services that a workload stands behind.
    pub fn selecting<'w>(
        &'w self,
        workload: &'w Object<WorkloadSpec>,
    ) -> impl Iterator<Item = &'w Object<ServiceSpec>> {
        self.index().near_workload(workload).filter(|service| super::selects(service, workload))
    }

    /// The policies that hold for a workload, of every kind.
    pub fn policies_of<'w>(&'w self, workload: &'w Object<WorkloadSpec>) -> impl Iterator<Item = &'w Resource> {
        self.index().near_policies(self, workload).filter(move |resource| {
            let held = Holding::of(resource);
            held.is_some_and(|held| super::holds_for(self, held.metadata, held.targets, workload))
        })
    }

    /// Routes that are attached to a service or lead to it, and policies that name it.
    pub(crate) fn around_service(&self, name: &ObjectName) -> BTreeSet<ObjectKey> {
        self.index().around_service(name)
    }

    /// Routes of other namespaces that lead to a service of this one, some more than once.
    pub(crate) fn leading_into<'w>(&'w self, namespace: &str) -> impl Iterator<Item = AnyRoute<'w>> + use<'w> {
        self.index().leading_into(namespace)
    }

    /// True where a route is attached to a service.
    pub(crate) fn has_routes(&self, service: &ObjectName) -> bool {
        self.index().attached_to(service).next().is_some()
    }

    /// Services and workloads with an address.
    pub(crate) fn with_address(&self, address: IpAddr) -> impl Iterator<Item = ObjectKey> {
        self.index().with_address(address)
    }

    /// The workloads that stand behind a service.
    pub fn standing_behind<'w>(
        &'w self,
        service: &'w Object<ServiceSpec>,
    ) -> impl Iterator<Item = &'w Object<WorkloadSpec>> {
        super::select::selected_by(self, service)
    }

    /// The objects of a kind in a namespace, as they are stored.
    pub fn within<'w>(
        &'w self,
        kind: Kind,
        namespace: &str,
    ) -> impl Iterator<Item = (&'w ObjectKey, &'w Entry)> + use<'w> {
        let namespace = namespace.to_owned();
        let first = ObjectKey::new(kind, &namespace, "");
        let within = move |(key, _): &(&ObjectKey, &Held)| key.kind == kind && key.namespace == namespace;
        self.objects.range(first..).take_while(within).map(|(key, held)| (key, &*held.0))
    }

    /// All objects of a kind in a namespace.
    pub(crate) fn of_namespace<'w, S: Spec>(
        &'w self,
        namespace: &str,
    ) -> impl Iterator<Item = &'w Object<S>> + use<'w, S> {
        self.within(S::KIND, namespace).filter_map(|(_, entry)| Spec::of(&entry.resource))
    }

    /// The services that a Namespace says its workloads use.
    pub(super) fn uses_of_namespace(&self, name: &str) -> Vec<ObjectName> {
        let entry = self.get(&ObjectKey::new(Kind::Namespace, "", name));
        entry.map(|entry| entry.resource.metadata().uses(name).collect()).unwrap_or_default()
    }

    /// True where there is a Namespace of this name, or any object in it.
    pub(crate) fn has_namespace(&self, name: &str) -> bool {
        let is_used = |kind: Kind| {
            let from = ObjectKey::new(kind, name, "");
            let first = self.objects.range(from..).next();
            first.is_some_and(|(key, _)| key.kind == kind && !name.is_empty() && key.namespace == name)
        };
        self.objects.contains_key(&ObjectKey::new(Kind::Namespace, "", name))
            || Kind::ALL.into_iter().filter(|kind| kind.is_namespaced()).any(is_used)
    }

    /// Keys of the objects that the two worlds don't have alike.
    pub(crate) fn differing<'w>(&'w self, other: &'w Self) -> BTreeSet<&'w ObjectKey> {
        let unread = self.unreadable.symmetric_difference(&other.unreadable);
        self.unlike(other, |own, theirs| own.resource == theirs.resource).chain(unread).collect()
    }

    /// Keys of the objects that are not the same in both, or not equally old.
    pub(super) fn differing_entries<'w>(&'w self, other: &'w Self) -> impl Iterator<Item = &'w ObjectKey> {
        self.unlike(other, |own, theirs| own.resource == theirs.resource && own.created == theirs.created)
    }

    /// Keys of the objects that one world has and the other has not, or not one that `is_like` it.
    fn unlike<'w>(
        &'w self,
        other: &'w Self,
        is_like: impl Fn(&Entry, &Entry) -> bool + 'w,
    ) -> impl Iterator<Item = &'w ObjectKey> {
        self.objects.diff(&other.objects).filter_map(move |item| match item {
            DiffItem::Add(key, _) | DiffItem::Remove(key, _) => Some(key),
            DiffItem::Update { old, new } => (!is_like(&old.1.0, &new.1.0)).then_some(old.0),
        })
    }

    pub(super) fn has_same_unreadable(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.unreadable, &other.unreadable) || self.unreadable == other.unreadable
    }

    /// True where the same versions of filters were published.
    pub(crate) fn has_same_versions(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.versions, &other.versions) || self.versions == other.versions
    }

    pub(crate) fn route(&self, key: &ObjectKey) -> Option<AnyRoute<'_>> {
        AnyRoute::of(&self.get(key)?.resource)
    }

    /// With the revision of creation: age decides between routes.
    pub(crate) fn routes(&self) -> impl Iterator<Item = (AnyRoute<'_>, Revision)> {
        let routes = Kind::ROUTES.into_iter().flat_map(|kind| self.of_kind(kind));
        routes.filter_map(|(_, entry)| Some((AnyRoute::of(&entry.resource)?, entry.created)))
    }

    pub(crate) fn traffic_policy(&self, name: &ObjectName) -> Option<&Object<TrafficPolicySpec>> {
        self.named(name)
    }

    pub(crate) fn traffic_policies(&self) -> impl Iterator<Item = &Object<TrafficPolicySpec>> {
        self.all()
    }

    pub(crate) fn template(&self, name: &str) -> Option<&Object<PolicyTemplateSpec>> {
        self.named(&ObjectName::new("", name))
    }

    /// With the revision of creation: age decides between templates.
    pub(crate) fn templates(&self) -> impl Iterator<Item = (&Object<PolicyTemplateSpec>, Revision)> {
        let templates = self.of_kind(Kind::PolicyTemplate);
        templates.filter_map(|(_, entry)| Some((PolicyTemplateSpec::of(&entry.resource)?, entry.created)))
    }

    /// When an ExternalService was made: age decides between those that claim the same.
    pub(super) fn external_created(&self, name: &ObjectName) -> Revision {
        self.entry::<ExternalServiceSpec>(name).map(|entry| entry.created).unwrap_or_default()
    }

    /// The policies that attach filters, of every kind that does.
    pub(crate) fn attaching(&self) -> impl Iterator<Item = Attaching<'_>> {
        let entries = Kind::ATTACHING.into_iter().flat_map(|kind| self.of_kind(kind));
        entries.filter_map(|(_, entry)| Attaching::of(&entry.resource))
    }

    /// All objects of a kind, by namespace and name.
    fn all<S: Spec>(&self) -> impl Iterator<Item = &Object<S>> {
        self.of_kind(S::KIND).filter_map(|(_, entry)| S::of(&entry.resource))
    }

    fn named<S: Spec>(&self, name: &ObjectName) -> Option<&Object<S>> {
        S::of(&self.entry::<S>(name)?.resource)
    }

    fn entry<S: Spec>(&self, name: &ObjectName) -> Option<&Entry> {
        self.get(&ObjectKey::new(S::KIND, &name.namespace, &name.name))
    }
}

/// Bytes of a manifest as JSON, with those of the values that it does not show.
fn size(resource: &Resource) -> usize {
    struct Counted(usize);

    impl std::io::Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut counted = Counted(0);
    serde_json::to_writer(&mut counted, resource).expect("manifests have string keys and no failing serialiser");
    counted.0 + SecretSpec::of(resource).map_or(0, |secret| secret.spec.bytes())
}

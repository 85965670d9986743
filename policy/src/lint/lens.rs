//! A world as the passes look at it: who stands behind what, which names there are, each found once.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::Scope;
use crate::bundle::{ObjectName, Revision};
use crate::plan::{Entry, World, holds_for};
use crate::resource::{
    AnyRoute, Attaching, Holding, Kind, Metadata, Object, ObjectKey, ROOT_NAMESPACE, ServiceSpec, Spec, TargetKind,
    TargetRef, WorkloadSpec,
};
use crate::text::did_you_mean;

/// Names that are compared in search of the one that was meant, for all findings together. The hint is a courtesy: where a
/// world has very many mistakes, the later ones are told without it.
pub(super) const MAX_COMPARED: usize = 200_000;

/// Objects in the order of their names.
type Several<'w, S> = Rc<[&'w Object<S>]>;

pub(super) struct Lens<'w> {
    pub(super) world: &'w World,
    pub(super) scope: Scope,
    /// The objects that are looked at; `None`: all.
    focus: Option<&'w BTreeSet<ObjectKey>>,
    /// Those with a Namespace, and those that any object is in.
    namespaces: OnceCell<BTreeSet<&'w str>>,
    /// Namespace and account of each workload.
    accounts: OnceCell<BTreeSet<(&'w str, &'w str)>>,
    behind: RefCell<BTreeMap<ObjectName, Several<'w, WorkloadSpec>>>,
    in_front: RefCell<BTreeMap<ObjectName, Several<'w, ServiceSpec>>>,
    held: RefCell<BTreeMap<ObjectKey, Several<'w, WorkloadSpec>>>,
    /// Names that may still be compared.
    comparisons: Cell<usize>,
}

impl<'w> Lens<'w> {
    pub(super) fn new(world: &'w World, scope: Scope, focus: Option<&'w BTreeSet<ObjectKey>>) -> Self {
        Self {
            world,
            scope,
            focus,
            namespaces: OnceCell::new(),
            accounts: OnceCell::new(),
            behind: RefCell::default(),
            in_front: RefCell::default(),
            held: RefCell::default(),
            comparisons: Cell::new(MAX_COMPARED),
        }
    }

    /// The objects that are looked at, in the world's order.
    pub(super) fn entries(&self) -> Box<dyn Iterator<Item = (&'w ObjectKey, &'w Entry)> + 'w> {
        let world = self.world;
        match self.focus {
            None => Box::new(world.iter()),
            Some(focus) => Box::new(focus.iter().filter_map(move |key| Some((key, world.get(key)?)))),
        }
    }

    /// Those of a kind.
    pub(super) fn of_kind(&self, kind: Kind) -> Box<dyn Iterator<Item = (&'w ObjectKey, &'w Entry)> + 'w> {
        match self.focus {
            None => Box::new(self.world.of_kind(kind)),
            Some(_) => Box::new(self.entries().filter(move |(key, _)| key.kind == kind)),
        }
    }

    pub(super) fn all<S: Spec>(&self) -> impl Iterator<Item = &'w Object<S>> + use<'w, S> {
        self.of_kind(S::KIND).filter_map(|(_, entry)| S::of(&entry.resource))
    }

    /// Policies that attach a filter, of every kind that does.
    pub(super) fn attaching(&self) -> impl Iterator<Item = Attaching<'w>> {
        let entries = Kind::ATTACHING.into_iter().flat_map(|kind| self.of_kind(kind));
        entries.filter_map(|(_, entry)| Attaching::of(&entry.resource))
    }

    /// Policies that hold for workloads, of every kind that does.
    pub(super) fn holding(&self) -> impl Iterator<Item = Holding<'w>> {
        let kinds = [Kind::AccessPolicy].into_iter().chain(Kind::ATTACHING);
        let entries = kinds.flat_map(|kind| self.of_kind(kind));
        entries.filter_map(|(_, entry)| Holding::of(&entry.resource))
    }

    /// Routes of every kind, each with the revision of its creation.
    pub(super) fn routes(&self) -> impl Iterator<Item = (AnyRoute<'w>, Revision)> {
        let entries = Kind::ROUTES.into_iter().flat_map(|kind| self.of_kind(kind));
        entries.filter_map(|(_, entry)| Some((AnyRoute::of(&entry.resource)?, entry.created)))
    }

    fn namespaces(&self) -> &BTreeSet<&'w str> {
        self.namespaces.get_or_init(|| {
            let is_one = |key: &ObjectKey| key.kind == Kind::Namespace;
            let name =
                |(key, _): (&'w ObjectKey, _)| if is_one(key) { key.name.as_str() } else { key.namespace.as_str() };
            self.world.iter().map(name).collect()
        })
    }

    fn accounts(&self) -> &BTreeSet<(&'w str, &'w str)> {
        self.accounts.get_or_init(|| {
            let of = |it: &'w Object<WorkloadSpec>| (it.metadata.namespace.as_str(), it.spec.service_account.as_str());
            self.world.workloads().map(of).collect()
        })
    }

    /// The workloads that stand behind a service.
    pub(super) fn behind(&self, service: &ObjectName) -> Several<'w, WorkloadSpec> {
        memo(&self.behind, service, || {
            let service = self.world.service(service);
            service.into_iter().flat_map(|service| self.world.standing_behind(service)).collect()
        })
    }

    /// The services that a workload stands behind.
    pub(super) fn in_front(&self, workload: &ObjectName) -> Several<'w, ServiceSpec> {
        memo(&self.in_front, workload, || {
            let workload = self.world.workload(workload);
            workload.into_iter().flat_map(|workload| self.world.selecting(workload)).collect()
        })
    }

    /// The workloads that a policy holds for.
    pub(super) fn held(&self, policy: &ObjectKey) -> Several<'w, WorkloadSpec> {
        memo(&self.held, policy, || {
            let held = self.world.get(policy).and_then(|entry| Holding::of(&entry.resource));
            let Some(Holding { metadata, targets, .. }) = held else { return Rc::from([]) };
            let mut near: Vec<_> = match (targets, metadata.namespace.as_str()) {
                ([], ROOT_NAMESPACE) => self.world.workloads().collect(),
                ([], namespace) => self.world.of_namespace(namespace).collect(),
                (targets, _) => targets.iter().flat_map(|target| self.near_target(metadata, target)).collect(),
            };
            near.sort_by_key(|workload| (&workload.metadata.namespace, &workload.metadata.name));
            near.dedup_by(|a, b| std::ptr::eq(*a, *b));
            near.into_iter().filter(|workload| holds_for(self.world, metadata, targets, workload)).collect()
        })
    }

    /// Workloads that a target may mean.
    fn near_target(&self, policy: &Metadata, target: &TargetRef) -> Vec<&'w Object<WorkloadSpec>> {
        let name = ObjectName::new(policy.namespace.clone(), target.name.clone());
        match target.kind {
            TargetKind::Workload => self.world.workload(&name).into_iter().collect(),
            TargetKind::Namespace => self.world.of_namespace(&target.name).collect(),
            TargetKind::Mesh => self.world.workloads().collect(),
            TargetKind::ExternalService => Vec::new(),
            TargetKind::HttpRoute | TargetKind::GrpcRoute => self.world.of_namespace(&policy.namespace).collect(),
            TargetKind::Service => match self.world.service(&name) {
                Some(service) => self.world.standing_behind(service).collect(),
                None if self.world.is_unreadable(Kind::Service, &name) => {
                    self.world.of_namespace(&policy.namespace).collect()
                }
                None => Vec::new(),
            },
        }
    }

    /// False where nothing can be said of workloads: files without any leave them to register themselves.
    pub(super) fn knows_workloads(&self) -> bool {
        self.scope != Scope::Files || self.world.workloads().next().is_some()
    }

    pub(super) fn has_account(&self, namespace: &str, account: &str) -> bool {
        self.accounts().contains(&(namespace, account))
    }

    pub(super) fn has_namespace(&self, name: &str) -> bool {
        self.world.has_namespace(name)
    }

    /// Names to compare with one that was written, as many as may still be compared.
    pub(super) fn compared<T>(&self, names: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        names.take_while(|_| {
            #[cfg(test)]
            crate::plan::work::count();
            let left = self.comparisons.get();
            self.comparisons.set(left.saturating_sub(1));
            left > 0
        })
    }

    fn meant<'k>(&self, written: &str, known: impl Iterator<Item = &'k str>) -> String {
        did_you_mean(written, self.compared(known))
    }

    /// Tells what a service that does not exist may have been meant to be.
    pub(super) fn no_service(&self, name: &ObjectName) -> String {
        let of_namespace = self.world.services().filter(|service| service.metadata.namespace == name.namespace);
        let names = of_namespace.map(|service| service.metadata.name.as_str());
        format!("Service {name} does not exist{}", self.meant(&name.name, names))
    }

    pub(super) fn no_workload(&self, name: &ObjectName) -> String {
        let of_namespace = self.world.workloads().filter(|workload| workload.metadata.namespace == name.namespace);
        let names = of_namespace.map(|workload| workload.metadata.name.as_str());
        format!("Workload {name} does not exist{}", self.meant(&name.name, names))
    }

    pub(super) fn no_filter(&self, name: &ObjectName) -> String {
        let names = self.world.of_kind(Kind::Filter).filter(|(key, _)| key.namespace == name.namespace);
        format!("Filter {name} is not published{}", self.meant(&name.name, names.map(|(key, _)| key.name.as_str())))
    }

    pub(super) fn meant_namespace(&self, name: &str) -> String {
        self.meant(name, self.namespaces().iter().copied())
    }

    pub(super) fn meant_account(&self, namespace: &str, account: &str) -> String {
        self.meant(account, self.accounts().iter().filter(|known| known.0 == namespace).map(|known| known.1))
    }
}

/// What was found before, or is found now.
fn memo<K: Ord + Clone, T: ?Sized>(
    known: &RefCell<BTreeMap<K, Rc<T>>>,
    key: &K,
    find: impl FnOnce() -> Rc<T>,
) -> Rc<T> {
    let found = known.borrow().get(key).cloned();
    found.unwrap_or_else(|| {
        let found = find();
        known.borrow_mut().insert(key.clone(), found.clone());
        found
    })
}

pub(super) fn key_of(kind: Kind, metadata: &Metadata) -> ObjectKey {
    ObjectKey::new(kind, &metadata.namespace, &metadata.name)
}

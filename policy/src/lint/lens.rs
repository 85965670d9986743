//! A world as the passes look at it: who stands behind what, which names there are, each found once.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use super::Scope;
use crate::bundle::ObjectName;
use crate::plan::World;
use crate::resource::{Kind, Metadata, Object, ObjectKey, ServiceSpec, WorkloadSpec};
use crate::text::did_you_mean;

/// Names that are compared in search of the one that was meant, for all findings together. The hint is a courtesy: where a
/// world has very many mistakes, the later ones are told without it.
pub(super) const MAX_COMPARED: usize = 200_000;

pub(super) struct Lens<'w> {
    pub(super) world: &'w World,
    pub(super) scope: Scope,
    /// Those with a Namespace, and those that any object is in.
    namespaces: BTreeSet<&'w str>,
    /// Namespace and account of each workload.
    accounts: BTreeSet<(&'w str, &'w str)>,
    behind: BTreeMap<ObjectName, Vec<&'w Object<WorkloadSpec>>>,
    in_front: BTreeMap<ObjectName, Vec<&'w Object<ServiceSpec>>>,
    /// The workloads that each policy holds for, in the order of their names.
    held: BTreeMap<ObjectKey, Vec<&'w Object<WorkloadSpec>>>,
    /// Names that may still be compared.
    comparisons: Cell<usize>,
}

impl<'w> Lens<'w> {
    pub(super) fn new(world: &'w World, scope: Scope) -> Self {
        let mut lens = Self {
            world,
            scope,
            namespaces: BTreeSet::new(),
            accounts: BTreeSet::new(),
            behind: BTreeMap::new(),
            in_front: BTreeMap::new(),
            held: BTreeMap::new(),
            comparisons: Cell::new(MAX_COMPARED),
        };
        for (key, _) in world.iter() {
            lens.namespaces.insert(if key.kind == Kind::Namespace { &key.name } else { &key.namespace });
        }
        for workload in world.workloads() {
            lens.accounts.insert((&workload.metadata.namespace, &workload.spec.service_account));
            for policy in world.policies_of(workload) {
                lens.held.entry(policy.key()).or_default().push(workload);
            }
        }
        for service in world.services() {
            let selected: Vec<_> = world.standing_behind(service).collect();
            for workload in &selected {
                lens.in_front.entry(workload.name()).or_default().push(service);
            }
            lens.behind.insert(service.name(), selected);
        }
        lens
    }

    /// The workloads that stand behind a service.
    pub(super) fn behind(&self, service: &ObjectName) -> &[&'w Object<WorkloadSpec>] {
        self.behind.get(service).map_or(&[], Vec::as_slice)
    }

    /// The services that a workload stands behind.
    pub(super) fn in_front(&self, workload: &ObjectName) -> &[&'w Object<ServiceSpec>] {
        self.in_front.get(workload).map_or(&[], Vec::as_slice)
    }

    /// The workloads that a policy holds for.
    pub(super) fn held(&self, policy: &ObjectKey) -> &[&'w Object<WorkloadSpec>] {
        self.held.get(policy).map_or(&[], Vec::as_slice)
    }

    /// False where nothing can be said of workloads: files without any leave them to register themselves.
    pub(super) fn knows_workloads(&self) -> bool {
        self.scope != Scope::Files || !self.accounts.is_empty()
    }

    pub(super) fn has_account(&self, namespace: &str, account: &str) -> bool {
        self.accounts.contains(&(namespace, account))
    }

    pub(super) fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
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
        self.meant(name, self.namespaces.iter().copied())
    }

    pub(super) fn meant_account(&self, namespace: &str, account: &str) -> String {
        self.meant(account, self.accounts.iter().filter(|known| known.0 == namespace).map(|known| known.1))
    }
}

pub(super) fn key_of(kind: Kind, metadata: &Metadata) -> ObjectKey {
    ObjectKey::new(kind, &metadata.namespace, &metadata.name)
}

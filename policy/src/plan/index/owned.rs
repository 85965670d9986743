//! What is whose: the workloads that each proxy registered, by account, and how much was applied to each namespace.

use imbl::{OrdMap, OrdSet};

use crate::bundle::ObjectName;
use crate::identity::SpiffeId;
use crate::plan::ProxyKey;
use crate::plan::world::Entry;
use crate::resource::{Kind, ObjectKey};

#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::plan) struct Owned {
    accounts: OrdMap<SpiffeId, Account>,
    /// Bytes of the applied objects of each namespace.
    applied: OrdMap<String, usize>,
}

/// The workloads that the proxies of an account registered.
#[derive(Debug, Clone, Default, PartialEq)]
struct Account {
    bytes: usize,
    /// By the names of the proxies.
    workloads: OrdMap<String, OrdSet<ObjectName>>,
}

impl Owned {
    pub(super) fn note(&mut self, key: &ObjectKey, entry: &Entry) {
        if entry.owner.is_applied() && key.kind.is_namespaced() {
            *self.applied.entry(key.namespace.clone()).or_default() += entry.bytes();
        }
        let Some(proxy) = entry.owner.proxy().filter(|_| key.kind == Kind::Workload) else { return };
        let account = self.accounts.entry(proxy.identity.clone()).or_default();
        account.bytes += entry.bytes();
        account.workloads.entry(proxy.name.clone()).or_default().insert(key.object_name());
    }

    /// The entry was noted, and is so no longer.
    pub(super) fn forget(&mut self, key: &ObjectKey, entry: &Entry) {
        if let Some(bytes) = self.applied.get_mut(&key.namespace).filter(|_| entry.owner.is_applied()) {
            *bytes -= entry.bytes();
            if *bytes == 0 {
                self.applied.remove(&key.namespace);
            }
        }
        let Some(proxy) = entry.owner.proxy().filter(|_| key.kind == Kind::Workload) else { return };
        let Some(account) = self.accounts.get_mut(&proxy.identity) else { return };
        account.bytes -= entry.bytes();
        if let Some(workloads) = account.workloads.get_mut(&proxy.name) {
            workloads.remove(&key.object_name());
            if workloads.is_empty() {
                account.workloads.remove(&proxy.name);
            }
        }
        if account.workloads.is_empty() {
            self.accounts.remove(&proxy.identity);
        }
    }

    pub(in crate::plan) fn applied_bytes(&self, namespace: &str) -> usize {
        self.applied.get(namespace).copied().unwrap_or_default()
    }

    pub(in crate::plan) fn registered_bytes(&self, account: &SpiffeId) -> usize {
        self.accounts.get(account).map(|account| account.bytes).unwrap_or_default()
    }

    pub(in crate::plan) fn by(&self, proxy: &ProxyKey) -> impl Iterator<Item = &ObjectName> {
        let account = self.accounts.get(&proxy.identity);
        account.and_then(|account| account.workloads.get(&proxy.name)).into_iter().flatten()
    }

    pub(in crate::plan) fn of_account(&self, account: &SpiffeId) -> impl Iterator<Item = &ObjectName> {
        self.accounts.get(account).into_iter().flat_map(|account| account.workloads.values()).flatten()
    }
}

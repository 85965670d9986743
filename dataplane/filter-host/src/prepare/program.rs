//! A program: a component that is linked, with its limits and grants, from which instances are made. Filters that agree
//! on all of these, in one namespace, share it: each worker has one instance of it for all their configurations. Those
//! that ship with the control plane share it in all namespaces.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::Prepared;
use super::instance::Instance;
use super::spares::Spares;
use crate::failure::Failure;
use crate::guest::{Setup, Source};
use crate::host::Inner;
use crate::spec::{Digest, FilterSpec};
use crate::state::Shared;

/// Configurations of one program at the most; others get a program of their own. They share an instance's memory.
const MAX_CONFIGURATIONS: usize = 16;

/// A configuration that has more than this part of the memory in bytes is shared with no other namespace: read, it takes many
/// times as much, and what it takes the others of the instance lack.
const SHARE: u64 = 512;

#[derive(Debug)]
pub(crate) struct Program {
    pub(super) host: Arc<Inner>,
    /// `None`: it serves one configuration.
    key: Option<Key>,
    pub(crate) shared: Arc<Shared>,
    pub(super) source: Box<dyn Source>,
    /// Place in each worker's table, and the id that tells it from earlier owners of the place.
    pub(crate) slot: usize,
    pub(crate) id: u64,
    configurations: AtomicUsize,
    pub(super) spares: Spares,
}

/// Everything on which filters must agree to share a program.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    digest: Digest,
    memory_bytes: u64,
    trust: Trust,
}

/// Whose code it is, and so who may share an instance of it.
#[derive(Debug, Clone, PartialEq)]
enum Trust {
    /// The control plane's own, which every namespace runs as it runs the proxy.
    Shipped,
    /// Somebody's: his namespace's filters that are granted the same.
    Namespace { scope: String, capabilities: Vec<String>, grants: Vec<weft_policy::bundle::Grant> },
}

impl Key {
    fn is_shipped(&self) -> bool {
        self.trust == Trust::Shipped
    }

    pub(crate) fn of(spec: &FilterSpec) -> Self {
        let is_short = spec.config_json.len() as u64 <= spec.memory_bytes / SHARE;
        let trust = if spec.shipped && is_short {
            Trust::Shipped
        } else {
            let mut capabilities = spec.capabilities.clone();
            capabilities.sort_unstable();
            Trust::Namespace { scope: spec.scope.clone(), capabilities, grants: spec.grants.clone() }
        };
        Self { digest: spec.digest, memory_bytes: spec.memory_bytes, trust }
    }
}

/// Programs that live.
#[derive(Debug, Default)]
pub(crate) struct Programs(Mutex<Vec<Weak<Program>>>);

impl Programs {
    /// The program that these filters share, with room for one more configuration, which is taken.
    pub(super) fn join(&self, key: &Key) -> Option<Arc<Program>> {
        let mut programs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        programs.retain(|program| program.strong_count() > 0);
        programs.iter().filter_map(Weak::upgrade).find(|program| program.key.as_ref() == Some(key) && program.enter())
    }

    pub(super) fn add(&self, program: &Arc<Program>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(program));
    }
}

impl Program {
    /// With one configuration in it.
    pub(crate) fn new(host: &Arc<Inner>, key: Option<Key>, shared: Arc<Shared>, source: Box<dyn Source>) -> Self {
        let (slot, id) = host.take_slot();
        let (configurations, spares) = (AtomicUsize::new(1), Spares::default());
        Self { host: host.clone(), key, shared, source, slot, id, configurations, spares }
    }

    fn enter(&self) -> bool {
        let more = |count: usize| (count < MAX_CONFIGURATIONS).then_some(count + 1);
        self.configurations.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    /// A configuration less.
    pub(super) fn leave(&self) {
        self.configurations.fetch_sub(1, Relaxed);
    }

    /// True where one more instance of it may be made ahead, beside some that were made and do not wait yet.
    pub(super) fn has_room_for_spares(&self, made: usize) -> bool {
        self.host.has_room_for_spares(made, self.key.as_ref().is_some_and(Key::is_shipped))
    }

    /// A new instance without a configuration, for a request that can't do with a spare one.
    pub(crate) fn instance(&self, setup: &Setup, within: Duration) -> Result<Instance, Failure> {
        Ok(Instance::new(self.source.start(setup, within)?))
    }

    /// The filter is ready: its program's spare instances know it from now on. `made`: those that were made of the program
    /// for it, where it is the first.
    pub(crate) fn welcome(self: &Arc<Self>, filter: &Arc<Prepared>, made: Vec<Instance>) {
        self.spares.welcome(self, filter, made);
    }

    /// A spare instance that has the filter's configuration.
    pub(crate) fn spare(self: &Arc<Self>, filter: &Prepared) -> Option<Instance> {
        self.spares.take(self, filter.id)
    }

    /// A request had to make do without a spare one; `failed`: it could not.
    pub(crate) fn missed(self: &Arc<Self>, failed: bool) {
        self.spares.missed(self, failed);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.spares.clear(&self.host.shelf);
        self.host.return_slot(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_policy::bundle::FilterAttachment;

    use super::*;

    /// Of a policy's filter with 1 MiB.
    fn key(policy: &str, shipped: bool, (digest, config): (char, &str)) -> Key {
        let attachment = json!({
            "name": policy, "filter": "f", "version": "1.0.0", "digest": format!("sha256:{}", digest.to_string().repeat(64)),
            "signature": "", "public_key_pem": "", "shipped": shipped, "direction": "Inbound", "order": 0, "mode": "Enforce",
            "on_failure": "Deny", "authorization": false, "config": config, "capabilities": [],
            "limits": {"memory_bytes": 1 << 20, "call_timeout_ms": 10}, "workloads": [], "contract": "wit-0.2",
        });
        let attachment: FilterAttachment = serde_json::from_value(attachment).expect("an attachment");
        Key::of(&FilterSpec::try_from(&attachment).expect("a spec"))
    }

    #[test]
    fn who_shares_a_program() {
        let long = "x".repeat(4_096);
        let (short, long) = ("{}", long.as_str());
        let same = |one: (&str, bool, (char, &str)), other: (&str, bool, (char, &str))| {
            key(one.0, one.1, one.2) == key(other.0, other.1, other.2)
        };
        let a = ("a/p", true, ('1', short));
        assert!(same(a, ("b/q", true, ('1', short))), "what ships, in all namespaces");
        assert!(!same(a, ("a/q", true, ('2', short))), "another binary");
        assert!(!same(a, ("a/q", false, ('1', short))), "the same binary, published by somebody");
        assert!(same(("a/p", false, ('1', short)), ("a/q", false, ('1', short))), "one namespace");
        assert!(!same(("a/p", false, ('1', short)), ("b/p", false, ('1', short))), "two namespaces");
        let ships = |(policy, shipped, what): (&str, bool, (char, &str))| key(policy, shipped, what).is_shipped();
        assert!(ships(a) && !ships(("a/q", false, ('1', short))) && !ships(("a/q", true, ('1', long))));
        assert!(!same(a, ("a/q", true, ('1', long))), "a long configuration takes what others need");
        assert!(!same(("a/p", true, ('1', long)), ("b/p", true, ('1', long))));
    }
}

//! A program: a component that is linked, with its limits and grants, from which instances are made. Filters that agree
//! on all of these, in one namespace, share it: each worker has one instance of it for all their configurations.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::instance::Instance;
use crate::failure::Failure;
use crate::guest::{Setup, Source};
use crate::host::Inner;
use crate::spec::{Digest, FilterSpec};
use crate::state::Shared;

/// Configurations of one program at the most; others get a program of their own. They share an instance's memory.
const MAX_CONFIGURATIONS: usize = 16;

#[derive(Debug)]
pub(crate) struct Program {
    host: Arc<Inner>,
    /// `None`: it serves one configuration.
    key: Option<Key>,
    pub(crate) shared: Arc<Shared>,
    source: Box<dyn Source>,
    /// Place in each worker's table, and the id that tells it from earlier owners of the place.
    pub(crate) slot: usize,
    pub(crate) id: u64,
    configurations: AtomicUsize,
    /// Made ahead for the workers that will ask first.
    spares: Mutex<Vec<Instance>>,
}

/// Everything on which filters must agree to share a program.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    digest: Digest,
    memory_bytes: u64,
    capabilities: Vec<String>,
    grants: Vec<weft_policy::bundle::Grant>,
    scope: String,
}

impl Key {
    pub(crate) fn of(spec: &FilterSpec) -> Self {
        let mut capabilities = spec.capabilities.clone();
        capabilities.sort_unstable();
        Self {
            digest: spec.digest,
            memory_bytes: spec.memory_bytes,
            capabilities,
            grants: spec.grants.clone(),
            scope: spec.scope.clone(),
        }
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
        let (configurations, spares) = (AtomicUsize::new(1), Mutex::default());
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

    pub(super) fn source(&self) -> &dyn Source {
        &*self.source
    }

    pub(super) fn keep(&self, instances: Vec<Instance>) {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner).extend(instances);
    }

    /// An instance for one worker: a spare one, or a new one, which costs microseconds and its `configure`.
    pub(crate) fn instance(&self, setup: &Setup) -> Result<Instance, Failure> {
        if let Some(spare) = self.spares.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(spare);
        }
        Ok(Instance::new(self.source.start(setup)?))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.host.return_slot(self.slot);
    }
}

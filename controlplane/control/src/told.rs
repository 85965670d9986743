//! Objects as proxies are told of them: encoded and numbered once, whoever is told, and a set of them for each proxy.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use weft_policy::bundle::Service;
use weft_policy::delta::{Key, Object};
use weft_policy::plan;
use weft_policy::wire::{self, v1};

use crate::view::{Version, Wanted};

/// All that proxies are told of one world.
pub type Shared = plan::Shared<Told>;

/// An object with its envelope.
#[derive(Debug)]
pub struct Told {
    pub key: Key,
    pub object: Object,
    pub envelope: v1::Object,
}

impl Told {
    pub fn of(object: Object) -> Self {
        Self { key: object.key(), envelope: wire::encode(&object), object }
    }

    pub fn version(&self) -> Version {
        self.envelope.version
    }

    pub fn service(&self) -> Option<&Service> {
        match &self.object {
            Object::Service(service) => Some(service),
            Object::Mesh(_) | Object::Workload(_) | Object::Route(_) | Object::External(_) | Object::Filter(_) => None,
        }
    }
}

/// Objects by key, each there once.
#[derive(Debug, Clone, Default)]
pub struct ToldSet(BTreeSet<ByKey>);

#[derive(Debug, Clone)]
struct ByKey(Arc<Told>);

impl ToldSet {
    pub fn get(&self, key: &Key) -> Option<&Arc<Told>> {
        self.0.get(key).map(|found| &found.0)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Told>> {
        self.0.iter().map(|found| &found.0)
    }

    /// In place of what has the same key.
    pub fn put(&mut self, told: Arc<Told>) {
        self.0.replace(ByKey(told));
    }

    pub fn remove(&mut self, key: &Key) {
        self.0.remove(key);
    }

    /// The set without the statements of filters, for a proxy that reads none: it misses nothing of what filters do.
    pub fn without_statements(self: &Arc<Self>) -> Arc<Self> {
        self.in_form(Object::without_statement)
    }

    /// The set without the word of filters that ship, for a proxy that reads none.
    pub fn without_origins(self: &Arc<Self>) -> Arc<Self> {
        self.in_form(Object::without_origin)
    }

    /// The set with each object that has a plainer form in that.
    fn in_form(self: &Arc<Self>, form: fn(&Object) -> Option<Object>) -> Arc<Self> {
        let plain: Vec<_> = self.iter().filter_map(|told| form(&told.object)).collect();
        if plain.is_empty() {
            return self.clone();
        }
        let mut set = Self::clone(self);
        plain.into_iter().for_each(|form| set.put(Arc::new(Told::of(form))));
        Arc::new(set)
    }
}

impl FromIterator<Arc<Told>> for ToldSet {
    fn from_iter<I: IntoIterator<Item = Arc<Told>>>(all: I) -> Self {
        Self(all.into_iter().map(ByKey).collect())
    }
}

impl Wanted for ToldSet {
    fn version(&self, key: &Key) -> Option<Version> {
        self.get(key).map(|told| told.version())
    }

    fn each(&self) -> impl Iterator<Item = (&Key, Version)> {
        self.iter().map(|told| (&told.key, told.version()))
    }
}

impl Borrow<Key> for ByKey {
    fn borrow(&self) -> &Key {
        &self.0.key
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

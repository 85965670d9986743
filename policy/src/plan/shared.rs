//! What proxies are told of: each object is made once for all of them, when it is first asked for, and kept from one world to
//! the next while nothing that it follows from has changed.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::affected::Affected;
use super::assemble::{attached, filters_for, mesh_settings, serve, service_entry};
use super::{Entry, World};
use crate::bundle::ObjectName;
use crate::delta::Object;
use crate::resource::{Kind, Object as Resourced, ServiceSpec, Spec};

/// All objects of one world in the form `T`, which may be dear to make.
#[derive(Debug)]
pub struct Shared<T> {
    world: Arc<World>,
    trust_bundle_pem: Arc<str>,
    make: fn(Object) -> T,
    mesh: OnceLock<Arc<T>>,
    services: Made<ObjectName, Arc<Forms<T>>>,
    /// By route: one for each parent.
    routes: Made<ObjectName, Arc<[Attached<T>]>>,
    workloads: Made<ObjectName, Option<Arc<T>>>,
    /// By the workloads that a proxy serves.
    filters: Made<Vec<ObjectName>, Arc<[Arc<T>]>>,
}

/// A service as its callers see it.
#[derive(Debug)]
struct Forms<T> {
    /// As those do who have no routes of their own for it.
    plain: OnceLock<Arc<T>>,
    /// By those of its consumers' namespaces that the callers are in.
    consumed: Made<Vec<String>, Arc<T>>,
}

/// A route at one of its parents.
#[derive(Debug)]
struct Attached<T> {
    /// The namespace whose callers alone meet it.
    consumer: Option<String>,
    made: Arc<T>,
}

/// What was made so far.
#[derive(Debug)]
struct Made<K, V>(Mutex<BTreeMap<K, V>>);

impl<K: Ord + Clone, V: Clone> Made<K, V> {
    fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Two that ask at the same time for what is not there yet both make it, and get the same.
    fn get<Q>(&self, key: &Q, make: impl FnOnce() -> V) -> V
    where
        K: Borrow<Q>,
        Q: Ord + ToOwned<Owned = K> + ?Sized,
    {
        let known = self.lock().get(key).cloned();
        known.unwrap_or_else(|| {
            let made = make();
            self.lock().entry(key.to_owned()).or_insert(made).clone()
        })
    }

    fn kept(&self, keep: impl Fn(&K) -> bool) -> Self {
        let known = self.lock();
        let kept = known.iter().filter(|(key, _)| keep(key)).map(|(key, made)| (key.clone(), made.clone()));
        Self(Mutex::new(kept.collect()))
    }
}

impl<T> Shared<T> {
    pub fn new(world: Arc<World>, trust_bundle_pem: Arc<str>, make: fn(Object) -> T) -> Self {
        let (mesh, services, routes) = (OnceLock::new(), Made::new(), Made::new());
        Self { world, trust_bundle_pem, make, mesh, services, routes, workloads: Made::new(), filters: Made::new() }
    }

    /// The same of another world, and of roots that may differ: what neither differs nor follows from what differs is not made
    /// again.
    #[must_use]
    pub fn next(&self, world: Arc<World>, trust_bundle_pem: &str) -> Self {
        let affected = Affected::between(&self.world, &world);
        let is_trusted = *self.trust_bundle_pem == *trust_bundle_pem;
        let mesh = match self.mesh.get().filter(|_| is_trusted && !affected.mesh()) {
            Some(mesh) => OnceLock::from(mesh.clone()),
            None => OnceLock::new(),
        };
        let services = self.services.kept(|service| !affected.service(service));
        let routes = self.routes.kept(|route| !affected.route(route));
        let workloads = self.workloads.kept(|workload| !affected.workload(workload));
        let filters = self.filters.kept(|served| !affected.filters(served));
        drop(affected);
        let make = self.make;
        let trust_bundle_pem = if is_trusted { self.trust_bundle_pem.clone() } else { Arc::from(trust_bundle_pem) };
        Self { world, trust_bundle_pem, make, mesh, services, routes, workloads, filters }
    }

    /// All that the proxy of `served` is told, in no order: what `bundle_for` says, made.
    pub fn of_proxy(&self, served: &[ObjectName]) -> Vec<Arc<T>> {
        let namespaces: BTreeSet<&str> = served.iter().map(|name| name.namespace.as_str()).collect();
        let mut all = vec![self.mesh()];
        all.extend(served.iter().filter_map(|name| self.workload(name)));
        all.extend(self.world.services().map(|service| self.service(service, &namespaces)));
        for (key, entry) in self.world.of_kind(Kind::HttpRoute) {
            let attached = self.route(&key.object_name(), entry);
            let concerns = |one: &&Attached<T>| one.consumer.as_deref().is_none_or(|it| namespaces.contains(it));
            all.extend(attached.iter().filter(concerns).map(|one| one.made.clone()));
        }
        all.extend(self.filters_of(served).iter().cloned());
        all
    }

    fn mesh(&self) -> Arc<T> {
        let make = || Arc::new((self.make)(Object::Mesh(mesh_settings(&self.world, &self.trust_bundle_pem))));
        self.mesh.get_or_init(make).clone()
    }

    /// A service as callers of these namespaces see it.
    fn service(&self, service: &Resourced<ServiceSpec>, callers: &BTreeSet<&str>) -> Arc<T> {
        let name = service.name();
        let consumers: BTreeSet<&str> =
            self.world.index().consumers(&name).filter(|namespace| callers.contains(namespace)).collect();
        let forms = self.services.get(&name, || Arc::new(Forms { plain: OnceLock::new(), consumed: Made::new() }));
        let make = || Arc::new((self.make)(Object::Service(service_entry(&self.world, service, &consumers))));
        if consumers.is_empty() {
            return forms.plain.get_or_init(make).clone();
        }
        let consumers: Vec<String> = consumers.iter().map(|namespace| (*namespace).to_owned()).collect();
        forms.consumed.get(&consumers, make)
    }

    fn route(&self, name: &ObjectName, entry: &Entry) -> Arc<[Attached<T>]> {
        self.routes.get(name, || {
            let Some(route) = Spec::of(&entry.resource) else { return Arc::new([]) };
            let attached = attached(&self.world, route, entry.created).into_iter();
            let made = attached.map(|route| Attached {
                consumer: route.consumer_namespace.clone(),
                made: Arc::new((self.make)(Object::Route(route))),
            });
            made.collect()
        })
    }

    /// A workload as its own proxy serves it.
    fn workload(&self, name: &ObjectName) -> Option<Arc<T>> {
        self.workloads.get(name, || {
            let served = serve(&self.world, self.world.workload(name)?)?;
            Some(Arc::new((self.make)(Object::Workload(served))))
        })
    }

    fn filters_of(&self, served: &[ObjectName]) -> Arc<[Arc<T>]> {
        self.filters.get(served, || {
            let filters = filters_for(&self.world, served).into_values();
            filters.map(|filter| Arc::new((self.make)(Object::Filter(filter)))).collect()
        })
    }
}

//! What proxies are told of: each object is made once for all of them, when it is first asked for, and kept from one world to
//! the next while nothing that it follows from has changed.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use imbl::OrdMap;

use super::affected::{Affected, Which};
use super::assemble::{attached, filters_for, mesh_settings, serve, service_entry};
use super::external::{external_entry, is_seen, seen};
use super::scope::{backends, backends_outside, blocks as blocks_of, closure, is_met, meant, roots};
use super::{Entry, World};
use crate::bundle::{MeshSettings, ObjectName};
use crate::delta::Object;
use crate::resource::{AnyRoute, ExternalServiceSpec, Kind, Object as Resourced, ServiceSpec};
use crate::scope::{Ask, Blocks, Ranges};

/// All objects of one world in the form `T`, which may be dear to make.
#[derive(Debug)]
pub struct Shared<T> {
    world: Arc<World>,
    /// What may differ from the world before, and from those before it: the newest last.
    came: Vec<Arc<Affected>>,
    trust_bundle_pem: Arc<str>,
    make: fn(Object) -> T,
    mesh: OnceLock<Arc<T>>,
    /// Where the mesh has addresses, once somebody holds only what it uses.
    blocks: OnceLock<Arc<Blocks>>,
    /// The same for those that hold only what they use.
    scoped_mesh: OnceLock<(Ranges, Arc<T>)>,
    services: Made<ObjectName, Arc<Forms<T>>>,
    /// By the name of each route at its first parent: one for each parent.
    routes: Made<ObjectName, Arc<[Attached<T>]>>,
    externals: Made<ObjectName, Arc<T>>,
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
    parent: ObjectName,
    /// The parent is an ExternalService.
    outside: bool,
    backends: Vec<ObjectName>,
    /// The ExternalServices that it leads to.
    led_out: Vec<ObjectName>,
    made: Arc<T>,
}

impl<T> Attached<T> {
    fn concerns(&self, world: &World, namespaces: &BTreeSet<&str>) -> bool {
        is_met(world, (&self.parent, self.outside), self.consumer.as_deref(), namespaces)
    }
}

/// So many worlds back it is known what came since.
const REMEMBERED: usize = 64;

/// What was made so far; two worlds that follow one another share most of it.
#[derive(Debug)]
struct Made<K: Ord, V>(Mutex<OrdMap<K, V>>);

impl<K: Ord + Clone, V: Clone> Made<K, V> {
    fn new() -> Self {
        Self(Mutex::new(OrdMap::new()))
    }

    fn lock(&self) -> MutexGuard<'_, OrdMap<K, V>> {
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
        let mut kept = self.lock().clone();
        let gone: Vec<K> = kept.keys().filter(|key| !keep(key)).cloned().collect();
        gone.iter().for_each(|key| drop(kept.remove(key)));
        Self(Mutex::new(kept))
    }
}

impl<V: Clone> Made<ObjectName, V> {
    /// Without what is affected.
    fn spared(&self, affected: &Affected, which: Which) -> Self {
        let Some(gone) = affected.named(which) else {
            return self.kept(|name| !affected.concerns(which, name));
        };
        let mut kept = self.lock().clone();
        gone.iter().for_each(|name| drop(kept.remove(name)));
        Self(Mutex::new(kept))
    }
}

impl<T> Shared<T> {
    pub fn new(world: Arc<World>, trust_bundle_pem: Arc<str>, make: fn(Object) -> T) -> Self {
        Self {
            world,
            came: Vec::new(),
            trust_bundle_pem,
            make,
            mesh: OnceLock::new(),
            blocks: OnceLock::new(),
            scoped_mesh: OnceLock::new(),
            services: Made::new(),
            routes: Made::new(),
            externals: Made::new(),
            workloads: Made::new(),
            filters: Made::new(),
        }
    }

    /// The same of another world, and of roots that may differ: what neither differs nor follows from what differs is not made
    /// again.
    #[must_use]
    pub fn next(&self, world: Arc<World>, trust_bundle_pem: &str) -> Self {
        let affected = Arc::new(Affected::between(&self.world, &world));
        let is_trusted = *self.trust_bundle_pem == *trust_bundle_pem;
        let is_same_mesh = is_trusted && !affected.mesh();
        let mesh = match self.mesh.get().filter(|_| is_same_mesh) {
            Some(mesh) => OnceLock::from(mesh.clone()),
            None => OnceLock::new(),
        };
        let moved = self.blocks.get().map(|known| affected.blocks(known));
        let has_ranges = |ranges: &Ranges| {
            moved.as_ref().is_some_and(|(blocks, are_others)| !are_others || *ranges == blocks.ranges())
        };
        let scoped_mesh = self.scoped_mesh.get().filter(|(ranges, _)| is_same_mesh && has_ranges(ranges));
        let scoped_mesh = scoped_mesh.map_or_else(OnceLock::new, |known| OnceLock::from(known.clone()));
        let blocks = moved.map_or_else(OnceLock::new, |(blocks, _)| OnceLock::from(blocks));
        let services = self.services.spared(&affected, Which::Services);
        let routes = self.routes.spared(&affected, Which::Routes);
        let externals = self.externals.spared(&affected, Which::Externals);
        let workloads = self.workloads.spared(&affected, Which::Workloads);
        let filters = self.filters.kept(|served| !affected.filters(served));
        let forgotten = self.came.len().saturating_sub(REMEMBERED - 1);
        let came = self.came[forgotten..].iter().cloned().chain([affected]).collect();
        let make = self.make;
        let trust_bundle_pem = if is_trusted { self.trust_bundle_pem.clone() } else { Arc::from(trust_bundle_pem) };
        Self {
            world,
            came,
            trust_bundle_pem,
            make,
            mesh,
            blocks,
            scoped_mesh,
            services,
            routes,
            externals,
            workloads,
            filters,
        }
    }

    /// All that the proxy of `served` is told, in no order: what `bundle_for` says, made.
    pub fn of_proxy(&self, served: &[ObjectName]) -> Vec<Arc<T>> {
        let namespaces: BTreeSet<&str> = served.iter().map(|name| name.namespace.as_str()).collect();
        let mut all = vec![self.mesh()];
        all.extend(served.iter().filter_map(|name| self.workload(name)));
        all.extend(self.world.services().map(|service| self.service(service, &namespaces)));
        let mut led_out = BTreeSet::new();
        for entry in Kind::ROUTES.into_iter().flat_map(|kind| self.world.of_kind(kind)).map(|(_, entry)| entry) {
            let attached = self.route(entry);
            for one in attached.iter().filter(|one| one.concerns(&self.world, &namespaces)) {
                all.push(one.made.clone());
                led_out.extend(one.led_out.iter().cloned());
            }
        }
        all.extend(self.externals_of(&namespaces, &led_out));
        all.extend(self.filters_of(served).iter().cloned());
        all
    }

    /// The services that the proxy of `served` holds once it has asked for `asked`: what `scope_of` says.
    pub fn scope(&self, served: &[ObjectName], asked: &BTreeSet<Ask>) -> BTreeSet<ObjectName> {
        let namespaces: BTreeSet<&str> = served.iter().map(|name| name.namespace.as_str()).collect();
        let mut from = roots(&self.world, served, asked);
        for external in seen(&self.world, &namespaces) {
            self.each_met((&external.name(), true), &namespaces, |one| from.extend(one.backends.iter().cloned()));
        }
        self.reached(served, from)
    }

    /// The services that the answers to `asks` bring to the proxy of `served`.
    pub fn closure(&self, served: &[ObjectName], asks: &BTreeSet<Ask>) -> BTreeSet<ObjectName> {
        self.reached(served, asks.iter().flat_map(|ask| self.meant(ask)).collect())
    }

    /// The services `from`, with what callers next to `served` may be led to by their routes.
    fn reached(&self, served: &[ObjectName], from: BTreeSet<ObjectName>) -> BTreeSet<ObjectName> {
        let namespaces: BTreeSet<&str> = served.iter().map(|name| name.namespace.as_str()).collect();
        closure(&self.world, from, |service| {
            let mut backends = Vec::new();
            self.each_met((service, false), &namespaces, |one| backends.extend_from_slice(&one.backends));
            backends
        })
    }

    /// All that the proxy of `served` is told which holds the services of `scope` only, in no order: what
    /// `scoped_bundle_for` says, made.
    pub fn of_scope(&self, served: &[ObjectName], scope: &BTreeSet<ObjectName>) -> Vec<Arc<T>> {
        let namespaces: BTreeSet<&str> = served.iter().map(|name| name.namespace.as_str()).collect();
        let mut all = vec![self.scoped_mesh()];
        all.extend(served.iter().filter_map(|name| self.workload(name)));
        let mut led_out = BTreeSet::new();
        let mut take = |all: &mut Vec<Arc<T>>, one: &Attached<T>| {
            all.push(one.made.clone());
            led_out.extend(one.led_out.iter().cloned());
        };
        for service in scope.iter().filter_map(|name| self.world.service(name)) {
            all.push(self.service(service, &namespaces));
            self.each_met((&service.name(), false), &namespaces, |one| take(&mut all, one));
        }
        for external in seen(&self.world, &namespaces) {
            self.each_met((&external.name(), true), &namespaces, |one| take(&mut all, one));
        }
        // All of them: they are few, and what is outside can't be asked for by a name that nobody knows yet.
        all.extend(self.externals_of(&namespaces, &led_out));
        all.extend(self.filters_of(served).iter().cloned());
        all
    }

    /// False where the proxy of `served` that holds `scope` by what it asked for is told what it was told of `before`.
    pub fn concerns(
        &self,
        before: &Self,
        served: &[ObjectName],
        asked: &BTreeSet<Ask>,
        scope: &BTreeSet<ObjectName>,
    ) -> bool {
        let is_same = |one: &(Ranges, Arc<T>)| before.scoped_mesh.get().is_some_and(|it| Arc::ptr_eq(&it.1, &one.1));
        let Some(first) = self.came.iter().rposition(|came| came.is_from(&before.world)) else { return true };
        let is_told_more = |came: &Arc<Affected>| came.view(served, asked, scope);
        !self.scoped_mesh.get().is_some_and(is_same) || self.came[first..].iter().any(is_told_more)
    }

    /// The services that something asked for means; none where there is nothing.
    pub fn meant(&self, ask: &Ask) -> Vec<ObjectName> {
        meant(&self.world, ask)
    }

    /// The routes of a service, or of an ExternalService, that callers of these namespaces meet.
    fn each_met(
        &self,
        (parent, outside): (&ObjectName, bool),
        namespaces: &BTreeSet<&str>,
        mut take: impl FnMut(&Attached<T>),
    ) {
        for entry in self.world.index().routes_of(parent) {
            let attached = self.route(entry);
            let of_parent = attached.iter().filter(|one| one.parent == *parent && one.outside == outside);
            of_parent.filter(|one| one.concerns(&self.world, namespaces)).for_each(&mut take);
        }
    }

    /// The ExternalServices that callers of these namespaces see, and those that their routes lead to.
    fn externals_of(&self, namespaces: &BTreeSet<&str>, led_out: &BTreeSet<ObjectName>) -> Vec<Arc<T>> {
        let others = led_out.iter().filter_map(|name| self.world.external(name));
        let others = others.filter(|external| !is_seen(external, namespaces));
        seen(&self.world, namespaces).chain(others).map(|external| self.external(external)).collect()
    }

    fn scoped_mesh(&self) -> Arc<T> {
        let make = || {
            let ranges = self.blocks.get_or_init(|| Arc::new(blocks_of(&self.world))).ranges();
            let settings = mesh_settings(&self.world, &self.trust_bundle_pem);
            let settings = MeshSettings { ranges: Some(ranges.clone()), ..settings };
            (ranges, Arc::new((self.make)(Object::Mesh(settings))))
        };
        self.scoped_mesh.get_or_init(make).1.clone()
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

    fn route(&self, entry: &Entry) -> Arc<[Attached<T>]> {
        let Some(route) = AnyRoute::of(&entry.resource) else { return Arc::new([]) };
        self.routes.get(&route.name_of_first(), || {
            let attached = attached(&self.world, route, entry.created).into_iter();
            let made = attached.map(|route| Attached {
                consumer: route.consumer_namespace.clone(),
                parent: route.parent.clone(),
                outside: route.outside,
                backends: backends(&route).cloned().collect(),
                led_out: backends_outside(&route).cloned().collect(),
                made: Arc::new((self.make)(Object::Route(route))),
            });
            made.collect()
        })
    }

    fn external(&self, external: &Resourced<ExternalServiceSpec>) -> Arc<T> {
        let make = || Arc::new((self.make)(Object::External(external_entry(&self.world, external))));
        self.externals.get(&external.name(), make)
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

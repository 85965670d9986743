//! Services that the apps of this proxy use: each worker notes it on its own thread, and the control side looks now and then
//! which have not been used for long. Invariant: what is in use counts as used, however long ago it began.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use weft_policy::bundle::{Bundle, ObjectName, Service};
use weft_policy::scope::Ask;

use crate::snapshot::Snapshot;

/// One worker's use of one service; that worker alone counts.
#[derive(Debug, Default)]
struct Use {
    /// Somebody began to use it since this was looked at.
    is_touched: AtomicBool,
    open: AtomicUsize,
}

/// A request or connection that uses a service.
#[derive(Debug)]
pub struct Using(Arc<Use>);

impl Using {
    fn begin(used: &Arc<Use>) -> Self {
        if !used.is_touched.load(Ordering::Relaxed) {
            used.is_touched.store(true, Ordering::Relaxed);
        }
        used.open.store(used.open.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Self(Arc::clone(used))
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        self.0.open.store(self.0.open.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }
}

/// What the workers use.
#[derive(Debug, Clone, Default)]
pub struct Uses(Arc<Mutex<Watched>>);

type Watched = Vec<(ObjectName, Weak<Use>)>;

impl Uses {
    fn watch(&self, service: &ObjectName) -> Arc<Use> {
        let used = Arc::new(Use::default());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the list grows, entries of services that left are dropped.
        if all.len() == all.capacity() {
            all.retain(|(_, used)| used.strong_count() > 0);
        }
        all.push((service.clone(), Arc::downgrade(&used)));
        used
    }

    /// Services that somebody began to use since this was asked last, or uses now.
    pub(crate) fn take(&self) -> BTreeSet<ObjectName> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let in_use =
            |used: &Use| used.is_touched.swap(false, Ordering::Relaxed) | (used.open.load(Ordering::Relaxed) > 0);
        let used = all.iter().filter(|(_, used)| used.upgrade().is_some_and(|used| in_use(&used)));
        used.map(|(service, _)| service.clone()).collect()
    }
}

/// The services that one worker uses.
#[derive(Debug)]
pub struct WorkerUses {
    all: Uses,
    named: RefCell<BTreeMap<ObjectName, Arc<Use>>>,
    /// The newest snapshot that was seen here, and by their places in it the services used since.
    generation: Cell<u64>,
    placed: RefCell<BTreeMap<*const Service, Arc<Use>>>,
}

impl WorkerUses {
    pub(crate) fn new(all: Uses) -> Self {
        Self { all, named: RefCell::default(), generation: Cell::new(0), placed: RefCell::default() }
    }

    /// Somebody uses a service of `snapshot`, until the guard is dropped.
    pub(crate) fn begin(&self, snapshot: &Snapshot, service: &Service) -> Using {
        if self.generation.get() < snapshot.generation {
            self.generation.set(snapshot.generation);
            self.placed.borrow_mut().clear();
            self.named.borrow_mut().retain(|name, _| snapshot.bundle.services.contains_key(name));
        }
        // A place means something in its own snapshot only, which the request holds.
        let is_newest = self.generation.get() == snapshot.generation;
        let place = std::ptr::from_ref(service);
        if is_newest && let Some(used) = self.placed.borrow().get(&place) {
            return Using::begin(used);
        }
        let known = self.named.borrow().get(&service.name).map(Arc::clone);
        let used = known.unwrap_or_else(|| {
            let used = self.all.watch(&service.name);
            self.named.borrow_mut().insert(service.name.clone(), Arc::clone(&used));
            used
        });
        if is_newest {
            self.placed.borrow_mut().insert(place, Arc::clone(&used));
        }
        Using::begin(&used)
    }
}

/// When each service that this proxy holds was used last, as far as it was looked at.
#[derive(Debug, Default)]
pub(crate) struct LastUses(BTreeMap<ObjectName, Instant>);

impl LastUses {
    /// What was asked for and none of it used for `idle`. What is new counts as used now, and what there is not is no matter
    /// of use.
    pub(crate) fn unused(
        &mut self,
        bundle: &Bundle,
        used: &BTreeSet<ObjectName>,
        (now, idle): (Instant, Duration),
    ) -> BTreeSet<Ask> {
        self.0.retain(|name, _| bundle.services.contains_key(name));
        for name in bundle.services.keys() {
            match self.0.get_mut(name) {
                Some(last) if used.contains(name) => *last = now,
                Some(_) => {}
                None => _ = self.0.insert(name.clone(), now),
            }
        }
        let is_idle =
            |name: &ObjectName| self.0.get(name).is_some_and(|last| now.saturating_duration_since(*last) >= idle);
        if !bundle.services.keys().any(is_idle) {
            return BTreeSet::new();
        }
        let all_idle = |ask: &&Ask| bundle.has(ask) && bundle.meant(ask).all(|service| is_idle(&service.name));
        bundle.answered.iter().filter(all_idle).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;

    fn name(name: &str) -> ObjectName {
        ObjectName::new("shop", name)
    }

    fn service(text: &str, vip: [u8; 4]) -> Service {
        let (name, vip) = (name(text), Some(vip.into()));
        Service {
            name,
            ports: Vec::new(),
            vip,
            path_reading: Default::default(),
            traffic: None,
            spread: None,
            endpoints: Default::default(),
        }
    }

    /// Two services, and answers to more than those.
    fn bundle() -> Bundle {
        let mesh = json!({
            "trust_domain": "cluster.local", "trust_bundle_pem": "", "access_log": false, "connect_timeout_ms": 1,
            "max_retries": 1, "egress": "Allow",
        });
        let workload = json!({
            "name": {"namespace": "shop", "name": "web"}, "identity": "spiffe://cluster.local/ns/shop/sa/web",
            "address": "10.0.0.3", "ports": [],
        });
        let services = [service("a", [10, 0, 0, 1]), service("b", [10, 0, 0, 2])];
        let addresses = [[10, 0, 0, 1], [10, 0, 0, 9]].map(|ip| Ask::address(ip.into()));
        let names = ["a", "b", "none"].map(|text| Ask::Service(name(text)));
        Bundle {
            mesh: serde_json::from_value(mesh).unwrap(),
            workloads: [("shop/web".to_owned(), serde_json::from_value(workload).unwrap())].into(),
            services: services.into_iter().map(|service| (service.name.clone(), service)).collect(),
            answered: names.into_iter().chain(addresses).collect(),
            ..Bundle::default()
        }
    }

    #[test]
    fn what_has_not_been_used_for_long_is_named_and_what_is_not_there_is_not() {
        let (bundle, start, idle) = (bundle(), Instant::now(), Duration::from_secs(100));
        let mut last = LastUses::default();
        let mut unused = |used: &[&str], seconds: u64| {
            let used = used.iter().map(|text| name(text)).collect();
            let unused = last.unused(&bundle, &used, (start + Duration::from_secs(seconds), idle));
            unused.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(unused(&[], 0), [""; 0]);
        assert_eq!(unused(&["a"], 50), [""; 0]);
        assert_eq!(unused(&[], 99), [""; 0]);
        assert_eq!(unused(&[], 100), ["service shop/b"]);
        assert_eq!(unused(&["b"], 149), [""; 0]);
        assert_eq!(unused(&[], 150), ["service shop/a", "address 10.0.0.1"]);
    }

    #[test]
    fn what_is_open_is_used_and_what_was_used_is_told_once() {
        let uses = Uses::default();
        let (one, other) = (WorkerUses::new(uses.clone()), WorkerUses::new(uses.clone()));
        let bundle = Arc::new(bundle());
        let snapshot = || Snapshot::build(Arc::clone(&bundle), &HashMap::new()).unwrap();
        let first = snapshot();
        let begin = |worker: &WorkerUses, snapshot: &Snapshot, text: &str| {
            worker.begin(snapshot, &snapshot.bundle.services[&name(text)])
        };
        assert!(uses.take().is_empty());
        drop(begin(&one, &first, "a"));
        let open = begin(&other, &first, "b");
        assert_eq!(uses.take(), [name("a"), name("b")].into());
        assert_eq!(uses.take(), [name("b")].into(), "it is open");
        let second = snapshot();
        drop(begin(&other, &second, "a"));
        drop(begin(&other, &first, "a"));
        assert_eq!(uses.take(), [name("a"), name("b")].into());
        drop(open);
        assert!(uses.take().is_empty());
    }
}

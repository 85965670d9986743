//! What this proxy's checks find of the endpoints of its services. One worker checks and writes it; all workers read it, each
//! when it picks an endpoint next. Invariant: an endpoint of which nothing is held here takes requests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use weft_policy::bundle::ObjectName;

use crate::gauges::{OpenCount, OpenGuard};

/// The findings about all services whose endpoints are checked.
#[derive(Debug, Clone, Default)]
pub struct HealthChecks {
    services: Arc<Mutex<BTreeMap<ObjectName, Weak<Findings>>>>,
    begun: Arc<Notify>,
    /// Endpoints that take no requests since their checks fail.
    pub unhealthy: OpenCount,
}

impl HealthChecks {
    /// The findings about one service, whose checks begin now if nobody used it before.
    pub fn of(&self, service: &ObjectName) -> Arc<Findings> {
        let mut services = self.lock();
        if let Some(known) = services.get(service).and_then(Weak::upgrade) {
            return known;
        }
        services.retain(|_, findings| findings.strong_count() > 0);
        let findings = Arc::new(Findings {
            is_used: AtomicBool::new(true),
            version: AtomicU64::new(1),
            held: Mutex::default(),
            all: self.unhealthy.clone(),
        });
        services.insert(service.clone(), Arc::downgrade(&findings));
        self.begun.notify_one();
        findings
    }

    /// All that somebody holds.
    pub fn all(&self) -> Vec<(ObjectName, Arc<Findings>)> {
        let services = self.lock();
        services.iter().filter_map(|(name, findings)| Some((name.clone(), findings.upgrade()?))).collect()
    }

    /// Resolves when a service is used that was not. Cancel safe: nothing is missed.
    pub async fn begun(&self) {
        self.begun.notified().await;
    }

    /// The endpoints of a service that are held to be unhealthy.
    pub fn unhealthy_of(&self, service: &ObjectName) -> BTreeSet<ObjectName> {
        let known = self.lock().get(service).and_then(Weak::upgrade);
        known.map(|findings| findings.lock().unhealthy.clone()).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectName, Weak<Findings>>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is held of the endpoints of one service.
#[derive(Debug)]
pub struct Findings {
    /// A request went there since this was looked at.
    is_used: AtomicBool,
    /// Counts the changes of what is held.
    version: AtomicU64,
    held: Mutex<Held>,
    all: OpenCount,
}

#[derive(Debug, Default)]
struct Held {
    unhealthy: BTreeSet<ObjectName>,
    /// One for each of them, so that they are counted over all services.
    counted: Vec<OpenGuard>,
}

impl Findings {
    /// Somebody uses the service.
    pub fn touch(&self) {
        if !self.is_used.load(Ordering::Relaxed) {
            self.is_used.store(true, Ordering::Relaxed);
        }
    }

    /// True where somebody used it since this was asked last.
    pub fn take_use(&self) -> bool {
        self.is_used.swap(false, Ordering::Relaxed)
    }

    /// The unhealthy endpoints, and the number of this state of things, where it is another than what was seen. 0: nothing was.
    pub fn news(&self, seen: u64) -> Option<(u64, BTreeSet<ObjectName>)> {
        if self.version.load(Ordering::Acquire) == seen {
            return None;
        }
        let held = self.lock();
        Some((self.version.load(Ordering::Acquire), held.unhealthy.clone()))
    }

    /// Notes what is held of an endpoint from now on.
    pub fn set(&self, workload: &ObjectName, is_unhealthy: bool) {
        self.change(|unhealthy| match is_unhealthy {
            true => unhealthy.insert(workload.clone()),
            false => unhealthy.remove(workload),
        });
    }

    /// Forgets those that are checked no more.
    pub fn retain(&self, keep: impl Fn(&ObjectName) -> bool) {
        self.change(|unhealthy| {
            let before = unhealthy.len();
            unhealthy.retain(|workload| keep(workload));
            unhealthy.len() != before
        });
    }

    /// `change` says whether it changed something. It is asked up to a hundred times a second.
    fn change(&self, change: impl FnOnce(&mut BTreeSet<ObjectName>) -> bool) {
        let mut held = self.lock();
        if change(&mut held.unhealthy) {
            let count = held.unhealthy.len();
            held.counted.resize_with(count, || self.all.enter());
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_told_once_and_counted_over_all_services() {
        let checks = HealthChecks::default();
        let [web, cart, one, other] = ["web", "cart", "web-1", "web-2"].map(|name| ObjectName::new("shop", name));
        let findings = checks.of(&web);
        assert!(Arc::ptr_eq(&findings, &checks.of(&web)));
        assert!(findings.take_use() && !findings.take_use(), "its making is its first use");
        let (first, nobody) = findings.news(0).unwrap();
        assert_eq!((nobody.len(), findings.news(first)), (0, None));
        findings.set(&one, true);
        let (second, unhealthy) = findings.news(first).unwrap();
        assert_eq!(unhealthy, [one.clone()].into());
        findings.set(&one, true);
        findings.set(&other, false);
        assert_eq!(findings.news(second), None, "nothing changed");
        let elsewhere = checks.of(&cart);
        elsewhere.set(&other, true);
        assert_eq!((checks.unhealthy.value(), checks.all().len()), (2, 2));
        assert_eq!(checks.unhealthy_of(&cart), [other].into());
        findings.retain(|_| false);
        assert_eq!((findings.news(second).unwrap().1.len(), checks.unhealthy.value()), (0, 1));
        drop(elsewhere);
        assert_eq!((checks.unhealthy.value(), checks.all().len()), (0, 1), "nobody holds it");
        assert!(checks.unhealthy_of(&cart).is_empty());
    }
}

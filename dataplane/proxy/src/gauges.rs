//! How many of something are open: connections, unreachable endpoints, and what is in flight. Written on one side, read by
//! scrapes and by a drain.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// How many of something are open.
#[derive(Debug, Default, Clone)]
pub struct OpenCount(Arc<AtomicU64>);

impl OpenCount {
    pub fn enter(&self) -> OpenGuard {
        self.0.fetch_add(1, Ordering::Relaxed);
        OpenGuard(Arc::clone(&self.0))
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One open thing.
#[derive(Debug)]
pub struct OpenGuard(Arc<AtomicU64>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Number of requests and TCP connections in flight on one worker; that worker alone writes it.
#[derive(Debug, Default, Clone)]
pub struct InFlight(Arc<AtomicU64>);

impl InFlight {
    pub fn enter(&self) -> InFlightGuard<'_> {
        self.0.store(self.count() + 1, Ordering::Relaxed);
        InFlightGuard(self)
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One request or tunnel under way.
#[derive(Debug)]
pub struct InFlightGuard<'w>(&'w InFlight);

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.0.0.store(self.0.count() - 1, Ordering::Relaxed);
    }
}

/// Requests and connections in flight on all workers, so that a drain knows when it is done.
#[derive(Debug, Default)]
pub struct AllInFlight(Mutex<Vec<InFlight>>);

impl AllInFlight {
    pub fn watch(&self, worker: &InFlight) {
        self.0.lock().expect("no holder panics").push(worker.clone());
    }

    pub fn count(&self) -> u64 {
        self.0.lock().expect("no holder panics").iter().map(InFlight::count).sum()
    }
}

/// Endpoints that take no requests, over all services of the workers that share the counts.
#[derive(Debug, Clone, Default)]
pub struct Out {
    /// No connection could be made to them.
    pub unreachable: OpenCount,
    /// They failed too often.
    pub ejected: OpenCount,
    /// Services, as each worker finds them, that have so few in that those who are ejected or fail their checks are used as well.
    pub panicking: OpenCount,
}

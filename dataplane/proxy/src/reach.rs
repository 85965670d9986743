//! This proxy's findings about its peers: whether a connection to each could be made lately. The workers write them,
//! and the reports to the control plane read them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use weft_policy::bundle::ObjectName;

/// One worker's findings about one endpoint. Times are milliseconds since the worker's start, and one; 0 is never.
#[derive(Debug)]
pub struct Reach {
    start: Instant,
    reached: AtomicU64,
    failed: AtomicU64,
}

impl Reach {
    /// There is a connection to it, or none could be made.
    pub fn found(&self, is_reached: bool, now: Duration) {
        let at = u64::try_from(now.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        if is_reached { &self.reached } else { &self.failed }.store(at, Ordering::Relaxed);
    }

    /// The last finding, unless it is older than `within`.
    fn lately(&self, within: Duration) -> Option<bool> {
        let (reached, failed) = (self.reached.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed));
        let last = reached.max(failed).checked_sub(1)?;
        (self.start.elapsed().saturating_sub(Duration::from_millis(last)) <= within).then_some(reached >= failed)
    }
}

/// The findings of all workers.
#[derive(Debug, Clone, Default)]
pub struct Reaches(Arc<Mutex<Watched>>);

type Watched = Vec<(ObjectName, Weak<Reach>)>;

impl Reaches {
    /// An endpoint as a worker that started at `start` begins to use it.
    pub fn watch(&self, workload: &ObjectName, start: Instant) -> Arc<Reach> {
        let reach = Arc::new(Reach { start, reached: AtomicU64::new(0), failed: AtomicU64::new(0) });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the list grows, entries of endpoints that left are dropped.
        if all.len() == all.capacity() {
            all.retain(|(_, reach)| reach.strong_count() > 0);
        }
        all.push((workload.clone(), Arc::downgrade(&reach)));
        reach
    }

    /// Whom any worker tried within that time, and whether one got through.
    pub fn lately(&self, within: Duration) -> BTreeMap<ObjectName, bool> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = BTreeMap::new();
        for (workload, reach) in all.iter() {
            if let Some(is_reached) = reach.upgrade().and_then(|reach| reach.lately(within)) {
                *found.entry(workload.clone()).or_insert(false) |= is_reached;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_and_one_worker_that_gets_through_is_enough() {
        let (reaches, start, name) = (Reaches::default(), Instant::now(), ObjectName::new("shop", "web-1"));
        let within = Duration::from_secs(3600);
        let one = reaches.watch(&name, start);
        assert_eq!(reaches.lately(within), BTreeMap::new(), "not tried yet");
        one.found(true, Duration::from_millis(1));
        one.found(false, Duration::from_millis(2));
        assert_eq!(reaches.lately(within), BTreeMap::from([(name.clone(), false)]));
        let other = reaches.watch(&name, start);
        other.found(true, Duration::from_millis(1));
        assert_eq!(reaches.lately(within), BTreeMap::from([(name, true)]));
        drop((one, other));
        assert_eq!(reaches.lately(within), BTreeMap::new(), "it left");
    }

    #[test]
    fn old_words_are_none() {
        let start = Instant::now().checked_sub(Duration::from_secs(100)).expect("the machine is up for longer");
        let (reaches, name) = (Reaches::default(), ObjectName::new("shop", "web-1"));
        let reach = reaches.watch(&name, start);
        reach.found(true, Duration::from_secs(10));
        assert_eq!(reaches.lately(Duration::from_secs(60)), BTreeMap::new());
        assert_eq!(reaches.lately(Duration::from_secs(95)).len(), 1);
    }
}

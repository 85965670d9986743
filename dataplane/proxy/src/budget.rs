//! The retry budgets of this proxy: one for each destination, shared by all workers, so that more workers don't mean
//! more retries, and what callers have retried already, which counts in all of them. What one grants is `weft_flow`'s
//! decision; here is counted what it is told. Requests count without a lock, those that ask for a retry share one.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use weft_flow::{Allowance, CallersRetries, Claims, RetryBudget};
use weft_policy::bundle::ObjectName;

type Known = Arc<Mutex<BTreeMap<ObjectName, Weak<Budget>>>>;

/// The budgets that somebody holds, by destination.
#[derive(Debug, Clone)]
pub struct Budgets {
    allowance: Allowance,
    callers: Arc<CallersRetries>,
    budgets: Known,
    /// The same of ExternalServices, which may have the names of services.
    outside: Known,
}

impl Budgets {
    pub fn new(allowance: Allowance) -> Self {
        Self { allowance, callers: Arc::default(), budgets: Arc::default(), outside: Arc::default() }
    }

    /// Counts a request of a caller that stands for so many parts of a retry, as far as its claims go.
    pub fn arrived(&self, by: &Cell<Claims>, now: Duration, parts: u64) {
        let mut claims = by.get();
        let granted = claims.granted(parts, self.allowance.percent);
        by.set(claims);
        self.callers.arrived(now, granted);
    }

    /// Parts of a retry that a request of our own stands for.
    pub fn behind(&self, now: Duration) -> u64 {
        self.callers.heard(now).share
    }

    /// The budget of a destination.
    pub fn of(&self, destination: &ObjectName) -> Arc<Budget> {
        self.among(&self.budgets, destination)
    }

    /// The same of an ExternalService.
    pub fn outside(&self, external: &ObjectName) -> Arc<Budget> {
        self.among(&self.outside, external)
    }

    fn among(&self, budgets: &Known, destination: &ObjectName) -> Arc<Budget> {
        let mut budgets = budgets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = budgets.get(destination).and_then(Weak::upgrade) {
            return known;
        }
        budgets.retain(|_, budget| budget.strong_count() > 0);
        let budget = Arc::new(Budget::told_by(Arc::clone(&self.callers), self.allowance));
        budgets.insert(destination.clone(), Arc::downgrade(&budget));
        budget
    }
}

/// A retry budget with what it goes by.
#[derive(Debug)]
pub struct Budget {
    callers: Arc<CallersRetries>,
    /// All that ever came.
    requests: AtomicU64,
    under_way: AtomicU64,
    granted: Mutex<RetryBudget>,
}

impl Budget {
    /// Of requests that nobody sent before.
    pub fn new(allowance: Allowance) -> Self {
        Self::told_by(Arc::default(), allowance)
    }

    fn told_by(callers: Arc<CallersRetries>, allowance: Allowance) -> Self {
        let (requests, under_way) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { callers, requests, under_way, granted: Mutex::new(RetryBudget::new(allowance)) }
    }

    /// Takes one retry; false: there is none left, the failure stands. `now`: on the clock that all workers share.
    pub fn withdraw(&self, now: Duration) -> bool {
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        // Read behind the lock, so that nobody tells of fewer requests than were told of before.
        let (requests, under_way) = (self.requests.load(Ordering::Relaxed), self.under_way.load(Ordering::Relaxed));
        granted.withdraw(now, requests, under_way, self.callers.heard(now))
    }
}

/// A request that counts in a budget, as one that is under way until this is dropped.
#[derive(Debug)]
pub struct Counted<B: Deref<Target = Budget>>(B);

impl<B: Deref<Target = Budget>> Counted<B> {
    pub fn of(budget: B) -> Self {
        budget.requests.fetch_add(1, Ordering::Relaxed);
        budget.under_way.fetch_add(1, Ordering::Relaxed);
        Self(budget)
    }
}

impl<B: Deref<Target = Budget>> Drop for Counted<B> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Allowance = Allowance { percent: 20, per_second: 3 };

    fn drain(budget: &Budget) -> usize {
        (0..).take_while(|_| budget.withdraw(Duration::from_secs(9))).count()
    }

    #[test]
    fn all_workers_draw_on_the_budget_of_a_destination() {
        let budgets = Budgets::new(DEFAULT);
        let [web, cart] = ["web", "cart"].map(|name| ObjectName::new("shop", name));
        let (one, other) = (budgets.of(&web), budgets.clone().of(&web));
        assert!(Arc::ptr_eq(&one, &other) && !Arc::ptr_eq(&one, &budgets.of(&cart)));
        let requests: Vec<_> = (0..50).map(|_| Counted::of(Arc::clone(&one))).collect();
        assert_eq!((drain(&one), drain(&other)), (10, 0), "a fifth of those under way, once");
        drop(requests);
        assert_eq!(one.under_way.load(Ordering::Relaxed), 0);
        drop((one, other));
        assert_eq!(drain(&budgets.of(&web)), 3, "nobody held it: it begins anew");
    }

    #[test]
    fn an_external_service_has_a_budget_of_its_own() {
        let (budgets, name) = (Budgets::new(DEFAULT), ObjectName::new("shop", "pay"));
        let (inside, outside) = (budgets.of(&name), budgets.outside(&name));
        assert!(Arc::ptr_eq(&outside, &budgets.outside(&name)));
        assert_eq!((drain(&inside), drain(&outside)), (3, 3), "a Service of its name takes nothing of it");
    }

    #[test]
    fn what_callers_retried_counts_in_the_budgets_of_all() {
        let (budgets, name) = (Budgets::new(DEFAULT), ObjectName::new("shop", "web"));
        let (budget, claims, at) = (budgets.of(&name), Cell::default(), Duration::from_secs(9));
        let arrive = |retry: u64| {
            (0..60).for_each(|request| {
                budgets.arrived(&claims, at, if request % 6 == 5 { retry } else { 0 });
            })
        };
        let of_all: Vec<_> = (0..60).map(|_| Counted::of(&*budget)).collect();
        arrive(weft_flow::WHOLE_RETRY);
        assert_eq!(drain(&budget), 1, "they have had the share of all of it, and most of the reserve");
        assert!(budgets.behind(at) > 1_500, "whom we send to is told");
        drop(of_all);
        arrive(0);
        let _of_all: Vec<_> = (0..60).map(|_| Counted::of(&*budget)).collect();
        assert_eq!(budgets.behind(at), 0);
        assert!(drain(&budget) >= 3, "nobody retries any more");
    }

    #[test]
    fn what_is_over_is_not_saved_up() {
        let budget = Budget::new(DEFAULT);
        (0..1_000).for_each(|_| drop(Counted::of(&budget)));
        assert_eq!(drain(&budget), 3);
    }
}

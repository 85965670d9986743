//! A number of bytes, or of things, that the whole process may hold at a time. What a part of it takes is given back when
//! the part is dropped, whatever became of its holder.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// As much as may be held, and what is.
#[derive(Debug)]
pub struct Quota {
    most: u64,
    used: AtomicU64,
}

impl Quota {
    pub fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { most, used: AtomicU64::new(0) })
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A part that holds nothing yet.
    pub fn part(self: &Arc<Self>) -> Part {
        Part { quota: Arc::clone(self), of_name: None, count: 0 }
    }

    /// False: there is no more of it, and nothing was taken.
    fn add(&self, more: u64) -> bool {
        let sum = |held: u64| held.checked_add(more).filter(|sum| *sum <= self.most);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
    }

    fn sub(&self, count: u64) {
        self.used.fetch_sub(count, Ordering::Relaxed);
    }
}

/// A quota of which no name has more than three quarters: who never gives back leaves some to the others.
#[derive(Debug)]
pub struct DividedQuota {
    all: Arc<Quota>,
    /// Of names that have parts, and of some that had.
    by_name: Mutex<HashMap<String, Arc<Quota>>>,
}

impl DividedQuota {
    pub fn new(most: u64) -> Self {
        Self { all: Quota::new(most), by_name: Mutex::default() }
    }

    pub fn used(&self) -> u64 {
        self.all.used()
    }

    /// One thing of this name; `None`: there are no more, or no more of that name.
    pub fn take_one(&self, name: &str) -> Option<Part> {
        let mut part = self.part(name);
        part.grow(1).then_some(part)
    }

    /// A part of this name that holds nothing yet.
    pub fn part(&self, name: &str) -> Part {
        Part { quota: Arc::clone(&self.all), of_name: Some(self.of(name)), count: 0 }
    }

    fn of(&self, name: &str) -> Arc<Quota> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_name.get(name) {
            return Arc::clone(known);
        }
        by_name.retain(|_, quota| Arc::strong_count(quota) > 1);
        let quota = Quota::new(self.all.most - self.all.most / 4);
        by_name.insert(name.to_owned(), Arc::clone(&quota));
        quota
    }
}

/// What one holder has of a quota.
#[derive(Debug)]
pub struct Part {
    quota: Arc<Quota>,
    /// What its name may have of it, where that is bounded.
    of_name: Option<Arc<Quota>>,
    count: u64,
}

impl Part {
    /// Takes so much more. False: there is no more of it, and nothing was taken.
    pub fn grow(&mut self, more: u64) -> bool {
        if self.of_name.as_ref().is_some_and(|of_name| !of_name.add(more)) {
            return false;
        }
        if !self.quota.add(more) {
            self.of_name.iter().for_each(|of_name| of_name.sub(more));
            return false;
        }
        self.count += more;
        true
    }

    /// Another part of the same quota, and of the same name.
    pub fn another(&self, count: u64) -> Option<Part> {
        let mut part = Self { quota: Arc::clone(&self.quota), of_name: self.of_name.clone(), count: 0 };
        part.grow(count).then_some(part)
    }

    /// Gives back what it holds.
    pub fn clear(&mut self) {
        let count = std::mem::take(&mut self.count);
        self.quota.sub(count);
        self.of_name.iter().for_each(|of_name| of_name.sub(count));
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_held_than_may_be_and_all_of_it_comes_back() {
        let quota = Quota::new(10);
        let mut one = quota.part();
        assert!(one.grow(6) && !quota.part().grow(5) && !one.grow(5) && !one.grow(u64::MAX));
        assert!(one.grow(4));
        assert_eq!(quota.used(), 10);
        assert!(one.another(1).is_none());
        one.clear();
        let other = one.another(10).unwrap();
        drop(one);
        assert_eq!(quota.used(), 10);
        drop(other);
        assert_eq!(quota.used(), 0);
    }

    #[test]
    fn no_name_has_all_of_a_divided_one() {
        let quota = DividedQuota::new(8);
        let mut of_a: Vec<_> = (0..6).map_while(|_| quota.take_one("a")).collect();
        assert!(of_a.len() == 6 && quota.take_one("a").is_none());
        let of_b: Vec<_> = (0..6).map_while(|_| quota.take_one("b")).collect();
        assert_eq!((of_b.len(), quota.used()), (2, 8), "the rest is anybody's but a's");
        of_a.pop();
        assert!(quota.take_one("c").is_some());
        assert!(quota.take_one("a").is_some());
        drop((of_a, of_b));
        assert_eq!(quota.used(), 0);
        assert!(quota.take_one("d").is_some());
        assert_eq!(quota.by_name.lock().unwrap().len(), 1, "who holds nothing is forgotten for another");
        assert!(DividedQuota::new(1).take_one("a").is_some());

        let quota = DividedQuota::new(100);
        let mut one = quota.part("a");
        assert!(!one.grow(76) && one.grow(50) && one.another(26).is_none());
        let more = one.another(25).unwrap();
        assert!(!quota.part("a").grow(1), "all parts of a name together");
        assert!(!quota.part("b").grow(26) && quota.part("b").grow(25));
        one.clear();
        assert!(quota.part("a").grow(50) && quota.used() == 25);
        drop((one, more));
        assert_eq!(quota.used(), 0);
    }
}

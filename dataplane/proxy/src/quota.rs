//! A number of bytes, or of things, that the whole process may hold at a time. What a part of it takes is given back when
//! the part is dropped, whatever became of its holder.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
        Part { quota: Arc::clone(self), count: 0 }
    }

    /// A part that holds so much; `None`: there is no more of it.
    pub fn take(self: &Arc<Self>, count: u64) -> Option<Part> {
        let mut part = self.part();
        part.grow(count).then_some(part)
    }
}

/// What one holder has of a quota.
#[derive(Debug)]
pub struct Part {
    quota: Arc<Quota>,
    count: u64,
}

impl Part {
    /// Takes so much more. False: there is no more of it, and nothing was taken.
    pub fn grow(&mut self, more: u64) -> bool {
        let Quota { most, used } = &*self.quota;
        let sum = |held: u64| held.checked_add(more).filter(|sum| sum <= most);
        let is_taken = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok();
        self.count += if is_taken { more } else { 0 };
        is_taken
    }

    /// Another part of the same quota.
    pub fn another(&self, count: u64) -> Option<Part> {
        self.quota.take(count)
    }

    /// Gives back what it holds.
    pub fn clear(&mut self) {
        self.quota.used.fetch_sub(std::mem::take(&mut self.count), Ordering::Relaxed);
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
        let mut one = quota.take(6).unwrap();
        assert!(quota.take(5).is_none() && !one.grow(5) && !one.grow(u64::MAX));
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
}

//! How often each of many may do something (an amount a minute, all of it at once where nothing was done before), and
//! how much of it at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Beyond this many known ones, those that may do all again are forgotten.
const KNOWN: usize = 4_096;

/// The rates of many. Each is known by the time at which it may do everything again.
#[derive(Debug)]
pub struct Rates<K> {
    each: Duration,
    burst: Duration,
    until: Mutex<BTreeMap<K, Instant>>,
}

impl<K: Ord + Clone> Rates<K> {
    pub fn per_minute(amount: u32) -> Self {
        let each = Duration::from_secs(60) / amount.max(1);
        Self { each, burst: Duration::from_secs(60), until: Mutex::default() }
    }

    /// Once more. Otherwise how long to wait.
    pub fn take(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.len() >= KNOWN {
            until.retain(|_, at| *at > now);
        }
        let next = until.get(key).copied().unwrap_or(now).max(now) + self.each;
        let ahead = next.duration_since(now);
        if ahead > self.burst {
            return Err(ahead - self.burst);
        }
        until.insert(key.clone(), next);
        Ok(())
    }
}

/// How much each of many does at a time, at most so much.
#[derive(Debug, Clone)]
pub struct Places<K: Ord + Clone> {
    most: usize,
    taken: Arc<Mutex<BTreeMap<K, usize>>>,
}

/// One place that is taken; it counts until it is dropped.
#[derive(Debug)]
pub struct Place<K: Ord + Clone> {
    key: K,
    taken: Arc<Mutex<BTreeMap<K, usize>>>,
}

impl<K: Ord + Clone> Places<K> {
    pub fn new(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// One more, unless all are taken.
    pub fn take(&self, key: &K) -> Option<Place<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.get(key).copied().unwrap_or_default();
        if count >= self.most {
            return None;
        }
        taken.insert(key.clone(), count + 1);
        Some(Place { key: key.clone(), taken: self.taken.clone() })
    }
}

impl<K: Ord + Clone> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(taken.remove(&self.key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_at_once_then_each_in_its_time() {
        let (rates, start) = (Rates::per_minute(3), Instant::now());
        for _ in 0..3 {
            assert_eq!(rates.take(&"a", start), Ok(()));
        }
        assert_eq!(rates.take(&"a", start), Err(Duration::from_secs(20)));
        assert_eq!(rates.take(&"b", start), Ok(()), "each by itself");
        assert_eq!(rates.take(&"a", start + Duration::from_secs(20)), Ok(()));
        assert_eq!(rates.take(&"a", start + Duration::from_secs(21)), Err(Duration::from_secs(19)));
    }

    #[test]
    fn a_place_is_taken_until_it_is_dropped() {
        let places = Places::new(2);
        let (first, second) = (places.take(&"a").unwrap(), places.take(&"a").unwrap());
        assert!(places.take(&"a").is_none());
        assert!(places.take(&"b").is_some(), "each by itself");
        drop(first);
        let third = places.take(&"a").unwrap();
        drop((second, third));
        assert!(places.taken.lock().unwrap().is_empty(), "nothing is kept of who is gone");
    }
}

//! How often each of many may do something (an amount a minute, all of it at once where nothing was done before), and
//! how much of it at a time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Whom a limit for each address counts: one host of IPv6 has a network of 64 bits to choose from.
pub(crate) fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        IpAddr::V4(address) => IpAddr::V4(address),
    }
}

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

/// An amount that many take parts of, none more than a share of it.
#[derive(Debug, Clone)]
pub struct Budget<K: Ord + Clone> {
    whole: usize,
    share: usize,
    taken: Arc<Mutex<(usize, BTreeMap<K, usize>)>>,
}

/// A part of a budget that is taken until it is dropped.
#[derive(Debug)]
pub struct Part<K: Ord + Clone> {
    key: K,
    amount: Mutex<usize>,
    budget: Budget<K>,
}

/// Why nothing is taken of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// It is more than one may ever take.
    TooMuch { share: usize },
    /// Others, or the same one, have taken what it needs; later there is room.
    Now,
}

impl<K: Ord + Clone> Budget<K> {
    pub fn new(whole: usize, share: usize) -> Self {
        Self { whole, share, taken: Arc::default() }
    }

    pub fn take(&self, key: &K, amount: usize) -> Result<Part<K>, Spent> {
        let part = self.nothing(key);
        part.grow(amount)?;
        Ok(part)
    }

    /// A part that can grow.
    pub fn nothing(&self, key: &K) -> Part<K> {
        Part { key: key.clone(), amount: Mutex::new(0), budget: self.clone() }
    }
}

impl<K: Ord + Clone> Part<K> {
    /// Takes more of the same budget.
    pub fn grow(&self, more: usize) -> Result<(), Spent> {
        let mut amount = self.amount.lock().unwrap_or_else(PoisonError::into_inner);
        let Budget { whole, share, taken } = &self.budget;
        if amount.saturating_add(more) > *share {
            return Err(Spent::TooMuch { share: *share });
        }
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, of_each) = &mut *taken;
        let own = of_each.get(&self.key).copied().unwrap_or_default();
        if own.saturating_add(more) > *share || all.saturating_add(more) > *whole {
            return Err(Spent::Now);
        }
        *all += more;
        *of_each.entry(self.key.clone()).or_default() += more;
        *amount += more;
        Ok(())
    }

    /// Takes so much from now on, also where that is more than there is: what is there already is counted.
    pub fn settle(&self, now: usize) {
        let mut amount = self.amount.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = self.budget.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, of_each) = &mut *taken;
        *all = (*all + now).saturating_sub(*amount);
        let own = of_each.entry(self.key.clone()).or_default();
        *own = (*own + now).saturating_sub(*amount);
        if *own == 0 {
            of_each.remove(&self.key);
        }
        *amount = now;
    }
}

impl<K: Ord + Clone> Drop for Part<K> {
    fn drop(&mut self) {
        let amount = *self.amount.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = self.budget.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, of_each) = &mut *taken;
        *all = all.saturating_sub(amount);
        if let Some(own) = of_each.get_mut(&self.key) {
            *own = own.saturating_sub(amount);
            if *own == 0 {
                of_each.remove(&self.key);
            }
        }
    }
}

/// So many places that each of many gets in turn: whoever has one or waits for one makes his next ones wait behind it, so
/// that a crowd of one's own holds up nobody else.
#[derive(Debug)]
pub struct Turns<K: Ord + Clone> {
    places: Arc<Semaphore>,
    queues: Mutex<BTreeMap<K, Arc<Semaphore>>>,
}

/// A turn; it lasts until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _own: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl<K: Ord + Clone> Turns<K> {
    pub fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), queues: Mutex::default() }
    }

    /// Waits for a turn. Cancel safe: whoever stops waiting leaves its queue.
    pub async fn take(&self, key: &K) -> Turn {
        let queue = {
            let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            queues.retain(|_, queue| Arc::strong_count(queue) > 1);
            queues.entry(key.clone()).or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
        };
        let never_closed = "nobody closes it";
        let own = queue.acquire_owned().await.expect(never_closed);
        let place = self.places.clone().acquire_owned().await.expect(never_closed);
        Turn { _own: own, _place: place }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_64_bits_is_one_source() {
        let source = |text: &str| source_of(text.parse().unwrap()).to_string();
        assert_eq!(source("fd00::1:2:3:4"), source("fd00::9"));
        assert_ne!(source("fd00:0:0:1::1"), source("fd00::1"));
        assert_eq!(source("::ffff:10.0.0.1"), "10.0.0.1");
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
    }

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

    #[test]
    fn a_budget_leaves_others_what_is_not_ones_share() {
        let budget = Budget::new(100, 60);
        assert_eq!(budget.take(&"a", 61).unwrap_err(), Spent::TooMuch { share: 60 });
        let part = budget.take(&"a", 40).unwrap();
        assert_eq!(part.grow(21).unwrap_err(), Spent::TooMuch { share: 60 }, "what never fits is told so");
        assert_eq!(budget.take(&"a", 30).unwrap_err(), Spent::Now);
        part.grow(20).unwrap();
        let other = budget.take(&"b", 40).unwrap();
        assert_eq!(budget.take(&"c", 1).unwrap_err(), Spent::Now);
        drop((part, other));
        drop(budget.take(&"a", 60).unwrap());
        assert_eq!(*budget.taken.lock().unwrap(), (0, BTreeMap::new()), "nothing is kept of who is gone");
    }

    #[tokio::test]
    async fn a_crowd_of_one_waits_behind_itself() {
        use futures_util::FutureExt as _;
        let turns = Turns::new(2);
        let first = turns.take(&"a").await;
        let mut crowd: Vec<_> = (0..100).map(|_| Box::pin(turns.take(&"a"))).collect();
        assert!(crowd.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        let other = turns.take(&"b").now_or_never().expect("one place is left, and nobody stands in its way");
        drop(first);
        let second = crowd.iter_mut().find_map(|waiting| waiting.now_or_never()).expect("the first of the crowd");
        assert!(turns.take(&"c").now_or_never().is_none(), "both places are taken");
        drop((second, other, crowd));
        drop(turns.take(&"c").await);
        let kept: Vec<_> = turns.queues.lock().unwrap().keys().copied().collect();
        assert_eq!(kept, ["c"], "nothing is kept of who is gone");
    }
}

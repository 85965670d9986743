//! Connections that are kept between requests, last in first out. Each has its place among those of its destination and
//! gives it up to whoever needs one; it is in nobody's share until somebody uses it. Pure: `now` is an argument.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Instant;

use super::{Full, Share, ShareLimits, Shares};

/// Kept connections by their destination.
type IdleBy<K, C, V> = HashMap<K, VecDeque<Idle<K, C, V>>>;

/// The connections `V` of one worker that are kept, and the places of all that are open.
#[derive(Debug)]
pub struct Kept<K: Copy + Eq + Hash, C: Clone + Eq + Hash, V> {
    /// Kept ones of one destination.
    most: usize,
    shares: Shares<K, C>,
    /// The one that was given back last is the last.
    idle: RefCell<IdleBy<K, C, V>>,
}

#[derive(Debug)]
struct Idle<K: Copy + Eq + Hash, C: Clone + Eq + Hash, V> {
    connection: V,
    share: Share<K, C>,
    /// From then on the other side may close it.
    until: Instant,
}

impl<K: Copy + Eq + Hash, C: Clone + Eq + Hash, V> Kept<K, C, V> {
    pub fn new(most: usize, limits: ShareLimits) -> Self {
        Self { most, shares: Shares::new(limits), idle: RefCell::default() }
    }

    /// A place for one more connection of `caller`. The one that was kept longest gives way where there is no other.
    pub fn open(&self, destination: K, caller: &C) -> Result<Share<K, C>, Full> {
        loop {
            match self.shares.take(destination, caller) {
                Err(Full::Destination(_)) if self.drop_oldest(destination) => {}
                taken => return taken,
            }
        }
    }

    /// A kept connection for `caller`, where it may use one more: the one that was given back last.
    pub fn reuse(&self, destination: K, caller: &C, now: Instant) -> Option<(V, Share<K, C>)> {
        if !self.shares.admits(destination, caller) {
            return None;
        }
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(&destination)?;
        while let Some(Idle { connection, mut share, until }) = kept.pop_back() {
            if now < until {
                share.pass(Some(caller.clone()));
                return Some((connection, share));
            }
        }
        None
    }

    /// Keeps a connection that is free again.
    pub fn keep(&self, connection: V, mut share: Share<K, C>, now: Instant, until: Instant) {
        if self.most == 0 || until <= now {
            return;
        }
        let destination = share.destination;
        share.pass(None);
        let mut idle = self.idle.borrow_mut();
        let kept = idle.entry(destination).or_default();
        if kept.len() >= self.most {
            kept.pop_front();
        }
        kept.push_back(Idle { connection, share, until });
    }

    /// Forgets those whose time is up; called now and then.
    pub fn expire(&self, now: Instant) {
        self.idle.borrow_mut().retain(|_, kept| {
            kept.retain(|kept| now < kept.until);
            !kept.is_empty()
        });
    }

    fn drop_oldest(&self, destination: K) -> bool {
        self.idle.borrow_mut().get_mut(&destination).and_then(VecDeque::pop_front).is_some()
    }
}

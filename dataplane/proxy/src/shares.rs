//! Shares of the connections to each destination: all callers together have so many, and each caller has fewer, so that
//! slow requests of one use up neither the descriptors nor another's way to the same app. A caller's share is what it
//! uses: a connection that is kept for the next request is nobody's. Pure.

mod kept;

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

pub use self::kept::Kept;

/// Connections that one worker may have open to one destination.
#[derive(Debug, Clone, Copy)]
pub struct ShareLimits {
    /// For all callers together, kept ones included.
    pub destination: usize,
    /// In use by one caller.
    pub caller: usize,
}

/// Why a caller gets no further connection to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("all callers together have the {0} that there may be")]
    Destination(usize),
    #[error("this caller has the {0} that it may have")]
    Caller(usize),
}

impl Full {
    /// A short constant, for metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Full::Destination(_) => "connections_of_destination",
            Full::Caller(_) => "connections_of_caller",
        }
    }
}

/// The connections of one worker, by destination and caller.
#[derive(Debug)]
struct Shares<K: Copy + Eq + Hash, C: Clone + Eq + Hash> {
    limits: ShareLimits,
    taken: Rc<RefCell<HashMap<K, Taken<C>>>>,
}

#[derive(Debug)]
struct Taken<C> {
    /// Open connections, in use or kept.
    all: usize,
    /// Those in use.
    by: HashMap<C, usize>,
}

/// The place of one open connection, given back when it is dropped.
#[derive(Debug)]
pub struct Share<K: Copy + Eq + Hash, C: Clone + Eq + Hash> {
    taken: Rc<RefCell<HashMap<K, Taken<C>>>>,
    destination: K,
    /// Who uses it; `None` while it is kept.
    caller: Option<C>,
}

impl<K: Copy + Eq + Hash, C: Clone + Eq + Hash> Shares<K, C> {
    fn new(limits: ShareLimits) -> Self {
        Self { limits, taken: Rc::default() }
    }

    /// A share for a connection that `caller` wants opened.
    fn take(&self, destination: K, caller: &C) -> Result<Share<K, C>, Full> {
        if !self.admits(destination, caller) {
            return Err(Full::Caller(self.limits.caller));
        }
        let most = self.limits.destination;
        let mut taken = self.taken.borrow_mut();
        let of = taken.entry(destination).or_default();
        if of.all >= most {
            return Err(Full::Destination(most));
        }
        of.all += 1;
        of.enter(caller);
        drop(taken);
        Ok(Share { taken: Rc::clone(&self.taken), destination, caller: Some(caller.clone()) })
    }

    /// True where `caller` may use one connection more.
    fn admits(&self, destination: K, caller: &C) -> bool {
        let taken = self.taken.borrow();
        let used = taken.get(&destination).and_then(|of| of.by.get(caller)).copied().unwrap_or(0);
        used < self.limits.caller
    }
}

impl<K: Copy + Eq + Hash, C: Clone + Eq + Hash> Share<K, C> {
    /// Makes it the share of `caller`, or of nobody.
    fn pass(&mut self, caller: Option<C>) {
        let mut taken = self.taken.borrow_mut();
        let Some(of) = taken.get_mut(&self.destination) else { return };
        if let Some(before) = &self.caller {
            of.leave(before);
        }
        if let Some(caller) = &caller {
            of.enter(caller);
        }
        self.caller = caller;
    }
}

impl<C> Default for Taken<C> {
    fn default() -> Self {
        Self { all: 0, by: HashMap::new() }
    }
}

impl<C: Clone + Eq + Hash> Taken<C> {
    fn enter(&mut self, caller: &C) {
        match self.by.get_mut(caller) {
            Some(count) => *count += 1,
            None => _ = self.by.insert(caller.clone(), 1),
        }
    }

    fn leave(&mut self, caller: &C) {
        if let Some(count) = self.by.get_mut(caller) {
            *count -= 1;
            if *count == 0 {
                self.by.remove(caller);
            }
        }
    }
}

impl<K: Copy + Eq + Hash, C: Clone + Eq + Hash> Drop for Share<K, C> {
    fn drop(&mut self) {
        self.pass(None);
        let mut taken = self.taken.borrow_mut();
        let Some(of) = taken.get_mut(&self.destination) else { return };
        of.all -= 1;
        if of.all == 0 {
            taken.remove(&self.destination);
        }
    }
}

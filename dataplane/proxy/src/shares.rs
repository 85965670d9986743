//! Shares of the connections to each destination: all callers together have so many, and each caller has fewer, so that slow
//! requests of one use up neither the descriptors nor another's way to the same app.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

/// Connections that one worker may have open to one destination.
#[derive(Debug, Clone, Copy)]
pub struct ShareLimits {
    /// For all callers together.
    pub destination: usize,
    /// For one caller.
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
pub struct Shares<K: Copy + Eq + Hash, C: Clone + Eq + Hash> {
    limits: ShareLimits,
    taken: Rc<RefCell<HashMap<K, Taken<C>>>>,
}

#[derive(Debug)]
struct Taken<C> {
    all: usize,
    by: HashMap<C, usize>,
}

/// The share of one open connection, given back when it is dropped.
#[derive(Debug)]
pub struct Share<K: Copy + Eq + Hash, C: Clone + Eq + Hash> {
    taken: Rc<RefCell<HashMap<K, Taken<C>>>>,
    destination: K,
    caller: C,
}

impl<K: Copy + Eq + Hash, C: Clone + Eq + Hash> Shares<K, C> {
    pub fn new(limits: ShareLimits) -> Self {
        Self { limits, taken: Rc::default() }
    }

    /// A share for a connection that `caller` wants opened.
    pub fn take(&self, destination: K, caller: &C) -> Result<Share<K, C>, Full> {
        let ShareLimits { destination: most, caller: most_of_one } = self.limits;
        let mut taken = self.taken.borrow_mut();
        let of = taken.entry(destination).or_insert_with(|| Taken { all: 0, by: HashMap::new() });
        if of.by.get(caller).is_some_and(|count| *count >= most_of_one) {
            return Err(Full::Caller(most_of_one));
        }
        if of.all >= most {
            return Err(Full::Destination(most));
        }
        of.enter(caller);
        drop(taken);
        Ok(Share { taken: Rc::clone(&self.taken), destination, caller: caller.clone() })
    }

    /// Passes the share of a connection that nobody uses on to `caller`.
    pub fn pass(&self, share: &mut Share<K, C>, caller: &C) -> Result<(), Full> {
        if share.caller == *caller {
            return Ok(());
        }
        let most = self.limits.caller;
        let mut taken = self.taken.borrow_mut();
        let Some(of) = taken.get_mut(&share.destination) else { return Ok(()) };
        if of.by.get(caller).is_some_and(|count| *count >= most) {
            return Err(Full::Caller(most));
        }
        of.leave(&share.caller);
        of.enter(caller);
        share.caller = caller.clone();
        Ok(())
    }
}

impl<C: Clone + Eq + Hash> Taken<C> {
    fn enter(&mut self, caller: &C) {
        self.all += 1;
        match self.by.get_mut(caller) {
            Some(count) => *count += 1,
            None => _ = self.by.insert(caller.clone(), 1),
        }
    }

    fn leave(&mut self, caller: &C) {
        self.all -= 1;
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
        let mut taken = self.taken.borrow_mut();
        let Some(of) = taken.get_mut(&self.destination) else { return };
        of.leave(&self.caller);
        if of.all == 0 {
            taken.remove(&self.destination);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_has_a_part_of_what_all_have() {
        let shares = Shares::<u16, &str>::new(ShareLimits { destination: 5, caller: 2 });
        let mut a: Vec<_> = (0..2).map(|_| shares.take(80, &"a").unwrap()).collect();
        assert_eq!(shares.take(80, &"a").unwrap_err(), Full::Caller(2));
        let _elsewhere = shares.take(81, &"a").unwrap();
        let _b: Vec<_> = (0..2).map(|_| shares.take(80, &"b").unwrap()).collect();
        let _c = shares.take(80, &"c").unwrap();
        assert_eq!(shares.take(80, &"c").unwrap_err(), Full::Destination(5));
        a.pop();
        let mut kept = shares.take(80, &"c").unwrap();
        // A connection that nobody uses goes over to whoever uses it next.
        assert_eq!(shares.pass(&mut kept, &"b"), Err(Full::Caller(2)));
        assert_eq!(shares.pass(&mut kept, &"a"), Ok(()));
        assert_eq!(shares.take(80, &"a").unwrap_err(), Full::Caller(2));
        drop((a, kept));
        assert!(shares.take(80, &"a").is_ok());
    }

    #[test]
    fn nothing_is_left_of_what_was_given_back() {
        let shares = Shares::<u16, &str>::new(ShareLimits { destination: 5, caller: 5 });
        let mut share = shares.take(80, &"a").unwrap();
        shares.pass(&mut share, &"b").unwrap();
        drop(share);
        assert!(shares.taken.borrow().is_empty());
    }
}

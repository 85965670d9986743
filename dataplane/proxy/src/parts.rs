//! Parts of what there are few of, such as the streams to an app: a caller may hold a part of what it holds and what is free,
//! so that something is left for whoever comes next, however long the others hold theirs. Who holds least is served first,
//! then who asked first.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::rc::Rc;

use tokio::sync::oneshot;

/// What there are few of, by who holds it and who waits for it.
#[derive(Debug)]
pub(crate) struct Parts<C: Clone + Eq + Hash> {
    /// Per cent of what it holds and what is free that one caller may hold, rounded up.
    percent: usize,
    capacity: Cell<usize>,
    /// By all callers together.
    held: Cell<usize>,
    /// Requests that wait, of all callers.
    queued: Cell<usize>,
    callers: RefCell<HashMap<C, Caller<C>>>,
}

#[derive(Debug)]
struct Caller<C: Clone + Eq + Hash> {
    held: usize,
    waiting: VecDeque<oneshot::Sender<Part<C>>>,
}

/// The right to one of it, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Part<C: Clone + Eq + Hash> {
    parts: Rc<Parts<C>>,
    caller: C,
}

/// Why a caller gets none now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Short {
    /// All are held.
    Full,
    /// It holds its part, or others of its requests wait already.
    Part,
}

impl<C: Clone + Eq + Hash> Parts<C> {
    pub(crate) fn new(percent: usize, capacity: usize) -> Rc<Self> {
        let (held, queued) = (Cell::default(), Cell::default());
        Rc::new(Self { percent, capacity: Cell::new(capacity), held, queued, callers: RefCell::default() })
    }

    /// Changes how many there are.
    pub(crate) fn set_capacity(self: &Rc<Self>, capacity: usize) {
        if self.capacity.replace(capacity) < capacity {
            self.serve();
        }
    }

    /// One for `caller`, where it may have one now.
    pub(crate) fn take(self: &Rc<Self>, caller: &C) -> Result<Part<C>, Short> {
        let free = self.free();
        if free == 0 {
            return Err(Short::Full);
        }
        let mut callers = self.callers.borrow_mut();
        match callers.get_mut(caller) {
            Some(of) if !of.waiting.is_empty() || !self.has_room(of.held, free) => return Err(Short::Part),
            Some(of) => of.held += 1,
            None => _ = callers.insert(caller.clone(), Caller { held: 1, waiting: VecDeque::new() }),
        }
        self.held.set(self.held.get() + 1);
        Ok(Part { parts: Rc::clone(self), caller: caller.clone() })
    }

    /// One for `caller` as soon as it may have one; `short` is told why it has to wait. Cancel safe: what nobody waits for any
    /// more goes to the next.
    pub(crate) async fn get(self: &Rc<Self>, caller: &C, short: impl FnOnce(Short)) -> Part<C> {
        match self.take(caller) {
            Ok(part) => part,
            Err(why) => {
                short(why);
                self.wait(caller).await
            }
        }
    }

    async fn wait(self: &Rc<Self>, caller: &C) -> Part<C> {
        // Before the channel, so that it is dropped after it: a request that gave up leaves nothing behind.
        let _queued = Queued::of(self, caller);
        let (give, given) = oneshot::channel();
        {
            let mut callers = self.callers.borrow_mut();
            let of = callers.entry(caller.clone()).or_insert(Caller { held: 0, waiting: VecDeque::new() });
            // Only keeps the list short: `next` skips requests that gave up as well.
            if of.waiting.front().is_some_and(oneshot::Sender::is_closed) {
                of.waiting.retain(|waiting| !waiting.is_closed());
            }
            of.waiting.push_back(give);
        }
        self.serve();
        given.await.expect("what waits is served or kept")
    }

    fn free(&self) -> usize {
        self.capacity.get().saturating_sub(self.held.get())
    }

    /// True where a caller that holds so many may have one more.
    fn has_room(&self, held: usize, free: usize) -> bool {
        held < (self.percent * (held + free)).div_ceil(100)
    }

    /// Gives what is free to those who wait.
    fn serve(self: &Rc<Self>) {
        if self.queued.get() == 0 {
            return;
        }
        while let Some((caller, give)) = self.next() {
            // It may have been given up just now: then the part comes back by itself.
            let _ = give.send(Part { parts: Rc::clone(self), caller });
        }
    }

    /// The caller that holds least of those that may have one more, and its request that waits longest.
    fn next(&self) -> Option<(C, oneshot::Sender<Part<C>>)> {
        let free = self.free();
        if free == 0 {
            return None;
        }
        let mut callers = self.callers.borrow_mut();
        let waits = |of: &mut Caller<C>| {
            while of.waiting.front().is_some_and(oneshot::Sender::is_closed) {
                of.waiting.pop_front();
            }
            !of.waiting.is_empty()
        };
        let least = callers.iter_mut().filter_map(|(caller, of)| waits(of).then_some((of.held, caller, of)));
        let (held, caller, of) = least.min_by_key(|(held, ..)| *held)?;
        if !self.has_room(held, free) {
            return None;
        }
        let give = of.waiting.pop_front()?;
        of.held += 1;
        self.held.set(self.held.get() + 1);
        Some((caller.clone(), give))
    }
}

/// A request that waits. With the last of a caller that holds nothing the caller is forgotten.
struct Queued<'a, C: Clone + Eq + Hash> {
    parts: &'a Parts<C>,
    caller: &'a C,
}

impl<'a, C: Clone + Eq + Hash> Queued<'a, C> {
    fn of(parts: &'a Parts<C>, caller: &'a C) -> Self {
        parts.queued.set(parts.queued.get() + 1);
        Self { parts, caller }
    }
}

impl<C: Clone + Eq + Hash> Drop for Queued<'_, C> {
    fn drop(&mut self) {
        self.parts.queued.set(self.parts.queued.get() - 1);
        let mut callers = self.parts.callers.borrow_mut();
        let is_over = |of: &Caller<C>| of.held == 0 && of.waiting.iter().all(oneshot::Sender::is_closed);
        if callers.get(self.caller).is_some_and(is_over) {
            callers.remove(self.caller);
        }
    }
}

impl<C: Clone + Eq + Hash> Drop for Part<C> {
    fn drop(&mut self) {
        {
            self.parts.held.set(self.parts.held.get() - 1);
            let mut callers = self.parts.callers.borrow_mut();
            if let Some(of) = callers.get_mut(&self.caller) {
                of.held -= 1;
                if of.held == 0 && of.waiting.iter().all(oneshot::Sender::is_closed) {
                    callers.remove(&self.caller);
                }
            }
        }
        self.parts.serve();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::*;

    fn all(parts: &Rc<Parts<&'static str>>, caller: &'static str) -> Vec<Part<&'static str>> {
        std::iter::from_fn(|| parts.take(&caller).ok()).collect()
    }

    #[test]
    fn whoever_comes_next_finds_something_left() {
        let parts = Parts::new(75, 1_600);
        let held: Vec<_> = ["a", "b", "c", "d", "e"].map(|caller| all(&parts, caller)).into();
        let counts: Vec<usize> = held.iter().map(Vec::len).collect();
        assert_eq!(counts, [1_200, 300, 75, 19, 5]);
        assert_eq!(parts.take(&"a").unwrap_err(), Short::Part);
        drop(held);
        assert!(parts.callers.borrow().is_empty());
        for (percent, capacity, expect) in [(75, 4, 3), (75, 3, 3), (75, 1, 1), (100, 5, 5), (1, 5, 1), (75, 0, 0)] {
            assert_eq!(all(&Parts::new(percent, capacity), "a").len(), expect, "{percent} % of {capacity}");
        }
    }

    #[test]
    fn who_holds_least_is_served_first_and_nobody_is_overtaken() {
        let parts = Parts::new(100, 4);
        let mut held = all(&parts, "many");
        assert_eq!(parts.take(&"few").unwrap_err(), Short::Full);
        let (mut first, mut second) = (pin!(parts.wait(&"many")), pin!(parts.wait(&"many")));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        let mut few = pin!(parts.wait(&"few"));
        assert!(few.as_mut().now_or_never().is_none());
        held.pop();
        assert!(first.as_mut().now_or_never().is_none());
        let few = few.now_or_never().expect("it holds nothing yet");
        held.pop();
        let first = first.now_or_never().expect("it asked first");
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(parts.take(&"many").unwrap_err(), Short::Full);
        drop((few, first));
        assert!(second.now_or_never().is_some());
    }

    #[test]
    fn a_request_that_is_given_up_costs_nobody_a_stream() {
        let parts = Parts::new(75, 1);
        let held = parts.take(&"a").unwrap();
        {
            let mut given_up = pin!(parts.wait(&"a"));
            assert!(given_up.as_mut().now_or_never().is_none());
        }
        let mut told = Box::pin(parts.wait(&"b"));
        assert!(told.as_mut().now_or_never().is_none());
        let mut last = pin!(parts.wait(&"b"));
        assert!(last.as_mut().now_or_never().is_none());
        drop(held);
        drop(told);
        assert!(last.now_or_never().is_some(), "it was given to who had gone");
        assert!(parts.callers.borrow().is_empty());
    }

    #[test]
    fn an_app_that_allows_more_serves_who_waits() {
        let parts = Parts::new(75, 1);
        let _held = parts.take(&"a").unwrap();
        let mut more = pin!(parts.wait(&"a"));
        assert!(more.as_mut().now_or_never().is_none());
        parts.set_capacity(4);
        assert!(more.now_or_never().is_some());
        parts.set_capacity(1);
        assert_eq!(parts.take(&"b").unwrap_err(), Short::Full);
    }
}

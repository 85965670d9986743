//! Instances of a program that wait, configured, for a worker that needs one: the first, one in place of another that
//! trapped, or one that knows a configuration which came later. Invariant: a spare has every configuration that the
//! program had when it was made and that could be given.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::AcqRel, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::instance::Instance;
use super::{Prepared, Program};
use crate::deadline::CONFIGURE_TIMEOUT;
use crate::refill::{Shelf, Stock};

/// Giving a new configuration to spares, and making more of them, may take so long; what is missing is made later.
const WELCOME: Duration = Duration::from_secs(1);
/// So long may making one take where nobody waits: each of the configurations has its second.
const MAKING: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
pub(super) struct Spares {
    held: Mutex<Held>,
    /// The thread that makes them has been told, and has not looked yet.
    is_told: AtomicBool,
    /// Nanoseconds that the thread has worked for it.
    spent: AtomicU64,
}

#[derive(Debug, Default)]
struct Held {
    ready: Vec<Instance>,
    /// Filters of the program, in the order in which they came.
    filters: Vec<Weak<Prepared>>,
    /// Grows with each of them: what is being made meanwhile lacks one.
    edition: u64,
    /// A request failed for want of one.
    is_missed: bool,
}

impl Spares {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a filter and has the instances that wait know it, or those that were made for it. As many more are made as there
    /// are workers, whose own instances know it as little.
    pub(super) fn welcome(&self, program: &Arc<Program>, filter: &Arc<Prepared>, made: Vec<Instance>) {
        let host = &program.host;
        let until = Instant::now() + WELCOME;
        let mut held = self.lock();
        held.filters.retain(|known| known.strong_count() > 0);
        held.filters.push(Arc::downgrade(filter));
        held.edition += 1;
        let is_only = held.filters.len() == 1;
        let mut ready = std::mem::take(&mut held.ready);
        drop(held);
        ready.retain_mut(|instance| {
            host.shelf.take(instance.guest.memory());
            Instant::now() < until && instance.forget_dead().is_ok() && instance.give(filter, CONFIGURE_TIMEOUT).is_ok()
        });
        // What was made for it knows no other filter.
        ready.extend(made.into_iter().filter(|_| is_only).filter_map(|mut instance| {
            instance.config_of(filter)?;
            Some(instance)
        }));
        let mut held = self.lock();
        for instance in ready {
            held.put(instance, &host.shelf);
        }
        let ready = held.ready.len();
        drop(held);
        let wanted = if host.config.spares == 0 { 0 } else { host.config.workers };
        for _ in ready..wanted {
            if Instant::now() >= until || !program.has_room_for_spares(0) || !self.add(program, until) {
                break;
            }
        }
    }

    /// A spare that was given the configuration of this filter, by its id.
    pub(super) fn take(&self, program: &Arc<Program>, filter: u64) -> Option<Instance> {
        let mut held = self.lock();
        let place = held.ready.iter().position(|instance| instance.has(filter))?;
        let instance = held.ready.swap_remove(place);
        drop(held);
        program.host.shelf.take(instance.guest.memory());
        self.tell(program);
        Some(instance)
    }

    pub(super) fn missed(&self, program: &Arc<Program>, failed: bool) {
        self.lock().is_missed |= failed;
        self.tell(program);
    }

    /// Has more made, if there are to be more.
    fn tell(&self, program: &Arc<Program>) {
        if self.lacks(program) && !self.is_told.swap(true, AcqRel) {
            let stock: Arc<dyn Stock> = program.clone();
            program.host.refiller.refill(Arc::downgrade(&stock));
        }
    }

    fn lacks(&self, program: &Program) -> bool {
        let held = self.lock();
        let stands = held.ready.len() < program.host.config.spares && program.has_room_for_spares(0);
        stands || held.is_missed && held.ready.is_empty()
    }

    /// Makes one more until then; false where none could be made.
    fn add(&self, program: &Program, until: Instant) -> bool {
        let held = self.lock();
        let edition = held.edition;
        let mut filters: Vec<_> = held.filters.iter().filter_map(Weak::upgrade).collect();
        drop(held);
        let Some(instance) = make(program, &mut filters, until) else { return false };
        let mut held = self.lock();
        // A filter that came meanwhile has its own made.
        if held.edition == edition {
            held.is_missed = false;
            held.put(instance, &program.host.shelf);
        }
        true
    }

    pub(super) fn clear(&self, shelf: &Shelf) {
        for instance in self.lock().ready.drain(..) {
            shelf.take(instance.guest.memory());
        }
    }
}

impl Held {
    fn put(&mut self, instance: Instance, shelf: &Shelf) {
        shelf.put(instance.guest.memory());
        self.ready.push(instance);
    }
}

/// An instance with as many of the configurations as it can be given: one that fails is left out, and the others start anew.
fn make(program: &Program, filters: &mut Vec<Arc<Prepared>>, until: Instant) -> Option<Instance> {
    let within = || until.saturating_duration_since(Instant::now()).min(CONFIGURE_TIMEOUT);
    while let Some(first) = filters.first()
        && Instant::now() < until
    {
        let mut instance = Instance::new(program.source.start(&first.setup, within()).ok()?);
        let failed = filters.iter().position(|filter| instance.give(filter, within()).is_err());
        match failed {
            None => return Some(instance),
            Some(place) => drop(filters.remove(place)),
        }
    }
    None
}

impl Stock for Program {
    fn spent(&self) -> &AtomicU64 {
        &self.spares.spent
    }

    fn make_one(&self) -> bool {
        let spares = &self.spares;
        // Who asks from here on is heard: what is to be made is looked up after this.
        spares.is_told.store(false, Release);
        let made = !spares.lacks(self) || spares.add(self, Instant::now() + MAKING);
        if !made {
            spares.lock().is_missed = false;
        }
        // One that could not be made is tried again when it is missed again.
        made && spares.lacks(self) && !spares.is_told.swap(true, AcqRel)
    }
}

//! This thread's instances, one for each program that it has called. An instance whose call failed for good is replaced
//! at the next call, and one that lacks a configuration is, by a spare one that waits configured. Only where there is none
//! does a request wait for `configure`, and no longer than for any call.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::deadline::thread_time;
use crate::failure::{Failure, FailureKind};
use crate::guest::{StartError, Whom};
use crate::hook::{Said, Told};
use crate::prepare::{Instance, Prepared, Program};

/// By `Program::slot`.
#[derive(Debug)]
pub(super) struct Slots {
    /// The worker's number, under which its calls are counted.
    worker: usize,
    places: Vec<Option<Slot>>,
    /// What is packed for a call; used again by the next.
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Slot {
    /// `Program::id`, which is never given twice; the place in the table is.
    id: u64,
    program: Weak<Program>,
    instance: Option<Instance>,
    /// Grows with each replaced instance.
    generation: u32,
}

impl Slots {
    pub(super) fn new(worker: usize) -> Self {
        Self { worker, places: Vec::new(), buffer: Vec::new() }
    }

    /// Tells the instances of a filter apart, for those that keep streams in their memory.
    pub(super) fn generation(&mut self, filter: &Prepared) -> u32 {
        self.slot(&filter.program).generation
    }

    /// A call into this thread's instance, made now where there is none, and the time that it took: on the processor if
    /// that is wanted, else on the wall.
    pub(super) fn call(
        &mut self,
        filter: &Arc<Prepared>,
        told: &Told<'_>,
        cookie: &mut Vec<u8>,
        on_processor: bool,
    ) -> (Result<Said, Failure>, Duration) {
        let (mut buffer, worker) = (std::mem::take(&mut self.buffer), self.worker);
        let slot = self.slot(&filter.program);
        let called = slot.call(filter, told, cookie, &mut buffer, (worker, on_processor));
        self.buffer = buffer;
        called
    }

    /// Frees the instances of programs that nobody holds any more, and lets the others forget configurations.
    pub(super) fn retire(&mut self) {
        for place in &mut self.places {
            let Some(slot) = place else { continue };
            if slot.program.strong_count() == 0 {
                *place = None;
            } else if slot.instance.as_mut().is_some_and(|instance| instance.forget_dead().is_err()) {
                slot.replace();
            }
        }
    }

    fn slot(&mut self, program: &Arc<Program>) -> &mut Slot {
        let known = self.places.get(program.slot).and_then(Option::as_ref).is_some_and(|slot| slot.id == program.id);
        if !known {
            self.retire();
            if self.places.len() <= program.slot {
                self.places.resize_with(program.slot + 1, || None);
            }
            self.places[program.slot] = None;
        }
        self.places[program.slot].get_or_insert_with(|| Slot {
            id: program.id,
            program: Arc::downgrade(program),
            instance: None,
            generation: 0,
        })
    }
}

impl Slot {
    fn replace(&mut self) {
        self.instance = None;
        self.generation = self.generation.wrapping_add(1);
    }

    fn call(
        &mut self,
        filter: &Arc<Prepared>,
        told: &Told<'_>,
        cookie: &mut Vec<u8>,
        buffer: &mut Vec<u8>,
        (worker, on_processor): (usize, bool),
    ) -> (Result<Said, Failure>, Duration) {
        let known = self.instance.as_mut().and_then(|instance| instance.config_of(filter));
        let id = match known.map_or_else(|| self.bring(filter), Ok) {
            Ok(id) => id,
            Err(failure) => return (Err(failure), Duration::ZERO),
        };
        let Some(instance) = &mut self.instance else {
            return (Err(Failure::new(FailureKind::NoInstance, "there is none")), Duration::ZERO);
        };
        let stats = filter.stats();
        let processor = on_processor.then(thread_time);
        let start = Instant::now();
        let whom = Whom { id, setup: &filter.setup, interest: &filter.interest, start };
        let result = instance.guest.call(whom, told, cookie, buffer);
        let wall = start.elapsed();
        let time = processor.map_or(wall, |before| thread_time().saturating_sub(before));
        stats.call_time.record(worker, told.hook, wall);
        let is_swollen = instance.is_swollen(filter.program.shared.memory_bytes);
        match &result {
            Err(failure) if failure.kind.kills() => self.replace(),
            // What it keeps in its memory for streams is worth more than the memory.
            Ok(_) if is_swollen && !filter.interest.keeps_state() => {
                stats.recycled.add(1);
                self.replace();
            }
            Ok(_) | Err(_) => {}
        }
        (result, time)
    }

    /// Puts an instance that has the filter's configuration in place, and says by which id it knows it.
    #[cold]
    fn bring(&mut self, filter: &Arc<Prepared>) -> Result<u32, Failure> {
        if let Some(mut spare) = filter.program.spare(filter)
            && let Some(id) = spare.config_of(filter)
        {
            self.instance = Some(spare);
            return Ok(id);
        }
        filter.stats().configured_inline.add(1);
        let given = self.configure(filter);
        filter.program.missed(given.is_err());
        given
    }

    /// While the request waits, within the time of one call.
    fn configure(&mut self, filter: &Arc<Prepared>) -> Result<u32, Failure> {
        let within = filter.setup.call_timeout;
        let instance = match &mut self.instance {
            Some(instance) => instance,
            none => none.insert(filter.program.instance(&filter.setup, within)?),
        };
        let given = instance.give(filter, within);
        // What refuses this one serves others as before; what stopped in the middle of it can't be called again.
        let is_of_use = instance.is_given() && !matches!(given, Err(StartError::Configure(_)));
        if !is_of_use {
            self.replace();
        }
        given.map_err(Failure::from)
    }
}

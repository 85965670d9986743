//! One live instance of a filter, behind a trait that is the same for every contract: `v01` and `v02` know the exports
//! of theirs. Invariant: an instance whose call trapped or ran out of time is never called again.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::{Engine, Store, Trap};

use crate::deadline::{Deadline, thread_time};
use crate::failure::{Failure, HostRefusal};
use crate::hook::{Said, Told};
use crate::interest::{Bounds, Interest};
use crate::state::{ConfigShared, Shared, State};

pub(crate) mod v01;
pub(crate) mod v02;

/// Bytes that a filter may hand over at once, by a call of an import or as its outcome: the longest body, and all edits
/// or headers beside it. A list may name the same bytes of its memory again and again; more is a trap.
const HANDED_OVER: usize = 24 << 20;

/// One configuration of a program: what an instance is given, and on whose behalf it is called.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) shared: Arc<ConfigShared>,
    pub(crate) json: String,
    pub(crate) call_timeout: Duration,
    pub(crate) bounds: Bounds,
}

/// Whom a call is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whom<'a> {
    /// The configuration, as the instance knows it.
    pub(crate) id: u32,
    pub(crate) setup: &'a Setup,
    pub(crate) interest: &'a Interest,
    /// When the call began.
    pub(crate) start: Instant,
}

/// Why a filter did not come up.
#[derive(Debug)]
pub(crate) enum StartError {
    Instantiate(String),
    /// It begins with more memory than its policy gives it.
    Memory(String),
    /// It exports a hook that is called otherwise.
    WrongWorld(String),
    /// It trapped, or did not end, while it started or was configured.
    Configure(Failure),
    /// It refused its configuration, in its own words.
    Refused(String),
    /// It asks for what it can't have.
    Interest(String),
}

impl StartError {
    /// Why there is no instance: what a filter does while it starts is its own, that there is no room for it is not.
    /// `memory`: it was refused memory, beyond what its policy gives.
    fn of_instantiation(error: &wasmtime::Error, memory: bool) -> Self {
        if error.downcast_ref::<Trap>().is_none() && !error.is::<HostRefusal>() {
            let reason = format!("{error:#}");
            return if memory { Self::Memory(reason) } else { Self::Instantiate(reason) };
        }
        let Failure { kind, detail } = Failure::of_call(error, false);
        Self::Configure(Failure { kind, detail: format!("while it started: {detail}") })
    }
}

/// An instance. Made on any thread, then owned by the worker that calls it.
pub(crate) trait Guest: fmt::Debug + Send {
    /// Gives it a configuration within a time; contract 0.1 takes one only.
    fn configure(&mut self, id: u32, setup: &Setup, within: Duration) -> Result<Interest, StartError>;

    /// One call. `buffer`: for what is packed, and used again. The cookie is not changed: what the filter wants is in
    /// what it says.
    fn call(
        &mut self,
        whom: Whom<'_>,
        told: &Told<'_>,
        cookie: &mut Vec<u8>,
        buffer: &mut Vec<u8>,
    ) -> Result<Said, Failure>;

    /// No call for this configuration will come. Where it fails the instance can't be called again.
    fn forget(&mut self, id: u32, shared: &Arc<ConfigShared>) -> Result<(), Failure>;

    /// Bytes of its linear memory.
    fn memory(&self) -> u64;
}

/// What instances are made of: a component that is linked, of some contract.
pub(crate) trait Source: fmt::Debug + Send + Sync {
    /// A new instance. What it does while it starts, it does on behalf of `setup`, and within this time.
    fn start(&self, setup: &Setup, within: Duration) -> Result<Box<dyn Guest>, StartError>;
}

/// A store whose calls end: by the clock, and at the bounds of memory.
fn store(engine: &Engine, shared: &Arc<Shared>, setup: &Setup, within: Duration) -> Store<State> {
    let mut store = Store::new(engine, State::new(shared.clone()));
    store.limiter(|state| state);
    store.set_hostcall_fuel(HANDED_OVER);
    store.epoch_deadline_callback(|mut store| {
        store.data().shared.clock.go_on();
        Ok(store.data_mut().deadline.strike(thread_time()))
    });
    arm(&mut store, &setup.shared, (within, Instant::now()));
    store
}

/// Starts the clock of one call, which has so long from `start` on.
fn arm(store: &mut Store<State>, config: &Arc<ConfigShared>, (timeout, start): (Duration, Instant)) {
    let state = store.data_mut();
    state.enter(config);
    state.deadline = Deadline::new(timeout, start);
    // One move of the clock strikes the call. Set first: a clock that is parked meanwhile is woken for it.
    store.set_epoch_deadline(1);
    store.data().shared.clock.call(timeout);
}

/// One call for a configuration, ended by its clock. Its failure says where more memory was refused meanwhile.
fn called<T>(
    store: &mut Store<State>,
    config: &Arc<ConfigShared>,
    time: (Duration, Instant),
    call: impl FnOnce(&mut Store<State>) -> wasmtime::Result<T>,
) -> Result<T, Failure> {
    arm(store, config, time);
    let before = memory_refusals(store);
    call(store).map_err(|error| Failure::of_call(&error, before != memory_refusals(store)))
}

/// Makes an instance in a store.
fn instantiated<T>(
    store: &mut Store<State>,
    make: impl FnOnce(&mut Store<State>) -> wasmtime::Result<T>,
) -> Result<T, StartError> {
    let before = memory_refusals(store);
    make(store).map_err(|error| StartError::of_instantiation(&error, before != memory_refusals(store)))
}

fn memory_refusals(store: &Store<State>) -> u64 {
    store.data().shared.stats.memory_limit_hits.value()
}

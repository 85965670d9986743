//! The clock that ends calls: it moves the engine's epoch while a filter may run, and sleeps while none does. Invariant: from
//! the start of a call until its first strike the clock is not parked; at each strike the call says that it goes on.

use std::sync::atomic::{
    AtomicBool, AtomicU8,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

/// How often the clock moves while it runs: a little more often than each millisecond, so that calls end within 2 ms of their
/// time.
pub(crate) const TICK: Duration = Duration::from_micros(800);
/// The tick of a call at which the clock first strikes: one to two ticks' time after the start.
pub(crate) const FIRST_STRIKE: u64 = 2;
/// The clock asks this often whether anybody calls, each second: it is parked after one to two such times without a call.
const WINDOW: u64 = 1_250;

/// Somebody has called since the clock last asked.
const CALLED: u8 = 0;
/// The clock asks: the next call answers.
const ASKED: u8 = 1;
/// Nobody answered; the next call wakes it.
const PARKED: u8 = 2;

/// One per host, with a thread of its own.
#[derive(Debug)]
pub(crate) struct Clock {
    state: AtomicU8,
    stopped: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Clock {
    /// Starts the thread, parked; `tick` is what it does while it runs.
    pub(crate) fn start(tick: impl FnMut() + Send + 'static) -> std::io::Result<Arc<Self>> {
        let clock =
            Arc::new(Self { state: AtomicU8::new(PARKED), stopped: AtomicBool::new(false), thread: OnceLock::new() });
        let running = clock.clone();
        let named = thread::Builder::new().name("weft-filter-clock".to_owned());
        let thread = named.spawn(move || running.run(tick))?.thread().clone();
        clock.thread.get_or_init(|| thread);
        Ok(clock)
    }

    /// A call starts, or goes on past its deadline.
    pub(crate) fn call(&self) {
        // This load may miss a change that is not visible yet. That does no harm: the clock waits a window between
        // asking and parking, much longer than a store takes to be seen.
        if self.state.load(Relaxed) != CALLED {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        if self.state.swap(CALLED, AcqRel) == PARKED {
            self.unpark();
        }
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.state.load(Acquire) == PARKED
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Relaxed);
        self.unpark();
    }

    fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn run(&self, mut tick: impl FnMut()) {
        let mut ticks = 0;
        while !self.stopped.load(Relaxed) {
            if self.is_parked() {
                thread::park();
                ticks = 0;
                continue;
            }
            thread::sleep(TICK);
            tick();
            ticks += 1;
            // A call that began just before this question is struck, and says that it goes on, long before the next one.
            if ticks > WINDOW {
                ticks = 0;
                let asked = self.state.compare_exchange(CALLED, ASKED, AcqRel, Acquire);
                if asked == Err(ASKED) {
                    let _ = self.state.compare_exchange(ASKED, PARKED, AcqRel, Acquire);
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::AtomicU64;
    use std::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < PATIENCE, "{what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn counted() -> (Arc<Clock>, Arc<AtomicU64>) {
        let ticks = Arc::new(AtomicU64::new(0));
        let count = ticks.clone();
        let clock = Clock::start(move || {
            count.fetch_add(1, Relaxed);
        });
        (clock.unwrap(), ticks)
    }

    #[test]
    fn it_sleeps_while_nothing_runs() {
        let (clock, ticks) = counted();
        clock.call();
        until("it ticks for a call", || ticks.load(Relaxed) > 3);
        until("it is parked when no other follows", || clock.is_parked());
        let parked = ticks.load(Relaxed);
        assert!(parked >= 2 * WINDOW, "it asked first, and waited: {parked}");
        let start = Instant::now();
        until("time passes", || start.elapsed() > TICK * 20);
        assert!(ticks.load(Relaxed) <= parked + 1, "it sleeps");
        clock.call();
        until("it ticks again", || ticks.load(Relaxed) > parked + 3);
        clock.stop();
    }

    #[test]
    fn it_never_ran_where_nothing_called() {
        let (clock, ticks) = counted();
        let start = Instant::now();
        until("time passes", || start.elapsed() > TICK * 20);
        assert_eq!((clock.is_parked(), ticks.load(Relaxed)), (true, 0));
        clock.stop();
    }

    #[test]
    fn the_thread_ends_with_its_host() {
        let (clock, _) = counted();
        clock.stop();
        until("only we hold it", || Arc::strong_count(&clock) == 1);
    }
}

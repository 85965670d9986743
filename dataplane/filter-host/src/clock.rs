//! The clock that ends calls: it moves the engine's epoch while a filter may run, and sleeps while none does. It strides while
//! calls are short, as nearly all are, and hurries once it has struck one. Invariant: from the start of a call until its first
//! strike the clock is not parked; at each strike the call says that it goes on.

use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

/// How often the clock moves while it hurries: a little more often than each millisecond, so that calls end within 2 ms of
/// their time.
pub(crate) const TICK: Duration = Duration::from_micros(800);
/// How often it moves else. Each move takes a processor from whoever runs, so there are few.
pub(crate) const STRIDE: Duration = Duration::from_millis(3);
/// For calls with less time than this the clock hurries from their start: half of it is less than a stride.
pub(crate) const SHORT: Duration = Duration::from_millis(6);
/// Ticks for which it hurries after it has struck a call.
const STRUCK: u32 = 2;
/// Ticks for which it hurries after a call with a short budget: a tenth of a second, so that it does not begin anew for each.
const LINGER: u32 = 125;
/// The clock asks this often whether anybody calls: it is parked after one to two such times without a call.
const WINDOW: Duration = Duration::from_secs(1);

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
    /// Ticks for which it still hurries.
    haste: AtomicU32,
    stopped: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Clock {
    /// Starts the thread, parked; `tick` is what it does while it runs.
    pub(crate) fn start(tick: impl FnMut() + Send + 'static) -> std::io::Result<Arc<Self>> {
        let clock = Arc::new(Self {
            state: AtomicU8::new(PARKED),
            haste: AtomicU32::new(0),
            stopped: AtomicBool::new(false),
            thread: OnceLock::new(),
        });
        let running = clock.clone();
        let named = thread::Builder::new().name("weft-filter-clock".to_owned());
        let thread = named.spawn(move || running.run(tick))?.thread().clone();
        clock.thread.get_or_init(|| thread);
        Ok(clock)
    }

    /// A call starts that has so much time.
    pub(crate) fn call(&self, budget: Duration) {
        self.say_called();
        if budget < SHORT && self.haste.load(Relaxed) < LINGER / 2 {
            self.hurry(LINGER);
        }
    }

    /// A call that was struck goes on.
    pub(crate) fn go_on(&self) {
        self.say_called();
        self.hurry(STRUCK);
    }

    fn say_called(&self) {
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

    #[cold]
    fn hurry(&self, ticks: u32) {
        if self.haste.fetch_max(ticks, AcqRel) == 0 {
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
        let mut ran = Duration::ZERO;
        while !self.stopped.load(Relaxed) {
            if self.is_parked() {
                thread::park();
                ran = Duration::ZERO;
                continue;
            }
            if self.haste.load(Acquire) == 0 {
                thread::park_timeout(STRIDE);
                if self.haste.load(Acquire) > 0 {
                    continue;
                }
                ran += STRIDE;
            } else {
                thread::sleep(TICK);
                ran += TICK;
                // Only this thread subtracts, and only from more than none: it can't wrap. Haste that was asked for just before is
                // one tick shorter.
                self.haste.fetch_sub(1, AcqRel);
            }
            tick();
            // A call that began just before this question is struck, and says that it goes on, long before the next one.
            if ran > WINDOW {
                ran = Duration::ZERO;
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
    const LONG: Duration = Duration::from_secs(1);

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
        clock.call(LONG);
        until("it ticks for a call", || ticks.load(Relaxed) > 3);
        until("it is parked when no other follows", || clock.is_parked());
        let parked = ticks.load(Relaxed);
        assert!(
            u128::from(parked) >= (WINDOW * 2).as_millis() / STRIDE.as_millis(),
            "it asked first, and waited: {parked}"
        );
        let start = Instant::now();
        until("time passes", || start.elapsed() > STRIDE * 6);
        assert!(ticks.load(Relaxed) <= parked + 1, "it sleeps");
        clock.call(LONG);
        until("it ticks again", || ticks.load(Relaxed) > parked + 3);
        clock.stop();
    }

    #[test]
    fn it_strides_until_it_strikes_and_hurries_for_short_budgets() {
        let (clock, ticks) = counted();
        let start = Instant::now();
        until("it strides", || {
            clock.call(SHORT);
            ticks.load(Relaxed) >= 40
        });
        assert!(start.elapsed() >= STRIDE * 39, "40 strides in {:?}", start.elapsed());
        clock.go_on();
        until("it strides again", || clock.haste.load(Relaxed) == 0);
        // Nobody takes from its haste any more.
        clock.stop();
        until("only we hold it", || Arc::strong_count(&clock) == 1);
        clock.go_on();
        assert_eq!(clock.haste.load(Relaxed), STRUCK, "it hurries for what was struck");
        clock.call(SHORT / 2);
        assert_eq!(clock.haste.load(Relaxed), LINGER, "others follow a call with a short budget");
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

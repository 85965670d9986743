//! When a call has had its time: once it has used that on the processor. The engine's clock counts wall time, but a thread
//! that the machine did not run is not to blame. So the clock strikes early in a call and then with each of its ticks, and
//! the call asks the processor each time. What came before the first strike counts as it passed on the wall, up to a stride of
//! the clock and to half of the budget. Invariant: a loop is ended within its budget and 2 ms.

use std::time::{Duration, Instant};

use wasmtime::UpdateDeadline;

use crate::clock::STRIDE;

/// Deadline of instantiation and `configure` where nobody waits for them.
pub(crate) const CONFIGURE_TIMEOUT: Duration = Duration::from_secs(1);
/// Deadline of `forget`, which a worker calls between requests.
pub(crate) const FORGET_TIMEOUT: Duration = Duration::from_millis(10);

/// The deadline of the call at hand: every call has its own.
#[derive(Debug)]
pub(crate) struct Deadline {
    budget: Duration,
    start: Instant,
    /// At the first strike: what counts of the time before it, and the processor time of the thread.
    struck: Option<(Duration, Duration)>,
}

impl Deadline {
    /// Of a call that started then.
    pub(crate) fn new(budget: Duration, start: Instant) -> Self {
        Self { budget, start, struck: None }
    }

    /// The clock has struck, and the thread has used so much processor time.
    pub(crate) fn strike(&mut self, processor: Duration) -> UpdateDeadline {
        self.strike_at(processor, self.start.elapsed())
    }

    fn strike_at(&mut self, processor: Duration, wall: Duration) -> UpdateDeadline {
        let before = wall.min(STRIDE).min(self.budget / 2);
        let (before, struck) = *self.struck.get_or_insert((before, processor));
        let used = before.saturating_add(processor.saturating_sub(struck));
        if used < self.budget { UpdateDeadline::Continue(1) } else { UpdateDeadline::Interrupt }
    }
}

/// Processor time that this thread has used.
#[expect(unsafe_code, reason = "std has no clock of the thread's processor time")]
pub(crate) fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every Linux, and `time` is a valid place for the answer.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } != 0;
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    // A call whose time can't be read ends as if its time were up.
    if failed { Duration::MAX } else { Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{SHORT, TICK};

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn time_off_the_processor_does_not_count() {
        let mut deadline = Deadline::new(MS * 10, Instant::now());
        assert!(matches!(deadline.strike_at(MS * 100, MS), UpdateDeadline::Continue(1)), "one counts");
        assert!(
            matches!(deadline.strike_at(MS * 100, MS * 50), UpdateDeadline::Continue(1)),
            "it was not run meanwhile"
        );
        assert!(matches!(deadline.strike_at(MS * 108, MS * 60), UpdateDeadline::Continue(1)));
        assert!(matches!(deadline.strike_at(MS * 109, MS * 61), UpdateDeadline::Interrupt));
        for (budget, own) in [(10, 7), (4, 2)] {
            let mut deadline = Deadline::new(MS * budget, Instant::now());
            let mut goes_on =
                |ms: u32| matches!(deadline.strike_at(MS * (120 + ms), MS * 70), UpdateDeadline::Continue(1));
            assert!(goes_on(0) && goes_on(own - 1) && !goes_on(own), "{own} of {budget} are its own");
        }
    }

    /// A loop, on the processor from its start, with a clock that strikes it first after `first` and whose ticks come late:
    /// when it ends.
    fn end(budget: Duration, first: Duration, late: Duration) -> Duration {
        let mut deadline = Deadline::new(budget, Instant::now());
        (0..)
            .map(|tick| first + (TICK + late) * tick)
            .find(|now| matches!(deadline.strike_at(*now, *now), UpdateDeadline::Interrupt))
            .expect("an end")
    }

    #[test]
    fn a_loop_ends_within_its_budget_and_two_milliseconds() {
        const US: Duration = Duration::from_micros(1);
        for budget in [1, 2, 3, 4, 5, 6, 7, 10, 50, 1_000] {
            let budget = MS * budget;
            // A stride that is cut short for another call is followed by a tick.
            let gait = if budget < SHORT { TICK } else { STRIDE + TICK };
            let firsts = (0..3_860).map(|first| (US * first, US * (first * 7 % 61)));
            for (first, late) in firsts.filter(|(first, late)| *first <= gait + *late) {
                let took = end(budget, first, late);
                assert!(
                    took <= budget + MS * 2,
                    "{budget:?}, first struck after {first:?}, late by {late:?}: {took:?}"
                );
                assert!(took >= budget, "{budget:?}, first struck after {first:?}, late by {late:?}: {took:?}");
            }
        }
    }

    #[test]
    fn the_clock_runs_with_the_thread() {
        let start = thread_time();
        while thread_time() < start + MS {
            std::hint::spin_loop();
        }
    }
}

//! When a call has had its time: once it has used that on the processor. The engine's clock counts wall time, but a thread
//! that the machine did not run is not to blame. So the clock strikes early in a call and then with each of its ticks, and
//! the call asks the processor each time. Invariant: a loop is ended within its budget and 2 ms.

use std::time::Duration;

use wasmtime::UpdateDeadline;

use crate::clock::TICK;

/// Deadline of instantiation and `configure` where nobody waits for them.
pub(crate) const CONFIGURE_TIMEOUT: Duration = Duration::from_secs(1);
/// Deadline of `forget`, which a worker calls between requests.
pub(crate) const FORGET_TIMEOUT: Duration = Duration::from_millis(10);

/// The deadline of the call at hand: every call has its own.
#[derive(Debug)]
pub(crate) struct Deadline {
    budget: Duration,
    /// Processor time of the thread when the clock first struck during this call.
    struck: Option<Duration>,
}

impl Deadline {
    pub(crate) fn new(budget: Duration) -> Self {
        Self { budget, struck: None }
    }

    /// The clock has struck. How much of the time before its first strike, one to two ticks, the call was run is not known:
    /// one tick counts, of a short budget half.
    pub(crate) fn strike(&mut self, now: Duration) -> UpdateDeadline {
        let struck = *self.struck.get_or_insert(now);
        let used = now.saturating_sub(struck).saturating_add(TICK.min(self.budget / 2));
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
    use crate::clock::FIRST_STRIKE;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn time_off_the_processor_does_not_count() {
        let mut deadline = Deadline::new(MS * 10);
        assert!(matches!(deadline.strike(MS * 100), UpdateDeadline::Continue(1)));
        assert!(matches!(deadline.strike(MS * 100), UpdateDeadline::Continue(1)), "it was not run meanwhile");
        assert!(matches!(deadline.strike(MS * 109), UpdateDeadline::Continue(1)));
        assert!(matches!(deadline.strike(MS * 110), UpdateDeadline::Interrupt));
        let mut deadline = Deadline::new(MS * 10);
        assert!(matches!(deadline.strike(MS * 120), UpdateDeadline::Continue(1)), "a new call");
    }

    /// A loop, on the processor from its start, with a clock whose ticks come late by up to 60 us: when it ends.
    fn end(budget: Duration, start: Duration, late: Duration) -> Duration {
        let mut deadline = Deadline::new(budget);
        let period = TICK + late;
        let before = u64::try_from(start.as_nanos() / period.as_nanos()).expect("a small number");
        let first = u32::try_from(before + FIRST_STRIKE).expect("a small number");
        (first..)
            .map(|tick| period * tick)
            .find(|now| matches!(deadline.strike(*now), UpdateDeadline::Interrupt))
            .expect("an end")
            .saturating_sub(start)
    }

    #[test]
    fn a_loop_ends_within_its_budget_and_two_milliseconds() {
        const US: Duration = Duration::from_micros(1);
        for budget in [1, 2, 3, 7, 10, 50, 1_000] {
            let budget = MS * budget;
            for (start, late) in (0..900).map(|start| (US * start, US * (start * 7 % 61))) {
                let took = end(budget, start, late);
                assert!(took <= budget + MS * 2, "{budget:?} from {start:?}, ticks late by {late:?}: {took:?}");
                assert!(took >= budget, "{budget:?} from {start:?}, ticks late by {late:?}: {took:?}");
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

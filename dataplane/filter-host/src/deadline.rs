//! When a call has had its time. The engine's clock counts wall time, but a thread that the machine did not run is not to
//! blame: once the clock strikes, a call goes on until it has used its time on the processor, too.

use std::time::Duration;

use wasmtime::UpdateDeadline;

/// Deadline of instantiation and `configure`, which happen off the data path but for replacements.
pub(crate) const CONFIGURE_TIMEOUT: Duration = Duration::from_secs(1);

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

    /// The clock has struck. A call that loops is ended after at most twice its budget of processor time.
    pub(crate) fn strike(&mut self, now: Duration) -> UpdateDeadline {
        let struck = *self.struck.get_or_insert(now);
        if now.saturating_sub(struck) < self.budget { UpdateDeadline::Continue(1) } else { UpdateDeadline::Interrupt }
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

    #[test]
    fn the_clock_runs_with_the_thread() {
        let start = thread_time();
        while thread_time() < start + MS {
            std::hint::spin_loop();
        }
    }
}

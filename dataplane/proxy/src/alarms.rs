//! Timers that requests take turns in. Nearly every request is over long before its time is: a timer of its own would be put
//! into the runtime's wheel and taken out again. One that stands there from an earlier request rings soon enough, and where it
//! rings too early it is set again.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};

/// Timers that wait for their next request, at the most. Not in the configuration: each takes 200 bytes, and keeps what is left of
/// the task that had it last, until it rings or is taken again.
const KEPT_TIMERS: usize = 256;

/// The timers of one thread.
#[derive(Debug, Default)]
pub struct Alarms {
    idle: RefCell<Vec<Pin<Box<Sleep>>>>,
}

/// A timer for one request, which may have it ring at another moment each time it asks.
#[derive(Debug)]
pub struct Alarm<'a> {
    home: &'a Alarms,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Alarms {
    pub fn take(&self) -> Alarm<'_> {
        Alarm { home: self, timer: self.idle.borrow_mut().pop() }
    }
}

impl Alarm<'_> {
    /// Ready from `at` on, also for what never has to wait.
    pub fn poll(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        loop {
            ready!(Pin::new(&mut coop::unconstrained(timer.as_mut())).poll(cx));
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            // That was the end of an earlier request's time, or an earlier end of this one's.
            timer.as_mut().reset(at);
        }
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        let mut idle = self.home.idle.borrow_mut();
        if idle.len() < KEPT_TIMERS {
            idle.extend(self.timer.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    const ONE: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_rings_at_its_own_time_whoever_had_its_timer_before() {
        let (alarms, begun) = (Alarms::default(), Instant::now());
        // Left early, late, and never.
        for (left, at) in [(1, 5), (6, 9), (7, 8), (10, 30), (20, 25)] {
            let mut alarm = alarms.take();
            let (left, at) = (begun + ONE * left, begun + ONE * at);
            let rung = tokio::time::timeout_at(left, poll_fn(|cx| alarm.poll(at, cx))).await;
            assert!(rung.is_err(), "it rang before {at:?}");
        }
        assert_eq!(alarms.idle.borrow().len(), 1, "they shared one");
        let mut alarm = alarms.take();
        poll_fn(|cx| alarm.poll(begun + ONE * 40, cx)).await;
        assert_eq!(begun.elapsed(), ONE * 40);
        poll_fn(|cx| alarm.poll(begun + ONE * 50, cx)).await;
        assert_eq!(begun.elapsed(), ONE * 50, "it is set again");
        poll_fn(|cx| alarm.poll(begun + ONE * 45, cx)).await;
        assert_eq!(begun.elapsed(), ONE * 50, "a moment that has passed");
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_end_is_kept_to() {
        let (alarms, begun) = (Alarms::default(), Instant::now());
        let (mut first, mut second) = (alarms.take(), alarms.take());
        let late = poll_fn(|cx| first.poll(begun + ONE * 60, cx));
        let early = poll_fn(|cx| second.poll(begun + ONE, cx));
        tokio::select! { biased; () = late => panic!("the later one"), () = early => {} }
        drop((first, second));
        assert_eq!(alarms.idle.borrow().len(), 2);
        for after in 2..5 {
            let mut alarm = alarms.take();
            poll_fn(|cx| alarm.poll(begun + ONE * after, cx)).await;
            assert_eq!(begun.elapsed(), ONE * after);
        }
    }
}

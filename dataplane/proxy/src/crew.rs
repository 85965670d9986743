//! Tasks that do one job after another. A task that serves a stream is large: to make one for each costs more than what it
//! does first.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

/// Tasks that wait for their next job, at the most: one that is idle beyond them ends. Not in the configuration: they take
/// 320 KiB.
const IDLE: usize = 64;

/// What a task of a crew does.
pub trait Job: 'static {
    fn run(self) -> impl Future<Output = ()>;
}

/// The tasks of one thread that do such jobs.
pub struct Crew<J> {
    idle: RefCell<Vec<Rc<Seat<J>>>>,
}

/// Where a task waits for its next job.
struct Seat<J> {
    job: Cell<Option<J>>,
    waker: Cell<Option<Waker>>,
}

impl<J> Default for Crew<J> {
    fn default() -> Self {
        Self { idle: RefCell::default() }
    }
}

impl<J: Job> Crew<J> {
    /// Has the job done on this thread, by the task that became idle last.
    pub fn hand(self: &Rc<Self>, job: J) {
        let Some(seat) = self.idle.borrow_mut().pop() else {
            let crew = Rc::downgrade(self);
            tokio::task::spawn_local(work(crew, job));
            return;
        };
        seat.job.set(Some(job));
        seat.wake();
    }

    /// Has the task at `seat` wait for its next job; false: it is not needed.
    fn wait_at(&self, seat: &Rc<Seat<J>>) -> bool {
        let mut idle = self.idle.borrow_mut();
        let is_needed = idle.len() < IDLE;
        if is_needed {
            idle.push(Rc::clone(seat));
        }
        is_needed
    }
}

impl<J> Drop for Crew<J> {
    fn drop(&mut self) {
        self.idle.take().into_iter().for_each(|seat| seat.wake());
    }
}

impl<J> Seat<J> {
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Does this job and those that it is handed later, for as long as there is a crew. One that panics takes nobody else along.
async fn work<J: Job>(crew: Weak<Crew<J>>, job: J) {
    let seat = Rc::new(Seat { job: Cell::new(None), waker: Cell::new(None) });
    let mut next = Some(job);
    while let Some(job) = next {
        job.run().await;
        if !crew.upgrade().is_some_and(|crew| crew.wait_at(&seat)) {
            return;
        }
        next = poll_fn(|cx| {
            let next = seat.job.take();
            if next.is_none() && crew.strong_count() > 0 {
                seat.waker.set(Some(cx.waker().clone()));
                return Poll::Pending;
            }
            Poll::Ready(next)
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::task::yield_now;

    use super::*;

    /// Waits for a word; without one it panics.
    struct Waits(oneshot::Receiver<()>, Rc<Cell<usize>>);

    impl Job for Waits {
        async fn run(self) {
            self.0.await.expect("a word");
            self.1.set(self.1.get() + 1);
        }
    }

    async fn settled(condition: impl Fn() -> bool) {
        while !condition() {
            yield_now().await;
        }
    }

    #[test]
    fn each_job_is_done_once_and_few_tasks_wait() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let (crew, done) = (Rc::new(Crew::default()), Rc::new(Cell::new(0)));
            let hand = |count: usize| {
                let (words, jobs): (Vec<_>, Vec<_>) = (0..count).map(|_| oneshot::channel()).unzip();
                jobs.into_iter().for_each(|word| crew.hand(Waits(word, Rc::clone(&done))));
                words
            };
            let mut expected = 0;
            for (count, idle) in [(1, 1), (1, 1), (3, 3), (2, 3), (IDLE + 9, IDLE), (5, IDLE)] {
                hand(count).into_iter().for_each(|word| word.send(()).unwrap());
                expected += count;
                settled(|| done.get() == expected && crew.idle.borrow().len() == idle).await;
            }
            drop(hand(2));
            settled(|| crew.idle.borrow().len() == IDLE - 2).await;
            hand(1).pop().unwrap().send(()).unwrap();
            settled(|| done.get() == expected + 1).await;
            // Without a crew tasks end, those that wait and the one that is at work.
            let (last, seat) = (hand(1), Rc::downgrade(&crew.idle.borrow()[0]));
            drop(crew);
            settled(|| seat.strong_count() == 0).await;
            last.into_iter().for_each(|word| word.send(()).unwrap());
            settled(|| Rc::strong_count(&done) == 1).await;
            assert_eq!(done.get(), expected + 2);
        });
    }
}

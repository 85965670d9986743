//! Memory that this process holds for streams whose receivers take nothing, and the budget for it: over the budget the
//! streams that have stalled longest are reset, and no others. A stream that moves costs no bookkeeping; one that waits
//! is an entry of its own worker, whose sum the others read four times a second.

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// How often each worker compares what is held with the budget.
pub(crate) const SWEEP: Duration = Duration::from_millis(250);

/// A stream was reset because it had stalled longest when the budget was used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its receiver took nothing for {} ms, and limits.stalled_bytes was used up", for_.as_millis())]
pub struct Stalled {
    for_: Duration,
}

/// The budget of the process, and what each worker holds.
#[derive(Debug)]
pub struct StallBudget {
    bytes: u64,
    /// A stream that waits for less is not counted as stalled.
    after: Duration,
    workers: Mutex<Vec<Account>>,
}

#[derive(Debug)]
struct Account {
    held: Arc<Held>,
    /// Its stalled streams as of its last sweep, since when and with how much, oldest first; `None` within the budget.
    told: Option<Vec<(Instant, u64)>>,
}

/// One worker's sums; that worker alone writes them.
#[derive(Debug, Default)]
struct Held {
    bytes: AtomicU64,
    streams: AtomicU64,
    resets: AtomicU64,
}

/// The sums over all workers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct StallSums {
    pub bytes: u64,
    pub streams: u64,
    pub resets: u64,
}

impl StallBudget {
    pub fn new(bytes: u64, after: Duration) -> Self {
        Self { bytes, after, workers: Mutex::default() }
    }

    /// Sums over all workers: the memory that is held now, the stalled streams, and the streams that were reset.
    pub fn sums(&self) -> StallSums {
        self.workers.lock().expect("no holder panics").iter().fold(StallSums::default(), |sums, account| {
            let Held { bytes, streams, resets } = &*account.held;
            StallSums {
                bytes: sums.bytes + bytes.load(Ordering::Relaxed),
                streams: sums.streams + streams.load(Ordering::Relaxed),
                resets: sums.resets + resets.load(Ordering::Relaxed),
            }
        })
    }
}

/// How far the receiver of one direction is behind: a little taken now and then is no progress where much is held. It is
/// the time that was waited, less what the bytes that were taken meanwhile make up for.
#[derive(Debug, Default)]
pub struct Pace(Cell<Duration>);

/// A receiver keeps up that takes all that is held in so many times the time after which a stream has stalled.
const KEEPS_UP: u32 = 8;

impl Pace {
    /// `moved` bytes of the `held` were taken in `waited`.
    fn waited(&self, waited: Duration, (moved, held): (usize, usize), after: Duration) {
        // A wait this long counts as stalled by itself, so what was owed before is forgotten.
        if waited >= after {
            return self.0.set(Duration::ZERO);
        }
        let made_up = (after * KEEPS_UP).as_nanos().saturating_mul(moved as u128) / held.max(1) as u128;
        let made_up = Duration::from_nanos(u64::try_from(made_up).unwrap_or(u64::MAX));
        self.0.set((self.0.get() + waited).saturating_sub(made_up).min(after * 2));
    }
}

/// Bytes that one write moves, and all that its stream holds while it waits.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub moves: usize,
    pub held: usize,
}

/// One worker's streams that wait for their receivers.
#[derive(Debug)]
pub struct Stalls {
    budget: Arc<StallBudget>,
    /// Among the budget's accounts.
    place: usize,
    held: Arc<Held>,
    waiting: RefCell<BTreeMap<u64, Waiting>>,
    next: Cell<u64>,
}

#[derive(Debug)]
struct Waiting {
    /// When it began to wait, or earlier by as much as it is behind.
    since: Instant,
    bytes: u64,
    reset: Option<Stalled>,
    waker: Waker,
}

impl Stalls {
    pub fn of(budget: &Arc<StallBudget>) -> Self {
        let held = Arc::<Held>::default();
        let mut workers = budget.workers.lock().expect("no holder panics");
        let place = workers.len();
        workers.push(Account { held: Arc::clone(&held), told: None });
        let budget = Arc::clone(budget);
        Self { budget, place, held, waiting: RefCell::default(), next: Cell::default() }
    }

    /// Waits for a write that stands for itself; else as [`Stalls::unless_reset`].
    pub async fn once<F: Future>(&self, held: usize, write: Pin<&mut F>) -> Result<F::Output, Stalled> {
        self.unless_reset(&Pace::default(), Load { moves: held, held }, write).await
    }

    /// Waits for `write`, the next of a stream at this pace. While it is pending, its stream is one that holds bytes for a
    /// receiver that takes nothing. It is pinned by its caller: each function that takes a future by value keeps it twice.
    ///
    /// # Errors
    /// The stream is to be reset. What `write` was given may have been written in part.
    pub async fn unless_reset<F: Future>(
        &self,
        pace: &Pace,
        load: Load,
        mut write: Pin<&mut F>,
    ) -> Result<F::Output, Stalled> {
        let mut entry: Option<Entry<'_>> = None;
        poll_fn(|cx| {
            if let Poll::Ready(written) = write.as_mut().poll(cx) {
                if let Some(entry) = &entry {
                    pace.waited(entry.began.elapsed(), (load.moves, load.held), self.budget.after);
                }
                return Poll::Ready(Ok(written));
            }
            match &entry {
                None => entry = Some(self.enter(load.held as u64, pace.0.get(), cx.waker())),
                Some(entry) => {
                    if let Some(stalled) = entry.look(cx.waker()) {
                        return Poll::Ready(Err(stalled));
                    }
                }
            }
            Poll::Pending
        })
        .await
    }

    fn enter(&self, bytes: u64, behind: Duration, waker: &Waker) -> Entry<'_> {
        let key = self.next.replace(self.next.get() + 1);
        let began = Instant::now();
        let since = began.checked_sub(behind).unwrap_or(began);
        let waiting = Waiting { since, bytes, reset: None, waker: waker.clone() };
        self.waiting.borrow_mut().insert(key, waiting);
        add(&self.held.bytes, bytes);
        add(&self.held.streams, 1);
        Entry { stalls: self, key, began }
    }

    /// Compares what all workers hold with the budget. The first time over it each worker tells what it holds; from the
    /// next on each resets those of its streams that are among the longest stalled of all.
    pub fn sweep(&self, now: Instant) {
        let mut workers = self.budget.workers.lock().expect("no holder panics");
        let held: u64 = workers.iter().map(|account| account.held.bytes.load(Ordering::Relaxed)).sum();
        let excess = held.saturating_sub(self.budget.bytes);
        if excess == 0 {
            workers[self.place].told = None;
            return;
        }
        let told_before = workers[self.place].told.replace(self.stalled(now)).is_some();
        if !told_before {
            return;
        }
        let all = workers.iter().filter_map(|account| account.told.as_deref()).flatten();
        if let Some(until) = cutoff(all.copied().collect(), excess) {
            self.reset(until, now);
            workers[self.place].told = Some(self.stalled(now));
        }
    }

    /// Those that have waited for long enough to count.
    fn stalled(&self, now: Instant) -> Vec<(Instant, u64)> {
        let waiting = self.waiting.borrow();
        let stalled = waiting.values().filter(|it| now.saturating_duration_since(it.since) >= self.budget.after);
        stalled.filter(|it| it.reset.is_none()).map(|it| (it.since, it.bytes)).collect()
    }

    /// Resets what has waited since `until` or longer.
    fn reset(&self, until: Instant, now: Instant) {
        let mut waiting = self.waiting.borrow_mut();
        for it in waiting.values_mut().filter(|it| it.since <= until && it.reset.is_none()) {
            it.reset = Some(Stalled { for_: now.saturating_duration_since(it.since) });
            sub(&self.held.bytes, std::mem::take(&mut it.bytes));
            add(&self.held.resets, 1);
            it.waker.wake_by_ref();
        }
    }
}

/// The moment since when the youngest of those that must go has waited, so that the others hold at least `excess` less.
fn cutoff(mut stalled: Vec<(Instant, u64)>, excess: u64) -> Option<Instant> {
    stalled.sort_unstable_by_key(|(since, _)| *since);
    let mut freed = 0;
    let enough = stalled.iter().position(|(_, bytes)| {
        freed += bytes;
        freed >= excess
    });
    stalled.get(enough.unwrap_or(stalled.len().saturating_sub(1))).map(|(since, _)| *since)
}

fn add(sum: &AtomicU64, more: u64) {
    sum.store(sum.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

fn sub(sum: &AtomicU64, less: u64) {
    sum.store(sum.load(Ordering::Relaxed) - less, Ordering::Relaxed);
}

/// The entry of one stream that waits.
struct Entry<'s> {
    stalls: &'s Stalls,
    key: u64,
    began: Instant,
}

impl Entry<'_> {
    /// Why the stream is to be reset, if it is.
    fn look(&self, waker: &Waker) -> Option<Stalled> {
        let mut waiting = self.stalls.waiting.borrow_mut();
        let waiting = waiting.get_mut(&self.key)?;
        waiting.waker.clone_from(waker);
        waiting.reset
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.stalls.waiting.borrow_mut().remove(&self.key) {
            sub(&self.stalls.held.bytes, waiting.bytes);
            sub(&self.stalls.held.streams, 1);
        }
    }
}

//! The thread that makes instances ahead of the requests that will want them, so that none waits while a filter is
//! configured. Invariant: it rests as long as it works, so that nobody has more than half a processor kept busy by making
//! filters fail; and a program that had most of its work comes last, so that filters that are slow to make keep it from no
//! others.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// After a turn it rests for as long as that took, within these bounds.
const REST: (Duration, Duration) = (Duration::from_micros(50), Duration::from_secs(20));

/// Something of which there is to be more.
pub(crate) trait Stock: Send + Sync {
    /// Makes one piece; true where another one is wanted.
    fn make_one(&self) -> bool;

    /// Nanoseconds that its pieces have taken so far.
    fn spent(&self) -> &AtomicU64;
}

/// One per host. Its thread starts when something is first wanted, and ends with the host.
#[derive(Debug, Default)]
pub(crate) struct Refiller(OnceLock<Sender<Weak<dyn Stock>>>);

impl Refiller {
    /// Has the thread make what `stock` lacks. Without a thread an instance is made when it is used. The queue has no bound of
    /// its own: each program waits in it once (`Spares::is_told`).
    pub(crate) fn refill(&self, stock: Weak<dyn Stock>) {
        let sender = self.0.get_or_init(|| {
            let (sender, receiver) = mpsc::channel();
            let thread = thread::Builder::new().name("weft-filter-spares".to_owned());
            if let Err(error) = thread.spawn(move || run(&receiver)) {
                tracing::error!(%error, "no thread for spare filter instances: requests wait for them");
            }
            sender
        });
        let _ = sender.send(stock);
    }
}

/// Each stock has one piece made at a time.
fn run(receiver: &Receiver<Weak<dyn Stock>>) {
    let mut waiting = Vec::new();
    loop {
        if waiting.is_empty() {
            let Ok(stock) = receiver.recv() else { return };
            waiting.push(stock);
        }
        waiting.extend(receiver.try_iter());
        let Some(stock) = next(&mut waiting) else { continue };
        let began = Instant::now();
        let wants_more = stock.make_one();
        let took = began.elapsed();
        stock.spent().fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        if wants_more {
            waiting.push(Arc::downgrade(&stock));
        }
        drop(stock);
        thread::sleep(took.clamp(REST.0, REST.1));
    }
}

/// Takes the one on which least was spent so far, of several the one that has waited longest.
fn next(waiting: &mut Vec<Weak<dyn Stock>>) -> Option<Arc<dyn Stock>> {
    let living: Vec<_> = waiting.drain(..).filter_map(|stock| stock.upgrade()).collect();
    let first = living.iter().min_by_key(|stock| stock.spent().load(Relaxed)).cloned()?;
    let others = living.iter().filter(|stock| !Arc::ptr_eq(stock, &first));
    waiting.extend(others.map(Arc::downgrade));
    Some(first)
}

/// What all spares of a host take together.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    instances: AtomicU64,
    bytes: AtomicU64,
}

impl Shelf {
    /// True where one more may be kept ready, beside some that are to come. Two at once may both be told so: it is no exact
    /// bound.
    pub(crate) fn has_room(&self, to_come: usize, instances: u64, bytes: u64) -> bool {
        self.instances.load(Relaxed).saturating_add(to_come as u64) < instances && self.bytes.load(Relaxed) < bytes
    }

    pub(crate) fn put(&self, bytes: u64) {
        self.instances.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn take(&self, bytes: u64) {
        self.instances.fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    pub(crate) fn instances(&self) -> u64 {
        self.instances.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::clock::tests::until;

    /// Makes so many, and notes when.
    struct Pieces {
        name: u8,
        left: AtomicU64,
        spent: AtomicU64,
        made: Arc<Mutex<Vec<u8>>>,
    }

    impl Stock for Pieces {
        fn make_one(&self) -> bool {
            self.made.lock().expect("sound").push(self.name);
            self.left.fetch_sub(1, Relaxed) > 1
        }

        fn spent(&self) -> &AtomicU64 {
            &self.spent
        }
    }

    fn weak(stock: &Arc<Pieces>) -> Weak<dyn Stock> {
        let stock: Arc<dyn Stock> = stock.clone();
        Arc::downgrade(&stock)
    }

    /// Of so many pieces, on which this was spent.
    fn pieces(name: u8, left: u64, spent: u64, made: &Arc<Mutex<Vec<u8>>>) -> Arc<Pieces> {
        let (left, spent) = (AtomicU64::new(left), AtomicU64::new(spent));
        Arc::new(Pieces { name, left, spent, made: made.clone() })
    }

    #[test]
    fn it_makes_what_is_wanted_and_nothing_for_the_dead() {
        let made: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (one, two, dead) = (pieces(1, 3, 0, &made), pieces(2, 2, 0, &made), pieces(3, 9, 0, &made));
        let refiller = Refiller::default();
        let gone = weak(&dead);
        drop(dead);
        for stock in [gone, weak(&one), weak(&two)] {
            refiller.refill(stock);
        }
        until("all are made", || made.lock().expect("sound").len() == 5);
        let mut names = made.lock().expect("sound").clone();
        names.sort_unstable();
        assert_eq!(names, [1, 1, 1, 2, 2]);
        drop(refiller);
        until("the thread holds nothing", || Arc::strong_count(&one) == 1);
    }

    #[test]
    fn who_had_most_of_the_work_comes_last() {
        let made: Arc<Mutex<Vec<u8>>> = Arc::default();
        let all = [(1, 5), (2, 3), (3, 9), (4, 3), (5, 0)].map(|(name, spent)| pieces(name, 1, spent, &made));
        let mut waiting: Vec<_> = all.iter().map(weak).collect();
        let [one, two, three, four, dead] = all;
        drop(dead);
        while let Some(stock) = next(&mut waiting) {
            assert!(!stock.make_one());
        }
        assert_eq!(*made.lock().expect("sound"), [2, 4, 1, 3]);
        drop((one, two, three, four));
    }

    #[test]
    fn a_shelf_is_full_by_number_and_by_bytes() {
        let shelf = Shelf::default();
        assert!(shelf.has_room(0, 1, 10) && !shelf.has_room(1, 1, 10));
        shelf.put(10);
        assert!(!shelf.has_room(0, 1, 100) && !shelf.has_room(0, 2, 10) && shelf.has_room(0, 2, 11));
        shelf.take(10);
        assert!(shelf.has_room(0, 1, 10) && shelf.instances() == 0);
    }
}

//! Progress of workers: each worker's runtime beats twice a second, and a reader looks how old the last beat is. A
//! worker that spins or blocks doesn't beat, and its connections are dead though the process lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::{error, info};

/// Between two beats of a worker.
const BEAT: Duration = Duration::from_millis(500);

/// A worker that hasn't beaten for this long is stalled.
pub const STALLED: Duration = Duration::from_secs(5);

/// The hearts of all workers.
#[derive(Debug, Clone)]
pub struct Heartbeats {
    start: Instant,
    /// When each beat last, in milliseconds since `start`; 0: it doesn't run (yet, or any more).
    last: Arc<[AtomicU64]>,
}

impl Heartbeats {
    pub fn new(workers: usize) -> Self {
        Self { start: Instant::now(), last: (0..workers).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The heart of one worker, beating from now on.
    pub fn of(&self, worker: usize) -> Heart {
        let heart = Heart { all: self.clone(), worker };
        heart.beat();
        heart
    }

    /// Workers that have made no progress for [`STALLED`].
    pub fn stalled(&self) -> Vec<usize> {
        self.stalled_for(STALLED)
    }

    fn stalled_for(&self, limit: Duration) -> Vec<usize> {
        let now = self.now();
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let silent = |last: &AtomicU64| match last.load(Ordering::Relaxed) {
            0 => false,
            last => now.saturating_sub(last) >= limit,
        };
        self.last.iter().enumerate().filter(|(_, last)| silent(last)).map(|(worker, _)| worker).collect()
    }

    /// Tells the log when a worker stalls and when it goes on.
    pub async fn watch(self) {
        let mut known = Vec::new();
        loop {
            tokio::time::sleep(BEAT).await;
            let stalled = self.stalled();
            for worker in stalled.iter().filter(|worker| !known.contains(*worker)) {
                error!(worker, "a worker has made no progress for 5 s; its connections are stuck");
            }
            for worker in known.iter().filter(|worker| !stalled.contains(worker)) {
                info!(worker, "a worker that was stalled goes on");
            }
            known = stalled;
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// Held by a worker's thread. One that is dropped without [`Heart::rest`] counts as stalled: its worker died.
#[derive(Debug)]
pub struct Heart {
    all: Heartbeats,
    worker: usize,
}

impl Heart {
    fn beat(&self) {
        self.all.last[self.worker].store(self.all.now(), Ordering::Relaxed);
    }

    /// The worker has ended as it should.
    pub fn rest(self) {
        self.all.last[self.worker].store(0, Ordering::Relaxed);
    }

    /// Beats for as long as it is polled.
    pub async fn run(&self) {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            self.beat();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Looks until `done`, for 10 s at the most.
    fn wait_for(what: &str, done: impl Fn() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < Duration::from_secs(10), "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_blocked_worker_is_seen_and_its_recovery_too() {
        let hearts = Heartbeats::new(3);
        let (release, blocked) = mpsc::channel::<()>();
        let threads: Vec<_> = [None, Some(blocked)]
            .into_iter()
            .enumerate()
            .map(|(worker, block)| {
                let hearts = hearts.clone();
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async {
                        let heart = hearts.of(worker);
                        let life = async {
                            if let Some(block) = block {
                                // Deliberately blocks the whole worker, as an endless loop would.
                                let _ = block.recv();
                            }
                            tokio::time::sleep(Duration::from_secs(2)).await;
                        };
                        tokio::select! { () = heart.run() => {}, () = life => {} }
                        heart.rest();
                    });
                })
            })
            .collect();
        // A shorter limit than the real one, longer than two beats.
        let limit = BEAT * 2 + Duration::from_millis(200);
        wait_for("the blocked worker is seen", || hearts.stalled_for(limit) == [1]);
        release.send(()).unwrap();
        wait_for("it goes on", || hearts.stalled_for(limit).is_empty());
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(hearts.stalled_for(Duration::ZERO), [0_usize; 0], "who has ended is not stalled");
    }
}

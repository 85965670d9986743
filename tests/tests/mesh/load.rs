//! Load at a fixed rate through a sidecar, with an account of every request.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use weft_tests::{Client, eventually};

/// A request without a good answer: when it was sent, when that was known, what was said.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) sent: Instant,
    pub(super) known: Instant,
    pub(super) what: String,
}

/// Load at a fixed rate: requests sent, answered, failed.
#[derive(Default)]
pub(super) struct Load {
    pub(super) stop: AtomicBool,
    pub(super) sent: AtomicU64,
    pub(super) answered: AtomicU64,
    pub(super) failures: Mutex<Vec<Failure>>,
}

/// `connections` clients that together send `rate` requests per second until told to stop.
pub(super) fn load(proxy: SocketAddr, host: &'static str, rate: u32, connections: u32) -> (Arc<Load>, JoinSet<()>) {
    let load = Arc::new(Load::default());
    let pause = Duration::from_secs(1) * connections / rate;
    let tasks = (0..connections).map(|_| Arc::clone(&load).run(proxy, host, pause)).collect();
    (load, tasks)
}

impl Load {
    async fn run(self: Arc<Self>, proxy: SocketAddr, host: &'static str, pause: Duration) {
        let mut client = Client::through(proxy, host).await;
        let mut next = tokio::time::interval(pause);
        while !self.stop.load(Ordering::SeqCst) {
            next.tick().await;
            self.sent.fetch_add(1, Ordering::SeqCst);
            let sent = Instant::now();
            let what = match client.call(http::Method::GET, "/who", &[], weft_tests::client::empty()).await {
                Ok(answer) => {
                    self.answered.fetch_add(1, Ordering::SeqCst);
                    (answer.status != 200).then(|| format!("{} {}", answer.status, answer.text()))
                }
                Err(error) => {
                    client = Client::through(proxy, host).await;
                    Some(error.0)
                }
            };
            if let Some(what) = what {
                self.failures.lock().unwrap().push(Failure { sent, known: Instant::now(), what });
            }
        }
    }

    /// Waits for so many more answers.
    pub(super) async fn more(&self, count: u64) {
        let enough = self.answered.load(Ordering::SeqCst) + count;
        eventually("load goes on", || async { (self.answered.load(Ordering::SeqCst) > enough).then_some(()) }).await;
    }
}

//! Waiting for something to become true: asked again and again up to a deadline that is generous, because a test waits only as
//! long as it must.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long anything local may take on a loaded machine.
pub const LIMIT: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(15);

/// Asks until `Some`; panics with `what` after [`LIMIT`].
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(value) = ask().await {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks until true; panics with what `else_show` says after [`LIMIT`]. Blocks the thread.
pub fn until(what: &str, mut ask: impl FnMut() -> bool, else_show: impl FnOnce() -> String) {
    let deadline = Instant::now() + LIMIT;
    while !ask() {
        if Instant::now() > deadline {
            panic!("{what}: not within {LIMIT:?}\n{}", else_show());
        }
        std::thread::sleep(PAUSE);
    }
}

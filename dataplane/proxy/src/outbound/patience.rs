//! How long a request or a connection waits for what its proxy does not hold: a moment in all, within its deadline. What is
//! not known by then goes nowhere.

use std::time::Duration;

use tokio::time::Instant;

use crate::reply::Failure;
use crate::snapshot::{Current, Snapshot};
use crate::worker::Worker;

/// The wait of one request or connection.
#[derive(Debug, Default)]
pub(super) struct Patience {
    until: Option<Instant>,
}

impl Patience {
    /// Asks for what `failure` lacks, and waits for a snapshot after `known`, in which it may be.
    ///
    /// # Errors
    /// It lacks nothing that could be asked for, or no answer came in time.
    pub(super) async fn learn(
        &mut self,
        worker: &Worker,
        known: &Snapshot,
        failure: Failure,
    ) -> Result<Current, Failure> {
        let Failure::NotHeld { ask, .. } = failure else { return Err(failure) };
        let wait = worker.shared.config.limits.first_call_wait_ms;
        let wait = known.mesh.request_timeout_ms.map_or(wait, |deadline| wait.min(deadline));
        let until = *self.until.get_or_insert_with(|| Instant::now() + Duration::from_millis(wait));
        let mut swapped = worker.shared.swapped.subscribe();
        loop {
            if !worker.shared.asking.ask(&ask, known.generation, std::time::Instant::now()) {
                return Err(Failure::NotHeld { ask, why: "too many others are being asked for" });
            }
            match worker.snapshot() {
                Some(latest) if latest.generation != known.generation => return Ok(latest),
                Some(_) | None => {}
            }
            if tokio::time::timeout_at(until, swapped.changed()).await.is_err() {
                return Err(Failure::NotHeld { ask, why: "the control plane has not answered in time" });
            }
        }
    }
}

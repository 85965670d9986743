//! Streams that stand longer than the configuration that let them pass: tunnels, upgraded requests and every other request
//! that is under way. Each new configuration judges them again, by its authorization alone: a limit was charged and a fault
//! was dealt when they began.

use std::pin::pin;

use crate::reply::Failure;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

/// Resolves when a configuration other than the one that let it pass (`judged_by`, what it admits) no longer lets pass
/// what `judge` judges; at once, where such a one came while it was opened.
pub(super) async fn until_denied(
    worker: &Worker,
    mut judged_by: u64,
    judge: impl AsyncFn(&Snapshot) -> Result<(), Failure>,
) -> Failure {
    loop {
        // Made before the look at the snapshot, so that no change is missed.
        let swapped = pin!(worker.admits_otherwise.notified());
        if worker.shared.admits() != judged_by
            && let Some(snapshot) = worker.snapshot()
        {
            judged_by = snapshot.admits;
            // Boxed: rare, and larger than the wait that every request carries along.
            if let Err(denied) = Box::pin(judge(&snapshot)).await {
                return Failure::NoLongerAllowed(denied.to_string());
            }
        }
        swapped.await;
    }
}

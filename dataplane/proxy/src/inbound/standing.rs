//! Tunnels and upgraded requests, which stand longer than a configuration. Each new configuration judges them again, by
//! its authorization alone: a limit was charged and a fault was dealt when they began.

use crate::reply::Failure;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

/// Resolves when a configuration other than the one that let it pass (`judged_by`, its generation) no longer lets pass
/// what `judge` judges; at once, where such a one came while it was opened.
pub(super) async fn until_denied(
    worker: &Worker,
    mut judged_by: u64,
    judge: impl AsyncFn(&Snapshot) -> Result<(), Failure>,
) -> Failure {
    let mut swapped = worker.shared.swapped.subscribe();
    loop {
        if let Some(snapshot) = worker.snapshot()
            && snapshot.generation != judged_by
        {
            judged_by = snapshot.generation;
            if let Err(denied) = judge(&snapshot).await {
                return Failure::NoLongerAllowed(denied.to_string());
            }
        }
        if swapped.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

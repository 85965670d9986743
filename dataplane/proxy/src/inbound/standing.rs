//! What stands longer than a configuration: tunnels and upgraded requests. Each new configuration judges them again.

use crate::reply::Failure;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

/// Resolves when a configuration that came since no longer lets pass what `judge` judges.
pub(super) async fn until_denied(worker: &Worker, judge: impl AsyncFn(&Snapshot) -> Result<(), Failure>) -> Failure {
    let mut swapped = worker.shared.swapped.subscribe();
    loop {
        if swapped.changed().await.is_err() {
            return std::future::pending().await;
        }
        let Some(snapshot) = worker.snapshot() else { continue };
        if let Err(denied) = judge(&snapshot).await {
            return Failure::NoLongerAllowed(denied.to_string());
        }
    }
}

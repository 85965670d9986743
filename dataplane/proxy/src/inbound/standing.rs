//! Streams that stand longer than the configuration that let them pass: tunnels, upgraded requests and every other request
//! that is under way. Each new configuration judges them again, by its authorization alone: a limit was charged and a fault
//! was dealt when they began. A denial ends them at once. Authorization that fails instead of deciding is asked again for a
//! while, since one trap or late answer would end everything that stands; whoever comes anew is refused by it meanwhile.

use std::pin::pin;
use std::time::Duration;

use tokio::time::Instant;

use crate::reply::Failure;
use crate::snapshot::Snapshot;
use crate::telemetry::counters::Limited;
use crate::worker::Worker;

/// The first pause before an authorization that failed is asked again; it doubles, so that what one stream costs the filter
/// never looks like a filter that fails for all.
const AGAIN: Duration = Duration::from_secs(1);

/// Resolves when a configuration other than the one that let it pass (`judged_by`, what it admits) no longer lets pass
/// what `judge` judges; at once, where such a one came while it was opened.
pub(super) async fn until_denied(
    worker: &Worker,
    mut judged_by: u64,
    judge: impl AsyncFn(&Snapshot) -> Result<(), Failure>,
) -> Failure {
    let patience = Duration::from_millis(worker.shared.config.limits.standing_undecided_ms);
    let (mut undecided_since, mut pause) = (None, AGAIN);
    loop {
        // Made before the look at the snapshot, so that no change is missed.
        let swapped = pin!(worker.admits_otherwise.notified());
        if worker.shared.admits() != judged_by
            && let Some(snapshot) = worker.snapshot()
        {
            // Boxed: rare, and larger than the wait that every request carries along.
            match Box::pin(judge(&snapshot)).await {
                Ok(()) => (judged_by, undecided_since, pause) = (snapshot.admits, None, AGAIN),
                Err(failure) if failure.is_undecided() => {
                    let since = *undecided_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= patience {
                        Limited::StandingUndecided.hit();
                        return Failure::NoLongerAllowed(failure.to_string());
                    }
                    drop(snapshot);
                    let left = patience.saturating_sub(since.elapsed());
                    let _ = Box::pin(tokio::time::timeout(left.min(pause), swapped)).await;
                    pause *= 2;
                    continue;
                }
                Err(denied) => return Failure::NoLongerAllowed(denied.to_string()),
            }
        }
        swapped.await;
    }
}

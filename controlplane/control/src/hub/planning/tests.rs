//! Plans beside changes: neither waits for the other.

use std::time::Duration;

use super::super::tests::{SHOP, hub_in, resources};
use super::super::{ApplyError, How};

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_dry_run_waits_for_no_writer() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let writing = hub.writer.lock().await;
    let planned = tokio::time::timeout(PATIENCE, hub.apply("me", resources(SHOP), How::DryRun)).await;
    assert_eq!(planned.expect("no lock is waited for").unwrap().changes.len(), 2);
    drop(writing);
    // The other way round: a change is made while all plans that may be computed are.
    let plans = (hub.plans.take(&"a".to_owned()).await, hub.plans.take(&"b".to_owned()).await);
    let applied = tokio::time::timeout(PATIENCE, hub.apply("me", resources(SHOP), How::Safely)).await;
    assert_eq!(applied.expect("no plan is waited for").unwrap().revision.0, 1);
    drop(plans);
}

#[tokio::test]
async fn so_many_plans_are_computed_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |config| {
        config.limits.max_concurrent_plans = 1;
        config.limits.request_timeout_ms = 50;
    });
    let plan = hub.plans.take(&"other".to_owned()).await;
    let error = hub.apply("me", resources(SHOP), How::DryRun).await.unwrap_err();
    assert!(matches!(error, ApplyError::Busy(_)), "{error}");
    assert!(hub.metrics().render().contains("weft_control_throttled_total{reason=\"plans\"} 1"));
    drop(plan);
    hub.apply("me", resources(SHOP), How::DryRun).await.unwrap();
}

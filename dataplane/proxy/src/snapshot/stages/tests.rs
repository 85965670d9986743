//! What stands in for filters that are not there yet.

use super::*;

#[test]
fn what_runs_until_a_filter_is_ready_lets_no_more_through() {
    use Readiness::{Failed, Pending, Ready};
    // (how far it is, whether an earlier configuration of it runs, whether it is required)
    let cases = [
        (Ready, false, false, Runs::Told),
        (Ready, false, true, Runs::Told),
        (Ready, true, false, Runs::Told),
        (Ready, true, true, Runs::Told),
        (Pending, true, true, Runs::Earlier),
        (Pending, true, false, Runs::Earlier),
        (Pending, false, true, Runs::Nothing),
        (Pending, false, false, Runs::Skipped),
        (Failed, true, true, Runs::Earlier),
        (Failed, true, false, Runs::Skipped),
        (Failed, false, true, Runs::Nothing),
        (Failed, false, false, Runs::Skipped),
    ];
    for (readiness, has_earlier, is_required, expected) in cases {
        assert_eq!(runs(readiness, has_earlier, is_required), expected, "{readiness:?} {has_earlier} {is_required}");
    }
}

fn attachment(on_failure: OnFailure, mode: FilterMode, authorization: bool) -> FilterAttachment {
    let told = serde_json::json!({
        "name": "shop/f", "filter": "f", "version": "1.0.0", "digest": "", "signature": "", "public_key_pem": "",
        "direction": "Inbound", "order": 0, "mode": mode, "on_failure": on_failure, "authorization": authorization,
        "config": "", "capabilities": [], "limits": {"memory_bytes": 1, "call_timeout_ms": 1}, "workloads": [],
    });
    serde_json::from_value(told).unwrap()
}

#[test]
fn a_filter_is_required_where_its_absence_would_let_something_through() {
    let cases = [
        (OnFailure::Deny, FilterMode::Enforce, false, true),
        (OnFailure::Deny, FilterMode::Audit, false, false),
        (OnFailure::Allow, FilterMode::Enforce, false, false),
        (OnFailure::Allow, FilterMode::Enforce, true, true),
        (OnFailure::Allow, FilterMode::Audit, true, false),
    ];
    for (on_failure, mode, authorization, expected) in cases {
        let attachment = attachment(on_failure, mode, authorization);
        assert_eq!(is_required(&attachment), expected, "{on_failure:?} {mode:?} {authorization}");
    }
}

/// No filter of these is there at all.
#[test]
fn a_workload_without_a_chain_before_waits_for_the_filters_that_it_needs() {
    let told = serde_json::json!({
        "name": {"namespace": "shop", "name": "web"}, "identity": "spiffe://cluster.local/ns/shop/sa/web",
        "address": "127.0.0.11", "ports": [],
    });
    let workload: ServedWorkload = serde_json::from_value(told).unwrap();
    let chain = |attachment: FilterAttachment, awaited: Option<Readiness>, before: Option<&Chain>| {
        let bundle = Bundle { filters: [(attachment.name.clone(), attachment)].into(), ..Bundle::default() };
        let awaited: Awaited = awaited.map(|readiness| ("shop/f".to_owned(), readiness)).into_iter().collect();
        let stage = Stage { bundle: &bundle, loaded: &Loaded::new(), awaited: &awaited };
        let made = stage.chain(&workload, Direction::Inbound, before.map(|before| (before, None)));
        made.map(|(chain, guard)| (chain.filters().len(), guard.is_some()))
    };
    let needed = || attachment(OnFailure::Deny, FilterMode::Enforce, false);
    let not_ready = Err(SnapshotError::FilterNotReady { name: "shop/f".to_owned() });
    let before = Chain::default();
    assert_eq!(chain(needed(), None, Some(&before)), not_ready, "nobody said that it is awaited");
    assert_eq!(chain(needed(), Some(Readiness::Pending), None), not_ready);
    assert_eq!(chain(needed(), Some(Readiness::Pending), Some(&before)), Ok((0, true)));
    assert_eq!(chain(needed(), Some(Readiness::Failed), Some(&before)), Ok((0, true)));
    let passed_by = || attachment(OnFailure::Allow, FilterMode::Enforce, false);
    assert_eq!(chain(passed_by(), Some(Readiness::Pending), None), Ok((0, false)));
    assert_eq!(chain(passed_by(), None, None), Ok((0, false)));
}

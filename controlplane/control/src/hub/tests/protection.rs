//! Changes that take a policy's protection from a workload.

use weft_policy::lint::Code;

use super::*;

#[tokio::test]
async fn what_takes_protection_away_is_forced_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let guarded = guarded(&hub).await;
    hub.apply("me", resources(&guarded), How::Safely).await.unwrap();
    let service = || ObjectKey::new(Kind::Service, "shop", "web");
    let error = hub.delete("me", service(), How::Safely).await.unwrap_err();
    let opened =
        "Workload shop/web-1 would no longer be protected by AccessPolicy shop/guard: its target Service shop/web";
    assert_eq!(error.to_string(), format!("{opened} does not exist; --force does it all the same"));
    let selector = guarded.replace("selector: {app: web}", "selector: {app: wep}");
    let error = hub.apply("me", resources(&selector), How::Safely).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{opened} does not select it any more; --force does it all the same"));
    let planned = hub.apply("me", resources(&selector), How::DryRun).await.unwrap();
    assert!(
        planned.findings.iter().any(|finding| finding.severity == Severity::Error && finding.message.contains(opened))
    );
    // With another error both are told at once.
    let nowhere = "---\napiVersion: weft.dev/v1alpha1\nkind: FilterPolicy\nmetadata: {name: f, namespace: shop}\n\
                   spec: {filter: {name: nowhere}}\n";
    let both = format!("{selector}{nowhere}");
    let error = hub.apply("me", resources(&both), How::Safely).await.unwrap_err();
    let ApplyError::Unsound(findings) = &error else { panic!("{error}") };
    let codes: Vec<_> = findings.iter().map(|finding| finding.code).collect();
    assert_eq!((codes.len(), codes.last()), (2, Some(&Code::Unprotects)), "{findings:?}");
    hub.delete("me", service(), How::Forced).await.unwrap();
    let (_, audited) = hub.audit(None, 1).await.unwrap().remove(0);
    assert_eq!(
        (audited.action.as_str(), audited.detail.as_str()),
        ("delete", "forced; unprotected: shop/web-1 from AccessPolicy shop/guard")
    );
}

//! A root is replaced: who is told, what is still needed, and when the old one goes.

use weft_policy::delta::Object;

use super::*;
use crate::hub::RotationError;
use crate::hub::rotation::Begun;
use crate::registry::Progress;

/// Roots that proxies are told to trust.
fn told(hub: &Hub) -> usize {
    let all = hub.published().told.of_proxy(&[]);
    let mesh = all.iter().find_map(|told| match &told.object {
        Object::Mesh(mesh) => Some(mesh.trust_bundle_pem.matches("BEGIN CERTIFICATE").count()),
        Object::Service(_) | Object::Workload(_) | Object::Route(_) | Object::External(_) | Object::Filter(_) => None,
    });
    mesh.unwrap()
}

async fn left(hub: &Arc<Hub>) -> Option<(Vec<String>, usize)> {
    let left = hub.rotation().await.unwrap().left?;
    Some((left.waiting.into_iter().map(|key| key.name).collect(), left.certificates))
}

#[tokio::test]
async fn a_root_is_dropped_once_nothing_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |config| {
        config.svid_ttl_seconds = 60;
        config.identity_grace_seconds = 0;
    });
    let (before, revision) = (hub.authority().fingerprint(), hub.published().revision);
    assert_eq!((told(&hub), left(&hub).await), (1, None));
    assert!(matches!(hub.finish_rotation("me", true).await, Err(RotationError::Rotate(_))));
    let seat = enter(&hub, &proxy("here"));
    let grant = Grant::Join { identity: proxy("here").identity, uses_left: 2, grants: Default::default() };
    let token = hub.create_token("me", grant, None).await.unwrap();
    hub.join(token.text.reveal(), &csr(), None).await.unwrap();

    hub.rotate_root("me").await.unwrap();
    assert!(told(&hub) == 2 && hub.published().revision > revision);
    assert_eq!(left(&hub).await, Some((vec!["here".to_owned()], 1)), "one that has not acknowledged it");
    let progress = |refused| Progress { synced: hub.published().revision, refused, ..Progress::default() };
    let refused = vec![(revision, "Mesh: the trust bundle is not PEM".to_owned())];
    hub.registry().record_progress(&seat, progress(refused), hub.published().revision);
    assert_eq!(left(&hub).await.unwrap().0, ["here"], "one that refuses it");
    hub.registry().record_progress(&seat, progress(Vec::new()), hub.published().revision);
    assert_eq!(left(&hub).await, Some((vec![], 1)));
    // What the new root vouches for needs no other.
    hub.join(token.text.reveal(), &csr(), None).await.unwrap();
    assert_eq!(left(&hub).await, Some((vec![], 1)));
    let refused = hub.finish_rotation("me", false).await.unwrap_err().to_string();
    assert!(refused.contains("1 certificates that it vouches for are not over, 0 proxies"), "{refused}");
    hub.tend_rotation().await;
    assert_eq!(told(&hub), 2);
    assert!(hub.metrics().render().contains("weft_control_trusted_roots 2"));
    // A start between goes on with it.
    drop(hub);
    let hub = hub_in(dir.path(), |config| config.identity_grace_seconds = 0);
    assert_eq!((told(&hub), left(&hub).await), (2, Some((vec![], 1))));

    hub.finish_rotation("me", true).await.unwrap();
    assert_eq!((told(&hub), left(&hub).await), (1, None));
    assert_ne!(hub.authority().fingerprint(), before);
    assert_eq!(hub.store.root().unwrap(), Some(hub.authority().fingerprint()));
    let done: Vec<_> = hub.audit(None, 100).await.unwrap().into_iter().map(|(_, entry)| entry.action).collect();
    for action in ["ca.rotate", "ca.finish"] {
        assert_eq!(done.iter().filter(|done| *done == action).count(), 1, "{action}: {done:?}");
    }
}

#[tokio::test]
async fn a_store_that_may_not_know_what_was_issued_drops_no_root() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |config| {
        config.svid_ttl_seconds = 60;
        config.identity_grace_seconds = 0;
    });
    // Nothing was issued, as far as this store knows; it was lost before, or set back, as a proxy says.
    let seat = hub.registry().enter(proxy("ahead"), Default::default(), OffsetDateTime::now_utc()).unwrap().seat;
    hub.registry().record_progress(&seat, Progress { is_left_alone: true, ..Progress::default() }, Revision(0));
    hub.accept_store("me").await.unwrap();
    hub.registry().leave(&seat, true);
    let shown = crate::registry::Introduction { certificate: "0a:0b".to_owned(), ..Default::default() };
    let seat = hub.registry().enter(proxy("here"), shown, OffsetDateTime::now_utc()).unwrap().seat;
    hub.rotate_root("me").await.unwrap();
    let progress = Progress { synced: hub.published().revision, ..Progress::default() };
    hub.registry().record_progress(&seat, progress, hub.published().revision);
    assert_eq!(left(&hub).await, Some((vec![], 1)), "the certificate that it shows");
    let refused = hub.finish_rotation("me", false).await.unwrap_err();
    assert!(matches!(refused, RotationError::Needed { certificates: 1, .. }), "{refused}");
    hub.registry().leave(&seat, true);
    assert_eq!(left(&hub).await, Some((vec![], 0)));
    hub.tend_rotation().await;
    assert_eq!(told(&hub), 2, "another may come that has one");
    assert!(matches!(hub.finish_rotation("me", false).await, Err(RotationError::Early)));

    let shown = crate::registry::Introduction { certificate: "0a:0b".to_owned(), ..Default::default() };
    let seat = hub.registry().enter(proxy("here"), shown, OffsetDateTime::now_utc()).unwrap().seat;
    hub.finish_rotation("me", true).await.unwrap();
    assert_eq!(told(&hub), 1);
    assert!(seat.replaced.is_cancelled() && seat.why().unwrap().contains("not trusted any more"));
}

/// What a drop needs that could not be told is told as soon as it can be.
#[tokio::test]
async fn what_is_trusted_is_told_however_late() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    hub.rotate_root("me").await.unwrap();
    assert_eq!(told(&hub), 2);
    // As where the store took nothing after the drop.
    hub.authority().finish_rotation().unwrap();
    assert_eq!(told(&hub), 2);
    hub.tend_rotation().await;
    assert_eq!(told(&hub), 1);
    let revision = hub.published().revision;
    hub.tend_rotation().await;
    assert_eq!(hub.published().revision, revision, "once");
    // And where a start found it.
    drop(hub);
    crate::ca::Authority::open(dir.path(), "cluster.local", OffsetDateTime::now_utc())
        .unwrap()
        .rotate(OffsetDateTime::now_utc())
        .unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let revision = hub.published().revision;
    let seat = enter(&hub, &proxy("here"));
    hub.registry().record_progress(&seat, Progress { synced: revision, ..Progress::default() }, revision);
    assert_eq!(left(&hub).await.unwrap().0, ["here"], "it has what was told before");
    hub.tend_rotation().await;
    assert!(hub.published().revision > revision);
}

#[test]
fn a_clock_that_is_set_ahead_ends_no_certificate() {
    let begun = Begun::parse("root-b 500 10000 true", "root-b").unwrap();
    assert_eq!(Begun::parse("root-a 500 10000 true", "root-b"), None, "that of an earlier one");
    assert_eq!(begun.now(560, 10_060), 10_060);
    assert_eq!(begun.now(560, 10_060 + 30 * 86_400), 10_060, "ahead");
    assert_eq!(begun.now(560, 9_000), 9_000, "behind: nothing ends");
    assert!(begun.is_early(559, 60) && !begun.is_early(560, 60));
    let unused = Begun::parse("root-b 500 10000 false", "root-b").unwrap();
    assert!(!unused.is_early(501, 60), "nothing was ever issued");
}

#[tokio::test]
async fn a_root_that_nothing_needs_is_dropped_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    hub.rotate_root("me").await.unwrap();
    for refused in [hub.rotate_root("me").await, hub.rotate_intermediate("me").await] {
        assert!(refused.unwrap_err().to_string().contains("is being replaced already"));
    }
    hub.tend_rotation().await;
    assert_eq!((told(&hub), left(&hub).await), (1, None));
    hub.tend_rotation().await;
    let intermediate = hub.authority().authorities().intermediate_not_after;
    hub.rotate_intermediate("me").await.unwrap();
    assert!(hub.authority().authorities().intermediate_not_after >= intermediate);
    assert_eq!(told(&hub), 1);
}

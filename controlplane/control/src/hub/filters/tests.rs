//! Versions of filters: which one runs, which one a policy names, and the one that the mesh can't do without.

use weft_policy::plan::World;
use weft_policy::resource::Resource;

use super::super::How;
use super::super::tests::{SHOP, hub_in, resources};
use super::*;
use crate::artifact::tests::artifact;
use crate::builtin;

/// A filter that differs by what it imports.
fn publication(name: &str, version: &str, import: &str) -> Publication {
    let artifact = artifact(import);
    let (name, version) = (name.to_owned(), version.to_owned());
    Publication { name, version, artifact, accept_new_key: false, make_current: false }
}

const OLD: &str = "weft:filter/log@0.1.0";
const NEW: &str = "weft:filter/metrics@0.1.0";

fn current(world: &World, name: &str) -> String {
    world.filter(&ObjectName::new(ROOT_NAMESPACE, name)).unwrap().spec.version.clone()
}

fn authz_key() -> ObjectKey {
    ObjectKey::new(Kind::Filter, ROOT_NAMESPACE, AUTHZ)
}

#[tokio::test]
async fn an_older_version_is_current_only_if_that_is_wanted_and_policies_may_name_it() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let new = hub.publish_filter("me", publication("noop", "1.10.0", NEW)).await.unwrap();
    let old = hub.publish_filter("me", publication("noop", "1.9.0", OLD)).await.unwrap();
    assert_eq!(current(&hub.published().world, "noop"), "1.10.0");
    let policy = |version: &str| {
        resources(&format!(
            "{SHOP}---\napiVersion: weft.dev/v1alpha1\nkind: FilterPolicy\nmetadata: {{name: f, namespace: shop}}\n\
             spec: {{filter: {{name: noop{version}}}}}\n"
        ))
    };
    let digest = |hub: &Hub| {
        let web = ObjectName::new("shop", "web-1");
        filters_for(&hub.published().world, &[web]).remove("shop/f").unwrap().digest
    };
    hub.apply("me", policy(""), How::Safely).await.unwrap();
    assert_eq!(digest(&hub), new.digest);
    hub.apply("me", policy(", version: 1.9.0"), How::Safely).await.unwrap();
    assert_eq!(digest(&hub), old.digest);
    let identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    assert!(hub.may_fetch(&identity, &old.digest));
    let error = hub.apply("me", policy(", version: 3.0.0"), How::Safely).await.unwrap_err().to_string();
    assert!(error.contains("is published as 1.10.0, not as 3.0.0"), "{error}");
    drop(hub);

    // The same after a restart; and back to the old one by an operator's word.
    let hub = hub_in(dir.path(), |_| {});
    assert_eq!(digest(&hub), old.digest);
    let back = Publication { make_current: true, ..publication("noop", "1.9.0", OLD) };
    hub.publish_filter("me", back).await.unwrap();
    assert_eq!(current(&hub.published().world, "noop"), "1.9.0");
}

#[tokio::test]
async fn nobody_deletes_replaces_or_publishes_what_enforces_access_policies() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    hub.publish_filter(SYSTEM, publication(AUTHZ, "1.0.0", OLD)).await.unwrap();
    hub.publish_filter(SYSTEM, publication(AUTHZ, "1.1.0", NEW)).await.unwrap();
    for how in [How::Safely, How::Forced] {
        let error = hub.delete("operator:x", authz_key(), how).await.unwrap_err();
        assert!(matches!(error, ApplyError::Own(_)), "{error}");
    }
    let mut publication = publication(AUTHZ, "2.0.0", OLD);
    publication.accept_new_key = true;
    let error = hub.publish_filter("operator:x", publication).await.unwrap_err();
    assert!(matches!(error, PublishError::Own(_)), "{error}");
    // Also not by a manifest of another version that was published.
    let world = hub.published().world.clone();
    let mut filter = world.filter(&authz_key().object_name()).unwrap().clone();
    hub.apply("operator:x", vec![Resource::Filter(filter.clone())], How::Safely).await.unwrap();
    filter.spec = world.published_version(&authz_key().object_name(), "1.0.0").unwrap().clone();
    let error = hub.apply("operator:x", vec![Resource::Filter(filter)], How::Forced).await.unwrap_err();
    assert!(matches!(error, ApplyError::Own(_)), "{error}");
    assert_eq!(current(&hub.published().world, AUTHZ), "1.1.0");
}

#[tokio::test]
async fn authz_is_put_right_whatever_of_it_is_lost_or_damaged() {
    let json = |key: &str| Write::PutObject { key: key.to_owned(), json: "{".to_owned() };
    let digest = publication(AUTHZ, "1.0.0", OLD).artifact.digest;
    let record = "authz@1.0.0".to_owned();
    let bytes = vec![0; 10];
    let damages = [
        ("object deleted", vec![Write::DeleteObject { key: "filters/weft-system/authz".to_owned() }]),
        ("object unreadable", vec![json("filters/weft-system/authz")]),
        ("binary damaged", vec![Write::PutArtifact { digest: digest.clone(), bytes: bytes.clone() }]),
        ("record unreadable", vec![Write::PutFilterVersion { key: record.clone(), json: "{".to_owned() }]),
        (
            "everything",
            vec![
                json("filters/weft-system/authz"),
                Write::PutArtifact { digest, bytes },
                Write::PutFilterVersion { key: record, json: "{".to_owned() },
            ],
        ),
    ];
    // The release's own version lies beside the executable.
    let shipped = tempfile::tempdir().unwrap();
    let binary = publication(AUTHZ, "1.0.0", NEW).artifact.bytes;
    std::fs::write(shipped.path().join("authz.wasm"), binary).unwrap();
    for (damage, writes) in damages {
        let dir = tempfile::tempdir().unwrap();
        let hub = hub_in(dir.path(), |_| {});
        hub.publish_filter(SYSTEM, publication(AUTHZ, "1.0.0", OLD)).await.unwrap();
        builtin::keep_authz(&hub).await.unwrap();
        hub.store.commit(None, writes).unwrap();
        drop(hub);
        let hub = hub_in(dir.path(), |config| config.builtin_filters = Some(shipped.path().to_owned()));
        builtin::keep_authz(&hub).await.unwrap();
        assert!(builtin::is_in_order(&hub), "{damage}");
        let revision = hub.published().revision;
        builtin::keep_authz(&hub).await.unwrap();
        assert_eq!(hub.published().revision, revision, "{damage}: once and for all");
        let world = hub.published().world.clone();
        let spec = &world.filter(&authz_key().object_name()).unwrap().spec;
        let bytes = hub.artifact(spec.digest.clone()).await.unwrap().unwrap();
        assert!(Artifact::verify(bytes.to_vec(), &spec.signature, &spec.public_key).is_ok(), "{damage}");
    }
}

#[tokio::test]
async fn a_binary_is_in_memory_once_however_many_fetch_it() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let published = hub.publish_filter("me", publication("noop", "1.0.0", OLD)).await.unwrap();
    let fetch = async || hub.artifact(published.digest.clone()).await.unwrap().unwrap();
    let fetched = [fetch().await, fetch().await, fetch().await];
    assert!(fetched.iter().all(|copy| Arc::ptr_eq(copy, &fetched[0])), "one copy for all");
    drop(fetched);
    assert!(hub.artifacts.0.lock().await.values().all(|copy| copy.strong_count() == 0), "and none for nobody");
    assert_eq!(fetch().await.len(), publication("noop", "1.0.0", OLD).artifact.bytes.len());
}

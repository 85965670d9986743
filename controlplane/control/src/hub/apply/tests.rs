//! Restrictions that go with an object.

use super::*;
use crate::hub::tests::{SHOP, hub_in, resources, tamper};

#[tokio::test]
async fn the_mesh_is_not_opened_by_deleting_its_settings() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let mesh = |spec: &str| {
        resources(&format!("{{apiVersion: weft.dev/v1alpha1, kind: Mesh, metadata: {{name: mesh}}, spec: {spec}}}"))
    };
    let key = ObjectKey::new(Kind::Mesh, "", "mesh");
    hub.apply("me", mesh("{egress: RegistryOnly}"), How::Safely).await.unwrap();
    let refused = hub.delete("me", key.clone(), How::Safely).await.unwrap_err().to_string();
    assert_eq!(
        refused,
        "Mesh mesh: without it applications reach every destination outside (egress RegistryOnly); --force does it all the same"
    );
    hub.delete("me", key.clone(), How::Forced).await.unwrap();
    hub.apply("me", mesh("{egress: RegistryOnly}"), How::Safely).await.unwrap();
    // Who writes it otherwise wants it so.
    hub.apply("me", mesh("{egress: Allow}"), How::Safely).await.unwrap();
    hub.delete("me", key, How::Safely).await.unwrap();
}

#[tokio::test]
async fn a_filter_policy_that_cannot_be_read_closes_until_it_is_put_right() {
    let dir = tempfile::tempdir().unwrap();
    hub_in(dir.path(), |_| {}).apply("me", resources(SHOP), How::Safely).await.unwrap();
    let broken = r#"{"entry":{"resource":{"spec":{"targetRefs":[{"kind":"Service","name":"web"}]}}}}"#;
    tamper(dir.path(), &[("filterpolicies/shop/limit", broken)]);
    let hub = hub_in(dir.path(), |_| {});
    let stand_in = ObjectKey::new(Kind::AccessPolicy, "shop", "limit.unreadable-filter-policy");
    let published = hub.published();
    let Resource::AccessPolicy(closed) = &published.world.get(&stand_in).unwrap().resource else { panic!("no policy") };
    assert_eq!((closed.spec.rules.len(), closed.spec.target_refs[0].name.as_str()), (0, "web"));
    hub.delete("me", ObjectKey::new(Kind::FilterPolicy, "shop", "limit"), How::Safely).await.unwrap();
    assert!(hub.published().world.get(&stand_in).is_none(), "and nothing stays closed");
}

//! Restrictions that go with an object.

use super::*;
use crate::hub::tests::{hub_in, resources};

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

//! Secrets from an apply to the next start: kept with their values, in plain text or encrypted, and told to nobody.

use weft_policy::resource::{Object, SecretSpec};
use weft_policy::secret::SecretBytes;

use super::*;
use crate::check::findings;
use crate::config::Ports;
use crate::seal::Seal;
use crate::store::AuditQuery;

const PLAIN: &str = "correct horse battery";
const CODED: &str = "Y29ycmVjdCBob3JzZSBiYXR0ZXJ5";

fn hub_with(state: &Path, secret: Option<&str>) -> Arc<Hub> {
    let config = Config { state: state.to_owned(), try_filters: false, ..Config::default() };
    let store = Store::open(&state.join("weft.redb"), 1000).unwrap();
    let store = match secret {
        Some(secret) => store.with_seal(Seal::new(secret.as_bytes(), "salt")),
        None => store,
    };
    let authority = Arc::new(Authority::open(state, &config.trust_domain, OffsetDateTime::now_utc()).unwrap());
    Hub::start(config, Arc::new(store), authority, Arc::new(Metrics::new()), CancellationToken::new()).unwrap()
}

fn secret(value: &str) -> Vec<Resource> {
    resources(&format!(
        "apiVersion: weft.dev/v1alpha1\nkind: Secret\nmetadata: {{name: s, namespace: shop}}\nspec: {{stringData: {{k: {value}}}}}"
    ))
}

/// The value as filters would be handed it, in base64.
fn value(hub: &Hub) -> Option<String> {
    let published = hub.published();
    let Resource::Secret(Object { spec: SecretSpec { data }, .. }) =
        &published.world.get(&ObjectKey::new(Kind::Secret, "shop", "s")).unwrap().resource
    else {
        panic!("no Secret")
    };
    data["k"].known().map(SecretBytes::to_base64)
}

/// The value as the store has it.
async fn stored(hub: &Hub) -> String {
    let rows = hub.blocking(Store::frozen).await.unwrap().objects::<serde_json::Value>();
    let (_, record) = rows.read.into_iter().find(|(key, _)| key == "secrets/shop/s").unwrap();
    record["entry"]["resource"]["spec"]["data"]["k"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_secret_outlives_a_restart_and_is_told_in_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_with(dir.path(), None);
    for how in [How::DryRun, How::Safely] {
        let applied = hub.apply("me", secret(PLAIN), how).await.unwrap();
        let diff = &applied.changes[0].diff;
        assert!(diff.contains("redacted (21 bytes, sha256 ") && !diff.contains("correct"), "{diff}");
    }
    assert_eq!(stored(&hub).await, CODED);
    drop(hub);
    let hub = hub_with(dir.path(), None);
    assert_eq!(value(&hub).as_deref(), Some(CODED));
    let again = hub.apply("me", secret(PLAIN), How::Safely).await.unwrap();
    assert_eq!(again.changes[0].action, Action::Unchanged);
    let rotated = hub.apply("me", secret("another one"), How::Safely).await.unwrap();
    assert_eq!(rotated.changes[0].action, Action::Changed);
    hub.delete("me", ObjectKey::new(Kind::Secret, "shop", "s"), How::Safely).await.unwrap();
    let log = hub.blocking(|store| store.audit(&AuditQuery { limit: 100, ..AuditQuery::default() })).await.unwrap();
    let told = format!("{log:?}");
    assert!(told.contains("redacted (21 bytes"), "{told}");
    for plain in ["correct", CODED, "another one", "YW5vdGhlciBvbmU"] {
        assert!(!told.contains(plain), "{told}");
    }
}

#[tokio::test]
async fn with_a_key_the_store_has_no_value_in_plain_text() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_with(dir.path(), Some("a long passphrase"));
    hub.apply("me", secret(PLAIN), How::Safely).await.unwrap();
    let sealed = stored(&hub).await;
    assert!(sealed.starts_with("sealed:") && !sealed.contains(CODED), "{sealed}");
    drop(hub);
    let hub = hub_with(dir.path(), Some("a long passphrase"));
    assert_eq!(value(&hub).as_deref(), Some(CODED));
    assert!(hub.published().unreadable.is_empty());
    drop(hub);
    // What an earlier start left in plain text is encrypted once there is a key.
    let plain = tempfile::tempdir().unwrap();
    let hub = hub_with(plain.path(), None);
    hub.apply("me", secret(PLAIN), How::Safely).await.unwrap();
    drop(hub);
    let store = Store::open(&plain.path().join("weft.redb"), 1000).unwrap();
    let store = store.with_seal(Seal::new(b"a long passphrase", "salt"));
    assert_eq!((store.seal_all().unwrap(), store.seal_all().unwrap()), (1, 0));
    drop(store);
    let hub = hub_with(plain.path(), Some("a long passphrase"));
    assert_eq!(value(&hub).as_deref(), Some(CODED));
    assert!(stored(&hub).await.starts_with("sealed:"));
    drop(hub);
    // Without its key nobody is handed it, and it is not lost.
    for other in [None, Some("another passphrase")] {
        let hub = hub_with(dir.path(), other);
        assert_eq!(value(&hub), None);
        hub.apply("me", resources(SHOP), How::Safely).await.unwrap();
        drop(hub);
    }
    assert_eq!(value(&hub_with(dir.path(), Some("a long passphrase"))).as_deref(), Some(CODED));
}

/// A start goes on without them, and says so.
#[tokio::test]
async fn secrets_that_can_not_be_opened_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_with(dir.path(), Some("a long passphrase"));
    hub.apply("me", secret(PLAIN), How::Safely).await.unwrap();
    drop(hub);
    let found = findings(&Config { state: dir.path().to_owned(), ports: Ports::ANY, ..Config::default() });
    let told = "values of shop/s are encrypted with another secret than that of ca_secret_file";
    assert!(found.faults.iter().any(|fault| fault.contains(told)), "{found:?}");
    let store = Store::open(&dir.path().join("weft.redb"), 1000).unwrap();
    let unopened = |secret: &[u8]| store.unopened(Some(&Seal::new(secret, "salt"))).unwrap();
    assert_eq!(unopened(b"a long passphrase"), [""; 0]);
    assert_eq!(unopened(b"another passphrase"), ["shop/s"]);
}

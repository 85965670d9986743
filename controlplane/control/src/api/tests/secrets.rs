//! No answer of the API tells a value of a Secret, whoever asks and whatever happened to it.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::app::tests::Control;

/// The values that are written, with the beginnings of their base64.
const TOLD: [&str; 4] = ["hunter22", "aHVudGVyMj", "swordfish", "c3dvcmRmaX"];

fn secret(spec: &Value) -> Value {
    json!({"apiVersion": "weft.dev/v1alpha1", "kind": "Secret", "metadata": {"name": "s", "namespace": "shop"}, "spec": spec})
}

#[tokio::test]
async fn values_of_secrets_are_taken_and_never_given() {
    let (dir, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let key = keys.path().join("key");
    std::fs::write(&key, "a long passphrase\n").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let control = Control::start_with(dir.path(), |config| config.ca_secret_file = Some(key)).await;
    let apply = |spec: Value, dry_run: bool| {
        let body = json!({"documents": [secret(&spec)], "dry_run": dry_run});
        control.call("post", "/api/v1/apply", body)
    };
    let get = |path: &'static str| control.call("get", path, Value::Null);
    let first = json!({"stringData": {"hmac": "hunter22", "other": "hunter22-too"}});
    let second = json!({"data": {"hmac": "c3dvcmRmaXNo", "other": "aHVudGVyMjItdG9v"}});
    let mut answers = vec![apply(first.clone(), true).await, apply(first, false).await];
    answers.push(get("/api/v1/resources/secrets/shop/s").await);
    let shown = answers[2].1["spec"].clone();
    assert!(shown["data"]["hmac"].as_str().is_some_and(|text| text.starts_with("redacted (8 bytes")), "{shown}");
    answers.push(apply(second.clone(), true).await);
    answers.push(apply(second, false).await);
    for path in ["/api/v1/resources/secrets", "/api/v1/events?limit=100", "/api/v1/lint", "/api/v1/unreadable"] {
        answers.push(get(path).await);
    }
    for (status, body) in &answers {
        assert_eq!(*status, 200, "{body}");
    }
    // What was shown destroys nothing, and no mistake is told with what was written.
    let refused = apply(shown, false).await;
    assert!(refused.1.to_string().contains("is what is shown of a value, not the value"), "{}", refused.1);
    let mistakes = apply(json!({"data": {"hmac": "hunter22!"}, "stringData": "swordfish"}), false).await;
    for refused in [&refused, &mistakes] {
        assert_eq!(refused.0, 400, "{}", refused.1);
    }
    answers.extend([refused, mistakes]);
    for (_, body) in &answers {
        let text = body.to_string();
        assert!(TOLD.iter().all(|told| !text.contains(told)), "{text}");
    }
    let file = std::fs::read(dir.path().join("weft.redb")).unwrap();
    for told in TOLD {
        assert!(!file.windows(told.len()).any(|part| part == told.as_bytes()), "{told}");
    }
}

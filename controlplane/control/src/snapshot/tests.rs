//! Snapshots of a running control plane: the way back, and everything that must not be a way back.

use serde_json::{Value, json};
use weft_policy::lineage::follow;

use super::archive::{Writer, read};
use super::*;
use crate::app::tests::{Control, documents};

const OLD: &str = "
apiVersion: v1
kind: Service
metadata: {name: old, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

async fn saved(control: &Control) -> Vec<u8> {
    let response = control.request("get", "/api/v1/snapshot").bearer_auth(control.admin_token()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.bytes().await.unwrap().to_vec()
}

async fn restored(control: &Control, query: &str, bytes: Vec<u8>) -> (u16, Value) {
    let request = control.request("post", &format!("/api/v1/snapshot{query}")).bearer_auth(control.admin_token());
    let response = request.body(bytes).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn services(control: &Control) -> Vec<String> {
    let (status, body) = control.call("get", "/api/v1/resources/services", Value::Null).await;
    assert_eq!(status, 200, "{body}");
    body["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// What tells the age of the first service.
async fn age(control: &Control) -> [Value; 2] {
    let (_, body) = control.call("get", "/api/v1/resources/services/shop/old", Value::Null).await;
    ["creationRevision", "creationTimestamp"].map(|key| body["metadata"][key].clone())
}

#[tokio::test]
async fn a_snapshot_brings_everything_back_and_proxies_follow() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(OLD).await;
    let viewer = json!({ "kind": "operator", "role": "viewer", "name": "anna" });
    let (_, anna) = control.call("post", "/api/v1/tokens", viewer).await;
    let anna = anna["token"].as_str().unwrap().to_owned();
    let created = age(&control).await;
    assert!(created[0].is_u64() && created[1].is_string(), "{created:?}");
    let bytes = saved(&control).await;
    // What comes afterwards is gone with the restore: an object, a revoked token.
    control.apply(&OLD.replace("name: old", "name: new")).await;
    assert_eq!(control.call("delete", "/api/v1/tokens/anna", Value::Null).await.0, 200);
    let lead = control.app.hub.lead();
    let (root, revision) = (control.app.hub.authority().fingerprint(), control.app.hub.published().revision);
    let before = u64::try_from(crate::now_unix()).unwrap();
    let (status, answer) = restored(&control, "", bytes).await;
    let epoch = answer["epoch"].as_u64().unwrap();
    assert_eq!((status, &answer["restored"]["revision"]), (200, &json!(1)), "{answer}");
    assert!(epoch >= before, "{answer}");
    control.app.hub.restart_wanted().await;
    // Nothing is acknowledged any more that would be lost.
    let late = control.call("post", "/api/v1/apply", json!({ "documents": documents(OLD) }));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(200), late).await.is_err());
    control.app.stop().await;

    let control = Control::start(dir.path()).await;
    assert_eq!(services(&control).await, ["old"]);
    assert_eq!(age(&control).await, created, "it is as old as it was");
    assert_eq!(control.call_as(&anna, "get", "/api/v1/proxies", Value::Null).await.0, 200);
    assert_eq!(control.app.hub.authority().fingerprint(), root);
    let now = control.app.hub.lead();
    assert_eq!(now.doubt, None);
    assert_eq!((now.lineage.store.as_str(), now.lineage.epoch), (lead.lineage.store.as_str(), epoch));
    follow(Some((&lead.lineage, revision)), Some((&now.lineage, Revision(1)))).unwrap();
    let (_, events) = control.call("get", "/api/v1/events?action=snapshot", Value::Null).await;
    assert_eq!(events["entries"][0]["action"], "snapshot.restore", "{events}");
    assert_eq!(events["entries"][0]["name"], "first-operator");
    assert!(dir.path().join("before-restore-1/weft.redb").exists() && !dir.path().join(READY).exists());
    // It works on, and so does a second time.
    control.apply(&OLD.replace("name: old", "name: newer")).await;
    let bytes = saved(&control).await;
    assert_eq!(restored(&control, "", bytes).await.0, 200);
    control.app.stop().await;
    let control = Control::start(dir.path()).await;
    assert_eq!(services(&control).await, ["newer", "old"]);
    assert!(control.app.hub.lead().lineage.epoch > epoch);
}

/// The archive with an entry changed, and a digest that holds.
fn edited(bytes: &[u8], edit: impl Fn(&str, &[u8]) -> Option<(String, Vec<u8>)>) -> Vec<u8> {
    let mut writer = Writer::new(1 << 30);
    for (name, content) in read(bytes).unwrap() {
        if let Some((name, content)) = edit(name, content) {
            writer.add(&name, &content).unwrap();
        }
    }
    writer.finish()
}

#[tokio::test]
async fn what_is_no_whole_snapshot_of_this_mesh_changes_nothing_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(OLD).await;
    let bytes = saved(&control).await;
    control.apply(&OLD.replace("name: old", "name: new")).await;
    let other = tempfile::tempdir().unwrap();
    let foreign = Control::start(other.path()).await;
    let foreign = saved(&foreign).await;
    let without =
        |part: &str| edited(&bytes, |name, content| (name != part).then(|| (name.to_owned(), content.to_vec())));
    let with = |part: &str, text: &str| {
        edited(&bytes, |name, content| {
            let content = if name == part { text.as_bytes() } else { content };
            Some((name.to_owned(), content.to_vec()))
        })
    };
    let renamed = |from: &str, to: &str| {
        edited(&bytes, |name, content| Some((if name == from { to } else { name }.to_owned(), content.to_vec())))
    };
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    let about = String::from_utf8(read(&bytes).unwrap()[0].1.to_vec()).unwrap();
    let cases = [
        ("nothing", Vec::new(), 400, "no snapshot of Weft"),
        ("a database", b"redb\x1a\x0a".to_vec(), 400, "no snapshot of Weft"),
        ("cut", bytes[..bytes.len() - 7].to_vec(), 400, "ends too early"),
        ("half", bytes[..bytes.len() / 2].to_vec(), 400, "ends too early"),
        ("damaged", damaged, 400, "damaged"),
        ("older", [b"weft snapshot 0\n", &bytes[16..]].concat(), 400, "form 0"),
        ("newer", [b"weft snapshot 9\n", &bytes[16..]].concat(), 400, "form 9"),
        ("no description", without("about"), 400, "holds no description"),
        ("no key", without("file/ca/root.key"), 422, "restore it from a backup"),
        ("bad key", with("file/ca/root.key", "x"), 422, "can't be read"),
        ("no certificate", without("file/ca.pem"), 400, "holds no ca.pem"),
        ("no store", without("row/meta/root_sha256"), 400, "store of its authority"),
        (
            "another domain",
            with("about", &about.replace("cluster.local", "other.local")),
            422,
            "of trust domain other.local",
        ),
        ("a way out", renamed("file/operator.token", "file/../../etc/passwd"), 400, "no part of a state folder"),
        ("a strange table", renamed("row/meta/epoch", "row/strange/epoch"), 400, "no table"),
        ("another authority", foreign, 422, "--replace-authority"),
    ];
    for (what, bytes, expect, text) in cases {
        let (status, body) = restored(&control, "", bytes).await;
        let message = body["error"]["message"].as_str().unwrap();
        assert_eq!(status, expect, "{what}: {message}");
        assert!(message.contains(text) && message.contains("nothing was changed"), "{what}: {message}");
        assert!(!dir.path().join(READY).exists() && !dir.path().join(MAKING).exists(), "{what}");
    }
    assert_eq!(services(&control).await, ["new", "old"]);
    control.apply(&OLD.replace("name: old", "name: newer")).await;
    control.app.stop().await;
    let control = Control::start(dir.path()).await;
    assert_eq!(services(&control).await, ["new", "newer", "old"]);
    assert_eq!(control.app.hub.lead().lineage.epoch, 1);
}

#[tokio::test]
async fn what_a_start_would_not_take_is_not_restored() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(OLD).await;
    let bytes = saved(&control).await;
    let other = tempfile::tempdir().unwrap();
    let foreign = saved(&Control::start(other.path()).await).await;
    let foreign = read(&foreign).unwrap();
    let other_root = foreign.iter().find(|(name, _)| *name == "file/ca.pem").unwrap().1;
    let with = |part: &str, now: &[u8]| {
        edited(&bytes, |name, content| Some((name.to_owned(), if name == part { now } else { content }.to_vec())))
    };
    let no_key = edited(&bytes, |name, content| {
        let name = if name == "file/ca/intermediate.pem" { "file/ca/filters.key" } else { name };
        Some((name.to_owned(), content.to_vec()))
    });
    for (what, bytes, expect) in [
        ("another's certificate", with("file/ca.pem", other_root), "authority can't be used"),
        ("a filters' key that is none", no_key, "must have 32 bytes"),
        ("another domain's store", with("row/meta/trust_domain", b"other.local"), "is of trust domain other.local"),
        ("a token that is no text", with("file/operator.token", &[0xff, 0xfe]), "operator.token is no text"),
    ] {
        let (status, body) = restored(&control, "", bytes).await;
        let message = body["error"]["message"].as_str().unwrap();
        assert_eq!(status, 422, "{what}: {message}");
        assert!(message.contains(expect) && message.contains("nothing was changed"), "{what}: {message}");
        assert!(!dir.path().join(READY).exists() && !dir.path().join(MAKING).exists(), "{what}");
    }
}

#[tokio::test]
async fn a_control_plane_that_was_lost_comes_back_on_another_machine_wherever_the_start_was_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(OLD).await;
    let svid = control.join("shop/web").await;
    let bytes = saved(&control).await;
    let (root, token) = (control.app.hub.authority().fingerprint(), control.admin_token());
    control.app.stop().await;
    for moved in 0..=4 {
        let new = tempfile::tempdir().unwrap();
        let control = Control::start(new.path()).await;
        let (status, body) = restored(&control, "?replace_authority=true", bytes.clone()).await;
        assert_eq!(status, 200, "{body}");
        control.app.stop().await;
        // A start that was killed after it had moved so many parts away, the last of them not replaced yet.
        let aside = new.path().join("before-restore-1");
        std::fs::create_dir(&aside).unwrap();
        for (number, part) in [STORE, ROOT, AUTHORITY, TOKEN].into_iter().take(moved).enumerate() {
            std::fs::rename(new.path().join(part), aside.join(part)).unwrap();
            if number + 1 < moved {
                std::fs::rename(new.path().join(READY).join(part), new.path().join(part)).unwrap();
            }
        }
        let control = Control::start(new.path()).await;
        assert_eq!(control.app.hub.authority().fingerprint(), root);
        assert_eq!(control.admin_token(), token);
        assert_eq!(services(&control).await, ["old"]);
        assert_eq!(control.app.hub.lead().doubt, None);
        // A proxy that joined the lost one comes back with its certificate.
        let bundle = weft_policy::bundle::Bundle::default();
        Box::pin(crate::app::tests::Proxy::connect(&control, &svid, "web-1", None, bundle)).await.take().await;
        control.app.stop().await;
    }
}

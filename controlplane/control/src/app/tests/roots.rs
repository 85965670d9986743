//! The root of two control planes on one store is replaced: by whom, who follows, what a proxy notices, and what is said where the
//! one with the root's key is away.

use super::real::{share, until};
use super::several::OneStore;
use super::*;
use crate::hub::{RotationError, follow_roots};
use crate::store::ROOTS;

/// Two folders of one authority, on one store.
struct Ground {
    folders: [tempfile::TempDir; 2],
    store: OneStore,
}

impl Ground {
    fn new() -> Self {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let store = OneStore::open(folders[0].path());
        Self { folders, store }
    }

    async fn try_start(&self, number: usize) -> anyhow::Result<Control> {
        let state = self.folders[number].path();
        let config = Config {
            replica_timeout_ms: 2_000,
            svid_ttl_seconds: 4,
            identity_grace_seconds: 0,
            ..Control::config(state)
        };
        let app = App::start_over(config, Store::over(self.store.clone(), 1_000)?).await?;
        Ok(Control::of(app, state))
    }

    async fn start(&self, number: usize) -> Control {
        self.try_start(number).await.unwrap()
    }

    async fn both(&self) -> [Control; 2] {
        let first = self.start(0).await;
        share(self.folders[0].path(), self.folders[1].path());
        let second = self.start(1).await;
        for control in [&first, &second] {
            until("each knows of the other", async || shown(control).await["replicas"].as_array().unwrap().len() == 2)
                .await;
        }
        [first, second]
    }
}

async fn shown(control: &Control) -> Value {
    let (status, body) = control.call("get", "/api/v1/authority", Value::Null).await;
    assert_eq!(status, 200, "{body}");
    body
}

async fn rotate(control: &Control) -> (u16, Value) {
    control.call("post", "/api/v1/authority/rotate", json!({"signer": "root"})).await
}

/// Both trust the newest root alone, and each issues below it.
async fn is_over(controls: &[&Control], root: &Value) {
    for control in controls {
        let authority = control.app.hub.authority();
        until("the root before is dropped", async || {
            let known = authority.authorities();
            known.previous.is_none() && *root == known.root.0
        })
        .await;
        assert!(authority.issues_below() == *root);
    }
}

/// The roots that this control plane tells proxies to trust.
fn told(control: &Control) -> usize {
    let all = control.app.hub.published().told.of_proxy(&[]);
    let mesh = all.iter().find_map(|told| {
        let weft_policy::delta::Object::Mesh(mesh) = &told.object else { return None };
        Some(mesh.trust_bundle_pem.matches("BEGIN CERTIFICATE").count())
    });
    mesh.unwrap()
}

/// A client of the API that trusts what is trusted now.
fn renewed(control: Control) -> Control {
    let state = control.state.clone();
    Control::of(control.app, &state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_is_followed_by_all_and_dropped_once_nothing_needs_it() {
    let ground = Ground::new();
    let [first, second] = ground.both().await;
    let before = shown(&first).await["root"].clone();
    // A proxy at the second that takes what it is told only when the test says so.
    let svid = second.join("shop/web").await;
    let mut proxy = Proxy::connect(&second, &svid, "web", None, Bundle::default()).await;
    proxy.take().await;
    let (status, rotated) = rotate(&first).await;
    assert_eq!((status, &rotated["previous"]["fingerprint"]), (200, &before["fingerprint"]), "{rotated}");
    let root = rotated["root"]["fingerprint"].clone();
    for control in [&first, &second] {
        until("both trust both", async || {
            let shown = shown(control).await;
            shown["root"]["fingerprint"] == root && told(control) == 2
        })
        .await;
        let (status, refused) = rotate(control).await;
        assert!(status == 409 && refused.to_string().contains("is being replaced already"), "{refused}");
    }
    until("the other has an intermediate of the new root", async || {
        let shown = shown(&first).await;
        let replicas = shown["replicas"].as_array().unwrap();
        replicas.iter().all(|replica| replica["root"] == root)
            && (&replicas[0]["has_key"], &replicas[1]["has_key"]) == (&json!(true), &json!(false))
    })
    .await;
    assert!(!ground.folders[1].path().join("ca/root.key").exists());
    until("it says so", async || second.metrics().await.contains("weft_control_root_not_followed 0\n")).await;
    // Whoever trusts the old root alone believes what the second issues now, and joins there as before.
    let (first, second) = (renewed(first), renewed(second));
    let late = second.join("shop/late").await;
    let mut late = Proxy::connect(&first, &late, "late", None, Bundle::default()).await;
    late.take().await;
    // The proxy that has not taken it holds the old root, whichever is asked.
    for control in [&first, &second] {
        until("it is named", async || shown(control).await["left"]["waiting"].to_string().contains("web")).await;
        let (status, refused) = control.call("post", "/api/v1/authority/finish", json!({})).await;
        assert!(status == 409 && refused.to_string().contains("may not trust the new one yet"), "{refused}");
    }
    proxy.take().await;
    is_over(&[&first, &second], &root).await;
    let events = first.app.hub.audit(None, 100).await.unwrap();
    let done = |action: &str| events.iter().filter(|(_, entry)| entry.action == action).count();
    assert_eq!((done("ca.rotate"), done("ca.sign"), done("ca.finish")), (1, 1, 1));
    for control in [&first, &second] {
        until("proxies are told so", async || told(control) == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_saved_where_the_key_of_the_newest_root_is() {
    let ground = Ground::new();
    let [first, second] = ground.both().await;
    // As long as both have the key of the one root, both save what can be restored.
    for control in [&first, &second] {
        restores(&saved(control).await.unwrap()).await;
    }
    let (status, rotated) = rotate(&second).await;
    assert_eq!(status, 200, "{rotated}");
    let root = rotated["root"]["fingerprint"].clone();
    until("both follow it", async || {
        let shown = shown(&first).await;
        let replicas = shown["replicas"].as_array().unwrap();
        replicas.iter().all(|replica| replica["root"] == root)
    })
    .await;
    let (first, second) = (renewed(first), renewed(second));
    let refused = saved(&first).await.unwrap_err();
    let holder = second.app.hub.config().replica_address().unwrap();
    assert!(refused.contains("the key of the newest root is not in") && refused.contains(&holder), "{refused}");
    restores(&saved(&second).await.unwrap()).await;
    // Nobody is named where nobody says so.
    second.app.stop().await;
    until("it is gone", async || shown(&first).await["replicas"].as_array().unwrap().len() == 1).await;
    let refused = saved(&first).await.unwrap_err();
    assert!(refused.contains("no control plane that is there says that it has it"), "{refused}");
}

/// A snapshot of a control plane, or why there is none.
async fn saved(control: &Control) -> Result<Vec<u8>, String> {
    let response = control.request("get", "/api/v1/snapshot").bearer_auth(control.admin_token()).send().await.unwrap();
    match response.status().as_u16() {
        200 => Ok(response.bytes().await.unwrap().to_vec()),
        409 => Err(response.text().await.unwrap()),
        other => panic!("{other}: {}", response.text().await.unwrap()),
    }
}

/// A new control plane with a store of its own takes the snapshot.
async fn restores(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let fresh = Control::start(dir.path()).await;
    let request = fresh.request("post", "/api/v1/snapshot?replace_authority=true").bearer_auth(fresh.admin_token());
    let response = request.body(bytes.to_vec()).send().await.unwrap();
    let (status, text) = (response.status(), response.text().await.unwrap());
    assert_eq!(status, 200, "{text}");
    fresh.app.stop().await;
    Control::start(dir.path()).await.app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_replace_it_at_once_one_does() {
    let ground = Ground::new();
    let [first, second] = ground.both().await;
    let (one, other) = tokio::join!(first.app.hub.rotate_root("me"), second.app.hub.rotate_root("me"));
    let (won, lost) = if one.is_ok() { (one, other) } else { (other, one) };
    let lost = lost.err().unwrap();
    assert!(matches!(lost, RotationError::Rotate(crate::ca::RotateError::Underway)), "{lost}");
    let root = json!(won.unwrap().authorities.root.0);
    is_over(&[&first, &second], &root).await;
    let held = [&first, &second].map(|control| control.app.hub.authority().has_root_key());
    assert!(held[0] != held[1], "one has the key: {held:?}");
    // And again at the one that has it not, which makes the next root by the word of the other.
    let (first, second) = (renewed(first), renewed(second));
    let (holder, other) = if held[0] { (&first, &second) } else { (&second, &first) };
    let (status, rotated) = rotate(other).await;
    assert_eq!(status, 200, "{rotated}");
    assert!(other.app.hub.authority().has_root_key() && rotated["root"]["fingerprint"] != root, "{rotated}");
    is_over(&[holder, other], &rotated["root"]["fingerprint"]).await;
    assert!(!holder.app.hub.authority().has_root_key());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_away_comes_back_and_issues_below_the_new_root() {
    let ground = Ground::new();
    let [first, second] = ground.both().await;
    let old = second.app.hub.authority().fingerprint();
    second.app.stop().await;
    until("it is gone", async || shown(&first).await["replicas"].as_array().unwrap().len() == 1).await;
    let (status, rotated) = rotate(&first).await;
    assert_eq!(status, 200, "{rotated}");
    let root = rotated["root"]["fingerprint"].clone();
    is_over(&[&first], &root).await;
    // `--check` finds no fault with its folder, and one with another mesh's.
    let store = Store::over(ground.store.clone(), 1_000).unwrap();
    let fault =
        |state: &Path| crate::check::authority_fault(&store, &Control::config(state), &crate::ca::Keys::default());
    assert!(fault(ground.folders[1].path()).is_none());
    let foreign = tempfile::tempdir().unwrap();
    crate::ca::Authority::open(foreign.path(), "cluster.local", OffsetDateTime::now_utc()).unwrap();
    assert!(fault(foreign.path()).unwrap().to_string().contains("an authority that is not in"));
    // Its root is trusted by nobody any more: it shows what it is before anybody is served.
    let second = ground.start(1).await;
    let authority = second.app.hub.authority();
    assert!(authority.issues_below() == root && !authority.trusts(&old) && !authority.has_root_key());
    let first = renewed(first);
    let svid = second.join("shop/web").await;
    let mut proxy = Proxy::connect(&first, &svid, "web", None, Bundle::default()).await;
    proxy.take().await;
    until("each knows of the other", async || first.metrics().await.contains("weft_control_replicas 1\n")).await;
    let listed = first.call("get", "/api/v1/proxies", Value::Null).await.1;
    assert!(listed.get("silent").is_none(), "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_one_that_has_the_key_it_says_what_is_missing_and_issues_below_nothing_dropped() {
    let ground = Ground::new();
    let [first, second] = ground.both().await;
    let (status, rotated) = rotate(&first).await;
    assert_eq!(status, 200, "{rotated}");
    let root = rotated["root"]["fingerprint"].clone();
    is_over(&[&first, &second], &root).await;
    first.app.stop().await;
    let second = renewed(second);
    until("it is gone", async || shown(&second).await["replicas"].as_array().unwrap().len() == 1).await;
    let missing = format!("no control plane that is there has the key of the root {}", root.as_str().unwrap());
    for signer in ["root", "intermediate"] {
        let (status, refused) = second.call("post", "/api/v1/authority/rotate", json!({"signer": signer})).await;
        assert!(status == 503 && refused.to_string().contains(&missing), "{refused}");
    }
    // It goes on with what it has.
    second.join("shop/web").await;
    // Both are away, and the one without the key comes first, with what it had before the root was dropped.
    second.app.stop().await;
    let ca = ground.folders[1].path().join("ca");
    let own = rcgen::KeyPair::generate().unwrap();
    let strange = CertificateParams::default().self_signed(&own).unwrap();
    std::fs::write(ca.join("intermediate.pem"), strange.pem() + &own.serialize_pem()).unwrap();
    let refused = format!("{:#}", ground.try_start(1).await.err().unwrap());
    assert!(refused.contains("it got no intermediate of the next") && refused.contains(&missing), "{refused}");
    let first = ground.start(0).await;
    // What shows nothing is not signed.
    until("it is told so", async || {
        let refused = format!("{:#}", ground.try_start(1).await.err().unwrap());
        refused.contains("the proof is not taken")
    })
    .await;
    share(ground.folders[0].path(), ground.folders[1].path());
    let second = ground.start(1).await;
    assert!(second.app.hub.authority().issues_below() == root);
    drop(first);
}

/// The process of the one that makes the root ends before and after the store names it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_that_was_made_is_in_force_once_the_store_names_it_and_not_before() {
    let ground = Ground::new();
    let [first, second] = ground.both().await;
    let authority = first.app.hub.authority().clone();
    let crate::ca::Offer::Ready(offered) = authority.offer(OffsetDateTime::now_utc()).unwrap() else { panic!() };
    let before = authority.fingerprint();
    first.app.stop().await;
    let first = ground.start(0).await;
    assert_eq!(first.app.hub.authority().fingerprint(), before);
    first.app.stop().await;
    // The commit landed, and its process saw no answer.
    let line = offered.behind(&authority.first_line()).unwrap();
    let store = Store::over(ground.store.clone(), 1_000).unwrap();
    let record = crate::store::write_record(&line).unwrap();
    store.commit(None, vec![crate::store::Write::Meta(ROOTS, record.clone())]).unwrap();
    assert_eq!(follow_roots(&authority, &record).unwrap().0, crate::ca::Taken::Roots, "the process that is ending");
    let first = ground.start(0).await;
    assert!(first.app.hub.authority().has_root_key() && first.app.hub.authority().fingerprint() == line.newest());
    is_over(&[&first, &second], &json!(line.newest())).await;
}

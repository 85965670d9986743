//! Control planes on a real etcd: one that restarts and loses it for a while, and two that share it.

#[allow(unreachable_pub, dead_code, reason = "several crates' tests use it, none of them all of it")]
#[path = "../../../../../tests/src/etcd.rs"]
mod cluster;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use weft_policy::bundle::ObjectName;
use weft_policy::identity::SpiffeId;
use weft_policy::resource::{Kind, ObjectKey};

use self::cluster::Cluster;
use super::*;
use crate::token::{Grant, TokenHash};

pub(super) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < Duration::from_secs(40), "it does not come: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  selector: {{app: {name}}}\n  \
         ports: [{{port: 80, targetPort: 8080}}]\n"
    )
}

async fn start(state: &Path, store: String) -> Control {
    Control::start_with(state, |config| {
        config.store = store;
        config.disconnect_grace_ms = 2_000;
        config.restart_grace_ms = 30_000;
        config.unheard_grace_ms = 3_000;
    })
    .await
}

/// What an operator does for a further control plane of the same store: it gets the authority and the first token.
pub(super) fn share(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("ca")).unwrap();
    for file in ["ca.pem", "ca/root.key", "ca/filters.key", "operator.token"] {
        if from.join(file).exists() {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }
}

fn is_there(control: &Control, name: &str) -> bool {
    control.app.hub.published().world.get(&ObjectKey::new(Kind::Service, "shop", name)).is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "real"]
async fn on_etcd_a_control_plane_restarts_and_serves_while_etcd_is_away() {
    let mut cluster = Cluster::start(1);
    let dir = tempfile::tempdir().unwrap();
    let control = start(dir.path(), cluster.location("mesh")).await;
    let first = control.apply(&service("web")).await;
    let svid = control.join("shop/web").await;
    let own = || Some(workload("web-1", "shop", "127.0.0.1", Some("web")));
    let mut proxy = Proxy::connect(&control, &svid, "web-1", own(), Bundle::default()).await;
    proxy.take().await;
    assert!(control.app.hub.published().revision.0 > first, "its workload is registered");
    drop(proxy);
    control.app.stop().await;
    assert!(!dir.path().join("weft.redb").exists());

    let control = start(dir.path(), cluster.location("mesh")).await;
    assert!(is_there(&control, "web") && control.app.hub.lead().doubt.is_none());
    let mut proxy = Proxy::connect(&control, &svid, "web-1", own(), Bundle::default()).await;
    proxy.take().await;
    cluster.kill(0);
    let body = json!({ "documents": documents(&service("api")) });
    let (status, refused) = control.call("post", "/api/v1/apply", body).await;
    assert_eq!(status, 503, "{refused}");
    assert!(refused.to_string().contains("can't be reached"), "{refused}");
    // Reads are answered, readiness says what is wrong, and a proxy that comes back is served.
    assert_eq!(control.call("get", "/api/v1/resources/services", Value::Null).await.0, 200);
    let ready = control.request("get", "/readyz").send().await.unwrap();
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("the store can't be written since"));
    assert!(control.metrics().await.contains("weft_control_store_failing 1"));
    let mut again = Proxy::connect(&control, &svid, "web-1", own(), Bundle::default()).await;
    again.take().await;
    cluster.start_again(0);
    until("readiness", async || control.request("get", "/readyz").send().await.unwrap().status() == 200).await;
    control.apply(&service("api")).await;
    assert!(is_there(&control, "api"));
    let refused = control.call("post", "/api/v1/snapshot", Value::Null).await;
    assert!(refused.1.to_string().contains("etcd's own snapshot"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "real"]
async fn of_two_control_planes_no_change_is_lost_or_made_twice() {
    const EACH: usize = 100;
    let cluster = Cluster::start(3);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Arc::new(start(one.path(), cluster.location("mesh")).await);
    share(one.path(), two.path());
    let second = Arc::new(start(two.path(), cluster.location("mesh")).await);
    let before = first.app.hub.published().revision.0;
    until("both know the same", async || second.app.hub.published().revision.0 == before).await;
    let made = Arc::new(AtomicUsize::new(0));
    let tasks = [(&first, "a"), (&second, "b")].into_iter().flat_map(|(control, name)| {
        let made = made.clone();
        (0..EACH).map(move |number| {
            let (control, made, name) = (control.clone(), made.clone(), format!("{name}-{number}"));
            tokio::spawn(async move {
                control.apply(&service(&name)).await;
                made.fetch_add(1, Ordering::SeqCst);
            })
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(made.load(Ordering::SeqCst), 2 * EACH);
    let newest = before + 2 * EACH as u64;
    for control in [&first, &second] {
        // One revision for each: none was made twice, and none took the place of another.
        until("all are known", async || control.app.hub.published().revision.0 == newest).await;
        for number in 0..EACH {
            assert!(is_there(control, &format!("a-{number}")) && is_there(control, &format!("b-{number}")), "{number}");
        }
        let log = control.app.hub.audit(None, 10 * EACH).await.unwrap();
        assert_eq!(log.iter().filter(|(_, entry)| entry.action == "apply").count(), 2 * EACH);
        let numbers: BTreeSet<_> = log.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers.len(), log.len(), "each entry has a number of its own");
    }
    // A token of one use, made by one, is used once at either; who asks again with the same key is answered by both.
    let token = first.join_token("shop/web").await;
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let request = |key| v1::JoinRequest { token: token.clone(), csr_der: csr(key), ..Default::default() };
    second.grpc(None).await.join(request(&key)).await.unwrap();
    first.grpc(None).await.join(request(&key)).await.unwrap();
    let refused = first.grpc(None).await.join(request(&other)).await.unwrap_err();
    assert!(refused.message().contains("was used already"), "{refused}");
    // A token that is revoked at one opens nothing at the other; a ban reaches the other's proxies.
    let svid = second.join("shop/web").await;
    let mut proxy = Proxy::connect(&second, &svid, "web-1", None, Bundle::default()).await;
    proxy.take().await;
    let banned = "spiffe://cluster.local/ns/shop/sa/other".parse().unwrap();
    first.app.hub.ban("me", banned, String::new()).await.unwrap();
    proxy.until_denied(&["spiffe://cluster.local/ns/shop/sa/other"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "real"]
async fn a_control_plane_that_dies_leaves_its_proxies_to_the_other() {
    let cluster = Cluster::start(1);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // The one that dies leads, so that its office has to be taken over.
    let apart = tokio::runtime::Runtime::new().unwrap();
    let (state, store) = (one.path().to_owned(), cluster.location("mesh"));
    let dies = apart.spawn(async move { start(&state, store).await }).await.unwrap();
    until("the first leads", async || dies.app.hub.leads()).await;
    share(one.path(), two.path());
    let stays = start(two.path(), cluster.location("mesh")).await;
    dies.apply(&service("web")).await;
    let (svid, other) = (dies.join("shop/web").await, stays.join("shop/other").await);
    // Who hears no proxy takes none out.
    let mut heard = Proxy::connect(&stays, &other, "other", None, Bundle::default()).await;
    heard.take().await;
    let own = || Some(workload("web-1", "shop", "127.0.0.1", None));
    let mut proxy = Proxy::connect(&dies, &svid, "web-1", own(), Bundle::default()).await;
    proxy.take().await;
    let name = ObjectName::new("shop", "web-1");
    let is_registered = || stays.app.hub.published().world.registered_by(&name).cloned();
    until("the other knows of the workload", async || is_registered().is_some()).await;
    let key = is_registered().unwrap();
    until("the other knows who holds the proxy", async || stays.app.hub.registry().is_connected(&key)).await;
    assert!(!stays.app.hub.registry().is_connected_here(&key) && !stays.app.hub.leads());
    drop(proxy);
    apart.shutdown_background();
    drop(dies);
    until("the other leads", async || stays.app.hub.leads()).await;
    until("the proxy is held by nobody", async || !stays.app.hub.registry().is_connected(&key)).await;
    assert!(is_registered().is_some(), "it is expected back first");
    let mut proxy = Proxy::connect(&stays, &svid, "web-1", own(), Bundle::default()).await;
    proxy.take().await;
    stays.apply(&service("api")).await;
    assert_eq!(is_registered(), Some(key.clone()));
    // One that does not come back leaves after its grace, by the leader's hand.
    drop(proxy);
    until("its workload leaves", async || is_registered().is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "real"]
async fn control_planes_of_one_store_have_one_root() {
    let cluster = Cluster::start(1);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let control = start(one.path(), cluster.location("mesh")).await;
    let hub = &control.app.hub;
    hub.request_intermediate("me").await.unwrap();
    let foreign = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    let refused = hub.install_chain("me", foreign).await.unwrap_err().to_string();
    assert!(refused.contains("takes another one's place with the store redb only"), "{refused}");
    // A chain of the same root is looked at.
    let refused = hub.install_chain("me", hub.authority().trust_bundle_pem()).await.unwrap_err().to_string();
    assert!(refused.contains("it needs the intermediate's certificate first"), "{refused}");
    hub.rotate_intermediate("me").await.unwrap();
    // One that brings no authority, or another one, is told what it lacks, and makes none.
    let mut config = Config { state: two.path().to_owned(), store: cluster.location("mesh"), ..Config::default() };
    config.ports = crate::config::Ports::ANY;
    let refused = App::start(config.clone()).await.err().unwrap();
    assert!(
        format!("{refused:#}").contains("a further control plane of a store in etcd needs the authority"),
        "{refused:#}"
    );
    assert!(!two.path().join("ca.pem").exists());
    config.store = "redb".to_owned();
    App::start(config.clone()).await.unwrap().stop().await;
    config.store = cluster.location("mesh");
    let refused = App::start(config).await.err().unwrap();
    assert!(
        format!("{refused:#}").contains("a further control plane of a store in etcd needs the authority"),
        "{refused:#}"
    );
}

/// Joins that wait at the same time share commits; each is made once, whoever commits between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "real"]
async fn on_etcd_joins_at_once_share_commits_and_none_is_lost_or_made_twice() {
    const EACH: usize = 120;
    let cluster = Cluster::start(3);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Arc::new(start(one.path(), cluster.location("mesh")).await);
    share(one.path(), two.path());
    let second = Arc::new(start(two.path(), cluster.location("mesh")).await);
    let identity: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    // One use short of what is tried: of many in one commit, each takes its own.
    let uses = u32::try_from(2 * EACH - 1).unwrap();
    let grant = Grant::Join { identity, uses_left: uses, grants: Default::default() };
    let token = first.app.hub.create_token("me", grant, None).await.unwrap();
    let text = token.text.reveal().to_owned();
    until("both know the token", async || second.app.hub.token(TokenHash::of(&text)).await.unwrap().is_some()).await;
    let counted = async |control: &Control, name: &str| -> u64 {
        let metrics = control.metrics().await;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
        line.parse().unwrap()
    };
    const CHANGES: &str = "weft_control_store_changes_total";
    const COMMITS: &str = "weft_control_store_commit_seconds_count";
    let mut before = Vec::new();
    for control in [&first, &second] {
        before.push((counted(control, CHANGES).await, counted(control, COMMITS).await));
    }
    let tasks = [&first, &second].into_iter().flat_map(|control| {
        let text = text.clone();
        (0..EACH).map(move |_| {
            let (hub, text) = (control.app.hub.clone(), text.clone());
            tokio::spawn(async move { hub.join(&text, &csr(&KeyPair::generate().unwrap()), None).await })
        })
    });
    let mut serials = BTreeSet::new();
    let mut refused = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Ok(signed) => drop(serials.insert(signed.issued.serial)),
            Err(error) => refused.push(error.to_string()),
        }
    }
    assert_eq!((serials.len(), refused.len()), (2 * EACH - 1, 1), "{refused:?}");
    assert!(refused[0].contains("was used already"), "{refused:?}");
    let (mut changes, mut commits) = (0, 0);
    for (control, (changes_before, commits_before)) in [&first, &second].into_iter().zip(before) {
        changes += counted(control, CHANGES).await - changes_before;
        commits += counted(control, COMMITS).await - commits_before;
        // Each has its own entry, whichever is asked.
        let log = control.app.hub.audit(None, 10 * EACH).await.unwrap();
        let joins = log.iter().filter(|(_, entry)| entry.action == "join");
        let told: BTreeSet<_> = joins.map(|(_, entry)| entry.detail.clone()).collect();
        assert!(serials.iter().all(|serial| told.iter().any(|told| told.contains(&format!("serial={serial} ")))));
        assert_eq!(told.len(), serials.len());
    }
    assert_eq!(changes, u64::from(uses), "each is made once");
    assert!(commits * 4 <= changes, "{changes} changes in {commits} commits");
}

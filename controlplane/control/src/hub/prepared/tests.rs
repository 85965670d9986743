//! Changes that take long to compute, beside others.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use weft_policy::bundle::{ObjectName, Revision};
use weft_policy::resource::{Kind, ObjectKey};

use super::super::tests::{HERE, SHOP, hub_in, proxy_of, registration_of, resources};
use super::super::{ApplyError, How};
use super::*;
use crate::artifact::tests::publication;
use crate::token::{Grant, Role};

const PATIENCE: Duration = Duration::from_secs(10);

/// A change that is under way, which says when it is computed and waits for a word each time.
struct Slow {
    begun: mpsc::Receiver<()>,
    go: mpsc::Sender<()>,
    done: tokio::task::JoinHandle<Result<usize, StoreError>>,
}

impl Slow {
    fn begin(hub: &Arc<Hub>) -> Self {
        let (begin, begun) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        let (hub, runs) = (hub.clone(), AtomicUsize::new(0));
        let done = tokio::spawn(async move {
            hub.change_prepared(move |draft| {
                begin.send(()).unwrap();
                wait.recv_timeout(PATIENCE).unwrap();
                draft.audit("slow", "slow", String::new(), String::new());
                Ok(runs.fetch_add(1, Ordering::SeqCst) + 1)
            })
            .await
        });
        Self { begun, go, done }
    }

    async fn once_computed(self) -> Self {
        tokio::task::spawn_blocking(move || {
            self.begun.recv_timeout(PATIENCE).unwrap();
            self
        })
        .await
        .unwrap()
    }

    /// How often it was computed.
    async fn ends(self) -> usize {
        self.go.send(()).unwrap();
        self.done.await.unwrap().unwrap()
    }
}

async fn register(hub: &Arc<Hub>, name: &str, last: usize) {
    let proxy = proxy_of(name, name);
    let one = registration_of(&proxy.identity, name, &format!("127.0.0.{last}"), None);
    let registered = hub.register(&proxy, HERE, vec![one]);
    tokio::time::timeout(PATIENCE, registered).await.expect("nobody is waited for").unwrap();
}

#[tokio::test]
async fn what_takes_long_to_compute_holds_up_no_join_no_ban_and_no_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let slow = Slow::begin(&hub).once_computed().await;
    let identity = "spiffe://cluster.local/ns/shop/sa/evil".parse().unwrap();
    let banned = tokio::time::timeout(PATIENCE, hub.ban("me", identity, String::new())).await;
    assert!(banned.expect("nobody is waited for").unwrap().1);
    let made = hub.create_token("me", Grant::operator(Role::Viewer), None);
    tokio::time::timeout(PATIENCE, made).await.expect("nobody is waited for").unwrap();
    // Neither concerns what was computed: it is not computed again.
    assert_eq!(slow.ends().await, 1);

    let slow = Slow::begin(&hub).once_computed().await;
    register(&hub, "web", 11).await;
    slow.go.send(()).unwrap();
    assert_eq!(slow.once_computed().await.ends().await, 2, "the world is another");
    let world = hub.published().world.clone();
    assert!(world.workload(&ObjectName::new("shop", "web")).is_some(), "nothing is lost");
    let log = hub.audit(None, 100).await.unwrap();
    assert_eq!(log.iter().filter(|(_, entry)| entry.action == "slow").count(), 2, "each is made once");
}

#[tokio::test]
async fn who_is_overtaken_each_time_is_computed_while_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let mut slow = Slow::begin(&hub).once_computed().await;
    for number in 0..TRIES {
        register(&hub, &format!("w-{number}"), 11 + number).await;
        slow.go.send(()).unwrap();
        slow = slow.once_computed().await;
    }
    assert!(hub.writer.try_lock().is_err(), "the last time the writer is held");
    assert_eq!(slow.ends().await, TRIES + 1);
}

#[tokio::test]
async fn an_apply_that_is_refused_waits_for_no_writer() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let writing = hub.writer.lock().await;
    let dangling = "apiVersion: weft.dev/v1alpha1\nkind: FilterPolicy\nmetadata: {name: f, namespace: shop}\n\
                    spec: {filter: {name: nowhere}}\n";
    let refused = tokio::time::timeout(PATIENCE, hub.apply("me", resources(dangling), How::Safely)).await;
    let error = refused.expect("the writer is not waited for").unwrap_err();
    assert!(matches!(error, ApplyError::Unsound(_)), "{error}");
    drop(writing);
    // One that leaves before its turn comes leaves nothing behind.
    let writing = hub.writer.lock().await;
    let waiting = hub.apply("me", resources(SHOP), How::Safely);
    assert!(tokio::time::timeout(Duration::from_millis(200), waiting).await.is_err());
    drop(writing);
    assert_eq!(hub.apply("me", resources(SHOP), How::Safely).await.unwrap().revision, Revision(1));
    hub.delete("me", ObjectKey::new(Kind::Service, "shop", "web"), How::Safely).await.unwrap();
}

#[tokio::test]
async fn a_large_apply_with_filters_is_computed_beside_the_writer_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let publication = publication("guard", "1.0.0", "weft:filter/log@0.1.0");
    hub.publish_filter("me", publication).await.unwrap();
    let service = |number: usize| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: shop}}\nspec: {{selector: {{app: \
             s{number}}}, ports: [{{port: 80}}]}}\n"
        )
    };
    let policy = "apiVersion: weft.dev/v1alpha1\nkind: FilterPolicy\nmetadata: {name: f, namespace: shop}\n\
                  spec: {filter: {name: guard}}\n";
    let all = resources(&format!("{policy}{}", (0..100).map(service).collect::<String>()));
    let writing = hub.writer.lock().await;
    let (applying, own) = (hub.clone(), all.clone());
    let applying = tokio::spawn(async move { applying.apply("me", own, How::Safely).await });
    let computed = async {
        while hub.preparing.try_lock().is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, computed).await.expect("it is computed without the writer");
    drop(writing);
    assert_eq!(applying.await.unwrap().unwrap().changes.len(), all.len());
}

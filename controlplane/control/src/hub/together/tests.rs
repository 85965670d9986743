//! Changes that wait at the same time: one commit for them, and each as if it had been made alone.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::task::JoinHandle;
use weft_policy::resource::{Kind, ObjectKey, Resource};

use super::super::tests::{HERE, csr, enter, held, hub_in, join_grant, proxy, registration, resources};
use super::super::{ApplyError, How, JoinError};
use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// Begins work that changes something, one after the other, while nothing can be written; then lets all go.
async fn at_once<T: Send + 'static>(
    hub: &Arc<Hub>,
    works: Vec<impl Future<Output = T> + Send + 'static>,
) -> Vec<JoinHandle<T>> {
    let writing = hub.writer.lock().await;
    let mut begun = Vec::new();
    for work in works {
        let before = hub.waiting.len();
        begun.push(tokio::spawn(work));
        let waits = async {
            while hub.waiting.len() == before {
                tokio::task::yield_now().await
            }
        };
        tokio::time::timeout(PATIENCE, waits).await.expect("it waits");
    }
    drop(writing);
    begun
}

fn service(name: &str) -> Vec<Resource> {
    resources(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{selector: {{app: {name}}}, \
         ports: [{{port: 80, targetPort: 8080}}]}}\n"
    ))
}

fn applies(hub: &Arc<Hub>, names: Vec<String>) -> Vec<impl Future<Output = Result<u64, String>> + Send + use<>> {
    let apply = |name: String| {
        let hub = hub.clone();
        async move {
            let applied = hub.apply("me", service(&name), How::Safely).await;
            applied.map(|applied| applied.revision.0).map_err(|error| error.to_string())
        }
    };
    names.into_iter().map(apply).collect()
}

fn named(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("s{index}")).collect()
}

fn commits(hub: &Hub) -> u64 {
    hub.store.version().unwrap().0
}

async fn all<T>(begun: Vec<JoinHandle<T>>) -> Vec<T> {
    join_all(begun).await.into_iter().map(Result::unwrap).collect()
}

#[tokio::test]
async fn changes_that_wait_are_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let before = commits(&hub);
    let begun = Box::pin(at_once(&hub, applies(&hub, named(40)))).await;
    let revisions: Vec<u64> = all(begun).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(revisions, (1..=40).collect::<Vec<_>>(), "each has its own");
    assert_eq!(commits(&hub), before + 1);
    let published = hub.published();
    assert_eq!((published.revision, published.world.len()), (Revision(40), 40));
    let entry = published.world.get(&ObjectKey::new(Kind::Service, "shop", "s7")).unwrap();
    assert_eq!(entry.modified, Revision(8));
    let log = hub.audit(None, 100).await.unwrap();
    let told: Vec<u64> = log.iter().rev().map(|(_, entry)| entry.revision).collect();
    assert_eq!(told, (1..=40).collect::<Vec<_>>());
    assert!(hub.metrics().render().contains("weft_control_store_changes_total 40"));
    // A start finds the same.
    let loaded = super::super::apply::load(&hub.store, &hub.store.frozen().unwrap(), &hub.trust_domain, "").unwrap();
    assert_eq!((loaded.revision, loaded.world.len()), (Revision(40), 40));
}

#[tokio::test]
async fn one_that_is_refused_or_panics_takes_no_other_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let before = commits(&hub);
    let apply = |text: String| {
        let hub = hub.clone();
        async move { hub.apply("me", resources(&text), How::Safely).await.map(|applied| applied.revision.0) }.boxed()
    };
    let broken = |hub: Arc<Hub>| {
        async move {
            hub.change_together(|draft: &mut Draft| -> Result<u64, ApplyError> {
                draft.changed = true;
                draft.world = Default::default();
                draft.audit("me", "never", String::new(), String::new());
                panic!("half-way")
            })
            .await
        }
        .boxed()
    };
    let text = |name: &str| weft_policy::manifest::to_yaml(&service(name)[0]);
    // It is refused for what the one before it makes.
    let stale = |hub: Arc<Hub>| {
        let expected = [(ObjectKey::new(Kind::Service, "shop", "a"), Revision(9))].into();
        async move {
            let applied = hub.apply_if("me", service("b"), How::Safely, expected).await;
            applied.map(|applied| applied.revision.0)
        }
        .boxed()
    };
    let begun = at_once(
        &hub,
        vec![apply(text("a")), broken(hub.clone()), stale(hub.clone()), apply(text("a")), apply(text("c"))],
    )
    .await;
    let mut ended = join_all(begun).await.into_iter();
    assert_eq!(ended.next().unwrap().unwrap().unwrap(), 1);
    assert!(ended.next().unwrap().unwrap_err().is_panic());
    let stale = ended.next().unwrap().unwrap();
    assert!(matches!(&stale, Err(ApplyError::Stale(stale)) if stale[0].found == Some(Revision(1))), "{stale:?}");
    assert_eq!(ended.next().unwrap().unwrap().unwrap(), 1, "it is there already");
    assert_eq!(ended.next().unwrap().unwrap().unwrap(), 2);
    assert_eq!(commits(&hub), before + 1);
    assert_eq!(hub.published().world.len(), 2);
    assert!(hub.audit(None, 100).await.unwrap().iter().all(|(_, entry)| entry.action != "never"));
}

/// A use that another change of the same commit takes is in no store yet.
#[tokio::test]
async fn a_token_of_two_uses_is_used_twice_however_many_join_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let token = hub.create_token("me", join_grant(2), None).await.unwrap();
    let before = commits(&hub);
    let join = |_| {
        let (hub, text) = (hub.clone(), token.text.reveal().to_owned());
        async move { hub.join(&text, &csr(), None).await }
    };
    let joined = all(at_once(&hub, (0..5).map(join).collect()).await).await;
    let (signed, refused): (Vec<_>, Vec<_>) = joined.into_iter().partition(Result::is_ok);
    assert_eq!((signed.len(), refused.len()), (2, 3));
    assert!(refused.iter().all(|refused| matches!(refused, Err(JoinError::Unknown))));
    assert_eq!(commits(&hub), before + 1);
    // A certificate that is renewed twice at once is known to be.
    let holder = held(signed[0].as_ref().unwrap());
    let renew = |_| {
        let (hub, holder) = (hub.clone(), holder.clone());
        async move { hub.renew(&holder, &csr()).await.map(|signed| signed.issued.serial) }
    };
    let serials = all(at_once(&hub, (0..2).map(renew).collect()).await).await;
    let serials: Vec<_> = serials.into_iter().map(Result::unwrap).collect();
    assert_eq!(commits(&hub), before + 2);
    let row = crate::hub::identity::row_of(&holder.serial);
    let kept: serde_json::Value = hub.store.row(Table::Issued, &row).unwrap().unwrap();
    assert_eq!(kept["replaced_by"], serials[1].as_str(), "{kept}");
}

#[tokio::test]
async fn a_commit_has_its_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let before = commits(&hub);
    Box::pin(all(Box::pin(at_once(&hub, applies(&hub, named(150)))).await)).await;
    assert_eq!((commits(&hub), hub.published().world.len()), (before + 2, 150));
    // Five of 400 KiB each.
    let large = |index: u64| {
        let hub = hub.clone();
        async move {
            hub.change_together(move |draft: &mut Draft| {
                draft.writes.push(Write::PutRow(Table::Conditions, format!("c{index}"), "x".repeat(400 << 10)));
                Ok::<_, StoreError>(index)
            })
            .await
        }
    };
    let ended = all(at_once(&hub, (0..5).map(large).collect()).await).await;
    assert_eq!(ended.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(commits(&hub), before + 5);
    // One that reads the store shares its commit with none.
    let token =
        |hub: Arc<Hub>| async move { hub.create_token("me", join_grant(1), None).await.map(drop).unwrap() }.boxed();
    let entry = |hub: Arc<Hub>| {
        async move {
            let audit = |draft: &mut Draft| {
                draft.audit("me", "noted", String::new(), String::new());
                Ok::<_, StoreError>(())
            };
            hub.change_together(audit).await.unwrap();
        }
        .boxed()
    };
    let of = || hub.clone();
    all(at_once(&hub, vec![entry(of()), entry(of()), token(of()), token(of()), entry(of())]).await).await;
    assert_eq!(commits(&hub), before + 9);
}

/// Whoever hung up before his turn has nothing changed.
#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let writing = hub.writer.lock().await;
    let mut given_up = Box::pin(hub.apply("me", service("gone"), How::Safely));
    while hub.waiting.len() == 0 {
        assert!(given_up.as_mut().now_or_never().is_none());
    }
    drop(given_up);
    drop(writing);
    hub.apply("me", service("a"), How::Safely).await.unwrap();
    assert_eq!((hub.published().world.len(), hub.waiting.len()), (1, 0));
}

/// Proxies that come at the same time register in one commit.
#[tokio::test]
async fn registrations_share_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    hub.apply("me", service("web"), How::Safely).await.unwrap();
    let before = commits(&hub);
    let keys: Vec<_> = (0..30).map(|index| proxy(&format!("p{index}"))).collect();
    let _seats: Vec<_> = keys.iter().map(|key| enter(&hub, key)).collect();
    let register = |(index, key)| {
        let hub = hub.clone();
        async move {
            let own = registration(&format!("web-{index}"), &format!("127.0.0.{}", index + 20), Some("web"));
            hub.register(&key, HERE, vec![own]).await.map_err(|error| error.to_string())
        }
    };
    let ended = all(at_once(&hub, keys.into_iter().enumerate().map(register).collect()).await).await;
    assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    assert_eq!(commits(&hub), before + 1);
    let world = hub.published().world.clone();
    let web = world.service(&weft_policy::bundle::ObjectName::new("shop", "web")).unwrap();
    assert_eq!(world.standing_behind(web).count(), 30);
}

/// A change that shares its commit, and where its end is told.
fn waits() -> (Box<dyn Job>, oneshot::Receiver<Made<(), StoreError>>) {
    let (done, ended) = oneshot::channel();
    let change = |_: &mut Draft| Ok::<_, StoreError>(());
    (Box::new(Change { change, manner: Manner::Together, made: None, done: Some(done) }), ended)
}

#[tokio::test]
async fn who_waits_for_a_commit_that_panics_hears_of_it() {
    let ((one, ended), (other, dropped)) = (waits(), waits());
    let commit = AssertUnwindSafe(move || {
        let _jobs = [one];
        panic!("half-way");
    });
    assert!(catch_unwind(commit).is_err());
    assert!(matches!(ended.await, Ok(Err(_))));
    // A runtime that goes down drops it without a word.
    drop(other);
    dropped.await.unwrap_err();
}

#[tokio::test]
async fn a_ban_is_made_before_all_that_waits() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let mut works: Vec<_> = applies(&hub, named(3)).into_iter().map(|work| work.map(drop).boxed()).collect();
    let banning = hub.clone();
    let ban = async move { banning.ban("me", proxy("p").identity, String::new()).await.map(drop).unwrap() };
    works.push(ban.boxed());
    all(at_once(&hub, works).await).await;
    let log = hub.audit(None, 10).await.unwrap();
    let told: Vec<_> = log.iter().rev().map(|(_, entry)| entry.action.as_str()).collect();
    assert_eq!(told, ["proxy.ban", "apply", "apply", "apply"]);
}

/// Changes that are dear are not all computed ahead of what comes next.
#[tokio::test]
async fn a_commit_is_computed_for_so_long() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let (published, version) = hub.newest().await.unwrap();
    let (jobs, _waiting): (Vec<_>, Vec<_>) = (0..3).map(|_| waits()).unzip();
    let batch = Batch::compute(jobs, &published, version, usize::MAX, Duration::ZERO);
    assert_eq!((batch.made.len(), batch.left.len()), (1, 2));
    let batch = Batch::compute(batch.left, &published, version, usize::MAX, LONGEST);
    assert_eq!((batch.made.len(), batch.left.len()), (2, 0));
}

//! Changes on a store in which another process commits ahead of each: every one is computed again and made once.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use weft_store::{Embedded, Error, Event, Range, Reading, Row, Session};

use super::*;

/// A store of which every other commit comes too late: another one was made just before.
struct Overtaken {
    inner: Embedded,
    is_on_time: AtomicBool,
}

impl weft_store::Store for Overtaken {
    fn read(&self, ranges: Vec<Range>, most: usize) -> BoxFuture<'_, Result<Reading, Error>> {
        self.inner.read(ranges, most)
    }

    fn blob(&self, table: weft_store::Table, key: &str) -> BoxFuture<'_, Result<Option<Bytes>, Error>> {
        self.inner.blob(table, key)
    }

    fn commit(&self, expected: Version, writes: Vec<weft_store::Write>) -> BoxFuture<'_, Result<Version, Error>> {
        async move {
            if !self.is_on_time.fetch_xor(true, Ordering::SeqCst) {
                let newest = self.inner.read(Vec::new(), 0).await?.version;
                let (table, key) = ("meta", "another".to_owned());
                self.inner.commit(newest, vec![weft_store::Write::Put { table, key, value: Bytes::new() }]).await?;
            }
            self.inner.commit(expected, writes).await
        }
        .boxed()
    }

    fn watch(&self, from: Version) -> BoxStream<'static, Event> {
        self.inner.watch(from)
    }

    fn session(&self, life: Duration) -> BoxFuture<'_, Result<Box<dyn Session>, Error>> {
        self.inner.session(life)
    }

    fn held(&self) -> BoxFuture<'_, Result<Vec<Row>, Error>> {
        self.inner.held()
    }

    fn tidy(&self, keep: Duration, blobs: &'static [weft_store::Table]) -> BoxFuture<'_, Result<(), Error>> {
        self.inner.tidy(keep, blobs)
    }

    fn fault(&self) -> Option<Fault> {
        self.inner.fault()
    }

    fn generation(&self) -> u64 {
        self.inner.generation()
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }
}

fn overtaken_hub(state: &Path) -> Arc<Hub> {
    let config = Config { state: state.to_owned(), try_filters: false, ..Config::default() };
    let inner = Embedded::open(&state.join("weft.redb")).unwrap();
    let store = Arc::new(Store::over(Overtaken { inner, is_on_time: AtomicBool::new(true) }, 1000).unwrap());
    let authority = Arc::new(Authority::open(state, &config.trust_domain, OffsetDateTime::now_utc()).unwrap());
    let hub = Hub::start(config, store, authority, Arc::new(Metrics::new()), CancellationToken::new()).unwrap();
    assert_eq!(conflicts(&hub), 0);
    hub
}

fn conflicts(hub: &Hub) -> u64 {
    let text = hub.metrics().render();
    let line = text.lines().find_map(|line| line.strip_prefix("weft_control_store_conflicts_total "));
    line.map_or(0, |number| number.parse().unwrap())
}

#[tokio::test]
async fn a_change_that_is_overtaken_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let hub = overtaken_hub(dir.path());
    hub.count_tokens().await.unwrap();
    let mut done: Vec<&str> = Vec::new();
    let mut overtaken = conflicts(&hub);
    // Each of these was overtaken, or it shows nothing.
    let mut did = |actions: &[&'static str]| {
        assert!(conflicts(&hub) >= overtaken + actions.len() as u64, "{actions:?}");
        overtaken = conflicts(&hub);
        done.extend(actions);
    };

    assert_eq!(hub.apply("me", resources(SHOP), How::Safely).await.unwrap().revision, Revision(1));
    did(&["apply"]);
    let token = hub.create_token("me", join_grant(2), None).await.unwrap();
    did(&["token.create"]);
    let signed = hub.join(token.text.reveal(), &csr(), None).await.unwrap();
    did(&["join"]);
    hub.join(token.text.reveal(), &csr(), None).await.expect("it was used once so far");
    did(&["join"]);
    let refused = hub.join(token.text.reveal(), &csr(), None).await.err().unwrap();
    assert!(refused.to_string().contains("was used"), "{refused}");
    hub.renew(&held(&signed), &csr()).await.unwrap();
    did(&["renew"]);
    let key = proxy("p");
    let _seat = enter(&hub, &key);
    hub.register(&key, HERE, vec![registration("web-2", "127.0.0.12", Some("web"))]).await.unwrap();
    did(&["workload.register"]);
    hub.evict("me", vec![key.clone()]).await.unwrap();
    did(&["proxy.evict", "workload.release"]);
    let other: SpiffeId = "spiffe://cluster.local/ns/shop/sa/other".parse().unwrap();
    hub.ban("me", other.clone(), String::new()).await.unwrap();
    did(&["proxy.ban"]);
    hub.unban("me", &other).await.unwrap();
    did(&["proxy.unban"]);
    let before = hub.published().revision;
    let deleted = hub.delete("me", ObjectKey::new(Kind::Service, "shop", "web"), How::Forced).await.unwrap();
    assert_eq!(deleted, Revision(before.0 + 1));
    did(&["delete"]);
    let second = hub.create_token("me", join_grant(1), None).await.unwrap();
    did(&["token.create"]);
    let id = second.id.clone();
    assert_eq!(hub.revoke_tokens("me", move |record| record.id == id).await.unwrap().len(), 1);
    did(&["token.revoke"]);

    hub.create_token("me", join_grant(1), None).await.unwrap();
    did(&["token.create"]);

    let log = hub.audit(None, 100).await.unwrap();
    let told: Vec<_> = log.iter().rev().map(|(_, entry)| entry.action.as_str()).collect();
    assert_eq!(told, done, "each was told once");
    let counted = |hub: &Hub| hub.tokens_made.shown().unwrap().into_iter().filter(|(_, count)| *count > 0);
    let noted: Vec<_> = counted(&hub).collect();
    hub.count_tokens().await.unwrap();
    assert_eq!(noted.len(), 3, "of the mesh, the namespace and the maker: {noted:?}");
    assert_eq!(noted, counted(&hub).collect::<Vec<_>>(), "each token is counted once");
    let loaded = apply::load(&hub.store, &hub.store.frozen().unwrap(), &hub.trust_domain, "").unwrap();
    assert_eq!((loaded.revision, loaded.claims), (hub.published().revision, hub.published().claims.clone()));
}

//! A disk without room and callers without measure: whoever was there goes on, and nobody takes the room of others.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::*;
use crate::store::{AuditEntry, Table};

/// A hub whose disk has as much room as one wants.
fn on_small_disk(dir: &Path) -> (Arc<Hub>, Arc<AtomicU64>) {
    started_with(dir, u64::MAX / 2)
}

/// A hub that is started on a disk with so much room.
fn started_with(dir: &Path, bytes: u64) -> (Arc<Hub>, Arc<AtomicU64>) {
    let (store, room) = crate::store::tests::on_small_disk(&dir.join("weft.redb"));
    room.store(bytes, Ordering::SeqCst);
    let config = Config { state: dir.to_owned(), name_grace_seconds: 0, ..Config::default() };
    let authority = Authority::open(dir, &config.trust_domain, OffsetDateTime::now_utc()).unwrap();
    let (store, metrics) = (Arc::new(store), Arc::new(Metrics::new()));
    let hub = Hub::start(config, store, Arc::new(authority), metrics, CancellationToken::new()).unwrap();
    (hub, room)
}

fn weighted(weight: u32) -> Vec<Registration> {
    let told = Told {
        namespace: "shop".to_owned(),
        name: "web-1".to_owned(),
        address: "127.0.0.11".to_owned(),
        mesh_address: "127.0.0.11:15008".to_owned(),
        ports: vec![(8080, weft_policy::bundle::Protocol::Http)],
        weight,
        ..Told::default()
    };
    vec![Registration::new(told, &proxy("p").identity).unwrap()]
}

fn weight(hub: &Hub) -> u32 {
    hub.published().world.workload(&ObjectName::new("shop", "web-1")).unwrap().spec.weight
}

#[tokio::test]
async fn a_full_disk_keeps_no_known_proxy_out() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, room) = on_small_disk(dir.path());
    // A name of somebody who left is over: that concerns nobody who registers.
    let gone = proxy_of("gone", "gone");
    hub.register(&gone, HERE, vec![registration_of(&gone.identity, "gone", "127.0.0.12", None)]).await.unwrap();
    hub.release(&gone, "test").await;
    let seat = enter(&hub, &proxy("p"));
    hub.register(&proxy("p"), HERE, weighted(1)).await.unwrap();
    room.store(0, Ordering::SeqCst);
    hub.register(&proxy("p"), HERE, weighted(1)).await.expect("nothing of it changed");
    // Another weight can't be written: the old one holds, and the new one is written as soon as it can be.
    let error = hub.register(&proxy("p"), HERE, weighted(5)).await.unwrap_err();
    assert!(matches!(error, RegisterError::Store(_)), "{error}");
    assert!(hub.has_registered(&proxy("p"), &[ObjectName::new("shop", "web-1")]));
    assert!(!hub.has_registered(&proxy("p"), &[ObjectName::new("shop", "web-2")]));
    hub.register_later(seat, HERE, weighted(5));
    assert_eq!(weight(&hub), 1);
    let mut published = hub.subscribe();
    room.store(u64::MAX / 2, Ordering::SeqCst);
    hub.tend_store().await;
    let written = published.wait_for(|now| {
        now.world.workload(&ObjectName::new("shop", "web-1")).is_some_and(|workload| workload.spec.weight == 5)
    });
    tokio::time::timeout(Duration::from_secs(10), written).await.expect("it is tried again").unwrap();
}

#[tokio::test]
async fn a_name_is_freed_by_the_upkeep_and_not_by_who_registers() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |config| config.name_grace_seconds = 3_600);
    let (old, new) = (proxy_of("old", "old"), proxy_of("new", "new"));
    let of = |proxy: &ProxyKey| vec![registration_of(&proxy.identity, "web-9", "127.0.0.19", None)];
    hub.register(&old, HERE, of(&old)).await.unwrap();
    hub.release(&old, "test").await;
    hub.sweep_names().await.unwrap();
    let refused = hub.register(&new, HERE, of(&new)).await.unwrap_err().to_string();
    assert!(refused.contains("for a day after its workload left"), "{refused}");
    let later = hub.published().claims.over(hub.age() + 1);
    assert_eq!(later, [ObjectName::new("shop", "web-9")], "by the age of the store, whatever the clock says");
}

#[tokio::test]
async fn changes_of_registrations_are_bounded_and_a_weight_hurries_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |config| config.limits.max_registrations_per_minute = 3);
    hub.register(&proxy("p"), HERE, weighted(1)).await.unwrap();
    let before = hub.published().last_removal;
    hub.register(&proxy("p"), HERE, weighted(2)).await.unwrap();
    assert_eq!((weight(&hub), hub.published().last_removal), (2, before), "it is gathered with other changes");
    let moved = vec![registration("web-1", "127.0.0.12", None)];
    hub.register(&proxy("p"), HERE, moved.clone()).await.unwrap();
    assert_eq!(hub.published().last_removal, hub.published().revision, "an endpoint that moves is told at once");
    let error = hub.register(&proxy("p"), HERE, weighted(3)).await.unwrap_err();
    assert!(matches!(error, RegisterError::TooOften { .. }), "{error}");
    assert!(hub.metrics().render().contains("weft_control_throttled_total{reason=\"registrations\"} 1"));
    hub.register(&proxy("p"), HERE, moved).await.expect("what changes nothing is no change");
    let other = proxy_of("other", "other");
    let own = vec![registration_of(&other.identity, "other", "127.0.0.13", None)];
    hub.register(&other, HERE, own).await.expect("each account by itself");
}

#[tokio::test]
async fn tokens_have_a_number_and_a_size() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |config| config.limits.max_tokens = 20);
    hub.sweep_tokens().await.unwrap();
    let of = |namespace: &str| Grant::Join {
        identity: format!("spiffe://cluster.local/ns/{namespace}/sa/web").parse().unwrap(),
        uses_left: 1,
        grants: Grants::default(),
    };
    let first = hub.create_token("a", of("shop"), None).await.unwrap();
    hub.create_token("b", of("shop"), None).await.unwrap();
    let refused = hub.create_token("c", of("shop"), None).await.err().unwrap().to_string();
    assert!(refused.starts_with("namespace shop has 2 tokens that are good"), "{refused}");
    hub.create_token("c", of("bank"), None).await.expect("the room of others is theirs");
    hub.revoke_tokens("a", move |record| record.id == first.id).await.unwrap();
    hub.create_token("c", of("shop"), None).await.expect("one was revoked");
    hub.create_token("c", of("till"), None).await.unwrap();
    hub.create_token("c", of("desk"), None).await.unwrap();
    let refused = hub.create_token("c", of("lamp"), None).await.err().unwrap().to_string();
    assert!(refused.starts_with("c, as their maker, has 4 tokens"), "{refused}");
    let labels = (0..64).map(|number| (format!("label-{number}"), "x".repeat(200))).collect();
    let grant = Grant::Join { identity: web(), uses_left: 1, grants: Grants { labels, ..Grants::default() } };
    let error = hub.create_token("d", grant, None).await.err().unwrap();
    assert!(matches!(error, TokenError::TooLarge(_)), "{error}");
}

#[tokio::test]
async fn joins_from_one_place_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |config| config.limits.max_joins_per_minute = 2);
    let from = |text: &str| Some(text.parse().unwrap());
    let join = async |peer| hub.join("weft_join_nonsense", &csr(), peer).await.err().unwrap();
    for _ in 0..2 {
        assert!(matches!(join(from("2001:db8::1")).await, JoinError::Unknown));
    }
    // The whole network of a host counts as one.
    let error = join(from("2001:db8::2")).await;
    assert!(error.to_string().starts_with("too many joins are tried from 2001:db8::2: again in "), "{error}");
    assert!(matches!(join(from("2001:db8:0:1::1")).await, JoinError::Unknown));
    assert!(matches!(join(from("192.0.2.1")).await, JoinError::Unknown));
    assert!(hub.metrics().render().contains("weft_control_throttled_total{reason=\"joins\"} 1"));
}

#[tokio::test]
async fn what_one_account_is_granted_has_a_number() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let mut joined = 0;
    let refused = loop {
        let services = (0..60).map(|number| format!("s-{joined}-{number}")).collect();
        let grants = Grants { services, ..Grants::default() };
        let token = hub.create_token("me", Grant::Join { identity: web(), uses_left: 1, grants }, None).await.unwrap();
        match hub.join(token.text.reveal(), &csr(), None).await {
            Ok(_) => joined += 1,
            Err(error) => break error.to_string(),
        }
    };
    assert_eq!(joined, crate::claims::MAX_GRANTED / 60, "{refused}");
    assert!(refused.contains("would have 540 services, labels and addresses granted"), "{refused}");
    hub.join(hub.create_token("me", join_grant(1), None).await.unwrap().text.reveal(), &csr(), None).await.unwrap();
}

#[tokio::test]
async fn a_search_that_waits_reads_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    assert_eq!(hub.newest_event().await.unwrap(), 0);
    hub.apply("me", resources(SHOP), How::Safely).await.unwrap();
    let newest = hub.newest_event().await.unwrap();
    assert_eq!(newest, hub.audit(None, 1).await.unwrap()[0].0);
    hub.note_refused(AuditEntry {
        refused: "403".to_owned(),
        ..AuditEntry::new("operator:x", "get", String::new(), String::new())
    });
    let mut told = hub.watch_events();
    tokio::time::timeout(Duration::from_secs(10), told.changed()).await.expect("it is written").unwrap();
    assert_eq!(hub.newest_event().await.unwrap(), newest + 1, "of whatever table");
}

#[tokio::test]
async fn a_ban_holds_at_once_though_the_disk_is_full_and_is_written_when_it_has_room() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, room) = on_small_disk(dir.path());
    hub.register(&proxy("p"), HERE, weighted(1)).await.unwrap();
    room.store(0, Ordering::SeqCst);
    let (_, is_durable) = hub.ban("me", web(), "broken into".to_owned()).await.unwrap();
    assert!(!is_durable && hub.banned(&web()).is_some(), "it holds in memory, and says so");
    // The store is read again after each failure: what is not in it yet holds all the same.
    hub.tend_store().await;
    assert!(hub.apply("me", resources(SHOP), How::Safely).await.is_err());
    assert!(hub.banned(&web()).is_some());
    room.store(u64::MAX / 2, Ordering::SeqCst);
    hub.tend_store().await;
    hub.tend_store().await;
    assert!(hub.blocking(|store| store.row::<Ban>(Table::Bans, web().as_str())).await.unwrap().is_some());
    assert!(hub.published().world.registered().next().is_none(), "its endpoints left");
    assert_eq!(hub.audit(None, 10).await.unwrap().iter().filter(|(_, entry)| entry.action == "proxy.ban").count(), 1);
    assert!(hub.ban("me", web(), String::new()).await.unwrap().1);
    // One that was never written is lifted without a word to the disk.
    let other: SpiffeId = "spiffe://cluster.local/ns/shop/sa/other".parse().unwrap();
    room.store(0, Ordering::SeqCst);
    hub.ban("me", other.clone(), String::new()).await.unwrap();
    hub.unban("me", &other).await.unwrap();
    assert_eq!(hub.banned(&other), None);
    let (known, is_durable) = hub.ban("me", web(), "again".to_owned()).await.unwrap();
    assert!(is_durable && known.reason == "broken into", "the store has an older one");
}

#[tokio::test]
async fn a_start_needs_no_room_and_proxies_come_back_to_it() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (hub, _) = on_small_disk(dir.path());
        hub.register(&proxy("p"), HERE, weighted(1)).await.unwrap();
        hub.stop.cancel();
        hub.finish().await;
    }
    let (hub, room) = started_with(dir.path(), 0);
    let seat = enter(&hub, &proxy("p"));
    hub.register(&proxy("p"), HERE, weighted(1)).await.expect("it is as the store has it");
    assert_eq!(weight(&hub), 1);
    hub.registry().leave(&seat, false);
    let error = hub.register(&proxy_of("new", "new"), HERE, vec![]).await;
    assert!(error.is_ok(), "one without workloads needs no room either");
    assert!(hub.sweep_names().await.is_ok() && hub.keep_age().await.is_ok(), "there is nothing to write");
    room.store(u64::MAX / 2, Ordering::SeqCst);
    hub.register(&proxy("p"), HERE, weighted(2)).await.unwrap();
}

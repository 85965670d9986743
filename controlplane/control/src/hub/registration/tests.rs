//! Whose an address is, and how much one account may register.

use super::*;
use crate::hub::How;
use crate::hub::tests::{HERE, enter, hub_in, proxy, proxy_of, registration, registration_of, resources};

#[test]
fn addresses_follow_the_stream() {
    let at = |text: &str| -> IpAddr { text.parse().unwrap() };
    let far = Origin { address: at("192.0.2.7"), is_local: false };
    let near = Origin { address: at("127.0.0.1"), is_local: true };
    let stranger = || {
        let identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        Some((ProxyKey { name: "far".to_owned(), identity }, at("192.0.2.7")))
    };
    assert_eq!(misplaced(at("192.0.2.7"), far, || None), None);
    assert_eq!(misplaced(at("127.0.0.11"), near, || None), None);
    for (address, origin, remote, expect) in [
        ("192.0.2.8", far, None, "not where its proxy speaks from, which is 192.0.2.7"),
        ("192.0.2.8", near, None, "not where its proxy speaks from, which is 127.0.0.1"),
        ("127.0.0.11", far, None, "is of one machine only, and its proxy speaks from 192.0.2.7"),
        ("127.0.0.11", far, None, "that other hosts reach, such as 192.0.2.7 (`workload.address`, `weft run --ip`)"),
        ("127.0.0.11", near, stranger(), "this mesh has others: proxy far"),
        ("127.0.0.11", near, stranger(), "that other hosts reach (`workload.address`, `weft run --ip`)"),
        ("::1", near, stranger(), "this mesh has others: proxy far"),
    ] {
        let reason = misplaced(at(address), origin, || remote).unwrap();
        assert!(reason.contains(expect), "{reason}");
    }
}

#[tokio::test]
async fn a_place_stays_its_owners_while_he_is_silent() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let (bob, mallory) = (proxy_of("bob", "bob"), proxy_of("mallory", "mallory"));
    let at = |proxy: &ProxyKey, address: &str| vec![registration_of(&proxy.identity, &proxy.name, address, None)];
    let seat = enter(&hub, &bob);
    hub.register(&bob, HERE, at(&bob, "127.0.0.3")).await.unwrap();
    hub.registry().leave(&seat, false);
    let refused = hub.register(&mallory, HERE, at(&mallory, "127.0.0.3")).await.unwrap_err().to_string();
    assert_eq!(refused, "workload shop/mallory: address: 127.0.0.3 is the address of Workload shop/bob");
    hub.register(&bob, HERE, at(&bob, "127.0.0.3")).await.unwrap();
    // Another machine that speaks from the address has it.
    let there = Origin { address: "192.0.2.7".parse().unwrap(), is_local: false };
    hub.register(&bob, there, at(&bob, "192.0.2.7")).await.unwrap();
    hub.register(&mallory, there, at(&mallory, "192.0.2.7")).await.unwrap();
}

#[tokio::test]
async fn applied_workloads_and_virtual_addresses_are_taken_places() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let applied = "{apiVersion: weft.dev/v1alpha1, kind: Workload, metadata: {name: app, namespace: bank}, spec: {address: \
                   192.0.2.9, serviceAccount: app, ports: [{port: 8080}]}}\n---\n{apiVersion: v1, kind: Service, metadata: {name: \
                   till, namespace: bank}, spec: {clusterIP: 192.0.2.8, selector: {app: till}, ports: [{port: 80}]}}";
    hub.apply("me", resources(applied), How::Safely).await.unwrap();
    for (address, expect) in
        [("192.0.2.9", "a Workload of another namespace"), ("192.0.2.8", "a Service of another namespace")]
    {
        let there = Origin { address: address.parse().unwrap(), is_local: false };
        let refused = hub.register(&proxy("p"), there, vec![registration("web-1", address, None)]).await.unwrap_err();
        assert_eq!(refused.to_string(), format!("workload shop/web-1: address: {address} is the address of {expect}"));
    }
}

#[tokio::test]
async fn what_one_account_registers_has_a_size() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |config| config.limits.max_account_bytes = 1_000);
    let at = |number: u8| vec![registration(&format!("web-{number}"), &format!("127.0.0.{number}"), None)];
    let mut taken = 0;
    let refused = loop {
        match hub.register(&proxy(&format!("p{taken}")), HERE, at(11 + taken)).await {
            Ok(()) => taken += 1,
            Err(error) => break error.to_string(),
        }
    };
    assert!((2..8).contains(&taken), "{taken}");
    assert!(refused.contains("shop/sa/web would have ") && refused.contains("at most 1000"), "{refused}");
    let other = proxy_of("other", "other");
    let one = registration_of(&other.identity, "other", "127.0.0.99", None);
    hub.register(&other, HERE, vec![one]).await.unwrap();
}

#[tokio::test]
async fn a_service_whose_endpoints_are_all_one_proxys_keeps_its_share_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let registrations: Vec<_> = (1..=10)
        .map(|number| registration(&format!("web-{number}"), &format!("127.0.0.{number}"), Some("web")))
        .collect();
    hub.register(&proxy("p"), HERE, registrations).await.unwrap();
    let world = hub.published().world.clone();
    let owned = owned_by(&world, &proxy("p"));
    assert_eq!(owned.len(), 10);
    let mut removals = Removals::default();
    // The last never leaves, whatever share may.
    assert_eq!(may_leave(&world, &owned, &mut Removals::default(), 100).len(), 9);
    let leaving = may_leave(&world, &owned, &mut removals, 50);
    assert_eq!(leaving.len(), 5);
    hub.release_some(&proxy("p"), leaving, "test").await;
    let world = hub.published().world.clone();
    let owned = owned_by(&world, &proxy("p"));
    assert_eq!(owned.len(), 5);
    assert!(may_leave(&world, &owned, &mut removals, 50).is_empty(), "at once");
    let one = vec![registration("alone", "127.0.0.99", None)];
    hub.register(&proxy("q"), HERE, one).await.unwrap();
    let world = hub.published().world.clone();
    assert_eq!(may_leave(&world, &owned_by(&world, &proxy("q")), &mut removals, 50).len(), 1, "behind no service");
}

#[test]
fn proxies_without_workloads_are_no_sign_of_a_mass_loss() {
    let registry = crate::registry::Registry::new();
    for number in 0..20 {
        let key = proxy(&format!("empty-{number}"));
        let seat = registry.enter(key, Default::default(), OffsetDateTime::now_utc()).unwrap().seat;
        registry.leave(&seat, false);
    }
    assert_eq!(registry.outlook(|_| true).suspects, 20);
    assert_eq!(registry.outlook(|proxy| proxy.name == "empty-3").suspects, 1);
}

#[tokio::test]
async fn who_moves_on_and_on_holds_few_addresses_and_keeps_none_from_its_next_owner() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let (mover, other) = (proxy_of("mover", "mover"), proxy_of("other", "other"));
    let at = |number: usize| format!("192.0.2.{}", number + 1);
    let there = |number: usize| Origin { address: at(number).parse().unwrap(), is_local: false };
    let all = |count: usize| -> Vec<_> {
        (0..count).map(|n| registration_of(&mover.identity, &format!("m-{n}"), &at(n), None)).collect()
    };
    let starts = std::cell::Cell::new(0);
    let enter_from = |proxy: &ProxyKey, origin: Origin| {
        starts.set(starts.get() + 1);
        let (address, incarnation) = (Some(origin.address), starts.get());
        let introduction = crate::registry::Introduction { address, incarnation, ..Default::default() };
        hub.registry().enter(proxy.clone(), introduction, OffsetDateTime::now_utc()).unwrap().seat
    };
    let mut held = 0;
    let refused = loop {
        let origin = there(held);
        enter_from(&mover, origin);
        match hub.register(&mover, origin, all(held + 1)).await {
            Ok(()) => held += 1,
            Err(error) => break error.to_string(),
        }
    };
    assert_eq!(held, MAX_HELD + 1, "{refused}");
    assert!(refused.contains("holds 9 other addresses; at most 8 are held"), "{refused}");
    // Whoever speaks from an address has it, though the one who had it before is connected from elsewhere.
    enter_from(&other, there(0));
    let own = || vec![registration_of(&other.identity, "other", &at(0), None)];
    hub.register(&other, there(0), own()).await.unwrap();
    let last = || vec![registration_of(&other.identity, "other", &at(held - 1), None)];
    enter_from(&mover, there(held - 1));
    let refused = hub.register(&other, there(held - 1), last()).await.unwrap_err().to_string();
    assert!(refused.contains("is the address of Workload shop/m-8"), "the holder speaks from there: {refused}");
}

#[test]
fn an_older_start_that_is_refused_ends_no_dispute() {
    let registry = crate::registry::Registry::new();
    let enter = |incarnation: u64| {
        let introduction = crate::registry::Introduction { incarnation, ..Default::default() };
        registry.enter(proxy("p"), introduction, OffsetDateTime::now_utc())
    };
    for _ in 0..4 {
        enter(7).unwrap();
    }
    assert!(enter(6).unwrap_err().is_newer, "the holder started later");
    assert!(!enter(7).unwrap_err().is_newer, "the two have taken the seat from each other too often, all the same");
}

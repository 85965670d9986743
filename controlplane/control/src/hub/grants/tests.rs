//! Withdrawn grants take workloads out of their services; further tokens put them back.

use super::*;
use crate::hub::How;
use crate::hub::tests::{HERE, SHOP, enter, hub_in, proxy_of, registration_of, resources};

fn service(name: &str) -> Grants {
    Grants { services: [name.to_owned()].into(), ..Grants::default() }
}

async fn token(hub: &Arc<Hub>, account: &str, grants: Grants, uses_left: u32) -> String {
    let grant = Grant::Join { identity: proxy_of("p", account).identity, uses_left, grants };
    hub.create_token("me", grant, None).await.unwrap().text.reveal().to_owned()
}

fn behind_web(hub: &Hub) -> Vec<String> {
    let published = hub.published();
    let web = published.world.service(&ObjectName::new("shop", "web")).unwrap();
    published.world.standing_behind(web).map(|workload| workload.name().to_string()).collect()
}

#[tokio::test]
async fn a_withdrawn_service_takes_the_workload_out_and_a_token_gives_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    hub.apply("me", resources(SHOP), How::Safely).await.unwrap();
    let canary = proxy_of("canary", "canary");
    let told = || vec![registration_of(&canary.identity, "canary", "127.0.0.12", Some("web"))];
    hub.register(&canary, HERE, told()).await.unwrap_err();
    let first = token(&hub, "canary", service("web"), 1).await;
    assert_eq!(hub.gain(&canary.identity, &first, "127.0.0.1").await.unwrap(), service("web"));
    let seat = enter(&hub, &canary);
    hub.register(&canary, HERE, told()).await.unwrap();
    assert_eq!(behind_web(&hub), ["shop/canary", "shop/web-1"]);

    // Nothing happens by a mistake.
    let refused = hub.withdraw("me", canary.identity.clone(), Some(service("till"))).await.unwrap_err().to_string();
    assert_eq!(refused, "spiffe://cluster.local/ns/shop/sa/canary was not granted service=till: weft proxy grants");
    let again = token(&hub, "canary", service("web"), 1).await;
    let withdrawn = hub.withdraw("me", canary.identity.clone(), None).await.unwrap();
    assert_eq!(behind_web(&hub), ["shop/web-1"]);
    assert_eq!((withdrawn.grants, withdrawn.left.len(), withdrawn.tokens.len()), (service("web"), 1, 1));
    assert!(seat.replaced.is_cancelled(), "its proxy hears of it");
    let why = "an operator withdrew service=web: workload shop/canary may not stand behind Service shop/web any longer";
    assert_eq!(seat.why(), Some(why));
    let (_, entry) = hub.audit(None, 1).await.unwrap().remove(0);
    assert_eq!((entry.action.as_str(), entry.detail.as_str()), ("grants.withdraw", "service=web; left: shop/canary"));
    assert_eq!(entry.namespaces, ["shop"]);
    hub.register(&canary, HERE, told()).await.unwrap_err();

    hub.gain(&canary.identity, &again, "127.0.0.1").await.unwrap();
    hub.register(&canary, HERE, told()).await.unwrap();
    assert_eq!(behind_web(&hub), ["shop/canary", "shop/web-1"]);
    // A restart finds what holds.
    drop(hub);
    let hub = hub_in(dir.path(), |_| {});
    assert_eq!(*hub.published().claims.grants(&canary.identity), service("web"));
}

#[tokio::test]
async fn a_withdrawn_address_takes_the_workload_out_unless_its_proxy_speaks_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let web = proxy_of("web-1", "web");
    let range = Grants { addresses: ["192.0.2.0/24".parse().unwrap()].into(), ..Grants::default() };
    let granting = token(&hub, "web", range.clone(), 9).await;
    hub.gain(&web.identity, &granting, "127.0.0.1").await.unwrap();
    let told = || vec![registration_of(&web.identity, "web-1", "192.0.2.7", None)];
    let there = |address: &str| Origin { address: address.parse().unwrap(), is_local: false };
    let enter = |address: &str| {
        let address = Some(address.parse().unwrap());
        let introduction = crate::registry::Introduction { address, is_remote: true, ..Default::default() };
        hub.registry().enter(web.clone(), introduction, OffsetDateTime::now_utc()).unwrap()
    };
    enter("192.0.2.7");
    hub.register(&web, there("192.0.2.7"), told()).await.unwrap();
    assert_eq!(hub.withdraw("me", web.identity.clone(), Some(range.clone())).await.unwrap().left, []);
    hub.gain(&web.identity, &granting, "127.0.0.1").await.unwrap();
    enter("198.51.100.1");
    hub.register(&web, there("198.51.100.1"), told()).await.unwrap();
    let left = hub.withdraw("me", web.identity.clone(), Some(range)).await.unwrap().left;
    assert_eq!(left.len(), 1);
    assert!(left[0].1.contains("may not be at 192.0.2.7 any longer"), "{}", left[0].1);
}

#[tokio::test]
async fn a_token_is_used_up_by_what_it_grants_only() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_in(dir.path(), |_| {});
    let web = proxy_of("p", "web").identity;
    let plain = token(&hub, "web", Grants::default(), 1).await;
    for _ in 0..2 {
        assert_eq!(hub.gain(&web, &plain, "127.0.0.1").await.unwrap(), Grants::default());
    }
    let granting = token(&hub, "web", service("till"), 1).await;
    let other = proxy_of("p", "other").identity;
    let refused = hub.gain(&other, &granting, "127.0.0.1").await.unwrap_err();
    assert!(matches!(refused, JoinError::OtherAccount { .. }), "{refused}");
    assert!(refused.to_string().contains("is for spiffe://cluster.local/ns/shop/sa/web"), "{refused}");
    hub.gain(&web, &granting, "127.0.0.1").await.unwrap();
    let refused = hub.gain(&web, &granting, "127.0.0.1").await.unwrap_err();
    assert!(matches!(refused, JoinError::Unknown), "it is used up: {refused}");
}

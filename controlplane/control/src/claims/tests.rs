//! Grants by name, by token, by label and by annotation; names that stay their accounts'.

use std::collections::BTreeMap;

use weft_policy::resource::Metadata;
use weft_policy::resource::core::ACCOUNTS;

use super::*;

fn identity(account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap()
}

fn service(name: &str, selector: &[(&str, &str)], accounts: &str) -> Object<ServiceSpec> {
    let selector = selector.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let annotations = BTreeMap::from([(ACCOUNTS.to_owned(), accounts.to_owned())]);
    let metadata = Metadata { name: name.to_owned(), namespace: "shop".to_owned(), annotations, ..Metadata::default() };
    Object { metadata, spec: ServiceSpec { selector, ..ServiceSpec::default() } }
}

#[test]
fn who_may_stand_behind_a_service() {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let token = Grants {
        services: ["web".to_owned()].into(),
        labels: [pair("app", "shop"), pair("tier", "a")].into(),
        ..Grants::default()
    };
    for (grants, account, service, expect) in [
        (Grants::default(), "web", service("web", &[], ""), true),
        (Grants::default(), "evil", service("web", &[], ""), false),
        (Grants::default(), "evil", service("web", &[], "good, other"), false),
        (Grants::default(), "other", service("web", &[], "good, other"), true),
        (token.clone(), "evil", service("web", &[], ""), true),
        (token.clone(), "evil", service("victim", &[("app", "shop")], ""), true),
        (token.clone(), "evil", service("victim", &[("app", "shop"), ("tier", "b")], ""), false),
        (token, "evil", service("victim", &[], ""), false),
    ] {
        let name = &service.metadata.name;
        assert_eq!(grants.may_stand_behind(account, name, Some(&service)), expect, "{account} {service:?} {grants:?}");
    }
    assert!(Grants::default().may_stand_behind("web", "web", None), "one that is made for it");
    assert!(!Grants::default().may_stand_behind("evil", "web", None));
}

#[test]
fn grants_add_up_and_come_back_from_the_store() {
    let mut claims = Claims::default();
    let address = Grants { addresses: ["10.0.0.0/8".parse().unwrap()].into(), ..Grants::default() };
    let service = Grants { services: ["web".to_owned()].into(), ..Grants::default() };
    assert!(claims.grant(&identity("a"), &address).is_some());
    assert_eq!(claims.grant(&identity("a"), &address), None);
    let (_, record) = claims.grant(&identity("a"), &service).unwrap();
    let stored = serde_json::to_string(&record.unwrap()).unwrap();
    let loaded = Claims::load([serde_json::from_str(&stored).unwrap()]);
    assert_eq!(loaded, claims);
    assert!(loaded.grants(&identity("a")).has_address("10.1.2.3".parse().unwrap()));
    assert!(!loaded.grants(&identity("b")).has_address("10.1.2.3".parse().unwrap()));
}

#[test]
fn what_is_withdrawn_is_gone_from_the_store() {
    let mut claims = Claims::default();
    let service = |name: &str| Grants { services: [name.to_owned()].into(), ..Grants::default() };
    claims.grant(&identity("a"), &service("web")).unwrap();
    claims.grant(&identity("a"), &service("till")).unwrap();
    assert_eq!(claims.withdraw(&identity("b"), &service("web")), None);
    assert_eq!(claims.withdraw(&identity("a"), &service("other")), None);
    let (_, record) = claims.withdraw(&identity("a"), &service("web")).unwrap();
    assert_eq!(record, Some(ClaimRecord::Grants { identity: identity("a"), grants: service("till") }));
    assert_eq!(claims.withdraw(&identity("a"), &service("till")).unwrap().1, None, "nothing is left to be kept");
    assert_eq!(claims.granted().count(), 0);
}

#[test]
fn a_name_stays_its_accounts_for_a_while() {
    let (mut claims, name) = (Claims::default(), ObjectName::new("shop", "web-1"));
    assert!(claims.take(&name, &identity("web")).is_some());
    assert_eq!(claims.take(&name, &identity("web")), None);
    assert_eq!(claims.sweep(u64::MAX), [], "in use");
    claims.leave(&name, 100, 0);
    assert_eq!(claims.sweep(100), []);
    assert_eq!(claims.holder(&name).unwrap().identity, identity("web"));
    assert_eq!(claims.sweep(101), [("name/shop/web-1".to_owned(), None)]);
    assert_eq!(claims.holder(&name), None);
}

#[test]
fn nobody_keeps_more_names_than_the_bound() {
    let mut claims = Claims::default();
    for number in 0..u64::try_from(MAX_NAMES).unwrap() + 2 {
        let name = ObjectName::new("shop", format!("w-{number}"));
        claims.take(&name, &identity("evil"));
        claims.leave(&name, number, 0);
    }
    let ended: Vec<_> = claims.sweep(0).into_iter().map(|(key, _)| key).collect();
    assert_eq!(ended, ["name/shop/w-0", "name/shop/w-1"], "the oldest");
}

#[test]
fn no_clock_decides_how_long_a_name_is_kept() {
    let (mut claims, name) = (Claims::default(), ObjectName::new("shop", "web-1"));
    claims.take(&name, &identity("web"));
    for now_unix in [i64::MIN, 0, i64::MAX] {
        claims.leave(&name, 100, now_unix);
        assert_eq!((claims.over(100).len(), claims.over(101).len()), (0, 1), "{now_unix}");
    }
    // An older release wrote the wall clock only: its claims are kept for the whole while.
    let record = r#"{"name":{"name":{"namespace":"shop","name":"web-1"},"claim":{"identity":"spiffe://cluster.local/ns/shop/sa/web","released_unix":5}}}"#;
    let record: ClaimRecord = serde_json::from_str(record).unwrap();
    let claims = Claims::load([record]);
    assert_eq!((claims.over(0).len(), claims.over(1).len()), (0, 1));
}

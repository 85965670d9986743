//! How proxies are shown.

use serde_json::json;

use super::*;

fn proxy() -> Proxy {
    let told = json!({
        "name": "reviews-11", "identity": "spiffe://cluster.local/ns/shop/sa/reviews", "state": "disconnected",
        "revision": 1003, "current_revision": 1004, "staleness_ms": 75_000, "heard_ms": 3_000,
        "certificate_not_after": "1970-01-02T01:00:00Z", "connected_since": "1970-01-01T00:00:00Z",
        "transport": "quic", "version": "0.1.0", "address": "127.0.0.1", "mesh_addresses": ["10.0.0.11:15008"],
        "filters": [{"name": "authz", "version": "0.1.0", "state": "preparing", "digest": ""}],
        "reason": "its stream is closed",
    });
    serde_json::from_value(told).unwrap()
}

#[test]
fn a_proxy_that_is_behind_shows_both_revisions() {
    let proxies = [proxy()];
    let text = table(&proxies, true, &Paint::plain(), 0);
    let parts = ["disconnected", "1003/1004", "1m15s", "3s", "1d1h", "authz@0.1.0(preparing)", "10.0.0.11:15008"];
    for part in parts {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(table(&[], false, &Paint::plain(), 0).contains("no proxy"));
}

#[test]
fn the_usual_table_fits_eighty_columns() {
    let text = table(&[proxy()], false, &Paint::plain(), 0);
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    assert!(text.contains("shop/reviews"), "{text}");
}

#[test]
fn why_proxies_refuse_is_said_once_below_the_table() {
    let refused = |name: &str, reason: &str| Proxy {
        name: name.to_owned(),
        state: SyncState::Refused,
        reason: reason.to_owned(),
        filters: Vec::new(),
        ..proxy()
    };
    let mut proxies = vec![proxy(), refused("z", "no such filter")];
    proxies.extend(["a", "b", "c", "d", "e"].map(|name| refused(name, "it is of epoch 1")));
    let text = table(&proxies, false, &Paint::plain(), 0);
    let told = "\nrefused by a, b, c and 2 more: it is of epoch 1\n\nrefused by z: no such filter\n";
    assert!(text.ends_with(told), "{text}");
    assert!(!table(&[proxy()], false, &Paint::plain(), 0).contains("refused by"));
    assert_eq!(table(&proxies, true, &Paint::plain(), 0).matches("refused by").count(), 0, "each row has its own");
}

#[test]
fn filters_that_are_not_in_force_are_told_below_the_table() {
    let with = |name: &str, state: &str| {
        let filter = LoadedFilter { name: "shop/guard".to_owned(), state: state.to_owned(), ..Default::default() };
        Proxy { name: name.to_owned(), state: SyncState::Degraded, filters: vec![filter], ..proxy() }
    };
    let proxies = [with("a", "skipped: too large"), with("b", "skipped: too large"), with("c", "loaded")];
    let text = table(&proxies, false, &Paint::plain(), 0);
    assert!(text.ends_with("\n\nfilter shop/guard at a, b: skipped: too large\n"), "{text}");
    assert!(text.contains("degraded"), "{text}");
    assert_eq!(absences(&[with("c", "loaded")]), None);
    let expected = ["loaded at c", "skipped: too large at a, b"];
    assert_eq!(running(&proxies, "shop/guard"), expected, "`weft describe` tells the same of one filter");
    assert_eq!(running(&proxies, "shop/other"), [""; 0]);
}

#[test]
fn what_only_ages_is_no_news() {
    let mut later = proxy();
    later.heard_ms = 4_000;
    assert_eq!(lasting(&proxy()), lasting(&later));
    later.state = SyncState::Synced;
    assert_ne!(lasting(&proxy()), lasting(&later));
}

#[test]
fn one_that_is_silent_is_named() {
    let silent = SilentReplica { replica: "10.0.0.2:15012".to_owned(), reason: "why".to_owned(), proxies: 3 };
    assert_eq!(silence(&silent), "control plane 10.0.0.2:15012 does not say how its 3 proxies are: why");
}

#[test]
fn whoever_is_kept_out_is_named_beside_the_list() {
    let ban = |name: &str, reason: &str| Ban {
        identity: format!("spiffe://cluster.local/ns/shop/sa/{name}"),
        reason: reason.to_owned(),
        ..Ban::default()
    };
    let since = "banned since 1970-01-01T00:00:00Z";
    let one = [ban("a", "broken into")];
    let expect = format!("kept out of the mesh: shop/a ({since}, broken into) (weft proxy bans)");
    assert_eq!(kept_out(&one), Some(expect));
    let many: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|name| ban(name, "")).collect();
    let told = kept_out(&many).unwrap();
    assert!(told.contains(&format!("shop/c ({since}) and 2 more (weft")), "{told}");
    assert_eq!(kept_out(&[]), None);
}

#[test]
fn certificates_expire() {
    let at = |text: &str, now| expiry(Some(text), now);
    assert_eq!(at("1970-01-01T00:00:10Z", 20), "EXPIRED");
    assert_eq!(at("1970-01-01T00:01:00Z", 0), "1m0s");
    assert_eq!(expiry(None, 0), "-");
    assert_eq!(age(Some("1970-01-01T00:00:00Z"), 90), "1m30s");
}

//! How near endpoints are, by the labels of both.

use super::*;

/// `region/zone/subzone`, parts left empty where a workload does not say.
fn labels(place: &str) -> Labels {
    let parts = [REGION, ZONE, SUBZONE].into_iter().zip(place.split('/'));
    parts.filter(|(_, part)| !part.is_empty()).map(|(key, part)| (key.to_owned(), part.to_owned())).collect()
}

fn locality(prefer: Prefer) -> Locality {
    let failover = |from: &str, to: &[&str]| Failover {
        from: from.to_owned(),
        to: to.iter().map(|region| (*region).to_owned()).collect(),
    };
    Locality {
        prefer,
        failover: vec![failover("eu", &["us", "asia"]), failover("us", &["eu"])],
        overprovisioning_percent: 140,
    }
}

#[test]
fn near_is_what_is_in_the_same_place() {
    fn check(caller: &str, endpoint: &str, expect: [Nearness; 3]) {
        let (from, to) = (labels(caller), labels(endpoint));
        let got = [Prefer::Region, Prefer::Zone, Prefer::Subzone]
            .map(|prefer| locality(prefer).nearness(Place::of(&from), Place::of(&to)));
        assert_eq!(got, expect, "from {caller} to {endpoint}");
    }
    use Nearness::{Elsewhere, Failover, Region, Subzone, Zone};
    check("eu/a/1", "eu/a/1", [Region, Zone, Subzone]);
    check("eu/a/1", "eu/a/2", [Region, Zone, Zone]);
    check("eu/a/1", "eu/a", [Region, Zone, Zone]);
    check("eu/a", "eu/a/1", [Region, Zone, Zone]);
    check("eu/a/1", "eu/b/1", [Region; 3]);
    check("eu/a/1", "eu", [Region; 3]);
    check("eu", "eu/a", [Region; 3]);
    check("eu/a", "us/a", [Failover(0); 3]);
    check("eu/a", "asia/a", [Failover(1); 3]);
    check("eu/a", "africa/a", [Elsewhere; 3]);
    check("eu/a", "", [Elsewhere; 3]);
    check("us/a", "eu/a", [Failover(0); 3]);
    check("us/a", "asia/a", [Elsewhere; 3]);
    check("asia/a", "eu/a", [Elsewhere; 3]);
    // Who does not say where it is has nobody near.
    check("", "eu/a/1", [Elsewhere; 3]);
    check("", "", [Elsewhere; 3]);
    // Zones without regions are told apart by their names alone.
    check("/a", "/a", [Elsewhere, Zone, Zone]);
    check("/a", "/b", [Elsewhere; 3]);
    check("/a", "eu/a", [Elsewhere; 3]);
}

#[test]
fn distances_are_in_the_order_of_nearness() {
    let order = [
        Nearness::Subzone,
        Nearness::Zone,
        Nearness::Region,
        Nearness::Failover(0),
        Nearness::Failover(1),
        Nearness::Failover(u8::MAX),
        Nearness::Elsewhere,
    ];
    assert!(order.is_sorted() && order.map(Nearness::distance).is_sorted());
    let distances: std::collections::BTreeSet<u8> = order.iter().map(|it| it.distance()).collect();
    assert_eq!(distances.len(), order.len());
}

#[test]
fn settings_are_told_in_words() {
    let told = locality(Prefer::Zone).to_string();
    assert_eq!(
        told,
        "Zone: zone, region, from eu to us, asia, from us to eu, then elsewhere, each as far as it carries at 140 %"
    );
    let slow = SlowStart { window_ms: 30_000, least_percent: 10 };
    assert_eq!(slow.to_string(), "from 10 % of the weight to all in 30s");
    assert_eq!(Place::of(&labels("eu/a/1")).to_string(), "eu/a/1");
    assert_eq!(Place::of(&labels("/a")).to_string(), "a");
}

#[test]
fn shares_are_of_the_place_that_says_most() {
    let shares = |from: &str, to: &[&str]| PlaceShares {
        from: from.to_owned(),
        to: to.iter().map(|place| PlaceShare { place: (*place).to_owned(), percent: 50 }).collect(),
    };
    let all = vec![shares("eu", &["eu/a", "us"]), shares("eu/a", &["eu", "eu/a", "eu/a/1"])];
    let spread = Spread { shares: all, ..Spread::default() };
    fn check(spread: &Spread, caller: &str, expect: Option<&str>, endpoints: &[(&str, Option<usize>)]) {
        let from = labels(caller);
        let found = spread.shares_of(Place::of(&from));
        assert_eq!(found.map(|it| it.from.as_str()), expect, "{caller}");
        for (endpoint, place) in endpoints {
            let to = labels(endpoint);
            assert_eq!(found.and_then(|it| it.place_of(Place::of(&to))), *place, "{caller} {endpoint}");
        }
    }
    check(&spread, "eu/b", Some("eu"), &[("eu/a/1", Some(0)), ("us/x", Some(1)), ("eu/b", None), ("", None)]);
    check(&spread, "eu/a/2", Some("eu/a"), &[("eu/a/1", Some(2)), ("eu/a", Some(1)), ("eu/b", Some(0)), ("us", None)]);
    // The same zone in another region, a part of a name, and who says nothing.
    check(&spread, "us/a", None, &[("eu/a", None)]);
    check(&spread, "europe/a", None, &[]);
    check(&spread, "", None, &[]);
    assert_eq!(spread.shares[0].to_string(), "from eu 50 % to eu/a, 50 % to us");
}

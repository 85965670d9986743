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

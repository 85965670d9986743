//! Which endpoints of a service come first: what a policy says, what the Service says, and who is told to have said it.

use super::*;
use crate::bundle::{Failover, Locality, Prefer, SlowStart, Spread};
use crate::delta::Object;

fn policy(balancing: &str) -> String {
    format!(
        "{{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: p, namespace: shop}}, spec: {{targetRefs: \
         [{{kind: Service, name: near}}], loadBalancing: {balancing}}}}}\n"
    )
}

/// The shop with a Service `near`, of this distribution, and a policy for it.
fn shop(distribution: &str, balancing: Option<&str>) -> World {
    let service = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: near, namespace: shop}}, spec: {{selector: {{app: web}}, ports: \
         [{{port: 80, targetPort: 8080}}]{distribution}}}}}\n"
    );
    let policy = balancing.map(|balancing| format!("---\n{}", policy(balancing))).unwrap_or_default();
    shop_and(&format!("{service}{policy}"))
}

const CLOSE: &str = ", trafficDistribution: PreferClose";

#[test]
fn a_policy_or_the_service_says_who_comes_first() {
    fn check(distribution: &str, balancing: Option<&str>, expect: Option<Spread>) {
        let world = shop(distribution, balancing);
        let bundle = bundle(&world, &["shop/web-1"]);
        let spread = bundle.services[&name("shop/near")].spread.as_deref().cloned();
        assert_eq!(spread, expect, "{distribution} {balancing:?}");
        assert_eq!(bundle.services[&name("shop/web")].spread, None, "another is as it was");
    }
    let zone = Locality { prefer: Prefer::Zone, failover: Vec::new(), overprovisioning_percent: 140 };
    let of = |locality: &Locality| Some(Spread { locality: Some(locality.clone()), ..Spread::default() });
    check("", None, None);
    check("", Some("{}"), None);
    check("", Some("{locality: {}, slowStart: {window: 0s}, panicThresholdPercent: 0}"), None);
    check("", Some("{locality: {prefer: Zone}}"), of(&zone));
    check("", Some("{locality: {prefer: Region}}"), of(&Locality { prefer: Prefer::Region, ..zone.clone() }));
    let failover = vec![Failover { from: "eu".to_owned(), to: vec!["us".to_owned(), "asia".to_owned()] }];
    let subzone = Locality { prefer: Prefer::Subzone, failover, overprovisioning_percent: 200 };
    let spec = "{locality: {prefer: Subzone, overprovisioningPercent: 200, failover: [{from: eu, to: [us, asia]}]}}";
    check("", Some(spec), of(&subzone));
    check(CLOSE, None, of(&zone));
    check(", trafficDistribution: PreferSameZone", None, of(&zone));
    check(", trafficDistribution: PreferSameNode", None, None);
    check(CLOSE, Some("{algorithm: Random}"), of(&zone));
    check(CLOSE, Some("{locality: {prefer: Region}}"), of(&Locality { prefer: Prefer::Region, ..zone.clone() }));
    check(CLOSE, Some("{locality: {prefer: None}}"), None);
    let slow_start = Some(SlowStart { window_ms: 30_000, least_percent: 10 });
    check("", Some("{slowStart: {window: 30s}}"), Some(Spread { slow_start, ..Spread::default() }));
    let slow_start = Some(SlowStart { window_ms: 1_000, least_percent: 50 });
    let all = Spread { locality: Some(zone), slow_start, panic_percent: 40, shares: Vec::new() };
    check(CLOSE, Some("{slowStart: {window: 1s, minWeightPercent: 50}, panicThresholdPercent: 40}"), Some(all));
}

#[test]
fn each_setting_says_whose_it_is() {
    fn check(distribution: &str, balancing: Option<&str>, expect: [(&str, bool, bool); 3]) {
        let all = effective(&shop(distribution, balancing), &name("shop/near"));
        let by_service = |it: &Effective| it.policy().is_none() && it.by.is_some();
        let told: Vec<_> =
            all[6..9].iter().map(|it| (it.value.as_str(), it.policy().is_some(), by_service(it))).collect();
        assert_eq!(told, expect, "{distribution} {balancing:?}");
    }
    let nobody = ("None: all endpoints are as near", false, false);
    let (at_once, never) = (("none", false, false), ("0", false, false));
    check("", None, [nobody, at_once, never]);
    check("", Some("{}"), [nobody, at_once, never]);
    let zone = "Zone: zone, region, then elsewhere, each as far as it carries at 140 %";
    check(CLOSE, None, [(zone, false, true), at_once, never]);
    check(CLOSE, Some("{locality: {prefer: None}}"), [(nobody.0, true, false), at_once, never]);
    let spec = "{locality: {prefer: Zone}, slowStart: {window: 30s}, panicThresholdPercent: 40}";
    check(
        "",
        Some(spec),
        [(zone, true, false), ("from 10 % of the weight to all in 30s", true, false), ("40", true, false)],
    );
}

/// Shares of places in the place of an order, with everything that is wrong about them.
#[test]
fn places_may_have_shares() {
    let policy = |locality: &str| policy(&format!("{{locality: {locality}}}"));
    let check = |locality: &str, expect: &[&str]| {
        let errors = manifest::parse("p.yaml", &policy(locality)).err().unwrap_or_default();
        let mut told: Vec<_> = errors.iter().map(|error| format!("{}: {}", error.key, error.message)).collect();
        told.sort();
        let expect: Vec<_> = expect.iter().map(|told| format!("spec.loadBalancing.locality.{told}")).collect();
        assert_eq!(told, expect, "{locality}");
    };
    check("{weights: [{from: eu/a, to: {eu/a: 80, eu/b: 20}}, {from: eu, to: {us: 100}}]}", &[]);
    check("{weights: [{from: eu, to: {us: 99}}]}", &["weights[0].to: comes to 99: a hundred are expected"]);
    check("{weights: [{from: eu, to: {us: 0, asia: 100}}]}", &["weights[0].to: 0 for us is out of range: 1 to 100"]);
    let place = "is not a place: region, region/zone or region/zone/subzone";
    check(
        "{weights: [{from: eu/a/1/x, to: {'eu/': 100}}]}",
        &[&format!("weights[0].from: \"eu/a/1/x\" {place}"), &format!("weights[0].to: \"eu/\" {place}")],
    );
    check(
        "{weights: [{from: eu, to: {us: 100}}, {from: eu, to: {us: 100}}]}",
        &["weights[1].from: \"eu\" is given twice"],
    );
    check(
        "{prefer: Zone, weights: [{from: eu, to: {us: 100}}]}",
        &["weights: is given beside `prefer`: there are shares or an order"],
    );
    let world = shop(CLOSE, Some("{locality: {weights: [{from: eu/a, to: {eu/b: 20, eu/a: 80}}]}}"));
    let spread = bundle(&world, &["shop/web-1"]).services[&name("shop/near")].spread.as_deref().cloned().unwrap();
    assert_eq!(spread.locality, None, "the Service's own distribution is overruled");
    let told = effective(&world, &name("shop/near")).remove(6);
    assert_eq!((told.value.as_str(), told.policy().is_some()), ("from eu/a 80 % to eu/a, 20 % to eu/b", true));
    assert_eq!(spread.shares[0].to_string(), told.value);
}

/// A proxy that knows policies and no places has the rest of the policy, and one that knows neither has nothing of it.
#[test]
fn older_proxies_are_told_what_they_know() {
    let world = shop(CLOSE, Some("{algorithm: Random}"));
    let bundle = bundle(&world, &["shop/web-1"]);
    let whole = Object::Service(bundle.services[&name("shop/near")].clone());
    let forms: Vec<_> = std::iter::successors(Some(whole), Object::without_preferences)
        .map(|form| match form {
            Object::Service(service) => (service.spread.is_some(), service.traffic.is_some()),
            Object::Mesh(_) | Object::Workload(_) | Object::Route(_) | Object::External(_) | Object::Filter(_) => {
                panic!("no service")
            }
        })
        .collect();
    assert_eq!(forms, [(true, true), (false, true), (false, false)]);
}

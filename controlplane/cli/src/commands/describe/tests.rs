//! What belongs to an object, from what the control plane printed.

use serde_json::json;

use super::super::get::tests::resource;
use super::*;

#[test]
fn what_belongs_to_a_service() {
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let selecting = |selector: Value| resource(json!({"spec": {"selector": selector}}));
    assert!(selects(&selecting(json!({"app": "a"})), &labels(&[("app", "a"), ("v", "1")])));
    assert!(!selects(&selecting(json!({"app": "a"})), &labels(&[("v", "1")])));
    assert!(!selects(&selecting(json!({})), &labels(&[("v", "1")])));
    let service = resource(json!({"kind": "Service", "metadata": {"namespace": "shop", "name": "reviews"}}));
    let route = |parent: Value| resource(json!({"metadata": {"namespace": "shop"}, "spec": {"parentRefs": [parent]}}));
    assert!(is_attached(&route(json!({"name": "reviews"})), &service));
    assert!(!is_attached(&route(json!({"name": "reviews", "namespace": "other"})), &service));
}

#[test]
fn an_endpoint_that_is_kept_out_says_so() {
    let spec = json!({"address": "10.0.0.1", "serviceAccount": "web"});
    let workload = resource(json!({"metadata": {"namespace": "shop", "name": "web-1"}, "spec": spec}));
    let ban = |account: &str| Ban { identity: format!("spiffe://c/ns/shop/sa/{account}"), ..Ban::default() };
    assert_eq!(endpoint(&workload, &[ban("api")]), "web-1 at 10.0.0.1 as web");
    assert_eq!(
        endpoint(&workload, &[ban("api"), ban("web")]),
        "web-1 at 10.0.0.1 as web, kept out: shop/web (banned since 1970-01-01T00:00:00Z)"
    );
}

#[test]
fn whose_endpoints_left_with_a_ban_is_named() {
    let workload = |account: &str| {
        let spec = json!({"address": "10.0.0.1", "serviceAccount": account});
        resource(json!({"metadata": {"namespace": "shop", "name": account}, "spec": spec}))
    };
    let ban = |account: &str| Ban { identity: format!("spiffe://c/ns/{account}"), ..Ban::default() };
    let bans = [ban("shop/sa/web"), ban("shop/sa/api"), ban("bank/sa/web")];
    let (web, api) = (workload("web"), workload("api"));
    let since = "(banned since 1970-01-01T00:00:00Z)";
    // Its endpoint says so itself.
    assert_eq!(gone("shop", &[&web], &bans), [format!("shop/api {since}")]);
    assert!(gone("shop", &[&web, &api], &bans).is_empty() && gone("other", &[], &bans).is_empty());
    let text = kept_out_of("shop", &bans);
    assert_eq!(text, format!("; kept out of shop, without workloads of theirs: shop/web {since}, shop/api {since}"));
    assert_eq!(kept_out_of("shop", &bans[2..]), "");
}

#[test]
fn each_setting_of_a_service_says_whose_it_is() {
    let policy = |name: &str, revision: u64, balancing: Value| {
        let metadata = json!({"name": name, "namespace": "shop", "creationRevision": revision});
        json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy", "metadata": metadata, "spec": {
            "targetRefs": [{"kind": "Service", "name": "web"}], "loadBalancing": balancing}})
    };
    let mut world = World::default();
    let web = ObjectName::new("shop", "web");
    assert_eq!(
        traffic(&world, &web),
        [
            "loadBalancing: PeakEwma (default)",
            "outlierDetection: nobody is ejected (default)",
            "limits: none (default)",
            "timeouts.request: none (default)",
            "timeouts.backendRequest: none (default)",
            "retry: only what provably nobody acted on (default)",
            "loadBalancing.locality: None: all endpoints are as near (default)",
            "loadBalancing.slowStart: none (default)",
            "loadBalancing.panicThresholdPercent: 0 (default)",
            "healthCheck: nobody is checked (default)"
        ]
    );
    for item in [
        policy("a", 9, json!({"algorithm": "Random"})),
        policy("b", 4, json!({"algorithm": "Maglev", "hash": {"source": "Identity"}})),
    ] {
        world.insert(kinds::entry(&item).unwrap());
    }
    assert_eq!(
        traffic(&world, &web),
        [
            "loadBalancing: Maglev by the caller's identity (TrafficPolicy shop/b)",
            "outlierDetection: nobody is ejected (default)",
            "limits: none (default)",
            "timeouts.request: none (default)",
            "timeouts.backendRequest: none (default)",
            "retry: only what provably nobody acted on (default)",
            "loadBalancing.locality: None: all endpoints are as near (default)",
            "loadBalancing.slowStart: none (default)",
            "loadBalancing.panicThresholdPercent: 0 (default)",
            "healthCheck: nobody is checked (default)",
            "TrafficPolicy shop/a says loadBalancing without effect: TrafficPolicy shop/b is older"
        ]
    );
}

#[test]
fn settings_of_every_level_say_their_level_kind_and_name() {
    let text = "{apiVersion: weft.dev/v1alpha1, kind: Mesh, metadata: {name: mesh}, spec: {defaults: {requestTimeout: 30s}}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop, labels: {weft.dev/tier: gold}}, spec: {ports: [{port: 80}]}}
---
{apiVersion: weft.dev/v1alpha1, kind: PolicyTemplate, metadata: {name: critical}, spec: {tier: gold, trafficPolicy: {retry: {attempts: 2}}}}
---
{apiVersion: weft.dev/v1alpha1, kind: PolicyTemplate, metadata: {name: careful}, spec: {parameters: [{name: most, type: Integer}],
 trafficPolicy: {limits: {maxActiveRequests: '${most}'}}}}
---
{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: all, namespace: weft-system}, spec: {targetRefs: [{kind: Mesh, name: mesh}],
 timeouts: {backendRequest: 5s}, outlierDetection: {}}}
---
{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: all, namespace: shop}, spec: {targetRefs: [{kind: Namespace, name: shop}],
 loadBalancing: {algorithm: Random}}}
---
{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: own, namespace: shop}, spec: {targetRefs: [{kind: Service, name: web}],
 template: {name: careful, parameters: {most: 7}}}}";
    let mut world = World::default();
    for document in weft_policy::manifest::parse("test", text).unwrap() {
        world.insert(kinds::entry(&serde_json::to_value(&document.resource).unwrap()).unwrap());
    }
    assert_eq!(
        traffic(&world, &ObjectName::new("shop", "web")),
        [
            "loadBalancing: Random (TrafficPolicy shop/all, of the namespace)",
            "outlierDetection: 5 of 5xx or 5 unanswered in a row (each within 10s), out for 30s to 5m, at most 10 % \
             (TrafficPolicy weft-system/all, of the mesh)",
            "limits: 7 active requests of each proxy (TrafficPolicy shop/own by PolicyTemplate careful)",
            "timeouts.request: 30s (Mesh mesh)",
            "timeouts.backendRequest: 5s (TrafficPolicy weft-system/all, of the mesh)",
            "retry: 2 more after no answer, of idempotent methods (PolicyTemplate critical, of the tier)",
            "loadBalancing.locality: None: all endpoints are as near (default)",
            "loadBalancing.slowStart: none (default)",
            "loadBalancing.panicThresholdPercent: 0 (default)",
            "healthCheck: nobody is checked (default)",
        ]
    );
}

#[test]
fn the_policies_of_an_object_are_those_that_the_planner_finds() {
    let text = "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {selector: {app: web}, ports: \
                [{port: 80}]}}\n---\n{apiVersion: v1, kind: Service, metadata: {name: all, namespace: shop}, spec: {selector: \
                {tier: front}, ports: [{port: 80}]}}\n---\n{apiVersion: weft.dev/v1alpha1, kind: Workload, metadata: {name: \
                web-1, namespace: shop, labels: {app: web, tier: front}}, spec: {address: 10.0.0.1}}\n---\n{apiVersion: \
                weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: by-service, namespace: shop}, spec: {targetRefs: \
                [{kind: Service, name: all}], rules: []}}\n---\n{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: \
                {name: everywhere, namespace: weft-system}, spec: {mode: Audit, rules: []}}\n---\n{apiVersion: weft.dev/v1alpha1, kind: \
                AccessPolicy, metadata: {name: other, namespace: shop}, spec: {targetRefs: [{kind: Service, name: no}], rules: []}}";
    let mut world = World::default();
    for document in weft_policy::manifest::parse("test", text).unwrap() {
        world.insert(kinds::entry(&serde_json::to_value(&document.resource).unwrap()).unwrap());
    }
    for (kind, name) in [(Kind::Service, "web"), (Kind::Service, "all"), (Kind::Workload, "web-1")] {
        let held = holding(&world, kind, &ObjectName::new("shop", name), Kind::AccessPolicy);
        assert_eq!(held, ["shop/by-service", "weft-system/everywhere (Audit)"], "{name}");
    }
}

//! TrafficPolicies: which holds, what it sets, what is told of those that don't.

use super::*;
use crate::bundle::{Balancing, HashKey, SourceKey};
use crate::delta::Object;

fn policy(name: &str, targets: &str, balancing: &str) -> String {
    format!(
        "{{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: {name}, namespace: shop}}, spec: {{targetRefs: \
         [{targets}], loadBalancing: {balancing}}}}}\n"
    )
}

fn to(service: &str) -> String {
    format!("{{kind: Service, name: {service}}}")
}

/// The shop's world, with these policies applied one after another.
fn with(policies: &[String]) -> World {
    let mut world = world(SHOP);
    for (revision, text) in (1_000..).zip(policies) {
        for document in crate::manifest::parse("policy.yaml", text).unwrap() {
            world.put(&Owner::Applied, document.resource, Revision(revision), "uid").unwrap();
        }
    }
    world
}

fn balancing(world: &World, service: &str) -> Option<(String, Balancing)> {
    let bundle = bundle_for(world, &[ObjectName::new("shop", "web-1")], Revision(1), "");
    let traffic = bundle.services[&ObjectName::new("shop", service)].traffic.clone()?;
    Some((traffic.policy.to_string(), traffic.balancing))
}

#[test]
fn a_policy_sets_how_its_services_are_balanced() {
    fn check(spec: &str, expect: Balancing) {
        let world = with(&[policy("p", &to("web"), spec)]);
        assert_eq!(balancing(&world, "web"), Some(("shop/p".to_owned(), expect)), "{spec}");
        assert_eq!(balancing(&world, "web-v2"), None, "another service is as it was");
    }
    check("{}", Balancing::PeakEwma);
    check("{algorithm: RoundRobin}", Balancing::RoundRobin);
    check("{algorithm: LeastRequest}", Balancing::LeastRequest);
    check("{algorithm: Random}", Balancing::Random);
    let header = HashKey::Header("x-user".to_owned());
    check("{algorithm: RingHash, hash: {header: X-User}}", Balancing::RingHash(header));
    check("{algorithm: Maglev, hash: {cookie: Sid}}", Balancing::Maglev(HashKey::Cookie("Sid".to_owned())));
    check("{algorithm: Maglev, hash: {source: Address}}", Balancing::Maglev(HashKey::Source(SourceKey::Address)));
}

#[test]
fn of_two_the_older_holds_and_the_other_is_told() {
    let policies = [
        policy("z", &to("web"), "{algorithm: RoundRobin}"),
        policy("a", &[to("web"), to("web-v2")].join(", "), "{algorithm: Random}"),
    ];
    let mut world = with(&policies);
    let status = |world: &World, name: &str| {
        let policy = world.traffic_policy(&ObjectName::new("shop", name)).unwrap();
        traffic_status(world, policy).remove(0)
    };
    assert_eq!(balancing(&world, "web"), Some(("shop/z".to_owned(), Balancing::RoundRobin)));
    assert_eq!(balancing(&world, "web-v2"), Some(("shop/a".to_owned(), Balancing::Random)));
    assert!(status(&world, "z").status);
    let idle = Idle { policy: name("shop/a"), settings: vec!["loadBalancing"], older: name("shop/z") };
    assert_eq!(without_effect(&world, &name("shop/web")), [idle]);
    let value = |service: &str| effective(&world, &name(service)).remove(0);
    assert_eq!(
        (value("shop/web").value.as_str(), value("shop/web").policy().cloned()),
        ("RoundRobin", Some(name("shop/z")))
    );
    assert_eq!((value("shop/nothing").value.as_str(), value("shop/nothing").policy().cloned()), ("PeakEwma", None));
    let told = status(&world, "a");
    assert_eq!((told.status, told.reason, told.key.as_str()), (false, "Conflicted", "spec.targetRefs[0]"));
    assert_eq!(told.message, "for Service shop/web the older TrafficPolicy shop/z sets loadBalancing");
    world.remove(&ObjectKey::new(Kind::TrafficPolicy, "shop", "z"));
    assert_eq!(balancing(&world, "web"), Some(("shop/a".to_owned(), Balancing::Random)));
    assert!(status(&world, "a").status);
    world.remove(&ObjectKey::new(Kind::Service, "shop", "web-v2"));
    assert_eq!(status(&world, "a").reason, "TargetNotFound");
    assert_eq!(status(&world, "a").message, "Service shop/web-v2 does not exist");
    // Of all that is wrong nothing hides the rest.
    let third = policy("q", &["none", "web", "nor-this"].map(to).join(", "), "{}");
    let world = with(&[policies[0].clone(), third]);
    let told = status(&world, "q");
    assert_eq!((told.status, told.reason, told.key.as_str()), (false, "TargetNotFound", "spec.targetRefs[0]"));
    let all = "Service shop/none does not exist; Service shop/nor-this does not exist; for Service shop/web the older \
               TrafficPolicy shop/z sets loadBalancing";
    assert_eq!(told.message, all);
    // Of one revision the first by name.
    let world = with(&[policies.join("---\n")]);
    assert_eq!(balancing(&world, "web"), Some(("shop/a".to_owned(), Balancing::Random)));
}

#[test]
fn a_policy_sets_who_is_ejected() {
    let spec =
        "{algorithm: Random}, outlierDetection: {consecutive5xx: 0, consecutiveGatewayErrors: 3, baseEjectionTime: 5s}";
    let world = with(&[policy("p", &to("web"), spec), policy("q", &to("web-v2"), "{}, outlierDetection: {}")]);
    let bundle = bundle(&world, &["shop/web-1"]);
    let told =
        |service: &str| bundle.services[&name(service)].traffic.as_ref()?.outliers.as_ref().map(ToString::to_string);
    let first = "3 gateway errors or 5 unanswered in a row (each within 10s), out for 5s to 5m, at most 10 %";
    assert_eq!(told("shop/web").as_deref(), Some(first));
    let all = "5 of 5xx or 5 unanswered in a row (each within 10s), out for 30s to 5m, at most 10 %";
    assert_eq!(told("shop/web-v2").as_deref(), Some(all));
    assert_eq!(told("shop/nothing"), None);
    let effective = effective(&world, &name("shop/web")).remove(1);
    assert_eq!(
        (effective.setting, effective.value.as_str(), effective.policy().cloned()),
        ("outlierDetection", first, Some(name("shop/p")))
    );
}

#[test]
fn a_policy_sets_limits() {
    let spec = "{}, limits: {maxActiveRequests: 20, maxPendingRequests: 5}";
    let world = with(&[policy("p", &to("web"), spec)]);
    let bundle = bundle(&world, &["shop/web-1"]);
    let limits = bundle.services[&name("shop/web")].traffic.as_ref().unwrap().limits.as_ref().map(ToString::to_string);
    assert_eq!(limits.as_deref(), Some("20 active requests of each proxy, 5 pending for up to 1s"));
    let told = effective(&world, &name("shop/nothing")).remove(2);
    assert_eq!((told.setting, told.value.as_str(), told.policy().cloned()), ("limits", "none", None));
    let spec =
        "{}, limits: {maxActiveRequests: 9, maxPendingRequests: 1, maxConnections: 4, maxRetries: 0, adaptive: {}}";
    let told = effective(&with(&[policy("p", &to("web"), spec)]), &name("shop/web")).remove(2);
    let expect = "9 active requests of each proxy, 1 pending for up to 1s, 3 to 1000 requests by their latency in each \
                  250ms, 4 TCP connections, 0 retries";
    assert_eq!((told.setting, told.value.as_str(), told.policy().cloned()), ("limits", expect, Some(name("shop/p"))));
}

#[test]
fn an_older_proxy_is_told_of_the_service_without_it() {
    let world = with(&[policy("p", &to("web"), "{algorithm: Random}")]);
    let bundle = bundle_for(&world, &[ObjectName::new("shop", "web-1")], Revision(1), "");
    let services = bundle.objects().into_values().filter(|object| matches!(object, Object::Service(_)));
    let plain: Vec<_> = services.filter_map(|object| object.without_preferences()).collect();
    let [Object::Service(service)] = plain.as_slice() else { panic!("{plain:?}") };
    assert_eq!((service.name.to_string().as_str(), &service.traffic), ("shop/web", &None));
    assert!(!service.endpoints.is_empty());
}

#[test]
fn a_policy_sets_timeouts_and_what_is_sent_again() {
    let spec = "{}, timeouts: {request: 10s, backendRequest: 2s}, retry: {codes: [503, 502, 503], grpcCodes: [UNAVAILABLE], \
                backoff: 100ms, methods: Any}";
    let world = with(&[policy("p", &to("web"), spec), policy("q", &to("web-v2"), "{}, retry: {attempts: 1}")]);
    let bundle = bundle(&world, &["shop/web-1"]);
    let traffic = |service: &str| bundle.services[&name(service)].traffic.clone().unwrap();
    let web = traffic("shop/web");
    assert_eq!((web.request_timeout_ms, web.attempt_timeout_ms), (Some(10_000), Some(2_000)));
    let told = "maxRetries of the Mesh more after 502, 503, UNAVAILABLE of gRPC, no answer, at least 100ms later, whatever the method";
    assert_eq!(web.retry.unwrap().to_string(), told);
    assert_eq!(traffic("shop/web-v2").retry.unwrap().to_string(), "1 more after no answer, of idempotent methods");
    let all = effective(&world, &name("shop/web"));
    let all: Vec<_> = all[3..6].iter().map(|it| (it.setting, it.value.as_str(), it.policy().is_some())).collect();
    assert_eq!(
        all,
        [("timeouts.request", "10s", true), ("timeouts.backendRequest", "2s", true), ("retry", told, true)]
    );
    let none = effective(&world, &name("shop/nothing"));
    let told: Vec<_> = none[3..6].iter().map(|it| (it.value.as_str(), it.policy().is_some())).collect();
    assert_eq!(told, [("none", false), ("none", false), ("only what provably nobody acted on", false)]);
}

#[test]
fn a_policy_sets_who_is_checked_and_whose_rates_are_compared() {
    let spec = "{}, healthCheck: {http: {path: /healthz, host: web.example, port: 80, expectedStatuses: [200, 204-206]}, interval: \
                5s}, outlierDetection: {consecutive5xx: 0, consecutiveLocalOriginFailures: 0, successRate: {stdevFactor: 2}}";
    let world = with(&[
        policy("p", &to("web"), spec),
        policy("q", &[to("web-v2"), to("nothing")].join(", "), "{}, healthCheck: {tcp: {}}"),
        policy("r", &to("web"), "{}, healthCheck: {grpc: {service: shop.Cart, port: 81}}"),
    ]);
    let bundle = bundle(&world, &["shop/web-1"]);
    let traffic = bundle.services[&name("shop/web")].traffic.clone().unwrap();
    let check =
        "GET /healthz of web.example for 200 or 204-206 at port 80 every 5s, each within 1s, out after 3, back after 2";
    assert_eq!(traffic.health_check.as_ref().unwrap().to_string(), check);
    let rates = "a success rate 2 deviations below the mean of 5 or more with 100 requests in 10s, out for 30s to 5m, at most 10 %";
    assert_eq!(traffic.outliers.as_ref().unwrap().to_string(), rates);
    let told = effective(&world, &name("shop/web")).remove(9);
    assert_eq!(
        (told.setting, told.value.as_str(), told.policy().cloned()),
        ("healthCheck", check, Some(name("shop/p")))
    );
    let told = effective(&world, &name("shop/other")).remove(9);
    assert_eq!((told.value.as_str(), told.policy().cloned()), ("nobody is checked", None));
    // A proxy that can do the rest is told the rest: here that nobody is ejected.
    assert!(traffic.checks_health() && !traffic.without_health_checks().checks_health());
    assert_eq!(traffic.without_health_checks().outliers, None);
    let status = |name: &str| {
        let policy = world.traffic_policy(&ObjectName::new("shop", name)).unwrap();
        let told = traffic_status(&world, policy).remove(0);
        (told.status, told.reason, told.key, told.message)
    };
    assert!(status("p").0);
    let why = "endpoints of Service shop/web-v2 are not checked: port 80 is declared http";
    assert_eq!(status("q"), (false, "UnsupportedValue", "spec.healthCheck".to_owned(), why.to_owned()));
    let why = "for Service shop/web the older TrafficPolicy shop/p sets loadBalancing, healthCheck; endpoints of Service shop/web are not checked: it has no port 81";
    assert_eq!(status("r"), (false, "Conflicted", "spec.targetRefs[0]".to_owned(), why.to_owned()));
}

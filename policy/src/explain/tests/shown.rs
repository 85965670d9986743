//! Every field of a TrafficPolicy is told with who says it, by what `weft describe service` shows and by what `weft explain` says
//! of a request: changed, it changes both.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::super::*;
use crate::plan::effective;
use crate::plan::tests::{SHOP, name, world};
use crate::resource::health::{HealthCheckSpec, HttpCheckSpec};
use crate::resource::retry::{ServiceRetrySpec, ServiceTimeouts};
use crate::resource::spread::LocalitySpec;
use crate::resource::traffic::{LimitsSpec, LoadBalancingSpec, OutlierSpec};
use crate::resource::{Resource, TrafficPolicySpec};

/// A policy that says everything, but for the alternatives of what is one of several; no key is with a slow start.
fn full() -> Value {
    json!({
        "targetRefs": [{"kind": "Service", "name": "web"}],
        "loadBalancing": {
            "algorithm": "RoundRobin",
            "locality": {
                "prefer": "Zone", "failover": [{"from": "eu", "to": ["us"]}], "overprovisioningPercent": 150,
            },
            "slowStart": {"window": "30s", "minWeightPercent": 20},
            "panicThresholdPercent": 40,
        },
        "outlierDetection": {
            "consecutive5xx": 5, "consecutiveGatewayErrors": 4, "consecutiveLocalOriginFailures": 3, "interval": "9s",
            "baseEjectionTime": "8s", "maxEjectionTime": "50s", "maxEjectionPercent": 30,
            "successRate": {"minimumHosts": 5, "requestVolume": 100, "stdevFactor": 1.5},
        },
        "healthCheck": {
            "http": {"path": "/well", "expectedStatuses": [200], "host": "a.example", "port": 80},
            "interval": "9s", "timeout": "1s", "unhealthyThreshold": 3, "healthyThreshold": 2,
        },
        "limits": {
            "maxActiveRequests": 9, "maxPendingRequests": 5, "maxPendingTime": "1s", "maxConnections": 7, "maxRetries": 3,
            "adaptive": {"minLimit": 3, "maxLimit": 90, "sampleWindow": "250ms"},
        },
        "timeouts": {"request": "9s", "backendRequest": "3s", "stream": "1h"},
        "retry": {
            "codes": [503], "grpcCodes": ["UNAVAILABLE"], "attempts": 2, "backoff": "1ms", "methods": "Idempotent",
        },
        "hedge": {"after": "95ms", "maxExtra": 1, "methods": "Idempotent"},
    })
}

/// Another value for each field, by its path.
fn others() -> BTreeMap<&'static str, Value> {
    [
        ("loadBalancing.algorithm", json!("Random")),
        ("loadBalancing.locality.prefer", json!("Subzone")),
        ("loadBalancing.locality.failover", json!([{"from": "eu", "to": ["asia"]}])),
        ("loadBalancing.locality.overprovisioningPercent", json!(160)),
        ("loadBalancing.slowStart.window", json!("31s")),
        ("loadBalancing.slowStart.minWeightPercent", json!(21)),
        ("loadBalancing.panicThresholdPercent", json!(41)),
        ("outlierDetection.consecutive5xx", json!(6)),
        ("outlierDetection.consecutiveGatewayErrors", json!(6)),
        ("outlierDetection.consecutiveLocalOriginFailures", json!(6)),
        ("outlierDetection.interval", json!("11s")),
        ("outlierDetection.baseEjectionTime", json!("7s")),
        ("outlierDetection.maxEjectionTime", json!("40s")),
        ("outlierDetection.maxEjectionPercent", json!(31)),
        ("outlierDetection.successRate.minimumHosts", json!(6)),
        ("outlierDetection.successRate.requestVolume", json!(101)),
        ("outlierDetection.successRate.stdevFactor", json!(1.6)),
        ("healthCheck.http.path", json!("/other")),
        ("healthCheck.http.expectedStatuses", json!([204])),
        ("healthCheck.http.host", json!("b.example")),
        ("healthCheck.http.port", json!(81)),
        ("healthCheck.interval", json!("11s")),
        ("healthCheck.timeout", json!("2s")),
        ("healthCheck.unhealthyThreshold", json!(4)),
        ("healthCheck.healthyThreshold", json!(3)),
        ("limits.maxActiveRequests", json!(8)),
        ("limits.maxPendingRequests", json!(6)),
        ("limits.maxPendingTime", json!("2s")),
        ("limits.maxConnections", json!(8)),
        ("limits.maxRetries", json!(4)),
        ("limits.adaptive.minLimit", json!(4)),
        ("limits.adaptive.maxLimit", json!(91)),
        ("limits.adaptive.sampleWindow", json!("260ms")),
        ("timeouts.request", json!("8s")),
        ("timeouts.backendRequest", json!("2s")),
        ("timeouts.stream", json!("2h")),
        ("retry.codes", json!([502])),
        ("retry.grpcCodes", json!(["ABORTED"])),
        ("retry.attempts", json!(3)),
        ("retry.backoff", json!("2ms")),
        ("retry.methods", json!("Any")),
        ("hedge.after", json!("96ms")),
        ("hedge.methods", json!("Any")),
    ]
    .into()
}

/// One value is taken, so that there is nothing to tell.
const SETTLED: [&str; 1] = ["hedge.maxExtra"];
/// `weft explain` says in their place in which order a caller turns to the endpoints.
const AS_ORDER: &str = "loadBalancing.locality.";

fn document(spec: &Value) -> String {
    let metadata = json!({"name": "p", "namespace": "shop"});
    json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy", "metadata": metadata, "spec": spec}).to_string()
}

fn leaves(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let path = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
            fields.iter().for_each(|(key, value)| leaves(value, &path(key), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            found.insert(at.to_owned());
        }
    }
}

/// Breaks the build for a field that may be left out and that is not looked at here: then it belongs into `full`.
fn says_everything(spec: &TrafficPolicySpec) {
    let TrafficPolicySpec {
        target_refs: _,
        template: None,
        load_balancing:
            Some(LoadBalancingSpec { algorithm: _, hash, locality, slow_start: Some(_), panic_threshold_percent: _ }),
        outlier_detection: Some(outliers),
        health_check: Some(check),
        limits: Some(limits),
        timeouts: Some(ServiceTimeouts { request_ms: Some(_), backend_request_ms: Some(_), stream_ms: Some(_) }),
        retry: Some(retry),
        hedge: Some(_),
    } = spec
    else {
        panic!("{spec:?}")
    };
    assert!(hash.is_none(), "{hash:?}");
    let Some(LocalitySpec { prefer: _, failover: _, overprovisioning_percent: Some(_), weights: _ }) = locality else {
        panic!("{locality:?}")
    };
    let OutlierSpec {
        consecutive_5xx: _,
        consecutive_gateway_errors: _,
        consecutive_local_origin_failures: _,
        interval_ms: _,
        base_ejection_time_ms: _,
        max_ejection_time_ms: _,
        max_ejection_percent: _,
        success_rate: Some(_),
    } = &**outliers
    else {
        panic!("{outliers:?}")
    };
    let HealthCheckSpec {
        http: Some(HttpCheckSpec { path: _, expected_statuses: _, host: Some(_), port: Some(_) }),
        grpc: None,
        tcp: None,
        interval_ms: _,
        timeout_ms: _,
        unhealthy_threshold: _,
        healthy_threshold: _,
    } = &**check
    else {
        panic!("{check:?}")
    };
    let LimitsSpec {
        max_active_requests: Some(_),
        max_pending_requests: _,
        max_pending_time_ms: _,
        max_connections: Some(_),
        max_retries: Some(_),
        adaptive: Some(_),
    } = limits
    else {
        panic!("{limits:?}")
    };
    let ServiceRetrySpec { codes: _, grpc_codes: _, attempts: Some(_), backoff_ms: Some(_), methods: _ } = &**retry
    else {
        panic!("{retry:?}")
    };
}

/// What `weft describe service` shows, and what `weft explain` says of the backend.
fn told(spec: &Value) -> (Vec<(String, bool)>, Value) {
    let world = world(&format!("{SHOP}---\n{}\n", document(spec)));
    let shown = effective(&world, &name("shop/web"));
    let shown = shown.into_iter().map(|it| (format!("{}: {}", it.setting, it.value), it.policy().is_some())).collect();
    let query = Query {
        sni: None,
        from: "partner/api".to_owned(),
        to: "web.shop".to_owned(),
        port: None,
        method: get(),
        path: root(),
        headers: BTreeMap::new(),
        claims: BTreeMap::new(),
    };
    let backend = explain(&world, &query).unwrap().backends.remove(0);
    (shown, serde_json::to_value(backend).unwrap())
}

fn parsed(spec: &Value) -> TrafficPolicySpec {
    let parsed = crate::manifest::parse("p.json", &document(spec)).unwrap().remove(0).resource;
    let Resource::TrafficPolicy(policy) = parsed else { panic!("no policy") };
    policy.spec
}

#[test]
fn every_field_of_a_policy_is_told_with_who_says_it() {
    let spec = parsed(&full());
    says_everything(&spec);
    let (shown, explained) = told(&serde_json::to_value(&spec).unwrap());
    assert!(shown.iter().all(|(_, is_by_policy)| *is_by_policy), "{shown:?}");
    for setting in ["balancing", "health", "timeouts", "retry", "limits"] {
        let text = explained[setting].as_str().unwrap_or_default();
        assert!(text.contains("as TrafficPolicy shop/p says"), "{setting}: {text}");
    }
    each_is_told(&spec, others());
    let targets = json!([{"kind": "Service", "name": "web"}]);
    let balancing = json!({"algorithm": "RingHash", "hash": {"header": "x-user"}});
    let keyed = parsed(&json!({"targetRefs": targets, "loadBalancing": balancing}));
    let others = [("loadBalancing.algorithm", json!("Maglev")), ("loadBalancing.hash.header", json!("x-other"))];
    each_is_told(&keyed, others.into());
}

fn each_is_told(spec: &TrafficPolicySpec, others: BTreeMap<&'static str, Value>) {
    let full = serde_json::to_value(spec).unwrap();
    let mut found = BTreeSet::new();
    leaves(&full, "", &mut found);
    found.retain(|path| path != "targetRefs" && !SETTLED.contains(&path.as_str()));
    let known: BTreeSet<String> = others.keys().map(|path| (*path).to_owned()).collect();
    assert_eq!(found, known, "each has another value to be told apart by");
    let (shown, explained) = told(&full);
    for (path, other) in others {
        let mut changed = full.clone();
        *changed.pointer_mut(&format!("/{}", path.replace('.', "/"))).unwrap() = other;
        let (shown_now, explained_now) = told(&changed);
        assert_ne!(shown_now, shown, "{path} is not in what is described");
        if !path.starts_with(AS_ORDER) {
            assert_ne!(explained_now, explained, "{path} is not in what is explained");
        }
    }
}

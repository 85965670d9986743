//! What policies may be for, and which settings are listed for merging.

use super::*;
use crate::manifest;

fn refused(kind: &str, namespace: &str, targets: &str, rest: &str) -> Vec<String> {
    let text = format!(
        "{{apiVersion: weft.dev/v1alpha1, kind: {kind}, metadata: {{name: p, namespace: {namespace}}}, spec: {{targetRefs: \
         [{targets}]{rest}}}}}\n"
    );
    let errors = manifest::parse("p.yaml", &text).err().unwrap_or_default();
    errors.iter().map(|error| format!("{}: {}", error.key, error.message)).collect()
}

#[test]
fn a_policy_is_for_what_its_namespace_may_set() {
    let check = |namespace: &str, targets: &str, expect: &[&str]| {
        assert_eq!(refused("TrafficPolicy", namespace, targets, ""), expect, "{namespace}: {targets}");
    };
    check("shop", "{kind: Service, name: web}, {kind: Namespace, name: shop}", &[]);
    check("weft-system", "{kind: Mesh, name: mesh}, {kind: Namespace, name: weft-system}", &[]);
    check(
        "shop",
        "{kind: Namespace, name: bank}",
        &["spec.targetRefs[0].name: a TrafficPolicy is for services of its own namespace, shop, not for those of bank"],
    );
    check(
        "weft-system",
        "{kind: Namespace, name: bank}",
        &[
            "spec.targetRefs[0].name: a TrafficPolicy is for services of its own namespace, weft-system, not for those of bank",
        ],
    );
    check(
        "shop",
        "{kind: Service, name: web}, {kind: Mesh, name: mesh}",
        &["spec.targetRefs[1].kind: a TrafficPolicy for the whole mesh is one of weft-system, not of shop"],
    );
    check(
        "shop",
        "{kind: Workload, name: web-1}",
        &["spec.targetRefs[0].kind: a TrafficPolicy is for Services, not for a Workload"],
    );
    check(
        "weft-system",
        "{kind: Mesh, name: mesh}, {kind: Mesh, name: mesh}",
        &["spec.targetRefs[1].name: \"mesh\" is given twice"],
    );
    // Those that hold for workloads have another form for all of them.
    for (kind, rest) in [("AccessPolicy", ""), ("FilterPolicy", ", filter: {name: fault}")] {
        let told =
            format!("spec.targetRefs[0].kind: a {kind} for the whole mesh is one of weft-system without targetRefs");
        assert_eq!(refused(kind, "weft-system", "{kind: Mesh, name: mesh}", rest), [told]);
    }
}

#[test]
fn what_a_nearer_policy_leaves_unsaid_a_farther_one_says() {
    let spec = |text: &str| -> TrafficPolicySpec {
        let text = format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: p, namespace: shop}}, spec: {{targetRefs: \
             [{{kind: Service, name: web}}], {text}}}}}\n"
        );
        let resource = manifest::parse("p.yaml", &text).unwrap().remove(0).resource;
        let crate::resource::Resource::TrafficPolicy(policy) = resource else { panic!("no policy") };
        policy.spec
    };
    let mut near = spec("timeouts: {request: 3s}, limits: {maxActiveRequests: 1, maxPendingRequests: 5}");
    let far = spec(
        "timeouts: {request: 9s, backendRequest: 2s, stream: 1h}, limits: {maxActiveRequests: 9}, retry: {attempts: 1}",
    );
    let mut told = Vec::new();
    near.fill(&far, |key, is_taken| told.push((key, is_taken)));
    told.sort_unstable();
    let expect = [
        ("limits", false),
        ("retry", true),
        ("timeouts.backendRequest", true),
        ("timeouts.request", false),
        ("timeouts.stream", true),
    ];
    assert_eq!(told, expect);
    let merged = "timeouts: {request: 3s, backendRequest: 2s, stream: 1h}, limits: {maxActiveRequests: 1, maxPendingRequests: \
                  5}, retry: {attempts: 1}";
    assert_eq!(near, spec(merged), "a setting is taken as a whole");
    let mut said = near.said();
    said.sort_unstable();
    assert_eq!(said, ["limits", "retry", "timeouts.backendRequest", "timeouts.request", "timeouts.stream"]);
    assert_eq!(spec("timeouts: {}").said(), [""; 0]);
}

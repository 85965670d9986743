//! The work of judging a world, counted in compared pairs: it grows with the world, not with its square.

use std::fmt::Write as _;

use crate::lint::{self, Code, Near, Scope};
use crate::plan::select::work;
use crate::plan::tests::world;
use crate::plan::{World, losses, route_status};
use crate::resource::{Kind, ObjectKey};

const FILTERS: &str = "
apiVersion: weft.dev/v1alpha1
kind: Filter
metadata: {name: authz, namespace: weft-system}
spec: {version: 1.0.0, digest: DIGEST, signature: c2ln, publicKey: PEM, size: 10, abi: 'weft:filter@0.1.0'}
";

/// So many shops in one namespace: each a service with two workloads, a route and a policy.
fn shops(count: usize) -> World {
    world(&shops_text(count))
}

fn shops_text(count: usize) -> String {
    let digest = format!("'sha256:{}'", "a".repeat(64));
    let mut text = FILTERS.replace("DIGEST", &digest);
    for shop in 0..count {
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{shop}, namespace: shop}}\n\
             spec: {{selector: {{app: s{shop}}}, ports: [{{port: 80, targetPort: 8080}}]}}\n\
             ---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
             metadata: {{name: r{shop}, namespace: shop}}\n\
             spec: {{parentRefs: [{{kind: Service, group: '', name: s{shop}}}], \
             rules: [{{backendRefs: [{{name: s{shop}, port: 80}}]}}]}}\n\
             ---\napiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: p{shop}, namespace: shop}}\n\
             spec: {{targetRefs: [{{kind: Service, name: s{shop}}}], action: Allow, \
             rules: [{{to: [{{methods: [GET]}}]}}]}}\n"
        );
        for workload in 0..2 {
            let _ = write!(
                text,
                "---\napiVersion: weft.dev/v1alpha1\nkind: Workload\n\
                 metadata: {{name: w{shop}-{workload}, namespace: shop, labels: {{app: s{shop}, tier: web}}}}\n\
                 spec: {{address: 127.0.0.1, serviceAccount: a, ports: [{{port: 8080}}]}}\n"
            );
        }
    }
    text
}

#[test]
fn what_explaining_costs_for_an_endpoint_does_not_depend_on_other_namespaces() {
    let work_of = |shops: usize, endpoints: usize| {
        let mut text = shops_text(shops);
        text.push_str(
            "---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: own}\n\
             spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n",
        );
        for endpoint in 0..endpoints {
            let _ = write!(
                text,
                "---\napiVersion: weft.dev/v1alpha1\nkind: Workload\n\
                 metadata: {{name: w{endpoint}, namespace: own, labels: {{app: web}}}}\n\
                 spec: {{address: 127.0.0.1, serviceAccount: a, ports: [{{port: 8080}}]}}\n"
            );
        }
        let (world, query) = (world(&text), r#"{"from": "own/a", "to": "web"}"#);
        let query = serde_json::from_str(query).unwrap();
        work::of(|| {
            let explanation = crate::explain::explain(&world, &query).unwrap();
            assert_eq!(explanation.backends[0].endpoints.len(), endpoints);
        })
    };
    let of_endpoints = |shops: usize| work_of(shops, 40) - work_of(shops, 1);
    assert_eq!(of_endpoints(10), of_endpoints(50));
}

#[test]
fn the_work_of_a_plan_grows_with_the_world_and_not_with_its_square() {
    let work_of = |count: usize| {
        let before = shops(count);
        let mut after = before.clone();
        after.remove(&ObjectKey::new(Kind::Service, "shop", "s1"));
        work::of(|| {
            // For each shop's port its route and its policy; for the lost service whoever names it.
            let findings = lint::check(&after, Scope::Whole).into_iter();
            let off_http = |code: Code| matches!(code, Code::RouteOffHttp | Code::RuleOffHttp);
            let lost = |code: Code| matches!(code, Code::ParentMissing | Code::BackendMissing | Code::TargetMissing);
            let counted = findings.filter(|finding| off_http(finding.code) || lost(finding.code)).count();
            assert_eq!(counted, 2 * (count - 1) + 3);
            assert_eq!(losses(&before, &after).len(), 2);
        })
    };
    let (small, large) = (work_of(20), work_of(80));
    assert!(small > 80, "{small} pairs: the work is counted");
    // Four times the shops: the square would be sixteen times the work.
    assert!(large < 5 * small, "{small} pairs for 20 shops, {large} for 80");
}

/// A service has one surrounding, however many of its routes come or go in one change.
#[test]
fn the_work_of_a_change_grows_with_its_routes_and_not_with_their_square() {
    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
                           spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n";
    let work_of = |count: usize| {
        let mut text = SERVICE.to_owned();
        for route in 0..count {
            let _ = write!(
                text,
                "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
                 metadata: {{name: r{route}, namespace: shop}}\n\
                 spec: {{parentRefs: [{{kind: Service, group: '', name: web}}], \
                 rules: [{{matches: [{{path: {{value: /r{route}}}}}], backendRefs: [{{name: web, port: 80}}]}}]}}\n"
            );
        }
        let (before, after) = (world(SERVICE), world(&text));
        work::of(|| {
            let near = Near::between(&before, &after, []);
            assert!(lint::errors_near(&after, &near).is_empty());
            for (route, _) in after.routes() {
                assert!(
                    route_status(&after, route)
                        .iter()
                        .all(|parent| parent.conditions.iter().all(|condition| condition.status))
                );
            }
        })
    };
    let (small, large) = (work_of(20), work_of(80));
    assert!(small >= 20, "{small}: the work is counted");
    assert!(large < 5 * small, "{small} for 20 routes, {large} for 80");
}

#[test]
fn an_index_is_of_the_world_as_it_is_now() {
    let mut world = shops(3);
    let behind = |world: &World, name: &str| {
        let service = world.service(&format!("shop/{name}").parse().unwrap()).unwrap().clone();
        world.standing_behind(&service).map(|workload| workload.metadata.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(behind(&world, "s2"), ["w2-0", "w2-1"]);
    let copy = world.clone();
    world.remove(&ObjectKey::new(Kind::Workload, "shop", "w2-0"));
    assert_eq!(behind(&world, "s2"), ["w2-1"]);
    assert_eq!(behind(&copy, "s2"), ["w2-0", "w2-1"]);
}

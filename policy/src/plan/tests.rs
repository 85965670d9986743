//! Worlds in, bundles and problems out.

mod answers;
mod callouts;
mod documented;
mod expressions;
mod external;
mod grants;
mod grpc;
mod ports;
mod protection;
mod releases;
mod scope;
mod secrets;
pub(crate) mod shared;
mod spread;
mod streams;
pub(crate) mod tenancy;
mod tiers;
mod traffic;
mod typed;

use super::*;
use crate::authz;
use crate::bundle::{AppVersion, Bundle, Direction, Egress, FilterMode, ObjectName, Protocol, Revision, RouteAction};
use crate::identity::TrustDomain;
use crate::lint::{self, Code, Scope};
use crate::manifest;
use crate::resource::route::AnyRoute;
use crate::resource::{Kind, ObjectKey, Resource};

/// A world of these manifests, one revision each in the order written.
pub(crate) fn world(text: &str) -> World {
    let mut world = World::new(TrustDomain::default());
    let documents = manifest::parse("world.yaml", text).unwrap_or_else(|errors| panic!("{errors:?}"));
    for (index, document) in documents.into_iter().enumerate() {
        let revision = Revision(u64::try_from(index).unwrap() + 1);
        world.put(&Owner::Applied, document.resource, revision, "uid").unwrap();
    }
    world
}

pub(crate) fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

/// Two namespaces, three services, the shipped filters.
pub(crate) const SHOP: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, clusterIP: 10.0.0.1, ports: [{port: 80, targetPort: 8080, appProtocol: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: web-v2, namespace: shop}
spec: {selector: {app: web, version: v2}, ports: [{port: 80, targetPort: 8080, appProtocol: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: nothing, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: web-1, namespace: shop, labels: {app: web, version: v1}}
spec: {address: 127.0.0.11, serviceAccount: web, ports: [{port: 8080, protocol: http}]}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: web-2, namespace: shop, labels: {app: web, version: v2}}
spec: {address: 127.0.0.12, serviceAccount: web, weight: 3, meshAddress: 127.0.0.12:25008, ports: [{port: 8080}]}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: api-1, namespace: partner, labels: {app: web}}
spec: {address: 127.0.0.13, serviceAccount: api}
---
apiVersion: weft.dev/v1alpha1
kind: Filter
metadata: {name: authz, namespace: weft-system}
spec:
  version: 1.0.0
  digest: sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
  signature: c2ln
  publicKey: PEM
  size: 10
  abi: weft:filter@0.1.0
---
apiVersion: weft.dev/v1alpha1
kind: Filter
metadata: {name: ratelimit, namespace: weft-system}
spec:
  version: 2.0.0
  digest: sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
  signature: c2ln
  publicKey: PEM
  size: 10
  abi: weft:filter@0.1.0
  capabilities: [log, token-bucket]
"#;

fn shop_and(more: &str) -> World {
    world(&format!("{SHOP}---\n{more}"))
}

fn bundle(world: &World, served: &[&str]) -> Bundle {
    let served: Vec<ObjectName> = served.iter().map(|text| name(text)).collect();
    bundle_for(world, &served, Revision(9), "ROOTS")
}

fn access(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn filter_policy(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: FilterPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn route(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

#[test]
fn what_a_proxy_holds() {
    let bundle = bundle(&world(SHOP), &["shop/web-1", "shop/gone"]);
    assert_eq!(bundle.revision, Revision(9));
    let mesh = bundle.mesh.as_ref().unwrap();
    assert_eq!((mesh.trust_bundle_pem.as_str(), mesh.request_timeout_ms, mesh.max_retries), ("ROOTS", None, 2));
    let served = &bundle.workloads["shop/web-1"];
    assert_eq!(served.identity.as_str(), "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!(served.service, Some(name("shop/web")));
    assert_eq!(bundle.workloads.len(), 1, "a workload that is gone is left out");
    let endpoints = |service: &str| {
        let endpoints = bundle.services[&name(service)].endpoints.values();
        endpoints.map(|e| format!("{} {} {} {}", e.workload, e.address, e.mesh_address, e.weight)).collect::<Vec<_>>()
    };
    let (first, second) = ("shop/web-1 127.0.0.11 127.0.0.11:15008 1", "shop/web-2 127.0.0.12 127.0.0.12:25008 3");
    assert_eq!(endpoints("shop/web"), [first, second]);
    assert_eq!(endpoints("shop/web-v2"), [second]);
    assert_eq!(endpoints("shop/nothing"), [""; 0], "an empty selector selects nothing");
    assert!(bundle.filters.is_empty() && bundle.routes.is_empty());
}

#[test]
fn routes_of_producers_and_consumers() {
    let own = route(
        "shop/own",
        "{parentRefs: [{group: \"\", kind: Service, name: web, port: 80}, {group: \"\", kind: Service, name: web-v2}], rules: [{backendRefs: [{name: web-v2, port: 80}, {name: none, port: 80}, {name: web, port: 81}, {namespace: partner, name: web, port: 80}]}]}",
    );
    let consumer = route(
        "partner/theirs",
        "{parentRefs: [{group: \"\", kind: Service, namespace: shop, name: web}], rules: [{name: all}]}",
    );
    let world = shop_and(&format!("{own}---\n{consumer}"));
    let names = |served: &[&str]| bundle(&world, served).routes.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&["shop/web-1"]), ["shop/own", "shop/own#1"]);
    assert_eq!(names(&["partner/api-1"]), ["partner/theirs", "shop/own", "shop/own#1"]);
    let bundle = bundle(&world, &["partner/api-1"]);
    let theirs = &bundle.routes[&name("partner/theirs")];
    assert_eq!((theirs.consumer_namespace.as_deref(), &theirs.parent), (Some("partner"), &name("shop/web")));
    let own = &bundle.routes[&name("shop/own")];
    assert_eq!((own.parent_port, own.consumer_namespace.as_deref()), (Some(80), None));
    let backends: Vec<_> =
        own.rules[0].backends.iter().map(|backend| backend.service.as_ref().map(ToString::to_string)).collect();
    assert_eq!(backends, [Some("shop/web-v2".to_owned()), None, None, None], "what doesn't resolve keeps its share");
}

#[test]
fn a_consumers_route_to_the_producers_own_service_needs_no_grant() {
    let backends = "[{namespace: shop, name: web, port: 80}, {namespace: shop, name: web-v2, port: 80}]";
    let spec = format!(
        "{{parentRefs: [{{group: \"\", kind: Service, namespace: shop, name: web}}], rules: [{{backendRefs: {backends}}}]}}"
    );
    let world = shop_and(&route("partner/theirs", &spec));
    let bundle = bundle(&world, &["partner/api-1"]);
    let backends = &bundle.routes[&name("partner/theirs")].rules[0].backends;
    let resolved: Vec<_> = backends.iter().map(|backend| backend.service.clone()).collect();
    assert_eq!(resolved, [Some(name("shop/web")), None], "any other service of that namespace needs one");
    let key = ObjectKey::new(Kind::HttpRoute, "partner", "theirs");
    let theirs = AnyRoute::of(&world.get(&key).unwrap().resource).unwrap();
    let status = route_status(&world, theirs);
    let refused = status[0].conditions.iter().find(|condition| condition.kind == "ResolvedRefs").unwrap();
    assert_eq!((refused.reason, refused.key.as_str()), ("RefNotPermitted", "spec.rules[0].backendRefs[1]"));
}

#[test]
fn of_several_changes_of_one_header_the_first_counts() {
    let modifier = "{set: [{name: X-A, value: '1'}, {name: x-a, value: '2'}, {name: Host, value: other}], \
                    add: [{name: x-b, value: '1'}, {name: x-b, value: '2'}, {name: weft-dst, value: '10.0.0.1:80'}], \
                    remove: [content-length, x-c]}";
    let filters = format!("[{{type: RequestHeaderModifier, requestHeaderModifier: {modifier}}}]");
    let spec = format!(
        "{{parentRefs: [{{group: '', kind: Service, name: web}}], rules: [{{filters: {filters}, backendRefs: [{{name: web, port: 80}}]}}]}}"
    );
    let bundle = bundle(&shop_and(&route("shop/r", &spec)), &["shop/web-1"]);
    let actions = &bundle.routes[&name("shop/r")].rules[0].actions;
    let [RouteAction::RequestHeaders(changes)] = actions.as_slice() else { panic!("{actions:?}") };
    let field = |name: &str| vec![(name.to_owned(), "1".to_owned())];
    assert_eq!((&changes.set, &changes.add), (&field("x-a"), &field("x-b")), "what can't be changed is left out");
    assert_eq!(changes.remove, ["x-c"]);
}

#[test]
fn access_policies_become_one_filter() {
    fn check(policies: &[(&str, &str)], served: &[&str], expect: &[(&str, &[&str], &[&str])]) {
        let text: Vec<String> = policies.iter().map(|(name, spec)| access(name, spec)).collect();
        let bundle = bundle(&shop_and(&text.join("---\n")), served);
        let got: Vec<_> = bundle.filters.values().collect();
        assert_eq!(got.len(), expect.len(), "{policies:?} {served:?}: {got:?}");
        for (filter, (name, policies, workloads)) in got.iter().zip(expect) {
            assert!(filter.authorization && filter.direction == Direction::Inbound);
            let config: authz::Config = serde_json::from_str(&filter.config.0).unwrap();
            let named: Vec<&str> = config.policies.iter().map(|policy| policy.name.as_str()).collect();
            let held: Vec<String> = filter.workloads.iter().map(ToString::to_string).collect();
            assert_eq!(
                (filter.name.as_str(), &named[..], held),
                (*name, *policies, workloads.iter().map(|w| (*w).to_owned()).collect())
            );
        }
    }
    let authz = "weft-system/authz";
    check(&[("shop/all", "{}")], &["shop/web-1"], &[(authz, &["shop/all"], &[])]);
    check(&[("shop/all", "{}")], &["partner/api-1"], &[]);
    check(&[("weft-system/mesh", "{}")], &["partner/api-1"], &[(authz, &["weft-system/mesh"], &[])]);
    check(&[("shop/one", "{targetRefs: [{kind: Workload, name: web-2}]}")], &["shop/web-1"], &[]);
    check(
        &[("shop/one", "{targetRefs: [{kind: Workload, name: web-2}]}")],
        &["shop/web-2"],
        &[(authz, &["shop/one"], &[])],
    );
    check(&[("shop/svc", "{targetRefs: [{kind: Service, name: web-v2}]}")], &["shop/web-1"], &[]);
    check(
        &[("shop/svc", "{targetRefs: [{kind: Service, name: web-v2}]}")],
        &["shop/web-2"],
        &[(authz, &["shop/svc"], &[])],
    );
    check(&[("shop/ns", "{targetRefs: [{kind: Namespace, name: partner}]}")], &["partner/api-1"], &[]);
    check(
        &[("weft-system/ns", "{targetRefs: [{kind: Namespace, name: partner}]}")],
        &["partner/api-1"],
        &[(authz, &["weft-system/ns"], &[])],
    );
    check(
        &[("shop/a", "{}"), ("shop/b", "{targetRefs: [{kind: Workload, name: web-2}]}")],
        &["shop/web-1", "shop/web-2"],
        &[(authz, &["shop/a"], &["shop/web-1"]), ("weft-system/authz#1", &["shop/a", "shop/b"], &["shop/web-2"])],
    );
}

#[test]
fn what_is_protected_stays_closed_without_the_filter() {
    let mut world = shop_and(&access("shop/all", "{}"));
    world.remove(&ObjectKey::new(Kind::Filter, "weft-system", "authz"));
    let bundle = bundle(&world, &["shop/web-1"]);
    let filter = &bundle.filters[AUTHZ_ATTACHMENT];
    assert_eq!(filter.digest, format!("sha256:{}", "0".repeat(64)), "no binary has it, so the bundle is never current");
}

#[test]
fn filter_policies() {
    let attached = filter_policy(
        "shop/limit",
        "{filter: {name: ratelimit}, order: 5, mode: Audit, capabilities: [token-bucket], config: {limits: []}}",
    );
    let off = filter_policy("shop/off", "{filter: {name: ratelimit}, mode: Off, capabilities: [token-bucket]}");
    let bundle = bundle(&shop_and(&format!("{attached}---\n{off}")), &["shop/web-1"]);
    assert_eq!(bundle.filters.keys().collect::<Vec<_>>(), ["shop/limit"]);
    let filter = &bundle.filters["shop/limit"];
    assert_eq!(
        (filter.filter.as_str(), filter.version.as_str(), filter.order, filter.mode),
        ("ratelimit", "2.0.0", 5, FilterMode::Audit)
    );
    assert_eq!(filter.config.0, r#"{"limits":[]}"#);
    assert_eq!(filter.digest, format!("sha256:{}", "b".repeat(64)));
    assert!(!filter.authorization);
}

#[test]
fn status_of_routes() {
    fn check(spec: &str, expect: &[&str]) {
        let world = shop_and(&route("shop/r", spec));
        let key = ObjectKey::new(Kind::HttpRoute, "shop", "r");
        let status = route_status(&world, world.route(&key).unwrap());
        let got: Vec<String> = status
            .iter()
            .flat_map(|parent| {
                let parent_name = &parent.parent_ref.name;
                parent.conditions.iter().map(move |c| format!("{parent_name} {}={} {}", c.kind, c.status, c.reason))
            })
            .collect();
        assert_eq!(got, expect, "{spec}");
    }
    let web = "parentRefs: [{group: \"\", kind: Service, name: web}]";
    check(
        &format!("{{{web}, rules: [{{backendRefs: [{{name: web, port: 80}}]}}]}}"),
        &["web Accepted=true Accepted", "web ResolvedRefs=true ResolvedRefs"],
    );
    check(
        &format!("{{{web}, rules: [{{backendRefs: [{{name: gone, port: 80}}]}}]}}"),
        &["web Accepted=true Accepted", "web ResolvedRefs=false BackendNotFound"],
    );
    check(
        &format!("{{{web}, rules: [{{backendRefs: [{{namespace: partner, name: web, port: 80}}]}}]}}"),
        &["web Accepted=true Accepted", "web ResolvedRefs=false RefNotPermitted"],
    );
    check(
        "{parentRefs: [{group: \"\", kind: Service, name: gone}], rules: [{}]}",
        &["gone Accepted=false NoMatchingParent", "gone ResolvedRefs=true ResolvedRefs"],
    );
}

/// Findings about what is taken and not done.
fn undone(world: &World) -> Vec<String> {
    let findings = lint::check(world, Scope::Whole).into_iter();
    let is_undone = |code: Code| matches!(code, Code::Unserved | Code::NotAttached | Code::ParentPortMissing);
    let undone = findings.filter(|finding| is_undone(finding.code));
    undone.map(|finding| format!("{}: {}", finding.key, finding.message)).collect()
}

#[test]
fn a_route_that_cannot_be_done_leads_nowhere() {
    let web = "parentRefs: [{group: \"\", kind: Service, name: web}]";
    for rule in [
        "matches: [{path: {type: RegularExpression, value: /v.*}}], filters: [{type: ExtensionRef, extensionRef: {}}]",
        "backendRefs: [{name: web, port: 80, filters: [{type: RequestRedirect, requestRedirect: {}}, {type: CORS, cors: {}}]}]",
        "filters: [{type: RequestRedirect, requestRedirect: {}}, {type: ResponseHeaderModifier, responseHeaderModifier: {}}]",
        "filters: [{type: RequestRedirect, requestRedirect: {}}, {type: CORS, cors: {}}]",
        "backendRefs: [{name: web, port: 80, filters: [{type: ExternalAuth, externalAuth: {}}]}]",
    ] {
        let world = shop_and(&route("shop/r", &format!("{{{web}, rules: [{{}}, {{{rule}}}]}}")));
        // It leads nowhere as a whole: what it narrows is not open meanwhile.
        let routes = bundle(&world, &["shop/web-1"]).routes;
        let rules: Vec<_> = routes.values().flat_map(|route| &route.rules).collect();
        assert_eq!(rules.len(), 2, "{rule}");
        for rule in rules {
            assert!(rule.backends.len() == 1 && rule.backends[0].service.is_none(), "{rule:?}");
        }
        let [finding] = &undone(&world)[..] else { panic!("{:?}", undone(&world)) };
        assert!(finding.starts_with("spec.rules[1]."), "{finding}");
        let words = "is not supported yet: every request that the route matches is answered 500";
        assert!(finding.ends_with(words), "{finding}");
        let key = ObjectKey::new(Kind::HttpRoute, "shop", "r");
        let accepted = &route_status(&world, world.route(&key).unwrap())[0].conditions[0];
        assert_eq!((accepted.kind, accepted.status, accepted.reason), ("Accepted", false, "UnsupportedValue"));
    }
}

#[test]
fn parents_by_the_name_of_a_port_and_of_other_kinds() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\nspec: {selector: {app: web}, ports: [{name: a, port: 80, appProtocol: http}, {name: b, port: 81, appProtocol: http}]}\n";
    let spec = "{parentRefs: [{name: gateway}, {group: \"\", kind: Service, name: api, sectionName: b}, {group: \"\", kind: Service, name: api, sectionName: none}], rules: [{}]}";
    let world = shop_and(&format!("{service}---\n{}", route("shop/r", spec)));
    let bundle = bundle(&world, &["shop/web-1"]);
    let routes: Vec<_> = bundle.routes.values().map(|route| (route.name.to_string(), route.parent_port)).collect();
    assert_eq!(routes, [("shop/r#1".to_owned(), Some(81))]);
    assert_eq!(
        undone(&world),
        [
            "spec.parentRefs[0].kind: Gateway of the group \"gateway.networking.k8s.io\" is not served here: a route is attached to a Service (group \"\") or an ExternalService (group weft.dev)",
            "spec.parentRefs[2]: Service shop/api has no port named none",
        ]
    );
}

#[test]
fn ports_of_udp_are_kept_and_not_served() {
    let dns = "apiVersion: v1\nkind: Service\nmetadata: {name: dns, namespace: shop}\nspec: {selector: {app: web}, ports: [{name: u, port: 53, protocol: UDP, targetPort: dns}, {name: t, port: 53}, {name: s, port: 54, protocol: SCTP}]}\n";
    let world = shop_and(dns);
    let service = &bundle(&world, &["shop/web-1"]).services[&name("shop/dns")];
    let ports: Vec<_> = service.ports.iter().map(|port| (port.port, port.name.as_deref())).collect();
    assert_eq!(ports, [(53, Some("t"))]);
    assert_eq!(
        undone(&world),
        [
            "spec.ports[0].protocol: UDP is not carried yet: port 53 is not served",
            "spec.ports[2].protocol: SCTP is not carried yet: port 54 is not served",
        ]
    );
    let to_udp = route(
        "shop/r",
        "{parentRefs: [{group: \"\", kind: Service, name: dns, port: 54}], rules: [{backendRefs: [{name: dns, port: 54}]}]}",
    );
    let world = shop_and(&format!("{dns}---\n{to_udp}"));
    assert_eq!(bundle(&world, &["shop/web-1"]).routes[&name("shop/r")].rules[0].backends[0].service, None);
}

#[test]
fn puts_count_generations() {
    let mut world = world(SHOP);
    let key = ObjectKey::new(Kind::Service, "shop", "web");
    let mut resource = world.get(&key).unwrap().resource.clone();
    assert_eq!(world.put(&Owner::Applied, resource.clone(), Revision(50), "other"), Ok(Action::Unchanged));
    resource.metadata_mut().labels.insert("a".to_owned(), "b".to_owned());
    let before = world.clone();
    assert_eq!(world.put(&Owner::Applied, resource, Revision(51), "other"), Ok(Action::Changed));
    let entry = world.get(&key).unwrap();
    assert_eq!(
        (entry.uid.as_str(), entry.generation, entry.created, entry.modified),
        ("uid", 2, Revision(1), Revision(51))
    );
    assert_eq!(before.get(&key).unwrap().generation, 1, "a clone is a world of its own");
}

#[test]
fn an_object_is_changed_by_its_owner_only() {
    let proxy = |name: &str| {
        let identity = TrustDomain::default().workload("shop", "web").unwrap();
        Owner::Proxy(ProxyKey { name: name.to_owned(), identity })
    };
    let mut world = world(SHOP);
    let key = ObjectKey::new(Kind::Workload, "shop", "web-1");
    let Resource::Workload(mut workload) = world.get(&key).unwrap().resource.clone() else { panic!("not a workload") };
    workload.spec.weight = 7;
    let changed = Resource::Workload(workload);
    let refused = world.put(&proxy("p"), changed.clone(), Revision(50), "uid").unwrap_err();
    assert_eq!(refused.to_string(), "Workload shop/web-1 was applied, and is changed by applying it");
    assert!(world.hand_over(&key, &proxy("p")) && !world.hand_over(&key, &proxy("p")));
    for other in [Owner::Applied, proxy("q")] {
        let refused = world.put(&other, changed.clone(), Revision(50), "uid").unwrap_err();
        let expect =
            "Workload shop/web-1 lives with the proxy p (spiffe://cluster.local/ns/shop/sa/web) and goes when it goes";
        assert_eq!(refused.to_string(), expect);
    }
    assert_eq!(world.put(&proxy("p"), changed, Revision(51), "uid"), Ok(Action::Changed));
    let registered: Vec<_> = world.registered().map(|(name, proxy)| (name.to_string(), proxy.name.clone())).collect();
    assert_eq!(registered, [("shop/web-1".to_owned(), "p".to_owned())]);
}

#[test]
fn changes_between_worlds() {
    let old = shop_and(&access("shop/a", "{}"));
    let mut new = world(SHOP);
    let policy = manifest::parse("x", &access("shop/b", "{}")).unwrap().remove(0).resource;
    new.put(&Owner::Applied, policy, Revision(9), "uid").unwrap();
    let key = ObjectKey::new(Kind::Workload, "shop", "web-1");
    let Resource::Workload(mut workload) = new.get(&key).unwrap().resource.clone() else { panic!("not a workload") };
    workload.spec.weight = 7;
    new.put(&Owner::Applied, Resource::Workload(workload), Revision(10), "uid").unwrap();
    let got: Vec<String> = diff_world(&old, &new).iter().map(|c| format!("{:?} {}", c.action, c.object)).collect();
    assert_eq!(got, ["Changed Workload shop/web-1", "Deleted AccessPolicy shop/a", "Created AccessPolicy shop/b"]);
    let diff = &diff_world(&old, &new)[0].diff;
    assert!(diff.contains("\n-  weight: 1\n+  weight: 7\n"), "{diff}");
    assert_eq!(diff_world(&new, &new), []);
}

#[test]
fn unified_diffs() {
    fn check(old: &str, new: &str, expect: &str) {
        assert_eq!(text_diff(old, new), expect, "{old:?} {new:?}");
    }
    check("", "", "");
    check("a\nb\n", "a\nb\n", "");
    check("", "a\n", "@@ -1,0 +1,1 @@\n+a\n");
    check("a\n", "", "@@ -1,1 +1,0 @@\n-a\n");
    check("a\nb\nc\n", "a\nx\nc\n", "@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n");
    let lines: Vec<String> = (1..=20).map(|n| n.to_string()).collect();
    let old = lines.join("\n");
    let new = old.replace("\n3\n", "\nthree\n").replace("\n17\n", "\n");
    check(
        &old,
        &new,
        "@@ -1,6 +1,6 @@\n 1\n 2\n-3\n+three\n 4\n 5\n 6\n@@ -14,7 +14,6 @@\n 14\n 15\n 16\n-17\n 18\n 19\n 20\n",
    );
}

/// A delta makes one bundle of the other, whatever was done to the world between them.
#[test]
fn bundles_follow_by_deltas() {
    let more = [
        access("shop/a", "{}"),
        access("weft-system/b", "{action: Deny, rules: [{to: [{paths: [/admin/*]}]}]}"),
        filter_policy("shop/limit", "{filter: {name: ratelimit}, capabilities: [token-bucket]}"),
        route(
            "shop/r",
            "{parentRefs: [{group: \"\", kind: Service, name: web}], rules: [{backendRefs: [{name: web-v2, port: 80}]}]}",
        ),
    ];
    let mut resources: Vec<Resource> = manifest::parse("x", SHOP).unwrap().into_iter().map(|d| d.resource).collect();
    resources.extend(more.iter().map(|text| manifest::parse("x", text).unwrap().remove(0).resource));
    let mut state = 3_u64;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((state >> 33) % bound as u64).unwrap()
    };
    let mut world = World::default();
    let served = [name("shop/web-1"), name("partner/api-1")];
    let mut held = Bundle::default();
    for step in 1..500 {
        let resource = &resources[below(resources.len())];
        if below(3) == 0 {
            world.remove(&resource.key());
        } else {
            world.put(&Owner::Applied, resource.clone(), Revision(step), "uid").unwrap();
        }
        let next = bundle_for(&world, &served, Revision(step), "ROOTS");
        held.apply(&diff(&held, &next));
        assert_eq!(held, next, "step {step}");
        assert_eq!(
            next,
            bundle_for(&world.clone(), &served, Revision(step), "ROOTS"),
            "the same world, the same bundle"
        );
    }
}

/// A database without a declared protocol, a cache that declares tcp, and a workload with addresses of both families.
const STORES: &str = r#"
apiVersion: weft.dev/v1alpha1
kind: Mesh
metadata: {name: mesh}
spec: {egress: RegistryOnly}
---
apiVersion: v1
kind: Namespace
metadata: {name: empty}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop, annotations: {weft.dev/path-reading: "params=cut"}}
spec: {selector: {app: db}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: cache, namespace: shop}
spec: {selector: {app: cache}, ports: [{port: 80, targetPort: 8080, appProtocol: tcp}]}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: db-1, namespace: shop, labels: {app: db}}
spec: {address: 10.0.0.7, addresses: ["fd00::7", "::ffff:10.1.0.7"], ports: [{port: 8080}, {port: 9090}]}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: cache-1, namespace: shop, labels: {app: cache}}
spec: {address: 10.0.0.8, ports: [{port: 8080}]}
"#;

#[test]
fn what_holds_for_http_only_refuses_everything_else_at_undeclared_ports() {
    let check = |more: &str, refused: (bool, bool), expect: &[&str]| {
        let world = shop_and(&format!("{STORES}---\n{more}"));
        let bundle = bundle(&world, &["shop/db-1"]);
        let port = |port: u16| bundle.workloads["shop/db-1"].port(port).unwrap();
        let service = &bundle.services[&name("shop/db")].ports[0];
        assert_eq!((service.opaque_refused, port(8080).opaque_refused), refused, "{more}");
        assert!(!bundle.services[&name("shop/cache")].ports[0].opaque_refused, "{more}");
        assert_eq!(port(8080).path_reading, "params=cut".parse().unwrap());
        assert!(port(9090).path_reading.is_default());
        let findings = lint::check(&world, Scope::Whole).into_iter();
        let of_ports = findings.filter(|finding| matches!(finding.code, Code::RouteOffHttp | Code::RuleOffHttp));
        let warnings: Vec<_> = of_ports.map(|finding| finding.message).collect();
        assert_eq!(warnings, expect, "{more}");
    };
    let cut =
        "holds for HTTP: what is not HTTP is refused at port 80 of Service shop/db, where no appProtocol is declared";
    let never = "holds for HTTP, and never at port 80 of Service shop/cache, which is declared tcp";
    let http = "rules: [{to: [{paths: [/x]}]}]";
    check(&access("shop/l4", "{rules: [{from: [{namespaces: [shop]}], to: [{ports: [8080]}]}]}"), (false, false), &[]);
    let nothing = "its rules with methods, paths, hosts, headers or claims allow nothing at port 80 of Service shop/cache, which is declared tcp";
    let rest = "its rules with methods, paths, hosts, headers or claims deny by their other conditions alone at port 80 of Service \
                shop/cache, which is declared tcp";
    check(&access("shop/http", &format!("{{{http}}}")), (true, true), &[cut, nothing]);
    check(&access("shop/http", &format!("{{action: Deny, {http}}}")), (true, true), &[cut, rest]);
    check(&access("shop/elsewhere", "{rules: [{to: [{paths: [/x], ports: [9090]}]}]}"), (false, false), &[]);
    check(
        &access("shop/cache", &format!("{{targetRefs: [{{kind: Service, name: cache}}], {http}}}")),
        (false, false),
        &[nothing],
    );
    let limit = |more: &str| {
        filter_policy("shop/limit", &format!("{{filter: {{name: ratelimit}}, capabilities: [token-bucket]{more}}}"))
    };
    check(&limit(""), (true, true), &[cut]);
    check(&limit(", mode: Audit"), (false, false), &[]);
    check(&limit(", direction: Outbound"), (false, false), &[]);
    let to = |service: &str| {
        route(
            "shop/r",
            &format!("{{parentRefs: [{{group: \"\", kind: Service, name: {service}}}], rules: [{{name: all}}]}}"),
        )
    };
    check(&to("db"), (true, true), &[cut]);
    check(&to("cache"), (false, false), &[never]);
}

#[test]
fn what_services_and_workloads_declare_is_put_together() {
    let check = |service: &str, workload: &str, expect: (Protocol, Protocol, AppVersion)| {
        let stores = STORES
            .replace("targetPort: 8080}", &format!("targetPort: 8080{service}}}"))
            .replace("[{port: 8080}, ", &format!("[{{port: 8080{workload}}}, "));
        let bundle = bundle(&shop_and(&stores), &["shop/db-1"]);
        let port = bundle.workloads["shop/db-1"].port(8080).unwrap().clone();
        let in_front = bundle.services[&name("shop/db")].ports[0].protocol;
        assert_eq!((in_front, port.protocol, port.app_version), expect, "{service} {workload}");
    };
    let (auto, http, grpc, tcp) = (Protocol::Auto, Protocol::Http, Protocol::Grpc, Protocol::Tcp);
    check("", "", (auto, auto, AppVersion::AsCaller));
    check("", ", protocol: http", (http, http, AppVersion::AsCaller));
    check("", ", protocol: grpc", (grpc, grpc, AppVersion::Http2));
    check(", appProtocol: http", "", (http, http, AppVersion::AsCaller));
    check(", appProtocol: grpc", "", (grpc, grpc, AppVersion::Http2));
    check(", appProtocol: kubernetes.io/h2c", "", (http, http, AppVersion::Http2));
    check(", appProtocol: kubernetes.io/h2c", ", protocol: http", (http, http, AppVersion::Http2));
    check(", appProtocol: kubernetes.io/ws", "", (http, http, AppVersion::Http1));
    check(", appProtocol: kubernetes.io/wss", "", (tcp, tcp, AppVersion::AsCaller));
    let stores = STORES
        .replace("[{port: 8080}, ", "[{port: 8080, protocol: http}, ")
        .replace("targetPort: 8080}", "targetPort: 8080, appProtocol: tcp}");
    let findings = lint::check(&shop_and(&stores), Scope::Whole);
    let otherwise = findings.iter().find(|finding| finding.code == Code::DeclaredOtherwise).unwrap();
    assert_eq!(otherwise.message, "port 8080 of Workload shop/db-1 is declared otherwise");
}

#[test]
fn addresses_egress_and_namespaces_reach_the_bundle() {
    let bundle = bundle(&shop_and(STORES), &["shop/db-1"]);
    let mesh = bundle.mesh.as_ref().unwrap();
    assert_eq!(mesh.egress, Egress::RegistryOnly);
    assert!(["empty", "shop", "partner"].iter().all(|name| mesh.namespaces.contains(*name)));
    let (served, endpoint) =
        (&bundle.workloads["shop/db-1"], &bundle.services[&name("shop/db")].endpoints[&name("shop/db-1")]);
    for own in ["10.0.0.7", "::ffff:10.0.0.7", "fd00::7", "10.1.0.7"].map(|text| text.parse().unwrap()) {
        assert!(served.is_at(own) && endpoint.is_at(own), "{own}");
    }
    assert!(!served.is_at("10.0.0.8".parse().unwrap()));
}

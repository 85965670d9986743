//! Tenancy as a property: whatever somebody does in one namespace, the proxies of another hold what they held, but for the
//! services of that namespace and the routes that it has for them. Only the mesh, in its own namespace, reaches everybody.

use proptest::prelude::*;

use super::super::tenancy::{held, reached};
use super::*;
use crate::lint::{self, Code};

/// The label of workloads that proxies registered.
const MADE: &str = "weft.dev/service";

/// An object of one of the two tenants, by numbers that a test can draw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drawn {
    pub(super) kind: u8,
    pub(super) name: u8,
    pub(super) variant: u8,
}

prop_compose! {
    pub(crate) fn drawn()(kind in 0_u8..12, name in 0_u8..2, variant in 0_u8..24) -> Drawn {
        Drawn { kind, name, variant }
    }
}

/// What a TrafficPolicy is for.
fn called(own: &str, variant: u8) -> String {
    match variant {
        0..16 => format!("{{kind: Service, name: {}}}", ["x", "y"][usize::from(variant % 2)]),
        _ => format!("{{kind: Namespace, name: {own}}}"),
    }
}

/// The object in the namespace `own`, where `other` is its neighbour.
pub(super) fn document(own: &str, other: &str, Drawn { kind, name, variant }: Drawn) -> String {
    let app = ["x", "y"][usize::from(name)];
    let near = if variant.is_multiple_of(2) { own } else { other };
    let protocol = ["", ", appProtocol: http", ", appProtocol: tcp"][usize::from(variant % 3)];
    let metadata = format!("metadata: {{name: {app}, namespace: {own}}}");
    let targets = match variant % 6 {
        0 => String::new(),
        1 => format!("targetRefs: [{{kind: Service, name: {app}}}], "),
        2 => format!("targetRefs: [{{kind: Workload, name: {app}}}], "),
        3 => format!("targetRefs: [{{kind: Namespace, name: {own}}}], "),
        4 => format!("targetRefs: [{{kind: Namespace, name: {other}}}], "),
        _ => format!("targetRefs: [{{kind: Service, name: x}}, {{kind: Namespace, name: {other}}}], "),
    };
    let labels = if variant % 5 == 1 { ", labels: {weft.dev/tier: gold}" } else { "" };
    match kind {
        0 => format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {app}, namespace: {own}{labels}}}, spec: {{selector: {{app: {app}}}, clusterIP: 10.{}.{}.{name}, \
             ports: [{{port: 80, targetPort: 8080{protocol}}}]}}}}",
            if variant < 18 { 96 } else { 0 },
            variant % 4
        ),
        1 => format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: Workload, metadata: {{name: {app}, namespace: {own}, labels: {{app: \
             {app}}}}}, spec: {{address: 10.0.{}.{name}, serviceAccount: {app}, ports: [{{port: 8080}}]}}}}",
            variant % 4
        ),
        2 | 7 | 9 | 10 | 11 => route((own, other, near), app, (kind, name, variant)),
        3 => format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, {metadata}, spec: {{{targets}action: Deny, rules: [{{to: \
             [{{paths: [/{variant}]{}}}]}}]}}}}",
            if variant % 4 == 1 { ", ports: [80]" } else { "" }
        ),
        // As proxies register them, with the service that is made for them.
        4 => format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: Workload, metadata: {{name: {app}-r, namespace: {own}, labels: {{app: \
             {app}, {MADE}: {app}}}}}, spec: {{address: 10.1.{}.{name}, serviceAccount: {app}, ports: [{{port: 8080}}]}}}}",
            variant % 4
        ),
        5 => format!(
            "{{apiVersion: v1, kind: Service, {metadata}, spec: {{selector: {{{MADE}: {app}}}, ports: [{{port: {}, targetPort: \
             8080{protocol}}}]}}}}",
            80 + u16::from(variant % 2)
        ),
        6 => format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, {metadata}, spec: {{targetRefs: [{}], loadBalancing: \
             {{algorithm: {}}}{}}}}}",
            called(own, variant),
            ["RoundRobin", "Random", "RingHash, hash: {source: Address}"][usize::from(variant % 3)],
            if variant % 5 == 4 { ", template: {name: gold}" } else { "" }
        ),
        8 if variant % 4 == 3 => format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: RateLimitPolicy, {metadata}, spec: {{{targets}limits: [{{requests: \
             {variant}}}]}}}}"
        ),
        _ => format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, {metadata}, spec: {{{targets}direction: {}, filter: {{name: \
             {}}}, capabilities: [token-bucket{}]}}}}",
            ["Inbound", "Outbound"][usize::from(variant % 2)],
            ["ratelimit", "quota"][usize::from(variant % 4 / 2)],
            if variant % 3 == 1 {
                format!(", {{callout: {{services: [{{name: {app}, namespace: {near}, port: 80}}]}}}}")
            } else {
                String::new()
            }
        ),
    }
}

/// A route, or a grant to lead into the namespace.
fn route((own, other, near): (&str, &str, &str), app: &str, (kind, name, variant): (u8, u8, u8)) -> String {
    let metadata = format!("metadata: {{name: {app}, namespace: {own}}}");
    match kind {
        2 => format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, {metadata}, spec: {{parentRefs: [{{group: '', kind: \
             Service, name: {app}, namespace: {near}}}], rules: [{{matches: [{{path: {{value: /{}}}}}], backendRefs: [{{name: \
             {}, namespace: {near}, port: 80}}]}}]}}}}",
            variant % 3,
            if variant < 12 { app } else { ["y", "x"][usize::from(name)] }
        ),
        7 => format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute, {metadata}, spec: {{parentRefs: [{{group: '', kind: \
             Service, name: {app}, namespace: {near}}}], rules: [{{matches: [{{method: {{service: a.A{}}}}}], backendRefs: \
             [{{name: {app}, namespace: {near}, port: 80}}]}}]}}}}",
            variant % 3
        ),
        10 => format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: TCPRoute, {metadata}, spec: {{parentRefs: [{{group: '', kind: \
             Service, name: {app}, namespace: {near}}}], rules: [{{backendRefs: [{{name: {}, namespace: {near}, port: \
             80}}]}}]}}}}",
            if variant < 12 { app } else { ["y", "x"][usize::from(name)] }
        ),
        11 => format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: TLSRoute, {metadata}, spec: {{hostnames: [a{}.b], parentRefs: \
             [{{group: '', kind: Service, name: {app}, namespace: {near}}}], rules: [{{backendRefs: [{{name: {app}, \
             namespace: {near}, port: 80}}]}}]}}}}",
            variant % 3
        ),
        _ => format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: ReferenceGrant, {metadata}, spec: {{from: [{{group: \
             gateway.networking.k8s.io, kind: {}, namespace: {other}}}], to: [{{group: '', kind: Service{}}}]}}}}",
            ["HTTPRoute", "GRPCRoute", "TCPRoute"][usize::from(variant % 3)],
            ["", ", name: x", ", name: y"][usize::from(variant % 3)]
        ),
    }
}

/// The filters, the mesh's own policy, and what two tenants and a bystander have.
pub(crate) fn tenants(a: &[Drawn], b: &[Drawn]) -> World {
    let filters = SHOP.split("---\n").filter(|text| text.contains("kind: Filter\n")).map(str::to_owned);
    let of = |own: &'static str, other: &'static str, drawn: &[Drawn]| {
        drawn.iter().map(|it| document(own, other, *it)).collect::<Vec<_>>()
    };
    let bystander = document("c", "a", Drawn { kind: 1, name: 0, variant: 3 });
    let mut world = World::new(TrustDomain::default());
    let all = access("weft-system/mesh", "{targetRefs: [{kind: Namespace, name: b}], rules: []}");
    let texts = filters.chain([calling_filter(), all, bystander]);
    for text in texts.chain(of("a", "b", a)).chain(of("b", "a", b)) {
        put(&mut world, &text);
    }
    world
}

/// A filter of a contract that knows callouts.
pub(super) fn calling_filter() -> String {
    let known = SHOP.split("---\n").find(|text| text.contains("name: ratelimit")).unwrap();
    let known = known.replace("name: ratelimit", "name: quota").replace("filter@0.1.0", "filter@0.2.0");
    known.replace("[log, token-bucket]", "[log, token-bucket, kv, callout]")
}

fn put(world: &mut World, text: &str) {
    put_at(world, text, 1);
}

/// Puts an object as whoever makes such ones.
pub(super) fn put_at(world: &mut World, text: &str, revision: u64) {
    let resource = manifest::parse("", text).unwrap_or_else(|errors| panic!("{errors:?} {text}")).remove(0).resource;
    let owner = if let Resource::Workload(workload) = &resource
        && workload.metadata.labels.contains_key(MADE)
    {
        let (namespace, account) = (&workload.metadata.namespace, &workload.spec.service_account);
        let identity = world.trust_domain.workload(namespace, account).unwrap();
        Owner::Proxy(ProxyKey { name: workload.metadata.name.clone(), identity })
    } else {
        Owner::Applied
    };
    world.put(&owner, resource, Revision(revision), "uid").unwrap();
}

/// No address is two objects': an apply that makes it so is refused.
pub(super) fn addresses_are_apart(world: &World) -> bool {
    !lint::errors(world).iter().any(|finding| matches!(finding.code, Code::SameAddress | Code::SameSocket))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3_000) })]

    #[test]
    fn nothing_that_one_namespace_does_changes_what_proxies_of_another_hold(
        a in proptest::collection::vec(drawn(), 0..5),
        b in proptest::collection::vec(drawn(), 0..6),
        changed in drawn(),
        removed in any::<bool>(),
    ) {
        let before = tenants(&a, &b);
        let mut after = before.clone();
        let text = document("a", "b", changed);
        match removed {
            true => drop(after.remove(&manifest::parse("", &text).unwrap()[0].resource.key())),
            false => put(&mut after, &text),
        }
        prop_assert_eq!(held(&before, "b", "a"), held(&after, "b", "a"), "{} by {}", removed, text);
        if addresses_are_apart(&before) && addresses_are_apart(&after) {
            for caller in ["b", "c"] {
                prop_assert_eq!(reached(&before, caller, "b"), reached(&after, caller, "b"), "{} by {}", removed, text);
            }
        }
    }
}

#[test]
fn objects_that_reach_into_another_namespace_are_named() {
    let mut world = tenants(&[Drawn { kind: 0, name: 0, variant: 0 }], &[Drawn { kind: 1, name: 0, variant: 1 }]);
    assert_eq!(intrusions(&world), []);
    // A record that came in before addresses were looked at: the service of b has the address of a's.
    put(&mut world, &document("b", "a", Drawn { kind: 0, name: 0, variant: 0 }));
    put(&mut world, &document("a", "b", Drawn { kind: 1, name: 0, variant: 1 }));
    let told: Vec<_> = intrusions(&world).iter().map(ToString::to_string).collect();
    assert!(
        told.iter().any(|line| line.starts_with("Service a/x changes what proxies in b hold: the way to 10.96.0.0:80")),
        "{told:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    /// A further source of objects needs nothing of the planner: what it brings acts as if it were applied, and is its own.
    #[test]
    fn the_planner_does_not_ask_where_an_object_comes_from(
        a in proptest::collection::vec(drawn(), 0..5),
        b in proptest::collection::vec(drawn(), 0..6),
    ) {
        let applied = tenants(&a, &b);
        let mut brought = World::new(TrustDomain::default());
        for (_, entry) in applied.iter() {
            brought.put(&Owner::Elsewhere, entry.resource.clone(), Revision(1), "uid").unwrap();
        }
        let names: Vec<_> = applied.workloads().map(|workload| workload.name()).collect();
        for name in names {
            let served = [name];
            prop_assert_eq!(
                bundle_for(&applied, &served, Revision(1), ""),
                bundle_for(&brought, &served, Revision(1), "")
            );
        }
        for (key, entry) in applied.iter() {
            let refused = brought.put(&Owner::Applied, entry.resource.clone(), Revision(2), "uid").unwrap_err();
            prop_assert_eq!((&refused.key, *refused.owner), (key, Owner::Elsewhere));
        }
    }
}

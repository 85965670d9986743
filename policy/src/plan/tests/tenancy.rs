//! Tenancy as a property: whatever somebody does in one namespace, the proxies of another hold what they held, but for the
//! services of that namespace and the routes that it has for them. Only the mesh, in its own namespace, reaches everybody.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::delta::{Key, Object};
use crate::lint::{self, Code};
use crate::route::{Meant, Resolution, Resolver, RouteTable};

/// An object of one of the two tenants, by numbers that a test can draw.
#[derive(Debug, Clone, Copy)]
struct Drawn {
    kind: u8,
    name: u8,
    variant: u8,
}

prop_compose! {
    fn drawn()(kind in 0_u8..5, name in 0_u8..2, variant in 0_u8..24) -> Drawn {
        Drawn { kind, name, variant }
    }
}

/// The object in the namespace `own`, where `other` is its neighbour.
fn document(own: &str, other: &str, Drawn { kind, name, variant }: Drawn) -> String {
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
    match kind {
        0 => format!(
            "{{apiVersion: v1, kind: Service, {metadata}, spec: {{selector: {{app: {app}}}, clusterIP: 10.{}.{}.{name}, \
             ports: [{{port: 80, targetPort: 8080{protocol}}}]}}}}",
            if variant < 18 { 96 } else { 0 },
            variant % 4
        ),
        1 => format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: Workload, metadata: {{name: {app}, namespace: {own}, labels: {{app: \
             {app}}}}}, spec: {{address: 10.0.{}.{name}, serviceAccount: {app}, ports: [{{port: 8080}}]}}}}",
            variant % 4
        ),
        2 => format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, {metadata}, spec: {{parentRefs: [{{group: '', kind: \
             Service, name: {app}, namespace: {near}}}], rules: [{{matches: [{{path: {{value: /{}}}}}], backendRefs: [{{name: \
             {app}, namespace: {near}, port: 80}}]}}]}}}}",
            variant % 3
        ),
        3 => format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, {metadata}, spec: {{{targets}action: Deny, rules: [{{to: \
             [{{paths: [/{variant}]}}]}}]}}}}"
        ),
        _ => format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: FilterPolicy, {metadata}, spec: {{{targets}direction: {}, filter: {{name: \
             ratelimit}}, capabilities: [token-bucket]}}}}",
            ["Inbound", "Outbound"][usize::from(variant % 2)]
        ),
    }
}

/// The filters, the mesh's own policy, and what two tenants and a bystander have.
fn tenants(a: &[Drawn], b: &[Drawn]) -> World {
    let filters = SHOP.split("---\n").filter(|text| text.contains("kind: Filter\n")).map(str::to_owned);
    let of = |own: &'static str, other: &'static str, drawn: &[Drawn]| {
        drawn.iter().map(|it| document(own, other, *it)).collect::<Vec<_>>()
    };
    let bystander = document("c", "a", Drawn { kind: 1, name: 0, variant: 3 });
    let mut world = World::new(TrustDomain::default());
    let texts =
        filters.chain([access("weft-system/mesh", "{targetRefs: [{kind: Namespace, name: b}], rules: []}"), bystander]);
    for text in texts.chain(of("a", "b", a)).chain(of("b", "a", b)) {
        put(&mut world, &text);
    }
    world
}

fn put(world: &mut World, text: &str) {
    let document = manifest::parse("", text).unwrap_or_else(|errors| panic!("{errors:?} {text}")).remove(0);
    world.put(&Owner::Applied, document.resource, Revision(1), "uid").unwrap();
}

/// Everything that the proxies of a namespace hold, without what the other namespace may tell everybody: its services, and
/// its routes for them.
fn held(world: &World, namespace: &str, other: &str) -> BTreeMap<Key, Object> {
    let served: Vec<ObjectName> =
        world.workloads().filter(|it| it.metadata.namespace == namespace).map(crate::resource::Object::name).collect();
    let mut bundle = bundle_for(world, &served, Revision(1), "");
    bundle.services.retain(|name, _| name.namespace != other);
    bundle.routes.retain(|name, route| name.namespace != other || route.parent.namespace != other);
    // Who sends to a service of the other has asked for what becomes of it.
    for route in bundle.routes.values_mut().filter(|route| route.parent.namespace == other) {
        route.rules.iter_mut().flat_map(|rule| &mut rule.backends).for_each(|backend| backend.service = None);
    }
    // The names of namespaces are everybody's: they tell which names are the mesh's.
    if let Some(mesh) = &mut bundle.mesh {
        mesh.namespaces.remove(other);
    }
    bundle.objects()
}

/// Where a caller of a namespace that dials the neighbour's addresses comes out: services and workloads by their names.
fn dialled(world: &World, caller: &str, callee: &str) -> Vec<String> {
    let bundle = bundle_for(world, &[ObjectName::new(caller, "x")], Revision(1), "");
    let (table, mesh) = (RouteTable::new(&Arc::new(bundle.clone())), bundle.mesh.clone().unwrap());
    let resolver = Resolver { table: &table, mesh: &mesh, from_namespace: caller, is_local: &|_| false };
    let own = bundle.services.values().filter(|service| service.name.namespace == callee);
    let sockets = own.flat_map(|service| {
        let vip = service.vip.map(|vip: IpAddr| SocketAddr::new(vip, 80));
        vip.into_iter().chain(service.endpoints.values().map(|endpoint| SocketAddr::new(endpoint.address, 8080)))
    });
    let come_out = |socket: SocketAddr| match resolver.resolve(Meant::Address(socket), None) {
        Resolution::Mesh(to) => format!("{socket} {} {:?}", to.service.name, to.endpoint),
        other @ (Resolution::Outside | Resolution::Refused(_) | Resolution::Unknown) => format!("{socket} {other:?}"),
    };
    sockets.map(come_out).collect()
}

/// No address is two objects': an apply that makes it so is refused.
fn addresses_are_apart(world: &World) -> bool {
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
                prop_assert_eq!(dialled(&before, caller, "b"), dialled(&after, caller, "b"), "{} by {}", removed, text);
            }
        }
    }
}

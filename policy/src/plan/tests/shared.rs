//! What is made once for all proxies and kept from world to world is what each proxy's bundle says, after whatever changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::tenancy::{Drawn, document, drawn, put_at as put, tenants};
use super::*;
use crate::delta::Object;
use crate::scope::Ask;

/// What happens to a world.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Put {
        own: &'static str,
        drawn: Drawn,
    },
    Remove {
        own: &'static str,
        drawn: Drawn,
    },
    /// Deleted and made again at once: the same, but younger.
    Renew {
        own: &'static str,
        drawn: Drawn,
    },
    Unreadable {
        own: &'static str,
        kind: Kind,
    },
    /// One of the whole mesh.
    Mesh(u8),
    /// ExternalServices, and routes and policies of theirs.
    Outside(u8),
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let own = || prop_oneof![4 => Just("a"), 4 => Just("b"), 1 => Just("weft-system")];
    let kind = proptest::sample::select(vec![
        Kind::Service,
        Kind::HttpRoute,
        Kind::GrpcRoute,
        Kind::TcpRoute,
        Kind::ReferenceGrant,
        Kind::AccessPolicy,
    ]);
    let step = prop_oneof![
        8 => (own(), drawn()).prop_map(|(own, drawn)| Step::Put { own, drawn }),
        4 => (own(), drawn()).prop_map(|(own, drawn)| Step::Remove { own, drawn }),
        2 => (own(), drawn()).prop_map(|(own, drawn)| Step::Renew { own, drawn }),
        1 => (own(), kind).prop_map(|(own, kind)| Step::Unreadable { own, kind }),
        2 => (0_u8..13).prop_map(Step::Mesh),
        3 => (0_u8..14).prop_map(Step::Outside),
    ];
    proptest::collection::vec(step, 1..40)
}

/// One object comes or goes that is about what is outside.
fn outside(world: &mut World, number: u8, revision: u64) {
    const API: &str = "weft.dev/v1alpha1";
    const ROUTE: &str = "gateway.networking.k8s.io/v1";
    let service = |own: &str| format!("{{group: '', kind: Service, name: {own}}}");
    let external = |rest: &str| format!("{{group: weft.dev, kind: ExternalService, {rest}}}");
    let route =
        |parent: String, backend: String| format!("parentRefs: [{parent}], rules: [{{backendRefs: [{backend}]}}]");
    let to_x = || "{name: x, port: 80}".to_owned();
    let hosts = |host: &str| format!("hosts: [{host}], ports: [{{port: 80, protocol: http}}]");
    let policy = "targetRefs: [{kind: ExternalService, name: out}], timeouts: {request: 1s}".to_owned();
    let wide = format!("{}, visibility: Mesh", hosts("wide.example"));
    let (kind, version, namespace, name, spec) = match number / 2 {
        0 => (Kind::ExternalService, API, "a", "out", hosts("out.example")),
        1 => (Kind::HttpRoute, ROUTE, "a", "led", route(external("name: out"), to_x())),
        2 => (Kind::HttpRoute, ROUTE, "a", "lead", route(service("x"), external("name: out, port: 80"))),
        3 => (Kind::TrafficPolicy, API, "a", "out", policy),
        4 => (Kind::ExternalService, API, "weft-system", "wide", wide),
        5 => {
            let (parent, to) = ("name: wide, namespace: weft-system", "name: wide, namespace: weft-system, port: 80");
            (Kind::HttpRoute, ROUTE, "b", "wide", route(external(parent), external(to)))
        }
        _ => (Kind::GrpcRoute, ROUTE, "b", "out", route(service("y"), external("name: out, namespace: a, port: 80"))),
    };
    match number % 2 {
        0 => {
            let head =
                format!("apiVersion: {version}, kind: {kind}, metadata: {{name: {name}, namespace: {namespace}}}");
            put(world, &format!("{{{head}, spec: {{{spec}}}}}"), revision);
        }
        _ => drop(world.remove(&ObjectKey::new(kind, namespace, name))),
    }
}

fn template(name: &str, head: &str, body: &str) -> String {
    format!(
        "{{apiVersion: weft.dev/v1alpha1, kind: PolicyTemplate, metadata: {{name: {name}}}, spec: {{{head}, trafficPolicy: \
         {{{body}}}}}}}"
    )
}

pub(crate) fn take(world: &mut World, step: &Step, revision: u64) {
    let text = |own: &str, drawn: Drawn| document(own, if own == "a" { "b" } else { "a" }, drawn);
    let key = |text: &str| manifest::parse("", text).unwrap()[0].resource.key();
    match step {
        Step::Put { own, drawn } => put(world, &text(own, *drawn), revision),
        Step::Remove { own, drawn } => drop(world.remove(&key(&text(own, *drawn)))),
        Step::Renew { own, drawn } => {
            let text = text(own, *drawn);
            world.remove(&key(&text));
            put(world, &text, revision);
        }
        Step::Unreadable { own, kind } => {
            let key = ObjectKey::new(*kind, own, "x");
            world.remove(&key);
            world.note_unreadable(key);
        }
        Step::Outside(number) => outside(world, *number, revision),
        Step::Mesh(0) => put(world, "{apiVersion: v1, kind: Namespace, metadata: {name: empty}}", revision),
        Step::Mesh(1) => drop(world.remove(&ObjectKey::new(Kind::Namespace, "", "empty"))),
        Step::Mesh(2) => put(
            world,
            "{apiVersion: weft.dev/v1alpha1, kind: Mesh, metadata: {name: mesh}, spec: {egress: RegistryOnly}}",
            revision,
        ),
        Step::Mesh(3) => drop(world.remove(&ObjectKey::new(Kind::Mesh, "", "mesh"))),
        Step::Mesh(4) => drop(world.remove(&ObjectKey::new(Kind::Filter, "weft-system", "authz"))),
        Step::Mesh(5) => put(
            world,
            "{apiVersion: v1, kind: Namespace, metadata: {name: c, annotations: {weft.dev/uses: 'y.a, x.b'}}}",
            revision,
        ),
        Step::Mesh(6) => drop(world.remove(&ObjectKey::new(Kind::Namespace, "", "c"))),
        Step::Mesh(8) => {
            put(world, &template("gold", "tier: gold, namespaces: [a]", "timeouts: {request: 1s}"), revision)
        }
        Step::Mesh(9) => drop(world.remove(&ObjectKey::new(Kind::PolicyTemplate, "", "gold"))),
        Step::Mesh(10) => put(world, &template("silver", "tier: gold", "retry: {attempts: 1}"), revision),
        Step::Mesh(11) => put(
            world,
            "{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: all, namespace: weft-system}, spec: \
             {targetRefs: [{kind: Mesh, name: mesh}], limits: {maxActiveRequests: 1}}}",
            revision,
        ),
        Step::Mesh(12) => drop(world.remove(&ObjectKey::new(Kind::TrafficPolicy, "weft-system", "all"))),
        Step::Mesh(_) => {
            let authz = SHOP.split("---\n").find(|text| text.contains("name: authz")).unwrap();
            put(world, &authz.replace("1.0.0", &format!("1.0.{revision}")), revision);
        }
    }
}

type Told = BTreeMap<Key, Object>;

fn told(objects: Vec<Arc<Object>>) -> Told {
    let count = objects.len();
    let told: Told = objects.into_iter().map(|object| (object.key(), Object::clone(&object))).collect();
    assert_eq!(told.len(), count, "each object once");
    told
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn the_index_that_follows_changes_is_the_one_that_is_made_anew(
        a in proptest::collection::vec(drawn(), 0..6),
        b in proptest::collection::vec(drawn(), 0..6),
        steps in steps(),
    ) {
        let mut world = tenants(&a, &b);
        for (index, step) in steps.iter().enumerate() {
            let before = world.clone();
            take(&mut world, step, index as u64 + 100);
            let anew = world.part(|_| true);
            prop_assert_eq!(world.index(), anew.index(), "after {:?}", &steps[..=index]);
            let keys = || before.iter().chain(world.iter()).map(|(key, _)| key);
            let is_other = |key: &ObjectKey| before.get(key).map(|it| &it.resource) != world.get(key).map(|it| &it.resource);
            let differing: BTreeSet<_> = keys().filter(|key| is_other(key)).collect();
            prop_assert!(before.differing(&world).is_superset(&differing));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn what_is_shared_is_what_each_bundle_says(
        a in proptest::collection::vec(drawn(), 0..6),
        b in proptest::collection::vec(drawn(), 0..6),
        steps in steps(),
        looks in proptest::collection::vec(any::<bool>(), 40),
    ) {
        let mut world = tenants(&a, &b);
        let mut shared = Shared::new(Arc::new(world.clone()), "ROOTS".into(), |object| object);
        let asked: BTreeSet<Ask> = [
            Ask::Service(name("a/x")),
            Ask::Service(name("b/y")),
            Ask::address("10.96.1.0".parse().unwrap()),
            Ask::address("10.0.2.1".parse().unwrap()),
        ]
        .into();
        let proxies = [vec![name("a/x")], vec![name("b/x")], vec![name("a/y"), name("b/y")], vec![name("c/x")]];
        let mut all: Vec<Shared<Object>> = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            take(&mut world, step, index as u64 + 100);
            let next = shared.next(Arc::new(world.clone()), "ROOTS");
            all.push(std::mem::replace(&mut shared, next));
            // The last world, or one before it.
            let before = &all[if looks[steps.len() - 1 - index] { index } else { index / 2 }];
            // Not every world is looked at: what is kept may be older than the last.
            for served in proxies.iter().filter(|_| looks[index]) {
                let wanted = bundle_for(&world, served, Revision(1), "ROOTS").objects();
                prop_assert_eq!(told(shared.of_proxy(served)), wanted, "{:?} after {:?}", served, &steps[..=index]);
                let scope = shared.scope(served, &asked);
                prop_assert_eq!(&scope, &scope_of(&world, served, &asked));
                let wanted = scoped_bundle_for(&world, served, &asked, Revision(1), "ROOTS").objects();
                let held = told(shared.of_scope(served, &scope));
                let scope_before = before.scope(served, &asked);
                if !shared.concerns(before, served, &asked, &scope_before) {
                    let held_before = told(before.of_scope(served, &scope_before));
                    prop_assert_eq!(&held_before, &held, "{:?} in scope at {:?}", served, steps[index]);
                }
                prop_assert_eq!(held, wanted, "{:?} in scope after {:?}", served, &steps[..=index]);
            }
        }
    }
}

#[test]
fn what_no_change_concerns_is_the_same_object() {
    let mut world = tenants(&[], &[]);
    for text in ["a", "b"].map(|own| document(own, own, Drawn { kind: 0, name: 0, variant: 0 })) {
        put(&mut world, &text, 1);
    }
    let served = [name("c/x")];
    let before = Shared::new(Arc::new(world.clone()), "ROOTS".into(), |object| object);
    let first = before.of_proxy(&served);
    put(&mut world, &document("a", "b", Drawn { kind: 1, name: 0, variant: 0 }), 2);
    let made_anew = |next: Vec<Arc<Object>>, before: &[Arc<Object>]| -> Vec<Key> {
        let is_new = |object: &&Arc<Object>| !before.iter().any(|known| Arc::ptr_eq(known, object));
        next.iter().filter(is_new).map(|it| it.key()).collect()
    };
    let world = Arc::new(world);
    let after = before.next(world.clone(), "ROOTS");
    let second = after.of_proxy(&served);
    assert_eq!(made_anew(second.clone(), &first), [Key::Service(name("a/x"))]);
    // Roots are told with the mesh's settings.
    let others = after.next(world, "OTHERS");
    assert_eq!(made_anew(others.of_proxy(&served), &second), [Key::Mesh]);
    let (asked, scope) = (BTreeSet::new(), BTreeSet::new());
    let second = after.of_scope(&served, &scope);
    assert!(others.concerns(&after, &served, &asked, &scope));
    assert_eq!(made_anew(others.of_scope(&served, &scope), &second), [Key::Mesh]);
}

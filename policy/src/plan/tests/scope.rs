//! What a proxy holds that holds only what it uses decides as the whole mesh does, or says what it has to ask for.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::tenancy::{addresses_are_apart, drawn, tenants};
use super::*;
use crate::path::NormalPath;
use crate::route::{Authority, HeadView, Meant, Resolution, Resolver, RouteTable, plan};
use crate::scope::Ask;

/// Another backend of `web`, with a route of its own; one that callers of `partner` alone meet; and the rest of the mesh.
const MORE: &str = "
apiVersion: v1
kind: Service
metadata: {name: canary, namespace: shop}
spec: {selector: {app: canary}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: deep, namespace: shop}
spec: {selector: {app: deep}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: own, namespace: partner}
spec: {selector: {app: web}, clusterIP: 10.0.9.1, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: stub, namespace: partner}
spec: {selector: {app: stub}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules:
  - matches: [{path: {value: /new}}]
    backendRefs: [{name: canary, port: 80}]
  - backendRefs: [{name: web, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: canary, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: canary}]
  rules: [{backendRefs: [{name: deep, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: stubbed, namespace: partner}
spec:
  parentRefs: [{group: '', kind: Service, name: web-v2, namespace: shop}]
  rules: [{backendRefs: [{name: stub, port: 80}]}]
";

fn ask(text: &str) -> Ask {
    text.parse().map(Ask::address).unwrap_or_else(|_| Ask::Service(name(text)))
}

fn scope(world: &World, served: &str, asked: &[&str]) -> Vec<String> {
    let asked = asked.iter().map(|text| ask(text)).collect();
    scope_of(world, &[name(served)], &asked).iter().map(ToString::to_string).collect()
}

#[test]
fn a_proxy_holds_what_it_serves_and_what_it_asked_for() {
    let world = shop_and(MORE);
    let check = |served: &str, asked: &[&str], expect: &[&str]| {
        assert_eq!(scope(&world, served, asked), expect, "{served} asks for {asked:?}");
    };
    check("partner/api-1", &[], &["partner/own"]);
    check("shop/gone", &[], &[]);
    check("shop/gone", &["shop/deep", "shop/nobody"], &["shop/deep"]);
    // With every backend of its routes, and those of their routes.
    check("shop/gone", &["shop/web"], &["shop/canary", "shop/deep", "shop/web"]);
    check("shop/web-1", &[], &["shop/canary", "shop/deep", "shop/web"]);
    // The callers' own route, which callers of other namespaces don't meet.
    check("partner/none", &["shop/web-v2"], &["partner/stub", "shop/web-v2"]);
    check("shop/gone", &["shop/web-v2"], &["shop/web-v2"]);
    // By its virtual address, by that of a workload behind it, and by one that nobody has.
    check("shop/gone", &["10.0.9.1"], &["partner/own"]);
    check("shop/gone", &["127.0.0.12"], &["shop/canary", "shop/deep", "shop/web", "shop/web-v2"]);
    check("shop/gone", &["127.0.0.13", "127.0.0.99"], &["partner/own"]);
}

#[test]
fn a_workload_and_a_namespace_say_what_they_use() {
    let own = "apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {name: w, namespace: shop, annotations: {weft.dev/uses: \
               'deep, own.partner, gone'}}\nspec: {address: 127.0.0.20}\n";
    let all = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {weft.dev/uses: nothing}}\n";
    let world = shop_and(&format!("{MORE}---\n{own}---\n{all}"));
    assert_eq!(scope(&world, "shop/w", &[]), ["partner/own", "shop/deep", "shop/nothing"]);
    assert_eq!(scope(&world, "shop/other", &[]), ["shop/nothing"]);
    assert_eq!(scope(&world, "partner/w", &[]), [""; 0]);
    assert!(!lint::check(&world, Scope::Whole).iter().any(|finding| finding.code == Code::UnknownAnnotation));
    let wrong = all.replace("nothing", "'a, b.c.d'");
    let errors = manifest::parse("x.yaml", &wrong).unwrap_err();
    assert!(
        errors[0].to_string().contains("weft.dev/uses: \"b.c.d\" is no service: NAME or NAME.NAMESPACE"),
        "{errors:?}"
    );
}

/// Of a service that a proxy neither serves nor asked for it is told no byte: not its name, nor any address of its.
#[test]
fn nothing_is_told_of_what_was_not_asked_for() {
    let world = shop_and(MORE);
    let asked = ["shop/deep"].map(ask).into();
    let bundle = scoped_bundle_for(&world, &[name("partner/none")], &asked, Revision(1), "");
    let told: String = bundle.objects().values().map(|object| format!("{object:?}")).collect();
    assert!(told.contains("deep"), "{told}");
    for other in ["\"web\"", "canary", "\"own\"", "nothing", "127.0.0.11", "10.0.9.1"] {
        assert!(!told.contains(other), "{other} in {told}");
    }
    let ranges = bundle.mesh.unwrap().ranges.unwrap();
    assert_eq!(ranges.to_string(), "10.0.0.0/24, 10.0.9.0/24, 127.0.0.0/24");
}

/// What becomes of requests of a caller in `from`: where the proxy knows, by every detail that an attempt needs.
fn decisions(bundle: &Bundle, from: &str, host: &str, connection: Option<SocketAddr>) -> Result<String, Ask> {
    let table = RouteTable::new(&Arc::new(bundle.clone()));
    let mut mesh = bundle.mesh.clone().unwrap();
    let resolver = Resolver { table: &table, mesh: &mesh, from_namespace: from, is_local: &|_| false };
    let meant = connection.map_or(Meant::Nothing, Meant::Address);
    let to = match resolver.resolve(meant, Some(Authority { host, port: None })) {
        Resolution::Mesh(to) => to,
        Resolution::Unknown(ask) => return Err(ask),
        other @ (Resolution::External(_) | Resolution::Outside | Resolution::Refused(_)) => {
            return Ok(format!("{other:?}"));
        }
    };
    let mut decided = format!("{to:?}");
    mesh.ranges = None;
    for (path, dice) in [("/0/x", 0), ("/1", u64::MAX / 2), ("/2", u64::MAX), ("//1", 0)] {
        let path = NormalPath::new(Bytes::from_static(path.as_bytes())).unwrap();
        let head = HeadView { method: "GET", path: &path, host: None, headers: &|_| None, others: &[] };
        decided += &format!("{:?}", plan(&table, &to, from, &head, dice, &mesh));
    }
    Ok(decided)
}

/// Names and addresses that requests are sent to, some of which are in the mesh.
fn places() -> Vec<String> {
    let names = ["x", "y", "x.a", "y.a", "x.b", "Y.B.svc.cluster.local", "x.c", "x.nowhere", "gone", "example.com"];
    let mut places: Vec<_> = names.map(str::to_owned).into();
    for third in 0..4 {
        for last in 0..2 {
            places.extend(["10.96", "10.0", "10.1", "192.168"].map(|first| format!("{first}.{third}.{last}")));
        }
    }
    places
}

/// Everything that may be asked for in those places.
fn asks() -> Vec<Ask> {
    let names = ["x", "y", "gone"].map(|name| ["a", "b", "c"].map(|own| Ask::Service(ObjectName::new(own, name))));
    let addresses = places().into_iter().filter_map(|place| place.parse::<IpAddr>().ok()).map(Ask::address);
    names.into_iter().flatten().chain(addresses).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn what_is_held_decides_as_the_whole_or_says_what_to_ask_for(
        a in proptest::collection::vec(drawn(), 0..7),
        b in proptest::collection::vec(drawn(), 0..7),
        picked in proptest::collection::vec(any::<bool>(), asks().len()),
        own in prop_oneof![Just("a/x"), Just("b/y"), Just("c/x"), Just("a/none")],
    ) {
        let world = tenants(&a, &b);
        prop_assume!(addresses_are_apart(&world));
        let asked: BTreeSet<Ask> = asks().into_iter().zip(picked).filter(|(_, it)| *it).map(|(ask, _)| ask).collect();
        let served = [name(own)];
        let whole = bundle_for(&world, &served, Revision(1), "");
        let held = scoped_bundle_for(&world, &served, &asked, Revision(1), "");
        let all = whole.objects();
        for (key, object) in held.objects().iter().filter(|(key, _)| **key != Key::Mesh) {
            prop_assert_eq!(all.get(key), Some(object));
        }
        let outside: SocketAddr = "93.184.216.34:80".parse().unwrap();
        for place in places() {
            let address = place.parse().ok().map(|ip| SocketAddr::new(ip, 8080));
            for connection in [None, Some(outside), address] {
                let expect = decisions(&whole, &served[0].namespace, &place, connection).unwrap();
                match decisions(&held, &served[0].namespace, &place, connection) {
                    Ok(decided) => prop_assert_eq!(decided, expect, "{}", place),
                    Err(ask) => prop_assert!(!asked.contains(&ask), "{ask}"),
                }
            }
        }
    }
}

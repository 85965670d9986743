//! ExternalServices: what is refused, who is told of them, what is told of those that claim the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::bundle::{ExternalPort, ExternalProtocol};
use crate::delta::Object;

fn external(own: &str, spec: &str) -> String {
    let (namespace, name) = own.split_once('/').unwrap();
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: ExternalService\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

const PORTS: &str = "ports: [{port: 80, protocol: http, targetPort: 443}]";

/// Those that the proxy of a workload is told of.
fn told(world: &World, served: &str) -> Vec<String> {
    bundle(world, &[served]).externals.keys().map(ToString::to_string).collect()
}

fn check(own: &str, spec: &str, expect: &[&str]) {
    let mut told: Vec<_> = match manifest::parse("x", &external(own, spec)) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(|error| format!("{}: {}", error.key, error.message)).collect(),
    };
    told.sort();
    let mut expect = expect.to_vec();
    expect.sort_unstable();
    assert_eq!(told, expect, "{spec}");
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let hosts = "hosts: [api.example.com]";
    check("shop/x", &format!("{{{hosts}, {PORTS}}}"), &[]);
    check("weft-system/x", &format!("{{{hosts}, {PORTS}, visibility: Mesh}}"), &[]);
    check("weft-system/x", &format!("{{hosts: ['*.example', '*.internal'], {PORTS}}}"), &[]);
    check("shop/x", &format!("{{hosts: ['*.a.example'], {PORTS}}}"), &[]);
    let nearly = "stands for all names of a top-level domain, which is for namespace weft-system only: it would let its workloads out to \
                  nearly everywhere";
    check(
        "shop/x",
        &format!("{{hosts: [a.example, '*.com'], {PORTS}}}"),
        &[&format!("spec.hosts[1]: \"*.com\" {nearly}")],
    );
    let anybody = "stands for names that anybody may have, which is for namespace weft-system only: it would let its workloads out \
                   to whoever registers one";
    for host in ["*.co.uk", "*.com.au", "*.github.io", "*.s3.amazonaws.com"] {
        let expect = format!("spec.hosts[0]: {host:?} {anybody}");
        check("shop/x", &format!("{{hosts: ['{host}'], {PORTS}}}"), &[&expect]);
        check("weft-system/x", &format!("{{hosts: ['{host}'], {PORTS}}}"), &[]);
    }
    // A name in one of them is somebody's, and so is a short name under a country.
    for host in ["a.co.uk", "*.a.co.uk", "*.us.github.io", "*.web.de", "*.co.example"] {
        check("shop/x", &format!("{{hosts: ['{host}'], {PORTS}}}"), &[]);
    }
    let list = "1 to 32 are expected";
    check("shop/x", &format!("{{hosts: [], {PORTS}}}"), &[&format!("spec.hosts: 0 are given: {list}")]);
    let many: Vec<String> = (0..33).map(|number| format!("h{number}.example")).collect();
    let many = many.join(", ");
    check("shop/x", &format!("{{hosts: [{many}], {PORTS}}}"), &[&format!("spec.hosts: 33 are given: {list}")]);
    check(
        "shop/x",
        &format!(
            "{{hosts: ['*', '*.*.example', a.svc, db.default.svc.cluster.local, x.localhost, 1.2.3, A.example], {PORTS}}}"
        ),
        &[
            "spec.hosts[0]: \"*\" is not a host: lower-case letters, digits, '-' and '.', at most 253, with *. before it for all names below",
            "spec.hosts[1]: \"*.*.example\" is not a host: lower-case letters, digits, '-' and '.', at most 253, with *. before it for all names below",
            "spec.hosts[2]: \"a.svc\" is not outside the mesh: nothing under svc is",
            "spec.hosts[3]: \"db.default.svc.cluster.local\" is not outside the mesh: nothing under svc.cluster.local is",
            "spec.hosts[4]: \"x.localhost\" is not outside the mesh: nothing under localhost is",
            "spec.hosts[5]: \"1.2.3\" is not a host: lower-case letters, digits, '-' and '.', at most 253, with *. before it for all names below",
            "spec.hosts[6]: \"A.example\" is not a host: lower-case letters, digits, '-' and '.', at most 253, with *. before it for all names below",
        ],
    );
    check(
        "shop/x",
        &format!("{{{hosts}, ports: [], endpoints: [{{address: 10.0.0.1}}], tls: {{mode: Originate}}}}"),
        &[
            "spec.ports: 0 are given: 1 to 16 are expected",
            "spec.endpoints: resolution DNS looks the host up that was asked for: `endpoints` are for Static",
            "spec.tls.mode: TLS is begun under http and grpc, and no port has one: what flows to a port of tls is carried as it is, and so is that of tcp without `underTcp: true`",
            "spec.tls.caBundle: is expected: certificates in PEM, or `systemRoots: true` for those of each proxy's machine",
        ],
    );
    check(
        "shop/x",
        &format!("{{{hosts}, {PORTS}, resolution: Static}}"),
        &["spec.endpoints: 0 are given: 1 to 16 are expected"],
    );
}

#[test]
fn what_is_wrong_with_tls_is_told_at_once() {
    let tls = |tls: &str| format!("{{hosts: [api.example.com], {PORTS}, tls: {{mode: Originate, {tls}}}}}");
    check("shop/x", &tls("systemRoots: true, sni: front.example"), &[]);
    check(
        "shop/x",
        &tls("systemRoots: true, sni: '*.example', caBundle: PEM"),
        &[
            "spec.tls.sni: \"*.example\" is not a host: lower-case letters, digits, '-' and '.', at most 253",
            "spec.tls.systemRoots: is given beside caBundle: one of them is believed",
        ],
    );
    check(
        "shop/x",
        &tls("systemRoots: true, minVersion: oldest, clientCertificate: /etc/key.pem"),
        &[
            "spec.tls.minVersion: \"oldest\" is not one of 1.2, 1.3",
            "spec.tls.clientCertificate: \"/etc/key.pem\" is not a name: lower-case letters, digits and '-', at most 63",
        ],
    );
    check("shop/x", &tls("systemRoots: true, underTcp: true"), &["spec.tls.underTcp: no port is of tcp"]);
    let bytes =
        "{hosts: [db.example.com], ports: [{port: 5432, protocol: tcp}], tls: {mode: Originate, systemRoots: true";
    check("shop/x", &format!("{bytes}, underTcp: true, minVersion: '1.2', clientCertificate: bank}}}}"), &[]);
    let bundle = |text: &str, expect: &str| {
        let expect = format!("spec.tls.caBundle: {expect}");
        check("shop/x", &tls(&format!("caBundle: \"{text}\"")), &[&expect]);
    };
    bundle("PEM", "holds no certificate: PEM is expected, -----BEGIN CERTIFICATE-----");
    bundle("-----BEGIN CERTIFICATE-----\\nAAAA\\n", "certificate 0 has no end");
    bundle("-----BEGIN CERTIFICATE-----\\n*\\n-----END CERTIFICATE-----", "certificate 0 is not base64");
    bundle(
        "-----BEGIN PRIVATE KEY-----",
        "holds a private key, which nobody else may have: certificates in PEM are expected",
    );
}

#[test]
fn a_proxy_is_told_of_its_namespaces_own_and_of_the_meshs() {
    let world = shop_and(
        &[
            external(
                "shop/api",
                &format!("{{hosts: [api.example], {PORTS}, tls: {{mode: Originate, systemRoots: true}}}}"),
            ),
            external("partner/theirs", &format!("{{hosts: [theirs.example], {PORTS}}}")),
            external("weft-system/wide", &format!("{{hosts: [wide.example], {PORTS}, visibility: Mesh}}")),
            external("weft-system/roots", &format!("{{hosts: [roots.example], {PORTS}}}")),
        ]
        .join("---\n"),
    );
    assert_eq!(told(&world, "shop/web-1"), ["shop/api", "weft-system/wide"]);
    assert_eq!(told(&world, "partner/api-1"), ["partner/theirs", "weft-system/wide"]);
    let externals = bundle(&world, &["shop/web-1"]).externals;
    let api = &externals[&name("shop/api")];
    assert_eq!(api.ports, [ExternalPort { port: 80, target_port: 443, protocol: ExternalProtocol::Http }]);
    assert!(!api.mesh_wide && externals[&name("weft-system/wide")].mesh_wide);
    assert!(api.tls.as_ref().is_some_and(|tls| tls.roots_pem.is_none()));
    // One that holds only what it uses holds the same, and is told when one of them changes.
    let shared = Shared::new(Arc::new(world.clone()), "ROOTS".into(), |object| object);
    let (served, none, nothing) = ([name("shop/web-1")], BTreeSet::new(), BTreeSet::new());
    let held = shared.of_scope(&served, &none);
    let held = held.iter().filter(|object| matches!(***object, Object::External(_))).count();
    assert_eq!(held, 2);
    for (own, expect) in [("shop/api", true), ("partner/theirs", false), ("weft-system/roots", true)] {
        let mut changed = world.clone();
        let own = name(own);
        changed.remove(&ObjectKey::new(Kind::ExternalService, &own.namespace, &own.name)).unwrap();
        let next = shared.next(Arc::new(changed), "ROOTS");
        _ = next.of_scope(&served, &none);
        assert_eq!(next.concerns(&shared, &served, &nothing, &none), expect, "{own}");
    }
}

#[test]
fn of_two_that_claim_a_host_the_younger_is_told() {
    let world = shop_and(
        &[
            external("shop/z", &format!("{{hosts: [a.example, b.example], {PORTS}}}")),
            external("shop/a", &format!("{{hosts: [c.example, b.example], {PORTS}}}")),
            external("shop/other-port", "{hosts: [b.example], ports: [{port: 81, protocol: tcp}]}"),
            external("partner/b", &format!("{{hosts: [b.example], {PORTS}}}")),
        ]
        .join("---\n"),
    );
    let check = |own: &str, expect: Option<(&str, &str)>| {
        let own = name(own);
        let key = ObjectKey::new(Kind::ExternalService, &own.namespace, &own.name);
        let Some(Resource::ExternalService(object)) = world.get(&key).map(|entry| &entry.resource) else {
            panic!("{key}")
        };
        let status = external_status(&world, object).remove(0);
        let got = (!status.status).then_some((status.key.as_str(), status.message.as_str()));
        assert_eq!(got, expect, "{own}");
        assert_eq!(status.reason, if expect.is_some() { "Conflicted" } else { "Accepted" });
    };
    check("shop/z", None);
    let why = "for b.example the older ExternalService shop/z holds at the ports that both have";
    check("shop/a", Some(("spec.hosts[1]", why)));
    check("shop/other-port", None);
    check("partner/b", None);
}

/// A route of `shop` with these parents and backends, in their own words.
fn leading(kind: &str, own: &str, parents: &str, backends: &str) -> String {
    let (namespace, name) = own.split_once('/').unwrap();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: \
         {{parentRefs: [{parents}], rules: [{{backendRefs: [{backends}]}}]}}\n"
    )
}

const TO_WEB: &str = "{name: web, port: 80, weight: 9}";

fn outside(name: &str) -> String {
    format!("{{group: weft.dev, kind: ExternalService, name: {name}}}")
}

fn outside_at(name: &str, port: u16) -> String {
    format!("{{group: weft.dev, kind: ExternalService, name: {name}, port: {port}}}")
}

/// Reasons of a route's conditions, `False` ones with their message.
fn status(world: &World, kind: Kind, own: &str) -> Vec<String> {
    let own = name(own);
    let route = world.route(&ObjectKey::new(kind, &own.namespace, &own.name)).unwrap();
    let told = route_status(world, route).into_iter().flat_map(|parent| parent.conditions);
    let words = told.map(|it| if it.status { it.reason.to_owned() } else { format!("{}: {}", it.reason, it.message) });
    words.collect()
}

#[test]
fn routes_attach_outside_and_lead_there() {
    let api = external(
        "shop/api",
        "{hosts: [api.example], ports: [{name: web, port: 80, protocol: http}, {port: 81, protocol: tcp}]}",
    );
    let check = |kind: Kind, parents: &str, backends: &str, expect: &[&str]| {
        let text = [api.clone(), leading(kind.as_str(), "shop/r", parents, backends)].join("---\n");
        assert_eq!(status(&shop_and(&text), kind, "shop/r"), expect, "{parents} {backends}");
    };
    let http = Kind::HttpRoute;
    let good = ["Accepted", "ResolvedRefs"];
    check(http, &outside("api"), TO_WEB, &good);
    check(http, &outside_at("api", 80), &format!("{TO_WEB}, {}", outside_at("api", 80)), &good);
    check(Kind::GrpcRoute, &outside("api"), TO_WEB, &good);
    check(http, "{group: '', kind: Service, name: web}", &outside_at("api", 80), &good);
    let refused = |message: &str| format!("NoMatchingParent: {message}");
    let gone = refused("ExternalService shop/gone does not exist");
    check(http, &outside("gone"), TO_WEB, &[&gone, "ResolvedRefs"]);
    check(
        http,
        &outside_at("api", 82),
        TO_WEB,
        &[&refused("ExternalService shop/api has no such port"), "ResolvedRefs"],
    );
    let bytes = refused("no port of ExternalService shop/api that it names carries requests");
    check(http, &outside_at("api", 81), TO_WEB, &[&bytes, "ResolvedRefs"]);
    let parent = outside("api");
    let lost = |backend: &str, expect: &str| check(http, &parent, backend, &["Accepted", expect]);
    lost(&outside_at("gone", 80), "BackendNotFound: ExternalService shop/gone does not exist");
    lost(&outside_at("api", 82), "BackendNotFound: ExternalService shop/api has no port 82");
    let declared = "UnsupportedProtocol: port 81 of ExternalService shop/api is declared tcp: no request is sent to it";
    lost(&outside_at("api", 81), declared);
    // Connections are led there, too, by what their route sees of them.
    let nothing = "{group: '', kind: Service, name: nothing}";
    let bytes = |kind: Kind, port: u16, expect: &str| {
        let declared = format!("UnsupportedProtocol: port {port} of ExternalService shop/api is declared {expect}");
        let expect = if expect.is_empty() { "ResolvedRefs" } else { declared.as_str() };
        check(kind, nothing, &outside_at("api", port), &["Accepted", expect]);
    };
    bytes(Kind::TcpRoute, 81, "");
    bytes(Kind::TlsRoute, 81, "");
    bytes(Kind::TcpRoute, 80, "http: a TCPRoute leads to a port of tcp");
    bytes(Kind::TlsRoute, 80, "http: a TLSRoute leads to a port of tls or tcp");
}

/// Who is led to an ExternalService by a route of another namespace holds it, without seeing its hosts; whoever sees
/// none of its hosts is told no route of it.
#[test]
fn proxies_hold_what_their_routes_lead_to() {
    let api = external("shop/api", &format!("{{hosts: [api.example], {PORTS}}}"));
    let service = "{group: '', kind: Service, name: web}";
    let text = [
        api,
        leading("HTTPRoute", "shop/out", &outside("api"), "{name: web-v2, port: 80}"),
        leading("HTTPRoute", "shop/old", service, &format!("{TO_WEB}, {}", outside_at("api", 80))),
    ];
    let world = shop_and(&text.join("---\n"));
    let held = |served: &str| {
        let bundle = bundle(&world, &[served]);
        let routes: Vec<String> = bundle.routes.keys().map(ToString::to_string).collect();
        (routes, bundle.externals.contains_key(&name("shop/api")))
    };
    assert_eq!(held("shop/web-1"), (vec!["shop/old".to_owned(), "shop/out".to_owned()], true));
    assert_eq!(held("partner/api-1"), (vec!["shop/old".to_owned()], true));
    let routes = bundle(&world, &["shop/web-1"]).routes;
    let (out, old) = (&routes[&name("shop/out")], &routes[&name("shop/old")]);
    assert!(out.outside && !out.rules[0].backends[0].outside);
    assert_eq!(old.rules[0].backends.iter().map(|it| it.outside).collect::<Vec<_>>(), [false, true]);
    // One that holds only what it uses holds where what goes outside is led, and nothing for the others.
    let (served, none) = ([name("shop/web-1")], BTreeSet::new());
    assert_eq!(scope_of(&world, &served, &none), [name("shop/web"), name("shop/web-v2")].into());
    let shared = Shared::new(Arc::new(world.clone()), "ROOTS".into(), |object| object);
    for served in [name("shop/web-1"), name("partner/api-1")].map(|name| [name]) {
        let asked = BTreeSet::new();
        let scope = shared.scope(&served, &asked);
        assert_eq!(scope, scope_of(&world, &served, &asked));
        let wanted = scoped_bundle_for(&world, &served, &asked, Revision(1), "ROOTS").objects();
        let got = shared.of_scope(&served, &scope).into_iter().map(|object| (object.key(), Object::clone(&object)));
        assert_eq!(got.collect::<std::collections::BTreeMap<_, _>>(), wanted);
        let all = shared.of_proxy(&served).into_iter().map(|object| (object.key(), Object::clone(&object)));
        let wanted = bundle_for(&world, &served, Revision(1), "ROOTS").objects();
        assert_eq!(all.collect::<std::collections::BTreeMap<_, _>>(), wanted);
    }
    // Everybody who is led there is told when it changes.
    let mut changed = world.clone();
    changed.remove(&ObjectKey::new(Kind::ExternalService, "shop", "api")).unwrap();
    let next = shared.next(Arc::new(changed.clone()), "ROOTS");
    for served in [name("shop/web-1"), name("partner/api-1")].map(|name| [name]) {
        let (asked, scope) = (BTreeSet::new(), [name("shop/web")].into());
        _ = next.of_scope(&served, &scope);
        assert!(next.concerns(&shared, &served, &asked, &scope), "{served:?}");
        let all = next.of_proxy(&served).into_iter().map(|object| (object.key(), Object::clone(&object)));
        let wanted = bundle_for(&changed, &served, Revision(1), "ROOTS").objects();
        assert_eq!(all.collect::<std::collections::BTreeMap<_, _>>(), wanted);
    }
}

#[test]
fn a_grant_permits_an_external_service_by_its_own_kind() {
    let theirs = external("partner/api", &format!("{{hosts: [api.example], {PORTS}}}"));
    let wide = external("weft-system/wide", &format!("{{hosts: [wide.example], {PORTS}, visibility: Mesh}}"));
    let backend = |namespace: &str, name: &str| {
        format!("{{group: weft.dev, kind: ExternalService, name: {name}, namespace: {namespace}, port: 80}}")
    };
    let parent = "{group: '', kind: Service, name: web}";
    let route = leading("HTTPRoute", "shop/r", parent, &backend("partner", "api"));
    let told = |more: &[&str]| {
        let text: Vec<&str> = [theirs.as_str(), &wide, &route].into_iter().chain(more.iter().copied()).collect();
        status(&shop_and(&text.join("---\n")), Kind::HttpRoute, "shop/r").remove(1)
    };
    let refused = told(&[]);
    assert!(refused.starts_with("RefNotPermitted: ExternalService partner/api is in another namespace"), "{refused}");
    let (_, manifest) = refused.split_once("this one would: ").unwrap();
    assert_eq!(told(&[&format!("{manifest}\n")]), "ResolvedRefs", "{manifest}");
    let of_services = manifest.replace("group: weft.dev, kind: ExternalService", "group: '', kind: Service");
    assert_ne!(told(&[&format!("{of_services}\n")]), "ResolvedRefs", "{of_services}");
    // What is for the whole mesh is everybody's.
    let route = leading("HTTPRoute", "shop/r", parent, &backend("weft-system", "wide"));
    assert_eq!(status(&shop_and(&[wide.clone(), route].join("---\n")), Kind::HttpRoute, "shop/r")[1], "ResolvedRefs");
}

#[test]
fn policies_set_what_can_be_set_outside() {
    let api = external("shop/api", &format!("{{hosts: [api.example], {PORTS}}}"));
    let policy = |name: &str, target: &str, spec: &str| {
        format!(
            "apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{targetRefs: \
             [{{{target}}}], {spec}}}\n"
        )
    };
    let own =
        policy("own", "kind: ExternalService, name: api", "retry: {codes: [503]}, loadBalancing: {algorithm: Random}");
    let all = policy("all", "kind: Namespace, name: shop", "timeouts: {request: 5s}, outlierDetection: {}");
    let world = shop_and(&[api, own, all].join("---\n"));
    let traffic = bundle(&world, &["shop/web-1"]).externals[&name("shop/api")].traffic.clone().unwrap();
    assert_eq!((traffic.request_timeout_ms, traffic.policy.clone()), (Some(5_000), name("shop/own")));
    assert_eq!(traffic.retry.as_ref().map(|retry| retry.codes.clone()), Some(vec![503]));
    assert!(traffic.outliers.is_none() && traffic.balancing == crate::bundle::Balancing::default(), "{traffic:?}");
    let told = |name: &str| {
        let policy = world.traffic_policy(&ObjectName::new("shop", name)).unwrap();
        let condition = traffic_status(&world, policy).remove(0);
        (condition.status, condition.message)
    };
    let idle = "for ExternalService shop/api loadBalancing has no effect: nothing is balanced outside";
    assert_eq!(told("own"), (false, idle.to_owned()));
    assert!(told("all").0);
}

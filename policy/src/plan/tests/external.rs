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

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let check = |own: &str, spec: &str, expect: &[&str]| {
        let mut told: Vec<_> = match manifest::parse("x", &external(own, spec)) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.iter().map(|error| format!("{}: {}", error.key, error.message)).collect(),
        };
        told.sort();
        let mut expect = expect.to_vec();
        expect.sort_unstable();
        assert_eq!(told, expect, "{spec}");
    };
    let hosts = "hosts: [api.example.com]";
    check("shop/x", &format!("{{{hosts}, {PORTS}}}"), &[]);
    check("weft-system/x", &format!("{{{hosts}, {PORTS}, visibility: Mesh}}"), &[]);
    check("shop/x", &format!("{{hosts: ['*.example', '*.internal'], {PORTS}}}"), &[]);
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
            "spec.tls.mode: TLS is begun under http and grpc, and no port has one: what flows to a port of tls or tcp is carried as it is",
            "spec.tls.caBundle: is expected: certificates in PEM, or `systemRoots: true` for those of each proxy's machine",
        ],
    );
    check(
        "shop/x",
        &format!("{{{hosts}, {PORTS}, resolution: Static}}"),
        &["spec.endpoints: 0 are given: 1 to 16 are expected"],
    );
    let tls = |tls: &str| format!("{{{hosts}, {PORTS}, tls: {{mode: Originate, {tls}}}}}");
    check("shop/x", &tls("systemRoots: true, sni: front.example"), &[]);
    check(
        "shop/x",
        &tls("systemRoots: true, sni: '*.example', caBundle: PEM"),
        &[
            "spec.tls.sni: \"*.example\" is not a host: lower-case letters, digits, '-' and '.', at most 253",
            "spec.tls.systemRoots: is given beside caBundle: one of them is believed",
        ],
    );
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

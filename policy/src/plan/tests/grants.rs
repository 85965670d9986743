//! References into other namespaces: refused without a ReferenceGrant there, and again once it is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::delta::Object;
use crate::scope::Ask;

const LEDGER: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: ledger, namespace: partner}\n\
    spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n";

/// A grant of this namespace.
fn grant(namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: {namespace}}}\n\
         spec: {spec}\n"
    )
}

/// A route of `shop` to `ledger`, of a kind, with something in its rule.
fn to_ledger(kind: &str, rule: &str) -> String {
    let spec = format!("{{parentRefs: [{{group: '', kind: Service, name: web}}], rules: [{{{rule}}}]}}");
    route("shop/r", &spec).replace("kind: HTTPRoute", &format!("kind: {kind}"))
}

const BACKEND: &str = "backendRefs: [{namespace: partner, name: ledger, port: 80}]";
const MIRROR: &str = "backendRefs: [{name: web, port: 80}], filters: [{type: RequestMirror, requestMirror: {backendRef: \
                      {namespace: partner, name: ledger, port: 80}}}]";
const FROM: &str = "group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop";

/// Whether the route's references resolve, the reason, and the message.
fn resolved(world: &World) -> (bool, &'static str, String) {
    let (route, _) = world.routes().next().unwrap();
    let status = route_status(world, route).remove(0);
    let condition = status.conditions.into_iter().find(|known| known.kind == "ResolvedRefs").unwrap();
    (condition.status, condition.reason, condition.message)
}

#[test]
fn a_grant_permits_what_it_names_and_nothing_else() {
    let check = |kind: &str, rule: &str, grant: &str, expect: bool| {
        let world = shop_and(&[LEDGER, grant, &to_ledger(kind, rule)].join("---\n"));
        let (status, reason, message) = resolved(&world);
        assert_eq!(
            (status, reason),
            (expect, if expect { "ResolvedRefs" } else { "RefNotPermitted" }),
            "{grant}: {message}"
        );
        let told = lint::check(&world, Scope::Whole).iter().any(|finding| finding.code == Code::BackendForeign);
        assert_eq!(told, !expect, "{grant}");
        let bundle = bundle(&world, &["shop/web-1"]);
        let rule = &bundle.routes.values().next().unwrap().rules[0];
        let mirrored = rule.actions.iter().find_map(|action| {
            let RouteAction::Mirror(mirror) = action else { return None };
            Some(mirror.service.clone())
        });
        let named = mirrored.unwrap_or_else(|| rule.backends[0].service.clone());
        assert_eq!(named, expect.then(|| name("partner/ledger")), "{grant}");
    };
    let spec = |from: &str, to: &str| grant("partner", &format!("{{from: [{{{from}}}], to: [{{{to}}}]}}"));
    let service = "group: '', kind: Service";
    for rule in [BACKEND, MIRROR] {
        check("HTTPRoute", rule, &spec(FROM, service), true);
        check("HTTPRoute", rule, &spec(FROM, "group: '', kind: Service, name: ledger"), true);
        check("HTTPRoute", rule, &spec(FROM, "group: '', kind: Service, name: other"), false);
        check("HTTPRoute", rule, &spec(FROM, "group: '', kind: Secret"), false);
        check(
            "HTTPRoute",
            rule,
            &spec("group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: bank", service),
            false,
        );
        check("HTTPRoute", rule, &spec("group: '', kind: HTTPRoute, namespace: shop", service), false);
        // The grant is the target's word: one beside the route says nothing.
        let beside = grant("shop", &format!("{{from: [{{{FROM}}}], to: [{{{service}}}]}}"));
        check("HTTPRoute", rule, &beside, false);
        check("GRPCRoute", rule, &spec(FROM, service), false);
        check("GRPCRoute", rule, &spec(&FROM.replace("HTTPRoute", "GRPCRoute"), service), true);
        let two = format!(
            "{{from: [{{group: a.b, kind: Other, namespace: x}}, {{{FROM}}}], to: [{{group: '', kind: Secret}}, {{{service}}}]}}"
        );
        check("HTTPRoute", rule, &grant("partner", &two), true);
    }
}

/// A producer's route leads callers of all namespaces, whoever else is its parent.
#[test]
fn a_route_that_leads_everybodys_callers_needs_the_grant() {
    let check = |parents: &str, expect: &str| {
        let spec = format!("{{parentRefs: [{parents}], rules: [{{{BACKEND}}}]}}");
        let world = shop_and(&[LEDGER, &route("shop/r", &spec)].join("---\n"));
        assert_eq!(resolved(&world).1, expect, "{parents}");
        let bundle = bundle(&world, &["shop/web-1"]);
        let mut backends = bundle.routes.values().map(|route| &route.rules[0].backends[0].service);
        assert!(backends.all(|service| service.is_some() == (expect == "ResolvedRefs")), "{parents}");
    };
    let own = "{group: '', kind: Service, name: web}";
    let theirs = "{group: '', kind: Service, name: ledger, namespace: partner}";
    check(theirs, "ResolvedRefs");
    check(&format!("{theirs}, {own}"), "RefNotPermitted");
    check(&format!("{own}, {theirs}"), "RefNotPermitted");
}

#[test]
fn who_lacks_a_grant_is_told_the_one_that_would_do() {
    let without = [LEDGER, &to_ledger("HTTPRoute", BACKEND)].join("---\n");
    let (status, _, message) = resolved(&shop_and(&without));
    assert!(!status);
    let (_, manifest) = message.split_once("this one would: ").unwrap();
    let with = format!("{without}---\n{manifest}\n");
    assert_eq!(resolved(&shop_and(&with)).1, "ResolvedRefs", "{manifest}");
    // Nothing is said of what is there before it is permitted.
    let nothing = to_ledger("HTTPRoute", BACKEND);
    assert_eq!(resolved(&shop_and(&nothing)).2, message);
}

#[test]
fn a_grant_that_comes_or_goes_is_told_to_those_whose_routes_it_concerns() {
    let text = [
        LEDGER,
        &to_ledger("HTTPRoute", BACKEND),
        &grant("partner", &format!("{{from: [{{{FROM}}}], to: [{{group: '', kind: Service}}]}}")),
    ];
    let with = shop_and(&text.join("---\n"));
    let mut without = with.clone();
    without.remove(&ObjectKey::new(Kind::ReferenceGrant, "partner", "g"));
    let served = [name("shop/web-1")];
    let told = |shared: &Shared<Object>| {
        let objects = shared.of_proxy(&served).into_iter();
        objects.map(|object| (object.key(), Object::clone(&object))).collect::<BTreeMap<_, _>>()
    };
    let first = Shared::new(Arc::new(with.clone()), "ROOTS".into(), |object| object);
    let wanted = |world: &World| bundle(world, &["shop/web-1"]).objects();
    assert_eq!(told(&first), wanted(&with));
    let asked = BTreeSet::from([Ask::Service(name("shop/web"))]);
    drop(first.of_scope(&served, &first.scope(&served, &asked)));
    let second = first.next(Arc::new(without.clone()), "ROOTS");
    assert_eq!(told(&second), wanted(&without));
    assert_ne!(wanted(&with), wanted(&without));
    // One that has what the route's service means holds its backends, too, while they are permitted.
    let held = |shared: &Shared<Object>| shared.scope(&served, &asked).contains(&name("partner/ledger"));
    assert_eq!((held(&first), held(&second)), (true, false));
    assert!(second.concerns(&first, &served, &asked, &first.scope(&served, &asked)));
}

#[test]
fn a_grant_that_cant_be_read_permits_nothing() {
    let with = shop_and(&[LEDGER, &to_ledger("HTTPRoute", BACKEND)].join("---\n"));
    let mut unread = with.clone();
    unread.note_unreadable(ObjectKey::new(Kind::ReferenceGrant, "partner", "g"));
    assert_eq!(resolved(&unread).1, "RefNotPermitted");
}

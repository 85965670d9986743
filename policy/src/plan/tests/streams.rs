//! TLSRoutes and TCPRoutes in worlds and bundles, beside each other and beside routes of requests.

use super::*;
use crate::bundle::RouteKind;
use crate::resource::AnyRoute;
use crate::wire::{TCP_ROUTE, TLS_ROUTE, encode};

/// A service of one port for each way of declaring one, and what its routes lead to.
const DB: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: shop}\n\
    spec: {selector: {app: db}, ports: [{name: bytes, port: 5432, appProtocol: tcp}, {name: any, port: 90}, {name: web, port: 80, \
    appProtocol: http}]}\n---\n\
    apiVersion: v1\nkind: Service\nmetadata: {name: ledger, namespace: partner}\nspec: {selector: {app: web}, ports: [{port: 90}]}\n";

fn of_kind(kind: &str, named: &str, parent: &str, rest: &str) -> String {
    let spec = format!("{{parentRefs: [{{group: '', kind: Service, {parent}}}], {rest}}}");
    route(named, &spec).replace("kind: HTTPRoute", &format!("kind: {kind}"))
}

fn tcp(named: &str, parent: &str) -> String {
    of_kind("TCPRoute", named, parent, TO_DB)
}

const TO_DB: &str = "rules: [{backendRefs: [{name: db, namespace: shop, port: 5432}]}]";

/// A condition of the first route of a kind, towards its first parent.
fn condition(world: &World, of: RouteKind, kind: &str) -> String {
    let route = world.routes().map(|(route, _)| route).find(|route| route.kind == of).unwrap();
    let conditions = route_status(world, route).remove(0).conditions;
    let found = conditions.into_iter().find(|known| known.kind == kind).unwrap();
    format!("{} {}: {}", found.status, found.reason, found.message)
}

#[test]
fn where_a_route_of_bytes_is_accepted() {
    let check = |texts: &[&str], kind: RouteKind, expect: &str, codes: &[Code]| {
        let world = shop_and(&[&[DB][..], texts].concat().join("---\n"));
        assert_eq!(condition(&world, kind, "Accepted"), expect, "{texts:?}");
        let route = world.routes().map(|(route, _)| route).find(|route| route.kind == kind).unwrap().key();
        let told = lint::check(&world, Scope::Whole).into_iter().filter(|finding| finding.object == route);
        let told = told.filter(|it| matches!(it.code, Code::RouteOffBytes | Code::OtherKind | Code::RouteOffHttp));
        assert_eq!(told.map(|finding| finding.code).collect::<Vec<_>>(), codes, "{texts:?}");
    };
    let attached = "true Accepted: attached to Service shop/db";
    let off = "port 80 of Service shop/db carries requests: a TCPRoute holds where bytes are carried";
    check(&[&tcp("shop/t", "name: db, port: 5432")], RouteKind::Tcp, attached, &[]);
    check(&[&tcp("shop/t", "name: db, sectionName: any")], RouteKind::Tcp, attached, &[]);
    let (none, some) = (format!("false NoMatchingParent: {off}"), format!("{attached}; {off}"));
    check(&[&tcp("shop/t", "name: db, port: 80")], RouteKind::Tcp, &none, &[Code::RouteOffBytes]);
    check(&[&tcp("shop/t", "name: db")], RouteKind::Tcp, &some, &[Code::RouteOffBytes]);
    let missing = "false NoMatchingParent: Service shop/db has no port 81";
    check(&[&tcp("shop/t", "name: db, port: 81")], RouteKind::Tcp, missing, &[]);
    // GEP-1294, Route types: GRPCRoute, HTTPRoute, TLSRoute, TCPRoute.
    let other =
        |kind: &str, parent: &str| of_kind(kind, "shop/o", parent, "rules: [{backendRefs: [{name: db, port: 80}]}]");
    let mixed = "routes of two kinds are not mixed";
    let by = |kind: &str, port: &str| format!("{kind} shop/o is asked in its place at port {port}: {mixed}");
    for kind in ["GRPCRoute", "HTTPRoute", "TLSRoute"] {
        let conflicted = format!("false Conflicted: {}", by(kind, "90"));
        let both = [other(kind, "name: db, port: 90"), tcp("shop/t", "name: db, port: 90")];
        check(&[&both[0], &both[1]], RouteKind::Tcp, &conflicted, &[Code::OtherKind]);
        check(&[&both[0], &tcp("shop/t", "name: db, port: 5432")], RouteKind::Tcp, attached, &[]);
    }
    // A route of requests that names every port does not hold at one of bytes, and displaces nothing there.
    check(&[&other("HTTPRoute", "name: db"), &tcp("shop/t", "name: db, port: 5432")], RouteKind::Tcp, attached, &[]);
    let all = format!("{some}; {}", by("HTTPRoute", "90"));
    check(
        &[&other("HTTPRoute", "name: db"), &tcp("shop/t", "name: db")],
        RouteKind::Tcp,
        &all,
        &[Code::OtherKind, Code::RouteOffBytes],
    );
    let both = format!("{attached}; {}", by("TLSRoute", "5432"));
    let one = [other("TLSRoute", "name: db, port: 5432"), tcp("shop/t", "name: db")];
    check(&[&one[0], &one[1]], RouteKind::Tcp, &both.replace(attached, &some), &[Code::OtherKind, Code::RouteOffBytes]);
    // A producer's route of requests keeps a consumer's bytes out, too.
    let theirs = tcp("partner/t", "name: db, namespace: shop, port: 90");
    let kept_out = format!("false Conflicted: {}", by("HTTPRoute", "90"));
    check(&[&other("HTTPRoute", "name: db, port: 90"), &theirs], RouteKind::Tcp, &kept_out, &[Code::OtherKind]);
    check(&[&other("HTTPRoute", "name: db, port: 80"), &theirs], RouteKind::Tcp, attached, &[]);
    // Of two of one kind the younger one is attached all the same.
    let two =
        shop_and(&[DB, &tcp("shop/s", "name: db, port: 5432"), &tcp("shop/t", "name: db, port: 5432")].join("---\n"));
    let accepted: Vec<_> = two.routes().map(|(route, _)| route_status(&two, route)[0].conditions[0].status).collect();
    assert_eq!(accepted, [true, true]);
    // Routes of other callers are no concern.
    check(
        &[&other("TLSRoute", "name: db"), &tcp("partner/t", "name: db, namespace: shop, port: 90")],
        RouteKind::Tcp,
        attached,
        &[],
    );
}

#[test]
fn what_a_route_of_bytes_refers_to() {
    let check = |backend: &str, expect: &str| {
        let rest = format!("rules: [{{backendRefs: [{backend}]}}]");
        for (name, kind) in [("TCPRoute", RouteKind::Tcp), ("TLSRoute", RouteKind::Tls)] {
            let world = shop_and(&[DB, &of_kind(name, "shop/r", "name: db, port: 5432", &rest)].join("---\n"));
            let told = condition(&world, kind, "ResolvedRefs");
            assert!(told.starts_with(expect), "{backend}: {told}");
            let bundle = bundle(&world, &["shop/web-1"]);
            let route = bundle.routes.values().next().unwrap();
            let leads = route.rules[0].backends[0].service.is_some();
            assert_eq!((route.kind, leads), (kind, expect.starts_with("true")), "{backend}");
        }
    };
    check("{name: db, port: 5432}", "true ResolvedRefs");
    check("{name: db, port: 90}", "true ResolvedRefs");
    check("{name: db, port: 80}", "false UnsupportedProtocol: port 80 of Service shop/db is declared http");
    check("{name: gone, port: 80}", "false BackendNotFound: Service shop/gone does not exist");
    check("{name: db, port: 81}", "false BackendNotFound: Service shop/db has no port 81");
    check("{name: ledger, namespace: partner, port: 90}", "false RefNotPermitted: Service partner/ledger");
    check("{group: a.b, kind: Other, name: db, port: 90}", "false InvalidKind");
}

#[test]
fn a_grant_permits_the_kind_that_it_names() {
    let rest = "rules: [{backendRefs: [{name: ledger, namespace: partner, port: 90}]}]";
    let grant = |kind: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: partner}}\nspec: \
             {{from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: shop}}], to: [{{group: '', kind: Service}}]}}\n"
        )
    };
    for (own, kind) in [("TCPRoute", RouteKind::Tcp), ("TLSRoute", RouteKind::Tls)] {
        for granted in ["HTTPRoute", "TCPRoute", "TLSRoute"] {
            let route = of_kind(own, "shop/r", "name: db, port: 90", rest);
            let world = shop_and(&[DB, &grant(granted), &route].join("---\n"));
            let expect = if granted == own { "true ResolvedRefs" } else { "false RefNotPermitted" };
            assert!(condition(&world, kind, "ResolvedRefs").starts_with(expect), "{own} {granted}");
        }
    }
}

/// They are for bytes: nothing that is attached for them makes a port one of HTTP only.
#[test]
fn routes_of_bytes_reach_the_bundle_and_leave_ports_as_they_are() {
    let text = [
        of_kind("TLSRoute", "shop/r", "name: db", &format!("hostnames: [a.b, '*.c.d'], {TO_DB}")),
        of_kind("TCPRoute", "shop/r", "name: db", TO_DB),
    ];
    let world = shop_and(&[DB, &text[0], &text[1]].join("---\n"));
    let bundle = bundle(&world, &["shop/web-1"]);
    assert!(bundle.services[&name("shop/db")].ports.iter().all(|port| !port.opaque_refused));
    let told: Vec<_> = bundle
        .objects()
        .values()
        .filter_map(|object| {
            let crate::delta::Object::Route(route) = object else { return None };
            Some((object.key().to_string(), route.hostnames.join(" "), encode(object).requires))
        })
        .collect();
    let expect = [("TCPRoute shop/r", "", TCP_ROUTE), ("TLSRoute shop/r", "a.b *.c.d", TLS_ROUTE)];
    let expect = expect.map(|(key, names, requires)| (key.to_owned(), names.to_owned(), vec![requires.to_owned()]));
    assert_eq!(told, expect);
    // What can't be read may have kept connections from it.
    let mut unread = world.clone();
    unread.note_unreadable(ObjectKey::new(Kind::TlsRoute, "shop", "r"));
    let leads = |world: &World| {
        let backends = super::bundle(world, &["shop/web-1"]).routes.into_values().flat_map(|route| route.rules);
        backends.flat_map(|rule| rule.backends).filter(|backend| backend.service.is_some()).count()
    };
    assert_eq!((leads(&world), leads(&unread)), (2, 0));
}

#[test]
fn what_nothing_acts_on_is_told() {
    let check = |kind: &str, of: RouteKind, rest: &str, expect: &str| {
        let world = shop_and(&[DB, &of_kind(kind, "shop/r", "name: db, port: 5432", rest)].join("---\n"));
        let route = world.routes().map(|(route, _)| route).find(|route| route.kind == of).unwrap();
        let told: Vec<_> =
            AnyRoute::unserved(route).into_iter().map(|it| format!("{}: {}", it.key, it.message)).collect();
        assert_eq!(told.join("; "), expect, "{rest}");
    };
    check("TLSRoute", RouteKind::Tls, &format!("hostnames: [a.b], {TO_DB}"), "");
    let rule = "{backendRefs: [{name: db, port: 5432}]}";
    let further = "rules[1]: no connection meets it: the first rule takes all, since nothing tells connections apart";
    check("TCPRoute", RouteKind::Tcp, &format!("rules: [{rule}, {rule}]"), further);
}

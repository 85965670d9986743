//! GRPCRoutes in worlds and bundles, and HTTPRoutes beside them.

use super::*;
use crate::bundle::{PathMatch, RouteKind, RpcMatch};
use crate::resource::AnyRoute;
use crate::wire::{GRPC_ROUTE, encode};

/// A route of a kind that leads to `web`, with these parents and matches.
fn of_kind(kind: &str, name: &str, parents: &str, matches: &str) -> String {
    let text =
        route(name, &format!("{{parentRefs: {parents}, rules: [{{matches: {matches}, backendRefs: [{WEB}]}}]}}"));
    text.replace("kind: HTTPRoute", &format!("kind: {kind}"))
}

const WEB: &str = "{name: web, namespace: shop, port: 80}";

/// A service of two ports.
const RPC: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: rpc, namespace: shop}\n\
    spec: {selector: {app: web}, ports: [{name: grpc, port: 7070, targetPort: 8080}, {name: http, port: 80, targetPort: 8080}]}\n";

#[test]
fn routes_of_two_kinds_with_one_name_are_two() {
    let service = "{group: '', kind: Service, name: web}";
    let both = ["HTTPRoute", "GRPCRoute"].map(|kind| of_kind(kind, "shop/r", &format!("[{service}, {service}]"), "[]"));
    let world = shop_and(&both.join("---\n"));
    let bundle = bundle(&world, &["shop/web-1"]);
    let told: Vec<_> =
        bundle.routes.values().map(|route| (route.kind, Key::Route(route.name.clone()).to_string())).collect();
    let (http, grpc) = (RouteKind::Http, RouteKind::Grpc);
    let expect = [
        (http, "HTTPRoute shop/r"),
        (http, "HTTPRoute shop/r#1"),
        (grpc, "GRPCRoute shop/r"),
        (grpc, "GRPCRoute shop/r#1"),
    ];
    assert_eq!(told, expect.map(|(kind, text)| (kind, text.to_owned())));
    for object in bundle.objects().values() {
        let requires = encode(object).requires;
        let is_grpc = object.key().to_string().starts_with("GRPCRoute");
        assert_eq!(requires.contains(&GRPC_ROUTE.to_owned()), is_grpc, "{object:?}");
    }
}

#[test]
fn matches_of_calls_reach_the_bundle() {
    type Rpc<'r> = Option<(Option<&'r str>, Option<&'r str>, bool)>;
    let check = |matches: &str, expect: &[Rpc<'_>]| {
        let text = of_kind("GRPCRoute", "shop/r", "[{group: '', kind: Service, name: web}]", matches);
        let bundle = bundle(&shop_and(&text), &["shop/web-1"]);
        let matches = &bundle.routes.values().next().unwrap().rules[0].matches;
        let paths: Vec<_> = matches.iter().map(|matching| matching.path.clone()).collect();
        let rpc = |(service, method, regex): &(Option<&str>, Option<&str>, bool)| {
            let [service, method] = [service, method].map(|text| text.map(str::to_owned));
            PathMatch::Rpc(RpcMatch { service, method, regex: *regex })
        };
        assert_eq!(paths, expect.iter().map(|path| path.as_ref().map(rpc)).collect::<Vec<_>>(), "{matches:?}");
    };
    check("[]", &[]);
    check("[{headers: [{name: a, value: b}]}]", &[None]);
    check("[{method: {service: a.A}}]", &[Some((Some("a.A"), None, false))]);
    check("[{method: {method: M, service: ''}}, {}]", &[Some((None, Some("M"), false)), None]);
    let text = "[{method: {type: RegularExpression, service: 'a.*', method: 'M|N'}}]";
    check(text, &[Some((Some("a.*"), Some("M|N"), true))]);
}

/// GEP-1294, Route types: of several kinds at a port of a service one is applied.
#[test]
fn an_httproute_beside_a_grpcroute_is_told_where_it_is_not_asked() {
    let http =
        |parent: &str| of_kind("HTTPRoute", "shop/h", &format!("[{{group: '', kind: Service, {parent}}}]"), "[]");
    let grpc = |name: &str, parent: &str| {
        of_kind("GRPCRoute", name, &format!("[{{group: '', kind: Service, {parent}}}]"), "[]")
    };
    let check = |routes: [&str; 2], expect: &str| {
        let world = shop_and(&[RPC, routes[0], routes[1]].join("---\n"));
        let route = world.routes().map(|(route, _)| route).find(|route| route.kind == RouteKind::Http).unwrap();
        let accepted = &route_status(&world, route)[0].conditions[0];
        assert_eq!(accepted.kind, "Accepted");
        assert_eq!(format!("{} {}: {}", accepted.status, accepted.reason, accepted.message), expect, "{routes:?}");
        let told = lint::check(&world, Scope::Whole);
        let told: Vec<_> = told.iter().filter(|finding| finding.code == Code::OtherKind).collect();
        assert_eq!(told.len(), usize::from(expect.contains("in its place")), "{told:?}");
        assert!(told.iter().all(|finding| finding.object == route.key() && finding.key == "spec.parentRefs[0]"));
        // The other is accepted, whatever is beside it.
        let grpc = world.routes().map(|(route, _)| route).find(|route| route.kind == RouteKind::Grpc).unwrap();
        assert!(route_status(&world, grpc)[0].conditions[0].status);
    };
    let of_grpc = "GRPCRoute shop/g is asked in its place at port";
    let mixed = "routes of two kinds are not mixed";
    let all = grpc("shop/g", "name: rpc");
    let one = grpc("shop/g", "name: rpc, port: 7070");
    check([&http("name: rpc"), &all], &format!("false Conflicted: {of_grpc} 7070, 80: {mixed}"));
    check([&all, &http("name: rpc, port: 80")], &format!("false Conflicted: {of_grpc} 80: {mixed}"));
    check([&http("name: rpc, sectionName: grpc"), &one], &format!("false Conflicted: {of_grpc} 7070: {mixed}"));
    let partly = format!("true Accepted: attached to Service shop/rpc; {of_grpc} 7070: {mixed}");
    check([&http("name: rpc"), &one], &partly);
    check([&http("name: rpc, port: 80"), &one], "true Accepted: attached to Service shop/rpc");
    check([&http("name: web"), &all], "true Accepted: attached to Service shop/web");
    // Consumers' routes hold for their own callers.
    let consumers = grpc("partner/g", "name: rpc, namespace: shop");
    check([&http("name: rpc"), &consumers], "true Accepted: attached to Service shop/rpc");
    let own = http("name: rpc, namespace: shop").replace("namespace: shop}\nspec", "namespace: partner}\nspec");
    check([&own, &all], "true Accepted: attached to Service shop/rpc");
    let both = format!("false Conflicted: {} 7070, 80: {mixed}", of_grpc.replace("shop/g", "partner/g"));
    check([&own, &consumers], &both);
}

#[test]
fn a_grpcroute_that_cannot_be_done_or_read_leaves_nothing_open() {
    let parent = "[{group: '', kind: Service, name: web}]";
    let extended = of_kind("GRPCRoute", "shop/r", parent, "[], filters: [{type: ExtensionRef, extensionRef: {}}]");
    let world = shop_and(&extended);
    let key = ObjectKey::new(Kind::GrpcRoute, "shop", "r");
    let accepted = &route_status(&world, world.route(&key).unwrap())[0].conditions[0];
    assert_eq!((accepted.status, accepted.reason), (false, "UnsupportedValue"));
    assert!(accepted.message.contains("ExtensionRef is not supported yet"), "{}", accepted.message);
    let leads = |world: &World| {
        let backends = bundle(world, &["shop/web-1"]).routes.into_values().flat_map(|route| route.rules);
        backends.flat_map(|rule| rule.backends).filter(|backend| backend.service.is_some()).count()
    };
    assert_eq!(leads(&world), 0);
    // One that can't be read closes what is beside it.
    let mut world =
        shop_and(&["HTTPRoute", "GRPCRoute"].map(|kind| of_kind(kind, "shop/r", parent, "[]")).join("---\n"));
    assert_eq!(leads(&world), 2);
    world.note_unreadable(key);
    assert_eq!(leads(&world), 0);
}

#[test]
fn a_route_of_either_kind_is_one_of_the_services_routes() {
    let text = of_kind("GRPCRoute", "shop/r", "[{group: '', kind: Service, name: web}]", "[]");
    let world = shop_and(&text);
    let service = name("shop/web");
    let attached: Vec<_> = world.index().attached_to(&service).filter_map(AnyRoute::of).map(AnyRoute::key).collect();
    let leading: Vec<_> = world.index().leading_to(&service).map(AnyRoute::key).collect();
    assert_eq!((attached, leading.len()), (leading.clone(), 1));
    assert_eq!(leading[0].to_string(), "GRPCRoute shop/r");
}

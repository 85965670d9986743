//! GRPCRoutes: the rule that a call meets, by the standard's precedence, and that HTTPRoutes are not asked beside them.

use super::*;
use crate::bundle::RpcMatch;

/// A match of calls: of a service, of a method; a text that begins with `~` is a regular expression, and makes both so.
fn calling(service: &str, method: &str, headers: &[(&str, &str)]) -> RouteMatch {
    let regex = service.starts_with('~') || method.starts_with('~');
    let part = |text: &str| Some(text.trim_start_matches('~').to_owned()).filter(|text| !text.is_empty());
    let rpc = RpcMatch { service: part(service), method: part(method), regex };
    matching(Some(PathMatch::Rpc(rpc)), None, headers)
}

fn grpc(text: &str, created: u64, rules: Vec<RouteRule>) -> Route {
    let made = route(text, created, rules);
    Route { name: RouteKind::Grpc.at_parent(&made.name, 0), kind: RouteKind::Grpc, ..made }
}

fn of_web(routes: Vec<Route>) -> RouteTable {
    table(vec![service("shop/web", None, &[])], routes)
}

#[test]
fn precedence_of_calls() {
    let rules = vec![
        rule("any-add", vec![calling("", "Add", &[])]),
        rule("any-very-long", vec![calling("", "AddAVeryLongListOfThings", &[])]),
        rule("cart", vec![calling("shop.Cart", "", &[])]),
        rule("cart-add", vec![calling("shop.Cart", "Add", &[])]),
        rule("cart-add-two", vec![calling("shop.Cart", "Add", &[("a", "1"), ("b", "2")])]),
        rule("cart-add-one", vec![calling("shop.Cart", "Add", &[("a", "1")])]),
        rule("cart-add-again", vec![calling("shop.Cart", "Add", &[])]),
        rule("versions", vec![calling("~shop\\.v[0-9]+\\.Cart", "~(Add|Remove).*", &[])]),
        rule("either", vec![calling("a.A", "", &[]), matching(None, None, &[("version", "two")])]),
    ];
    let table = of_web(vec![grpc("shop/r", 1, rules)]);
    let check = |path: &str, headers: &[(&str, &str)], expect: &str| {
        assert_eq!(met(&table, "shop", 80, "POST", path, headers), expect, "{path} {headers:?}");
    };
    check("/shop.Cart/Add", &[], "cart-add");
    check("/shop.Cart/Add", &[("a", "1")], "cart-add-one");
    check("/shop.Cart/Add", &[("a", "1"), ("b", "2")], "cart-add-two");
    check("/shop.Cart/Remove", &[], "cart");
    check("/shop.Cart/AddAVeryLongListOfThings", &[], "cart");
    check("/other.Cart/AddAVeryLongListOfThings", &[], "any-very-long");
    check("/other.Cart/Add", &[], "any-add");
    check("/shop.v2.Cart/AddAll", &[], "versions");
    check("/shop.v2.Cart/Get", &[], "404");
    check("/shop.vx.Cart/AddAll", &[], "404");
    check("/a.A/Any", &[("version", "two")], "either");
    check("/b.B/Any", &[("version", "two")], "either");
    check("/b.B/Any", &[], "404");
    // Names are compared as they are.
    check("/shop.cart/Add", &[], "any-add");
    check("/shop.Cart.V2/Get", &[], "404");
    check("/shop.Cart/add", &[], "cart");
    // What is no path of a call meets no service and no method.
    for path in
        ["/shop.Cart", "/shop.Cart/", "/shop.Cart/Add/", "/shop.Cart/Add/More", "/x/shop.Cart/Add", "/", "//Add"]
    {
        check(path, &[], "404");
    }
    check("/shop.Cart", &[("version", "two")], "either");
}

#[test]
fn age_then_name_then_order_decide_between_equal_matches() {
    let one = |label: &str| vec![rule(label, vec![calling("a.A", "M", &[])])];
    let check = |routes: Vec<Route>, expect: &str| {
        assert_eq!(met(&of_web(routes), "shop", 80, "POST", "/a.A/M", &[]), expect);
    };
    check(vec![grpc("shop/a", 2, one("young")), grpc("shop/b", 1, one("old"))], "old");
    check(vec![grpc("shop/b", 1, one("b")), grpc("shop/a", 1, one("a"))], "a");
    check(vec![grpc("shop/a", 1, [one("first"), one("second")].concat())], "first");
    let text = vec![rule("text", vec![calling("a.A", "M", &[])])];
    let expression = vec![rule("expression", vec![calling("~a.A", "~M", &[])])];
    check(vec![grpc("shop/a", 2, text), grpc("shop/b", 1, expression)], "expression");
}

/// Whatever HTTPRoutes say, and however old they are.
#[test]
fn of_two_kinds_at_one_port_grpcroutes_alone_are_asked() {
    let only = vec![rule("grpc", vec![calling("a.A", "", &[])])];
    let grpc_of = |port| Route { parent_port: port, ..grpc("shop/r", 9, only.clone()) };
    let http =
        route("shop/r", 1, vec![rule("http", vec![]), rule("exact", vec![matching(exact("/a.A/M"), None, &[])])]);
    let of_other = |route: Route| Route { consumer_namespace: Some("other".to_owned()), ..route };
    let check = |routes: &[&Route], from: &str, port: u16, path: &str, expect: &str| {
        let table = of_web(routes.iter().map(|route| (*route).clone()).collect());
        assert_eq!(met(&table, from, port, "POST", path, &[]), expect, "{from} {port} {path}");
    };
    let everywhere = grpc_of(None);
    check(&[&http, &everywhere], "shop", 80, "/a.A/M", "grpc");
    check(&[&http, &everywhere], "shop", 80, "/b.B/M", "404");
    let at_81 = grpc_of(Some(81));
    check(&[&http, &at_81], "shop", 80, "/a.A/M", "exact");
    check(&[&http, &at_81], "shop", 81, "/a.A/M", "grpc");
    check(&[&http, &at_81], "shop", 81, "/b.B/M", "404");
    // A consumer's routes of either kind come instead of all of the producer's.
    let consumers_http =
        of_other(route("other/h", 9, vec![rule("own-http", vec![matching(exact("/own"), None, &[])])]));
    let consumers_grpc = of_other(grpc("other/g", 9, vec![rule("own-grpc", vec![calling("b.B", "", &[])])]));
    check(&[&everywhere, &consumers_http], "other", 80, "/own", "own-http");
    check(&[&everywhere, &consumers_http], "other", 80, "/a.A/M", "404");
    check(&[&everywhere, &consumers_http], "shop", 80, "/a.A/M", "grpc");
    check(&[&http, &consumers_grpc], "other", 80, "/b.B/M", "own-grpc");
    check(&[&http, &consumers_grpc], "other", 80, "/a.A/M", "404");
    check(&[&consumers_http, &consumers_grpc], "other", 80, "/own", "404");
    check(&[&http, &consumers_grpc], "shop", 80, "/a.A/M", "exact");
}

/// A path that a server may read as another call is refused where that call would be treated otherwise.
#[test]
fn a_call_that_can_be_read_as_another_is_ambiguous_where_it_matters() {
    let timed =
        RouteRule { actions: vec![RouteAction::RequestTimeoutMs(7)], ..rule("slow", vec![calling("a.A", "M", &[])]) };
    let table = of_web(vec![grpc("shop/r", 1, vec![timed, rule("any", vec![])])]);
    let check = |path: &str, expect: &str| assert_eq!(met(&table, "shop", 80, "POST", path, &[]), expect, "{path}");
    check("/a.A/M", "slow");
    check("/a%2EA/M", "slow");
    check("/a.A%2FM", "400");
    check("/a.A//M", "400");
    check("/a.A/N", "any");
}

/// The best of all matches that hold, by the numbers that the standard compares.
fn model(routes: &[Route], service: &str, method: &str, headers: &[(&str, &str)]) -> String {
    let mut best = None;
    for route in routes {
        for (index, rule) in route.rules.iter().enumerate() {
            for matching in &rule.matches {
                let Some(PathMatch::Rpc(rpc)) = &matching.path else { panic!("{matching:?}") };
                let is = |part: &Option<String>, text: &str| part.as_ref().is_none_or(|part| part == text);
                let has = |it: &FieldMatch| headers.contains(&(it.name.as_str(), it.value.as_str()));
                if !is(&rpc.service, service) || !is(&rpc.method, method) || !matching.headers.iter().all(has) {
                    continue;
                }
                let length = |part: &Option<String>| part.as_ref().map_or(0, String::len);
                let rank = (length(&rpc.service), length(&rpc.method), matching.headers.len());
                let order = (std::cmp::Reverse(rank), route.created, route.name.clone(), index);
                if best.as_ref().is_none_or(|(known, _)| order < *known) {
                    best = Some((order, rule.name.clone().unwrap()));
                }
            }
        }
    }
    best.map_or_else(|| "404".to_owned(), |(_, label)| label)
}

#[test]
fn agrees_with_the_model() {
    let mut state = 5_u64;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((state >> 33) % bound as u64).unwrap()
    };
    const SERVICES: [&str; 4] = ["a.A", "a.AA", "b", ""];
    const METHODS: [&str; 4] = ["M", "Mm", "Other", ""];
    const HEADERS: [&[(&str, &str)]; 3] = [&[], &[("x", "1")], &[("x", "1"), ("y", "2")]];
    let mut found = 0;
    for round in 0..1000 {
        let mut routes = Vec::new();
        for number in 0..1 + below(3) {
            let mut rules = Vec::new();
            for index in 0..1 + below(4) {
                let matches =
                    (0..1 + below(2)).map(|_| calling(SERVICES[below(4)], METHODS[below(4)], HEADERS[below(3)]));
                rules.push(rule(&format!("{number}-{index}"), matches.collect()));
            }
            routes.push(grpc(&format!("shop/r{number}"), u64::try_from(below(2)).unwrap(), rules));
        }
        let table = of_web(routes.clone());
        for _ in 0..10 {
            let (service, method, headers) = (SERVICES[below(3)], METHODS[below(3)], HEADERS[below(3)]);
            let expect = model(&routes, service, method, headers);
            found += usize::from(expect != "404");
            let got = met(&table, "shop", 80, "POST", &format!("/{service}/{method}"), headers);
            assert_eq!(got, expect, "round {round}: {service}/{method} {headers:?} {routes:#?}");
        }
    }
    assert!(found > 3_000, "many calls find a rule: {found}");
}

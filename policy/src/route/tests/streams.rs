//! TLSRoutes and TCPRoutes: the route that a connection meets, by the standard's precedence, against a naive model.

use super::*;
use crate::bundle::RouteName;

/// A route of bytes that leads to a service of `shop` for each number, by that weight.
fn stream(kind: RouteKind, text: &str, created: u64, hostnames: &[&str], weights: &[(&str, u32)]) -> Route {
    let backend = |(service, weight): &(&str, u32)| Backend {
        service: Some(*service).filter(|service| *service != "gone").map(|service| ObjectName::new("shop", service)),
        outside: false,
        port: 80,
        weight: *weight,
        actions: Vec::new(),
    };
    let backends = weights.iter().map(backend).collect();
    let made = route(text, created, vec![RouteRule { name: None, matches: vec![], actions: vec![], backends }]);
    let hostnames = hostnames.iter().map(|name| (*name).to_owned()).collect();
    Route { name: kind.at_parent(&made.name, 0), kind, hostnames, ..made }
}

fn tls(text: &str, created: u64, hostnames: &[&str]) -> Route {
    stream(RouteKind::Tls, text, created, hostnames, &[("web", 1)])
}

fn tcp(text: &str, created: u64) -> Route {
    stream(RouteKind::Tcp, text, created, &[], &[("web", 1)])
}

fn of_web(routes: Vec<Route>) -> RouteTable {
    table(vec![service("shop/web", None, &[]), service("shop/other", None, &[])], routes)
}

/// The route that a connection to a port of `web` meets, `default`, or why it goes nowhere.
fn led(table: &RouteTable, from: &str, port: u16, hello: Hello<'_>) -> String {
    let to = table.by_host("web.shop", port, from).unwrap();
    match choose_stream(table, &to, from, hello) {
        Ok(Choice::Direct(_)) => "default".to_owned(),
        Ok(Choice::Rule(met)) => RouteName::of(&met.route.name).to_string(),
        Err(refusal) => refusal.to_string(),
    }
}

#[test]
fn the_name_that_says_most_decides() {
    let named = [
        tls("shop/exact", 9, &["db.example.com", "b.example.com"]),
        tls("shop/younger", 2, &["*.example.com", "b.example.com"]),
        tls("shop/older", 1, &["*.example.com"]),
        tls("shop/deep", 9, &["*.a.example.com"]),
    ];
    let check = |routes: &[Route], hello: Hello<'_>, expect: &str| {
        let expect = if expect.contains(' ') { expect.to_owned() } else { format!("TLSRoute shop/{expect}") };
        assert_eq!(led(&of_web(routes.to_vec()), "shop", 80, hello), expect, "{hello:?}");
    };
    let nobody = |what: &str| format!("no TLSRoute of shop/web is for {what}");
    let asked = |name| Hello::Tls(Some(name));
    check(&named, asked("db.example.com"), "exact");
    check(&named, asked("b.example.com"), "younger");
    check(&named, asked("x.example.com"), "older");
    check(&named, asked("y.x.example.com"), "older");
    check(&named, asked("a.example.com"), "older");
    check(&named, asked("x.a.example.com"), "deep");
    check(&named, asked("y.x.a.example.com"), "deep");
    check(&named, asked("example.com"), &nobody("the server name example.com"));
    check(&named, asked("notexample.com"), &nobody("the server name notexample.com"));
    check(&named, asked(".example.com"), &nobody("the server name .example.com"));
    check(&named, Hello::Tls(None), &nobody("a ClientHello without a server name"));
    check(&named, Hello::Other, &nobody("what begins with no ClientHello"));
    // One without names is for every ClientHello that no other is for, and for nothing else.
    let any = [&named[..], &[tls("shop/any", 1, &[])]].concat();
    check(&any, asked("db.example.com"), "exact");
    check(&any, asked("x.example.com"), "older");
    check(&any, asked("example.com"), "any");
    check(&any, Hello::Tls(None), "any");
    check(&any, Hello::Other, &nobody("what begins with no ClientHello"));
}

/// GEP-1294, Route types: of the kinds at a port one is asked; and a consumer's routes come instead of the producer's.
#[test]
fn of_two_kinds_one_is_asked() {
    let of_other = |route: Route| Route { consumer_namespace: Some("other".to_owned()), ..route };
    let at = |port: u16, route: Route| Route { parent_port: Some(port), ..route };
    let check = |routes: &[Route], from: &str, hello: Hello<'_>, expect: &str| {
        assert_eq!(led(&of_web(routes.to_vec()), from, 80, hello), expect, "{from} {hello:?}");
    };
    let name = Hello::Tls(Some("a.b"));
    check(&[], "shop", name, "default");
    check(&[tcp("shop/b", 2), tcp("shop/a", 2), tcp("shop/old", 1)], "shop", Hello::Other, "TCPRoute shop/old");
    check(&[tcp("shop/b", 2), tcp("shop/a", 2)], "shop", name, "TCPRoute shop/a");
    let both = [tcp("shop/t", 1), tls("shop/t", 2, &["a.b"])];
    check(&both, "shop", name, "TLSRoute shop/t");
    check(&both, "shop", Hello::Other, "no TLSRoute of shop/web is for what begins with no ClientHello");
    let consumers = [of_other(tcp("other/t", 9)), tls("shop/t", 1, &["a.b"])];
    check(&consumers, "other", name, "TCPRoute other/t");
    check(&consumers, "shop", name, "TLSRoute shop/t");
    check(&[at(81, tcp("shop/t", 1))], "shop", name, "default");
    check(&[at(80, tcp("shop/t", 1)), at(81, tls("shop/t", 1, &[]))], "shop", name, "TCPRoute shop/t");
    // Routes of requests say nothing of bytes, and the other way round.
    let http = route("shop/h", 1, vec![rule("all", vec![])]);
    check(std::slice::from_ref(&http), "shop", name, "default");
    let mixed = of_web(vec![http, tcp("shop/t", 1)]);
    assert_eq!(met(&mixed, "shop", 80, "GET", "/", &[]), "all");
    assert_eq!(met(&of_web(vec![tcp("shop/t", 1)]), "shop", 80, "GET", "/", &[]), "default");
    let to = mixed.by_host("web.shop", 80, "shop").unwrap();
    assert_eq!(stream_kind(&mixed, &to, "shop"), Some(RouteKind::Tcp));
    assert_eq!(stream_kind(&mixed, &Resolved { endpoint: Some(&to.service.name), ..to }, "shop"), None);
    let leads = |route: Route, from: &str| {
        let table = of_web(vec![route]);
        table.leads_requests(&table.by_host("web.shop", 80, from).unwrap(), from)
    };
    let http = || route("shop/h", 1, vec![rule("all", vec![])]);
    assert!(leads(http(), "shop") && leads(at(80, http()), "shop") && leads(of_other(http()), "other"));
    assert!(!leads(at(81, http()), "shop") && !leads(of_other(http()), "shop") && !leads(tcp("shop/t", 1), "shop"));
}

#[test]
fn each_backend_gets_its_share_and_one_that_does_not_resolve_keeps_its_own() {
    let check = |weights: &[(&str, u32)], expect: &[(&str, u32)]| {
        let table = of_web(vec![stream(RouteKind::Tcp, "shop/t", 1, &[], weights)]);
        let to = table.by_host("web.shop", 80, "shop").unwrap();
        let mut got = BTreeMap::<String, u32>::new();
        for throw in 0..1_000_u64 {
            // A little above each thousandth.
            let dice = throw * (u64::MAX / 1_000) + 1_000;
            let plan = plan_stream(&table, &to, "shop", Hello::Other, dice);
            let place = match &plan {
                Ok(plan) => plan.service.name.name.clone(),
                Err(refusal) => format!("{} {}", refusal.status(), refusal.route().unwrap().name),
            };
            *got.entry(place).or_default() += 1;
        }
        let expect = expect.iter().map(|(place, count)| ((*place).to_owned(), *count)).collect();
        assert_eq!(got, expect, "{weights:?}");
    };
    check(&[("web", 1)], &[("web", 1_000)]);
    check(&[("web", 3), ("other", 1)], &[("web", 750), ("other", 250)]);
    check(&[("web", 1), ("gone", 1)], &[("web", 500), ("500 t#tcp", 500)]);
    check(&[("web", 0), ("other", 1)], &[("other", 1_000)]);
    check(&[("web", 0)], &[("500 t#tcp", 1_000)]);
    check(&[("gone", 1)], &[("500 t#tcp", 1_000)]);
}

/// Names of a small alphabet, so that many meet.
fn names(random: &mut impl FnMut(usize) -> usize, wildcards: bool) -> String {
    let labels: Vec<&str> = (0..=random(3)).map(|_| ["a", "b"][random(2)]).collect();
    let star = if wildcards && random(2) == 0 { "*." } else { "" };
    format!("{star}{}", labels.join("."))
}

#[test]
fn a_model_of_names_agrees() {
    for seed in 1..=1_000_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % below
        };
        let routes: Vec<Route> = (0..=random(5))
            .map(|number| {
                let hostnames: Vec<String> = (0..random(4)).map(|_| names(&mut random, true)).collect();
                let hostnames: Vec<&str> = hostnames.iter().map(String::as_str).collect();
                tls(&format!("shop/r{number}"), u64::try_from(random(3)).unwrap(), &hostnames)
            })
            .collect();
        let asked = (random(6) > 0).then(|| names(&mut random, false));
        // How much a route says of the name that is asked for.
        let says = |route: &Route| -> Option<usize> {
            let each = route.hostnames.iter().filter_map(|name| match name.strip_prefix("*.") {
                Some(parent) => asked.as_ref()?.strip_suffix(&format!(".{parent}")).map(|_| parent.len()),
                None => (asked.as_ref() == Some(name)).then_some(1_000),
            });
            each.max().or_else(|| route.hostnames.is_empty().then_some(0))
        };
        let met = routes.iter().filter_map(|route| Some((says(route)?, route)));
        let best = met.min_by_key(|(says, route)| (std::cmp::Reverse(*says), route.created, route.name.clone()));
        let expect = best.map(|(_, route)| RouteName::of(&route.name).to_string());
        let got = led(&of_web(routes.clone()), "shop", 80, Hello::Tls(asked.as_deref()));
        let got = Some(got).filter(|got| !got.starts_with("no "));
        assert_eq!(got, expect, "seed {seed}: {asked:?} of {routes:?}");
    }
}

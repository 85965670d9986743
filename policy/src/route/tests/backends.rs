//! What backends answer themselves, each for its share of the requests, and the host that a match names.

use super::*;
use crate::bundle::{Cors, Redirect};

fn redirecting(host: &str) -> RouteAction {
    RouteAction::Redirect(Redirect { status: 301, scheme: None, host: Some(host.to_owned()), port: None, path: None })
}

fn sharing(origin: &str) -> RouteAction {
    RouteAction::Cors(Cors {
        origins: vec![origin.parse().unwrap()],
        credentials: false,
        methods: Vec::new(),
        headers: Vec::new(),
        expose: Vec::new(),
        max_age_s: 5,
    })
}

fn backend(service: Option<&str>, actions: Vec<RouteAction>) -> Backend {
    Backend { service: service.map(name), outside: false, port: 80, weight: 1, actions }
}

/// What becomes of a request that each of two backends would get.
fn by_each(of_rule: Vec<RouteAction>, backends: [Backend; 2], method: &str, headers: &[(&str, &str)]) -> [String; 2] {
    let whole = RouteRule { actions: of_rule, backends: backends.into(), ..rule("whole", vec![]) };
    let table = table(vec![service("shop/web", None, &[])], vec![route("shop/r", 1, vec![whole])]);
    let to = table.by_host("web", 80, "shop").unwrap();
    let (lookup, at) = (|name: &str| headers.iter().find(|header| header.0 == name).map(|header| header.1), path("/a"));
    let head = HeadView { method, path: &at, host: Some("web"), headers: &lookup, others: &[] };
    [0, u64::MAX].map(|dice| match plan(&table, &to, "shop", &head, dice, &mesh(Egress::Allow)) {
        Ok(plan) => plan.service.name.to_string(),
        Err(RouteRefusal::Redirect { status, location, .. }) => format!("{status} {location}"),
        Err(RouteRefusal::Preflight { preflight, .. }) => format!("shared {}", preflight.allowed.is_some()),
        Err(other) => other.status().to_string(),
    })
}

#[test]
fn a_backend_redirects_its_share() {
    let plain = || backend(Some("shop/web"), vec![]);
    let moved = |service| backend(service, vec![redirecting("else.example")]);
    let get = |backends| by_each(vec![], backends, "GET", &[]);
    assert_eq!(get([plain(), moved(Some("shop/web"))]), ["shop/web", "301 http://else.example/a"]);
    // What does not resolve is no backend that could answer.
    assert_eq!(get([plain(), moved(None)]), ["shop/web", "500"]);
}

#[test]
fn a_backend_shares_in_the_place_of_its_rule() {
    let asks = [("origin", "https://b.example"), ("access-control-request-method", "PUT")];
    let of = |of_rule: Vec<RouteAction>, own: Vec<RouteAction>| {
        by_each(of_rule, [backend(Some("shop/web"), vec![]), backend(Some("shop/web"), own)], "OPTIONS", &asks)
    };
    let (a, b) = (|| sharing("https://a.example"), || sharing("https://b.example"));
    assert_eq!(of(vec![], vec![b()]), ["shop/web", "shared true"]);
    assert_eq!(of(vec![a()], vec![b()]), ["shared false", "shared true"]);
    assert_eq!(of(vec![b()], vec![a()]), ["shared true", "shared false"]);
}

#[test]
fn a_match_names_the_host_that_is_asked_for() {
    let table = table(
        vec![service("shop/web", None, &[])],
        vec![route(
            "shop/r",
            1,
            vec![
                rule("own", vec![matching(prefix("/"), None, &[("host", "web.shop")])]),
                rule("any", vec![matching(prefix("/"), None, &[("host", "~.*\\.test")])]),
            ],
        )],
    );
    let to = table.by_host("web", 80, "shop").unwrap();
    let check = |host: Option<&str>, expect: &str| {
        // What a field of that name says is nobody's word.
        let head = HeadView { method: "GET", path: &path("/"), host, headers: &|_| Some("web.shop"), others: &[] };
        let met = match choose(&table, &to, "shop", &head) {
            Ok(Choice::Rule(met)) => met.rule.name.clone().unwrap(),
            Ok(Choice::Direct(_)) => "default".to_owned(),
            Err(refusal) => refusal.status().to_string(),
        };
        assert_eq!(met, expect, "{host:?}");
    };
    check(Some("web.shop"), "own");
    check(Some("Web.Shop."), "own");
    check(Some("a.b.test"), "any");
    check(Some("web.other"), "404");
    check(None, "404");
}

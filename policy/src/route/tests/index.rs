//! The index of a service's routes finds what asking each of them in turn finds, and is kept while they stay the same.

use super::*;
use crate::bundle::RpcMatch;
use crate::route::matching::Read;

/// A seeded source of numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % bound as u64).unwrap()
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Of few elements, so that many begin alike; some have an escaped slash, or nothing between two.
    fn path(&mut self) -> String {
        const ELEMENTS: [&str; 8] = ["a", "b", "ab", "", "A", "a%2Fb", "%C3%A9", "a.A"];
        let elements = (0..self.below(4)).map(|_| format!("/{}", self.one(&ELEMENTS)));
        let path: String = elements.collect();
        if path.is_empty() { self.one(&["/", "*", "/x"]).to_owned() } else { path }
    }

    fn path_match(&mut self) -> Option<PathMatch> {
        let part = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        match self.below(8) {
            0 | 1 => Some(PathMatch::Exact(self.path())),
            2..=4 => Some(PathMatch::Prefix(self.path())),
            5 => regex(self.one(&["/a.*", "/(a|b)(/.*)?", ".*b", "/a"])),
            6 => {
                let regex = self.below(3) == 0;
                let (service, method) = (self.one(&["a.A", "a", "", "ab"]), self.one(&["a", "b", "", "A"]));
                Some(PathMatch::Rpc(RpcMatch { service: part(service), method: part(method), regex }))
            }
            _ => None,
        }
    }

    fn route(&mut self, number: usize) -> Route {
        const HEADERS: [&[(&str, &str)]; 4] = [&[], &[], &[("x", "1")], &[("x", "~1|2"), ("y", "2")]];
        let rule = |dice: &mut Self, index: usize| {
            let matches = (0..dice.below(4)).map(|_| {
                let query = dice.one(&[&[][..], &[], &[("q", "1")]]);
                let (path, method) = (dice.path_match(), dice.one(&[None, None, Some("POST")]));
                RouteMatch { query: asking(None, query).query, ..matching(path, method, dice.one(&HEADERS)) }
            });
            rule(&format!("{number}-{index}"), matches.collect())
        };
        let rules = (0..self.below(5)).map(|index| rule(self, index)).collect();
        let kind = self.one(&[RouteKind::Http, RouteKind::Http, RouteKind::Http, RouteKind::Grpc]);
        let consumer_namespace = self.one(&[None, None, None, Some("other")]).map(str::to_owned);
        Route {
            kind,
            parent_port: self.one(&[None, None, Some(80), Some(81)]),
            consumer_namespace,
            ..route(&format!("shop/r{number}"), self.below(3) as u64, rules)
        }
    }
}

/// The label of the rule that a decision names.
fn label(decision: &RouteDecision<'_>) -> String {
    match decision {
        RouteDecision::Default => "default".to_owned(),
        RouteDecision::NoMatch => "404".to_owned(),
        RouteDecision::Rule(met) => format!("{} of {}", met.rule.name.as_deref().unwrap_or_default(), met.route.name),
    }
}

#[test]
fn agrees_with_asking_each_in_turn() {
    let (mut found, mut refused) = (0, 0);
    for seed in 0..1_000 {
        let dice = &mut Dice(seed);
        let routes: Vec<Route> = (0..1 + dice.below(6)).map(|number| dice.route(number)).collect();
        let table = table(vec![service("shop/web", None, &[])], routes.clone());
        for _ in 0..30 {
            let (at, from, port) = (dice.path(), dice.one(&["shop", "other"]), dice.one(&[80, 81, 82]));
            let (method, query) = (dice.one(&["GET", "POST"]), dice.one(&["", "?q=1", "?q=2"]));
            let headers = dice.one(&[&[][..], &[("x", "1")], &[("x", "2"), ("y", "2")]]);
            let to = table.by_host("web.shop", port, from).unwrap();
            let (path, lookup) = (path(&format!("{at}{query}")), |name: &str| {
                headers.iter().find(|header| header.0 == name).map(|header| header.1)
            });
            let head = HeadView { method, path: &path, host: None, headers: &lookup, others: &[] };
            let standard = path.standard();
            let decoded = crate::path::decode(&standard);
            let read = Read { head: &head, path: &decoded, query: QueryReading::STANDARD };
            let routed = table.routed(&to);
            let in_turn = routed.map(|routed| routed.decide_in_turn(port, from, &read));
            let expect = label(&in_turn.unwrap_or(RouteDecision::Default));
            let decided = routed.map(|routed| routed.decide(port, from, &read));
            let got = label(&decided.unwrap_or(RouteDecision::Default));
            assert_eq!(got, expect, "seed {seed}: {method} {at}{query} {headers:?} {from} {port} {routes:#?}");
            found += usize::from(got.contains(" of "));
            refused += usize::from(got == "404");
        }
    }
    assert!(found > 9_000 && refused > 3_000, "{found} find a rule, {refused} none");
}

#[test]
fn what_did_not_change_is_not_compiled_again() {
    let bundle = |routes: &[&Route]| {
        let services = ["shop/web", "shop/api"].map(|it| (name(it), service(it, None, &[])));
        let routes = routes.iter().map(|route| (route.name.clone(), (*route).clone())).collect();
        Arc::new(Bundle { services: services.into(), routes, ..Bundle::default() })
    };
    let of_web = route("shop/w", 1, vec![rule("web", vec![matching(regex("/w.*"), None, &[])])]);
    let of_api = |label: &str| Route {
        parent: name("shop/api"),
        ..route("shop/a", 1, vec![rule(label, vec![matching(regex("/w.*"), None, &[])])])
    };
    let before = RouteTable::new(&bundle(&[&of_web, &of_api("old")]));
    let next = RouteTable::following(&bundle(&[&of_web, &of_api("new")]), Some(&before));
    let is_kept = |name: ObjectName| Arc::ptr_eq(&before.routed[0][&name], &next.routed[0][&name]);
    assert_eq!((is_kept(name("shop/web")), is_kept(name("shop/api"))), (true, false));
    assert_eq!(met(&next, "shop", 80, "GET", "/w1", &[]), "web");
    let to = next.by_host("api.shop", 80, "shop").unwrap();
    let head = HeadView { method: "GET", path: &path("/w1"), host: None, headers: &|_| None, others: &[] };
    let read = Read { head: &head, path: b"/w1", query: QueryReading::STANDARD };
    assert_eq!(label(&next.routed(&to).unwrap().decide(80, "shop", &read)), "new of shop/a");
    // One route less is another set of routes; none is none.
    let less = RouteTable::following(&bundle(&[&of_web]), Some(&next));
    assert_eq!(less.routed[0].keys().collect::<Vec<_>>(), [&name("shop/web")]);
    assert!(RouteTable::following(&bundle(&[]), Some(&less)).routed[0].is_empty());
}

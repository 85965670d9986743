//! Names, and GAMMA's precedence against a naive model with seeded random routes.

mod backends;
mod external;
mod grpc;
mod index;
mod scope;
mod settings;
mod spellings;
mod streams;

use super::*;
use crate::bundle::{
    AppVersion, Backend, Egress, Endpoint, FieldMatch, HeaderModifier, MeshSettings, PathMatch, Protocol, Revision,
    RouteAction, RouteKind, RouteMatch, ServicePort, Traffic,
};
use crate::path::PathReading;
use crate::scope::Ranges;

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

fn service(text: &str, vip: Option<&str>, endpoints: &[(&str, &str)]) -> Service {
    let endpoint = |(workload, address): &(&str, &str)| {
        let (workload, address): (ObjectName, IpAddr) = (name(workload), address.parse().unwrap());
        let mesh_address = SocketAddr::new(address, 15008);
        let endpoint = Endpoint {
            workload: workload.clone(),
            identity: None,
            address,
            addresses: vec![],
            mesh_address,
            weight: 1,
            labels: BTreeMap::new(),
        };
        (workload, endpoint)
    };
    let app_version = AppVersion::AsCaller;
    Service {
        name: name(text),
        ports: vec![ServicePort {
            name: None,
            port: 80,
            target_port: 8080,
            protocol: Protocol::Http,
            app_version,
            opaque_refused: false,
            other_targets: BTreeMap::new(),
        }],
        vip: vip.map(|vip| vip.parse().unwrap()),
        path_reading: PathReading::default(),
        traffic: None,
        spread: None,
        endpoints: endpoints.iter().map(endpoint).collect(),
    }
}

fn table(services: Vec<Service>, routes: Vec<Route>) -> RouteTable {
    let services = services.into_iter().map(|service| (service.name.clone(), service)).collect();
    let routes = routes.into_iter().map(|route| (route.name.clone(), route)).collect();
    RouteTable::new(&Arc::new(Bundle { services, routes, ..Bundle::default() }))
}

pub(super) fn mesh(egress: Egress) -> MeshSettings {
    MeshSettings {
        trust_domain: crate::identity::TrustDomain::default(),
        trust_bundle_pem: String::new(),
        access_log: false,
        request_timeout_ms: Some(7_000),
        connect_timeout_ms: 1_000,
        max_retries: 2,
        egress,
        namespaces: ["shop", "other", "empty"].map(str::to_owned).into(),
        ranges: None,
    }
}

/// What callers of `shop` address by a name or an address.
fn addressed<'t>(table: &'t RouteTable, host: &str, port: u16) -> Option<Resolved<'t>> {
    let mesh = mesh(Egress::Allow);
    let resolver = Resolver { table, mesh: &mesh, from_namespace: "shop", is_local: &|_| false };
    match resolver.resolve(Meant::Nothing, Some(Authority { host, port: Some(port) })) {
        Resolution::Mesh(resolved) => Some(resolved),
        Resolution::External(_) | Resolution::Outside | Resolution::Refused(_) | Resolution::Unknown(_) => None,
    }
}

#[test]
fn names_of_services() {
    let table = table(
        vec![
            service("shop/web", Some("10.0.0.1"), &[("shop/web-1", "127.0.0.11")]),
            service("shop/web-all", None, &[("shop/web-1", "127.0.0.11"), ("shop/web-2", "::1")]),
            service("other/web", None, &[]),
        ],
        vec![],
    );
    let check = |host: &str, port: u16, expect: Option<(&str, Option<&str>)>| {
        let got = addressed(&table, host, port);
        let got = got.map(|to| (to.service.name.to_string(), to.endpoint.map(ToString::to_string)));
        let expect = expect.map(|(service, endpoint)| (service.to_owned(), endpoint.map(str::to_owned)));
        assert_eq!(got, expect, "{host}:{port}");
    };
    check("web", 80, Some(("shop/web", None)));
    check("WEB", 80, Some(("shop/web", None)));
    check("web.", 80, Some(("shop/web", None)));
    check("web.other", 80, Some(("other/web", None)));
    check("web.shop.svc", 80, Some(("shop/web", None)));
    check("web.shop.svc.cluster.local", 80, Some(("shop/web", None)));
    check("Web.Shop.Mesh.Local.", 80, Some(("shop/web", None)));
    check("10.0.0.1", 443, Some(("shop/web", None)));
    check("::ffff:10.0.0.1", 80, Some(("shop/web", None)));
    check("127.0.0.11", 8080, Some(("shop/web", Some("shop/web-1"))));
    check("[::1]", 8080, Some(("shop/web-all", Some("shop/web-2"))));
    check("127.0.0.11", 9090, None);
    check("10.0.0.2", 80, None);
    check("web.shop.example.com", 80, None);
    check("web.shop.svc.cluster.local.example.com", 80, None);
    check("web..", 80, None);
    check("", 80, None);
    check(".", 80, None);
    check("nosuch", 80, None);
}

fn matching(path: Option<PathMatch>, method: Option<&str>, headers: &[(&str, &str)]) -> RouteMatch {
    let headers = headers.iter().map(|(name, value)| field(name, value)).collect();
    RouteMatch { path, method: method.map(str::to_owned), headers, query: Vec::new() }
}

/// A value that begins with `~` is a regular expression.
fn field(name: &str, value: &str) -> FieldMatch {
    let regex = value.strip_prefix('~');
    FieldMatch { name: name.to_owned(), value: regex.unwrap_or(value).to_owned(), regex: regex.is_some() }
}

fn asking(path: Option<PathMatch>, query: &[(&str, &str)]) -> RouteMatch {
    let query = query.iter().map(|(name, value)| field(name, value)).collect();
    RouteMatch { query, ..matching(path, None, &[]) }
}

fn regex(text: &str) -> Option<PathMatch> {
    Some(PathMatch::Regex(text.to_owned()))
}

fn exact(path: &str) -> Option<PathMatch> {
    Some(PathMatch::Exact(path.to_owned()))
}

fn prefix(path: &str) -> Option<PathMatch> {
    Some(PathMatch::Prefix(path.to_owned()))
}

fn rule(label: &str, matches: Vec<RouteMatch>) -> RouteRule {
    RouteRule { name: Some(label.to_owned()), matches, actions: vec![], backends: vec![] }
}

/// What a TrafficPolicy says that says nothing.
fn traffic(policy: &str) -> Traffic {
    Traffic {
        policy: name(policy),
        balancing: Default::default(),
        outliers: None,
        health_check: None,
        limits: None,
        request_timeout_ms: None,
        attempt_timeout_ms: None,
        stream_timeout_ms: None,
        retry: None,
        hedge: None,
    }
}

fn route(text: &str, created: u64, rules: Vec<RouteRule>) -> Route {
    Route {
        name: name(text),
        kind: RouteKind::Http,
        parent: name("shop/web"),
        outside: false,
        parent_port: None,
        consumer_namespace: None,
        hostnames: Vec::new(),
        created: Revision(created),
        rules,
    }
}

fn path(text: &str) -> NormalPath {
    NormalPath::new(text.to_owned().into()).unwrap()
}

/// The name of the rule that a request meets, `default`, or the status of the refusal.
fn met(table: &RouteTable, from: &str, port: u16, method: &str, at: &str, headers: &[(&str, &str)]) -> String {
    let to = table.by_host("web.shop", port, from).unwrap();
    let lookup = |name: &str| headers.iter().find(|header| header.0 == name).map(|header| header.1);
    match choose(table, &to, from, &HeadView { method, path: &path(at), host: None, headers: &lookup, others: &[] }) {
        Ok(Choice::Direct(_)) => "default".to_owned(),
        Ok(Choice::Rule(met)) => met.rule.name.clone().unwrap(),
        Err(refusal) => refusal.status().to_string(),
    }
}

#[test]
fn precedence_of_matches() {
    let rules = vec![
        rule("root", vec![matching(prefix("/"), None, &[])]),
        rule("v2", vec![matching(prefix("/v2"), None, &[]), matching(None, None, &[("version", "two")])]),
        rule("v2-post", vec![matching(prefix("/v2"), Some("POST"), &[])]),
        rule("v2-two", vec![matching(prefix("/v2"), None, &[("a", "1"), ("b", "2")])]),
        rule("v2-one", vec![matching(prefix("/v2"), None, &[("a", "1")])]),
        rule("exact", vec![matching(exact("/v2"), None, &[])]),
        rule("later", vec![matching(exact("/v2"), None, &[])]),
    ];
    let table = table(vec![service("shop/web", None, &[])], vec![route("shop/r", 1, rules)]);
    let check = |method: &str, path: &str, headers: &[(&str, &str)], expect: &str| {
        assert_eq!(met(&table, "shop", 80, method, path, headers), expect, "{method} {path} {headers:?}");
    };
    check("GET", "/", &[], "root");
    check("GET", "/foo/v2/example", &[], "root");
    check("GET", "/v2example", &[], "root");
    check("GET", "/v2/", &[], "v2");
    check("GET", "/v2/example", &[], "v2");
    check("GET", "/", &[("version", "two")], "v2");
    check("POST", "/v2/x", &[("a", "1"), ("b", "2")], "v2-post");
    check("GET", "/v2/x", &[("a", "1"), ("b", "2")], "v2-two");
    check("GET", "/v2/x", &[("a", "1")], "v2-one");
    check("POST", "/v2", &[("a", "1"), ("b", "2")], "exact");
}

#[test]
fn expressions_and_parameters() {
    let rules = vec![
        rule("versions", vec![matching(regex("/v[0-9]+(/.*)?"), None, &[])]),
        rule("v2", vec![matching(prefix("/v2"), None, &[]), matching(exact("/v3"), None, &[])]),
        rule("whale", vec![asking(None, &[("animal", "whale")])]),
        rule("blue-whale", vec![asking(None, &[("animal", "whale"), ("color", "~(?i)blue|azure")])]),
        rule("dolphin", vec![asking(None, &[("animal", "dolphin")]), asking(None, &[("ANIMAL", "Whale")])]),
        rule("canary", vec![matching(None, None, &[("x-version", "~[0-9]+-rc.*")])]),
        rule("by-path", vec![matching(exact("/path"), None, &[])]),
    ];
    let table = table(vec![service("shop/web", None, &[])], vec![route("shop/r", 1, rules)]);
    let check = |path: &str, headers: &[(&str, &str)], expect: &str| {
        assert_eq!(met(&table, "shop", 80, "GET", path, headers), expect, "{path} {headers:?}");
    };
    check("/v12", &[], "versions");
    check("/v2/x", &[], "versions");
    check("/v3", &[], "v2");
    check("/v2x", &[], "404");
    check("/?animal=whale", &[], "whale");
    check("/?other=1&animal=whale", &[], "whale");
    check("/?animal=whaledolphin", &[], "404");
    check("/?color=blue", &[], "404");
    check("/?animal=whale&color=BLUE", &[], "blue-whale");
    check("/?animal=whale&color=bluer", &[], "whale");
    check("/?animal=dolphin", &[], "dolphin");
    check("/?ANIMAL=Whale", &[], "dolphin");
    check("/path?animal=whale", &[], "by-path");
    check("/", &[("x-version", "7-rc1")], "canary");
    check("/", &[("x-version", "v7-rc1")], "404");
}

/// A rule that does something to requests is not passed by a query that its author did not think of.
#[test]
fn queries_that_are_read_differently_are_ambiguous_where_it_matters() {
    let timed = |label: &str, value: &str, ms| RouteRule {
        actions: vec![RouteAction::RequestTimeoutMs(ms)],
        ..rule(label, vec![asking(None, &[("tier", value)])])
    };
    let rules = |gold_ms| {
        let rules = vec![timed("gold", "gold plus", 7), timed("free", "free", gold_ms), timed("else", "~.*", 9)];
        table(vec![service("shop/web", None, &[])], vec![route("shop/r", 1, rules)])
    };
    let check = |table: &RouteTable, path: &str, expect: &str| {
        assert_eq!(met(table, "shop", 80, "GET", path, &[]), expect, "{path}");
    };
    let table = rules(8);
    check(&table, "/?tier=free", "free");
    check(&table, "/?tier=free&x=%20+", "free");
    check(&table, "/?tier=gold+plus", "400");
    check(&table, "/?tier=fre%65", "400");
    check(&table, "/?tier=free&tier=x", "400");
    check(&table, "/?tier=free&tier=free", "free");
    check(&table, "/?tier=free;tier=x", "400");
    // Rules that treat requests alike may be met by either.
    check(&rules(9), "/?tier=free&tier=x", "free");
}

#[test]
fn attached_and_matching_nothing_is_404() {
    let only = vec![rule("only", vec![matching(exact("/only"), None, &[])])];
    let with = table(vec![service("shop/web", None, &[])], vec![route("shop/r", 1, only)]);
    assert_eq!(met(&with, "shop", 80, "GET", "/", &[]), "404");
    let without = table(vec![service("shop/web", None, &[])], vec![]);
    assert_eq!(met(&without, "shop", 80, "GET", "/", &[]), "default");
}

#[test]
fn age_then_name_decide_between_routes() {
    let catch_all = |label: &str| vec![rule(label, vec![])];
    let check = |routes: Vec<Route>, expect: &str| {
        let table = table(vec![service("shop/web", None, &[])], routes);
        assert_eq!(met(&table, "shop", 80, "GET", "/", &[]), expect);
    };
    check(vec![route("shop/a", 2, catch_all("young")), route("shop/b", 1, catch_all("old"))], "old");
    check(vec![route("shop/b", 1, catch_all("b")), route("shop/a", 1, catch_all("a"))], "a");
}

#[test]
fn ports_and_consumers() {
    let catch_all = |label: &str| vec![rule(label, vec![])];
    let port = Route { parent_port: Some(80), ..route("shop/port", 1, catch_all("port")) };
    let producer = route("shop/producer", 2, catch_all("producer"));
    let only = vec![rule("consumer", vec![matching(exact("/own"), None, &[])])];
    let consumer = Route { consumer_namespace: Some("other".to_owned()), ..route("other/consumer", 3, only) };
    let check = |routes: &[&Route], from: &str, at: u16, path: &str, expect: &str| {
        let table = table(vec![service("shop/web", None, &[])], routes.iter().map(|route| (*route).clone()).collect());
        assert_eq!(met(&table, from, at, "GET", path, &[]), expect, "{from} {at} {path}");
    };
    check(&[&port], "shop", 80, "/", "port");
    check(&[&port], "shop", 8080, "/", "default");
    check(&[&producer, &consumer], "shop", 80, "/own", "producer");
    check(&[&producer, &consumer], "other", 80, "/own", "consumer");
    check(&[&producer, &consumer], "other", 80, "/", "404");
    check(&[&producer, &consumer], "third", 80, "/", "producer");
    check(&[&consumer], "third", 80, "/", "default");
}

#[test]
fn an_endpoint_addressed_directly_has_no_route() {
    let routes = vec![route("shop/r", 1, vec![rule("any", vec![])])];
    let table = table(vec![service("shop/web", None, &[("shop/web-1", "127.0.0.11")])], routes);
    let to = addressed(&table, "127.0.0.11", 8080).unwrap();
    let head = HeadView { method: "GET", path: &path("/"), host: None, headers: &|_| None, others: &[] };
    let plan = plan(&table, &to, "shop", &head, 0, &mesh(Egress::Allow)).unwrap();
    assert_eq!(
        (plan.route, plan.target.at(&name("shop/web-1")), plan.direct),
        (None, Some(8080), Some(&name("shop/web-1")))
    );
}

#[test]
fn backends_by_weight() {
    fn check(weights: &[u32], expect: &[Option<usize>]) {
        let backend = |(index, weight): (usize, &u32)| Backend {
            service: None,
            outside: false,
            port: u16::try_from(index).unwrap(),
            weight: *weight,
            actions: vec![],
        };
        let rule = RouteRule { backends: weights.iter().enumerate().map(backend).collect(), ..rule("r", vec![]) };
        let steps = u64::try_from(expect.len()).unwrap();
        let dice = |step: u64| u64::MAX / steps * step + u64::MAX / steps / 2;
        let got: Vec<_> = (0..steps).map(|step| pick_backend(&rule, dice(step))).collect();
        assert_eq!(got, expect, "{weights:?}");
    }
    check(&[], &[None]);
    check(&[0], &[None]);
    check(&[0, 0], &[None, None]);
    check(&[1], &[Some(0), Some(0)]);
    check(&[1, 1], &[Some(0), Some(1)]);
    check(&[3, 0, 1], &[Some(0), Some(0), Some(0), Some(2)]);
    check(&[u32::MAX, u32::MAX], &[Some(0), Some(1)]);
}

/// Among all matches that hold, the smallest by the standard's list, found by comparing each with each.
fn model(routes: &[Route], method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    type Rank = (u8, usize, u8, usize, usize);
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let rank = |m: &RouteMatch| -> Rank {
        let (kind, length) = match &m.path {
            Some(PathMatch::Exact(_)) => (2, 0),
            Some(PathMatch::Regex(text)) => (1, text.len()),
            Some(PathMatch::Prefix(p)) => (0, if p == "/" { 0 } else { p.len() }),
            Some(PathMatch::Rpc(_)) | None => (0, 0),
        };
        (kind, length, u8::from(m.method.is_some()), m.headers.len(), m.query.len())
    };
    let holds = |m: &RouteMatch| {
        let path = match &m.path {
            Some(PathMatch::Exact(p)) => p == path,
            // The only ones that are made: a text, then anything.
            Some(PathMatch::Regex(p)) => path.starts_with(p.trim_end_matches(".*")),
            Some(PathMatch::Prefix(p)) => p == "/" || path == p || path.starts_with(&format!("{p}/")),
            Some(PathMatch::Rpc(_)) | None => true,
        };
        path && m.method.as_deref().is_none_or(|m| m == method)
            && m.headers.iter().all(|h| headers.contains(&(h.name.as_str(), h.value.as_str())))
            && m.query.iter().all(|q| query.split('&').any(|part| part == format!("{}={}", q.name, q.value)))
    };
    let mut best: Option<(Rank, (Revision, ObjectName), String)> = None;
    for route in routes {
        for rule in &route.rules {
            let open = [RouteMatch::default()];
            let matches = if rule.matches.is_empty() { &open[..] } else { &rule.matches };
            for m in matches.iter().filter(|m| holds(m)) {
                let age = (route.created, route.name.clone());
                let better = best.as_ref().is_none_or(|(r, a, _)| rank(m) > *r || (rank(m) == *r && age < *a));
                if better {
                    best = Some((rank(m), age, rule.name.clone().unwrap()));
                }
            }
        }
    }
    best.map_or_else(|| "404".to_owned(), |(_, _, label)| label)
}

#[test]
fn agrees_with_the_model() {
    let mut state = 1_u64;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((state >> 33) % bound as u64).unwrap()
    };
    const PATHS: [&str; 6] = ["/", "/a", "/a/b", "/ab", "/b", "/a/b/c"];
    let mut found = 0;
    for round in 0..2000 {
        let mut routes = Vec::new();
        for number in 0..1 + below(3) {
            let mut rules = Vec::new();
            for index in 0..1 + below(4) {
                let matches = (0..below(3)).map(|_| {
                    let path = match below(4) {
                        0 => exact(PATHS[below(6)]),
                        1 => prefix(PATHS[below(6)]),
                        2 => regex(&format!("{}.*", PATHS[below(6)])),
                        _ => None,
                    };
                    let method = [None, Some("GET"), Some("POST")][below(3)];
                    let headers = [&[][..], &[("x", "1")], &[("x", "1"), ("y", "2")]][below(3)];
                    let query = [&[][..], &[("q", "1")], &[("q", "1"), ("r", "2")]][below(3)];
                    RouteMatch { query: asking(None, query).query, ..matching(path, method, headers) }
                });
                rules.push(rule(&format!("{number}-{index}"), matches.collect()));
            }
            routes.push(route(&format!("shop/r{number}"), u64::try_from(below(2)).unwrap(), rules));
        }
        let table = table(vec![service("shop/web", None, &[])], routes.clone());
        for _ in 0..20 {
            let (method, path) = (["GET", "POST"][below(2)], PATHS[below(6)]);
            let headers = [&[][..], &[("x", "1")], &[("x", "1"), ("y", "2")]][below(3)];
            let path = format!("{path}{}", ["", "?q=1", "?r=2&q=1"][below(3)]);
            let expect = model(&routes, method, &path, headers);
            found += usize::from(expect != "404");
            let got = met(&table, "shop", 80, method, &path, headers);
            assert_eq!(got, expect, "round {round}: {method} {path} {headers:?} {routes:#?}");
        }
    }
    assert!(found > 10_000, "most requests find a rule: {found}");
}

/// Destination of a request: `service`, `service@endpoint`, `outside`, or why it goes nowhere.
fn goes(table: &RouteTable, egress: Egress, meant: Meant<'_>, host: Option<&str>) -> String {
    resolved(table, &mesh(egress), meant, host)
}

fn resolved(table: &RouteTable, mesh: &MeshSettings, meant: Meant<'_>, host: Option<&str>) -> String {
    let is_local = |name: &str| name == "printer" || name == "db.internal";
    let resolver = Resolver { table, mesh, from_namespace: "shop", is_local: &is_local };
    let (host, port) = match host.and_then(|host| host.rsplit_once(':')) {
        Some((name, port)) if !name.ends_with(':') && port.parse::<u16>().is_ok() => (Some(name), port.parse().ok()),
        _ => (host, None),
    };
    match resolver.resolve(meant, host.map(|host| Authority { host, port })) {
        Resolution::Mesh(Resolved { service, port, endpoint: Some(endpoint), outside: _ }) => {
            format!("{}:{port}@{endpoint}", service.name)
        }
        Resolution::Mesh(Resolved { service, port, endpoint: None, outside: _ }) => format!("{}:{port}", service.name),
        Resolution::External(way) => format!("{}, {}", way.external.name, way.in_words()),
        Resolution::Outside => "outside".to_owned(),
        Resolution::Unknown(ask) => format!("unknown {ask}"),
        Resolution::Refused(EgressRefusal::NoAuthority) => "no authority".to_owned(),
        Resolution::Refused(EgressRefusal::NoSuchService) => "no such service".to_owned(),
        Resolution::Refused(EgressRefusal::RegistryOnly) => "registry only".to_owned(),
        Resolution::Refused(EgressRefusal::OtherHost) => "other host".to_owned(),
    }
}

fn shop() -> RouteTable {
    let mut all = service("shop/web-all", None, &[("shop/web-1", "127.0.0.11"), ("shop/web-2", "10.1.0.2")]);
    let second = all.endpoints.get_mut(&name("shop/web-2")).unwrap();
    second.addresses = vec!["fd00::2".parse().unwrap(), "::ffff:10.2.0.2".parse().unwrap()];
    table(
        vec![
            service("shop/web", Some("10.0.0.1"), &[("shop/web-1", "127.0.0.11")]),
            all,
            service("other/web", None, &[]),
        ],
        vec![],
    )
}

#[test]
fn names_that_only_the_mesh_could_mean_never_leave_it() {
    let table = shop();
    let check = |host: &str, expect: &str| {
        assert_eq!(goes(&table, Egress::Allow, Meant::Nothing, Some(host)), expect, "{host}");
        let only = if expect == "outside" { "registry only" } else { expect };
        assert_eq!(goes(&table, Egress::RegistryOnly, Meant::Nothing, Some(host)), only, "{host}, registry only");
        if let Some((host, port)) = host.rsplit_once(':') {
            let meant = Meant::Name { host, port: port.parse().unwrap() };
            assert_eq!(goes(&table, Egress::Allow, meant, None), expect, "CONNECT {host}");
        }
    };
    check("web", "shop/web:80");
    check("web:8080", "shop/web:8080");
    check("WEB.other.:80", "other/web:80");
    check("webb:80", "no such service");
    check("webb.:80", "no such service");
    check("2130706433:80", "no such service");
    check("webb.shop:80", "no such service");
    check("web.empty:80", "no such service");
    check("WEB.Empty.:80", "no such service");
    check("web.nowhere.svc:80", "no such service");
    check("web.nowhere.svc.cluster.local:80", "no such service");
    check("web-0.web.shop.svc:80", "no such service");
    check("a.b.nowhere.SVC.:80", "no such service");
    check("a.svc:80", "outside");
    check("web-0.web.shop.svc.cluster.local:80", "no such service");
    check("SVC.cluster.local:80", "no such service");
    check("x.mesh.local.:80", "no such service");
    check("a.b.c.mesh.local:80", "no such service");
    check("notmesh.local:80", "outside");
    check("example.com:443", "outside");
    check("web.shop.example.com:80", "outside");
    check("web.shop.svc.cluster.local.example.com:80", "outside");
    check("localhost:80", "outside");
    check("LOCALHOST.:80", "outside");
    check("printer:80", "outside");
    check("db.internal:80", "outside");
    check("93.184.216.34:80", "outside");
    check("", "no authority");
}

#[test]
fn a_connection_that_meant_something_goes_there() {
    let table = shop();
    let address = |text: &str| Meant::Address(text.parse().unwrap());
    let check = |meant: Meant<'_>, host: Option<&str>, expect: &str, only: &str| {
        assert_eq!(goes(&table, Egress::Allow, meant, host), expect, "{meant:?} {host:?}");
        assert_eq!(goes(&table, Egress::RegistryOnly, meant, host), only, "{meant:?} {host:?}, registry only");
    };
    let same = |meant: Meant<'_>, host: Option<&str>, expect: &str| check(meant, host, expect, expect);
    same(Meant::Nothing, None, "no authority");
    same(address("10.0.0.1:80"), None, "shop/web:80");
    same(address("10.0.0.1:80"), Some("example.com"), "shop/web:80");
    same(address("[::ffff:10.0.0.1]:80"), None, "shop/web:80");
    same(address("127.0.0.11:8080"), None, "shop/web:8080@shop/web-1");
    same(address("[fd00::2]:8080"), None, "shop/web-all:8080@shop/web-2");
    same(address("10.2.0.2:8080"), None, "shop/web-all:8080@shop/web-2");
    same(address("[::ffff:10.1.0.2]:8080"), None, "shop/web-all:8080@shop/web-2");
    same(address("93.184.216.34:8080"), Some("web:9"), "shop/web:8080");
    same(address("93.184.216.34:80"), Some("webb.shop.svc.cluster.local"), "no such service");
    same(address("93.184.216.34:80"), Some("webb.shop"), "no such service");
    check(address("93.184.216.34:80"), None, "outside", "registry only");
    check(address("93.184.216.34:80"), Some("label"), "outside", "registry only");
    check(address("93.184.216.34:80"), Some("example.com"), "outside", "registry only");
    let named = |host: &'static str| Meant::Name { host, port: 8080 };
    same(named("web.shop"), Some("example.com"), "shop/web:8080");
    same(named("webb"), Some("web"), "no such service");
    same(named("example.com"), Some("web:1"), "shop/web:8080");
    check(named("example.com"), None, "outside", "registry only");
}

#[test]
fn declared_protocols() {
    let table = shop();
    let protocol = |host: &str, port: u16| addressed(&table, host, port).unwrap().protocol();
    assert_eq!(protocol("web", 80), Protocol::Http);
    assert_eq!(protocol("web", 81), Protocol::Auto);
    assert_eq!(protocol("127.0.0.11", 8080), Protocol::Http);
}

#[test]
fn plans_name_all_that_an_attempt_needs() {
    let setting = |name: &str| {
        let set = vec![(name.to_owned(), "1".to_owned())];
        RouteAction::RequestHeaders(HeaderModifier { set, ..HeaderModifier::default() })
    };
    let to = |service: Option<&str>, port, weight| Backend {
        service: service.map(name),
        outside: false,
        port,
        weight,
        actions: vec![setting("x-backend")],
    };
    let rules = vec![
        RouteRule {
            backends: vec![to(Some("other/web"), 80, 1)],
            actions: vec![setting("x-rule"), RouteAction::RequestTimeoutMs(5)],
            ..rule("full", vec![matching(exact("/full"), None, &[])])
        },
        RouteRule {
            backends: vec![to(Some("other/web"), 80, 1)],
            actions: vec![RouteAction::RequestTimeoutMs(0)],
            ..rule("endless", vec![matching(exact("/endless"), None, &[])])
        },
        RouteRule {
            backends: vec![to(Some("other/web"), 81, 1)],
            ..rule("port", vec![matching(exact("/port"), None, &[])])
        },
        RouteRule { backends: vec![to(None, 80, 1)], ..rule("gone", vec![matching(exact("/gone"), None, &[])]) },
        rule("none", vec![matching(exact("/none"), None, &[])]),
    ];
    let services =
        vec![service("shop/web", None, &[]), service("other/web", None, &[]), service("shop/bare", None, &[])];
    let table = table(services, vec![route("shop/r", 1, rules)]);
    let ask = |host: &str, port: u16, at: &str| {
        let to = table.by_host(host, port, "shop").unwrap();
        plan(
            &table,
            &to,
            "shop",
            &HeadView { method: "GET", path: &path(at), host: None, headers: &|_| None, others: &[] },
            0,
            &mesh(Egress::Allow),
        )
    };
    let full = ask("web", 80, "/full").unwrap();
    let mut headers = http::HeaderMap::new();
    full.modify(&mut headers);
    assert_eq!((headers.len(), full.modifies(), full.timeout), (2, true, Some(std::time::Duration::from_millis(5))));
    assert_eq!(
        (full.service.name.clone(), full.target.at(&name("other/w")), full.rule_index),
        (name("other/web"), Some(8080), 0)
    );
    assert_eq!(ask("web", 80, "/endless").unwrap().timeout, None);
    let bare = ask("bare", 80, "/").unwrap();
    assert_eq!((bare.route, bare.modifies(), bare.timeout), (None, false, Some(std::time::Duration::from_secs(7))));
    let refused = |host: &str, port: u16, at: &str, status: u16, text: &str| {
        let refusal = ask(host, port, at).unwrap_err();
        assert_eq!((refusal.status(), refusal.to_string().as_str()), (status, text));
    };
    refused("web", 80, "/other", 404, "no rule of the routes of shop/web matches");
    refused("web", 80, "/none", 500, "HTTPRoute shop/r has no backend with weight");
    let words = "a backend of HTTPRoute shop/r is not there or needs a ReferenceGrant, or the route asks for what can't be done: its status says which";
    refused("web", 80, "/gone", 500, words);
    refused("web", 80, "/port", 404, "other/web serves nothing at port 81");
    refused("bare", 81, "/", 404, "shop/bare serves nothing at port 81");
}

#[test]
fn readings_that_meet_another_rule_are_ambiguous_where_it_matters() {
    let to =
        |service: &str| Backend { service: Some(name(service)), outside: false, port: 80, weight: 1, actions: vec![] };
    let actions = vec![RouteAction::RequestTimeoutMs(5)];
    let timed = RouteRule { actions, ..rule("timed", vec![matching(prefix("/timed"), None, &[])]) };
    let plain =
        RouteRule { backends: vec![to("other/web")], ..rule("plain", vec![matching(prefix("/plain"), None, &[])]) };
    let root = RouteRule { backends: vec![to("shop/web")], ..rule("root", vec![matching(prefix("/"), None, &[])]) };
    let check = |reading: &str, at: &str, expect: &str| {
        let mut web = service("shop/web", None, &[]);
        web.path_reading = if reading.is_empty() { PathReading::default() } else { reading.parse().unwrap() };
        let table = table(vec![web], vec![route("shop/r", 1, vec![timed.clone(), plain.clone(), root.clone()])]);
        assert_eq!(met(&table, "shop", 80, "GET", at, &[]), expect, "{at} {reading}");
    };
    check("", "/timed/x", "timed");
    check("", "/x/../timed", "timed");
    check("", "//timed", "400");
    check("", "/x/..;/timed", "400");
    check("", "/a%2f..%2ftimed", "400");
    check("", "/timed%2fx", "400");
    check("", "/timed//x", "timed");
    check("", "//plain", "root");
    check("", "//other", "root");
    check("encoded-slash=literal", "/timed%2Fx", "root");
    check("slashes=kept", "//timed", "root");
    check("", "/;/;%2f\\%5c..;%2f..//%e9;/;a%2f", "400");
}

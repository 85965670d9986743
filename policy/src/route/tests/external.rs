//! Which ExternalService a name or an address meets, for whom, and how it is dialled.

use super::*;
use crate::bundle::{External, ExternalEndpoint, ExternalPort, ExternalProtocol, ExternalTls, Traffic};

fn external(own: &str, created: u64, hosts: &[&str], ports: &[(u16, u16, ExternalProtocol)]) -> External {
    let port = |(port, target_port, protocol): &(u16, u16, ExternalProtocol)| ExternalPort {
        port: *port,
        target_port: *target_port,
        protocol: *protocol,
    };
    External {
        name: name(own),
        mesh_wide: false,
        created: Revision(created),
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        ports: ports.iter().map(port).collect(),
        endpoints: Vec::new(),
        tls: None,
        traffic: None,
    }
}

fn at(address: &str, port: Option<u16>) -> ExternalEndpoint {
    ExternalEndpoint { address: address.to_owned(), port }
}

/// Two namespaces' own, and the mesh's.
fn outside() -> RouteTable {
    use ExternalProtocol::{Grpc, Http, Tcp, Tls};
    let roots_pem = Some("PEM".to_owned());
    let api = External {
        tls: Some(ExternalTls { roots_pem, ..ExternalTls::default() }),
        ..external("shop/api", 5, &["api.example.com", "*.cdn.example.com"], &[(80, 443, Http), (443, 443, Tls)])
    };
    let younger = external("shop/younger", 6, &["api.example.com", "*.example.com"], &[(80, 80, Http), (81, 81, Http)]);
    let db = External {
        endpoints: vec![at("192.0.2.7", None), at("192.0.2.8", Some(6432)), at("db.example.net", None)],
        ..external("shop/db", 7, &["db.example.org"], &[(5432, 5433, Tcp)])
    };
    let bank = External {
        tls: Some(ExternalTls {
            under_tcp: true,
            takes_tls12: true,
            certificate: Some("b".to_owned()),
            ..ExternalTls::default()
        }),
        ..external("shop/bank", 8, &["bank.example.org"], &[(5432, 5432, Tcp)])
    };
    let wide = External {
        mesh_wide: true,
        tls: Some(ExternalTls { server_name: Some("front.example".to_owned()), ..ExternalTls::default() }),
        ..external("weft-system/wide", 1, &["api.example.com", "rpc.example.com"], &[(80, 8443, Grpc)])
    };
    let others = external("other/own", 1, &["api.example.com", "theirs.example"], &[(80, 80, Http)]);
    let externals = [api, younger, db, bank, wide, others];
    RouteTable::new(&Arc::new(Bundle {
        externals: externals.into_iter().map(|external| (external.name.clone(), external)).collect(),
        ..Bundle::default()
    }))
}

#[test]
fn a_name_meets_the_nearest_that_has_its_port() {
    let table = outside();
    let check = |host: &str, expect: &str| {
        for egress in [Egress::Allow, Egress::RegistryOnly] {
            let nothing = if egress == Egress::Allow { "outside" } else { "registry only" };
            let expect = if expect.is_empty() { nothing } else { expect };
            assert_eq!(goes(&table, egress, Meant::Nothing, Some(host)), expect, "{host}");
            let Some((host, port)) = host.rsplit_once(':') else { continue };
            let meant = Meant::Name { host, port: port.parse().unwrap() };
            assert_eq!(goes(&table, egress, meant, None), expect, "CONNECT {host}:{port}");
        }
    };
    let api = "shop/api, dialled: api.example.com:443 with TLS, which has to be api.example.com by its caBundle";
    check("api.example.com", api);
    check("API.Example.com.:80", api);
    check("api.example.com:443", "shop/api, dialled: api.example.com:443, tls as the app sends it");
    // The older one has not this port.
    check("api.example.com:81", "shop/younger, dialled: api.example.com:81, http as the app sends it");
    check("api.example.com:82", "");
    // One or more labels, and the longer pattern first.
    let cdn = "shop/api, dialled: a.cdn.example.com:443 with TLS, which has to be a.cdn.example.com by its caBundle";
    check("a.cdn.example.com", cdn);
    check("a.b.example.com:80", "shop/younger, dialled: a.b.example.com:80, http as the app sends it");
    check("cdn.example.com:80", "shop/younger, dialled: cdn.example.com:80, http as the app sends it");
    check("example.com", "");
    check("notexample.com", "");
    check("theirs.example", "");
    // The pattern of the own namespace comes before the exact name of the whole mesh.
    check("rpc.example.com", "shop/younger, dialled: rpc.example.com:80, http as the app sends it");
    let db = "shop/db, dialled: 192.0.2.7:5433, 192.0.2.8:6432, db.example.net:5433, tcp as the app sends it";
    check("db.example.org:5432", db);
    let bank = "shop/bank, dialled: bank.example.org:5432 with TLS (1.2 or 1.3), which has to be bank.example.org by the roots of the \
                proxy's machine, with its proxy's certificate \"b\"";
    check("bank.example.org:5432", bank);
}

#[test]
fn each_namespace_has_its_own() {
    let table = outside();
    let check = |from: &str, host: &str, expect: Option<&str>| {
        let way = table.external(host, 80, from);
        assert_eq!(way.map(|way| way.external.name.to_string()).as_deref(), expect, "{host} from {from}");
    };
    check("shop", "api.example.com", Some("shop/api"));
    check("other", "api.example.com", Some("other/own"));
    check("third", "api.example.com", Some("weft-system/wide"));
    check("third", "theirs.example", None);
    check("third", "a.cdn.example.com", None);
    let way = table.external("api.example.com", 80, "third").unwrap();
    assert_eq!((way.server_name(), way.places()), (Some("front.example"), vec![("api.example.com".to_owned(), 8443)]));
    for (port, from, expect) in [(80, "third", true), (443, "third", false), (443, "shop", true), (5432, "shop", false)]
    {
        assert_eq!(table.is_told_by_bytes(port, from), expect, "{port} from {from}");
    }
}

#[test]
fn a_captured_connection_meets_by_address_or_by_what_its_request_says() {
    let table = outside();
    let check = |address: &str, host: Option<&str>, expect: &str| {
        let meant = Meant::Address(address.parse().unwrap());
        assert_eq!(goes(&table, Egress::RegistryOnly, meant, host), expect, "{address} {host:?}");
    };
    check("192.0.2.7:5432", None, "shop/db, dialled: 192.0.2.7:5433, tcp as the app sends it");
    check("[::ffff:192.0.2.8]:5432", None, "shop/db, dialled: 192.0.2.8:6432, tcp as the app sends it");
    check("192.0.2.8:6432", None, "registry only");
    check("192.0.2.9:5432", None, "registry only");
    check("192.0.2.9:80", None, "registry only");
    check("192.0.2.9:80", Some("evil.example"), "registry only");
    // Not the address that was dialled, which anybody may have: the name.
    let api = "shop/api, dialled: api.example.com:443 with TLS, which has to be api.example.com by its caBundle";
    check("192.0.2.9:80", Some("api.example.com"), api);
    check("192.0.2.9:82", Some("api.example.com"), "registry only");
}

/// The server proves the name that was dialled: neither a request nor a ClientHello behind it may ask for another.
#[test]
fn what_goes_to_a_host_is_for_that_host() {
    let table = outside();
    let check = |host: &str, expect: bool| {
        let meant = Meant::Name { host: "api.example.com", port: 80 };
        let met = goes(&table, Egress::Allow, meant, Some(host));
        assert_eq!(met != "other host", expect, "{host}: {met}");
    };
    for own in ["api.example.com", "API.example.com.:80", "a.cdn.example.com"] {
        check(own, true);
    }
    for other in ["evil.example", "192.0.2.7", "[fd00::7]", "cdn.example.com", "label"] {
        check(other, false);
    }
    let way = table.external("api.example.com", 443, "shop").unwrap();
    let takes = |hello: Hello<'_>| way.takes_connection(hello).is_ok();
    assert!(takes(Hello::Tls(Some("api.example.com"))) && takes(Hello::Tls(Some("b.cdn.example.com"))));
    assert!(!takes(Hello::Tls(Some("evil.example"))) && !takes(Hello::Tls(None)) && !takes(Hello::Other));
    let db = table.external_at("192.0.2.7:5432".parse().unwrap(), "shop").unwrap();
    assert!(db.takes_connection(Hello::Other).is_ok() && db.is_for("192.0.2.7") && !db.is_for("192.0.2.8"));
}

#[test]
fn a_declared_protocol_is_law_outside_too() {
    let table = outside();
    let check = |host: &str, port: u16, expect: (bool, bool)| {
        let way = table.external(host, port, "shop").unwrap();
        let requests = way.resolved().protocol().takes_requests(port);
        assert_eq!((requests.is_ok(), way.takes_tunnels().is_ok()), expect, "{host}:{port}");
    };
    check("api.example.com", 80, (true, false));
    check("api.example.com", 443, (false, true));
    check("db.example.org", 5432, (false, true));
}

#[test]
fn names_of_the_mesh_are_never_outside() {
    let meshy = external("shop/x", 1, &["web.shop", "web.nowhere"], &[(80, 80, ExternalProtocol::Http)]);
    let services = [(name("shop/web"), service("shop/web", None, &[]))].into();
    let externals = [(meshy.name.clone(), meshy)].into();
    let table = RouteTable::new(&Arc::new(Bundle { services, externals, ..Bundle::default() }));
    let check = |host: &str, expect: &str| {
        assert_eq!(goes(&table, Egress::RegistryOnly, Meant::Nothing, Some(host)), expect, "{host}");
    };
    check("web.shop", "shop/web:80");
    check("gone.shop", "no such service");
    check("web.nowhere", "shop/x, dialled: web.nowhere:80, http as the app sends it");
}

/// Two ExternalServices, one of which has the name of a service, one of patterns only, and their routes.
fn routed() -> RouteTable {
    use ExternalProtocol::Http;
    let traffic = Traffic { request_timeout_ms: Some(9), ..traffic("shop/p") };
    let old = External {
        traffic: Some(Box::new(traffic)),
        ..external("shop/old", 2, &["old.example.com"], &[(80, 80, Http)])
    };
    let externals = [
        external("shop/api", 1, &["api.example.com", "*.cdn.example.com"], &[(80, 8080, Http)]),
        old,
        external("shop/any", 3, &["*.any.example"], &[(80, 80, Http)]),
    ];
    let to = |text: &str, outside| {
        vec![Backend { service: Some(name(text)), outside, port: 80, weight: 1, actions: Vec::new() }]
    };
    let at = |path: &str, backends| RouteRule { backends, ..rule(path, vec![matching(prefix(path), None, &[])]) };
    let rules = vec![
        at("/mesh", to("shop/api", false)),
        at("/old", to("shop/old", true)),
        at("/gone", to("shop/gone", true)),
        at("/any", to("shop/any", true)),
        at("/", to("shop/api", true)),
    ];
    let of = |own: &str, outside| Route { parent: name("shop/api"), outside, ..route(own, 1, rules.clone()) };
    let routes = [of("shop/outside", true), of("shop/inside", false)];
    RouteTable::new(&Arc::new(Bundle {
        services: [(name("shop/api"), service("shop/api", None, &[]))].into(),
        routes: routes.into_iter().map(|route| (route.name.clone(), route)).collect(),
        externals: externals.into_iter().map(|external| (external.name.clone(), external)).collect(),
        ..Bundle::default()
    }))
}

/// Where a plan leads, with the host that is put in the place of the request's, or the status of its refusal.
fn leads(plan: Result<Plan<'_>, RouteRefusal>) -> String {
    let plan = match plan {
        Ok(plan) => plan,
        Err(refusal) => return refusal.status().to_string(),
    };
    let host = plan.host.map(|host| format!(" as {host}")).unwrap_or_default();
    match &plan.exit {
        Some(exit) => format!("out by {} to {:?}{host}", exit.external.name.name, exit.places()[0].0),
        None => format!("to {}{host}", plan.service.name.name),
    }
}

/// A name stands for a service and for an ExternalService, each with routes of its own; what a route leads out is sent
/// a host of the resource that lets it out.
#[test]
fn routes_hold_outside_and_lead_out() {
    let table = routed();
    let settings = mesh(Egress::RegistryOnly);
    let check = |host: &str, at: &str, expect: &str| {
        let at = path(at);
        let head = HeadView { method: "GET", path: &at, host: Some(host), headers: &|_| None, others: &[] };
        let plan = match table.external(host, 80, "shop") {
            Some(way) => leads(plan_outside(&table, &way, "shop", &head, 0, &settings)),
            None => leads(plan(&table, &table.by_host(host, 80, "shop").unwrap(), "shop", &head, 0, &settings)),
        };
        assert_eq!(plan, expect, "{host}{at}");
    };
    check("api.example.com", "/", "out by api to \"api.example.com\"");
    check("a.cdn.example.com", "/x", "out by api to \"a.cdn.example.com\"");
    check("api.example.com", "/mesh", "to api");
    check("api.example.com", "/old/x", "out by old to \"old.example.com\" as old.example.com");
    check("api.example.com", "/gone", "500");
    // Nobody says which of the hosts below a pattern is meant.
    check("api.example.com", "/any", "500");
    // Without a route as before.
    check("old.example.com", "/mesh", "out by old to \"old.example.com\"");
    check("x.any.example", "/mesh", "out by any to \"x.any.example\"");
    check("api.shop", "/mesh", "to api");
    check("api.shop", "/", "out by api to \"api.example.com\" as api.example.com");
}

/// A port of `tls` takes who asks for one of its hosts, at that host; one of `tcp` takes whatever comes.
#[test]
fn connections_are_led_out_by_what_they_begin_with() {
    use ExternalProtocol::{Tcp, Tls};
    let externals = [
        external("shop/db", 1, &["db.example.com"], &[(5432, 6432, Tcp)]),
        external("shop/front", 1, &["front.example.com", "*.cdn.example.com"], &[(443, 8443, Tls)]),
        external("shop/any", 1, &["*.any.example"], &[(443, 443, Tls)]),
    ];
    let check = |kind: RouteKind, (to, port): (&str, u16), hello: Hello<'_>, expect: &str| {
        let backends = vec![Backend { service: Some(name(to)), outside: true, port, weight: 1, actions: Vec::new() }];
        let rules = vec![RouteRule { name: None, matches: vec![], actions: vec![], backends }];
        let made = route("shop/r", 1, rules);
        let made = Route { name: kind.at_parent(&made.name, 0), kind, ..made };
        let table = RouteTable::new(&Arc::new(Bundle {
            services: [(name("shop/web"), service("shop/web", None, &[]))].into(),
            routes: [(made.name.clone(), made)].into(),
            externals: externals.iter().map(|external| (external.name.clone(), external.clone())).collect(),
            ..Bundle::default()
        }));
        let asked = table.by_host("web.shop", 80, "shop").unwrap();
        let got = match plan_stream(&table, &asked, "shop", hello, 0) {
            Err(refusal) => refusal.status().to_string(),
            Ok(plan) => {
                let exit = plan.exit.as_ref().unwrap();
                let (host, port) = exit.places().remove(0);
                format!("{host}:{port}{}", if exit.takes_connection(hello).is_ok() { "" } else { " refused" })
            }
        };
        assert_eq!(got, expect, "{to} {hello:?}");
    };
    let asks = |name| Hello::Tls(Some(name));
    check(RouteKind::Tcp, ("shop/db", 5432), Hello::Other, "db.example.com:6432");
    check(RouteKind::Tls, ("shop/db", 5432), asks("web.shop"), "db.example.com:6432");
    check(RouteKind::Tls, ("shop/front", 443), asks("front.example.com"), "front.example.com:8443");
    check(RouteKind::Tls, ("shop/front", 443), asks("a.cdn.example.com"), "a.cdn.example.com:8443");
    check(RouteKind::Tls, ("shop/front", 443), asks("web.shop"), "front.example.com:8443 refused");
    check(RouteKind::Tls, ("shop/front", 443), Hello::Tls(None), "front.example.com:8443 refused");
    check(RouteKind::Tls, ("shop/any", 443), asks("a.any.example"), "a.any.example:443");
    check(RouteKind::Tls, ("shop/any", 443), asks("web.shop"), "500");
    check(RouteKind::Tcp, ("shop/db", 5433), Hello::Other, "500");
    check(RouteKind::Tcp, ("shop/gone", 5432), Hello::Other, "500");
}

#[test]
fn what_policies_set_holds_outside() {
    let table = routed();
    let timeout = |host: &str| {
        let way = table.external(host, 80, "shop").unwrap();
        let head = HeadView { method: "GET", path: &path("/"), host: Some(host), headers: &|_| None, others: &[] };
        plan_outside(&table, &way, "shop", &head, 0, &mesh(Egress::Allow)).unwrap().timeout
    };
    let ms = std::time::Duration::from_millis;
    assert_eq!(timeout("old.example.com"), Some(ms(9)));
    // As the mesh has it.
    assert_eq!(timeout("api.example.com"), Some(ms(7_000)));
}

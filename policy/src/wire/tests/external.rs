//! ExternalServices on the wire: only to who can do what they say, and whole or not at all.

use super::*;
use crate::bundle::{External, ExternalEndpoint, ExternalPort, ExternalProtocol, ExternalTls, Limits, Traffic};

fn external() -> External {
    External {
        name: name("shop/api"),
        mesh_wide: true,
        created: Revision(7),
        hosts: vec!["api.example.com".to_owned(), "*.example.org".to_owned()],
        ports: vec![ExternalPort { port: 80, target_port: 443, protocol: ExternalProtocol::Grpc }],
        endpoints: vec![ExternalEndpoint { address: "192.0.2.7".to_owned(), port: Some(8443) }],
        tls: Some(ExternalTls {
            server_name: Some("front.example".to_owned()),
            roots_pem: Some("PEM".to_owned()),
            ..ExternalTls::default()
        }),
        traffic: None,
    }
}

#[test]
fn what_is_sent_is_received() {
    let least = External { mesh_wide: false, endpoints: Vec::new(), tls: None, ..external() };
    for sent in [external(), least].map(Object::External) {
        let envelope = encode(&sent);
        assert_eq!(envelope.requires, [EXTERNAL_SERVICE]);
        assert_eq!(receive(vec![envelope]).unwrap().delta.upserts, std::slice::from_ref(&sent));
        assert_eq!(sent.without_preferences(), None);
        let key = v1::Key::from(&sent.key());
        assert_eq!(Key::try_from(key).unwrap(), sent.key());
    }
}

#[test]
fn what_cannot_be_meant_is_refused_by_key() {
    let check = |change: fn(&mut External), expect: &str| {
        let mut sent = external();
        change(&mut sent);
        let envelope = encode(&Object::External(sent));
        let refused = receive(vec![envelope.clone()]).unwrap_err();
        assert_eq!(
            (refused.key, refused.reason.starts_with(expect)),
            (envelope.key, true),
            "{expect}: {}",
            refused.reason
        );
    };
    check(|it| it.hosts[0] = "Api.example".to_owned(), "hosts[0]: \"Api.example\" is not a host");
    check(|it| it.hosts[1] = "*.svc".to_owned(), "hosts[1]: \"*.svc\" is not outside the mesh");
    check(|it| it.ports[0].target_port = 0, "ports[0].target_port: 0 is not a port");
    check(|it| it.endpoints[0].port = Some(0), "endpoints[0].port: 0 is not a port");
    check(|it| it.endpoints[0].address = "web".to_owned(), "endpoints[0].address: \"web\" has one label");
    check(|it| it.tls.as_mut().unwrap().certificate = Some("/etc/key".to_owned()), "tls.certificate: \"/etc/key\"");
    check(|it| it.tls.as_mut().unwrap().server_name = Some("*.example".to_owned()), "tls.server_name: ");
}

/// What policies set is a preference, and left out for who can't keep it.
#[test]
fn what_policies_set_is_sent_to_those_who_know_it() {
    let limits = Some(Limits { active: 5, pending_ms: 1_000, ..Limits::default() });
    let traffic = Traffic {
        policy: name("shop/p"),
        balancing: crate::bundle::Balancing::default(),
        outliers: None,
        health_check: None,
        limits,
        request_timeout_ms: Some(5),
        attempt_timeout_ms: None,
        stream_timeout_ms: None,
        retry: None,
        hedge: None,
    };
    let sent = Object::External(External { traffic: Some(Box::new(traffic.clone())), ..external() });
    let envelope = encode(&sent);
    assert_eq!(envelope.requires, [EXTERNAL_SERVICE, EXTERNAL_ROUTES]);
    assert_eq!(receive(vec![envelope]).unwrap().delta.upserts, std::slice::from_ref(&sent));
    assert_eq!(sent.without_preferences(), Some(Object::External(external())));
    let streams = Traffic { stream_timeout_ms: Some(9), ..traffic.clone() };
    let streams = Object::External(External { traffic: Some(Box::new(streams)), ..external() });
    assert_eq!(encode(&streams).requires, [EXTERNAL_SERVICE, EXTERNAL_ROUTES, STREAM_TIMEOUT]);
    assert_eq!(streams.without_preferences(), Some(sent.clone()));
    let none = Some(Limits { active: 0, ..Limits::default() });
    let odd = External { traffic: Some(Box::new(Traffic { limits: none, ..traffic })), ..external() };
    let refused = receive(vec![encode(&Object::External(odd))]).unwrap_err();
    assert!(refused.reason.starts_with("traffic.limits: 0 requests"), "{}", refused.reason);
}

/// What an older release would carry without TLS, or without the certificate, it is not told of: to it the hosts are closed.
#[test]
fn what_only_newer_releases_do_of_tls_is_sent_to_those_who_know_it() {
    let tls = |change: fn(&mut ExternalTls)| {
        let mut tls = external().tls.unwrap();
        change(&mut tls);
        Object::External(External { tls: Some(tls), ..external() })
    };
    let changes: [fn(&mut ExternalTls); 3] =
        [|it| it.under_tcp = true, |it| it.takes_tls12 = true, |it| it.certificate = Some("bank".to_owned())];
    for sent in changes.map(tls) {
        let envelope = encode(&sent);
        assert_eq!(envelope.requires, [EXTERNAL_SERVICE, EXTERNAL_TLS]);
        assert_eq!(receive(vec![envelope]).unwrap().delta.upserts, std::slice::from_ref(&sent));
        assert_eq!(sent.without_preferences(), None);
        assert_eq!(encode(&sent.closed().unwrap()).requires, [EXTERNAL_SERVICE]);
    }
    assert_eq!(encode(&tls(|_| {})).requires, [EXTERNAL_SERVICE]);
}

/// In every release that knows the kind: of whatever a port carries nothing goes out, and nobody is who TLS asks for.
#[test]
fn one_that_is_closed_keeps_its_hosts_in() {
    let tcp = ExternalPort { port: 5432, target_port: 5432, protocol: ExternalProtocol::Tcp };
    let open = External { ports: vec![tcp], ..external() };
    let Some(Object::External(closed)) = Object::External(open.clone()).closed() else { panic!("no closed form") };
    assert_eq!((&closed.hosts, &closed.endpoints, closed.created), (&open.hosts, &open.endpoints, open.created));
    assert_eq!(closed.ports[0].protocol, ExternalProtocol::Http);
    let tls = closed.tls.clone().unwrap();
    assert_eq!((tls.server_name.as_deref(), tls.roots_pem.as_deref()), (Some("nowhere.invalid"), Some("")));
    let envelope = encode(&Object::External(closed.clone()));
    assert_eq!(envelope.requires, [EXTERNAL_SERVICE]);
    assert_eq!(receive(vec![envelope]).unwrap().delta.upserts, [Object::External(closed)]);
}

/// Routes of ExternalServices, and to them, go to those who know them; a route of a Service that leads to one is closed
/// to others, as every release reads it.
#[test]
fn routes_that_lead_outside_are_sent_to_those_who_know_them() {
    let backend = |outside| Backend { outside, ..rule().backends.remove(0) };
    let of = |outside, backend: Backend| {
        let rules = vec![RouteRule { backends: vec![backend], ..rule() }];
        Object::Route(Route { outside, rules, ..route() })
    };
    for (sent, closed_requires) in [
        (of(true, backend(false)), &[EXTERNAL_ROUTES][..]),
        (of(false, backend(true)), &[]),
        (of(true, backend(true)), &[EXTERNAL_ROUTES]),
    ] {
        let envelope = encode(&sent);
        assert_eq!(envelope.requires, [EXTERNAL_ROUTES]);
        assert_eq!(receive(vec![envelope]).unwrap().delta.upserts, std::slice::from_ref(&sent));
        let closed = encode(&sent.closed().unwrap());
        assert_eq!(closed.requires, closed_requires);
        let payload = String::from_utf8_lossy(&closed.payload).into_owned();
        assert_eq!(payload.contains("outside"), !closed_requires.is_empty(), "{payload}");
    }
    assert!(!String::from_utf8_lossy(&encode(&of(false, backend(false))).payload).contains("outside"));
    let leads = Backend { actions: vec![], ..backend(true) };
    let rules = vec![RouteRule { name: None, matches: vec![], actions: vec![], backends: vec![leads] }];
    let led = Object::Route(Route { kind: RouteKind::Tcp, rules, ..route() });
    let envelope = encode(&led);
    assert_eq!(envelope.requires, [TCP_ROUTE, EXTERNAL_ROUTES, EXTERNAL_STREAMS]);
    assert_eq!(receive(vec![envelope]).unwrap().delta.upserts, [led]);
    let bytes = Object::Route(Route {
        kind: RouteKind::Tcp,
        outside: true,
        rules: vec![RouteRule { name: None, matches: vec![], actions: vec![], backends: vec![] }],
        ..route()
    });
    let refused = receive(vec![encode(&bytes)]).unwrap_err().reason;
    assert_eq!(refused, "outside: connections are led from Services only");
}

/// A backend that answers, and a match of the host: a release that knows neither would send on what it was to answer.
#[test]
fn what_a_backend_answers_and_hosts_are_sent_to_those_who_know_them() {
    let redirect = Redirect { status: 302, scheme: None, host: None, port: None, path: None };
    let backend = Backend { actions: vec![RouteAction::Redirect(redirect)], ..rule().backends.remove(0) };
    let host = FieldMatch { name: "host".to_owned(), value: "web.shop".to_owned(), regex: false };
    let matching = RouteMatch { headers: vec![host], ..RouteMatch::default() };
    for (rule, expect) in [
        (RouteRule { backends: vec![backend], ..rule() }, BACKEND_ANSWERS),
        (RouteRule { matches: vec![matching], ..rule() }, HOST_MATCH),
    ] {
        let sent = Object::Route(Route { rules: vec![rule], ..route() });
        let envelope = encode(&sent);
        assert_eq!(envelope.requires, [expect]);
        assert_eq!(receive(vec![envelope]).unwrap().delta.upserts, std::slice::from_ref(&sent));
        assert!(encode(&sent.closed().unwrap()).requires.is_empty());
    }
}

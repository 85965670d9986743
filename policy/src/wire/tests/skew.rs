//! Tomorrow's messages: what this version does not know is skipped or refused by name, and never means more than was said.

use serde_json::json;

use super::*;

/// A field that no message has yet.
const UNKNOWN_FIELD: [u8; 3] = [0xa0, 0x06, 0x01];

/// The objects of today with one of tomorrow among them.
fn with(odd: v1::Object) -> Vec<v1::Object> {
    let known = everything().iter().map(encode).filter(|known| known.key != odd.key).collect::<Vec<_>>();
    known.into_iter().chain([odd]).collect()
}

fn of_an_unknown_kind(requires: &[&str]) -> v1::Object {
    let key = v1::Key { kind: 99, name: "shop/anything".to_owned(), workload: String::new() };
    let requires = requires.iter().map(|capability| (*capability).to_owned()).collect();
    v1::Object { key: Some(key), version: 7, requires, payload: b"{}".as_slice().into() }
}

#[test]
fn an_unknown_kind_is_skipped_and_the_rest_is_taken() {
    let odd = of_an_unknown_kind(&[]);
    let received = receive(with(odd.clone())).unwrap();
    assert_eq!((received.delta.upserts.len(), received.skipped), (5, vec![odd.key.unwrap()]));
    let key = v1::Key { kind: 99, ..v1::Key::default() };
    let removal = v1::Delta { removals: vec![key], ..v1::Delta::default() };
    assert_eq!(Received::try_from(removal).unwrap(), Received::default());
}

#[test]
fn an_unknown_capability_refuses_its_object_by_key() {
    for mut odd in [of_an_unknown_kind(&["quic", "fields-of-tomorrow"]), encode(&everything()[3])] {
        odd.requires = vec!["quic".to_owned(), "fields-of-tomorrow".to_owned()];
        let reason = "it requires fields-of-tomorrow, which this version can't do";
        assert_eq!(receive(with(odd.clone())), Err(Refused::object(odd.key.unwrap(), reason)));
    }
}

/// Even where the sender forgot to say what is required.
#[test]
fn unknown_fields_arms_and_values_refuse_their_object_by_key() {
    let cases = [
        (
            3,
            "/rules/0",
            json!({"matches": [], "backends": [], "fault": {"abort": 503}}),
            "rules[0].fault: unknown field `fault`",
        ),
        (
            3,
            "/rules/0/matches/0",
            json!({"path": {"Exact": "/a"}, "headers": [], "cookies": "a=b"}),
            "rules[0].matches[0].cookies: unknown field",
        ),
        (3, "/rules/0/matches/0/path", json!({"Glob": "/a*"}), "rules[0].matches[0].path: unknown variant `Glob`"),
        (2, "/ports/0/protocol", json!("sctp"), "ports[0].protocol: unknown variant `sctp`"),
        (
            2,
            "/path_reading",
            json!({"separates_at_encoded_slash": "Sometimes", "cuts_params": "Never", "merges_slashes": "Never"}),
            "path_reading.separates_at_encoded_slash: unknown variant",
        ),
        (0, "/egress", json!("Ask"), "egress: unknown variant `Ask`"),
        (4, "/mode", json!("Shadow"), "mode: unknown variant `Shadow`"),
        (
            4,
            "/limits",
            json!({"memory_bytes": 1, "call_timeout_ms": 1, "fuel": 1}),
            "limits.fuel: unknown field `fuel`",
        ),
        (1, "/ports/0", json!({"port": 1, "protocol": "http", "mtls": true}), "ports[0].mtls: unknown field `mtls`"),
    ];
    for (index, pointer, value, expect) in cases {
        let odd = changed(index, pointer, value);
        let refused = receive(with(odd.clone())).unwrap_err();
        assert_eq!(refused.key, odd.key, "{expect}");
        assert!(refused.reason.starts_with(expect), "{} instead of {expect}", refused.reason);
    }
}

/// Fields of messages are added only with a capability or where it does no harm to miss them.
#[test]
fn unknown_fields_of_messages_are_passed_over() {
    let delta = v1::Delta::from(&Delta { upserts: everything(), ..Delta::default() });
    let bytes = [delta.encode_to_vec(), UNKNOWN_FIELD.to_vec()].concat();
    assert_eq!(v1::Delta::decode(bytes.as_slice()).unwrap(), delta);
    let nothing = v1::ControlMessage::decode(UNKNOWN_FIELD.as_slice()).unwrap();
    assert_eq!(nothing.message, None, "a message of tomorrow");
    let nothing = v1::ProxyMessage::decode(UNKNOWN_FIELD.as_slice()).unwrap();
    assert_eq!(nothing.message, None, "a message of tomorrow's proxy");
}

#[test]
fn a_registration_with_an_unknown_protocol_is_refused_by_name() {
    let port = v1::WorkloadPort { port: 80, protocol: 99 };
    let workload = v1::WorkloadRegistration { ports: vec![port], ..v1::WorkloadRegistration::default() };
    let fault = crate::registration::Told::try_from(&workload).unwrap_err();
    assert_eq!(fault.to_string(), "ports: protocol: 99 is not known to this version");
}

/// A preference comes with a capability: who lacks it gets the service without, which every release reads.
#[test]
fn settings_of_a_traffic_policy_are_sent_to_those_who_know_them() {
    use crate::bundle::{Balancing, HashKey, Limits, Outliers, Retry, SourceKey, Traffic};
    let Object::Service(plain) = everything().remove(2) else { panic!("the services are third") };
    let keys = [
        HashKey::Header("x-user".to_owned()),
        HashKey::Cookie("Sid".to_owned()),
        HashKey::Source(SourceKey::Identity),
        HashKey::Source(SourceKey::Address),
    ];
    let by_key = keys.into_iter().flat_map(|key| [Balancing::RingHash(key.clone()), Balancing::Maglev(key)]);
    let others = [Balancing::PeakEwma, Balancing::LeastRequest, Balancing::RoundRobin, Balancing::Random];
    let outliers = Outliers {
        consecutive_5xx: 5,
        consecutive_gateway_errors: 0,
        consecutive_local_failures: 3,
        interval_ms: 10_000,
        ejection_ms: 30_000,
        longest_ms: 300_000,
        most_percent: 10,
        success_rate: None,
    };
    let told = outliers.to_string();
    assert_eq!(told, "5 of 5xx or 3 unanswered in a row (each within 10s), out for 30s to 5m, at most 10 %");
    let none = Outliers { longest_ms: 1, ..outliers.clone() };
    let both = [None, Some(outliers)];
    let limits = Some(Limits { active: 9, pending: 2, pending_ms: 1_500, ..Limits::default() });
    let told = limits.as_ref().unwrap().to_string();
    assert_eq!(told, "9 active requests of each proxy, 2 pending for up to 1s500ms");
    let traffic = |balancing, outliers, limits| Traffic {
        policy: name("shop/p"),
        balancing,
        outliers,
        health_check: None,
        limits,
        request_timeout_ms: Some(9),
        attempt_timeout_ms: None,
        stream_timeout_ms: None,
        retry: Some(Retry { grpc_codes: vec![14], ..Retry::default() }),
        hedge: None,
    };
    for (balancing, outliers) in by_key.chain(others).zip(both.into_iter().cycle()) {
        let traffic = Some(Box::new(traffic(balancing, outliers, limits.clone())));
        let service = Object::Service(Service { traffic, ..plain.clone() });
        let envelope = encode(&service);
        assert_eq!(envelope.requires, [ENDPOINT_PORTS, TRAFFIC_POLICY]);
        assert_eq!(receive(with(envelope)).unwrap().delta.upserts.last(), Some(&service));
        assert_eq!(service.without_preferences(), Some(Object::Service(plain.clone())));
    }
    assert_eq!(encode(&Object::Service(plain.clone())).requires, [ENDPOINT_PORTS]);
    let odd = |balancing: Balancing, outliers: Option<Outliers>| {
        let traffic = Some(Box::new(traffic(balancing, outliers, None)));
        receive(with(encode(&Object::Service(Service { traffic, ..plain.clone() })))).unwrap_err().reason
    };
    let refused = odd(Balancing::Maglev(HashKey::Header("X-User".to_owned())), None);
    assert_eq!(refused, "traffic.balancing: \"X-User\" is no field name in lower case");
    let nameless = Balancing::Maglev(HashKey::Cookie(String::new()));
    assert_eq!(odd(nameless, None), "traffic.balancing: a cookie has a name");
    let refused = odd(Balancing::Random, Some(none));
    assert!(refused.starts_with("traffic.outliers: an ejection takes time"), "{refused}");
}

/// What a proxy of an earlier release can't limit comes with a capability of its own; what it can is written as it was.
#[test]
fn limits_of_more_than_requests_are_sent_to_those_who_know_them() {
    use super::super::TRAFFIC_LIMITS;
    use crate::bundle::{AdaptiveLimit, Balancing, Limits, Traffic};
    let Object::Service(plain) = everything().remove(2) else { panic!("the services are third") };
    let service = |limits: Limits| {
        let traffic = Traffic {
            policy: name("shop/p"),
            balancing: Balancing::default(),
            outliers: None,
            health_check: None,
            limits: Some(limits),
            request_timeout_ms: None,
            attempt_timeout_ms: None,
            stream_timeout_ms: None,
            retry: None,
            hedge: None,
        };
        Object::Service(Service { traffic: Some(Box::new(traffic)), ..plain.clone() })
    };
    let active = Limits { active: 9, pending_ms: 1_000, ..Limits::default() };
    let envelope = encode(&service(active.clone()));
    assert_eq!(envelope.requires, [ENDPOINT_PORTS, TRAFFIC_POLICY]);
    let written = String::from_utf8(envelope.payload.to_vec()).unwrap();
    assert!(written.contains(r#""limits":{"active":9,"pending":0,"pending_ms":1000}"#), "{written}");
    let adaptive = |least, most, window_ms| Some(AdaptiveLimit { least, most, window_ms });
    let none = Limits { active: 0, ..active.clone() };
    for (limits, told) in [
        (Limits { connections: Some(4), ..none.clone() }, "4 TCP connections of each proxy"),
        (Limits { retries: Some(0), ..active.clone() }, "9 active requests of each proxy, 0 retries"),
        (
            Limits { adaptive: adaptive(3, 1_000, 250), ..none.clone() },
            "3 to 1000 requests by their latency in each 250ms of each proxy",
        ),
    ] {
        let service = service(limits.clone());
        let envelope = encode(&service);
        assert_eq!(envelope.requires, [ENDPOINT_PORTS, TRAFFIC_POLICY, TRAFFIC_LIMITS]);
        assert_eq!(receive(with(envelope)).unwrap().delta.upserts.last(), Some(&service));
        assert_eq!(service.without_preferences(), Some(Object::Service(plain.clone())));
        assert_eq!(limits.to_string(), told);
    }
    let refused = |limits: Limits| receive(with(encode(&service(limits)))).unwrap_err().reason;
    assert_eq!(refused(none.clone()), "traffic.limits: 0 requests under way are none at all");
    let connections = Limits { connections: Some(0), ..none.clone() };
    assert_eq!(refused(connections), "traffic.limits.connections: 0 connections are none at all");
    for odd in [adaptive(0, 9, 250), adaptive(9, 8, 250), adaptive(1, 9, 0)] {
        let odd = Limits { adaptive: odd, ..none.clone() };
        assert!(refused(odd).starts_with("traffic.limits.adaptive: at least 1"));
    }
}

/// The same of which endpoints come first, which has a capability of its own: who knows policies only has the rest.
#[test]
fn which_endpoints_come_first_is_sent_to_those_who_know_it() {
    use crate::bundle::{Failover, Locality, PlaceShare, PlaceShares, Prefer, SlowStart, Spread};
    let Object::Service(plain) = everything().remove(2) else { panic!("the services are third") };
    let failover = vec![Failover { from: "eu".to_owned(), to: vec!["us".to_owned()] }];
    let locality =
        |prefer, percent| Some(Locality { prefer, failover: failover.clone(), overprovisioning_percent: percent });
    let slow = |window_ms, least_percent| Some(SlowStart { window_ms, least_percent });
    let spreading = |spread: Spread| Object::Service(Service { spread: Some(Box::new(spread)), ..plain.clone() });
    for spread in [
        Spread { locality: locality(Prefer::Region, 100), ..Spread::default() },
        Spread {
            locality: locality(Prefer::Zone, 1_000),
            slow_start: slow(1, 1),
            panic_percent: 100,
            shares: Vec::new(),
        },
        Spread { locality: locality(Prefer::Subzone, 140), slow_start: None, panic_percent: 1, shares: Vec::new() },
        Spread { slow_start: slow(u64::MAX, 100), ..Spread::default() },
    ] {
        let service = spreading(spread);
        let envelope = encode(&service);
        assert_eq!(envelope.requires, [ENDPOINT_PORTS, SPREAD]);
        assert_eq!(receive(with(envelope)).unwrap().delta.upserts.last(), Some(&service));
        assert_eq!(service.without_preferences(), Some(Object::Service(plain.clone())));
        let Some(Object::Service(closed)) = service.closed() else { panic!("it has one") };
        assert_eq!(closed.spread, None);
    }
    let odd = |spread: Spread| receive(with(encode(&spreading(spread)))).unwrap_err().reason;
    let refused = odd(Spread { locality: locality(Prefer::Zone, 99), ..Spread::default() });
    assert_eq!(refused, "spread.locality: what endpoints carry is not 99 % of their part that is in");
    for slow_start in [slow(0, 10), slow(1, 0), slow(1, 101)] {
        let refused = odd(Spread { slow_start, ..Spread::default() });
        assert_eq!(refused, "spread.slow_start: a weight grows from 1 to 100 % of itself on, and that takes time");
    }
    let refused = odd(Spread { panic_percent: 101, ..Spread::default() });
    assert_eq!(refused, "spread.panic_percent: 101 is more than a hundred");
    // Shares of places have a capability of their own.
    let shares = |from: &str, percent| {
        let share = |place: &str, percent| PlaceShare { place: place.to_owned(), percent };
        vec![PlaceShares { from: from.to_owned(), to: vec![share("eu/a", 80), share("eu/b", percent)] }]
    };
    let of = |panic_percent| spreading(Spread { panic_percent, shares: shares("eu", 20), ..Spread::default() });
    let envelope = encode(&of(0));
    assert_eq!(envelope.requires, [ENDPOINT_PORTS, SPREAD, PLACE_SHARES]);
    assert_eq!(receive(with(envelope)).unwrap().delta.upserts.last(), Some(&of(0)));
    assert_eq!(of(0).without_preferences(), Some(Object::Service(plain.clone())));
    let rest = spreading(Spread { panic_percent: 9, ..Spread::default() });
    assert_eq!(of(9).without_preferences(), Some(rest));
    for (from, percent) in [("eu", 21), ("eu/a/1/x", 20), ("", 20), ("eu//a", 20)] {
        let refused = odd(Spread { shares: shares(from, percent), ..Spread::default() });
        assert!(refused.starts_with("spread.shares: from "), "{refused}");
    }
}

/// Checks and rates come with a capability of their own: who lacks it gets the other settings.
#[test]
fn checks_of_health_are_sent_to_those_who_know_them() {
    use super::super::HEALTH_CHECKS;
    use crate::bundle::{HealthCheck, HealthProbe, HttpProbe, Outliers, StatusRange, SuccessRate, Traffic};
    let Object::Service(plain) = everything().remove(2) else { panic!("the services are third") };
    let outliers = |success_rate| Outliers {
        consecutive_5xx: 5,
        consecutive_gateway_errors: 0,
        consecutive_local_failures: 3,
        interval_ms: 10_000,
        ejection_ms: 30_000,
        longest_ms: 300_000,
        most_percent: 10,
        success_rate,
    };
    let with_traffic = |health_check, success_rate| {
        let traffic = Traffic {
            policy: name("shop/p"),
            balancing: Default::default(),
            outliers: Some(outliers(success_rate)),
            health_check,
            limits: None,
            request_timeout_ms: Some(9),
            attempt_timeout_ms: None,
            stream_timeout_ms: None,
            retry: None,
            hedge: None,
        };
        Object::Service(Service { traffic: Some(Box::new(traffic)), ..plain.clone() })
    };
    let check = |probe| HealthCheck { probe, port: Some(80), interval_ms: 5, timeout_ms: 4, unhealthy: 3, healthy: 2 };
    let http = |path: &str, host: Option<&str>, to| {
        let statuses = vec![StatusRange { from: 200, to }];
        check(HealthProbe::Http(HttpProbe { path: path.to_owned(), host: host.map(str::to_owned), statuses }))
    };
    let rates = |minimum_hosts| SuccessRate { minimum_hosts, request_volume: 9, stdev_thousandths: 1_900 };
    let without = with_traffic(None, None);
    for sent in [
        with_traffic(Some(http("/healthz?full", Some("web.example"), 299)), None),
        with_traffic(Some(check(HealthProbe::Grpc("shop.Cart".to_owned()))), Some(rates(5))),
        with_traffic(Some(check(HealthProbe::Tcp)), None),
        with_traffic(None, Some(rates(5))),
    ] {
        let envelope = encode(&sent);
        assert_eq!(envelope.requires, [ENDPOINT_PORTS, TRAFFIC_POLICY, HEALTH_CHECKS]);
        assert_eq!(receive(with(envelope)).unwrap().delta.upserts.last(), Some(&sent));
        assert_eq!(sent.without_preferences().as_ref(), Some(&without));
    }
    let refused = |sent: &Object| receive(with(encode(sent))).unwrap_err().reason;
    let odd = |check| refused(&with_traffic(Some(check), None));
    assert_eq!(odd(http("healthz", None, 299)), "traffic.health_check: \"healthz\" is no path in normal form");
    assert_eq!(odd(http("/a/../b", None, 299)), "traffic.health_check: \"/a/../b\" is no path in normal form");
    assert_eq!(odd(http("/", Some("a b"), 299)), "traffic.health_check: \"a b\" is no host");
    assert_eq!(odd(http("/", None, 199)), "traffic.health_check: statuses of answers are 200 to 599, the lower first");
    let service = check(HealthProbe::Grpc("a/b".to_owned()));
    assert_eq!(odd(service), "traffic.health_check: \"a/b\" is no name of a gRPC service");
    let never = HealthCheck { healthy: 0, ..check(HealthProbe::Tcp) };
    assert_eq!(odd(never), "traffic.health_check: a check takes time, and a row has a length");
    let nobody = refused(&with_traffic(None, Some(rates(0))));
    assert_eq!(nobody, "traffic.outliers: 0 endpoints or requests are nothing to compare");
}

/// What a rule prefers comes with a capability: who lacks it gets the rule without.
#[test]
fn what_rules_send_again_is_sent_to_those_who_know_it() {
    use super::super::{ROUTE_RETRIES, SESSION_PERSISTENCE};
    use crate::bundle::{Persistence, Retry, Route, RouteAction, RouteRule, SessionToken};
    let Object::Route(plain) = everything().remove(3) else { panic!("the routes are fourth") };
    let with_actions = |preferences: Vec<RouteAction>| {
        let rules = plain.rules.iter().map(|rule| RouteRule {
            actions: rule.actions.iter().cloned().chain(preferences.clone()).collect(),
            ..rule.clone()
        });
        Object::Route(Route { rules: rules.collect(), ..plain.clone() })
    };
    let retry = Retry {
        codes: vec![400, 599],
        grpc_codes: vec![1, 16],
        attempts: Some(0),
        backoff_ms: Some(1),
        any_method: true,
    };
    let cookie = |path: &str| SessionToken::Cookie { path: path.to_owned(), permanent: true };
    let session = |name: &str, by: SessionToken, absolute_ms: Option<u64>| {
        RouteAction::Persistence(Persistence { name: name.to_owned(), by, absolute_ms, idle_ms: Some(1) })
    };
    for (preference, capability) in [
        (RouteAction::AttemptTimeoutMs(5), ROUTE_RETRIES),
        (RouteAction::Retry(retry), ROUTE_RETRIES),
        (RouteAction::Retry(Retry::default()), ROUTE_RETRIES),
        (session("Sid", cookie("/v2"), Some(1)), SESSION_PERSISTENCE),
        (session("x-sid", SessionToken::Header, None), SESSION_PERSISTENCE),
    ] {
        let route = with_actions(vec![preference]);
        let envelope = encode(&route);
        assert_eq!(envelope.requires, [capability]);
        assert_eq!(receive(vec![envelope]).unwrap().delta.upserts, std::slice::from_ref(&route));
        assert_eq!(route.without_preferences(), Some(Object::Route(plain.clone())));
    }
    assert!(encode(&Object::Route(plain.clone())).requires.is_empty());
    let refused = |action: RouteAction| receive(vec![encode(&with_actions(vec![action]))]).unwrap_err().reason;
    for (action, why) in [
        (session("a b", cookie("/"), Some(1)), "\"a b\" is no name of a cookie or a field"),
        (session("Sid", SessionToken::Header, None), "\"Sid\" is no field name in lower case"),
        (session("Sid", cookie("/"), None), "a cookie that is kept has a time"),
        (session("Sid", cookie("/a;b"), Some(1)), "\"/a;b\" is no path of a cookie"),
        (session("Sid", cookie("/"), Some(0)), "a session takes time"),
    ] {
        let refused = refused(action);
        assert!(refused.ends_with(why), "{refused} instead of {why}");
    }
    let odd = |retry: Retry| refused(RouteAction::Retry(retry));
    let refused = odd(Retry { codes: vec![200], ..Retry::default() });
    assert!(refused.ends_with(": 200 is no status of an error"), "{refused}");
    let refused = odd(Retry { grpc_codes: vec![0], ..Retry::default() });
    assert!(refused.ends_with(": 0 is no status of a gRPC error"), "{refused}");
}

/// The same of routes of bytes, which name servers and match nothing else.
#[test]
fn routes_of_bytes_are_sent_to_those_who_know_them() {
    use super::super::{TCP_ROUTE, TLS_ROUTE};
    let Object::Route(http) = everything().remove(3) else { panic!("the routes are fourth") };
    let plain = |backend: &Backend| Backend { actions: Vec::new(), ..backend.clone() };
    let backends = http.rules[0].backends.iter().map(plain).collect();
    let rules = vec![RouteRule { name: None, matches: vec![], actions: vec![], backends }];
    let of = |kind: RouteKind, hostnames: &[&str], rules: &[RouteRule]| {
        let hostnames = hostnames.iter().map(|name| (*name).to_owned()).collect();
        let name = kind.at_parent(&name("shop/r"), 0);
        Object::Route(Route { name, kind, hostnames, rules: rules.to_vec(), ..http.clone() })
    };
    let kinds = [
        (RouteKind::Tls, vec!["a.b", "*.c"], TLS_ROUTE),
        (RouteKind::Tls, Vec::new(), TLS_ROUTE),
        (RouteKind::Tcp, Vec::new(), TCP_ROUTE),
    ];
    for (kind, hostnames, capability) in kinds {
        let route = of(kind, &hostnames, &rules);
        let envelope = encode(&route);
        assert_eq!(envelope.requires, [capability]);
        assert_eq!(receive(with(envelope)).unwrap().delta.upserts.last(), Some(&route));
        let closed = route.closed().unwrap();
        let payload = String::from_utf8_lossy(&encode(&closed).payload).into_owned();
        assert!(encode(&closed).requires.is_empty() && !payload.contains("kind") && !payload.contains("hostnames"));
    }
    let refused = |object: Object| receive(with(encode(&object))).unwrap_err().reason;
    assert_eq!(refused(of(RouteKind::Tcp, &["a.b"], &rules)), "hostnames: server names are of a TLSRoute");
    assert_eq!(refused(of(RouteKind::Tls, &["A.b"], &rules)), "hostnames: \"A.b\" is no name of a server");
    let matching = [RouteRule { matches: vec![RouteMatch::default()], ..rules[0].clone() }];
    assert_eq!(refused(of(RouteKind::Tcp, &[], &matching)), "rules: nothing of a connection is matched or changed");
}

/// Who lacks the capability gets the route closed, as a route of the kind that every release knows.
#[test]
fn a_grpcroute_is_sent_to_those_who_know_it_and_closed_to_others() {
    use crate::bundle::RpcMatch;
    let Object::Route(http) = everything().remove(3) else { panic!("the routes are fourth") };
    let calls = |service: Option<&str>, method: Option<&str>, regex| {
        let [service, method] = [service, method].map(|text| text.map(str::to_owned));
        let path = Some(PathMatch::Rpc(RpcMatch { service, method, regex }));
        let matches = vec![RouteMatch { path, ..RouteMatch::default() }];
        let rules = vec![RouteRule { matches, ..http.rules[0].clone() }];
        Object::Route(Route { name: name("shop/r#grpc1"), kind: RouteKind::Grpc, rules, ..http.clone() })
    };
    let checked = [
        calls(Some("shop.Cart"), Some("Add"), false),
        calls(Some("shop.*"), None, true),
        calls(None, Some("Add(All)?"), true),
        calls(None, None, false),
    ];
    for route in checked {
        let envelope = encode(&route);
        assert_eq!(envelope.requires, [GRPC_ROUTE]);
        assert_eq!(receive(with(envelope)).unwrap().delta.upserts.last(), Some(&route));
        let closed = route.closed().unwrap();
        let (envelope, Object::Route(form)) = (encode(&closed), &closed) else { panic!("{closed:?}") };
        assert_eq!((envelope.requires.len(), closed.key()), (0, route.key()));
        assert_eq!((form.kind, &form.rules), (RouteKind::Http, &vec![RouteRule::refusing()]));
        assert!(!String::from_utf8_lossy(&envelope.payload).contains("kind"), "no release before knows the field");
    }
    assert!(!String::from_utf8_lossy(&encode(&everything()[3]).payload).contains("kind"));
    let refused = receive(with(encode(&calls(None, Some("("), true)))).unwrap_err();
    assert!(refused.reason.starts_with("rules[0].matches[0].path: \"(\" is no regular expression"), "{refused:?}");
}

/// A preference of a service, that comes off alone.
#[test]
fn hedging_is_asked_of_those_who_know_it() {
    use super::super::HEDGING;
    use crate::bundle::{Balancing, Hedge, Traffic};
    let Object::Service(plain) = everything().remove(2) else { panic!("the services are third") };
    let service = |hedge: Option<Hedge>| {
        let traffic = Traffic {
            policy: name("shop/p"),
            balancing: Balancing::RoundRobin,
            outliers: None,
            health_check: None,
            limits: None,
            request_timeout_ms: None,
            attempt_timeout_ms: None,
            stream_timeout_ms: None,
            retry: None,
            hedge,
        };
        Object::Service(Service { traffic: Some(Box::new(traffic)), ..plain.clone() })
    };
    let hedge = |after_ms| Some(Hedge { after_ms, any_method: true });
    let sent = service(hedge(95));
    let envelope = encode(&sent);
    assert_eq!(envelope.requires.last().map(String::as_str), Some(HEDGING));
    assert_eq!(receive(vec![envelope]).unwrap().delta.upserts, std::slice::from_ref(&sent));
    assert_eq!(sent.without_preferences(), Some(service(None)));
    assert!(!encode(&service(None)).requires.contains(&HEDGING.to_owned()));
    let refused = receive(vec![encode(&service(hedge(0)))]).unwrap_err().reason;
    assert!(refused.ends_with("traffic.hedge: the first attempt has some time for itself"), "{refused}");
}

/// A preference of services and ExternalServices, that comes off alone.
#[test]
fn a_time_of_streams_is_told_to_those_who_know_it() {
    use super::super::STREAM_TIMEOUT;
    use crate::bundle::{Balancing, Traffic};
    let Object::Service(plain) = everything().remove(2) else { panic!("the services are third") };
    let service = |stream_timeout_ms: Option<u64>| {
        let traffic = Traffic {
            policy: name("shop/p"),
            balancing: Balancing::RoundRobin,
            outliers: None,
            health_check: None,
            limits: None,
            request_timeout_ms: Some(9),
            attempt_timeout_ms: None,
            stream_timeout_ms,
            retry: None,
            hedge: None,
        };
        Object::Service(Service { traffic: Some(Box::new(traffic)), ..plain.clone() })
    };
    // Of none, too: it keeps another level's off.
    for ms in [0, 3_600_000] {
        let sent = service(Some(ms));
        let envelope = encode(&sent);
        assert_eq!(envelope.requires.last().map(String::as_str), Some(STREAM_TIMEOUT));
        assert_eq!(receive(vec![envelope]).unwrap().delta.upserts, std::slice::from_ref(&sent));
        assert_eq!(sent.without_preferences(), Some(service(None)));
    }
    let without = encode(&service(None));
    assert!(!without.requires.contains(&STREAM_TIMEOUT.to_owned()));
    assert!(!String::from_utf8_lossy(&without.payload).contains("stream_timeout"), "no release before knows the field");
}

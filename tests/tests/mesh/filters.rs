//! What filters of contract 0.2 do to requests between two proxies: bodies judged whole and by chunk, trailers, resets,
//! answers of services, and the answers that the proxies make themselves.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use weft_policy::bundle::{
    AttachedRule, Backend, Balancing, CalloutGrant, CalloutService, Direction, Grant, GrantedSecret, KvGrant, KvScope,
    ObjectName, PathMatch, Protocol, Retry, Revision, Route, RouteKind, RouteMatch, RouteRule, SecretGrant, Traffic,
};
use weft_policy::secret::SecretBytes;
use weft_tests::app::bytes;
use weft_tests::client::{empty, full, raw, tunnel, with_trailers};
use weft_tests::{App, Client};

use super::in_process::{Filter, Of, Pair, attach, attach_all, attach_claims, attach_with};

fn on(direction: Direction, component: &'static str, config: &'static str) -> Filter {
    Filter { component, direction, config, authorization: false }
}

/// Lets a filter ask the service `name`, which is this port of the callee's workload.
fn callout(name: &str, port: u16) -> Grant {
    let authority = Some(format!("origin.default.svc.cluster.local:{port}"));
    Grant::Callout(CalloutGrant { services: vec![CalloutService { name: name.to_owned(), authority }] })
}

/// Judges bodies whole: JSON that has a user.
const GUARD: &str = r#"{"max_bytes": 1000, "json": {"required": ["user"]}}"#;
const GOOD: &str = r#"{"user": 1}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_judged_before_the_app_sees_a_byte_of_it() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let app = App::start("one", pair.origin, 8080).await;
    for (of, direction) in [(Of::Origin, Direction::Inbound), (Of::Caller, Direction::Outbound)] {
        attach(&pair, of, on(direction, "body-guard", GUARD));
        for is_multiplexed in [false, true] {
            let post = async |body| {
                let mut client = match is_multiplexed {
                    true => Client::h2_in_tunnel(pair.proxy(), "origin:8080").await,
                    false => Client::h1_in_tunnel(pair.proxy(), "origin:8080").await,
                };
                client.call(Method::POST, "/echo", &[], body).await.expect("an answer")
            };
            assert_eq!(post(full(GOOD)).await.text(), GOOD);
            let served = app.served();
            // The last one does not say how long it is.
            for (body, expect) in [(full("no JSON"), 400), (full(vec![b' '; 1_001]), 413), (bytes(3_000), 413)] {
                assert_eq!(post(body).await.status.as_u16(), expect, "{of:?}, multiplexed: {is_multiplexed}");
            }
            assert_eq!(app.served(), served, "{of:?}: the app saw none of them");
        }
        attach_all(&pair, of, &[]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_to_be_told_sends_what_is_gathered() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let _app = App::start("one", pair.origin, 8080).await;
    attach(&pair, Of::Caller, on(Direction::Outbound, "body-guard", GUARD));
    let mut stream = tunnel(pair.proxy(), "origin:8080").await;
    let head = format!(
        "POST /echo HTTP/1.1\r\nhost: origin:8080\r\nexpect: 100-continue\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        GOOD.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut told = [0; 25];
    stream.read_exact(&mut told).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&told), "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(GOOD.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(GOOD), "{answer}");

    // One that would be too long is not asked for.
    let head = "POST http://origin:8080/ HTTP/1.1\r\nhost: origin:8080\r\nexpect: 100-continue\r\ncontent-length: 2000\r\n\r\n";
    let answer = raw(pair.proxy(), head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gathered_has_a_budget_and_a_time() {
    // A caller has three quarters of it.
    let limits = json!({"filter_bodies": 88_000, "filter_body_timeout_ms": 300});
    let pair = Pair::start_limited(&[(8080, Protocol::Http)], &limits);
    let _app = App::start("one", pair.origin, 8080).await;
    attach(
        &pair,
        Of::Origin,
        on(Direction::Inbound, "body-guard", r#"{"max_bytes": 1000000, "forbidden": ["never"]}"#),
    );
    let mut client = Client::h2_in_tunnel(pair.proxy(), "origin:8080").await;
    assert_eq!(client.post("/digest", vec![b'x'; 60_000]).await.text(), "60000");
    assert_eq!(client.post("/digest", vec![b'x'; 70_000]).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(client.post("/digest", vec![b'x'; 60_000]).await.text(), "60000", "what was held came back");
    assert_eq!(pair.shared(Of::Origin).filter_bodies.used(), 0);

    let mut slow = tunnel(pair.proxy(), "origin:8080").await;
    let head = b"POST /digest HTTP/1.1\r\nhost: origin:8080\r\ncontent-length: 10\r\nconnection: close\r\n\r\nhalf";
    slow.write_all(head).await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

/// A filter that was entered sees each answer: the app's, those of filters behind it, and those of the proxy itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_else_gave_pass_the_filters_that_were_entered() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let _app = App::start("one", pair.origin, 8080).await;
    let mark = r#"{"response": {"set": [{"name": "x-mark", "value": "1"}]}}"#;
    let abort = r#"{"abort": {"status": 418, "headers": [{"name": "x-abort"}]}}"#;
    for (of, direction) in [(Of::Origin, Direction::Inbound), (Of::Caller, Direction::Outbound)] {
        let (mark, abort) = (on(direction, "header-edit", mark), on(direction, "fault", abort));
        for (filters, of_abort) in [([mark, abort], "1"), ([abort, mark], "")] {
            attach_all(&pair, of, &filters);
            let mut client = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await;
            assert_eq!(client.get("/who").await.header("x-mark"), "1", "{of:?}");
            let aborted = client.get_with("/who", &[("x-abort", "1")]).await;
            assert_eq!((aborted.status.as_u16(), aborted.header("x-mark")), (418, of_abort), "{of:?}");
        }
        attach_all(&pair, of, &[]);
    }
    let ready = attach_with(&pair, Of::Caller, &[on(Direction::Outbound, "header-edit", mark)], |_| {});
    pair.change(Of::Caller, &ready, |bundle| bundle.services.values_mut().for_each(|it| it.endpoints.clear()));
    let answer = Client::through(pair.proxy(), "origin:8080").await.get("/who").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-mark")), (503, "1"));
}

/// Requests below `/buy` take the rule `buy`, all others one without a name.
fn route() -> Route {
    let origin = ObjectName::new("default", "origin");
    let rule = |name: Option<&str>, path: Option<&str>| RouteRule {
        name: name.map(str::to_owned),
        matches: path
            .map(|path| RouteMatch { path: Some(PathMatch::Prefix(path.to_owned())), ..RouteMatch::default() })
            .into_iter()
            .collect(),
        actions: Vec::new(),
        backends: vec![Backend {
            service: Some(origin.clone()),
            port: 8080,
            weight: 1,
            outside: false,
            actions: Vec::new(),
        }],
    };
    Route {
        name: ObjectName::new("default", "r"),
        kind: RouteKind::Http,
        parent: origin.clone(),
        outside: false,
        parent_port: None,
        consumer_namespace: None,
        hostnames: Vec::new(),
        created: Revision(1),
        rules: vec![rule(Some("buy"), Some("/buy")), rule(None, None)],
    }
}

/// A filter that the policy attaches to a rule runs for the requests that take it, and its permit is theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_of_a_rule_sees_no_other_request() {
    let pair = Pair::start_with(&[(8080, Protocol::Http)], |of, bundle| {
        if of == Of::Caller {
            bundle.routes.insert(route().name, route());
        }
    });
    let app = App::start("one", pair.origin, 8080).await;
    let attached = |filter: Filter, rule: Option<&str>| {
        let rule = rule.map(str::to_owned);
        attach_with(&pair, Of::Caller, &[filter], |it| {
            it.rules = vec![AttachedRule { kind: RouteKind::Http, route: route().name, rule: rule.clone() }];
        });
    };
    let mark = r#"{"request": {"set": [{"name": "x-asked", "value": "1"}]}, "response": {"set": [{"name": "x-mark", "value": "1"}]}}"#;
    let marked = async |path: &str| {
        let answer = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await.get_with(path, &[("x-show", "1")]).await;
        (answer.header("x-mark") == "1", answer.text().contains("x-asked"))
    };
    for (rule, buy, other) in [(Some("buy"), true, false), (None, true, true), (Some("sell"), false, false)] {
        attached(on(Direction::Outbound, "header-edit", mark), rule);
        assert_eq!((marked("/buy/it").await, marked("/who").await), ((buy, buy), (other, other)), "{rule:?}");
    }
    let abort = r#"{"abort": {"status": 418, "headers": [{"name": "x-show"}]}}"#;
    attached(on(Direction::Outbound, "fault", abort), Some("buy"));
    let served = app.served();
    let mut client = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await;
    assert_eq!(client.get_with("/buy/it", &[("x-show", "1")]).await.status.as_u16(), 418);
    assert_eq!(app.served(), served);
    assert_eq!(client.get_with("/who", &[("x-show", "1")]).await.status.as_u16(), 200);
}

fn hostile(direction: Direction, config: &'static str) -> Filter {
    on(direction, "hostile2", config)
}

/// Modes of the test component, which `dataplane/filter-host/tests/hostile2` describes.
const UPPER_CASE: &str = r#"{"mode": "body-upper-case"}"#;
const RESET_IN_BODY: &str = r#"{"mode": "reset-in-body"}"#;
const TRAILERS: &str = r#"{"mode": "edit-trailers"}"#;
const ASK: &str = r#"{"mode": "ask"}"#;
const ASK_TWO: &str = r#"{"mode": "ask-two"}"#;
const SIGN: &str = r#"{"mode": "sign"}"#;
const EXTAUTH: &str = r#"{"service": "quota", "timeout_ms": 200}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_are_changed_on_their_way_and_have_no_length_before() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let _app = App::start("one", pair.origin, 8080).await;
    for (of, direction) in [(Of::Origin, Direction::Inbound), (Of::Caller, Direction::Outbound)] {
        attach(&pair, of, hostile(direction, UPPER_CASE));
        let mut client = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await;
        let answer = client.post("/echo", "to and fro").await;
        assert_eq!((&*answer.text(), answer.header("content-length")), ("TO AND FRO", ""), "{of:?}");
        let mut client = Client::h2_in_tunnel(pair.proxy(), "origin:8080").await;
        assert_eq!(client.post("/digest", vec![b'x'; 300_000]).await.text(), "300000");
        let mut client = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await;
        assert_eq!(client.call(Method::HEAD, "/bytes/10", &[], empty()).await.unwrap().body.len(), 0);
        attach_all(&pair, of, &[]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_a_filter_resets_never_looks_complete() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let _app = App::start("one", pair.origin, 8080).await;
    for (of, direction) in [(Of::Origin, Direction::Inbound), (Of::Caller, Direction::Outbound)] {
        attach(&pair, of, hostile(direction, RESET_IN_BODY));
        for body in [full("a body"), empty()] {
            let mut client = Client::h2_in_tunnel(pair.proxy(), "origin:8080").await;
            let answer = client.call(Method::POST, "/bytes/300000", &[], body).await;
            assert!(answer.is_err(), "{of:?}: {answer:?}");
        }
        attach_all(&pair, of, &[]);
    }
    let mut client = Client::h2_in_tunnel(pair.proxy(), "origin:8080").await;
    assert_eq!(client.get("/bytes/300000").await.body.len(), 300_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_pass_the_filters() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let _app = App::start("one", pair.origin, 8080).await;
    attach(&pair, Of::Caller, hostile(Direction::Outbound, TRAILERS));
    let answer = Client::h2_in_tunnel(pair.proxy(), "origin:8080").await.get("/trailers").await;
    let trailers = answer.trailers.expect("trailers");
    assert_eq!((&trailers["x-sum"], &trailers["x-filter"]), (&"42".parse().unwrap(), &"seen".parse().unwrap()));
}

/// The filter asks `quota` for the path that `x-ask` names, waits 300 ms, takes 1,000 bytes, and lets pass what is answered 200;
/// everything else it answers 403.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_decides_whether_a_request_passes() {
    let pair = Pair::start(&[(8080, Protocol::Http), (8081, Protocol::Http), (8082, Protocol::Http)]);
    let (app, quota) = (App::start("one", pair.origin, 8080).await, App::start("quota", pair.origin, 8081).await);
    let grant = |port: u16| vec![callout("quota", port)];
    for (of, direction) in [(Of::Caller, Direction::Outbound), (Of::Origin, Direction::Inbound)] {
        attach_with(&pair, of, &[hostile(direction, ASK)], |it| {
            it.grants = grant(8081);
            it.contract = "wit-0.2".to_owned();
        });
        let mut client = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await;
        let (served, asked) = (app.served(), quota.served());
        for (ask, expect) in [("/status/200", 200), ("/status/403", 403), ("/slow/60000", 403), ("/bytes/100000", 403)]
        {
            let answer = client.get_with("/who", &[("x-ask", ask)]).await;
            assert_eq!(answer.status.as_u16(), expect, "{of:?} {ask}: {}", answer.text());
        }
        assert_eq!(app.served(), served + 1, "{of:?}: it saw the one that passed");
        assert!(quota.served() > asked, "{of:?}");
        // Nobody listens there.
        attach_with(&pair, of, &[hostile(direction, ASK)], |it| {
            it.grants = grant(8082);
            it.contract = "wit-0.2".to_owned();
        });
        assert_eq!(client.get_with("/who", &[("x-ask", "/status/200")]).await.status, StatusCode::FORBIDDEN, "{of:?}");
        assert_eq!(pair.shared(of).filter_callouts.used(), 0, "{of:?}");
        attach_all(&pair, of, &[]);
    }
    // The second answer to the first filter comes while the other one waits, and is none to that.
    let both = [hostile(Direction::Outbound, ASK_TWO), on(Direction::Outbound, "extauth", EXTAUTH)];
    attach_with(&pair, Of::Caller, &both, |it| it.grants = grant(8081));
    let mut client = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await;
    let served = app.served();
    let answer = client.get_with("/slow/400", &[("x-ask", "/status/200")]).await;
    assert_eq!((answer.status, app.served()), (StatusCode::SERVICE_UNAVAILABLE, served), "{}", answer.text());
}

/// Answers of a service that are none, or none that ends.
fn lies() -> Vec<Vec<u8>> {
    let head = "HTTP/1.1 200 OK\r\n";
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1_000);
    [
        String::new(),
        "no HTTP at all\r\n\r\n".to_owned(),
        "HTTP/1.1 999999 OK\r\n\r\n".to_owned(),
        format!("{head}content-length: 10\r\n\r\nhalf"),
        format!("{head}content-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n"),
        format!("{head}x-large: {}\r\n\r\n", "x".repeat(200_000)),
        format!("{interim}{head}content-length: 0\r\n\r\n"),
        format!("{head}\r\n{}", "x".repeat(2_000)),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// A service that answers `/N` with the lie of that number, and nothing at all where there is none.
async fn lie(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut asked = [0; 1_024];
            let count = stream.read(&mut asked).await.unwrap_or(0);
            let asked = String::from_utf8_lossy(&asked[..count]).into_owned();
            let number = asked.split([' ', '/']).find_map(|word| word.parse::<usize>().ok());
            match number.and_then(|number| lies().into_iter().nth(number)) {
                // Who has heard enough may have gone.
                Some(lie) => _ = stream.write_all(&lie).await,
                None => while stream.read(&mut [0; 1_024]).await.is_ok_and(|count| count > 0) {},
            }
        });
    }
}

/// Whatever a service says that is no answer, in time and within the bounds that the filter set: the request does not pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_lies_lets_nothing_pass() {
    let pair = Pair::start(&[(8080, Protocol::Http), (8081, Protocol::Http)]);
    let app = App::start("one", pair.origin, 8080).await;
    let service = tokio::spawn(lie(TcpListener::bind((pair.origin, 8081)).await.unwrap()));
    for (of, direction) in [(Of::Caller, Direction::Outbound), (Of::Origin, Direction::Inbound)] {
        attach_with(&pair, of, &[hostile(direction, ASK)], |it| it.grants = vec![callout("quota", 8081)]);
        let mut client = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await;
        // The last one says nothing.
        for number in 0..=lies().len() {
            let path = format!("/{number}");
            let answer = client.get_with("/who", &[("x-ask", path.as_str())]).await;
            let (status, text) = (answer.status.as_u16(), answer.text());
            assert!(status == 403 && !text.contains("said 200"), "{of:?}, lie {number}: {status} {text}");
        }
        assert_eq!((app.served(), pair.shared(of).filter_callouts.used()), (0, 0), "{of:?}");
        attach_all(&pair, of, &[]);
    }
    service.abort();
}

/// What a filter says by a secret changes with that, under the same connection; and what the proxy tells of itself
/// names no value. Without a grant it is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_signs_with_its_secret_of_today() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let _app = App::start("one", pair.origin, 8080).await;
    let mut client = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await;
    let mut seen = async || client.get_with("/who", &[("x-show", "1")]).await.text();
    let grant = |key: Option<&str>| {
        let values = |name: &str| {
            let value = |key: &str| GrantedSecret { name: name.to_owned(), value: SecretBytes::new(key.as_bytes()) };
            SecretGrant { values: key.into_iter().map(value).collect() }
        };
        attach_with(&pair, Of::Caller, &[hostile(Direction::Outbound, SIGN)], |it| {
            it.capabilities = vec!["crypto".to_owned()];
            it.grants = vec![Grant::Secret(values("token")), Grant::CryptoKeys(values("sig"))];
        });
    };
    for (key, expect) in [
        //= rfc4231#section-4.3
        ("Jefe", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        ("another one", "2f2c4f1fd01f668c82dc405c8bf9053973626c35519bb79b15d8b007b8ef497b"),
    ] {
        grant(Some(key));
        let seen = seen().await;
        assert!(seen.contains(expect), "{seen}");
        let snapshot = pair.shared(Of::Caller).snapshot.load_full().expect("a configuration");
        let told = serde_json::to_string(&snapshot.bundle.filters).expect("JSON") + &format!("{:?}", snapshot.bundle);
        assert!(told.contains("redacted (") && !told.contains(key), "{told}");
    }
    grant(None);
    assert!(seen().await.contains("does not grant"));
}

/// The service speaks gRPC: its trailers say whether it answered at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_of_envoy_s_decides_over_grpc() {
    let pair = Pair::start(&[(8080, Protocol::Http), (8081, Protocol::Http)]);
    let app = App::start("one", pair.origin, 8080).await;
    let service = App::start("auth", pair.origin, 8081).await;
    let config = r#"{"service": "auth", "protocol": "grpc", "allowed_headers": ["x-user"]}"#;
    // At the callee it would judge its own questions, which are to a port of the same workload.
    attach_with(&pair, Of::Caller, &[on(Direction::Outbound, "extauth", config)], |it| {
        it.grants = vec![callout("auth", 8081)];
    });
    let mut client = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await;
    let seen = client.get_with("/seen", &[("x-user", "forged")]).await;
    let user = |text: &str| text.contains(r#"["x-user","ada"]"#) && !text.contains("forged");
    assert!(seen.status == StatusCode::OK && user(&seen.text()), "{}", seen.text());
    let served = app.served();
    let denied = client.get("/deny").await;
    assert_eq!((denied.status.as_u16(), &*denied.text()), (401, "no"));
    service.fail(500);
    assert_eq!(client.get("/seen").await.status, StatusCode::SERVICE_UNAVAILABLE);
    service.fail(0);
    assert_eq!(app.served(), served);
}

/// A provider of keys, which tells what `keys` says and counts how often.
fn provider(listener: TcpListener, keys: Arc<Mutex<String>>, asked: Arc<AtomicUsize>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 8_192];
            // A connection that carries nothing asks nothing.
            if !stream.read(&mut head).await.is_ok_and(|count| count > 0) {
                continue;
            }
            asked.fetch_add(1, Ordering::SeqCst);
            let body = keys.lock().unwrap().clone();
            let answer =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            _ = stream.write_all(answer.as_bytes()).await;
        }
    })
}

const TOKENS: &str =
    r#"{"providers": [{"issuer": "https://issuer.test", "jwks": {"callout": "quota", "path": "/jwks.json"}}]}"#;

/// Keys come from a service of the mesh, once for all requests; a new one is noticed by a token of it, and the last
/// ones count while the service is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_tokens_are_fetched_and_follow_their_provider() {
    let pair = Pair::start(&[(8080, Protocol::Http), (8081, Protocol::Http)]);
    let app = App::start("one", pair.origin, 8080).await;
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../../filters/jwt/vectors.json")).expect("JSON");
    let document = |key: usize| json!({"keys": [vectors["config"]["keys"][key]]}).to_string();
    let (keys, asked) = (Arc::new(Mutex::new(document(2))), Arc::new(AtomicUsize::new(0)));
    let listener = TcpListener::bind((pair.origin, 8081)).await.unwrap();
    let idp = provider(listener, Arc::clone(&keys), Arc::clone(&asked));
    attach_with(&pair, Of::Caller, &[on(Direction::Outbound, "jwt", TOKENS)], |it| {
        it.capabilities = vec!["crypto".to_owned()];
        let kv = KvGrant { entries: 64, bytes: 1 << 20, scope: KvScope::Policy };
        it.grants = vec![Grant::Kv(kv), callout("quota", 8081)];
    });
    let ask = async |algorithm: &str| {
        let bearer = format!("Bearer {}", vectors["tokens"][algorithm].as_str().expect("text"));
        let mut client = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await;
        let answer = client.get_with("/who", &[("authorization", bearer.as_str())]).await;
        (answer.status.as_u16(), asked.load(Ordering::SeqCst))
    };
    let many = futures_util::future::join_all((0..4).map(|_| ask("EdDSA"))).await;
    assert_eq!(many.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200; 4]);
    assert_eq!(ask("EdDSA").await, (200, 1), "one fetched for all");
    *keys.lock().unwrap() = document(1);
    assert_eq!(ask("ES256").await, (200, 2), "the new key");
    let served = app.served();
    assert_eq!((ask("EdDSA").await, app.served()), ((401, 2), served), "the old one is none any more");
    idp.abort();
    _ = idp.await;
    assert_eq!(ask("ES256").await, (200, 2));
}

/// What a token says decides, as the filter that checked it tells it to the rules behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_ask_for_the_claims_of_a_token() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let _app = App::start("one", pair.origin, 8080).await;
    let ask = async |allowed: &str, denied: &str| {
        let bearer = attach_claims(&pair, allowed, denied);
        let mut client = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await;
        let with = client.get_with("/who", &[("authorization", bearer.as_str())]).await;
        (with.status.as_u16(), client.get_with("/who", &[]).await.status.as_u16())
    };
    assert_eq!(ask("admin", "eve").await, (200, 403));
    assert_eq!(ask("dev", "eve").await, (200, 403), "any member will do");
    assert_eq!(ask("admin,dev", "eve").await, (403, 403), "a list is none of its members");
    assert_eq!(ask("admin", "ada").await, (403, 403), "a deny rule comes first");
}

/// An answer that broke off while a filter gathered it is not the one that it judges: that comes by the next attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_of_a_further_attempt_is_judged_too() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let listener = TcpListener::bind((pair.origin, 8080)).await.unwrap();
    let app = tokio::spawn(async move {
        for answer in ["content-length: 10\r\n\r\nhalf", "content-length: 6\r\n\r\nunseen"] {
            let mut head = vec![0; 8_192];
            let mut stream = loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                // A connection that carries nothing is none of an attempt.
                if stream.read(&mut head).await.is_ok_and(|count| count > 0) {
                    break stream;
                }
            };
            let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{answer}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let filter = hostile(Direction::Outbound, r#"{"mode": "body-check-response"}"#);
    let ready = attach_with(&pair, Of::Caller, &[filter], |_| {});
    let retry = Traffic {
        policy: ObjectName::new("default", "retry"),
        balancing: Balancing::default(),
        outliers: None,
        health_check: None,
        limits: None,
        request_timeout_ms: None,
        attempt_timeout_ms: None,
        stream_timeout_ms: None,
        retry: Some(Retry { attempts: Some(1), ..Retry::default() }),
        hedge: None,
    };
    pair.change(Of::Caller, &ready, |bundle| {
        bundle.services.values_mut().for_each(|service| service.traffic = Some(Box::new(retry.clone())));
    });
    let answer = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await.get("/").await;
    assert_eq!((answer.status, &*answer.text()), (StatusCode::OK, "checked"));
    app.await.expect("both attempts came");
}

/// By whichever way an app's request comes in: the mesh's own fields are the mesh's, in heads and in trailers. The mark of a
/// callout, which this filter asks about, is no way past it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_app_says_what_only_proxies_say() {
    let pair = Pair::start(&[(8080, Protocol::Auto), (8081, Protocol::Http)]);
    let (_app, quota) = (App::start("one", pair.origin, 8080).await, App::start("quota", pair.origin, 8081).await);
    attach_with(&pair, Of::Origin, &[hostile(Direction::Inbound, ASK)], |it| it.grants = vec![callout("quota", 8081)]);
    let said = [
        ("weft-callout", "1"),
        ("weft_callout", "1"),
        ("weft-mirrored", "1"),
        ("weft-attempt", "9"),
        ("weft_attempt", "9"),
        // Nothing would be left.
        ("weft-answer-ms", "0"),
        ("weft-no-host", "1"),
        ("weft-source", "liar"),
        ("weft-dst", "127.0.0.1:1"),
        ("weft-of-tomorrow", "1"),
    ];
    let plain = [&said[..], &[("x-ask", "/status/200")]].concat();
    let grpc = [&plain[..], &[("content-type", "application/grpc"), ("te", "trailers")]].concat();
    let proxy = pair.proxy();
    let ways = [
        ("explicit, HTTP/1.1", Client::through(proxy, "origin:8080").await, &plain),
        ("explicit, HTTP/2", Client::h2_through(proxy, "origin:8080").await, &plain),
        ("tunnel, HTTP/1.1", Client::h1_in_tunnel(proxy, "origin:8080").await, &plain),
        ("tunnel, HTTP/2", Client::h2_in_tunnel(proxy, "origin:8080").await, &plain),
        ("tunnel, gRPC", Client::h2_in_tunnel(proxy, "origin:8080").await, &grpc),
    ];
    for (way, mut client, fields) in ways {
        let asked = quota.served();
        let answer = client.get_with("/seen", fields).await;
        assert_eq!((answer.status, quota.served()), (StatusCode::OK, asked + 1), "{way}: {}", answer.text());
        let seen: serde_json::Value = serde_json::from_str(&answer.text()).expect("what the app was sent");
        let headers: Vec<(String, String)> = serde_json::from_value(seen["headers"].clone()).expect("its fields");
        let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        assert!(said.iter().all(|(name, _)| !names.contains(name)), "{way}: {names:?}");
    }
    for mut client in [Client::h2_through(proxy, "origin:8080").await, Client::h2_in_tunnel(proxy, "origin:8080").await]
    {
        let body = with_trailers("whole", &[said.as_slice(), &[("x-sum", "42")]].concat());
        let answer = client.call(Method::POST, "/echo", &[], body).await.expect("an answer");
        let trailers = answer.trailers.as_ref().expect("trailers");
        let names: Vec<_> = trailers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!((&*answer.text(), names), ("whole", vec!["x-sum"]));
    }
}

//! Connections that stand: judged again with each configuration, told to filters at their end; and ports where nothing but HTTP may
//! pass, because something is attached that holds for HTTP only.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weft_filter_host::CustomValue;
use weft_policy::bundle::{Bundle, Direction, Protocol};
use weft_tests::client::{try_tunnel, tunnel};
use weft_tests::{App, Client, TcpApp, eventually};

use super::in_process::{Filter, Of, Pair, attach, attach_all, attach_claims};

/// Says something and hears it again; false where the connection has ended.
async fn echoes(stream: &mut TcpStream) -> bool {
    let mut heard = [0; 5];
    stream.write_all(b"hello").await.is_ok() && stream.read_exact(&mut heard).await.is_ok() && heard == *b"hello"
}

async fn ends(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(weft_tests::wait::LIMIT, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok_and(|ended| ended.is_err() || rest.is_empty()), "it is cut, and nothing more comes: {rest:?}");
}

/// Marks each port of a bundle as one where an HTTP policy is attached.
fn refuse_opaque(bundle: &mut Bundle) {
    let services = bundle.services.values_mut().flat_map(|service| &mut service.ports);
    services.for_each(|port| port.opaque_refused = true);
    let workloads = bundle.workloads.values_mut().flat_map(|workload| &mut workload.ports);
    workloads.for_each(|port| port.opaque_refused = true);
}

/// An authorization that lets nobody pass whose connection leads to this port, or anybody.
fn authorization(denies: bool) -> Filter {
    let config = if denies {
        r#"{"policies": [{"name": "default/closed", "action": "Deny", "rules": [
            {"name": "tcp", "to": [{"ports": [6000]}]}, {"name": "chat", "to": [{"paths": ["/chat"]}]}]}]}"#
    } else {
        r#"{"policies": []}"#
    };
    Filter { component: "authz", direction: Direction::Inbound, config, authorization: true }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standing_tunnel_is_judged_by_each_new_policy() {
    let pair = Pair::start(&[(6000, Protocol::Tcp)]);
    let _app = TcpApp::start(pair.origin, 6000, "").await;
    attach(&pair, Of::Origin, authorization(false));
    let mut stands = tunnel(pair.proxy(), "origin:6000").await;
    assert!(echoes(&mut stands).await);
    // A configuration that denies nothing leaves it alone, as does one of the other side.
    attach(&pair, Of::Origin, authorization(false));
    pair.change(Of::Caller, &HashMap::new(), |_| {});
    assert!(echoes(&mut stands).await);
    attach(&pair, Of::Origin, authorization(true));
    ends(&mut stands).await;
    // And a new one is not let in.
    let (mut late, head) = try_tunnel(pair.proxy(), "origin:6000").await;
    assert!(!head.starts_with("HTTP/1.1 200") || !echoes(&mut late).await, "{head}");
}

/// An app that takes every request for an upgrade to `echo`, and echoes.
async fn upgrading(ip: IpAddr) -> JoinHandle<()> {
    let listener = TcpListener::bind((ip, 8080)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
                let (mut read, mut write) = stream.split();
                _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    })
}

/// Asks for the upgrade; the stream behind the answer's head, and the head.
async fn upgraded(pair: &Pair, path: &str) -> (TcpStream, String) {
    upgraded_with(pair, path, "").await
}

async fn upgraded_with(pair: &Pair, path: &str, fields: &str) -> (TcpStream, String) {
    let mut stream = tunnel(pair.proxy(), "origin:8080").await;
    let upgrade = "connection: upgrade\r\nupgrade: echo\r\n";
    let request = format!("GET {path} HTTP/1.1\r\nhost: origin:8080\r\n{upgrade}{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    (stream, String::from_utf8_lossy(&head).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standing_upgrade_is_judged_by_each_new_policy() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let app = upgrading(pair.origin).await;
    attach(&pair, Of::Origin, authorization(false));
    let ((mut denied, head), (mut other, _)) = (upgraded(&pair, "/chat").await, upgraded(&pair, "/other").await);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(echoes(&mut denied).await && echoes(&mut other).await);
    attach(&pair, Of::Origin, authorization(true));
    ends(&mut denied).await;
    assert!(echoes(&mut other).await, "no rule concerns this one");
    assert!(upgraded(&pair, "/chat").await.1.starts_with("HTTP/1.1 403"));
    app.abort();
}

/// The request that was judged is the GET; an app may take for requests what comes after its 101.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_upgrade_no_request_says_who_its_caller_is() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let app = upgrading(pair.origin).await;
    for forged in [
        &b"GET /admin HTTP/1.1\r\nhost: a\r\nx-forwarded-client-cert: URI=spiffe://a\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ] {
        let (mut stream, head) = upgraded(&pair, "/chat").await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        _ = stream.write_all(forged).await;
        ends(&mut stream).await;
    }
    let (mut stream, _) = upgraded(&pair, "/chat").await;
    let bytes = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(bytes).await.unwrap();
    let mut heard = vec![0; bytes.len()];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, bytes, "a protocol of its own may look so");
    app.abort();
}

/// An app that begins an answer to every request and goes on with it each time that it is told; or reads without an answer.
/// Each of its answers hears each word, whoever has left meanwhile.
async fn streaming(ip: IpAddr, go_on: &watch::Sender<()>) -> JoinHandle<()> {
    let (listener, go_on) = (TcpListener::bind((ip, 8080)).await.unwrap(), go_on.subscribe());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut go_on = go_on.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                if head.starts_with(b"POST") {
                    _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                    return;
                }
                let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
                while stream.write_all(b"5\r\nevent\r\n").await.is_ok() && go_on.changed().await.is_ok() {}
            });
        }
    })
}

/// Sends a request whose answer, or whose body, stands.
async fn stands(pair: &Pair, request: &str, expect: &str) -> TcpStream {
    let mut stream = tunnel(pair.proxy(), "origin:8080").await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    while !expect.is_empty() && !String::from_utf8_lossy(&read).ends_with(expect) {
        read.push(stream.read_u8().await.unwrap());
    }
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standing_request_is_judged_by_each_new_policy() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let (go_on, _) = watch::channel(());
    let app = streaming(pair.origin, &go_on).await;
    attach(&pair, Of::Origin, authorization(false));
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: origin:8080\r\n\r\n");
    let upload = "POST /chat HTTP/1.1\r\nhost: origin:8080\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let event = "5\r\nevent\r\n";
    let mut denied = stands(&pair, &get("/chat"), event).await;
    let mut other = stands(&pair, &get("/other"), event).await;
    let mut upload = stands(&pair, upload, "").await;
    eventually("all stand", || async { (pair.shared(Of::Origin).in_flight.count() == 3).then_some(()) }).await;
    attach(&pair, Of::Origin, authorization(false));
    attach(&pair, Of::Origin, authorization(true));
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(weft_tests::wait::LIMIT, denied.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the answer breaks off");
    assert!(!rest.ends_with(b"0\r\n\r\n"), "and does not look complete: {rest:?}");
    let mut answer = vec![0; 12];
    upload.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 403");
    eventually("one is left", || async { (pair.shared(Of::Origin).in_flight.count() == 1).then_some(()) }).await;
    go_on.send_replace(());
    let mut more = vec![0; event.len()];
    other.read_exact(&mut more).await.unwrap();
    assert_eq!(more, event.as_bytes(), "no rule concerns this one");
    app.abort();
}

/// What its token says is judged again, too, though the filter that checked it is not asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standing_request_is_judged_again_with_its_claims() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let (go_on, _) = watch::channel(());
    let app = streaming(pair.origin, &go_on).await;
    let bearer = attach_claims(&pair, "admin", "eve");
    let event = "5\r\nevent\r\n";
    let request = format!("GET /chat HTTP/1.1\r\nhost: origin:8080\r\nauthorization: {bearer}\r\n\r\n");
    let mut stream = stands(&pair, &request, event).await;
    attach_claims(&pair, "dev", "bob");
    // It is refused what it may not have, which shows that the policy is in force.
    let mut client = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await;
    assert_eq!(client.get("/other").await.status, 403);
    go_on.send_replace(());
    let mut more = vec![0; event.len()];
    stream.read_exact(&mut more).await.unwrap();
    assert_eq!(more, event.as_bytes(), "its roles are known");
    attach_claims(&pair, "dev", "ada");
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(weft_tests::wait::LIMIT, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok() && !rest.ends_with(b"0\r\n\r\n"), "it ends, and does not look complete: {rest:?}");
    app.abort();
}

/// A stream may stand for days, in which the configuration changes often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standing_request_keeps_no_configuration() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let (go_on, _) = watch::channel(());
    let app = streaming(pair.origin, &go_on).await;
    let held = |of| Arc::downgrade(&pair.shared(of).snapshot.load_full().expect("it serves"));
    let before = [held(Of::Caller), held(Of::Origin)];
    let event = "5\r\nevent\r\n";
    let request = "GET /events HTTP/1.1\r\nhost: origin:8080\r\n\r\n";
    let mut stream = stands(&pair, request, event).await;
    let mut upload = stands(&pair, "POST / HTTP/1.1\r\nhost: origin:8080\r\ncontent-length: 9\r\n\r\nhello", "").await;
    eventually("both stand", || async { (pair.shared(Of::Origin).in_flight.count() == 2).then_some(()) }).await;
    for of in [Of::Caller, Of::Origin] {
        pair.change(of, &HashMap::new(), |_| {});
    }
    eventually("nobody holds what was", || async { before.iter().all(|it| it.upgrade().is_none()).then_some(()) })
        .await;
    for _ in 0..2 {
        go_on.send_replace(());
        let mut more = vec![0; event.len()];
        stream.read_exact(&mut more).await.unwrap();
        assert_eq!(more, event.as_bytes(), "the stream goes on");
    }
    upload.write_all(b"last").await.unwrap();
    app.abort();
}

/// A filter made `/chat` into `/other`: that is what was let pass, and what is judged again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standing_upgrade_is_judged_by_the_head_that_its_filters_left() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let app = upgrading(pair.origin).await;
    let edits = Filter { component: "hostile", direction: Direction::Inbound, config: "", authorization: false };
    let deny = |config| attach_all(&pair, Of::Origin, &[edits, Filter { config, ..authorization(false) }]);
    deny(r#"{"policies": []}"#);
    let (mut stands, head) = upgraded_with(&pair, "/chat", "x-do: path\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(echoes(&mut stands).await);
    deny(
        r#"{"policies": [{"name": "default/a", "action": "Deny", "rules": [{"name": "r", "to": [{"paths": ["/chat"]}]}]}]}"#,
    );
    assert!(upgraded(&pair, "/chat").await.1.starts_with("HTTP/1.1 403"), "the policy is in force");
    assert!(echoes(&mut stands).await, "it is no /chat any more");
    deny(
        r#"{"policies": [{"name": "default/a", "action": "Deny", "rules": [{"name": "r", "to": [{"paths": ["/other"]}]}]}]}"#,
    );
    ends(&mut stands).await;
    app.abort();
}

/// An authorization that fails has denied nobody: what stands is judged again, and ends if it can't be for too long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_authorization_fails_on_stands_for_a_while() {
    let pair = Pair::start_limited(&[(8080, Protocol::Http)], &serde_json::json!({"standing_undecided_ms": 1_500}));
    let app = upgrading(pair.origin).await;
    let failing = Filter { component: "hostile", direction: Direction::Inbound, config: "", authorization: true };
    attach(&pair, Of::Origin, authorization(false));
    let (mut stands, head) = upgraded_with(&pair, "/other", "x-do: trap\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    attach(&pair, Of::Origin, failing);
    for _ in 0..2 {
        let (_, head) = upgraded_with(&pair, "/other", "x-do: trap\r\n").await;
        assert!(head.starts_with("HTTP/1.1 503"), "whoever comes anew is refused: {head}");
        assert!(echoes(&mut stands).await);
    }
    // Another that decides takes its place in time.
    attach(&pair, Of::Origin, authorization(false));
    assert!(upgraded(&pair, "/other").await.1.starts_with("HTTP/1.1 101"));
    assert!(echoes(&mut stands).await);
    let began = std::time::Instant::now();
    attach(&pair, Of::Origin, failing);
    ends(&mut stands).await;
    assert!(began.elapsed() >= Duration::from_millis(1_500), "not before its time: {:?}", began.elapsed());
    app.abort();
}

/// The caller's filters judge requests only: a connection that is found out to be nothing would pass them by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_request_at_an_undeclared_port_passes_no_outbound_filter() {
    let pair = Pair::start_limited(&[(8080, Protocol::Auto)], &serde_json::json!({"detect_timeout_ms": 1}));
    let app = App::start("app", pair.origin, 8080).await;
    // As long as no filter is there, what comes late is carried as bytes.
    let late = async || {
        let mut stream = tunnel(pair.proxy(), "origin:8080").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let request = b"GET /who HTTP/1.1\r\nhost: origin\r\nconnection: close\r\n\r\n";
        let mut answer = Vec::new();
        for half in request.chunks(1) {
            stream.write_all(half).await.unwrap();
        }
        _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert!(late().await.ends_with("app"));
    let config = r#"{"abort": {"status": 418, "percentage": 100}}"#;
    attach(
        &pair,
        Of::Caller,
        Filter { component: "fault", direction: Direction::Outbound, config, authorization: false },
    );
    let before = app.served();
    assert!(late().await.starts_with("HTTP/1.1 418"));
    for opaque in [&b"\x00\x01\x02 not HTTP\r\n\r\n"[..], b"\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n"] {
        let mut stream = tunnel(pair.proxy(), "origin:8080").await;
        stream.write_all(opaque).await.unwrap();
        let mut answer = Vec::new();
        _ = stream.read_to_end(&mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(app.served(), before, "none of them reached the app");
}

/// The control plane keeps a filter from this proxy that would judge what its app sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_whose_filter_can_not_be_run_sends_nothing() {
    let pair = Pair::start(&[(8080, Protocol::Http), (6000, Protocol::Tcp)]);
    let (app, _tcp) = (App::start("app", pair.origin, 8080).await, TcpApp::start(pair.origin, 6000, "").await);
    let outside = App::start("outside", weft_tests::address::next(), 0).await;
    let mut client = Client::through(pair.proxy(), "origin:8080").await;
    assert_eq!(client.get("/who").await.text(), "app");
    pair.change(Of::Caller, &HashMap::new(), |bundle| {
        let why = "Filter shop/guard: withheld: it requires wit-0.9".to_owned();
        bundle.workloads.values_mut().for_each(|workload| workload.outbound_closed = Some(why.clone()));
    });
    let answer = client.get("/who").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("may send nothing: Filter shop/guard: withheld"), "{}", answer.text());
    let mut elsewhere = Client::through(pair.proxy(), &outside.address.to_string()).await;
    assert_eq!(elsewhere.get("/who").await.status, 503);
    for target in ["origin:8080".to_owned(), "origin:6000".to_owned(), outside.address.to_string()] {
        let (_, head) = try_tunnel(pair.proxy(), &target).await;
        assert!(head.starts_with("HTTP/1.1 503"), "{target}: {head}");
    }
    assert_eq!((app.served(), outside.served()), (1, 0));
}

/// The shortest of some tries: other programs on this machine take their time, too.
async fn noticed(pair: &Pair, leave: impl AsyncFn() -> TcpStream) -> Duration {
    let in_flight = |of| pair.shared(of).in_flight.count();
    let mut shortest = Duration::MAX;
    for _ in 0..5 {
        let stream = leave().await;
        eventually("it is held up", || async { (in_flight(Of::Caller) == 1).then_some(()) }).await;
        let began = std::time::Instant::now();
        drop(stream);
        while in_flight(Of::Caller) + in_flight(Of::Origin) > 0 {
            assert!(began.elapsed() < Duration::from_secs(20), "it is not noticed");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        shortest = shortest.min(began.elapsed());
    }
    shortest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_a_filter_holds_it_up_is_noticed() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let app = App::start("app", pair.origin, 8080).await;
    let config = r#"{"delay": {"ms": 60000, "percentage": 100}}"#;
    let delay = |direction| Filter { component: "fault", direction, config, authorization: false };
    let h1 = async || {
        let mut stream = tunnel(pair.proxy(), "origin:8080").await;
        stream.write_all(b"GET /who HTTP/1.1\r\nhost: origin\r\n\r\n").await.unwrap();
        // An RST: a client that only closes its sending side may still wait for its answer.
        stream.set_zero_linger().unwrap();
        stream
    };
    let h2 = async || {
        let mut stream = tunnel(pair.proxy(), "origin:8080").await;
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let head = b"\0\0\x0b\x01\x05\0\0\0\x01\x82\x86\x84\x41\x06origin";
        stream.write_all(&[&preface[..], head].concat()).await.unwrap();
        stream
    };
    for (of, direction) in [(Of::Caller, Direction::Outbound), (Of::Origin, Direction::Inbound)] {
        pair.change(Of::Caller, &HashMap::new(), |bundle| bundle.filters.clear());
        attach(&pair, of, delay(direction));
        for (way, took) in [("HTTP/1.1", noticed(&pair, h1).await), ("HTTP/2", noticed(&pair, h2).await)] {
            assert!(took < Duration::from_millis(100), "{way}, {direction:?}: after {took:?}");
        }
    }
    assert_eq!(app.served(), 0);
}

/// The same of connections, before anybody reads them. One that was written to and closed may still be delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_connection_is_held_up_by_a_filter_is_noticed_when_it_leaves() {
    let pair = Pair::start(&[(6000, Protocol::Tcp), (6001, Protocol::Auto)]);
    let config = r#"{"mode": "hold", "at": "connection"}"#;
    let hold = |direction| Filter { component: "hostile2", direction, config, authorization: false };
    // Answered once its far end is open, and before anything is known of it.
    let asked = async || {
        let mut stream = TcpStream::connect(pair.proxy()).await.unwrap();
        stream.write_all(b"CONNECT origin:6000 HTTP/1.1\r\nhost: origin:6000\r\n\r\n").await.unwrap();
        stream
    };
    let answered = async || {
        let mut stream = tunnel(pair.proxy(), "origin:6001").await;
        stream.write_all(b"\x00\x01\x02 no HTTP\r\n\r\n").await.unwrap();
        stream.set_zero_linger().unwrap();
        stream
    };
    for (of, direction) in [(Of::Caller, Direction::Outbound), (Of::Origin, Direction::Inbound)] {
        pair.change(Of::Caller, &HashMap::new(), |bundle| bundle.filters.clear());
        attach(&pair, of, hold(direction));
        for (way, took) in [("closed", noticed(&pair, asked).await), ("reset", noticed(&pair, answered).await)] {
            assert!(took < Duration::from_millis(100), "{way}, {direction:?}: after {took:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standing_tunnel_ends_when_its_port_takes_none_any_more() {
    let pair = Pair::start(&[(6000, Protocol::Auto), (6001, Protocol::Auto), (6002, Protocol::Auto)]);
    let mut open = Vec::new();
    for port in [6000, 6001, 6002] {
        let app = TcpApp::start(pair.origin, port, "").await;
        let mut stands = tunnel(pair.proxy(), &format!("origin:{port}")).await;
        assert!(echoes(&mut stands).await);
        open.push((app, stands));
    }
    pair.change(Of::Origin, &HashMap::new(), |bundle| {
        let ports = &mut bundle.workloads.values_mut().next().expect("it serves one").ports;
        ports[0].opaque_refused = true;
        ports[1].protocol = Protocol::Http;
    });
    ends(&mut open[0].1).await;
    ends(&mut open[1].1).await;
    assert!(echoes(&mut open[2].1).await, "nothing has changed for this one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_http_is_refused_where_an_http_policy_is_attached() {
    let pair = Pair::start_with(&[(8080, Protocol::Auto)], |_, bundle| refuse_opaque(bundle));
    let app = App::start("app", pair.origin, 8080).await;
    assert_eq!(Client::h1_in_tunnel(pair.proxy(), "origin:8080").await.get("/who").await.text(), "app");
    let before = app.served();
    for opaque in [&b"\x00\x01\x02 not HTTP\r\n\r\n"[..], b"SSH-2.0-x\r\n\r\n", b"\x16\x03\x01\x00\x05hello"] {
        let mut stream = tunnel(pair.proxy(), "origin:8080").await;
        stream.write_all(opaque).await.unwrap();
        let mut answer = Vec::new();
        _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 400"), "{opaque:?}: {answer:?}");
    }
    assert_eq!(app.served(), before, "none of them reached the app");
}

/// A caller whose configuration is older, or that lies, opens a tunnel: the other side refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_is_refused_where_an_http_policy_is_attached() {
    let pair = Pair::start_with(&[(8080, Protocol::Auto)], |of, bundle| {
        if of == Of::Origin {
            refuse_opaque(bundle);
        }
    });
    let app = TcpApp::start(pair.origin, 8080, "greeting").await;
    let mut stream = tunnel(pair.proxy(), "origin:8080").await;
    _ = stream.write_all(b"\x00\x01\x02 not HTTP\r\n\r\n").await;
    ends(&mut stream).await;
    drop(app);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_are_told_the_bytes_of_a_connection_at_its_end() {
    let pair = Pair::start(&[(6000, Protocol::Tcp), (8080, Protocol::Http)]);
    let _app = TcpApp::start(pair.origin, 6000, "welcome").await;
    let filter = |direction| Filter { component: "hostile", direction, config: "blind", authorization: false };
    attach(&pair, Of::Caller, filter(Direction::Outbound));
    attach(&pair, Of::Origin, filter(Direction::Inbound));
    let told = |of| {
        let stats = pair.shared(of).filter_host.stats();
        let value = |name: &str| {
            let custom = stats.iter().flat_map(|one| one.stats.custom()).find(|custom| custom.name().ends_with(name));
            match custom.map(|custom| custom.value()) {
                Some(CustomValue::Counter(value)) => value,
                _ => 0,
            }
        };
        [value("done_total"), value("done_request_bytes_total"), value("done_response_bytes_total")]
    };
    let mut stream = tunnel(pair.proxy(), "origin:6000").await;
    let mut greeting = [0; 7];
    stream.read_exact(&mut greeting).await.unwrap();
    assert!(echoes(&mut stream).await);
    assert_eq!((told(Of::Caller), told(Of::Origin)), ([0; 3], [0; 3]), "not before the end");
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"bye");
    for of in [Of::Caller, Of::Origin] {
        let all = [1, 5, 7 + 5 + 3];
        eventually("the filter is told", || async { (told(of) == all).then_some(()) }).await;
    }
    // And so of a request.
    let _http = App::start("one", pair.origin, 8080).await;
    let answer = Client::through(pair.proxy(), "origin:8080").await.post("/echo", "four").await;
    assert_eq!(answer.text(), "four");
    for of in [Of::Caller, Of::Origin] {
        let all = [1 + 1, 5 + 4, 15 + 4];
        eventually("the filter is told", || async { (told(of) == all).then_some(()) }).await;
    }
}

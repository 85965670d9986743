//! First calls of what a proxy does not hold: asked for once, waited for a moment, never taken for something outside. The test
//! is the control plane, which answers, is slow, is away, or says something else.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weft_policy::bundle::{ObjectName, Protocol};
use weft_policy::scope::{Ask, Ranges};
use weft_tests::client::try_tunnel;
use weft_tests::{App, Client, TcpApp, address, eventually};

use super::in_process::{Of, Pair};

/// A caller that holds nothing yet of a mesh with these ports and addresses.
fn start(ports: &[(u16, Protocol)], also: &[IpAddr]) -> Pair {
    let also = also.to_vec();
    Pair::start_with(ports, move |of, bundle| {
        if of == Of::Caller {
            let endpoints = bundle.services.values().flat_map(|service| service.endpoints.values());
            let all = endpoints.map(|endpoint| endpoint.address).chain(also.iter().copied());
            let ranges = Ranges::around(all);
            bundle.services.clear();
            let mesh = bundle.mesh.as_mut().expect("it has settings");
            mesh.namespaces.insert("default".to_owned());
            mesh.ranges = Some(ranges);
        }
    })
}

fn origin() -> Ask {
    Ask::Service(ObjectName::new("default", "origin"))
}

/// The next question of the caller's proxy.
async fn question(pair: &Pair) -> Vec<Ask> {
    let news = tokio::time::timeout(Duration::from_secs(10), pair.shared(Of::Caller).asking.news());
    news.await.expect("it asks").wanted
}

/// Tells the caller's proxy that it has all that there is of these.
fn answer(pair: &Pair, asks: &[Ask], with_service: bool) {
    let service = pair.shared(Of::Origin).snapshot.load_full().unwrap().bundle.services.clone();
    pair.change(Of::Caller, &HashMap::new(), |bundle| {
        bundle.answered.extend(asks.iter().cloned());
        if with_service {
            bundle.services = service;
        }
    });
    let shared = pair.shared(Of::Caller);
    shared.asking.close(&asks.iter().cloned().collect(), shared.generation());
}

/// Everything is well but that no question comes.
async fn nobody_asks(pair: &Pair) {
    let quiet = tokio::time::timeout(Duration::from_millis(1), pair.shared(Of::Caller).asking.news());
    assert!(quiet.await.is_err(), "it asks again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_call_waits_for_its_answer_and_is_asked_for_once() {
    let pair = start(&[(8080, Protocol::Http)], &[]);
    let app = App::start("origin", pair.origin, 8080).await;
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let proxy = pair.proxy();
            tokio::spawn(async move { Client::through(proxy, "origin:8080").await.get("/who").await.text() })
        })
        .collect();
    assert_eq!(question(&pair).await, [origin()]);
    answer(&pair, &[origin()], true);
    for call in calls {
        assert_eq!(call.await.unwrap(), "origin");
    }
    assert_eq!(app.served(), 50);
    assert_eq!(Client::through(pair.proxy(), "origin.default:8080").await.get("/who").await.text(), "origin");
    nobody_asks(&pair).await;
}

/// By a name and by an address, inside a tunnel whose bytes nobody looks into.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_waits_before_it_is_dialled() {
    let pair = start(&[(6000, Protocol::Tcp)], &[]);
    let _app = TcpApp::start(pair.origin, 6000, "").await;
    for (target, asked) in
        [("origin:6000".to_owned(), origin()), (format!("{}:6000", pair.origin), Ask::address(pair.origin))]
    {
        let (proxy, authority) = (pair.proxy(), target.clone());
        let tunnel = tokio::spawn(async move { try_tunnel(proxy, &authority).await });
        assert_eq!(question(&pair).await, std::slice::from_ref(&asked));
        answer(&pair, &[asked], true);
        let (mut stream, head) = tunnel.await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{target}: {head}");
        stream.write_all(b"ping").await.unwrap();
        let mut got = [0; 4];
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ping");
    }
}

/// Whatever listens there in the open: it is not reached by its address either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_answer_a_call_goes_nowhere() {
    let pair = start(&[(8080, Protocol::Http), (6000, Protocol::Tcp)], &[]);
    let app = App::start("origin", pair.origin, 8080).await;
    let targets = ["origin:8080".to_owned(), "gone.default.svc:80".to_owned(), format!("{}:8080", pair.origin)];
    for target in &targets {
        let began = Instant::now();
        let answer = Client::through(pair.proxy(), target).await.get("/who").await;
        assert_eq!(answer.status, 503, "{target}: {}", answer.text());
        assert!(
            answer.text().contains("is not held yet: the control plane has not answered in time"),
            "{}",
            answer.text()
        );
        assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
        let (_, head) = try_tunnel(pair.proxy(), target).await;
        assert!(head.starts_with("HTTP/1.1 503"), "{target}: {head}");
    }
    assert_eq!(app.served(), 0);
    let flagged = || pair.series(Of::Caller).sum("istio_requests_total", &[("response_flags", "NC")]);
    eventually("each is counted", || async { (flagged() >= 6.0).then_some(()) }).await;
    // Each was asked for once; who comes late is served.
    assert_eq!(question(&pair).await.len(), 3);
    answer(&pair, &[origin()], true);
    assert_eq!(Client::through(pair.proxy(), "origin:8080").await.get("/who").await.text(), "origin");
}

/// A slow control plane costs its first caller as long as it takes, within the limit, and nobody after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_answer_is_waited_for_within_the_limit() {
    let pair = start(&[(8080, Protocol::Http)], &[]);
    let _app = App::start("origin", pair.origin, 8080).await;
    let call = |proxy: SocketAddr| async move {
        let mut client = Client::through(proxy, "origin:8080").await;
        let began = Instant::now();
        (client.get("/who").await, began.elapsed())
    };
    let slow = async {
        let asks = question(&pair).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer(&pair, &asks, true);
    };
    let ((first, took), ()) = tokio::join!(call(pair.proxy()), slow);
    assert_eq!((first.status.as_u16(), first.text().as_str()), (200, "origin"));
    assert!(took >= Duration::from_millis(100), "{took:?}");
    let (known, _) = call(pair.proxy()).await;
    assert_eq!(known.status, 200);
    nobody_asks(&pair).await;
}

/// A control plane that says of a service that it is not there, or that it is and does not bring it: the call is refused, and
/// reaches nobody, until that is put right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_true_leads_nobody_out_of_the_mesh() {
    let pair = start(&[(8080, Protocol::Http)], &[]);
    let app = App::start("origin", pair.origin, 8080).await;
    let call = |target: &str| {
        let (proxy, target) = (pair.proxy(), target.to_owned());
        async move { Client::through(proxy, &target).await.get("/who").await }
    };
    let lie = async {
        let asks = question(&pair).await;
        answer(&pair, &asks, false);
    };
    let (refused, ()) = tokio::join!(call("origin:8080"), lie);
    assert_eq!((refused.status.as_u16(), app.served()), (502, 0), "{}", refused.text());
    assert!(refused.text().contains("no service has this name"), "{}", refused.text());
    // What nobody asked for is brought, and says nothing of what was asked.
    answer(&pair, &[Ask::Service(ObjectName::new("default", "other"))], false);
    assert_eq!(call("origin:8080").await.status, 502);
    answer(&pair, &[origin()], true);
    assert_eq!(call("origin:8080").await.text(), "origin");
    nobody_asks(&pair).await;
}

/// A control plane that always has something to say, and never what was asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_news_lengthen_the_wait() {
    let pair = start(&[(8080, Protocol::Http)], &[]);
    let call = Client::through(pair.proxy(), "origin:8080");
    let call = async { call.await.get("/who").await };
    let mut call = std::pin::pin!(call);
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let began = Instant::now();
    let answer = loop {
        tokio::select! {
            answer = &mut call => break answer,
            _ = ticks.tick() => answer(&pair, &[Ask::Service(ObjectName::new("default", "other"))], false),
        }
    };
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_exist_is_as_ever() {
    let beside = address::next();
    let pair = start(&[(8080, Protocol::Http)], &[beside]);
    let app = App::start("beside", beside, 0).await;
    let gone = Ask::Service(ObjectName::new("default", "gone"));
    answer(&pair, &[gone, Ask::address(beside)], false);
    let refused = Client::through(pair.proxy(), "gone").await.get("/").await;
    assert_eq!(refused.status, 502, "{}", refused.text());
    // In a block of the mesh, and nothing of it.
    let outside = Client::through(pair.proxy(), &app.address.to_string()).await.get("/who").await;
    assert_eq!(outside.text(), "beside");
    nobody_asks(&pair).await;
}

/// A name outside whose address may be a workload's is no way around its identity and its policy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_may_lead_to_a_workload_is_asked_for_by_its_address() {
    let here = IpAddr::from([127, 0, 0, 1]);
    let pair = start(&[(8080, Protocol::Http)], &[here, "::1".parse().unwrap()]);
    let app = App::start("private", here, 0).await;
    let named = format!("localhost:{}", app.address.port());
    let answer_of = |named: String| {
        let proxy: SocketAddr = pair.proxy();
        async move { Client::through(proxy, &named).await.get("/who").await }
    };
    let late = answer_of(named.clone()).await;
    assert_eq!((late.status.as_u16(), app.served()), (503, 0), "{}", late.text());
    let both = ["127.0.0.1", "::1"].map(|ip| Ask::address(ip.parse().unwrap()));
    answer(&pair, &both, false);
    assert_eq!(answer_of(named).await.text(), "private");
}

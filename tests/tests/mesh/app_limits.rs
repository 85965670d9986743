//! Apps that speak HTTP/2 with limits of their own: few streams at a time, connections that end after some calls. Callers notice
//! nothing of either. And the proxy's own limit: the connections that one caller can have opened to one destination.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use weft_policy::bundle::Protocol;
use weft_tests::app::message;
use weft_tests::client::{Body, empty, full, try_tunnel, tunnel};
use weft_tests::{App, Client, TcpApp, address, eventually};

use super::in_process::{Of, Pair};

const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

/// A gRPC app that announces a stream limit, and retires each connection after some calls.
struct Limited {
    served: Arc<AtomicU64>,
    most_at_once: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy)]
struct Terms {
    streams: u32,
    calls: u64,
    takes: Duration,
}

impl Limited {
    async fn start(ip: IpAddr, port: u16, terms: Terms) -> Self {
        let listener = TcpListener::bind(SocketAddr::new(ip, port)).await.expect("the address is free");
        let (served, most_at_once, connections) = (Arc::default(), Arc::default(), Arc::<AtomicUsize>::default());
        let (own, most, count) = (Arc::clone(&served), Arc::clone(&most_at_once), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, terms, Arc::clone(&own), Arc::clone(&most)));
            }
        });
        Self { served, most_at_once, connections, task }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, terms: Terms, served: Arc<AtomicU64>, most: Arc<AtomicUsize>) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(terms.streams);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    let (open, mut calls) = (Arc::new(AtomicUsize::new(0)), 0);
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        calls += 1;
        if calls == terms.calls {
            connection.graceful_shutdown();
        }
        let (open, served, most) = (Arc::clone(&open), Arc::clone(&served), Arc::clone(&most));
        tokio::spawn(async move {
            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let mut body = request.into_body();
            while let Some(Ok(piece)) = body.data().await {
                _ = body.flow_control().release_capacity(piece.len());
            }
            tokio::time::sleep(terms.takes).await;
            open.fetch_sub(1, Ordering::SeqCst);
            let mut head = Response::new(());
            head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            let Ok(mut send) = respond.send_response(head, false) else { return };
            _ = send.send_data(message(b"done"), false);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            _ = send.send_trailers(trailers);
            served.fetch_add(1, Ordering::SeqCst);
        });
    }
}

struct Calc {
    app: Limited,
    pair: Pair,
}

async fn calc(terms: Terms) -> Calc {
    let pair = Pair::start(&[(8080, Protocol::Grpc)]);
    let app = Limited::start(pair.origin, 8080, terms).await;
    Calc { app, pair }
}

/// One call; its status, or what broke.
async fn call(client: &mut Client) -> String {
    let answer = client.call(Method::POST, "/calc.Calc/Add", &GRPC, full(message(b"1+1"))).await;
    match answer {
        Err(error) => error.0,
        Ok(answer) => {
            let trailers = answer.trailers.unwrap_or_else(|| answer.headers.clone());
            let text = |name| trailers.get(name).map_or("", |value| value.to_str().unwrap_or("?")).to_owned();
            if text("grpc-status") == "0" { "0".to_owned() } else { text("grpc-status") + " " + &text("grpc-message") }
        }
    }
}

/// A request body that begins, and ends when the other half is dropped.
fn held_body() -> (Body, tokio::sync::oneshot::Sender<()>) {
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let first = futures_util::stream::once(async { Ok(Frame::data(Bytes::from_static(b"begins"))) });
    let last = futures_util::stream::once(async move {
        _ = ended.await;
        Ok(Frame::data(Bytes::from_static(b"ends")))
    });
    (StreamBody::new(first.chain(last)).boxed_unsync(), end)
}

/// `clients` callers of `calls` calls each, all at once; what went wrong.
async fn burst(calc: &Calc, clients: usize, calls: usize) -> Vec<String> {
    let proxy = calc.pair.proxy();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Client::h2_in_tunnel(proxy, "origin:8080").await;
                let mut wrong = Vec::new();
                for _ in 0..calls {
                    wrong.extend(Some(call(&mut client).await).filter(|status| status != "0"));
                }
                wrong
            })
        })
        .collect();
    let mut wrong = Vec::new();
    for task in tasks {
        wrong.extend(task.await.unwrap());
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_retire_lose_no_call() {
    let calc = calc(Terms { streams: 100, calls: 20, takes: Duration::from_millis(2) }).await;
    let wrong = burst(&calc, 8, 100).await;
    assert!(wrong.is_empty(), "{} of 800 calls: {:?}", wrong.len(), wrong.first());
    assert!(calc.app.connections.load(Ordering::SeqCst) >= 30, "the app retired its connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_over_the_apps_stream_limit_is_served() {
    let calc = calc(Terms { streams: 5, calls: u64::MAX, takes: Duration::from_millis(50) }).await;
    let before = calc.app.served.load(Ordering::SeqCst);
    let wrong = burst(&calc, 60, 1).await;
    assert!(wrong.is_empty(), "{} of 60 calls: {:?}", wrong.len(), wrong.first());
    assert_eq!(calc.app.served.load(Ordering::SeqCst) - before, 60);
    assert!(calc.app.most_at_once.load(Ordering::SeqCst) <= 5, "its limit is kept on each connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_requests_of_one_caller_take_a_part_of_the_connections_to_an_app() {
    let limits = json!({"app_connections_per_caller": 2});
    let pair = Pair::start_limited(&[(8080, Protocol::Http), (6000, Protocol::Tcp)], &limits);
    let app = App::start("one", pair.origin, 8080).await;
    let _tcp = TcpApp::start(pair.origin, 6000, "").await;
    let proxy = pair.proxy();
    let mut held = Vec::new();
    for nth in 1..=2 {
        let (body, end) = held_body();
        let answer = tokio::spawn(async move {
            let mut client = Client::h1_in_tunnel(proxy, "origin:8080").await;
            client.call(Method::POST, "/digest", &[], body).await.map(|answer| answer.status.as_u16())
        });
        held.push((answer, end));
        eventually("it is under way", || async { (app.served() == nth).then_some(()) }).await;
    }
    let mut third = Client::h1_in_tunnel(proxy, "origin:8080").await;
    let refused = third.call(Method::GET, "/who", &[], empty()).await.unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("this caller has the 2 that it may have"), "{}", refused.text());
    // Another destination is another matter.
    drop(tunnel(proxy, "origin:6000").await);
    let (answer, end) = held.pop().unwrap();
    drop(end);
    assert_eq!(answer.await.unwrap().unwrap(), 200);
    assert_eq!(third.get("/who").await.text(), "one");
    assert_eq!(app.served(), 3, "what was refused never came");
}

/// Two requests that stand, on a mesh connection that takes two.
async fn standing(pair: &Pair, app: &App) -> Vec<(JoinHandle<u16>, tokio::sync::oneshot::Sender<()>)> {
    let (proxy, mut held) = (pair.proxy(), Vec::new());
    for nth in 1..=2 {
        let (body, end) = held_body();
        let answer = tokio::spawn(async move {
            let mut client = Client::h1_in_tunnel(proxy, "origin:8080").await;
            client.call(Method::POST, "/digest", &[], body).await.expect("an answer").status.as_u16()
        });
        held.push((answer, end));
        eventually("it is under way", || async { (app.served() == nth).then_some(()) }).await;
    }
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_waits_for_a_stream_to_its_peer_for_a_while() {
    let limits =
        |wait: u64| json!({"max_streams_per_connection": 2, "peer_connections": 1, "peer_stream_wait_ms": wait});
    let pair = Pair::start_limited(&[(8080, Protocol::Http)], &limits(200));
    let app = App::start("one", pair.origin, 8080).await;
    let held = standing(&pair, &app).await;
    let mut third = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await;
    let refused = third.get("/who").await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("no stream of its connection came free within 200 ms"), "{}", refused.text());
    for (answer, end) in held {
        drop(end);
        assert_eq!(answer.await.unwrap(), 200);
    }
    assert_eq!(third.get("/who").await.text(), "one");
    assert_eq!(app.served(), 3, "what was refused never came");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_it_waits_for_a_stream_is_noticed() {
    let limits = json!({"max_streams_per_connection": 2, "peer_connections": 1, "peer_stream_wait_ms": 3_600_000});
    let pair = Pair::start_limited(&[(8080, Protocol::Http)], &limits);
    let app = App::start("one", pair.origin, 8080).await;
    let held = standing(&pair, &app).await;
    let in_flight = || pair.shared(Of::Caller).in_flight.count();
    let before = in_flight();
    let mut leaver = tunnel(pair.proxy(), "origin:8080").await;
    leaver.write_all(b"GET /who HTTP/1.1\r\nhost: origin\r\n\r\n").await.unwrap();
    eventually("it waits", || async { (in_flight() == before + 1).then_some(()) }).await;
    leaver.set_zero_linger().unwrap();
    drop(leaver);
    eventually("it is noticed", || async { (in_flight() == before).then_some(()) }).await;
    assert_eq!(app.served(), 2);
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_of_one_app_take_a_part_of_the_connections_outside() {
    let pair = Pair::start_limited(&[], &json!({"app_connections_per_caller": 2}));
    let app = TcpApp::start(address::next(), 0, "").await;
    let target = app.address.to_string();
    let (first, _second) = (tunnel(pair.proxy(), &target).await, tunnel(pair.proxy(), &target).await);
    let (_, head) = try_tunnel(pair.proxy(), &target).await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    // Another app has a part of its own.
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind((address::next(), 0).into()).unwrap();
    let mut other = other.connect(pair.proxy()).await.unwrap();
    other.write_all(format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    other.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
    drop(first);
    eventually("its place is given back", || async {
        let (_, head) = try_tunnel(pair.proxy(), &target).await;
        head.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
}

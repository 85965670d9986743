//! A proxy that drains: apps are asked to leave, and served until they do. And whoever leaves by himself, client or app, is missed
//! at once on the other side.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use weft_policy::bundle::{AppVersion, Bundle, Protocol};
use weft_tests::client::tunnel;
use weft_tests::{App, Client, eventually};

use super::in_process::{Of, Pair};

/// The head of one answer without a body.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_tells_apps_of_http1_to_close() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let _app = App::start("one", pair.origin, 8080).await;
    let request = b"GET /status/204 HTTP/1.1\r\nhost: origin:8080\r\n\r\n";
    let mut streams = [TcpStream::connect(pair.proxy()).await.unwrap(), tunnel(pair.proxy(), "origin:8080").await];
    for stream in &mut streams {
        stream.write_all(request).await.unwrap();
        let answer = head(stream).await;
        assert!(answer.starts_with("HTTP/1.1 204") && !answer.contains("connection: close"), "{answer}");
    }
    pair.shared(Of::Caller).drain.start();
    for stream in &mut streams {
        // One that is idle stays until it asks again, and is served.
        stream.write_all(request).await.unwrap();
        let answer = head(stream).await;
        assert!(answer.starts_with("HTTP/1.1 204") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "it closes behind the answer");
    }
    let mut late = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await;
    let answer = late.get("/who").await;
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("one", "close"), "who comes late is served too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_tells_apps_of_http2_to_go_away() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let _app = App::start("one", pair.origin, 8080).await;
    let stream = TcpStream::connect(pair.proxy()).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let ended = tokio::spawn(connection);
    let request = |path: &str| http::Request::post(format!("http://origin:8080{path}")).body(()).unwrap();
    let (answer, mut body) = client.send_request(request("/echo"), false).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    pair.shared(Of::Caller).drain.start();
    // An idle connection is told without a word of its client's.
    let idle = TcpStream::connect(pair.proxy()).await.unwrap();
    let (_unused, connection) = h2::client::handshake(idle).await.unwrap();
    connection.await.unwrap();
    // What is under way goes on to its end, and then the connection ends in peace.
    body.send_data("x".into(), true).unwrap();
    ended.await.unwrap().unwrap();
    assert!(client.send_request(request("/who"), true).is_err());
}

/// An app of HTTP/1.1 that begins an answer which never ends, and tells when its caller has gone.
async fn watched(ip: IpAddr) -> mpsc::UnboundedReceiver<Instant> {
    let (listener, (tell, told)) = (TcpListener::bind((ip, 8080)).await.unwrap(), mpsc::unbounded_channel());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                head(&mut stream).await;
                let begun = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nevent\r\n";
                stream.write_all(begun).await.unwrap();
                _ = stream.read(&mut [0]).await;
                _ = tell.send(Instant::now());
            });
        }
    });
    told
}

/// A machine that is busy has hiccups of its own: of some tries the best counts.
const TRIES: usize = 5;
const AT_ONCE: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_is_missed_at_once() {
    let pair = Pair::start_with(&[(8080, Protocol::Http)], |of, bundle: &mut Bundle| {
        if of == Of::Origin {
            let ports = bundle.workloads.values_mut().flat_map(|workload| &mut workload.ports);
            ports.for_each(|port| port.app_version = AppVersion::Http1);
        }
    });
    let mut gone = watched(pair.origin).await;
    let (mut reset, mut closed, mut cancelled) = (Duration::MAX, Duration::MAX, Duration::MAX);
    for _ in 0..TRIES {
        for (best, with_reset) in [(&mut reset, true), (&mut closed, false)] {
            let mut stream = tunnel(pair.proxy(), "origin:8080").await;
            stream.write_all(b"GET /events HTTP/1.1\r\nhost: origin:8080\r\n\r\n").await.unwrap();
            head(&mut stream).await;
            stream.read_exact(&mut [0; 10]).await.unwrap();
            if with_reset {
                stream.set_zero_linger().unwrap();
            }
            let left = Instant::now();
            drop(stream);
            *best = (gone.recv().await.unwrap() - left).min(*best);
        }
        let stream = tunnel(pair.proxy(), "origin:8080").await;
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        let driving = tokio::spawn(connection);
        let request = http::Request::get("http://origin:8080/events").body(()).unwrap();
        let (answer, mut call) = client.send_request(request, false).unwrap();
        let mut body = answer.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "event");
        let left = Instant::now();
        call.send_reset(h2::Reason::CANCEL);
        cancelled = (gone.recv().await.unwrap() - left).min(cancelled);
        driving.abort();
    }
    assert!([reset, closed, cancelled].iter().all(|took| *took <= AT_ONCE), "{reset:?} {closed:?} {cancelled:?}");
}

/// The app goes while its client has said a part of its request, and is quiet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_leaves_is_missed_at_once() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let listener = TcpListener::bind((pair.origin, 8080)).await.unwrap();
    let mut best = Duration::MAX;
    for _ in 0..TRIES {
        let mut client = tunnel(pair.proxy(), "origin:8080").await;
        let request = b"POST / HTTP/1.1\r\nhost: origin:8080\r\ncontent-length: 9\r\n\r\nhello";
        client.write_all(request).await.unwrap();
        let (mut app, _) = listener.accept().await.unwrap();
        head(&mut app).await;
        app.read_exact(&mut [0; 5]).await.unwrap();
        app.set_zero_linger().unwrap();
        let left = Instant::now();
        drop(app);
        let answer = head(&mut client).await;
        best = left.elapsed().min(best);
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    }
    assert!(best <= AT_ONCE, "{best:?}");
}

/// A program that writes, closes and exits has said everything: it arrives, however late it is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_before_leaving_is_heard_to_the_end() {
    const SAID: usize = 200_000;
    let pair = Pair::start(&[(6000, Protocol::Tcp)]);
    let listener = TcpListener::bind((pair.origin, 6000)).await.unwrap();
    for app_speaks in [false, true] {
        let client = tunnel(pair.proxy(), "origin:6000").await;
        let (app, _) = listener.accept().await.unwrap();
        let (mut speaks, mut listens) = if app_speaks { (app, client) } else { (client, app) };
        speaks.write_all(&vec![b'x'; SAID]).await.unwrap();
        drop(speaks);
        for of in [Of::Caller, Of::Origin] {
            eventually("both have let go", || async { (pair.shared(of).in_flight.count() == 0).then_some(()) }).await;
        }
        let mut heard = Vec::new();
        let end = listens.read_to_end(&mut heard).await;
        assert!(end.is_ok() && heard.len() == SAID, "app speaks: {app_speaks}: {} bytes, then {end:?}", heard.len());
    }
}

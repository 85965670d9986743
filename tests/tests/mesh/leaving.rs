//! A proxy that drains: apps are asked to leave, and served until they do.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weft_policy::bundle::Protocol;
use weft_tests::client::tunnel;
use weft_tests::{App, Client};

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

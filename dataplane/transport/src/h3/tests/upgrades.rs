//! Requests to change protocols, as extended CONNECT between our client and our server (RFC 9220).

use std::time::Duration;

use http::Method;

use super::super::{Client, Limits, RecvStream, SendStream, Server};
use super::{Pair, data, read, request, response, soon};
use crate::http::{Frame, RequestHead, StreamError, UpgradeToken};

fn asking((method, token): (&Method, &'static str)) -> RequestHead {
    RequestHead { protocol: UpgradeToken::new(token), ..request(method.clone(), "/chat?a", &[("x", "1")]) }
}

async fn ask(
    client: &Client,
    server: &Server,
    wanted: (&Method, &'static str),
) -> ((SendStream, RecvStream), (RequestHead, RecvStream, SendStream)) {
    let asked = soon(Box::pin(client.send(&asking(wanted), false))).await.unwrap();
    (asked, soon(Box::pin(async { read(server.accept().await.unwrap()).await.unwrap() })).await)
}

#[tokio::test]
async fn it_waits_for_settings() {
    let pair = Pair::new().await;
    let client = pair.start_client(Limits::default());
    let head = asking((&Method::GET, "websocket"));
    let sending = client.send(&head, false);
    tokio::pin!(sending);
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut sending).await.is_err());
    let _server = pair.start_server(Limits::default());
    soon(sending).await.unwrap();
}

#[tokio::test]
async fn an_accepted_one_carries_bytes_both_ways() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    for (method, token) in [(Method::GET, "websocket"), (Method::GET, "foo/1.0"), (Method::POST, "tcp")] {
        let ((mut up, mut down), (head, mut from, mut to)) = ask(&client, &server, (&method, token)).await;
        assert_eq!((head.method, head.protocol.as_deref()), (method, Some(token.as_bytes())));
        assert_eq!(head.path.unwrap(), "/chat?a");
        assert_eq!(head.headers.len(), 1, "{token}");
        let accepted = response(101, &[("sec-websocket-accept", "x"), ("content-length", "7")]);
        to.response(&accepted, false).await.unwrap();
        to.data(data("first")).await.unwrap();
        let head = soon(down.response_head()).await.unwrap();
        assert_eq!(head.status, 101);
        assert_eq!(head.headers["sec-websocket-accept"], "x");
        assert!(matches!(soon(down.frame()).await, Ok(Some(Frame::Data(got))) if got == "first"));
        for text in ["a", "bc"] {
            up.data(data(text)).await.unwrap();
            assert!(matches!(soon(from.frame()).await, Ok(Some(Frame::Data(got))) if got == text));
        }
        up.finish(None).await.unwrap();
        assert!(matches!(soon(from.frame()).await, Ok(None)), "half-closed");
        to.data(data("last")).await.unwrap();
        to.finish(None).await.unwrap();
        assert!(matches!(soon(down.frame()).await, Ok(Some(Frame::Data(got))) if got == "last"));
        assert!(matches!(soon(down.frame()).await, Ok(None)));
    }
}

#[tokio::test]
async fn a_declined_one_keeps_its_answer() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    for status in [200, 204, 400, 426, 501, 503] {
        let (asked, (_, _from, mut to)) = ask(&client, &server, (&Method::GET, "websocket")).await;
        to.interim(&response(103, &[])).await.unwrap();
        to.response(&response(status, &[("upgrade-to", "x")]), status == 204).await.unwrap();
        if status != 204 {
            to.data(data("body")).await.unwrap();
            to.finish(None).await.unwrap();
        }
        let (_up, mut down) = asked;
        assert_eq!(soon(down.response_head()).await.unwrap().status, 103);
        let head = soon(down.response_head()).await.unwrap();
        assert_eq!((head.status.as_u16(), head.headers.len()), (status, 1));
        let mut body = Vec::new();
        while let Some(Frame::Data(data)) = soon(down.frame()).await.unwrap() {
            body.extend_from_slice(&data);
        }
        assert_eq!(body, if status == 204 { &b""[..] } else { b"body" });
    }
}

#[tokio::test]
async fn nobody_accepts_what_was_not_asked_for() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    let (_up, _down) = soon(client.send(&request(Method::GET, "/", &[]), true)).await.unwrap();
    let (_, _, mut to) = soon(read(server.accept().await.unwrap())).await.unwrap();
    assert!(matches!(to.response(&response(101, &[]), false).await, Err(StreamError::Protocol(_))));
}

//! Messages that end otherwise than well: aborted behind their last byte, given up by their receiver, without a body.

use std::time::Duration;

use bytes::Bytes;
use http::Method;

use super::super::{Limits, RecvStream, SendStream, Server};
use super::{Pair, data, headers, read, request, response, soon};
use crate::http::{Frame, RequestHead, StreamError};

const SIZE: usize = 655_360;

async fn next(server: &Server) -> (RequestHead, RecvStream, SendStream) {
    soon(Box::pin(async { read(server.accept().await.unwrap()).await.unwrap() })).await
}

/// How many bytes come, and the error that ends them.
async fn bytes_until_error(recv: &mut RecvStream) -> (usize, StreamError) {
    let mut got = 0;
    loop {
        match soon(recv.frame()).await {
            Ok(Some(Frame::Data(data))) => got += data.len(),
            Ok(other) => panic!("after {got} bytes a clean end: {other:?}"),
            Err(error) => return (got, error),
        }
    }
}

async fn aborted(aborts: bool) {
    let pair = Pair::new().await;
    let client = pair.start_client(Limits { aborts, ..Limits::default() });
    let server = pair.start_server(Limits::default());
    let body = Bytes::from(vec![b'x'; SIZE]);
    for _ in 0..5 {
        let (mut up, mut down) = soon(client.send(&request(Method::POST, "/", &[]), false)).await.unwrap();
        let (_, mut from, mut to) = next(&server).await;
        let answer = async {
            to.response(&response(200, &[]), false).await.unwrap();
            to.data(body.clone()).await.unwrap();
            to.abort(0x102).await;
        };
        let ask = async {
            up.data(body.clone()).await.unwrap();
            up.abort(0x10c).await;
        };
        let receive = async {
            assert_eq!(down.response_head().await.unwrap().status, 200);
            bytes_until_error(&mut down).await
        };
        let ends = async { tokio::join!(answer, ask, receive, bytes_until_error(&mut from)) };
        let ((), (), (got, error), (taken, cause)) = soon(Box::pin(ends)).await;
        assert_eq!((got, taken), (SIZE, SIZE));
        assert!(matches!(error, StreamError::Reset(0x102)), "{error:?}");
        assert!(matches!(cause, StreamError::Reset(0x10c)), "{cause:?}");
    }
    assert!(!client.is_closed());
}

#[tokio::test]
async fn every_byte_before_an_abort_arrives() {
    aborted(true).await;
}

#[tokio::test]
async fn also_at_a_peer_that_knows_no_abort() {
    aborted(false).await;
}

#[tokio::test]
async fn an_abort_before_any_body_is_an_error_too() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    let (_up, mut down) = soon(client.send(&request(Method::GET, "/", &[]), true)).await.unwrap();
    let (_, _, mut to) = next(&server).await;
    to.response(&response(200, &[]), false).await.unwrap();
    to.abort(0x102).await;
    soon(down.response_head()).await.unwrap();
    let (got, error) = bytes_until_error(&mut down).await;
    assert!(got == 0 && matches!(error, StreamError::Reset(0x102)), "{got} {error:?}");
    let (_up, mut down) = soon(client.send(&request(Method::GET, "/", &[]), true)).await.unwrap();
    next(&server).await.2.abort(0x102).await;
    let error = soon(down.response_head()).await.unwrap_err();
    assert!(!error.unprocessed && matches!(error.error, StreamError::Reset(0x102)), "{error:?}");
}

#[tokio::test]
async fn an_abort_waits_no_longer_than_it_may() {
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(10_000_u32.into()).send_window(20_000);
    let pair = Pair::with(transport).await;
    let limits = Limits { abort: Duration::from_millis(50), ..Limits::default() };
    let (client, server) = (pair.start_client(limits.clone()), pair.start_server(limits));
    let (_up, mut down) = soon(client.send(&request(Method::GET, "/", &[]), true)).await.unwrap();
    let (_, _, mut to) = next(&server).await;
    to.response(&response(200, &[]), false).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), to.data(Bytes::from(vec![b'x'; SIZE]))).await.is_err());
    soon(to.abort(0x102)).await;
    soon(down.response_head()).await.unwrap();
    let (got, error) = bytes_until_error(&mut down).await;
    assert!(got < SIZE && matches!(error, StreamError::Reset(0x102)), "{got} {error:?}");
}

#[tokio::test]
async fn gone_is_told_while_the_answer_is_idle() {
    for closed in [false, true] {
        let pair = Pair::new().await;
        let (client, server) = pair.start();
        let (up, mut down) = soon(client.send(&request(Method::GET, "/events", &[]), true)).await.unwrap();
        let (_, _, mut to) = next(&server).await;
        to.response(&response(200, &[]), false).await.unwrap();
        to.data(data("event")).await.unwrap();
        soon(down.response_head()).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), to.gone()).await.is_err(), "it is still there");
        if closed {
            client.close();
        } else {
            drop((up, down));
        }
        soon(to.gone()).await;
    }
}

#[tokio::test]
async fn answers_that_may_have_no_body_drop_it() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    for (method, status) in [(Method::HEAD, 200), (Method::GET, 204), (Method::GET, 304)] {
        let (_up, mut down) = soon(client.send(&request(method, "/", &[]), true)).await.unwrap();
        let (_, _, mut to) = next(&server).await;
        to.response(&response(status, &[("content-length", "4")]), false).await.unwrap();
        to.data(data("body")).await.unwrap();
        to.finish(Some(headers(&[("t", "1")]))).await.unwrap();
        assert_eq!(soon(down.response_head()).await.unwrap().status, status);
        assert!(matches!(soon(down.frame()).await, Ok(None)), "{status}");
    }
}

//! Our client against our server: every kind of exchange, cut and refused ones, GOAWAY, and futures dropped half-way.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::super::{Client, Code, Limits, RecvStream, SendStream, Server};
use super::{Pair, connect_to, data, headers, read, request, response, soon, until};
use crate::http::{Frame, RequestHead, StreamError};

const CALM: u16 = 200;

async fn next(server: &Server) -> (RequestHead, RecvStream, SendStream) {
    soon(Box::pin(async { read(server.accept().await.unwrap()).await.unwrap() })).await
}

/// Everything that is left of a body: its bytes and trailers.
async fn rest(recv: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), StreamError> {
    let mut body = Vec::new();
    let mut trailers = None;
    while let Some(frame) = soon(recv.frame()).await? {
        match frame {
            Frame::Data(data) => body.extend_from_slice(&data),
            Frame::Trailers(fields) => trailers = Some(fields),
        }
    }
    assert!(recv.is_end());
    Ok((body, trailers))
}

async fn exchange(client: &Client, server: &Server, path: &str) {
    let (_send, mut recv) = soon(client.send(&request(Method::GET, path, &[]), true)).await.unwrap();
    let (head, body, mut answer) = next(server).await;
    assert_eq!(head.path.unwrap(), path);
    drop(body);
    answer.response(&response(CALM, &[]), true).await.unwrap();
    assert_eq!(soon(recv.response_head()).await.unwrap().status, CALM);
}

#[tokio::test]
async fn a_request_and_its_answer() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    let head = request(Method::GET, "/a?b=c", &[("x-weft", "1"), ("cookie", "a=b")]);
    let (_send, mut recv) = client.send(&head, true).await.unwrap();
    let (got, mut body, mut answer) = next(&server).await;
    assert_eq!((got.method, got.authority, got.path), (head.method, head.authority, head.path));
    assert_eq!((got.headers, got.protocol), (head.headers, None));
    assert_eq!(rest(&mut body).await.unwrap(), (vec![], None));
    answer.response(&response(CALM, &[("content-length", "6"), ("server", "weft")]), false).await.unwrap();
    answer.data(data("abc")).await.unwrap();
    answer.data(Bytes::new()).await.unwrap();
    answer.data(data("def")).await.unwrap();
    answer.finish(Some(headers(&[("grpc-status", "0")]))).await.unwrap();
    let head = recv.response_head().await.unwrap();
    assert_eq!((head.status.as_u16(), head.headers), (CALM, headers(&[("content-length", "6"), ("server", "weft")])));
    assert_eq!(rest(&mut recv).await.unwrap(), (b"abcdef".to_vec(), Some(headers(&[("grpc-status", "0")]))));
    assert_eq!((client.open_streams(), server.open_streams()), (1, 1));
    drop((recv, body, answer, _send));
    assert_eq!((client.open_streams(), server.open_streams()), (0, 0));
}

#[tokio::test]
async fn the_end_is_known_without_waiting() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    let (_send, mut recv) = client.send(&request(Method::GET, "/", &[]), true).await.unwrap();
    let (_, body, mut answer) = next(&server).await;
    assert!(body.is_end());
    answer.response(&response(204, &[]), true).await.unwrap();
    recv.response_head().await.unwrap();
    assert!(recv.is_end());
}

#[tokio::test]
async fn bodies_flow_both_ways_under_back_pressure() {
    const SIZE: usize = 3 << 20;
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(20_000_u32.into()).send_window(30_000);
    let pair = Pair::with(transport).await;
    let (client, server) = pair.start();
    let body: Bytes = (0..=250_u8).cycle().take(SIZE).collect::<Vec<_>>().into();
    let (mut send, mut recv) = client.send(&request(Method::POST, "/echo", &[]), false).await.unwrap();
    let echo = async {
        let (_, mut body, mut answer) = next(&server).await;
        answer.response(&response(CALM, &[]), false).await.unwrap();
        while let Some(Frame::Data(data)) = body.frame().await.unwrap() {
            answer.data(data).await.unwrap();
        }
        answer.finish(None).await.unwrap();
    };
    let upload = async {
        let mut left = body.clone();
        let mut size = 1;
        while !left.is_empty() {
            send.data(left.split_to(size.min(left.len()))).await.unwrap();
            size = size * 3 % 100_003 + 1;
        }
        send.finish(None).await.unwrap();
    };
    let download = async {
        recv.response_head().await.unwrap();
        rest(&mut recv).await.unwrap().0
    };
    let ((), (), back) = soon(Box::pin(async { tokio::join!(echo, upload, download) })).await;
    assert!(back == body);
}

#[tokio::test]
async fn interim_responses_come_first() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    let (_send, mut recv) = client.send(&request(Method::GET, "/", &[]), true).await.unwrap();
    let (_, _body, mut answer) = next(&server).await;
    answer.interim(&response(100, &[])).await.unwrap();
    answer.interim(&response(103, &[("link", "x")])).await.unwrap();
    for status in [100, 103] {
        assert_eq!(soon(recv.response_head()).await.unwrap().status, status);
        assert!(!recv.is_end());
    }
    answer.response(&response(CALM, &[]), true).await.unwrap();
    assert_eq!(soon(recv.response_head()).await.unwrap().status, CALM);
    assert_eq!(rest(&mut recv).await.unwrap(), (vec![], None));
}

#[tokio::test]
async fn too_many_interim_responses() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    let (_send, mut recv) = client.send(&request(Method::GET, "/", &[]), true).await.unwrap();
    let (_, _body, mut answer) = next(&server).await;
    for _ in 0..33 {
        answer.interim(&response(100, &[])).await.unwrap();
    }
    for _ in 0..32 {
        soon(recv.response_head()).await.unwrap();
    }
    let error = soon(recv.response_head()).await.unwrap_err();
    assert!(matches!(error.error, StreamError::Limit(_)) && !error.unprocessed);
}

#[tokio::test]
async fn answers_without_content_keep_their_length() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    for (method, status) in [(Method::HEAD, 200), (Method::GET, 304), (Method::GET, 204)] {
        let (_send, mut recv) = client.send(&request(method, "/", &[]), true).await.unwrap();
        let (_, _body, mut answer) = next(&server).await;
        answer.response(&response(status, &[("content-length", "55")]), true).await.unwrap();
        let head = soon(recv.response_head()).await.unwrap();
        assert_eq!(head.headers["content-length"], "55");
        assert_eq!(rest(&mut recv).await.unwrap(), (vec![], None));
    }
}

#[tokio::test]
async fn content_length_is_kept_or_the_message_is_malformed() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    for (sent, trailers, fine) in
        [("abc", false, true), ("abc", true, true), ("ab", false, false), ("ab", true, false), ("abcd", false, false)]
    {
        let head = request(Method::PUT, "/", &[("content-length", "3")]);
        let (mut send, recv) = client.send(&head, false).await.unwrap();
        send.data(data(sent)).await.unwrap();
        send.finish(trailers.then(|| headers(&[("a", "b")]))).await.unwrap();
        let (_, mut body, answer) = next(&server).await;
        let result = rest(&mut body).await;
        assert_eq!(result.is_ok(), fine, "{sent} {trailers}: {result:?}");
        drop((body, answer, recv));
    }
    assert!(!client.is_draining());
    exchange(&client, &server, "/still-alive").await;
}

#[tokio::test]
async fn connect_is_a_tunnel() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    let (mut send, mut recv) = client.send(&connect_to("127.0.0.1:6379"), false).await.unwrap();
    let (head, mut body, mut answer) = next(&server).await;
    assert_eq!((head.method, head.path), (Method::CONNECT, None));
    assert_eq!(head.authority.unwrap().as_str(), "127.0.0.1:6379");
    answer.response(&response(CALM, &[]), false).await.unwrap();
    answer.data(data("server first")).await.unwrap();
    soon(recv.response_head()).await.unwrap();
    assert!(matches!(soon(recv.frame()).await, Ok(Some(Frame::Data(got))) if got == "server first"));
    send.data(data("request")).await.unwrap();
    send.finish(None).await.unwrap();
    assert_eq!(rest(&mut body).await.unwrap(), (b"request".to_vec(), None));
    // Half closed: the other way still flows.
    answer.data(data("answer")).await.unwrap();
    answer.finish(None).await.unwrap();
    assert_eq!(rest(&mut recv).await.unwrap(), (b"answer".to_vec(), None));
}

#[tokio::test]
async fn connect_can_be_refused() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    let (_send, mut recv) = client.send(&connect_to("127.0.0.1:1"), false).await.unwrap();
    let (_, _body, mut answer) = next(&server).await;
    answer.response(&response(403, &[("content-length", "2")]), false).await.unwrap();
    answer.data(data("no")).await.unwrap();
    answer.finish(None).await.unwrap();
    assert_eq!(soon(recv.response_head()).await.unwrap().status, 403);
    assert_eq!(rest(&mut recv).await.unwrap().0, b"no");
}

#[tokio::test]
async fn resets_carry_their_codes() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    let reset = |result: Result<Option<Frame>, StreamError>, code: u64| {
        assert!(matches!(result, Err(StreamError::Reset(got)) if got == code), "{result:?}");
    };
    let (mut send, mut recv) = client.send(&request(Method::POST, "/", &[]), false).await.unwrap();
    let (_, mut body, mut answer) = next(&server).await;
    answer.response(&response(CALM, &[]), false).await.unwrap();
    answer.flush().await.unwrap();
    soon(recv.response_head()).await.unwrap();
    send.reset(Code::REQUEST_CANCELLED);
    reset(soon(body.frame()).await, Code::REQUEST_CANCELLED);
    reset(soon(body.frame()).await, Code::REQUEST_CANCELLED);
    answer.reset(Code::INTERNAL_ERROR);
    reset(soon(recv.frame()).await, Code::INTERNAL_ERROR);

    // STOP_SENDING reaches the sender.
    let (_send, mut recv) = client.send(&request(Method::GET, "/", &[]), true).await.unwrap();
    let (_, _body, mut answer) = next(&server).await;
    answer.response(&response(CALM, &[]), false).await.unwrap();
    answer.flush().await.unwrap();
    soon(recv.response_head()).await.unwrap();
    recv.stop(Code::REQUEST_CANCELLED);
    assert!(recv.frame().await.is_err());
    let error = soon(async {
        loop {
            if let Err(error) = answer.data(data("x")).await {
                return error;
            }
            tokio::task::yield_now().await;
        }
    });
    assert!(matches!(error.await, StreamError::Reset(Code::REQUEST_CANCELLED)));
}

#[tokio::test]
async fn an_answer_that_is_dropped_never_looks_complete() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    let (send, mut recv) = client.send(&request(Method::POST, "/", &[]), false).await.unwrap();
    let (_, mut body, mut answer) = next(&server).await;
    answer.response(&response(CALM, &[]), false).await.unwrap();
    answer.data(data("half")).await.unwrap();
    soon(recv.response_head()).await.unwrap();
    drop(answer);
    assert!(matches!(rest(&mut recv).await, Err(StreamError::Reset(Code::INTERNAL_ERROR))));
    drop(send);
    assert!(matches!(rest(&mut body).await, Err(StreamError::Reset(Code::REQUEST_CANCELLED))));
}

#[tokio::test]
async fn only_what_was_provably_not_processed_says_so() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    let get = request(Method::GET, "/", &[]);
    for (code, unprocessed) in
        [(Code::REQUEST_REJECTED, true), (Code::INTERNAL_ERROR, false), (Code::REQUEST_CANCELLED, false)]
    {
        let (_send, mut recv) = client.send(&get, true).await.unwrap();
        let (_, _body, mut answer) = next(&server).await;
        answer.reset(code);
        let error = soon(recv.response_head()).await.unwrap_err();
        assert!(matches!(error.error, StreamError::Reset(got) if got == code));
        assert_eq!(error.unprocessed, unprocessed, "{}", Code::name(code));
    }
    // A stream that nobody reads.
    let (_send, mut recv) = client.send(&get, true).await.unwrap();
    drop(soon(server.accept()).await.unwrap());
    assert!(soon(recv.response_head()).await.unwrap_err().unprocessed);
    // The connection goes while the answer is awaited: who knows.
    let (_send, mut recv) = client.send(&get, true).await.unwrap();
    let held = next(&server).await;
    server.close();
    let error = soon(recv.response_head()).await.unwrap_err();
    assert!(matches!(error.error, StreamError::ConnectionLost(_)) && !error.unprocessed);
    drop(held);
    // Nothing can be sent any more.
    until(|| client.is_closed()).await;
    assert!(soon(client.send(&get, true)).await.unwrap_err().unprocessed);
}

#[tokio::test]
async fn goaway_is_exact_and_loses_nothing() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    let get = request(Method::GET, "/", &[]);
    exchange(&client, &server, "/first").await;
    let (mut send, mut recv) = client.send(&request(Method::POST, "/in-flight", &[]), false).await.unwrap();
    let (_, mut body, mut answer) = next(&server).await;
    // Two more are on their way when the server goes away.
    let (keep_late, mut late) = client.send(&get, true).await.unwrap();
    let (keep_later, mut later) = client.send(&get, true).await.unwrap();
    assert_eq!(server.goaway(), 8);
    assert_eq!(server.goaway(), 8);
    for refused in [&mut late, &mut later] {
        let error = soon(refused.response_head()).await.unwrap_err();
        assert!(error.unprocessed, "{error}");
    }
    until(|| client.is_draining()).await;
    assert!(soon(client.send(&get, true)).await.unwrap_err().unprocessed);
    assert!(soon(server.accept()).await.is_none());
    // The one in flight goes on to its end.
    send.data(data("more")).await.unwrap();
    send.finish(None).await.unwrap();
    assert_eq!(rest(&mut body).await.unwrap().0, b"more");
    answer.response(&response(CALM, &[]), false).await.unwrap();
    answer.data(data("done")).await.unwrap();
    answer.finish(None).await.unwrap();
    drop((body, answer));
    assert_eq!(soon(recv.response_head()).await.unwrap().status, CALM);
    assert_eq!(rest(&mut recv).await.unwrap().0, b"done");
    drop((send, recv, late, later, keep_late, keep_later));
    soon(server.drained()).await;
    assert!(matches!(
        soon(pair.server.closed()).await,
        quinn::ConnectionError::ApplicationClosed(close) if u64::from(close.error_code) == Code::NO_ERROR
    ));
}

#[tokio::test]
async fn goaway_before_any_request() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    assert_eq!(server.goaway(), 0);
    until(|| client.is_draining()).await;
    soon(server.drained()).await;
}

#[tokio::test]
async fn a_request_waiting_for_credit_hears_of_goaway() {
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_bidi_streams(1_u32.into());
    let pair = Pair::with(transport).await;
    let (client, server) = pair.start();
    let get = request(Method::GET, "/", &[]);
    let (_send, mut recv) = client.send(&get, true).await.unwrap();
    let (_, _body, mut answer) = next(&server).await;
    let waiting = client.send(&get, true);
    let (waited, _) = soon(async { tokio::join!(waiting, async { server.goaway() }) }).await;
    assert!(waited.unwrap_err().unprocessed);
    answer.response(&response(CALM, &[]), true).await.unwrap();
    assert_eq!(soon(recv.response_head()).await.unwrap().status, CALM);
}

#[tokio::test]
async fn a_retired_connection_closes_when_it_is_done() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    let (_send, mut recv) = client.send(&request(Method::GET, "/", &[]), true).await.unwrap();
    client.retire();
    assert!(client.is_draining() && !client.is_closed());
    let (_, _body, mut answer) = next(&server).await;
    answer.response(&response(CALM, &[]), true).await.unwrap();
    soon(recv.response_head()).await.unwrap();
    drop((recv, _send));
    soon(pair.server.closed()).await;
}

#[tokio::test]
async fn limits_are_answered_or_not_sent() {
    let pair = Pair::new().await;
    let client = pair.start_client(Limits::default());
    let server =
        pair.start_server(Limits { header_bytes: 2000, header_fields: 6, path_bytes: 50, ..Limits::default() });
    exchange(&client, &server, "/").await;
    let status = async |head: RequestHead| {
        let (_send, mut recv) = client.send(&head, true).await?;
        let mut incoming = soon(server.accept()).await.unwrap();
        assert!(matches!(soon(incoming.head()).await, Err(StreamError::Limit(_))));
        soon(recv.response_head()).await.map(|head| head.status.as_u16())
    };
    let long = format!("/{}", "p".repeat(50));
    assert_eq!(status(request(Method::GET, &long, &[])).await.unwrap(), 414);
    assert_eq!(status(request(Method::GET, "/", &[("a", ""), ("b", ""), ("c", "")])).await.unwrap(), 431);
    // The size of a section is announced, so ours never leaves.
    let huge = "v".repeat(2000);
    let error = client.send(&request(Method::GET, "/", &[("a", &huge)]), true).await.unwrap_err();
    assert!(matches!(error.error, StreamError::Limit(_)) && error.unprocessed);
    exchange(&client, &server, "/still-alive").await;
}

#[tokio::test]
async fn dropped_reads_lose_nothing() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    let (mut send, _recv) = client.send(&request(Method::POST, "/", &[]), false).await.unwrap();
    let (_, mut body, _answer) = next(&server).await;
    let write = async {
        for at in 0..200_u8 {
            send.data(Bytes::from(vec![at; 1 + usize::from(at) * 37])).await.unwrap();
            tokio::task::yield_now().await;
        }
        send.finish(None).await.unwrap();
    };
    let read = async {
        let mut got = Vec::new();
        loop {
            // Drop the future after each poll that finds nothing.
            match futures_util::FutureExt::now_or_never(body.frame()) {
                Some(Ok(Some(Frame::Data(data)))) => got.extend_from_slice(&data),
                Some(Ok(None)) => break got,
                Some(other) => panic!("{other:?}"),
                None => tokio::task::yield_now().await,
            }
        }
    };
    let ((), got) = soon(async { tokio::join!(write, read) }).await;
    let expect: Vec<u8> = (0..200_u8).flat_map(|at| vec![at; 1 + usize::from(at) * 37]).collect();
    assert!(got == expect);
}

#[tokio::test]
async fn dropped_writes_leave_frames_whole() {
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(1000_u32.into()).send_window(1000);
    let pair = Pair::with(transport).await;
    let (client, server) = pair.start();
    let (mut send, _recv) = client.send(&request(Method::POST, "/", &[]), false).await.unwrap();
    let (_, mut body, _answer) = next(&server).await;
    // The window is far smaller than the data: the future is dropped with most of it unsent.
    assert!(futures_util::FutureExt::now_or_never(send.data(Bytes::from(vec![b'a'; 10_000]))).is_none());
    let write = async {
        send.data(data("b")).await.unwrap();
        send.finish(None).await.unwrap();
    };
    let ((), got) = soon(async { tokio::join!(write, rest(&mut body)) }).await;
    let got = got.unwrap().0;
    assert_eq!((got.len(), got.last()), (10_001, Some(&b'b')));
}

#[tokio::test]
async fn many_requests_at_once() {
    let pair = Pair::new().await;
    let (client, server) = pair.start();
    let serve = async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let incoming = server.accept().await.unwrap();
            tasks.spawn(async move {
                let (head, mut body, mut answer) = read(incoming).await.unwrap();
                let (body, _) = rest(&mut body).await.unwrap();
                let path = head.path.unwrap().to_string();
                answer.response(&response(CALM, &[("x-path", &path)]), false).await.unwrap();
                answer.data(body.into()).await.unwrap();
                answer.finish(None).await.unwrap();
            });
        }
        while tasks.join_next().await.is_some() {}
    };
    let call = async |at: usize| {
        let path = format!("/{at}");
        let (mut send, mut recv) = client.send(&request(Method::POST, &path, &[]), false).await.unwrap();
        let body = vec![b'x'; at * 20];
        send.data(body.clone().into()).await.unwrap();
        send.finish(None).await.unwrap();
        assert_eq!(recv.response_head().await.unwrap().headers["x-path"], *path);
        assert!(rest(&mut recv).await.unwrap().0 == body);
    };
    let calls = futures_util::future::join_all((0..300).map(call));
    soon(async { tokio::join!(serve, calls) }).await;
    assert_eq!((client.open_streams(), server.open_streams()), (0, 0));
}

/// Of the streams that the server allows none comes free.
#[tokio::test]
async fn a_request_waits_for_a_stream_no_longer_than_it_may() {
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_bidi_streams(1_u8.into());
    let pair = Pair::with(transport).await;
    let wait = Duration::from_millis(50);
    let client = pair.start_client(Limits { stream_wait: wait, ..Limits::default() });
    let server = pair.start_server(Limits::default());
    let first = client.send(&request(Method::GET, "/", &[]), true).await.unwrap();
    let error = soon(client.send(&request(Method::GET, "/", &[]), true)).await.unwrap_err();
    assert!(error.unprocessed && matches!(error.error, StreamError::Busy(waited) if waited == wait), "{error}");
    drop(soon(server.accept()).await);
    drop(first);
    soon(client.send(&request(Method::GET, "/", &[]), true)).await.unwrap();
}

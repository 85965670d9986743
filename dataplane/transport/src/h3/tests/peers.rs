//! Against an independent implementation (the `h3` crate), in both roles.

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Method, Request, Response};

use super::super::{Code, Limits};
use super::{Pair, connect_to, data, headers, read, request, response, soon, until};
use crate::http::{Frame, StreamError};

type TheirServer = h3::server::Connection<h3_quinn::Connection, Bytes>;

async fn their_server(pair: &Pair) -> TheirServer {
    let quic = h3_quinn::Connection::new(pair.server.clone());
    h3::server::builder().enable_extended_connect(true).enable_datagram(true).build(quic).await.unwrap()
}

/// Answers every request: its body comes back with trailers, its path and fields in the head.
async fn serve_theirs(mut server: TheirServer) {
    while let Ok(Some(resolver)) = server.accept().await {
        tokio::spawn(async move {
            let Ok((request, mut stream)) = resolver.resolve_request().await else { return };
            let mut body = Vec::new();
            while let Ok(Some(mut data)) = stream.recv_data().await {
                body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
            }
            let trailers = stream.recv_trailers().await.unwrap();
            let mut answer = Response::builder().status(200).header("x-path", request.uri().path());
            answer.headers_mut().unwrap().extend(request.headers().clone());
            stream.send_response(answer.body(()).unwrap()).await.unwrap();
            stream.send_data(body.into()).await.unwrap();
            if let Some(trailers) = trailers {
                stream.send_trailers(trailers).await.unwrap();
            }
            stream.finish().await.unwrap();
        });
    }
}

#[tokio::test]
async fn our_client_and_their_server() {
    for huffman in [false, true] {
        let pair = Pair::new().await;
        tokio::spawn(serve_theirs(their_server(&pair).await));
        let client = pair.start_client(Limits { huffman, ..Limits::default() });
        let long = "long value ".repeat(400);
        let call = async |at: usize| {
            let fields = [("x-weft", "1"), ("accept", "*/*"), ("cookie", "a=b; c=d"), ("x-long", long.trim_end())];
            let head = request(Method::POST, &format!("/{at}"), &fields);
            let (mut send, mut recv) = client.send(&head, false).await.unwrap();
            let body = vec![b'b'; at * 1000];
            send.data(body.clone().into()).await.unwrap();
            let trailers = headers(&[("grpc-status", "0"), ("x-more", "y")]);
            send.finish((at.is_multiple_of(2)).then(|| trailers.clone())).await.unwrap();
            let answer = recv.response_head().await.unwrap();
            assert_eq!(answer.headers["x-path"], format!("/{at}"));
            for (name, value) in fields {
                assert_eq!(answer.headers[name], value);
            }
            let (mut got, mut got_trailers) = (Vec::new(), None);
            while let Some(frame) = recv.frame().await.unwrap() {
                match frame {
                    Frame::Data(data) => got.extend_from_slice(&data),
                    Frame::Trailers(trailers) => got_trailers = Some(trailers),
                }
            }
            assert!(got == body);
            assert_eq!(got_trailers, (at.is_multiple_of(2)).then_some(trailers));
        };
        soon(futures_util::future::join_all((0..40).map(call))).await;
        assert!(!client.is_draining());
    }
}

#[tokio::test]
async fn our_client_tunnels_through_their_server() {
    let pair = Pair::new().await;
    let mut server = their_server(&pair).await;
    let client = pair.start_client(Limits::default());
    let theirs = tokio::spawn(async move {
        let (request, mut stream) = server.accept().await.unwrap().unwrap().resolve_request().await.unwrap();
        assert_eq!((request.method(), request.uri().to_string().as_str()), (&Method::CONNECT, "127.0.0.1:6379"));
        stream.send_response(Response::new(())).await.unwrap();
        let mut got = stream.recv_data().await.unwrap().unwrap();
        stream.send_data(got.copy_to_bytes(got.remaining())).await.unwrap();
        stream.finish().await.unwrap();
        while let Ok(Some(_)) = server.accept().await {}
    });
    let (mut send, mut recv) = client.send(&connect_to("127.0.0.1:6379"), false).await.unwrap();
    assert_eq!(soon(recv.response_head()).await.unwrap().status, 200);
    send.data(data("ping")).await.unwrap();
    assert!(matches!(soon(recv.frame()).await, Ok(Some(Frame::Data(got))) if got == "ping"));
    assert!(soon(recv.frame()).await.unwrap().is_none());
    client.close();
    soon(theirs).await.unwrap();
}

#[tokio::test]
async fn our_client_hears_their_refusals() {
    let pair = Pair::new().await;
    let mut server = their_server(&pair).await;
    let client = pair.start_client(Limits::default());
    let theirs = tokio::spawn(async move {
        let (_, mut stream) = server.accept().await.unwrap().unwrap().resolve_request().await.unwrap();
        stream.stop_stream(h3::error::Code::H3_REQUEST_REJECTED);
        let (_, mut stream) = server.accept().await.unwrap().unwrap().resolve_request().await.unwrap();
        // Their GOAWAY id is the last accepted stream plus this many; with 0 it would disown the request in flight.
        server.shutdown(1).await.unwrap();
        stream.send_response(Response::new(())).await.unwrap();
        stream.finish().await.unwrap();
        while let Ok(Some(_)) = server.accept().await {}
    });
    let get = request(Method::GET, "/", &[]);
    let (_send, mut recv) = client.send(&get, true).await.unwrap();
    assert!(soon(recv.response_head()).await.unwrap_err().unprocessed);
    drop((_send, recv));
    let (send, mut recv) = client.send(&get, true).await.unwrap();
    assert_eq!(soon(recv.response_head()).await.unwrap().status, 200);
    until(|| client.is_draining()).await;
    drop((send, recv));
    // Their server is told that we are done.
    until(|| client.is_closed()).await;
    soon(theirs).await.unwrap();
}

#[tokio::test]
async fn their_client_and_our_server() {
    let pair = Pair::new().await;
    let server = pair.start_server(Limits::default());
    let ours = server.clone();
    tokio::spawn(async move {
        while let Some(incoming) = ours.accept().await {
            tokio::spawn(async move {
                let (head, mut body, mut answer) = read(incoming).await.unwrap();
                let path = head.path.unwrap().to_string();
                answer.interim(&response(103, &[("link", "x")])).await.unwrap();
                let mut fields = head.headers;
                fields.insert("x-path", path.parse().unwrap());
                let final_head = crate::http::ResponseHead { status: http::StatusCode::OK, headers: fields };
                answer.response(&final_head, false).await.unwrap();
                let mut trailers = None;
                while let Some(frame) = body.frame().await.unwrap() {
                    match frame {
                        Frame::Data(data) => answer.data(data).await.unwrap(),
                        Frame::Trailers(fields) => trailers = Some(fields),
                    }
                }
                answer.finish(trailers).await.unwrap();
            });
        }
    });
    let quic = h3_quinn::Connection::new(pair.client.clone());
    let (mut driver, requests) = Box::pin(h3::client::new(quic)).await.unwrap();
    tokio::spawn(async move { driver.wait_idle().await });
    let call = |at: usize| {
        let mut requests = requests.clone();
        async move {
            let long = "another long value ".repeat(300);
            let uri = format!("https://shop.test/{at}?q=%20");
            let head = Request::post(uri).header("x-long", long.trim_end()).header("user-agent", "independent");
            let mut stream = requests.send_request(head.body(()).unwrap()).await.unwrap();
            let body = vec![b'c'; at * 1000];
            stream.send_data(Bytes::from(body.clone())).await.unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-trailer", at.into());
            stream.send_trailers(trailers.clone()).await.unwrap();
            stream.finish().await.unwrap();
            let mut answer = stream.recv_response().await.unwrap();
            if answer.status() == 103 {
                answer = stream.recv_response().await.unwrap();
            }
            assert_eq!(answer.headers()["x-path"], format!("/{at}?q=%20"));
            assert_eq!(answer.headers()["x-long"], long.trim_end());
            assert_eq!(answer.headers()["user-agent"], "independent");
            let mut got = Vec::new();
            while let Some(mut data) = stream.recv_data().await.unwrap() {
                got.extend_from_slice(&data.copy_to_bytes(data.remaining()));
            }
            assert!(got == body);
            assert_eq!(stream.recv_trailers().await.unwrap(), Some(trailers));
        }
    };
    soon(futures_util::future::join_all((0..40).map(call))).await;
}

#[tokio::test]
async fn their_client_is_told_to_go() {
    let pair = Pair::new().await;
    let server = pair.start_server(Limits::default());
    let quic = h3_quinn::Connection::new(pair.client.clone());
    let (mut driver, mut requests) = Box::pin(h3::client::new(quic)).await.unwrap();
    let driven = tokio::spawn(async move { driver.wait_idle().await });
    let mut stream = requests.send_request(Request::get("https://shop.test/").body(()).unwrap()).await.unwrap();
    stream.finish().await.unwrap();
    let (_, _body, mut answer) = read(soon(server.accept()).await.unwrap()).await.unwrap();
    assert_eq!(server.goaway(), 4);
    answer.response(&response(200, &[]), true).await.unwrap();
    drop((_body, answer));
    assert_eq!(soon(stream.recv_response()).await.unwrap().status(), 200);
    drop((stream, requests));
    soon(server.drained()).await;
    soon(driven).await.unwrap();
}

#[tokio::test]
async fn a_breach_by_their_client_costs_one_stream() {
    let pair = Pair::new().await;
    let server = pair.start_server(Limits::default());
    let quic = h3_quinn::Connection::new(pair.client.clone());
    let (mut driver, mut requests) = Box::pin(h3::client::new(quic)).await.unwrap();
    tokio::spawn(async move { driver.wait_idle().await });
    let head = Request::get("https://shop.test/").header("te", "gzip").body(()).unwrap();
    let mut stream = requests.send_request(head).await.unwrap();
    let refused = soon(server.accept()).await.unwrap().head().await.unwrap_err();
    assert!(matches!(refused, StreamError::Protocol("te other than trailers")));
    let error = soon(stream.recv_response()).await.unwrap_err();
    assert!(
        matches!(&error, h3::error::StreamError::RemoteTerminate { code, .. } if code.value() == Code::MESSAGE_ERROR),
        "{error}"
    );
    let mut stream = requests.send_request(Request::get("https://shop.test/").body(()).unwrap()).await.unwrap();
    stream.finish().await.unwrap();
    let (_, _body, mut answer) = read(soon(server.accept()).await.unwrap()).await.unwrap();
    answer.response(&response(200, &[]), true).await.unwrap();
    assert_eq!(soon(stream.recv_response()).await.unwrap().status(), 200);
}

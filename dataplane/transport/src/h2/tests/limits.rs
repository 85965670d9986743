//! A request that one leg takes is also taken by the next: HTTP/2 keeps the limits that every version keeps, for
//! targets, fields, interim answers, idle connections and tunnels.

use std::cell::RefCell;
use std::rc::Rc;

use super::raw::{
    CONTINUATION, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PING, PREFACE, SETTINGS, frame, get, next_frame,
};
use super::*;
use crate::http::Refusal;

/// The status that the crate's client is answered with, or the reset.
async fn asked(limits: Limits, request: Request<()>) -> String {
    let (near, far) = duplex(256 * 1024);
    serve(far, limits, |_, _, mut answer| async move { answer.response(&response(200), true).await.unwrap() });
    let (client, connection) = h2::client::handshake(near).await.unwrap();
    let driver = tokio::task::spawn_local(connection);
    let mut client = client.ready().await.unwrap();
    let seen = match client.send_request(request, true).unwrap().0.await {
        Ok(answer) => answer.status().as_u16().to_string(),
        Err(error) => format!("{:?}", error.reason().unwrap()),
    };
    driver.abort();
    seen
}

#[test]
fn targets_and_fields_have_their_limits() {
    run(async {
        let limits = || Limits { target_bytes: 100, fields: 8, ..Limits::default() };
        let get = |path: &str| Request::get(format!("http://a{path}")).body(()).unwrap();
        assert_eq!(asked(limits(), get(&format!("/{}", "x".repeat(99)))).await, "200");
        assert_eq!(asked(limits(), get(&format!("/{}", "x".repeat(100)))).await, "414");
        let many = |name: &str, count| {
            (0..count).fold(Request::get("http://a/"), |request, index| request.header(name, format!("a{index}=1")))
        };
        assert_eq!(asked(limits(), many("x", 9).body(()).unwrap()).await, "431");
        // All crumbs of a cookie are one field, as in the other versions.
        assert_eq!(asked(limits(), many("cookie", 60).body(()).unwrap()).await, "200");
    });
}

/// The causes and statuses that are told while a client sends `bytes`, until a good request is answered behind them.
async fn refused(limits: Limits, bytes: Vec<u8>) -> Vec<(Refusal, Option<u16>)> {
    let (mut near, far) = duplex(1024 * 1024);
    let told = Rc::new(RefCell::new(Vec::new()));
    let telling = Rc::clone(&told);
    let server = tokio::task::spawn_local(async move {
        let mut server = ServerConn::new(far, Bytes::new(), &limits).await.unwrap();
        server.on_refusal(move |refused| {
            telling.borrow_mut().push((refused.refusal, refused.status.map(|status| status.as_u16())));
        });
        while let Ok(Some(Exchange { mut answer, .. })) = server.accept().await {
            answer.response(&response(204), true).await.unwrap();
        }
    });
    near.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b""), &bytes, &get(1_001)].concat()).await.unwrap();
    while next_frame(&mut near).await.is_some_and(|(kind, _, stream, _)| (kind, stream) != (HEADERS, 1_001)) {}
    server.abort();
    told.take()
}

#[test]
fn each_request_that_is_refused_is_told_with_its_cause() {
    run(async {
        let head = |stream, fields: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, stream, &[GET, fields].concat());
        let field = |name: &[u8], value: &[u8]| {
            let sizes = [u8::try_from(name.len()).unwrap(), u8::try_from(value.len()).unwrap()];
            [&[0, sizes[0]], name, &[sizes[1]], value].concat()
        };
        let limits = || Limits { fields: 4, target_bytes: 40, header_list_bytes: 1_000, ..Limits::default() };
        let check = async |bytes: Vec<u8>, expect: (Refusal, Option<u16>)| {
            assert_eq!(refused(limits(), bytes).await, [expect]);
        };
        // Ours: read by the crate, refused by us.
        check(head(1, &field(b"x", b" y")), (Refusal::Malformed, None)).await;
        check(head(1, &field(b"host", b"b")), (Refusal::Host, None)).await;
        check(head(1, &field(b"x", b"y").repeat(5)), (Refusal::TooManyFields, Some(431))).await;
        check(head(1, &field(b"x", &[b'y'; 120]).repeat(8)), (Refusal::HeadTooLarge, Some(431))).await;
        let long = [b"\x82\x86\x04\x30/", &[b'p'; 47][..], b"\x41\x01a"].concat();
        check(frame(HEADERS, END_HEADERS | END_STREAM, 1, &long), (Refusal::TargetTooLong, Some(414))).await;
        // The crate's own: it gives nothing of them.
        check(head(1, &field(b"te", b"gzip")), (Refusal::Stream, None)).await;
        check(head(1, &field(b"connection", b"close")), (Refusal::Stream, None)).await;
        check(frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x82"), (Refusal::Stream, None)).await;
        check(head(1, &field(b"x", &[b'y'; 120]).repeat(20)), (Refusal::Stream, None)).await;
        let in_pieces =
            [frame(HEADERS, END_STREAM, 1, GET), frame(CONTINUATION, END_HEADERS, 1, &field(b"te", b"gzip"))];
        check(in_pieces.concat(), (Refusal::Stream, None)).await;
        // Good ones are nobody's.
        let good: Vec<u8> = (0..100).flat_map(|nth| get(nth * 2 + 1)).collect();
        assert_eq!(refused(limits(), good).await, []);
    });
}

#[test]
fn a_client_that_is_idle_is_told_before_it_is_left() {
    run(async {
        tokio::time::pause();
        let (mut near, far) = duplex(64 * 1024);
        let limits = Limits { idle: Duration::from_secs(2), last_words: Duration::from_secs(1), ..Limits::default() };
        let server = serve(far, limits, |_, _, mut answer| async move {
            answer.response(&response(204), true).await.unwrap();
        });
        near.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b""), &get(1)].concat()).await.unwrap();
        let last_id = async |near: &mut DuplexStream| loop {
            let (kind, _, _, payload) = next_frame(near).await.unwrap();
            if kind == GOAWAY {
                break u32::from_be_bytes(payload[..4].try_into().unwrap());
            }
        };
        assert_eq!(last_id(&mut near).await, u32::MAX >> 1, "first it is only asked to go");
        // A request that crosses the word is served.
        near.write_all(&get(3)).await.unwrap();
        let ping = loop {
            let (kind, flags, _, payload) = next_frame(&mut near).await.unwrap();
            if kind == PING && flags == 0 {
                break payload;
            }
        };
        while next_frame(&mut near).await.is_some_and(|(kind, _, stream, _)| (kind, stream) != (HEADERS, 3)) {}
        near.write_all(&frame(PING, 1, 0, &ping)).await.unwrap();
        assert_eq!(last_id(&mut near).await, 3);
        assert_eq!(server.await.unwrap(), 2);
    });
}

#[test]
fn an_idle_client_that_does_not_listen_is_left() {
    run(async {
        tokio::time::pause();
        let (mut near, far) = duplex(64 * 1024);
        let limits = Limits { idle: Duration::from_secs(2), last_words: Duration::from_secs(1), ..Limits::default() };
        let server = serve(far, limits, echo);
        near.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).await.unwrap();
        let began = tokio::time::Instant::now();
        assert_eq!(server.await.unwrap(), 0);
        assert_eq!(began.elapsed().as_secs(), 3);
    });
}

#[test]
fn interim_answers_are_counted() {
    run(async {
        let limits = Limits { interim_responses: 3, ..Limits::default() };
        let (client, far) = connect(&limits).await;
        serve(far, limits, |_, _, mut answer| async move {
            for _ in 0..5 {
                let _ = answer.interim(&response(103)).await;
            }
            let _ = answer.response(&response(200), true).await;
        });
        let (_send, mut receive) = client.send(&request(Method::GET, "/"), true).await.unwrap();
        for _ in 0..3 {
            assert_eq!(receive.response_head().await.unwrap().status, 103);
        }
        let error = receive.response_head().await.unwrap_err();
        assert!(matches!(error.error, StreamError::Limit("interim responses")) && !error.unprocessed);
    });
}

#[test]
fn a_connection_without_a_request_ends_and_one_with_a_request_stays() {
    run(async {
        tokio::time::pause();
        let limits = Limits { idle: Duration::from_secs(2), ..Limits::default() };
        let (client, far) = connect(&limits).await;
        let server = serve(far, limits, |_, mut body, mut answer| async move {
            answer.response(&response(200), false).await.unwrap();
            while let Ok(Some(_)) = body.frame().await {}
            answer.finish(None).await.unwrap();
        });
        let (mut send, mut receive) = client.send(&request(Method::POST, "/"), false).await.unwrap();
        assert_eq!(receive.response_head().await.unwrap().status, 200);
        tokio::time::advance(Duration::from_secs(5)).await;
        send.data(Bytes::from_static(b"late")).await.unwrap();
        send.finish(None).await.unwrap();
        assert_eq!(collect(&mut receive).await.unwrap(), (Vec::new(), None));
        // Nothing is asked any more: the server says goodbye, which is no breach.
        assert_eq!(server.await.unwrap(), 1);
    });
}

#[test]
fn trailers_in_a_tunnel_end_that_stream_alone() {
    run(async {
        let (near, far) = duplex(64 * 1024);
        let (told, mut telling) = tokio::sync::mpsc::unbounded_channel();
        serve(far, Limits::default(), move |head, mut body, mut answer| {
            let told = told.clone();
            async move {
                if head.protocol.is_none() {
                    return answer.response(&response(200), true).await.unwrap();
                }
                answer.response(&response(101), false).await.unwrap();
                let seen = body.frame().await;
                told.send(matches!(seen, Err(StreamError::Protocol(_)))).unwrap();
            }
        });
        let (client, connection) = h2::client::handshake(near).await.unwrap();
        tokio::task::spawn_local(connection);
        let mut client = client.ready().await.unwrap();
        let mut connect = Request::new(());
        *connect.method_mut() = Method::CONNECT;
        *connect.uri_mut() = "http://a/".parse().unwrap();
        connect.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        // The server's settings have come with the first answer.
        assert_eq!(
            client.send_request(Request::get("http://a/").body(()).unwrap(), true).unwrap().0.await.unwrap().status(),
            200
        );
        let mut client = client.ready().await.unwrap();
        let (answer, mut up) = client.send_request(connect, false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        up.send_trailers(trailers("x", "y")).unwrap();
        assert!(telling.recv().await.unwrap());
        let mut client = client.ready().await.unwrap();
        let after = client.send_request(Request::get("http://a/").body(()).unwrap(), true).unwrap().0.await;
        assert_eq!(after.unwrap().status(), 200);
    });
}

#[test]
fn a_connection_tells_when_all_its_requests_are_open() {
    run(async {
        let (mut near, far) = duplex(64 * 1024);
        near.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b""), &get(1), &get(3)].concat()).await.unwrap();
        let limits = Limits { concurrent_streams: 2, ..Limits::default() };
        let mut server = ServerConn::new(far, Bytes::new(), &limits).await.unwrap();
        let _first = server.accept().await.unwrap().unwrap();
        assert!(!server.is_full());
        let _second = server.accept().await.unwrap().unwrap();
        assert!(server.is_full());
    });
}

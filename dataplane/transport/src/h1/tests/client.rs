//! The client role.

use super::*;
use crate::http::UpgradeToken;

/// Outcome of a scripted server's bytes: every head's status, the body or its error, and whether the connection may be
/// reused. The server answers one request and closes only where `close` says so.
async fn answered(method: &'static str, script: &[u8], close: bool) -> (Vec<u16>, Result<String, String>, bool) {
    let (near, mut far) = pair().await;
    let script = script.to_vec();
    let server = tokio::task::spawn_local(async move {
        read_until(&mut far, "\r\n\r\n").await;
        far.write_all(&script).await.unwrap();
        if close {
            far.shutdown().await.unwrap();
        }
        let mut rest = Vec::new();
        let _ = far.read_to_end(&mut rest).await;
    });
    let mut connection = ClientConn::new(near, Limits::default());
    let mut statuses = Vec::new();
    let result = {
        let (_, mut answer) = connection.send(&request(method, "/", &[]), true).await.unwrap();
        loop {
            match answer.head().await {
                Ok(head) => statuses.push(head.status.as_u16()),
                Err(error) => {
                    assert!(!error.unprocessed, "the request was sent");
                    break Err(error.to_string());
                }
            }
            if statuses.last().is_some_and(|status| *status >= 200) {
                break collect(&mut answer.into_body()).await.map_err(|error| error.to_string()).map(
                    |(bytes, trailers)| {
                        let trailers = trailers.map_or(String::new(), |map| format!("|{map:?}"));
                        String::from_utf8(bytes).unwrap() + &trailers
                    },
                );
            }
        }
    };
    let reusable = connection.reusable();
    drop(connection);
    server.await.unwrap();
    (statuses, result, reusable)
}

#[track_caller]
fn is(got: (Vec<u16>, Result<String, String>, bool), statuses: &[u16], body: Result<&str, &str>, reusable: bool) {
    let expect = (statuses.to_vec(), body.map(str::to_owned).map_err(str::to_owned), reusable);
    assert_eq!(got, expect);
}

#[test]
fn responses_end_where_they_say_and_reuse_follows() {
    run(async {
        let get = |text: &'static str, close| answered("GET", text.as_bytes(), close);
        is(get("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false).await, &[200], Ok("ok"), true);
        is(
            get("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", false).await,
            &[200],
            Ok("ok"),
            false,
        );
        is(get("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false).await, &[200], Ok("ok"), false);
        is(get("HTTP/1.1 200 OK\r\n\r\nok until the end", true).await, &[200], Ok("ok until the end"), false);
        is(
            get("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n", false).await,
            &[200],
            Ok("ok|{\"x\": \"y\"}"),
            true,
        );
        is(get("HTTP/1.1 204 No Content\r\n\r\n", false).await, &[204], Ok(""), true);
        is(get("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", false).await, &[304], Ok(""), true);
        let head = answered("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 55\r\n\r\n", false).await;
        is(head, &[200], Ok(""), true);
    });
}

#[test]
fn bytes_after_a_response_forbid_reuse() {
    run(async {
        let get = |text: &'static str| answered("GET", text.as_bytes(), false);
        is(get("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n").await, &[200], Ok("ok"), false);
        is(get("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nx").await, &[200], Ok(""), false);
        is(get("HTTP/1.1 304 Not Modified\r\n\r\nbody").await, &[304], Ok(""), false);
        is(get("HTTP/1.1 204 No Content\r\n\r\nbody").await, &[204], Ok(""), false);
        let head = answered("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", false).await;
        is(head, &[200], Ok(""), false);
    });
}

#[test]
fn broken_responses_are_errors() {
    run(async {
        let early = "message ended early";
        let get = |text: &'static str| answered("GET", text.as_bytes(), true);
        is(get("").await, &[], Err("connection lost: closed before the response"), false);
        is(get("HTTP/1.1 200").await, &[], Err(early), false);
        is(get("HTTP/1.1 100 Continue\r\n\r\n").await, &[100], Err(early), false);
        is(get("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok").await, &[200], Err(early), false);
        is(get("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n").await, &[200], Err(early), false);
        is(
            get("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokk").await,
            &[200],
            Err("protocol error: malformed chunk"),
            false,
        );
        is(get("SSH-2.0-OpenSSH\r\n").await, &[], Err("protocol error: malformed response head"), false);
        let both = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        is(
            get(both).await,
            &[],
            Err("protocol error: both transfer-encoding and content-length in the response"),
            false,
        );
    });
}

#[test]
fn interim_responses_are_seen_and_bounded() {
    run(async {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        is(answered("GET", text.as_bytes(), false).await, &[100, 100, 103, 200], Ok(""), true);
        let endless = "HTTP/1.1 102 Processing\r\n\r\n".repeat(100);
        let (statuses, result, reusable) = answered("GET", endless.as_bytes(), false).await;
        assert_eq!(
            (statuses.len(), result, reusable),
            (32, Err("limit exceeded: interim responses".to_owned()), false)
        );
    });
}

#[test]
fn a_request_leaves_in_one_piece_and_the_body_follows_its_framing() {
    run(async {
        let (near, mut far) = pair().await;
        let mut connection = ClientConn::new(near, Limits::default());
        let head = request("POST", "/", &[("content-length", "5")]);
        for _ in 0..2 {
            let (mut body, mut answer) = connection.send(&head, false).await.unwrap();
            body.data(Bytes::from_static(b"he")).await.unwrap();
            body.data(Bytes::from_static(b"llo")).await.unwrap();
            body.finish(None).await.unwrap();
            let mut seen = [0u8; 1024];
            let count = far.read(&mut seen).await.unwrap();
            assert_eq!(&seen[..count], b"POST / HTTP/1.1\r\nhost: host\r\ncontent-length: 5\r\n\r\nhello");
            far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            assert_eq!(answer.head().await.unwrap().status, 200);
            assert!(answer.into_body().is_end());
        }
        let (mut body, _) = connection.send(&request("POST", "/", &[]), false).await.unwrap();
        body.data(Bytes::from_static(b"abc")).await.unwrap();
        body.finish(Some(header_map(&[("x", "y")]))).await.unwrap();
        let text = read_until(&mut far, "x: y\r\n\r\n").await;
        assert!(text.ends_with("transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n"), "{text}");
    });
}

#[test]
fn an_early_answer_is_seen_and_the_connection_not_reused() {
    run(async {
        let (near, mut far) = pair().await;
        let mut connection = ClientConn::new(near, Limits::default());
        {
            let (mut body, mut answer) = connection.send(&request("POST", "/", &[]), false).await.unwrap();
            body.data(Bytes::from_static(b"part")).await.unwrap();
            body.flush().await.unwrap();
            far.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            assert_eq!(answer.head().await.unwrap().status, 413);
            assert!(collect(&mut answer.into_body()).await.unwrap().0.is_empty());
        }
        assert!(!connection.reusable());
        let error = connection.send(&request("GET", "/", &[]), true).await.unwrap_err();
        assert!(error.unprocessed);
    });
}

#[test]
fn a_connection_that_ended_or_spoke_while_idle_is_stale() {
    run(async {
        let (near, far) = pair().await;
        let mut quiet = ClientConn::new(near, Limits::default());
        assert!(!quiet.is_stale() && quiet.reusable());
        drop(far);
        quiet.stream().readable().await.unwrap();
        assert!(quiet.is_stale() && !quiet.reusable());
        let (near, mut far) = pair().await;
        let mut spoken_to = ClientConn::new(near, Limits::default());
        far.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        spoken_to.stream().readable().await.unwrap();
        assert!(spoken_to.is_stale() && !spoken_to.reusable());
    });
}

#[test]
fn a_request_that_never_left_is_unprocessed() {
    run(async {
        let (near, far) = pair().await;
        let mut connection = ClientConn::new(near, Limits::default());
        let (_, answer) = connection.send(&request("POST", "/", &[]), false).await.unwrap();
        drop(far);
        let ResponseRecv::H1(mut answer) = answer else { panic!("not HTTP/1") };
        assert!(answer.head().await.unwrap_err().unprocessed);
        let wrong = request("POST", "/", &[("content-length", "5")]);
        let (near, _far) = pair().await;
        let mut connection = ClientConn::new(near, Limits::default());
        assert!(connection.send(&wrong, true).await.unwrap_err().unprocessed);
        assert!(connection.reusable());
    });
}

#[test]
fn hyper_as_server() {
    use http_body_util::{BodyExt, Full};
    run(async {
        let (near, far) = pair().await;
        let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let text = [path.as_bytes(), b" ", &body].concat();
            Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from(text))))
        });
        let io = hyper_util::rt::TokioIo::new(far);
        tokio::task::spawn_local(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        let mut connection = ClientConn::new(near, Limits::default());
        for number in 0..50usize {
            let body = "x".repeat(number * 997);
            assert!(connection.reusable() && !connection.is_stale());
            let (mut sink, mut answer) = connection.send(&request("POST", "/echo", &[]), false).await.unwrap();
            for piece in body.as_bytes().chunks(10_000) {
                sink.data(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            sink.finish(None).await.unwrap();
            let head = answer.head().await.unwrap();
            assert_eq!(head.status, 200);
            let (bytes, _) = collect(&mut answer.into_body()).await.unwrap();
            assert_eq!(String::from_utf8(bytes).unwrap(), format!("/echo {body}"));
        }
    });
}

#[test]
fn no_byte_goes_ahead_of_the_101_and_none_that_came_with_it_is_lost() {
    run(async {
        let (near, mut far) = pair().await;
        let mut connection = ClientConn::new(near, Limits::default());
        let head = RequestHead {
            protocol: UpgradeToken::new("websocket"),
            ..request("GET", "/chat", &[("sec-websocket-key", "k"), ("te", "trailers")])
        };
        let (mut sink, mut answer) = connection.send(&head, false).await.unwrap();
        let expect = "GET /chat HTTP/1.1\r\nhost: host\r\nsec-websocket-key: k\r\nte: trailers\r\nupgrade: websocket\r\n\
                      connection: upgrade, te\r\n\r\n";
        assert_eq!(read_until(&mut far, "\r\n\r\n").await, expect);
        let ahead = async {
            sink.data(Bytes::from_static(b"raw")).await.unwrap();
            sink.finish(None).await.unwrap();
        };
        let talk = async {
            assert!(timeout(Duration::from_millis(50), far.read_u8()).await.is_err(), "bytes before the 101");
            far.write_all(
                b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n\
                Connection: Upgrade\r\nUpgrade: WebSocket\r\nsec-websocket-accept: a\r\n\r\nhello",
            )
            .await
            .unwrap();
            assert_eq!(answer.head().await.unwrap().status, 103);
            let accepted = answer.head().await.unwrap();
            assert_eq!((accepted.status.as_u16(), accepted.headers.len()), (101, 1));
            let mut body = answer.into_body();
            assert!(matches!(body.frame().await, Ok(Some(Frame::Data(data))) if data == "hello"));
            assert_eq!(read_all(&mut far).await, "raw");
            far.write_all(b"more").await.unwrap();
            drop(far);
            assert_eq!(collect(&mut body).await.unwrap().0, b"more");
        };
        tokio::join!(ahead, talk);
        assert!(!connection.reusable());
    });
}

#[test]
fn an_upgrade_that_is_refused_sends_nothing_and_keeps_the_connection() {
    run(async {
        let (near, mut far) = pair().await;
        let mut connection = ClientConn::new(near, Limits::default());
        let head = RequestHead { protocol: UpgradeToken::new("websocket"), ..request("GET", "/", &[]) };
        {
            let (mut sink, mut answer) = connection.send(&head, false).await.unwrap();
            read_until(&mut far, "\r\n\r\n").await;
            far.write_all(
                b"HTTP/1.1 426 Try Harder\r\nUpgrade: foo/2\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nno",
            )
            .await
            .unwrap();
            let (sent, head) = tokio::join!(sink.data(Bytes::from_static(b"raw")), answer.head());
            assert!(sent.is_err());
            let head = head.unwrap();
            assert_eq!(
                (&head.headers["weft-offers"], &head.headers["weft-reason"]),
                (&HeaderValue::from_static("foo/2"), &HeaderValue::from_static("Try Harder"))
            );
            assert_eq!(collect(&mut answer.into_body()).await.unwrap().0, b"no");
        }
        assert!(connection.reusable());
        let _ = connection.send(&request("GET", "/next", &[]), true).await.unwrap();
        assert_eq!(read_until(&mut far, "\r\n\r\n").await, "GET /next HTTP/1.1\r\nhost: host\r\n\r\n");
    });
}

#[test]
fn a_101_that_nobody_asked_for_or_to_another_protocol_is_an_error() {
    run(async {
        for (protocol, answer) in [
            (None, "Connection: upgrade\r\nUpgrade: websocket\r\n"),
            (Some("websocket"), "Connection: upgrade\r\nUpgrade: h2c\r\n"),
            (Some("websocket"), "Upgrade: websocket\r\n"),
            (Some("websocket"), "Connection: upgrade\r\n"),
        ] {
            let (near, mut far) = pair().await;
            let mut connection = ClientConn::new(near, Limits::default());
            let head = RequestHead { protocol: protocol.and_then(UpgradeToken::new), ..request("GET", "/", &[]) };
            let (_sink, mut reader) = connection.send(&head, true).await.unwrap();
            read_until(&mut far, "\r\n\r\n").await;
            far.write_all(format!("HTTP/1.1 101 Switching Protocols\r\n{answer}\r\n").as_bytes()).await.unwrap();
            let error = reader.head().await.unwrap_err();
            assert!(matches!(error.error, StreamError::Protocol(_)), "{protocol:?} {answer}: {error}");
            drop(reader);
            assert!(!connection.reusable());
        }
    });
}

#[test]
fn connect_is_never_sent() {
    run(async {
        let (near, mut far) = pair().await;
        let mut connection = ClientConn::new(near, Limits::default());
        for protocol in [None, UpgradeToken::new("websocket")] {
            let head = RequestHead { protocol, ..request("CONNECT", "/", &[]) };
            let error = connection.send(&head, false).await.unwrap_err();
            assert!(error.unprocessed && matches!(error.error, StreamError::Protocol(_)), "{error}");
        }
        let _ = connection.send(&request("GET", "/", &[]), true).await.unwrap();
        assert_eq!(read_until(&mut far, "\r\n\r\n").await, "GET / HTTP/1.1\r\nhost: host\r\n\r\n");
    });
}

#[test]
fn a_reason_phrase_may_be_empty() {
    run(async {
        let (near, mut far) = pair().await;
        let mut connection = ClientConn::new(near, Limits::default());
        for (line, expect) in
            [("200 ", Some("")), ("200 OK", None), ("599 ", None), ("404 Not Found", None), ("404 Gone", Some("Gone"))]
        {
            let (_sink, mut reader) = connection.send(&request("GET", "/", &[]), true).await.unwrap();
            read_until(&mut far, "\r\n\r\n").await;
            far.write_all(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await.unwrap();
            let head = reader.head().await.unwrap();
            assert_eq!(head.headers.get("weft-reason").map(|reason| reason.to_str().unwrap()), expect, "{line}");
        }
    });
}

#[test]
fn what_only_http1_says_of_an_answer_is_kept() {
    run(async {
        let (near, mut far) = pair().await;
        let mut connection = ClientConn::new(near, Limits::default());
        let (_sink, mut reader) = connection.send(&request("GET", "/", &[]), true).await.unwrap();
        read_until(&mut far, "\r\n\r\n").await;
        let answer = b"HTTP/1.1 200 Fine \xe9\r\nHost : me\r\nweft-offers: forged\r\nKeep-Alive: timeout=7, max=2\r\nUpgrade: h2c\r\nContent-Length:0\r\n\r\n";
        far.write_all(answer).await.unwrap();
        let head = reader.head().await.unwrap();
        drop(reader);
        let fields: Vec<_> = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(fields, [("host", &b"me"[..]), ("content-length", b"0"), ("weft-reason", b"Fine \xe9")]);
        assert_eq!(connection.keep_alive_timeout(), Some(Duration::from_secs(7)));
        assert!(connection.reusable());
    });
}

/// RST by the app: everything that arrived before is given out, and then no clean end, whatever the framing, also where a
/// write has learnt of the RST first.
#[test]
fn an_answer_that_breaks_off_loses_nothing_that_came_before() {
    run(async {
        const SENT: usize = 655_360;
        for (framing, written) in
            [("", false), ("Content-Length: 700000\r\n", false), ("", true), ("Content-Length: 700000\r\n", true)]
        {
            let (near, mut far) = pair().await;
            socket2::SockRef::from(&near).set_recv_buffer_size(4 << 20).unwrap();
            let mut connection = ClientConn::new(near, Limits::default());
            let (mut sink, mut reader) = connection.send(&request("POST", "/", &[]), false).await.unwrap();
            sink.flush().await.unwrap();
            read_until(&mut far, "\r\n\r\n").await;
            far.write_all(format!("HTTP/1.1 200 OK\r\n{framing}\r\n").as_bytes()).await.unwrap();
            assert_eq!(reader.head().await.unwrap().status, 200);
            far.write_all(&[b'x'; SENT]).await.unwrap();
            tcp::delivered(&far).await;
            tcp::linger_zero(&far);
            drop(far);
            if written {
                while sink.data(Bytes::from_static(&[0; 20_000])).await.is_ok() {}
            }
            let mut body = reader.into_body();
            let mut taken = 0;
            let end = loop {
                match body.frame().await {
                    Ok(Some(Frame::Data(data))) => taken += data.len(),
                    other => break other,
                }
            };
            assert_eq!(taken, SENT, "{framing:?}");
            assert!(end.is_err(), "{framing:?} {written}: a clean end");
        }
    });
}

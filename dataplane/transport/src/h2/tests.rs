//! Both roles on in-memory pipes, against each other and against the crate `h2` and hyper as independent peers.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

mod limits;
mod raw;
mod windows;

use super::*;
use crate::http::{Frame, RecvBody, RequestHead, ResponseHead, StreamError, Target, UpgradeToken};

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let patience = Duration::from_secs(20);
    local.block_on(&runtime, async { timeout(patience, test).await.expect("the test takes too long") })
}

fn request(method: Method, path: &'static str) -> RequestHead {
    RequestHead {
        method,
        authority: Some(Authority::from_static("host:80")),
        path: Some(Target::from_static(path)),
        protocol: None,
        headers: HeaderMap::new(),
        version: Version::HTTP_11,
    }
}

fn response(status: u16) -> ResponseHead {
    ResponseHead { status: StatusCode::from_u16(status).unwrap(), headers: HeaderMap::new() }
}

fn trailers(name: &'static str, value: &'static str) -> HeaderMap {
    [(name.parse().unwrap(), HeaderValue::from_static(value))].into_iter().collect()
}

async fn collect(stream: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), StreamError> {
    let mut body = RecvBody::H2(stream);
    let (mut bytes, mut trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await? {
        match frame {
            Frame::Data(data) => bytes.extend_from_slice(&data),
            Frame::Trailers(map) => trailers = Some(map),
        }
    }
    Ok((bytes, trailers))
}

/// Accepts connections' streams and hands each to `handle` as a task.
fn serve<H, F>(io: DuplexStream, limits: Limits, handle: H) -> tokio::task::JoinHandle<usize>
where
    H: Fn(RequestHead, RecvStream, SendStream) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    tokio::task::spawn_local(async move {
        let mut server = ServerConn::new(io, Bytes::new(), &limits).await.unwrap();
        let mut served = 0;
        while let Ok(Some(Exchange { head, body, answer })) = server.accept().await {
            served += 1;
            tokio::task::spawn_local(handle(head, body, answer));
        }
        served
    })
}

async fn echo(head: RequestHead, mut body: RecvStream, mut answer: SendStream) {
    assert_eq!(head.version, Version::HTTP_2);
    answer.interim(&response(103)).await.unwrap();
    answer.response(&response(200), false).await.unwrap();
    while let Ok(Some(frame)) = body.frame().await {
        match frame {
            Frame::Data(data) => answer.data(data).await.unwrap(),
            Frame::Trailers(map) => return answer.finish(Some(map)).await.unwrap(),
        }
    }
    answer.finish(None).await.unwrap();
}

async fn connect(limits: &Limits) -> (ClientConn, DuplexStream) {
    let (near, far) = duplex(64 * 1024);
    (ClientConn::connect(near, limits).await.unwrap(), far)
}

#[test]
fn our_roles_carry_bodies_trailers_and_interim_responses() {
    run(async {
        let (client, far) = connect(&Limits::default()).await;
        serve(far, Limits::default(), echo);
        let body: Vec<u8> = (0..1_000_000u32).map(|number| number.to_le_bytes()[0]).collect();
        for _ in 0..3 {
            let (mut send, mut receive) = client.send(&request(Method::POST, "/a?b"), false).await.unwrap();
            let upload = async {
                for piece in body.chunks(50_000) {
                    send.data(Bytes::copy_from_slice(piece)).await.unwrap();
                }
                send.finish(Some(trailers("grpc-status", "0"))).await.unwrap();
            };
            let download = async {
                assert_eq!(receive.response_head().await.unwrap().status, 103);
                assert_eq!(receive.response_head().await.unwrap().status, 200);
                collect(&mut receive).await.unwrap()
            };
            let ((), (bytes, map)) = tokio::join!(upload, download);
            assert!(bytes == body);
            assert_eq!(map.unwrap()["grpc-status"], "0");
            assert!(receive.is_end());
        }
    });
}

#[test]
fn trailers_only_and_bodyless_answers_end_with_their_head() {
    run(async {
        let (client, far) = connect(&Limits::default()).await;
        serve(far, Limits::default(), |head, body, mut answer| async move {
            assert!(body.is_end());
            assert_eq!(head.path.unwrap(), "/service/Method");
            let headers = trailers("grpc-status", "5");
            answer.response(&ResponseHead { status: StatusCode::OK, headers }, true).await.unwrap();
        });
        let (_, mut receive) = client.send(&request(Method::POST, "/service/Method"), true).await.unwrap();
        assert_eq!(receive.response_head().await.unwrap().headers["grpc-status"], "5");
        assert!(receive.is_end());
        assert_eq!(collect(&mut receive).await.unwrap(), (Vec::new(), None));
    });
}

#[test]
fn resets_keep_their_meaning() {
    run(async {
        let (client, far) = connect(&Limits::default()).await;
        serve(far, Limits::default(), |head, _, mut answer| async move {
            let code = u64::from_str_radix(&head.path.unwrap().to_string()[1..], 16).unwrap();
            answer.reset(code);
        });
        for (path, code, unprocessed) in [
            ("/10b", 0x10b, true),
            ("/10c", 0x10c, false),
            ("/102", 0x102, false),
            ("/107", 0x107, false),
            ("/10f", 0x10f, false),
            ("/110", 0x110, false),
            ("/105", 0x101, false),
            ("/33", 0x102, false),
        ] {
            let (_, mut receive) = client.send(&request(Method::GET, path), true).await.unwrap();
            let error = receive.response_head().await.unwrap_err();
            assert!(matches!(error.error, StreamError::Reset(got) if got == code), "{path}: {error:?}");
            assert_eq!(error.unprocessed, unprocessed, "{path}");
        }
        assert!(!client.is_closed());
    });
}

#[test]
fn a_client_that_resets_is_noticed() {
    run(async {
        let (client, far) = connect(&Limits::default()).await;
        let server = tokio::task::spawn_local(async move {
            let mut server = ServerConn::new(far, Bytes::new(), &Limits::default()).await.unwrap();
            let Exchange { mut body, mut answer, .. } = server.accept().await.unwrap().unwrap();
            tokio::select! {
                () = answer.gone() => {}
                _ = server.accept() => panic!("no second request"),
            }
            assert!(matches!(body.frame().await, Err(StreamError::Reset(0x10c))));
        });
        let (mut send, _receive) = client.send(&request(Method::POST, "/"), false).await.unwrap();
        send.data(Bytes::from_static(b"part")).await.unwrap();
        send.reset(0x10c);
        server.await.unwrap();
    });
}

#[test]
fn goaway_finishes_what_was_taken_and_refuses_the_rest() {
    run(async {
        let (client, far) = connect(&Limits::default()).await;
        let server = tokio::task::spawn_local(async move {
            let mut server = ServerConn::new(far, Bytes::new(), &Limits::default()).await.unwrap();
            let Exchange { head, body, answer } = server.accept().await.unwrap().unwrap();
            server.graceful_shutdown();
            let working = tokio::task::spawn_local(echo(head, body, answer));
            assert!(server.accept().await.unwrap().is_none());
            working.await.unwrap();
        });
        let (mut send, mut receive) = client.send(&request(Method::POST, "/"), false).await.unwrap();
        assert_eq!(receive.response_head().await.unwrap().status, 103);
        assert_eq!(receive.response_head().await.unwrap().status, 200);
        let error = loop {
            match client.send(&request(Method::GET, "/"), true).await {
                Err(error) => break error,
                Ok((_, mut receive)) => {
                    if let Err(error) = receive.response_head().await {
                        break error;
                    }
                }
            }
        };
        assert!(error.unprocessed, "{error:?}");
        send.data(Bytes::from_static(b"still")).await.unwrap();
        send.finish(None).await.unwrap();
        assert_eq!(collect(&mut receive).await.unwrap().0, b"still");
        server.await.unwrap();
    });
}

#[test]
fn a_stalled_reader_holds_up_its_own_stream_only() {
    run(async {
        let limits = Limits::default();
        let (client, far) = connect(&limits).await;
        serve(far, limits.clone(), echo);
        let (mut send, mut stalled) = client.send(&request(Method::POST, "/stalled"), false).await.unwrap();
        let piece = Bytes::from(vec![b'x'; 16_384]);
        let mut taken = 0;
        while timeout(Duration::from_millis(100), send.data(piece.clone())).await.is_ok() {
            taken += piece.len();
            assert!(taken < 4 << 20, "nothing stops the sender");
        }
        let most = 2 * limits.stream_window as usize + 2 * limits.send_buffer + 3 * 64 * 1024;
        assert!(taken <= most, "{taken} bytes are held somewhere");
        for _ in 0..50 {
            let (mut send, mut receive) = client.send(&request(Method::POST, "/quick"), false).await.unwrap();
            send.data(Bytes::from_static(b"hello")).await.unwrap();
            send.finish(None).await.unwrap();
            while receive.response_head().await.unwrap().status != 200 {}
            assert_eq!(collect(&mut receive).await.unwrap().0, b"hello");
        }
        send.reset(0x10c);
        assert!(stalled.response_head().await.is_ok());
    });
}

#[test]
fn malformed_requests_are_reset_and_the_connection_lives() {
    run(async {
        let (near, far) = duplex(64 * 1024);
        let served = serve(far, Limits::default(), echo);
        let (mut client, connection) = h2::client::handshake(near).await.unwrap();
        tokio::task::spawn_local(connection);
        let base = || Request::get("http://host/").version(Version::HTTP_2);
        let many = (0..200).fold(base(), |request, number| request.header(format!("x-{number}"), "y"));
        let bad = [
            base().header("host", "other"),
            base().header("host", "host").header("host", "host"),
            base().header("host", "a b"),
            Request::get("http://user@host/").version(Version::HTTP_2),
            Request::connect("host").version(Version::HTTP_2),
            Request::connect("host:0").version(Version::HTTP_2),
            base().header("x-role", " admin"),
            base().header("x-role", "admin\t"),
            Request::get("ftp://host/").version(Version::HTTP_2),
        ];
        for request in bad {
            let (answer, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
            assert!(answer.await.unwrap_err().is_reset());
        }
        let (answer, _) = client.send_request(many.body(()).unwrap(), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 431);
        let good = base().header("host", "HOST").body(()).unwrap();
        let (answer, _) = client.send_request(good, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        let without_authority = Request::get("/").version(Version::HTTP_11).header("host", "host").body(()).unwrap();
        let (answer, _) = client.send_request(without_authority, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        drop(client);
        assert_eq!(served.await.unwrap(), 2);
    });
}

#[test]
fn a_header_list_over_the_limit_is_answered_with_431() {
    run(async {
        let (near, far) = duplex(64 * 1024);
        serve(far, Limits::default(), echo);
        let (mut client, connection) = h2::client::handshake(near).await.unwrap();
        tokio::task::spawn_local(connection);
        let request = Request::get("http://host/").version(Version::HTTP_2).header("x", "y".repeat(70_000));
        let (answer, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 431);
    });
}

#[test]
fn bytes_that_detection_took_come_first() {
    run(async {
        let (near, mut far) = duplex(64 * 1024);
        let client = tokio::task::spawn_local(async move {
            let client = ClientConn::connect(near, &Limits::default()).await.unwrap();
            let (_, mut receive) = client.send(&request(Method::GET, "/"), true).await.unwrap();
            while receive.response_head().await.unwrap().status != 200 {}
        });
        let mut first = [0u8; 24];
        tokio::io::AsyncReadExt::read_exact(&mut far, &mut first).await.unwrap();
        assert_eq!(crate::detect::detect(&first), crate::detect::Detected::Http2);
        let mut server = ServerConn::new(far, Bytes::copy_from_slice(&first), &Limits::default()).await.unwrap();
        let Exchange { head, body, answer } = server.accept().await.unwrap().unwrap();
        tokio::task::spawn_local(echo(head, body, answer));
        tokio::task::spawn_local(async move { while let Ok(Some(_)) = server.accept().await {} });
        client.await.unwrap();
    });
}

#[test]
fn hop_by_hop_fields_never_enter_http2() {
    run(async {
        let (client, far) = connect(&Limits::default()).await;
        serve(far, Limits::default(), |head, _, mut answer| async move {
            let names: Vec<_> = head.headers.keys().map(|name| name.as_str()).collect();
            assert_eq!(names, ["te", "x"]);
            let headers = trailers("connection", "close");
            answer.response(&ResponseHead { status: StatusCode::OK, headers }, true).await.unwrap();
        });
        let mut head = request(Method::GET, "/");
        for (name, value) in
            [("te", "trailers"), ("connection", "x"), ("upgrade", "h2c"), ("transfer-encoding", "chunked"), ("x", "y")]
        {
            head.headers.insert(name, HeaderValue::from_static(value));
        }
        let (_, mut receive) = client.send(&head, true).await.unwrap();
        assert!(receive.response_head().await.unwrap().headers.is_empty());
    });
}

#[test]
fn a_lost_connection_is_an_error_everywhere() {
    run(async {
        let (client, mut far) = connect(&Limits::default()).await;
        far.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let (mut send, mut receive) = client.send(&request(Method::POST, "/"), false).await.unwrap();
        far.shutdown().await.unwrap();
        drop(far);
        let error = receive.response_head().await.unwrap_err();
        assert!(!error.unprocessed && matches!(error.error, StreamError::ConnectionLost(_)), "{error:?}");
        assert!(send.data(Bytes::from_static(b"x")).await.is_err());
        assert!(client.send(&request(Method::GET, "/"), true).await.unwrap_err().unprocessed);
        assert!(client.is_closed());
    });
}

#[test]
fn hyper_as_server_and_connect_as_a_tunnel() {
    use http_body_util::{BodyExt, Full};
    run(async {
        let (client, far) = connect(&Limits::default()).await;
        let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
            let text = format!("{} {}", request.method(), request.uri());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(
                [text.as_bytes(), b" ", &body].concat(),
            ))))
        });
        let executor = LocalExecutor;
        let io = hyper_util::rt::TokioIo::new(far);
        tokio::task::spawn_local(hyper::server::conn::http2::Builder::new(executor).serve_connection(io, service));
        let (mut send, mut receive) = client.send(&request(Method::PUT, "/x"), false).await.unwrap();
        send.data(Bytes::from_static(b"body")).await.unwrap();
        send.finish(None).await.unwrap();
        assert_eq!(receive.response_head().await.unwrap().status, 200);
        assert_eq!(collect(&mut receive).await.unwrap().0, b"PUT http://host:80/x body");

        let (client, far) = connect(&Limits::default()).await;
        serve(far, Limits::default(), |head, body, answer| {
            assert_eq!((head.method.as_str(), head.path.as_ref()), ("CONNECT", None));
            assert_eq!(head.authority.as_ref().unwrap(), "host:80");
            echo(head, body, answer)
        });
        let mut head = request(Method::CONNECT, "/");
        head.path = None;
        let (mut send, mut receive) = client.send(&head, false).await.unwrap();
        while receive.response_head().await.unwrap().status != 200 {}
        send.data(Bytes::from_static(b"raw")).await.unwrap();
        assert!(matches!(receive.frame().await, Ok(Some(Frame::Data(data))) if data == "raw"));
        send.finish(None).await.unwrap();
        assert!(matches!(receive.frame().await, Ok(None)));
    });
}

#[derive(Clone)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

fn websocket(path: &'static str) -> RequestHead {
    let mut head = request(Method::GET, path);
    head.protocol = UpgradeToken::new("websocket");
    head
}

#[test]
fn an_upgrade_is_an_extended_connect_on_the_wire() {
    run(async {
        let (client, far) = connect(&Limits::default()).await;
        serve(far, Limits::default(), |head, mut body, mut answer| async move {
            assert_eq!((&head.method, head.protocol.as_deref()), (&Method::GET, Some(&b"websocket"[..])));
            assert_eq!(head.headers["sec-websocket-key"].len(), 24, "the key that an HTTP/1 app needs");
            let status = match head.path.unwrap().as_bytes() {
                b"/yes" => 101,
                b"/no" => 426,
                _ => 200,
            };
            let headers = trailers("sec-websocket-accept", "made by the app");
            answer.response(&ResponseHead { headers, ..response(status) }, false).await.unwrap();
            while let Ok(Some(Frame::Data(data))) = body.frame().await {
                answer.data(data).await.unwrap();
            }
            answer.finish(None).await.unwrap();
        });
        client.settled().await.unwrap();
        assert!(client.takes_upgrades());
        let by_post = RequestHead { method: Method::POST, ..websocket("/yes") };
        assert!(client.send(&by_post, false).await.unwrap_err().unprocessed, "RFC 8441 knows GET only");
        let mut head = websocket("/yes");
        head.headers.insert("sec-websocket-key", HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        let (mut send, mut receive) = client.send(&head, false).await.unwrap();
        let accepted = receive.response_head().await.unwrap();
        assert_eq!(accepted.status, 101);
        assert_eq!(
            accepted.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            "for the key of the asker"
        );
        for text in ["one", "two"] {
            send.data(Bytes::from_static(text.as_bytes())).await.unwrap();
            assert!(matches!(receive.frame().await, Ok(Some(Frame::Data(data))) if data == text));
        }
        send.finish(None).await.unwrap();
        assert!(matches!(receive.frame().await, Ok(None)));
        for (path, status) in [("/no", 426), ("/ordinary", 501)] {
            let (_send, mut receive) = client.send(&websocket(path), false).await.unwrap();
            assert_eq!(receive.response_head().await.unwrap().status, status, "{path}: never a success");
        }
    });
}

#[test]
fn other_protocols_are_answered_501_and_servers_without_them_are_not_asked() {
    run(async {
        let (near, far) = duplex(64 * 1024);
        serve(far, Limits::default(), echo);
        let (mut client, connection) = h2::client::handshake(near).await.unwrap();
        tokio::task::spawn_local(connection);
        for protocol in ["connect-udp", "weft-upgrade", "weft-upgrade-by-method", "websocketx", ""] {
            let mut request = Request::connect("http://host/").version(Version::HTTP_2).body(()).unwrap();
            request.headers_mut().insert("weft-upgrade", HeaderValue::from_static("websocket"));
            request.headers_mut().insert("weft-method", HeaderValue::from_static("POST"));
            request.extensions_mut().insert(h2::ext::Protocol::from(protocol));
            client = client.ready().await.unwrap();
            let (answer, _) = client.send_request(request, false).unwrap();
            assert_eq!(answer.await.unwrap().status(), 501, "{protocol}");
        }
        let (near, far) = duplex(64 * 1024);
        tokio::task::spawn_local(async move {
            let mut server = h2::server::handshake(far).await.unwrap();
            assert!(server.accept().await.is_none());
        });
        let client = ClientConn::connect(near, &Limits::default()).await.unwrap();
        client.settled().await.unwrap();
        assert!(!client.takes_upgrades());
        assert!(client.send(&websocket("/"), false).await.unwrap_err().unprocessed);
    });
}

#[test]
fn cookie_crumbs_are_joined() {
    run(async {
        let (near, far) = duplex(64 * 1024);
        serve(far, Limits::default(), |head, _, mut answer| async move {
            let cookies: Vec<_> = head.headers.get_all("cookie").iter().collect();
            assert_eq!(cookies, ["a=1; b=2; c=3"]);
            answer.response(&response(204), true).await.unwrap();
        });
        let (mut client, connection) = h2::client::handshake(near).await.unwrap();
        tokio::task::spawn_local(connection);
        let request = Request::get("http://host/").header("cookie", "a=1").header("cookie", "b=2");
        let request = request.header("cookie", "").header("cookie", "c=3").header("cookie", "").body(()).unwrap();
        assert_eq!(client.send_request(request, true).unwrap().0.await.unwrap().status(), 204);
    });
}

//! Heads as text: what is written for which message, and what never is.

use http::uri::Authority;
use http::{HeaderValue, Version};

use super::*;
use crate::http::{Target, UpgradeToken};

fn request_of(method: &str, headers: &[(&'static str, &str)]) -> RequestHead {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    RequestHead {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        authority: Some(Authority::from_static("host:80")),
        path: Some(Target::from_static("/a?b")),
        protocol: None,
        headers: map,
        version: Version::HTTP_11,
    }
}

fn written(head: &RequestHead, end: bool) -> String {
    let mut out = BytesMut::new();
    super::request(&mut out, head, end).unwrap();
    String::from_utf8(out.to_vec()).unwrap()
}

#[test]
fn requests_say_what_follows_and_nothing_else() {
    let start = "POST /a?b HTTP/1.1\r\nhost: host:80\r\n";
    assert_eq!(written(&request_of("POST", &[]), true), format!("{start}content-length: 0\r\n\r\n"));
    assert!(!written(&request_of("DELETE", &[]), true).contains("content-length"));
    assert_eq!(written(&request_of("POST", &[]), false), format!("{start}transfer-encoding: chunked\r\n\r\n"));
    let zero = request_of("POST", &[("content-length", "0")]);
    assert_eq!(written(&zero, true), format!("{start}content-length: 0\r\n\r\n"));
    let five = request_of("POST", &[("content-length", "5")]);
    assert_eq!(written(&five, false), format!("{start}content-length: 5\r\n\r\n"));
    assert!(super::request(&mut BytesMut::new(), &five, true).is_err());
    let two = request_of("POST", &[("content-length", "5"), ("content-length", "5")]);
    assert!(super::request(&mut BytesMut::new(), &two, false).is_err());
}

#[test]
fn fields_that_a_filter_may_have_added_do_not_break_framing() {
    let head = request_of(
        "GET",
        &[
            ("transfer-encoding", "chunked"),
            ("connection", "x"),
            ("host", "evil"),
            ("upgrade", "h2c"),
            ("te", "trailers"),
        ],
    );
    assert_eq!(written(&head, true), "GET /a?b HTTP/1.1\r\nhost: host:80\r\nte: trailers\r\nconnection: te\r\n\r\n");
}

#[test]
fn cookie_crumbs_become_one_field() {
    let head = request_of("GET", &[("cookie", "a=1"), ("x", "1"), ("x", "2"), ("cookie", "b=2")]);
    assert!(written(&head, true).ends_with("\r\nx: 1\r\nx: 2\r\ncookie: a=1; b=2\r\n\r\n"));
}

#[test]
fn an_upgrade_is_asked_for_by_its_own_method() {
    let asking = |method: &str| RequestHead { protocol: UpgradeToken::new("tcp"), ..request_of(method, &[]) };
    let end = "upgrade: tcp\r\nconnection: upgrade\r\n\r\n";
    assert_eq!(written(&asking("GET"), true), format!("GET /a?b HTTP/1.1\r\nhost: host:80\r\n{end}"));
    let post = format!("POST /a?b HTTP/1.1\r\nhost: host:80\r\ncontent-length: 0\r\n{end}");
    assert_eq!(written(&asking("POST"), true), post);
    let zero = RequestHead { protocol: UpgradeToken::new("tcp"), ..request_of("POST", &[("content-length", "0")]) };
    assert_eq!(written(&zero, false), post);
    assert!(super::request(&mut BytesMut::new(), &asking("HEAD"), true).is_err());
}

#[test]
fn targets_have_their_form() {
    let mut head = request_of("GET", &[]);
    head.path = Some(Target::try_from(&b"/<\"`\xe9>"[..]).unwrap());
    let mut out = BytesMut::new();
    super::request(&mut out, &head, true).unwrap();
    assert!(out.starts_with(b"GET /<\"`\xe9> HTTP/1.1\r\nhost: host:80\r\n"), "an origin is sent the origin form");
    head.authority = None;
    let nameless = RequestHead { path: Some(Target::from_static("/")), ..head };
    assert_eq!(written(&nameless, true), "GET / HTTP/1.1\r\nhost: \r\n\r\n");
    let mut connect = request_of("CONNECT", &[("content-length", "5")]);
    connect.path = None;
    for end in [false, true] {
        assert!(super::request(&mut BytesMut::new(), &connect, end).is_err(), "an app is never sent CONNECT");
        let extended = RequestHead {
            protocol: UpgradeToken::new("websocket"),
            path: Some(Target::from_static("/")),
            ..connect.clone()
        };
        assert!(super::request(&mut BytesMut::new(), &extended, end).is_err());
    }
    let mut missing = request_of("GET", &[]);
    missing.path = None;
    assert!(super::request(&mut BytesMut::new(), &missing, true).is_err());
}

fn answer(
    status: u16,
    headers: &[(&'static str, &'static str)],
    end: bool,
    answering: Answering,
) -> (String, Outgoing, bool) {
    let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let head = ResponseHead { status: StatusCode::from_u16(status).unwrap(), headers: headers.collect() };
    let mut out = BytesMut::new();
    let (framing, keep_alive) = super::response(&mut out, &head, end, &answering).unwrap();
    (String::from_utf8(out.to_vec()).unwrap(), framing, keep_alive)
}

const PLAIN: Answering = Answering { asked: Asked::Other, http10: false, keep_alive: true };
const HTTP10: Answering = Answering { asked: Asked::Other, http10: true, keep_alive: true };
const HEAD: Answering = Answering { asked: Asked::Head, http10: false, keep_alive: true };
const CONNECT: Answering = Answering { asked: Asked::Connect, http10: false, keep_alive: true };

#[test]
fn responses_are_framed_for_the_client_that_asked() {
    let length: &[_] = &[("content-length", "5")];
    let is = |got: (String, Outgoing, bool), text: &str, framing, keep_alive| {
        assert_eq!(got, (format!("HTTP/1.1 {text}\r\n\r\n"), framing, keep_alive));
    };
    is(answer(200, length, false, PLAIN), "200 OK\r\ncontent-length: 5", Outgoing::Length(5), true);
    is(answer(200, &[], false, PLAIN), "200 OK\r\ntransfer-encoding: chunked", Outgoing::Chunked, true);
    is(answer(200, &[], true, PLAIN), "200 OK\r\ncontent-length: 0", Outgoing::Done, true);
    is(answer(200, &[], false, HTTP10), "200 OK\r\nconnection: close", Outgoing::UntilClose, false);
    is(
        answer(200, length, false, HTTP10),
        "200 OK\r\ncontent-length: 5\r\nconnection: keep-alive",
        Outgoing::Length(5),
        true,
    );
    is(answer(200, length, false, HEAD), "200 OK\r\ncontent-length: 5", Outgoing::Dropped, true);
    is(answer(200, &[], true, HEAD), "200 OK", Outgoing::Done, true);
    is(answer(204, length, true, PLAIN), "204 No Content", Outgoing::Done, true);
    is(answer(304, length, true, PLAIN), "304 Not Modified\r\ncontent-length: 5", Outgoing::Done, true);
    is(answer(304, &[], false, PLAIN), "304 Not Modified", Outgoing::Dropped, true);
    is(answer(200, length, false, CONNECT), "200 OK", Outgoing::Tunnel, true);
    is(answer(403, length, false, CONNECT), "403 Forbidden\r\ncontent-length: 5", Outgoing::Length(5), true);
    is(answer(299, &[], true, PLAIN), "299 \r\ncontent-length: 0", Outgoing::Done, true);
    let closing = Answering { keep_alive: false, ..PLAIN };
    is(
        answer(200, length, false, closing),
        "200 OK\r\ncontent-length: 5\r\nconnection: close",
        Outgoing::Length(5),
        false,
    );
}

#[test]
fn chunk_sizes_are_hexadecimal() {
    for (size, text) in
        [(0, "0\r\n"), (1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (65_536, "10000\r\n"), (0xabc_def, "abcdef\r\n")]
    {
        let mut out = BytesMut::new();
        chunk_size(&mut out, size);
        assert_eq!(out, text);
    }
}

#[test]
fn the_last_chunk_carries_trailers() {
    let mut out = BytesMut::new();
    last_chunk(&mut out, None);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("content-length", HeaderValue::from_static("9"));
    last_chunk(&mut out, Some(&trailers));
    assert_eq!(out, "0\r\n\r\n0\r\ngrpc-status: 0\r\n\r\n");
}

//! Tables of heads: what is taken, what is refused, and with which status.

use http::{Method, Version};

use super::*;

fn parse(text: &str) -> Result<Option<ParsedRequest>, Rejection> {
    request(text.as_bytes(), &HttpLimits::default())
}

fn accepted(text: &str) -> ParsedRequest {
    match parse(text) {
        Ok(Some(parsed)) => parsed,
        other => panic!("{text:?} was not accepted: {other:?}"),
    }
}

#[track_caller]
fn refused(text: &str, status: u16) {
    match parse(text) {
        Err(rejection) => assert_eq!(rejection.refusal.status().as_u16(), status, "{text:?}: {}", rejection.reason),
        other => panic!("{text:?} was not refused: {other:?}"),
    }
}

fn framing(text: &str) -> String {
    format!("{:?}", accepted(text).body)
}

#[test]
fn smuggling_is_refused() {
    for fields in [
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "transfer-ENCODING: CHUNKED\r\ncontent-length: 0",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity,chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked ",
        "Transfer-Encoding: chunked\t",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding:",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: chunked\r\n folded",
        "Content-Length: -1",
        "Content-Length: +5",
        "Content-Length: 5,5",
        "Content-Length: 3, 2",
        "Content-Length: 3\r\nContent-Length: 2",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: five",
        "Content-Length:",
        "Content-Length: 18446744073709551616",
        "Content-Length : 5",
        " Content-Length: 5",
        "Content-Length: 5\nX: y",
        "X: a\rContent-Length: 5",
        "X: a\0b",
    ] {
        refused(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"), 400);
    }
    refused("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501);
    refused("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
    refused("GET / HTTP/1.1\nHost: a\n\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a\r\n\n", 400);
}

#[test]
fn framing_is_taken_where_every_reading_agrees() {
    let with = |fields: &str| framing(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    assert_eq!(with(""), "Empty");
    assert_eq!(with("Content-Length: 0\r\n"), "Empty");
    assert_eq!(with("Content-Length: 12\r\n"), "Length(12)");
    assert_eq!(with("Content-Length: 12\r\nContent-Length: 12\r\n"), "Length(12)");
    assert_eq!(with("Content-Length: 18446744073709551615\r\n"), "Length(18446744073709551615)");
    assert!(with("Transfer-Encoding: Chunked\r\n").starts_with("Chunked"));
}

#[test]
fn content_length_goes_on_once_and_plain() {
    let parsed = accepted("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\nContent-Length: 7\r\n\r\n");
    let values: Vec<_> = parsed.head.headers.get_all("content-length").iter().collect();
    assert_eq!(values, ["7"]);
    let zero = accepted("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(zero.head.headers["content-length"], "0");
}

#[test]
fn malformed_request_lines_are_refused() {
    for line in [
        "GET /",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/11",
        "GET / http/1.1",
        "GET / HTTP/1.1x",
        "G@T / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        " GET / HTTP/1.1",
        "GET relative HTTP/1.1",
        "GET * HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET https://a/ HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET http:///x HTTP/1.1",
        "GET http://u:p@a/ HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "CONNECT / HTTP/1.1",
        "CONNECT a HTTP/1.1",
        "CONNECT a:0 HTTP/1.1",
        "CONNECT a:99999 HTTP/1.1",
        "CONNECT :80 HTTP/1.1",
        "CONNECT http://a:80/ HTTP/1.1",
        "CONNECT a:80/x HTTP/1.1",
        "CONNECT u@a:80 HTTP/1.1",
    ] {
        refused(&format!("{line}\r\nHost: a\r\n\r\n"), 400);
    }
}

#[test]
fn host_is_required_single_and_sane() {
    refused("GET / HTTP/1.1\r\n\r\n", 400);
    for host in ["ho|st|", "a b", "a/b", "u@a", "a:99999", "a:b", "[::1", "a\"b", "a?b", "a#b", "a\\b", "a<b"] {
        refused(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), 400);
    }
    refused("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost a\r\n\r\n", 400);
    for host in ["a", "a.b:80", "127.0.0.1:8080", "[::1]:80", "xn--a_b-c", "A.B"] {
        let parsed = accepted(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(parsed.head.authority.map(|a| a.to_string()), Some(host.to_owned()));
        assert!(!parsed.head.headers.contains_key("host"));
    }
    assert_eq!(accepted("GET / HTTP/1.0\r\n\r\n").head.authority, None);
    assert_eq!(accepted("GET / HTTP/1.1\r\nHost:\r\n\r\n").head.authority, None);
}

#[test]
fn what_asks_for_another_protocol() {
    #[track_caller]
    fn check(line: &str, fields: &str, expect: Option<&str>) {
        let head = format!("{line}\r\nHost: a\r\nUpgrade: tcp\r\n{fields}\r\n\r\n");
        let parsed = accepted(&head);
        let protocol = parsed.head.protocol.map(|token| String::from_utf8(token.to_vec()).unwrap());
        assert_eq!(protocol.as_deref(), expect, "{head}");
        assert_eq!(matches!(parsed.body, Decoder::Tunnel), expect.is_some(), "{head}");
    }
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "X-Own"] {
        check(&format!("{method} / HTTP/1.1"), "Connection: upgrade", Some("tcp"));
        check(&format!("{method} / HTTP/1.1"), "Connection: Upgrade\r\nContent-Length: 0", Some("tcp"));
        check(&format!("{method} / HTTP/1.1"), "Connection: upgrade\r\nContent-Length: 3", None);
        check(&format!("{method} / HTTP/1.1"), "Connection: upgrade\r\nTransfer-Encoding: chunked", None);
        check(&format!("{method} / HTTP/1.1"), "Connection: close", None);
        check(&format!("{method} / HTTP/1.0"), "Connection: upgrade", None);
    }
    check("HEAD / HTTP/1.1", "Connection: upgrade", None);
    check("TRACE / HTTP/1.1", "Connection: upgrade", None);
}

#[test]
fn another_version_of_http_is_never_asked_for() {
    for (upgrade, expect) in [
        ("h2c", None),
        ("h2c-14, HTTP/2.0", None),
        ("TLS/1.2", None),
        ("h2c, websocket", Some("websocket")),
        ("websocket, h2c", Some("websocket")),
        ("H2C;x, foo/1", Some("foo/1")),
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: {upgrade}\r\n\r\n");
        let asked = accepted(&head).head.protocol;
        assert_eq!(asked.as_deref(), expect.map(str::as_bytes), "{upgrade}");
    }
}

#[test]
fn the_target_of_absolute_form_replaces_host() {
    let same = accepted("GET http://A.example:80/x?y HTTP/1.1\r\nHost: a.example:80\r\n\r\n").head;
    assert_eq!(same.authority.unwrap(), "a.example:80");
    assert_eq!(same.path.unwrap(), "/x?y");
    let differs = accepted("GET http://target/x HTTP/1.1\r\nHost: host\r\n\r\n").head;
    assert_eq!(differs.authority.unwrap(), "target");
    let no_path = accepted("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n").head;
    assert_eq!(no_path.path.unwrap(), "/");
    let query = accepted("GET http://a?b=c HTTP/1.1\r\nHost: a\r\n\r\n").head;
    assert_eq!(query.path.unwrap(), "/?b=c");
    let options = accepted("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n").head;
    assert_eq!(options.path.unwrap(), "*");
    let without_host = accepted("GET http://a/x HTTP/1.0\r\n\r\n").head;
    assert_eq!(without_host.authority.unwrap(), "a");
    let star = accepted("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").head;
    assert_eq!(star.path.unwrap(), "*");
}

#[test]
fn connect_is_a_tunnel_without_a_body() {
    let parsed = accepted("CONNECT db:5432 HTTP/1.1\r\nHost: other\r\nContent-Length: 0\r\n\r\nearly");
    assert_eq!(parsed.head.method, Method::CONNECT);
    assert_eq!(parsed.head.authority.unwrap(), "db:5432");
    assert_eq!(parsed.head.path, None);
    assert!(parsed.head.headers.is_empty());
    assert!(matches!(parsed.body, Decoder::Tunnel));
    refused("CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", 400);
    refused("CONNECT a:80 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
}

#[test]
fn connection_fields_stay_on_this_hop() {
    let head = accepted(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Private, Upgrade\r\nX-Private: 1\r\nX-Public: 2\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nTE: gzip, trailers\r\n\r\n",
    );
    let names: Vec<_> = head.head.headers.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["x-public", "te"]);
    assert_eq!(head.head.headers["te"], "trailers");
    assert!(!head.keep_alive);
    let answer = response(
        b"HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nUpgrade: websocket\r\nKeep-Alive: max=1\r\nContent-Length: 0\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
        &Asked::Other,
        &HttpLimits::default(),
    );
    let answer = answer.unwrap().unwrap();
    let cookies: Vec<_> = answer.head.headers.get_all("set-cookie").iter().collect();
    assert_eq!(answer.head.headers.len(), 3);
    assert_eq!(cookies, ["a", "b"]);
}

#[test]
fn persistence_follows_version_and_connection() {
    let keep = |text: &str| accepted(&format!("GET / {text}\r\n\r\n")).keep_alive;
    assert!(keep("HTTP/1.1\r\nHost: a"));
    assert!(!keep("HTTP/1.1\r\nHost: a\r\nConnection: CLOSE"));
    assert!(!keep("HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close"));
    assert!(!keep("HTTP/1.0\r\nHost: a"));
    assert!(keep("HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive"));
    assert_eq!(accepted("GET / HTTP/1.0\r\n\r\n").head.version, Version::HTTP_10);
}

#[test]
fn limits_have_their_status() {
    let fields = |count: usize| "x: y\r\n".repeat(count);
    accepted(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(127)));
    refused(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(128)), 431);
    refused(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(95_000)), 414);
    refused(&format!("GET /{}", "a".repeat(20_000)), 414);
    refused(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(16_384)), 414);
    refused(&format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "a".repeat(65_536)), 431);
    refused(&format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}", "a".repeat(65_536)), 431);
    refused(&"A".repeat(256), 501);
    refused(&format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(256)), 501);
    accepted(&format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(255)));
    let long = format!("x: {}", "word ".repeat(6_500));
    let parsed = accepted(&format!("GET / HTTP/1.1\r\nHost: a\r\n{long}\r\n\r\n"));
    assert_eq!(parsed.head.headers["x"].len(), 6_500 * 5 - 1);
}

#[test]
fn every_prefix_of_a_head_asks_for_more() {
    let text = "POST /a?b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-Continue\r\n\r\n";
    for end in 0..text.len() {
        assert!(parse(&text[..end]).unwrap().is_none(), "{:?}", &text[..end]);
    }
    let parsed = accepted(text);
    assert_eq!(parsed.consumed, text.len());
    assert!(parsed.expects_continue);
}

#[test]
fn responses_end_as_http_says() {
    let end = |asked: Asked, text: &str| {
        let text = format!("HTTP/1.{text}\r\n\r\n");
        let parsed = response(text.as_bytes(), &asked, &HttpLimits::default());
        parsed.map(|parsed| parsed.map(|parsed| (format!("{:?}", parsed.body), parsed.keep_alive)))
    };
    let is = |asked, text, body: &str, keep_alive| {
        assert_eq!(end(asked, text), Ok(Some((body.into(), keep_alive))), "{text}")
    };
    is(Asked::Other, "1 200 OK\r\nContent-Length: 5", "Length(5)", true);
    is(Asked::Other, "1 200\r\nContent-Length: 5", "Length(5)", true);
    is(Asked::Other, "1 200 \r\nContent-Length: 5\r\nConnection: close", "Length(5)", false);
    is(Asked::Other, "1 200 OK", "UntilClose", false);
    is(Asked::Other, "0 200 OK\r\nContent-Length: 5", "Length(5)", false);
    is(Asked::Other, "0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive", "Length(5)", true);
    is(Asked::Head, "1 200 OK\r\nContent-Length: 55", "Empty", true);
    is(Asked::Head, "1 200 OK\r\nTransfer-Encoding: chunked", "Empty", true);
    is(Asked::Other, "1 204 No Content\r\nContent-Length: 5", "Empty", true);
    is(Asked::Other, "1 304 Not Modified\r\nContent-Length: 5", "Empty", true);
    is(Asked::Other, "1 100 Continue", "Empty", true);
    for bad in [
        "1 101 Switching Protocols",
        "1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        "1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6",
        "1 200 OK\r\nContent-Length: -5",
        "1 200 OK\r\nTransfer-Encoding: gzip",
        "1 200 OK\r\nTransfer-Encoding: chunked, chunked",
        "0 200 OK\r\nTransfer-Encoding: chunked",
        "1 200 OK\nX: y",
        "1 20 OK",
        "1 099 OK",
    ] {
        assert!(end(Asked::Other, bad).is_err(), "{bad}");
    }
}

#[test]
fn trailers_lose_what_frames_or_routes() {
    let text = b"X-Sum: 1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: b\r\nConnection: close\r\ngrpc-status: 0\r\n\r\nrest";
    let (map, consumed) = trailers(text, &HttpLimits::default()).unwrap().unwrap();
    let names: Vec<_> = map.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["x-sum", "grpc-status"]);
    assert_eq!(consumed, text.len() - 4);
    assert!(trailers(b"X-Sum 1\r\n\r\n", &HttpLimits::default()).is_err());
    assert!(trailers(b"X: 1\n\r\n", &HttpLimits::default()).is_err());
}

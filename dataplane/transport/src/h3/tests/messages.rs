//! Which field sections make a message, and which are malformed.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::super::Limits;
use super::super::message::{
    decode_request, decode_response, decode_trailers, encode_request, encode_response, encode_trailers,
};
use super::{connect_to, headers_frame, request, response};
use crate::http::{Added, RequestHead};
use crate::qpack::Error;

fn section(fields: &[(&str, &str)]) -> Bytes {
    let frame = headers_frame(fields);
    let (_, kind) = super::super::frame::read_varint(&frame).unwrap();
    let (_, length) = super::super::frame::read_varint(&frame[kind..]).unwrap();
    Bytes::copy_from_slice(&frame[kind + length..])
}

fn tell_headers(headers: &HeaderMap) -> String {
    headers.iter().map(|(name, value)| format!(" {name}={}", value.to_str().unwrap())).collect()
}

fn tell_error(error: Error) -> String {
    error.to_string()
}

fn check_request(fields: &[(&str, &str)], expect: &str) {
    let told = match decode_request(&section(fields), &Limits::default()) {
        Ok(decoded) => {
            let RequestHead { method, authority, path, protocol, headers, .. } = decoded.head;
            let path = path.map_or("-".to_owned(), |path| path.to_string());
            let protocol = protocol.map_or(String::new(), |protocol| format!(" ({})", protocol.escape_ascii()));
            format!("{method} {path} {}{protocol}{}", authority.unwrap(), tell_headers(&headers))
        }
        Err(error) => tell_error(error),
    };
    assert_eq!(told, expect, "{fields:?}");
}

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "https"), (":path", "/a?b"), (":authority", "h:1")];

fn get(fields: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [&GET, fields].concat()
}

#[test]
fn requests() {
    check_request(&GET, "GET /a?b h:1");
    check_request(&get(&[("x", "1"), ("x", "2")]), "GET /a?b h:1 x=1 x=2");
    check_request(&get(&[("host", "H:1")]), "GET /a?b h:1");
    check_request(&get(&[("te", "trailers")]), "GET /a?b h:1 te=trailers");
    check_request(&get(&[("content-length", "7"), ("content-length", "7")]), "GET /a?b h:1 content-length=7");
    check_request(&get(&[("cookie", "a=1"), ("x", "1"), ("cookie", "b=2")]), "GET /a?b h:1 x=1 cookie=a=1; b=2");
    check_request(&get(&[("cookie", "a=1")]), "GET /a?b h:1 cookie=a=1");
    check_request(
        &get(&[("cookie", "a=1"), ("cookie", ""), ("cookie", "b=2"), ("cookie", "")]),
        "GET /a?b h:1 cookie=a=1; b=2",
    );
    check_request(&get(&[("weft-dst", "127.0.0.1:1")]), "GET /a?b h:1 weft-dst=127.0.0.1:1");
    check_request(&[GET[0], GET[1], GET[2], ("host", "only")], "GET /a?b only");
    check_request(&[(":method", "OPTIONS"), GET[1], (":path", "*"), GET[3]], "OPTIONS * h:1");
    check_request(&[(":method", "CONNECT"), (":authority", "127.0.0.1:80")], "CONNECT - 127.0.0.1:80");
    check_request(
        &[(":method", "CONNECT"), (":protocol", "websocket"), GET[1], GET[2], GET[3]],
        "GET /a?b h:1 (websocket)",
    );
    check_request(
        &[(":method", "CONNECT"), (":protocol", "weft-upgrade"), GET[1], GET[2], GET[3], ("weft-upgrade", "foo/1")],
        "GET /a?b h:1 (foo/1)",
    );
    let post = [("weft-upgrade", "tcp"), ("weft-method", "POST")];
    check_request(
        &[&[(":method", "CONNECT"), (":protocol", "weft-upgrade-by-method")], &GET[1..], &post].concat(),
        "POST /a?b h:1 (tcp)",
    );
}

#[test]
fn malformed_requests() {
    let check = |fields: &[(&str, &str)], why: &str| check_request(fields, &format!("malformed message: {why}"));
    check(&GET[1..], "no :method");
    check(&[GET[0], GET[2], GET[3]], "no :scheme");
    check(&[GET[0], GET[1], GET[3]], "no :path");
    check(&GET[..3], "neither :authority nor host");
    check(&[], "no :method");
    for field in GET {
        check(&get(&[field]), "pseudo-header field given twice");
    }
    check(&get(&[("x", "1"), (":path", "/")]), "pseudo-header field after a field");
    check(&get(&[(":status", "200")]), ":status in a request");
    check(&get(&[(":weft", "1")]), "unknown pseudo-header field");
    check(&get(&[(":protocol", "websocket")]), ":protocol without CONNECT");
    check(&[(":method", "CONNECT"), GET[1], GET[2], GET[3]], ":scheme or :path with CONNECT");
    check(&[(":method", "CONNECT"), ("host", "h")], "no :authority with CONNECT");
    check(&[(":method", "CONNECT"), (":protocol", "websocket"), GET[3]], "no :scheme");
    check(&[(":method", "CONNECT"), (":protocol", "a b"), GET[1], GET[2], GET[3]], ":protocol");
    check(&[(":method", "G T"), GET[1], GET[2], GET[3]], ":method");
    check(&[(":method", ""), GET[1], GET[2], GET[3]], ":method");
    for scheme in ["", "ftp", "https:", "javascript"] {
        check(&[GET[0], (":scheme", scheme), GET[2], GET[3]], ":scheme");
    }
    for value in [" admin", "admin ", "\tadmin", "admin\t", " "] {
        check(&get(&[("x-role", value)]), "blank around a field value");
    }
    for path in ["", "a", "http://h/", "/a#b", "/a b", "/\u{1}", "?a"] {
        check(&[GET[0], GET[1], (":path", path), GET[3]], ":path");
    }
    check(&[GET[0], GET[1], (":path", "*"), GET[3]], ":path");
    for authority in ["", ":80", "user@h", "ho|st|", "h h", "h/", "h:1:2", "h:99999", "[::1"] {
        check(&[GET[0], GET[1], GET[2], (":authority", authority)], ":authority");
    }
    check(&get(&[("host", "other")]), "host differs from :authority");
    check(&get(&[("host", "h:1"), ("host", "h:1")]), "host given twice");
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        check(&get(&[(name, "x")]), "connection-specific field");
    }
    check(&get(&[("te", "trailers, deflate")]), "te other than trailers");
    for length in ["", "-1", "+1", "1,1", "0x1", "9999999999999999999"] {
        check(&get(&[("content-length", length)]), "content-length");
    }
    check(&get(&[("content-length", "1"), ("content-length", "2")]), "content-lengths differ");
    check(&get(&[("X-Upper", "1")]), "field name");
    check(&get(&[("x y", "1")]), "field name");
    check(&get(&[("x", "a\nb")]), "field value");
    check(&get(&[("x", "a\rb")]), "field value");
    check(&get(&[("x", "a\0b")]), "field value");
}

#[test]
fn limits_of_requests() {
    let limits = Limits { path_bytes: 4, header_fields: 5, ..Limits::default() };
    let long = [GET[0], GET[1], (":path", "/1234"), GET[3]];
    assert_eq!(decode_request(&section(&long), &limits).unwrap_err(), Error::Limit("path bytes"));
    let many = get(&[("a", ""), ("b", "")]);
    assert_eq!(decode_request(&section(&many), &limits).unwrap_err(), Error::Limit("header fields"));
    let cookies = get(&[("cookie", "a"), ("cookie", "b"), ("cookie", "c")]);
    assert!(decode_request(&section(&cookies), &limits).is_ok());
}

#[test]
fn responses() {
    let check = |fields: &[(&str, &str)], expect: &str| {
        let told = match decode_response(&section(fields), &Limits::default()) {
            Ok(decoded) => format!("{}{}", decoded.head.status.as_u16(), tell_headers(&decoded.head.headers)),
            Err(error) => tell_error(error),
        };
        assert_eq!(told, expect, "{fields:?}");
    };
    check(&[(":status", "200"), ("set-cookie", "a"), ("set-cookie", "b")], "200 set-cookie=a set-cookie=b");
    check(&[(":status", "103"), ("link", "x")], "103 link=x");
    check(&[(":status", "599")], "599");
    check(&[("x", "1")], "malformed message: no :status");
    for status in ["", "20", "2000", "abc", "099"] {
        check(&[(":status", status)], "malformed message: :status");
    }
    check(&[(":status", "101")], "malformed message: 101 in HTTP/3");
    check(&[(":status", "200"), (":status", "200")], "malformed message: pseudo-header field given twice");
    check(&[("x", "1"), (":status", "200")], "malformed message: pseudo-header field after a field");
    check(&[(":path", "/")], "malformed message: request pseudo-header field in a response");
    check(&[(":status", "200"), ("connection", "close")], "malformed message: connection-specific field");
    check(&[(":status", "200"), ("transfer-encoding", "chunked")], "malformed message: connection-specific field");
}

#[test]
fn trailers() {
    let decode = |fields: &[(&str, &str)]| decode_trailers(&section(fields), &Limits::default());
    assert_eq!(tell_headers(&decode(&[("grpc-status", "0")]).unwrap()), " grpc-status=0");
    assert_eq!(decode(&[(":status", "200")]).unwrap_err(), Error::Field("pseudo-header field in trailers"));
    assert_eq!(decode(&[("connection", "x")]).unwrap_err(), Error::Field("connection-specific field"));
}

#[test]
fn what_is_encoded_decodes() {
    let fields =
        [("accept", "*/*"), ("x-weft", "1"), ("cookie", "a=b; c=d"), ("te", "trailers"), ("content-length", "3")];
    for huffman in [false, true] {
        for mut head in [request(Method::POST, "/a/b?c", &fields), connect_to("127.0.0.1:80")] {
            for extended in [false, true] {
                if extended {
                    head.method = Method::GET;
                    head.path = Some("/chat".parse().unwrap());
                    head.protocol = crate::http::UpgradeToken::new("websocket");
                }
                let mut out = BytesMut::new();
                encode_request(&mut out, &head, &Added::default(), huffman).unwrap();
                let back = decode_request(&out.freeze(), &Limits::default()).unwrap().head;
                assert_eq!((&back.method, &back.authority, &back.path), (&head.method, &head.authority, &head.path));
                assert_eq!((&back.protocol, &back.headers), (&head.protocol, &head.headers));
            }
        }
        let head = response(404, &[("server", "weft"), ("date", "x")]);
        let mut out = BytesMut::new();
        encode_response(&mut out, &head, huffman);
        let back = decode_response(&out.freeze(), &Limits::default()).unwrap().head;
        assert_eq!((back.status, back.headers), (head.status, head.headers));
        let mut out = BytesMut::new();
        let trailers = super::headers(&[("grpc-status", "0"), ("grpc-message", "")]);
        encode_trailers(&mut out, &trailers, huffman);
        assert_eq!(decode_trailers(&out.freeze(), &Limits::default()).unwrap(), trailers);
    }
}

#[test]
fn one_long_field_makes_no_room_for_thousands() {
    let value = "x".repeat(60 * 1_024);
    let mut section = BytesMut::new();
    encode_request(&mut section, &request(Method::GET, "/", &[("long", &value)]), &Added::default(), false).unwrap();
    let section = section.freeze();
    let head = decode_request(&section, &Limits { header_bytes: 72 * 1_024, ..Limits::default() }).unwrap().head;
    assert!(head.headers.capacity() <= 256, "{}", head.headers.capacity());
}

#[test]
fn what_a_hop_adds_goes_beside_the_head() {
    let bare = RequestHead { authority: None, ..request(Method::GET, "/", &[("a", "b")]) };
    let (authority, socket) = ("10.0.0.1:80".parse().unwrap(), HeaderValue::from_static("10.0.0.1:80"));
    let fields = [(HeaderName::from_static("weft-dst"), socket)];
    let added = Added { authority: Some(&authority), fields: &fields };
    let mut out = BytesMut::new();
    let size = encode_request(&mut out, &bare, &added, false).unwrap();
    let sent = decode_request(&out.freeze(), &Limits::default()).unwrap().head;
    assert_eq!(sent.authority, Some(authority.clone()));
    assert_eq!(tell_headers(&sent.headers), " a=b weft-dst=10.0.0.1:80");
    // A name that came is not replaced, and what is added counts.
    let named = request(Method::GET, "/", &[("a", "b")]);
    let mut out = BytesMut::new();
    encode_request(&mut out, &named, &added, false).unwrap();
    assert_eq!(decode_request(&out.freeze(), &Limits::default()).unwrap().head.authority, named.authority);
    let bare = RequestHead { authority: Some(authority), ..bare };
    let alone = encode_request(&mut BytesMut::new(), &bare, &Added::default(), false).unwrap();
    assert_eq!(size, alone + "weft-dst".len() + "10.0.0.1:80".len() + 32);
}

#[test]
fn what_http3_forbids_is_not_written() {
    let fields =
        [("connection", "x"), ("host", "evil"), ("te", "gzip"), ("upgrade", "h2c"), ("transfer-encoding", "chunked")];
    let mut out = BytesMut::new();
    encode_request(&mut out, &request(Method::GET, "/", &fields), &Added::default(), false).unwrap();
    assert!(decode_request(&out.freeze(), &Limits::default()).unwrap().head.headers.is_empty());
    let nowhere = RequestHead { authority: None, ..request(Method::GET, "/", &[]) };
    assert_eq!(encode_request(&mut BytesMut::new(), &nowhere, &Added::default(), false).unwrap_err().0, "authority");
    let pathless = RequestHead { path: None, ..request(Method::GET, "/", &[]) };
    assert_eq!(encode_request(&mut BytesMut::new(), &pathless, &Added::default(), false).unwrap_err().0, "path");
}

//! Values by name: what is known where, how they are packed, and that the documentation lists them all.

use std::fmt::Write as _;

use http::{HeaderValue, Method, StatusCode};
use weft_policy::path::{NormalPath, PathReading};

use super::*;
use crate::chain::{Attributes, Summary};

/// Unpacks a buffer as a filter does.
fn unpack(mut bytes: &[u8]) -> Vec<(u16, String, String)> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at(8);
        let number = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let (name, value) = (usize::from(number(2)), u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        entries.push((number(0), text(&rest[..name]), text(&rest[name..name + value])));
        bytes = &rest[name + value..];
    }
    entries
}

fn asked(names: &[&str], hook: Hook) -> Vec<Value> {
    names.iter().map(|name| Value::parse(name, false, hook, true).expect(name)).collect()
}

fn attributes() -> Attributes<'static> {
    Attributes {
        principal: Some("spiffe://cluster.local/ns/web/sa/front"),
        source: Some([10, 0, 0, 1].into()),
        destination_port: 8080,
        direction: Direction::Inbound,
        request_id: Some("r-1"),
        destination_service: Some("shop/books"),
        route: None,
        tls: true,
        protocol: "h2",
    }
}

#[test]
fn a_request_s_values_come_as_they_were_asked_for() {
    let (attributes, method) = (attributes(), Method::PUT);
    let path = NormalPath::new("/a?b=c".into()).expect("a path");
    let fields = [("x-team", "red"), ("x-team", "blue"), ("x-other", "1"), ("x-team-lead", "2")];
    let headers: HeaderMap = fields
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .into_iter()
        .collect();
    let path_reading = PathReading::default();
    let request = RequestPart {
        method: &method,
        authority: None,
        path: Some(&path),
        path_reading,
        reading: None,
        headers: &headers,
    };
    let set = [SetAttribute { name: "filter.jwt.sub".into(), value: b"ann".to_vec() }];
    let mut told = Told::new(Hook::RequestHead, 7);
    (told.attributes, told.request, told.set, told.dice) = (Some(&attributes), Some(request), &set, 9);
    let names = [
        "request.header.x-team",
        "source.namespace",
        "source.service-account",
        "source.address",
        "destination.port",
        "route.name",
        "request.method",
        "request.path",
        "request.query",
        "request.path.ambiguous",
        "request.header.x-team*",
        "filter.*",
        "filter.jwt.sub",
        "connection.tls",
        "dice",
        "request.authority",
    ];
    let mut buffer = b"of the last call".to_vec();
    pack(&asked(&names, Hook::RequestHead), &told, false, &mut buffer);
    let expect = [
        (0, "", "red"),
        (0, "", "blue"),
        (1, "", "web"),
        (2, "", "front"),
        (3, "", "10.0.0.1"),
        (4, "", "8080"),
        (6, "", "PUT"),
        (7, "", "/a"),
        (8, "", "b=c"),
        (9, "", "false"),
        (10, "x-team", "red"),
        (10, "x-team", "blue"),
        (10, "x-team-lead", "2"),
        (11, "filter.jwt.sub", "ann"),
        (12, "", "ann"),
        (13, "", "true"),
        (14, "", "9"),
    ];
    assert_eq!(unpack(&buffer), expect.map(|(at, name, value)| (at, name.to_owned(), value.to_owned())));
}

#[test]
fn fields_that_servers_read_alike_are_told_to_an_authorization() {
    let fields = ["x-my-role", "x_my_role", "x_my-role", "x-my_role", "x-my.role", "y", "z"];
    let headers: HeaderMap =
        fields.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static(name))).collect();
    let method = Method::GET;
    let path_reading = PathReading::default();
    let request = RequestPart {
        method: &method,
        authority: None,
        path: None,
        path_reading,
        reading: Some("/r"),
        headers: &headers,
    };
    let mut told = Told::new(Hook::RequestHead, 1);
    told.request = Some(request);
    let names = ["request.header.x-my-role", "request.header.x_my_role", "request.header.y", "request.path"];
    let values = asked(&names, Hook::RequestHead);
    let mut buffer = Vec::new();
    pack(&values, &told, true, &mut buffer);
    let shown: Vec<_> = unpack(&buffer).into_iter().map(|(at, _, value)| (at, value)).collect();
    let expect = [(0, "x-my-role"), (1, "x_my_role"), (2, "y"), (3, "/r"), (1, "x_my-role"), (1, "x-my_role")];
    assert_eq!(shown, expect.map(|(at, value)| (at, value.to_owned())));
    pack(&values, &told, false, &mut buffer);
    assert_eq!(unpack(&buffer).len(), 4, "others are told the names that they asked for");
}

#[test]
fn an_answer_s_values_and_the_end_s() {
    let headers = HeaderMap::from_iter([(HeaderName::from_static("age"), HeaderValue::from_static("1"))]);
    let mut told = Told::new(Hook::ResponseHead, 1);
    told.response = Some((StatusCode::NOT_FOUND, &headers));
    let mut buffer = Vec::new();
    pack(&asked(&["response.status", "response.header.age"], Hook::ResponseHead), &told, false, &mut buffer);
    assert_eq!(unpack(&buffer), [(0, String::new(), "404".to_owned()), (1, String::new(), "1".to_owned())]);
    let duration = Duration::from_millis(1_500);
    let summary = Summary { status: 0, duration, request_bytes: 3, response_bytes: 4 };
    let mut told = Told::new(Hook::Done, 1);
    told.summary = Some(&summary);
    let names = ["response.status", "stream.duration-ms", "request.bytes", "response.bytes"];
    pack(&asked(&names, Hook::Done), &told, false, &mut buffer);
    let expect = [(1, "1500"), (2, "3"), (3, "4")];
    assert_eq!(unpack(&buffer), expect.map(|(at, value)| (at, String::new(), value.to_owned())));
}

#[test]
fn names_that_mean_nothing_are_refused() {
    let long = format!("request.header.{}", "x".repeat(MAX_NAME));
    for (name, hook, whole, why) in [
        ("request.heads", Hook::RequestHead, false, "is no value"),
        ("", Hook::RequestHead, false, "is no value"),
        ("request.header.X-Team", Hook::RequestHead, false, "in lower case"),
        ("request.header.", Hook::RequestHead, false, "in lower case"),
        ("request.header.a b*", Hook::RequestHead, false, "in lower case"),
        ("filter.", Hook::Done, false, "in lower case"),
        (long.as_str(), Hook::RequestHead, false, "more than 256 bytes"),
        ("response.status", Hook::RequestHead, false, "not known at request-head"),
        ("request.path", Hook::Done, false, "not known at done"),
        ("source.principal", Hook::RequestBody, false, "but with the option buffer"),
        ("request.trailer.x", Hook::ResponseTrailers, false, "not known at response-trailers"),
        ("stream.from", Hook::Connection, true, "not known at connection"),
    ] {
        let error = Value::parse(name, false, hook, whole).expect_err(name);
        assert!(error.contains(why), "{name}: {error}");
    }
    assert_eq!(Value::parse("request.heads", true, Hook::RequestHead, false), Ok(Value::Never));
    assert_eq!(Value::parse("request.path", true, Hook::Done, false), Ok(Value::Never));
    assert!(Value::parse("request.header.A", true, Hook::RequestHead, false).is_err(), "no release knows it");
}

#[test]
fn the_documentation_lists_every_value() {
    let page = include_str!("../../../../docs/filters/values.md");
    let listed: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let mut expect = String::new();
    for row in TABLE {
        let _ = writeln!(expect, "| `{}` | {} | {} |", row.name, row.given_at(), row.meaning);
    }
    assert_eq!(listed, expect.lines().collect::<Vec<_>>());
}

#[test]
fn identities_are_taken_apart() {
    let id = "spiffe://td/ns/shop/sa/ns";
    assert_eq!((part_of(id, "ns"), part_of(id, "sa")), (Some("shop"), Some("ns")));
    assert_eq!(part_of("spiffe://td/other", "ns"), None);
    assert_eq!(part_of("no id", "ns"), None);
}

#[test]
fn each_reading_of_an_ambiguous_path_is_told() {
    fn check(path: &str, path_reading: PathReading, expect: &[&str]) {
        let (method, headers) = (Method::GET, HeaderMap::new());
        let path = NormalPath::new(path.to_owned().into()).expect("a path");
        let (path, reading) = (Some(&path), None);
        let request = RequestPart { method: &method, authority: None, path, path_reading, reading, headers: &headers };
        let mut told = Told::new(Hook::RequestHead, 7);
        told.request = Some(request);
        let mut buffer = Vec::new();
        pack(&asked(&["request.path.readings"], Hook::RequestHead), &told, false, &mut buffer);
        let found: Vec<String> = unpack(&buffer).into_iter().map(|(_, _, value)| value).collect();
        assert_eq!(found, expect, "{path:?} {path_reading}");
    }
    let unknown = PathReading::default();
    check("/a/b", unknown, &[]);
    check("/a;x/b", unknown, &["/a;x/b\n/a/b"]);
    check("/a;x/b", "params=kept".parse().expect("a reading"), &["/a;x/b"]);
    check(r"/;/;%2f\%5c..;%2f..//%e9;/;a%2f", unknown, &[""]);
}

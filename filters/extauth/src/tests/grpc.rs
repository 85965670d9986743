//! Envoy's gRPC: the question as prost reads it, and answers as prost writes them.

use std::collections::BTreeMap;

use prost::Message as _;
use weft_filters_sdk::Reply;
use weft_filters_sdk::testing::{TestResponse, logged};

use super::*;

#[derive(Clone, PartialEq, prost::Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<Attributes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Attributes {
    #[prost(message, optional, tag = "1")]
    source: Option<Peer>,
    #[prost(message, optional, tag = "2")]
    destination: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    request: Option<Asked>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Peer {
    #[prost(message, optional, tag = "1")]
    address: Option<Address>,
    #[prost(string, tag = "2")]
    service: String,
    #[prost(string, tag = "4")]
    principal: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Address {
    #[prost(message, optional, tag = "1")]
    socket: Option<Socket>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Socket {
    #[prost(string, tag = "2")]
    address: String,
    #[prost(uint32, tag = "3")]
    port: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Asked {
    #[prost(message, optional, tag = "1")]
    time: Option<Time>,
    #[prost(message, optional, tag = "2")]
    http: Option<Http>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Http {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(btree_map = "string, string", tag = "3")]
    headers: BTreeMap<String, String>,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
    #[prost(int64, tag = "9")]
    size: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<Code>,
    #[prost(message, optional, tag = "2")]
    denied: Option<Denied>,
    #[prost(message, optional, tag = "3")]
    allowed: Option<Allowed>,
}

/// A `Status` or an `HttpStatus`.
#[derive(Clone, PartialEq, prost::Message)]
struct Code {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Denied {
    #[prost(message, optional, tag = "1")]
    status: Option<Code>,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderOption>,
    #[prost(string, tag = "3")]
    body: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Allowed {
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderOption>,
    #[prost(string, repeated, tag = "5")]
    removed: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    over_the_answer: Vec<HeaderOption>,
    #[prost(string, repeated, tag = "8")]
    query_removed: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HeaderOption {
    #[prost(message, optional, tag = "1")]
    header: Option<HeaderValue>,
    #[prost(message, optional, tag = "2")]
    append: Option<Truth>,
    #[prost(int32, tag = "3")]
    action: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HeaderValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
    #[prost(bytes = "vec", tag = "3")]
    raw_value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Truth {
    #[prost(bool, tag = "1")]
    value: bool,
}

fn option(key: &str, value: &str, append: Option<bool>) -> HeaderOption {
    let header = HeaderValue { key: key.to_owned(), value: value.to_owned(), raw_value: Vec::new() };
    HeaderOption { header: Some(header), append: append.map(|value| Truth { value }), action: 0 }
}

fn code(code: i32) -> Option<Code> {
    Some(Code { code, message: "why".to_owned() })
}

const CONFIG: &str = r#"{"service": "auth", "protocol": "grpc", "allowed_headers": ["x-user"]}"#;

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short");
    [&[0][..], &length.to_be_bytes(), message].concat()
}

const SOUND: [(&str, &str); 2] = [("content-type", "application/grpc+proto"), ("grpc-status", "0")];

/// What comes of a response.
fn decided(response: &CheckResponse) -> Outcome {
    let mut filter = harness(CONFIG);
    filter.request(1, &TestRequest::default());
    let id = filter.sent()[0].0;
    filter.answer(1, id, Ok(answer(200, &SOUND, &framed(&response.encode_to_vec()))))
}

/// The edits in short, or the answer with its headers and body.
fn shown(outcome: &Outcome) -> String {
    let field = |field: &Field| format!("{}={}", field.name, String::from_utf8_lossy(&field.value));
    let edit = |edit: &Edit| match edit {
        Edit::Set(set) => field(set),
        Edit::Add(added) => format!("+{}", field(added)),
        Edit::Remove(name) => format!("-{name}"),
        Edit::Path(_) | Edit::Authority(_) | Edit::Status(_) | Edit::Body(_) | Edit::Attribute(_) | Edit::Other(_) => {
            "another".to_owned()
        }
    };
    match &outcome.verdict {
        Verdict::Continue => outcome.edits.iter().map(edit).collect::<Vec<_>>().join(" "),
        Verdict::Respond(Reply { status, headers, body, .. }) => {
            let headers: Vec<_> = headers.iter().map(field).collect();
            let text = format!("{status} [{}] {}", headers.join(" "), String::from_utf8_lossy(body));
            text.trim_end().to_owned()
        }
        Verdict::Wait(_) | Verdict::ContinueAfter(_) | Verdict::Reset(_) | Verdict::Close(_) | Verdict::Other(_) => {
            "something else".to_owned()
        }
    }
}

#[test]
fn the_question_is_envoy_s() {
    let mut filter = harness(CONFIG);
    assert_eq!(filter.hooks(), ["callout", "tick", "response-head", "request-head"]);
    let mut request = TestRequest::new("POST", "/orders?all=1").principal("spiffe://a").port(8080);
    request = request.header("x-team", "red").header("x-team", "blue").value("request.id", "7");
    request = request.header("cookie", "a=1").header("cookie", "b=2");
    request.authority = Some("shop.test".to_owned());
    request.source_address = Some("10.0.0.9".to_owned());
    filter.request(1, &request);
    let (_, asked) = &filter.sent()[0];
    let of = (asked.method.as_str(), asked.path.as_str(), asked.timeout_ms);
    assert_eq!(of, ("POST", "/envoy.service.auth.v3.Authorization/Check", 1_000));
    let line = |field: &Field| format!("{}: {}", field.name, String::from_utf8_lossy(&field.value));
    let lines: Vec<_> = asked.headers.iter().map(line).collect();
    assert_eq!(lines, ["content-type: application/grpc", "grpc-timeout: 1000m"]);
    let (frame, message) = asked.body.split_at(5);
    assert_eq!(frame, [&[0][..], &u32::try_from(message.len()).expect("short").to_be_bytes()].concat());
    let read = CheckRequest::decode(message).expect("a CheckRequest").attributes.expect("attributes");
    let socket = |address: &str, port| Some(Address { socket: Some(Socket { address: address.to_owned(), port }) });
    let source = Peer { address: socket("10.0.0.9", 0), service: String::new(), principal: "spiffe://a".to_owned() };
    assert_eq!(read.source, Some(source));
    assert_eq!(read.destination.and_then(|it| it.address), socket("", 8080));
    let http = read.request.and_then(|it| it.http).expect("a request");
    let headers =
        [("x-team", "red,blue"), ("cookie", "a=1; b=2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let expect = Http {
        id: "7".to_owned(),
        method: "POST".to_owned(),
        headers: BTreeMap::from(headers),
        path: "/orders?all=1".to_owned(),
        host: "shop.test".to_owned(),
        size: -1,
    };
    assert_eq!(http, expect);
    // Only what was chosen.
    let mut some = harness(&CONFIG.replacen('{', r#"{"forward": ["Cookie"], "#, 1));
    some.request(1, &request);
    let read = CheckRequest::decode(&some.sent()[0].1.body[5..]).expect("a CheckRequest");
    let http = read.attributes.and_then(|it| it.request).and_then(|it| it.http).expect("a request");
    assert_eq!(http.headers, BTreeMap::from([("cookie".to_owned(), "a=1; b=2".to_owned())]));
}

#[test]
fn what_the_service_says_is_done() {
    let allowed = |allowed: Allowed| CheckResponse { status: code(0), denied: None, allowed: Some(allowed) };
    let headers =
        vec![option("x-user", "ada", None), option("x-group", "a", Some(true)), option("x-a", "1", Some(false))];
    let removed = vec!["authorization".to_owned()];
    let outcome = decided(&allowed(Allowed { headers, removed, ..Allowed::default() }));
    assert_eq!(shown(&outcome), "-x-user x-user=ada +x-group=a x-a=1 -authorization");
    let plain = CheckResponse { status: code(0), denied: None, allowed: None };
    assert_eq!(shown(&decided(&plain)), "-x-user", "a forged one never passes");
    let mut raw = option("x-raw", "", None);
    raw.header.as_mut().expect("it has one").raw_value = b"\xe9".to_vec();
    let outcome =
        decided(&CheckResponse { status: None, ..allowed(Allowed { headers: vec![raw], ..Allowed::default() }) });
    assert_eq!(outcome.edits.len(), 2);

    let denied = |status: i32, http: Option<i32>, headers: Vec<HeaderOption>| {
        let denied = Denied { status: http.and_then(code), headers, body: "no\n".to_owned() };
        shown(&decided(&CheckResponse { status: code(status), denied: Some(denied), allowed: None }))
    };
    let cookies =
        vec![option("set-cookie", "a", None), option("set-cookie", "b", None), option("content-length", "7", None)];
    assert_eq!(denied(16, Some(401), cookies), "401 [set-cookie=a set-cookie=b] no");
    assert_eq!((denied(7, None, vec![]), denied(7, Some(0), vec![])), ("403 [] no".to_owned(), "403 [] no".to_owned()));
    assert_eq!(denied(-1, Some(70_000), vec![]), "403 [] no");
    assert_eq!(shown(&decided(&CheckResponse { status: code(7), denied: None, allowed: None })), "403 []");
    let counted = |decision| labelled_metric("extauth_decisions_total", &[decision]);
    assert_eq!([counted("allowed"), counted("refused"), counted("unavailable")], [Some(3.0), Some(5.0), Some(0.0)]);
}

#[test]
fn headers_for_the_answer_wait_for_it() {
    let over = vec![option("x-a", "1", None), option("set-cookie", "a", Some(true))];
    let allowed = Allowed { over_the_answer: over, ..Allowed::default() };
    let response = CheckResponse { status: code(0), denied: None, allowed: Some(allowed) };
    let mut filter = harness(CONFIG);
    for stream in [1, 2] {
        filter.request(stream, &TestRequest::default());
    }
    let id = filter.sent()[0].0;
    filter.answer(1, id, Ok(answer(200, &SOUND, &framed(&response.encode_to_vec()))));
    assert_eq!(shown(&filter.response(1, &TestResponse::new(200))), "x-a=1 +set-cookie=a");
    assert_eq!(shown(&filter.response(2, &TestResponse::new(200))), "", "another's");
}

/// Header fields of an answer.
type Fields<'a> = &'a [(&'a str, &'a str)];

#[test]
fn an_answer_that_is_none_lets_nothing_pass() {
    let good = framed(&CheckResponse { status: code(0), denied: None, allowed: None }.encode_to_vec());
    let mut compressed = good.clone();
    compressed[0] = 1;
    let with = |status: &'static str| [("content-type", "application/grpc"), ("grpc-status", status)];
    let asks = |allowed: Allowed| {
        framed(&CheckResponse { allowed: Some(allowed), ..CheckResponse::default() }.encode_to_vec())
    };
    let (sound, unavailable) = (with("0"), with("14"));
    let mut if_absent = option("x-a", "1", None);
    if_absent.action = 1;
    let long = option("x-long", &"a".repeat(5_000), None);
    let both = CheckResponse { status: code(0), denied: Some(Denied::default()), allowed: None };
    let cases: [(Fields<'_>, Vec<u8>, &str); 13] = [
        (&sound[..1], good.clone(), "without grpc-status"),
        (&[("grpc-status", "0")], good.clone(), "not gRPC"),
        (&unavailable, good.clone(), "grpc-status 14"),
        (&sound, Vec::new(), "without a message"),
        (&sound, compressed, "compressed"),
        (&sound, [&good[..], b"x"].concat(), "one whole message"),
        (&sound, framed(b""), "neither a status nor a response"),
        (&sound, framed(b"\x0a\x05"), "no CheckResponse"),
        (&sound, framed(&both.encode_to_vec()), "allows and denies"),
        (&sound, asks(Allowed { headers: vec![if_absent], ..Allowed::default() }), "append_action 1 of x-a"),
        (&sound, asks(Allowed { headers: vec![option("host", "evil", None)], ..Allowed::default() }), "host"),
        (&sound, asks(Allowed { query_removed: vec!["a".to_owned()], ..Allowed::default() }), "query"),
        (&sound, asks(Allowed { over_the_answer: vec![long], ..Allowed::default() }), "more than 4096 bytes"),
    ];
    for (headers, body, word) in cases {
        let mut filter = harness(CONFIG);
        filter.request(1, &TestRequest::default());
        let id = filter.sent()[0].0;
        let outcome = filter.answer(1, id, Ok(answer(200, headers, &body)));
        assert_eq!(told(&outcome), "503 extauth_unavailable [content-type]", "{word}");
        assert!(logged().last().is_some_and(|line| line.contains(word)), "{word}: {:?}", logged().last());
    }
    let many = asks(Allowed { headers: vec![option("x-a", "1", None); 64], ..Allowed::default() });
    let mut filter = harness(CONFIG);
    filter.request(1, &TestRequest::default());
    let id = filter.sent()[0].0;
    assert_eq!(told(&filter.answer(1, id, Ok(answer(200, &sound, &many)))), "503 extauth_unavailable [content-type]");
}

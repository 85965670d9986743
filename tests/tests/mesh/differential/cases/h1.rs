//! Heads of HTTP/1: methods by statuses, targets, fields both ways, sizes, what is malformed.

use weft_tests::exchange::h1::{Act, Script};

use super::{Case, Talk, answer, get, noise, once, request};
use crate::mesh::differential::ground::Declared;

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"];

const STATUSES: &[&str] = &[
    "200 OK",
    "200 ",
    "201 Made here",
    "204 No Content",
    "205 Reset Content",
    "206 Partial Content",
    "302 Found",
    "304 Not Modified",
    "400 Bad Request",
    "401 Who are you",
    "404 Not Found",
    "413 Too much",
    "426 Upgrade Required",
    "451 Unavailable For Legal Reasons",
    "500 Internal Server Error",
    "503 Busy",
    "599 Own",
];

/// Targets that applications really send, behind `/`.
const TARGETS: &[&[u8]] = &[
    b"",
    b"a/b/c",
    b"a?x=1&y=2",
    b"a?",
    b"a?b?c",
    b"?a",
    b"a//b",
    b"//",
    b"a/",
    b"a%2Fb",
    b"a%2fb",
    b"@scope%2fname",
    b"a%5Cb",
    b"a\\b",
    b"a;v=1/b;w?x=;y",
    b"a+b%20c",
    b"caf%E9",
    b"caf%C3%A9",
    b"\xC3\xA9t\xC3\xA9",
    b"\xE9t\xE9",
    b"?n=\xF1",
    b"?p=C:\\dir",
    b"?q=\"x\"",
    b"\"x\"",
    b"<id>",
    b"?q=<b>",
    b"`x`",
    b"?q=`x`",
    b"^x",
    b"{id}",
    b"?f={\"a\":[1]}",
    b"a|b",
    b"a[0]",
    b"?a[0]=1&b[]=2",
    b"proxy/http://x.test/a",
    b"a%3Fb%23c",
    b"*",
    b"a:b@c",
    b"a'b(c)!$&,=~",
    b"?q=%zz&r=100%",
    b"...",
    b".well-known/x",
];

const REQUEST_FIELDS: &[(&str, &[u8])] = &[
    ("twice", b"x-a: one\r\nx-a: two\r\n"),
    ("empty", b"x-a:\r\nx-b: \r\n"),
    ("case", b"X-CamelCase: Value\r\nACCEPT: */*\r\n"),
    ("Latin-1", b"x-a: caf\xE9\r\n"),
    ("UTF-8", b"x-a: caf\xC3\xA9\r\n"),
    ("tab inside", b"x-a: a\tb\r\n"),
    ("spaces around", b"x-a:   a  b \t \r\n"),
    ("odd name", b"x!#$%&'*+-.^_`|~9: odd\r\n"),
    ("underscore", b"x_a: 1\r\n"),
    ("cookies", b"cookie: a=1; b=2\r\n"),
    ("two cookie fields", b"cookie: a=1\r\ncookie: b=2\r\n"),
    ("authorization", b"authorization: Basic YTpi\r\nproxy-x: 1\r\n"),
    ("nominated", b"connection: x-hop\r\nx-hop: 1\r\nx-stays: 1\r\n"),
    ("keep-alive", b"connection: keep-alive\r\nkeep-alive: timeout=5\r\nx-stays: 1\r\n"),
    ("te", b"te: trailers\r\nconnection: te\r\n"),
    ("conditions", b"if-none-match: W/\"a\", \"b\"\r\nif-modified-since: Sat, 29 Oct 1994 19:43:31 GMT\r\nrange: bytes=0-9,20-\r\n"),
    ("forwarding", b"via: 1.1 a\r\nforwarded: for=1.2.3.4\r\nx-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: https\r\nx-real-ip: 1.2.3.4\r\n"),
    ("tracing", b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\ntracestate: a=b\r\nx-request-id: 7\r\nb3: 0\r\n"),
    ("date and server", b"date: Sat, 29 Oct 1994 19:43:31 GMT\r\nserver: me\r\nwarning: 199 a b\r\n"),
    ("content without body", b"content-type: text/plain\r\ncontent-encoding: gzip\r\n"),
    ("max-forwards", b"max-forwards: 3\r\n"),
    ("expect of something else", b"x-expect: 100-continue\r\n"),
    ("h2c is no wish of ours", b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"),
    ("cors", b"origin: http://a.test\r\naccess-control-request-method: PUT\r\nsec-fetch-mode: cors\r\n"),
    ("quotes and commas", b"accept: a;q=0.5, \"b,c\", d\r\nx-a: \"\\\"\"\r\n"),
    ("grpc-web", b"content-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\n"),
];

const RESPONSE_FIELDS: &[(&str, &[u8])] = &[
    ("set-cookie twice", b"set-cookie: a=1; path=/\r\nset-cookie: b=2; expires=Sat, 29 Oct 1994 19:43:31 GMT\r\n"),
    ("twice", b"x-a: one\r\nx-a: two\r\nX-A: three\r\n"),
    ("empty", b"x-a:\r\n"),
    ("Latin-1", b"x-a: caf\xE9\r\n"),
    ("UTF-8", b"content-disposition: attachment; filename=\"\xC3\xA9.txt\"\r\n"),
    ("tab inside", b"x-a: a\tb\r\n"),
    ("odd name", b"x!#$%&'*+-.^_`|~9: odd\r\n"),
    ("nominated", b"connection: x-hop\r\nx-hop: 1\r\nx-stays: 1\r\n"),
    ("keep-alive", b"connection: keep-alive\r\nkeep-alive: timeout=60, max=9\r\n"),
    ("date and server", b"date: Sat, 29 Oct 1994 19:43:31 GMT\r\nserver: me/1 (x)\r\nvia: 1.1 a\r\nage: 3\r\n"),
    ("host", b"host: of-an-answer\r\n"),
    ("location", b"location: //a/%2F?b#c\r\ncontent-location: /a b\r\n"),
    ("authenticate", b"www-authenticate: Basic realm=\"a\"\r\nwww-authenticate: Digest realm=\"b\", nonce=\"c\"\r\n"),
    ("proxy-authenticate", b"proxy-authenticate: Basic realm=\"a\"\r\n"),
    ("upgrade without wish", b"upgrade: h2c, websocket\r\nconnection: upgrade\r\n"),
    ("cache", b"etag: W/\"a\"\r\nvary: a, b\r\ncache-control: no-store\r\nexpires: 0\r\nlast-modified: x\r\n"),
    ("encoding", b"content-type: text/html; charset=latin1\r\ncontent-encoding: gzip\r\naccept-ranges: bytes\r\n"),
    ("security", b"strict-transport-security: max-age=1\r\ncontent-security-policy: default-src 'self'; x 'sha256-a='\r\nalt-svc: h3=\":1\"\r\n"),
    ("trailer without chunks", b"trailer: x-sum\r\n"),
    ("request names", b"te: trailers\r\nexpect: 100-continue\r\nauthorization: x\r\ncookie: a=1\r\n"),
    ("weft's names", b"weft-reply: inbound;authz;x;y\r\nx-weft: 1\r\n"),
    ("retry-after", b"retry-after: 120\r\nrefresh: 5; url=/\r\n"),
    ("event stream", b"content-type: text/event-stream\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"),
    ("pragma", b"pragma: no-cache\r\np3p: CP=\"x\"\r\nx-powered-by: y\r\n"),
];

/// Messages that nobody may pass on as they are.
const MALFORMED: &[(&str, &[u8])] = &[
    ("no version", b"GET /\r\nhost: {H}\r\n\r\n"),
    ("version 1.2x", b"GET {T}/ HTTP/1.2x\r\nhost: {H}\r\n\r\n"),
    ("version 3.0", b"GET {T}/ HTTP/3.0\r\nhost: {H}\r\n\r\n"),
    ("lower-case version", b"GET {T}/ http/1.1\r\nhost: {H}\r\n\r\n"),
    ("two spaces", b"GET  {T}/ HTTP/1.1\r\nhost: {H}\r\n\r\n"),
    ("space in target", b"GET {T}/a b HTTP/1.1\r\nhost: {H}\r\n\r\n"),
    ("method with a colon", b"GE:T {T}/ HTTP/1.1\r\nhost: {H}\r\n\r\n"),
    ("field without colon", b"GET {T}/ HTTP/1.1\r\nhost: {H}\r\nnonsense\r\n\r\n"),
    ("space before colon", b"GET {T}/ HTTP/1.1\r\nhost: {H}\r\nx-a : 1\r\n\r\n"),
    ("empty name", b"GET {T}/ HTTP/1.1\r\nhost: {H}\r\n: 1\r\n\r\n"),
    ("name with a space", b"GET {T}/ HTTP/1.1\r\nhost: {H}\r\nx a: 1\r\n\r\n"),
    ("NUL in value", b"GET {T}/ HTTP/1.1\r\nhost: {H}\r\nx-a: \x00\r\n\r\n"),
    ("bare CR in value", b"GET {T}/ HTTP/1.1\r\nhost: {H}\r\nx-a: a\rb\r\n\r\n"),
    ("DEL in value", b"GET {T}/ HTTP/1.1\r\nhost: {H}\r\nx-a: a\x7Fb\r\n\r\n"),
    ("folded field", b"GET {T}/ HTTP/1.1\r\nhost: {H}\r\nx-a: a\r\n b\r\n\r\n"),
    ("space before first field", b"GET {T}/ HTTP/1.1\r\n x-a: a\r\nhost: {H}\r\n\r\n"),
    ("two hosts", b"GET {T}/ HTTP/1.1\r\nhost: {H}\r\nhost: other\r\n\r\n"),
    ("two equal hosts", b"GET {T}/ HTTP/1.1\r\nhost: {H}\r\nhost: {H}\r\n\r\n"),
    ("host that is none", b"GET {T}/ HTTP/1.1\r\nhost: a|b c\r\n\r\n"),
    ("host with user", b"GET {T}/ HTTP/1.1\r\nhost: u@{H}\r\n\r\n"),
    ("negative length", b"POST {T}/ HTTP/1.1\r\nhost: {H}\r\ncontent-length: -1\r\n\r\n"),
    ("length with plus", b"POST {T}/ HTTP/1.1\r\nhost: {H}\r\ncontent-length: +3\r\n\r\nabc"),
    ("length in hex", b"POST {T}/ HTTP/1.1\r\nhost: {H}\r\ncontent-length: 0x3\r\n\r\nabc"),
    ("empty length", b"POST {T}/ HTTP/1.1\r\nhost: {H}\r\ncontent-length:\r\n\r\n"),
    ("two lengths", b"POST {T}/ HTTP/1.1\r\nhost: {H}\r\ncontent-length: 3\r\ncontent-length: 2\r\n\r\nabc"),
    ("a list of two lengths", b"POST {T}/ HTTP/1.1\r\nhost: {H}\r\ncontent-length: 3, 2\r\n\r\nabc"),
    ("length over 64 bits", b"POST {T}/ HTTP/1.1\r\nhost: {H}\r\ncontent-length: 99999999999999999999\r\n\r\n"),
    (
        "length and coding",
        b"POST {T}/ HTTP/1.1\r\nhost: {H}\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("chunked twice", b"POST {T}/ HTTP/1.1\r\nhost: {H}\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    ("identity", b"POST {T}/ HTTP/1.1\r\nhost: {H}\r\ntransfer-encoding: identity\r\n\r\n"),
    ("chunked not last", b"POST {T}/ HTTP/1.1\r\nhost: {H}\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    ("unknown coding", b"POST {T}/ HTTP/1.1\r\nhost: {H}\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("coding with vertical tab", b"POST {T}/ HTTP/1.1\r\nhost: {H}\r\ntransfer-encoding: \x0Bchunked\r\n\r\n0\r\n\r\n"),
    ("coding in HTTP/1.0", b"POST {T}/ HTTP/1.0\r\nhost: {H}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("no host", b"GET {T}/ HTTP/1.1\r\nx-a: 1\r\n\r\n"),
    ("fragment", b"GET {T}/a#b HTTP/1.1\r\nhost: {H}\r\n\r\n"),
    ("relative target", b"GET a/b HTTP/1.1\r\nhost: {H}\r\n\r\n"),
    ("nothing like HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03\r\n\r\n"),
];

pub(super) fn add(cases: &mut Vec<Case>) {
    for method in METHODS {
        for status in STATUSES {
            let body: &[u8] = if ["PUT", "POST", "PATCH"].contains(method) { b"sent" } else { b"" };
            let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
            let bodiless = ["204", "205", "304"].iter().any(|code| status.starts_with(code));
            let answered = match (*method, bodiless) {
                ("HEAD", false) => format!("HTTP/1.1 {status}\r\ncontent-length: 55\r\n\r\n").into_bytes(),
                (_, true) if status.starts_with("205") => answer(status, b""),
                (_, true) => format!("HTTP/1.1 {status}\r\netag: \"x\"\r\n\r\n").into_bytes(),
                _ => answer(status, b"said"),
            };
            let sent = request(method, b"/", length.as_bytes(), body);
            let name = format!("{method}, {status:?}");
            cases.push(once("method and status", name, method, vec![Act::Send(sent)], Script::answer(answered)));
        }
    }
    for target in TARGETS {
        let sent = request("GET", &[b"/", *target].concat(), b"", b"");
        let name = target.escape_ascii().to_string();
        cases.push(once("target", name, "GET", vec![Act::Send(sent)], Script::answer(answer("200 OK", b"ok"))));
    }
    let star = request("OPTIONS", b"*", b"", b"");
    cases.push(once(
        "target",
        "OPTIONS *".to_owned(),
        "OPTIONS",
        vec![Act::Send(star)],
        Script::answer(answer("200 OK", b"")),
    ));
    for (name, fields) in REQUEST_FIELDS {
        let sent = request("GET", b"/", fields, b"");
        let script = Script::answer(answer("200 OK", b"ok"));
        cases.push(once("request fields", (*name).to_owned(), "GET", vec![Act::Send(sent)], script));
    }
    for (name, fields) in RESPONSE_FIELDS {
        let said = [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", *fields, b"\r\nok"].concat();
        let steps = vec![Act::Send(get("/"))];
        cases.push(once("response fields", (*name).to_owned(), "GET", steps, Script::answer(said)));
    }
    sizes(cases);
    connections(cases);
    ends_of_connections(cases);
    for (name, bytes) in MALFORMED {
        // The method that a client has in mind decides how it reads what it gets.
        let steps = vec![Act::Send((*bytes).to_vec())];
        cases.push(once("malformed", (*name).to_owned(), "GET", steps, Script::answer(answer("200 OK", b"ok"))));
    }
}

/// Heads within the limits that Weft documents.
fn sizes(cases: &mut Vec<Case>) {
    let long = |count: usize| "x".repeat(count);
    let many = |count: usize| (0..count).map(|index| format!("x-{index}: {index}\r\n")).collect::<String>();
    let tables = [
        ("a field of 8 KiB", format!("x-a: {}\r\n", long(8 << 10))),
        ("a field of 32 KiB", format!("x-a: {}\r\n", long(32 << 10))),
        ("a field of words, 32 KiB", format!("x-a: {}y\r\n", "word ".repeat(6_500))),
        ("50 fields", many(50)),
        ("90 fields", many(90)),
        ("20 cookies", (0..20).map(|index| format!("cookie: c{index}={index}\r\n")).collect()),
    ];
    for (name, fields) in tables {
        let sent = request("GET", b"/", fields.as_bytes(), b"");
        let script = Script::answer(answer("200 OK", b"ok"));
        cases.push(once("size", format!("request, {name}"), "GET", vec![Act::Send(sent)], script));
        let said = [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", fields.as_bytes(), b"\r\nok"].concat();
        let steps = vec![Act::Send(get("/"))];
        cases.push(once("size", format!("answer, {name}"), "GET", steps, Script::answer(said)));
    }
    for size in [1 << 10, 8 << 10] {
        let sent = get(&format!("/{}", long(size)));
        let script = Script::answer(answer("200 OK", b"ok"));
        cases.push(once("size", format!("a target of {size} bytes"), "GET", vec![Act::Send(sent)], script));
    }
}

fn ok(body: &[u8]) -> Script {
    Script::answer(answer("200 OK", body))
}

fn kept(name: &str, methods: Vec<&'static str>, steps: Vec<Act>, scripts: Vec<Script>) -> Case {
    let talk = Talk::H1 { methods, steps, scripts };
    Case { family: "connection", name: name.to_owned(), declared: Declared::Http, talk }
}

/// Several requests on one connection.
fn connections(cases: &mut Vec<Case>) {
    let mut add = |name: &str, methods: Vec<&'static str>, steps: Vec<Act>, scripts: Vec<Script>| {
        cases.push(kept(name, methods, steps, scripts));
    };
    let post = || request("POST", b"/p", b"content-length: 3\r\n", b"abc");
    let chunks = || request("POST", b"/c", b"transfer-encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n");
    add(
        "one after the other",
        vec!["GET", "GET"],
        vec![Act::Send(get("/1")), Act::Read, Act::Send(get("/2"))],
        vec![ok(b"one"), ok(b"two")],
    );
    add(
        "body, then none",
        vec!["POST", "GET"],
        vec![Act::Send(post()), Act::Read, Act::Send(get("/2"))],
        vec![ok(b"one"), ok(b"")],
    );
    add(
        "HEAD, then GET",
        vec!["HEAD", "GET"],
        vec![Act::Send(request("HEAD", b"/", b"", b"")), Act::Read, Act::Send(get("/"))],
        vec![Script::answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"), ok(b"two")],
    );
    add(
        "three at once",
        vec!["GET", "POST", "GET"],
        vec![Act::Send([get("/1"), post(), get("/3")].concat())],
        vec![ok(b"1"), ok(b"2"), ok(b"3")],
    );
    add(
        "chunks and what follows at once",
        vec!["POST", "GET"],
        vec![Act::Send([chunks(), get("/2")].concat())],
        vec![ok(b"1"), ok(b"2")],
    );
    add(
        "empty lines between",
        vec!["POST", "GET"],
        vec![Act::Send([post(), b"\r\n\r\n".to_vec(), get("/2")].concat())],
        vec![ok(b"1"), ok(b"2")],
    );
    let large = noise(200_000);
    let length = format!("content-length: {}\r\n", large.len());
    let sent = ["/1", "/2"].map(|target| Act::Send(request("PUT", target.as_bytes(), length.as_bytes(), &large)));
    add("two large bodies at once", vec!["PUT", "PUT"], sent.to_vec(), vec![ok(&large), ok(b"2")]);
}

/// Connections that end, by whoever wants it.
fn ends_of_connections(cases: &mut Vec<Case>) {
    let mut add = |name: &str, methods: Vec<&'static str>, steps: Vec<Act>, scripts: Vec<Script>| {
        cases.push(kept(name, methods, steps, scripts));
    };
    add(
        "second malformed",
        vec!["GET", "GET"],
        vec![Act::Send([get("/1"), b"G@T / HTTP/1.1\r\n\r\n".to_vec()].concat())],
        vec![ok(b"1")],
    );
    add(
        "the client closes",
        vec!["GET"],
        vec![Act::Send(request("GET", b"/", b"connection: close\r\n", b""))],
        vec![ok(b"1")],
    );
    add(
        "the client closes, nothing behind it counts",
        vec!["GET"],
        vec![Act::Send([request("GET", b"/", b"connection: close\r\n", b""), get("/2")].concat())],
        vec![ok(b"1")],
    );
    add(
        "the origin closes",
        vec!["GET"],
        vec![Act::Send(get("/1")), Act::Read],
        vec![Script {
            whole: true,
            acts: vec![
                Act::Send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\n1".to_vec()),
                Act::Close,
            ],
        }],
    );
    add(
        "HTTP/1.0 kept",
        vec!["GET", "GET"],
        vec![
            Act::Send(b"GET {T}/1 HTTP/1.0\r\nhost: {H}\r\nconnection: keep-alive\r\n\r\n".to_vec()),
            Act::Read,
            Act::Send(b"GET {T}/2 HTTP/1.0\r\nhost: {H}\r\n\r\n".to_vec()),
        ],
        vec![
            Script::answer("HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\n1"),
            Script::answer("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\n2"),
        ],
    );
}

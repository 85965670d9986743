//! Framings both ways, by version and by how the bytes come: whole, one by one, late, in pieces; and interim answers.

use weft_tests::exchange::h1::{Act, Script};

use super::{Case, answer, chunked, get, millis, noise, once, request};

pub(super) fn add(cases: &mut Vec<Case>) {
    requests(cases);
    old_requests(cases);
    responses(cases);
    interims(cases);
    events(cases);
}

/// The same bytes, delivered in some ways.
fn deliveries(head: &[u8], body: &[u8]) -> Vec<(&'static str, Vec<Act>)> {
    let whole = [head, body].concat();
    let half = whole.len() / 2;
    let mut ways = vec![
        ("whole", vec![Act::Send(whole.clone())]),
        ("behind an empty line", vec![Act::Send([b"\r\n", whole.as_slice()].concat())]),
        ("late", vec![Act::Pause(millis(300)), Act::Send(whole.clone())]),
        (
            "two bytes, then the rest",
            vec![Act::Send(whole[..2].to_vec()), Act::Pause(millis(250)), Act::Send(whole[2..].to_vec())],
        ),
        ("halves", vec![Act::Send(whole[..half].to_vec()), Act::Pause(millis(30)), Act::Send(whole[half..].to_vec())]),
    ];
    if whole.len() < 400 {
        ways.push(("byte by byte", vec![Act::Slowly(whole, 1, millis(1))]));
    }
    if !body.is_empty() {
        ways.push(("body apart", vec![Act::Send(head.to_vec()), Act::Pause(millis(50)), Act::Send(body.to_vec())]));
    }
    ways
}

fn requests(cases: &mut Vec<Case>) {
    let large = noise(70_000);
    let length = |count: usize| format!("content-length: {count}\r\n");
    let te = "transfer-encoding: chunked\r\n";
    let framings = [
        ("no body", "GET", String::new(), vec![]),
        ("length 0", "POST", length(0), vec![]),
        ("length 5", "POST", length(5), b"abcde".to_vec()),
        ("length 70,000", "PUT", length(large.len()), large.clone()),
        ("two chunks", "POST", te.to_owned(), chunked(b"abcdef", 3, "", "")),
        ("no chunk", "POST", te.to_owned(), chunked(b"", 1, "", "")),
        ("chunks with extensions", "POST", te.to_owned(), chunked(b"abcdef", 4, ";a=\"b\";c", "")),
        (
            "chunks with trailers",
            "POST",
            format!("{te}trailer: x-sum\r\n"),
            chunked(b"abcdef", 4, "", "x-sum: 42\r\nx-more: 1\r\n"),
        ),
        ("70 chunks of 1,000", "POST", te.to_owned(), chunked(&large, 1_000, "", "")),
        ("a body with GET", "GET", length(3), b"abc".to_vec()),
        ("chunks with DELETE", "DELETE", te.to_owned(), chunked(b"abc", 3, "", "")),
    ];
    for (name, method, fields, body) in framings {
        let head = request(method, b"/framed", fields.as_bytes(), b"");
        for (way, steps) in deliveries(&head, &body) {
            let script = Script::answer(answer("200 OK", b"got it"));
            cases.push(once("request framing", format!("{name}, {way}"), method, steps, script));
        }
    }
}

fn old_requests(cases: &mut Vec<Case>) {
    let hosts = [("with host", "host: {H}\r\n"), ("without host", ""), ("with an empty host", "host:\r\n")];
    let bodies: [(&str, &str, &str, &[u8]); 3] =
        [("GET", "GET", "", b""), ("POST", "POST", "content-length: 3\r\n", b"abc"), ("HEAD", "HEAD", "", b"")];
    let chunks = chunked(b"in chunks", 4, "", "");
    let answers: [(&str, Vec<u8>); 4] = [
        ("length", answer("200 OK", b"said")),
        ("old and closed", b"HTTP/1.0 200 OK\r\n\r\nsaid to the end".to_vec()),
        ("closed", b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nsaid to the end".to_vec()),
        // An origin must not send chunks to HTTP/1.0 (RFC 9112 6.1); through the mesh it is asked in 1.1.
        ("error", answer("404 Not Found", &chunks)),
    ];
    for (host, line) in hosts {
        for (name, method, fields, body) in bodies {
            for (how, said) in &answers {
                let said = if method == "HEAD" {
                    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n".to_vec()
                } else {
                    said.clone()
                };
                let sent = [format!("{method} {{T}}/old HTTP/1.0\r\n{line}{fields}\r\n").as_bytes(), body].concat();
                let script = Script { whole: true, acts: vec![Act::Send(said), Act::Close] };
                cases.push(once("HTTP/1.0", format!("{name} {host}, {how}"), method, vec![Act::Send(sent)], script));
            }
        }
    }
}

fn responses(cases: &mut Vec<Case>) {
    for size in [0, 1, 1_000, 100_000, 1_000_000] {
        let body = noise(size);
        let length = answer("200 OK", &body);
        let chunks = |trailers: &str, announced: &str| {
            let head = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n{announced}\r\n");
            [head.into_bytes(), chunked(&body, 8_000, "", trailers)].concat()
        };
        let framings = [
            ("length", length, false),
            ("chunks", chunks("", ""), false),
            ("chunks with trailers", chunks("x-sum: 42\r\n", "trailer: x-sum\r\n"), false),
            ("close", [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", body.as_slice()].concat(), true),
            ("HTTP/1.0 and close", [b"HTTP/1.0 200 OK\r\n\r\n", body.as_slice()].concat(), true),
        ];
        for (name, bytes, close) in framings {
            let piece = (bytes.len() / 5).max(1);
            let ways = [("whole", Act::Send(bytes.clone())), ("in pieces", Act::Slowly(bytes, piece, millis(10)))];
            for (way, act) in ways {
                let acts = if close { vec![act, Act::Close] } else { vec![act] };
                let sent = request("GET", b"/", b"te: trailers\r\nconnection: te\r\n", b"");
                let script = Script { whole: true, acts };
                cases.push(once(
                    "response framing",
                    format!("{name}, {size} bytes, {way}"),
                    "GET",
                    vec![Act::Send(sent)],
                    script,
                ));
            }
        }
    }
    for (name, head) in [("length", "content-length: 40"), ("chunks", "transfer-encoding: chunked")] {
        let body = if name == "length" { vec![b'x'; 40] } else { chunked(&[b'x'; 40], 9, ";e", "") };
        let bytes = [format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").into_bytes(), body].concat();
        let script = Script { whole: true, acts: vec![Act::Slowly(bytes, 1, millis(1))] };
        cases.push(once("response framing", format!("{name}, byte by byte"), "GET", vec![Act::Send(get("/"))], script));
    }
}

fn interims(cases: &mut Vec<Case>) {
    let interims = [
        ("100", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("102", "HTTP/1.1 102 Processing\r\n\r\n"),
        ("103", "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"),
        ("two 103", "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </b>\r\n\r\n"),
        ("100 and 103", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"),
    ];
    for (name, interim) in interims {
        for (way, pause) in [("at once", 0), ("apart", 60)] {
            let acts =
                vec![Act::Send(interim.into()), Act::Pause(millis(pause)), Act::Send(answer("200 OK", b"final"))];
            let script = Script { whole: true, acts };
            cases.push(once("interim", format!("GET, {name}, {way}"), "GET", vec![Act::Send(get("/"))], script));
        }
    }
    // A client that waits to be asked, and one that only says so.
    for (name, waits, said) in [
        ("asked for the body", true, "HTTP/1.1 100 Continue\r\n\r\n"),
        ("nobody asks", false, ""),
        ("asked late", false, "HTTP/1.1 100 Continue\r\n\r\n"),
    ] {
        let head = request("PUT", b"/", b"expect: 100-continue\r\ncontent-length: 4\r\n", b"");
        let pause = millis(if waits { 80 } else { 0 });
        let steps = vec![Act::Send(head), Act::Pause(pause), Act::Send(b"body".to_vec())];
        let acts = vec![Act::Send(said.into()), Act::Read, Act::Send(answer("200 OK", b"final"))];
        cases.push(once("interim", format!("expect, {name}"), "PUT", steps, Script { whole: false, acts }));
    }
    let head = request("PUT", b"/", b"expect: 100-continue\r\ncontent-length: 4\r\n", b"");
    let refused = b"HTTP/1.1 417 Expectation Failed\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec();
    let script = Script { whole: false, acts: vec![Act::Send(refused), Act::Finish] };
    cases.push(once("interim", "expect, refused".to_owned(), "PUT", vec![Act::Send(head)], script));
}

/// Answers that trickle: each piece has to arrive while the next is still to come.
fn events(cases: &mut Vec<Case>) {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut acts = vec![Act::Send(head.into())];
    for event in 0..5 {
        let text = format!("data: {event}\n\n");
        acts.push(Act::Pause(millis(40)));
        acts.push(Act::Send(format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()));
    }
    acts.push(Act::Send(b"0\r\n\r\n".to_vec()));
    cases.push(once(
        "response framing",
        "events".to_owned(),
        "GET",
        vec![Act::Send(get("/events"))],
        Script { whole: true, acts },
    ));
}

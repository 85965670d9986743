//! Ends before their time: the origin's, the client's, and answers that come before the request is complete.

use weft_tests::exchange::h1::{Act, Script};

use super::{Case, answer, chunked, get, millis, noise, once, request};

pub(super) fn add(cases: &mut Vec<Case>) {
    origins(cases);
    origins_at_once(cases);
    silent_ends(cases);
    clients(cases);
    half_closes(cases);
    early(cases);
}

/// FIN or RST, each once all that came before has left: an origin's own RST destroys what still waits in its kernel.
fn endings(sent: usize) -> [(&'static str, Vec<Act>); 2] {
    let pause = Act::Pause(millis(if sent > 100_000 { 250 } else { 40 }));
    [("FIN", vec![pause.clone(), Act::Close]), ("RST", vec![pause, Act::Reset])]
}

fn origins(cases: &mut Vec<Case>) {
    for sent in [0, 100, 100_000, 700_000] {
        let body = noise(sent);
        let mut chunks = chunked(&body, 9_000, "", "");
        chunks.truncate(chunks.len() - 5);
        let framings = [
            (
                "length",
                [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", sent + 50).as_bytes(), &body].concat(),
            ),
            ("chunks", [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".as_slice(), &chunks].concat()),
            (
                "inside a chunk",
                [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffff\r\n".as_slice(), &body].concat(),
            ),
            ("close", [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".as_slice(), &body].concat()),
        ];
        for (framing, bytes) in framings {
            for (end, acts) in endings(sent) {
                // With FIN a body that lasts until the close is complete: that is another family.
                if framing == "close" && end == "FIN" {
                    continue;
                }
                let acts = [vec![Act::Send(bytes.clone())], acts].concat();
                let name = format!("{framing}, {end} after {sent} bytes");
                cases.push(once(
                    "origin breaks off",
                    name,
                    "GET",
                    vec![Act::Send(get("/"))],
                    Script { whole: true, acts },
                ));
            }
        }
    }
}

/// RST right behind the last byte: it must not overtake it.
fn origins_at_once(cases: &mut Vec<Case>) {
    for sent in [1, 100, 50_000] {
        let body = noise(sent);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", sent + 50);
        let mut chunks = chunked(&body, 9_000, "", "");
        chunks.truncate(chunks.len() - 5);
        let chunks = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".as_slice(), &chunks].concat();
        for (framing, bytes) in [("length", [head.as_bytes(), &body].concat()), ("chunks", chunks)] {
            let acts = vec![Act::Send(bytes), Act::Reset];
            let name = format!("{framing}, RST at once after {sent} bytes");
            cases.push(once("origin breaks off", name, "GET", vec![Act::Send(get("/"))], Script { whole: true, acts }));
        }
    }
}

/// Nothing, half a head, or only an interim one.
fn silent_ends(cases: &mut Vec<Case>) {
    let befores: [(&str, &[u8]); 4] = [
        ("nothing", b""),
        ("half a status line", b"HTTP/1.1 20"),
        ("half a head", b"HTTP/1.1 200 OK\r\ncontent-len"),
        ("an interim head", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"),
    ];
    for (name, bytes) in befores {
        for (end, acts) in endings(0) {
            for method in ["GET", "POST"] {
                let fields: &[u8] = if method == "POST" { b"content-length: 0\r\n" } else { b"" };
                let sent = request(method, b"/", fields, b"");
                let acts = [vec![Act::Send(bytes.to_vec())], acts.clone()].concat();
                let name = format!("{method}, {name}, {end}");
                cases.push(once(
                    "origin breaks off",
                    name,
                    method,
                    vec![Act::Send(sent)],
                    Script { whole: true, acts },
                ));
            }
        }
    }
}

/// A client that leaves, at each point of an exchange. The origin has to hear of it.
fn clients(cases: &mut Vec<Case>) {
    for (end, leaves) in [("FIN both ways", Act::Close), ("RST", Act::Reset)] {
        let bodies: [(&str, &[u8], &[u8]); 4] = [
            ("length, nothing of it", b"content-length: 100\r\n", b""),
            ("length, half of it", b"content-length: 100\r\n", &[b'x'; 50]),
            ("chunks, one whole", b"transfer-encoding: chunked\r\n", b"3\r\nabc\r\n"),
            ("chunks, half of one", b"transfer-encoding: chunked\r\n", b"9\r\nabc"),
        ];
        for (name, fields, body) in bodies {
            let steps = vec![
                Act::Send(request("POST", b"/", fields, body)),
                Act::Arrived(1),
                Act::Pause(millis(40)),
                leaves.clone(),
            ];
            let script = Script { whole: true, acts: vec![] };
            cases.push(once("client leaves", format!("{name}, {end}"), "POST", steps, script));
        }
        let quiet: [(&str, &[u8]); 4] = [
            ("before the answer", b""),
            ("after its head", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
            ("inside its body", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"),
            ("inside its length", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc"),
        ];
        for (name, bytes) in quiet {
            let steps = vec![Act::Send(get("/watch")), Act::Arrived(1), Act::Pause(millis(60)), leaves.clone()];
            let script = Script { whole: true, acts: vec![Act::Send(bytes.to_vec()), Act::Gone] };
            cases.push(once("client leaves", format!("{name}, {end}"), "GET", steps, script));
        }
    }
}

/// A client that has sent all that it wants to send may say so, and still gets its answer.
fn half_closes(cases: &mut Vec<Case>) {
    let requests = [
        ("GET", "GET", get("/half")),
        ("length", "POST", request("POST", b"/half", b"content-length: 3\r\n", b"abc")),
        ("chunks", "POST", request("POST", b"/half", b"transfer-encoding: chunked\r\n", &chunked(b"abc", 2, "", ""))),
        ("HTTP/1.0", "GET", b"GET {T}/half HTTP/1.0\r\nhost: {H}\r\n\r\n".to_vec()),
        ("close", "GET", request("GET", b"/half", b"connection: close\r\n", b"")),
    ];
    for (name, method, sent) in requests {
        for (when, pause) in [("at once", 0), ("late", 150)] {
            let steps = vec![Act::Send(sent.clone()), Act::Finish];
            let acts = vec![Act::Pause(millis(pause)), Act::Send(answer("200 OK", b"answered")), Act::Close];
            cases.push(once(
                "half-close",
                format!("{name}, answered {when}"),
                method,
                steps,
                Script { whole: true, acts },
            ));
        }
    }
}

/// Answers before the request is complete: the origin reads on, or doesn't.
fn early(cases: &mut Vec<Case>) {
    for status in ["200 OK", "202 Accepted", "401 No", "413 Too much"] {
        for (size, pieces) in [(20_000, 10), (400_000, 8)] {
            let body = noise(size);
            for (framing, fields, bytes) in [
                ("length", format!("content-length: {size}\r\n"), body.clone()),
                ("chunks", "transfer-encoding: chunked\r\n".to_owned(), chunked(&body, 5_000, "", "")),
            ] {
                let head = request("POST", b"/early", fields.as_bytes(), b"");
                let piece = bytes.len() / pieces + 1;
                let steps = vec![Act::Send(head), Act::Slowly(bytes, piece, millis(10))];
                let acts = vec![Act::Send(answer(status, b"early")), Act::Read];
                let name = format!("{status}, {framing} of {size}, reads on");
                cases.push(once("early answer", name, "POST", steps, Script { whole: false, acts }));
            }
        }
        let head = request("POST", b"/early", b"content-length: 300000\r\n", b"");
        let steps = vec![Act::Send(head), Act::Slowly(noise(300_000), 30_000, millis(10))];
        let said = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 5\r\n\r\nearly");
        let acts = vec![Act::Send(said.into()), Act::Finish, Act::Gone];
        cases.push(once("early answer", format!("{status}, closes"), "POST", steps, Script { whole: false, acts }));
    }
    // Both directions at once, piece by piece.
    let head = request("POST", b"/duplex", b"transfer-encoding: chunked\r\n", b"");
    let steps = vec![Act::Send(head), Act::Slowly(chunked(&noise(4_000), 400, "", ""), 410, millis(15))];
    let said = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(), chunked(&noise(4_000), 400, "", "")]
        .concat();
    let acts = vec![Act::Slowly(said, 410, millis(15)), Act::Read];
    cases.push(once("early answer", "both at once".to_owned(), "POST", steps, Script { whole: false, acts }));
}

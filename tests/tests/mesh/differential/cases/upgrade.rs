//! Upgrades of HTTP/1.1: taken, refused, not meant; and the bytes that follow, with each way to end.

use weft_tests::exchange::h1::{Act, Script};

use super::{Case, answer, millis, noise, once, request};

const ACCEPTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                          sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nsec-websocket-protocol: chat\r\n\r\n";

fn asked(token: &str) -> Vec<u8> {
    let fields = format!(
        "connection: keep-alive, Upgrade\r\nupgrade: {token}\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-version: 13\r\nsec-websocket-protocol: chat\r\n"
    );
    request("GET", b"/chat?room=1", fields.as_bytes(), b"")
}

pub(super) fn add(cases: &mut Vec<Case>) {
    taken(cases);
    by_post_and_in_pieces(cases);
    refused(cases);
    not_meant(cases);
}

fn taken(cases: &mut Vec<Case>) {
    for (size, name) in [(5, "5 bytes"), (100_000, "100,000 bytes")] {
        let bytes = noise(size);
        let with = [ACCEPTED, &bytes].concat();
        let mut add = |what: &str, steps: Vec<Act>, acts: Vec<Act>| {
            cases.push(once("upgrade", format!("{what}, {name}"), "GET", steps, Script { whole: true, acts }));
        };
        let send = || Act::Send(bytes.clone());
        add(
            "bytes with the 101, client ends",
            vec![Act::Send(asked("websocket")), Act::Read, Act::Raw(size), send(), Act::Finish, Act::RawRest],
            vec![Act::Send(with.clone()), Act::RawRest, Act::Send(b"bye".to_vec()), Act::Close],
        );
        add(
            "origin ends, client answers",
            vec![Act::Send(asked("websocket")), Act::Read, Act::RawRest, send(), Act::Close],
            vec![Act::Send(with.clone()), Act::Finish, Act::RawRest, Act::Close],
        );
        add(
            "to and fro",
            vec![
                Act::Send(asked("websocket")),
                Act::Read,
                send(),
                Act::Raw(size),
                send(),
                Act::Raw(size),
                Act::Finish,
                Act::RawRest,
            ],
            vec![
                Act::Send(ACCEPTED.to_vec()),
                Act::Raw(size),
                send(),
                Act::Raw(size),
                send(),
                Act::RawRest,
                Act::Close,
            ],
        );
        add(
            "origin resets",
            vec![Act::Send(asked("websocket")), Act::Read, Act::RawRest],
            vec![Act::Send(with.clone()), Act::Pause(millis(60)), Act::Reset],
        );
        add(
            "client resets",
            vec![Act::Send(asked("websocket")), Act::Read, Act::Raw(size), Act::Reset],
            vec![Act::Send(with), Act::Gone],
        );
    }
    let steps = vec![Act::Send(asked("chat/2")), Act::Read, Act::Raw(2), Act::Finish, Act::RawRest];
    let said = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat/2\r\n\r\nhi".to_vec();
    let acts = vec![Act::Send(said), Act::RawRest, Act::Close];
    cases.push(once("upgrade", "a protocol of its own".to_owned(), "GET", steps, Script { whole: true, acts }));
    for (token, method, reason) in
        [("tcp", "POST", "UPGRADED"), ("SPDY/3.1", "POST", "Switching Protocols"), ("websocket", "PUT", "Own")]
    {
        // As `docker attach` and `kubectl exec` ask.
        let fields = format!("connection: Upgrade\r\nupgrade: {token}\r\ncontent-length: 0\r\n");
        let sent = request(method, b"/attach?stream=1", fields.as_bytes(), b"");
        let steps =
            vec![Act::Send(sent), Act::Read, Act::Raw(2), Act::Send(b"typed".to_vec()), Act::Finish, Act::RawRest];
        let said = format!("HTTP/1.1 101 {reason}\r\nconnection: Upgrade\r\nupgrade: {token}\r\n\r\nhi");
        let acts = vec![Act::Send(said.into()), Act::RawRest, Act::Send(b"bye".to_vec()), Act::Close];
        cases.push(once("upgrade", format!("{token} by {method}"), method, steps, Script { whole: true, acts }));
    }
}

fn by_post_and_in_pieces(cases: &mut Vec<Case>) {
    let sent = request("POST", b"/attach", b"connection: upgrade\r\nupgrade: tcp\r\ncontent-length: 0\r\n", b"");
    let script = Script::answer(answer("409 Conflict", b"not running"));
    cases.push(once("upgrade", "by POST, refused".to_owned(), "POST", vec![Act::Send(sent)], script));
    let steps = vec![Act::Slowly(asked("websocket"), 40, millis(5)), Act::Read, Act::Raw(2), Act::Finish, Act::RawRest];
    let acts = vec![Act::Slowly([ACCEPTED, b"hi"].concat(), 30, millis(5)), Act::RawRest, Act::Close];
    cases.push(once("upgrade", "in pieces".to_owned(), "GET", steps, Script { whole: true, acts }));
}

fn refused(cases: &mut Vec<Case>) {
    for status in ["200 OK", "400 Bad", "401 Who", "403 No", "404 Not Found", "426 Upgrade Required", "503 Busy"] {
        let said = if status.starts_with("426") {
            b"HTTP/1.1 426 Upgrade Required\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 2\r\n\r\nno"
                .to_vec()
        } else {
            answer(status, b"no")
        };
        let steps = vec![Act::Send(asked("websocket"))];
        cases.push(once("upgrade", format!("refused with {status}"), "GET", steps, Script::answer(said)));
    }
    for (name, acts) in [("FIN", Act::Close), ("RST", Act::Reset)] {
        let steps = vec![Act::Send(asked("websocket"))];
        cases.push(once(
            "upgrade",
            format!("broken off by {name}"),
            "GET",
            steps,
            Script { whole: true, acts: vec![acts] },
        ));
    }
}

/// Wishes that are no upgrade of ours: an ordinary request goes on without them.
fn not_meant(cases: &mut Vec<Case>) {
    let wishes: [(&str, &str, &str, &[u8]); 4] = [
        ("h2c", "GET", "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n", b""),
        ("TLS", "GET", "connection: upgrade\r\nupgrade: TLS/1.2\r\n", b""),
        ("with a body", "POST", "connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 3\r\n", b"abc"),
        ("not nominated", "GET", "upgrade: websocket\r\n", b""),
    ];
    for (name, method, fields, body) in wishes {
        let sent = request(method, b"/", fields.as_bytes(), body);
        let script = Script::answer(answer("200 OK", b"plain"));
        cases.push(once("upgrade", format!("not meant: {name}"), method, vec![Act::Send(sent)], script));
    }
}

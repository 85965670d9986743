//! Peers that break the rules, byte by byte: each row is what they send and the code that they get for it.

use std::fmt::Write as _;

use super::super::frame::{Bounds, Event, Place, Role, decode};
use super::super::{Code, Limits};
use super::{Pair, frame, headers_frame, hex, read, request, soon};

/// End that a raw peer sees.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Closed(&'static str),
    Reset(&'static str),
    Status(String),
}

const GET: &[(&str, &str)] = &[(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "h")];

fn get() -> Vec<u8> {
    headers_frame(GET)
}

fn with(fields: &[(&'static str, &'static str)]) -> Vec<u8> {
    headers_frame(&[GET, fields].concat())
}

fn closed(error: &quinn::ConnectionError) -> Seen {
    let quinn::ConnectionError::ApplicationClosed(close) = error else { panic!("{error}") };
    Seen::Closed(Code::name(close.error_code.into_inner()))
}

/// Sends unidirectional streams and perhaps a request stream to our server, which answers 200 to what it takes.
async fn against_server(uni: &[&[u8]], request: Option<(&[u8], bool)>) -> Seen {
    let pair = Pair::new().await;
    let server = pair.start_server(Limits { unknown_streams: 4, ..Limits::default() });
    tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            let Ok((_, mut body, mut answer)) = read(incoming).await else { continue };
            while let Ok(Some(_)) = body.frame().await {}
            if body.is_end() {
                let _ = answer.response(&super::response(200, &[]), true).await;
            } else {
                answer.reset(Code::MESSAGE_ERROR);
            }
        }
    });
    let mut held = Vec::new();
    for bytes in uni {
        let mut stream = pair.client.open_uni().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        held.push(stream);
    }
    let Some((bytes, fin)) = request else { return closed(&soon(pair.client.closed()).await) };
    let (mut send, mut recv) = pair.client.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    if fin {
        send.finish().unwrap();
    }
    seen(soon(recv.read_to_end(10_000)).await, &pair.client).await
}

async fn seen(read: Result<Vec<u8>, quinn::ReadToEndError>, connection: &quinn::Connection) -> Seen {
    match read {
        Ok(bytes) => {
            let mut text = String::new();
            for octet in bytes {
                write!(text, "{octet:02x}").unwrap();
            }
            Seen::Status(text)
        }
        Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => Seen::Reset(Code::name(code.into_inner())),
        Err(_) => closed(&soon(connection.closed()).await),
    }
}

/// HEADERS with `:status` 200, 414 and 431, as our encoder writes them.
const OK: &str = "01800000030000d9";
const FIELDS_TOO_LARGE: &str = "01800000080000";

#[tokio::test]
async fn malformed_requests_cost_their_stream() {
    let reset = |code| Seen::Reset(code);
    let fine = || Seen::Status(OK.to_owned());
    let table: Vec<(&str, Vec<u8>, bool, Seen)> = vec![
        ("fine", get(), true, fine()),
        (
            "greased",
            [frame(0x21, b"xyz"), get(), frame(0x40, b""), frame(0, b"d"), frame(0x5f, b"")].concat(),
            true,
            fine(),
        ),
        ("nothing", vec![], true, reset("H3_REQUEST_INCOMPLETE")),
        ("only grease", frame(0x21, b"a"), true, reset("H3_REQUEST_INCOMPLETE")),
        ("no path", headers_frame(&GET[..1]), true, reset("H3_MESSAGE_ERROR")),
        ("no authority", headers_frame(&GET[..3]), true, reset("H3_MESSAGE_ERROR")),
        ("no authority, still open", headers_frame(&GET[..3]), false, reset("H3_MESSAGE_ERROR")),
        ("host differs", with(&[("host", "other")]), true, reset("H3_MESSAGE_ERROR")),
        ("upper case", with(&[("Accept", "x")]), true, reset("H3_MESSAGE_ERROR")),
        ("connection", with(&[("connection", "close")]), true, reset("H3_MESSAGE_ERROR")),
        ("te", with(&[("te", "gzip")]), true, reset("H3_MESSAGE_ERROR")),
        ("pseudo twice", with(&[(":path", "/")]), true, reset("H3_MESSAGE_ERROR")),
        ("pseudo late", with(&[("a", "b"), (":scheme", "x")]), true, reset("H3_MESSAGE_ERROR")),
        ("CRLF", with(&[("a", "b\r\nc: d")]), true, reset("H3_MESSAGE_ERROR")),
        (
            "content-length short",
            [with(&[("content-length", "3")]), frame(0, b"ab")].concat(),
            true,
            reset("H3_MESSAGE_ERROR"),
        ),
        (
            "content-length long",
            [with(&[("content-length", "3")]), frame(0, b"abcd")].concat(),
            false,
            reset("H3_MESSAGE_ERROR"),
        ),
        ("pseudo in trailers", [get(), headers_frame(&GET[..1])].concat(), true, reset("H3_MESSAGE_ERROR")),
    ];
    check_server(table).await;
}

async fn check_server(table: Vec<(&str, Vec<u8>, bool, Seen)>) {
    for (what, bytes, fin, expect) in table {
        assert_eq!(against_server(&[], Some((&bytes, fin))).await, expect, "{what}");
    }
}

#[tokio::test]
async fn broken_frames_cost_the_connection() {
    let close = |code| Seen::Closed(code);
    let table: Vec<(&str, Vec<u8>, bool, Seen)> = vec![
        ("DATA first", frame(0, b"a"), false, close("H3_FRAME_UNEXPECTED")),
        (
            "DATA after trailers",
            [get(), headers_frame(&[("a", "b")]), frame(0, b"x")].concat(),
            true,
            close("H3_FRAME_UNEXPECTED"),
        ),
        (
            "HEADERS after trailers",
            [get(), headers_frame(&[("a", "b")]), headers_frame(&[("a", "b")])].concat(),
            true,
            close("H3_FRAME_UNEXPECTED"),
        ),
        (
            "HEADERS in a tunnel",
            [headers_frame(&[(":method", "CONNECT"), (":authority", "h:1")]), headers_frame(&[("a", "b")])].concat(),
            false,
            close("H3_FRAME_UNEXPECTED"),
        ),
        ("SETTINGS", frame(4, b""), false, close("H3_FRAME_UNEXPECTED")),
        ("GOAWAY", [get(), frame(7, &[0])].concat(), false, close("H3_FRAME_UNEXPECTED")),
        ("MAX_PUSH_ID", [get(), frame(13, &[0])].concat(), false, close("H3_FRAME_UNEXPECTED")),
        ("CANCEL_PUSH", [get(), frame(3, &[0])].concat(), false, close("H3_FRAME_UNEXPECTED")),
        ("PUSH_PROMISE", [get(), frame(5, &[0, 0, 0])].concat(), false, close("H3_FRAME_UNEXPECTED")),
        ("PRIORITY of HTTP/2", [get(), frame(2, b"")].concat(), false, close("H3_FRAME_UNEXPECTED")),
        ("PING of HTTP/2", [get(), frame(6, b"")].concat(), false, close("H3_FRAME_UNEXPECTED")),
        ("frame cut off", [get(), vec![0, 9, 1]].concat(), true, close("H3_FRAME_ERROR")),
        ("head cut off", get()[..5].to_vec(), true, close("H3_FRAME_ERROR")),
        ("empty DATA for ever", [get(), frame(0, b"").repeat(300)].concat(), false, close("H3_EXCESSIVE_LOAD")),
        ("grease for ever", [get(), frame(0x21, b"").repeat(300)].concat(), false, close("H3_EXCESSIVE_LOAD")),
        ("grease without bounds", [get(), hex("21 bfffffff")].concat(), false, close("H3_EXCESSIVE_LOAD")),
        ("dynamic table", frame(1, &[2, 0, 0x80]), false, close("QPACK_DECOMPRESSION_FAILED")),
        ("static index", frame(1, &[0, 0, 0xff, 0x24]), false, close("QPACK_DECOMPRESSION_FAILED")),
        ("empty section", frame(1, b""), false, close("QPACK_DECOMPRESSION_FAILED")),
        ("bad Huffman", frame(1, &[0, 0, 0x50, 0x81, 0x18]), false, close("QPACK_DECOMPRESSION_FAILED")),
    ];
    check_server(table).await;
}

#[tokio::test]
async fn heads_above_the_limits_are_answered() {
    let many: Vec<(&str, &str)> = GET.iter().copied().chain(std::iter::repeat_n(("a", "b"), 200)).collect();
    for bytes in [headers_frame(&many), hex("01 80010001 0000")] {
        let Seen::Status(status) = against_server(&[], Some((&bytes, false))).await else { panic!("no answer") };
        assert!(status.starts_with(FIELDS_TOO_LARGE) && status.ends_with("343331"), "{status}");
    }
}

#[tokio::test]
async fn unidirectional_streams_to_a_server() {
    let table: Vec<(&str, Vec<Vec<u8>>, &str)> = vec![
        ("push", vec![hex("01 00")], "H3_STREAM_CREATION_ERROR"),
        ("two control streams", vec![hex("00 0400"), hex("00 0400")], "H3_STREAM_CREATION_ERROR"),
        ("two encoders", vec![hex("02"), hex("02")], "H3_STREAM_CREATION_ERROR"),
        ("two decoders", vec![hex("03"), hex("03")], "H3_STREAM_CREATION_ERROR"),
        ("no SETTINGS", vec![hex("00 070100")], "H3_MISSING_SETTINGS"),
        ("two SETTINGS", vec![hex("00 0400 0400")], "H3_FRAME_UNEXPECTED"),
        ("DATA on control", vec![hex("00 0400 0000")], "H3_FRAME_UNEXPECTED"),
        ("HEADERS on control", vec![hex("00 0400 0100")], "H3_FRAME_UNEXPECTED"),
        ("HTTP/2 setting", vec![hex("00 0402 0201")], "H3_SETTINGS_ERROR"),
        ("setting twice", vec![hex("00 0404 0601 0601")], "H3_SETTINGS_ERROR"),
        ("connect protocol 2", vec![hex("00 0402 0802")], "H3_SETTINGS_ERROR"),
        ("push goaway rises", vec![hex("00 0400 070101 070102")], "H3_ID_ERROR"),
        ("MAX_PUSH_ID falls", vec![hex("00 0400 0d0102 0d0101")], "H3_ID_ERROR"),
        ("CANCEL_PUSH", vec![hex("00 0400 030100")], "H3_ID_ERROR"),
        ("GOAWAY too long", vec![hex("00 0400 07020000")], "H3_FRAME_ERROR"),
        ("SETTINGS too long", vec![hex("00 04 80010000")], "H3_EXCESSIVE_LOAD"),
        ("table capacity", vec![hex("02 3fe11f")], "QPACK_ENCODER_STREAM_ERROR"),
        ("insertion", vec![hex("02 c00161")], "QPACK_ENCODER_STREAM_ERROR"),
        ("acknowledgement", vec![hex("03 80")], "QPACK_DECODER_STREAM_ERROR"),
        ("increment", vec![hex("03 01")], "QPACK_DECODER_STREAM_ERROR"),
        ("strange streams for ever", vec![hex("21"); 5], "H3_EXCESSIVE_LOAD"),
    ];
    for (what, uni, expect) in table {
        let uni: Vec<&[u8]> = uni.iter().map(Vec::as_slice).collect();
        assert_eq!(against_server(&uni, None).await, Seen::Closed(expect), "{what}");
    }
    // These are fine: grease of every kind, streams that never say what they are, a reset before the type.
    let fine: [&[u8]; 5] =
        [&hex("00 0402 2100 210161 0d0105 0d0106"), &hex("02 20"), &hex("03 41"), &hex("21 ff"), &[0x40]];
    assert_eq!(against_server(&fine, Some((&get(), true))).await, Seen::Status(OK.to_owned()));
}

#[tokio::test]
async fn critical_streams_must_stay() {
    for begin in [hex("00 0400"), hex("02"), hex("03")] {
        let pair = Pair::new().await;
        let _server = pair.start_server(Limits::default());
        let mut stream = pair.client.open_uni().await.unwrap();
        stream.write_all(&begin).await.unwrap();
        stream.finish().unwrap();
        let seen = closed(&soon(pair.client.closed()).await);
        assert_eq!(seen, Seen::Closed("H3_CLOSED_CRITICAL_STREAM"), "{begin:x?}");
    }
    // Our own control stream must be read.
    let pair = Pair::new().await;
    let _server = pair.start_server(Limits::default());
    let mut control = soon(pair.client.accept_uni()).await.unwrap();
    control.stop(0_u32.into()).unwrap();
    assert_eq!(closed(&soon(pair.client.closed()).await), Seen::Closed("H3_CLOSED_CRITICAL_STREAM"));
}

/// Our client asks a raw server, which sends unidirectional streams and an answer.
async fn against_client(uni: &[&[u8]], answer: Option<(&[u8], bool)>, closes: bool) -> Seen {
    let pair = Pair::new().await;
    let client = pair.start_client(Limits::default());
    let mut held = Vec::new();
    for bytes in uni {
        let mut stream = pair.server.open_uni().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        held.push(stream);
    }
    let Some((bytes, fin)) = answer else { return closed(&soon(pair.server.closed()).await) };
    let (_send, mut recv) = soon(client.send(&request(http::Method::GET, "/", &[]), true)).await.unwrap();
    let (mut send, _request) = soon(pair.server.accept_bi()).await.unwrap();
    send.write_all(bytes).await.unwrap();
    if fin {
        send.finish().unwrap();
    }
    let result = async {
        while recv.response_head().await.map_err(|error| error.error)?.status.is_informational() {}
        while recv.frame().await?.is_some() {}
        Ok::<(), crate::http::StreamError>(())
    };
    let result = soon(result).await;
    // A stream that was delivered whole says nothing about the connection, nor a living connection about itself.
    if closes {
        return closed(&soon(pair.server.closed()).await);
    }
    match soon(send.stopped()).await {
        Ok(Some(code)) => Seen::Reset(Code::name(code.into_inner())),
        Ok(None) => Seen::Status(format!("{result:?}")),
        Err(_) => closed(&soon(pair.server.closed()).await),
    }
}

#[tokio::test]
async fn answers_to_a_client() {
    let ok = || headers_frame(&[(":status", "200")]);
    let reset = |code| Seen::Reset(code);
    let close = |code| Seen::Closed(code);
    let table: Vec<(&str, Vec<u8>, bool, Seen)> = vec![
        ("fine", [ok(), frame(0, b"a")].concat(), true, Seen::Status("Ok(())".to_owned())),
        ("no status", headers_frame(&[("a", "b")]), false, reset("H3_MESSAGE_ERROR")),
        ("status 101", headers_frame(&[(":status", "101")]), false, reset("H3_MESSAGE_ERROR")),
        ("request pseudo", headers_frame(&[(":path", "/")]), false, reset("H3_MESSAGE_ERROR")),
        ("connection", headers_frame(&[(":status", "200"), ("connection", "close")]), false, reset("H3_MESSAGE_ERROR")),
        (
            "too long",
            [headers_frame(&[(":status", "200"), ("content-length", "1")]), frame(0, b"ab")].concat(),
            false,
            reset("H3_MESSAGE_ERROR"),
        ),
        (
            "content with 204",
            [headers_frame(&[(":status", "204")]), frame(0, b"ab")].concat(),
            false,
            reset("H3_MESSAGE_ERROR"),
        ),
        (
            "too many fields",
            headers_frame(&[[(":status", "200")].as_slice(), &[("a", "b"); 200]].concat()),
            false,
            reset("H3_EXCESSIVE_LOAD"),
        ),
        ("DATA first", frame(0, b"a"), false, close("H3_FRAME_UNEXPECTED")),
        (
            "DATA after interim",
            [headers_frame(&[(":status", "103")]), frame(0, b"a")].concat(),
            false,
            close("H3_FRAME_UNEXPECTED"),
        ),
        ("push", [frame(5, &[0, 0, 0]), ok()].concat(), false, close("H3_ID_ERROR")),
        ("WINDOW_UPDATE of HTTP/2", frame(8, b""), false, close("H3_FRAME_UNEXPECTED")),
        ("frame cut off", [ok(), vec![0, 2, 0]].concat(), true, close("H3_FRAME_ERROR")),
        ("dynamic table", frame(1, &[1, 0, 0x80]), false, close("QPACK_DECOMPRESSION_FAILED")),
    ];
    for (what, bytes, fin, expect) in table {
        let closes = matches!(expect, Seen::Closed(_));
        assert_eq!(against_client(&[], Some((&bytes, fin)), closes).await, expect, "{what}");
    }
    let Seen::Status(told) = against_client(&[], Some((&headers_frame(&[(":status", "103")]), true)), false).await
    else {
        panic!("stream was not left alone")
    };
    assert_eq!(told, "Err(Truncated)");
}

#[tokio::test]
async fn streams_to_a_client() {
    let table: Vec<(&str, Vec<Vec<u8>>, &str)> = vec![
        ("push", vec![hex("01 00")], "H3_ID_ERROR"),
        ("GOAWAY of no request stream", vec![hex("00 0400 070101")], "H3_ID_ERROR"),
        ("GOAWAY rises", vec![hex("00 0400 070104 070108")], "H3_ID_ERROR"),
        ("MAX_PUSH_ID", vec![hex("00 0400 0d0101")], "H3_FRAME_UNEXPECTED"),
        ("CANCEL_PUSH", vec![hex("00 0400 030100")], "H3_ID_ERROR"),
        ("no SETTINGS", vec![hex("00 2100")], "H3_MISSING_SETTINGS"),
        ("insertion", vec![hex("02 c00161")], "QPACK_ENCODER_STREAM_ERROR"),
    ];
    for (what, uni, expect) in table {
        let uni: Vec<&[u8]> = uni.iter().map(Vec::as_slice).collect();
        assert_eq!(against_client(&uni, None, true).await, Seen::Closed(expect), "{what}");
    }
    // A request stream from the server.
    let pair = Pair::new().await;
    let _client = pair.start_client(Limits::default());
    let (mut send, _recv) = pair.server.open_bi().await.unwrap();
    send.write_all(&get()).await.unwrap();
    assert_eq!(closed(&soon(pair.server.closed()).await), Seen::Closed("H3_STREAM_CREATION_ERROR"));
}

#[tokio::test]
async fn our_settings_offer_what_we_do() {
    let pair = Pair::new().await;
    let _server = pair.start_server(Limits::default());
    let mut control = soon(pair.client.accept_uni()).await.unwrap();
    let mut bytes = Vec::new();
    let settings = loop {
        let chunk = soon(control.read_chunk(1000, true)).await.unwrap().unwrap();
        bytes.extend_from_slice(&chunk.bytes);
        if let Ok(events) = decode(&bytes[1..], Role::Client, Place::Control, Bounds::default())
            && let [Event::Settings(settings), ..] = events[..]
        {
            break settings;
        }
    };
    assert!(settings.connect_protocol && settings.aborts);
    assert!(!bytes.contains(&0x33), "H3_DATAGRAM: nobody reads datagrams");
}

/// A peer's trailers end its message; a third field section is an error, whoever reads.
#[tokio::test]
async fn nothing_comes_after_trailers() {
    let trailers = headers_frame(&[("t", "1")]);
    for after in [trailers.clone(), frame(0, b"x")] {
        let message = [get(), frame(0, b"body"), trailers.clone(), after].concat();
        let seen = against_server(&[], Some((&message, true))).await;
        assert_eq!(seen, Seen::Closed("H3_FRAME_UNEXPECTED"));
    }
    let message = [get(), trailers, frame(0x21, b"grease")].concat();
    assert_eq!(against_server(&[], Some((&message, true))).await, Seen::Status(OK.to_owned()));
}

#[tokio::test]
async fn protocols_that_nobody_knows_are_answered_501() {
    for fields in [
        &[(":protocol", "connect-udp")][..],
        &[(":protocol", "weft-upgrade")],
        &[(":protocol", "weft-upgrade"), ("weft-upgrade", "a b")],
        &[(":protocol", "weft-upgrade"), ("weft-upgrade", "h2c")],
        &[(":protocol", "weft-upgrade"), ("weft-upgrade", "HTTP/2.0")],
        &[(":protocol", "weft-upgrade-by-method"), ("weft-upgrade", "TLS/1.0"), ("weft-method", "POST")],
        &[(":protocol", "weft-upgrade-by-method"), ("weft-upgrade", "tcp")],
        &[(":protocol", "weft-upgrade-by-method"), ("weft-upgrade", "tcp"), ("weft-method", "HEAD")],
    ] {
        let message = headers_frame(&[&[(":method", "CONNECT")], &GET[1..], fields].concat());
        let Seen::Status(answer) = against_server(&[], Some((&message, false))).await else { panic!("no answer") };
        assert!(answer.ends_with("353031"), "501: {answer}");
    }
}

#[tokio::test]
async fn a_head_has_a_deadline_and_few_are_waited_for() {
    let pair = Pair::new().await;
    let timeout = std::time::Duration::from_millis(50);
    let server = pair.start_server(Limits { head_timeout: timeout, waiting_heads: 2, ..Limits::default() });
    tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            tokio::spawn(read(incoming));
        }
    });
    let mut streams = Vec::new();
    for _ in 0..3 {
        let (mut send, recv) = pair.client.open_bi().await.unwrap();
        send.write_all(&get()[..5]).await.unwrap();
        streams.push((send, recv));
    }
    let mut codes = Vec::new();
    for (_, recv) in &mut streams {
        let Seen::Reset(code) = seen(soon(recv.read_to_end(1000)).await, &pair.client).await else {
            panic!("no reset")
        };
        codes.push(code);
    }
    codes.sort_unstable();
    assert_eq!(codes, ["H3_EXCESSIVE_LOAD", "H3_EXCESSIVE_LOAD", "H3_REQUEST_REJECTED"]);
    assert_eq!(pair.client.close_reason(), None, "the connection lives");
}

#[tokio::test]
async fn extended_connect_needs_the_peer_to_have_it() {
    let pair = Pair::new().await;
    let client = pair.start_client(Limits::default());
    let mut control = pair.server.open_uni().await.unwrap();
    control.write_all(&hex("00 0400")).await.unwrap();
    let mut head = request(http::Method::GET, "/", &[]);
    head.protocol = crate::http::UpgradeToken::new("websocket");
    assert!(soon(client.send(&head, false)).await.unwrap_err().unprocessed);
}

#[tokio::test]
async fn goaway_from_a_silent_server_frees_those_above_it() {
    let pair = Pair::new().await;
    let client = pair.start_client(Limits::default());
    let get = request(http::Method::GET, "/", &[]);
    let (_send, mut first) = client.send(&get, true).await.unwrap();
    let (_send, mut second) = client.send(&get, true).await.unwrap();
    let mut control = pair.server.open_uni().await.unwrap();
    control.write_all(&hex("00 0400 070104")).await.unwrap();
    assert!(soon(second.response_head()).await.unwrap_err().unprocessed);
    let (mut send, _request) = soon(pair.server.accept_bi()).await.unwrap();
    send.write_all(&headers_frame(&[(":status", "200")])).await.unwrap();
    assert_eq!(soon(first.response_head()).await.unwrap().status, 200);
    // It may lower the id later, and then the first is not processed either.
    assert!(!client.is_closed());
}

#[tokio::test]
async fn content_after_an_answer_that_has_none_is_malformed() {
    let pair = Pair::new().await;
    let client = pair.start_client(Limits::default());
    let (_up, mut down) = soon(client.send(&request(http::Method::HEAD, "/", &[]), true)).await.unwrap();
    let (mut send, _request) = soon(pair.server.accept_bi()).await.unwrap();
    send.write_all(&[headers_frame(&[(":status", "200")]), frame(0, b"x")].concat()).await.unwrap();
    assert_eq!(soon(down.response_head()).await.unwrap().status, 200);
    assert!(matches!(soon(down.frame()).await, Err(crate::http::StreamError::Protocol(_))));
    assert_eq!(soon(send.stopped()).await.unwrap(), Some(quinn::VarInt::from_u32(0x10e)), "H3_MESSAGE_ERROR");
}

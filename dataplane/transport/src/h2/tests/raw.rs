//! Both roles against bytes: what a peer that breaks the rules, floods, or goes away does to a connection.

use tokio::io::AsyncReadExt;

use super::*;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
/// `:method GET`, `:scheme http`, `:path /` of the static table, `:authority a`.
pub(super) const GET: &[u8] = b"\x82\x86\x84\x41\x01a";

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

pub(super) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, GET)
}

pub(super) async fn next_frame(io: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    io.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
    io.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]), payload))
}

/// The code of the GOAWAY with which our server ends a connection after these bytes; also: the accepting task ends, and
/// says that it was a breach.
async fn ended_by(bytes: Vec<u8>, limits: Limits) -> u32 {
    let (near, far) = duplex(64 * 1024);
    // On a busy machine it may take long to read what was sent.
    let limits = Limits { last_words: Duration::from_secs(60), ..limits };
    let server = tokio::task::spawn_local(async move {
        let mut server = ServerConn::new(far, Bytes::new(), &limits).await.unwrap();
        let breach = loop {
            match server.accept().await {
                Ok(Some(Exchange { head, body, answer })) => {
                    tokio::task::spawn_local(echo(head, body, answer));
                }
                Ok(None) => break false,
                Err(error) => break error.is_breach(),
            }
        };
        assert!(server.accept().await.unwrap().is_none(), "an error is the last thing that a connection gives");
        breach
    });
    let (mut read, mut write) = tokio::io::split(near);
    let writer = tokio::task::spawn_local(async move {
        let start = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
        // Fails where the server has had enough.
        let _ = write.write_all(&[start, bytes].concat()).await;
        std::future::pending::<()>().await;
    });
    let code = loop {
        let (kind, _, _, payload) = next_frame(&mut read).await.expect("the connection ended without GOAWAY");
        if kind == GOAWAY {
            break u32::from_be_bytes(payload[4..8].try_into().unwrap());
        }
    };
    assert!(server.await.unwrap(), "the client's breach");
    writer.abort();
    code
}

const NO_ERROR: u32 = 0;
const ENHANCE_YOUR_CALM: u32 = 11;

#[test]
fn a_breach_ends_the_connection_with_goaway() {
    run(async {
        let window = frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]);
        let continued = |count| {
            let mut flood = frame(HEADERS, 0, 1, GET);
            (0..count).for_each(|_| flood.extend(frame(CONTINUATION, 0, 1, b"\x00\x01x\x01y")));
            flood
        };
        let upper_case = [GET, b"\x00\x01X\x01y"].concat();
        // Which code says it is the business of the crate; that it is an error is ours.
        for (bytes, what) in [
            (frame(HEADERS, END_HEADERS | END_STREAM, 1, &upper_case), "field name in upper case"),
            (frame(HEADERS, END_HEADERS | END_STREAM, 2, GET), "even stream id"),
            (frame(SETTINGS, 0, 0, &[0; 5]), "SETTINGS of five bytes"),
            (frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]), "window above 2^31"),
            (window, "connection window above 2^31"),
            (b"GARBAGE ".repeat(4000), "garbage"),
            (frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"), "broken HPACK"),
            (continued(1000), "CONTINUATION flood"),
            (frame(DATA, 0, 0, b"x"), "DATA on stream 0"),
            (frame(DATA, 0, 7, b"x"), "DATA on an idle stream"),
            (frame(5, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]), "PUSH_PROMISE from a client"),
        ] {
            assert_ne!(ended_by(bytes, Limits::default()).await, NO_ERROR, "{what}");
        }
    });
}

#[test]
fn a_malformed_request_ends_its_stream_only() {
    run(async {
        let (mut near, far) = duplex(64 * 1024);
        let served = serve(far, Limits::default(), echo);
        let with_blank = [GET, b"\x00\x06x-role\x06 admin"].concat();
        let with_tab = [GET, b"\x00\x06x-role\x06admin\t"].concat();
        let without_path = b"\x82\x86\x41\x01a".to_vec();
        let third_headers =
            [frame(HEADERS, END_HEADERS, 9, GET), frame(HEADERS, END_HEADERS | END_STREAM, 9, b"\x00\x01t\x01y")];
        let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
        for (stream, section) in [(3, with_blank), (5, with_tab), (7, without_path)] {
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &section));
        }
        bytes.extend(third_headers.concat());
        near.write_all(&bytes).await.unwrap();
        let mut reset = Vec::new();
        let mut answered = Vec::new();
        while reset.len() < 3 || answered.is_empty() {
            match next_frame(&mut near).await.unwrap() {
                (RST_STREAM, _, stream, code) => reset.push((stream, code[3])),
                (DATA | HEADERS, flags, stream, _) if flags & END_STREAM != 0 => answered.push(stream),
                (kind, ..) => assert_ne!(kind, GOAWAY),
            }
        }
        reset.sort_unstable();
        assert_eq!(reset, [(3, 1), (5, 1), (7, 1)], "each with PROTOCOL_ERROR");
        assert_eq!(answered, [9]);
        // A third HEADERS, after the trailers, belongs to a stream that is over.
        near.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 9, b"\x00\x01t\x01y")).await.unwrap();
        loop {
            let (kind, _, _, payload) = next_frame(&mut near).await.expect("GOAWAY before the end");
            if kind == GOAWAY {
                break assert_ne!(payload[7], 0);
            }
        }
        assert_eq!(served.await.unwrap(), 1);
    });
}

/// RFC 9113 sections 8.1.1 and 8.3.1 would have these requests reset; the crate drops what is wrong of them. What is given
/// here is what is left, so that nothing else is judged or sent.
#[test]
fn what_the_crate_drops_is_in_no_head() {
    run(async {
        let path = |text: &[u8]| {
            let length = u8::try_from(text.len()).unwrap();
            [b"\x83\x86\x41\x01a\x04", &[length][..], text].concat()
        };
        let (plain, pseudo) = (&b"\0\x01x\x01y"[..], &b"\x04\x02/b\0\x01x\x01y"[..]);
        for (sent, trailers, expect) in [
            (&b"/a#b"[..], plain, "/a x"),
            (b"/a?b#c?d", plain, "/a?b x"),
            (b"#b", plain, "/ x"),
            (b"?q", plain, "/?q x"),
            (b"/a", pseudo, "/a x"),
        ] {
            let (mut near, far) = duplex(64 * 1024);
            let (tell, told) = tokio::sync::oneshot::channel();
            let tell = std::cell::Cell::new(Some(tell));
            serve(far, Limits::default(), move |head, mut body, mut answer| {
                let tell = tell.take().unwrap();
                async move {
                    let (_, trailers) = collect(&mut body).await.unwrap();
                    let names: Vec<_> = trailers.iter().flat_map(HeaderMap::keys).map(ToString::to_string).collect();
                    tell.send(format!("{} {}", head.path.unwrap(), names.join(" "))).unwrap();
                    answer.response(&response(204), true).await.unwrap();
                }
            });
            let head = frame(HEADERS, END_HEADERS, 1, &path(sent));
            let end = frame(HEADERS, END_HEADERS | END_STREAM, 1, trailers);
            near.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b""), &head, &end].concat()).await.unwrap();
            assert_eq!(told.await.unwrap(), expect, "{}", sent.escape_ascii());
        }
    });
}

#[test]
fn floods_end_the_connection() {
    run(async {
        let opened = frame(HEADERS, END_HEADERS, 1, GET);
        let flood = |frame: Vec<u8>| [opened.clone(), frame.repeat(30_000)].concat();
        for (bytes, what) in [
            (flood(frame(PING, 0, 0, b"pingping")), "PING"),
            (flood(frame(SETTINGS, 0, 0, b"")), "SETTINGS"),
            (flood(frame(DATA, 0, 1, b"")), "empty DATA"),
            (flood(frame(2, 0, 1, &[0, 0, 0, 0, 1])), "PRIORITY"),
            (flood(frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])), "WINDOW_UPDATE of one byte"),
            (flood(frame(0xbb, 0, 1, b"unknown")), "unknown frames"),
        ] {
            assert_eq!(ended_by(bytes, Limits::default()).await, ENHANCE_YOUR_CALM, "{what}");
        }
    });
}

#[test]
fn calls_that_are_cancelled_again_and_again_end_the_connection() {
    run(async {
        let calls = |count: u32| {
            let mut bytes = Vec::new();
            for stream in (0..count).map(|nth| nth * 2 + 1) {
                bytes.extend(frame(HEADERS, END_HEADERS, stream, GET));
                bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
            }
            bytes
        };
        assert_eq!(ended_by(calls(2000), Limits::default()).await, ENHANCE_YOUR_CALM, "before they are accepted");
        // Requests that we reset ourselves cost as much (CVE-2025-8671).
        let malformed =
            |nth: u32| frame(HEADERS, END_HEADERS | END_STREAM, nth * 2 + 1, &[GET, b"\x00\x01x\x02 y"].concat());
        let bytes = (0..2000).flat_map(malformed).collect();
        assert_eq!(ended_by(bytes, Limits::default()).await, ENHANCE_YOUR_CALM, "malformed ones");
    });
}

#[test]
fn a_client_that_never_reads_its_goaway_is_cut_off() {
    run(async {
        let (mut near, far) = duplex(1024);
        let limits = Limits { last_words: Duration::from_millis(50), idle_frames: 10, ..Limits::default() };
        let server = tokio::task::spawn_local(async move {
            let mut server = ServerConn::new(far, Bytes::new(), &limits).await.unwrap();
            server.accept().await.map(|_| ()).unwrap_err().is_breach()
        });
        let pings = frame(PING, 0, 0, b"pingping").repeat(1000);
        let _ = near.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b""), &pings].concat()).await;
        assert!(server.await.unwrap());
    });
}

#[test]
fn a_preface_that_never_ends_is_given_up() {
    run(async {
        let (_near, far) = duplex(1024);
        let limits = Limits { preface: Duration::from_millis(20), ..Limits::default() };
        let error = ServerConn::new(far, Bytes::from_static(&PREFACE[..20]), &limits).await.unwrap_err();
        assert!(error.is_breach());
    });
}

/// A server of bytes: what it says first, and its end of the pipe.
async fn served_by(first: &[Vec<u8>]) -> (ClientConn, DuplexStream) {
    let (near, mut far) = duplex(256 * 1024);
    let client = ClientConn::connect(near, &Limits::default()).await.unwrap();
    far.write_all(&first.concat()).await.unwrap();
    let mut preface = [0; PREFACE.len()];
    far.read_exact(&mut preface).await.unwrap();
    (client, far)
}

async fn until_request(far: &mut DuplexStream, stream: u32) {
    loop {
        if matches!(next_frame(far).await, Some((HEADERS, _, id, _)) if id == stream) {
            return;
        }
    }
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

const NO_SETTINGS: &[u8] = &[];

#[test]
fn what_provably_was_not_processed_is_told_exactly() {
    run(async {
        let (client, mut far) = served_by(&[frame(SETTINGS, 0, 0, NO_SETTINGS)]).await;
        let (_up, mut taken) = client.send(&request(Method::POST, "/taken"), false).await.unwrap();
        let (mut up, mut beyond) = client.send(&request(Method::POST, "/beyond"), false).await.unwrap();
        until_request(&mut far, 3).await;
        far.write_all(&goaway(1, 0)).await.unwrap();
        assert!(beyond.response_head().await.unwrap_err().unprocessed, "above the GOAWAY's id");
        assert!(up.data(Bytes::from_static(b"x")).await.is_err());
        assert!(client.is_closed() && !client.has_room(), "at once");
        assert!(client.send(&request(Method::GET, "/late"), true).await.unwrap_err().unprocessed, "never sent");
        // `:status 200` of the static table: what was taken goes on.
        far.write_all(&frame(HEADERS, END_HEADERS, 1, b"\x88")).await.unwrap();
        assert_eq!(taken.response_head().await.unwrap().status, 200);
        far.write_all(&frame(DATA, END_STREAM, 1, b"all")).await.unwrap();
        assert_eq!(collect(&mut taken).await.unwrap().0, b"all");
    });
}

#[test]
fn a_goaway_is_read_also_when_it_came_with_the_end() {
    run(async {
        for code in [0, 2] {
            let (client, mut far) = served_by(&[frame(SETTINGS, 0, 0, NO_SETTINGS)]).await;
            let (_, mut taken) = client.send(&request(Method::GET, "/taken"), true).await.unwrap();
            let (_, mut beyond) = client.send(&request(Method::GET, "/beyond"), true).await.unwrap();
            until_request(&mut far, 3).await;
            far.write_all(&goaway(1, code)).await.unwrap();
            drop(far);
            assert!(beyond.response_head().await.unwrap_err().unprocessed, "code {code}");
            assert!(!taken.response_head().await.unwrap_err().unprocessed, "it may have been processed");
        }
    });
}

#[test]
fn refused_streams_are_unprocessed_and_others_are_not() {
    run(async {
        let (client, mut far) = served_by(&[frame(SETTINGS, 0, 0, NO_SETTINGS)]).await;
        for (stream, code, unprocessed) in [(1, 7, true), (3, 8, false), (5, 11, false), (7, 2, false)] {
            let (_, mut receive) = client.send(&request(Method::GET, "/"), true).await.unwrap();
            until_request(&mut far, stream).await;
            far.write_all(&frame(RST_STREAM, 0, stream, &[0, 0, 0, code])).await.unwrap();
            let error = receive.response_head().await.unwrap_err();
            assert_eq!(error.unprocessed, unprocessed, "code {code}");
        }
        let (_, mut receive) = client.send(&request(Method::GET, "/"), true).await.unwrap();
        until_request(&mut far, 9).await;
        // An answer without `:status` is the server's fault, not its refusal.
        far.write_all(&frame(HEADERS, END_HEADERS, 9, b"\x00\x01x\x01y")).await.unwrap();
        let error = receive.response_head().await.unwrap_err();
        assert!(matches!(error.error, StreamError::Protocol(_)) && !error.unprocessed, "{error:?}");
        assert!(!client.is_closed());
    });
}

#[test]
fn a_servers_limit_of_streams_is_kept() {
    run(async {
        let two = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 2]);
        let (client, mut far) = served_by(&[two]).await;
        client.settled().await.unwrap();
        let first = client.send(&request(Method::GET, "/"), true).await.unwrap();
        assert!(client.has_room());
        let second = client.slot().unwrap();
        assert!(!client.has_room() && client.slot().is_none(), "also a slot that was not used yet counts");
        let refused = client.send(&request(Method::GET, "/"), true).await.unwrap_err();
        assert!(refused.unprocessed && matches!(refused.error, StreamError::Limit(_)), "{refused:?}");
        drop(second);
        assert!(client.has_room());
        drop(first);
        assert_eq!(client.open_streams(), 0);
        // The limit may fall to nothing and rise again.
        far.write_all(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 0])).await.unwrap();
        while client.has_room() {
            tokio::task::yield_now().await;
        }
        far.write_all(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1])).await.unwrap();
        while !client.has_room() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_server_may_allow_no_stream_from_the_first() {
    run(async {
        // In pieces: what is not whole is not said yet.
        let none = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 0]);
        let (client, mut far) = served_by(&[none[..11].to_vec()]).await;
        assert!(timeout(Duration::from_millis(20), client.settled()).await.is_err());
        far.write_all(&none[11..]).await.unwrap();
        client.settled().await.unwrap();
        assert!(!client.has_room() && !client.is_closed());
        far.write_all(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1])).await.unwrap();
        while !client.has_room() {
            tokio::task::yield_now().await;
        }
        // One that names no limit has none of its own.
        let (client, _far) = served_by(&[frame(SETTINGS, 0, 0, &[])]).await;
        client.settled().await.unwrap();
        assert!(client.has_room());
    });
}

/// A listener that goes down closes what it had accepted: nobody was asked. Who speaks something else was.
#[test]
fn who_closes_without_a_word_is_told_from_who_speaks_no_http2() {
    run(async {
        let ended = async |said: &[u8]| {
            let (client, mut far) = served_by(&[said.to_vec()]).await;
            far.shutdown().await.unwrap();
            let error = client.send(&request(Method::GET, "/"), true).await.unwrap_err();
            assert!(error.unprocessed);
            error.error
        };
        assert!(matches!(ended(b"").await, StreamError::ConnectionLost(_)));
        assert!(matches!(ended(b"HTTP/1.1 400 Bad Request\r\n\r\n").await, StreamError::Protocol(_)));
    });
}

#[test]
fn a_server_that_says_nothing_is_waited_for_within_bounds() {
    run(async {
        let (near, _far) = duplex(1024);
        let limits = Limits { preface: Duration::from_millis(20), ..Limits::default() };
        let client = ClientConn::connect(near, &limits).await.unwrap();
        assert!(!client.has_room());
        let error = client.send(&request(Method::GET, "/"), true).await.unwrap_err();
        assert!(error.unprocessed && matches!(error.error, StreamError::Limit(_)), "{error:?}");
    });
}

#[test]
fn blanks_around_an_apps_values_are_no_part_of_them() {
    run(async {
        let (client, mut far) = served_by(&[frame(SETTINGS, 0, 0, NO_SETTINGS)]).await;
        let (_, mut receive) = client.send(&request(Method::GET, "/"), true).await.unwrap();
        until_request(&mut far, 1).await;
        let trailer = frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x00\x01t\x03\tz ");
        far.write_all(&[frame(HEADERS, END_HEADERS, 1, b"\x88\x00\x01x\x03 y\t"), trailer].concat()).await.unwrap();
        assert_eq!(receive.response_head().await.unwrap().headers["x"], "y");
        assert_eq!(collect(&mut receive).await.unwrap().1.unwrap()["t"], "z");
    });
}

/// A server that has answered may ask for no more of the request: its answer is whole (RFC 9113 section 8.1).
#[test]
fn a_whole_answer_outlives_the_reset_behind_it() {
    run(async {
        let (client, mut far) = served_by(&[frame(SETTINGS, 0, 0, NO_SETTINGS)]).await;
        for (stream, trailers) in [(1, false), (3, true)] {
            let (mut send, mut receive) = client.send(&request(Method::POST, "/"), false).await.unwrap();
            until_request(&mut far, stream).await;
            let end =
                if trailers { frame(HEADERS, END_HEADERS | END_STREAM, stream, b"\x00\x01t\x01z") } else { vec![] };
            let data = frame(DATA, if trailers { 0 } else { END_STREAM }, stream, b"early");
            let answer =
                [frame(HEADERS, END_HEADERS, stream, b"\x88"), data, end, frame(RST_STREAM, 0, stream, &[0; 4])]
                    .concat();
            // More than the server's window: the upload is stuck when the answer comes.
            let stuck = send.data(Bytes::from(vec![b'x'; 100_000]));
            let (sent, written) = tokio::join!(stuck, far.write_all(&answer));
            written.unwrap();
            assert!(matches!(sent, Err(StreamError::Reset(0x100))), "{sent:?}");
            assert_eq!(receive.response_head().await.unwrap().status, 200);
            let (body, told) = collect(&mut receive).await.unwrap();
            assert_eq!((&body[..], told.is_some()), (&b"early"[..], trailers));
            assert!(receive.is_end());
        }
        let (_send, mut receive) = client.send(&request(Method::POST, "/"), false).await.unwrap();
        until_request(&mut far, 5).await;
        let cut =
            [frame(HEADERS, END_HEADERS, 5, b"\x88"), frame(DATA, 0, 5, b"ear"), frame(RST_STREAM, 0, 5, &[0; 4])];
        far.write_all(&cut.concat()).await.unwrap();
        assert_eq!(receive.response_head().await.unwrap().status, 200);
        let cut = collect(&mut receive).await.unwrap_err();
        assert!(matches!(cut, StreamError::Reset(0x100)), "one that is not whole never looks so: {cut:?}");
    });
}

#[test]
fn an_app_that_answers_101_has_answered_wrongly() {
    run(async {
        // SETTINGS_ENABLE_CONNECT_PROTOCOL.
        let (client, mut far) = served_by(&[frame(SETTINGS, 0, 0, &[0, 8, 0, 0, 0, 1])]).await;
        client.settled().await.unwrap();
        for (stream, protocol) in [(1, None), (3, UpgradeToken::new("websocket"))] {
            let head = RequestHead { protocol, ..request(Method::GET, "/") };
            let (_send, mut receive) = client.send(&head, head.protocol.is_none()).await.unwrap();
            until_request(&mut far, stream).await;
            far.write_all(&frame(HEADERS, END_HEADERS, stream, b"\x08\x03101")).await.unwrap();
            let error = receive.response_head().await.unwrap_err();
            assert!(matches!(error.error, StreamError::Protocol(_)) && !error.unprocessed, "{error:?}");
        }
    });
}

#[test]
fn gone_is_told_while_the_answer_is_idle() {
    run(async {
        for cancelled in [true, false] {
            let (mut near, far) = duplex(64 * 1024);
            let (told, heard) = tokio::sync::oneshot::channel();
            let told = std::cell::RefCell::new(Some(told));
            serve(far, Limits::default(), move |_, _, mut answer| {
                let told = told.borrow_mut().take().unwrap();
                async move {
                    answer.response(&response(200), false).await.unwrap();
                    answer.data(Bytes::from_static(b"event")).await.unwrap();
                    assert!(timeout(Duration::from_millis(20), answer.gone()).await.is_err(), "it is still there");
                    told.send(()).unwrap();
                    answer.gone().await;
                    std::mem::forget(answer);
                }
            });
            near.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b""), &get(1)].concat()).await.unwrap();
            heard.await.unwrap();
            if cancelled {
                near.write_all(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])).await.unwrap();
            } else {
                drop(near);
            }
        }
    });
}

#[test]
fn all_that_was_given_before_an_abort_arrives() {
    run(async {
        let (client, far) = connect(&Limits::default()).await;
        const SIZE: usize = 655_360;
        serve(far, Limits::default(), |_, _, mut answer| async move {
            answer.response(&response(200), false).await.unwrap();
            answer.data(Bytes::from(vec![b'x'; SIZE])).await.unwrap();
            answer.abort(0x102).await;
        });
        for _ in 0..3 {
            let (_, mut receive) = client.send(&request(Method::GET, "/"), true).await.unwrap();
            assert_eq!(receive.response_head().await.unwrap().status, 200);
            let mut got = 0;
            let error = loop {
                match receive.frame().await {
                    Ok(Some(Frame::Data(data))) => got += data.len(),
                    Ok(other) => panic!("a clean end: {other:?}"),
                    Err(error) => break error,
                }
            };
            assert_eq!(got, SIZE);
            assert!(matches!(error, StreamError::Reset(0x102)), "{error:?}");
        }
        assert!(!client.is_closed());
    });
}

#[test]
fn an_abort_doesnt_wait_for_ever() {
    run(async {
        let limits = Limits { abort: Duration::from_millis(50), ..Limits::default() };
        let (mut near, far) = duplex(1024);
        let aborted = std::rc::Rc::new(tokio::sync::Notify::new());
        let telling = aborted.clone();
        serve(far, limits, move |_, _, mut answer| {
            let telling = telling.clone();
            async move {
                answer.response(&response(200), false).await.unwrap();
                // Within the client's window, more than the pipe takes while nobody reads.
                answer.data(Bytes::from(vec![b'x'; 60_000])).await.unwrap();
                answer.abort(0x102).await;
                telling.notify_one();
            }
        });
        near.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b""), &get(1)].concat()).await.unwrap();
        aborted.notified().await;
    });
}

//! The server role.

use super::*;

/// Sends `input`, closes the sending side, and gives everything that comes back and how the server saw it.
async fn talk(input: &[u8]) -> (String, usize, Result<(), ServerError>) {
    let (mut near, far) = pair().await;
    let server = tokio::task::spawn_local(echo(far, Limits::default()));
    near.write_all(input).await.unwrap();
    near.shutdown().await.unwrap();
    let answer = read_all(&mut near).await;
    let (served, end) = server.await.unwrap();
    (answer, served, end)
}

fn chunked(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n0\r\n\r\n", text.len())
}

#[test]
fn pipelined_requests_are_answered_in_order_until_the_malformed_one() {
    run(async {
        let input = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
                     POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxy\r\n0\r\n\r\n\r\nBAD\r\n\r\n";
        let (answer, served, end) = talk(input.as_bytes()).await;
        let good = [chunked("GET /1 "), chunked("POST /2 abc"), chunked("POST /3 xy")].concat();
        let bad = answer.strip_prefix(&good).unwrap_or_else(|| panic!("{answer}"));
        assert!(bad.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{bad}");
        assert!(bad.contains("\r\nconnection: close\r\n") && bad.ends_with("malformed request line\n"), "{bad}");
        assert_eq!(served, 3);
        assert_eq!(end.unwrap_err().status(), Some(StatusCode::BAD_REQUEST));
    });
}

#[test]
fn a_message_split_at_every_byte_is_one_message() {
    run(async {
        let input = "\r\nPOST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 5\r\n\r\n";
        let expect = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nd\r\nPOST /a abcde\r\n0\r\nx-sum: 5\r\n\r\n";
        let (mut near, far) = pair().await;
        let server = tokio::task::spawn_local(echo(far, Limits::default()));
        for _ in 0..2 {
            for byte in input.bytes() {
                near.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            assert_eq!(read_until(&mut near, expect).await, expect);
        }
        for split in 1..input.len() {
            near.write_all(&input.as_bytes()[..split]).await.unwrap();
            tokio::task::yield_now().await;
            near.write_all(&input.as_bytes()[split..]).await.unwrap();
            assert_eq!(read_until(&mut near, expect).await, expect);
        }
        drop(near);
        assert_eq!(server.await.unwrap().0, input.len() + 1);
    });
}

#[test]
fn refusals_reach_the_client_with_their_status() {
    run(async {
        let long = "a".repeat(95_000);
        let fields = "x: y\r\n".repeat(200);
        for (input, status) in [
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/9.1\r\nHost: a\r\n\r\n".to_owned(), 505),
            ("GET /\r\n".to_owned(), 400),
            ("\r\n".repeat(20), 400),
            ("GET / HTTP/2.0\r\n\r\n".to_owned(), 505),
            (format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(300)), 501),
            ("\x16\x03\x01\x02\0\x01".to_owned(), 400),
            ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(), 501),
            (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
            (format!("GET / HTTP/1.1\r\nHost: a\r\nx: {long}\r\n\r\n"), 431),
            (format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), 431),
        ] {
            let (answer, served, end) = talk(input.as_bytes()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
            assert_eq!((served, end.unwrap_err().status().unwrap().as_u16()), (0, status));
        }
    });
}

#[test]
fn silence_and_ends_are_told_apart() {
    run(async {
        let (answer, served, end) = talk(b"").await;
        assert_eq!((answer.as_str(), served), ("", 0));
        end.unwrap();
        let (answer, _, end) = talk(b"GET / HT").await;
        assert_eq!(answer, "");
        assert!(matches!(end, Err(ServerError::Connection(StreamError::Truncated))));
    });
}

#[test]
fn slow_heads_get_408_and_idle_connections_end() {
    run(async {
        let limits = Limits::from(HttpLimits {
            head_timeout: Duration::from_millis(30),
            idle_timeout: Duration::from_millis(60),
            ..HttpLimits::default()
        });
        let (mut near, far) = pair().await;
        let server = tokio::task::spawn_local(echo(far, limits.clone()));
        near.write_all(b"\r\nGET / HTTP/1.1\r\n").await.unwrap();
        let answer = read_until(&mut near, "too slow\n").await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        drop(near);
        assert_eq!(server.await.unwrap().1.unwrap_err().status(), Some(StatusCode::REQUEST_TIMEOUT));
        let (mut near, far) = pair().await;
        let server = tokio::task::spawn_local(echo(far, limits));
        near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(read_all(&mut near).await, chunked("GET / "));
        assert_eq!(server.await.unwrap().0, 1);
    });
}

#[test]
fn http10_gets_no_chunks_and_its_own_persistence() {
    run(async {
        let (answer, ..) = talk(b"GET /a HTTP/1.0\r\n\r\n").await;
        assert_eq!(answer, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nGET /a ");
        let (mut near, far) = pair().await;
        tokio::task::spawn_local(async move {
            let mut connection = ServerConn::new(far, b"", Limits::default());
            while let Some(mut exchange) = connection.next().await.unwrap() {
                exchange.responder.interim(&response(103, &[])).await.unwrap();
                let mut sink =
                    exchange.responder.head(&response(200, &[("content-length", "2")]), false).await.unwrap();
                sink.data(Bytes::from_static(b"ok")).await.unwrap();
                sink.finish(None).await.unwrap();
            }
        });
        for _ in 0..2 {
            near.write_all(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await.unwrap();
            let expect = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok";
            assert_eq!(read_until(&mut near, "ok").await, expect);
        }
    });
}

#[test]
fn head_answers_have_no_body() {
    run(async {
        let (answer, ..) =
            talk(b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let second = chunked("GET /b ").replace("chunked\r\n", "chunked\r\nconnection: close\r\n");
        assert_eq!(answer, format!("HTTP/1.1 200 OK\r\n\r\n{second}"));
    });
}

#[test]
fn a_refused_head_request_is_answered_without_a_body() {
    run(async {
        for input in [
            "HEAD /a HTTP/1.1\r\n\r\n",
            "HEAD /a HTTP/1.1\r\nHost: a\r\nno field\r\n\r\n",
            "HEAD /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ] {
            let (answer, ..) = talk(input.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("\r\n\r\n"), "{answer}");
            let (_, fields) = answer.split_once("\r\n").unwrap();
            assert!(fields.contains("content-length: ") && fields.matches("\r\n\r\n").count() == 1, "{answer}");
        }
    });
}

#[test]
fn a_body_that_is_malformed_is_answered_and_ends_the_connection() {
    run(async {
        let extension = "a".repeat(17_000);
        for (body, refusal) in [
            ("zz\r\n".to_owned(), Refusal::Chunk),
            ("1\r\nxy".to_owned(), Refusal::Chunk),
            (format!("1;{extension}\r\nx\r\n0\r\n\r\n"), Refusal::ContentTooLarge),
            (format!("0\r\n{}\r\n", "x: y\r\n".repeat(129)), Refusal::TooManyFields),
            (format!("0\r\nx: {}\r\n\r\n", "y".repeat(70_000)), Refusal::HeadTooLarge),
            ("0\r\nno field\r\n\r\n".to_owned(), Refusal::Malformed),
        ] {
            let input = format!(
                "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
            );
            let (answer, served, end) = talk(input.as_bytes()).await;
            assert_eq!((served, end.unwrap_err().refused().map(|it| it.refusal)), (1, Some(refusal)));
            assert!(answer.starts_with(&format!("HTTP/1.1 {} ", refusal.status().as_str())), "{answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        }
    });
}

#[test]
fn a_malformed_body_behind_an_answer_gets_no_second_one() {
    run(async {
        let (mut near, far) = pair().await;
        tokio::task::spawn_local(async move {
            let mut connection = ServerConn::new(far, b"", Limits::default());
            let mut exchange = connection.next().await.unwrap().unwrap();
            let _ = exchange.responder.head(&response(202, &[]), true).await.unwrap();
            assert!(exchange.body.frame().await.is_err());
            assert!(connection.next().await.unwrap().is_none());
        });
        near.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").await.unwrap();
        assert_eq!(read_all(&mut near).await, "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
    });
}

#[test]
fn interim_responses_come_first_and_the_body_after_100() {
    run(async {
        let (mut near, far) = pair().await;
        tokio::task::spawn_local(async move {
            let mut connection = ServerConn::new(far, b"", Limits::default());
            let mut exchange = connection.next().await.unwrap().unwrap();
            assert_eq!(exchange.head.headers["expect"], "100-continue");
            for status in [103, 100, 102] {
                exchange.responder.interim(&response(status, &[("x", "y")])).await.unwrap();
            }
            let (bytes, _) = collect(&mut exchange.body).await.unwrap();
            let sink = exchange.responder.head(&response(if bytes == b"hello" { 200 } else { 500 }, &[]), true).await;
            drop(sink);
            assert!(connection.next().await.unwrap().is_none());
        });
        near.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            .await
            .unwrap();
        let interim = read_until(&mut near, "102 Processing\r\nx: y\r\n\r\n").await;
        assert!(
            interim.starts_with("HTTP/1.1 103 Early Hints\r\nx: y\r\n\r\nHTTP/1.1 100 Continue\r\nx: y\r\n\r\nHTTP")
        );
        near.write_all(b"hello").await.unwrap();
        assert_eq!(read_until(&mut near, "\r\n\r\n").await, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
}

#[test]
fn a_final_answer_instead_of_100_closes() {
    run(async {
        let (mut near, far) = pair().await;
        tokio::task::spawn_local(async move {
            let mut connection = ServerConn::new(far, b"", Limits::default());
            let exchange = connection.next().await.unwrap().unwrap();
            let _ = exchange.responder.head(&response(403, &[]), true).await.unwrap();
            assert!(connection.next().await.unwrap().is_none());
        });
        near.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(
            read_all(&mut near).await,
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
    });
}

#[test]
fn an_early_answer_survives_an_upload_that_nobody_reads() {
    run(async {
        let (near, far) = pair().await;
        let server = tokio::task::spawn_local(async move {
            let mut connection = ServerConn::new(far, b"", Limits::default());
            let exchange = connection.next().await.unwrap().unwrap();
            let _ = exchange.responder.head(&response(413, &[]), true).await.unwrap();
            assert!(connection.next().await.unwrap().is_none());
        });
        let (mut read, mut write) = near.into_split();
        let upload = tokio::task::spawn_local(async move {
            write.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n").await?;
            for _ in 0..64 {
                write.write_all(&[b'x'; 65_536]).await?;
            }
            Ok::<_, std::io::Error>(write)
        });
        let mut text = String::new();
        read.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\n\r\n");
        let _ = upload.await.unwrap();
        server.await.unwrap();
    });
}

#[test]
fn a_small_unread_body_is_read_over() {
    run(async {
        let (mut near, far) = pair().await;
        tokio::task::spawn_local(async move {
            let mut connection = ServerConn::new(far, b"", Limits::default());
            while let Some(exchange) = connection.next().await.unwrap() {
                let path = exchange.head.path.unwrap();
                let mut sink =
                    exchange.responder.head(&response(200, &[("content-length", "2")]), false).await.unwrap();
                sink.data(Bytes::copy_from_slice(path.as_bytes())).await.unwrap();
                sink.finish(None).await.unwrap();
            }
        });
        near.write_all(
            b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcdeGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .await
        .unwrap();
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n";
        assert_eq!(read_until(&mut near, "/2").await, format!("{head}/1{head}/2"));
    });
}

#[test]
fn draining_closes_after_the_answer() {
    run(async {
        let (mut near, far) = pair().await;
        tokio::task::spawn_local(async move {
            let mut connection = ServerConn::new(far, b"", Limits::default());
            assert!(connection.is_idle());
            connection.close_after_current();
            let exchange = connection.next().await.unwrap().unwrap();
            let _ = exchange.responder.head(&response(200, &[]), true).await.unwrap();
            assert!(connection.next().await.unwrap().is_none());
        });
        near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(read_all(&mut near).await, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    });
}

#[test]
fn a_word_to_leave_makes_the_next_answer_the_last() {
    run(async {
        let (mut near, far) = pair().await;
        let limits = Limits::default();
        let leaving = limits.leaving.clone();
        tokio::task::spawn_local(async move {
            let mut connection = ServerConn::new(far, b"", limits);
            let exchange = connection.next().await.unwrap().unwrap();
            let _ = exchange.responder.head(&response(200, &[]), true).await.unwrap();
            let exchange = connection.next().await.unwrap().unwrap();
            // The request is under way already.
            leaving.tell();
            let _ = exchange.responder.head(&response(200, &[]), true).await.unwrap();
            assert!(connection.next().await.unwrap().is_none());
        });
        near.write_all(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3)).await.unwrap();
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n";
        assert_eq!(read_all(&mut near).await, format!("{answer}\r\n{answer}connection: close\r\n\r\n"));
    });
}

#[test]
fn messages_that_disagree_with_their_length_are_cut_off() {
    run(async {
        const TABLE: &[(&[&[u8]], bool)] = &[(&[b"abcd", b"ef"], true), (&[b"abc"], false)];
        for (pieces, ends) in TABLE {
            let (mut near, far) = pair().await;
            tokio::task::spawn_local(async move {
                let mut connection = ServerConn::new(far, b"", Limits::default());
                let exchange = connection.next().await.unwrap().unwrap();
                let mut sink =
                    exchange.responder.head(&response(200, &[("content-length", "5")]), false).await.unwrap();
                let mut result = Ok(());
                for piece in *pieces {
                    result = sink.data(Bytes::from_static(piece)).await;
                }
                let failed = if *ends { result } else { sink.finish(None).await };
                assert!(matches!(failed, Err(StreamError::Protocol(_))));
                assert!(connection.next().await.unwrap().is_none());
            });
            near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let mut bytes = Vec::new();
            let _ = near.read_to_end(&mut bytes).await;
            assert!(!bytes.ends_with(b"abcdef"));
        }
    });
}

/// Text that the client reads when every request is answered with `head` and a body, though it may have none.
async fn bodyless(request: &str, head: ResponseHead) -> String {
    let (mut near, far) = pair().await;
    let server = tokio::task::spawn_local(async move {
        let mut connection = ServerConn::new(far, b"", Limits::default());
        while let Some(exchange) = connection.next().await.unwrap() {
            let mut sink = exchange.responder.head(&head, false).await.unwrap();
            sink.data(Bytes::from_static(b"hello")).await.unwrap();
            sink.finish(None).await.unwrap();
        }
    });
    near.write_all(format!("{request}{request}").as_bytes()).await.unwrap();
    near.shutdown().await.unwrap();
    let answer = read_all(&mut near).await;
    server.await.unwrap();
    answer
}

#[test]
fn an_answer_that_may_have_no_body_drops_the_one_it_is_given() {
    run(async {
        let length = [("content-length", "5")];
        let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
        for (request, status, expect) in [
            (head, 503, "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 5\r\n\r\n"),
            (get, 204, "HTTP/1.1 204 No Content\r\n\r\n"),
            (get, 205, "HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n"),
            (head, 205, "HTTP/1.1 205 Reset Content\r\ncontent-length: 5\r\n\r\n"),
            (get, 304, "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"),
        ] {
            assert_eq!(bodyless(request, response(status, &length)).await, expect.repeat(2));
        }
    });
}

#[test]
fn what_only_http1_says_of_an_answer_is_said_again() {
    run(async {
        let head = response(426, &[("weft-reason", "Try Harder"), ("weft-offers", "foo/2"), ("host", "me")]);
        let answer = bodyless("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", head).await;
        assert_eq!(
            answer,
            "HTTP/1.1 426 Try Harder\r\nhost: me\r\nupgrade: foo/2\r\nconnection: upgrade, close\r\n\r\n"
        );
        let empty = response(204, &[("weft-reason", "")]);
        let get = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        assert_eq!(bodyless(get, empty).await, "HTTP/1.1 204 \r\nconnection: close\r\n\r\n");
    });
}

pub(super) const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nsec-websocket-key: k\r\n\r\n";

#[test]
fn an_upgrade_holds_bytes_back_until_accepted_and_then_is_raw() {
    run(async {
        let (mut near, far) = pair().await;
        let server = tokio::task::spawn_local(async move {
            let mut connection = ServerConn::new(far, b"", Limits::default());
            {
                let mut exchange = connection.next().await.unwrap().unwrap();
                assert_eq!(
                    (exchange.head.protocol.as_deref(), exchange.head.headers.len()),
                    (Some(&b"websocket"[..]), 1)
                );
                let early = timeout(Duration::from_millis(30), exchange.body.frame()).await;
                assert!(early.is_err(), "bytes before the 101: {early:?}");
                let accept = response(101, &[("sec-websocket-accept", "a")]);
                let mut sink = exchange.responder.head(&accept, false).await.unwrap();
                let (bytes, _) = collect(&mut exchange.body).await.unwrap();
                sink.data(Bytes::from(bytes)).await.unwrap();
                sink.finish(None).await.unwrap();
            }
            assert!(connection.next().await.unwrap().is_none());
        });
        near.write_all(format!("{UPGRADE}early ").as_bytes()).await.unwrap();
        let expect = "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
        assert_eq!(read_until(&mut near, "\r\n\r\n").await, expect);
        near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        near.shutdown().await.unwrap();
        assert_eq!(read_all(&mut near).await, "early GET / HTTP/1.1\r\n\r\n");
        server.await.unwrap();
    });
}

#[test]
fn an_upgrade_answered_otherwise_leaves_the_connection_and_smuggles_nothing() {
    run(async {
        for (ahead, answers) in [("", 2), ("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", 1)] {
            let (mut near, far) = pair().await;
            let server = tokio::task::spawn_local(async move {
                let mut connection = ServerConn::new(far, b"", Limits::default());
                let mut served = 0;
                while let Some(mut exchange) = connection.next().await.unwrap() {
                    served += 1;
                    let head = response(200, &[]);
                    let (sink, body) = tokio::join!(exchange.responder.head(&head, true), exchange.body.frame());
                    assert!(matches!(body, Ok(None)));
                    let _ = sink.unwrap();
                }
                served
            });
            near.write_all(format!("{UPGRADE}{ahead}").as_bytes()).await.unwrap();
            read_until(&mut near, "\r\n\r\n").await;
            if ahead.is_empty() {
                near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            }
            near.shutdown().await.unwrap();
            read_all(&mut near).await;
            assert_eq!(server.await.unwrap(), answers);
        }
    });
}

#[test]
fn connect_holds_payload_back_until_accepted_and_then_is_raw() {
    run(async {
        let (mut near, far) = pair().await;
        let server = tokio::task::spawn_local(async move {
            let mut connection = ServerConn::new(far, b"", Limits::default());
            let mut exchange = connection.next().await.unwrap().unwrap();
            assert_eq!(exchange.head.authority.unwrap(), "db:5432");
            let early = timeout(Duration::from_millis(30), exchange.body.frame()).await;
            assert!(early.is_err(), "payload before the 200: {early:?}");
            let head = response(200, &[("content-length", "5"), ("x", "y")]);
            let (accepted, first) = tokio::join!(exchange.responder.head(&head, false), exchange.body.frame());
            assert!(matches!(first, Ok(Some(Frame::Data(data))) if data == "early"));
            let _ = accepted.unwrap();
            let (mut reader, mut writer) = connection.into_tunnel();
            let mut body = RecvBody::Tcp(&mut reader);
            let (bytes, _) = collect(&mut body).await.unwrap();
            writer.data(Bytes::from(bytes)).await.unwrap();
            writer.finish().await.unwrap();
        });
        near.write_all(b"CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\nearly").await.unwrap();
        assert_eq!(read_until(&mut near, "\r\n\r\n").await, "HTTP/1.1 200 OK\r\nx: y\r\n\r\n");
        near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        near.shutdown().await.unwrap();
        assert_eq!(read_all(&mut near).await, "GET / HTTP/1.1\r\n\r\n");
        server.await.unwrap();
    });
}

#[test]
fn a_client_that_leaves_is_noticed() {
    run(async {
        for reset in [false, true] {
            let (mut near, far) = pair().await;
            near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let mut connection = ServerConn::new(far, b"", Limits::default());
            let exchange = connection.next().await.unwrap().unwrap();
            let mut responder = exchange.responder;
            assert!(timeout(Duration::from_millis(20), responder.gone()).await.is_err());
            if reset {
                socket2::SockRef::from(&near).set_linger(Some(Duration::ZERO)).unwrap();
            }
            drop(near);
            timeout(Duration::from_millis(100), responder.gone()).await.expect("noticed in time");
        }
    });
}

#[test]
fn a_client_that_leaves_during_the_answer_is_noticed_and_one_that_half_closes_is_served() {
    run(async {
        for pipelined in [false, true] {
            let (mut near, far) = pair().await;
            near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            if pipelined {
                near.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
            }
            let mut connection = ServerConn::new(far, b"", Limits::default());
            let mut exchange = connection.next().await.unwrap().unwrap();
            near.shutdown().await.unwrap();
            assert!(timeout(Duration::from_millis(200), exchange.responder.gone()).await.is_err(), "half-closed only");
            let mut sink = exchange.responder.head(&response(200, &[]), false).await.unwrap();
            sink.data(Bytes::from_static(b"event")).await.unwrap();
            sink.flush().await.unwrap();
            read_until(&mut near, "event\r\n").await;
            assert!(timeout(Duration::from_millis(200), sink.gone()).await.is_err(), "half-closed only");
            let mut gone = Box::pin(sink.gone());
            assert!(timeout(Duration::from_millis(10), &mut gone).await.is_err());
            drop(near);
            timeout(Duration::from_millis(800), gone).await.expect("noticed after the half-close");
        }
        let (mut near, far) = pair().await;
        near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut connection = ServerConn::new(far, b"", Limits::default());
        let exchange = connection.next().await.unwrap().unwrap();
        let mut sink = exchange.responder.head(&response(200, &[]), false).await.unwrap();
        sink.flush().await.unwrap();
        let mut gone = Box::pin(sink.gone());
        assert!(timeout(Duration::from_millis(20), &mut gone).await.is_err());
        read_until(&mut near, "\r\n\r\n").await;
        drop(near);
        timeout(Duration::from_millis(100), gone).await.expect("noticed in time");
    });
}

/// A client reads all that was given before the break, and no clean end, with any framing.
#[test]
fn an_aborted_answer_arrives_up_to_the_break() {
    run(async {
        for version in ["1.0", "1.1"] {
            let (mut near, far) = pair().await;
            let server = tokio::task::spawn_local(async move {
                let mut connection = ServerConn::new(far, b"", Limits::default());
                let exchange = connection.next().await.unwrap().unwrap();
                let mut sink = exchange.responder.head(&response(200, &[]), false).await.unwrap();
                for _ in 0..64 {
                    sink.data(Bytes::from_static(&[b'x'; 10_240])).await.unwrap();
                }
                sink.abort(0).await;
                assert!(connection.next().await.unwrap().is_none());
            });
            near.write_all(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\nunread").as_bytes()).await.unwrap();
            let mut bytes = Vec::new();
            let end = near.read_to_end(&mut bytes).await;
            assert_eq!(bytes.iter().filter(|byte| **byte == b'x').count(), 655_360);
            match version {
                "1.0" => assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset),
                _ => assert!(end.is_ok() && !bytes.ends_with(b"0\r\n\r\n")),
            }
            drop(near);
            server.await.unwrap();
        }
    });
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    run(async {
        let (answer, served, end) = talk(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok").await;
        assert_eq!((answer, served), (chunked("POST /a ok"), 1));
        end.unwrap();
    });
}

#[test]
fn a_stalled_reader_stops_the_writer() {
    run(async {
        let (near, far) = pair().await;
        socket2::SockRef::from(&far).set_send_buffer_size(16 * 1024).unwrap();
        let (mut read, mut write) = near.into_split();
        write.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut connection = ServerConn::new(far, b"", Limits::default());
        let exchange = connection.next().await.unwrap().unwrap();
        let mut sink = exchange.responder.head(&response(200, &[]), false).await.unwrap();
        let piece = Bytes::from(vec![b'x'; 10_000]);
        let mut taken = 0usize;
        while timeout(Duration::from_millis(200), sink.data(piece.clone())).await.is_ok() {
            taken += piece.len();
            assert!(taken < 64 << 20, "the writer never waits");
        }
        // The piece whose future was dropped stays queued: nothing is lost or sent twice.
        taken += piece.len();
        let reading = tokio::task::spawn_local(async move {
            let mut bytes = Vec::new();
            read.read_to_end(&mut bytes).await.unwrap();
            bytes.iter().filter(|byte| **byte == b'x').count()
        });
        sink.finish(None).await.unwrap();
        connection.close_after_current();
        drop(connection);
        assert_eq!(reading.await.unwrap(), taken);
    });
}

#[test]
fn hyper_as_client() {
    use http_body_util::{BodyExt, Full};
    run(async {
        let (near, far) = pair().await;
        let server = tokio::task::spawn_local(echo(far, Limits::default()));
        let io = hyper_util::rt::TokioIo::new(near);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::task::spawn_local(connection);
        for number in 0..50usize {
            let body = "x".repeat(number * 997);
            let request = http::Request::post(format!("/{number}"))
                .header("host", "a")
                .body(Full::new(Bytes::from(body.clone())));
            let answer = sender.send_request(request.unwrap()).await.unwrap();
            assert_eq!(answer.status(), 200);
            let text = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(text, format!("POST /{number} {body}"));
        }
        drop(sender);
        assert_eq!(server.await.unwrap().0, 50);
    });
}

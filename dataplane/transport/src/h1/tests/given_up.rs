//! Answers and requests that somebody gives up: none of them looks complete, and nothing behind them is a request.

use super::server::UPGRADE;
use super::*;

/// A handler may be stopped at any time, by a deadline say: even then no client takes a part for the whole.
#[test]
fn an_answer_that_is_given_up_never_looks_complete() {
    run(async {
        for request in ["GET / HTTP/1.0\r\n\r\n", UPGRADE] {
            let (mut near, far) = pair().await;
            let server = tokio::task::spawn_local(async move {
                let mut connection = ServerConn::new(far, b"", Limits::default());
                let exchange = connection.next().await.unwrap().unwrap();
                let status = if exchange.head.protocol.is_some() { 101 } else { 200 };
                let mut sink = exchange.responder.head(&response(status, &[]), false).await.unwrap();
                sink.data(Bytes::from_static(b"part")).await.unwrap();
                sink.flush().await.unwrap();
                assert!(connection.next().await.unwrap().is_none());
            });
            near.write_all(request.as_bytes()).await.unwrap();
            let mut bytes = Vec::new();
            let end = near.read_to_end(&mut bytes).await;
            assert!(bytes.ends_with(b"part"));
            assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "{request}");
            server.await.unwrap();
        }
    });
}

/// Bytes that a client sends ahead of the answer to its CONNECT are no request, whenever they arrive.
#[test]
fn a_refused_connect_is_the_last_request_of_its_connection() {
    run(async {
        let (mut near, far) = pair().await;
        let server = tokio::task::spawn_local(async move {
            let mut connection = ServerConn::new(far, b"", Limits::default());
            let exchange = connection.next().await.unwrap().unwrap();
            let _ended = exchange.responder.head(&response(502, &[]), true).await.unwrap();
            connection.next().await.unwrap().is_none()
        });
        near.write_all(b"CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n").await.unwrap();
        let answer = read_until(&mut near, "\r\n\r\n").await;
        assert!(answer.contains("connection: close"), "{answer}");
        near.write_all(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        near.shutdown().await.unwrap();
        assert!(server.await.unwrap());
    });
}

#[test]
fn the_answer_to_an_upload_that_was_given_up_says_that_it_is_the_last() {
    run(async {
        let (mut near, far) = pair().await;
        let server = tokio::task::spawn_local(async move {
            let mut connection = ServerConn::new(far, b"", Limits::default());
            let mut exchange = connection.next().await.unwrap().unwrap();
            exchange.body.stop(0);
            let _ended = exchange.responder.head(&response(413, &[]), true).await.unwrap();
            connection.next().await.unwrap().is_none()
        });
        near.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n").await.unwrap();
        let answer = read_until(&mut near, "\r\n\r\n").await;
        assert!(answer.contains("connection: close"), "{answer}");
        drop(near);
        assert!(server.await.unwrap());
    });
}

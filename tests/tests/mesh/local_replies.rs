//! Answers that the mesh makes itself obey HTTP, whoever asks and how.

use http::{Method, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weft_policy::bundle::{Direction, Protocol};
use weft_tests::Client;
use weft_tests::client::{empty, raw, tunnel};

use super::in_process::{Filter, Of, Pair, attach};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_answers_fit_the_request() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let proxy = pair.proxy();
    // Nobody serves this name of the mesh.
    let nowhere = "nobody.default.svc.cluster.local";

    let mut h1 = Client::through(proxy, nowhere).await;
    let get = h1.get("/").await;
    assert!(get.status.is_server_error() && !get.body.is_empty(), "{} {}", get.status, get.text());

    // HEAD has a head only, as GET would have it, and the connection goes on.
    let head = h1.call(Method::HEAD, "/", &[], empty()).await.expect("HEAD is answered");
    assert_eq!((head.status, head.body.len()), (get.status, 0));
    assert_eq!(head.header("content-length"), get.body.len().to_string());
    assert_eq!(h1.get("/").await.status, get.status, "the connection is still in step");

    // HTTP/1.0 gets no chunks, and the end of the connection.
    let answer = raw(proxy, format!("GET http://{nowhere}/ HTTP/1.0\r\n\r\n").as_bytes()).await;
    assert!(answer.contains("\r\n\r\n") && !answer.to_ascii_lowercase().contains("chunked"), "{answer}");

    // A service whose app isn't there.
    let mut h2 = Client::h2_in_tunnel(proxy, "origin:8080").await;
    let head = h2.call(Method::HEAD, "/", &[], empty()).await.expect("HEAD is answered");
    assert_eq!((head.version, head.body.len()), (Version::HTTP_2, 0));
    assert!(head.status.is_server_error());

    // gRPC gets a status that its client understands.
    let answer =
        h2.call(Method::POST, "/a.B/C", &[("content-type", "application/grpc")], empty()).await.expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/grpc"));
    assert_ne!(answer.header("grpc-status"), "");
}

/// A connection that has a destination gets no other, whatever its client says in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_inside_of_a_tunnel_is_refused() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let _app = weft_tests::App::start("one", pair.origin, 8080).await;
    let mut inside = tunnel(pair.proxy(), "origin:8080").await;
    inside.write_all(b"CONNECT origin:8080 HTTP/1.1\r\nhost: origin:8080\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    inside.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("already has a destination"), "{answer}");
}

/// A filter says a status that has no content, with content: on either side its answer ends with its head.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_filters_that_may_have_no_body_have_none() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let _app = weft_tests::App::start("one", pair.origin, 8080).await;
    let filter = |direction, config| Filter { component: "fault", direction, config, authorization: false };
    let configs = [
        (204, r#"{"abort": {"status": 204, "headers": [{"name": "x-abort"}]}}"#),
        (205, r#"{"abort": {"status": 205, "headers": [{"name": "x-abort"}]}}"#),
        (304, r#"{"abort": {"status": 304, "headers": [{"name": "x-abort"}]}}"#),
    ];
    for (of, direction) in [(Of::Origin, Direction::Inbound), (Of::Caller, Direction::Outbound)] {
        for (status, config) in configs {
            attach(&pair, of, filter(direction, config));
            let tunnelled = Client::h1_in_tunnel(pair.proxy(), "origin:8080").await;
            let multiplexed = Client::h2_in_tunnel(pair.proxy(), "origin:8080").await;
            for mut client in [tunnelled, multiplexed] {
                let answer = client.call(Method::GET, "/who", &[("x-abort", "1")], empty()).await.expect("an answer");
                assert_eq!((answer.status.as_u16(), answer.body.len()), (status, 0), "{of:?}");
                assert_eq!(client.get("/who").await.text(), "one", "{of:?} {status}: the connection is still in step");
            }
        }
    }
}

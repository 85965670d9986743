//! Answers that the mesh makes itself obey HTTP, whoever asks and how.

use http::{Method, Version};
use weft_policy::bundle::Protocol;
use weft_tests::Client;
use weft_tests::client::{empty, raw};

use super::in_process::Pair;

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

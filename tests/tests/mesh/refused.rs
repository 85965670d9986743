//! Requests that a codec refuses: nobody else sees them, and the access log says who sent them, why they were refused and with
//! which status, on both sides.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weft_policy::bundle::Protocol;
use weft_tests::{App, Client, eventually};

use super::in_process::{Of, Pair};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn logs(folder: &Path, of: Of) -> std::path::PathBuf {
    folder.join(format!("{of:?}.log"))
}

/// Sends `bytes`, and gives the address that they came from once the proxy has ended the connection or answered.
async fn send(proxy: SocketAddr, bytes: &[u8]) -> SocketAddr {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    if bytes.starts_with(PREFACE) {
        // The connection stays: a reset of the stream is all that comes.
        while !answer.windows(4).any(|frame| frame == [4, 3, 0, 0]) {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
    } else {
        stream.read_to_end(&mut answer).await.unwrap();
    }
    stream.local_addr().unwrap()
}

/// The line of the request that came from `client`.
async fn line(log: &Path, client: &str) -> Value {
    eventually("a line of the access log", || async {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.into_iter().find(|line| line["downstream_remote_address"].as_str().is_some_and(|at| at.contains(client)))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_codec_refuses_of_an_app_is_logged_with_its_cause() {
    let folder = tempfile::tempdir().unwrap();
    let settings = |of| {
        json!({
            "limits": {"http_head_timeout_ms": 100, "http_head_bytes": 4_000, "http_target_bytes": 1_000},
            "access_log_file": logs(folder.path(), of),
        })
    };
    let pair = Pair::start_logged(&[(8080, Protocol::Http)], settings);
    let get = |rest: &str| format!("GET http://origin:8080/ HTTP/1.1\r\nhost: origin\r\n{rest}\r\n").into_bytes();
    let long = format!("GET http://origin:8080/{} HTTP/1.1\r\nhost: origin\r\n\r\n", "x".repeat(2_000)).into_bytes();
    let many: String = (0..129).map(|nth| format!("x-{nth}: y\r\n")).collect();
    let h2_head = [PREFACE, b"\0\0\x01\x01\x05\0\0\0\x01\x82"].concat();
    let table = [
        (b"not HTTP at all\r\n\r\n".to_vec(), "malformed", 400, "HTTP/1.1"),
        (get("host: other\r\n"), "host", 400, "HTTP/1.1"),
        (get("content-length: 1\r\ntransfer-encoding: chunked\r\n"), "framing", 400, "HTTP/1.1"),
        (get("transfer-encoding: gzip\r\n"), "unknown_coding", 501, "HTTP/1.1"),
        (long, "target_too_long", 414, "HTTP/1.1"),
        (get(&many), "too_many_fields", 431, "HTTP/1.1"),
        (get(&format!("x: {}\r\n", "y".repeat(5_000))), "head_too_large", 431, "HTTP/1.1"),
        (b"GET http://origin:8080/ HTTP/1.1\r\nhost:".to_vec(), "head_timeout", 408, "HTTP/1.1"),
        (h2_head, "stream", 0, "HTTP/2"),
    ];
    for (bytes, cause, status, protocol) in table {
        let client = send(pair.proxy(), &bytes).await;
        let line = line(&logs(folder.path(), Of::Caller), &client.to_string()).await;
        let told = (&line["reason"], &line["response_code"], &line["protocol"], &line["response_flags"], &line["side"]);
        let expect = (&json!(cause), &json!(status), &json!(protocol), &json!("DPE"), &json!("outbound"));
        assert_eq!(told, expect, "{line}");
        assert!(line["message"].as_str().is_some_and(|message| !message.is_empty()), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_codec_refuses_of_a_peer_is_logged_with_its_identity() {
    let folder = tempfile::tempdir().unwrap();
    let settings = |of| match of {
        Of::Caller => json!({"access_log_file": logs(folder.path(), of)}),
        Of::Origin => json!({"limits": {"http_target_bytes": 100}, "access_log_file": logs(folder.path(), of)}),
    };
    let pair = Pair::start_logged(&[(8080, Protocol::Http)], settings);
    let _app = App::start("one", pair.origin, 8080).await;
    let answer = Client::through(pair.proxy(), "origin:8080").await.get(&format!("/{}", "x".repeat(200))).await;
    assert_eq!(answer.status, 414);
    let line = line(&logs(folder.path(), Of::Origin), "").await;
    assert_eq!(
        (&line["reason"], &line["response_code"], &line["side"]),
        (&json!("target_too_long"), &json!(414), &json!("inbound"))
    );
    assert_eq!(line["source_principal"], "spiffe://cluster.local/ns/default/sa/caller");
    assert_eq!(line["protocol"], "HTTP/3");
}

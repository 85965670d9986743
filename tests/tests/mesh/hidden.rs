//! Parts of a malformed request of HTTP/2 that the crate which reads it drops without a word: what a fragment in `:path`
//! says, and pseudo-header fields in trailers. What is left is what is judged, and what is sent: nobody is told what was dropped.

use std::net::IpAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use weft_policy::bundle::{AppVersion, Bundle, Direction, Protocol};
use weft_tests::client::tunnel;

use super::in_process::{Filter, Of, Pair, attach};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame of stream 1.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, 1][..], payload].concat()
}

/// `POST` for a `:path` as it is, with a body and with trailers: the crate makes no such request, so it is made of bytes.
fn post(path: &str, trailers: &[u8]) -> Vec<u8> {
    // `:method POST`, `:scheme http`, and by their indexes `:path` and `:authority` (RFC 7541, appendix A).
    let length = u8::try_from(path.len()).unwrap();
    let head = [&b"\x83\x86\x04"[..], &[length], path.as_bytes(), b"\x41\x0borigin:8080"].concat();
    [PREFACE, &frame(1, END_HEADERS, &head), &frame(0, 0, b"abc"), &frame(1, END_HEADERS | END_STREAM, trailers)]
        .concat()
}

/// An app of HTTP/1.1 that tells each request whole.
async fn telling(ip: IpAddr) -> mpsc::UnboundedReceiver<String> {
    let (listener, (tell, told)) = (TcpListener::bind((ip, 8080)).await.unwrap(), mpsc::unbounded_channel());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !(request.windows(5).any(|it| it == b"\r\n0\r\n") && request.ends_with(b"\r\n\r\n")) {
                    request.push(stream.read_u8().await.unwrap());
                }
                tell.send(String::from_utf8(request).unwrap()).unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            });
        }
    });
    told
}

/// Waits until the stream has ended.
async fn ended(stream: &mut TcpStream) {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        let (kind, flags, id) = (head[3], head[4], head[8]);
        if id == 1 && (kind == 3 || kind <= 1 && flags & END_STREAM != 0) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_http2_hides_is_neither_judged_nor_sent() {
    let pair = Pair::start_with(&[(8080, Protocol::Http)], |of, bundle: &mut Bundle| {
        if of == Of::Origin {
            let ports = bundle.workloads.values_mut().flat_map(|workload| &mut workload.ports);
            ports.for_each(|port| port.app_version = AppVersion::Http1);
        }
    });
    let mut told = telling(pair.origin).await;
    let config = r#"{"policies": [{"name": "default/a", "action": "Deny", "rules": [{"name": "r", "to": [{"paths": ["/admin"]}]}]}]}"#;
    attach(
        &pair,
        Of::Origin,
        Filter { component: "authz", direction: Direction::Inbound, config, authorization: true },
    );
    let plain: &[u8] = b"\0\x05x-sum\x0242";
    for (path, trailers, line) in [
        ("/open?q#/admin", plain, Some("POST /open?q HTTP/1.1")),
        ("/admin#/open", plain, None),
        // `:path /admin` before what belongs there.
        ("/open", b"\x04\x06/admin\0\x05x-sum\x0242", Some("POST /open HTTP/1.1")),
    ] {
        let mut stream = tunnel(pair.proxy(), "origin:8080").await;
        stream.write_all(&post(path, trailers)).await.unwrap();
        ended(&mut stream).await;
        let seen = told.try_recv().ok();
        assert_eq!(seen.as_deref().and_then(|seen| seen.lines().next()), line, "{path}");
        if let Some(seen) = seen {
            assert!(!seen.contains("admin") && seen.contains("\r\nx-sum: 42\r\n"), "{seen}");
        }
    }
}

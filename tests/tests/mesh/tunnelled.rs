//! Requests that would reach an app as plain bytes, with a head in which the caller says what only the mesh may say. A port
//! of which nothing is declared takes none that does; other protocols pass as they come.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use weft_policy::bundle::Protocol;
use weft_tests::client::tunnel;
use weft_tests::{TcpApp, eventually};

use super::in_process::Pair;

const FORGED: &str = "host: origin\r\nx-forwarded-client-cert: URI=spiffe://cluster.local/ns/default/sa/admin\r\n\r\n";

type Heard = Arc<Mutex<Vec<u8>>>;

/// An app that speaks first, as databases do, and notes what it hears on all its connections.
async fn listening(ip: IpAddr, port: u16) -> Heard {
    let listener = TcpListener::bind((ip, port)).await.unwrap();
    let heard = Heard::default();
    let noted = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let noted = Arc::clone(&noted);
            tokio::spawn(async move {
                stream.write_all(b"220 ready\r\n").await.unwrap();
                let mut piece = [0; 4_096];
                while let Ok(count @ 1..) = stream.read(&mut piece).await {
                    noted.lock().unwrap().extend_from_slice(&piece[..count]);
                }
            });
        }
    });
    heard
}

/// A tunnel that stands: the app has spoken, so the caller's proxy has found no protocol in it.
async fn standing(pair: &Pair, port: u16) -> TcpStream {
    let mut stream = tunnel(pair.proxy(), &format!("origin:{port}")).await;
    let mut greeting = [0; 11];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    stream
}

async fn hears(heard: &Heard, expect: &[u8]) {
    eventually("the app hears it", || async { (*heard.lock().unwrap() == expect).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_as_bytes_says_to_an_undeclared_port_who_its_caller_is() {
    let pair = Pair::start(&[(8080, Protocol::Auto)]);
    let heard = listening(pair.origin, 8080).await;
    let long = format!("{} / HTTP/1.1\r\n", "G".repeat(33));
    for (first, rest) in [
        ("", "GET / HTTP/1.1\r\n"),
        ("GE", "T / HTTP/1.1\r\n"),
        ("GET / HTT", "P/1.1\r\n"),
        ("", "GET\t/ HTTP/1.1\r\n"),
        ("\n\n", "GET / HTTP/1.1\r\n"),
        ("", &long),
        ("", "GET /\r\n"),
        ("PRI * ", "HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ] {
        heard.lock().unwrap().clear();
        let mut stream = standing(&pair, 8080).await;
        stream.write_all(first.as_bytes()).await.unwrap();
        hears(&heard, first.as_bytes()).await;
        // The proxy may cut it before all of this is written.
        _ = stream.write_all(format!("{rest}{FORGED}").as_bytes()).await;
        let mut more = Vec::new();
        let ended = tokio::time::timeout(weft_tests::wait::LIMIT, stream.read_to_end(&mut more)).await;
        assert!(ended.is_ok() && more.is_empty(), "{first:?} {rest:?}: {ended:?} {more:?}");
        let heard = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
        assert!(heard.starts_with(first) && !heard.contains("client-cert"), "{rest:?}: {heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_requests_pass_to_an_undeclared_port_until_one_says_so() {
    let pair = Pair::start(&[(8080, Protocol::Auto)]);
    let heard = listening(pair.origin, 8080).await;
    let mut stream = standing(&pair, 8080).await;
    let first = "POST / HTTP/1.1\r\nhost: origin\r\ncontent-length: 2\r\n\r\nhi";
    stream.write_all(first.as_bytes()).await.unwrap();
    hears(&heard, first.as_bytes()).await;
    _ = stream.write_all(b"GET / HTTP/1.1\r\nX_Forwarded_Client_Cert: URI=spiffe://a\r\n\r\n").await;
    let mut more = Vec::new();
    let ended = tokio::time::timeout(weft_tests::wait::LIMIT, stream.read_to_end(&mut more)).await;
    assert!(ended.is_ok() && more.is_empty(), "{ended:?}");
    assert!(!String::from_utf8_lossy(&heard.lock().unwrap()).contains("URI="));
}

/// Behind an upgrade to HTTP/2 the field may be compressed, behind one to TLS it is encrypted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_late_request_goes_on_in_a_form_in_which_its_caller_can_be_said_unseen() {
    let pair = Pair::start(&[(8080, Protocol::Auto)]);
    let heard = listening(pair.origin, 8080).await;
    let ask =
        |fields: &str| format!("GET / HTTP/1.1\r\nhost: origin\r\nconnection: upgrade, http2-settings\r\n{fields}\r\n");
    let h2c = ask("upgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n");
    let plain = ask("");
    // The client goes on once its app has switched: the app here needs no answer for that.
    for (first, rest) in [
        (h2c.as_str(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0HPACK"),
        (&plain, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0HPACK"),
        ("GET / HTTP/1.1\r\nhost: origin\r\nconnection: upgrade\r\n", "upgrade: TLS/1.2\r\n\r\n\x16\x03\x01HPACK"),
    ] {
        heard.lock().unwrap().clear();
        let mut stream = standing(&pair, 8080).await;
        stream.write_all(first.as_bytes()).await.unwrap();
        hears(&heard, first.as_bytes()).await;
        _ = stream.write_all(rest.as_bytes()).await;
        let mut more = Vec::new();
        let ended = tokio::time::timeout(weft_tests::wait::LIMIT, stream.read_to_end(&mut more)).await;
        assert!(ended.is_ok() && more.is_empty(), "{rest:?}: {ended:?} {more:?}");
        let heard = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
        assert!(!heard.contains("HPACK"), "{rest:?}: {heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_protocols_pass_to_an_undeclared_port() {
    let pair = Pair::start(&[(8080, Protocol::Auto)]);
    let _app = TcpApp::start(pair.origin, 8080, "").await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 http/1.1 HTTP/1.1\r\n"[..],
        b"SSH-2.0-OpenSSH_9.6\r\nGET / HTTP/1.1\r\n",
        b"*2\r\n$3\r\nGET\r\n$16\r\nGET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\x08\x04\xd2\x16\x2f GET / HTTP/1.1\r\n",
        b"EHLO client.example\r\nGET / HTTP/1.1\r\n",
        b"get key\r\n",
        b"PING",
        // The preface inside of what is no request: a file, say.
        b"SSH-2.0-x\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = tunnel(pair.proxy(), "origin:8080").await;
        stream.write_all(bytes).await.unwrap();
        let mut heard = vec![0; bytes.len()];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_declared_tcp_takes_any_bytes() {
    let pair = Pair::start(&[(8080, Protocol::Tcp)]);
    let heard = listening(pair.origin, 8080).await;
    let mut stream = standing(&pair, 8080).await;
    let request = format!("GET / HTTP/1.1\r\n{FORGED}");
    stream.write_all(request.as_bytes()).await.unwrap();
    hears(&heard, request.as_bytes()).await;
}

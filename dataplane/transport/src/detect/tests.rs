//! Every prefix of every protocol, and bytes that only look like one.

use super::*;

fn client_hello(name: &'static str) -> Vec<u8> {
    let roots = rustls::RootCertStore::empty();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = rustls_pki_types::ServerName::try_from(name).unwrap();
    let mut connection = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

#[track_caller]
fn becomes(bytes: &[u8], verdict: &Detected) {
    for end in 0..bytes.len() {
        assert_eq!(detect(&bytes[..end]), Detected::NeedMore, "{:?}", String::from_utf8_lossy(&bytes[..end]));
    }
    assert_eq!(&detect(bytes), verdict, "{:?}", String::from_utf8_lossy(bytes));
    assert_eq!(&detect(&[bytes, b"anything"].concat()), verdict);
}

#[test]
fn every_prefix_needs_more_until_it_is_clear() {
    for line in [
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.0\n",
        "CONNECT db:5432 HTTP/1.1\r\n",
        "POST http://a/b?c HTTP/1.1\r\n",
        "M-SEARCH * HTTP/1.1\r\n",
        "PRI / HTTP/1.1\r\n",
        "P HTTP/1.1 HTTP/1.1\r\n",
        "GET  /a b HTTP/3.9x\r\n",
        "\r\nGET / HTTP/1.1\r\n",
        "\r\n\r\nP / HTTP/1.1\r\n",
    ] {
        becomes(line.as_bytes(), &Detected::Http1);
    }
    becomes(HTTP2_PREFACE, &Detected::Http2);
    becomes(&client_hello("Shop.Example.com"), &Detected::Tls { sni: Some("shop.example.com".into()) });
    becomes(&client_hello("127.0.0.1"), &Detected::Tls { sni: None });
}

#[test]
fn a_client_hello_in_many_records_is_one() {
    let hello = client_hello("shop");
    let mut bytes = Vec::new();
    for piece in hello[5..].chunks(7) {
        bytes.extend_from_slice(&[22, 3, 1, 0, u8::try_from(piece.len()).unwrap()]);
        bytes.extend_from_slice(piece);
    }
    becomes(&bytes, &Detected::Tls { sni: Some("shop".into()) });
}

#[test]
fn everything_else_is_opaque() {
    for bytes in [
        &b"\0\0\0\x08\x04\xd2\x16\x2f"[..],
        b"*1\r\n$4\r\nPING\r\n",
        b"PING\r\n",
        b"GET key\r\n",
        b"get key extra\r\n",
        b"GET / FTP/1.1\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"EHLO mail.example\r\n",
        b"\r\nGET key\r\n",
        b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n",
        b" GET / HTTP/1.1\r\n",
        b"GET\t/ HTTP/1.1\r\n",
        b"GET /\0 HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSX",
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZ",
        b"\xff\xfe",
        b"{\"json\": 1}",
        b"\x16\x02\x01\x00\x05\x01",
        b"\x16\x03\x05",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff\x01",
        b"\x16\x03\x01\x00\x05\x02",
        b"\x16GET / HTTP/1.0\r\n",
    ] {
        // The HTTP/2 preface that goes wrong is still a request line that names HTTP.
        let verdict = if bytes.starts_with(b"PRI") { Detected::Http1 } else { Detected::Opaque };
        assert_eq!(detect(bytes), verdict, "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn lengths_that_lie_do_no_harm() {
    let hello = client_hello("shop");
    for position in 0..hello.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = hello.clone();
            bytes[position] = value;
            let _ = detect(&bytes);
        }
    }
    let huge = [22, 3, 1, 0, 8, 1, 0xff, 0xff, 0xff, 3, 3, 0, 0];
    assert_eq!(detect(&huge), Detected::Tls { sni: None });
}

#[test]
fn endless_lines_are_opaque() {
    let line = [b"GET /".to_vec(), vec![b'a'; MAX_BYTES]].concat();
    assert_eq!(detect(&line), Detected::Opaque);
}

fn run<F: std::future::Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

#[test]
fn reading_keeps_every_byte() {
    use tokio::io::AsyncWriteExt;
    run(async {
        let (mut near, mut far) = pair().await;
        near.write_all(b"T / HTTP/1.1\r\nHost: a\r\n\r\nbody").await.unwrap();
        far.readable().await.unwrap();
        let found = detect_stream(&mut far, Bytes::from_static(b"GE"), Duration::from_secs(5)).await.unwrap();
        assert_eq!(found, (Detected::Http1, Bytes::from_static(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody")));
    });
}

#[test]
fn a_silent_client_is_opaque_after_the_timeout() {
    use tokio::io::AsyncWriteExt;
    run(async {
        let (mut near, mut far) = pair().await;
        let found = detect_stream(&mut far, Bytes::new(), Duration::from_millis(20)).await.unwrap();
        assert_eq!(found, (Detected::Opaque, Bytes::new()));
        near.write_all(b"GET").await.unwrap();
        far.readable().await.unwrap();
        let found = detect_stream(&mut far, Bytes::new(), Duration::from_millis(20)).await.unwrap();
        assert_eq!(found, (Detected::Opaque, Bytes::from_static(b"GET")));
        near.shutdown().await.unwrap();
        let found = detect_stream(&mut far, Bytes::new(), Duration::from_secs(5)).await.unwrap();
        assert_eq!(found, (Detected::Opaque, Bytes::new()));
    });
}

#[test]
fn declared_http_is_never_opaque() {
    for end in 0..HTTP2_PREFACE.len() {
        assert_eq!(detect_http(&HTTP2_PREFACE[..end]), None, "{end}");
    }
    assert_eq!(detect_http(HTTP2_PREFACE), Some(HttpVersion::Http2));
    assert_eq!(detect_http(&[HTTP2_PREFACE, b"\0"].concat()), Some(HttpVersion::Http2));
    let long = [&[b'A'; 300][..], b" / HTTP/1.1\r\n"].concat();
    for bytes in [&b"G"[..], b"PO", b"\r\nGET", b"\x16\x03\x01", b"\0", b"SSH-2.0-x\r\n", b"PRI * HTTP/1.1", &long] {
        assert_eq!(detect_http(bytes), Some(HttpVersion::Http1), "{bytes:?}");
    }
}

#[test]
fn declared_http_waits_for_late_and_halting_clients() {
    use tokio::io::AsyncWriteExt;
    run(async {
        let limits = HttpLimits {
            head_timeout: Duration::from_millis(30),
            idle_timeout: Duration::from_secs(20),
            ..HttpLimits::default()
        };
        let (mut near, mut far) = pair().await;
        let mut detecting = Box::pin(detect_http_stream(&mut far, Bytes::new(), &limits));
        assert!(timeout(Duration::from_millis(100), &mut detecting).await.is_err(), "waits for a late client");
        near.write_all(b"PR").await.unwrap();
        let found = detecting.await.unwrap();
        assert_eq!(found, Some((HttpVersion::Http1, Bytes::from_static(b"PR"))), "and answers one that halts");
        drop(near);
        assert_eq!(detect_http_stream(&mut far, Bytes::new(), &limits).await.unwrap(), None);
        let silent = HttpLimits { idle_timeout: Duration::from_millis(20), ..limits };
        let (_near, mut far) = pair().await;
        assert_eq!(detect_http_stream(&mut far, Bytes::new(), &silent).await.unwrap(), None);
    });
}

#[tokio::test(start_paused = true)]
async fn a_slow_request_line_is_waited_for_and_nothing_else_is() {
    use tokio::io::AsyncWriteExt as _;
    const TIMEOUT: Duration = Duration::from_millis(200);
    // The bytes, when the rest comes, and the verdict with the time that it took.
    let check = async |first: &[u8], rest: Option<(u64, &[u8])>, expect: Detected, after_ms: u64| {
        let (mut client, mut server) = tokio::io::duplex(1024);
        let began = Instant::now();
        client.write_all(first).await.unwrap();
        let says = async {
            if let Some((at, rest)) = rest {
                tokio::time::sleep_until(began + Duration::from_millis(at)).await;
                client.write_all(rest).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let detected = tokio::select! {
            detected = detect_stream(&mut server, Bytes::new(), TIMEOUT) => detected.unwrap().0,
            () = says => unreachable!("it says no more"),
        };
        assert_eq!((detected, began.elapsed()), (expect, Duration::from_millis(after_ms)), "{first:?}");
    };
    check(b"", None, Detected::Opaque, 200).await;
    check(b"GE", Some((900, b"T / HTTP/1.1\r\n")), Detected::Http1, 900).await;
    check(b"\r\nG", Some((900, b"ET / HTTP/1.1\r\n")), Detected::Http1, 900).await;
    check(b"PRI * HT", Some((900, &HTTP2_PREFACE[8..])), Detected::Http2, 900).await;
    check(b"PING", None, Detected::Opaque, 2_000).await;
    check(b"ruok", None, Detected::Opaque, 200).await;
    // A ClientHello in pieces is one, within the time.
    let hello = client_hello("shop");
    let named = || Detected::Tls { sni: Some("shop".into()) };
    check(&hello[..3], Some((150, &hello[3..])), named(), 150).await;
    check(&hello[..40], Some((150, &hello[40..])), named(), 150).await;
    check(&hello[..40], Some((900, &hello[40..])), Detected::Opaque, 200).await;
}

/// A limit that is long already is not made longer: who sends one letter holds a connection for no more than it says.
#[tokio::test(start_paused = true)]
async fn what_begins_like_a_method_is_waited_for_no_more_than_a_minute_longer() {
    use tokio::io::AsyncWriteExt as _;
    let check = async |timeout_s: u64, after_s: u64| {
        let (mut client, mut server) = tokio::io::duplex(1024);
        client.write_all(b"G").await.unwrap();
        let began = Instant::now();
        let (detected, _) = detect_stream(&mut server, Bytes::new(), Duration::from_secs(timeout_s)).await.unwrap();
        assert_eq!((detected, began.elapsed().as_secs()), (Detected::Opaque, after_s), "{timeout_s}");
    };
    check(1, 10).await;
    check(30, 60).await;
    check(60, 60).await;
    check(3_600, 3_600).await;
}

//! Copies on HTTP/1 over loopback: what arrives of them, and that none waits for more than it may.

use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use weft_transport::h1;
use weft_transport::http::{Frame, HttpLimits, Target};

use super::exchange::carry;
use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

fn head() -> RequestHead {
    RequestHead {
        method: Method::POST,
        authority: Some("copy".parse().unwrap()),
        path: Some(Target::from_static("/x")),
        protocol: None,
        headers: HeaderMap::new(),
        version: Version::HTTP_11,
    }
}

/// A client of HTTP/1, and the socket of its server.
async fn pair() -> (h1::ClientConn, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (h1::ClientConn::new(client, HttpLimits::default().h1()), server)
}

/// Carries one copy: the end of it, and the bytes of it and of its answer.
async fn carried(mut client: h1::ClientConn, party: Party, body: Option<Copied>) -> (String, u64, u64) {
    let moved = Moved::default();
    let carried = async {
        let streams = client.send(&head(), body.is_none()).await.unwrap();
        match carry(streams, party, body.as_ref(), &moved).await {
            Ok((status, _)) => status.as_u16().to_string(),
            Err(broken) => format!("{broken:?}"),
        }
    };
    let end = tokio::time::timeout(PATIENCE, carried).await.expect("nothing waits for ever");
    (end, moved.up.get(), moved.down.get())
}

async fn read_to_end(mut server: TcpStream) -> String {
    let mut all = Vec::new();
    // Broken off or closed: what came before counts.
    _ = server.read_to_end(&mut all).await;
    String::from_utf8_lossy(&all).into_owned()
}

async fn read_until(server: &mut TcpStream, end: &[u8]) -> String {
    let mut all = Vec::new();
    while !all.ends_with(end) {
        assert!(server.read_buf(&mut all).await.unwrap() > 0, "it ended: {}", String::from_utf8_lossy(&all));
    }
    String::from_utf8(all).unwrap()
}

fn data(bytes: &'static [u8]) -> Frame {
    Frame::Data(Bytes::from_static(bytes))
}

#[tokio::test]
async fn a_body_arrives_whole_and_the_answer_is_read_to_its_end() {
    let (client, mut server) = pair().await;
    let (tap, copied) = tapped(1_024);
    let serving = async {
        tap.take(&data(b"hello, "));
        tap.take(&data(b"world"));
        tap.finish();
        let request = read_until(&mut server, b"0\r\n\r\n").await;
        assert!(request.starts_with("POST /x HTTP/1.1\r\n") && request.contains("hello, world"), "{request}");
        server.write_all(b"HTTP/1.1 103 \r\n\r\nHTTP/1.1 200 \r\ncontent-length: 4\r\n\r\nda").await.unwrap();
        server.write_all(b"ta").await.unwrap();
    };
    let (end, ()) = tokio::join!(carried(client, Party::App, Some(copied)), serving);
    assert_eq!(end, ("200".to_owned(), 12, 4));
}

#[tokio::test]
async fn a_request_without_a_body_has_a_copy_without_one() {
    let (client, mut server) = pair().await;
    let serving = async {
        read_until(&mut server, b"\r\n\r\n").await;
        server.write_all(b"HTTP/1.1 503 \r\ncontent-length: 0\r\n\r\n").await.unwrap();
    };
    let (end, ()) = tokio::join!(carried(client, Party::App, None), serving);
    assert_eq!(end, ("503".to_owned(), 0, 0));
}

/// The server reads nothing: what its socket takes is written, and no more is waited for once the buffer is full.
#[tokio::test]
async fn a_copy_that_nobody_reads_is_cut_once_it_is_behind() {
    const MUCH: usize = 32 << 20;
    let (client, server) = pair().await;
    let (tap, copied) = tapped(MUCH);
    let much = Frame::Data(Bytes::from(vec![7; MUCH]));
    let filling = async {
        tap.take(&much);
        while !tap.is_read() {
            tokio::task::yield_now().await;
        }
        // The first is on its way, stuck; these don't fit behind it.
        tap.take(&much);
        tap.take(&data(b"more"));
        tap.finish();
    };
    let (end, ()) = tokio::join!(carried(client, Party::App, Some(copied)), filling);
    assert_eq!((end.0.as_str(), end.1), ("Cut(Behind)", MUCH as u64));
    assert!(!read_to_end(server).await.ends_with("0\r\n\r\n"), "it looks whole");
}

#[tokio::test]
async fn a_request_that_breaks_off_leaves_no_copy_that_looks_whole() {
    let (client, mut server) = pair().await;
    let (tap, copied) = tapped(1_024);
    let breaking = async {
        tap.take(&data(b"hello"));
        read_until(&mut server, b"hello\r\n").await;
        drop(tap);
        read_to_end(server).await
    };
    let (end, rest) = tokio::join!(carried(client, Party::App, Some(copied)), breaking);
    assert_eq!((end.0.as_str(), rest.as_str()), ("Cut(Abandoned)", ""));
}

#[tokio::test]
async fn an_answer_ends_a_copy_whose_body_goes_on() {
    let (client, mut server) = pair().await;
    let (tap, copied) = tapped(1_024);
    let serving = async {
        tap.take(&data(b"hello"));
        read_until(&mut server, b"hello\r\n").await;
        server.write_all(b"HTTP/1.1 413 \r\ncontent-length: 0\r\n\r\n").await.unwrap();
    };
    let (end, ()) = tokio::join!(carried(client, Party::App, Some(copied)), serving);
    assert_eq!(end, ("413".to_owned(), 5, 0));
    drop(tap);
}

#[tokio::test]
async fn what_ends_without_an_answer_says_so() {
    for (party, answer, expect) in [
        (Party::App, "", "Unanswered("),
        (Party::App, "HTTP/1.1 200 \r\ncontent-length: 4\r\n\r\nda", "Unanswered("),
        (Party::App, "HTTP/1.1 503 \r\nweft-unserved: 1\r\ncontent-length: 0\r\n\r\n", "503"),
        (
            Party::Peer,
            "HTTP/1.1 503 \r\nweft-unserved: 1\r\nweft-reply: x\r\ncontent-length: 0\r\n\r\n",
            "Unserved(\"x\")",
        ),
    ] {
        let (client, mut server) = pair().await;
        let serving = async move {
            read_until(&mut server, b"\r\n\r\n").await;
            server.write_all(answer.as_bytes()).await.unwrap();
        };
        let (end, ()) = tokio::join!(carried(client, party, None), serving);
        assert!(end.0.starts_with(expect), "{answer:?}: {end:?}");
    }
}

#[test]
fn each_end_is_told_as_what_it_is() {
    let check = |end: End, counted: &str, code: u16, flag: &str, reason: Option<&str>| {
        let mut log = Logged::of(&head());
        end.note(&mut log);
        let told = end.told(&Moved::default(), Duration::ZERO);
        let got = (end.counted().as_str(), told.code, told.flag.letters(), log.reason);
        assert_eq!(got, (counted, code, flag, reason));
    };
    check(End::Answered(StatusCode::NOT_FOUND, Instant::now()), "answered", 404, "-", None);
    let nobody = Failure::NoEndpoints { service: "shop/copy".to_owned() };
    check(End::Failed(nobody), "failed", 0, "UH", Some("no_endpoints"));
    check(End::Cut(Cut::Behind), "behind", 0, "OM", Some("behind"));
    check(End::Cut(Cut::Abandoned), "abandoned", 0, "DC", Some("abandoned"));
    check(End::Late, "late", 0, "UT", Some("late"));
}

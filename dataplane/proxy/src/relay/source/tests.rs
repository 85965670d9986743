//! Bodies that are given again, and what is kept for that.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_LENGTH;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use weft_filter_host::{Chunk, ReplyCause};
use weft_transport::http::HttpLimits;
use weft_transport::{h1, tcp};

use super::*;
use crate::quota::Quota;

async fn read(source: &mut Source<'_>) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(Frame::Data(data)) = source.frame().await.unwrap() {
        all.extend_from_slice(&data);
    }
    all
}

async fn sent(bytes: &[u8]) -> (tcp::Reader, tcp::Writer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    tcp::split(server, &Bytes::new())
}

#[tokio::test]
async fn a_small_body_is_given_again() {
    let (mut reader, _writer) = sent(b"hello, world").await;
    let mut source = Source::replayable(RecvBody::Tcp(&mut reader), 64);
    assert_eq!(read(&mut source).await, b"hello, world");
    assert!(source.rewind());
    assert_eq!(read(&mut source).await, b"hello, world");
}

/// A request that is sent again has the copies that it had.
#[tokio::test]
async fn copies_have_what_is_read_once_however_often_it_is_given() {
    let (mut reader, _writer) = sent(b"hello, world").await;
    let mut source = Source::replayable(RecvBody::Tcp(&mut reader), 64);
    let (tap, copied) = crate::copying::tapped(64);
    source.copy_to(tap);
    assert_eq!(read(&mut source).await, b"hello, world");
    assert!(source.rewind());
    assert_eq!(read(&mut source).await, b"hello, world");
    drop(source);
    let mut all = Vec::new();
    while let Some(Frame::Data(data)) = copied.frame().await.unwrap() {
        all.extend_from_slice(&data);
    }
    assert_eq!(all, b"hello, world");
}

#[tokio::test]
async fn a_large_body_is_not() {
    let (mut reader, _writer) = sent(&[7; 4_096]).await;
    let mut source = Source::replayable(RecvBody::Tcp(&mut reader), 64);
    assert_eq!(read(&mut source).await.len(), 4_096);
    assert!(!source.rewind());
}

#[tokio::test]
async fn an_answer_lets_go_of_what_was_kept() {
    let (mut reader, _writer) = sent(b"hello").await;
    let mut source = Source::replayable(RecvBody::Tcp(&mut reader), 64);
    assert_eq!(read(&mut source).await, b"hello");
    let kept = source.kept();
    assert_eq!(kept.0.borrow().data.len(), 5);
    kept.settle();
    assert_eq!(kept.0.borrow().data.capacity(), 0);
    assert!(!source.rewind());
}

#[tokio::test]
async fn what_is_given_again_is_given_whole_though_the_answer_came_meanwhile() {
    let (mut reader, _writer) = sent(b"hello, world").await;
    let mut source = Source::replayable(RecvBody::Tcp(&mut reader), 64);
    assert_eq!(read(&mut source).await, b"hello, world");
    assert!(source.rewind() && !source.is_end());
    source.kept().settle();
    assert_eq!(read(&mut source).await, b"hello, world");
    assert_eq!(source.kept().0.borrow().data.capacity(), 0);
}

/// A body in chunks of one byte, as HTTP/1.1 sends it, with trailers.
#[tokio::test]
async fn what_is_kept_is_bounded_however_small_the_frames_are() {
    const FRAMES: usize = 10_000;
    let chunks = b"1\r\nx\r\n".repeat(FRAMES);
    let message =
        [b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", &chunks[..], b"0\r\nt: 1\r\n\r\n"]
            .concat();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let writing = tokio::spawn(async move { client.write_all(&message).await.map(|()| client) });
    let mut conn = h1::ServerConn::new(server, &Bytes::new(), HttpLimits::default().h1());
    let exchange = conn.next().await.unwrap().unwrap();
    let mut source = Source::replayable(exchange.body, 16 * 1_024);
    for _ in 0..2 {
        let (mut data, mut trailers) = (0, None);
        while let Some(frame) = source.frame().await.unwrap() {
            match frame {
                Frame::Data(piece) => data += piece.len(),
                Frame::Trailers(fields) => trailers = Some(fields.len()),
            }
        }
        assert_eq!((data, trailers), (FRAMES, Some(1)));
        assert!(source.kept().0.borrow().data.capacity() <= 32 * 1_024);
        assert!(source.rewind());
    }
    drop(writing.await.unwrap());
}

#[test]
fn what_was_never_read_can_be_sent_again() {
    let mut source = Source::once(RecvBody::Empty);
    assert!(source.rewind() && source.is_end());
}

#[tokio::test]
async fn a_body_is_gathered_sent_as_another_and_sent_again() {
    let budget = Quota::new(1_000);
    let (mut reader, _writer) = sent(&[7; 300]).await;
    // More than is kept of a body otherwise.
    let mut source = Source::replayable(RecvBody::Tcp(&mut reader), 64);
    let mut headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("300"))]);
    let Ok(Gathering::Whole(whole)) = source.gather(300, || budget.part()).await else { panic!("it is whole") };
    assert_eq!((&whole[..], budget.used()), (&[7; 300][..], 300));
    source.send_as(whole, &mut headers);
    assert_eq!((headers[CONTENT_LENGTH].as_bytes(), source.held() >= 300), (&b"300"[..], true));
    source.send_as(Bytes::from_static(b"another"), &mut headers);
    assert_eq!(headers[CONTENT_LENGTH], "7");
    source.send_as(Bytes::new(), &mut headers);
    assert!(!headers.contains_key(CONTENT_LENGTH));
    source.send_as(Bytes::from_static(b"another"), &mut headers);
    for _ in 0..2 {
        assert_eq!(read(&mut source).await, b"another");
        assert!(source.is_end() && source.rewind());
    }
    drop(source);
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn a_body_that_is_too_long_goes_on_from_its_start() {
    let budget = Quota::new(8_192);
    let (mut reader, _writer) = sent(&[7; 4_096]).await;
    let mut source = Source::once(RecvBody::Tcp(&mut reader));
    assert!(matches!(source.gather(100, || budget.part()).await, Ok(Gathering::TooLong)));
    assert!(budget.used() > 100 && !source.is_end());
    assert!(matches!(source.gather(200, || budget.part()).await, Ok(Gathering::TooLong)));
    assert_eq!(read(&mut source).await, [7; 4_096]);
    assert_eq!(budget.used(), 0, "what was given on is held no longer");

    let (mut reader, _writer) = sent(&[7; 9_000]).await;
    let mut source = Source::once(RecvBody::Tcp(&mut reader));
    assert!(matches!(source.gather(9_000, || budget.part()).await, Err(Ungathered::NoRoom)));
    drop(source);
    assert_eq!(budget.used(), 0);

    let mut none = Source::once(RecvBody::Empty);
    assert!(matches!(none.gather(0, || budget.part()).await, Ok(Gathering::Whole(whole)) if whole.is_empty()));
    assert!(none.is_end());
}

/// Doubles each byte, adds an end, and ends the stream at a `!`.
struct Doubling;

impl Stage for Doubling {
    fn data(&mut self, data: Bytes, end: bool) -> Result<Chunk, Box<Cut>> {
        if data.contains(&b'!') {
            let (filter, reason, cause) = ("doubling".into(), "told to".to_owned(), ReplyCause::Filter);
            return Err(Box::new(Cut { filter, reason, close: false, cause }));
        }
        let mut bytes: Vec<u8> = data.iter().flat_map(|byte| [*byte; 2]).collect();
        bytes.extend(end.then_some(b'.'));
        Ok(Chunk { bytes: bytes.into(), after: if end { Duration::from_secs(5) } else { Duration::ZERO } })
    }

    fn trailers(&mut self, trailers: &mut HeaderMap) -> Result<(), Box<Cut>> {
        trailers.insert("seen", HeaderValue::from_static("1"));
        Ok(())
    }
}

#[tokio::test]
async fn a_stage_sees_each_byte_once_however_often_it_is_sent() {
    let (mut reader, _writer) = sent(b"abc").await;
    let mut source = Source::replayable(RecvBody::Tcp(&mut reader), 64);
    source.through(Box::new(Doubling));
    // The last chunk is held back for 5 s.
    tokio::time::pause();
    assert_eq!(read(&mut source).await, b"aabbcc.");
    assert!(source.rewind());
    assert_eq!(read(&mut source).await, b"aabbcc.");
}

#[tokio::test]
async fn a_chunk_that_is_held_back_is_not_lost_with_who_waited_for_it() {
    let (mut reader, _writer) = sent(b"").await;
    let mut source = Source::once(RecvBody::Tcp(&mut reader));
    source.through(Box::new(Doubling));
    tokio::time::pause();
    assert!(tokio::time::timeout(Duration::from_secs(1), source.frame()).await.is_err());
    assert_eq!(read(&mut source).await, b".");
}

#[tokio::test]
async fn a_stage_ends_a_body_in_its_middle_and_sees_what_was_gathered() {
    let budget = Quota::new(1_000);
    let (mut reader, _writer) = sent(b"stop!").await;
    let mut source = Source::once(RecvBody::Tcp(&mut reader));
    assert!(matches!(source.gather(10, || budget.part()).await, Ok(Gathering::Whole(_))));
    source.through(Box::new(Doubling));
    assert!(source.frame().await.is_err());
    assert_eq!(source.take_cut().unwrap().reason, "told to");
}

#[tokio::test]
async fn trailers_pass_the_stage_behind_the_last_chunk() {
    let message = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nt: 1\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.write_all(message).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let mut conn = h1::ServerConn::new(server, &Bytes::new(), HttpLimits::default().h1());
    let mut source = Source::once(conn.next().await.unwrap().unwrap().body);
    source.through(Box::new(Doubling));
    tokio::time::pause();
    let mut frames = Vec::new();
    while let Some(frame) = source.frame().await.unwrap() {
        frames.push(match frame {
            Frame::Data(data) => String::from_utf8_lossy(&data).into_owned(),
            Frame::Trailers(trailers) => format!("{} {}", trailers.len(), trailers.contains_key("seen")),
        });
    }
    assert_eq!(frames, ["xx", ".", "2 true"]);
}

//! Bodies that are given again, and what is kept for that.

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use weft_transport::http::HttpLimits;
use weft_transport::{h1, tcp};

use super::*;

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

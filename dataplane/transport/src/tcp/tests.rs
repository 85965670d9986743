//! The halves of a TCP stream against raw sockets.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

fn run<F: std::future::Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

async fn read_all(reader: &mut Reader) -> Result<Vec<u8>, StreamError> {
    let mut bytes = Vec::new();
    while let Some(Frame::Data(data)) = reader.frame().await? {
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

#[test]
fn the_prefix_comes_first_and_each_side_closes_alone() {
    run(async {
        let (mut near, far) = pair().await;
        let (mut reader, mut writer) = split(far, b"first ");
        near.write_all(b"second").await.unwrap();
        near.shutdown().await.unwrap();
        assert_eq!(read_all(&mut reader).await.unwrap(), b"first second");
        assert!(matches!(reader.frame().await, Ok(None)));
        writer.data(Bytes::from_static(b"an")).await.unwrap();
        writer.data(Bytes::from_static(b"swer")).await.unwrap();
        writer.finish().await.unwrap();
        writer.finish().await.unwrap();
        let mut text = String::new();
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "answer");
    });
}

#[test]
fn a_reset_is_no_end_in_either_direction() {
    run(async {
        let (near, far) = pair().await;
        let (mut reader, mut writer) = split(far, b"");
        linger_zero(&near);
        drop(near);
        assert!(matches!(reader.frame().await, Err(StreamError::Reset(CONNECT_ERROR))));
        assert!(writer.data(Bytes::from(vec![0; 100_000])).await.is_err());

        let (mut near, far) = pair().await;
        let (reader, mut writer) = split(far, b"");
        writer.reset();
        drop((reader, writer));
        let error = near.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn bulk_passes_unchanged_with_bounded_pieces() {
    run(async {
        let (near, far) = pair().await;
        let (mut reader, _writer) = split(far, b"");
        let (_reader, mut sender) = split(near, b"");
        let body: Vec<u8> = (0..3_000_000u32).map(|number| (number / 7).to_le_bytes()[0]).collect();
        let sending = async {
            for piece in body.chunks(70_001) {
                sender.data(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            sender.finish().await.unwrap();
        };
        let receiving = async {
            let mut bytes = Vec::new();
            while let Some(Frame::Data(data)) = reader.frame().await.unwrap() {
                assert!(data.len() <= buffer::BULK + 16 * 1024, "{}", data.len());
                bytes.extend_from_slice(&data);
            }
            bytes
        };
        let ((), bytes) = tokio::join!(sending, receiving);
        assert!(bytes == body);
    });
}

/// An RST from one side is passed on after the data, also where the writer was told of it first.
#[test]
fn what_came_before_a_reset_is_read_and_the_reset_stays_one() {
    run(async {
        for written in [false, true] {
            let (mut near, far) = pair().await;
            SockRef::from(&far).set_recv_buffer_size(4 << 20).unwrap();
            let (mut reader, mut writer) = split(far, b"");
            near.write_all(&vec![b'x'; 655_360]).await.unwrap();
            delivered(&near).await;
            linger_zero(&near);
            drop(near);
            if written {
                while writer.data(Bytes::from_static(&[0; 20_000])).await.is_ok() {}
            }
            let mut taken = 0;
            let end = loop {
                match reader.frame().await {
                    Ok(Some(Frame::Data(data))) => taken += data.len(),
                    other => break other,
                }
            };
            assert_eq!(taken, 655_360);
            assert!(matches!(end, Err(StreamError::Reset(CONNECT_ERROR))), "{end:?}");
        }
    });
}

#[test]
fn an_abort_delivers_and_then_resets() {
    run(async {
        let (mut near, far) = pair().await;
        let sending = async {
            let (reader, mut writer) = split(far, b"");
            for _ in 0..64 {
                writer.data(Bytes::from_static(&[b'x'; 10_240])).await.unwrap();
            }
            writer.abort().await;
            drop((reader, writer));
        };
        let receiving = async {
            let mut bytes = Vec::new();
            let end = near.read_to_end(&mut bytes).await;
            (bytes.len(), end.map_err(|error| error.kind()))
        };
        let ((), got) = tokio::join!(sending, receiving);
        assert_eq!(got, (655_360, Err(io::ErrorKind::ConnectionReset)));
    });
}

#[test]
fn who_half_closed_long_ago_is_looked_after_in_time() {
    let looks = |owner| std::iter::successors(Some(LOOK_AFTER), move |pause| Some(next_look(*pause, owner))).take(20);
    assert!(looks(diag::Owner::Present).all(|pause| pause < Duration::from_millis(100)));
    let longest = [diag::Owner::Absent, diag::Owner::Unknown].map(|owner| looks(owner).max());
    assert_eq!(longest, [Some(Duration::from_millis(500)); 2], "a look there costs as much and tells nothing");
}

#[test]
fn a_peer_is_gone_when_it_closed_and_not_when_it_half_closed() {
    run(async {
        for half_closed in [false, true] {
            let (mut near, far) = pair().await;
            let (_reader, mut writer) = split(far, b"");
            if half_closed {
                near.shutdown().await.unwrap();
            }
            let mut gone = Box::pin(writer.gone());
            assert!(timeout(Duration::from_millis(100), &mut gone).await.is_err(), "half-closed: {half_closed}");
            drop(near);
            timeout(Duration::from_millis(600), gone).await.expect("noticed");
        }
    });
}

/// Who waits for a client is let go in time, and nothing is lost of a client that writes, closes and exits.
#[test]
fn who_is_not_read_yet_has_left_once_nothing_is_owed_to_it() {
    const HOUR: Duration = Duration::from_secs(3_600);
    const SOON: Duration = Duration::from_millis(600);
    run(async {
        let cases: [(&[u8], bool, bool, bool); 6] = [
            // What it wrote, whether some of that was read, whether it resets; whether it is waited for no longer.
            (b"", false, false, true),
            (b"", true, false, false),
            (b"all of it", false, false, false),
            (b"all of it", false, true, true),
            (b"", true, true, true),
            (b"", false, true, true),
        ];
        for (wrote, was_read, resets, expect) in cases {
            let case = format!("{wrote:?} read: {was_read} reset: {resets}");
            let (mut near, far) = pair().await;
            near.write_all(wrote).await.unwrap();
            delivered(&near).await;
            {
                let mut early = Box::pin(left(&far, was_read, HOUR));
                let is_over = std::future::poll_fn(|cx| Poll::Ready(early.as_mut().poll(cx).is_ready())).await;
                assert!(!is_over, "{case}: it is there");
            }
            if resets {
                linger_zero(&near);
            }
            drop(near);
            if expect {
                timeout(SOON, left(&far, was_read, HOUR)).await.expect(&case);
            } else {
                let waiting = timeout(Duration::from_millis(150), left(&far, was_read, HOUR)).await;
                assert!(waiting.is_err(), "{case}");
                timeout(SOON, left(&far, was_read, Duration::ZERO)).await.expect(&case);
            }
        }
    });
}

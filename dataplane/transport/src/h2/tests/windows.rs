//! Streams that stall hold their own windows, however many they are, and the next one finds room.

use std::cell::Cell;
use std::rc::Rc;

use super::*;

/// Sends until nothing more is taken, counting what was.
async fn pour(send: &mut SendStream, poured: &Cell<usize>) {
    let piece = Bytes::from(vec![b'x'; 16 * 1024]);
    while send.data(piece.clone()).await.is_ok() {
        poured.set(poured.get() + piece.len());
    }
}

#[test]
fn many_stalled_streams_leave_room_for_another_both_ways() {
    const STALLED: usize = 60;
    run(async {
        let limits = Limits::default();
        let full = STALLED * limits.stream_window as usize;
        assert!(limits.connection_window as usize * 4 < full, "a constant window would not do");
        let (client, far) = connect(&limits).await;
        let (up, down) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let to_client = Rc::clone(&down);
        serve(far, limits.clone(), move |head, body, mut answer| {
            let down = Rc::clone(&to_client);
            async move {
                match head.path.as_ref().unwrap().as_bytes() {
                    b"/stalled" => {
                        answer.response(&response(200), false).await.unwrap();
                        pour(&mut answer, &down).await;
                        drop(body);
                    }
                    _ => echo(head, body, answer).await,
                }
            }
        });
        let mut unread = Vec::new();
        for _ in 0..STALLED {
            let (mut send, receive) = client.send(&request(Method::POST, "/stalled"), false).await.unwrap();
            unread.push(receive);
            let up = Rc::clone(&up);
            tokio::task::spawn_local(async move { pour(&mut send, &up).await });
        }
        while up.get() < full || down.get() < full {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (mut send, mut receive) = client.send(&request(Method::POST, "/quick"), false).await.unwrap();
        send.data(Bytes::from_static(b"hello")).await.unwrap();
        send.finish(None).await.unwrap();
        while receive.response_head().await.unwrap().status != 200 {}
        assert_eq!(collect(&mut receive).await.unwrap().0, b"hello");
        assert_eq!((up.get(), down.get()), (full, full), "they hold no more than their windows");
    });
}

#[test]
fn what_waits_to_be_written_is_known_until_it_is() {
    run(async {
        let (near, far) = duplex(4 * 1024);
        let client = ClientConn::connect(near, &Limits::default()).await.unwrap();
        let post = request(Method::POST, "/");
        let (server, streams) = tokio::join!(h2::server::handshake(far), client.send(&post, false));
        let (mut server, (mut send, _receive)): (h2::server::Connection<_, Bytes>, _) =
            (server.unwrap(), streams.unwrap());
        send.data(Bytes::from(vec![b'x'; 60_000])).await.unwrap();
        send.finish(None).await.unwrap();
        assert_eq!(send.held(), 60_000);
        assert!(timeout(Duration::from_millis(20), send.written()).await.is_err(), "the server reads nothing yet");
        let reading = tokio::task::spawn_local(async move { while server.accept().await.is_some() {} });
        send.written().await;
        assert_eq!(send.held(), 0);
        reading.abort();
    });
}

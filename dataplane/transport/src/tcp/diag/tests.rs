//! The kernel asked about sockets that are open, half closed and closed.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn run<F: std::future::Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

async fn pair(host: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((host, 0)).await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

#[test]
fn an_owner_is_present_until_it_closes() {
    run(async {
        for host in ["127.0.0.1", "::1"] {
            let (mut near, mut far) = pair(host).await;
            assert_eq!(peer(&far), Owner::Present);
            near.shutdown().await.unwrap();
            assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
            assert_eq!(peer(&far), Owner::Present, "half closed");
            drop(near);
            assert_eq!(peer(&far), Owner::Gone);
        }
    });
}

#[test]
fn a_socket_that_was_never_found_has_not_left() {
    use Owner::{Absent, Gone, Present, Unknown};
    for (now, before, left) in [
        (Gone, Unknown, true),
        (Absent, Present, true),
        (Absent, Unknown, false),
        (Absent, Absent, false),
        (Unknown, Present, false),
        (Present, Absent, false),
    ] {
        assert_eq!(now.has_left(before), left, "{now:?} after {before:?}");
    }
}

#[test]
fn a_listener_at_the_same_address_is_nobody() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(describe(address, "127.0.0.1:9".parse().unwrap()).unwrap(), None);
    });
}

#[test]
fn bytes_that_wait_are_counted() {
    run(async {
        let (mut near, far) = pair("127.0.0.1").await;
        assert_eq!(unacknowledged(&near), Some(0));
        socket2::SockRef::from(&far).set_recv_buffer_size(4096).unwrap();
        while near.try_write(&[0; 4096]).is_ok() {}
        assert!(unacknowledged(&near).unwrap() > 0);
        near.shutdown().await.unwrap();
    });
}

#[test]
fn what_the_kernel_did_not_say_is_not_believed() {
    let (local, remote) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
    let asked = request(local, remote);
    for length in 0..HEADER + MESSAGE {
        assert!(parse(&vec![0; length], &asked).is_err(), "{length}");
    }
    let mut refused = vec![0; 36];
    refused[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
    refused[HEADER..HEADER + 4].copy_from_slice(&(-1i32).to_ne_bytes());
    assert!(parse(&refused, &asked).is_err(), "EPERM is no answer");
}

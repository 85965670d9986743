//! Several workers on one port: the kernel's program against raw datagrams, and whole connections that stay where they
//! began, even when their caller moves.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use quinn::ConnectionIdGenerator;

use super::handshake::exchange;
use super::{Accepted, LOOPBACK, PATIENCE, dialer, on_a_worker};
use crate::quic::{Server, SharedKeys, TransportLimits, Worker, WorkerCidGenerator, bind_client, bind_workers};
use crate::tls::testing::{Ca, id};

#[test]
fn the_kernel_steers_by_the_first_byte_of_the_connection_id() {
    for ip in ["127.0.0.1", "::1"] {
        let sockets = bind_workers(SocketAddr::new(ip.parse().unwrap(), 0), 3).unwrap();
        let target = sockets[0].local_addr().unwrap();
        for socket in &sockets {
            assert_eq!(socket.local_addr().unwrap(), target);
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        for byte in 0..=255_u8 {
            // Another source port each time: a hash of the addresses would scatter them.
            let sender = UdpSocket::bind(SocketAddr::new(ip.parse().unwrap(), 0)).unwrap();
            let long = [0xc0, 0, 0, 0, 1, 8, byte, !byte, 0, 0, 0, 0, 0, 0];
            let short = [0x40, byte, !byte, 0, 0, 0, 0, 0, 0];
            for datagram in [&long[..], &short[..]] {
                sender.send_to(datagram, target).unwrap();
                let mut received = [0; 64];
                let length = sockets[usize::from(byte) % 3].recv(&mut received).unwrap();
                assert_eq!(&received[..length], datagram);
            }
        }
        // Too short to hold a connection ID: the first worker's, and harmless.
        let sender = UdpSocket::bind(SocketAddr::new(ip.parse().unwrap(), 0)).unwrap();
        for datagram in [&[0xc0, 0, 0][..], &[0x40], &[]] {
            sender.send_to(datagram, target).unwrap();
            assert_eq!(sockets[0].recv(&mut [0; 64]).unwrap(), datagram.len());
        }
    }
}

#[test]
fn generated_connection_ids_lead_back_to_their_worker() {
    for count in [1, 2, 3, 7, 64, 255, 256] {
        for index in 0..count {
            let worker = Worker::new(index, count).unwrap();
            let mut generator = WorkerCidGenerator::new(worker);
            for _ in 0..8 {
                let cid = generator.generate_cid();
                assert_eq!(usize::from(cid[0]) % count, index);
                assert!(generator.validate(&cid).is_ok());
            }
        }
    }
    assert!(Worker::new(2, 2).is_none() && Worker::new(0, 0).is_none() && Worker::new(0, 257).is_none());
}

#[test]
fn connections_stay_with_their_worker() {
    const WORKERS: usize = 3;
    on_a_worker(async {
        let ca = Ca::new();
        let (keys, limits) = (SharedKeys::generate(), TransportLimits::default());
        let shop = ca.handle("shop");
        let sockets = bind_workers(SocketAddr::new(LOOPBACK, 0), WORKERS).unwrap();
        let address = sockets[0].local_addr().unwrap();
        let (report, mut accepted) = tokio::sync::mpsc::unbounded_channel::<(usize, Accepted)>();
        for (index, socket) in sockets.into_iter().enumerate() {
            let worker = Worker::new(index, WORKERS).unwrap();
            let server = Server::new(socket, worker, &keys, &shop, &limits).unwrap();
            let report = report.clone();
            tokio::task::spawn_local(async move {
                while let Some(handshake) = server.accept().await {
                    let _ = report.send((index, handshake.finish().await.unwrap()));
                }
            });
        }
        let dialer = dialer();
        let cart = ca.handle("cart");
        let mut per_worker = [0; WORKERS];
        let mut pairs = Vec::new();
        for _ in 0..4 * WORKERS {
            let connection = dialer.dial(&cart, &id("shop"), address, PATIENCE).await.unwrap();
            let (worker, callee) = accepted.recv().await.unwrap();
            per_worker[worker] += 1;
            pairs.push((connection, callee.connection));
        }
        // A caller's connections go round the workers, but for one step where the byte wraps.
        assert!(per_worker.iter().all(|count| (3..=5).contains(count)), "{per_worker:?}");
        for (caller, callee) in &pairs {
            exchange(caller, callee).await;
        }
        // The caller moves to another port: only the connection ID still says whose packets these are.
        dialer.endpoint().rebind(bind_client(LOOPBACK, None).unwrap()).unwrap();
        for (caller, callee) in &pairs {
            exchange(caller, callee).await;
            assert_eq!(callee.remote_address(), dialer.endpoint().local_addr().unwrap());
        }
    });
}

#[test]
fn a_restarted_callee_resets_what_it_does_not_know() {
    on_a_worker(async {
        let ca = Ca::new();
        let keys = SharedKeys::from_secret(b"kept across restarts, thirty-two bytes");
        let mut callee =
            super::Callee::bound(SocketAddr::new(LOOPBACK, 0), &keys, &ca.handle("shop"), &TransportLimits::default());
        let connection = dialer().dial(&ca.handle("cart"), &id("shop"), callee.address, PATIENCE).await.unwrap();
        let accepted = callee.outcome().await.unwrap();
        // As kill -9 does: the socket is gone without a word. The new process has the same address and secret.
        let address = callee.address;
        callee.vanish().await;
        let _restarted = super::Callee::bound(address, &keys, &ca.handle("shop"), &TransportLimits::default());
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&[0; 100]).await.unwrap();
        assert_eq!(connection.closed().await, quinn::ConnectionError::Reset);
        drop(accepted);
    });
}

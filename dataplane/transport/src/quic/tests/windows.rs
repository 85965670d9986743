//! Readers that stall hold their own windows and nobody else's; peers that are far away get larger ones.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::handshake::exchange;
use super::pool::{key, quick};
use super::{Callee, LOOPBACK, PATIENCE, dialer, dialer_with, on_a_worker, until};
use crate::h3;
use crate::quic::{
    Congestion, Dialer, Pool, PoolLimits, Server, SharedKeys, TransportLimits, WindowLimits, Worker, bind_client,
    bind_workers,
};
use crate::tls::testing::{Ca, id};

#[test]
fn stalled_readers_leave_the_others_their_credit() {
    const STALLED: u64 = 200;
    on_a_worker(async {
        let ca = Ca::new();
        let mut callee = Callee::new(&ca.handle("shop"));
        let caller = dialer().dial(&ca.handle("cart"), &id("shop"), callee.address, PATIENCE).await.unwrap();
        let accepted = callee.outcome().await.unwrap();
        let mut unread = Vec::new();
        for _ in 0..STALLED {
            let (mut send, receive) = caller.open_bi().await.unwrap();
            send.write_all(b"?").await.unwrap();
            unread.push((send, receive));
            let (mut answer, question) = accepted.connection.accept_bi().await.unwrap();
            tokio::task::spawn_local(async move {
                let _ = answer.write_all(&vec![0; 1024 * 1024]).await;
                drop(question);
            });
        }
        let window = u64::from(WindowLimits::default().stream);
        until("every stalled reader's window is full", || caller.stats().udp_rx.bytes >= STALLED * window).await;
        exchange(&caller, &accepted.connection).await;
        assert!(caller.stats().udp_rx.bytes < STALLED * window * 3 / 2, "they hold no more than their windows");
    });
}

#[test]
fn a_peer_that_is_far_away_gets_a_connection_that_fits() {
    on_a_worker(async {
        let ca = Ca::new();
        let mut callee = Callee::new(&ca.handle("shop"));
        let dialer = dialer_with(WindowLimits { far_from: Duration::ZERO, ..WindowLimits::default() });
        let pool = Pool::new(dialer, ca.handle("cart"), quick(), h3::Limits::default());
        let key = key("cart", "shop", callee.address);
        let accepting = async { [callee.outcome().await.unwrap(), callee.outcome().await.unwrap()] };
        let (first, accepted) = tokio::join!(pool.get(&key), accepting);
        // The very first request gets the larger one, and both ends know of its size.
        assert!(!first.unwrap().is_draining());
        let limits = WindowLimits::default();
        assert_eq!(accepted.map(|it| it.stream_window), [limits.stream, limits.far_stream]);
        until("the larger one is there alone", || pool.stats().snapshot().connections == 1).await;
        assert!(!pool.get(&key).await.unwrap().is_draining());
        assert_eq!(pool.stats().snapshot().dials, 2);
    });
}

/// The first connection to a peer tells that it is far away; the one that fits it is dialled and hangs.
#[test]
fn a_connection_that_does_not_fit_is_used_where_the_one_that_fits_does_not_come() {
    on_a_worker(async {
        let ca = Ca::new();
        let socket = bind_workers(SocketAddr::new(LOOPBACK, 0), 1).unwrap().remove(0);
        let (address, keys) = (socket.local_addr().unwrap(), SharedKeys::generate());
        let limits = TransportLimits::default();
        let server = Server::new(socket, Worker::single(), &keys, &ca.handle("shop"), &limits).unwrap();
        let third = tokio::task::spawn_local(async move {
            let _first = server.accept().await.unwrap().finish().await;
            let _unanswered = server.accept().await.unwrap();
            // That one is given up, and comes again for a while until its caller has noticed.
            loop {
                let accepted = server.accept().await.unwrap().finish().await;
                if let Ok(accepted) = accepted {
                    return accepted;
                }
            }
        });
        let patience = Duration::from_millis(200);
        let dialer = dialer_with(WindowLimits { far_from: Duration::ZERO, ..WindowLimits::default() });
        let quick = PoolLimits {
            elsewhere_after: patience,
            dial_timeout: Duration::from_secs(2),
            refit_after: Duration::from_millis(100),
            ..quick()
        };
        let pool = Pool::new(dialer, ca.handle("cart"), quick, h3::Limits::default());
        let key = key("cart", "shop", address);
        assert!(!pool.get(&key).await.unwrap().is_draining(), "it does not wait for the end of the dial");
        let stats = pool.stats().snapshot();
        assert_eq!((stats.dials, stats.connections), (2, 1));
        // Whoever comes meanwhile doesn't wait at all.
        let begun = Instant::now();
        pool.get(&key).await.unwrap();
        assert!(begun.elapsed() < patience, "{:?}", begun.elapsed());
        assert_eq!(pool.stats().snapshot().dials, 2);
        // While the first is in use, the one that fits is tried again.
        while !third.is_finished() {
            pool.get(&key).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let third = third.await.unwrap();
        assert_eq!(third.stream_window, WindowLimits::default().far_stream);
        until("the larger one is there alone", || pool.stats().snapshot().connections == 1).await;
        assert!(pool.stats().snapshot().dials >= 3);
    });
}

#[test]
fn congestion_is_controlled_as_configured() {
    on_a_worker(async {
        let ca = Ca::new();
        let mut callee = Callee::new(&ca.handle("shop"));
        for (congestion, is_bbr) in [(Congestion::Cubic, false), (Congestion::Bbr, true)] {
            let limits = TransportLimits { congestion, ..TransportLimits::default() };
            let socket = bind_client(LOOPBACK, None).unwrap();
            let dialer = Dialer::new(socket, Worker::single(), &SharedKeys::generate(), &limits).unwrap();
            let caller = dialer.dial(&ca.handle("cart"), &id("shop"), callee.address, PATIENCE).await.unwrap();
            let accepted = callee.outcome().await.unwrap();
            exchange(&caller, &accepted.connection).await;
            assert_eq!(caller.congestion_state().into_any().is::<quinn::congestion::Bbr>(), is_bbr);
        }
    });
}

//! A hiccup is no death: a network or a peer that is silent for a while costs latency, and nothing else. On a clock of
//! its own, so that ten seconds cost none.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::StatusCode;
use tokio::time::Instant;

use super::pool::{gate, head, key, pool, request, serve};
use super::relay::Relay;
use super::{Callee, on_its_own_clock, until};
use crate::quic::{PeerKey, Pool, PoolLimits, SharedKeys, TransportLimits};
use crate::tls::HandshakeFailure;
use crate::tls::testing::{Ca, id};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The clock leaps to the next timer while a busy kernel still carries a datagram from socket to socket: a few timers of a
/// connection may run out for nothing.
const LEAPS: Duration = Duration::from_secs(2);

/// A caller's pool that reaches a callee through a relay.
struct Setting {
    ca: Ca,
    pool: Pool,
    relay: Relay,
    key: PeerKey,
    callee: SocketAddr,
}

async fn setting(callee: &Callee, ca: Ca) -> Setting {
    let relay = Relay::to(callee.address).await;
    let pool = pool(ca.handle("cart"), PoolLimits::default());
    let key = key("cart", "shop", relay.address);
    Setting { ca, pool, relay, key, callee: callee.address }
}

/// How long a request took that may go nowhere else.
async fn patient(pool: &Pool, key: &PeerKey) -> Duration {
    let sent = Instant::now();
    let client = pool.get_patiently(key, CONNECT_TIMEOUT).await.unwrap();
    let (_send, mut receive) = client.send(&head("/"), true).await.unwrap();
    assert_eq!(receive.response_head().await.unwrap().status, StatusCode::NO_CONTENT);
    sent.elapsed()
}

/// The longest wait of 20 requests a second that were sent while the network was silent for so long, beside 20 open streams.
async fn worst_wait(silence: Duration) -> Duration {
    let ca = Ca::new();
    let callee = Callee::new(&ca.handle("shop"));
    let Setting { pool, relay, key, .. } = setting(&callee, ca).await;
    let release = gate();
    let _servers = serve(callee, &release);
    patient(&pool, &key).await;
    let client = pool.get(&key).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(request(&client, "/held").await);
    }
    relay.be_silent(true);
    let over = Instant::now() + silence;
    let mut requests = Vec::new();
    while Instant::now() < over {
        let (pool, key) = (pool.clone(), key.clone());
        requests.push(tokio::task::spawn_local(async move { patient(&pool, &key).await }));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(relay.dropped() > 0);
    relay.be_silent(false);
    let waits = join_all(requests).await;
    release.add_permits(20);
    for (send, mut receive) in held {
        assert_eq!(receive.response_head().await.unwrap().status, StatusCode::NO_CONTENT);
        drop(send);
    }
    let stats = pool.stats().snapshot();
    assert_eq!((stats.lost, stats.forgotten), (0, 0), "{silence:?}");
    waits.into_iter().map(Result::unwrap).max().unwrap()
}

#[test]
fn silence_of_up_to_ten_seconds_costs_latency_only() {
    for seconds in [1, 2, 5, 10] {
        on_its_own_clock(async move {
            let silence = Duration::from_secs(seconds);
            let worst = worst_wait(silence).await;
            // Data sent before the silence was noticed may wait as long again, as TCP's retransmissions do.
            assert!(worst <= silence * 2 + LEAPS, "{silence:?}: {worst:?}");
            println!("silent for {silence:?}: the longest wait was {worst:?}");
        });
    }
}

/// Uploads that fill the congestion window keep a connection from asking: it says nothing until QUIC's next probe, long after a
/// younger connection has found the peer alive.
#[test]
fn a_connection_that_could_not_ask_is_not_taken_for_forgotten() {
    for seconds in [14, 20] {
        on_its_own_clock(async move {
            let ca = Ca::new();
            let callee = Callee::new(&ca.handle("shop"));
            let Setting { pool, relay, key, .. } = setting(&callee, ca).await;
            let release = gate();
            let _servers = serve(callee, &release);
            patient(&pool, &key).await;
            let client = pool.get(&key).await.unwrap();
            relay.be_silent(true);
            let mut held = Vec::new();
            for _ in 0..20 {
                let (mut send, receive) = client.send(&head("/held"), false).await.unwrap();
                send.data(Bytes::from(vec![b'x'; 16 * 1024])).await.unwrap();
                held.push((send, receive));
            }
            let over = Instant::now() + Duration::from_secs(seconds);
            tokio::time::sleep_until(over).await;
            relay.be_silent(false);
            assert!(patient(&pool, &key).await < LEAPS);
            release.add_permits(20);
            for (send, mut receive) in held {
                assert_eq!(receive.response_head().await.unwrap().status, StatusCode::NO_CONTENT);
                drop(send);
            }
            let stats = pool.stats().snapshot();
            assert_eq!((stats.lost, stats.forgotten), (0, 0), "{seconds} s");
            assert!(stats.established >= 2, "a younger connection was there: {stats:?}");
        });
    }
}

#[test]
fn a_request_that_can_goes_elsewhere_while_streams_live_on() {
    on_its_own_clock(async {
        let ca = Ca::new();
        let callee = Callee::new(&ca.handle("shop"));
        let Setting { pool, relay, key, .. } = setting(&callee, ca).await;
        let release = gate();
        let _servers = serve(callee, &release);
        let (_send, mut held) = request(&pool.get(&key).await.unwrap(), "/held").await;
        relay.be_silent(true);
        let (_lost, mut lost) = request(&pool.get(&key).await.unwrap(), "/").await;
        until("the silence is noticed", || pool.stats().snapshot().suspected == 1).await;
        for _ in 0..20 {
            let asked = Instant::now();
            let error = pool.get(&key).await.unwrap_err();
            assert_eq!(error.reason(), HandshakeFailure::Timeout);
            assert!(asked.elapsed() <= PoolLimits::default().elsewhere_after + Duration::from_millis(10));
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        relay.be_silent(false);
        assert_eq!(lost.response_head().await.unwrap().status, StatusCode::NO_CONTENT);
        release.add_permits(1);
        assert_eq!(held.response_head().await.unwrap().status, StatusCode::NO_CONTENT);
        assert_eq!(pool.stats().snapshot().lost, 0);
    });
}

#[test]
fn an_idle_connection_is_found_silent_before_a_request_needs_it() {
    on_its_own_clock(async {
        let ca = Ca::new();
        let callee = Callee::new(&ca.handle("shop"));
        let Setting { pool, relay, key, .. } = setting(&callee, ca).await;
        let _servers = serve(callee, &gate());
        patient(&pool, &key).await;
        relay.be_silent(true);
        until("the silence is noticed", || pool.stats().snapshot().suspected == 1).await;
        relay.be_silent(false);
        assert!(patient(&pool, &key).await < LEAPS);
    });
}

#[test]
fn a_peer_that_never_was_is_waited_for_until_the_connect_timeout() {
    on_its_own_clock(async {
        let ca = Ca::new();
        let deaf = std::net::UdpSocket::bind((super::LOOPBACK, 0)).unwrap();
        let pool = pool(ca.handle("cart"), PoolLimits::default());
        let key = key("cart", "shop", deaf.local_addr().unwrap());
        let asked = Instant::now();
        let error = pool.get_patiently(&key, CONNECT_TIMEOUT).await.unwrap_err();
        assert_eq!(error.reason(), HandshakeFailure::Timeout);
        let waited = asked.elapsed();
        assert!(waited >= CONNECT_TIMEOUT && waited < CONNECT_TIMEOUT * 2, "{waited:?}");
    });
}

#[test]
fn a_younger_connection_that_lives_proves_that_the_peer_has_forgotten_an_older_one() {
    on_its_own_clock(async {
        let ca = Ca::new();
        let callee = Callee::new(&ca.handle("shop"));
        let Setting { ca, pool, relay, key, .. } = setting(&callee, ca).await;
        let _servers = serve(callee, &gate());
        let (_send, mut held) = request(&pool.get(&key).await.unwrap(), "/held").await;
        // The peer begins anew with other keys, so that it can't reset what it has forgotten.
        let anew = Callee::bound(
            SocketAddr::new(super::LOOPBACK, 0),
            &SharedKeys::generate(),
            &ca.handle("shop"),
            &TransportLimits::default(),
        );
        relay.lead_to(anew.address).await;
        let _servers = serve(anew, &gate());
        until("the silence is noticed", || pool.stats().snapshot().suspected == 1).await;
        let noticed = Instant::now();
        assert!(patient(&pool, &key).await < LEAPS);
        assert!(!held.response_head().await.unwrap_err().unprocessed);
        let waited = noticed.elapsed();
        assert!(waited >= Duration::from_secs(4) && waited < Duration::from_secs(8) + LEAPS, "{waited:?}");
        assert_eq!(pool.stats().snapshot().forgotten, 1);
    });
}

#[test]
fn streams_survive_a_new_address_of_the_caller() {
    on_its_own_clock(async {
        let ca = Ca::new();
        let callee = Callee::new(&ca.handle("shop"));
        let Setting { pool, relay, key, callee: address, .. } = setting(&callee, ca).await;
        let release = gate();
        let mut servers = serve(callee, &release);
        let (_send, mut held) = request(&pool.get(&key).await.unwrap(), "/held").await;
        let server = servers.recv().await.unwrap();
        let before = server.quic().remote_address();
        relay.lead_to(address).await;
        assert!(patient(&pool, &key).await < LEAPS);
        assert_ne!(server.quic().remote_address(), before);
        release.add_permits(1);
        assert_eq!(held.response_head().await.unwrap().status, StatusCode::NO_CONTENT);
        let stats = pool.stats().snapshot();
        assert_eq!((stats.dials, stats.lost), (1, 0));
        assert_eq!(crate::tls::peer_identity(server.quic()).unwrap().id, id("cart"));
    });
}

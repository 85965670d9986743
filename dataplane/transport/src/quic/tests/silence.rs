//! A hiccup is no death: a network or a peer that is silent for a while costs latency, and nothing else. On a clock of
//! its own, so that ten seconds cost none.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::StatusCode;
use tokio::time::Instant;

use super::network::{FRONT, Network};
use super::pool::{gate, head, key, request, serve};
use super::{Callee, dialer_within, on_its_own_clock, until};
use crate::h3;
use crate::quic::{PeerKey, Pool, PoolLimits};
use crate::tls::HandshakeFailure;
use crate::tls::testing::{Ca, id};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Round trips without a silence: a few timers of a connection.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A caller's pool that reaches a callee through a network in memory.
struct Setting {
    ca: Ca,
    pool: Pool,
    network: Network,
    key: PeerKey,
    callee: Callee,
}

fn setting() -> Setting {
    let (ca, network) = (Ca::new(), Network::new());
    let callee = Callee::within(&network, &ca.handle("shop"));
    network.lead_to(callee.address);
    let dialer = dialer_within(&network);
    let pool = Pool::new(dialer, ca.handle("cart"), PoolLimits::default(), h3::Limits::default());
    Setting { ca, pool, network, key: key("cart", "shop", FRONT), callee }
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
    let Setting { pool, network, key, callee, .. } = setting();
    let release = gate();
    let _servers = serve(callee, &release);
    patient(&pool, &key).await;
    let client = pool.get(&key).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(request(&client, "/held").await);
    }
    network.be_silent(true);
    let over = Instant::now() + silence;
    let mut requests = Vec::new();
    while Instant::now() < over {
        let (pool, key) = (pool.clone(), key.clone());
        requests.push(tokio::task::spawn_local(async move { patient(&pool, &key).await }));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(network.dropped() > 0);
    network.be_silent(false);
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
            assert!(worst <= silence * 2 + AT_ONCE, "{silence:?}: {worst:?}");
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
            let Setting { pool, network, key, callee, .. } = setting();
            let release = gate();
            let _servers = serve(callee, &release);
            patient(&pool, &key).await;
            let client = pool.get(&key).await.unwrap();
            network.be_silent(true);
            let mut held = Vec::new();
            for _ in 0..20 {
                let (mut send, receive) = client.send(&head("/held"), false).await.unwrap();
                send.data(Bytes::from(vec![b'x'; 16 * 1024])).await.unwrap();
                held.push((send, receive));
            }
            let over = Instant::now() + Duration::from_secs(seconds);
            tokio::time::sleep_until(over).await;
            network.be_silent(false);
            assert!(patient(&pool, &key).await < AT_ONCE);
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
        let Setting { pool, network, key, callee, .. } = setting();
        let release = gate();
        let _servers = serve(callee, &release);
        let (_send, mut held) = request(&pool.get(&key).await.unwrap(), "/held").await;
        network.be_silent(true);
        let (_lost, mut lost) = request(&pool.get(&key).await.unwrap(), "/").await;
        until("the silence is noticed", || pool.stats().snapshot().suspected == 1).await;
        for _ in 0..20 {
            let asked = Instant::now();
            let error = pool.get(&key).await.unwrap_err();
            assert_eq!(error.reason(), HandshakeFailure::Timeout);
            assert!(asked.elapsed() <= PoolLimits::default().elsewhere_after + Duration::from_millis(10));
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        network.be_silent(false);
        assert_eq!(lost.response_head().await.unwrap().status, StatusCode::NO_CONTENT);
        release.add_permits(1);
        assert_eq!(held.response_head().await.unwrap().status, StatusCode::NO_CONTENT);
        assert_eq!(pool.stats().snapshot().lost, 0);
    });
}

#[test]
fn an_idle_connection_is_found_silent_before_a_request_needs_it() {
    on_its_own_clock(async {
        let Setting { pool, network, key, callee, .. } = setting();
        let _servers = serve(callee, &gate());
        patient(&pool, &key).await;
        network.be_silent(true);
        until("the silence is noticed", || pool.stats().snapshot().suspected == 1).await;
        network.be_silent(false);
        assert!(patient(&pool, &key).await < AT_ONCE);
    });
}

#[test]
fn a_peer_that_never_was_is_waited_for_until_the_connect_timeout() {
    on_its_own_clock(async {
        let Setting { pool, network, key, .. } = setting();
        network.be_silent(true);
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
        let Setting { ca, pool, network, key, callee, .. } = setting();
        let _servers = serve(callee, &gate());
        let (_send, mut held) = request(&pool.get(&key).await.unwrap(), "/held").await;
        // The peer begins anew with other keys, so that it can't reset what it has forgotten.
        let anew = Callee::within(&network, &ca.handle("shop"));
        network.lead_to(anew.address);
        let _servers = serve(anew, &gate());
        until("the silence is noticed", || pool.stats().snapshot().suspected == 1).await;
        let noticed = Instant::now();
        assert!(patient(&pool, &key).await < AT_ONCE);
        assert!(!held.response_head().await.unwrap_err().unprocessed);
        let waited = noticed.elapsed();
        assert!(waited >= Duration::from_secs(4) && waited < Duration::from_secs(8) + AT_ONCE, "{waited:?}");
        assert_eq!(pool.stats().snapshot().forgotten, 1);
    });
}

#[test]
fn streams_survive_a_new_address_of_the_caller() {
    on_its_own_clock(async {
        let Setting { pool, network, key, callee, .. } = setting();
        let (release, address) = (gate(), callee.address);
        let mut servers = serve(callee, &release);
        let (_send, mut held) = request(&pool.get(&key).await.unwrap(), "/held").await;
        let server = servers.recv().await.unwrap();
        let before = server.quic().remote_address();
        network.lead_to(address);
        assert!(patient(&pool, &key).await < AT_ONCE);
        assert_ne!(server.quic().remote_address(), before);
        release.add_permits(1);
        assert_eq!(held.response_head().await.unwrap().status, StatusCode::NO_CONTENT);
        let stats = pool.stats().snapshot();
        assert_eq!((stats.dials, stats.lost), (1, 0));
        assert_eq!(crate::tls::peer_identity(server.quic()).unwrap().id, id("cart"));
    });
}

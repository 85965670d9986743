//! The same exchanges through capture by nftables, which needs root, and random messages: run by `cargo xtask differential`.

use weft_tests::exchange::h1::{self, Act};

use super::ground::{Declared, Ground, LANES, MOST_LANES, Way};
use super::{cases, random, report, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root, nft and network namespaces: cargo xtask differential"]
async fn every_captured_exchange_is_the_same() {
    let cases = cases::all();
    let ground = Ground::captured().await;
    let failures = run::all(ground, &cases, &[Way::Captured]).await;
    report::judge("captured", &cases, failures);
}

/// A redirection gives a connection another port where the client uses its own towards another address, too: the client's
/// socket is then not where the proxy looks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root, nft and network namespaces: cargo xtask differential"]
async fn every_captured_exchange_from_a_port_in_use_is_answered() {
    const PORT: u16 = 29_999;
    let ground = Ground::captured().await;
    let mut held = Vec::new();
    for index in 0..LANES {
        let lane = ground.lane(Declared::Http, index);
        lane.meshed.prepare(&[], &[]);
        let stream = ground.dial_from(PORT, lane).expect("a connection");
        held.push(ground.dial_from(PORT, ground.lane(Declared::Nothing, index)).expect("a connection"));
        let request = format!("GET /half HTTP/1.1\r\nhost: {}\r\n\r\n", lane.authority());
        let acts = [Act::Send(request.into_bytes()), Act::Finish];
        let seen = h1::client(stream, &["GET"], &acts, &lane.meshed).await;
        assert_eq!(seen.get("1.line"), Some("HTTP/1.1 200 OK"), "a half-closed client on lane {index}:\n{seen}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes as long as it is told to: cargo xtask differential"]
async fn broken_messages_arrive_as_they_are_or_not_at_all() {
    let ground = Ground::on_loopback(MOST_LANES).await;
    random::run(&ground, random::time(10)).await;
}

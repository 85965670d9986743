//! The same exchanges through capture by nftables, which needs root, and random messages: run by `cargo xtask differential`.

use super::ground::{Ground, MOST_LANES, Way};
use super::{cases, random, report, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root, nft and network namespaces: cargo xtask differential"]
async fn every_captured_exchange_is_the_same() {
    let cases = cases::all();
    let ground = Ground::captured().await;
    let failures = run::all(ground, &cases, &[Way::Captured]).await;
    report::judge("captured", &cases, failures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes as long as it is told to: cargo xtask differential"]
async fn broken_messages_arrive_as_they_are_or_not_at_all() {
    let ground = Ground::on_loopback(MOST_LANES).await;
    random::run(&ground, random::time(10)).await;
}

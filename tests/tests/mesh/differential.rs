//! The rule of proof: an exchange through two sidecars is the same as one without them, at the client and at the origin, but for
//! what `allowed.rs` lists. `cases` makes the exchanges, `ground` the ways, `report` says what differs.

mod allowed;
mod cases;
mod ground;
mod known;
mod long;
mod random;
mod report;
mod run;

use ground::{Ground, LANES, Way};

/// A case for each sensible pair of what the tables hold; fewer would prove little.
const LEAST: usize = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_exchange_is_the_same() {
    let cases = cases::all();
    assert!(cases.len() >= LEAST, "{} cases", cases.len());
    let ground = Ground::on_loopback(LANES).await;
    let failures = run::all(ground, &cases, &[Way::Explicit, Way::Tunnel]).await;
    report::judge("loopback", &cases, failures);
}

#[test]
fn names_are_unique_and_every_family_has_cases() {
    let cases = cases::all();
    let names: std::collections::BTreeSet<_> = cases.iter().map(|case| (case.family, case.name.as_str())).collect();
    assert_eq!(names.len(), cases.len(), "two cases of one name");
}

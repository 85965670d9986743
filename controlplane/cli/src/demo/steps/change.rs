//! Change under load: weights move, the control plane dies and comes back, and in the end every request is accounted for.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use weft_api::{Proxies, SyncState, Version};

use super::super::members::{self, FRONTEND, PARTNER, REVIEWS, SHOPPER, identity};
use super::super::stage::{Load, Stage};
use super::{Evidence, POLL, in_words, requests};

/// How long each setting of the canary is watched.
const WATCH: Duration = Duration::from_secs(2);
const OUTAGE: Duration = Duration::from_secs(3);

pub(in super::super) async fn canary(stage: &Stage) -> Evidence {
    let mut lines = Vec::new();
    let mut last = stage.load().await?;
    let failed_before = last.bad();
    for (v1, v2) in [(100, 0), (90, 10), (0, 100)] {
        stage.apply(&members::canary(v1, v2)).await.map_err(in_words)?;
        let first = settled(stage).await?;
        last = watched(stage, WATCH).await?;
        let (one, two) = (last.release("v1") - first.release("v1"), last.release("v2") - first.release("v2"));
        let total = one + two;
        ensure!(total >= 50, "only {total} answers in {} s", WATCH.as_secs());
        let share = two * 100 / total;
        let right = match v2 {
            0 => two == 0,
            100 => one == 0,
            // Far beyond what chance does to two hundred.
            _ => (2..=25).contains(&share),
        };
        ensure!(right, "at weights {v1}:{v2} the answers were v1={one} v2={two}");
        lines.push(format!("{v1}:{v2} gave v1={one} v2={two}"));
    }
    let failed = last.bad() - failed_before;
    ensure!(failed == 0, "{failed} requests failed meanwhile: {:?}", last.failures);
    Ok(format!("weights {}; none failed", lines.join(", ")))
}

/// The load once what was open at the change has been answered: everything later is decided by it.
pub(super) async fn settled(stage: &Stage) -> anyhow::Result<Load> {
    let mark = stage.load().await?.sent;
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let load = stage.load().await?;
        if load.answered + load.failed >= mark {
            return Ok(load);
        }
        ensure!(Instant::now() < deadline, "requests are open for over 5 s");
        tokio::time::sleep(POLL).await;
    }
}

/// The load after a while that is the subject, not a wait for something.
async fn watched(stage: &Stage, time: Duration) -> anyhow::Result<Load> {
    tokio::time::sleep(time).await;
    stage.load().await
}

pub(in super::super) async fn outage(stage: &mut Stage) -> Evidence {
    let before = stage.load().await?;
    stage.kill_control().await?;
    ensure!(stage.api()?.fetch::<Version>("/version").await.is_err(), "the control plane still answers");
    let during = watched(stage, OUTAGE).await?;
    let served = during.answered - before.answered;
    ensure!(served >= 50, "only {served} answers in {} s without a control plane", OUTAGE.as_secs());
    let page = stage.fetch(PARTNER, "http://reviews/reviews/tea", &[]).await?;
    ensure!(page.status == 200, "without a control plane: {} {}", page.status, page.text);
    let denied = stage.fetch(PARTNER, "http://reviews/admin/settings", &[]).await?;
    ensure!(denied.status == 403, "without a control plane /admin answered {}", denied.status);
    stage.start_control().await.map_err(in_words)?;
    let back = Instant::now();
    wait_for_all(stage).await?;
    let joined = back.elapsed();
    stage.apply(&members::canary(50, 50)).await.map_err(in_words)?;
    let after = stage.load().await?;
    let failed = after.bad() - before.bad();
    ensure!(failed == 0, "{failed} requests failed meanwhile: {:?}", after.failures);
    Ok(format!(
        "{served} requests answered in {} s without it, policies in force; back: all {} proxies synced {} ms later, \
         a change went through; none failed",
        OUTAGE.as_secs(),
        stage.count(),
        joined.as_millis()
    ))
}

async fn wait_for_all(stage: &Stage) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(15);
    let api = stage.api()?;
    loop {
        let Proxies { proxies, .. } = api.fetch("/proxies").await?;
        let synced = proxies.iter().filter(|proxy| proxy.state == SyncState::Synced).count();
        if synced >= stage.count() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let states: Vec<String> = proxies.iter().map(|proxy| format!("{}: {}", proxy.name, proxy.state)).collect();
            bail!("15 s after its return only {synced} proxies are synced: {}", states.join(", "));
        }
        tokio::time::sleep(POLL).await;
    }
}

pub(in super::super) async fn counted(stage: &Stage) -> Evidence {
    stage.set_load("pause").await?;
    let load = settled(stage).await?;
    ensure!(load.bad() == 0, "{} failed: {:?}", load.bad(), load.failures);
    ensure!(load.sent == load.answered, "sent {}, answered {}", load.sent, load.answered);
    let of_shopper = identity("shopper");
    let labels = [("source_principal", of_shopper.as_str()), ("response_code", "200")];
    let deadline = Instant::now() + Duration::from_secs(3);
    loop {
        let mut destinations = 0.0;
        for name in REVIEWS.into_iter().chain([FRONTEND]) {
            destinations += requests(&stage.scrape(name).await?, "destination", &labels);
        }
        let source = requests(&stage.scrape(SHOPPER).await?, "source", &[("response_code", "200")]);
        #[expect(clippy::cast_precision_loss, reason = "counts of a minute are exact in an f64")]
        let sent = load.sent as f64;
        if (destinations - sent).abs() < 0.5 && (source - sent).abs() < 0.5 {
            break;
        }
        let seen = format!("{sent} sent, {source} counted by the source, {destinations} by the destinations");
        ensure!(Instant::now() < deadline, "{seen}");
        tokio::time::sleep(POLL).await;
    }
    stage.set_load("resume").await?;
    Ok(format!(
        "{} sent, {} answered with 200, as many counted by the shopper's sidecar and by the destinations'; slowest {} ms",
        load.sent, load.answered, load.slowest_ms
    ))
}

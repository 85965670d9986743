//! Filters beyond heads: a body is judged, a service is asked, a version is taken back, a rule changes under load.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use weft_api::Proxies;
use weft_policy::component::with_section;

use super::super::members::{self, FRONTEND, GUARD, PARTNER, REVIEWS, RULE_STATUS, identity, word};
use super::super::stage::Stage;
use super::change::settled;
use super::{Evidence, POLL, in_words, requests, scraped_until};
use crate::programs::CONTROL;

/// Times that the rule changes.
const CHANGES: u32 = 5;
/// How soon every proxy runs what a channel stands for.
const TAKEN_UP: Duration = Duration::from_secs(15);
const STAMP: &str = "stamp";
const VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];

pub(in super::super) async fn judged(stage: &Stage) -> Evidence {
    let url = "http://reviews/reviews/tea";
    let (whole, broken) = (r#"{"text": "Keeps the tea warm."}"#, r#"{"text": "Keeps the tea"#);
    let before = stage.post(PARTNER, url, broken).await?;
    ensure!(before.status == 201, "without a policy a broken body was answered {}: {}", before.status, before.text);
    stage.apply(members::BODY).await.map_err(in_words)?;
    let counted = refused_bodies(stage).await?;
    let refused = stage.post(PARTNER, url, broken).await?;
    let is_told = refused.text.starts_with("body refused: ");
    ensure!(refused.status == 400 && is_told, "a broken body was answered {}: {}", refused.status, refused.text);
    let empty = stage.post(PARTNER, url, "{}").await?;
    ensure!(empty.status == 400, "a body without its field was answered {}: {}", empty.status, empty.text);
    let taken = stage.post(PARTNER, url, whole).await?;
    let bytes = taken.json()["bytes"].as_u64();
    ensure!(taken.status == 201, "a whole body was answered {}: {}", taken.status, taken.text);
    ensure!(bytes == Some(whole.len() as u64), "reviews got {bytes:?} bytes of {}", whole.len());
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut seen = 0.0;
    while seen < 1.5 && Instant::now() < deadline {
        seen = refused_bodies(stage).await? - counted;
        tokio::time::sleep(POLL).await;
    }
    ensure!((seen - 2.0).abs() < 0.5, "reviews' sidecars counted {seen} refused bodies, not 2");
    Ok(format!(
        "POST {url}: broken JSON 201 before, 400 after ({}); a whole one arrived; counted 2",
        refused.text.trim()
    ))
}

async fn refused_bodies(stage: &Stage) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for name in REVIEWS {
        sum += stage.scrape(name).await?.sum("weft_filter_custom_bodies_refused_total", &[]);
    }
    Ok(sum)
}

pub(in super::super) async fn asked(stage: &Stage) -> Evidence {
    let url = "http://frontend/product/cake";
    let before = stage.fetch(PARTNER, url, &[]).await?;
    ensure!(before.status == 200, "without a policy cake was answered {}: {}", before.status, before.text);
    let load = stage.load().await?;
    stage.apply(members::ASK).await.map_err(in_words)?;
    let of_frontend = identity("frontend");
    let labels = [("source_principal", of_frontend.as_str()), ("response_code", "403")];
    let counted = requests(&stage.scrape(GUARD).await?, "destination", &labels);
    let refused = stage.fetch(PARTNER, url, &[]).await?;
    let words = "cake is for those with a badge";
    let is_told = refused.text.trim() == words;
    ensure!(refused.status == 403 && is_told, "cake was answered {}: {}", refused.status, refused.text);
    let passed = stage.fetch(PARTNER, url, &[("x-badge", "gold")]).await?;
    ensure!(passed.status == 200, "with a badge cake was answered {}: {}", passed.status, passed.text);
    let scrape = scraped_until(stage, GUARD, |scrape| requests(scrape, "destination", &labels) > counted).await?;
    let seen = requests(&scrape, "destination", &labels) - counted;
    ensure!((seen - 1.0).abs() < 0.5, "guard's sidecar counted {seen} refusals to {FRONTEND}, not 1");
    let after = stage.load().await?;
    ensure!(after.bad() == load.bad(), "the shopper was hit: {:?}", after.failures);
    Ok(format!("GET {url}: 403 in the guard's words ({words}), 200 with a badge; the guard was asked as {of_frontend}"))
}

pub(in super::super) async fn rolled_back(stage: &Stage) -> Evidence {
    let before = stage.load().await?;
    let key = stage.folder().join("publisher.key").display().to_string();
    stage.weft(&["filter", "keygen", "--out", &key]).await?;
    for version in VERSIONS {
        let file = stamped(stage, version)?;
        stage.weft(&["filter", "publish", &file, "--name", STAMP, "--version", version, "--key", &key]).await?;
    }
    stage.apply(members::STAMP).await.map_err(in_words)?;
    let [old, new] = VERSIONS;
    taken_up(stage, old).await?;
    stage.weft(&["filter", "promote", &format!("{STAMP}@{new}")]).await?;
    let promoted = taken_up(stage, new).await?;
    stage.weft(&["filter", "rollback", STAMP]).await?;
    let back = taken_up(stage, old).await?;
    let page = stage.fetch(PARTNER, "http://reviews/reviews/tea", &[]).await?;
    ensure!(page.status == 200, "afterwards {}: {}", page.status, page.text);
    let after = settled(stage).await?;
    ensure!(after.bad() == before.bad(), "requests failed meanwhile: {:?}", after.failures);
    let served = after.answered.saturating_sub(before.answered);
    Ok(format!(
        "{STAMP} {new} was promoted and ran everywhere {} ms later, {old} again {} ms after its rollback; {served} requests \
         answered meanwhile, none failed",
        promoted.as_millis(),
        back.as_millis()
    ))
}

/// A version of the filter: the shipped `header-edit` with the number in a section of its own, so that each is another binary.
fn stamped(stage: &Stage, version: &str) -> anyhow::Result<String> {
    let shipped = CONTROL.find()?.with_file_name("filters").join("header-edit.wasm");
    let wasm = std::fs::read(&shipped).with_context(|| format!("cannot read {}", shipped.display()))?;
    let file = stage.folder().join(format!("{STAMP}-{version}.wasm"));
    let wasm = with_section(wasm, "demo", version.as_bytes());
    std::fs::write(&file, wasm).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file.display().to_string())
}

/// Waits until the proxies of reviews say that they run this version; how long it took.
async fn taken_up(stage: &Stage, version: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let (attachment, expect) = (format!("{}/{STAMP}", members::NAMESPACE), format!("{version} loaded"));
    let api = stage.api()?;
    loop {
        let Proxies { proxies, .. } = api.fetch("/proxies").await?;
        let mut states = Vec::new();
        for proxy in proxies.iter().filter(|proxy| REVIEWS.contains(&proxy.name.as_str())) {
            let filter = proxy.filters.iter().find(|filter| filter.name == attachment);
            states.push(filter.map_or_else(
                || format!("{} has no {attachment}", proxy.name),
                |filter| format!("{} {}", filter.version, filter.state),
            ));
        }
        if states.len() == REVIEWS.len() && states.iter().all(|state| *state == expect) {
            return Ok(begun.elapsed());
        }
        ensure!(begun.elapsed() < TAKEN_UP, "{version} is not everywhere after {TAKEN_UP:?}: {}", states.join("; "));
        tokio::time::sleep(POLL).await;
    }
}

pub(in super::super) async fn changed(stage: &Stage) -> Evidence {
    let before = stage.load().await?;
    let url = "http://reviews/reviews/tea";
    for number in 1..=CHANGES {
        stage.apply(&members::rule(number)).await.map_err(in_words)?;
        let (new, old) = (word(number), word(number - 1));
        let refused = stage.fetch(PARTNER, url, &[("x-demo", new.as_str())]).await?;
        ensure!(refused.status == RULE_STATUS, "rule {number}: {new} was answered {}", refused.status);
        let passed = stage.fetch(PARTNER, url, &[("x-demo", old.as_str())]).await?;
        ensure!(passed.status == 200, "rule {number}: {old} was answered {}: {}", passed.status, passed.text);
    }
    stage.set_load("pause").await?;
    let seen = settled(stage).await;
    stage.set_load("resume").await?;
    let after = seen?;
    ensure!(after.bad() == before.bad(), "requests failed meanwhile: {:?}", after.failures);
    ensure!(after.sent == after.answered, "sent {}, answered {}", after.sent, after.answered);
    let served = after.answered.saturating_sub(before.answered);
    ensure!(served > 0, "no load ran meanwhile");
    Ok(format!(
        "the rule changed {CHANGES} times under load: each new one held at once, the old one no more; {served} sent and answered, \
         none failed"
    ))
}

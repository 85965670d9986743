//! Traffic that goes wrong: a release that fails is left out, requests are copied to one that nobody waits for, and a storm of
//! retries ends at its budget. All as the partner: the shopper's load sees nothing of it.

use anyhow::{bail, ensure};

use super::super::members::{self, PARTNER, REVIEWS};
use super::super::stage::Stage;
use super::{Evidence, in_words, scraped_until};

/// So many good answers in a row show that the release that fails is not asked any more.
const IN_A_ROW: u32 = 30;
const COPIED: u32 = 10;
/// Requests of the storm, so many at a time.
const STORM: u32 = 200;
const AT_A_TIME: u32 = 20;
/// Further attempts that the policy asks for, for each of them.
const ATTEMPTS: u32 = 3;
/// Further attempts that the budget grants: a fifth of the requests, or three a second of a storm that may last five.
const GRANTED: u32 = STORM / 5 + 3 * 5;

pub(in super::super) async fn ejected(stage: &Stage) -> Evidence {
    stage.apply(members::TRAFFIC).await.map_err(in_words)?;
    let (mut failed, mut in_a_row) = (0_u32, 0_u32);
    for _ in 0..200 {
        let answer = stage.fetch(PARTNER, "http://reviews-any/reviews/tea", &[("x-demo", "broken-v2")]).await?;
        match answer.status {
            200 => in_a_row += 1,
            503 => (failed, in_a_row) = (failed + 1, 0),
            status => bail!("neither 200 nor 503: {status}: {}", answer.text),
        }
        if failed > 0 && in_a_row == IN_A_ROW {
            break;
        }
    }
    ensure!(failed > 0 && in_a_row == IN_A_ROW, "after {failed} failures only {in_a_row} good answers in a row");
    let is_out = |scrape: &crate::metrics::Scrape| scrape.sum("weft_endpoints_ejected", &[]) > 0.5;
    ensure!(is_out(&scraped_until(stage, PARTNER, is_out).await?), "no endpoint is told as ejected");
    Ok(format!("v2 failed {failed} times and was left out: {IN_A_ROW} answers of v1 in a row"))
}

pub(in super::super) async fn mirrored(stage: &Stage) -> Evidence {
    let sent = [("result", "answered")];
    let (of_sender, of_copies) = (stage.scrape(PARTNER).await?, stage.scrape(REVIEWS[1]).await?);
    for _ in 0..COPIED {
        let answer = stage.fetch(PARTNER, "http://reviews-copied/reviews/tea", &[]).await?;
        ensure!(answer.status == 200, "status {}: {}", answer.status, answer.text);
        ensure!(answer.json()["release"] == "v1", "not v1 answered: {}", answer.text);
    }
    let expect = f64::from(COPIED);
    let is_as_many = |now: f64, before: f64| (now - before - expect).abs() < 0.5;
    let before = of_sender.sum("weft_mirrored_requests_total", &sent);
    let is_told =
        |scrape: &crate::metrics::Scrape| is_as_many(scrape.sum("weft_mirrored_requests_total", &sent), before);
    ensure!(is_told(&scraped_until(stage, PARTNER, is_told).await?), "not {COPIED} copies were answered");
    let served = "weft_mirrored_requests_served_total";
    let before = of_copies.sum(served, &[]);
    let is_served = |scrape: &crate::metrics::Scrape| is_as_many(scrape.sum(served, &[]), before);
    ensure!(is_served(&scraped_until(stage, REVIEWS[1], is_served).await?), "v2 did not serve {COPIED} copies");
    Ok(format!("{COPIED} requests answered by v1, as many copies served by v2"))
}

pub(in super::super) async fn stormed(stage: &Stage) -> Evidence {
    let before = stage.scrape(PARTNER).await?;
    for _ in 0..STORM / AT_A_TIME {
        let calls =
            (0..AT_A_TIME).map(|_| stage.fetch(PARTNER, "http://reviews-again/reviews/tea", &[("x-demo", "broken")]));
        for answer in futures_util::future::join_all(calls).await {
            let answer = answer?;
            ensure!(answer.status == 503, "status {}: {}", answer.status, answer.text);
        }
    }
    let since = |scrape: &crate::metrics::Scrape, name: &str| scrape.sum(name, &[]) - before.sum(name, &[]);
    let (again, refused) = ("weft_policy_retries_total", "weft_retries_refused_total");
    let is_stopped = |scrape: &crate::metrics::Scrape| since(scrape, refused) > 0.5;
    let after = scraped_until(stage, PARTNER, is_stopped).await?;
    let (again, refused) = (since(&after, again), since(&after, refused));
    ensure!(again > 0.5 && again <= f64::from(GRANTED), "{again} further attempts, at most {GRANTED} are granted");
    ensure!(refused > 0.5, "the budget stopped nothing");
    let asked = STORM * ATTEMPTS;
    Ok(format!("{STORM} requests that all fail: {again} further attempts of the {asked} that the policy asks for"))
}

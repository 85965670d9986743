//! The steps of the story. Each returns its evidence as text, or what was seen instead; nothing is taken on trust that
//! `curl` or `/metrics` could not show from outside.

pub(super) mod basics;
pub(super) mod change;
pub(super) mod filters;
pub(super) mod policies;
pub(super) mod protection;
pub(super) mod traffic;

use std::time::{Duration, Instant};

use super::stage::Stage;
use crate::answer::Failure;
use crate::metrics::Scrape;

type Evidence = anyhow::Result<String>;

const POLL: Duration = Duration::from_millis(50);

/// Number of requests that the side `reporter` counted under these labels.
fn requests(scrape: &Scrape, reporter: &str, labels: &[(&str, &str)]) -> f64 {
    let mut all = vec![("reporter", reporter)];
    all.extend_from_slice(labels);
    scrape.sum("istio_requests_total", &all)
}

/// Scrapes until a condition holds: counters follow an answer within moments, not before it.
async fn scraped_until(stage: &Stage, name: &str, holds: impl Fn(&Scrape) -> bool) -> anyhow::Result<Scrape> {
    let deadline = Instant::now() + Duration::from_secs(3);
    loop {
        let scrape = stage.scrape(name).await?;
        if holds(&scrape) || Instant::now() > deadline {
            return Ok(scrape);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn in_words(failure: Failure) -> anyhow::Error {
    match failure {
        Failure::Unable(error) => error,
        Failure::Refused(text) | Failure::Told { text, .. } => anyhow::anyhow!(text),
    }
}

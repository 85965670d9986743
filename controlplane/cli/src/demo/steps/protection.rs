//! Protection that nobody takes away by mistake, and a proxy that is thrown out.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use weft_api::{Authority, BanRequest, Banned, Deleted, RotateRequest, Signer, Unbanned};

use super::super::members::PARTNER;
use super::super::stage::Stage;
use super::{Evidence, POLL};
use crate::api::Error;

/// A ban holds on every proxy within this.
const CUT_OFF: Duration = Duration::from_secs(2);
/// So long a proxy may take to come back once it is let in.
const BACK: Duration = Duration::from_secs(15);

pub(in super::super) async fn kept(stage: &Stage) -> Evidence {
    let refusal = match stage.api()?.delete::<Deleted>("/resources/services/shop/reviews", &()).await {
        Ok(Deleted { revision, .. }) => {
            bail!("the Service that shop/no-admin protects was deleted at revision {revision}")
        }
        Err(Error::Refused(refusal)) => refusal,
        Err(error) => return Err(error.into()),
    };
    let why = &refusal.told.message;
    ensure!(refusal.status == 422 && why.contains("shop/no-admin"), "refused with {}: {why}", refusal.status);
    let page = stage.fetch(PARTNER, "http://reviews/reviews/tea", &[]).await?;
    let denied = stage.fetch(PARTNER, "http://reviews/admin/settings", &[]).await?;
    ensure!((page.status, denied.status) == (200, 403), "afterwards {} and {}", page.status, denied.status);
    Ok(format!("deleting the Service reviews: {why}"))
}

pub(in super::super) async fn banned(stage: &Stage) -> Evidence {
    let url = "http://reviews/reviews/tea";
    let before = stage.load().await?;
    let ban = BanRequest { proxy: "shop/partner".to_owned(), reason: "the demo".to_owned() };
    let begun = Instant::now();
    stage.api()?.post::<Banned>("/bans", &ban).await?;
    let cut = until(stage, url, 503, CUT_OFF).await?;
    let took = begun.elapsed();
    stage.api()?.delete::<Unbanned>("/bans/shop%2Fpartner", &()).await?;
    let begun = Instant::now();
    until(stage, url, 200, BACK).await?;
    let back = begun.elapsed();
    let after = stage.load().await?;
    ensure!(after.bad() == before.bad(), "the shopper was hit too: {:?}", after.failures);
    Ok(format!(
        "partner got 503 {} ms after its ban ({cut}), 200 {} ms after it was let in again; of the shopper's load none",
        took.as_millis(),
        back.as_millis()
    ))
}

pub(in super::super) async fn rotated(stage: &Stage) -> Evidence {
    let before = stage.load().await?;
    let old: Authority = stage.api()?.fetch("/authority").await?;
    let request = RotateRequest { signer: Signer::Root };
    let new: Authority = stage.api()?.post("/authority/rotate", &request).await?;
    ensure!(new.previous.as_ref() == Some(&old.root), "the old root is not trusted on: {new:?}");
    let page = stage.fetch(PARTNER, "http://reviews/reviews/tea", &[]).await?;
    ensure!(page.status == 200, "afterwards {}", page.status);
    let left = new.left.unwrap_or_default();
    let after = stage.load().await?;
    ensure!(after.bad() == before.bad(), "the shopper was hit: {:?}", after.failures);
    Ok(format!(
        "a new root signs; {} certificates of the old one are good until they end; of the load none failed",
        left.certificates
    ))
}

/// Asks as partner until the answer has this status; its text.
async fn until(stage: &Stage, url: &str, status: u16, limit: Duration) -> anyhow::Result<String> {
    let deadline = Instant::now() + limit;
    loop {
        let answer = stage.fetch(PARTNER, url, &[]).await?;
        if answer.status == status {
            return Ok(answer.text.trim().to_owned());
        }
        ensure!(Instant::now() < deadline, "{limit:?} later it is still {}: {}", answer.status, answer.text.trim());
        tokio::time::sleep(POLL).await;
    }
}

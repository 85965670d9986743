//! Filters at work: a denial that explains itself, a delay for some, a limit by identity.

use std::time::{Duration, Instant};

use anyhow::ensure;
use weft_api::{ExplainQuery, Explanation};

use super::super::members::{self, DELAY_MS, LIMIT_BURST, PARTNER, identity};
use super::super::stage::Stage;
use super::basics::reviews_requests;
use super::{Evidence, POLL, in_words};

pub(in super::super) async fn denied(stage: &Stage) -> Evidence {
    let url = "http://reviews/admin/settings";
    let before = stage.fetch(PARTNER, url, &[]).await?;
    ensure!(before.status == 200, "without a policy /admin answered {}: {}", before.status, before.text);
    let of_partner = identity("partner");
    let labels = [("source_principal", of_partner.as_str()), ("response_code", "403")];
    let counted = reviews_requests(stage, "destination", &labels).await?;
    stage.apply(members::DENY).await.map_err(in_words)?;
    let answer = stage.fetch(PARTNER, url, &[]).await?;
    ensure!(answer.status == 403, "with the policy /admin answered {}: {}", answer.status, answer.text);
    // Out of the policy's sight by another spelling of the same path.
    let disguised = stage.fetch(PARTNER, "http://reviews/x/..//%61dmin/settings", &[]).await?;
    ensure!(disguised.status == 403, "a disguised /admin answered {}: {}", disguised.status, disguised.text);
    let other = stage.fetch(PARTNER, "http://reviews/reviews/tea", &[]).await?;
    ensure!(other.status == 200, "another path answered {}: {}", other.status, other.text);
    let question = ExplainQuery {
        sni: None,
        from: "shop/partner".to_owned(),
        to: "reviews.shop".to_owned(),
        port: None,
        method: "GET".to_owned(),
        path: "/admin/settings".to_owned(),
        headers: Default::default(),
        claims: Default::default(),
    };
    let explanation: Explanation = stage.api()?.post("/explain", &question).await?;
    ensure!(!explanation.allowed, "explain says {explanation:?}");
    let names_it = format!("{explanation:?}").contains("shop/no-admin");
    ensure!(names_it, "explain names no rule of shop/no-admin: {explanation:?}");
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut seen = 0.0;
    while seen < 1.5 && Instant::now() < deadline {
        seen = reviews_requests(stage, "destination", &labels).await? - counted;
        tokio::time::sleep(POLL).await;
    }
    ensure!((seen - 2.0).abs() < 0.5, "reviews' sidecars counted {seen} answers of 403, not 2");
    Ok(format!(
        "GET {url}: 200 before, 403 after ({}); so is /x/..//%61dmin; explain names shop/no-admin; counted 2",
        answer.text.trim()
    ))
}

pub(in super::super) async fn delayed(stage: &Stage) -> Evidence {
    stage.apply(members::DELAY).await.map_err(in_words)?;
    let url = "http://reviews/reviews/tea";
    let quick = stage.fetch(PARTNER, url, &[]).await?;
    let slow = stage.fetch(PARTNER, url, &[("x-demo", "slow")]).await?;
    ensure!(quick.status == 200 && slow.status == 200, "status {} and {}", quick.status, slow.status);
    let (quick, slow) = (quick.took.as_millis(), slow.took.as_millis());
    let delay = u128::from(DELAY_MS);
    ensure!(slow >= delay && slow < delay + 1000, "with the header it took {slow} ms, not {delay} and a little");
    ensure!(quick < delay, "without the header it took {quick} ms");
    Ok(format!("with `x-demo: slow` {slow} ms, without {quick} ms (injected: {delay} ms)"))
}

pub(in super::super) async fn limited(stage: &Stage) -> Evidence {
    stage.apply(members::LIMIT).await.map_err(in_words)?;
    let before = stage.load().await?;
    let (mut passed, mut refused, mut other) = (0_u32, 0_u32, Vec::new());
    let started = Instant::now();
    let sent = LIMIT_BURST * 4;
    let calls = (0..sent).map(|_| stage.fetch(PARTNER, "http://frontend/healthz", &[]));
    for answer in futures_util::future::join_all(calls).await {
        let answer = answer?;
        match answer.status {
            200 => passed += 1,
            429 => refused += 1,
            status => other.push(format!("{status}: {}", answer.text.trim())),
        }
    }
    let took = started.elapsed();
    ensure!(other.is_empty(), "neither 200 nor 429: {other:?}");
    // The bucket holds a burst and is refilled at the same number a second.
    let refilled = took.as_secs_f64() * f64::from(LIMIT_BURST);
    let most = f64::from(LIMIT_BURST) + refilled + 1.0;
    ensure!(f64::from(passed) <= most, "{passed} passed in {} ms; at most {most:.0} may", took.as_millis());
    ensure!(passed >= 1 && refused >= 1, "{passed} passed, {refused} were refused");
    let after = stage.load().await?;
    ensure!(after.bad() == before.bad(), "the shopper was hit too: {:?}", after.failures);
    Ok(format!("of {sent} at once as partner {passed} got 200 and {refused} got 429; of the shopper's load none"))
}

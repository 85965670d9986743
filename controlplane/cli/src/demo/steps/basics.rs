//! Identities, HTTP, gRPC and TCP: that calls arrive, through whom, and that both sides counted them as mutual TLS.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use serde_json::json;
use weft_api::{Proxies, SyncState};

use super::super::members::{self, FRONTEND, PARTNER, PRICES, REVIEWS, STOCK, identity};
use super::super::stage::Stage;
use super::{Evidence, POLL, requests, scraped_until};

pub(in super::super) async fn identities(stage: &Stage) -> Evidence {
    let deadline = Instant::now() + Duration::from_secs(10);
    let api = stage.api()?;
    loop {
        let answer = api.fetch::<Proxies>("/proxies").await?;
        let missing = not_synced(stage, &answer);
        if missing.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            bail!("not as they should be: {}", missing.join("; "));
        }
        tokio::time::sleep(POLL).await;
    }
    let answer = stage.fetch(PARTNER, "http://reviews/reviews/tea", &[]).await?;
    let caller = answer.json()["caller"].as_str().unwrap_or_default().to_owned();
    let expected = identity("partner");
    ensure!(
        answer.status == 200 && caller == expected,
        "reviews saw {caller:?} (status {}: {})",
        answer.status,
        answer.text
    );
    Ok(format!("{} proxies synced; reviews was told that its caller is {caller}", stage.count()))
}

fn not_synced(stage: &Stage, answer: &Proxies) -> Vec<String> {
    let wrong = |(member, _): (members::Member, std::net::IpAddr)| {
        let expected = identity(member.service_account);
        let Some(proxy) = answer.proxies.iter().find(|proxy| proxy.name == member.name) else {
            return Some(format!("{} has not joined", member.name));
        };
        let good = proxy.identity == expected && proxy.state == SyncState::Synced;
        (!good).then(|| format!("{} is {} as {}", member.name, proxy.state, proxy.identity))
    };
    stage.members().filter_map(wrong).collect()
}

pub(in super::super) async fn http(stage: &Stage) -> Evidence {
    let labels = [("source_principal", identity("partner")), ("connection_security_policy", "mutual_tls".to_owned())];
    let labels: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let labels = [labels.as_slice(), &[("response_code", "200")]].concat();
    let before = requests(&stage.scrape(FRONTEND).await?, "destination", &labels);
    let answer = stage.fetch(PARTNER, "http://frontend/product/tea", &[]).await?;
    ensure!(answer.status == 200, "status {}: {}", answer.status, answer.text);
    let page = answer.json();
    ensure!(page["cents"] == 450, "the page has no price: {page}");
    ensure!(page["reviews"]["caller"] == identity("frontend").as_str(), "reviews saw {}", page["reviews"]["caller"]);
    let scrape = scraped_until(stage, FRONTEND, |scrape| requests(scrape, "destination", &labels) > before).await?;
    let counted = requests(&scrape, "destination", &labels) - before;
    ensure!(
        (counted - 1.0).abs() < 0.5,
        "frontend's sidecar counted {counted} requests of partner as mutual_tls, not 1"
    );
    Ok(format!(
        "GET http://frontend/product/tea: 200 in {} ms; its page comes of HTTP, gRPC and TCP behind it; \
         frontend's sidecar counted it once, connection_security_policy=mutual_tls",
        answer.took.as_millis()
    ))
}

pub(in super::super) async fn grpc(stage: &Stage) -> Evidence {
    let of_partner = identity("partner");
    let all = [("source_principal", of_partner.as_str()), ("request_protocol", "grpc")];
    let not_found = [all.as_slice(), &[("grpc_response_status", "5")]].concat();
    let before = stage.scrape(PRICES).await?;
    let report = stage.probe(PARTNER, "probe-prices", "prices:80").await?;
    let expected = json!({
        "unary_cents": 900,
        "caller": of_partner,
        "server_streaming": [450, 451, 452, 453, 454],
        "client_streaming": {"items": 3, "cents": 1350},
        "bidirectional": [520, 1040],
        "unknown_sku": "NotFound",
    });
    ensure!(report == expected, "the probe saw {report}");
    let total = |scrape: &_| requests(scrape, "destination", &all) - requests(&before, "destination", &all);
    let missing =
        |scrape: &_| requests(scrape, "destination", &not_found) - requests(&before, "destination", &not_found);
    let after = scraped_until(stage, PRICES, |scrape| total(scrape) > 4.5).await?;
    let (calls, errors) = (total(&after), missing(&after));
    ensure!(
        (calls - 5.0).abs() < 0.5 && (errors - 1.0).abs() < 0.5,
        "prices' sidecar counted {calls} calls, {errors} NOT_FOUND"
    );
    Ok("all four kinds answered right, NOT_FOUND arrived as grpc-status 5; prices' sidecar counted 5 grpc calls, 1 with status 5".to_owned())
}

pub(in super::super) async fn tcp(stage: &Stage) -> Evidence {
    let of_partner = identity("partner");
    let labels = [
        ("reporter", "destination"),
        ("source_principal", of_partner.as_str()),
        ("connection_security_policy", "mutual_tls"),
    ];
    let name = "istio_tcp_connections_opened_total";
    let before = stage.scrape(STOCK).await?.sum(name, &labels);
    let report = stage.probe(PARTNER, "probe-stock", "stock:7000").await?;
    let number = |key: &str| report[key].as_str()?.strip_prefix("OK ")?.parse::<u64>().ok();
    // The frontend counts too, and takes nothing: one less after our own TAKE.
    let (Some(count), Some(left)) = (number("count"), number("take")) else { bail!("stock said {report}") };
    ensure!(left + 1 == count && report["unknown"] == "ERR unknown", "stock said {report}");
    let scrape = scraped_until(stage, STOCK, |scrape| scrape.sum(name, &labels) > before).await?;
    let opened = scrape.sum(name, &labels) - before;
    ensure!((opened - 1.0).abs() < 0.5, "stock's sidecar counted {opened} connections of partner, not 1");
    Ok(format!(
        "greeted with {}; COUNT {count}, TAKE 1 left {left}; stock's sidecar counted 1 connection, mutual_tls",
        report["greeting"]
    ))
}

/// Both releases of reviews together.
pub(super) async fn reviews_requests(stage: &Stage, reporter: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for name in REVIEWS {
        sum += requests(&stage.scrape(name).await?, reporter, labels);
    }
    Ok(sum)
}

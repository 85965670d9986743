//! A running sidecar, asked on its own ports: readiness, control stream, staleness, certificate, refusals.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use time::OffsetDateTime;

use super::Finding;
use crate::local;
use crate::metrics::Scrape;
use crate::output;

const STALE_SECONDS: f64 = 60.0;
const SOON_SECONDS: f64 = 3600.0;

pub(super) async fn findings(ip: Option<IpAddr>) -> anyhow::Result<Vec<Finding>> {
    let client = local::client()?;
    let addresses = match ip {
        Some(ip) => vec![ip],
        None => found(&client).await,
    };
    if addresses.is_empty() {
        anyhow::bail!("no sidecar answers on 127.0.0.11 to 127.0.0.254 port 15021: name one by --ip");
    }
    let mut findings = Vec::new();
    for ip in addresses {
        findings.extend(of(&client, ip).await);
    }
    Ok(findings)
}

/// Every loopback address whose readiness port answers.
async fn found(client: &reqwest::Client) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for last in 11..=254 {
        let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        if local::fetch(client, SocketAddr::new(ip, 15021), "/healthz/live").await.is_ok() {
            addresses.push(ip);
        }
    }
    addresses
}

async fn of(client: &reqwest::Client, ip: IpAddr) -> Vec<Finding> {
    let check = format!("{ip} ready");
    let ready = match local::fetch(client, SocketAddr::new(ip, 15021), "/healthz/ready").await {
        Ok((200, _)) => Finding::ok(&check, "yes"),
        Ok((status, text)) => Finding::fail(&check, format!("{status} {}", text.trim()), "see the sidecar's log"),
        Err(error) => return vec![Finding::fail(&check, format!("{error:#}"), "no sidecar answers there")],
    };
    let mut findings = vec![ready];
    match local::fetch(client, SocketAddr::new(ip, 15020), "/metrics").await {
        Ok((200, text)) => {
            findings.extend(of_metrics(ip, &Scrape::parse(&text), OffsetDateTime::now_utc().unix_timestamp()))
        }
        Ok((status, _)) => findings.push(Finding::fail(&format!("{ip} metrics"), format!("status {status}"), "")),
        Err(error) => findings.push(Finding::fail(&format!("{ip} metrics"), format!("{error:#}"), "")),
    }
    findings
}

fn of_metrics(ip: IpAddr, scrape: &Scrape, now: i64) -> Vec<Finding> {
    let mut findings = Vec::new();
    let revision = scrape.sum("weft_config_revision", &[]);
    let staleness = scrape.sum("weft_config_staleness_seconds", &[]);
    let check = format!("{ip} configuration");
    let seen = format!("revision {revision}, {staleness} s since the control plane was heard");
    findings.push(if staleness > STALE_SECONDS {
        Finding::warn(&check, seen, "the sidecar goes on with what it has; see `weft check` for the control plane")
    } else {
        Finding::ok(&check, seen)
    });
    let until = scrape.sum("weft_certificate_expiry_timestamp_seconds", &[]);
    #[expect(clippy::cast_precision_loss, reason = "seconds since the epoch are exact in an f64")]
    let left = until - now as f64;
    let check = format!("{ip} certificate");
    findings.push(if left <= 0.0 {
        Finding::fail(&check, "expired", "the control plane must be reachable for a new one")
    } else {
        let seen = format!("{} left", output::duration(Duration::from_secs_f64(left)));
        let soon = left < SOON_SECONDS;
        if soon { Finding::warn(&check, seen, "it renews at half life") } else { Finding::ok(&check, seen) }
    });
    findings.extend(["inbound", "outbound"].map(|side| handshakes(ip, scrape, side)));
    findings
}

/// Handshakes since the sidecar started: of peers that dialled it, or dialled by itself.
fn handshakes(ip: IpAddr, scrape: &Scrape, side: &str) -> Finding {
    let labels = [("side", side)];
    let failed = scrape.by_label("weft_handshake_failures_total", &labels, "reason");
    let reasons: Vec<String> =
        failed.iter().filter(|(_, count)| **count > 0.0).map(|(reason, count)| format!("{reason}: {count}")).collect();
    let failures: f64 = failed.values().sum();
    let all = failures + scrape.sum("weft_handshakes_total", &labels);
    let check = format!("{ip} {side} handshakes");
    if reasons.is_empty() {
        return Finding::ok(&check, format!("none of {all} failed"));
    }
    let seen = format!("{failures} of {all} failed ({})", reasons.join(", "));
    Finding::warn(&check, seen, "the sidecar's log names the peers")
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_sidecar_is_judged_by_its_metrics() {
        let text = "weft_config_revision 7\nweft_config_staleness_seconds 90\nweft_certificate_expiry_timestamp_seconds 100\n\
                    weft_handshake_failures_total{side=\"inbound\",reason=\"untrusted\"} 0\n\
                    weft_handshakes_total{side=\"inbound\"} 3\n\
                    weft_handshake_failures_total{side=\"outbound\",reason=\"untrusted\"} 2\n\
                    weft_handshake_failures_total{side=\"outbound\",reason=\"alpn\"} 0\n\
                    weft_handshakes_total{side=\"outbound\"} 5\n";
        let findings = of_metrics("127.0.0.11".parse().unwrap(), &Scrape::parse(text), 200);
        let states: Vec<State> = findings.iter().map(|finding| finding.state).collect();
        assert_eq!(states, [State::Warn, State::Fail, State::Ok, State::Warn]);
        assert_eq!(findings[2].seen, "none of 3 failed");
        assert_eq!(findings[3].seen, "2 of 7 failed (untrusted: 2)");
    }
}

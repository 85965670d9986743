//! A running sidecar, asked on its own ports: readiness, control stream, staleness, certificate, refusals.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use time::OffsetDateTime;

use super::Finding;
use crate::local;
use crate::metrics::Scrape;
use crate::output;

/// Port of readiness.
const HEALTH: u16 = 15021;
const STALE_SECONDS: f64 = 60.0;
const SOON_SECONDS: f64 = 3600.0;

pub(super) async fn findings(ip: Option<IpAddr>) -> anyhow::Result<Vec<Finding>> {
    let client = local::client()?;
    let addresses = match ip {
        Some(ip) => vec![ip],
        None => found(&client).await,
    };
    if addresses.is_empty() {
        anyhow::bail!("no sidecar answers at port {HEALTH} of this machine: start one, or name its address by --ip");
    }
    let mut findings = Vec::new();
    for ip in addresses {
        findings.extend(of(&client, ip).await);
    }
    Ok(findings)
}

/// Every address of this network namespace at which a sidecar's readiness port answers.
async fn found(client: &reqwest::Client) -> Vec<IpAddr> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let mut addresses = Vec::new();
    for ip in listeners(&tables.concat(), HEALTH) {
        if local::fetch(client, SocketAddr::new(ip, HEALTH), "/healthz/live").await.is_ok() {
            addresses.push(ip);
        }
    }
    addresses
}

/// The addresses at which somebody listens on a port, by the kernel's tables of TCP sockets. Whoever listens at all addresses
/// is one, at loopback.
fn listeners(table: &str, port: u16) -> BTreeSet<IpAddr> {
    const LISTENING: &str = "0A";
    let listener = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (address, own_port) = words.next()?.split_once(':')?;
        let is_listening = words.nth(1)? == LISTENING && u16::from_str_radix(own_port, 16) == Ok(port);
        let address = address_of(address).filter(|_| is_listening)?;
        Some(match address {
            IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            one @ (IpAddr::V4(_) | IpAddr::V6(_)) => one.to_canonical(),
        })
    };
    table.lines().filter_map(listener).collect()
}

/// An address as the kernel prints it: words of 32 bits in hexadecimal, each in the machine's own order of bytes.
fn address_of(text: &str) -> Option<IpAddr> {
    let mut octets = Vec::new();
    for at in (0..text.len()).step_by(8) {
        octets.extend(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let four = <[u8; 4]>::try_from(octets.as_slice()).map(IpAddr::from).ok();
    four.or_else(|| <[u8; 16]>::try_from(octets.as_slice()).map(IpAddr::from).ok())
}

async fn of(client: &reqwest::Client, ip: IpAddr) -> Vec<Finding> {
    let check = format!("{ip} ready");
    let ready = match local::fetch(client, SocketAddr::new(ip, HEALTH), "/healthz/ready").await {
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
    fn sidecars_are_found_wherever_they_listen() {
        let printed = |ip: &str| match ip.parse().unwrap() {
            IpAddr::V4(ip) => format!("{:08X}", u32::from_ne_bytes(ip.octets())),
            IpAddr::V6(ip) => {
                let words = ip.octets();
                words.chunks(4).map(|word| format!("{:08X}", u32::from_ne_bytes(word.try_into().unwrap()))).collect()
            }
        };
        let line = |ip: &str, port: u16, state: &str| {
            format!(
                "   0: {}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  0  0 1 1\n",
                printed(ip)
            )
        };
        let found = |lines: &[String]| -> Vec<String> {
            let head =
                "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
            let found = listeners(&format!("{head}{}", lines.concat()), HEALTH);
            found.iter().map(ToString::to_string).collect()
        };
        // One that listens at all addresses is one sidecar, whatever number of workers it has.
        assert_eq!(found(&[line("0.0.0.0", HEALTH, "0A"), line("0.0.0.0", HEALTH, "0A")]), ["127.0.0.1"]);
        assert_eq!(found(&[line("::", HEALTH, "0A")]), ["::1"]);
        let of_hosts =
            [line("127.0.0.11", HEALTH, "0A"), line("10.1.0.5", HEALTH, "0A"), line("fd00::5", HEALTH, "0A")];
        assert_eq!(found(&of_hosts), ["10.1.0.5", "127.0.0.11", "fd00::5"]);
        // Other ports, and connections to the port.
        assert_eq!(found(&[line("10.1.0.5", 15020, "0A"), line("10.1.0.5", HEALTH, "01")]), [""; 0]);
        assert_eq!(found(&["garbage".to_owned(), "0: xx:yy zz 0A\n".to_owned()]), [""; 0]);
    }

    #[test]
    fn this_machines_own_listeners_are_found() {
        let listener = std::net::TcpListener::bind("127.0.0.77:0").unwrap();
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let found = listeners(&table, listener.local_addr().unwrap().port());
        assert!(found.contains(&"127.0.0.77".parse().unwrap()), "{found:?}");
    }

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

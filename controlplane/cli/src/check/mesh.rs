//! The control plane as this person reaches it: address, trust, token, clock, the mesh's certificates.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};
use weft_api::{Proxies, SilentReplica, Store, SyncState, UnreadableList};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Finding;
use crate::access::{Access, AccessArgs};
use crate::api::{Client, Error};
use crate::commands::store;
use crate::output;

/// More than this and certificates are refused as expired or not yet valid.
const MAX_SKEW_SECONDS: i64 = 30;
const SOON_SECONDS: i64 = 3600;

pub(super) async fn findings(args: &AccessArgs) -> Vec<Finding> {
    let access = match args.resolve() {
        Ok(access) => access,
        Err(error) => return vec![Finding::warn("control plane", "not configured", format!("{error:#}"))],
    };
    let mut findings = vec![authority(&access)];
    let client = match Client::new(&access) {
        Ok(client) => client,
        Err(error) => {
            findings.push(Finding::fail("control plane", "can't be asked", format!("{error:#}")));
            return findings;
        }
    };
    match client.authenticated_version().await {
        Ok(version) => {
            findings
                .push(Finding::ok("control plane", format!("{} version {version}, token accepted", client.server())));
        }
        Err(error) => {
            findings.push(Finding::fail("control plane", error.to_string(), advice(&error)));
            return findings;
        }
    }
    findings.push(clock(client.server_time().await, OffsetDateTime::now_utc()));
    let leads: Result<Store, Error> = client.fetch("/store").await;
    let is_in_etcd = leads.as_ref().is_ok_and(|store| store.in_etcd);
    findings.extend(written(client.health().await, is_in_etcd, client.fetch("/unreadable").await));
    findings.extend(lead(leads));
    findings.push(certificates(client.fetch("/proxies").await, OffsetDateTime::now_utc().unix_timestamp()));
    findings
}

fn advice(error: &Error) -> &'static str {
    match error {
        Error::Unreachable { .. } => "is weft-control running, and does --ca-file hold its ca.pem?",
        Error::Refused(_) => "see --token-file: the control plane's folder holds operator.token",
        Error::Nonsense { .. } => "is --server the control plane's API (port 15013)?",
    }
}

fn authority(access: &Access) -> Finding {
    let check = "CA";
    let pem = match access.ca_pem() {
        Ok(pem) => pem,
        Err(error) => {
            return Finding::fail(
                check,
                format!("{error:#}"),
                "give --ca-file: the control plane's folder holds ca.pem",
            );
        }
    };
    let Some(Ok(der)) = CertificateDer::pem_slice_iter(&pem).next() else {
        return Finding::fail(check, format!("{} holds no certificate", access.ca_file.display()), "PEM is expected");
    };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else {
        return Finding::fail(
            check,
            format!("{} holds no X.509 certificate", access.ca_file.display()),
            "PEM is expected",
        );
    };
    let until = certificate.validity().not_after.to_datetime();
    let shown = until.format(&Rfc3339).unwrap_or_default();
    if certificate.validity().is_valid() {
        Finding::ok(check, format!("{}, valid until {shown}", certificate.subject()))
    } else {
        Finding::fail(
            check,
            format!("{}, valid until {shown}", certificate.subject()),
            "expired or not yet valid: see the clock",
        )
    }
}

fn clock(server: Option<String>, here: OffsetDateTime) -> Finding {
    let Some(there) = server.and_then(|text| OffsetDateTime::parse(&text.replace("GMT", "+0000"), &Rfc2822).ok())
    else {
        return Finding::warn("clock", "the control plane tells no time", "compare `date -u` on both machines");
    };
    let skew = (here - there).whole_seconds();
    if skew.abs() > MAX_SKEW_SECONDS {
        let seen = format!("{skew} s apart from the control plane");
        return Finding::fail("clock", seen, "certificates will be refused: set the clock (NTP)");
    }
    Finding::ok("clock", format!("{skew} s apart from the control plane"))
}

/// Checks that the store can be written, and names the records that can't be read.
fn written(health: Result<(), String>, is_in_etcd: bool, unreadable: Result<UnreadableList, Error>) -> Vec<Finding> {
    let check = "store";
    let mut findings = Vec::new();
    if let Err(reason) = health {
        let hint = match is_in_etcd {
            true => "see etcd's members, its space and the network to it; what is known is served meanwhile",
            false => "free space on the disk of weft-control's state folder",
        };
        findings.push(Finding::fail(check, reason, hint));
    }
    match unreadable {
        Ok(answer) => {
            let named = answer.items.iter().map(|item| {
                let seen = format!("{} can't be read: {}", output::cell(&item.key), output::cell(&item.reason));
                Finding::fail(check, seen, "see `weft get --unreadable`; apply it anew, or delete it")
            });
            findings.extend(named);
        }
        // An older control plane has no such call.
        Err(Error::Refused(refusal)) if refusal.status == 404 => {}
        Err(error) => findings.push(Finding::warn(check, error.to_string(), "")),
    }
    if findings.is_empty() {
        findings.push(Finding::ok(check, "can be written, every record can be read".to_owned()));
    }
    findings
}

/// Finds a store that does not lead, or not all proxies; gives nothing if it leads or can't be asked.
fn lead(answer: Result<Store, Error>) -> Option<Finding> {
    let Store { doubt, ahead, .. } = answer.ok()?;
    if let Some(doubt) = doubt {
        return Some(Finding::fail("store", doubt, "proxies keep what they have until then"));
    }
    let ahead = ahead?;
    let seen = format!("leads not all proxies; {}: {}", store::ahead(&ahead), output::cell(&ahead.reason));
    Some(Finding::fail("store", seen, "they keep what they have until then: see `weft proxies -o wide`"))
}

fn certificates(answer: Result<Proxies, Error>, now: i64) -> Finding {
    let check = "proxy certificates";
    let Proxies { proxies, silent } = match answer {
        Ok(answer) => answer,
        Err(error) => return Finding::warn(check, error.to_string(), ""),
    };
    if let Some(silent) = silent.first() {
        let SilentReplica { replica, reason, proxies } = silent;
        let seen = format!("control plane {} does not tell of its {proxies} proxies: {reason}", output::cell(replica));
        return Finding::warn(check, seen, "see its log, and whether the others reach its port for proxies");
    }
    let mut soon = Vec::new();
    for proxy in proxies.iter().filter(|proxy| proxy.state != SyncState::Disconnected) {
        let until = proxy.certificate_not_after.as_deref().and_then(output::instant);
        if until.is_some_and(|until| until - now < SOON_SECONDS) {
            soon.push(output::cell(&proxy.name));
        }
    }
    if soon.is_empty() {
        return Finding::ok(check, format!("{} proxies, none within an hour of expiry", proxies.len()));
    }
    Finding::warn(
        check,
        format!("within an hour of expiry: {}", soon.join(", ")),
        "they renew at half life: see `weft proxies`",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_api::{Ahead, Unreadable};

    use super::super::State;
    use super::*;

    #[test]
    fn a_wrong_clock_fails() {
        let there = Some("Thu, 01 Jan 1970 00:10:00 GMT".to_owned());
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        assert_eq!(clock(there.clone(), at(605)).state, State::Ok);
        assert_eq!(clock(there, at(700)).state, State::Fail);
        assert_eq!(clock(None, at(0)).state, State::Warn);
    }

    #[test]
    fn what_is_wrong_with_the_store_is_said() {
        let none = || Ok(UnreadableList::default());
        assert_eq!(written(Ok(()), false, none())[0].state, State::Ok);
        let full = written(Err("No space left on device".to_owned()), false, none());
        assert_eq!((full.len(), full[0].state), (1, State::Fail));
        assert!(full[0].advice.contains("state folder"), "{}", full[0].advice);
        let away = written(Err("10.0.0.1:2379: refused".to_owned()), true, none());
        assert!(away[0].advice.starts_with("see etcd's members"), "{}", away[0].advice);
        let record = Unreadable { key: "services/default/a".to_owned(), ..Unreadable::default() };
        let odd = written(Ok(()), false, Ok(UnreadableList { items: vec![record] }));
        assert_eq!((odd.len(), odd[0].state), (1, State::Fail));
        assert!(odd[0].seen.contains("services/default/a"), "{}", odd[0].seen);
    }

    #[test]
    fn a_store_that_does_not_lead_all_proxies_fails() {
        let ahead = Ahead { proxies: 1, names: vec!["web-1".to_owned()], reason: "it is of epoch 1".to_owned() };
        assert!(lead(Ok(Store::default())).is_none());
        let finding = lead(Ok(Store { ahead: Some(ahead.clone()), ..Store::default() })).unwrap();
        assert_eq!(finding.state, State::Fail);
        assert_eq!(finding.seen, "leads not all proxies; 1 proxy takes nothing from it (web-1): it is of epoch 1");
        // A store that leads nobody has one reason for it.
        let doubt = Some("set back".to_owned());
        assert_eq!(lead(Ok(Store { ahead: Some(ahead), doubt, ..Store::default() })).unwrap().seen, "set back");
    }

    #[test]
    fn certificates_near_expiry_are_named() {
        let proxy = |name: &str, until: &str| {
            let told = json!({"name": name, "identity": "i", "address": "", "mesh_addresses": [], "heard_ms": 0,
                "version": "0.1.0", "state": "synced", "reason": "", "revision": 1, "current_revision": 1,
                "staleness_ms": 0, "filters": [], "certificate_not_after": until, "transport": "quic",
                "connected_since": null});
            serde_json::from_value(told).unwrap()
        };
        let proxies = vec![proxy("a", "1970-01-01T00:30:00Z"), proxy("b", "1970-01-02T00:00:00Z")];
        let answer = Proxies { proxies, ..Proxies::default() };
        let finding = certificates(Ok(answer), 0);
        assert_eq!((finding.state, finding.seen.ends_with(": a")), (State::Warn, true));
        let silent = SilentReplica { replica: "b:1".to_owned(), reason: "why".to_owned(), proxies: 7 };
        let finding = certificates(Ok(Proxies { proxies: Vec::new(), silent: vec![silent] }), 0);
        assert_eq!(
            (finding.state, finding.seen.as_str()),
            (State::Warn, "control plane b:1 does not tell of its 7 proxies: why"),
        );
    }
}

//! How far a proxy is, as one control plane tells another. What a message lacks or no longer means is left out: the two may
//! be of different releases.

use std::collections::BTreeSet;
use std::time::Duration;

use prost::Message as _;
use time::OffsetDateTime;
use weft_policy::bundle::Revision;
use weft_policy::identity::SpiffeId;
use weft_policy::lineage::Lineage;
use weft_policy::wire::v1;

use super::pb;
use crate::registry::{Health, Introduction, LoadedFilter, ProxyKey, ProxyStatus, SyncState, Voices};

/// Bytes of one part, about.
const PART: usize = 1 << 20;
/// Bytes of the refusals that are told of one proxy, and of why it is not in step.
const MAX_HELD: usize = 512 << 10;
const MAX_REASON: usize = 16 << 10;

/// What another control plane's proxies say. An account that can't be read has no voice against anybody.
pub(crate) fn voices(told: pb::Voices) -> Voices {
    let accounts = |all: Vec<String>| all.into_iter().filter_map(|account| account.parse().ok()).collect();
    Voices { is_reached: told.is_reached, without: accounts(told.without), telling: accounts(told.telling) }
}

/// The same as it is told.
pub(crate) fn voices_message(voices: Voices) -> pb::Voices {
    let accounts = |all: BTreeSet<SpiffeId>| all.iter().map(ToString::to_string).collect();
    let Voices { is_reached, without, telling } = voices;
    pb::Voices { is_reached, without: accounts(without), telling: accounts(telling) }
}

/// An answer in parts; at least one. Only proxies with a stream here are told of.
pub(crate) fn parts(number: u64, proxies: Vec<ProxyStatus>) -> Vec<pb::ProxiesPart> {
    let mut all = Vec::new();
    let (mut part, mut bytes) = (pb::ProxiesPart { number, ..pb::ProxiesPart::default() }, 0);
    for proxy in proxies.into_iter().filter_map(message) {
        let size = proxy.encoded_len();
        if bytes > 0 && bytes + size > PART {
            let next = pb::ProxiesPart { number, ..pb::ProxiesPart::default() };
            all.push(std::mem::replace(&mut part, next));
            bytes = 0;
        }
        bytes += size;
        part.proxies.push(proxy);
    }
    all.push(part);
    all
}

fn message(status: ProxyStatus) -> Option<pb::Proxy> {
    let connected_since_unix_ms = i64::try_from(status.connected_since?.unix_timestamp_nanos() / 1_000_000).ok()?;
    let state = match status.state {
        SyncState::Synced => pb::State::Synced,
        SyncState::Behind => pb::State::Behind,
        SyncState::Refused => pb::State::Refused,
        SyncState::Disconnected | SyncState::Elsewhere => return None,
    };
    let Introduction { version, address, certificate, lineage, .. } = status.introduction;
    let Health { filters, transport, certificate_not_after_unix, staleness_ms } = status.health;
    let lineage = lineage.as_ref().map(v1::Lineage::from);
    let filter = |LoadedFilter { name, version, digest, state }| v1::FilterState { name, version, digest, state };
    let mut room = MAX_HELD;
    let mut fits = |text: &String| {
        room = room.saturating_sub(text.len());
        room > 0
    };
    let held = status.held.into_iter().take_while(|text| fits(text)).collect();
    let mut reason = status.reason;
    reason.truncate(reason.floor_char_boundary(MAX_REASON));
    Some(pb::Proxy {
        name: status.key.name,
        identity: status.key.identity.to_string(),
        state: state.into(),
        reason,
        held,
        is_left_alone: status.is_left_alone,
        synced: status.synced.0,
        version,
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        certificate,
        lineage,
        filters: filters.into_iter().map(filter).collect(),
        transport,
        certificate_not_after_unix,
        staleness_ms,
        connected_since_unix_ms,
        behind_ms: milliseconds(status.behind_for),
        heard_ms: milliseconds(status.heard_ago),
        is_unconcerned: !status.is_concerned,
    })
}

/// What another control plane tells of a proxy that has a stream to it.
pub(super) fn status(told: pb::Proxy) -> Option<ProxyStatus> {
    let state = match told.state() {
        pb::State::Synced => SyncState::Synced,
        // Of a later release: that it is in step is not said.
        pb::State::Behind | pb::State::Unspecified => SyncState::Behind,
        pb::State::Refused => SyncState::Refused,
    };
    let introduction = Introduction {
        version: told.version,
        address: told.address.parse().ok(),
        certificate: told.certificate,
        lineage: told.lineage.map(Lineage::from),
        ..Introduction::default()
    };
    let filter = |v1::FilterState { name, version, digest, state }| LoadedFilter { name, version, digest, state };
    let health = Health {
        filters: told.filters.into_iter().map(filter).collect(),
        transport: told.transport,
        certificate_not_after_unix: told.certificate_not_after_unix,
        staleness_ms: told.staleness_ms,
    };
    Some(ProxyStatus {
        key: ProxyKey { name: told.name, identity: told.identity.parse().ok()? },
        state,
        reason: told.reason,
        held: told.held,
        is_left_alone: told.is_left_alone,
        synced: Revision(told.synced),
        introduction,
        health,
        connected_since: OffsetDateTime::from_unix_timestamp_nanos(
            i128::from(told.connected_since_unix_ms) * 1_000_000,
        )
        .ok(),
        behind_for: Duration::from_millis(told.behind_ms),
        heard_ago: Duration::from_millis(told.heard_ms),
        is_expected: false,
        is_awaited: false,
        is_concerned: !told.is_unconcerned,
    })
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_was_known_in_parts_of_a_bounded_size() {
        let known = |number: usize| ProxyStatus {
            key: ProxyKey {
                name: format!("web-{number}"),
                identity: "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap(),
            },
            state: SyncState::Refused,
            reason: "x".repeat(MAX_REASON + 1),
            held: vec!["Service shop/web: why".to_owned()],
            is_left_alone: true,
            synced: Revision(7),
            introduction: Introduction {
                version: "0.1.0".to_owned(),
                address: "10.0.0.1".parse().ok(),
                certificate: "0a:0b".to_owned(),
                lineage: Some(Lineage { store: "s".to_owned(), epoch: 2, supersedes: vec!["r".to_owned()] }),
                ..Introduction::default()
            },
            health: Health {
                filters: vec![LoadedFilter { name: "authz".to_owned(), ..LoadedFilter::default() }],
                transport: "quic".to_owned(),
                certificate_not_after_unix: 9,
                staleness_ms: 8,
            },
            connected_since: Some(OffsetDateTime::UNIX_EPOCH),
            behind_for: Duration::from_millis(5),
            heard_ago: Duration::from_millis(6),
            is_expected: false,
            is_awaited: false,
            is_concerned: number.is_multiple_of(2),
        };
        let mut proxies: Vec<_> = (0..200).map(known).collect();
        // One that has no stream is nobody's to tell of.
        proxies.push(ProxyStatus { connected_since: None, ..known(200) });
        let parts = parts(3, proxies);
        assert!(
            parts.len() == 4 && parts.iter().all(|part| part.number == 3 && part.encoded_len() <= PART + MAX_REASON)
        );
        let told: Vec<_> = parts.into_iter().flat_map(|part| part.proxies).filter_map(status).collect();
        assert_eq!(told.len(), 200);
        let shown = |status: &ProxyStatus| format!("{status:?}");
        for (number, told) in told.iter().enumerate() {
            let known = ProxyStatus { reason: "x".repeat(MAX_REASON), ..known(number) };
            assert_eq!(shown(told), shown(&known));
        }
        assert_eq!(super::parts(0, Vec::new()).len(), 1, "who has none says so");
    }
}

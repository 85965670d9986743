//! What a proxy reports, as it is kept and shown.

use std::collections::BTreeMap;

use weft_policy::bundle::ObjectName;
use weft_policy::text::printable;
use weft_policy::wire::v1;

use crate::registry::{Health, LoadedFilter};

/// Peers that one report tells of.
const MAX_WORDS: usize = 4_096;
/// Filters that one report tells of, and characters of each text in it.
const MAX_FILTERS: usize = 256;
const MAX_TEXT: usize = 256;

/// Which peers the proxy reaches.
pub(super) fn words(report: &v1::Report) -> BTreeMap<ObjectName, bool> {
    let word = |word: &v1::PeerWord| Some((word.workload.clone()?.try_into().ok()?, word.reached));
    report.peers.iter().take(MAX_WORDS).filter_map(word).collect()
}

/// The proxy's report as it is shown to people, and told to other control planes: no text in it may steer a terminal, nor be of
/// any length.
pub(super) fn health(report: v1::Report) -> Health {
    let shown = |text: String| printable(&text).chars().take(MAX_TEXT).collect();
    let filter = |state: v1::FilterState| LoadedFilter {
        name: shown(state.name),
        version: shown(state.version),
        digest: shown(state.digest),
        state: shown(state.state),
    };
    Health {
        filters: report.filters.into_iter().take(MAX_FILTERS).map(filter).collect(),
        transport: shown(report.transport),
        certificate_not_after_unix: report.certificate_not_after_unix,
        staleness_ms: report.staleness_ms,
    }
}

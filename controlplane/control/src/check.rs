//! `weft-control --check`: the configuration, and what the state folder holds where there is one. Starts nothing.

use crate::app::open_store;
use crate::ca::{Authority, AuthorityError, Line};
use crate::config::{Config, StoreKind};
use crate::hub::unreadable_records;
use crate::state;
use crate::store::{ROOTS, Store, StoreError, read_record};

/// Faults that a start would find, one sentence each; empty if there are none.
pub fn findings(config: &Config) -> Vec<String> {
    let mut findings: Vec<_> = config.validate().err().iter().map(ToString::to_string).collect();
    findings.extend(state::fault(&config.state));
    if !findings.is_empty() {
        return findings;
    }
    let path = config.state.join("weft.redb");
    let is_embedded = matches!(config.store_kind(), Ok(StoreKind::Redb));
    if is_embedded && !path.exists() {
        return Vec::new();
    }
    let store = match open_store(config) {
        Ok(store) => store,
        // The one that runs says the same on its own: `weft check`.
        Err(error) if is_in_use(&error) => return Vec::new(),
        Err(error) => return vec![format!("{error:#}")],
    };
    let place = if is_embedded { path.display().to_string() } else { config.store.clone() };
    findings.extend(authority_fault(&store, config).iter().map(|error| crate::chain(error)));
    match unreadable_records(&store) {
        Ok(records) => {
            let told = |record: crate::store::Unreadable| {
                format!(
                    "{place}: record {} {} can't be read and would be left aside: {}",
                    record.table, record.key, record.reason
                )
            };
            findings.extend(records.into_iter().map(told));
        }
        Err(error) => findings.push(crate::chain(&error)),
    }
    findings
}

/// Why the folder's authority is none that the store leads to its own.
pub(crate) fn authority_fault(store: &Store, config: &Config) -> Option<AuthorityError> {
    let require = |root: &str| Authority::require_with(&config.state, &config.keys().ok()?, root).err();
    let record = if store.is_shared() { store.meta(ROOTS).ok().flatten() } else { None };
    let line: Option<Line> = record.and_then(|record| read_record(&record).ok());
    // One that was away while its root was replaced follows when it starts.
    if line.is_some_and(|line| line.fingerprints().any(|root| require(root).is_none())) {
        return None;
    }
    store.root().ok().flatten().and_then(|root| require(&root))
}

fn is_in_use(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StoreError::Rows(weft_store::Error::InUse(_))))
}

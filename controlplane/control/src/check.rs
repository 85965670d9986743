//! `weft-control --check`: the configuration, and what the state folder holds where there is one. Starts nothing.

use crate::ca::Authority;
use crate::config::Config;
use crate::hub::unreadable_records;
use crate::state;
use crate::store::{Store, StoreError};

/// Faults that a start would find, one sentence each; empty if there are none.
pub fn findings(config: &Config) -> Vec<String> {
    let mut findings: Vec<_> = config.validate().err().iter().map(ToString::to_string).collect();
    findings.extend(state::fault(&config.state));
    if !findings.is_empty() {
        return findings;
    }
    let path = config.state.join("weft.redb");
    if !path.exists() {
        return Vec::new();
    }
    let store = match Store::open(&path, config.limits.max_audit_entries) {
        Ok(store) => store,
        // The one that runs says the same on its own: `weft check`.
        Err(StoreError::Rows(weft_store::Error::InUse(_))) => return Vec::new(),
        Err(error) => return vec![crate::chain(&error)],
    };
    let require = |root: String| Authority::require_with(&config.state, &config.keys().ok()?, &root).err();
    let authority = store.root().ok().flatten().and_then(require);
    findings.extend(authority.iter().map(|error| crate::chain(error)));
    match unreadable_records(&store) {
        Ok(records) => {
            let told = |record: crate::store::Unreadable| {
                format!(
                    "{}: record {} {} can't be read and would be left aside: {}",
                    path.display(),
                    record.table,
                    record.key,
                    record.reason
                )
            };
            findings.extend(records.into_iter().map(told));
        }
        Err(error) => findings.push(crate::chain(&error)),
    }
    findings
}

//! `weft-control --check`: the configuration, and what the state folder holds where there is one. Starts nothing.

use crate::config::Config;
use crate::hub::unreadable_records;
use crate::store::{Store, StoreError};

/// What a start would find wrong: one sentence each. Empty: nothing.
pub fn findings(config: &Config) -> Vec<String> {
    if let Err(error) = config.validate() {
        return vec![error.to_string()];
    }
    let path = config.state.join("weft.redb");
    if !path.exists() {
        return Vec::new();
    }
    match Store::open(&path, config.limits.max_audit_entries).and_then(|store| unreadable_records(&store)) {
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
            records.into_iter().map(told).collect()
        }
        // The one that runs says the same on its own: `weft check`.
        Err(StoreError::InUse(_)) => Vec::new(),
        Err(error) => vec![crate::chain(&error)],
    }
}

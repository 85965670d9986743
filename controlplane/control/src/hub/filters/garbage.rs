//! Binaries that no version names go, some time after that is so: whoever is fetching one has it by then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::Hub;
use super::{FilterVersion, SYSTEM};
use crate::store::{RecordsOf, StoreError, Write};

/// So long a binary stays that nothing names, seconds.
const GRACE: i64 = 3_600;

/// Binaries that nothing names, and since when that is known.
#[derive(Debug, Default)]
pub(super) struct Orphans(Mutex<BTreeMap<String, i64>>);

impl Orphans {
    /// Takes what nothing names `now`; gives those of it of which that is known for long enough.
    fn note(&self, found: BTreeSet<String>, now: i64) -> Vec<String> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|digest, _| found.contains(digest));
        for digest in found {
            known.entry(digest).or_insert(now);
        }
        known.iter().filter(|(_, since)| now - **since >= GRACE).map(|(digest, _)| digest.clone()).collect()
    }
}

impl Hub {
    /// Deletes the binaries that no version of a filter names and that none has named for a while.
    pub(crate) async fn sweep_binaries(self: &Arc<Self>, now: i64) -> Result<(), StoreError> {
        let (digests, unreadable) = self
            .blocking(|store| {
                let unreadable = store.unreadable::<FilterVersion>(RecordsOf::FilterVersions)?;
                Ok((store.artifacts()?, unreadable.len()))
            })
            .await?;
        // A record that can't be read may name any of them.
        if unreadable > 0 {
            return Ok(());
        }
        let world = self.published().world.clone();
        let found = digests.into_iter().filter(|digest| !world.names_binary(digest)).collect();
        let over = self.artifacts.1.note(found, now);
        if over.is_empty() {
            return Ok(());
        }
        self.change(move |draft| {
            // One may be published again meanwhile.
            let over: Vec<_> = over.iter().filter(|digest| !draft.world.names_binary(digest)).cloned().collect();
            for digest in over {
                draft.writes.push(Write::DeleteArtifact { digest: digest.clone() });
                draft.audit(SYSTEM, "filter.sweep", digest, "no version names this binary".to_owned());
            }
            Ok::<_, StoreError>(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_names_goes_after_a_while_and_not_if_it_is_named_again() {
        let orphans = Orphans::default();
        for (now, found, expect) in [
            (0, "a b", ""),
            (GRACE - 1, "a b", ""),
            (GRACE, "a", "a"),
            // `b` was named in between: its time begins anew.
            (GRACE + 1, "b", ""),
            (2 * GRACE, "b", ""),
            (2 * GRACE + 1, "b", "b"),
        ] {
            let found = found.split(' ').map(str::to_owned).collect();
            assert_eq!(orphans.note(found, now).join(" "), expect, "at {now}");
        }
    }
}

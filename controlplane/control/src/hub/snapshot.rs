//! Snapshots of the running control plane: saved beside everything else; restored by making ready what the next start
//! puts in place, after which nothing lands in the old store any more and the process starts again.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;
use weft_policy::lineage::Lineage;

use super::{Actor, Draft, Hub, StartError, StoreError, apart, apply, lead, to_the_end};
use crate::snapshot::{About, Present, SnapshotError, save, stage};
use crate::store::{AuditEntry, Store};

/// Loads a store as `Hub::start` does, and throws it away.
fn would_start(store: &Store, trust_domain: &str) -> Result<usize, String> {
    let load = || -> Result<usize, StartError> {
        let parsed = super::trust_domain(store, trust_domain)?;
        let frozen = store.frozen()?;
        let published = apply::load(store, &frozen, &parsed, "")?;
        super::claims(store, &published)?;
        Ok(published.unreadable.len())
    };
    load().map_err(|error| crate::chain(&error))
}

/// The end of this process in favour of one that finds another state.
#[derive(Default)]
pub(super) struct Restart {
    wanted: CancellationToken,
    /// Held from then on: a change that were acknowledged now would be lost.
    writer: Mutex<Option<OwnedMutexGuard<()>>>,
}

impl Hub {
    /// The store, the keys and the first operator's token, as of one moment.
    pub async fn save_snapshot(self: &Arc<Self>, actor: impl Into<Actor>) -> Result<Vec<u8>, SnapshotError> {
        let (hub, actor) = (self.clone(), actor.into());
        let bytes = apart(move || save(&hub.store, &hub.config, &hub.authority, || hub.key_holder())).await?;
        let size = bytes.len();
        self.change(move |draft: &mut Draft| {
            draft.audit(&actor, "snapshot.save", String::new(), format!("{size} bytes"));
            Ok::<_, StoreError>(())
        })
        .await?;
        Ok(bytes)
    }

    /// Makes a snapshot ready and wants a restart. It goes on where the caller no longer waits.
    pub async fn restore_snapshot(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        bytes: Vec<u8>,
        replace_authority: bool,
    ) -> Result<(About, Lineage), SnapshotError> {
        let (hub, actor) = (self.clone(), actor.into());
        let restoring = to_the_end(async move {
            if hub.store.is_shared() {
                return Err(SnapshotError::Shared);
            }
            if hub.restart.wanted.is_cancelled() {
                return Err(SnapshotError::Underway);
            }
            let guard = hub.writer.clone().lock_owned().await;
            let lead = hub.lead();
            let mut followed = hub.registry().lineages();
            followed.push(lead.lineage.clone());
            followed.extend(lead.doubt.as_ref().map(|doubt| doubt.before.clone()));
            let working = hub.clone();
            let staged = apart(move || {
                let present = Present {
                    state: &working.config.state,
                    trust_domain: &working.config.trust_domain,
                    root: &working.authority.fingerprint(),
                    keys: working.config.keys()?,
                    followed,
                    replace_authority,
                    max_audit_entries: working.config.limits.max_audit_entries,
                    now_unix: crate::now_unix(),
                    remember: lead::remember,
                    load: would_start,
                };
                let audit = AuditEntry::new(actor, "snapshot.restore", String::new(), String::new());
                stage(&bytes, &present, audit)
            });
            let staged = staged.await?;
            *hub.restart.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
            tracing::warn!(
                revision = staged.0.revision,
                epoch = staged.1.epoch,
                "a snapshot is ready to be restored: starting again"
            );
            hub.restart.wanted.cancel();
            Ok(staged)
        });
        restoring.await
    }

    /// Ends when the process is to start again.
    pub async fn restart_wanted(&self) {
        self.restart.wanted.cancelled().await;
    }
}

//! Decides whether this store may lead proxies. The folder of the authority remembers which store it worked with and
//! how far that was: a store that was lost, replaced or set back leads nobody until an operator allows it. Each proxy
//! judges for itself as well.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use weft_policy::bundle::Revision;
use weft_policy::identity::SpiffeId;
use weft_policy::lineage::{Backwards, Lineage, follow};

use super::{Actor, Hub, StoreError, to_the_end};
use crate::ca::write_private;
use crate::registry::{ProxyStatus, lineages};
use crate::store::{AuditEntry, Store};

/// Which store this is, and whether proxies may be led by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lead {
    pub lineage: Lineage,
    pub doubt: Option<Doubt>,
}

/// Why nobody is led yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// The store and epoch that the authority worked with before.
    pub before: Lineage,
    pub reason: String,
}

/// Why an operator's word that a store shall lead was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error(
        "store {store} leads already (epoch {epoch}), and no connected proxy is ahead of it or follows another store: there is \
         nothing to accept, and nothing was changed"
    )]
    Leads { store: String, epoch: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The store's state as the authority's folder remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    store: String,
    epoch: u64,
    revision: u64,
}

fn path_of(state: &Path) -> PathBuf {
    state.join("ca").join("store")
}

/// The content of the file as this process read or wrote it last; `None` if it could not be read, or the last write failed.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<Option<Memory>>);

impl Remembered {
    /// Writes what is new.
    fn note(&self, state: &Path, lineage: &Lineage, revision: Revision) {
        let memory = Memory::of(lineage, revision);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() != Some(&memory) {
            *known = write(state, &memory).then_some(memory);
        }
    }
}

impl Memory {
    fn of(lineage: &Lineage, revision: Revision) -> Self {
        Self { store: lineage.store.clone(), epoch: lineage.epoch, revision: revision.0 }
    }
}

pub(super) fn load(store: &Store, state: &Path, revision: Revision) -> Result<Lead, StoreError> {
    let lineage = store.lineage()?;
    let doubt = match remembered(state) {
        Ok(memory) => memory.and_then(|memory| doubt(&memory, &lineage, revision)),
        Err(reason) => Some(Doubt { before: lineage.clone(), reason: unread(state, &reason) }),
    };
    match &doubt {
        Some(doubt) => tracing::error!(reason = doubt.reason, "the store leads no proxy; they keep what they have"),
        None => remember(state, &lineage, revision),
    }
    Ok(Lead { lineage, doubt })
}

/// The memory, where there is one; why it can't be read, where that is so.
fn remembered(state: &Path) -> Result<Option<Memory>, String> {
    match std::fs::read(path_of(state)) {
        Ok(json) => serde_json::from_slice(&json).map(Some).map_err(|error| error.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn unread(state: &Path, reason: &str) -> String {
    format!(
        "{} can't be read ({reason}), which says what this folder's authority worked with: if the store is the right one, \
         let it lead with `weft store accept`",
        path_of(state).display()
    )
}

/// Notes in a state folder which store it works with and how far that is.
pub(super) fn remember(state: &Path, lineage: &Lineage, revision: Revision) {
    let memory = Memory::of(lineage, revision);
    if !remembered(state).is_ok_and(|known| known.as_ref() == Some(&memory)) {
        write(state, &memory);
    }
}

/// False where it is not kept: the store is led by proxies' own memory then, so that is no reason to stop.
fn write(state: &Path, memory: &Memory) -> bool {
    let json = serde_json::to_vec(memory).map_err(|error| error.to_string());
    let written = json.and_then(|json| write_private(&path_of(state), &json).map_err(|error| crate::chain(&error)));
    if let Err(error) = &written {
        tracing::warn!(error, path = %path_of(state).display(), "which store this is could not be noted");
    }
    written.is_ok()
}

fn doubt(memory: &Memory, lineage: &Lineage, revision: Revision) -> Option<Doubt> {
    let before = Lineage { store: memory.store.clone(), epoch: memory.epoch, supersedes: Vec::new() };
    let what = match follow(Some((&before, Revision(memory.revision))), Some((lineage, revision))) {
        Ok(()) => return None,
        Err(Backwards::OtherStore { held, .. }) => {
            format!("this is not store {held}, which this folder's authority worked with")
        }
        Err(Backwards::OlderEpoch { held, offered }) => {
            format!("the store is of epoch {offered}, it was at {held} before")
        }
        Err(Backwards::OlderRevision { held, offered }) => {
            format!("the store is at revision {offered}, it was at {held} before")
        }
    };
    let reason = format!(
        "{what}: it was lost, replaced or set back. Restore its newest backup, or apply what is missing and let it lead \
         with `weft store accept`"
    );
    Some(Doubt { before, reason })
}

/// The store that a proxy follows.
fn follows(proxy: &ProxyStatus) -> Option<(&SpiffeId, &Lineage)> {
    Some((&proxy.key.identity, proxy.introduction.lineage.as_ref()?))
}

impl Hub {
    pub fn lead(&self) -> Arc<Lead> {
        self.lead.borrow().clone()
    }

    /// Wakes when an operator lets the store lead.
    pub(crate) fn watch_lead(&self) -> watch::Receiver<Arc<Lead>> {
        self.lead.subscribe()
    }

    /// Judges whether this store may now lead a proxy that holds `held`; the error is the reason why not.
    pub(crate) fn may_lead(&self, held: Option<&(Lineage, Revision)>) -> Result<(), String> {
        let lead = self.lead();
        if let Some(doubt) = &lead.doubt {
            return Err(doubt.reason.clone());
        }
        let held = held.map(|(lineage, revision)| (lineage, *revision));
        follow(held, Some((&lead.lineage, self.published().revision))).map_err(|error| error.to_string())
    }

    /// By an operator's word: this store leads from now on, also whoever followed another one or a later state of it.
    ///
    /// # Errors
    /// The store leads already, as far as anybody says, or it can't be written.
    pub async fn accept_store(self: &Arc<Self>, actor: impl Into<Actor>) -> Result<Lineage, AcceptError> {
        let (hub, actor) = (self.clone(), actor.into());
        to_the_end(async move { hub.lead_anew(actor).await }).await
    }

    async fn lead_anew(&self, actor: Actor) -> Result<Lineage, AcceptError> {
        // Proxies of other control planes of the store have their say as well.
        let (followed, silent) = self.look().await.proxies();
        let _guard = self.writer.clone().lock_owned().await;
        let lead = self.lead();
        let leads_all = lead.doubt.is_none() && !followed.iter().any(|proxy| proxy.is_left_alone);
        // A control plane that does not answer may have proxies that are left alone.
        if leads_all && silent.is_empty() {
            return Err(AcceptError::Leads { store: lead.lineage.store.clone(), epoch: lead.lineage.epoch });
        }
        let mut others = lineages(followed.iter().filter_map(follows));
        others.extend(lead.doubt.as_ref().map(|doubt| doubt.before.clone()));
        let detail =
            others.iter().map(|other| format!("{}/{}", other.store, other.epoch)).collect::<Vec<_>>().join(" ");
        let audit = AuditEntry::new(actor, "store.accept", lead.lineage.store.clone(), detail);
        let lineage = self.blocking(move |store| store.accept(&others, crate::now_unix(), audit)).await?;
        self.told.send_modify(|number| *number += 1);
        tracing::warn!(store = lineage.store, epoch = lineage.epoch, "an operator lets this store lead");
        self.lead.send_replace(Arc::new(Lead { lineage: lineage.clone(), doubt: None }));
        self.remembered.note(&self.config.state, &lineage, self.published().revision);
        Ok(lineage)
    }

    /// Notes how far the store is, where it leads.
    pub fn remember_store(&self) {
        let lead = self.lead();
        if lead.doubt.is_none() {
            self.remembered.note(&self.config.state, &lead.lineage, self.published().revision);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::hub::How;
    use crate::hub::tests::{SHOP, hub_in, resources};

    use super::*;

    #[tokio::test]
    async fn a_store_that_leads_everybody_is_not_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let hub = hub_in(dir.path(), |_| {});
        let lineage = hub.lead().lineage.clone();
        let refused = hub.accept_store("me").await.unwrap_err().to_string();
        assert!(refused.contains("leads already (epoch 1)") && hub.lead().lineage == lineage, "{refused}");
        assert_eq!(hub.store.lineage().unwrap(), lineage);
    }

    #[tokio::test]
    async fn the_memory_is_written_when_it_changes_and_never_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let hub = hub_in(dir.path(), |_| {});
        hub.remember_store();
        let path = path_of(dir.path());
        std::fs::write(&path, "not ours").unwrap();
        hub.remember_store();
        assert_eq!(std::fs::read(&path).unwrap(), b"not ours", "nothing is new");
        hub.apply("me", resources(SHOP), How::Safely).await.unwrap();
        hub.remember_store();
        assert_eq!(remembered(dir.path()).unwrap().unwrap().revision, 1);
        // What the disk did not take is tried again.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        hub.delete(
            "me",
            weft_policy::resource::ObjectKey::new(weft_policy::resource::Kind::Workload, "shop", "web-1"),
            How::Safely,
        )
        .await
        .unwrap();
        hub.remember_store();
        std::fs::remove_dir(&path).unwrap();
        hub.remember_store();
        assert_eq!(remembered(dir.path()).unwrap().unwrap().revision, 2);
    }
}

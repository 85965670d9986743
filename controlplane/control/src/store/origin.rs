//! A store's own marks, apart from its content: its id, made once, and its epoch, which an operator raises. Proxies
//! keep both beside their configuration, so that they notice a store that was lost, replaced or set back.

use weft_policy::lineage::Lineage;

use super::{AuditEntry, Store, StoreError, Write};

const STORE_ID: &str = "store_id";
const EPOCH: &str = "epoch";
const SUPERSEDES: &str = "supersedes";
const ROOT: &str = "root_sha256";
/// The roots of several control planes, one after the other.
pub(crate) const ROOTS: &str = "roots";

/// A proxy's word for an epoch behind this one was made up: the clock's number is that of the year 2242.
const MAX_BELIEVED: u64 = 1 << 33;
/// Only so far ahead of the store's own is one believed that is behind `MAX_BELIEVED`.
const MAX_AHEAD: u64 = 1_000;

/// So many stores may be named as superseded; the oldest are forgotten.
const MAX_SUPERSEDED: usize = 64;

/// True for the keys of what says which store it is.
pub(super) fn is_lineage(key: &str) -> bool {
    [STORE_ID, EPOCH, SUPERSEDES].contains(&key)
}

/// Gives a store its id, where it has none yet. Of several that do so at once one does.
pub(super) fn name(store: &Store) -> Result<(), StoreError> {
    loop {
        let version = store.version()?;
        if store.meta(STORE_ID)?.is_some() {
            return Ok(());
        }
        let id = crate::token::hex(&rand::random::<[u8; 16]>());
        let writes = vec![Write::Meta(STORE_ID, id), Write::Meta(EPOCH, "1".to_owned())];
        match store.commit_behind(Some(version), None, writes) {
            Err(error) if error.is_conflict() => {}
            named => return named.map(drop),
        }
    }
}

impl Store {
    /// Which store this is.
    pub fn lineage(&self) -> Result<Lineage, StoreError> {
        let superseded = self.meta(SUPERSEDES)?.unwrap_or_default();
        Ok(Lineage {
            store: self.meta(STORE_ID)?.unwrap_or_default(),
            epoch: self.meta(EPOCH)?.and_then(|text| text.parse().ok()).unwrap_or(0),
            supersedes: superseded.split_whitespace().map(str::to_owned).collect(),
        })
    }

    /// By an operator's word: from here on this store leads whoever followed one of `others`, or a later state of this one.
    /// The epoch is above all that are known, and no less than the clock's number: a later word is above an earlier one of
    /// which nobody here knows, such as another restore of the same snapshot.
    pub fn accept(&self, others: &[Lineage], now_unix: i64, audit: AuditEntry) -> Result<Lineage, StoreError> {
        let mut lineage = self.lineage()?;
        let believed = MAX_BELIEVED.max(lineage.epoch.saturating_add(MAX_AHEAD));
        let own = others.iter().filter(|other| other.store == lineage.store && other.epoch < believed);
        let known = own.map(|other| other.epoch).fold(lineage.epoch, u64::max);
        lineage.epoch = known.saturating_add(1).max(u64::try_from(now_unix).unwrap_or_default());
        // The last named are surest to stay: what most follow, and at the end what this folder's authority worked with.
        for other in others {
            if other.store != lineage.store {
                lineage.supersedes.retain(|known| *known != other.store);
                lineage.supersedes.push(other.store.clone());
            }
        }
        let surplus = lineage.supersedes.len().saturating_sub(MAX_SUPERSEDED);
        lineage.supersedes.drain(..surplus);
        let writes = vec![
            Write::Meta(EPOCH, lineage.epoch.to_string()),
            Write::Meta(SUPERSEDES, lineage.supersedes.join(" ")),
            Write::Audit(Box::new(audit)),
        ];
        self.commit(None, writes)?;
        Ok(lineage)
    }

    /// The fingerprint of the root that the store's mesh trusts.
    pub fn root(&self) -> Result<Option<String>, StoreError> {
        self.meta(ROOT)
    }

    pub fn set_root(&self, fingerprint: &str) -> Result<(), StoreError> {
        self.commit(None, vec![Write::Meta(ROOT, fingerprint.to_owned())])
    }

    /// The same as a part of another commit.
    pub(crate) fn naming_root(fingerprint: &str) -> Write {
        Write::Meta(ROOT, fingerprint.to_owned())
    }

    /// Names the root of a store that has none; gives the one that it has then.
    pub fn first_root(&self, fingerprint: &str) -> Result<String, StoreError> {
        self.meta_once(ROOT, fingerprint)
    }

    /// Writes a value where there is none; gives the one that is there then, which another process may have written.
    pub(crate) fn meta_once(&self, key: &'static str, value: &str) -> Result<String, StoreError> {
        loop {
            let version = self.version()?;
            if let Some(known) = self.meta(key)? {
                return Ok(known);
            }
            match self.commit_behind(Some(version), None, vec![Write::Meta(key, value.to_owned())]) {
                Err(error) if error.is_conflict() => {}
                written => return written.map(|_| value.to_owned()),
            }
        }
    }
}

//! A store that is looked at by who does not run on it: nothing is written, not even its name.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use weft_store::{Embedded, Etcd, EtcdOptions};

use super::waiting::Waiting;
use super::{Store, StoreError};

impl Store {
    /// An embedded store that is there: its file stays as it is.
    pub(crate) fn look(path: &Path) -> Result<Self, StoreError> {
        Ok(Self::bare(Waiting::embedded(Embedded::look(path)?), 0))
    }

    /// A store in etcd.
    pub(crate) fn look_at(options: EtcdOptions) -> Result<Self, StoreError> {
        Ok(Self::bare(Waiting::connect(async move { Etcd::open(&options).await })?, 0))
    }

    pub(super) fn bare(rows: Waiting, max_audit_entries: u64) -> Self {
        Self { rows, books: Mutex::default(), seen: AtomicU64::new(0), max_audit_entries, seal: None }
    }
}

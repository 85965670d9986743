//! Sessions: what this process holds in the store while it lives, and what all of them hold.

use std::sync::Arc;

use weft_store::{Row, Session};

use super::{Store, StoreError};

impl Store {
    /// Begins a session of this process.
    pub(crate) fn session(&self, life: std::time::Duration) -> Result<Arc<dyn Session>, StoreError> {
        let begun = self.rows.wait(move |rows| Box::pin(async move { rows.session(life).await }))?;
        Ok(Arc::from(begun))
    }

    /// Holds rows by a session, and others no longer.
    pub(crate) fn hold(
        &self,
        session: &Arc<dyn Session>,
        rows: Vec<(String, Vec<u8>)>,
        released: Vec<String>,
    ) -> Result<(), StoreError> {
        let session = session.clone();
        let rows = rows.into_iter().map(|(key, value)| Row { key, value: value.into() }).collect();
        let hold = async move {
            session.release(released).await?;
            session.hold(rows).await
        };
        Ok(self.rows.wait(move |_| Box::pin(hold))?)
    }

    /// Holds these no longer, once others have seen this last word of each.
    pub(crate) fn release_with(
        &self,
        session: &Arc<dyn Session>,
        keys: Vec<String>,
        last: &'static str,
    ) -> Result<(), StoreError> {
        let session = session.clone();
        let rows = keys.into_iter().map(|key| Row { key, value: last.into() }).collect();
        Ok(self.rows.wait(move |_| Box::pin(async move { session.release_with(rows).await }))?)
    }

    /// Takes an office that nobody has. True while the session has it.
    pub(crate) fn lead(&self, session: &Arc<dyn Session>, office: &'static str) -> Result<bool, StoreError> {
        let session = session.clone();
        Ok(self.rows.wait(move |_| Box::pin(async move { session.lead(office).await }))?)
    }

    /// Ends a session where its store can be told.
    pub(crate) fn end(&self, session: Arc<dyn Session>) {
        let ended = self.rows.wait(move |_| {
            Box::pin(async move {
                drop(session);
                Ok(())
            })
        });
        drop(ended);
    }

    /// What all sessions hold.
    pub(crate) fn held(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let rows = self.rows.wait(move |rows| Box::pin(async move { rows.held().await }))?;
        Ok(rows.into_iter().map(|row| (row.key, row.value.to_vec())).collect())
    }
}

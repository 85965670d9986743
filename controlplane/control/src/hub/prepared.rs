//! Changes whose computation may take long, such as an apply of thousands of objects. Invariant: they are computed beside the
//! writer, which they hold for their commit only, unless the world has changed under them too often.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{Draft, Hub, Published, StoreError, apart, to_the_end};

/// So often a change is computed beside the writer. After that it is computed while nobody else changes anything.
const TRIES: usize = 3;

impl Hub {
    /// As `change`. What is refused is refused without waiting for the writer, and joins, renewals, bans and registrations
    /// go on while `change` is computed. It is computed again if the world, the claims or what can't be read have changed
    /// meanwhile.
    pub(super) async fn change_prepared<T, E>(
        self: &Arc<Self>,
        mut change: impl FnMut(&mut Draft) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        // One at a time: two of them would only overtake each other.
        let mut seat = self.preparing.clone().lock_owned().await;
        for _ in 0..TRIES {
            self.may_be_written()?;
            let published = self.published();
            let made_on = published.clone();
            // The seat goes with the computation: a caller who leaves makes no room for a second one beside it.
            let computed = apart(move || {
                let mut draft = Draft::of(&published);
                let made = change(&mut draft).map(|value| (value, draft));
                (seat, change, made)
            });
            let made;
            (seat, change, made) = computed.await;
            let (value, draft) = match made {
                Ok(made) => made,
                Err(error) if self.has_read_everything() => return Err(error),
                Err(_) => break,
            };
            let guard = self.writer.clone().lock_owned().await;
            let (now, version) = self.newest().await?;
            if !made_on.is_as(&now) {
                continue;
            }
            if draft.writes.is_empty() {
                return Ok(value);
            }
            let hub = self.clone();
            let landed = to_the_end(async move {
                let _writing = guard;
                hub.commit(Draft { version, ..draft }, 1).await
            })
            .await;
            match landed {
                Err(error) if error.is_conflict() => {
                    self.metrics.conflicts.increment(1);
                    self.catch_up().await?;
                }
                landed => return landed.map(|()| value).map_err(E::from),
            }
        }
        let made = self.change(change).await;
        drop(seat);
        made
    }
}

impl Published {
    /// True where a draft made on one is a draft made on the other.
    fn is_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.world, &other.world)
            && self.revision == other.revision
            && self.claims == other.claims
            && self.unreadable == other.unreadable
    }
}

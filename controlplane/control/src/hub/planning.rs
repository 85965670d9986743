//! Computation apart from everything else: plans that change nothing, and changes whose computation may take long.
//! Invariant: a plan never holds the writer's lock, however long it takes; so many are computed at a time and no more.

#[cfg(test)]
mod tests;

use std::time::Instant;

use weft_policy::identity::SpiffeId;

use super::{Hub, Published, StoreError, apart};
use crate::metrics::Throttled;
use crate::rate::{Part, Place, Rates, Spent, Turn, Turns};
use crate::store::{AuditLog, AuditQuery, Store};

/// Too many plans or searches are being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} of the kind are being computed, which is the limit: try again in a moment")]
pub struct Busy(usize);

/// A token's budget of calls is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooManyCalls {
    #[error("this token has made more than {limit} calls a minute: wait {seconds} s")]
    AMinute { limit: u32, seconds: u64 },
    #[error("{0} calls with this token are under way, which is the limit")]
    AtATime(usize),
}

impl Hub {
    /// What the account of a proxy has of names and addresses that it asks for and that are not there.
    pub(crate) fn absent_asks(&self, account: &SpiffeId) -> Part<SpiffeId> {
        self.absent_asks.nothing(account)
    }

    /// Computes something of the world as it is, in the turn of `token`.
    pub(crate) async fn plan<T: Send + 'static>(
        &self,
        token: &str,
        compute: impl FnOnce(&Published) -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let turn = self.turn(&self.plans, token).await?;
        let published = self.published();
        let result = apart(move || {
            let _turn = turn;
            compute(&published)
        });
        Ok(result.await)
    }

    /// Waits for one of so many places, as long as a request may take. A token has one at a time, so that none has all.
    async fn turn(&self, turns: &Turns<String>, token: &str) -> Result<Turn, Busy> {
        let token = token.to_owned();
        tokio::time::timeout(self.config.request_timeout(), turns.take(&token)).await.map_err(|_| {
            self.metrics.throttled(Throttled::Plans);
            Busy(self.config.limits.max_concurrent_plans)
        })
    }

    /// Entries of the audit log, for people. A search may read all of it: so many are made at a time, as with plans.
    pub(crate) async fn search_events(
        &self,
        token: &str,
        query: AuditQuery,
    ) -> Result<Result<AuditLog, StoreError>, Busy> {
        let _turn = self.turn(&self.searches, token).await?;
        Ok(self.events(query).await)
    }

    /// The number of the newest entry of the audit log.
    pub(crate) async fn newest_event(&self) -> Result<u64, StoreError> {
        self.blocking(Store::newest_event).await
    }

    /// Memory for the body of a call.
    pub(crate) fn take_body(&self, token: &str, bytes: usize) -> Result<Part<String>, Spent> {
        self.bodies.take(&token.to_owned(), bytes).inspect_err(|_| self.metrics.throttled(Throttled::Bodies))
    }

    /// Takes one of what each may have in a minute. Else that is counted as `what`, and told in how many seconds there is one
    /// again.
    pub(super) fn within<K: Ord + Clone>(&self, rates: &Rates<K>, of: &K, what: Throttled) -> Result<(), u64> {
        rates.take(of, Instant::now()).map_err(|wait| {
            self.metrics.throttled(what);
            wait.as_secs() + 1
        })
    }

    /// Counts a call of the operator API, which is under way until the place is dropped.
    pub(crate) fn take_call(&self, token: &str) -> Result<Place<String>, TooManyCalls> {
        let (token, limits) = (token.to_owned(), &self.config.limits);
        let taken = match self.calls.take(&token, Instant::now()) {
            Ok(()) => self.open_calls.take(&token).ok_or(TooManyCalls::AtATime(limits.max_open_calls_per_token)),
            Err(wait) => {
                let (limit, seconds) = (limits.max_api_calls_per_minute, wait.as_secs() + 1);
                Err(TooManyCalls::AMinute { limit, seconds })
            }
        };
        taken.inspect_err(|_| self.metrics.throttled(Throttled::Api))
    }
}

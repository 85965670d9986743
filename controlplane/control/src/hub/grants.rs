//! Grants of accounts that have joined: told to operators, withdrawn by them, and gained by further join tokens. Invariant:
//! a workload that its account may not have where it is any longer leaves in the same transaction as the grant.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use time::OffsetDateTime;

use weft_policy::bundle::ObjectName;
use weft_policy::identity::SpiffeId;
use weft_policy::plan::{Owned, ProxyKey};
use weft_policy::resource::{Object, WorkloadSpec};

use super::apply::{self, PutError};
use super::identity::{JoinError, spend, usable};
use super::registration::misplaced;
use super::{Actor, Draft, Hub, Origin, StoreError};
use crate::claims::{Grants, MAX_GRANTED};
use crate::metrics::Throttled;
use crate::token::{Grant, TokenHash, TokenRecord};

/// Grants that were withdrawn, and the consequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawn {
    pub identity: SpiffeId,
    pub grants: Grants,
    /// Workloads that left, each with the reason.
    pub left: Vec<(ObjectName, String)>,
    /// Tokens that would grant some of it again, as they are called.
    pub tokens: Vec<TokenRecord>,
}

/// Why nothing was withdrawn.
#[derive(Debug, thiserror::Error)]
pub enum WithdrawError {
    #[error("{identity} was not granted {what}: weft proxy grants")]
    NotGranted { identity: SpiffeId, what: String },
    #[error(transparent)]
    Owned(#[from] Owned),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<PutError> for WithdrawError {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Owned(owned) => owned.into(),
            PutError::Store(error) => error.into(),
        }
    }
}

impl Hub {
    /// Takes away what an account was granted: all of `what`, or everything. Workloads that stand by it leave, and their
    /// proxies are told why.
    pub async fn withdraw(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        identity: SpiffeId,
        what: Option<Grants>,
    ) -> Result<Withdrawn, WithdrawError> {
        let (hub, actor) = (self.clone(), actor.into());
        super::to_the_end(async move { hub.take_away(actor, identity, what).await }).await
    }

    async fn take_away(
        self: &Arc<Self>,
        actor: Actor,
        identity: SpiffeId,
        what: Option<Grants>,
    ) -> Result<Withdrawn, WithdrawError> {
        let (hub, account) = (self.clone(), identity.clone());
        let change = move |draft: &mut Draft| draft.withdraw(&hub, &actor, &account, what.clone());
        let (grants, left) = self.change(change).await?;
        let mut reasons: BTreeMap<&ProxyKey, Vec<&str>> = BTreeMap::new();
        for Left { proxy, reason, .. } in &left {
            reasons.entry(proxy).or_default().push(reason);
        }
        for (proxy, reasons) in reasons {
            let reason = format!("an operator withdrew{grants}: {}", reasons.join("; "));
            tracing::warn!(%proxy, reason, "a proxy's workloads left");
            self.registry().dismiss(proxy, &reason);
        }
        let tokens = self.tokens().await?.into_iter().filter(|record| grants_again(record, &identity, &grants));
        let tokens = tokens.collect();
        let left = left.into_iter().map(|left| (left.workload, left.reason)).collect();
        Ok(Withdrawn { identity, grants, left, tokens })
    }

    /// Grants a joined account what another join token of it grants. One that grants nothing new is not used up.
    pub async fn gain(self: &Arc<Self>, identity: &SpiffeId, token: &str, peer: &str) -> Result<Grants, JoinError> {
        self.within(&self.gains, identity, Throttled::Joins)
            .map_err(|seconds| JoinError::TooOften { from: identity.to_string(), seconds })?;
        let gained = self.try_gain(identity.clone(), token, peer).await;
        match &gained {
            Ok(grants) if grants.is_empty() => {}
            Ok(grants) => {
                tracing::info!(%identity, peer, grants = %grants.words().join(" "), "an account gained grants")
            }
            Err(error) => tracing::info!(%identity, peer, error = %crate::chain(error), "a token grants nothing"),
        }
        gained
    }

    async fn try_gain(self: &Arc<Self>, identity: SpiffeId, token: &str, peer: &str) -> Result<Grants, JoinError> {
        let (hash, now, peer) = (TokenHash::of(token), OffsetDateTime::now_utc(), peer.to_owned());
        // A token that is used up or has ended is refused without the writer's lock: each proxy shows its old one at a start.
        usable(self.token(hash.clone()).await?, now)?;
        let store = self.store.clone();
        let gained = self.change_together(move |draft| {
            let (record, of) = usable(draft.token(&store, &hash)?, now)?;
            if of != identity {
                return Err(JoinError::OtherAccount { of: Box::new(of), identity: Box::new(identity.clone()) });
            }
            let granted = match &record.grant {
                Grant::Join { grants, .. } => grants.without(draft.claims.grants(&identity)),
                Grant::Operator { .. } => Grants::default(),
            };
            if granted.is_empty() {
                return Ok((granted, None));
            }
            draft.grant_bounded(&identity, &granted)?;
            let (actor, detail) = (format!("token:{}", record.id), format!("peer={peer}{granted}"));
            let used_up = spend(draft, hash.clone(), record);
            let entry = draft.audit(actor, "grants.gain", identity.to_string(), detail);
            entry.within([identity.namespace().to_owned()]);
            Ok::<_, JoinError>((granted, used_up))
        });
        let (granted, used_up) = gained.await?;
        if let Some(record) = used_up {
            self.tokens_made.remove(&record);
        }
        Ok(granted)
    }
}

/// A workload that left.
struct Left {
    workload: ObjectName,
    proxy: ProxyKey,
    reason: String,
}

impl Draft {
    /// Grants `more`, and refuses if the account then has more than it had and more than the bound.
    pub(super) fn grant_bounded(&mut self, identity: &SpiffeId, more: &Grants) -> Result<(), JoinError> {
        let before = self.claims.grants(identity).len();
        self.grant(identity, more)?;
        let granted = self.claims.grants(identity).len();
        if granted > MAX_GRANTED.max(before) {
            return Err(JoinError::TooManyGrants { identity: identity.clone(), granted });
        }
        Ok(())
    }

    /// Adds to what an account was granted, and notes it in the workloads that its proxies registered.
    pub(super) fn grant(&mut self, identity: &SpiffeId, more: &Grants) -> Result<(), PutError> {
        if self.claim(|draft| draft.claims.grant(identity, more)) {
            for (name, _) in self.workloads_of(identity) {
                apply::note_grants(self, &name)?;
            }
        }
        Ok(())
    }

    fn workloads_of(&self, identity: &SpiffeId) -> Vec<(ObjectName, ProxyKey)> {
        let own = self.world.registered_of_account(identity);
        own.filter_map(|name| Some((name.clone(), self.world.registered_by(name)?.clone()))).collect()
    }

    fn withdraw(
        &mut self,
        hub: &Hub,
        actor: &Actor,
        identity: &SpiffeId,
        what: Option<Grants>,
    ) -> Result<(Grants, Vec<Left>), WithdrawError> {
        let before = self.claims.grants(identity).clone();
        let what = what.unwrap_or_else(|| before.clone());
        let missing = what.without(&before);
        let refuse = |what| Err(WithdrawError::NotGranted { identity: identity.clone(), what });
        if !missing.is_empty() {
            return refuse(missing.words().join(", "));
        }
        if what.is_empty() {
            return refuse("anything".to_owned());
        }
        self.claim(|draft| draft.claims.withdraw(identity, &what));
        let mut left = Vec::new();
        for (workload, proxy) in self.workloads_of(identity) {
            match self.unfounded(hub, &proxy, &workload, &before) {
                Some(reason) => {
                    apply::remove_registered(self, &workload, hub.age())?;
                    left.push(Left { workload, proxy, reason });
                }
                None => apply::note_grants(self, &workload)?,
            }
        }
        let names: Vec<_> = left.iter().map(|left| left.workload.to_string()).collect();
        let told = if names.is_empty() { String::new() } else { format!("; left: {}", names.join(" ")) };
        let detail = format!("{}{told}", what.words().join(" "));
        let entry = self.audit(actor, "grants.withdraw", identity.to_string(), detail);
        entry.within([identity.namespace().to_owned()]);
        Ok((what, left))
    }

    /// Why a registered workload may not be where it is any longer, which it could be by the grants `before`.
    fn unfounded(&self, hub: &Hub, proxy: &ProxyKey, name: &ObjectName, before: &Grants) -> Option<String> {
        let workload = self.world.workload(name)?;
        let (now, account) = (self.claims.grants(&proxy.identity), proxy.identity.service_account());
        let service = self.world.selecting(workload).find(|service| {
            let may = |grants: &Grants| grants.may_stand_behind(account, &service.metadata.name, Some(service));
            may(before) && !may(now)
        });
        if let Some(service) = service {
            return Some(format!("workload {name} may not stand behind Service {} any longer", service.name()));
        }
        let is_lost = |address: &IpAddr| before.has_address(*address) && !now.has_address(*address);
        let own = |address: &IpAddr| match hub.registry().place(proxy) {
            Some((at, is_remote)) => {
                misplaced(*address, Origin { address: at, is_local: !is_remote }, || None).is_none()
            }
            None => false,
        };
        let lost = addresses(workload).into_iter().find(|address| is_lost(address) && !own(address))?;
        Some(format!("workload {name} may not be at {lost} any longer, where its proxy does not speak from"))
    }
}

fn addresses(workload: &Object<WorkloadSpec>) -> [IpAddr; 2] {
    [workload.spec.address, workload.spec.mesh_address().ip()]
}

/// True for a join token of the account that grants some of it.
fn grants_again(record: &TokenRecord, identity: &SpiffeId, grants: &Grants) -> bool {
    match &record.grant {
        Grant::Join { identity: of, grants: granted, .. } => of == identity && granted.without(grants) != *granted,
        Grant::Operator { .. } => false,
    }
}

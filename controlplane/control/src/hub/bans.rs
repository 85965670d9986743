//! Identities that an operator keeps out until he lifts the ban: no certificate is issued or renewed for them, no control
//! stream is served, and every proxy is told at once to close and refuse their connections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use weft_policy::identity::SpiffeId;
use weft_policy::plan::World;

use super::{Actor, Hub, Silent, to_the_end};
use crate::peers::Evicting;
use crate::registry::{ProxyKey, SyncState};
use crate::store::{Rows, StoreError, Table, Write, write_record};

/// So many identities may be banned at a time: every proxy holds the list.
const MAX_BANS: usize = 10_000;
/// So many of one namespace: who may ban in one leaves room for the others.
const MAX_BANS_OF_NAMESPACE: usize = 1_000;

/// One banned identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    pub identity: SpiffeId,
    pub reason: String,
    pub since_unix: i64,
    pub by: String,
}

/// Why nobody was banned or let in again.
#[derive(Debug, thiserror::Error)]
pub enum BanError {
    #[error("{0} is not banned")]
    NotBanned(SpiffeId),
    #[error("{0} is of another trust domain: nobody of it is let in anyway")]
    Foreign(SpiffeId),
    #[error("{MAX_BANS} identities are banned: lift a ban first")]
    TooMany,
    #[error("{MAX_BANS_OF_NAMESPACE} identities of namespace {0} are banned: lift one of those bans first")]
    TooManyOf(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why nobody was evicted.
#[derive(Debug, thiserror::Error)]
pub enum EvictError {
    #[error("proxy {proxy} is {reason}; try again, or ban its identity, which holds at every control plane")]
    NotTold { proxy: Box<ProxyKey>, reason: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(crate) type Bans = Arc<BTreeMap<SpiffeId, Ban>>;

pub(super) fn load(rows: Rows<Ban>) -> Bans {
    // The key of a record is the identity, so that a ban whose record can't be read still holds.
    let unread = rows.unreadable.iter().filter_map(|row| {
        let identity: SpiffeId = row.key.parse().ok()?;
        let reason = format!("its record can't be read: {}", row.reason);
        Some(Ban { identity, reason, since_unix: 0, by: String::new() })
    });
    let all = rows.read.into_iter().map(|(_, ban)| ban).chain(unread);
    Arc::new(all.map(|ban| (ban.identity.clone(), ban)).collect())
}

impl Hub {
    /// All bans, by identity.
    pub fn bans(&self) -> Arc<BTreeMap<SpiffeId, Ban>> {
        self.bans.borrow().clone()
    }

    /// Why `identity` is kept out, where it is.
    pub(crate) fn banned(&self, identity: &SpiffeId) -> Option<String> {
        let bans = self.bans.borrow();
        let ban = bans.get(identity)?;
        let since = OffsetDateTime::from_unix_timestamp(ban.since_unix).ok().and_then(|at| at.format(&Rfc3339).ok());
        let since = since.unwrap_or_else(|| ban.since_unix.to_string());
        let reason = if ban.reason.is_empty() { String::new() } else { format!(" ({})", ban.reason) };
        Some(format!("{identity} is banned since {since}{reason}: an operator lifts that with `weft proxy unban`"))
    }

    /// Keeps `identity` out from now on; its endpoints leave discovery, its connections are closed everywhere. False beside
    /// it where that could not be written: it holds until this process ends, and is written as soon as it can be. Once begun
    /// it is done to its end, whether or not the caller still waits.
    pub async fn ban(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        identity: SpiffeId,
        reason: String,
    ) -> Result<(Ban, bool), BanError> {
        let (hub, actor) = (self.clone(), actor.into());
        to_the_end(async move { hub.keep_out(actor, identity, reason).await }).await
    }

    async fn keep_out(
        self: &Arc<Self>,
        actor: Actor,
        identity: SpiffeId,
        reason: String,
    ) -> Result<(Ban, bool), BanError> {
        // Bans are told in the order in which they are stored.
        let _turn = self.bans_turn.lock().await;
        let ban = self.new_ban(&actor, identity.clone(), reason);
        let kept = self.keep_ban(actor.clone(), ban.clone()).await;
        let is_durable = match kept {
            Ok(()) => true,
            Err(BanError::Store(error)) => {
                let mut unwritten = self.unwritten_bans.lock().unwrap_or_else(PoisonError::into_inner);
                let known = self.bans.borrow().get(&identity).cloned();
                if let Some(known) = known.filter(|_| !unwritten.contains_key(&identity)) {
                    // The store has an older ban of it.
                    return Ok((known, true));
                }
                // The ban holds in memory: a disk without room must let nobody stay.
                let error = crate::chain(&error);
                tracing::error!(%identity, error, "a ban holds, but could not be written: it is tried again");
                unwritten.insert(identity.clone(), (actor, ban.clone()));
                false
            }
            Err(error) => return Err(error),
        };
        self.bans.send_modify(|bans| {
            Arc::make_mut(bans).insert(identity.clone(), ban.clone());
        });
        tracing::warn!(%identity, reason = ban.reason, "identity banned");
        self.release_banned(&identity).await;
        Ok((ban, is_durable))
    }

    /// A ban that stands goes on from when it began; only one with a reason of its own takes its place.
    fn new_ban(&self, actor: &Actor, identity: SpiffeId, reason: String) -> Ban {
        let known = self.bans.borrow().get(&identity).cloned();
        let new = Ban { identity, reason, since_unix: crate::now_unix(), by: actor.id.clone() };
        match known {
            // The record of one can't be read: what is written now is all that is known.
            Some(known) if known.since_unix > 0 && new.reason.is_empty() => known,
            Some(known) if known.since_unix > 0 => Ban { since_unix: known.since_unix, ..new },
            Some(_) | None => new,
        }
    }

    pub(super) async fn release_banned(self: &Arc<Self>, identity: &SpiffeId) {
        let owners = owners(&self.published().world).filter(|owner| owner.identity == *identity).cloned().collect();
        self.release_all(owners, "its identity was banned").await;
    }

    /// Writes bans that hold already and could not be written when they were made.
    pub(super) async fn write_bans(self: &Arc<Self>) {
        let _turn = self.bans_turn.lock().await;
        let unwritten = self.unwritten_bans.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (identity, (actor, ban)) in unwritten {
            match self.keep_ban(actor, ban).await {
                Err(BanError::Store(_)) => return,
                Err(error) => tracing::error!(%identity, %error, "a ban is not written"),
                Ok(()) => {}
            }
            self.unwritten_bans.lock().unwrap_or_else(PoisonError::into_inner).remove(&identity);
            self.release_banned(&identity).await;
        }
    }

    async fn keep_ban(self: &Arc<Self>, actor: Actor, record: Ban) -> Result<(), BanError> {
        let hub = self.clone();
        self.change_first(move |draft| {
            if record.identity.trust_domain() != hub.trust_domain.as_str() {
                return Err(BanError::Foreign(record.identity.clone()));
            }
            may_be_added(&hub.bans.borrow(), &record.identity)?;
            let json = write_record(&record)?;
            draft.writes.push(Write::PutRow(Table::Bans, record.identity.to_string(), json));
            let entry = draft.audit(&actor, "proxy.ban", record.identity.to_string(), record.reason.clone());
            entry.within([record.identity.namespace().to_owned()]);
            Ok::<_, BanError>(())
        })
        .await
    }

    /// Lets `identity` in again.
    pub async fn unban(self: &Arc<Self>, actor: impl Into<Actor>, identity: &SpiffeId) -> Result<(), BanError> {
        let (hub, actor, identity) = (self.clone(), actor.into(), identity.clone());
        to_the_end(async move { hub.let_in(actor, &identity).await }).await
    }

    async fn let_in(self: &Arc<Self>, actor: Actor, identity: &SpiffeId) -> Result<(), BanError> {
        let _turn = self.bans_turn.lock().await;
        let unwritten = self.unwritten_bans.lock().unwrap_or_else(PoisonError::into_inner).remove(identity);
        if unwritten.is_some() && self.store.fault().is_some() {
            // The store does not know of it.
            self.bans.send_modify(|bans| {
                Arc::make_mut(bans).remove(identity);
            });
            tracing::info!(%identity, "a ban that was not written is lifted");
            return Ok(());
        }
        let (hub, key) = (self.clone(), identity.clone());
        self.change(move |draft| {
            if !hub.bans.borrow().contains_key(&key) {
                return Err(BanError::NotBanned(key.clone()));
            }
            draft.writes.push(Write::DeleteRow(Table::Bans, key.to_string()));
            let entry = draft.audit(&actor, "proxy.unban", key.to_string(), String::new());
            entry.within([key.namespace().to_owned()]);
            Ok(())
        })
        .await?;
        self.bans.send_modify(|bans| {
            Arc::make_mut(bans).remove(identity);
        });
        tracing::info!(%identity, "ban lifted");
        Ok(())
    }

    /// Proxies with this name: of each account there may be one.
    pub async fn proxies_named(&self, name: &str) -> Vec<ProxyKey> {
        let known = self.known_proxies().await;
        let published = self.published();
        let mut keys: Vec<_> =
            known.into_iter().chain(owners(&published.world).cloned()).filter(|key| key.name == name).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// All proxies that are known, here or at another control plane: that one knows of a stream before the store does.
    pub(crate) async fn known_proxies(&self) -> BTreeSet<ProxyKey> {
        let mut keys: BTreeSet<_> = self.look_everywhere().await.into_iter().map(|status| status.key).collect();
        keys.extend(self.registry().keys());
        keys
    }

    /// Ends the sessions of proxies and the connections that others have with them, at whichever control plane, and takes their
    /// endpoints out of discovery. One that still runs comes back by itself. Gives the control planes that did not hear.
    pub async fn evict(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        keys: Vec<ProxyKey>,
    ) -> Result<Vec<Silent>, EvictError> {
        let (hub, actor) = (self.clone(), actor.into());
        to_the_end(async move { hub.put_out(actor, keys).await }).await
    }

    async fn put_out(self: &Arc<Self>, actor: Actor, keys: Vec<ProxyKey>) -> Result<Vec<Silent>, EvictError> {
        let shown = self.shown_by(&keys).await?;
        let told = keys.clone();
        self.change(move |draft| {
            let names: Vec<_> = told.iter().map(ToString::to_string).collect();
            let entry = draft.audit(&actor, "proxy.evict", names.join(" "), String::new());
            entry.within(told.iter().map(|key| key.identity.namespace().to_owned()));
            Ok::<_, StoreError>(())
        })
        .await?;
        let (serials, number) = self.end_connections(shown).await?;
        let silent = self.tell_eviction(&Evicting { proxies: keys.clone(), serials, number }).await;
        self.note_evicted(&keys);
        self.release_all(keys, "evicted by an operator").await;
        Ok(silent)
    }

    /// The certificate that each of these showed last, here or at another control plane.
    async fn shown_by(&self, keys: &[ProxyKey]) -> Result<Vec<(SpiffeId, Option<String>)>, EvictError> {
        let mut shown = Vec::with_capacity(keys.len());
        let mut others = BTreeMap::new();
        if keys.iter().any(|key| !self.registry().is_connected_here(key)) {
            others.extend(self.look_everywhere().await.into_iter().map(|status| (status.key.clone(), status)));
        }
        for key in keys {
            let told = match others.get(key) {
                Some(status) if status.state == SyncState::Elsewhere => {
                    return Err(EvictError::NotTold { proxy: Box::new(key.clone()), reason: status.reason.clone() });
                }
                Some(status) => Some(status.introduction.certificate.clone()),
                None => self.registry().introduction(key).map(|introduction| introduction.certificate),
            };
            // One that was not heard since this process began showed none.
            shown.push((key.identity.clone(), told.filter(|certificate| !certificate.is_empty())));
        }
        Ok(shown)
    }

    /// Another control plane evicts proxies: their streams here end, and every proxy here ends its connections with them.
    pub(crate) fn evicted_elsewhere(&self, evicting: Evicting) {
        self.keep_evicted(evicting.serials, Some(evicting.number));
        self.note_evicted(&evicting.proxies);
        evicting.proxies.iter().for_each(|key| self.registry().forget(key));
    }

    async fn release_all(self: &Arc<Self>, keys: Vec<ProxyKey>, why: &'static str) {
        for key in keys {
            self.registry().forget(&key);
            self.release(&key, why).await;
        }
    }
}

/// Proxies that registered workloads; one of several comes as often.
fn owners(world: &World) -> impl Iterator<Item = &ProxyKey> {
    world.registered().map(|(_, owner)| owner)
}

fn may_be_added(bans: &BTreeMap<SpiffeId, Ban>, identity: &SpiffeId) -> Result<(), BanError> {
    let namespace = identity.namespace();
    let near = bans.keys().filter(|other| other.namespace() == namespace).count();
    match bans.contains_key(identity) {
        true => Ok(()),
        false if bans.len() >= MAX_BANS => Err(BanError::TooMany),
        false if near >= MAX_BANS_OF_NAMESPACE => Err(BanError::TooManyOf(namespace.to_owned())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use weft_policy::wire::v1;

    use super::*;

    #[tokio::test]
    async fn a_ban_whose_record_cannot_be_read_lets_nobody_in() {
        use rcgen::{CertificateParams, KeyPair};

        let dir = tempfile::tempdir().unwrap();
        let identity: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        let hub = crate::hub::tests::hub_in(dir.path(), |_| {});
        hub.ban("me", identity.clone(), "broken into".to_owned()).await.unwrap();
        drop(hub);
        let store = crate::store::Store::open(&dir.path().join("weft.redb"), 1_000).unwrap();
        let damaged = Write::PutRow(Table::Bans, identity.to_string(), "{".to_owned());
        store.commit(None, vec![damaged]).unwrap();
        drop(store);
        let hub = crate::hub::tests::hub_in(dir.path(), |_| {});
        assert_eq!(hub.published().unreadable.len(), 1, "it is told of");
        let message = hub.watch_kept_out().message().message.unwrap();
        let v1::control_message::Message::Denials(denials) = message else { panic!("no list of the banned") };
        assert_eq!(denials.identities, [identity.to_string()], "every proxy is told to keep it out");
        let grant = crate::token::Grant::Join { identity: identity.clone(), uses_left: 1, grants: Default::default() };
        let token = hub.create_token("me", grant, None).await.unwrap();
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap();
        let from = "127.0.0.1".parse().ok();
        let refused = hub.join(token.text.reveal(), csr.der(), from).await.err().unwrap().to_string();
        assert!(refused.contains("its record can't be read"), "{refused}");
        hub.unban("me", &identity).await.unwrap();
        hub.join(token.text.reveal(), csr.der(), from).await.unwrap();
    }

    #[tokio::test]
    async fn a_ban_that_is_made_again_keeps_its_beginning_and_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let identity: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        let hub = crate::hub::tests::hub_in(dir.path(), |_| {});
        let (first, _) = hub.ban("me", identity.clone(), "broken into".to_owned()).await.unwrap();
        let ban = async |by: &'static str, reason: &str| {
            hub.ban(by, identity.clone(), reason.to_owned()).await.unwrap();
            let ban = hub.bans()[&identity].clone();
            assert_eq!(ban.since_unix, first.since_unix);
            (ban.by, ban.reason)
        };
        assert_eq!(ban("you", "").await, ("me".to_owned(), "broken into".to_owned()));
        assert_eq!(ban("you", "sold").await, ("you".to_owned(), "sold".to_owned()));
        drop(hub);
        let hub = crate::hub::tests::hub_in(dir.path(), |_| {});
        assert_eq!(hub.bans()[&identity].reason, "sold");
    }

    #[test]
    fn the_bans_of_one_namespace_leave_room_for_others() {
        let of = |namespace: &str, number: usize| -> SpiffeId {
            format!("spiffe://cluster.local/ns/{namespace}/sa/a{number}").parse().unwrap()
        };
        let ban = |identity: SpiffeId| {
            let (reason, by) = (String::new(), String::new());
            (identity.clone(), Ban { identity, reason, since_unix: 0, by })
        };
        let mut bans: BTreeMap<_, _> = (0..MAX_BANS_OF_NAMESPACE).map(|number| ban(of("shop", number))).collect();
        let refused = may_be_added(&bans, &of("shop", MAX_BANS)).unwrap_err().to_string();
        assert_eq!(refused, "1000 identities of namespace shop are banned: lift one of those bans first");
        may_be_added(&bans, &of("shop", 0)).unwrap();
        may_be_added(&bans, &of("bank", 0)).unwrap();
        let others = MAX_BANS / MAX_BANS_OF_NAMESPACE - 1;
        bans.extend(
            (0..others)
                .flat_map(|other| (0..MAX_BANS_OF_NAMESPACE).map(move |n| (other, n)))
                .map(|(other, number)| ban(of(&format!("other-{other}"), number))),
        );
        assert!(matches!(may_be_added(&bans, &of("bank", 0)), Err(BanError::TooMany)));
    }
}

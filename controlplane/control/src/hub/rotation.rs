//! Replacing the authority's root or intermediate while the mesh goes on. Both roots are told to every proxy and trusted until
//! each certificate that only the old one vouches for has ended; then the old one is dropped by itself, or before by force.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use time::OffsetDateTime;
use weft_policy::delta::Key;

use super::identity::{IssuedRecord, issued, row_of};
use super::{Actor, Draft, Hub, ReplicaRoot, to_the_end};
use crate::ca::{Authorities, RotateError};
use crate::registry::{ProxyKey, ProxyStatus, SyncState};
use crate::store::{Store, StoreError, Write};

/// How far the replacement of a root is.
#[derive(Debug, Clone)]
pub struct Rotation {
    pub authorities: Authorities,
    /// While a root is replaced.
    pub left: Option<Left>,
    /// Why `left` is not known though a root is replaced.
    pub unknown: Option<String>,
    /// The control planes of the store that live, this one first; none where it is the only one.
    pub replicas: Vec<ReplicaRoot>,
}

/// What still needs the root before.
#[derive(Debug, Clone)]
pub struct Left {
    /// Proxies that may not trust the new root yet.
    pub waiting: BTreeSet<ProxyKey>,
    /// Certificates that it vouches for and that may be in use, or renewed within the grace.
    pub certificates: usize,
    /// When the last of them is over.
    pub until_unix: Option<i64>,
    /// Control planes that have no intermediate of the new root yet, each with the reason.
    pub replicas: Vec<String>,
    /// No certificate's life has passed since: the clock may have been ahead at the beginning, or the store does not know of
    /// all that were issued.
    pub(crate) is_early: bool,
}

impl Left {
    fn is_nothing(&self) -> bool {
        self.waiting.is_empty() && self.certificates == 0 && self.replicas.is_empty()
    }
}

/// That of a store that was never set back.
const FIRST_EPOCH: u64 = 1;

/// Names the record of the store that says since when a root is replaced.
const BEGUN: &str = "rotation";
/// Names the one that says which roots proxies were told to trust last.
const TOLD: &str = "trust_told";

/// The beginning of a replacement: by the age of the store, which no clock moves, and by the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begun {
    age: u64,
    unix: i64,
    /// Certificates had been issued: their records may be swept by a clock that is ahead.
    is_in_use: bool,
}

impl Begun {
    /// Now, of a store of this age from which certificates were issued.
    pub(super) fn now_of(age: u64) -> Self {
        Self { age, unix: crate::now_unix(), is_in_use: true }
    }

    /// The record of the replacement by this root.
    pub(super) fn parse(text: &str, root: &str) -> Option<Self> {
        let mut words = text.split(' ');
        (words.next() == Some(root)).then_some(())?;
        let (age, unix) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { age, unix, is_in_use: words.next()?.parse().ok()? })
    }

    /// The time now, by a clock that may have been set ahead meanwhile: then it is as late as the store is old.
    pub(super) fn now(self, age: u64, clock: i64) -> i64 {
        let passed = i64::try_from(age.saturating_sub(self.age)).unwrap_or(i64::MAX);
        clock.min(self.unix.saturating_add(passed))
    }

    /// True where a certificate of so many seconds may be in use that was issued before.
    pub(super) fn is_early(self, age: u64, seconds: u64) -> bool {
        self.is_in_use && age.saturating_sub(self.age) < seconds
    }
}

/// Why nothing was rotated or dropped.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error(transparent)]
    Rotate(#[from] RotateError),
    #[error(
        "the old root is still needed: {certificates} certificates that it vouches for are not over, {waiting} proxies may \
         not trust the new one yet (weft ca show). They would be cut off; say --force where that is wanted"
    )]
    Needed { certificates: usize, waiting: usize },
    #[error(
        "no certificate's life has passed since the root was replaced, and the store may not know of all certificates that \
         the old one vouches for: their proxies would be cut off; say --force where that is wanted"
    )]
    Early,
    #[error(
        "the old root is still needed: without an intermediate of the new one are the control planes {0}. They would issue \
         nothing more; say --force where that is wanted"
    )]
    Behind(String),
    #[error("the store's record of the roots can't be read: {0}")]
    Record(String),
    #[error("{0}")]
    Unsigned(String),
    #[error("the store leads nobody yet (weft store accept): what needs the old root is not known")]
    InDoubt,
    #[error(
        "the store is in etcd, and a root whose key lies elsewhere takes another one's place with the store redb only. Another \
         intermediate of the same root is taken"
    )]
    Shared,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What needs other roots than the newest.
pub(super) struct Lives {
    root: String,
    now: i64,
    /// Seconds for which a certificate may be renewed after its end, and those of its life.
    grace: i64,
    life: i64,
    /// Serial numbers that connected proxies show.
    shown: Vec<String>,
}

impl Lives {
    /// The ends of all certificates of other roots that may be in use.
    pub(super) fn ends(&self, store: &Store) -> Result<Vec<i64>, StoreError> {
        let issued = issued(store)?;
        // A store that was set back or lost does not know those that proxies show all the same.
        let unknown = self.shown.iter().filter(|serial| !serial.is_empty() && !issued.contains_key(*serial)).count();
        let unknown = std::iter::repeat_n(self.now.saturating_add(self.life), unknown);
        let of_old = issued.into_values().filter(|record| record.root.as_ref() != Some(&self.root));
        let end = |record: IssuedRecord| match record.replaced_by {
            Some(_) => record.not_after_unix,
            None => record.not_after_unix.saturating_add(self.grace),
        };
        Ok(of_old.map(end).filter(|end| *end >= self.now).chain(unknown).collect())
    }
}

/// The roots that proxies were told to trust, and the revision in which they were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    trusted: String,
    revision: u64,
}

impl Told {
    fn first(trusted: &str) -> Self {
        Self::of(trusted, 0)
    }

    pub(super) fn of(trusted: &str, revision: u64) -> Self {
        Self { trusted: trusted.to_owned(), revision }
    }

    fn parse(text: &str) -> Option<Self> {
        let (revision, trusted) = text.split_once(' ')?;
        Some(Self { trusted: trusted.to_owned(), revision: revision.parse().ok()? })
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.revision, self.trusted)
    }
}

pub(super) fn record_of_told(told: &Told) -> Write {
    Write::Meta(TOLD, told.to_string())
}

pub(super) fn record_of_begin(root: &str, begun: Begun) -> Write {
    Write::Meta(BEGUN, format!("{root} {} {} {}", begun.age, begun.unix, begun.is_in_use))
}

/// The fingerprints of the roots in force.
fn trusted(authorities: &Authorities) -> String {
    let previous = authorities.previous.iter().map(|(fingerprint, _)| fingerprint.as_str());
    std::iter::once(authorities.root.0.as_str()).chain(previous).collect::<Vec<_>>().join(" ")
}

impl Hub {
    pub async fn rotation(self: &Arc<Self>) -> Result<Rotation, StoreError> {
        let authorities = self.authority().authorities();
        let replicas = self.replica_roots();
        let left = match authorities.previous {
            Some(_) => Some(self.left(&authorities, &replicas).await?),
            None => None,
        };
        Ok(Rotation { authorities, left, unknown: None, replicas })
    }

    /// The same for who only looks: as far as it is known without a store that is away.
    pub(crate) async fn known_rotation(self: &Arc<Self>) -> Result<Rotation, StoreError> {
        match self.rotation().await {
            Err(error) if error.is_unreachable() => {
                let (authorities, unknown) = (self.authority().authorities(), Some(crate::chain(&error)));
                Ok(Rotation { authorities, left: None, unknown, replicas: self.replica_roots() })
            }
            rotation => rotation,
        }
    }

    async fn left(self: &Arc<Self>, authorities: &Authorities, replicas: &[ReplicaRoot]) -> Result<Left, StoreError> {
        let begun = self.begun(authorities).await?;
        let (root, now) = (&authorities.root.0, begun.now(self.age(), crate::now_unix()));
        let known = self.look_everywhere().await;
        let shown = known.iter().filter(|proxy| proxy.connected_since.is_some());
        let shown: Vec<_> = shown.map(|proxy| row_of(&proxy.introduction.certificate)).collect();
        let lives = self.lives(root, now, shown);
        let ends = self.blocking(move |store| lives.ends(store)).await?;
        let is_early = begun.is_early(self.age(), self.config().svid_ttl_seconds);
        let (waiting, certificates) = (self.without_newest_trust(known).await?, ends.len());
        let behind = replicas.iter().filter(|replica| replica.below != *root);
        let reason = |replica: &ReplicaRoot| {
            let reason = replica.reason.as_deref().unwrap_or("it has not asked for it yet");
            format!("{} ({reason})", replica.replica)
        };
        let replicas = behind.map(reason).collect();
        Ok(Left { waiting, certificates, until_unix: ends.into_iter().max(), replicas, is_early })
    }

    /// What lives below other roots than the newest, to be looked for.
    pub(super) async fn lives_below_others(self: &Arc<Self>, authorities: &Authorities) -> Result<Lives, StoreError> {
        let now = self.begun(authorities).await?.now(self.age(), crate::now_unix());
        Ok(self.lives(&authorities.root.0, now, Vec::new()))
    }

    fn lives(&self, root: &str, now: i64, shown: Vec<String>) -> Lives {
        let seconds = |span: u64| i64::try_from(span).unwrap_or(i64::MAX);
        let (grace, life) = (self.config().identity_grace().as_secs(), self.config().svid_ttl_seconds);
        Lives { root: root.to_owned(), now, grace: seconds(grace), life: seconds(life), shown }
    }

    /// Since when the root that signs takes the place of another; noted where it is not yet.
    async fn begun(self: &Arc<Self>, authorities: &Authorities) -> Result<Begun, StoreError> {
        let (root, age, lead) = (authorities.root.0.clone(), self.age(), self.lead());
        // Of what was issued before a store was set back, lost or taken over it has no record.
        let has_past = lead.doubt.is_some() || lead.lineage.epoch > FIRST_EPOCH || !lead.lineage.supersedes.is_empty();
        self.blocking(move |store| {
            if let Some(begun) = store.meta(BEGUN)?.and_then(|text| Begun::parse(&text, &root)) {
                return Ok(begun);
            }
            let is_in_use = has_past || !issued(store)?.is_empty();
            let begun = Begun { is_in_use, ..Begun::now_of(age) };
            store.commit(None, vec![record_of_begin(&root, begun)])?;
            Ok(begun)
        })
        .await
    }

    /// Proxies that are away, behind or refuse the mesh's settings.
    async fn without_newest_trust(&self, known: Vec<ProxyStatus>) -> Result<BTreeSet<ProxyKey>, StoreError> {
        let told = match self.store.is_shared() {
            true => self.blocking(|store| store.meta(TOLD)).await?.and_then(|text| Told::parse(&text)),
            false => self.trust_told.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        // Until it is known what was told, nobody has it.
        let (published, told_at) = (self.published(), told.map_or(u64::MAX, |told| told.revision));
        let has_it = |proxy: &ProxyStatus| {
            let refuses = |text: &String| text.starts_with(&format!("{}:", Key::Mesh));
            let is_told = proxy.state != SyncState::Disconnected && proxy.synced.0 >= told_at;
            is_told && !proxy.is_left_alone && !proxy.held.iter().any(refuses)
        };
        let (has, not): (Vec<_>, Vec<_>) = known.into_iter().partition(has_it);
        let has: BTreeSet<_> = has.into_iter().map(|proxy| proxy.key).collect();
        let away = published.world.registered().map(|(_, owner)| owner.clone()).filter(|owner| !has.contains(owner));
        Ok(not.into_iter().map(|proxy| proxy.key).chain(away).collect())
    }

    /// Begins to replace the root.
    pub async fn rotate_root(self: &Arc<Self>, actor: impl Into<Actor>) -> Result<Rotation, RotationError> {
        let (hub, actor) = (self.clone(), actor.into());
        to_the_end(async move {
            if hub.store.is_shared() {
                hub.rotate_several(actor).await?;
                return Ok(hub.rotation().await?);
            }
            let authority = hub.authority().clone();
            super::apart(move || authority.rotate(OffsetDateTime::now_utc())).await?;
            let told = hub.tell_trust(actor, "ca.rotate").await;
            hub.note_root().await;
            told?;
            Ok(hub.rotation().await?)
        })
        .await
    }

    /// Replaces the intermediate.
    pub async fn rotate_intermediate(self: &Arc<Self>, actor: impl Into<Actor>) -> Result<Rotation, RotationError> {
        let (hub, actor) = (self.clone(), actor.into());
        to_the_end(async move {
            let authority = hub.authority().clone();
            if authority.authorities().previous.is_some() {
                // The old root, whose key is gone, vouches for the one that signs now, and could not for the next.
                return Err(RotateError::Underway.into());
            }
            if authority.wants_signer() {
                hub.get_intermediate().await.map_err(RotationError::Unsigned)?;
            } else {
                let renewed = super::apart(move || authority.renew_intermediate(OffsetDateTime::now_utc())).await;
                renewed.map_err(RotateError::from)?;
            }
            hub.change(move |draft: &mut Draft| {
                draft.audit(&actor, "ca.rotate-intermediate", String::new(), String::new());
                Ok::<_, StoreError>(())
            })
            .await?;
            Ok(hub.rotation().await?)
        })
        .await
    }

    /// A signing request for the next intermediate, for a root that lies elsewhere.
    pub async fn request_intermediate(self: &Arc<Self>, actor: impl Into<Actor>) -> Result<String, RotationError> {
        let (authority, actor) = (self.authority().clone(), actor.into());
        let request = super::apart(move || authority.request()).await.map_err(RotateError::from)?;
        self.change(move |draft: &mut Draft| {
            draft.audit(&actor, "ca.request", String::new(), String::new());
            Ok::<_, StoreError>(())
        })
        .await?;
        Ok(request)
    }

    /// Takes what was signed elsewhere.
    pub async fn install_chain(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        chain: String,
    ) -> Result<Rotation, RotationError> {
        let (hub, actor) = (self.clone(), actor.into());
        to_the_end(async move {
            let authority = hub.authority().clone();
            if hub.store.is_shared() && !authority.has_root_of(&chain) {
                return Err(RotationError::Shared);
            }
            let names = crate::tls::server_names(hub.config());
            super::apart(move || authority.install(&chain, &names, OffsetDateTime::now_utc())).await?;
            let told = hub.tell_trust(actor, "ca.install").await;
            hub.note_root().await;
            told?;
            Ok(hub.rotation().await?)
        })
        .await
    }

    /// Drops the root before. Without `force` only where nothing needs it.
    pub async fn finish_rotation(
        self: &Arc<Self>,
        actor: impl Into<Actor>,
        force: bool,
    ) -> Result<Rotation, RotationError> {
        let (hub, actor) = (self.clone(), actor.into());
        to_the_end(async move {
            let left = hub.rotation().await?.left.ok_or(RotateError::NotUnderway)?;
            if !force {
                hub.may_finish(&left)?;
            }
            if hub.store.is_shared() {
                hub.finish_several(actor, force).await?;
                return Ok(hub.rotation().await?);
            }
            // The store names the root that signs before the one that it named is gone.
            hub.set_root().await?;
            let authority = hub.authority().clone();
            super::apart(move || authority.finish_rotation()).await?;
            hub.tell_trust(actor, "ca.finish").await?;
            if force {
                hub.end_streams_of_other_roots().await?;
            }
            Ok(hub.rotation().await?)
        })
        .await
    }

    /// Refuses where the root before is needed, or where that is not known.
    fn may_finish(&self, left: &Left) -> Result<(), RotationError> {
        if self.lead().doubt.is_some() {
            return Err(RotationError::InDoubt);
        }
        if !left.replicas.is_empty() {
            return Err(RotationError::Behind(left.replicas.join(", ")));
        }
        if !left.is_nothing() {
            let (certificates, waiting) = (left.certificates, left.waiting.len());
            return Err(RotationError::Needed { certificates, waiting });
        }
        if left.is_early { Err(RotationError::Early) } else { Ok(()) }
    }

    /// Ends the control streams of proxies whose certificate is not known to be of the root that signs.
    pub(super) async fn end_streams_of_other_roots(self: &Arc<Self>) -> Result<(), StoreError> {
        let (root, shown) = (self.authority().authorities().root.0, self.registry().shown_certificates());
        let others = self.blocking(move |store| {
            let issued = issued(store)?;
            let root_of = |serial: &str| issued.get(&row_of(serial)).and_then(|record| record.root.as_ref());
            Ok(shown.into_iter().filter(|(_, serial)| root_of(serial) != Some(&root)).collect::<Vec<_>>())
        });
        for (proxy, _) in others.await? {
            self.registry().dismiss(&proxy, "its certificate is of a root that is not trusted any more");
        }
        Ok(())
    }

    /// Drops the root before as soon as nothing needs it.
    pub(crate) async fn tend_rotation(self: &Arc<Self>) {
        self.metrics().trusted_roots(1 + u32::from(self.authority().authorities().previous.is_some()));
        self.tend_roots().await;
        if self.lead().doubt.is_some() {
            return;
        }
        if let Err(error) = self.tell_what_is_trusted().await {
            tracing::error!(error = %crate::chain(&error), "which roots are trusted could not be told yet; it is tried again");
        }
        if !self.leads() {
            return;
        }
        match self.rotation().await.map(|rotation| rotation.left) {
            Ok(Some(left)) if !left.is_early => {}
            Ok(_) => return,
            Err(error) => {
                return tracing::error!(error = %crate::chain(&error), "what needs the old root can't be read yet");
            }
        }
        self.note_root().await;
        match self.finish_rotation("system", false).await {
            Ok(_) => tracing::info!("nothing needs the old root any more: it is not trusted from now on"),
            Err(
                RotationError::Needed { .. } | RotationError::Behind(_) | RotationError::Early | RotationError::InDoubt,
            ) => {}
            Err(error) => tracing::error!(error = %crate::chain(&error), "the old root could not be dropped yet"),
        }
    }

    /// Tells what was changed and not told: the store did not take it then, or a start went on with what was cut off.
    async fn tell_what_is_trusted(self: &Arc<Self>) -> Result<(), StoreError> {
        if self.store.is_shared() {
            // It is told by the commit that changes it.
            return Ok(());
        }
        let authorities = self.authority().authorities();
        let trusted = trusted(&authorities);
        let told = self.trust_told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let told = match told {
            Some(told) => told,
            None => {
                let noted = self.blocking(|store| store.meta(TOLD)).await?.and_then(|text| Told::parse(&text));
                // Nothing was ever replaced where nothing is noted.
                let told = noted.or_else(|| authorities.previous.is_none().then(|| Told::first(&trusted)));
                *self.trust_told.lock().unwrap_or_else(PoisonError::into_inner) = told.clone();
                told.unwrap_or_default()
            }
        };
        if told.trusted == trusted {
            return Ok(());
        }
        self.tell_trust("system".into(), "ca.tell").await
    }

    /// Tells every proxy whom to trust.
    pub(super) async fn tell_trust(self: &Arc<Self>, actor: Actor, action: &'static str) -> Result<(), StoreError> {
        let (object, trusted) = (self.authority().fingerprint(), trusted(&self.authority().authorities()));
        let told = self
            .change(move |draft: &mut Draft| {
                let told = Told { trusted: trusted.clone(), revision: draft.revision.0 };
                draft.changed = true;
                draft.writes.push(record_of_told(&told));
                draft.audit(&actor, action, object.clone(), String::new());
                Ok::<_, StoreError>(told)
            })
            .await?;
        let revision = told.revision;
        *self.trust_told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        tracing::warn!(action, revision, "the roots that the mesh trusts have changed");
        Ok(())
    }

    async fn set_root(&self) -> Result<(), StoreError> {
        let root = self.authority().fingerprint();
        self.blocking(move |store| match store.root()?.as_ref() == Some(&root) {
            true => Ok(()),
            false => store.set_root(&root),
        })
        .await
    }

    /// The store may still name the root before: that is trusted, and a start knows both.
    async fn note_root(&self) {
        if let Err(error) = self.set_root().await {
            tracing::error!(error = %crate::chain(&error), "the new root is not noted in the store yet; it is tried again");
        }
    }
}

//! Several control planes on one store: each follows what the others commit and tells them which proxies it holds; one of
//! them, the leader, cleans up. Invariant: what another committed is published in the order of the commits, each once, and
//! no control plane takes out the workloads of a proxy that another holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_policy::bundle::Revision;
use weft_policy::plan::World;
use weft_policy::resource::Kind;

use super::roots::{STANDING, Standing};
use super::{Hub, Published, StoreError, apart, apply, bans, lead, spread};
use crate::claims::Claims;
use crate::peers::Peers;
use crate::registry::ProxyKey;
use crate::seal::Seal;
use crate::store::{Change, Changed, Event, Session, Store, Version};

/// How long others wait for a control plane that fell silent before they take it to be gone.
const LIFE: Duration = Duration::from_secs(10);
/// How often the office of the leader is asked for, and everything that failed is tried again.
const TICK: Duration = Duration::from_secs(1);
/// Proxies that come and go are told together.
const GATHER: Duration = Duration::from_millis(20);
/// How long a change that was overtaken waits for what overtook it.
const FOLLOWED: Duration = Duration::from_secs(2);
/// How much of the store's history is kept for those who follow.
const HISTORY: Duration = Duration::from_secs(300);

/// The office of whoever cleans up.
const LEADER: &str = "clean-up";
/// Begins the keys under which proxies are held.
const PROXY: &str = "proxy/";
/// Who holds a proxy that needs nobody any longer: its last word before the key goes. No session is called so.
const ENDED: &str = "ended";
/// Begins the key under which a control plane tells others where it is reached; its session follows.
const REPLICA: &str = "replica/";

/// This control plane among others.
pub(super) struct Replica {
    leads: AtomicBool,
    peers: Peers,
    /// The name of its session.
    session: Mutex<String>,
    /// Wakes with each commit that was followed.
    followed: watch::Sender<Version>,
}

impl Replica {
    pub(super) fn new(peers: Peers) -> Self {
        Self { leads: AtomicBool::default(), peers, session: Mutex::default(), followed: watch::Sender::default() }
    }

    /// The others.
    pub(super) fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Wakes whoever waits to know what is known now.
    pub(super) fn has_followed(&self, version: Version) {
        self.followed.send_replace(version);
    }

    pub(super) fn session(&self) -> String {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Hub {
    /// True where this control plane is the one that cleans up.
    pub(crate) fn leads(&self) -> bool {
        !self.store.is_shared() || self.replica.leads.load(Ordering::Acquire)
    }

    /// Refuses a change at once while a store on the network is known to fail: it is tried by `tend_store`, not by each caller.
    pub(super) fn may_be_written(&self) -> Result<(), StoreError> {
        match self.store.fault().filter(|_| self.store.is_shared()) {
            Some(fault) => Err(weft_store::Error::Unreachable(fault.reason).into()),
            None => Ok(()),
        }
    }

    /// True where the store is on the network and others may use it.
    pub(crate) fn is_in_etcd(&self) -> bool {
        self.store.is_shared()
    }

    /// False while others may have made what is not known here.
    pub(crate) fn knows_absences(&self) -> bool {
        !self.store.is_shared() || self.store.fault().is_none()
    }

    pub(crate) async fn tidy_store(&self) -> Result<(), StoreError> {
        self.blocking(|store| store.tidy(HISTORY)).await
    }

    /// Waits until what overtook a change is known here.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        if !self.store.is_shared() {
            return self.reload().await;
        }
        let newest = self.blocking(Store::version).await?;
        let mut followed = self.replica.followed.subscribe();
        let known = async { while self.store.seen() < newest && followed.changed().await.is_ok() {} };
        match tokio::time::timeout(FOLLOWED, known).await {
            Ok(()) => Ok(()),
            Err(_) => self.reload().await,
        }
    }

    pub(super) fn tend_replica(self: &Arc<Self>) {
        if !self.store.is_shared() {
            return;
        }
        self.spawn(follow(Arc::downgrade(self), self.stop.clone()));
        self.spawn(hold(Arc::downgrade(self), self.stop.clone()));
        self.spawn(spread::tend(Arc::downgrade(self), self.stop.clone()));
    }

    /// Publishes what another control plane committed.
    async fn take(self: &Arc<Self>, version: Version, changes: Vec<Change>) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        // Its own are published by whoever made them.
        if version <= self.store.seen() {
            self.replica.followed.send_replace(version);
            return Ok(());
        }
        let published = self.published();
        let has_unreadable = !published.unreadable.is_empty();
        let seal = self.store.seal();
        let taken = apart(move || Taken::of(&published, changes, seal.as_deref())).await;
        let Some(mut taken) = taken.filter(|taken| !(has_unreadable && taken.is_world)) else {
            // What can't be read needs a look at everything.
            drop(_turn);
            return self.reload().await;
        };
        if let Some(record) = taken.roots.take() {
            self.follow_roots(record).await;
        }
        if taken.are_claims || taken.is_lineage || taken.are_bans {
            self.take_aside(&taken).await?;
        }
        if taken.is_world {
            let known = self.published();
            let told = Arc::new(known.told.next(taken.world.clone(), &self.authority.trust_bundle_pem()));
            let last_removal = if taken.is_removal { taken.revision } else { known.last_removal };
            self.published.send_modify(|published| {
                let Published { claims, unreadable, limits, .. } = &**published;
                let (claims, unreadable, limits) = (claims.clone(), unreadable.clone(), *limits);
                let (revision, world) = (taken.revision, taken.world.clone());
                *published = Arc::new(Published { revision, world, told, claims, unreadable, last_removal, limits });
            });
            self.measure();
        }
        self.store.has_seen(version);
        self.replica.followed.send_replace(version);
        if taken.is_told {
            self.told.send_modify(|number| *number += 1);
        }
        self.have_registered_anew(&taken.left);
        Ok(())
    }

    /// Ends the streams of these proxies, as far as they are connected here: another control plane took workloads of theirs out,
    /// as one does that hears of them neither from here nor from others. They come back and say which they serve.
    pub(super) fn have_registered_anew(&self, proxies: &BTreeSet<ProxyKey>) {
        for proxy in proxies.iter().filter(|proxy| self.registry().is_connected_here(proxy)) {
            tracing::warn!(%proxy, "another control plane took out workloads of a proxy that is connected here");
            self.registry().dismiss(proxy, "another control plane took its workloads out: it registers them anew");
        }
    }

    /// Claims, bans and the lineage are few: they are read as they are now.
    async fn take_aside(self: &Arc<Self>, taken: &Taken) -> Result<(), StoreError> {
        let (state, revision) = (self.config.state.clone(), taken.revision);
        let read = move |store: &Store| Ok((store.frozen()?, lead::load(store, &state, revision)?));
        let (frozen, lead) = self.blocking(read).await?;
        if taken.is_lineage && lead != *self.lead() {
            self.lead.send_replace(Arc::new(lead));
        }
        if taken.are_claims {
            let claims = Arc::new(Claims::load(frozen.claims().read.into_iter().map(|(_, record)| record)));
            // They concern no session: nobody is woken for them.
            self.published.send_if_modified(|published| {
                *published = Arc::new(published.with_claims(claims));
                false
            });
        }
        if taken.are_bans {
            let before = self.bans();
            self.tell_bans(bans::load(frozen.bans()));
            let new: Vec<_> = self.bans().keys().filter(|identity| !before.contains_key(identity)).cloned().collect();
            let hub = self.clone();
            // Whoever of them is connected here leaves by this control plane's hand.
            self.spawn(async move {
                for identity in new {
                    hub.release_banned(&identity).await;
                }
            });
        }
        Ok(())
    }

    /// Another control plane holds a proxy from now on, or nobody does; or one tells where it is reached, or is gone.
    async fn take_held(&self, key: &str, holder: Option<String>) {
        if let Some(session) = key.strip_prefix(REPLICA) {
            return self.take_replica(session, holder);
        }
        if let Some(session) = key.strip_prefix(STANDING) {
            if session != self.replica.session() {
                self.roots.put(session, holder);
            }
            return;
        }
        let Some(proxy) = proxy_of(key) else { return };
        let own = self.replica.session();
        match holder {
            Some(holder) if holder == own => self.registry().is_here(&proxy),
            Some(holder) if holder == ENDED => self.registry().has_ended(&proxy),
            Some(holder) => {
                self.registry().is_elsewhere(&proxy, holder);
                self.give_way(key, &proxy, &own).await;
            }
            None if self.registry().has_left(&proxy, OffsetDateTime::now_utc()) => {
                tracing::info!(%proxy, "no control plane holds this proxy any longer");
            }
            None => {}
        }
    }

    fn take_replica(&self, session: &str, told: Option<String>) {
        match told.map(|told| serde_json::from_str::<Reached>(&told)) {
            Some(Ok(_)) if session == self.replica.session() => {}
            Some(Ok(Reached { address })) => self.replica.peers.put(session, address),
            Some(Err(error)) => tracing::warn!(session, %error, "where a control plane is reached can't be read"),
            None => self.replica.peers.retain(|known| known != session),
        }
    }

    /// Ends the stream of a proxy that has one to another control plane by now.
    async fn give_way(&self, key: &str, proxy: &ProxyKey, own: &str) {
        if !self.registry().is_connected_here(proxy) {
            return;
        }
        // It may have come back since the word was sent.
        let held = self.blocking(Store::held).await.unwrap_or_default();
        if held.iter().any(|(held, by)| held == key && by != own.as_bytes()) {
            self.registry().dismiss(proxy, "it is connected to another control plane");
        }
    }

    /// Learns who holds which proxy.
    pub(super) async fn read_held(&self) -> Result<(), StoreError> {
        let held = self.blocking(Store::held).await?;
        let known = self.registry().keys_elsewhere();
        let there: BTreeSet<_> = held.iter().filter_map(|(key, _)| proxy_of(key)).collect();
        for gone in known.difference(&there) {
            self.registry().has_left(gone, OffsetDateTime::now_utc());
        }
        let own = self.replica.session();
        let sessions: BTreeSet<_> = held.iter().filter_map(|(key, _)| key.strip_prefix(REPLICA)).collect();
        self.replica.peers.retain(|known| known != own && sessions.contains(known));
        let standing: BTreeSet<_> = held.iter().filter_map(|(key, _)| key.strip_prefix(STANDING)).collect();
        self.roots.retain(|known| known != own && standing.contains(known));
        for (key, holder) in held {
            self.take_held(&key, Some(String::from_utf8_lossy(&holder).into_owned())).await;
        }
        Ok(())
    }
}

/// Follows the store until this process ends.
async fn follow(hub: Weak<Hub>, stop: CancellationToken) {
    loop {
        let Some(this) = hub.upgrade() else { return };
        let mut events = this.store.follow(this.store.seen());
        if let Err(error) = this.read_held().await {
            tracing::warn!(error = %crate::chain(&error), "which proxies others hold could not be read yet");
        }
        drop(this);
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = stop.cancelled() => return,
            };
            let Some(hub) = hub.upgrade() else { return };
            let taken = match event {
                Some(Event::Commit { version, changes }) => hub.take(version, changes).await,
                Some(Event::Held { key, value }) => {
                    let holder = value.map(|value| String::from_utf8_lossy(&value).into_owned());
                    hub.take_held(&key, holder).await;
                    Ok(())
                }
                Some(Event::Compacted) | None => {
                    if let Err(error) = hub.reload().await {
                        tracing::warn!(error = %crate::chain(&error), "the store could not be read anew yet");
                        tokio::time::sleep(TICK).await;
                    }
                    break;
                }
            };
            if let Err(error) = taken {
                tracing::warn!(error = %crate::chain(&error), "a commit of another control plane could not be taken yet");
                tokio::time::sleep(TICK).await;
                break;
            }
        }
    }
}

/// Keeps a session, by which it holds the proxies that are connected here, and asks for the leader's office.
async fn hold(hub: Weak<Hub>, stop: CancellationToken) {
    loop {
        let Some(this) = hub.upgrade() else { return };
        let begun = this.blocking(|store| store.session(LIFE)).await;
        let wait = match begun {
            Ok(session) => {
                session.id().clone_into(&mut this.replica.session.lock().unwrap_or_else(PoisonError::into_inner));
                this.replica.peers.retain(|known| known != session.id());
                this.roots.retain(|known| known != session.id());
                let registry = this.registry().watch();
                let store = this.store.clone();
                drop(this);
                while_it_lives(&hub, &session, registry, &stop).await;
                apart(move || store.end(session)).await;
                Duration::ZERO
            }
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "others can't be told of this control plane yet");
                drop(this);
                TICK
            }
        };
        if let Some(hub) = hub.upgrade() {
            hub.replica.leads.store(false, Ordering::Release);
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

async fn while_it_lives(
    hub: &Weak<Hub>,
    session: &Arc<dyn Session>,
    mut registry: watch::Receiver<u64>,
    stop: &CancellationToken,
) {
    let (mut held, mut is_told, mut standing) = (BTreeMap::new(), false, None);
    let mut asked: Option<Instant> = None;
    while !session.has_ended() {
        let Some(this) = hub.upgrade() else { return };
        registry.borrow_and_update();
        if !is_told {
            match tell_where(&this, session).await {
                Ok(()) => is_told = true,
                Err(error) => {
                    tracing::warn!(error = %crate::chain(&error), "others can't be told where this one is yet")
                }
            }
        }
        if let Err(error) = tell_standing(&this, session, &mut standing).await {
            tracing::warn!(error = %crate::chain(&error), "others can't be told which root this one follows yet");
        }
        if let Err(error) = tell(&this, session, &mut held).await {
            tracing::warn!(error = %crate::chain(&error), "which proxies are connected could not be told yet");
        }
        if asked.is_none_or(|at| at.elapsed() >= TICK) {
            asked = Some(Instant::now());
            let office = session.clone();
            let leads = this.blocking(move |store| store.lead(&office, LEADER)).await.unwrap_or(false);
            if this.replica.leads.swap(leads, Ordering::AcqRel) != leads {
                tracing::info!(leads, "the leader of the control planes changed");
            }
        }
        drop(this);
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            _ = registry.changed() => tokio::time::sleep(GATHER).await,
            () = stop.cancelled() => return,
        }
    }
}

/// What a control plane tells of itself.
#[derive(Serialize, Deserialize)]
struct Reached {
    /// `HOST:PORT` for others of its store.
    address: String,
}

/// Tells others where they reach this one.
async fn tell_where(hub: &Hub, session: &Arc<dyn Session>) -> Result<(), StoreError> {
    let Some(address) = hub.config().replica_address() else {
        tracing::warn!(
            "others of this store are not told where to ask this one: name it by replica_address or advertise"
        );
        return Ok(());
    };
    let told = serde_json::to_vec(&Reached { address })?;
    let row = (format!("{REPLICA}{}", session.id()), told);
    let session = session.clone();
    hub.blocking(move |store| store.hold(&session, vec![row], Vec::new())).await
}

/// Tells others which root this one follows, where that has changed.
async fn tell_standing(hub: &Hub, session: &Arc<dyn Session>, told: &mut Option<Standing>) -> Result<(), StoreError> {
    let now = hub.standing();
    if told.as_ref() == Some(&now) {
        return Ok(());
    }
    let row = (format!("{STANDING}{}", session.id()), serde_json::to_vec(&now)?);
    let session = session.clone();
    hub.blocking(move |store| store.hold(&session, vec![row], Vec::new())).await?;
    *told = Some(now);
    Ok(())
}

/// Holds proxies that came, and no longer those that went. One with another stream than before may have been held by another
/// control plane meanwhile: it is held anew.
async fn tell(hub: &Hub, session: &Arc<dyn Session>, held: &mut BTreeMap<ProxyKey, u64>) -> Result<(), StoreError> {
    let now = hub.registry().connected();
    if now == *held {
        return Ok(());
    }
    let new = now.iter().filter(|(proxy, stream)| held.get(*proxy) != Some(stream));
    let new = new.map(|(proxy, _)| (key_of(proxy), session.id().as_bytes().to_vec())).collect();
    let gone = held.keys().filter(|proxy| !now.contains_key(*proxy));
    // One that said goodbye, or was sent away for good, is forgotten here, and so shall it be by the others.
    let (gone, ended): (Vec<_>, Vec<_>) = gone.partition(|proxy| hub.registry().introduction(proxy).is_some());
    let (gone, ended) = (gone.into_iter().map(key_of).collect(), ended.into_iter().map(key_of).collect());
    let session = session.clone();
    hub.blocking(move |store| {
        store.release_with(&session, ended, ENDED)?;
        store.hold(&session, new, gone)
    })
    .await?;
    *held = now;
    Ok(())
}

fn key_of(proxy: &ProxyKey) -> String {
    format!("{PROXY}{}/{}", proxy.identity, proxy.name)
}

fn proxy_of(key: &str) -> Option<ProxyKey> {
    let (identity, name) = key.strip_prefix(PROXY)?.rsplit_once('/')?;
    Some(ProxyKey { name: name.to_owned(), identity: identity.parse().ok()? })
}

/// What a commit of another control plane comes to here.
struct Taken {
    world: Arc<World>,
    revision: Revision,
    is_world: bool,
    is_removal: bool,
    are_claims: bool,
    are_bans: bool,
    is_lineage: bool,
    roots: Option<String>,
    is_told: bool,
    /// Proxies whose workloads were taken out.
    left: BTreeSet<ProxyKey>,
}

impl Taken {
    /// `None` where a record can't be read.
    fn of(published: &Published, changes: Vec<Change>, seal: Option<&Seal>) -> Option<Self> {
        let mut taken = Self {
            world: published.world.clone(),
            revision: published.revision,
            is_world: false,
            is_removal: false,
            are_claims: false,
            are_bans: false,
            is_lineage: false,
            roots: None,
            is_told: false,
            left: BTreeSet::new(),
        };
        for change in changes {
            match Changed::of(change) {
                Changed::Revision(revision) => {
                    taken.is_world = true;
                    taken.revision = revision;
                }
                Changed::Object(key, record) => {
                    if record.is_none() {
                        taken.left.extend(apply::registrant(&taken.world, &key).cloned());
                    }
                    let kind = apply::take_object(Arc::make_mut(&mut taken.world), &key, record.as_deref(), seal)?;
                    taken.is_removal |= matches!(kind, Kind::Workload | Kind::Service) || record.is_none();
                    taken.is_world = true;
                }
                Changed::FilterVersion(record) => {
                    apply::take_version(Arc::make_mut(&mut taken.world), record.as_deref())?;
                    taken.is_world = true;
                }
                Changed::Claim => taken.are_claims = true,
                Changed::Ban => taken.are_bans = true,
                Changed::Lineage => taken.is_lineage = true,
                Changed::Roots(record) => taken.roots = Some(record),
                Changed::Audit => taken.is_told = true,
                Changed::Other => {}
            }
        }
        Some(taken)
    }
}

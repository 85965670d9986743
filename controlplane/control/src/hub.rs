//! The one place where the world changes. Invariant: a change is computed on a copy, committed durably with its audit entry
//! as one transaction, and only then seen by anybody; changes are made one after the other, reads never wait.

mod age;
mod apply;
mod audit;
mod bans;
mod everywhere;
mod evicted;
mod filters;
mod grants;
mod identity;
mod joined;
mod lead;
mod planning;
mod prepared;
mod registration;
mod replica;
mod roots;
mod rotation;
mod snapshot;
mod spread;
mod streams;
#[cfg(test)]
pub(crate) mod tests;
mod together;
mod tokens;
mod transitions;
mod trying;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use time::OffsetDateTime;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_policy::bundle::Revision;
use weft_policy::identity::{SpiffeId, TrustDomain};
use weft_policy::plan::World;
use weft_policy::resource::{Kind, SecretSpec, Spec as _};

pub(crate) use self::apply::unprotects;
pub use self::apply::{Applied, ApplyError, Expected, How, Misplaced, Removed, Stale, unreadable_records};
pub use self::audit::Actor;
pub use self::bans::{Ban, BanError, EvictError};
pub use self::everywhere::Silent;
pub(crate) use self::everywhere::gathered;
pub(crate) use self::evicted::KeptOut;
use self::filters::Artifacts;
pub(crate) use self::filters::{AUTHZ, SYSTEM};
pub use self::filters::{FilterVersion, Moved, Publication, PublishError};
pub use self::grants::{WithdrawError, Withdrawn};
pub use self::identity::{Holder, JoinError, NotValid, RenewError, SignedIdentity};
pub use self::lead::{AcceptError, Doubt, Lead};
pub use self::planning::{Busy, TooManyCalls};
pub use self::registration::RegisterError;
pub(crate) use self::registration::{Origin, Presence};
pub use self::roots::ReplicaRoot;
pub(crate) use self::roots::{SigningError, follow as follow_roots};
pub use self::rotation::{Left, Rotation, RotationError};
pub(crate) use self::streams::Streams;
pub use self::tokens::{NewToken, TokenError};
use crate::ca::Authority;
use crate::claims::{Claims, Grants};
use crate::config::{Config, Limits};
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::rate::{Budget, Places, Rates, Turns};
use crate::registry::Registry;
use crate::store::{Fault, ROOTS, Store, StoreError, Unreadable, Version, Write};
use crate::told::Shared;
use crate::trial::Trials;

/// The world as everybody sees it, replaced as a whole by every change.
pub struct Published {
    pub revision: Revision,
    pub world: Arc<World>,
    /// What proxies are told of it.
    pub told: Arc<Shared>,
    /// Records of the store that can't be read, by their key there.
    pub unreadable: Arc<BTreeMap<String, Unreadable>>,
    /// Names and grants of each account.
    pub claims: Arc<Claims>,
    /// The newest revision in which an endpoint may have left or moved.
    pub last_removal: Revision,
    /// Bounds of every change.
    pub(crate) limits: Limits,
}

/// Everything that the ports share.
pub struct Hub {
    config: Config,
    trust_domain: TrustDomain,
    store: Arc<Store>,
    authority: Arc<Authority>,
    metrics: Arc<Metrics>,
    registry: Registry,
    /// Held by whoever changes the world, also while it is computed again.
    writer: Arc<Mutex<()>>,
    /// Changes that wait for the writer.
    waiting: together::Waiting,
    /// Held by the one change that is computed beside the writer.
    preparing: Arc<Mutex<()>>,
    /// Held from a commit until what it changed is published, of this process or of another.
    turn: Mutex<()>,
    replica: replica::Replica,
    roots: roots::Roots,
    published: watch::Sender<Arc<Published>>,
    /// The store's generation that `published` was read from or written to.
    read_at: AtomicU64,
    bans: watch::Sender<bans::Bans>,
    evicted: watch::Sender<evicted::Evictions>,
    evicted_lately: evicted::Lately,
    /// Bans that hold and could not be written yet, with who made them.
    unwritten_bans: std::sync::Mutex<BTreeMap<SpiffeId, (Actor, Ban)>>,
    /// Held by whoever changes the bans, until they are told.
    bans_turn: Mutex<()>,
    /// Which store this is, and whether proxies may be led by it.
    lead: watch::Sender<Arc<Lead>>,
    remembered: lead::Remembered,
    age: age::Age,
    renewals: Rates<SpiffeId>,
    /// Tries of further tokens by the proxies of an account: each tries the one that it has at its start.
    gains: Rates<SpiffeId>,
    /// Changes of what the proxies of an account register.
    registrations: Rates<SpiffeId>,
    joins: identity::Joins,
    tokens_made: tokens::Counts,
    tokens_read: tokens::Read,
    /// What proxies ask for that is not there, by account.
    absent_asks: Budget<SpiffeId>,
    /// Calls of the operator API, by token.
    calls: Rates<String>,
    /// Calls that are under way, by token.
    open_calls: Places<String>,
    /// The memory that bodies of calls take, by token.
    bodies: Budget<String>,
    /// Held by each plan that is computed and changes nothing, by token.
    plans: Turns<String>,
    /// Held by each search of the audit log, by token.
    searches: Turns<String>,
    streams: Streams,
    restart: snapshot::Restart,
    attempts: Arc<audit::Attempts>,
    /// Counts what was written to the audit log.
    told: watch::Sender<u64>,
    artifacts: Artifacts,
    trials: Trials,
    transitions: transitions::Transitions,
    /// What proxies were told last of the roots to trust; `None` until it is read.
    trust_told: std::sync::Mutex<Option<rotation::Told>>,
    /// Sessions and timers; they end at shutdown.
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Why the hub can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("state folder is of trust domain {stored}, the configuration says {configured}: it can't be changed")]
    TrustDomain { stored: String, configured: String },
    #[error("trust_domain: {0}")]
    InvalidTrustDomain(#[from] weft_policy::identity::IdentityError),
}

/// A change in the making.
pub(crate) struct Draft {
    pub(crate) world: World,
    pub(crate) unreadable: Arc<BTreeMap<String, Unreadable>>,
    pub(crate) claims: Claims,
    /// The revision that the change will have.
    pub(crate) revision: Revision,
    /// The commit that it is made on.
    version: Version,
    pub(crate) writes: Vec<Write>,
    /// What changes of the same commit write before it: no read of the store shows that.
    earlier: Arc<Vec<Write>>,
    /// The world differs: the revision counts up and proxies are told.
    pub(crate) changed: bool,
    pub(crate) removal: bool,
    pub(crate) limits: Limits,
}

impl Published {
    fn with_claims(&self, claims: Arc<Claims>) -> Self {
        let Self { revision, world, told, unreadable, last_removal, limits, .. } = self;
        let (world, told, unreadable) = (world.clone(), told.clone(), unreadable.clone());
        Self { revision: *revision, world, told, claims, unreadable, last_removal: *last_removal, limits: *limits }
    }
}

impl Hub {
    /// Loads the world; expects the proxies that it knows to come back within the restart grace.
    pub fn start(
        config: Config,
        store: Arc<Store>,
        authority: Arc<Authority>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, StartError> {
        let trust_domain = trust_domain(&store, &config.trust_domain)?;
        let read_at = AtomicU64::new(store.generation());
        let frozen = store.frozen()?;
        store.has_read(frozen.version);
        let followed = frozen.meta(ROOTS).map(|record| follow_roots(&authority, &record));
        let mut published = apply::load(&store, &frozen, &trust_domain, &authority.trust_bundle_pem())?;
        published.claims = Arc::new(claims(&store, &published)?);
        published.limits = config.limits;
        let (bans, lead) = (bans::load(frozen.bans()), lead::load(&store, &config.state, published.revision)?);
        tell_unusable(&published);
        let (limits, transitions) = (config.limits, transitions::Transitions::load(&store)?);
        let age = age::Age::load(&store)?;
        let bodies = body_memory(&limits);
        let trials = Trials::new(config.state.join("compiled"));
        let peers = Peers::new(authority.clone(), metrics.clone(), config.replica_timeout());
        let hub = Arc::new(Self {
            config,
            trust_domain,
            store,
            authority,
            metrics,
            registry: Registry::new(),
            writer: Arc::default(),
            waiting: together::Waiting::default(),
            preparing: Arc::default(),
            turn: Mutex::default(),
            replica: replica::Replica::new(peers),
            roots: roots::Roots::new(limits.max_signings_per_minute),
            published: watch::Sender::new(Arc::new(published)),
            read_at,
            bans: watch::Sender::new(bans),
            evicted: watch::Sender::default(),
            evicted_lately: evicted::Lately::default(),
            unwritten_bans: Default::default(),
            bans_turn: Mutex::default(),
            lead: watch::Sender::new(Arc::new(lead)),
            remembered: lead::Remembered::default(),
            age,
            renewals: Rates::per_minute(limits.max_renewals_per_minute),
            gains: Rates::per_minute(limits.max_account_hellos_per_minute),
            registrations: Rates::per_minute(limits.max_registrations_per_minute),
            joins: identity::Joins::new(&limits),
            tokens_made: tokens::Counts::default(),
            tokens_read: tokens::Read::default(),
            absent_asks: Budget::new(usize::MAX, limits.max_absent_asks_per_account),
            calls: Rates::per_minute(limits.max_api_calls_per_minute),
            open_calls: Places::new(limits.max_open_calls_per_token),
            bodies: Budget::new(bodies, bodies / 2),
            plans: Turns::new(limits.max_concurrent_plans),
            searches: Turns::new(limits.max_concurrent_plans),
            streams: Streams::new(&limits),
            restart: snapshot::Restart::default(),
            attempts: Arc::default(),
            told: watch::Sender::new(0),
            artifacts: Artifacts::default(),
            trials,
            transitions,
            trust_told: std::sync::Mutex::default(),
            tasks: TaskTracker::new(),
            stop,
        });
        if let Some(followed) = followed {
            hub.has_followed_roots(followed);
        }
        hub.expect_known_proxies();
        hub.tend_suspects();
        hub.tend_attempts();
        hub.tend_replica();
        hub.measure();
        Ok(hub)
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(crate) fn streams(&self) -> &Streams {
        &self.streams
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn published(&self) -> Arc<Published> {
        self.published.borrow().clone()
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    /// Runs a task that shutdown waits for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Ends when this process is told to.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Waits until sessions and timers have ended; the stop token must have been cancelled.
    pub async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// False after the store was opened again, until what it holds is read.
    fn has_read_everything(&self) -> bool {
        self.read_at.load(Ordering::Acquire) == self.store.generation()
    }

    /// After the store was opened again: a commit that failed may have landed, and what landed is what holds.
    async fn read_again(&self) -> Result<(), StoreError> {
        let generation = self.store.generation();
        if self.has_read_everything() {
            return Ok(());
        }
        self.reload().await?;
        self.read_at.store(generation, Ordering::Release);
        Ok(())
    }

    /// Reads everything that is kept in memory anew, and publishes what differs.
    async fn reload(&self) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let (trust_domain, authority) = (self.trust_domain.clone(), self.authority.clone());
        let state = self.config.state.clone();
        let read = move |store: &Store| {
            let frozen = store.frozen()?;
            let followed = frozen.meta(ROOTS).map(|record| follow_roots(&authority, &record));
            let published = apply::load(store, &frozen, &trust_domain, &authority.trust_bundle_pem())?;
            // A store of others may have been set back meanwhile.
            let lead = if store.is_shared() { Some(lead::load(store, &state, published.revision)?) } else { None };
            Ok((frozen.version, published, bans::load(frozen.bans()), (lead, followed)))
        };
        let (version, mut found, banned, (lead, followed)) = self.blocking(read).await?;
        if let Some(followed) = followed {
            self.has_followed_roots(followed);
        }
        self.store.has_read(version);
        self.replica.has_followed(version);
        found.limits = self.config.limits;
        let known = self.published();
        if found.revision != known.revision || found.claims != known.claims || found.unreadable != known.unreadable {
            tracing::warn!(revision = found.revision.0, "what was committed unseen is read and holds");
            let registrants = |world: &World| world.registered().map(|(name, proxy)| (name, proxy.clone())).collect();
            let (before, after): (BTreeSet<_>, BTreeSet<_>) = (registrants(&known.world), registrants(&found.world));
            self.published.send_replace(Arc::new(found));
            self.measure();
            self.have_registered_anew(&before.difference(&after).map(|(_, proxy)| proxy.clone()).collect());
        }
        if let Some(lead) = lead.filter(|lead| *lead != *self.lead()) {
            self.lead.send_replace(Arc::new(lead));
        }
        self.tell_bans(banned);
        Ok(())
    }

    /// Has these identities kept out, and those whose ban could not be written yet.
    fn tell_bans(&self, mut banned: bans::Bans) {
        let unwritten = self.unwritten_bans.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Arc::make_mut(&mut banned).extend(unwritten.into_iter().map(|(identity, (_, ban))| (identity, ban)));
        self.bans.send_if_modified(|bans| {
            let is_new = *bans != banned;
            *bans = banned;
            is_new
        });
    }

    /// While the store can't be written: finds out whether it can be again, so that nobody has to ask for that.
    pub async fn tend_store(self: &Arc<Self>) {
        // Another's commit may have found first that it can be written: what landed before is not read yet.
        if self.store.fault().is_some() || !self.has_read_everything() {
            let _guard = self.writer.lock().await;
            if self.blocking(Store::probe).await.is_ok() && self.read_again().await.is_ok() {
                tracing::info!("the store can be written again");
            }
        }
        if self.store.fault().is_none() {
            self.write_bans().await;
        }
        self.metrics.store_fault(self.store.fault().is_some());
    }

    /// The fault that keeps the store from being written now.
    pub fn store_fault(&self) -> Option<Fault> {
        self.store.fault()
    }

    /// Runs store work where it may block.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.store.clone();
        apart(move || work(&store)).await
    }

    fn measure(&self) {
        let published = self.published();
        #[expect(clippy::cast_precision_loss, reason = "a gauge; revisions stay far below 2^52")]
        let revision = published.revision.0 as f64;
        self.metrics.revision.set(revision);
        let (objects, workloads) = apply::count(&published.world);
        self.metrics.objects.set(f64::from(objects));
        self.metrics.workloads.set(f64::from(workloads));
        self.metrics.unreadable_records(published.unreadable.len());
    }
}

/// Secrets that are named in a log line; it says how many there are.
const NAMED_SECRETS: usize = 16;

/// Says what of the store can't be used.
fn tell_unusable(published: &Published) {
    published.unreadable.values().for_each(tell_unreadable);
    let secrets = published.world.of_kind(Kind::Secret);
    let sealed =
        secrets.filter(|(_, entry)| SecretSpec::of(&entry.resource).is_some_and(|secret| secret.spec.is_sealed()));
    let names: Vec<String> = sealed.map(|(key, _)| key.object_name().to_string()).collect();
    if !names.is_empty() {
        tracing::error!(
            count = names.len(),
            secrets = names[..names.len().min(NAMED_SECRETS)].join(", "),
            "values of Secrets are encrypted with another secret than that of ca_secret_file, or damaged; policies that grant \
             them are closed: name the file that they were written with, or apply these Secrets anew"
        );
    }
}

fn tell_unreadable(unreadable: &Unreadable) {
    tracing::error!(
        table = unreadable.table,
        key = unreadable.key,
        reason = unreadable.reason,
        "a record of the store can't be read; it is left as it is and everything else is served"
    );
}

/// The memory for bodies of calls. One token has half of it. Where nothing else is said, a body of the largest size fits in,
/// whatever that is.
fn body_memory(limits: &Limits) -> usize {
    match limits.max_open_body_bytes {
        usual if usual == Limits::default().max_open_body_bytes => {
            usual.max(4 * limits.max_body_bytes.max(limits.max_filter_bytes))
        }
        chosen => chosen,
    }
}

/// Does something to its end even if its caller goes away: a client that hangs up leaves nothing half done.
fn to_the_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> impl Future<Output = T> {
    joined(tokio::spawn(work))
}

/// Runs work where it holds up no other task.
pub(crate) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    joined(tokio::task::spawn_blocking(work)).await
}

async fn joined<T>(task: JoinHandle<T>) -> T {
    match task.await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is going down: nobody will see the answer either.
        Err(_) => std::future::pending().await,
    }
}

impl Draft {
    fn of(published: &Published) -> Self {
        Self {
            world: World::clone(&published.world),
            unreadable: published.unreadable.clone(),
            claims: Claims::clone(&published.claims),
            revision: Revision(published.revision.0 + 1),
            version: Version::default(),
            writes: Vec::new(),
            earlier: Arc::default(),
            changed: false,
            removal: false,
            limits: published.limits,
        }
    }

    /// Before the record under `key` is replaced or deleted: keeps it where it could not be read. True where there was one.
    pub(crate) fn set_aside(&mut self, key: &str) -> bool {
        if !self.unreadable.contains_key(key) {
            return false;
        }
        let found = Arc::make_mut(&mut self.unreadable).remove(key);
        // The stand-ins of a filter policy have names of their own and go; others are replaced under the object's name.
        for stand_in in found.iter().flat_map(apply::stand_ins) {
            self.world.remove(&stand_in);
        }
        self.writes.extend(found.map(Write::SetAside));
        true
    }
}

fn now_unix_ms() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// Reads the claims of accounts. A store of an older release has none: then the registered workloads keep their names
/// and their places behind services.
fn claims(store: &Store, published: &Published) -> Result<Claims, StoreError> {
    const KEY: &str = "claims";
    if store.meta(KEY)?.is_some() {
        return Ok(Claims::clone(&published.claims));
    }
    let mut claims = Claims::default();
    let mut changes = Vec::new();
    let world = &published.world;
    for (name, owner) in world.registered() {
        let behind = world.workload(&name).into_iter().flat_map(|workload| world.selecting(workload));
        let services = behind.map(|service| service.metadata.name.clone()).collect();
        changes.extend(claims.grant(&owner.identity, &Grants { services, ..Grants::default() }));
        changes.extend(claims.take(&name, &owner.identity));
    }
    let mut writes: Vec<_> = changes.into_iter().map(|(key, record)| Write::Claim { key, record }).collect();
    writes.push(Write::Meta(KEY, "1".to_owned()));
    if let Err(error) = store.commit(None, writes) {
        // A start needs no space on disk; the next one finds the same.
        tracing::warn!(error = %crate::chain(&error), "the claims of registered workloads could not be kept yet");
    }
    Ok(claims)
}

/// The trust domain of the first start holds for ever.
fn trust_domain(store: &Store, configured: &str) -> Result<TrustDomain, StartError> {
    let parsed: TrustDomain = configured.parse()?;
    store.meta_once(TRUST_DOMAIN, configured)?;
    another_trust_domain(store, configured).map_or(Ok(parsed), Err)
}

/// Why a start on this store would end for its trust domain's sake.
pub(crate) fn another_trust_domain(store: &Store, configured: &str) -> Option<StartError> {
    match store.meta(TRUST_DOMAIN) {
        Err(error) => Some(error.into()),
        Ok(stored) => stored
            .filter(|stored| stored != configured)
            .map(|stored| StartError::TrustDomain { stored, configured: configured.to_owned() }),
    }
}

/// The store's record of the trust domain.
const TRUST_DOMAIN: &str = "trust_domain";

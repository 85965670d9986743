//! Connected proxies and how far each of them is: the source of `weft proxies` and `apply --wait`. Written by the
//! sessions; lost with the process (registered workloads are not: the store keeps those).

#[cfg(test)]
mod awaited;
mod concerns;
#[cfg(test)]
mod tests;
mod voices;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_policy::bundle::{ObjectName, Revision};
use weft_policy::identity::SpiffeId;
use weft_policy::lineage::Lineage;
pub use weft_policy::plan::ProxyKey;
use weft_policy::wire;

use self::concerns::Concerns;
use crate::lease::Outlook;

pub(crate) use self::voices::Voices;

/// How long a proxy that went without a word stays listed.
const REMEMBER: Duration = Duration::from_secs(600);

/// A seat that changed hands so often within this time is disputed: whoever has it keeps it.
const DISPUTE: (usize, Duration) = (3, Duration::from_secs(60));

/// So long a proxy that went without a word is waited for by who waits for a change to arrive ...
const AWAITED: Duration = Duration::from_secs(5);
/// ... and one that was not heard yet since this process began.
const AWAITED_AT_START: Duration = Duration::from_secs(10);

/// Version, capabilities and address of a proxy, known from its first message on.
#[derive(Debug, Clone, Default)]
pub struct Introduction {
    pub version: String,
    /// The address that its stream comes from.
    pub address: Option<IpAddr>,
    /// The serial number of the certificate that it showed.
    pub certificate: String,
    /// That is not this machine.
    pub is_remote: bool,
    /// Grows with each start of the proxy; 0 where it tells none.
    pub incarnation: u64,
    /// The store that what it holds came from.
    pub lineage: Option<Lineage>,
    /// What it can do, as it says.
    pub capabilities: Capabilities,
}

/// Capabilities that a proxy names.
pub type Capabilities = BTreeSet<String>;

impl Introduction {
    /// It reports which peers it reaches.
    fn tells_reach(&self) -> bool {
        self.capabilities.contains(wire::PEER_WORD)
    }
}

/// Another proxy has the same name and identity and keeps the seat.
#[derive(Debug, Clone)]
pub struct SeatTaken {
    pub holder: Box<Introduction>,
    /// The holder started later; otherwise the two took the seat from each other too often.
    pub is_newer: bool,
}

/// State that a proxy reports from time to time.
#[derive(Debug, Clone, Default)]
pub struct Health {
    pub filters: Vec<LoadedFilter>,
    pub transport: String,
    pub certificate_not_after_unix: i64,
    pub staleness_ms: u64,
}

#[derive(Debug, Clone, Default)]
pub struct LoadedFilter {
    pub name: String,
    pub version: String,
    pub digest: String,
    pub state: String,
}

/// How far a session is with a proxy; replaced as a whole after every step.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    pub synced: Revision,
    /// Refusals of the proxy, in words, each with the revision that it refused; empty when nothing is held back.
    pub refused: Vec<(Revision, String)>,
    pub in_flight: bool,
    /// Filters that it took and is still making ready, in words.
    pub pending: Vec<String>,
    /// It is told nothing: it would be led backwards.
    pub is_left_alone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncState {
    Synced,
    Behind,
    Refused,
    Disconnected,
    /// Another control plane of the same store holds it and has not said how it is.
    Elsewhere,
}

/// One proxy as it is shown.
#[derive(Debug, Clone)]
pub struct ProxyStatus {
    pub key: ProxyKey,
    pub state: SyncState,
    pub reason: String,
    /// Refusals, of whatever revision, because of which the proxy still does without an object.
    pub held: Vec<String>,
    pub is_left_alone: bool,
    pub synced: Revision,
    pub introduction: Introduction,
    pub health: Health,
    pub connected_since: Option<OffsetDateTime>,
    /// How long it has not been in step with the newest revision; one that is away, how long it has been away.
    pub behind_for: Duration,
    /// When it last said anything.
    pub heard_ago: Duration,
    /// Its endpoints are still in discovery though it is away.
    pub is_expected: bool,
    /// It went so lately that it may be back at any moment.
    pub is_awaited: bool,
    /// It was to be told of the revision that is asked about, or may have been.
    pub is_concerned: bool,
}

struct Entry {
    session: u64,
    connected: bool,
    introduction: Introduction,
    health: Health,
    progress: Progress,
    connected_since: OffsetDateTime,
    behind_since: Option<Instant>,
    gone_since: Option<Instant>,
    heard: Instant,
    is_expected: bool,
    replaced: CancellationToken,
    /// Why its session is ended, where that has a reason of its own.
    why: Arc<OnceLock<String>>,
    /// Which peers it reaches, and when it said so.
    words: Option<(Instant, BTreeMap<ObjectName, bool>)>,
    /// The services that it holds, and how much it asked for; `None`: all.
    scope: Option<(Arc<BTreeSet<ObjectName>>, usize)>,
    concerns: Concerns,
    /// When living streams of this proxy were replaced by others that were no newer.
    disputes: Vec<Instant>,
}

/// All proxies. Clones of the receiver wake whenever any status changes.
pub struct Registry {
    entries: Mutex<BTreeMap<ProxyKey, Entry>>,
    /// Proxies that other control planes hold, each with which.
    elsewhere: Mutex<BTreeMap<ProxyKey, String>>,
    changed: watch::Sender<u64>,
    next_session: std::sync::atomic::AtomicU64,
}

/// A seat that was taken.
#[derive(Debug)]
pub struct Entered {
    pub seat: Seat,
    /// The one whose living stream gave way.
    pub replaced: Option<Introduction>,
}

/// A session's hold on its entry.
#[derive(Debug, Clone)]
pub struct Seat {
    pub key: ProxyKey,
    session: u64,
    /// Fires when a newer stream of the same proxy takes the seat, or when the seat is taken away.
    pub replaced: CancellationToken,
    why: Arc<OnceLock<String>>,
}

impl ProxyStatus {
    /// It went without a word longer ago, and is expected back: it gets the change then.
    pub fn is_away(&self) -> bool {
        self.state == SyncState::Disconnected && self.is_expected && !self.is_awaited && self.is_concerned
    }

    /// It has what is wanted or has refused it: nobody waits for it.
    pub fn is_settled(&self) -> bool {
        let is_excused = !self.is_concerned && self.state == SyncState::Behind;
        is_excused || matches!(self.state, SyncState::Synced | SyncState::Refused)
    }

    /// The same some time later, if nothing was heard since.
    pub(crate) fn later(mut self, passed: Duration) -> Self {
        self.heard_ago += passed;
        if !self.behind_for.is_zero() {
            self.behind_for += passed;
        }
        self
    }

    /// A proxy of which another control plane knows more.
    fn elsewhere(key: &ProxyKey) -> Self {
        let nothing = Entry::absent(OffsetDateTime::now_utc()).status(key, Revision(0), Revision(0));
        let reason = "connected to another control plane of this store, which knows more of it".to_owned();
        Self { state: SyncState::Elsewhere, reason, is_concerned: true, ..nothing }
    }
}

impl Seat {
    /// Why the seat was taken away, where that was said.
    pub fn why(&self) -> Option<&str> {
        self.why.get().map(String::as_str)
    }
}

impl Registry {
    pub fn new() -> Self {
        Self {
            entries: Mutex::default(),
            elsewhere: Mutex::default(),
            changed: watch::Sender::new(0),
            next_session: 1.into(),
        }
    }

    /// Takes the seat of `key`; an older stream of the same proxy is told to end.
    ///
    /// # Errors
    /// A proxy of the same name and identity that started later has it, or the two fight for it.
    pub fn enter(&self, key: ProxyKey, introduction: Introduction, now: OffsetDateTime) -> Result<Entered, SeatTaken> {
        let session = self.next_session.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (replaced, why) = (CancellationToken::new(), Arc::default());
        let mut entry = Entry {
            session,
            connected: true,
            introduction,
            replaced: replaced.clone(),
            why: Arc::clone(&why),
            ..Entry::absent(now)
        };
        let mut entries = self.lock();
        if let Some(holder) = entries.get_mut(&key) {
            entry.disputes = holder.yields_to(&entry.introduction)?;
        }
        let old = entries.insert(key.clone(), entry);
        drop(entries);
        let old = old.inspect(|old| old.replaced.cancel()).filter(|old| old.connected).map(|old| old.introduction);
        self.notify();
        Ok(Entered { seat: Seat { key, session, replaced, why }, replaced: old })
    }

    /// Leaves the seat. `forget`: it said goodbye, so that nobody waits for it.
    /// False when a newer stream has the seat: then nothing of the proxy's may be taken away.
    pub fn leave(&self, seat: &Seat, forget: bool) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&seat.key).filter(|entry| entry.session == seat.session) else {
            return false;
        };
        entry.connected = false;
        entry.is_expected = !forget;
        entry.gone_since = Some(Instant::now());
        if forget {
            entries.remove(&seat.key);
        }
        drop(entries);
        self.notify();
        true
    }

    /// Lists a proxy that the store knows from before this start; it is expected back.
    pub fn expect(&self, key: ProxyKey, now: OffsetDateTime) {
        let entry = Entry { is_expected: true, gone_since: Some(Instant::now()), ..Entry::absent(now) };
        self.lock().entry(key).or_insert(entry);
        self.notify();
    }

    /// Nobody waits for `key` any longer: its endpoints have left discovery. No effect while it is connected.
    pub fn give_up(&self, key: &ProxyKey) {
        if let Some(entry) = self.lock().get_mut(key).filter(|entry| !entry.connected) {
            entry.is_expected = false;
        }
        self.notify();
    }

    /// Forgets a proxy; its stream, where it has one, is told to end.
    pub fn forget(&self, key: &ProxyKey) {
        if let Some(entry) = self.lock().remove(key) {
            entry.replaced.cancel();
        }
        self.notify();
    }

    /// How a proxy that is known introduced itself last.
    pub fn introduction(&self, key: &ProxyKey) -> Option<Introduction> {
        self.lock().get(key).map(|entry| entry.introduction.clone())
    }

    /// Ends a proxy's stream and tells it why; it is expected back.
    pub fn dismiss(&self, key: &ProxyKey, why: &str) {
        if let Some(entry) = self.lock().get_mut(key).filter(|entry| entry.connected) {
            let _ = entry.why.set(why.to_owned());
            entry.connected = false;
            entry.is_expected = true;
            entry.gone_since = Some(Instant::now());
            entry.replaced.cancel();
        }
        self.notify();
    }

    /// The certificates that connected proxies showed, by their serial numbers.
    pub fn shown_certificates(&self) -> Vec<(ProxyKey, String)> {
        let entries = self.lock();
        let connected = entries.iter().filter(|(_, entry)| entry.connected);
        let shown = connected.filter(|(_, entry)| !entry.introduction.certificate.is_empty());
        shown.map(|(key, entry)| (key.clone(), entry.introduction.certificate.clone())).collect()
    }

    /// The address that a connected proxy speaks from, and whether that is of another machine than this one.
    pub fn place(&self, key: &ProxyKey) -> Option<(IpAddr, bool)> {
        let entries = self.lock();
        let introduction = &entries.get(key).filter(|entry| entry.connected)?.introduction;
        Some((introduction.address?, introduction.is_remote))
    }

    /// All that are known, wherever their streams are.
    pub fn keys(&self) -> Vec<ProxyKey> {
        let mut keys = self.keys_elsewhere();
        keys.extend(self.lock().keys().cloned());
        keys.into_iter().collect()
    }

    /// The stores that proxies here follow, those that more accounts follow behind the others.
    pub fn lineages(&self) -> Vec<Lineage> {
        let entries = self.lock();
        lineages(entries.iter().filter_map(|(key, entry)| Some((&key.identity, entry.introduction.lineage.as_ref()?))))
    }

    /// True where the proxy has a stream, to this control plane or to another.
    pub fn is_connected(&self, key: &ProxyKey) -> bool {
        self.is_connected_here(key) || self.elsewhere().contains_key(key)
    }

    pub(crate) fn is_connected_here(&self, key: &ProxyKey) -> bool {
        self.lock().get(key).is_some_and(|entry| entry.connected)
    }

    /// Proxies that have a stream to this control plane, each with the number of that stream.
    pub(crate) fn connected(&self) -> BTreeMap<ProxyKey, u64> {
        let connected = self.lock();
        let connected = connected.iter().filter(|(_, entry)| entry.connected);
        connected.map(|(key, entry)| (key.clone(), entry.session)).collect()
    }

    /// Another control plane holds a proxy from now on.
    pub(crate) fn is_elsewhere(&self, key: &ProxyKey, holder: String) {
        self.elsewhere().insert(key.clone(), holder);
        self.notify();
    }

    /// This control plane holds it.
    pub(crate) fn is_here(&self, key: &ProxyKey) {
        self.elsewhere().remove(key);
    }

    /// No control plane holds a proxy any longer: it is expected back from now on. False where none did.
    pub(crate) fn has_left(&self, key: &ProxyKey, now: OffsetDateTime) -> bool {
        if self.elsewhere().remove(key).is_none() {
            return false;
        }
        let mut entries = self.lock();
        let entry = entries.entry(key.clone()).or_insert_with(|| Entry::absent(now));
        if !entry.connected {
            entry.is_expected = true;
            entry.gone_since = Some(Instant::now());
        }
        drop(entries);
        self.notify();
        true
    }

    /// The control plane that held a proxy says that nobody waits for it any longer.
    pub(crate) fn has_ended(&self, key: &ProxyKey) {
        self.elsewhere().remove(key);
        let mut entries = self.lock();
        if entries.get(key).is_some_and(|entry| !entry.connected) {
            entries.remove(key);
        }
        drop(entries);
        self.notify();
    }

    pub(crate) fn keys_elsewhere(&self) -> BTreeSet<ProxyKey> {
        self.elsewhere().keys().cloned().collect()
    }

    /// Proxies that other control planes hold, each with the session of which.
    pub(crate) fn holders(&self) -> BTreeMap<ProxyKey, String> {
        self.elsewhere().clone()
    }

    fn elsewhere(&self) -> MutexGuard<'_, BTreeMap<ProxyKey, String>> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True while the stream of this seat is open.
    pub fn holds(&self, seat: &Seat) -> bool {
        self.lock().get(&seat.key).is_some_and(|entry| entry.connected && entry.session == seat.session)
    }

    /// A connected proxy of another machine than this one.
    pub fn any_remote(&self) -> Option<(ProxyKey, IpAddr)> {
        let entries = self.lock();
        let mut remote = entries.iter().filter(|(_, entry)| entry.connected && entry.introduction.is_remote);
        remote.find_map(|(key, entry)| Some((key.clone(), entry.introduction.address?)))
    }

    /// Proxies that went without a word, each with the time since and whether it was ever heard since this process
    /// started.
    pub fn suspects(&self) -> Vec<(ProxyKey, Duration, bool)> {
        let elsewhere = self.keys_elsewhere();
        let entries = self.lock();
        let suspects = entries.iter().filter(|(_, entry)| !entry.connected && entry.is_expected);
        let suspects = suspects.filter(|(key, _)| !elsewhere.contains(*key));
        let silent = |entry: &Entry| entry.gone_since.map(|at| at.elapsed()).unwrap_or_default();
        suspects.map(|(key, entry)| (key.clone(), silent(entry), entry.session != 0)).collect()
    }

    /// Counts the proxies that are connected, those that tell whom they reach, and those that are silent. A silent one counts
    /// only if `matters` holds for it: one without endpoints is no sign of a loss.
    pub fn outlook(&self, matters: impl Fn(&ProxyKey) -> bool) -> Outlook {
        let held = self.keys_elsewhere();
        let entries = self.lock();
        let connected = || entries.values().filter(|entry| entry.connected);
        let is_here = |key: &ProxyKey| entries.get(key).is_some_and(|entry| entry.connected);
        let elsewhere = held.iter().filter(|key| !is_here(key)).count();
        Outlook {
            connected: connected().count() + elsewhere,
            // What the proxies tell that others hold is asked of those.
            telling: connected().filter(|entry| entry.introduction.tells_reach()).count() + elsewhere,
            suspects: entries
                .iter()
                .filter(|(key, entry)| !entry.connected && entry.is_expected && matters(key))
                .filter(|(key, _)| !held.contains(*key))
                .count(),
        }
    }

    /// A proxy said something.
    pub fn hear(&self, seat: &Seat) {
        if let Some(entry) = self.lock().get_mut(&seat.key).filter(|entry| entry.session == seat.session) {
            entry.heard = Instant::now();
        }
    }

    /// A proxy that holds only what it uses is to hold these services.
    pub fn record_scope(&self, seat: &Seat, scope: Arc<BTreeSet<ObjectName>>, asked: usize) {
        if let Some(entry) = self.lock().get_mut(&seat.key).filter(|entry| entry.session == seat.session) {
            entry.scope = Some((scope, asked));
        }
    }

    /// The world is of this revision from now on, which concerns the proxy or does not.
    pub fn record_change(&self, seat: &Seat, revision: Revision, concerns: bool) {
        if let Some(entry) = self.lock().get_mut(&seat.key).filter(|entry| entry.session == seat.session) {
            entry.concerns.note(revision, concerns);
        }
    }

    /// The same of a world that does not concern the proxy, which has everything and so is in step with it.
    pub fn record_passed(&self, seat: &Seat, revision: Revision) {
        self.update(seat, |entry| {
            entry.concerns.note(revision, false);
            entry.progress.synced = entry.progress.synced.max(revision);
            entry.behind_since = None;
        });
    }

    /// How much the connected proxies asked for, all together.
    pub fn subscriptions(&self) -> usize {
        let entries = self.lock();
        let connected = entries.values().filter(|entry| entry.connected);
        connected.filter_map(|entry| entry.scope.as_ref()).map(|(_, asked)| asked).sum()
    }

    /// Names of the connected proxies of an account that don't hold a service.
    pub fn without(&self, identity: &str, service: &ObjectName) -> Vec<String> {
        let entries = self.lock();
        let is_without = |entry: &Entry| entry.scope.as_ref().is_some_and(|(scope, _)| !scope.contains(service));
        let of = entries.iter().filter(|(key, entry)| entry.connected && key.identity.as_str() == identity);
        of.filter(|(_, entry)| is_without(entry)).map(|(key, _)| key.name.clone()).collect()
    }

    /// A proxy says which peers it reaches.
    pub fn record_words(&self, seat: &Seat, words: BTreeMap<ObjectName, bool>) {
        if let Some(entry) = self.lock().get_mut(&seat.key).filter(|entry| entry.session == seat.session) {
            entry.words = Some((Instant::now(), words));
        }
    }

    pub fn record_progress(&self, seat: &Seat, progress: Progress, newest: Revision) {
        self.update(seat, |entry| {
            let behind = progress.synced < newest || !progress.refused.is_empty();
            entry.behind_since = behind.then(|| entry.behind_since.unwrap_or_else(Instant::now));
            entry.progress = progress;
        });
    }

    pub fn record_health(&self, seat: &Seat, health: Health) {
        self.update(seat, |entry| entry.health = health);
    }

    /// Every proxy, judged against `wanted`: refusals count from revision `since` on, so that waiting for a change isn't
    /// spoilt by an older one.
    pub fn list(&self, wanted: Revision, since: Revision) -> Vec<ProxyStatus> {
        let mut elsewhere = self.keys_elsewhere();
        let mut entries = self.lock();
        entries.retain(|_, entry| entry.gone_since.is_none_or(|at| entry.is_expected || at.elapsed() < REMEMBER));
        elsewhere.retain(|key| !entries.get(key).is_some_and(|entry| entry.connected));
        let here = entries.iter().filter(|(key, _)| !elsewhere.contains(*key));
        let mut all: Vec<_> = here.map(|(key, entry)| entry.status(key, wanted, since)).collect();
        drop(entries);
        all.extend(elsewhere.iter().map(ProxyStatus::elsewhere));
        all.sort_by(|one, other| one.key.cmp(&other.key));
        all
    }

    /// A receiver that sees a change whenever a status changed.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn update(&self, seat: &Seat, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.lock().get_mut(&seat.key).filter(|entry| entry.session == seat.session) {
            change(entry);
        }
        self.notify();
    }

    fn notify(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ProxyKey, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stores that are followed, those that more accounts follow behind the others: many proxies of one account have one
/// voice.
pub(crate) fn lineages<'a>(followed: impl Iterator<Item = (&'a SpiffeId, &'a Lineage)>) -> Vec<Lineage> {
    let mut followers: BTreeMap<(&str, u64), (&Lineage, BTreeSet<&SpiffeId>)> = BTreeMap::new();
    for (identity, lineage) in followed {
        let known = followers.entry((&lineage.store, lineage.epoch));
        known.or_insert_with(|| (lineage, BTreeSet::new())).1.insert(identity);
    }
    let mut all: Vec<_> = followers.into_values().collect();
    all.sort_by_key(|(_, accounts)| accounts.len());
    all.into_iter().map(|(lineage, _)| lineage.clone()).collect()
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Entry {
    /// A proxy that was not heard yet.
    fn absent(now: OffsetDateTime) -> Self {
        Self {
            session: 0,
            connected: false,
            introduction: Introduction::default(),
            health: Health::default(),
            progress: Progress::default(),
            connected_since: now,
            behind_since: Some(Instant::now()),
            heard: Instant::now(),
            gone_since: None,
            is_expected: false,
            replaced: CancellationToken::new(),
            why: Arc::default(),
            words: None,
            scope: None,
            concerns: Concerns::default(),
            disputes: Vec::new(),
        }
    }

    /// Decides whether a further proxy of this name and identity takes over; gives the disputes that it inherits. The
    /// later start wins. An equal start means a new stream of the same process, which wins unless that comes too often.
    fn yields_to(&mut self, other: &Introduction) -> Result<Vec<Instant>, SeatTaken> {
        let taken = |is_newer| SeatTaken { holder: Box::new(self.introduction.clone()), is_newer };
        if !self.connected || other.incarnation > self.introduction.incarnation {
            return Ok(Vec::new());
        }
        if other.incarnation < self.introduction.incarnation {
            return Err(taken(true));
        }
        self.disputes.retain(|at| at.elapsed() < DISPUTE.1);
        if self.disputes.len() >= DISPUTE.0 {
            return Err(taken(false));
        }
        let mut disputes = std::mem::take(&mut self.disputes);
        disputes.push(Instant::now());
        Ok(disputes)
    }

    fn status(&self, key: &ProxyKey, wanted: Revision, since: Revision) -> ProxyStatus {
        let (state, reason) = self.judge(wanted, since);
        ProxyStatus {
            key: key.clone(),
            state,
            reason,
            held: self.progress.refused.iter().map(|(_, text)| text.clone()).collect(),
            is_left_alone: self.connected && self.progress.is_left_alone,
            synced: self.progress.synced,
            introduction: self.introduction.clone(),
            health: self.health.clone(),
            connected_since: self.connected.then_some(self.connected_since),
            behind_for: self.gone_since.or(self.behind_since).map(|at| at.elapsed()).unwrap_or_default(),
            heard_ago: self.heard.elapsed(),
            is_expected: self.is_expected,
            is_awaited: self.is_expected && self.gone_since.is_some_and(|at| at.elapsed() < self.patience()),
            is_concerned: self.concerns.may_have(wanted),
        }
    }

    fn patience(&self) -> Duration {
        if self.session == 0 { AWAITED_AT_START } else { AWAITED }
    }

    fn judge(&self, wanted: Revision, since: Revision) -> (SyncState, String) {
        if !self.connected {
            let reason = match self.is_expected {
                true => "suspect: its stream is closed; peers that reach its endpoints go on using them",
                false => "its stream is closed",
            };
            return (SyncState::Disconnected, reason.to_owned());
        }
        let refused = self.progress.refused.iter().filter(|(at, _)| *at >= since);
        let refused: Vec<_> = refused.map(|(_, text)| text.as_str()).collect();
        if !refused.is_empty() {
            return (SyncState::Refused, refused.join("; "));
        }
        if self.progress.synced >= wanted {
            return (SyncState::Synced, String::new());
        }
        let reason = match (self.progress.pending.as_slice(), self.progress.in_flight) {
            (_, true) => "sent, not answered yet".to_owned(),
            ([], false) => "not sent yet".to_owned(),
            (pending, false) => format!("in force, but for what it is still making ready: {}", pending.join(", ")),
        };
        (SyncState::Behind, reason)
    }
}

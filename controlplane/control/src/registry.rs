//! Who is connected and how far each proxy is: what `weft proxies` and `apply --wait` read. Written by the sessions;
//! lost with the process (registered workloads are not: the store keeps those).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_policy::bundle::Revision;
use weft_policy::identity::SpiffeId;

/// How long a proxy that went without a word stays listed.
const REMEMBER: Duration = Duration::from_secs(600);

/// So many proxies lost at once may be a fault of the network around the control plane.
const MASS: usize = 3;

/// A proxy is its name and the identity that its certificate proves: nobody can take over another's place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProxyKey {
    pub name: String,
    pub identity: SpiffeId,
}

impl fmt::Display for ProxyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.identity)
    }
}

/// What a proxy says about itself at its first word.
#[derive(Debug, Clone, Default)]
pub struct Introduction {
    pub version: String,
    pub address: String,
}

/// What a proxy reports now and then.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Health {
    pub filters: Vec<LoadedFilter>,
    pub transport: String,
    pub certificate_not_after_unix: i64,
    pub staleness_ms: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
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
    /// What the proxy refused, in words, with the revision it refused; empty when nothing is held back.
    pub refused: Vec<(Revision, String)>,
    pub in_flight: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncState {
    Synced,
    Behind,
    Refused,
    Disconnected,
}

/// One proxy as it is shown.
#[derive(Debug, Clone)]
pub struct ProxyStatus {
    pub key: ProxyKey,
    pub state: SyncState,
    pub reason: String,
    /// What it refused at whatever revision and still does without.
    pub held: Vec<String>,
    pub synced: Revision,
    pub introduction: Introduction,
    pub health: Health,
    pub connected_since: Option<OffsetDateTime>,
    /// How long it has not been in step with the newest revision.
    pub behind_for: Duration,
    /// Its endpoints are still in discovery though it is away.
    pub is_expected: bool,
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
    is_expected: bool,
    replaced: CancellationToken,
}

/// All proxies. Clones of the receiver wake whenever any status changes.
pub struct Registry {
    entries: Mutex<BTreeMap<ProxyKey, Entry>>,
    changed: watch::Sender<u64>,
    next_session: std::sync::atomic::AtomicU64,
}

/// A session's hold on its entry.
#[derive(Debug, Clone)]
pub struct Seat {
    pub key: ProxyKey,
    session: u64,
    /// Fires when a newer stream of the same proxy takes the seat.
    pub replaced: CancellationToken,
}

impl Registry {
    pub fn new() -> Self {
        Self { entries: Mutex::default(), changed: watch::Sender::new(0), next_session: 1.into() }
    }

    /// Takes the seat of `key`; an older stream of the same proxy is told to end.
    pub fn enter(&self, key: ProxyKey, introduction: Introduction, now: OffsetDateTime) -> Seat {
        let session = self.next_session.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let replaced = CancellationToken::new();
        let entry = Entry {
            session,
            connected: true,
            introduction,
            health: Health::default(),
            progress: Progress::default(),
            connected_since: now,
            behind_since: Some(Instant::now()),
            gone_since: None,
            is_expected: false,
            replaced: replaced.clone(),
        };
        if let Some(old) = self.lock().insert(key.clone(), entry) {
            old.replaced.cancel();
        }
        self.notify();
        Seat { key, session, replaced }
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
        let entry = Entry {
            session: 0,
            connected: false,
            introduction: Introduction::default(),
            health: Health::default(),
            progress: Progress::default(),
            connected_since: now,
            behind_since: None,
            gone_since: Some(Instant::now()),
            is_expected: true,
            replaced: CancellationToken::new(),
        };
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

    pub fn is_connected(&self, key: &ProxyKey) -> bool {
        self.lock().get(key).is_some_and(|entry| entry.connected)
    }

    /// More than half of all proxies, and at least `MASS`, went without a word and are not back.
    pub fn has_lost_most(&self) -> bool {
        let entries = self.lock();
        let connected = entries.values().filter(|entry| entry.connected).count();
        let lost = entries.values().filter(|entry| !entry.connected && entry.is_expected).count();
        lost >= MASS && lost > connected
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
        let mut entries = self.lock();
        entries.retain(|_, entry| entry.gone_since.is_none_or(|at| entry.is_expected || at.elapsed() < REMEMBER));
        entries.iter().map(|(key, entry)| entry.status(key, wanted, since)).collect()
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

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Entry {
    fn status(&self, key: &ProxyKey, wanted: Revision, since: Revision) -> ProxyStatus {
        let (state, reason) = self.judge(wanted, since);
        ProxyStatus {
            key: key.clone(),
            state,
            reason,
            held: self.progress.refused.iter().map(|(_, text)| text.clone()).collect(),
            synced: self.progress.synced,
            introduction: self.introduction.clone(),
            health: self.health.clone(),
            connected_since: self.connected.then_some(self.connected_since),
            behind_for: self.behind_since.map(|at| at.elapsed()).unwrap_or_default(),
            is_expected: self.is_expected,
        }
    }

    fn judge(&self, wanted: Revision, since: Revision) -> (SyncState, String) {
        if !self.connected {
            let reason = match self.is_expected {
                true => "its stream is closed; its endpoints stay until it is back or its grace is over",
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
        let reason = if self.progress.in_flight { "sent, not answered yet" } else { "not sent yet" };
        (SyncState::Behind, reason.to_owned())
    }
}

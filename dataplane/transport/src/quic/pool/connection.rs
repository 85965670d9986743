//! One pooled connection and the task that looks after it: idleness, silence, rotation, withdrawn trust. The task ends
//! with the connection; a retired connection ends with its last request.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::UnixTime;
use tokio::time::{Instant, MissedTickBehavior};

use super::{Inner, PeerKey};
use crate::h3;
use crate::quic::endpoint::{NO_ERROR, cut, expired, still_holds};
use crate::quic::limits::{Distance, PoolLimits, WindowLimits};
use crate::tls::{self, Credentials, IdentityHandle};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Live,
    /// No new request ever; closed after the last.
    Retired,
}

#[derive(Debug)]
pub(super) struct Pooled {
    client: h3::Client,
    connection: quinn::Connection,
    identity: IdentityHandle,
    /// The credentials under which the connection was last found good.
    credentials: RefCell<Arc<Credentials>>,
    /// When a certificate ends that the connection began with, and when a newer connection should take its place.
    ends_at: UnixTime,
    gives_way_at: Option<UnixTime>,
    /// The eviction of its peer that it began after.
    evicted: Option<u64>,
    state: Cell<State>,
    /// Silent while it should speak: no new request, until it speaks again.
    suspect: Cell<bool>,
    made_at: Instant,
    distance: Distance,
    /// The connection's receive window; see `ask`.
    window: Cell<u32>,
    /// Given out since the last look.
    used: Cell<bool>,
}

impl Pooled {
    pub(super) fn client(&self) -> h3::Client {
        self.used.set(true);
        self.client.clone()
    }

    pub(super) fn open_streams(&self) -> usize {
        self.client.open_streams()
    }

    pub(super) fn is_usable(&self) -> bool {
        self.state.get() == State::Live && !self.suspect.get() && !self.client.is_draining()
    }

    /// True where it takes requests, or will once its peer is heard again.
    pub(super) fn may_serve(&self) -> bool {
        self.is_usable() || self.is_suspect()
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.suspect.get()
    }

    pub(super) fn distance(&self) -> Distance {
        self.distance
    }

    pub(super) fn round_trip(&self) -> Duration {
        self.connection.rtt()
    }

    pub(super) fn made_at(&self) -> Instant {
        self.made_at
    }

    /// Gives the connection the window that its streams need.
    fn fit(&self, windows: &WindowLimits) {
        let needed = windows.of_connection(self.distance, self.open_streams());
        if needed > self.window.get() {
            self.window.set(needed);
            self.connection.set_receive_window(needed.into());
        }
    }

    /// Sends something that must be acknowledged: what was lost is then found out a round trip after the path is back,
    /// instead of after a pause that doubles. A byte more of credit is the smallest thing there is to say.
    fn ask(&self) {
        let window = self.window.get().saturating_add(1);
        self.window.set(window);
        self.connection.set_receive_window(window.into());
    }

    pub(super) fn retire(&self) {
        self.state.set(State::Retired);
    }

    pub(super) fn close(&self, why: &[u8]) {
        self.retire();
        self.connection.close(NO_ERROR, why);
    }

    /// Retires a connection whose certificates get old, and closes it where one has ended. True if it was closed.
    fn follow_time(&self, now: UnixTime) -> bool {
        if now > self.ends_at {
            self.retire();
            expired(&self.connection);
            return true;
        }
        if self.gives_way_at.is_some_and(|at| now >= at) {
            self.retire();
        }
        false
    }

    /// A renewed certificate retires what the old one opened; withdrawn trust cuts it. True if it was cut.
    fn follow_credentials(&self) -> bool {
        let now = self.identity.current();
        let then = self.credentials.replace(now.clone());
        if then.generation == now.generation {
            return false;
        }
        if let Err(error) = still_holds(&self.connection, &now, self.evicted) {
            self.retire();
            cut(&self.connection, &error);
            return true;
        }
        if !then.identity.is_same_certificate(&now.identity) {
            self.retire();
        }
        false
    }
}

/// When a connection was last used and last heard.
struct Watch {
    used_at: Instant,
    /// Since when something that was sent has had no answer.
    unanswered_since: Option<Instant>,
    sent: u64,
    heard: u64,
    /// Packets that had been sent when a younger connection to the peer was first found alive.
    sent_before_younger: Option<u64>,
    /// When enough had been sent since then that a peer that knows this connection would have answered.
    asked_at: Option<Instant>,
}

/// Packets without an answer that make silence suspicious: a request, and a probe for it.
const UNANSWERED: u64 = 2;

/// Result of a look at a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Well,
    /// It may be: the peer shall say something.
    Quiet,
    Silent {
        since: Instant,
    },
}

impl Watch {
    fn new(now: Instant) -> Watch {
        Watch { used_at: now, unanswered_since: None, sent: 0, heard: 0, sent_before_younger: None, asked_at: None }
    }

    fn look(&mut self, pooled: &Pooled, now: Instant, suspect_after: Duration) -> Found {
        let stats = pooled.connection.stats();
        let (sent, heard) = (stats.udp_tx.datagrams, stats.udp_rx.datagrams);
        if heard != self.heard || sent == self.sent {
            if heard != self.heard {
                *self = Watch { sent, heard, ..Watch::new(self.used_at) };
            }
            return Found::Well;
        }
        let since = *self.unanswered_since.get_or_insert(now);
        let enough = patience(pooled, suspect_after);
        if now - since >= enough && sent - self.sent >= UNANSWERED {
            return Found::Silent { since };
        }
        if now - since >= enough / 2 { Found::Quiet } else { Found::Well }
    }

    /// True where the peer has forgotten a silent connection: a younger one has lived for `forgotten_after` since `heard`, and
    /// what was sent on this one meanwhile had time for an answer. A connection whose congestion window is full sends nothing
    /// until its next probe, at an interval that has doubled all through the silence: until then it proves nothing.
    fn is_forgotten(&mut self, pooled: &Pooled, now: Instant, heard: Instant, limits: &PoolLimits) -> bool {
        let sent = pooled.connection.stats().udp_tx.datagrams;
        let before = *self.sent_before_younger.get_or_insert(sent);
        if sent - before < UNANSWERED {
            return false;
        }
        let asked = *self.asked_at.get_or_insert(now);
        now - asked >= patience(pooled, limits.suspect_after) && now - heard >= limits.forgotten_after
    }
}

/// How long an answer may take.
fn patience(pooled: &Pooled, suspect_after: Duration) -> Duration {
    suspect_after.max(pooled.connection.rtt() * 4)
}

/// Makes a pooled connection of an established one and spawns what drives and watches it.
pub(super) fn adopt(
    pool: &Rc<Inner>,
    key: &PeerKey,
    identity: &IdentityHandle,
    connection: quinn::Connection,
    credentials: Arc<Credentials>,
    distance: Distance,
) -> Rc<Pooled> {
    let window = pool.dialer.windows().of_stream(distance);
    let limits = h3::Limits { stream_window: usize::try_from(window).unwrap_or(usize::MAX), ..pool.h3.clone() };
    let (client, driver) = h3::connect(connection.clone(), limits);
    let now = UnixTime::now();
    let (ends_at, gives_way_at) =
        (tls::ends_at(&connection, &credentials), tls::gives_way_at(&connection, &credentials, now));
    let pooled = Rc::new(Pooled {
        client,
        evicted: tls::evicted(&connection, &credentials),
        connection,
        identity: identity.clone(),
        credentials: RefCell::new(credentials),
        ends_at: ends_at.unwrap_or(now),
        gives_way_at,
        state: Cell::new(State::Live),
        suspect: Cell::new(false),
        made_at: Instant::now(),
        distance,
        window: Cell::new(pool.dialer.windows().connection),
        used: Cell::new(true),
    });
    pool.stats.connections.add();
    let interval = pool.limits.check_interval;
    tokio::task::spawn_local(look_after(Rc::downgrade(pool), key.clone(), pooled.clone(), interval, driver));
    pooled
}

async fn look_after(
    pool: Weak<Inner>,
    key: PeerKey,
    pooled: Rc<Pooled>,
    interval: Duration,
    driver: impl Future<Output = ()>,
) {
    let stats = pool.upgrade().map(|pool| pool.stats.clone());
    let look = async {
        let mut watch = Watch::new(Instant::now());
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await;
            look_at(&pool, &key, &pooled, &mut watch, now);
        }
    };
    tokio::select! {
        ((), _) = async { tokio::join!(driver, pooled.connection.closed()) } => {}
        () = look => {}
    }
    if let Some(stats) = stats {
        stats.connections.sub();
        if pooled.state.get() != State::Retired {
            stats.lost.add();
        }
    }
    if let Some(pool) = pool.upgrade() {
        pool.forget(&key, &pooled);
    }
}

fn look_at(pool: &Weak<Inner>, key: &PeerKey, pooled: &Rc<Pooled>, watch: &mut Watch, now: Instant) {
    let used = pooled.used.replace(false) || pooled.open_streams() > 0;
    if used {
        watch.used_at = now;
    }
    let Some(pool) = pool.upgrade() else {
        pooled.retire();
        return close_if_unused(pooled, used);
    };
    if pooled.follow_credentials() {
        pool.stats.distrusted.add();
        return;
    }
    if pooled.follow_time(UnixTime::now()) {
        return;
    }
    pooled.fit(pool.dialer.windows());
    listen(&pool, key, pooled, watch, now);
    if pooled.state.get() == State::Retired || pooled.client.is_draining() {
        pooled.retire();
        return close_if_unused(pooled, used);
    }
    if used && pooled.distance == Distance::Near {
        pool.refit(key);
    }
    if now - watch.used_at >= pool.limits.idle_timeout {
        pool.stats.idle_closed.add();
        pooled.retire();
        pooled.client.retire();
    }
}

/// Finds out whether the peer is still heard. One that isn't keeps the requests that it has, for as long as QUIC keeps the
/// connection: only a younger connection that lives proves that the peer has forgotten this one, and only of what was sent since.
fn listen(pool: &Rc<Inner>, key: &PeerKey, pooled: &Pooled, watch: &mut Watch, now: Instant) {
    match watch.look(pooled, now, pool.limits.suspect_after) {
        Found::Well => {
            if pooled.suspect.replace(false) {
                pool.found(key);
            }
        }
        Found::Quiet => pooled.ask(),
        Found::Silent { since } => {
            pooled.ask();
            if !pooled.suspect.replace(true) {
                pool.stats.suspected.add();
            }
            if pooled.state.get() == State::Live {
                pool.redial(key);
            }
            let younger = pool.heard_since(key, since);
            if younger.is_some_and(|heard| watch.is_forgotten(pooled, now, heard, &pool.limits)) {
                pool.stats.forgotten.add();
                pooled.close(b"the peer has forgotten this connection");
            }
        }
    }
}

fn close_if_unused(pooled: &Pooled, used: bool) {
    if !used && !pooled.client.is_draining() {
        // Said once: the driver then closes, when the last bytes have had time to arrive.
        pooled.client.retire();
    }
}

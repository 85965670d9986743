//! One pooled connection and the task that looks after it: idleness, silence, rotation, withdrawn trust. The task ends
//! with the connection; a retired connection ends with its last request.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Inner, PeerKey};
use crate::h3;
use crate::quic::endpoint::{NO_ERROR, cut};
use crate::tls::{self, Credentials, IdentityHandle};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Live,
    /// Silent while it should speak: no new request, until it speaks again.
    Suspect,
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
    state: Cell<State>,
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
        self.state.get() == State::Live && !self.client.is_draining()
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.state.get() == State::Suspect
    }

    pub(super) fn retire(&self) {
        self.state.set(State::Retired);
    }

    pub(super) fn close(&self, why: &[u8]) {
        self.retire();
        self.connection.close(NO_ERROR, why);
    }

    /// A renewed certificate retires what the old one opened; withdrawn trust cuts it. True if it was cut.
    fn follow_credentials(&self) -> bool {
        let now = self.identity.current();
        let then = self.credentials.replace(now.clone());
        if then.generation == now.generation {
            return false;
        }
        if let Err(error) = tls::recheck(&self.connection, &now) {
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
    heard_at: Instant,
    sent: u64,
    heard: u64,
}

/// Packets without an answer that make silence suspicious: a request, and a probe for it.
const UNANSWERED: u64 = 2;

impl Watch {
    fn new(now: Instant) -> Watch {
        Watch { used_at: now, heard_at: now, sent: 0, heard: 0 }
    }

    /// True while requests wait on a connection that sends and hears nothing.
    fn is_silent(&mut self, pooled: &Pooled, now: Instant, suspect_after: Duration) -> bool {
        let stats = pooled.connection.stats();
        let (sent, heard) = (stats.udp_tx.datagrams, stats.udp_rx.datagrams);
        if heard != self.heard || pooled.open_streams() == 0 {
            (self.heard_at, self.sent, self.heard) = (now, sent, heard);
            return false;
        }
        now - self.heard_at >= suspect_after && sent - self.sent >= UNANSWERED
    }
}

/// Makes a pooled connection of an established one and spawns what drives and watches it.
pub(super) fn adopt(
    pool: &Rc<Inner>,
    key: &PeerKey,
    identity: &IdentityHandle,
    connection: quinn::Connection,
    credentials: Arc<Credentials>,
) -> Rc<Pooled> {
    let (client, driver) = h3::connect(connection.clone(), pool.h3.clone());
    let pooled = Rc::new(Pooled {
        client,
        connection,
        identity: identity.clone(),
        credentials: RefCell::new(credentials),
        state: Cell::new(State::Live),
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
    if pooled.state.get() == State::Retired || pooled.client.is_draining() {
        pooled.retire();
        if watch.is_silent(pooled, now, pool.limits.suspect_after) {
            // Its peer left and died: what still waits on it must not wait for the idle timeout.
            pool.stats.suspected.add();
            return pooled.close(b"the peer is silent");
        }
        return close_if_unused(pooled, used);
    }
    if now - watch.used_at >= pool.limits.idle_timeout {
        pool.stats.idle_closed.add();
        pooled.retire();
        return pooled.client.retire();
    }
    match (watch.is_silent(pooled, now, pool.limits.suspect_after), pooled.state.get()) {
        (true, State::Live) => {
            pooled.state.set(State::Suspect);
            pool.stats.suspected.add();
            pool.probe(key);
        }
        (false, State::Suspect) => pooled.state.set(State::Live),
        _ => {}
    }
}

fn close_if_unused(pooled: &Pooled, used: bool) {
    if !used && !pooled.client.is_draining() {
        // Said once: the driver then closes, when the last bytes have had time to arrive.
        pooled.client.retire();
    }
}

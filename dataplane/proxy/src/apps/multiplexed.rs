//! HTTP/2 connections to applications: a further one is opened where the streams that the app allows are used up, up to a
//! number; beyond it requests queue, with a deadline. No caller holds all streams of an app (`parts`).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::Hash;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use weft_transport::h2;
use weft_transport::http::{HttpLimits, StreamError};

use crate::parts::{Part, Parts, Short};
use crate::telemetry::counters::Limited;
use crate::telemetry::series::Counter;

/// One worker's HTTP/2 connections, by where they lead.
#[derive(Debug)]
pub(super) struct Multiplexed<K, C: Clone + Eq + Hash> {
    /// Connections to one socket.
    most: usize,
    /// Per cent of an app's streams that one caller may hold.
    percent: usize,
    /// How long a request waits for a stream.
    patience: Duration,
    limits: h2::Limits,
    sockets: RefCell<HashMap<K, Rc<Socket<C>>>>,
    stats: MultiplexedStats,
}

/// Counters of a pool; one writer.
#[derive(Debug, Default, Clone)]
pub struct MultiplexedStats {
    /// Requests that found every stream in use and every connection made.
    pub queued: Arc<Counter>,
    /// Those of them that waited in vain.
    pub timed_out: Arc<Counter>,
}

/// Why there is no stream for a request. Nothing was sent.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum NoStream<E> {
    #[error("no connection")]
    Dial(E),
    #[error("HTTP/2: {0}")]
    Settings(StreamError),
    #[error("no free stream within {} ms on {connections} connections", patience.as_millis())]
    Late { patience: Duration, connections: usize },
}

/// A stream to an app, and its caller's right to it.
#[derive(Debug)]
pub struct AppStream<C: Clone + Eq + Hash> {
    pub slot: h2::Slot,
    _part: Part<C>,
}

/// The connections to one socket, and who waits for a stream.
#[derive(Debug)]
struct Socket<C: Clone + Eq + Hash> {
    /// So many there may be.
    most: usize,
    connections: RefCell<Vec<h2::ClientConn>>,
    /// Streams that the app allowed on the newest connection when that was last looked at.
    newest_allows: Cell<usize>,
    room: h2::Room,
    dialling: Cell<bool>,
    waiting: Cell<usize>,
    parts: Rc<Parts<C>>,
    /// The app has said how many streams it allows on a connection.
    is_settled: Cell<bool>,
    /// The holder of its one permit is first in the queue and alone may take a stream or begin a dial. The semaphore
    /// hands it on in the order of asking, so that nobody is overtaken.
    turn: Semaphore,
}

impl<C: Clone + Eq + Hash> Socket<C> {
    /// Before the app has said how many it allows, each connection has one stream.
    fn new(most: usize, percent: usize) -> Self {
        Self {
            most,
            newest_allows: Cell::new(1),
            parts: Parts::new(percent, most),
            is_settled: Cell::default(),
            connections: RefCell::default(),
            room: h2::Room::default(),
            dialling: Cell::default(),
            waiting: Cell::default(),
            turn: Semaphore::new(1),
        }
    }
}

/// How the first in the queue goes on.
enum Next<'s, C: Clone + Eq + Hash> {
    Use(h2::Slot),
    /// With a connection of its own: it has left the queue to those behind it.
    Dial(Dialling<'s, C>),
}

impl<K: Copy + Eq + Hash, C: Clone + Eq + Hash> Multiplexed<K, C> {
    pub(super) fn new(
        (most, percent): (usize, usize),
        patience: Duration,
        http: &HttpLimits,
        stats: MultiplexedStats,
    ) -> Self {
        let limits = h2::Limits { preface: patience, ..http.h2() };
        Self { most, percent, patience, limits, sockets: RefCell::default(), stats }
    }

    /// A stream for `caller` on a connection that stands, where one is free and nobody waits for it.
    pub(super) fn standing(&self, to: K, caller: &C) -> Option<AppStream<C>> {
        let sockets = self.sockets.borrow();
        let socket = sockets.get(&to).filter(|socket| socket.waiting.get() == 0)?;
        let part = socket.parts.take(caller).ok()?;
        Some(AppStream { slot: socket.slot()?, _part: part })
    }

    /// A stream to `to`: on a connection that stands, on one that `dial` makes, or when another request is done.
    pub(super) async fn stream<S, E>(
        &self,
        to: K,
        caller: &C,
        dial: impl AsyncFn() -> Result<S, E>,
    ) -> Result<AppStream<C>, NoStream<E>>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let new = || Rc::new(Socket::new(self.most, self.percent));
        let socket = Rc::clone(self.sockets.borrow_mut().entry(to).or_insert_with(new));
        let deadline = Instant::now() + self.patience;
        let _waiting = Waiting::behind(&socket.waiting);
        let late = || {
            self.stats.timed_out.add(1);
            NoStream::Late { patience: self.patience, connections: socket.connections.borrow().len() }
        };
        let part = tokio::time::timeout_at(deadline, self.part(&socket, caller)).await.map_err(|_| late())?;
        loop {
            let next = tokio::time::timeout_at(deadline, self.first_in_line(&socket)).await.map_err(|_| late())?;
            let slot = match next {
                Next::Use(slot) => Some(slot),
                // An app that allows no stream at all for now is waited for like one whose streams are in use.
                Next::Dial(dialling) => dialling.connect(&self.limits, &dial).await?,
            };
            if let Some(slot) = slot {
                return Ok(AppStream { slot, _part: part });
            }
        }
    }

    /// The caller's right to a stream, as soon as it may have one. Cancel safe.
    async fn part(&self, socket: &Socket<C>, caller: &C) -> Part<C> {
        let count = |short| {
            // Before the first SETTINGS nothing is used up: it is only not known.
            if socket.is_settled.get() {
                self.stats.queued.add(1);
                if short == Short::Part {
                    Limited::AppStreamsPerCaller.hit();
                }
            }
        };
        let mut given = pin!(socket.parts.get(caller, count));
        loop {
            // Made before the look, so that no change is missed.
            let changed = pin!(socket.room.limit_changed());
            socket.measure();
            match select(given.as_mut(), changed).await {
                Either::Left((part, _)) => return part,
                Either::Right(((), _)) => {}
            }
        }
    }

    /// Waits in the queue, and as its first until there is a stream or room for a connection. Cancel safe.
    async fn first_in_line<'s>(&self, socket: &'s Socket<C>) -> Next<'s, C> {
        let mut queued = false;
        let mut queue = || {
            if !std::mem::replace(&mut queued, true) {
                self.stats.queued.add(1);
            }
        };
        let _turn = socket.turn(&mut queue).await;
        loop {
            let mut changed = pin!(socket.room.changed());
            changed.as_mut().enable();
            if let Some(slot) = socket.slot() {
                return Next::Use(slot);
            }
            if !socket.dialling.get() {
                if socket.connections.borrow().len() < socket.most {
                    return Next::Dial(Dialling::of(socket));
                }
                queue();
            }
            changed.await;
        }
    }

    /// Forgets connections that have ended, all idle ones but one for each socket, and that one after `idle_timeout`; called
    /// now and then by the worker.
    pub(super) fn expire(&self, idle_timeout: Duration) {
        let now = Instant::now();
        self.sockets.borrow_mut().retain(|_, socket| {
            let mut idle = 0;
            socket.connections.borrow_mut().retain(|conn| {
                idle += usize::from(conn.open_streams() == 0);
                let is_fresh = || conn.quiet_since().is_none_or(|since| now < since + idle_timeout);
                stands(conn) && (conn.open_streams() > 0 || idle <= 1 && is_fresh())
            });
            Rc::strong_count(socket) > 1 || !socket.connections.borrow().is_empty()
        });
    }
}

/// False for a connection that has ended; counts one that ended by a limit of ours.
fn stands(conn: &h2::ClientConn) -> bool {
    if conn.was_overrun() {
        Limited::H2UnreadFrames.hit();
    }
    !conn.is_closed()
}

impl<C: Clone + Eq + Hash> Socket<C> {
    /// A stream on the oldest connection that has one, so that later ones fall idle first.
    fn slot(&self) -> Option<h2::Slot> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(stands);
        connections.iter().find_map(h2::ClientConn::slot)
    }

    /// Counts the streams that there may be: on each connection that stands what the app allows on it, on each to come
    /// as many as on the newest.
    fn measure(&self) {
        let connections = self.connections.borrow();
        if let Some(newest) = connections.last() {
            self.newest_allows.set(newest.allowed().max(1));
        }
        let standing: usize = connections.iter().map(h2::ClientConn::allowed).sum();
        let to_come = self.most.saturating_sub(connections.len()).saturating_mul(self.newest_allows.get());
        drop(connections);
        self.parts.set_capacity(standing.saturating_add(to_come));
    }

    /// Waits until all who asked before have been served.
    async fn turn(&self, queue: impl FnOnce()) -> SemaphorePermit<'_> {
        if let Ok(turn) = self.turn.try_acquire() {
            return turn;
        }
        if !self.dialling.get() && self.connections.borrow().len() >= self.most {
            queue();
        }
        self.turn.acquire().await.expect("nobody closes it")
    }
}

/// One dial at a time: whoever comes meanwhile waits for it, or dials next.
struct Dialling<'s, C: Clone + Eq + Hash>(&'s Socket<C>);

impl<'s, C: Clone + Eq + Hash> Dialling<'s, C> {
    fn of(socket: &'s Socket<C>) -> Self {
        socket.dialling.set(true);
        Self(socket)
    }

    /// Adds a connection, and takes its first stream for whoever dials.
    async fn connect<S, E>(
        self,
        limits: &h2::Limits,
        dial: &impl AsyncFn() -> Result<S, E>,
    ) -> Result<Option<h2::Slot>, NoStream<E>>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let io = dial().await.map_err(NoStream::Dial)?;
        let room = self.0.room.clone();
        let conn = h2::ClientConn::connect_with(io, limits, room).await.map_err(NoStream::Settings)?;
        conn.settled().await.map_err(NoStream::Settings)?;
        let slot = conn.slot();
        self.0.is_settled.set(true);
        self.0.connections.borrow_mut().push(conn);
        self.0.measure();
        Ok(slot)
    }
}

impl<C: Clone + Eq + Hash> Drop for Dialling<'_, C> {
    fn drop(&mut self) {
        self.0.dialling.set(false);
        self.0.room.wake_one();
    }
}

/// One request in the queue, so that none that comes later goes first.
struct Waiting<'s>(&'s Cell<usize>);

impl<'s> Waiting<'s> {
    fn behind(waiting: &'s Cell<usize>) -> Self {
        waiting.set(waiting.get() + 1);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests;

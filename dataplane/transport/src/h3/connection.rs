//! State that the streams of one connection share: limits, the peer's settings, GOAWAY in both directions, the count of
//! streams. Touched a few times per request, so atomics; the one lock guards accepting against GOAWAY.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use quinn::VarInt;
use tokio::sync::Notify;

use super::frame::{Role, Settings, Violation};
use super::{Code, Limits};
use crate::cancels::Cancels;
use crate::http::StreamError;

/// No GOAWAY yet.
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) quic: quinn::Connection,
    pub(super) role: Role,
    pub(super) limits: Limits,
    pub(super) peer: OnceLock<Settings>,
    /// Wakes whoever waits for anything below (or `peer`) to change.
    pub(super) changed: Notify,
    halves: AtomicUsize,
    closed: AtomicBool,
    /// No more requests here: a client that is to close once those in flight are done, a server that has said GOAWAY.
    retired: AtomicBool,
    /// The id in the peer's last GOAWAY.
    peer_goaway: AtomicU64,
    accepting: Mutex<Accepting>,
    cancels: Mutex<Cancels>,
    /// Server: requests whose heads are awaited.
    waiting_heads: AtomicUsize,
    /// The breach for which we closed.
    violation: OnceLock<Violation>,
}

/// Server: which request streams have been taken, and from which on none will be.
#[derive(Debug, Default)]
pub(super) struct Accepting {
    next: u64,
    goaway: Option<u64>,
}

impl Connection {
    pub(super) fn new(quic: quinn::Connection, role: Role, limits: Limits) -> Self {
        Connection {
            quic,
            role,
            limits,
            peer: OnceLock::new(),
            changed: Notify::new(),
            halves: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            peer_goaway: AtomicU64::new(NEVER),
            accepting: Mutex::new(Accepting::default()),
            cancels: Mutex::new(Cancels::NONE),
            waiting_heads: AtomicUsize::new(0),
            violation: OnceLock::new(),
        }
    }

    /// Ends the connection for a breach by the peer.
    pub(super) fn fail(&self, violation: Violation) -> StreamError {
        tracing::debug!(code = Code::name(violation.code), reason = violation.reason, "closing HTTP/3 connection");
        let _ = self.violation.set(violation);
        self.close(violation.code, violation.reason);
        StreamError::Protocol(violation.reason)
    }

    pub(super) fn close(&self, code: u64, reason: &'static str) {
        self.quic.close(varint(code), reason.as_bytes());
        self.set_closed();
    }

    pub(super) fn set_closed(&self) {
        self.closed.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// No new request should go out, or be accepted, here.
    pub(super) fn is_draining(&self) -> bool {
        self.is_closed() || self.retired.load(Ordering::Acquire) || self.peer_goaway.load(Ordering::Acquire) != NEVER
    }

    /// Client: the peer has said that it did not and will not process this stream.
    pub(super) fn is_refused(&self, stream: u64) -> bool {
        stream >= self.peer_goaway.load(Ordering::Acquire)
    }

    /// Records the peer's GOAWAY; false if its id is above an earlier one.
    pub(super) fn lower_peer_goaway(&self, id: u64) -> bool {
        let earlier = self.peer_goaway.swap(id, Ordering::AcqRel);
        self.changed.notify_waiters();
        id <= earlier
    }

    fn accepting(&self) -> MutexGuard<'_, Accepting> {
        self.accepting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Server: may this stream be processed? One that may counts for the GOAWAY id from here on.
    pub(super) fn admit(&self, stream: u64) -> bool {
        let mut accepting = self.accepting();
        if accepting.goaway.is_some_and(|goaway| stream >= goaway) {
            return false;
        }
        accepting.next = accepting.next.max(stream + 4);
        true
    }

    /// Server: decides the id of our GOAWAY, once.
    pub(super) fn decide_goaway(&self) -> u64 {
        let mut accepting = self.accepting();
        let next = accepting.next;
        let id = *accepting.goaway.get_or_insert(next);
        drop(accepting);
        self.retire();
        id
    }

    /// Server: the id of our GOAWAY if one has been decided.
    pub(super) fn own_goaway(&self) -> Option<u64> {
        self.accepting().goaway
    }

    /// The breach for which we closed, if it was one.
    pub(super) fn violation(&self) -> Option<Violation> {
        self.violation.get().copied()
    }

    /// Server: a request ended before it was answered. Too many of those end the connection.
    pub(super) fn cancelled(&self) {
        if self.is_closed() || self.quic.close_reason().is_some() {
            return;
        }
        let accepted = self.accepting().next / 4;
        let finished = accepted.saturating_sub(self.open_streams() as u64);
        let mut cancels = self.cancels.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = &self.limits;
        let within = cancels.spend(std::time::Instant::now(), finished, limits.cancels, limits.cancels_per_second);
        drop(cancels);
        if !within {
            self.fail(Violation::new(Code::EXCESSIVE_LOAD, "too many requests given up before their answer"));
        }
    }

    /// Server: a place among the requests whose heads are awaited, where one is left.
    pub(super) fn await_head(&self) -> Option<AwaitedHead<'_>> {
        let place = AwaitedHead(self);
        (self.waiting_heads.fetch_add(1, Ordering::AcqRel) < self.limits.waiting_heads).then_some(place)
    }

    /// True where the peer understands our ABORT frame.
    pub(super) fn peer_takes_aborts(&self) -> bool {
        self.limits.aborts && self.peer.get().is_some_and(|peer| peer.aborts)
    }

    /// Counts both halves of a new request stream.
    pub(super) fn opened(&self) {
        self.halves.fetch_add(2, Ordering::AcqRel);
    }

    /// Counts one half as done.
    pub(super) fn released(&self) {
        if self.halves.fetch_sub(1, Ordering::AcqRel) == 1 && self.is_draining() {
            self.changed.notify_waiters();
        }
    }

    pub(super) fn open_streams(&self) -> usize {
        self.halves.load(Ordering::Acquire).div_ceil(2)
    }

    /// How long the last bytes of an idle connection may need to arrive before it is closed.
    pub(super) fn linger(&self) -> std::time::Duration {
        (self.quic.rtt() * 4).clamp(std::time::Duration::from_millis(100), std::time::Duration::from_secs(3))
    }
}

/// One request whose head is awaited.
#[derive(Debug)]
pub(super) struct AwaitedHead<'c>(&'c Connection);

impl Drop for AwaitedHead<'_> {
    fn drop(&mut self) {
        self.0.waiting_heads.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Codes are far below 62 bits; one that isn't becomes the largest.
pub(super) fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

pub(super) fn lost(error: &quinn::ConnectionError) -> StreamError {
    StreamError::ConnectionLost(error.to_string())
}

//! Counters of a pool. Plain atomics that one worker writes and the metrics endpoint reads.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::tls::HandshakeFailure;

/// Counters and gauges of one worker's pool.
#[derive(Debug, Default)]
pub struct PoolStats {
    pub(super) connections: Counter,
    pub(super) dials: Counter,
    pub(super) coalesced: Counter,
    pub(super) established: Counter,
    pub(super) saturated: Counter,
    pub(super) evicted: Counter,
    pub(super) idle_closed: Counter,
    pub(super) suspected: Counter,
    pub(super) forgotten: Counter,
    pub(super) lost: Counter,
    pub(super) distrusted: Counter,
    pub(super) failures: [Counter; HandshakeFailure::ALL.len()],
}

/// A number with one writer.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sub(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// `PoolStats` at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSnapshot {
    /// Gauge: connections held, retired ones included.
    pub connections: u64,
    /// Handshakes begun.
    pub dials: u64,
    /// Requests that waited for a dial begun by another.
    pub coalesced: u64,
    /// Handshakes that succeeded.
    pub established: u64,
    /// Requests given a connection at its stream limit because no more connections are allowed.
    pub saturated: u64,
    /// Connections retired because their endpoint left discovery.
    pub evicted: u64,
    pub idle_closed: u64,
    /// Connections given no more requests because nothing was heard on them.
    pub suspected: u64,
    /// Suspect connections closed because a younger one to the same peer lived.
    pub forgotten: u64,
    /// Connections that the peer or the network ended.
    pub lost: u64,
    /// Connections cut because trust in their peer was withdrawn.
    pub distrusted: u64,
    /// Dials that failed, by `HandshakeFailure::index`.
    pub failures: [u64; HandshakeFailure::ALL.len()],
}

impl PoolStats {
    pub fn snapshot(&self) -> PoolSnapshot {
        let mut failures = [0; HandshakeFailure::ALL.len()];
        for (value, counter) in failures.iter_mut().zip(&self.failures) {
            *value = counter.value();
        }
        PoolSnapshot {
            connections: self.connections.value(),
            dials: self.dials.value(),
            coalesced: self.coalesced.value(),
            established: self.established.value(),
            saturated: self.saturated.value(),
            evicted: self.evicted.value(),
            idle_closed: self.idle_closed.value(),
            suspected: self.suspected.value(),
            forgotten: self.forgotten.value(),
            lost: self.lost.value(),
            distrusted: self.distrusted.value(),
            failures,
        }
    }

    pub(super) fn failed(&self, reason: HandshakeFailure) {
        self.failures[reason.index()].add();
    }
}

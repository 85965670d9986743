//! Connection IDs that say whose they are: the first byte, modulo the number of workers, is the worker. `steering` reads
//! the same byte in the kernel.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator};
use quinn_proto::{InvalidCid, RandomConnectionIdGenerator};

use super::Worker;
use super::limits::Distance;

const LENGTH: usize = 8;

/// Makes 8-byte connection IDs, random but for their worker.
#[derive(Debug)]
pub struct WorkerCidGenerator {
    worker: Worker,
    random: RandomConnectionIdGenerator,
}

impl WorkerCidGenerator {
    pub fn new(worker: Worker) -> WorkerCidGenerator {
        WorkerCidGenerator { worker, random: RandomConnectionIdGenerator::new(LENGTH) }
    }

    /// A byte that leads to `worker`, keeping as much of `random` as there is room for.
    fn first_byte(&self, random: u8) -> u8 {
        let count = self.worker.count;
        let rounds = 256 / count;
        let byte = (u16::from(random) % rounds) * count + u16::from(self.worker.index);
        u8::try_from(byte).expect("(rounds - 1) * count + index < rounds * count <= 256")
    }
}

impl ConnectionIdGenerator for WorkerCidGenerator {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; LENGTH];
        bytes.copy_from_slice(&self.random.generate_cid());
        bytes[0] = self.first_byte(bytes[0]);
        ConnectionId::new(&bytes)
    }

    fn validate(&self, cid: &ConnectionId) -> Result<(), InvalidCid> {
        match cid.first() {
            Some(first) if cid.len() == LENGTH && self.worker.owns(*first) => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The two bytes behind the first in the Initial packets of a caller that has found the callee far away. Who draws all of
/// them says this once in 65,536 times, which costs larger windows and nothing else.
const FAR: [u8; 2] = [0xfa, 0x12];

/// How far away the caller of this first packet says that it is. Only it can know before there is a connection, and the
/// windows of a connection are given when it is made.
pub(super) fn told_distance(initial: &ConnectionId) -> Distance {
    if initial.get(1..3) == Some(&FAR) { Distance::Far } else { Distance::Near }
}

/// First bytes for the Initial packets of a caller's connections, one after the other, so that they land on different
/// workers of the callee whatever their number. The other bytes stay unpredictable, but for what tells of the distance.
#[derive(Debug, Clone)]
pub(crate) struct InitialCids(Arc<AtomicU8>);

impl InitialCids {
    /// `base` is the process's own random byte: callers with few connections must not all begin at the same worker.
    pub(crate) fn new(base: u8, worker: Worker) -> InitialCids {
        InitialCids(Arc::new(AtomicU8::new(base.wrapping_add(worker.index))))
    }

    pub(super) fn provider(&self, distance: Distance) -> Arc<dyn Fn() -> ConnectionId + Send + Sync> {
        let next = self.0.clone();
        Arc::new(move || {
            //= rfc9000#section-7.2
            //# This Destination Connection ID MUST be at least 8 bytes in length.
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&RandomConnectionIdGenerator::new(16).generate_cid());
            bytes[0] = next.fetch_add(1, Ordering::Relaxed);
            match distance {
                Distance::Far => bytes[1..3].copy_from_slice(&FAR),
                Distance::Near if bytes[1..3] == FAR => bytes[1] = 0,
                Distance::Near => {}
            }
            ConnectionId::new(&bytes)
        })
    }
}

//! QUIC between proxies: one endpoint per worker on a shared port, handshakes whose refusals have a reason, and the pool
//! of HTTP/3 clients. A connection belongs to one worker for life; nothing here is shared between workers but keys and counters.

mod admission;
mod cid;
mod endpoint;
mod keys;
mod limits;
mod pool;
mod refusal;
mod socket;
mod stats;
mod steering;
mod udp;

#[cfg(test)]
mod tests;

pub use admission::{AdmissionStats, ConnectionPlace};
pub use cid::WorkerCidGenerator;
pub use endpoint::{Accepted, Dialer, Handshake, Server};
pub use keys::SharedKeys;
pub use limits::{Congestion, PoolLimits, TransportLimits, WindowLimits};
pub use pool::{ConnectError, PeerKey, Pool};
pub use socket::{bind_client, bind_workers};
pub use stats::{PoolSnapshot, PoolStats};

/// Position of a worker among its fellows: `index < count`, `count <= 256`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    index: u8,
    count: u16,
}

impl Worker {
    /// `None` when `index` is not below `count`, or there are more than 256.
    pub fn new(index: usize, count: usize) -> Option<Worker> {
        let count = u16::try_from(count).ok().filter(|count| *count <= 256)?;
        let index = u8::try_from(index).ok().filter(|index| u16::from(*index) < count)?;
        Some(Worker { index, count })
    }

    /// The only worker there is.
    pub fn single() -> Worker {
        Worker { index: 0, count: 1 }
    }

    pub fn index(self) -> usize {
        usize::from(self.index)
    }

    pub fn count(self) -> usize {
        usize::from(self.count)
    }

    /// The worker to which the steering program sends a connection ID that starts with `byte`.
    pub(crate) fn owns(self, byte: u8) -> bool {
        u16::from(byte) % self.count == u16::from(self.index)
    }
}

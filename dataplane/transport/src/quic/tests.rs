//! QUIC on loopback: handshakes that must fail and say why, connections on their workers, rotation, and the pool.

mod attack;
mod flood;
mod handshake;
mod network;
mod pool;
mod silence;
mod tls12;
mod windows;
mod workers;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::LocalSet;

use self::network::Network;
use super::{Accepted, Dialer, Server, SharedKeys, TransportLimits, WindowLimits, Worker, bind_client, bind_workers};
use crate::tls::{HandshakeError, Served};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Far longer than anything here takes: a wait that ends by it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test as a worker runs: one thread, one `LocalSet`.
fn on_a_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { tokio::time::timeout(PATIENCE, test).await.expect("in time") });
}

/// As `on_a_worker`, on a clock that passes only while everybody waits for it: for a network in memory, since this clock does
/// not wait for a kernel.
fn on_its_own_clock(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let limit = Duration::from_secs(3600);
    LocalSet::new().block_on(&runtime, async { tokio::time::timeout(limit, test).await.expect("in time") });
}

/// Waits for a condition, giving other tasks their turn.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE / 2, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A callee that finishes every handshake and tells how each ended.
struct Callee {
    server: Rc<Server>,
    address: SocketAddr,
    outcomes: mpsc::UnboundedReceiver<Result<Accepted, HandshakeError>>,
}

impl Callee {
    fn new(identity: impl Into<Served>) -> Callee {
        Callee::with_limits(identity, &TransportLimits::default())
    }

    fn with_limits(identity: impl Into<Served>, limits: &TransportLimits) -> Callee {
        Callee::bound(SocketAddr::new(LOOPBACK, 0), &SharedKeys::generate(), identity, limits)
    }

    fn bound(address: SocketAddr, keys: &SharedKeys, identity: impl Into<Served>, limits: &TransportLimits) -> Callee {
        let socket = bind_workers(address, 1).unwrap().remove(0);
        Callee::serving(Server::new(socket, Worker::single(), keys, identity, limits).unwrap())
    }

    fn within(network: &Network, identity: impl Into<Served>) -> Callee {
        let (keys, limits) = (SharedKeys::generate(), TransportLimits::default());
        Callee::serving(Server::over(network.socket(), Worker::single(), &keys, identity, &limits).unwrap())
    }

    fn serving(server: Server) -> Callee {
        let server = Rc::new(server);
        let address = server.endpoint().local_addr().unwrap();
        let (report, outcomes) = mpsc::unbounded_channel();
        let accepting = server.clone();
        tokio::task::spawn_local(async move {
            while let Some(handshake) = accepting.accept().await {
                let report = report.clone();
                tokio::task::spawn_local(async move {
                    let _ = report.send(handshake.finish().await);
                });
            }
        });
        Callee { server, address, outcomes }
    }

    /// Is gone without a word, as a killed process is: the address falls silent and is free again.
    async fn vanish(&self) {
        // An endpoint keeps its last but one socket for a while.
        for _ in 0..2 {
            self.server.endpoint().rebind(bind_client(LOOPBACK, None).unwrap()).unwrap();
        }
        until("the socket is closed", || std::net::UdpSocket::bind(self.address).is_ok()).await;
    }

    async fn outcome(&mut self) -> Result<Accepted, HandshakeError> {
        self.outcomes.recv().await.unwrap()
    }
}

fn dialer() -> Dialer {
    // A busy machine makes loopback look far away.
    dialer_with(WindowLimits { far_from: Duration::from_secs(60), ..WindowLimits::default() })
}

fn dialer_with(windows: WindowLimits) -> Dialer {
    let socket = bind_client(LOOPBACK, None).unwrap();
    let limits = TransportLimits { windows, ..TransportLimits::default() };
    Dialer::new(socket, Worker::single(), &SharedKeys::generate(), &limits).unwrap()
}

fn dialer_within(network: &Network) -> Dialer {
    let limits = TransportLimits::default();
    Dialer::over(network.socket(), None, Worker::single(), &SharedKeys::generate(), &limits).unwrap()
}

//! Probes of endpoints that could not be reached: beside the traffic, so that no request waits to learn that somebody is
//! still away. When one is due and that there is one at a time is `weft_flow`'s decision.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use weft_flow::Probed;
use weft_policy::route::KeptTarget;

use crate::destination::{Destination, ServiceState};
use crate::sockets::PlainSocket;
use crate::worker::Worker;

/// Starts the probe that is due, if one is. It ends with the attempt to connect: to a peer by the pool's own limit, to an
/// endpoint outside the mesh within `timeout`. A drain does not wait for it. `target`: the app's port, for those outside.
pub(super) fn start_due(
    worker: &Rc<Worker>,
    state: &Rc<ServiceState>,
    (target, timeout): (KeptTarget, Duration),
    now: Duration,
) {
    if let Some(destination) = state.take_probe(now) {
        let port = state.target(target, &destination.endpoint.workload);
        let probe =
            Probe { worker: Rc::clone(worker), state: Rc::clone(state), destination, probed: Probed::Cancelled };
        tokio::task::spawn_local(probe.run(port, timeout));
    }
}

/// Tells the balancer what came of a probe, even if it never ran to its end.
struct Probe {
    worker: Rc<Worker>,
    state: Rc<ServiceState>,
    destination: Rc<Destination>,
    probed: Probed,
}

impl Probe {
    async fn run(mut self, port: Option<u16>, timeout: Duration) {
        let reached = match (self.destination.peer(), port) {
            (Some(peer), _) => self.worker.pool.get(peer).await.is_ok(),
            (None, None) => false,
            (None, Some(port)) => {
                let address = SocketAddr::new(self.destination.endpoint.address, port);
                match self.worker.shared.guard.outside(address, address.ip()) {
                    Ok(outside) => self.worker.apps.answers(PlainSocket::Outside(outside), timeout).await,
                    Err(_) => false,
                }
            }
        };
        self.probed = if reached { Probed::Reached } else { Probed::Unreachable };
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let Probe { worker, state, destination, probed } = self;
        state.probed(destination, worker.now(), worker.dice(), *probed);
    }
}

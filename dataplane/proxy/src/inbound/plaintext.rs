//! Plain-text connections that capture redirected to us (15006). Under Strict, the only mode there is yet, they are
//! refused and counted: nobody unauthenticated reaches the app.

use std::rc::Rc;

use tokio::net::TcpStream;
use tracing::warn;
use weft_transport::capture;

use crate::telemetry::throttle;
use crate::worker::Worker;

/// Refuses a captured inbound connection: a reset says so at once.
pub fn refuse(worker: &Rc<Worker>, stream: TcpStream) {
    worker.ledger.counters.plaintext_refused.increment(1);
    let to = capture::original_dst(&stream);
    let from = stream.peer_addr().ok();
    if throttle::PLAINTEXT.first() {
        warn!(?from, ?to, "plain-text connection refused: the mesh is Strict");
    }
    let _ = stream.set_zero_linger();
}

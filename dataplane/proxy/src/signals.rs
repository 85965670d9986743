//! Effects of signals: TERM and INT drain, a second one ends at once; HUP and USR1 reopen the access log; USR2 does
//! nothing. None of them ends the process without its drain, which would leave the capture rules behind.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::shared::Shared;

/// The signals that are taken, from now on.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    /// Takes them over from the kernel's own answers, at once. Needs a runtime.
    ///
    /// # Errors
    /// The kernel refuses a handler.
    pub fn take() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Does what they say, until the process is to end at once.
    pub async fn obey(mut self, shared: Arc<Shared>) {
        // A drain that was begun by an admin call is no first signal.
        let mut asked = false;
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.hangup.recv() => { reopen(&shared, "HUP"); continue }
                _ = self.user1.recv() => { reopen(&shared, "USR1"); continue }
                _ = self.user2.recv() => { info!(signal = "USR2", "signal without a meaning; nothing is done"); continue }
            }
            if std::mem::replace(&mut asked, true) {
                warn!("second signal: ending at once");
                return shared.drain.quit();
            }
            shared.drain.start();
        }
    }
}

fn reopen(shared: &Shared, signal: &str) {
    shared.access_log.reopen();
    info!(signal, "the access log is opened again where it is a file; the configuration is not read again");
}

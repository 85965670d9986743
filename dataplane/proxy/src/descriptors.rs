//! File descriptors, shared out before anybody can use them up: half for connections of applications, up to three quarters
//! together with those that we dial, the rest for peers, the control plane, probes and files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};
use weft_transport::capture;

use crate::config::Config;
use crate::shares::ShareLimits;

/// Fewer than this is worth a warning at start.
const FEW: u64 = 4_096;

/// Raises the soft limit to the hard one and says how many there are; dials stop at three quarters of them from now on.
pub fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            warn!(%error, "the limit of open files can't be raised");
        }
    }
    let total = total();
    capture::stop_dialling_at(dial_ceiling(total));
    match total < FEW {
        true => warn!(open_files = total, "few files may be open; connections are refused at half of them"),
        false => info!(open_files = total, "limit of open files"),
    }
    total
}

/// Connections of applications that may be open, all workers: as configured, as far as descriptors go.
pub fn app_connections(config: &Config) -> u64 {
    let wanted = config.limits.max_connections as u64 * config.worker_count() as u64;
    wanted.min(app_share(total()))
}

/// Connections that one worker may open to one destination: as configured, as far as descriptors go.
pub fn connection_shares(config: &Config) -> ShareLimits {
    let per_worker = total() / config.worker_count() as u64;
    let at_most = |wanted: usize, share: u64| wanted.min(usize::try_from(share).unwrap_or(usize::MAX).max(1));
    ShareLimits {
        destination: at_most(config.limits.app_connections, per_worker / 2),
        caller: at_most(config.limits.app_connections_per_caller, per_worker / 4),
    }
}

fn total() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn app_share(total: u64) -> u64 {
    (total / 2).max(1)
}

fn dial_ceiling(total: u64) -> u64 {
    total - total / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_everything() {
        for total in [64, 1_024, 1_048_576, u64::MAX] {
            assert!(app_share(total) < dial_ceiling(total) && dial_ceiling(total) < total, "{total}");
        }
    }
}

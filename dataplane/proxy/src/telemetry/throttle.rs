//! Log lines about what a stranger can cause as often as he likes: the first of each kind is written, the rest of each ten
//! seconds is one line with their number. Metrics count them all.

use std::sync::Mutex;
use std::time::Duration;

use tracing::warn;

const PERIOD: Duration = Duration::from_secs(10);

/// Plain-text connections from the network to captured ports.
pub static PLAINTEXT: Throttle = Throttle::new("plain-text connections were refused");
/// Mesh handshakes of peers.
pub static HANDSHAKE: Throttle = Throttle::new("mesh handshakes were refused");
/// Mesh connections closed for their peer's breach.
pub static VIOLATION: Throttle = Throttle::new("mesh connections were closed because their peer broke the rules");
/// Tunnels that carried HTTP requests to ports of which nothing is declared.
pub static TUNNEL: Throttle = Throttle::new("tunnels were cut because they carried HTTP requests");
/// Listeners for applications and for the side doors.
pub static ACCEPT: Throttle = Throttle::new("connections could not be accepted");
/// Admin calls that were refused.
pub static ADMIN: Throttle = Throttle::new("admin calls were refused");

static ALL: [&Throttle; 6] = [&PLAINTEXT, &HANDSHAKE, &VIOLATION, &TUNNEL, &ACCEPT, &ADMIN];

/// One sort of line, with kinds that are constants.
#[derive(Debug)]
pub struct Throttle {
    what: &'static str,
    period: Mutex<Period>,
}

/// Kinds that had a line since the last report, and the number of events that had none.
#[derive(Debug)]
struct Period {
    told: Vec<&'static str>,
    untold: u64,
}

impl Throttle {
    pub const fn new(what: &'static str) -> Self {
        Self { what, period: Mutex::new(Period { told: Vec::new(), untold: 0 }) }
    }

    /// Counts one; true where a line is to be written about it.
    pub fn first(&self) -> bool {
        self.first_of("")
    }

    /// Counts one of a kind, a constant; true where a line is to be written about it.
    pub fn first_of(&self, kind: &'static str) -> bool {
        let mut period = self.period.lock().expect("no holder panics");
        let first = !period.told.contains(&kind);
        if first {
            period.told.push(kind)
        } else {
            period.untold += 1
        }
        first
    }

    /// How many had no line of their own since the last call.
    fn more(&self) -> u64 {
        let mut period = self.period.lock().expect("no holder panics");
        period.told.clear();
        std::mem::take(&mut period.untold)
    }
}

/// Writes the numbers, for as long as the process lives.
pub async fn report() {
    let mut period = tokio::time::interval(PERIOD);
    loop {
        period.tick().await;
        for throttle in ALL {
            let more = throttle.more();
            if more > 0 {
                warn!(more, "more {} in the last 10 s", throttle.what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_two_lines() {
        let throttle = Throttle::new("things happened");
        assert_eq!((0..1_500).filter(|_| throttle.first()).count(), 1);
        assert_eq!((throttle.more(), throttle.more()), (1_499, 0));
        assert!(throttle.first(), "a new period begins with a line");
        assert!(throttle.first_of("kind") && !throttle.first_of("kind") && throttle.first_of("other"));
        assert_eq!(throttle.more(), 1);
    }
}

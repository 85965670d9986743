//! When endpoints whose proxies fell silent leave discovery. Decisions only. Invariants: silence alone removes nobody while
//! there are peers to ask; the last endpoint of a service stays, and of the others never more than a share goes at once; a
//! control plane that hears nobody removes nobody.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weft_policy::bundle::ObjectName;

/// Removals within this time count as one.
const AT_ONCE: Duration = Duration::from_secs(600);

/// So many proxies lost at once may be a fault of the network around the control plane.
const MASS: usize = 3;

/// The word of the connected proxies on a silent one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// One got through to it.
    Reached,
    /// Some tried, nobody got through.
    Unreachable,
    /// Nobody tried lately.
    None,
}

/// A proxy whose stream is gone without a goodbye.
#[derive(Debug, Clone, Copy)]
pub struct Suspect {
    pub silent: Duration,
    /// For so long nothing is asked.
    pub lease: Duration,
    pub word: Word,
}

/// How the other proxies are.
#[derive(Debug, Clone, Copy)]
pub struct Outlook {
    pub connected: usize,
    /// Those of them that tell whom they reach.
    pub telling: usize,
    pub suspects: usize,
}

impl Suspect {
    /// Why its endpoints may go, if they may. `unheard`: a silence that needs no peer's word.
    pub fn ended(&self, outlook: Outlook, unheard: Duration) -> Option<&'static str> {
        let lost_most = outlook.suspects >= MASS && outlook.suspects > outlook.connected;
        if outlook.connected == 0 || self.silent < self.lease || lost_most && self.silent < unheard {
            return None;
        }
        match self.word {
            Word::Reached => None,
            Word::Unreachable => Some("its lease is over and no peer reaches it"),
            Word::None if outlook.telling == 0 => Some("its lease is over"),
            Word::None => (self.silent >= unheard).then_some("nobody heard of it for long"),
        }
    }
}

/// Endpoints that lately left their services by the end of a lease.
#[derive(Debug, Default)]
pub struct Removals(Vec<(Instant, ObjectName)>);

impl Removals {
    /// True when one more endpoint may leave each of `services`, given with the number of endpoints that they have.
    pub fn allow(&mut self, services: &BTreeMap<ObjectName, usize>, percent: usize, now: Instant) -> bool {
        self.0.retain(|(at, _)| now.duration_since(*at) < AT_ONCE);
        services.iter().all(|(name, endpoints)| {
            let gone = self.0.iter().filter(|(_, service)| service == name).count();
            *endpoints > 1 && (gone + 1) * 100 <= (endpoints + gone) * percent
        })
    }

    pub fn add(&mut self, services: impl IntoIterator<Item = ObjectName>, now: Instant) {
        self.0.extend(services.into_iter().map(|service| (now, service)));
    }
}

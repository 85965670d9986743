//! Looks up names outside the mesh, as the machine does. A look-up that nobody waits for any more goes on, since the system
//! knows no way to end it: so there are few at a time, one for each name, and the names of one domain take a part of them.

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::Limits;
use crate::parts::{Part, Parts};
use crate::telemetry::counters::Limited;

/// Bounds of the look-ups of one worker.
#[derive(Debug, Clone, Copy)]
pub struct NameLimits {
    /// Look-ups under way.
    pub at_once: usize,
    /// Names that wait to be looked up, and names of which it is remembered that they could not be.
    pub names: usize,
    /// A name whose look-up can't begin within this is given up.
    pub patience: Duration,
    /// How long a name that could not be looked up is not asked for again.
    pub failed_for: Duration,
}

impl From<&Limits> for NameLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            at_once: limits.name_lookups,
            names: limits.names_waiting,
            patience: Duration::from_millis(limits.name_lookup_wait_ms),
            failed_for: Duration::from_millis(limits.name_failure_ms),
        }
    }
}

/// Per cent of what is free that the names of one domain may take.
const PERCENT: usize = 50;

/// Asks the system, and waits for it.
type Ask = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// Addresses of a name, or why there are none.
type Found = Result<Vec<IpAddr>, Arc<str>>;

/// The look-ups of one worker.
pub struct Names {
    ask: Ask,
    inner: Rc<Inner>,
}

struct Inner {
    limits: NameLimits,
    parts: Rc<Parts<String>>,
    /// By name: those under way, and those that failed a moment ago.
    flights: RefCell<HashMap<String, Flight>>,
    waiting: Cell<usize>,
}

/// One look-up, for all who ask for its name meanwhile.
type Flight = watch::Receiver<Option<Found>>;

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    #[error("the name could not be looked up in time")]
    Late,
    #[error("too many names are being looked up")]
    TooMany,
    #[error("{0}")]
    Failed(Arc<str>),
}

impl Names {
    pub fn new(limits: NameLimits) -> Self {
        let system = |name: &str| Ok((name, 0).to_socket_addrs()?.map(|found| found.ip()).collect());
        Self::asking(limits, Arc::new(system))
    }

    fn asking(limits: NameLimits, ask: Ask) -> Self {
        let parts = Parts::new(PERCENT, limits.at_once);
        Self { ask, inner: Rc::new(Inner { limits, parts, flights: RefCell::default(), waiting: Cell::new(0) }) }
    }

    /// The addresses of `name`, in the order of the system.
    ///
    /// # Errors
    /// There is none, or none within `timeout`.
    pub async fn look_up(&self, name: &str, timeout: Duration) -> Result<Vec<IpAddr>, NotFound> {
        let mut flight = self.flight(name)?;
        let landed = async { flight.wait_for(Option::is_some).await.ok().and_then(|found| found.clone()) };
        match tokio::time::timeout(timeout, landed).await {
            Ok(Some(found)) => found.map_err(NotFound::Failed),
            Ok(None) | Err(_) => Err(NotFound::Late),
        }
    }

    /// The look-up of `name` that is under way, or a new one.
    fn flight(&self, name: &str) -> Result<Flight, NotFound> {
        // A final dot stays: without it the system tries its search domains.
        let name = name.to_ascii_lowercase();
        let mut flights = self.inner.flights.borrow_mut();
        if let Some(flight) = flights.get(&name) {
            return Ok(flight.clone());
        }
        // A domain with a part left begins at once, even while names of other domains wait.
        let part = self.inner.parts.take(&domain(&name)).ok();
        if part.is_none() {
            Limited::NameLookups.hit();
            if self.inner.waiting.get() >= self.inner.limits.names {
                return Err(NotFound::TooMany);
            }
            // Counted here: its task begins later.
            self.inner.waiting.set(self.inner.waiting.get() + 1);
        }
        let (done, flight) = watch::channel(None);
        flights.insert(name.clone(), flight.clone());
        let (inner, ask) = (Rc::clone(&self.inner), Arc::clone(&self.ask));
        tokio::task::spawn_local(inner.fly(name, part, done, ask));
        Ok(flight)
    }
}

impl Inner {
    /// Looks a name up for all who wait for it, and remembers a failure for a moment.
    async fn fly(
        self: Rc<Self>,
        name: String,
        part: Option<Part<String>>,
        done: watch::Sender<Option<Found>>,
        ask: Ask,
    ) {
        let part = match part {
            Some(part) => Some(part),
            None => self.wait(&domain(&name)).await,
        };
        let found = match part {
            None => Err("other look-ups take too long".into()),
            Some(part) => {
                let asked = name.clone();
                let found = tokio::task::spawn_blocking(move || ask(&asked)).await.map_err(io::Error::other).flatten();
                drop(part);
                found.map_err(|error| Arc::from(error.to_string()))
            }
        };
        let failed = found.is_err();
        done.send_replace(Some(found));
        if failed && self.flights.borrow().len() < self.limits.names {
            tokio::time::sleep(self.limits.failed_for).await;
        }
        self.flights.borrow_mut().remove(&name);
    }

    /// The right to a look-up, unless others take too long.
    async fn wait(&self, domain: &String) -> Option<Part<String>> {
        let part = tokio::time::timeout(self.limits.patience, self.parts.get(domain, |_| ())).await.ok();
        self.waiting.set(self.waiting.get() - 1);
        part
    }
}

/// The last two labels of a name: whose servers answer for it, or do not.
fn domain(name: &str) -> String {
    let name = name.trim_end_matches('.');
    let from = name.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
    name[from..].to_owned()
}

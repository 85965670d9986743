//! Looks up names outside the mesh, as the machine does. A look-up that nobody waits for any more goes on, since the system
//! knows no way to end it: so there are few at a time, one for each name, and the names of one domain take a part of them.

#[cfg(test)]
mod tests;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::parts::Parts;
use crate::telemetry::counters::Limited;

/// How long a name that could not be looked up is not asked for again.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// Names that are remembered for that, and names that wait to be looked up.
const MOST_NAMES: usize = 1_024;

/// Per cent of what is free that the names of one domain may take.
const PERCENT: usize = 50;

/// Asks the system, and waits for it.
type Ask = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// Addresses of a name, or why there are none.
type Found = Result<Vec<IpAddr>, Arc<str>>;

/// The look-ups of one worker.
pub struct Names {
    ask: Ask,
    patience: Duration,
    inner: Rc<Inner>,
}

struct Inner {
    parts: Rc<Parts<String>>,
    /// By name: those under way, and those that failed a moment ago.
    flights: RefCell<HashMap<String, Rc<Flight>>>,
    waiting: Cell<usize>,
}

/// One look-up, for all who ask for its name meanwhile.
#[derive(Default)]
struct Flight {
    found: OnceCell<Found>,
    landed: Notify,
}

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
    /// At most `at_once` look-ups; one that can't begin within `patience` is given up.
    pub fn new(at_once: usize, patience: Duration) -> Self {
        let system = |name: &str| Ok((name, 0).to_socket_addrs()?.map(|found| found.ip()).collect());
        Self::asking(at_once, patience, Arc::new(system))
    }

    fn asking(at_once: usize, patience: Duration, ask: Ask) -> Self {
        let parts = Parts::new(PERCENT, at_once);
        Self { ask, patience, inner: Rc::new(Inner { parts, flights: RefCell::default(), waiting: Cell::new(0) }) }
    }

    /// The addresses of `name`, in the order of the system.
    ///
    /// # Errors
    /// There is none, or none within `timeout`.
    pub async fn look_up(&self, name: &str, timeout: Duration) -> Result<Vec<IpAddr>, NotFound> {
        let flight = self.flight(name)?;
        let landed = async {
            loop {
                let landed = flight.landed.notified();
                if let Some(found) = flight.found.get() {
                    return found.clone().map_err(NotFound::Failed);
                }
                landed.await;
            }
        };
        tokio::time::timeout(timeout, landed).await.unwrap_or(Err(NotFound::Late))
    }

    /// The look-up of `name` that is under way, or a new one.
    fn flight(&self, name: &str) -> Result<Rc<Flight>, NotFound> {
        // A final dot stays: without it the system tries its search domains.
        let name = name.to_ascii_lowercase();
        let mut flights = self.inner.flights.borrow_mut();
        if let Some(flight) = flights.get(&name) {
            return Ok(Rc::clone(flight));
        }
        if self.inner.waiting.get() >= MOST_NAMES {
            Limited::NameLookups.hit();
            return Err(NotFound::TooMany);
        }
        let flight = Rc::<Flight>::default();
        flights.insert(name.clone(), Rc::clone(&flight));
        let (inner, ask, patience) = (Rc::clone(&self.inner), Arc::clone(&self.ask), self.patience);
        tokio::task::spawn_local(inner.fly(name, Rc::clone(&flight), ask, patience));
        Ok(flight)
    }
}

impl Inner {
    /// Looks a name up for all who wait for it, and remembers a failure for a moment.
    async fn fly(self: Rc<Self>, name: String, flight: Rc<Flight>, ask: Ask, patience: Duration) {
        self.waiting.set(self.waiting.get() + 1);
        let part = match self.parts.take(&domain(&name)) {
            Ok(part) => Some(part),
            Err(_) => {
                Limited::NameLookups.hit();
                tokio::time::timeout(patience, self.parts.wait(&domain(&name))).await.ok()
            }
        };
        self.waiting.set(self.waiting.get() - 1);
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
        let _ = flight.found.set(found);
        flight.landed.notify_waiters();
        if failed && self.flights.borrow().len() < MOST_NAMES {
            tokio::time::sleep(FAILED_FOR).await;
        }
        self.flights.borrow_mut().remove(&name);
    }
}

/// The last two labels of a name: whose servers answer for it, or do not.
fn domain(name: &str) -> String {
    let name = name.trim_end_matches('.');
    let from = name.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
    name[from..].to_owned()
}

//! Looks up names outside the mesh, as the machine does. A look-up that nobody waits for any more goes on, since the system
//! knows no way to end it: so there are few at a time, one for each name, and the names of one domain take a part of them.

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
        let name = name.trim_end_matches('.').to_ascii_lowercase();
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
    let from = name.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
    name[from..].to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use tokio::task::LocalSet;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    const AT_ONCE: usize = 8;

    /// A system whose servers for `silent.example` say nothing until they are told to.
    #[derive(Default)]
    struct System {
        asked: Mutex<Vec<String>>,
        speaks: Mutex<bool>,
        told: Condvar,
    }

    impl System {
        fn names(self: &Arc<Self>, patience: Duration) -> Rc<Names> {
            let system = Arc::clone(self);
            let ask = move |name: &str| {
                system.asked.lock().unwrap().push(name.to_owned());
                if name.ends_with("silent.example") {
                    drop(system.told.wait_while(system.speaks.lock().unwrap(), |speaks| !*speaks).unwrap());
                }
                if name.starts_with("no.") {
                    Err(io::Error::other("no such name"))
                } else {
                    Ok(vec![[192, 0, 2, 1].into()])
                }
            };
            Rc::new(Names::asking(AT_ONCE, patience, Arc::new(ask)))
        }

        fn speak(&self) {
            *self.speaks.lock().unwrap() = true;
            self.told.notify_all();
        }

        fn asked(&self) -> usize {
            self.asked.lock().unwrap().len()
        }
    }

    async fn eventually(mut is: impl FnMut() -> bool) {
        let waiting = async {
            while !is() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, waiting).await.expect("it comes true");
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn silent_servers_stop_no_other_names_and_few_of_theirs_are_asked_for() {
        run(async {
            let system = Arc::<System>::default();
            let names = system.names(SOON);
            let looking: Vec<_> = (0..200)
                .map(|nth| {
                    let names = Rc::clone(&names);
                    tokio::task::spawn_local(async move {
                        names.look_up(&format!("{nth}.silent.example"), Duration::from_millis(20)).await
                    })
                })
                .collect();
            for looking in looking {
                assert_eq!(looking.await.unwrap(), Err(NotFound::Late));
            }
            assert_eq!(system.asked(), AT_ONCE / 2, "those that nobody waits for any more are still under way");
            for name in ["a.example.org", "localhost", "b.example.net."] {
                assert_eq!(names.look_up(name, SOON).await, Ok(vec![[192, 0, 2, 1].into()]), "{name}");
            }
            system.speak();
        });
    }

    #[test]
    fn one_name_is_asked_for_once_at_a_time() {
        run(async {
            let system = Arc::<System>::default();
            let names = system.names(SOON);
            let looking: Vec<_> = (0..50)
                .map(|nth| {
                    let names = Rc::clone(&names);
                    let name = if nth % 2 == 0 { "a.silent.example" } else { "A.Silent.example." };
                    tokio::task::spawn_local(async move { names.look_up(name, SOON).await })
                })
                .collect();
            eventually(|| system.asked() == 1).await;
            system.speak();
            for looking in looking {
                assert!(looking.await.unwrap().is_ok());
            }
            assert_eq!(system.asked(), 1);
            eventually(|| names.inner.flights.borrow().is_empty()).await;
            assert!(names.look_up("a.silent.example", SOON).await.is_ok());
            assert_eq!(system.asked(), 2, "what was found is not kept: its addresses may change");
        });
    }

    #[test]
    fn a_failure_is_remembered_for_a_moment() {
        run(async {
            let system = Arc::<System>::default();
            let names = system.names(SOON);
            for _ in 0..3 {
                let failed = names.look_up("no.example", SOON).await.unwrap_err();
                assert_eq!(failed, NotFound::Failed("no such name".into()));
            }
            assert_eq!(system.asked(), 1);
            tokio::time::pause();
            tokio::time::advance(FAILED_FOR * 2).await;
            tokio::time::resume();
            eventually(|| names.inner.flights.borrow().is_empty()).await;
            assert!(names.look_up("no.example", SOON).await.is_err());
            assert_eq!(system.asked(), 2);
        });
    }

    #[test]
    fn what_waits_is_bounded_and_given_up() {
        run(async {
            let system = Arc::<System>::default();
            let names = system.names(Duration::from_millis(50));
            let many = MOST_NAMES + AT_ONCE / 2;
            tokio::time::pause();
            for nth in 0..many {
                assert!(names.flight(&format!("{nth}.silent.example")).is_ok());
                tokio::task::yield_now().await;
            }
            assert_eq!(names.look_up("one-more.silent.example", SOON).await, Err(NotFound::TooMany));
            tokio::time::resume();
            eventually(|| names.inner.waiting.get() == 0).await;
            let late = names.look_up("5.silent.example", SOON).await;
            assert_eq!(late, Err(NotFound::Failed("other look-ups take too long".into())));
            system.speak();
        });
    }

    #[test]
    fn a_domain_is_the_last_two_labels() {
        for (name, expect) in [("a.b.example.com", "example.com"), ("example.com", "example.com"), ("host", "host")] {
            assert_eq!(domain(name), expect);
        }
    }
}

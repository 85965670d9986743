//! Look-ups that are slow, many and the same, beside a system that answers when it is told to.

use std::sync::{Condvar, Mutex};

use tokio::task::LocalSet;

use super::*;

const SOON: Duration = Duration::from_secs(20);
const AT_ONCE: usize = 8;
const LIMITS: NameLimits =
    NameLimits { at_once: AT_ONCE, names: 256, patience: SOON, failed_for: Duration::from_secs(1) };

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
        Rc::new(Names::asking(NameLimits { patience, ..LIMITS }, Arc::new(ask)))
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
                let name = if nth % 2 == 0 { "a.silent.example" } else { "A.Silent.example" };
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
        tokio::time::advance(LIMITS.failed_for * 2).await;
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
        let many = LIMITS.names + AT_ONCE / 2;
        tokio::time::pause();
        for nth in 0..many {
            assert!(names.flight(&format!("{nth}.silent.example")).is_ok());
            tokio::task::yield_now().await;
        }
        assert_eq!(names.look_up("one-more.silent.example", SOON).await, Err(NotFound::TooMany));
        let other = names.look_up("a.example.org", SOON).await;
        assert!(other.is_ok(), "one domain takes nobody else's look-ups: {other:?}");
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

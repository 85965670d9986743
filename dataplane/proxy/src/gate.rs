//! Requests to one destination, of all workers of this proxy together: so many are under way at a time, so many more wait
//! for one of them to end, and others are refused at once. Off unless a TrafficPolicy asks for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weft_policy::bundle::{Limits, ObjectName};

use crate::gauges::OpenCount;

/// The gates that somebody holds, by destination.
#[derive(Debug, Clone, Default)]
pub struct Gates {
    gates: Arc<Mutex<BTreeMap<ObjectName, Weak<Gate>>>>,
    /// Requests that wait before any of them.
    pub waiting: OpenCount,
}

impl Gates {
    /// The gate of a destination that has these limits. Under other limits there is another gate: who went through the one
    /// before is not counted.
    pub fn of(&self, destination: &ObjectName, limits: &Limits) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let known = gates.get(destination).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| known.limits == *limits) {
            return known;
        }
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::new(Gate {
            limits: limits.clone(),
            places: Arc::new(Semaphore::new(limits.active as usize)),
            pending: AtomicU32::new(0),
            waiting: self.waiting.clone(),
        });
        gates.insert(destination.clone(), Arc::downgrade(&gate));
        gate
    }
}

#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    places: Arc<Semaphore>,
    pending: AtomicU32,
    waiting: OpenCount,
}

/// The place of one request, given back when it is dropped.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// Why a request gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GateFull {
    #[error("{0} are under way, and none may wait")]
    Active(u32),
    #[error("{0} wait for one of those under way to end")]
    Pending(u32),
    #[error("none of those under way ended within {0} ms")]
    Late(u64),
}

impl GateFull {
    /// A short constant, for metrics.
    pub fn reason(self) -> &'static str {
        match self {
            GateFull::Active(_) => "active_requests",
            GateFull::Pending(_) => "pending_requests",
            GateFull::Late(_) => "pending_time",
        }
    }
}

impl Gate {
    /// A place, where there is one now.
    ///
    /// # Errors
    /// As many are under way as may be.
    pub fn enter_at_once(&self) -> Result<Place, GateFull> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.map(Place).map_err(|_| GateFull::Active(self.limits.active))
    }

    /// A place, at once or after others have left, who came first first. Cancel safe: who gives up waits no longer.
    ///
    /// # Errors
    /// As many wait as may, or nobody left in time.
    pub async fn enter(&self) -> Result<Place, GateFull> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(Place(place));
        }
        let Limits { active, pending, pending_ms } = self.limits;
        if pending == 0 {
            return Err(GateFull::Active(active));
        }
        let _waiting = Waiting::begin(&self.pending, pending).ok_or(GateFull::Pending(pending))?;
        let _counted = self.waiting.enter();
        let left = tokio::time::timeout(Duration::from_millis(pending_ms), Arc::clone(&self.places).acquire_owned());
        match left.await {
            Ok(place) => Ok(Place(place.expect("nobody closes it"))),
            Err(_) => Err(GateFull::Late(pending_ms)),
        }
    }
}

/// One that waits.
struct Waiting<'g>(&'g AtomicU32);

impl<'g> Waiting<'g> {
    fn begin(pending: &'g AtomicU32, most: u32) -> Option<Self> {
        let one_more = |pending: u32| (pending < most).then_some(pending + 1);
        pending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Self(pending))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn name() -> ObjectName {
        ObjectName::new("shop", "cart")
    }

    fn limits(active: u32, pending: u32) -> Limits {
        Limits { active, pending, pending_ms: 1_000 }
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_under_way_so_many_wait_and_others_are_refused() {
        let gates = Gates::default();
        let gate = gates.of(&name(), &limits(2, 2));
        let (first, second) = (gate.enter().await.unwrap(), gate.enter().await.unwrap());
        let (mut third, mut fourth) = (pin!(gate.enter()), pin!(gate.enter()));
        let mut context = Context::from_waker(Waker::noop());
        assert!(third.as_mut().poll(&mut context).is_pending() && fourth.as_mut().poll(&mut context).is_pending());
        for _ in 0..3 {
            assert_eq!(gate.enter().await.unwrap_err(), GateFull::Pending(2), "who is refused changes nothing");
        }
        assert_eq!(gates.waiting.value(), 2);
        drop(first);
        // Who came first goes first, whoever asks first.
        assert!(fourth.as_mut().poll(&mut context).is_pending());
        let Poll::Ready(Ok(third)) = third.as_mut().poll(&mut context) else { panic!("it has a place") };
        assert_eq!(fourth.await.unwrap_err(), GateFull::Late(1_000), "nobody left in time");
        assert_eq!(gates.waiting.value(), 0);
        drop((second, third));
        assert_eq!(gate.places.available_permits(), 2);
    }

    #[tokio::test]
    async fn without_pending_ones_a_further_request_is_refused_at_once() {
        let gate = Gates::default().of(&name(), &limits(1, 0));
        let place = gate.enter().await.unwrap();
        assert_eq!(gate.enter().await.unwrap_err(), GateFull::Active(1));
        drop(place);
        assert!(gate.enter().await.is_ok());
    }

    #[tokio::test]
    async fn who_gives_up_makes_room() {
        let gate = Gates::default().of(&name(), &limits(1, 1));
        let _place = gate.enter().await.unwrap();
        {
            let mut waits = pin!(gate.enter());
            assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!(gate.enter().await.unwrap_err(), GateFull::Pending(1));
        }
        assert_eq!(gate.pending.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn all_workers_have_one_gate_for_a_destination_and_its_limits() {
        let gates = Gates::default();
        let gate = gates.of(&name(), &limits(1, 0));
        assert!(Arc::ptr_eq(&gate, &gates.clone().of(&name(), &limits(1, 0))));
        let other = gates.of(&name(), &limits(2, 0));
        assert!(!Arc::ptr_eq(&gate, &other));
        drop((gate, other));
        let _last = gates.of(&ObjectName::new("shop", "other"), &limits(1, 0));
        assert_eq!(gates.gates.lock().unwrap().len(), 1, "what nobody holds is forgotten");
    }
}

//! What this proxy has under way to one destination, all its workers together: so many requests at a time, so many more that
//! wait for one of them to end, so many TCP connections and so many that are sent again; others are refused at once. Off
//! unless a TrafficPolicy asks for it.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weft_flow::{Gradient, GradientSettings, Measured};
use weft_policy::bundle::{AdaptiveLimit, Limits, ObjectName};

use crate::gauges::OpenCount;

type Known = Arc<Mutex<BTreeMap<ObjectName, Weak<Gate>>>>;

/// The gates that somebody holds, by destination.
#[derive(Debug, Clone, Default)]
pub struct Gates {
    gates: Known,
    /// The same of ExternalServices, which may have the names of services.
    outside: Known,
    /// Requests that wait before any of them.
    pub waiting: OpenCount,
}

impl Gates {
    /// The gate of a destination that has these limits. Under other limits there is another gate: who went through the one
    /// before is not counted.
    pub fn of(&self, destination: &ObjectName, limits: &Limits) -> Arc<Gate> {
        self.among(&self.gates, destination, limits)
    }

    /// The same of an ExternalService.
    pub fn outside(&self, external: &ObjectName, limits: &Limits) -> Arc<Gate> {
        self.among(&self.outside, external, limits)
    }

    fn among(&self, gates: &Known, destination: &ObjectName, limits: &Limits) -> Arc<Gate> {
        let mut gates = gates.lock().unwrap_or_else(PoisonError::into_inner);
        let known = gates.get(destination).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| known.limits == *limits) {
            return known;
        }
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::new(Gate::new(limits, self.waiting.clone()));
        gates.insert(destination.clone(), Arc::downgrade(&gate));
        gate
    }

    /// The limits of services that follow from latency, as they are now.
    pub fn adaptive(&self) -> Vec<(ObjectName, u32)> {
        let gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = |gate: Weak<Gate>| Some(gate.upgrade()?.adaptive.as_ref()?.locked().limit());
        gates.iter().filter_map(|(name, gate)| Some((name.clone(), limit(gate.clone())?))).collect()
    }
}

#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    /// Of requests; `None`, as for the others: as many as come.
    places: Option<Arc<Semaphore>>,
    pending: AtomicU32,
    waiting: OpenCount,
    connections: Option<Arc<Semaphore>>,
    retries: Option<Arc<Semaphore>>,
    adaptive: Option<Arc<Adaptive>>,
}

/// The limit that follows from latency, with its clock.
#[derive(Debug)]
struct Adaptive {
    gradient: Mutex<Gradient>,
    start: Instant,
}

/// The place of one request, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    _active: Option<OwnedSemaphorePermit>,
    measuring: Option<Measuring>,
}

/// The place of one connection, or of a request that is sent again.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// Why a request or connection gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GateFull {
    #[error("{0} are under way, and none may wait")]
    Active(u32),
    #[error("{0} wait for one of those under way to end")]
    Pending(u32),
    #[error("none of those under way ended within {0} ms")]
    Late(u64),
    #[error("{0} are under way, and none waits while no endpoint can be reached")]
    Unreachable(u32),
    #[error("{0} are under way, as many as its latency allows now")]
    Adaptive(u32),
    #[error("{0} connections are open")]
    Connections(u32),
}

impl GateFull {
    /// A short constant, for metrics.
    pub fn reason(self) -> &'static str {
        match self {
            GateFull::Active(_) => "active_requests",
            GateFull::Pending(_) => "pending_requests",
            GateFull::Late(_) => "pending_time",
            GateFull::Unreachable(_) => "pending_unreachable",
            GateFull::Adaptive(_) => "adaptive_limit",
            GateFull::Connections(_) => "active_connections",
        }
    }
}

/// Whether a request may wait for its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// As the limits have it.
    AsSet,
    /// Nobody of its destination can be reached: those that wait would wait in vain.
    Never,
}

impl Gate {
    fn new(limits: &Limits, waiting: OpenCount) -> Self {
        let semaphore = |most: Option<u32>| most.map(|most| Arc::new(Semaphore::new(most as usize)));
        Self {
            limits: limits.clone(),
            places: semaphore(Some(limits.active).filter(|active| *active > 0)),
            pending: AtomicU32::new(0),
            waiting,
            connections: semaphore(limits.connections),
            retries: semaphore(limits.retries),
            adaptive: limits.adaptive.as_ref().map(|settings| Arc::new(Adaptive::new(settings))),
        }
    }

    /// A place for a copy of a request, where there is one now. Its latency says nothing of others.
    ///
    /// # Errors
    /// As many are under way as may be.
    pub fn enter_at_once(&self) -> Result<Place, GateFull> {
        let active = self.active_at_once().map_err(|_| GateFull::Active(self.limits.active))?;
        let place = self.measured(active)?;
        if let Some(measuring) = &place.measuring {
            measuring.measured.set(Some(Measured::Nothing));
        }
        Ok(place)
    }

    /// A place, at once or after others have left, who came first first. Cancel safe: who gives up waits no longer.
    ///
    /// # Errors
    /// As many are under way as may be, and as many wait, or nobody left in time.
    pub async fn enter(&self, wait: Wait) -> Result<Place, GateFull> {
        let places = match self.active_at_once() {
            Ok(active) => return self.measured(active),
            Err(places) => places,
        };
        let Limits { active, pending, pending_ms, .. } = self.limits;
        if pending == 0 {
            return Err(GateFull::Active(active));
        }
        if wait == Wait::Never {
            return Err(GateFull::Unreachable(active));
        }
        let _waiting = Waiting::begin(&self.pending, pending).ok_or(GateFull::Pending(pending))?;
        let _counted = self.waiting.enter();
        let left = tokio::time::timeout(Duration::from_millis(pending_ms), places.acquire_owned());
        match left.await {
            Ok(place) => self.measured(Some(place.expect("nobody closes it"))),
            Err(_) => Err(GateFull::Late(pending_ms)),
        }
    }

    /// A place for a TCP connection, where there is one now; `None`: nobody counts them.
    ///
    /// # Errors
    /// As many are open as may be.
    pub fn connect(&self) -> Result<Option<Held>, GateFull> {
        let Some(connections) = &self.connections else { return Ok(None) };
        let full = || GateFull::Connections(self.limits.connections.unwrap_or_default());
        Arc::clone(connections).try_acquire_owned().map(|place| Some(Held(place))).map_err(|_| full())
    }

    /// Has a request be sent again, unless as many are as may be. It keeps its place in `held`, however often it is.
    pub fn retry(&self, held: &mut Option<Held>) -> bool {
        let Some(retries) = self.retries.as_ref().filter(|_| held.is_none()) else { return true };
        *held = Arc::clone(retries).try_acquire_owned().ok().map(Held);
        held.is_some()
    }

    /// A place of those that are counted, where they are. Where all are taken, what to wait for.
    fn active_at_once(&self) -> Result<Option<OwnedSemaphorePermit>, Arc<Semaphore>> {
        let Some(places) = &self.places else { return Ok(None) };
        Arc::clone(places).try_acquire_owned().map(Some).map_err(|_| Arc::clone(places))
    }

    /// The place of a request that is one of those that may be under way, if its latency lets it be.
    fn measured(&self, active: Option<OwnedSemaphorePermit>) -> Result<Place, GateFull> {
        let measuring = self.adaptive.as_ref().map(Adaptive::enter).transpose()?;
        Ok(Place { _active: active, measuring })
    }
}

impl Adaptive {
    fn new(settings: &AdaptiveLimit) -> Self {
        let AdaptiveLimit { least, most, window_ms } = *settings;
        let settings = GradientSettings { least, most, window: Duration::from_millis(window_ms) };
        Self { gradient: Mutex::new(Gradient::new(settings, Duration::ZERO)), start: Instant::now() }
    }

    fn locked(&self) -> MutexGuard<'_, Gradient> {
        self.gradient.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(this: &Arc<Self>) -> Result<Measuring, GateFull> {
        let mut gradient = this.locked();
        match gradient.enter() {
            true => {
                Ok(Measuring { adaptive: Arc::clone(this), began: this.start.elapsed(), measured: Cell::new(None) })
            }
            false => Err(GateFull::Adaptive(gradient.in_flight())),
        }
    }
}

/// A request whose latency moves the limit.
#[derive(Debug)]
struct Measuring {
    adaptive: Arc<Adaptive>,
    began: Duration,
    /// `None`: it was not answered so far.
    measured: Cell<Option<Measured>>,
}

impl Place {
    /// What it is for stands for as long as both sides like: it is none of those whose latency says how many may be under way.
    pub fn stands(&mut self) {
        if let Some(measuring) = self.measuring.take() {
            measuring.measured.set(Some(Measured::Nothing));
        }
    }

    /// Its answer began at that moment, with which it is none of those under way whose latency is measured: however
    /// long the answer takes, it holds up nobody. Not `good`: it failed, and how fast says nothing.
    pub fn answered(&mut self, at: Instant, good: bool) {
        let Some(measuring) = self.measuring.take() else { return };
        let latency = at.saturating_duration_since(measuring.adaptive.start).saturating_sub(measuring.began);
        let measured = if good { Measured::Latency(latency) } else { Measured::AtLeast(latency) };
        measuring.measured.set(Some(measured));
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        let now = self.adaptive.start.elapsed();
        let measured = self.measured.get().unwrap_or(Measured::AtLeast(now.saturating_sub(self.began)));
        self.adaptive.locked().leave(self.began, now, measured);
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

//! How many requests may be under way to a service, as its latency tells: the limit grows while answers take as long as they
//! do without a queue, and shrinks as they take longer. A gradient limiter, as Envoy's adaptive concurrency is one; other than
//! that one it never closes to measure: now and then it holds the half of the limit for one window.

#[cfg(test)]
mod models;

use std::time::Duration;

/// The limit before anything was measured, where the settings allow it.
const FIRST: u32 = 20;
/// Samples of which a window has at least so many; further ones than the last number are not kept.
const SAMPLES: (usize, usize) = (10, 250);
/// Latency that is this much above that without a queue, in percent, is none of the service's fault.
const TOLERANCE: u64 = 125;
/// A window takes the limit down to this at the most, per mille.
const STEEPEST: u64 = 500;
/// Windows after which the latency without a queue is measured anew.
const MEASURED_EACH: u32 = 20;
/// The limit is kept in thousandths.
const WHOLE: u64 = 1_000;

/// What holds for the limiter of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GradientSettings {
    /// At least 1.
    pub least: u32,
    /// Not less than `least`.
    pub most: u32,
    /// The limit moves once for each.
    pub window: Duration,
}

/// What the end of a request tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measured {
    /// It was answered, after so long.
    Latency(Duration),
    /// It was not, or not by the service's work: it took so long at least.
    AtLeast(Duration),
    Nothing,
}

/// The limiter of one service. Requests begin by [`Gradient::enter`] and end by [`Gradient::leave`].
#[derive(Debug)]
pub struct Gradient {
    settings: GradientSettings,
    /// In thousandths.
    limit: u64,
    /// The latency without a queue, in microseconds. `None`: it was not measured yet.
    base: Option<u64>,
    in_flight: u32,
    window: Window,
    /// Windows since `base` was measured.
    aged: u32,
    /// The limit is half of what it is, so that no queue is measured.
    measures: bool,
}

/// What is gathered until the limit moves.
#[derive(Debug, Default)]
struct Window {
    began: Duration,
    /// The most that were under way, or wanted to be.
    peak: u32,
    /// Microseconds.
    latencies: Vec<u64>,
}

impl Gradient {
    /// `now`: when its first window begins.
    pub fn new(settings: GradientSettings, now: Duration) -> Self {
        let least = settings.least.max(1);
        let settings = GradientSettings { least, most: settings.most.max(least), ..settings };
        Self {
            settings,
            limit: u64::from(FIRST.clamp(settings.least, settings.most)) * WHOLE,
            base: None,
            in_flight: 0,
            window: Window { began: now, ..Window::default() },
            aged: 0,
            measures: false,
        }
    }

    /// Requests that may be under way now.
    pub fn limit(&self) -> u32 {
        let limit = if self.measures { self.limit / 2 } else { self.limit };
        let whole = u32::try_from(limit / WHOLE).unwrap_or(u32::MAX);
        whole.clamp(self.settings.least, self.settings.most)
    }

    /// Requests that are under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Begins a request. False: as many are under way as may be.
    pub fn enter(&mut self) -> bool {
        let wanted = self.in_flight.saturating_add(1);
        self.window.peak = self.window.peak.max(wanted);
        let enters = self.in_flight < self.limit();
        if enters {
            self.in_flight = wanted;
        }
        enters
    }

    /// Ends a request that began at `began`.
    pub fn leave(&mut self, began: Duration, now: Duration, measured: Measured) {
        self.in_flight = self.in_flight.saturating_sub(1);
        // Those that began before met the queue that is not to be measured.
        if self.measures && began < self.window.began {
            return;
        }
        let micros = |latency: Duration| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1);
        let sample = match measured {
            Measured::Latency(latency) => Some(micros(latency)),
            // A client that gives up early says nothing, one that gives up late says that it is slow.
            Measured::AtLeast(latency) => {
                Some(micros(latency)).filter(|least| self.base.is_some_and(|base| *least > base))
            }
            Measured::Nothing => None,
        };
        let window = &mut self.window;
        if window.latencies.len() < SAMPLES.1 {
            window.latencies.extend(sample);
        }
        if window.latencies.len() >= SAMPLES.0 && now.saturating_sub(window.began) >= self.settings.window {
            self.close(now);
        }
    }

    /// Ends a window: the limit moves.
    fn close(&mut self, now: Duration) {
        let Window { peak, mut latencies, .. } =
            std::mem::replace(&mut self.window, Window { began: now, peak: self.in_flight, ..Window::default() });
        let middle = latencies.len() / 2;
        let median = *latencies.select_nth_unstable(middle).1;
        // With half as many as may be there is no queue either.
        let is_idle = u64::from(peak) * 2 * WHOLE <= self.limit;
        let measured = std::mem::take(&mut self.measures);
        let base = match self.base {
            Some(base) if !measured && !is_idle => {
                self.aged += 1;
                base.min(median)
            }
            Some(_) | None => {
                self.aged = 0;
                median
            }
        };
        self.base = Some(base);
        if !measured {
            self.step(base, median, is_idle);
        }
        self.measures = self.aged >= MEASURED_EACH;
    }

    fn step(&mut self, base: u64, median: u64, is_idle: bool) {
        let gradient = (u128::from(base) * u128::from(TOLERANCE) * 10 / u128::from(median)).min(u128::from(WHOLE));
        let gradient = u64::try_from(gradient).unwrap_or(WHOLE).max(STEEPEST);
        // The room for a queue that shows whether more can be taken: the root of the limit.
        let room = (self.limit * WHOLE).isqrt();
        let moved = self.limit * gradient / WHOLE + room;
        let moved = if is_idle { moved.min(self.limit) } else { moved };
        let GradientSettings { least, most, .. } = self.settings;
        self.limit = moved.clamp(u64::from(least) * WHOLE, u64::from(most) * WHOLE);
    }
}
